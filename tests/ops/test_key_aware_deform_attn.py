"""Values and gradients of the operator: backends against each other, against plain loops and the authors' outputs."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from helpers.op_arguments import make_arguments, naive_deform_attn, run_with_gradients
from helpers.tolerances import GRADIENT_RELATIVE_L2, RELATIVE_L2, relative_l2

from lite_detr_mmdet.ops import key_aware_deform_attn

BACKENDS = ('reference', 'fused')
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
VARIANTS = [
    dict(boxes=boxes, shared_offsets=shared_offsets, separate_key=separate_key)
    for boxes, shared_offsets, separate_key in itertools.product((False, True), repeat=3)
]


def name(variant: dict) -> str:
    return '-'.join(key for key, value in variant.items() if value) or 'plain'


def assert_fused_matches_reference(arguments: dict, dtype: torch.dtype, location_dtype: torch.dtype = None) -> None:
    expected, expected_grads = run_with_gradients(key_aware_deform_attn, arguments, backend='reference')
    output, grads = run_with_gradients(key_aware_deform_attn, arguments, backend='fused')
    assert output.dtype == expected.dtype and output.shape == expected.shape
    assert relative_l2(output, expected) < RELATIVE_L2[dtype]
    for key, expected_grad in expected_grads.items():
        assert grads[key].dtype == arguments[key].dtype and grads[key].shape == arguments[key].shape
        rounded_to = location_dtype or dtype if key in ('reference_points', 'sampling_offsets') else dtype
        tolerance = max(GRADIENT_RELATIVE_L2[dtype], GRADIENT_RELATIVE_L2[rounded_to])
        assert relative_l2(grads[key], expected_grad) < tolerance, key


@pytest.mark.parametrize('variant', VARIANTS, ids=name)
@pytest.mark.parametrize('backend', BACKENDS)
def test_equals_loops(backend, variant):
    arguments = make_arguments(**variant)
    output = key_aware_deform_attn(**arguments, backend=backend)
    assert relative_l2(output, naive_deform_attn(**arguments)) < RELATIVE_L2[torch.float64]


@pytest.mark.parametrize('head_dim', [1, 3, 16, 20, 32, 64, 80])
@pytest.mark.parametrize('num_points', [1, 4, 5])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
def test_sizes(head_dim, num_points, dtype):
    for variant in VARIANTS:
        arguments = make_arguments(head_dim=head_dim, num_points=num_points, dtype=dtype, **variant)
        assert_fused_matches_reference(arguments, dtype)


@pytest.mark.parametrize('head_dim', [16, 24, 32, 64])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('separate_key', [False, True])
def test_half_precision(head_dim, dtype, separate_key):
    # Locations in float32: half-precision ones lie on the borders of cells, where the gradient is not defined.
    arguments = make_arguments(
        head_dim=head_dim, num_points=4, dtype=dtype, location_dtype=torch.float32, separate_key=separate_key
    )
    assert_fused_matches_reference(arguments, dtype, torch.float32)


@pytest.mark.parametrize('dtype,location_dtype', list(itertools.product(DTYPES, DTYPES)), ids=str)
def test_location_dtypes(dtype, location_dtype):
    arguments = make_arguments(num_points=4, head_dim=32, dtype=dtype, location_dtype=location_dtype)
    arguments['reference_points'] = arguments['reference_points'].to(torch.float32)
    outputs = [key_aware_deform_attn(**arguments, backend=backend) for backend in BACKENDS]
    assert relative_l2(outputs[1], outputs[0]) < RELATIVE_L2[dtype]
    arguments['reference_points'].requires_grad_()
    arguments['sampling_offsets'].requires_grad_()
    key_aware_deform_attn(**arguments, backend='fused').sum().backward()
    assert arguments['reference_points'].grad.dtype == torch.float32
    assert arguments['sampling_offsets'].grad.dtype == location_dtype


@pytest.mark.parametrize('num_levels', [1, 2, 4, 5, 6])
def test_levels(num_levels):
    shapes = ((12, 11), (7, 9), (5, 3), (2, 2), (1, 1), (1, 4))[:num_levels]
    arguments = make_arguments(shapes=shapes, num_points=4, head_dim=32, num_heads=3, dtype=torch.float32)
    assert_fused_matches_reference(arguments, torch.float32)


@pytest.mark.parametrize('first_level', [0, 1, 2])
def test_queries_of_a_map(first_level):
    """As many queries as tokens are computed in square tiles, with tiles cut off at the borders."""
    shapes = ((19, 21), (9, 17), (1, 30))
    num_queries = sum(height * width for height, width in shapes[first_level:])
    arguments = make_arguments(shapes=shapes, num_queries=num_queries, head_dim=32, num_points=4, dtype=torch.float32)
    assert_fused_matches_reference(arguments, torch.float32)


def test_many_tiles_and_chunks():
    """More queries than a chunk of the backward pass, whose tiles belong to several images."""
    arguments = make_arguments(
        bs=3, shapes=((24, 20), (6, 5)), num_queries=2100, num_heads=8, head_dim=16, num_points=4, dtype=torch.float32
    )
    assert_fused_matches_reference(arguments, torch.float32)


@pytest.mark.parametrize('index_dtype', [torch.int64, torch.int32])
def test_index_dtypes(index_dtype):
    arguments = make_arguments()
    expected = key_aware_deform_attn(**arguments, backend='reference')
    arguments['spatial_shapes'] = arguments['spatial_shapes'].to(index_dtype)
    arguments['level_start_index'] = arguments['level_start_index'].to(index_dtype)
    assert relative_l2(key_aware_deform_attn(**arguments, backend='fused'), expected) < RELATIVE_L2[torch.float64]


@pytest.mark.parametrize('separate_key', [False, True])
def test_strided_arguments(separate_key):
    """Parts of wider projections, transposed batches and strided channels."""
    arguments = make_arguments(dtype=torch.float32, head_dim=32, num_points=4, separate_key=separate_key)
    expected, expected_grads = run_with_gradients(key_aware_deform_attn, arguments, backend='reference')

    def part_of_wider(tensor):
        return torch.cat([torch.full_like(tensor, math.nan), tensor], -1)[..., tensor.shape[-1] :]

    def every_other(tensor):
        return tensor.repeat_interleave(2, -1)[..., ::2]

    def batch_second(tensor):
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)

    for layout in (part_of_wider, every_other, batch_second):
        strided = {
            key: layout(tensor) if tensor is not None and tensor.is_floating_point() else tensor
            for key, tensor in arguments.items()
        }
        assert not strided['value'].is_contiguous() and not strided['sampling_offsets'].is_contiguous()
        strided['spatial_shapes'] = strided['spatial_shapes'].t().contiguous().t()
        grad_output = torch.ones(()).expand(expected.shape)
        for key, tensor in strided.items():  # leaves that keep their strides
            if tensor is not None and tensor.is_floating_point():
                strided[key] = tensor.detach().requires_grad_()
        output = key_aware_deform_attn(**strided, backend='fused')
        assert relative_l2(output, expected) < RELATIVE_L2[torch.float32]
        output.backward(grad_output)
        _, grads = run_with_gradients(key_aware_deform_attn, arguments, grad_output.clone(), backend='reference')
        for key in expected_grads:
            assert relative_l2(strided[key].grad, grads[key]) < GRADIENT_RELATIVE_L2[torch.float32], (layout, key)


def test_expanded_arguments():
    """One reference for all levels, one query for all images: strides of zero."""
    arguments = make_arguments(dtype=torch.float32, num_points=4)
    arguments['reference_points'] = arguments['reference_points'][:1, :, :1].expand(2, -1, 3, -1)
    arguments['query'] = arguments['query'][:1, :1].expand(2, 7, -1, -1)
    arguments['sampling_offsets'] = arguments['sampling_offsets'][:, :, :, :1].expand(-1, -1, -1, 3, -1, -1)
    assert_fused_matches_reference(arguments, torch.float32)


@pytest.mark.parametrize('backend', BACKENDS)
def test_borders(backend):
    """Locations on and around the borders of a map; the weights follow by hand."""
    arguments = make_arguments(bs=1, shapes=((2, 3),), num_queries=1, num_heads=1, head_dim=1, num_points=1)
    arguments['value'] = torch.arange(1.0, 7, dtype=torch.float64).view(1, 6, 1, 1)
    arguments['reference_points'] = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    expected = {
        (0, 0): 1.0,  # centre of the first pixel
        (2, 1): 6.0,  # centre of the last one
        (-0.5, 0): 0.5,
        (-1, 0): 0.0,
        (2.5, 1): 3.0,
        (3, 1): 0.0,
        (0.5, 0.5): (1 + 2 + 4 + 5) / 4,
        (-0.25, -0.25): 0.75 * 0.75,
        (2.75, 1.75): 6 / 16,
        (1, 1.5): 2.5,
        (1, 2): 0.0,
        (1, -1): 0.0,
    }
    for (x, y), result in expected.items():
        arguments['sampling_offsets'] = torch.tensor([x + 0.5, y + 0.5], dtype=torch.float64).view(1, 1, 1, 1, 1, 2)
        output = key_aware_deform_attn(**arguments, backend=backend)
        assert output.item() == pytest.approx(result, abs=1e-12), (x, y)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('boxes', [False, True])
@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf, 1e30, -1e30, 3e9])
def test_non_finite_and_huge_offsets(backend, boxes, bad):
    """They read zero, keep their place in the softmax and have no gradient."""
    arguments = make_arguments(boxes=boxes, dtype=torch.float32, num_points=4)
    arguments['sampling_offsets'][0, 0, 0, 0, 0, 0] = bad
    arguments['sampling_offsets'][1, 2, 1, 2, 3, 1] = bad
    far = arguments['sampling_offsets'].clone()
    far[~(far.abs() < 1e6)] = 1e5
    expected, expected_grads = run_with_gradients(
        key_aware_deform_attn, dict(arguments, sampling_offsets=far), backend='reference'
    )
    output, grads = run_with_gradients(key_aware_deform_attn, arguments, backend=backend)
    assert relative_l2(output, expected) < RELATIVE_L2[torch.float32]
    for key, grad in grads.items():
        assert relative_l2(grad, expected_grads[key]) < GRADIENT_RELATIVE_L2[torch.float32], key
    assert grads['sampling_offsets'][0, 0, 0, 0, 0].abs().sum() == 0


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_non_finite_reference_points(backend, bad):
    arguments = make_arguments(dtype=torch.float32)
    arguments['reference_points'][0, 3] = bad
    output, grads = run_with_gradients(key_aware_deform_attn, arguments, backend=backend)
    assert output[0, 3].abs().sum() == 0 and output.isfinite().all()
    assert all(grad.isfinite().all() for grad in grads.values())
    assert grads['reference_points'][0, 3].abs().sum() == 0


@pytest.mark.parametrize('backend', BACKENDS)
def test_pixels_that_are_not_sampled_are_not_read(backend):
    """A value that is not a number stays where it is: samples outside of the map do not touch it."""
    arguments = make_arguments(dtype=torch.float32, num_points=4, head_dim=32)
    arguments['value'][:, [0, 54, 74]] = math.nan  # the first pixel of each level
    arguments['sampling_offsets'].fill_(1e4)
    output, grads = run_with_gradients(key_aware_deform_attn, arguments, backend=backend)
    assert output.abs().sum() == 0
    assert all(grad.abs().sum() == 0 for grad in grads.values())


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_values_that_are_not_numbers_are_not_hidden(dtype):
    arguments = make_arguments(dtype=dtype, num_points=4, head_dim=32, spread=0.1)
    arguments['value'].fill_(math.nan)
    assert key_aware_deform_attn(**arguments, backend='fused').isnan().all()


@pytest.mark.parametrize('scale', [30.0, 1e4])
def test_large_logits(scale):
    """The softmax neither overflows nor loses the largest sample."""
    arguments = make_arguments(dtype=torch.float32, head_dim=32, num_points=4, spread=1.0)
    arguments['query'] *= scale
    outputs = [key_aware_deform_attn(**arguments, backend=backend) for backend in BACKENDS]
    assert outputs[1].isfinite().all()
    # A logit of 1e4 is rounded to about 1e-3, and so is the ratio of two weights.
    assert relative_l2(outputs[1], outputs[0]) < max(RELATIVE_L2[torch.float32], scale * 1e-6)


@pytest.mark.parametrize('backend', BACKENDS)
def test_padded_tokens_have_logit_zero(backend):
    arguments = make_arguments(separate_key=True)
    arguments['value'][:, 3:40] = 0
    arguments['key'][:, 3:40] = 0
    output = key_aware_deform_attn(**arguments, backend=backend)
    assert relative_l2(output, naive_deform_attn(**arguments)) < RELATIVE_L2[torch.float64]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('empty', [dict(bs=0), dict(num_queries=0)], ids=str)
def test_empty(backend, empty):
    arguments = make_arguments(separate_key=True, **empty)
    output, grads = run_with_gradients(key_aware_deform_attn, arguments, backend=backend)
    assert output.numel() == 0
    assert all(grad.shape == arguments[key].shape and grad.abs().sum() == 0 for key, grad in grads.items())


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('shapes', [((3, 4), (0, 5), (2, 2)), ((0, 0), (2, 3)), ((3, 0),), ((0, 0), (0, 0))], ids=str)
def test_levels_without_pixels(backend, shapes):
    for boxes in (False, True):
        arguments = make_arguments(shapes=shapes, boxes=boxes, spread=0.3)
        arguments['reference_points'].mul_(0.01)  # in [-1, 0) pixels of an empty level
        output, grads = run_with_gradients(key_aware_deform_attn, arguments, backend=backend)
        assert relative_l2(output, naive_deform_attn(**arguments)) < RELATIVE_L2[torch.float64]
        assert all(grad.isfinite().all() for grad in grads.values())


def test_shared_offsets_equal_repeated_offsets():
    arguments = make_arguments(shared_offsets=True, dtype=torch.float32, num_points=4)
    shared, shared_grads = run_with_gradients(key_aware_deform_attn, arguments, backend='fused')
    repeated = arguments['sampling_offsets'].repeat(1, 1, 1, 3, 1, 1)
    output, grads = run_with_gradients(
        key_aware_deform_attn, dict(arguments, sampling_offsets=repeated), backend='fused'
    )
    assert torch.equal(shared, output)
    expected = grads['sampling_offsets'].sum(3, keepdim=True)
    assert relative_l2(shared_grads['sampling_offsets'], expected) < RELATIVE_L2[torch.float32]


@pytest.mark.parametrize('boxes', [False, True])
def test_key_that_is_the_value(boxes):
    """A key given as a tensor of its own with the same numbers changes nothing; the gradients add up."""
    arguments = make_arguments(dtype=torch.float32, head_dim=32, num_points=4, boxes=boxes)
    output, grads = run_with_gradients(key_aware_deform_attn, arguments, backend='fused')
    separate = dict(arguments, key=arguments['value'].clone())
    separate_output, separate_grads = run_with_gradients(key_aware_deform_attn, separate, backend='fused')
    assert relative_l2(separate_output, output) < RELATIVE_L2[torch.float32]
    summed = separate_grads['value'] + separate_grads['key']
    assert relative_l2(summed, grads['value']) < GRADIENT_RELATIVE_L2[torch.float32]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('file', ['kda_shared_kv', 'kda_separate_key', 'kda_boxes'])
def test_authors_outputs(golden, file, backend):
    """The operator between the projections of the authors' module."""
    data = golden(file)

    def project(layer, x):
        return F.linear(x, data[f'param.{layer}.weight'], data[f'param.{layer}.bias'])

    def split_heads(x):
        if data.get('key_padding_mask') is not None:
            x = x.masked_fill(data['key_padding_mask'][..., None], 0)
        return x.unflatten(-1, (data['num_heads'], -1))

    query, value = data['query'].requires_grad_(), data['value'].requires_grad_()
    levels = 1 if data['same_loc'] else data['num_levels']
    output = key_aware_deform_attn(
        query=project('query_proj', query).unflatten(-1, (data['num_heads'], -1)),
        value=split_heads(project('value_proj', value)),
        spatial_shapes=data['spatial_shapes'],
        level_start_index=data['level_start_index'],
        reference_points=data['reference_points'],
        sampling_offsets=project('sampling_offsets', query).unflatten(
            -1, (data['num_heads'], levels, data['num_points'], 2)
        ),
        key=split_heads(project('key_proj', value)) if data['proj_key'] else None,
        backend=backend,
    )
    output = project('output_proj', output)
    torch.testing.assert_close(output, data['output'], rtol=1e-9, atol=1e-9)
    output.backward(data['grad_output'])
    torch.testing.assert_close(query.grad, data['grad_query'], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(value.grad, data['grad_value'], rtol=1e-9, atol=1e-9)
