"""Lite-H-DETR H3L1-(2+1)x3, Table 4. The canonical config of the family."""

_base_ = '../h_detr/h-detr_r50_8xb2-36e_coco.py'

model = dict(
    type='LiteHDETR',
    encoder=dict(
        type='LiteEncoder',
        num_layers=6,
        num_blocks=3,
        num_low_levels=1,
        layer_cfg=dict(self_attn_cfg=dict(type='KeyAwareDeformableAttention')),
    ),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type='KeyAwareDeformableAttention'))),
)
