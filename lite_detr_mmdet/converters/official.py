"""Translate state dicts between the authors' repositories and mmdet.

Lite DETR (https://github.com/IDEA-Research/Lite-DETR), DINO, H-DETR and Deformable DETR (one-stage, with refinement,
two-stage) share the names of their transformer; what differs is in :mod:`.layout` and :mod:`.key_rules`.
"""

import re
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .backbone_keys import PREFIX, backbone_to_mmdet, backbone_to_official
from .class_rows import COCO_CATEGORY_IDS, COCO_ROWS, rows_of_labels, select_rows, spread_rows
from .key_rules import key_rules, translate
from .layout import Layout, mmdet_layout, official_layout

StateDict = Dict[str, Tensor]
# Options of the authors' scripts that give each decoder layer separate branches.
UNTIED_OPTIONS = ('dec_pred_class_embed_share=False', 'dec_pred_bbox_embed_share=False')
LABEL_EMBEDDING = 'dn_query_generator.label_embedding.weight'


class ConversionReport(NamedTuple):
    """What happened to every weight.

    Attributes:
        mapped (dict[str, str]): New name of each weight that was kept.
        dropped (dict[str, str]): Reason for each weight that was left out.
        created (dict[str, str]): Content of each weight that the source does not have.
        rows (list[int]): Row of each label in the authors' class branches.
        num_rows (int): Rows of the authors' class branches.
        options (tuple[str, ...]): Options that the authors' scripts need to load the result. Defaults to ().
    """

    mapped: Dict[str, str]
    dropped: Dict[str, str]
    created: Dict[str, str]
    rows: List[int]
    num_rows: int
    options: Tuple[str, ...] = ()

    def summary(self) -> str:
        """The counts in one line."""
        return (
            f'{len(self.mapped)} weights mapped, {len(self.dropped)} dropped, {len(self.created)} created; '
            f"{len(self.rows)} classes, {self.num_rows} rows in the authors' class branches"
        )

    def __str__(self) -> str:
        lines = [self.summary()]
        lines += [f'option   {option}' for option in self.options]
        lines += [f'mapped   {old} -> {new}' for old, new in self.mapped.items()]
        lines += [f'dropped  {name}: {reason}' for name, reason in self.dropped.items()]
        lines += [f'created  {name}: {content}' for name, content in self.created.items()]
        lines += [f'class    row {row} -> label {label}' for label, row in enumerate(self.rows)]
        return '\n'.join(lines) + '\n'


def official_to_mmdet(
    state_dict: StateDict, num_classes: Optional[int] = None, category_ids: Optional[Sequence[int]] = None
) -> Tuple[StateDict, ConversionReport]:
    """Translate weights of the authors' models to mmdet's names and labels.

    Args:
        state_dict (dict[str, Tensor]): Weights under the authors' names.
        num_classes (int, optional): Number of labels; see :func:`.class_rows.rows_of_labels`. Defaults to None.
        category_ids (sequence[int], optional): Category id of each label. Defaults to None.

    Returns:
        tuple[dict[str, Tensor], ConversionReport]: Weights under mmdet's names, and what happened to each.

    Raises:
        ValueError: If the model is unknown, or has weights that no rule translates.
    """
    state_dict = {name.removeprefix('module.'): tensor for name, tensor in state_dict.items()}
    layout = official_layout(state_dict)
    num_rows = state_dict['class_embed.0.weight'].shape[0]
    rows = rows_of_labels(num_rows, num_classes, category_ids)
    rules = key_rules(layout)
    converted: Dict[str, Tensor] = {}
    mapped: Dict[str, str] = {}
    dropped: Dict[str, str] = {}
    unknown: List[str] = []
    new_name: Optional[str]
    for name, tensor in state_dict.items():
        reason = _reason_to_drop(name, tensor, state_dict)
        if reason is not None:
            dropped[name] = reason
            continue
        if name.startswith(PREFIX):
            new_name, tensor = backbone_to_mmdet(name, tensor, layout.backbone)
        else:
            new_name = translate(name, rules)
        if new_name is None:
            unknown.append(name)
            continue
        if new_name.startswith('bbox_head.cls_branches.') or new_name == LABEL_EMBEDDING:
            tensor = select_rows(tensor, rows, _is_foreground_branch(new_name, layout))
        converted[new_name] = tensor
        mapped[name] = new_name
    if unknown:
        raise ValueError(f'the weights hold {len(unknown)} names that no rule translates: {", ".join(unknown[:10])}')
    created = {}
    for name in list(converted):
        counter = re.sub(r'running_var$', 'num_batches_tracked', name)
        if counter != name and counter not in converted:
            converted[counter] = torch.zeros((), dtype=torch.long)
            created[counter] = '0; the authors freeze their norms, which count no batches'
    return converted, ConversionReport(mapped, dropped, created, rows, num_rows)


