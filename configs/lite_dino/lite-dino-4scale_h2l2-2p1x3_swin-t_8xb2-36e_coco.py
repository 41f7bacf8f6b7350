"""Lite-DINO H2L2-(2+1)x3 with Swin-T, Table 4."""

_base_ = './lite-dino-4scale_h3l1-2p1x3_swin-t_8xb2-36e_coco.py'

model = dict(encoder=dict(num_low_levels=2))
