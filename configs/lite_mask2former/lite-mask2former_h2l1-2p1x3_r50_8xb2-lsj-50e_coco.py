"""Lite-Mask2Former H2L1-(2+1)x3 for instance segmentation; not in the paper. The canonical config of the family.

The pixel decoder encodes strides 8, 16 and 32; stride 8 is the low level.
"""

_base_ = ['mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', '../_base_/models/lite_detr.py']

custom_imports = dict(imports=['lite_detr_mmdet'], allow_failed_imports=False)

model = dict(
    panoptic_head=dict(
        pixel_decoder=dict(type='LiteMSDeformAttnPixelDecoder', encoder=_base_.lite_encoder),
    ),
)
