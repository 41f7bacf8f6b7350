"""Two-stage Deformable DETR without strides 8 and 16: row "2scale" of Table 6."""

_base_ = './deformable-detr-refine-twostage-3scale_r50_16xb2-50e_coco.py'

num_levels = 2
model = dict(
    num_feature_levels=num_levels,
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=[2048], num_outs=num_levels),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=num_levels))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=num_levels))),
)
