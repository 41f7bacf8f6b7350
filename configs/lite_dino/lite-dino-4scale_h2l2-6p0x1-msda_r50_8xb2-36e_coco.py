"""Six updates of the two coarsest levels, which look at all four: DINO-2scale of Table 5, as its GFLOPs say.

DINO on two feature maps, ``dino-2scale_r50_8xb2-36e_coco``, has 18 % less than the paper's 113 GFLOPs; this has them.
"""

_base_ = './lite-dino-4scale_h3l1-6p0x1-msda_r50_8xb2-36e_coco.py'

model = dict(
    encoder=dict(num_low_levels=2),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=2))),
)
