"""The pixel decoder of Mask2Former with the interleaved encoder."""

from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmdet.registry import MODELS
from mmengine.config import ConfigDict


@MODELS.register_module()
class LiteMSDeformAttnPixelDecoder(MSDeformAttnPixelDecoder):
    """Pixel decoder whose encoder comes from the registry; not in the paper.

    It takes the place of ``MSDeformAttnPixelDecoder`` in Mask2Former and all that builds on its head. Levels are
    ordered from low to high resolution there, so the low-level tokens are the last ones; the outputs keep that order.

    Args:
        encoder (ConfigDict): Config of the encoder, ``LiteEncoder`` unless it has a ``type``. Its
            ``layer_cfg.self_attn_cfg`` takes a ``type`` too.
        args, kwargs: See ``MSDeformAttnPixelDecoder``.

    Raises:
        ValueError: If the encoder returns high-level tokens only: masks are made from the highest resolution.
    """

    def __init__(self, *args, encoder: ConfigDict, **kwargs) -> None:
        attention = encoder.layer_cfg.self_attn_cfg
        embed_dims = attention.get('embed_dims', 256)
        # The parent names its encoder's class in the code: give it the smallest one of this width and these levels.
        placeholder = ConfigDict(
            num_layers=1,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=embed_dims, num_levels=attention.num_levels),
                ffn_cfg=dict(embed_dims=embed_dims, feedforward_channels=1),
            ),
        )
        super().__init__(*args, encoder=placeholder, **kwargs)
        self.encoder = MODELS.build({'type': 'LiteEncoder', **encoder, 'low_levels_first': False})
        if self.encoder.drops_low_levels:
            raise ValueError("low_level_update must be 'joint' or 'sequential' in a pixel decoder, got 'none'")
