"""The properties of a model, read from the names in its state dict, that decide how its names are translated."""

import re
from typing import Iterable, NamedTuple, Sequence

from torch import Tensor


class Layout(NamedTuple):
    """What the names of a model depend on, in the authors' naming and in mmdet's alike.

    Attributes:
        family (str): 'dino', 'h_detr' or 'deformable_detr', each with or without the encoder of Lite DETR.
        backbone (str): 'resnet' or 'swin'.
        num_backbone_maps (int): Feature maps that the backbone gives; the neck makes the others from the last.
        num_decoder_layers (int): Layers of the decoder; the head of the encoder's proposals follows theirs.
        as_two_stage (bool): Whether the encoder makes proposals.
        with_box_refine (bool): Whether every decoder layer has its own box branch.
        is_lite (bool): Whether there are small feed-forward networks for low-level tokens, or key-aware attention.
    """

    family: str
    backbone: str
    num_backbone_maps: int
    num_decoder_layers: int
    as_two_stage: bool
    with_box_refine: bool
    is_lite: bool

    @property
    def one_foreground_row(self) -> bool:
        """Whether row 0 of the encoder's class branch stands for "foreground", whatever the classes are."""
        return self.as_two_stage and self.family != 'dino'


def count(names: Iterable[str], pattern: str) -> int:
    """Number of different values of the group in ``pattern`` among the names; 0 without a match."""
    return len({match[1] for match in (re.match(pattern, name) for name in names) if match})


def official_layout(state_dict: dict) -> Layout:
    """Layout of a state dict under the authors' names.

    Raises:
        ValueError: If it is not one of DINO, H-DETR or Deformable DETR.
    """
    _require(state_dict, ('transformer.encoder.layers.0.', 'transformer.decoder.layers.0.', 'class_embed.0.'))
    if 'transformer.tgt_embed.weight' in state_dict:
        family = 'dino'
    elif 'transformer.pos_trans.weight' in state_dict and 'query_embed.weight' in state_dict:
        family = 'h_detr'
    else:
        family = 'deformable_detr'
    maps = {name: tensor for name, tensor in state_dict.items() if re.fullmatch(r'input_proj\.\d+\.0\.weight', name)}
    swin = any('patch_embed' in name for name in state_dict)
    return Layout(
        family=family,
        backbone='swin' if swin else 'resnet',
        # A map of the backbone is projected pixel by pixel, the others come from strided convolutions.
        num_backbone_maps=sum(tensor.shape[-1] == 1 for tensor in maps.values()),
        num_decoder_layers=count(state_dict, r'transformer\.decoder\.layers\.(\d+)\.'),
        as_two_stage='transformer.enc_output.weight' in state_dict,
        with_box_refine='transformer.decoder.bbox_embed.0.layers.0.weight' in state_dict,
        is_lite=_is_lite(state_dict, r'transformer\.encoder\.layers\.\d+\.(linear12|self_attn\.query_proj)\.'),
    )


def mmdet_layout(state_dict: dict) -> Layout:
    """Layout of a state dict under mmdet's names.

    Raises:
        ValueError: If it is not one of DINO, H-DETR or Deformable DETR.
    """
    _require(state_dict, ('encoder.layers.0.', 'decoder.layers.0.', 'bbox_head.cls_branches.0.'))
    if 'decoder.ref_point_head.layers.0.weight' in state_dict:
        family = 'dino'
    elif 'pos_trans_fc.weight' in state_dict and 'query_embedding.weight' in state_dict:
        family = 'h_detr'
    else:
        family = 'deformable_detr'
    as_two_stage = 'memory_trans_fc.weight' in state_dict
    return Layout(
        family=family,
        backbone=_mmdet_backbone(state_dict),
        num_backbone_maps=count(state_dict, r'neck\.convs\.(\d+)\.'),
        num_decoder_layers=count(state_dict, r'decoder\.layers\.(\d+)\.'),
        as_two_stage=as_two_stage,
        # Without refinement the layers share their branch. Two stages, which share with nobody, go with refinement.
        with_box_refine=as_two_stage or not _shares_branches(state_dict),
        is_lite=_is_lite(state_dict, r'encoder\.layers\.\d+\.(low_level_ffn|self_attn\.query_proj)\.'),
    )


def _mmdet_backbone(state_dict: dict) -> str:
    if 'backbone.conv1.weight' in state_dict:
        return 'resnet'
    if any(name.startswith('backbone.patch_embed') for name in state_dict):
        return 'swin'
    raise ValueError("the backbone must be a ResNet or a Swin, which the authors' models have")


def _is_lite(state_dict: dict, pattern: str) -> bool:
    return any(re.match(pattern, name) for name in state_dict)


def _shares_branches(state_dict: dict) -> bool:
    first, second = (_branch(state_dict, index) for index in (0, 1))
    return len(second) > 0 and all(a.equal(b) for a, b in zip(first, second))


def _branch(state_dict: dict, index: int) -> Sequence[Tensor]:
    prefix = f'bbox_head.reg_branches.{index}.'
    return [tensor for name, tensor in sorted(state_dict.items()) if name.startswith(prefix)]


def _require(state_dict: dict, prefixes: Sequence[str]) -> None:
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in state_dict):
            examples = ', '.join(list(state_dict)[:3])
            raise ValueError(
                'the weights must be of DINO, H-DETR or Deformable DETR, with or without the encoder of Lite DETR: '
                f'no name starts with {prefix!r}, the first names are {examples or "none"}'
            )
