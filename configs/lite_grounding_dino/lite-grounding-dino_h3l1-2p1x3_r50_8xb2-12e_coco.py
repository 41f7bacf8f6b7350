"""Lite-Grounding-DINO H3L1-(2+1)x3 from scratch on COCO; not in the paper. The canonical config of the family.

Needs ``pip install 'transformers<5'`` for the text encoder, BERT.
"""

_base_ = ['mmdet::grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py', '../_base_/models/lite_detr.py']

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)

model = dict(
    type='LiteGroundingDINO',
    encoder=dict(_base_.lite_encoder, type='LiteGroundingDinoEncoder'),
    decoder=_base_.lite_decoder,
)
