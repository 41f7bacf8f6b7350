"""DINO with four levels, the baseline of Tables 4 and 5; the head is that of the Lite rows."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py'

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)
custom_hooks = [dict(type='FusedAttentionHook')]  # mmdet's layers build mmcv's attention whatever the config says

model = dict(
    neck=dict(bias=True),  # as in the authors' models; mmdet's DINO has no bias before the norm
    bbox_head=dict(type='LiteDINOHead'),  # decodes boxes as the authors' head does
)
