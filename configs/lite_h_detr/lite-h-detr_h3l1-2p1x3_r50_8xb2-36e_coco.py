"""Lite-H-DETR H3L1-(2+1)x3, Table 4. The canonical config of the family."""

_base_ = ['../h_detr/h-detr_r50_8xb2-36e_coco.py', '../_base_/models/lite_detr.py']

model = dict(
    type='LiteHDETR',
    encoder=_base_.lite_encoder,
    decoder=_base_.lite_decoder,
)
