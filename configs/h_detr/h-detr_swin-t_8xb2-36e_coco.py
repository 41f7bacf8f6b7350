"""H-DETR with Swin-T, the authors' recipe of 36 epochs."""

_base_ = ['./h-detr_r50_8xb2-36e_coco.py', '../_base_/backbones/swin-t.py']

model = dict(backbone=dict(_delete_=True, **_base_.swin_t), neck=dict(in_channels=_base_.swin_t_channels))
