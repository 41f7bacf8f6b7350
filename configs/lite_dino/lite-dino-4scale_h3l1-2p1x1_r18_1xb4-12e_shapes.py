"""The quickstart: a small Lite-DINO H3L1-(2+1)x1 with key-aware attention on the generated shapes."""

_base_ = ['../dino/dino-4scale_r18_1xb4-12e_shapes.py', '../_base_/models/lite_detr.py']

model = dict(
    type='LiteDINO',
    encoder=dict(_base_.lite_encoder, num_layers=2, num_blocks=1),
    decoder=_base_.lite_decoder,
    bbox_head=dict(type='LiteDINOHead'),
)
