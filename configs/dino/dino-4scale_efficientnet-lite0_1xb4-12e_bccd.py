"""DINO with EfficientNet-Lite0 and 128 channels on BCCD: what its Lite form is compared with."""

_base_ = '../lite_dino/lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_1xb4-12e_bccd.py'

model = dict(
    encoder=dict(
        num_blocks=1, num_low_levels=0, layer_cfg=dict(self_attn_cfg=dict(type='FusedMultiScaleDeformableAttention'))
    ),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type='FusedMultiScaleDeformableAttention'))),
)
