"""Lite-DINO H3L1-(2+1)x3 without key-aware attention: row "HL LL" of Table 5.

The fused class has the parameters and, up to rounding, the outputs of mmcv's ``MultiScaleDeformableAttention``, which
may be written in its place.
"""

_base_ = './lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'

model = dict(
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(type='FusedMultiScaleDeformableAttention'))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type='FusedMultiScaleDeformableAttention'))),
)
