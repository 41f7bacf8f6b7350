"""DINO without stride 8, with key-aware attention and no interleaving: row "KDA" of Table 5."""

_base_ = ['../dino/dino-3scale_r50_8xb2-36e_coco.py', '../_base_/models/lite_detr.py']

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)

model = dict(
    type='LiteDINO',
    encoder=dict(_base_.lite_encoder, num_blocks=1, num_low_levels=0),
    decoder=_base_.lite_decoder,
    bbox_head=dict(type='LiteDINOHead'),
)
