"""Lite-DINO H3L1-(6+1)x1 with Swin-T, Table 4."""

_base_ = './lite-dino-4scale_h3l1-2p1x3_swin-t_8xb2-36e_coco.py'

model = dict(encoder=dict(num_blocks=1))
