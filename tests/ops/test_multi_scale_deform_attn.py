"""Multi-scale deformable attention: against loops, mmcv's form and finite differences, and in torch's machinery."""

import itertools
import math

import pytest
import torch
from helpers.op_arguments import (
    give_weights,
    make_arguments,
    move_into_cells,
    naive_deform_attn,
    run_with_gradients,
)
from helpers.tolerances import GRADIENT_RELATIVE_L2, RELATIVE_L2, relative_l2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from lite_detr_mmdet.ops import flops, multi_scale_deform_attn

OPERATOR = torch.ops.lite_detr.multi_scale_deform_attn
BACKWARD = torch.ops.lite_detr.multi_scale_deform_attn_backward
ORDER = [
    'value',
    'spatial_shapes',
    'level_start_index',
    'reference_points',
    'sampling_offsets',
    'attention_weights',
]
BACKENDS = ('reference', 'fused')
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
VARIANTS = [
    dict(boxes=boxes, shared_offsets=shared_offsets)
    for boxes, shared_offsets in itertools.product((False, True), repeat=2)
]


def positional(arguments: dict) -> list:
    return [arguments[name] for name in ORDER]


def make_weighted(weight_dtype: torch.dtype = None, **kwargs) -> dict:
    return give_weights(make_arguments(**kwargs), weight_dtype)


def assert_fused_matches_reference(arguments: dict) -> None:
    expected, expected_grads = run_with_gradients(multi_scale_deform_attn, arguments, backend='reference')
    output, grads = run_with_gradients(multi_scale_deform_attn, arguments, backend='fused')
    dtype = arguments['value'].dtype
    assert output.dtype == expected.dtype == dtype and output.shape == expected.shape
    assert relative_l2(output, expected) < RELATIVE_L2[dtype]
    assert set(grads) == {'value', 'reference_points', 'sampling_offsets', 'attention_weights'}
    for name, expected_grad in expected_grads.items():
        assert grads[name].dtype == arguments[name].dtype and grads[name].shape == arguments[name].shape
        tolerance = max(GRADIENT_RELATIVE_L2[dtype], GRADIENT_RELATIVE_L2[arguments[name].dtype])
        assert relative_l2(grads[name], expected_grad) < tolerance, name


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
@pytest.mark.parametrize('backend', BACKENDS)
def test_equals_loops(backend, variant):
    arguments = make_weighted(**variant)
    output = multi_scale_deform_attn(**arguments, backend=backend)
    assert relative_l2(output, naive_deform_attn(**arguments)) < RELATIVE_L2[torch.float64]


def get_locations(arguments: dict) -> torch.Tensor:
    """mmcv's sampling locations."""
    points, offsets = arguments['reference_points'][:, :, None, :, None], arguments['sampling_offsets']
    if points.shape[-1] == 2:
        return points + offsets / arguments['spatial_shapes'].flip(1)[None, None, None, :, None]
    return points[..., :2] + offsets / offsets.shape[4] * points[..., 2:] * 0.5


@pytest.mark.parametrize('boxes', [False, True])
def test_equals_mmcv(boxes):
    """Values and gradients, in float64; and again with locations that are passed as such."""
    multi_scale_deform_attn_mmcv = pytest.importorskip('mmcv.ops').multi_scale_deform_attn

    def mmcv(**arguments) -> torch.Tensor:
        return multi_scale_deform_attn_mmcv.multi_scale_deformable_attn_pytorch(
            arguments['value'],
            arguments['spatial_shapes'],
            get_locations(arguments),
            arguments['attention_weights'],
        )

    arguments = make_weighted(boxes=boxes, num_points=4, head_dim=32)
    expected, expected_grads = run_with_gradients(mmcv, arguments)
    for backend in BACKENDS:
        output, grads = run_with_gradients(multi_scale_deform_attn, arguments, backend=backend)
        assert relative_l2(output, expected) < RELATIVE_L2[torch.float64]
        for name, grad in grads.items():
            assert relative_l2(grad, expected_grads[name]) < GRADIENT_RELATIVE_L2[torch.float64], name
    box = torch.tensor([0.0, 0.0, 8.0, 8.0], dtype=torch.float64)  # twice the number of points
    given_locations = dict(
        arguments,
        reference_points=box.expand(*arguments['reference_points'].shape[:3], 4),
        sampling_offsets=get_locations(arguments),
    )
    assert relative_l2(multi_scale_deform_attn(**given_locations), expected) < RELATIVE_L2[torch.float64]


