"""Names of the authors' state dicts beside mmdet's: one table that is read in both directions."""

import re
from typing import List, Optional, Tuple

from .layout import Layout

# {i} stands for a number, {x} for the rest of a name.
_TRANSFORMER = [
    ('transformer.level_embed', 'level_embed'),
    ('transformer.encoder.layers.{i}.self_attn.{x}', 'encoder.layers.{i}.self_attn.{x}'),
    ('transformer.encoder.layers.{i}.linear1.{x}', 'encoder.layers.{i}.ffn.layers.0.0.{x}'),
    ('transformer.encoder.layers.{i}.linear2.{x}', 'encoder.layers.{i}.ffn.layers.1.{x}'),
    ('transformer.encoder.layers.{i}.norm1.{x}', 'encoder.layers.{i}.norms.0.{x}'),
    ('transformer.encoder.layers.{i}.norm2.{x}', 'encoder.layers.{i}.norms.1.{x}'),
    ('transformer.encoder.layers.{i}.linear12.{x}', 'encoder.layers.{i}.low_level_ffn.layers.0.0.{x}'),
    ('transformer.encoder.layers.{i}.linear22.{x}', 'encoder.layers.{i}.low_level_ffn.layers.1.{x}'),
    ('transformer.encoder.layers.{i}.norm22.{x}', 'encoder.layers.{i}.low_level_norm.{x}'),
    ('transformer.decoder.layers.{i}.self_attn.{x}', 'decoder.layers.{i}.self_attn.attn.{x}'),
    ('transformer.decoder.layers.{i}.cross_attn.{x}', 'decoder.layers.{i}.cross_attn.{x}'),
    ('transformer.decoder.layers.{i}.linear1.{x}', 'decoder.layers.{i}.ffn.layers.0.0.{x}'),
    ('transformer.decoder.layers.{i}.linear2.{x}', 'decoder.layers.{i}.ffn.layers.1.{x}'),
    # The authors number the decoder's norms in a different order from the one in which they apply them.
    ('transformer.decoder.layers.{i}.norm2.{x}', 'decoder.layers.{i}.norms.0.{x}'),
    ('transformer.decoder.layers.{i}.norm1.{x}', 'decoder.layers.{i}.norms.1.{x}'),
    ('transformer.decoder.layers.{i}.norm3.{x}', 'decoder.layers.{i}.norms.2.{x}'),
    ('transformer.decoder.norm.{x}', 'decoder.norm.{x}'),
    ('transformer.decoder.ref_point_head.{x}', 'decoder.ref_point_head.{x}'),
    ('transformer.reference_points.{x}', 'reference_points_fc.{x}'),
    ('transformer.enc_output.{x}', 'memory_trans_fc.{x}'),
    ('transformer.enc_output_norm.{x}', 'memory_trans_norm.{x}'),
    ('transformer.pos_trans.{x}', 'pos_trans_fc.{x}'),
    ('transformer.pos_trans_norm.{x}', 'pos_trans_norm.{x}'),
    ('label_enc.weight', 'dn_query_generator.label_embedding.weight'),
]
# Layers of a box branch: the authors keep the linear ones only, mmdet's sequence has activations between them.
_BOX_LAYERS = ((0, 0), (1, 2), (2, 4))


def key_rules(layout: Layout) -> List[Tuple[str, str]]:
    """Pairs of templates (official, mmdet) for everything but the backbone, specific ones first."""
    rules = []
    if layout.family == 'dino':
        last = layout.num_decoder_layers
        rules.append(('transformer.tgt_embed.weight', 'query_embedding.weight'))
        rules.append(('transformer.enc_out_class_embed.{x}', f'bbox_head.cls_branches.{last}.{{x}}'))
        rules += [
            (f'transformer.enc_out_bbox_embed.layers.{a}.{{x}}', f'bbox_head.reg_branches.{last}.{b}.{{x}}')
            for a, b in _BOX_LAYERS
        ]
    else:
        rules.append(('query_embed.weight', 'query_embedding.weight'))
    rules.append(('class_embed.{i}.{x}', 'bbox_head.cls_branches.{i}.{x}'))
    rules += [
        (f'bbox_embed.{{i}}.layers.{a}.{{x}}', f'bbox_head.reg_branches.{{i}}.{b}.{{x}}') for a, b in _BOX_LAYERS
    ]
    for index in range(layout.num_backbone_maps):
        rules.append((f'input_proj.{index}.0.{{x}}', f'neck.convs.{index}.conv.{{x}}'))
        rules.append((f'input_proj.{index}.1.{{x}}', f'neck.convs.{index}.gn.{{x}}'))
    for index in range(9 - layout.num_backbone_maps):  # more levels than any model has
        official = index + layout.num_backbone_maps
        rules.append((f'input_proj.{official}.0.{{x}}', f'neck.extra_convs.{index}.conv.{{x}}'))
        rules.append((f'input_proj.{official}.1.{{x}}', f'neck.extra_convs.{index}.gn.{{x}}'))
    return rules + _TRANSFORMER


def translate(name: str, rules: List[Tuple[str, str]]) -> Optional[str]:
    """Translate a name by the first rule (source, target) that fits; None if there is none."""
    for source, target in rules:
        pattern = re.escape(source).replace(r'\{i\}', r'(?P<i>\d+)').replace(r'\{x\}', r'(?P<x>.+)')
        match = re.fullmatch(pattern, name)
        if match:
            return target.format(**match.groupdict())
    return None
