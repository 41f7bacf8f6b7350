"""Lite-DINO H4L1-(2+1)x3 with five levels and Swin-L; not in the paper.

Strides 4 to 64. Stride 4 is the low level: as in H3L1 it holds three quarters of the tokens. H3L2 is
``model.encoder.num_low_levels=2``.
"""

_base_ = ['mmdet::dino/dino-5scale_swin-l_8xb2-36e_coco.py', '../_base_/models/lite_detr.py']

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)

model = dict(
    type='LiteDINO',
    neck=dict(bias=True),  # as in the authors' models; mmdet's DINO has no bias before the norm
    encoder=_base_.lite_encoder,
    decoder=_base_.lite_decoder,
    bbox_head=dict(type='LiteDINOHead'),  # decodes boxes as the authors' head does
)
