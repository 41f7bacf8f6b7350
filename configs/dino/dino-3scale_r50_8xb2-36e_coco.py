"""DINO without stride 8: the first row of Table 5, DINO-3scale of Table 1."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py'

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)
custom_hooks = [dict(type='FusedAttentionHook')]  # mmdet's layers build mmcv's attention whatever the config says

num_levels = 3
model = dict(
    num_feature_levels=num_levels,
    backbone=dict(out_indices=(2, 3)),
    neck=dict(in_channels=[1024, 2048], num_outs=num_levels, bias=True),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=num_levels))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=num_levels))),
    bbox_head=dict(type='LiteDINOHead'),  # the head of the Lite rows
)
