"""Lite-Deformable-DETR H3L1-(2+1)x4, Table 6."""

_base_ = './lite-deformable-detr_h3l1-2p1x3_r50_16xb2-50e_coco.py'

model = dict(encoder=dict(num_layers=8, num_blocks=4))
