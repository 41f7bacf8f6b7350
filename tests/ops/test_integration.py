"""The compiled operator in torch's machinery: dispatcher, compiler, export, autocast and FLOP counters."""

import pytest
import torch
from helpers.op_arguments import make_arguments, run_with_gradients
from helpers.tolerances import RELATIVE_L2, relative_l2
from torch.utils.flop_counter import FlopCounterMode

from lite_detr_mmdet.ops import flops, key_aware_deform_attn

OPERATOR = torch.ops.lite_detr.key_aware_deform_attn
BACKWARD = torch.ops.lite_detr.key_aware_deform_attn_backward
ORDER = (
    'query',
    'value',
    'spatial_shapes',
    'level_start_index',
    'reference_points',
    'sampling_offsets',
    'key',
)


def positional(arguments: dict) -> list:
    return [arguments[name] for name in ORDER]


@pytest.mark.parametrize('separate_key', [False, True])
@pytest.mark.parametrize('boxes', [False, True])
def test_opcheck(separate_key, boxes):
    arguments = make_arguments(separate_key=separate_key, boxes=boxes, dtype=torch.float32, num_points=4)
    torch.library.opcheck(OPERATOR, positional(arguments))
    for tensor in arguments.values():
        if tensor is not None and tensor.is_floating_point():
            tensor.requires_grad_()
    torch.library.opcheck(OPERATOR, positional(arguments))
    output, logsumexp = OPERATOR(*positional(arguments))
    inputs = [tensor if tensor is None else tensor.detach() for tensor in positional(arguments)]
    torch.library.opcheck(BACKWARD, [torch.randn_like(output), *inputs, logsumexp.detach(), boxes])


def test_logsumexp():
    arguments = make_arguments(shapes=((4, 5),), spread=0.5)
    arguments['value'].zero_()
    _, logsumexp = OPERATOR(*positional(arguments))
    assert logsumexp.shape == (2, 7, 2) and logsumexp.dtype == torch.float64
    torch.testing.assert_close(logsumexp, torch.full_like(logsumexp, 2.0).log())  # two samples of logit zero
    assert not logsumexp.requires_grad


@pytest.mark.parametrize('num_heads', [1, 3, 8, 17, 33])
def test_logsumexp_in_float32(num_heads):
    """Its logarithm is computed in vectors over the heads; float64 takes that of the C library."""
    arguments = make_arguments(num_heads=num_heads, num_queries=None, head_dim=16, num_points=4)
    arguments['query'] *= 5
    exact = OPERATOR(*positional(arguments))[1]
    single = {
        name: tensor.float() if tensor is not None and tensor.is_floating_point() else tensor
        for name, tensor in arguments.items()
    }
    torch.testing.assert_close(OPERATOR(*positional(single))[1].double(), exact, rtol=3e-6, atol=3e-6)


def test_schemas():
    assert str(OPERATOR.default._schema) == (
        'lite_detr::key_aware_deform_attn(Tensor query, Tensor value, Tensor spatial_shapes, '
        'Tensor level_start_index, Tensor reference_points, Tensor sampling_offsets, Tensor? key=None) '
        '-> (Tensor output, Tensor logsumexp)'
    )


def test_compile_without_graph_breaks():
    arguments = make_arguments(dtype=torch.float32, num_points=4)
    expected, expected_grads = run_with_gradients(key_aware_deform_attn, arguments, backend='reference')
    compiled = torch.compile(key_aware_deform_attn, fullgraph=True, backend='aot_eager')
    for backend in ('auto', 'fused'):
        output, grads = run_with_gradients(compiled, arguments, backend=backend)
        assert relative_l2(output, expected) < RELATIVE_L2[torch.float32]
        for key, grad in grads.items():
            assert relative_l2(grad, expected_grads[key]) < 10 * RELATIVE_L2[torch.float32], key


def test_compile_with_dynamic_sizes():
    torch._dynamo.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(key_aware_deform_attn, fullgraph=True, dynamic=True, backend=count)
    for num_queries in (5, 9, 30):
        arguments = make_arguments(num_queries=num_queries, dtype=torch.float32)
        output = compiled(**arguments)
        assert relative_l2(output, key_aware_deform_attn(**arguments, backend='reference')) < 1e-5
    assert len(graphs) == 1


