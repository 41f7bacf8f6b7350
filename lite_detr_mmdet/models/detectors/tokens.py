"""The tokens that a detector makes of an image, from its size alone."""

from typing import List, Tuple

import torch
from mmdet.models.detectors import DDQDETR, DINO, DeformableDETR
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .h_detr import HDETR
from .registry_transformer_mixin import RegistryTransformerMixin


def level_shapes(model: nn.Module, height: int, width: int) -> List[Tuple[int, int]]:
    """(H_l, W_l) of each level of an image, without computing them."""
    weight = next(model.backbone.parameters())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        feats = model.extract_feat(torch.zeros(1, 3, height, width, dtype=weight.dtype, device=weight.device))
    return [tuple(feat.shape[-2:]) for feat in feats]


def check_num_tokens(model: nn.Module, height: int, width: int) -> None:
    """Check that an image has as many tokens as the detector makes queries of them.

    The hosts of MMDetection need that. Those of this package take what there is, DDQ fills up its queries itself.

    Args:
        model (nn.Module): A detector.
        height (int): Height of the image, in pixels.
        width (int): Width.

    Raises:
        ValueError: If there are fewer tokens than queries.
    """
    if not isinstance(model, (DINO, DeformableDETR)) or isinstance(model, (RegistryTransformerMixin, HDETR, DDQDETR)):
        return
    if not model.as_two_stage:
        return
    num_tokens = sum(rows * columns for rows, columns in level_shapes(model, height, width))
    if num_tokens < model.num_queries:
        raise ValueError(
            f'an image of {height}x{width} has {num_tokens} tokens, fewer than the {model.num_queries} queries that '
            f"MMDetection's {type(model).__name__} chooses from them: it needs larger images (--shape)"
        )
