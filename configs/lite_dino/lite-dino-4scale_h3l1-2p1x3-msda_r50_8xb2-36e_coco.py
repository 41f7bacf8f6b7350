"""Lite-DINO H3L1-(2+1)x3 without key-aware attention: row "HL LL" of Table 5."""

_base_ = './lite-dino-4scale_h3l1-2p1x3_r50_8xb2-36e_coco.py'

model = dict(
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(type='MultiScaleDeformableAttention'))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type='MultiScaleDeformableAttention'))),
)
