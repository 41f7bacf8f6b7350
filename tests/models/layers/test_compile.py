"""torch.compile and torch.export of the attention and of the encoder, without graph breaks."""

import pytest
import torch
from helpers.tolerances import GRADIENT_RELATIVE_L2, RELATIVE_L2, relative_l2
from torch import nn

from lite_detr_mmdet.models.layers import KeyAwareDeformableAttention, LiteEncoder
from lite_detr_mmdet.ops.extension import is_available

pytestmark = pytest.mark.skipif(not is_available(), reason='the fused operator is not compiled')
LEVEL_SHAPES = ((8, 12), (4, 6), (2, 3))


@pytest.fixture(autouse=True)
def forget_compiled_code():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make_inputs(bs: int = 2) -> dict:
    shapes = torch.tensor(LEVEL_SHAPES)
    sizes = shapes.prod(1)
    num_value = int(sizes.sum())
    return dict(
        query=torch.randn(bs, num_value, 16),
        query_pos=torch.randn(bs, num_value, 16),
        key_padding_mask=torch.rand(bs, num_value) < 0.2,
        spatial_shapes=shapes,
        level_start_index=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)[:-1]]),
    )


def make_attention(**kwargs) -> nn.Module:
    attention = KeyAwareDeformableAttention(
        embed_dims=16, num_heads=4, num_levels=3, num_points=2, dropout=0.0, batch_first=True, **kwargs
    )
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.2)
    return attention


def run_with_gradients(module: nn.Module, function, inputs: dict):
    """Output of a compiled or plain function, and the gradients of the module's parameters."""
    module.zero_grad()
    output = function(**inputs)
    output.square().mean().backward()
    return output.detach(), {name: parameter.grad for name, parameter in module.named_parameters()}


def assert_same(module: nn.Module, inputs: dict, **options) -> None:
    expected, expected_grads = run_with_gradients(module, module, inputs)
    compiled = torch.compile(module, fullgraph=True, backend='aot_eager', **options)
    output, grads = run_with_gradients(module, compiled, inputs)
    assert relative_l2(output, expected) < RELATIVE_L2[torch.float32]
    assert len(grads) == len(expected_grads)
    for name, grad in grads.items():
        assert relative_l2(grad, expected_grads[name]) < GRADIENT_RELATIVE_L2[torch.float32], name


@pytest.mark.parametrize('key_proj', [False, True])
def test_attention_compiles_without_graph_breaks(key_proj):
    inputs = make_inputs()
    inputs['reference_points'] = torch.rand(2, inputs['query'].shape[1], 3, 2)
    assert_same(make_attention(key_proj=key_proj), inputs)


@pytest.mark.parametrize('strict', [False, True])
def test_attention_exports_with_a_dynamic_number_of_queries(strict):
    attention = make_attention().eval()
    inputs = make_inputs()
    value = inputs.pop('query')

    def arguments(num_queries):
        return dict(
            inputs,
            query=torch.randn(2, num_queries, 16),
            query_pos=torch.randn(2, num_queries, 16),
            value=value,
            reference_points=torch.rand(2, num_queries, 3, 2),
        )

    example = arguments(7)
    queries = {1: torch.export.Dim('num_queries', min=2, max=10000)}
    dynamic = {name: queries if name in ('query', 'query_pos', 'reference_points') else {} for name in example}
    # An argument of **kwargs is named by position in the exported signature, so only named ones are passed.
    program = torch.export.export(attention, (), kwargs=example, dynamic_shapes=dynamic, strict=strict)
    other = arguments(31)
    assert relative_l2(program.module()(**other), attention(**other)) < RELATIVE_L2[torch.float32]


@pytest.mark.parametrize('low_level_update', ['joint', 'sequential', 'none'])
@pytest.mark.parametrize('grad', [True, False])
def test_encoder_compiles_without_graph_breaks(low_level_update, grad):
    encoder = LiteEncoder(
        num_layers=4,
        num_blocks=2,
        num_low_levels=1,
        low_level_update=low_level_update,
        layer_cfg=dict(
            self_attn_cfg=dict(
                type='KeyAwareDeformableAttention',
                embed_dims=16,
                num_heads=4,
                num_levels=3,
                num_points=2,
                dropout=0.0,
                batch_first=True,
            ),
            ffn_cfg=dict(embed_dims=16, feedforward_channels=32, ffn_drop=0.0),
        ),
    )
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    inputs = dict(make_inputs(), valid_ratios=torch.rand(2, 3, 2) * 0.5 + 0.5, level_shapes=LEVEL_SHAPES)
    if grad:
        return assert_same(encoder, inputs)
    with torch.no_grad():  # the high-level tokens are updated in place
        expected = encoder(**inputs)
        output = torch.compile(encoder, fullgraph=True, backend='aot_eager')(**inputs)
    assert relative_l2(output, expected) < RELATIVE_L2[torch.float32]
