"""Lite-Grounding-DINO H3L1-(2+1)x3 from scratch on COCO; not in the paper. The canonical config of the family.

Needs ``pip install 'transformers<5'`` for the text encoder, BERT.
"""

_base_ = 'mmdet::grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py'

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)

model = dict(
    type='LiteGroundingDINO',
    encoder=dict(
        type='LiteGroundingDinoEncoder',
        num_layers=6,
        num_blocks=3,
        num_low_levels=1,
        layer_cfg=dict(self_attn_cfg=dict(type='KeyAwareDeformableAttention')),
    ),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(type='KeyAwareDeformableAttention'))),
)
