"""Lite-Deformable-DETR H3L1-(2+1)x3, Tables 3 and 6. The canonical config of the family."""

_base_ = './deformable-detr-refine-twostage-4scale_r50_16xb2-50e_coco.py'

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)

model = dict(
    type='LiteDeformableDETR',
    encoder=dict(
        type='LiteEncoder',
        num_layers=6,
        num_blocks=3,
        num_low_levels=1,
        layer_cfg=dict(self_attn_cfg=dict(type='KeyAwareDeformableAttention')),
    ),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type='KeyAwareDeformableAttention'))),
)