@pytest.mark.parametrize('head_dim', [1, 3, 16, 24, 32, 64, 80])
@pytest.mark.parametrize('num_points', [1, 4, 5])
def test_sizes(head_dim, num_points):
    for dtype, variant in itertools.product((torch.float64, torch.float32), VARIANTS):
        assert_fused_matches_reference(make_weighted(head_dim=head_dim, num_points=num_points, dtype=dtype, **variant))


@pytest.mark.parametrize('head_dim', [16, 24, 32, 64])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(head_dim, dtype):
    arguments = make_weighted(head_dim=head_dim, num_points=4, dtype=dtype, location_dtype=torch.float32)
    assert_fused_matches_reference(arguments)


@pytest.mark.parametrize('dtype,weight_dtype', list(itertools.product(DTYPES, DTYPES)), ids=str)
def test_weight_dtypes(dtype, weight_dtype):
    arguments = make_weighted(weight_dtype, num_points=4, head_dim=32, dtype=dtype, location_dtype=torch.float32)
    assert_fused_matches_reference(arguments)


@pytest.mark.parametrize('first_level,last_level', [(0, 2), (1, 2), (2, 2), (0, 0), (0, 1), (1, 1)])
def test_queries_of_a_map(first_level, last_level):
    """As many queries as a run of levels has tokens are computed in square tiles, cut off at the borders."""
    shapes = ((19, 21), (9, 17), (1, 30))
    num_queries = sum(height * width for height, width in shapes[first_level : last_level + 1])
    assert_fused_matches_reference(
        make_weighted(shapes=shapes, num_queries=num_queries, head_dim=32, num_points=4, dtype=torch.float32)
    )


def test_many_tiles_and_threads():
    """More queries than a chunk of the backward pass; the sums depend on no number of threads."""
    arguments = make_weighted(
        bs=3, shapes=((24, 20), (6, 5)), num_queries=2100, num_heads=8, head_dim=16, num_points=4, dtype=torch.float32
    )
    assert_fused_matches_reference(arguments)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5, 40):
            torch.set_num_threads(threads)
            results.append(run_with_gradients(multi_scale_deform_attn, arguments, backend='fused'))
    finally:
        torch.set_num_threads(before)
    for output, grads in results[1:]:
        assert torch.equal(output, results[0][0])
        assert all(torch.equal(grad, results[0][1][name]) for name, grad in grads.items())


def test_strides():
    """Heads outside of tokens, parts of wider tensors, expanded weights: results and layouts of the gradients."""
    arguments = make_weighted(dtype=torch.float32, head_dim=32, num_points=4)
    expected, expected_grads = run_with_gradients(multi_scale_deform_attn, arguments, backend='reference')
    value = arguments['value']
    layouts = dict(
        head_major=value.transpose(1, 2).contiguous().transpose(1, 2),
        channels_first=value.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        wider=torch.cat([torch.full_like(value, math.nan), value], -1)[..., 32:],
    )
    weights = arguments['attention_weights']
    wider_weights = torch.stack([weights, torch.full_like(weights, math.nan)], -1)[..., 0]
    for name, tensor in layouts.items():
        changed = dict(arguments, value=tensor, attention_weights=wider_weights)
        output, grads = run_with_gradients(multi_scale_deform_attn, changed, backend='fused')
        assert relative_l2(output, expected) < RELATIVE_L2[torch.float32], name
        assert grads['value'].stride() == torch.empty_like(tensor).stride()
        for key, grad in grads.items():
            assert relative_l2(grad, expected_grads[key]) < GRADIENT_RELATIVE_L2[torch.float32], (name, key)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('options', [dict(bs=0), dict(num_queries=0), dict(shapes=((0, 3), (2, 2)))], ids=str)
