"""Key-aware deformable attention as a module."""

from typing import List, Optional, Union

from mmcv.ops import MultiScaleDeformableAttention
from mmdet.registry import MODELS
from mmengine.model import initialize, xavier_init
from torch import Tensor, nn

from ...ops import key_aware_deform_attn
from .attention_inputs import attention_inputs
from .split_heads import split_heads


@MODELS.register_module()
class KeyAwareDeformableAttention(MultiScaleDeformableAttention):
    """Key-aware deformable attention, KDA (Lite DETR, Sec. 3.6).

    Deformable attention predicts the weights of its samples from the query alone. KDA samples keys as well as values
    and compares the query with them, so there is no ``attention_weights`` layer but a ``query_proj`` (and, with
    ``key_proj=True``, a ``key_proj``). It takes the place of mmcv's ``MultiScaleDeformableAttention``: same arguments
    of ``forward``, and a subclass, so that detectors re-initialise it as they do its parent.

    Args:
        embed_dims (int): Channels of the tokens. Defaults to 256.
        num_heads (int): Number of heads. Defaults to 8.
        num_levels (int): Number of feature levels. Defaults to 4.
        num_points (int): Sampling points per head and level. Defaults to 4.
        dropout (float): Dropout on the output before the identity is added. Defaults to 0.1.
        batch_first (bool): Whether tokens are (bs, n, embed_dims) or (n, bs, embed_dims). Defaults to False.
        key_proj (bool): Whether keys have a projection of their own. If False the projected value is the key, as in
            all released models, and is sampled only once. Defaults to False.
        shared_offsets (bool): Whether the levels share their sampling offsets. Defaults to False.
        backend (str): Backend of :func:`lite_detr_mmdet.ops.key_aware_deform_attn`. Defaults to 'auto'.
        init_cfg (dict | list[dict], optional): Initialisation config of mmengine, applied after the initial values
            of :meth:`init_weights`. Defaults to None.

    Raises:
        ValueError: If ``embed_dims`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        dropout: float = 0.1,
        batch_first: bool = False,
        key_proj: bool = False,
        shared_offsets: bool = False,
        backend: str = 'auto',
        init_cfg: Union[dict, List[dict], None] = None,
    ) -> None:
        super().__init__(
            embed_dims=embed_dims,
            num_heads=num_heads,
            num_levels=num_levels,
            num_points=num_points,
            dropout=dropout,
            batch_first=batch_first,
            init_cfg=init_cfg,
        )
        self.shared_offsets = shared_offsets
        self.backend = backend
        self.attention_weights = None  # hosts and initialisers may look for the name
        if shared_offsets:
            self.sampling_offsets = nn.Linear(embed_dims, num_heads * num_points * 2)
        self.query_proj = nn.Linear(embed_dims, embed_dims)
        self.key_proj = nn.Linear(embed_dims, embed_dims) if key_proj else None
        self.init_weights()

    def init_weights(self) -> None:
        """Offsets point away from the reference in a direction per head; projections are Xavier-uniform.

        ``init_cfg`` is applied after that; the parent ignores it.
        """
        super().init_weights()
        if not hasattr(self, 'query_proj'):  # called by the parent's constructor, before the layers of this class
            return
        if self.shared_offsets:
            bias = self.sampling_offsets.bias.data
            self.sampling_offsets.bias.data = (
                bias.view(self.num_heads, self.num_levels, self.num_points, 2)[:, 0].reshape(-1).clone()
            )
        for layer in (self.query_proj, self.key_proj):
            if layer is not None:
                xavier_init(layer, distribution='uniform', bias=0.0)
        if self.init_cfg:
            initialize(self, self.init_cfg)

    def forward(
        self,
        query: Tensor,
        key: Optional[Tensor] = None,
        value: Optional[Tensor] = None,
        identity: Optional[Tensor] = None,
        query_pos: Optional[Tensor] = None,
        key_padding_mask: Optional[Tensor] = None,
        reference_points: Optional[Tensor] = None,
        spatial_shapes: Optional[Tensor] = None,
        level_start_index: Optional[Tensor] = None,
        **kwargs,
    ) -> Tensor:
        """Attend to the sampled tokens and add the identity.

        Shapes are given for ``batch_first=True``; otherwise the first two dimensions are exchanged.

        Args:
            query (Tensor): (bs, num_queries, embed_dims).
            key (Tensor, optional): Ignored, as in the parent: keys are made from ``value``, which sits at the sampled
                locations. Defaults to None.
            value (Tensor, optional): (bs, num_value, embed_dims). Defaults to None, the query.
            identity (Tensor, optional): Added to the output, shape of ``query``. Defaults to None, the query.
            query_pos (Tensor, optional): Added to the query, not to the identity. Defaults to None.
            key_padding_mask (Tensor, optional): True at padded tokens, (bs, num_value). Their key and value are zero,
                so a padded sample has logit 0. Defaults to None.
            reference_points (Tensor): (bs, num_queries, num_levels, 2 or 4), normalised points or boxes.
            spatial_shapes (Tensor): (H_l, W_l) of each level, (num_levels, 2).
            level_start_index (Tensor): First token of each level, (num_levels, ).

        Returns:
            Tensor: (bs, num_queries, embed_dims).
        """
        query, value, identity = attention_inputs(query, value, identity, query_pos, self.batch_first)
        bs, num_queries, _ = query.shape
        offset_levels = 1 if self.shared_offsets else self.num_levels
        output = key_aware_deform_attn(
            query=self.query_proj(query).view(bs, num_queries, self.num_heads, -1),
            value=self._project(self.value_proj, value, key_padding_mask),
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            reference_points=reference_points,
            sampling_offsets=self.sampling_offsets(query).view(
                bs, num_queries, self.num_heads, offset_levels, self.num_points, 2
            ),
            key=None if self.key_proj is None else self._project(self.key_proj, value, key_padding_mask),
            backend=self.backend,
        )
        output = self.output_proj(output)
        if not self.batch_first:
            output = output.transpose(0, 1)
        return self.dropout(output) + identity

    def _project(self, layer: nn.Linear, value: Tensor, key_padding_mask: Optional[Tensor]) -> Tensor:
        """Project tokens, zero the padded ones and split the heads: (bs, num_value, num_heads, head_dim)."""
        return split_heads(layer(value), self.num_heads, key_padding_mask)
