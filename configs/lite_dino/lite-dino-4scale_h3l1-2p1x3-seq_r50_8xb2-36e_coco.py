"""Lite-DINO H3L1-(2+1)x3 with the sequential block, Eq. 1 and 2 of the paper read literally."""

_base_ = './lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'

model = dict(encoder=dict(num_layers=9, low_level_update='sequential'))
