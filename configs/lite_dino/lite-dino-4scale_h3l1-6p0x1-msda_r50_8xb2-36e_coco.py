"""Six high-level updates and no low-level update, without key-aware attention: row "HL" of Table 5.

Low-level tokens are looked at by the encoder and dropped after it: the decoder sees three levels.
"""

_base_ = './lite-dino-4scale_h3l1-2p1x3-msda_r50_8xb2-36e_coco.py'

model = dict(
    encoder=dict(num_blocks=1, low_level_update='none'),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=3))),
)