def test_empty(backend, options):
    arguments = make_weighted(dtype=torch.float32, **options)
    output, grads = run_with_gradients(multi_scale_deform_attn, arguments, backend=backend)
    assert output.shape == (*arguments['sampling_offsets'].shape[:2], 16) and output.isfinite().all()
    assert all(grad.shape == arguments[name].shape for name, grad in grads.items())


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf, 1e30])
def test_locations_that_are_not_finite_read_zero(backend, bad):
    arguments = make_weighted(num_points=4)
    arguments['sampling_offsets'][0, 0] = bad
    output, grads = run_with_gradients(multi_scale_deform_attn, arguments, backend=backend)
    assert torch.equal(output[0, 0], torch.zeros_like(output[0, 0])) and output.isfinite().all()
    assert grads['sampling_offsets'][0, 0].eq(0).all() and all(grad.isfinite().all() for grad in grads.values())


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('boxes', [False, True])
@pytest.mark.parametrize('head_dim,num_points', [(3, 2), (16, 4)])
def test_gradcheck(backend, boxes, head_dim, num_points):
    arguments = make_arguments(
        bs=1, shapes=((3, 4), (2, 2)), num_queries=2, head_dim=head_dim, num_points=num_points, boxes=boxes
    )
    arguments['reference_points'][..., 2:] += 0.3
    arguments = give_weights(move_into_cells(arguments))
    names = ['value', 'reference_points', 'sampling_offsets', 'attention_weights']

    def function(*tensors):
        return multi_scale_deform_attn(**dict(arguments, **dict(zip(names, tensors))), backend=backend)

    inputs = [arguments[name].requires_grad_() for name in names]
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-7, rtol=1e-5)


def test_only_wanted_gradients_are_returned():
    arguments = make_weighted()
    arguments['attention_weights'].requires_grad_()
    multi_scale_deform_attn(**arguments, backend='fused').sum().backward()
    assert arguments['attention_weights'].grad.abs().sum() > 0 and arguments['value'].grad is None


def test_derivatives_that_do_not_exist():
    arguments = make_weighted()
    arguments['value'].requires_grad_()
    output = multi_scale_deform_attn(**arguments, backend='fused')
    (grad,) = torch.autograd.grad(output.square().sum(), arguments['value'], create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative: use backend='reference'"):
        grad.sum().backward()
    weights = arguments.pop('attention_weights')

    def function(given, backend):
        return multi_scale_deform_attn(**arguments, attention_weights=given, backend=backend)

    with pytest.raises(NotImplementedError, match=r"no forward-mode derivative.*backend='reference'"):
        torch.func.jvp(lambda given: function(given, 'fused'), (weights,), (torch.ones_like(weights),))
    with forward_ad.dual_level():  # inside torch.func, torch 2.4 cannot read the shapes
        tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(weights, weights), 'reference')).tangent
    assert relative_l2(tangent, output) < RELATIVE_L2[torch.float64]  # it is linear in the weights


@pytest.mark.parametrize('boxes', [False, True])
def test_opcheck(boxes):
    arguments = make_weighted(boxes=boxes, dtype=torch.float32, num_points=4)
    torch.library.opcheck(OPERATOR, positional(arguments))
    head_major = arguments['value'].transpose(1, 2).contiguous().transpose(1, 2)
    arguments['value'] = head_major
    for tensor in arguments.values():
        if tensor.is_floating_point():
            tensor.requires_grad_()
    torch.library.opcheck(OPERATOR, positional(arguments))
    output = OPERATOR(*positional(arguments)).detach()
    torch.library.opcheck(BACKWARD, [output, *[tensor.detach() for tensor in positional(arguments)], boxes])


def test_compile_without_graph_breaks():
    arguments = make_weighted(dtype=torch.float32, num_points=4)
    expected, expected_grads = run_with_gradients(multi_scale_deform_attn, arguments, backend='reference')
    compiled = torch.compile(multi_scale_deform_attn, fullgraph=True, backend='aot_eager')
    output, grads = run_with_gradients(compiled, arguments, backend='fused')
    assert relative_l2(output, expected) < RELATIVE_L2[torch.float32]
    for name, grad in grads.items():
        assert relative_l2(grad, expected_grads[name]) < 10 * RELATIVE_L2[torch.float32], name


class Attend(torch.nn.Module):
    def forward(self, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, attention_weights):
        return multi_scale_deform_attn(
            value,
            spatial_shapes,
            level_start_index,
            reference_points,
            sampling_offsets,
            attention_weights,
            backend='fused',
        )


