"""What a state dict under mmdet's names says about the config that builds its model."""

import math
import re
from typing import Any, Dict, Optional

from .layout import Layout, count, mmdet_layout

TYPES = {
    ('dino', False): 'DINO',
    ('dino', True): 'LiteDINO',
    ('h_detr', False): 'HDETR',
    ('h_detr', True): 'LiteHDETR',
    ('deformable_detr', False): 'DeformableDETR',
    ('deformable_detr', True): 'LiteDeformableDETR',
}
# Defaults for options that a config does not set.
DEFAULTS: Dict[str, Any] = {
    'num_feature_levels': 4,
    'num_queries_one2many': 1500,
    'with_box_refine': False,
    'as_two_stage': False,
    'backbone.base_channels': 64,
    'bbox_head.embed_dims': 256,
    'positional_encoding.num_feats': 128,
    'neck.bias': 'auto',
    'bbox_head.tied_branches': False,
    'encoder.num_blocks': 3,
    'encoder.num_low_levels': 1,
    'encoder.low_level_update': 'joint',
    'encoder.low_level_ffn_ratio': 8,
    'encoder.layer_cfg.self_attn_cfg.type': 'MultiScaleDeformableAttention',
    'encoder.layer_cfg.self_attn_cfg.num_levels': 4,
    'encoder.layer_cfg.self_attn_cfg.key_proj': False,
    'decoder.layer_cfg.cross_attn_cfg.type': 'MultiScaleDeformableAttention',
    'decoder.layer_cfg.cross_attn_cfg.num_levels': 4,
    'decoder.layer_cfg.cross_attn_cfg.key_proj': False,
}
# Places of a config that have the width of the model, beside the neck.
WIDTHS = ('layer_cfg.self_attn_cfg.embed_dims', 'layer_cfg.ffn_cfg.embed_dims')
RELEASED_WIDTH = 256  # mmdet's DINO works at this one only
# Blocks of a ResNet's third stage: its depth; with blocks of two convolutions and of three.
RESNET_DEPTHS = {(2, 2): 18, (2, 6): 34, (3, 6): 50, (3, 23): 101, (3, 36): 152}
ATTENTION_WIDTH = 8 * 4 * 2  # heads, points, coordinates of all models of the family


def model_options(
    state_dict: dict, num_high_levels: Optional[int] = None, num_queries: Optional[int] = None
) -> Dict[str, Any]:
    """Options of ``cfg.model`` that the weights need, as dotted names.

    Args:
        state_dict (dict[str, Tensor]): Weights under mmdet's names.
        num_high_levels (int, optional): High-level levels, x in HxLy; the weights do not tell. Defaults to None.
        num_queries (int, optional): One-to-one queries of H-DETR; the weights hold them and the one-to-many ones in
            one table. Defaults to None: 300, as in all released models.

    Raises:
        ValueError: If ``num_high_levels`` is needed and missing, or a number does not fit.
    """
    layout = mmdet_layout(state_dict)
    width = state_dict['neck.convs.0.conv.weight'].shape[0]
    if layout.family == 'dino' and width != RELEASED_WIDTH:
        layout = layout._replace(is_lite=True)  # without low-level tokens a LiteDINO is the same as DINO, at any width
    options = {
        'type': TYPES[layout.family, layout.is_lite],
        **_width_options(width),
        **_backbone_options(state_dict, layout),
        **_neck_options(state_dict, layout),
        **_query_options(state_dict, layout, num_queries),
        **_encoder_options(state_dict, layout, num_high_levels),
        'decoder.num_layers': layout.num_decoder_layers,
        **_layer_options(state_dict, layout, 'decoder', 'cross_attn'),
        'bbox_head.num_classes': state_dict['bbox_head.cls_branches.0.weight'].shape[0],
    }
    if layout.family == 'dino':
        options['bbox_head.type'] = 'LiteDINOHead'  # decodes boxes as the authors do
        options['bbox_head.tied_branches'] = False  # equal branches predict the same, tied or not
    if layout.family == 'deformable_detr':
        options['with_box_refine'] = layout.with_box_refine
        options['as_two_stage'] = layout.as_two_stage
    return options


def _backbone_options(state_dict: dict, layout: Layout) -> Dict[str, Any]:
    if layout.backbone == 'resnet':
        convolutions = count(state_dict, r'backbone\.layer1\.0\.conv(\d)')
        blocks = count(state_dict, r'backbone\.layer3\.(\d+)\.')
        depth = RESNET_DEPTHS.get((convolutions, blocks))
        if depth is None:
            raise ValueError(
                f'the backbone must be a ResNet of {sorted(RESNET_DEPTHS.values())} layers, got {blocks=}'
            )
        width = state_dict['backbone.conv1.weight'].shape[0]
        return {'backbone.type': 'ResNet', 'backbone.depth': depth, 'backbone.base_channels': width}
    table = state_dict['backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table']
    width = state_dict['backbone.patch_embed.projection.weight'].shape[0]
    stages = range(count(state_dict, r'backbone\.stages\.(\d)\.'))
    tables = [state_dict[f'backbone.stages.{i}.blocks.0.attn.w_msa.relative_position_bias_table'] for i in stages]
    return {
        'backbone.type': 'SwinTransformer',
        'backbone.embed_dims': width,
        'backbone.depths': [count(state_dict, rf'backbone\.stages\.{i}\.blocks\.(\d+)\.') for i in stages],
        'backbone.num_heads': [table.shape[1] for table in tables],
        'backbone.window_size': (math.isqrt(table.shape[0]) + 1) // 2,
    }


