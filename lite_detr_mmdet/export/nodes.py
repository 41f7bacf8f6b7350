"""The compiled operators as nodes of an ONNX graph.

Both are in the domain ``lite_detr``, version 1; inputs and output are those of the torch operators:

- ``KeyAwareDeformAttn(query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets[, key])``
- ``MultiScaleDeformAttn(value, spatial_shapes, level_start_index, reference_points, sampling_offsets,
  attention_weights)``
"""

from typing import Any, Callable, Dict

import torch

DOMAIN = 'lite_detr'
DOMAIN_VERSION = 1
FLOATS = ['tensor(float)', 'tensor(float16)']
LOCATIONS = ('reference_points', 'sampling_offsets')
NODES = {
    'KeyAwareDeformAttn': (
        'query',
        'value',
        'spatial_shapes',
        'level_start_index',
        'reference_points',
        'sampling_offsets',
        'key',
    ),
    'MultiScaleDeformAttn': (
        'value',
        'spatial_shapes',
        'level_start_index',
        'reference_points',
        'sampling_offsets',
        'attention_weights',
    ),
}


def make_node(name: str) -> Any:
    """The node as a function for onnxscript."""
    import onnx
    import onnxscript

    schema = onnx.defs.OpSchema
    inputs = []
    for argument in NODES[name]:
        if argument in ('spatial_shapes', 'level_start_index'):
            kind = 'tensor(int64)'
        else:  # locations and weights may differ from values in precision
            kind = {'reference_points': 'R', 'sampling_offsets': 'S', 'attention_weights': 'W'}.get(argument, 'T')
        option = schema.FormalParameterOption.Optional if argument == 'key' else schema.FormalParameterOption.Single
        inputs.append(schema.FormalParameter(argument, kind, param_option=option))
    kinds = sorted({parameter.type_str for parameter in inputs} - {'tensor(int64)'})
    op_schema = schema(
        name,
        DOMAIN,
        DOMAIN_VERSION,
        inputs=inputs,
        outputs=[schema.FormalParameter('output', 'T')],
        type_constraints=[(kind, FLOATS, '') for kind in kinds],
    )
    return onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, DOMAIN_VERSION), name, op_schema)


def translation_table() -> Dict[Any, Callable]:
    """How torch's exporter writes the compiled operators; empty if they are not compiled."""
    from onnxscript import opset18

    table = {}
    operators = torch.ops.lite_detr
    if hasattr(operators, 'key_aware_deform_attn'):
        key_aware = make_node('KeyAwareDeformAttn')

        def write_key_aware(
            query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key=None
        ):
            inputs = [query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets]
            output = key_aware(*inputs) if key is None else key_aware(*inputs, key)
            # The sum of exponentials is for training; the exporter drops unused outputs.
            return output, opset18.Constant(value_float=0.0)

        table[operators.key_aware_deform_attn.default] = write_key_aware
    if hasattr(operators, 'multi_scale_deform_attn'):
        multi_scale = make_node('MultiScaleDeformAttn')

        def write_multi_scale(
            value, spatial_shapes, level_start_index, reference_points, sampling_offsets, attention_weights
        ):
            return multi_scale(
                value, spatial_shapes, level_start_index, reference_points, sampling_offsets, attention_weights
            )

        table[operators.multi_scale_deform_attn.default] = write_multi_scale
    return table
