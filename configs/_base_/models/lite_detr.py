"""What makes a DETR a Lite DETR: the interleaved encoder, H3L1-(2+1)x3, and key-aware attention in both stacks.

A host's config merges the two into its own encoder and decoder::

    _base_ = ['HOST.py', '../_base_/models/lite_detr.py']
    model = dict(type='LiteHOST', encoder=_base_.lite_encoder, decoder=_base_.lite_decoder)
"""

lite_encoder = dict(
    type='LiteEncoder',
    num_layers=6,
    num_blocks=3,
    num_low_levels=1,
    layer_cfg=dict(self_attn_cfg=dict(type='KeyAwareDeformableAttention')),
)
lite_decoder = dict(layer_cfg=dict(cross_attn_cfg=dict(type='KeyAwareDeformableAttention')))
