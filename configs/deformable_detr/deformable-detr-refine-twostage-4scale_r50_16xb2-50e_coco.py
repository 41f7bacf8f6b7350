"""Two-stage Deformable DETR with box refinement, four levels: the baseline of Tables 3 and 6."""

_base_ = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)
custom_hooks = [dict(type='FusedAttentionHook')]  # mmdet's layers build mmcv's attention whatever the config says

model = dict(neck=dict(bias=True))  # as in the authors' models; mmdet's has no bias before the norm
