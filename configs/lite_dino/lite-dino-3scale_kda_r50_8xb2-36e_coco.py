"""DINO without stride 8, with key-aware attention and no interleaving: row "KDA" of Table 5."""

_base_ = './dino-3scale_r50_8xb2-36e_coco.py'

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)

model = dict(
    type='LiteDINO',
    encoder=dict(
        type='LiteEncoder',
        num_blocks=1,
        num_low_levels=0,
        layer_cfg=dict(self_attn_cfg=dict(type='KeyAwareDeformableAttention')),
    ),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type='KeyAwareDeformableAttention'))),
    bbox_head=dict(type='LiteDINOHead'),
)