class Attend(torch.nn.Module):
    def forward(self, query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets):
        return key_aware_deform_attn(
            query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, backend='fused'
        )


@pytest.mark.parametrize('strict', [False, True])
def test_export_with_dynamic_number_of_queries(strict):
    arguments = make_arguments(dtype=torch.float32)
    arguments.pop('key')
    dynamic = {name: {} for name in arguments}
    for name in ('query', 'reference_points', 'sampling_offsets'):
        dynamic[name] = {1: torch.export.Dim('num_queries', min=2, max=10000)}
    program = torch.export.export(Attend(), (), kwargs=arguments, dynamic_shapes=dynamic, strict=strict)
    assert any(node.target == OPERATOR.default for node in program.graph.nodes)
    other = make_arguments(num_queries=31, dtype=torch.float32, seed=3)
    other.pop('key')
    assert torch.equal(program.module()(**other), key_aware_deform_attn(**other, backend='fused'))


def test_meta_tensors():
    arguments = {name: tensor if tensor is None else tensor.to('meta') for name, tensor in make_arguments().items()}
    output = key_aware_deform_attn(**arguments, backend='fused')
    assert output.device.type == 'meta' and output.shape == (2, 7, 16)


@pytest.mark.parametrize('backend', ['fused', 'reference'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_autocast(backend, dtype):
    """Query, value and key take the dtype of autocast; locations keep theirs, and gradients that of the arguments."""
    arguments = make_arguments(dtype=torch.float32, separate_key=True, num_points=4)
    mixed = dict(arguments, query=arguments['query'].to(dtype))  # as a linear layer under autocast returns it
    for name in ('query', 'value', 'key', 'sampling_offsets'):
        mixed[name].requires_grad_()
    with torch.autocast('cpu', dtype):
        output = key_aware_deform_attn(**mixed, backend=backend)
    assert output.dtype == dtype
    rounded = dict(arguments, **{name: arguments[name].detach().to(dtype) for name in ('query', 'value', 'key')})
    expected = key_aware_deform_attn(**rounded, backend=backend)
    assert torch.equal(output, expected)
    output.sum().backward()
    for name in ('query', 'value', 'key', 'sampling_offsets'):
        assert mixed[name].grad.dtype == mixed[name].dtype


def test_autocast_leaves_float64():
    arguments = make_arguments()
    with torch.autocast('cpu', torch.bfloat16):
        assert key_aware_deform_attn(**arguments, backend='fused').dtype == torch.float64


def test_autocast_of_a_compiled_function():
    arguments = make_arguments(dtype=torch.float32, num_points=4)
    compiled = torch.compile(key_aware_deform_attn, fullgraph=True, backend='aot_eager')
    with torch.autocast('cpu', torch.bfloat16):
        expected = key_aware_deform_attn(**arguments, backend='fused')
        output = compiled(**arguments, backend='fused')
    assert output.dtype == torch.bfloat16 and torch.equal(output, expected)


@pytest.mark.parametrize('separate_key', [False, True])
@pytest.mark.parametrize('shared_offsets', [False, True])
def test_flop_counter_of_torch(separate_key, shared_offsets):
    arguments = make_arguments(separate_key=separate_key, shared_offsets=shared_offsets)
    arguments['value'].requires_grad_()
    samples = 2 * 7 * 2 * 3 * 2  # images, queries, heads, levels, points
    with FlopCounterMode(display=False) as counter:
        output = key_aware_deform_attn(**arguments, backend='fused')
    forward = 2 * samples * 8 * (10 if separate_key else 6)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 2 * samples * 8 * (22 if separate_key else 18)


@pytest.mark.parametrize('separate_key', [False, True])
def test_flop_handler_of_traced_graphs(separate_key):
    arguments = make_arguments(separate_key=separate_key)
    inputs = [tensor for tensor in positional(arguments) if tensor is not None]

    def function(query, value, *others):
        return OPERATOR(query, value, *others)[0]

    with torch.no_grad():
        graph = torch.jit.trace(function, inputs, check_trace=False).inlined_graph
    (node,) = graph.findAllNodes('lite_detr::key_aware_deform_attn')
    count = flops.FLOP_HANDLERS[node.kind()](list(node.inputs()), list(node.outputs()))
    assert count == 2 * 7 * 2 * 3 * 2 * 8 * (10 if separate_key else 6)
