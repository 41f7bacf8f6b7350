"""Lite-H-DETR H2L2-(2+1)x3."""

_base_ = './lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py'

model = dict(encoder=dict(num_low_levels=2))
