"""Lite-DINO H2L2-(2+1)x3 without key-aware attention: row "HL LL" of the second half of Table 5."""

_base_ = './lite-dino-4scale_h3l1-2p1x3-msda_r50_8xb2-36e_coco.py'

model = dict(encoder=dict(num_low_levels=2))
