"""DINO without strides 8 and 16.

The DINO-2scale of Table 5 has other multiply-adds: ``lite-dino-4scale_h2l2-6p0x1-msda_r50_8xb2-36e_coco`` fits it.
"""

_base_ = './dino-3scale_r50_8xb2-36e_coco.py'

num_levels = 2
model = dict(
    num_feature_levels=num_levels,
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=[2048], num_outs=num_levels),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=num_levels))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=num_levels))),
)
