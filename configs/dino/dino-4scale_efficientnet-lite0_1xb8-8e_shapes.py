"""DINO with EfficientNet-Lite0 and 128 channels on the shapes: what the quickstart's model is compared with."""

_base_ = '../lite_dino/lite-dino-4scale_h3l1-2p1x1_efficientnet-lite0_1xb8-8e_shapes.py'

model = dict(
    encoder=dict(
        num_blocks=1, num_low_levels=0, layer_cfg=dict(self_attn_cfg=dict(type='FusedMultiScaleDeformableAttention'))
    ),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type='FusedMultiScaleDeformableAttention'))),
)
