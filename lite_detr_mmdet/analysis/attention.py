"""What the deformable attention of a detector attends to in an image: tensors of each layer."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, List, Optional, Sequence, Tuple, Union

import torch
from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor

from ..models.layers.attention_call import AttentionCall
from .sampling import Samples, compute_samples

Shapes = Tuple[Tuple[int, int], ...]


@dataclass(eq=False)
class AttentionLayer:
    """The deformable attention of one layer.

    Locations and weights are computed from the layer's inputs when they are first asked for, those of all queries by
    :attr:`samples`, those of some by :meth:`of_queries`.

    Attributes:
        part (str): 'encoder' or 'decoder'.
        index (int): Index of the layer in its part.
        name (str): Name of the attention in the model, e.g. 'encoder.layers.0.self_attn'.
        level_shapes (tuple): (H_l, W_l) of each level.
        updates (str): Which tokens the layer updates: 'all', 'high' or 'low' in the encoder; 'queries' in the decoder.
        tokens (slice, optional): Where these tokens are among those of all levels; None in the decoder.
        valid_ratios (Tensor): Share (w, h) of each level's map that is no padding, (bs, num_levels, 2).
        image_sizes (Tensor): Width and height of the images before they were resized, (bs, 2).
    """

    part: str
    index: int
    name: str
    level_shapes: Shapes
    updates: str
    tokens: Optional[slice]
    valid_ratios: Tensor
    image_sizes: Tensor
    module: MultiScaleDeformableAttention = field(repr=False)
    call: AttentionCall = field(repr=False)

    @property
    def num_queries(self) -> int:
        """Number of queries."""
        return self.call.query.shape[1]

    @cached_property
    def samples(self) -> Samples:
        """Locations and weights of all queries."""
        return compute_samples(self.module, self.call)

    @property
    def locations(self) -> Tensor:
        """Sampling locations (x, y), normalised, (bs, num_queries, num_heads, num_levels, num_points, 2)."""
        return self.samples.locations

    @property
    def weights(self) -> Tensor:
        """Weights of the samples, (bs, num_queries, num_heads, num_levels, num_points)."""
        return self.samples.weights

    @property
    def reference_points(self) -> Tensor:
        """Reference points or boxes, normalised over the padded map, (bs, num_queries, num_levels, 2 or 4)."""
        return self.call.reference_points

    def of_queries(self, queries: Union[Sequence[int], Tensor, slice]) -> Samples:
        """Locations and weights of some queries.

        Args:
            queries (sequence[int] | Tensor | slice): Their indices.
        """
        return compute_samples(self.module, self.call.of_queries(queries))

    def to_pixels(self, points: Tensor) -> Tensor:
        """Normalised points in pixels of the images as they were before resizing, the corner of the image at (0, 0).

        Args:
            points (Tensor): (bs, ..., num_levels, 2 or 4), or (bs, ..., num_levels, num_points, 2) for locations.
                Boxes stay (cx, cy, w, h).
        """
        scale = self.image_sizes[:, None] / self.valid_ratios  # (bs, num_levels, 2)
        if points.shape[-1] == 4:
            scale = torch.cat([scale, scale], dim=-1)
        num_levels = len(self.level_shapes)
        if points.ndim > 4:  # locations
            return points * scale.view(len(scale), 1, 1, num_levels, 1, 2)
        return points * scale.view(len(scale), *[1] * (points.ndim - 3), num_levels, -1)

    @property
    def reference_pixels(self) -> Tensor:
        """Reference points or boxes (cx, cy, w, h) in pixels of the images, (bs, num_queries, 2 or 4)."""
        return self.to_pixels(self.reference_points)[:, :, 0]

    @property
    def location_pixels(self) -> Tensor:
        """:attr:`locations` in pixels of the images."""
        return self.to_pixels(self.locations)

    def level_of(self, query: int) -> Optional[int]:
        """Level of the token that is a query of the encoder; None in the decoder."""
        if self.tokens is None:
            return None
        token = self.tokens.start + query
        for level, (height, width) in enumerate(self.level_shapes):
            token -= height * width
            if token < 0:
                return level
        raise IndexError(f'query must be less than {self.num_queries}, got {query}')


@dataclass(eq=False)
class QuerySelection:
    """How a two-stage detector chose its queries among the encoder's tokens.

    Attributes:
        scores (Tensor): Score of each token from 0 to 1, (bs, num_tokens), by which the host chooses: of the best
            class in DINO and its relatives, of the first, "foreground", in Deformable DETR and H-DETR.
        level_shapes (tuple): (H_l, W_l) of the levels that the tokens belong to.
        chosen (Tensor, optional): Tokens that became queries, best first, (bs, num_queries). None in DDQ, which also
            suppresses neighbours.
    """

    scores: Tensor
    level_shapes: Shapes
    chosen: Optional[Tensor]

    def maps(self) -> List[Tensor]:
        """Scores of each level, (bs, H_l, W_l)."""
        pieces = self.scores.split([height * width for height, width in self.level_shapes], dim=1)
        return [piece.unflatten(1, shape) for piece, shape in zip(pieces, self.level_shapes)]


@dataclass(eq=False)
class AttentionTrace:
    """What :func:`lite_detr_mmdet.analysis.trace_attention` found.

    Attributes:
        encoder (list[AttentionLayer]): Layers of the encoder.
        decoder (list[AttentionLayer]): Cross-attention of the layers of the decoder.
        selection (QuerySelection, optional): None if the detector does not choose its queries among tokens.
        predictions (list[DetDataSample]): What the detector returned.
    """

    encoder: List[AttentionLayer]
    decoder: List[AttentionLayer]
    selection: Optional[QuerySelection]
    predictions: List[Any]

    def layer(self, part: str, index: int = -1) -> AttentionLayer:
        """A layer; negative indices count from the last.

        Raises:
            ValueError: If there is no such layer.
        """
        if part not in ('encoder', 'decoder'):
            raise ValueError(f"part must be 'encoder' or 'decoder', got {part!r}")
        layers = getattr(self, part)
        if not -len(layers) <= index < len(layers):
            raise ValueError(f'layer must be from 0 to {len(layers) - 1} in this {part}, got {index}')
        return layers[index]
