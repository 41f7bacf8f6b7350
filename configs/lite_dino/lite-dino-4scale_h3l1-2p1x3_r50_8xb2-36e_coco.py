"""Lite-DINO H3L1-(2+1)x3: Tables 4 and 5 of the paper, the last row of each. The canonical config of the family."""

_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-36e_coco.py', '../_base_/models/lite_detr.py']

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)

model = dict(
    type='LiteDINO',
    neck=dict(bias=True),  # as in the authors' models; mmdet's DINO has no bias before the norm
    encoder=_base_.lite_encoder,
    decoder=_base_.lite_decoder,
    bbox_head=dict(type='LiteDINOHead'),  # decodes boxes as the authors' head does
)
