"""Names and layouts of the backbones' weights: the authors' ResNet (torchvision's) and Swin beside mmdet's."""

from typing import Tuple

from mmdet.models.backbones.swin import swin_converter
from torch import Tensor

PREFIX = 'backbone.0.'


def backbone_to_mmdet(name: str, tensor: Tensor, backbone: str) -> Tuple[str, Tensor]:
    """Name and value in mmdet of a weight of the authors' backbone.

    Args:
        name (str): The authors' name, which starts with 'backbone.0.'.
        tensor (Tensor): The weight.
        backbone (str): 'resnet' or 'swin'.
    """
    # H-DETR and all ResNets have the backbone inside a module named body, DINO's Swin does not.
    name = name.removeprefix(PREFIX).removeprefix('body.')
    if backbone == 'resnet':
        return f'backbone.{name}', tensor
    ((new_name, new_tensor),) = swin_converter({name: tensor}).items()
    return new_name, new_tensor


def backbone_to_official(name: str, tensor: Tensor, backbone: str, family: str) -> Tuple[str, Tensor]:
    """Inverse of :func:`backbone_to_mmdet`.

    Args:
        name (str): mmdet's name, which starts with 'backbone.'.
        tensor (Tensor): The weight.
        backbone (str): 'resnet' or 'swin'.
        family (str): 'dino', 'h_detr' or 'deformable_detr'.
    """
    name = name.removeprefix('backbone.')
    if backbone == 'resnet':
        return f'{PREFIX}body.{name}', tensor
    if 'downsample.reduction' in name or 'downsample.norm' in name:
        tensor = _merge_in_official_order(tensor)
    for mmdet, official in (
        ('attn.w_msa.', 'attn.'),
        ('ffn.layers.0.0.', 'mlp.fc1.'),
        ('ffn.layers.1.', 'mlp.fc2.'),
        ('patch_embed.projection.', 'patch_embed.proj.'),
    ):
        name = name.replace(mmdet, official)
    name = f'layers.{name.removeprefix("stages.")}' if name.startswith('stages.') else name
    return f'{PREFIX}{"" if family == "dino" else "body."}{name}', tensor


def _merge_in_official_order(tensor: Tensor) -> Tensor:
    """Channels of four merged patches: mmdet counts the patches fastest and row by row, Swin last and by columns."""
    merged = tensor.unflatten(-1, (-1, 4)).transpose(-1, -2)[..., [0, 2, 1, 3], :]
    return merged.flatten(-2)