def mmdet_to_official(
    state_dict: StateDict,
    num_rows: Optional[int] = None,
    category_ids: Optional[Sequence[int]] = None,
    untied: bool = False,
) -> Tuple[StateDict, ConversionReport]:
    """Translate weights of this package's and mmdet's models to the authors' names and category ids.

    The authors of DINO and Lite-DINO share one class and one box branch among the layers of the decoder; mmdet trains
    one of each per layer, unless the head is a ``LiteDINOHead(tied_branches=True)``. A model with shared branches that
    loads different ones silently keeps the last.

    Args:
        state_dict (dict[str, Tensor]): Weights under mmdet's names.
        num_rows (int, optional): Rows of the authors' class branches. Defaults to None: 91 for 80 classes, else as
            many as classes.
        category_ids (sequence[int], optional): Category id of each label. Defaults to None, as in
            :func:`official_to_mmdet`.
        untied (bool): Whether the branches of DINO and Lite-DINO may differ; the report then names the options that
            the authors' scripts need to load them. Defaults to False.

    Returns:
        tuple[dict[str, Tensor], ConversionReport]: Weights under the authors' names, and what happened to each.

    Raises:
        ValueError: If the model is unknown, has weights that the authors' models have no place for, or has different
            branches while ``untied`` is False.
    """
    layout = mmdet_layout(state_dict)
    different = _untied_branches(state_dict, layout)
    if different and not untied:
        raise ValueError(
            f"the decoder layers' branches differ ({different[0]} and {len(different) - 1} more), but the authors' "
            'models share one class and one box branch among all layers, so only one of them would be kept. '
            'untied=True (--untied) writes them all, for models with the options ' + ' '.join(UNTIED_OPTIONS)
        )
    num_classes = state_dict['bbox_head.cls_branches.0.weight'].shape[0]
    if num_rows is None:
        num_rows = COCO_ROWS if num_classes == len(COCO_CATEGORY_IDS) else num_classes
    rows = rows_of_labels(num_rows, num_classes, category_ids)
    rules = [(mmdet, official) for official, mmdet in key_rules(layout)]
    converted: Dict[str, Tensor] = {}
    mapped: Dict[str, str] = {}
    dropped: Dict[str, str] = {}
    unknown: List[str] = []
    new_name: Optional[str]
    for name, tensor in state_dict.items():
        if name.endswith('num_batches_tracked'):
            dropped[name] = 'the authors freeze their norms, which count no batches'
            continue
        if name.startswith('backbone.'):
            new_name, tensor = backbone_to_official(name, tensor, layout.backbone, layout.family)
        else:
            new_name = translate(name, rules)
        if new_name is None:
            unknown.append(name)
            continue
        if name == LABEL_EMBEDDING:
            tensor = spread_rows(tensor, rows, num_rows + 1)
        elif name.startswith('bbox_head.cls_branches.'):
            foreground = _is_foreground_branch(name, layout)
            tensor = spread_rows(tensor, rows, num_rows, foreground, is_bias=name.endswith('bias'))
        converted[new_name] = tensor
        mapped[name] = new_name
    if unknown:
        raise ValueError(
            f"the authors' models have no place for {len(unknown)} of the weights: {', '.join(unknown[:10])}"
        )
    created = _create_official(converted, layout)
    options = UNTIED_OPTIONS if different else ()
    return converted, ConversionReport(mapped, dropped, created, rows, num_rows, options)


def _untied_branches(state_dict: StateDict, layout: Layout) -> List[str]:
    """Branch weights of DINO's decoder layers that differ from those of the first layer."""
    if layout.family != 'dino':
        return []  # the other models have separate branches for each layer
    different = []
    for name, tensor in state_dict.items():
        match = re.match(r'(bbox_head\.(?:cls|reg)_branches)\.(\d+)\.(.+)', name)
        if not match or not 0 < int(match[2]) < layout.num_decoder_layers:
            continue
        if not tensor.equal(state_dict[f'{match[1]}.0.{match[3]}']):
            different.append(name)
    return different


def _is_foreground_branch(mmdet_name: str, layout: Layout) -> bool:
    prefix = f'bbox_head.cls_branches.{layout.num_decoder_layers}.'
    return layout.one_foreground_row and mmdet_name.startswith(prefix)


def _reason_to_drop(name: str, tensor: Tensor, state_dict: StateDict) -> Optional[str]:
    """Why a weight under the authors' names is left out, None to keep it.

    Raises:
        ValueError: If it should equal another weight and does not.
    """
    duplicate = re.match(r'transformer\.decoder\.((bbox_embed|class_embed)\..*)', name)
    if duplicate:
        if duplicate[1] not in state_dict or not tensor.equal(state_dict[duplicate[1]]):
            raise ValueError(f'{name} must be the same weight as {duplicate[1]}, but they differ')
        return f'the same weight as {duplicate[1]}'
    attention, projection, _ = name.partition('.query_proj.')
    if projection and f'{attention}.attention_weights.weight' in state_dict:
        return 'not used where there are attention weights'
    if name.startswith(PREFIX) and name.endswith('.attn_mask'):
        return 'recomputed for every image size'
    return None


def _create_official(converted: StateDict, layout: Layout) -> Dict[str, str]:
    """Add what the authors' models also hold; return the content of each addition."""
    created = {}
    heads = ['bbox_embed'] if layout.with_box_refine else []
    heads += ['class_embed'] if layout.with_box_refine and layout.as_two_stage else []
    for name in list(converted):
        if name.split('.')[0] in heads:
            converted[f'transformer.decoder.{name}'] = converted[name]
            created[f'transformer.decoder.{name}'] = f'the same weight as {name}'
        attention, weights, leaf = name.partition('.attention_weights.')
        if layout.is_lite and weights:
            shape = converted[f'{attention}.output_proj.{leaf}'].shape
            converted[f'{attention}.query_proj.{leaf}'] = converted[name].new_zeros(shape)
            created[f'{attention}.query_proj.{leaf}'] = '0; not used where there are attention weights'
    return created
