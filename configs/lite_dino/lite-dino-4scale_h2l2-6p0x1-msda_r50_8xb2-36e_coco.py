"""Six updates of the two coarsest of four levels: DINO-2scale of Table 5, as its GFLOPs say.

The encoder looks at the other two and hands them on as they are; the decoder sees all four. DINO on two feature maps,
``dino-2scale_r50_8xb2-36e_coco``, has 18 % less than the paper's 113 GFLOPs; this has them.
"""

_base_ = './lite-dino-4scale_h3l1-6p0x1-msda_r50_8xb2-36e_coco.py'

model = dict(
    encoder=dict(num_low_levels=2, keep_low_levels=True),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=4))),
)
