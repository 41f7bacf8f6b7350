"""DINO with four levels, the baseline of Tables 4 and 5."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py'

model = dict(neck=dict(bias=True))  # as in the authors' models; mmdet's DINO has no bias before the norm
