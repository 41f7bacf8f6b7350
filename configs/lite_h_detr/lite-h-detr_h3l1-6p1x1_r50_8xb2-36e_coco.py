"""Lite-H-DETR H3L1-(6+1)x1."""

_base_ = './lite-h-detr_h3l1-2p1x3_r50_8xb2-36e_coco.py'

model = dict(encoder=dict(num_blocks=1))
