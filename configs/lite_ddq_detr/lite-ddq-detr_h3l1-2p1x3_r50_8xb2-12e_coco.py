"""Lite-DDQ-DETR H3L1-(2+1)x3; not in the paper. The canonical config of the family."""

_base_ = ['mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py', '../_base_/models/lite_detr.py']

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)

model = dict(
    type='LiteDDQDETR',
    neck=dict(bias=True),  # as in the other Lite detectors; mmdet's has no bias before the norm
    encoder=_base_.lite_encoder,
    decoder=_base_.lite_decoder,
)