def test_export_with_dynamic_number_of_queries():
    arguments = make_weighted(dtype=torch.float32)
    dynamic = {name: {} for name in arguments}
    for name in ('reference_points', 'sampling_offsets', 'attention_weights'):
        dynamic[name] = {1: torch.export.Dim('num_queries', min=2, max=10000)}
    program = torch.export.export(Attend(), (), kwargs=arguments, dynamic_shapes=dynamic, strict=False)
    assert any(node.target == OPERATOR.default for node in program.graph.nodes)
    other = make_weighted(num_queries=31, dtype=torch.float32, seed=3)
    assert torch.equal(program.module()(**other), multi_scale_deform_attn(**other, backend='fused'))


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_autocast(backend, dtype):
    """The value takes the dtype of autocast; locations and weights keep theirs."""
    arguments = make_weighted(dtype=torch.float32, num_points=4)
    expected = multi_scale_deform_attn(**dict(arguments, value=arguments['value'].to(dtype)), backend=backend)
    arguments['value'].requires_grad_()
    with torch.autocast('cpu', dtype):
        output = multi_scale_deform_attn(**arguments, backend=backend)
    assert output.dtype == dtype and torch.equal(output, expected)
    output.sum().backward()
    assert arguments['value'].grad.dtype == torch.float32


def test_flops():
    arguments = make_weighted()
    arguments['value'].requires_grad_()
    samples = 2 * 7 * 2 * 3 * 2  # images, queries, heads, levels, points
    with FlopCounterMode(display=False) as counter:
        output = multi_scale_deform_attn(**arguments, backend='fused')
    assert counter.get_total_flops() == 2 * samples * 8 * 5
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 2 * samples * 8 * 9
    with torch.no_grad():
        graph = torch.jit.trace(OPERATOR, positional(arguments), check_trace=False).inlined_graph
    (node,) = graph.findAllNodes('lite_detr::multi_scale_deform_attn')
    assert flops.FLOP_HANDLERS[node.kind()](list(node.inputs()), list(node.outputs())) == samples * 8 * 5


def call_function(arguments: dict) -> None:
    multi_scale_deform_attn(**arguments, backend='reference')


def call_operator(arguments: dict) -> None:
    OPERATOR(*positional(arguments))


# argument, what becomes of it, error, message
WRONG = [
    ('value', lambda x: x.int(), TypeError, r'value must .*, got (torch\.int32|Int)'),
    ('value', lambda x: x[0], ValueError, r'value must have 4 dimensions'),
    ('value', lambda x: x[..., :0], ValueError, r'value must have at least one head and one channel per head'),
    ('value', lambda x: x[:1], ValueError, r'must have size 1 in dimension 0 \(the batch size of value\)'),
    ('value', lambda x: x[:, :, :1], ValueError, r'must have size 1 in dimension 2 \(the heads of value\)'),
    ('value', lambda x: x[:, 1:], ValueError, r'spatial_shapes .*must add up to the 79 tokens of value, got'),
    ('value', lambda x: x.to('meta'), ValueError, r'must be on the device of value, meta, got cpu'),
    ('spatial_shapes', lambda x: x[:2], ValueError, r'level_start_index must have size 2 in dimension 0'),
    ('spatial_shapes', lambda x: x + 1, ValueError, r'level_start_index must be 70 for level 1'),
    ('reference_points', lambda x: x[:, :3], ValueError, r'size 7 in dimension 1 \(the queries of sampling_offsets\)'),
    ('reference_points', lambda x: x[..., :1], ValueError, r'reference_points must hold points \(x, y\) or boxes'),
    ('sampling_offsets', lambda x: x[..., :0, :], ValueError, r'sampling_offsets must hold at least one point'),
    ('attention_weights', lambda x: x.long(), TypeError, r'attention_weights must .*, got (torch\.int64|Long)'),
    ('attention_weights', lambda x: x[0], ValueError, r'attention_weights must have 5 dimensions'),
    ('attention_weights', lambda x: x[:1], ValueError, r'attention_weights must have size 2 in dimension 0'),
    ('attention_weights', lambda x: x[:, :3], ValueError, r'attention_weights must have size 7 in dimension 1'),
    ('attention_weights', lambda x: x[:, :, :1], ValueError, r'attention_weights must have size 2 in dimension 2'),
    ('attention_weights', lambda x: x[..., :1, :], ValueError, r'attention_weights must have size 3 in dimension 3'),
    ('attention_weights', lambda x: x[..., :1], ValueError, r'attention_weights must have size 2 in dimension 4'),
    ('attention_weights', lambda x: x.to('meta'), ValueError, r'attention_weights must be on the device of value'),
]


