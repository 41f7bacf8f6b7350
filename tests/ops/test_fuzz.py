"""Thousands of random calls, valid and invalid: they agree with the reference or raise, and never crash."""

import math

import torch
from helpers.op_arguments import make_arguments, run_with_gradients
from helpers.tolerances import relative_l2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lite_detr_mmdet.ops import key_aware_deform_attn

SETTINGS = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
ORDER = ['query', 'value', 'spatial_shapes', 'level_start_index', 'reference_points', 'sampling_offsets', 'key']

shapes = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5)
dtypes = st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16])
configurations = st.fixed_dictionaries(
    dict(
        bs=st.integers(0, 3),
        shapes=shapes,
        num_queries=st.one_of(st.none(), st.integers(0, 90)),
        num_heads=st.integers(1, 4),
        head_dim=st.one_of(st.sampled_from([16, 32, 64]), st.integers(1, 70)),
        num_points=st.one_of(st.just(4), st.integers(1, 7)),
        dtype=dtypes,
        location_dtype=dtypes,
        boxes=st.booleans(),
        shared_offsets=st.booleans(),
        separate_key=st.booleans(),
        spread=st.sampled_from([0.0, 0.5, 3.0, 100.0]),
        seed=st.integers(0, 1000),
    )
)


@settings(max_examples=600, **SETTINGS)
@given(configurations)
def test_valid_values(configuration):
    arguments = make_arguments(**configuration)
    output = key_aware_deform_attn(**arguments, backend='fused')
    expected = key_aware_deform_attn(**arguments, backend='reference')
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
    # float32 locations of 100 pixels are exact to 1e-5 pixels
    assert relative_l2(output, expected) < tolerance[configuration['dtype']]


@settings(max_examples=300, **SETTINGS)
@given(configurations)
def test_valid_gradients(configuration):
    """In float64, where a random location lies on the border of no cell; elsewhere that they are finite."""
    exact = {torch.float64}
    arguments = make_arguments(**configuration)
    _, grads = run_with_gradients(key_aware_deform_attn, arguments, backend='fused')
    if {configuration['dtype'], configuration['location_dtype']} <= exact and configuration['spread'] > 0:
        _, expected = run_with_gradients(key_aware_deform_attn, arguments, backend='reference')
        for name, grad in grads.items():
            assert relative_l2(grad, expected[name]) < 1e-8, name
    assert all(grad.isfinite().all() for grad in grads.values())


floats = st.sampled_from([0.0, -0.0, 1e-40, 1.0, 1e4, -1e9, 3e9, -1e30, 3e38, math.inf, -math.inf, math.nan])


@settings(max_examples=400, **SETTINGS)
@given(configurations, st.data())
def test_any_numbers(configuration, data):
    """Non-finite and huge numbers anywhere: the same elements are finite as in the reference."""
    arguments = make_arguments(**dict(configuration, dtype=torch.float32, location_dtype=torch.float32))
    for name in ('query', 'value', 'reference_points', 'sampling_offsets'):
        flat = arguments[name].view(-1)
        for _ in range(data.draw(st.integers(0, 3))):
            if flat.numel() > 0:
                flat[data.draw(st.integers(0, flat.numel() - 1))] = data.draw(floats)
    output, grads = run_with_gradients(key_aware_deform_attn, arguments, backend='fused')
    expected = key_aware_deform_attn(**arguments, backend='reference')
    both = output.isfinite() & expected.isfinite()
    # Near the largest float one of them may overflow before the other.
    large = (arguments['query'].abs() > 1e20).any() or (arguments['value'].abs() > 1e20).any()
    if not large:
        assert torch.equal(output.isnan(), expected.isnan())
        difference = (output - expected)[both].abs().max().item() if both.any() else 0.0
        magnitude = expected[both].abs().max().item() if both.any() else 1.0
        assert difference <= 1e-2 * max(1.0, magnitude)
    assert set(grads) >= {'query', 'value', 'reference_points', 'sampling_offsets'}


small = st.integers(-1, 5)
any_dtypes = st.sampled_from(
    [torch.float32, torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.bool]
)


@st.composite
def tensors(draw, ndim):
    ndim = draw(st.sampled_from([ndim] * 8 + [ndim - 1, ndim + 1, 0]))
    shape = [max(draw(small), 0) for _ in range(max(ndim, 0))]
    return torch.zeros(shape, dtype=draw(any_dtypes))


@settings(max_examples=1500, **SETTINGS)
@given(
    tensors(4),
    tensors(4),
    st.one_of(st.none(), tensors(4)),
    st.lists(st.tuples(small, small), max_size=4),
    st.lists(st.integers(-2, 40), max_size=4),
    tensors(4),
    tensors(6),
)
def test_invalid_calls_of_the_operator(query, value, key, levels, starts, reference_points, sampling_offsets):
    """Independently drawn arguments, almost never valid together, straight into the compiled operator."""
    spatial_shapes = torch.tensor(levels, dtype=torch.int64).view(-1, 2)
    level_start_index = torch.tensor(starts, dtype=torch.int64)
    try:
        torch.ops.lite_detr.key_aware_deform_attn(
            query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key
        )
    except (TypeError, ValueError) as error:
        assert 'must' in str(error)


@settings(max_examples=1200, **SETTINGS)
@given(configurations, st.sampled_from(ORDER), st.data())
def test_one_wrong_argument(configuration, name, data):
    """Valid arguments but for one size, start or dtype: a clear error, or valid after all."""
    configuration = dict(configuration, bs=min(configuration['bs'], 2))
    arguments = make_arguments(**configuration)
    tensor = arguments[name]
    if tensor is None:
        return
    kind = data.draw(st.sampled_from(['narrow', 'grow', 'dtype', 'number']))
    if kind == 'number' and not tensor.is_floating_point():
        tensor = tensor.clone()
        tensor.view(-1)[data.draw(st.integers(0, tensor.numel() - 1))] += data.draw(
            st.sampled_from([-7, -1, 1, 2**40])
        )
    elif kind == 'dtype':
        tensor = tensor.to(data.draw(any_dtypes))
    else:
        dim = data.draw(st.integers(0, tensor.ndim - 1))
        if kind == 'narrow' and tensor.shape[dim] > 0:
            tensor = tensor.narrow(dim, 0, tensor.shape[dim] - 1)
        else:
            tensor = torch.cat([tensor, tensor.new_zeros([*tensor.shape[:dim], 1, *tensor.shape[dim + 1 :]])], dim)
    arguments[name] = tensor
    results = []
    for call in (
        lambda: key_aware_deform_attn(**arguments, backend='reference'),
        lambda: torch.ops.lite_detr.key_aware_deform_attn(*[arguments[key] for key in ORDER])[0],
    ):
        try:
            results.append(call().shape)
        except (TypeError, ValueError) as error:
            assert 'must' in str(error)
            results.append(type(error))
    assert results[0] == results[1]  # the checks in Python and in C++ agree
