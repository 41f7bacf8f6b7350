"""Lite-Deformable-DETR H3L1-(3+1)x2, Tables 3 and 6."""

_base_ = './lite-deformable-detr_h3l1-2p1x3_r50_16xb2-50e_coco.py'

model = dict(encoder=dict(num_blocks=2))
