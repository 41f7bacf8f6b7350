"""DINO with EfficientNet-Lite0 and 128 channels: what its Lite form is compared with.

mmdet's ``DINO`` works at 256 channels only. This is ``LiteDINO`` without low-level tokens and with ordinary attention,
which equals mmdet's DINO bit for bit at 256 channels, with the head of the Lite form.
"""

_base_ = '../lite_dino/lite-dino-4scale_h3l1-2p1x3_efficientnet-lite0_8xb2-36e_coco.py'

model = dict(
    encoder=dict(
        num_blocks=1, num_low_levels=0, layer_cfg=dict(self_attn_cfg=dict(type='FusedMultiScaleDeformableAttention'))
    ),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type='FusedMultiScaleDeformableAttention'))),
)