def _neck_options(state_dict: dict, layout: Layout) -> Dict[str, Any]:
    num_levels = layout.num_backbone_maps + count(state_dict, r'neck\.extra_convs\.(\d+)\.')
    maps = range(layout.num_backbone_maps)
    return {
        'neck.in_channels': [state_dict[f'neck.convs.{i}.conv.weight'].shape[1] for i in maps],
        'neck.num_outs': num_levels,
        'neck.bias': True if 'neck.convs.0.conv.bias' in state_dict else 'auto',
        'num_feature_levels': num_levels,
    }


def _query_options(state_dict: dict, layout: Layout, num_queries: Optional[int]) -> Dict[str, Any]:
    if layout.family != 'h_detr' and num_queries is not None:
        raise ValueError(f'num_queries is only for H-DETR, other models take it from the weights; got {num_queries}')
    if 'query_embedding.weight' not in state_dict:
        return {}  # two-stage Deformable DETR: any number of queries will do
    total = state_dict['query_embedding.weight'].shape[0]
    if layout.family != 'h_detr':
        return {'num_queries': total}
    num_queries = min(total, 300) if num_queries is None else num_queries
    if not 0 < num_queries <= total:
        raise ValueError(f'num_queries must be at least 1 and at most {total}, got {num_queries}')
    return {'num_queries': num_queries, 'num_queries_one2many': total - num_queries}


def _encoder_options(state_dict: dict, layout: Layout, num_high_levels: Optional[int]) -> Dict[str, Any]:
    num_layers = count(state_dict, r'encoder\.layers\.(\d+)\.')
    options = {'encoder.num_layers': num_layers, **_layer_options(state_dict, layout, 'encoder', 'self_attn')}
    if not layout.is_lite:
        return options
    num_levels = options['encoder.layer_cfg.self_attn_cfg.num_levels']
    closing = sorted({int(name.split('.')[2]) for name in state_dict if re.match(r'encoder\.layers\.\d+\.low_', name)})
    if not closing:
        if num_high_levels not in (None, num_levels):
            raise ValueError(f'without small feed-forward networks all levels are high levels, got {num_high_levels=}')
        # Without low-level tokens the blocks make no difference, but they must be equal.
        blocks = {'encoder.num_blocks': 1} if num_layers % DEFAULTS['encoder.num_blocks'] else {}
        return {**options, **blocks, 'encoder.num_low_levels': 0}
    if num_high_levels is None:
        candidates = ' or '.join(f'{high} (H{high}L{num_levels - high})' for high in range(num_levels - 1, 1, -1))
        raise ValueError(f'num_high_levels (--num-high-levels) must be {candidates}: the weights fit both')
    if not 0 < num_high_levels < num_levels:
        raise ValueError(f'num_high_levels must be at least 1 and below {num_levels}, got {num_high_levels}')
    num_blocks = len(closing)
    period = num_layers // num_blocks
    if closing != list(range(period - 1, num_layers, period)):
        raise ValueError(f'small feed-forward networks must close equal blocks of {num_layers} layers, got {closing=}')
    hidden = state_dict[f'encoder.layers.{closing[0]}.low_level_ffn.layers.0.0.weight'].shape[0]
    return {
        **options,
        'encoder.num_blocks': num_blocks,
        'encoder.num_low_levels': num_levels - num_high_levels,
        'encoder.low_level_update': 'joint',
        'encoder.low_level_ffn_ratio': options['encoder.layer_cfg.ffn_cfg.feedforward_channels'] // hidden,
    }


def _width_options(width: int) -> Dict[str, Any]:
    options = {'neck.out_channels': width, 'positional_encoding.num_feats': width // 2, 'bbox_head.embed_dims': width}
    options.update({f'{coder}.{name}': width for coder in ('encoder', 'decoder') for name in WIDTHS})
    return {**options, 'decoder.layer_cfg.cross_attn_cfg.embed_dims': width}


def _layer_options(state_dict: dict, layout: Layout, coder: str, attention: str) -> Dict[str, Any]:
    layer = f'{coder}.layers.0'
    # What configs of this package and of mmdet call the same attention.
    ordinary = 'FusedMultiScaleDeformableAttention' if layout.is_lite else 'MultiScaleDeformableAttention'
    key_aware = f'{layer}.{attention}.attention_weights.weight' not in state_dict
    cfg = f'{coder}.layer_cfg.{attention}_cfg'
    return {
        f'{coder}.layer_cfg.ffn_cfg.feedforward_channels': state_dict[f'{layer}.ffn.layers.0.0.weight'].shape[0],
        f'{cfg}.num_levels': state_dict[f'{layer}.{attention}.sampling_offsets.bias'].shape[0] // ATTENTION_WIDTH,
        f'{cfg}.type': 'KeyAwareDeformableAttention' if key_aware else ordinary,
        f'{cfg}.key_proj': f'{layer}.{attention}.key_proj.weight' in state_dict,
    }
