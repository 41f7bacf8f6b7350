"""Lite-H-DETR H3L1-(6+1)x1 with Swin-T, Table 4."""

_base_ = ['./lite-h-detr_h3l1-6p1x1_r50_8xb2-36e_coco.py', '../_base_/backbones/swin-t.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_t), neck=dict(in_channels=_base_.swin_t_channels))
