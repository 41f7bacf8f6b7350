"""The interleaved multi-scale encoder of Lite DETR."""

from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from mmdet.models.layers import DeformableDetrTransformerEncoder
from mmdet.registry import MODELS
from mmengine.model import ModuleList
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .lite_encoder_layer import TokenParts, replace_tokens

LOW_LEVEL_UPDATES = ('joint', 'sequential', 'none')


@MODELS.register_module()
class LiteEncoder(DeformableDetrTransformerEncoder):
    """Encoder that updates few high-level tokens often and many low-level tokens rarely (Lite DETR, Sec. 3.3 to 3.5).

    The ``num_low_levels`` levels of the highest resolution are the low-level ones: the first levels, as detectors
    order them from high to low resolution, or the last with ``low_levels_first=False``. Keys and values are always all
    tokens in their latest state. ``num_blocks`` (B) equal blocks follow each other:

    - ``low_level_update='joint'`` (released models): a block has A layers, ``num_layers = A * B``. The first A - 1
      update high-level tokens. The last one attends with all tokens, after which high-level tokens go through the
      ordinary feed-forward network and low-level ones through a small one. Written ``(A+1)xB`` in the paper.
    - ``'sequential'`` (Eq. 1 and 2 read literally): A layers update high-level tokens, then one layer updates
      low-level tokens alone, ``num_layers = (A + 1) * B``.
    - ``'none'`` (row "HL" of Table 5): low-level tokens are looked at and never updated; the encoder returns the
      high-level tokens only, or all with ``keep_low_levels=True``.

    With ``num_low_levels=0`` it is the encoder of Deformable DETR, bit for bit and with the same state dict.

    Args:
        num_layers (int): Number of layers.
        num_blocks (int): Number of blocks, B. Defaults to 3.
        num_low_levels (int): Number of low-level levels: 1 for H3L1, 2 for H2L2. Defaults to 1.
        layer_cfg (dict): Config of the layers as in mmdet's encoder, with two keys more: ``layer_cfg.type`` names the
            layer, by default ``LiteEncoderLayer``, and ``layer_cfg.self_attn_cfg.type`` the attention, by default
            mmcv's deformable attention.
        low_level_update (str): 'joint', 'sequential' or 'none'. Defaults to 'joint'.
        keep_low_levels (bool): Whether the encoder returns low-level tokens that it never updates. Defaults to False.
        low_level_ffn_ratio (int): How many times smaller the hidden size of the low-level feed-forward network is,
            lambda in Sec. 3.5. Defaults to 8.
        low_levels_first (bool): Whether levels are ordered from high to low resolution. Defaults to True.
        num_cp (int): Number of first layers whose activations are recomputed in the backward pass instead of kept.
            Defaults to -1, none.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If the numbers of layers, blocks or levels do not fit together.
    """

    def __init__(
        self,
        num_layers: int,
        layer_cfg: dict,
        num_blocks: int = 3,
        num_low_levels: int = 1,
        low_level_update: str = 'joint',
        low_level_ffn_ratio: int = 8,
        low_levels_first: bool = True,
        keep_low_levels: bool = False,
        num_cp: int = -1,
        init_cfg: Optional[dict] = None,
    ) -> None:
        if low_level_update not in LOW_LEVEL_UPDATES:
            raise ValueError(
                f'low_level_update must be one of {", ".join(map(repr, LOW_LEVEL_UPDATES))}, got {low_level_update!r}'
            )
        if num_layers < 1 or num_blocks < 1 or num_layers % num_blocks:
            raise ValueError(f'num_layers must be a multiple of num_blocks, got {num_layers=} and {num_blocks=}')
        if low_level_update == 'sequential' and num_low_levels and num_layers < 2 * num_blocks:
            raise ValueError(
                'a sequential block needs a high-level and a low-level layer, so num_layers must be at least '
                f'2 * num_blocks, got {num_layers=} and {num_blocks=}'
            )
        num_levels = layer_cfg.get('self_attn_cfg', {}).get('num_levels', 4)
        if not 0 <= num_low_levels < num_levels:
            raise ValueError(
                f'num_low_levels must be at least 0 and leave a high-level one of the {num_levels} levels, '
                f'got {num_low_levels}'
            )
        if num_cp > num_layers:
            raise ValueError(f'num_cp must not exceed the {num_layers} layers, got {num_cp}')
        self.num_blocks = num_blocks
        self.num_levels = num_levels
        self.num_low_levels = num_low_levels
        self.low_level_update = low_level_update
        self.low_level_ffn_ratio = low_level_ffn_ratio
        self.low_levels_first = low_levels_first
        self.keep_low_levels = keep_low_levels
        super().__init__(num_layers=num_layers, layer_cfg=layer_cfg, num_cp=num_cp, init_cfg=init_cfg)

    @property
    def drops_low_levels(self) -> bool:
        """Whether the output holds the tokens of the high-level levels only."""
        return self.low_level_update == 'none' and self.num_low_levels > 0 and not self.keep_low_levels

    def _init_layers(self) -> None:
        """Build the layers; the last one of each block updates the low-level tokens."""
        self.layers = ModuleList()
        for index in range(self.num_layers):
            layer_cfg = dict(self.layer_cfg)
            if self._closes_block(index):
                layer_cfg['low_level_ffn_channels'] = self._low_level_ffn_channels()
                layer_cfg['updates_high_level'] = self.low_level_update == 'joint'
            self.layers.append(MODELS.build({'type': 'LiteEncoderLayer', **layer_cfg}))
        self.embed_dims = self.layers[0].embed_dims

    def _closes_block(self, index: int) -> bool:
        """Whether layer ``index`` updates low-level tokens."""
        if self.num_low_levels == 0 or self.low_level_update == 'none':
            return False
        return (index + 1) % (self.num_layers // self.num_blocks) == 0

    def _low_level_ffn_channels(self) -> int:
        channels = self.layer_cfg.get('ffn_cfg', {}).get('feedforward_channels', 1024)  # mmdet's default
        if self.low_level_ffn_ratio < 1 or channels % self.low_level_ffn_ratio:
            raise ValueError(
                f'low_level_ffn_ratio must be a divisor of feedforward_channels, {channels}, '
                f'got {self.low_level_ffn_ratio}'
            )
        return channels // self.low_level_ffn_ratio

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        key_padding_mask: Optional[Tensor],
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        level_shapes: Optional[Sequence[Tuple[int, int]]] = None,
        reference_points: Optional[Tensor] = None,
        **kwargs,
    ) -> Tensor:
        """Encode all tokens.

        Args:
            query (Tensor): Tokens of all levels, (bs, num_value, dim).
            query_pos (Tensor): Positional and level embedding, (bs, num_value, dim).
            key_padding_mask (Tensor, optional): True at padded tokens, (bs, num_value).
            spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2).
            level_start_index (Tensor): First token of each level, (num_levels, ).
            valid_ratios (Tensor): Valid share (w, h) of each level's map, (bs, num_levels, 2).
            level_shapes (sequence[tuple[int, int]], optional): ``spatial_shapes`` in Python numbers. Without it they
                are read back from the device once. Defaults to None.
            reference_points (Tensor, optional): Normalised centre of each token, (bs, num_value, num_levels, 2).
                Defaults to None, computed from shapes and ratios.

        Returns:
            Tensor: Memory, (bs, num_value, dim); only the high-level tokens with ``low_level_update='none'``.
        """
        if level_shapes is None:
            level_shapes = spatial_shapes.tolist()
        parts = self.token_parts(level_shapes)
        if reference_points is None:
            reference_points = self.get_encoder_reference_points(level_shapes, valid_ratios, device=query.device)
        inputs = dict(
            query_pos=query_pos,
            reference_points=reference_points,
            key_padding_mask=key_padding_mask,
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            valid_ratios=valid_ratios,
            **kwargs,
        )
        for index in range(self.num_layers):
            query = self.update_tokens(index, query, parts, in_place=index > 0, **inputs)
        return query[:, parts.high] if self.drops_low_levels else query

    def token_parts(self, level_shapes: Sequence[Tuple[int, int]]) -> TokenParts:
        """Where low-level and high-level tokens are.

        Args:
            level_shapes (sequence[tuple[int, int]]): (H_l, W_l) of each level.

        Raises:
            ValueError: If the number of levels is not that of the encoder.
        """
        if len(level_shapes) != self.num_levels:
            raise ValueError(f'spatial_shapes must hold {self.num_levels} levels, got {len(level_shapes)}')
        sizes = [height * width for height, width in level_shapes]
        num_first = self.num_low_levels if self.low_levels_first else self.num_levels - self.num_low_levels
        first, second = slice(0, sum(sizes[:num_first])), slice(sum(sizes[:num_first]), sum(sizes))
        return TokenParts(low=first, high=second) if self.low_levels_first else TokenParts(low=second, high=first)

    def update_tokens(
        self,
        index: int,
        query: Tensor,
        parts: TokenParts,
        query_pos: Tensor,
        reference_points: Tensor,
        in_place: bool = False,
        **kwargs,
    ) -> Tensor:
        """Let layer ``index`` update its part of the tokens.

        Args:
            index (int): Index of the layer.
            query (Tensor): All tokens, (bs, num_value, dim).
            parts (TokenParts): Where low-level and high-level tokens are.
            query_pos (Tensor): Positional and level embedding, (bs, num_value, dim).
            reference_points (Tensor): (bs, num_value, num_levels, 2).
            in_place (bool): Whether ``query`` may be overwritten where no gradient is wanted. Defaults to False.
            kwargs: What the layer needs for attention.

        Returns:
            Tensor: All tokens, (bs, num_value, dim).
        """
        part = self.updated_part(index, parts)
        inputs = dict(
            query=query[:, part],
            query_pos=query_pos[:, part],
            value=query,
            reference_points=reference_points[:, part],
            parts=parts,
            **kwargs,
        )
        return self.apply_layer(index, part, inputs, in_place)

    def apply_layer(self, index: int, part: slice, inputs: Dict[str, Any], in_place: bool) -> Tensor:
        """Run layer ``index`` and put what it returns in the place of the tokens that it updates.

        Args:
            index (int): Index of the layer.
            part (slice): The tokens that it updates.
            inputs (dict): Arguments of the layer; its ``value`` are all tokens, (bs, num_value, dim).
            in_place (bool): Whether they may be overwritten where no gradient is wanted.

        Returns:
            Tensor: All tokens, (bs, num_value, dim).
        """
        layer = self.layers[index]
        if index < self.num_cp and torch.is_grad_enabled():
            updated = checkpoint(layer, **inputs, use_reentrant=False)
        else:
            updated = layer(**inputs)
        return replace_tokens(inputs['value'], part, updated, in_place)

    def updated_part(self, index: int, parts: TokenParts) -> slice:
        """The tokens that layer ``index`` updates."""
        if not self._closes_block(index):
            return parts.high
        if self.low_level_update == 'sequential':
            return parts.low
        return slice(0, max(parts.low.stop, parts.high.stop))
