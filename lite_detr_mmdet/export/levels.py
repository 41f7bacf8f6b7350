"""The feature levels of an image as tokens, using operators that exporters support."""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn


class Levels(NamedTuple):
    """Tokens of all levels and where they are.

    Attributes:
        shapes (list[tuple[int, int]]): (H_l, W_l) of each level, Python numbers or symbols.
        tokens (Tensor): (bs, num_value, dim).
        position (Tensor): Positional and level embedding, (bs or 1, num_value, dim).
        padding_mask (Tensor, optional): True at padded tokens, (bs, num_value).
        valid_sizes (list[Tensor], optional): Valid (w, h) of each level, (bs, 2), where there is padding.
        valid_ratios (Tensor): Valid share (w, h) of each level, (bs or 1, num_levels, 2).
    """

    shapes: List[Tuple[int, int]]
    tokens: Tensor
    position: Tensor
    padding_mask: Optional[Tensor]
    valid_sizes: Optional[List[Tensor]]
    valid_ratios: Tensor

    def keep_last(self, memory: Tensor, num_dropped: int) -> 'Levels':
        """Without the first ``num_dropped`` levels, for an encoder that returns fewer tokens."""
        start = sum(height * width for height, width in self.shapes[:num_dropped])
        return Levels(
            self.shapes[num_dropped:],
            memory,
            self.position[:, start:],
            None if self.padding_mask is None else self.padding_mask[:, start:],
            None if self.valid_sizes is None else self.valid_sizes[num_dropped:],
            self.valid_ratios[:, num_dropped:],
        )


def flatten_levels(model: nn.Module, feats: Sequence[Tensor], padding_mask: Optional[Tensor]) -> Levels:
    """Tokens of feature maps, as the host's ``pre_transformer`` makes them.

    Args:
        model (nn.Module): A detector of the family of Deformable DETR.
        feats (sequence[Tensor]): Feature maps, (bs, dim, H_l, W_l) each.
        padding_mask (Tensor, optional): True at padded pixels of the images, (bs, H, W).
    """
    shapes = [tuple(feat.shape[-2:]) for feat in feats]
    masks = [None if padding_mask is None else shrink_mask(padding_mask, *shape) for shape in shapes]
    position = []
    for level, (feat, mask) in enumerate(zip(feats, masks)):
        # Without padding all images of a batch have the same embedding.
        sine = model.positional_encoding(mask, input=None if mask is not None else feat[:1])
        position.append(sine.flatten(2).transpose(1, 2).to(feat.dtype) + model.level_embed[level])
    if padding_mask is None:
        valid_sizes, valid_ratios = None, torch.ones(1, len(feats), 2)
    else:
        valid_sizes = [torch.stack([(~mask[:, 0]).sum(1), (~mask[:, :, 0]).sum(1)], -1) for mask in masks]
        valid_ratios = torch.stack([model.get_valid_ratio(mask) for mask in masks], 1)
    return Levels(
        shapes,
        torch.cat([feat.flatten(2).transpose(1, 2) for feat in feats], 1),
        torch.cat(position, 1),
        None if padding_mask is None else torch.cat([mask.flatten(1) for mask in masks], 1),
        valid_sizes,
        valid_ratios,
    )


def shrink_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """Nearest pixels of a mask, chosen as ``torch.nn.functional.interpolate`` chooses them.

    Runtimes differ in how they round; here it is written out.

    Args:
        mask (Tensor): (bs, H, W).
        height (int): Height of the result.
        width (int): Width of the result.
    """
    for dim, size in ((1, height), (2, width)):
        whole = mask.shape[dim]
        scale = torch.scalar_tensor(whole, dtype=torch.float32) / torch.scalar_tensor(size, dtype=torch.float32)
        index = (torch.arange(size, dtype=torch.float32) * scale).floor().long().clamp(max=whole - 1)
        mask = mask.index_select(dim, index)
    return mask


def centres(height: int, width: int) -> Tensor:
    """Centres of the pixels of a map in pixels, row by row, (height * width, 2), (x, y)."""
    y = torch.arange(height, dtype=torch.float32) + 0.5
    x = torch.arange(width, dtype=torch.float32) + 0.5
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).flatten(0, 1)


def encoder_reference_points(levels: Levels) -> Tensor:
    """Normalised centre of each token on each level, (bs or 1, num_value, num_levels, 2)."""
    points = []
    for level, (height, width) in enumerate(levels.shapes):
        size = torch.stack([torch.scalar_tensor(number, dtype=torch.float32) for number in (width, height)])
        points.append(centres(height, width) / (levels.valid_ratios[:, None, level] * size))
    return torch.cat(points, 1)[:, :, None] * levels.valid_ratios[:, None]


def encoder_proposals(levels: Levels) -> Tuple[Tensor, Tensor]:
    """The boxes that the encoder's tokens propose, before the sigmoid, and which of them are valid.

    Returns:
        tuple[Tensor, Tensor]: (bs or 1, num_value, 4), infinite where they do not count, and (bs or 1, num_value, 1).
    """
    proposals = []
    for level, (height, width) in enumerate(levels.shapes):
        if levels.valid_sizes is None:
            size = torch.stack([torch.scalar_tensor(number, dtype=torch.float32) for number in (width, height)])
            centre = (centres(height, width) / size)[None]
        else:
            centre = centres(height, width) / levels.valid_sizes[level][:, None]
        proposals.append(torch.cat([centre, torch.full_like(centre, 0.05 * 2.0**level)], -1))
    boxes = torch.cat(proposals, 1)
    counts = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
    if levels.padding_mask is not None:
        counts = counts & ~levels.padding_mask[..., None]
    return torch.log(boxes / (1 - boxes)).masked_fill(~counts, float('inf')), counts