@pytest.mark.parametrize('call', [call_function, call_operator])
@pytest.mark.parametrize('case', WRONG, ids=lambda case: f'{case[0]}-{case[3][:40]}')
def test_wrong_argument(call, case):
    name, change, error, message = case
    arguments = make_weighted()
    arguments[name] = change(arguments[name])
    with pytest.raises(error, match=message):
        call(arguments)


@pytest.mark.parametrize('name', ORDER)
def test_not_a_tensor(name):
    with pytest.raises(TypeError, match=f'{name} must be a torch.Tensor, got list'):
        multi_scale_deform_attn(**dict(make_weighted(), **{name: [1.0]}))


def test_wrong_gradient_of_the_output():
    arguments = positional(make_weighted())
    with pytest.raises(TypeError, match='grad_output must have the dtype of value'):
        BACKWARD(torch.zeros(2, 7, 16), *arguments, True)
    with pytest.raises(ValueError, match=r'grad_output must have the shape .* got \[2, 6, 16\]'):
        BACKWARD(torch.zeros(2, 6, 16).double(), *arguments, True)


SETTINGS = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
configurations = st.fixed_dictionaries(
    dict(
        bs=st.integers(0, 3),
        shapes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5),
        num_queries=st.one_of(st.none(), st.integers(0, 90)),
        num_heads=st.integers(1, 4),
        head_dim=st.one_of(st.sampled_from([16, 32, 64]), st.integers(1, 70)),
        num_points=st.one_of(st.just(4), st.integers(1, 7)),
        dtype=st.sampled_from(DTYPES),
        location_dtype=st.sampled_from(DTYPES),
        weight_dtype=st.sampled_from(DTYPES),
        boxes=st.booleans(),
        shared_offsets=st.booleans(),
        spread=st.sampled_from([0.0, 0.5, 3.0, 100.0]),
        seed=st.integers(0, 1000),
    )
)


@settings(max_examples=400, **SETTINGS)
@given(configurations)
def test_fuzz(configuration):
    arguments = make_weighted(**configuration)
    output, grads = run_with_gradients(multi_scale_deform_attn, arguments, backend='fused')
    expected = multi_scale_deform_attn(**arguments, backend='reference')
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
    assert relative_l2(output, expected) < tolerance[configuration['dtype']]
    assert all(grad.isfinite().all() for grad in grads.values())
    exact = {configuration[name] for name in ('dtype', 'location_dtype', 'weight_dtype')} == {torch.float64}
    if exact and configuration['spread'] > 0:  # no location lies on the border of a cell
        _, expected_grads = run_with_gradients(multi_scale_deform_attn, arguments, backend='reference')
        assert all(relative_l2(grad, expected_grads[name]) < 1e-8 for name, grad in grads.items())


@settings(max_examples=600, **SETTINGS)
@given(configurations, st.sampled_from(ORDER), st.data())
def test_fuzz_one_wrong_argument(configuration, name, data):
    """Valid arguments but for one size, start or dtype: Python and C++ agree on the error, or that there is none."""
    arguments = make_weighted(**dict(configuration, bs=min(configuration['bs'], 2)))
    tensor = arguments[name]
    kind = data.draw(st.sampled_from(['narrow', 'grow', 'dtype', 'number']))
    if kind == 'number' and not tensor.is_floating_point():
        tensor = tensor.clone()
        position = data.draw(st.integers(0, tensor.numel() - 1))
        tensor.view(-1)[position] += data.draw(st.sampled_from([-7, -1, 1, 2**40]))
    elif kind == 'dtype':
        tensor = tensor.to(data.draw(st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool])))
    else:
        dim = data.draw(st.integers(0, tensor.ndim - 1))
        if kind == 'narrow' and tensor.shape[dim] > 0:
            tensor = tensor.narrow(dim, 0, tensor.shape[dim] - 1)
        else:
            tensor = torch.cat([tensor, tensor.new_zeros([*tensor.shape[:dim], 1, *tensor.shape[dim + 1 :]])], dim)
    results = []
    for call in (call_function, call_operator):
        try:
            call(dict(arguments, **{name: tensor}))
            results.append(None)
        except (TypeError, ValueError) as error:
            assert 'must' in str(error)
            results.append(type(error))
    assert results[0] == results[1]
