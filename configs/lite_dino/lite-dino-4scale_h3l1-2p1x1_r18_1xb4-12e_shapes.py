"""The quickstart: a small Lite-DINO H3L1-(2+1)x1 with key-aware attention on the generated shapes."""

_base_ = './dino-4scale_r18_1xb4-12e_shapes.py'

model = dict(
    type='LiteDINO',
    encoder=dict(
        type='LiteEncoder',
        num_blocks=1,
        num_low_levels=1,
        layer_cfg=dict(self_attn_cfg=dict(type='KeyAwareDeformableAttention')),
    ),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type='KeyAwareDeformableAttention'))),
    bbox_head=dict(type='LiteDINOHead'),
)
