"""Lite-H-DETR H2L2-(2+1)x3 with Swin-T, Table 4."""

_base_ = ['./lite-h-detr_h2l2-2p1x3_r50_8xb2-36e_coco.py', '../_base_/backbones/swin-t.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_t), neck=dict(in_channels=_base_.swin_t_channels))
