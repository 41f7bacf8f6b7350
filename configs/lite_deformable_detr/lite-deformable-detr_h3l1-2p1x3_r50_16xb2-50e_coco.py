"""Lite-Deformable-DETR H3L1-(2+1)x3, Tables 3 and 6. The canonical config of the family."""

_base_ = [
    '../deformable_detr/deformable-detr-refine-twostage-4scale_r50_16xb2-50e_coco.py',
    '../_base_/models/lite_detr.py',
]

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)

model = dict(
    type='LiteDeformableDETR',
    encoder=_base_.lite_encoder,
    decoder=_base_.lite_decoder,
)
