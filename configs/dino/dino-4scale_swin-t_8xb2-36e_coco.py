"""DINO with four levels and Swin-T, the baseline of Table 4."""

_base_ = ['./dino-4scale_r50_8xb2-36e_coco.py', '../_base_/backbones/swin-t.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_t), neck=dict(in_channels=_base_.swin_t_channels))
