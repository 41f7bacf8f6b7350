"""Lite-Deformable-DETR H2L2-(6+1)x1, Table 6."""

_base_ = './lite-deformable-detr_h3l1-2p1x3_r50_16xb2-50e_coco.py'

model = dict(encoder=dict(num_blocks=1, num_low_levels=2))
