"""The CUDA kernels, compiled for the host and run by an emulator, against the plain PyTorch reference.

Covers what can be wrong without a GPU to see it: every index (each tensor is a heap block of exactly its size under
AddressSanitizer, results start as NaN), the meeting of threads at barriers and shuffles, missing barriers (the threads
run in several orders) and the arithmetic. It says nothing about what nvcc makes of the code: see test_cuda.py.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lite_detr_mmdet.ops import reference

sys.path.append(str(Path(__file__).resolve().parent / 'cuda_host'))
import host_kernels
from host_kernels import Case

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(host_kernels.find_compiler() is None, reason='no C++ compiler (g++ or clang++)'),
]

GRADIENTS = ('query', 'value', 'key', 'attention_weights', 'reference_points', 'sampling_offsets')
# Bound of the relative L2 error by the dtype of the result.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 1.5e-3, torch.bfloat16: 1.2e-2}
# What a single row may be off, over what the whole may be.
ROW_FACTOR = 8
PYRAMID = [(12, 17), (6, 9), (3, 5), (2, 3)]
ATTENTION = ['shared', 'separate', 'given']


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
    return host_kernels.build(tmp_path_factory.mktemp('cuda_host'))


def distance_to_border(reference_points, sampling_offsets, spatial_shapes):
    """How far the sampling locations are from the next border between cells, in pixels."""
    size = spatial_shapes.flip(1).double()[:, None]
    reference = reference_points.double()[:, :, None, :, None]
    scale = 1.0 if reference.shape[-1] == 2 else reference[..., 2:] * size * 0.5 / sampling_offsets.shape[4]
    locations = reference[..., :2] * size - 0.5 + sampling_offsets.double() * scale
    return (locations - locations.round()).abs()


def make_case(
    shapes=PYRAMID,
    bs=1,
    num_queries=None,
    num_heads=2,
    head_dim=32,
    num_points=4,
    dtype=torch.float32,
    reference_dtype=None,
    offset_dtype=None,
    weight_dtype=None,
    attention='shared',
    boxes=False,
    shared_offsets=False,
    seed=0,
    **kwargs,
) -> Case:
    """Random arguments; some locations lie outside of the maps. ``num_queries`` None: the tokens. ``attention`` is
    'shared' or 'separate' (the key), or 'given' (the weights: ordinary attention).
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    spatial_shapes = torch.tensor(shapes)
    num_value = int(spatial_shapes.prod(1).sum())
    num_queries = num_value if num_queries is None else num_queries
    num_levels = len(shapes)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), spatial_shapes.prod(1).cumsum(0)[:-1]])
    reference_points = torch.rand((bs, num_queries, num_levels, 4 if boxes else 2), generator=generator)
    reference_points = reference_points.to(reference_dtype or dtype)
    offset_size = (bs, num_queries, num_heads, 1 if shared_offsets else num_levels, num_points, 2)
    offsets = (2 * normal(*offset_size)).to(offset_dtype or dtype)
    # At the border of a cell the gradient of a location depends on its last bit: draw again what is too close to one.
    for _ in range(50):
        distance = distance_to_border(reference_points, offsets, spatial_shapes)
        again = (distance.amin(3, keepdim=True) if shared_offsets else distance) < 2e-3
        offsets = torch.where(again, (2 * normal(*offset_size)).to(offsets.dtype), offsets)
    value_size = (bs, num_value, num_heads, head_dim)
    weights = normal(bs, num_queries, num_heads, num_levels, num_points).flatten(3).softmax(-1)
    weights = weights.view(bs, num_queries, num_heads, num_levels, num_points)
    given = attention == 'given'
    return Case(
        query=None if given else normal(bs, num_queries, num_heads, head_dim).to(dtype),
        value=normal(*value_size).to(dtype),
        key=normal(*value_size).to(dtype) if attention == 'separate' else None,
        attention_weights=weights.to(weight_dtype or dtype) if given else None,
        spatial_shapes=spatial_shapes,
        level_start_index=starts,
        reference_points=reference_points,
        sampling_offsets=offsets,
        grad_output=normal(bs, num_queries, num_heads * head_dim).to(dtype),
        **kwargs,
    )


def expect(case: Case):
    """Output, logsumexp and gradients of the reference in float64."""
    names = [name for name in GRADIENTS if getattr(case, name) is not None]
    inputs = {name: getattr(case, name).double().requires_grad_() for name in names}
    shapes = case.spatial_shapes, case.level_start_index
    locations = inputs['reference_points'], inputs['sampling_offsets']
    if case.attention_weights is None:
        output = reference.key_aware_deform_attn_reference(
            inputs['query'], inputs['value'], *shapes, *locations, inputs.get('key')
        )
    else:
        output = reference.multi_scale_deform_attn_reference(
            inputs['value'], *shapes, *locations, inputs['attention_weights']
        )
    grads = torch.autograd.grad(output, list(inputs.values()), case.grad_output.double(), allow_unused=True)
    grads = {name: torch.zeros_like(inputs[name]) if grad is None else grad for name, grad in zip(inputs, grads)}
    if not case.reference_grad:
        del grads['reference_points']
    return {'output': output.detach(), **grads}


def assert_close(actual, expected, case: Case, what: str = ''):
    """Compare by the relative L2 error, of the whole and of each row; results start as NaN, so one that is not written
    fails.
    """
    exact = case.value.dtype == torch.float64
    # What is computed in float32 stays so, even where it is given out in float64.
    computed = TOLERANCE[case.value.dtype]
    if case.deterministic and exact:
        computed *= 10  # an int64 has fewer bits than the sum of doubles
    # A gradient that is zero but for rounding is compared with the gradient it came from.
    smallest = 0.01 * case.grad_output.double().norm()
    for name, want in expected.items():
        result = actual[name]
        assert torch.isfinite(result).all(), f'{name} {what}'
        difference = result.double() - want
        error = difference.norm() / torch.maximum(want.norm(), smallest)
        bound = max(TOLERANCE[result.dtype], computed)
        assert error <= bound, f'{name} {what}: {error:.2e}, at most {bound:.2e} is allowed'
        # One wrong row of many would hide in the norm of the whole.
        if want.numel() > 0:
            size = case.head_dim if name in ('output', 'query', 'value', 'key') else want.shape[-1]
            rows, errors = want.reshape(-1, size).norm(dim=1), difference.reshape(-1, size).norm(dim=1)
            typical = torch.maximum(rows.square().mean().sqrt(), smallest / len(rows) ** 0.5)
            worst = (errors / torch.maximum(rows, typical)).max()
            assert worst <= ROW_FACTOR * bound, (
                f'{name} {what}: {worst:.2e} in a row, {ROW_FACTOR * bound:.2e} allowed'
            )


def check(programs, tmp_path, *cases: Case, archs=('sm_80', 'sm_90')):
    expected = [expect(case) for case in cases]
    for arch in archs:
        for case, want, got in zip(cases, expected, host_kernels.run(programs[arch], list(cases), tmp_path)):
            assert_close(got, want, case, arch)


def test_index_arithmetic(programs):
    """Levels, the visiting order, corners and the fixed point for any bit pattern and the largest sizes."""
    result = subprocess.run([programs['headers']], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('dtype', host_kernels.DTYPES, ids=str)
@pytest.mark.parametrize('attention', ATTENTION)
def test_dtypes(programs, tmp_path, dtype, attention):
    """Each dtype, at the tokens of all levels; the gradients scattered with and without vector atomics."""
    # double takes the generic kernel, which is slow in the emulator
    num_queries = 9 if dtype == torch.float64 else None
    check(programs, tmp_path, make_case(dtype=dtype, attention=attention, num_queries=num_queries, bs=2))


@pytest.mark.parametrize('head_dim', [1, 5, 16, 24, 32, 64, 128, 300])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_head_dims(programs, tmp_path, head_dim, dtype):
    """Fast kernels (16, 32, 64), others, and one beyond the channels that a warp keeps in registers."""
    options = dict(head_dim=head_dim, dtype=dtype, num_queries=5, num_heads=3)
    check(programs, tmp_path, *[make_case(attention=attention, **options) for attention in ATTENTION], archs=['sm_90'])


@pytest.mark.parametrize('num_levels', [1, 2, 3, 4, 5])
@pytest.mark.parametrize('num_points', [1, 3, 4, 8])
def test_levels_and_points(programs, tmp_path, num_levels, num_points):
    """Sample counts that fill a chunk, leave one partly empty, or span several."""
    shapes = [*PYRAMID, (1, 1)][:num_levels]
    options = dict(shapes=shapes, num_points=num_points, num_queries=11)
    cases = [make_case(dtype=dtype, **options) for dtype in (torch.float32, torch.float16, torch.float64)]
    check(programs, tmp_path, *cases, make_case(attention='given', **options), archs=['sm_90'])


@pytest.mark.parametrize('boxes', [False, True], ids=['points', 'boxes'])
@pytest.mark.parametrize('shared_offsets', [False, True], ids=['per level', 'shared offsets'])
@pytest.mark.parametrize('head_dim', [32, 20], ids=['fast', 'generic'])
def test_locations(programs, tmp_path, boxes, shared_offsets, head_dim):
    options = dict(boxes=boxes, shared_offsets=shared_offsets, head_dim=head_dim, num_queries=5, bs=2)
    cases = [make_case(**options), make_case(dtype=torch.float64, attention='separate', **options)]
    check(programs, tmp_path, *cases, make_case(attention='given', **options))


@pytest.mark.parametrize('reference_dtype', host_kernels.DTYPES, ids=str)
@pytest.mark.parametrize('offset_dtype', host_kernels.DTYPES, ids=str)
def test_mixed_dtypes(programs, tmp_path, reference_dtype, offset_dtype):
    """As under autocast: the locations keep a dtype of their own."""
    options = dict(reference_dtype=reference_dtype, offset_dtype=offset_dtype, num_queries=5, num_heads=1, boxes=True)
    cases = [make_case(dtype=dtype, **options) for dtype in (torch.float64, torch.float32, torch.bfloat16)]
    options['weight_dtype'] = offset_dtype
    cases += [make_case(dtype=dtype, attention='given', **options) for dtype in (torch.float64, torch.bfloat16)]
    check(programs, tmp_path, *cases, archs=['sm_90'])


@pytest.mark.parametrize('num_queries', [1, 63, 64, 65, 75, 21, 6], ids=lambda n: f'{n} queries')
def test_query_tiles(programs, tmp_path, num_queries):
    """Tiles that are not full; 75, 21 and 6 queries are the tokens of the last levels."""
    for dtype in (torch.float32, torch.float16):
        case = make_case(num_queries=num_queries, head_dim=16, num_heads=1, dtype=dtype, bs=2)
        check(programs, tmp_path, case, archs=['sm_90'])


@pytest.mark.parametrize('attention', ATTENTION)
@pytest.mark.parametrize('num_queries', [204, 75, 270], ids=['first level', 'last levels', 'other'])
def test_small_tiles(programs, tmp_path, attention, num_queries):
    """On a GPU with many multiprocessors a small grid gets small tiles."""
    case = make_case(num_queries=num_queries, num_heads=1, attention=attention, multiprocessors=132)
    check(programs, tmp_path, case, replace(case, reference_grad=False), archs=['sm_90'])


@pytest.mark.parametrize('head_dim', [32, 12], ids=['fast', 'generic'])
@pytest.mark.parametrize('attention', ATTENTION)
def test_head_major_values(programs, tmp_path, attention, head_dim):
    """Values whose heads lie outside of the tokens in memory, and gradients likewise."""
    case = make_case(num_queries=20, bs=2, attention=attention, head_dim=head_dim, head_major=True)
    check(programs, tmp_path, case, replace(case, deterministic=True), archs=['sm_90'])


def make_grid_case(num_points=4, noise=0.0, shapes=PYRAMID, **kwargs) -> Case:
    """Queries at the pixels' centres and the offsets of an encoder at its start: whole pixels in the direction of the
    head, with noise if wanted.
    """
    case = make_case(shapes=shapes, num_points=num_points, **kwargs)
    centers = [
        torch.stack(torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing='xy'), -1)
        for h, w in shapes
    ]
    grid = torch.cat([center.flatten(0, 1) for center in centers])[: case.reference_points.shape[1]]
    num_heads = case.sampling_offsets.shape[2]
    angles = torch.arange(num_heads) * (2 * torch.pi / num_heads)
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    offsets = directions[:, None, None] * torch.arange(1, num_points + 1)[:, None]
    generator = torch.Generator().manual_seed(5)
    offsets = offsets + noise * torch.randn(case.sampling_offsets.shape, generator=generator)
    return replace(
        case,
        reference_points=grid[None, :, None]
        .expand_as(case.reference_points)
        .to(case.reference_points.dtype)
        .contiguous(),
        sampling_offsets=offsets.expand_as(case.sampling_offsets).to(case.sampling_offsets.dtype).contiguous(),
    )


@pytest.mark.parametrize('attention', ATTENTION)
@pytest.mark.parametrize('head_dim', [32, 12], ids=['fast', 'generic'])
def test_locations_on_pixels(programs, tmp_path, attention, head_dim):
    """As every model starts. The gradients of the locations have a step there and are not compared."""
    shapes = PYRAMID if head_dim == 32 else [(6, 8), (3, 4), (2, 2), (1, 1)]
    for dtype in (torch.float32, torch.bfloat16):
        case = make_grid_case(
            shapes=shapes, attention=attention, head_dim=head_dim, dtype=dtype, reference_dtype=torch.float32
        )
        expected = expect(case)
        del expected['reference_points'], expected['sampling_offsets']
        (result,) = host_kernels.run(programs['sm_90'], [case], tmp_path)
        assert_close(result, expected, case)


def count_corners(case: Case, level: int) -> int:
    """Corners inside a level's map over all samples, which is what a kernel adds that adds each corner by itself."""
    height, width = case.spatial_shapes[level].tolist()
    points = reference.get_sampling_points(case.reference_points, case.sampling_offsets, height, width, level)
    x, y = points.floor().unbind(-1)
    inside = points[..., 0] > -2
    columns = ((x >= 0).long() + ((x + 1) < width).long()) * inside
    rows = ((y >= 0).long() + ((y + 1) < height).long()) * inside
    return int((columns * rows).sum())


@pytest.mark.parametrize(
    'queries, noise, least', [('level 0', 0.0, 8.0), ('level 0', 0.5, 6.0), ('all levels', 0.0, 3.0)]
)
def test_additions_to_memory(programs, tmp_path, queries, noise, least):
    """Adding a tile's sum for each token takes a fraction of the additions that one for each corner takes. Queries of
    higher levels are further apart in level 0 and share fewer tokens.
    """
    shapes = [(16, 40), (8, 20), (4, 10), (2, 5)]
    num_queries = 16 * 40 if queries == 'level 0' else None
    case = make_grid_case(noise=noise, shapes=shapes, num_heads=8, num_queries=num_queries, counted_tokens=16 * 40)
    (result,) = host_kernels.run(programs['sm_90'], [case], tmp_path)
    before, after = count_corners(case, 0) * 32 // 4, int(result['additions'])  # four channels an addition
    print(f'{queries}, noise {noise}: {before} additions to level 0 for each corner, {after}: {before / after:.1f}x')
    assert before / after >= least


@pytest.mark.parametrize('levels_in', host_kernels.LEVELS_IN)
def test_where_the_shapes_lie(programs, tmp_path, levels_in):
    check(programs, tmp_path, make_case(levels_in=levels_in, num_queries=7), archs=['sm_90'])


def test_many_samples(programs, tmp_path):
    """More samples than the fast backward kernel has room for, and so many that its blocks shrink."""
    options = dict(num_queries=3, num_heads=1, head_dim=16)
    cases = [make_case(num_points=num_points, **options) for num_points in (8, 20, 40, 100)]
    cases.append(make_case(num_points=20, attention='given', **options))
    check(programs, tmp_path, *cases, make_case(num_points=20, dtype=torch.float16, **options), archs=['sm_80'])


@pytest.mark.parametrize('order', host_kernels.ORDERS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_order_of_threads(programs, tmp_path, order, dtype):
    """A missing barrier shows in one of the orders in which the threads run between barriers."""
    options = dict(order=order, seed=3, dtype=dtype)
    for head_dim, num_queries in ((16, 75), (32, 75), (64, 75), (6, 6)):
        case = make_case(head_dim=head_dim, num_queries=num_queries, **options)
        check(programs, tmp_path, case, archs=['sm_90'])


@pytest.mark.parametrize('dtype', host_kernels.DTYPES, ids=str)
def test_deterministic(programs, tmp_path, dtype):
    """Bitwise equal whatever the order of the additions, and as exact as the other path."""
    cases = [
        make_case(dtype=dtype, attention=attention, head_dim=head_dim, deterministic=True, num_queries=num_queries)
        for attention in ATTENTION
        for head_dim, num_queries in ((32, 6 if dtype == torch.float64 else 75), (12, 6))
    ]
    check(programs, tmp_path, *cases)
    results = [
        host_kernels.run(programs[arch], [replace(case, order=order, seed=seed) for case in cases], tmp_path)
        for arch, order, seed in [('sm_80', 'forward', 0), ('sm_90', 'random', 1), ('sm_90', 'random', 2)]
    ]
    for first, *others in zip(*results):
        for other in others:
            assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize('scale', [1e-12, 1e12])
def test_deterministic_keeps_its_range(programs, tmp_path, scale):
    """The fixed point follows the size of the gradients."""
    case = make_case(deterministic=True, num_queries=9)
    check(programs, tmp_path, replace(case, grad_output=case.grad_output * scale), archs=['sm_90'])


@pytest.mark.parametrize('name', ['query', 'value', 'grad_output'])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_deterministic_says_when_inputs_are_not_finite(programs, tmp_path, name, bad):
    """Integers cannot: the gradient of that head of that image becomes NaN rather than a wrong number."""
    case = make_case(deterministic=True, num_queries=9, bs=2)
    expected = expect(case)
    getattr(case, name).view(-1)[5] = bad
    (result,) = host_kernels.run(programs['sm_90'], [case], tmp_path)
    assert result['value'][0, :, 0].isnan().all()
    error = (result['value'][1].double() - expected['value'][1]).norm() / expected['value'][1].norm()
    assert error <= TOLERANCE[torch.float32]


@pytest.mark.parametrize('attention', ATTENTION)
@pytest.mark.parametrize('name', ['query', 'value', 'grad_output'])
def test_deterministic_with_outliers(programs, tmp_path, name, attention):
    """Outliers in one head, or in one image, take no exactness from the others."""
    if name == 'query' and attention == 'given':
        name = 'attention_weights'
    case = make_case(deterministic=True, num_queries=30, bs=2, attention=attention)
    tensor = getattr(case, name)
    if name == 'grad_output':
        tensor = tensor.view(2, 30, 2, 32)
    tensor[0, :3, 0] *= 1e4
    expected = expect(case)['value']
    (result,) = host_kernels.run(programs['sm_90'], [case], tmp_path)
    for image, head in ((0, 1), (1, 0), (1, 1)):
        want = expected[image, :, head]
        error = (result['value'][image, :, head].double() - want).norm() / want.norm()
        assert error <= 2e-6, f'image {image}, head {head}: {error:.1e}'


@pytest.mark.parametrize('head_dim', [32, 7], ids=['fast', 'generic'])
@pytest.mark.parametrize('boxes', [False, True], ids=['points', 'boxes'])
def test_locations_that_are_far_or_not_finite(programs, tmp_path, head_dim, boxes):
    """They read zero, count in the softmax and have no gradient."""
    case = make_case(head_dim=head_dim, boxes=boxes, num_queries=12)
    bad = [float('nan'), float('inf'), -float('inf'), 1e30, -1e30, 2147483648.0, 4e9, -5.0]
    for i, number in enumerate(bad):
        case.sampling_offsets[0, i, 0, :, i % 4, i % 2] = number
        case.reference_points[0, 11 - i // 2, i % 4, i % 2] = number
    check(programs, tmp_path, case, replace(case, deterministic=True))


@pytest.mark.parametrize('head_dim', [32, 7], ids=['fast', 'generic'])
@pytest.mark.parametrize(
    'shapes, starts',
    [
        ([(2**40, 2**40), (-1, 5), (6, -(2**62)), (1, 2**31)], [0, 0, 0, 0]),
        ([(12, 17), (12, 17), (12, 17), (12, 17)], [0, 204, 258, 273]),
        ([(12, 17), (6, 9), (3, 5), (2, 3)], [5, -3, 2**62, 279]),
        ([(2**32, 2**32), (2**31, 2), (2**33, 2**31), (279, 1)], [2**32, 1, 0, 0]),
        ([(0, 0), (0, 2**50), (2**50, 0), (0, 0)], [0, 0, 0, 0]),
    ],
)
def test_wrong_shapes_on_the_device(programs, tmp_path, shapes, starts, head_dim):
    """Nothing outside of value is read or written, and the levels that fit are still sampled."""
    options = dict(spatial_shapes=torch.tensor(shapes), level_start_index=torch.tensor(starts))
    cases = [
        replace(
            make_case(head_dim=head_dim, num_queries=num_queries, bs=2, attention=attention),
            levels_in=where,
            **options,
        )
        for num_queries, attention in [(6, 'separate'), *([] if head_dim == 7 else [(None, 'shared')])]
        for where in ('device int64', 'host')
    ]
    for result in host_kernels.run(programs['sm_90'], cases, tmp_path):
        assert all(torch.isfinite(tensor).all() for tensor in result.values())


@pytest.mark.parametrize('head_dim', [32, 7], ids=['fast', 'generic'])
@pytest.mark.parametrize('deterministic', [False, True])
@pytest.mark.parametrize(
    'options',
    [
        dict(bs=0, num_queries=5),
        dict(num_queries=0),
        dict(shapes=[(0, 0), (0, 3)], num_queries=5),
        dict(shapes=[(3, 4), (0, 3), (2, 2), (5, 0)]),
        dict(bs=0, num_queries=0, shapes=[(0, 0)]),
    ],
    ids=['no images', 'no queries', 'no tokens', 'empty levels', 'nothing'],
)
def test_empty(programs, tmp_path, options, head_dim, deterministic):
    case = make_case(head_dim=head_dim, deterministic=deterministic, attention='separate', **options)
    (result,) = host_kernels.run(programs['sm_90'], [case], tmp_path)
    if case.grad_output.numel() == 0:  # nothing is launched: the caller fills the gradients with zeros
        return
    assert_close(result, expect(case), case)


@pytest.mark.parametrize('head_dim', [32, 7], ids=['fast', 'generic'])
def test_logsumexp(programs, tmp_path, head_dim):
    """Of the scaled logits over all samples, those that read zero included; with large logits it stays finite."""
    case = make_case(shapes=[(1, 1)], num_points=3, num_queries=2, num_heads=1, head_dim=head_dim)
    case.reference_points[:] = 0.5
    case.sampling_offsets[:] = 0
    case.sampling_offsets[..., 2, :] = 5  # outside
    case.query[0, 1] *= 1000
    (result,) = host_kernels.run(programs['sm_90'], [case], tmp_path)
    logit = (case.query.double() * case.value.double()).sum(-1) / head_dim**0.5
    expected = torch.stack([logit, logit, torch.zeros_like(logit)]).logsumexp(0)
    torch.testing.assert_close(result['logsumexp'].double(), expected, rtol=1e-5, atol=1e-5)
    assert_close(result, expect(case), case)


@pytest.mark.parametrize('head_dim', [32, 7], ids=['fast', 'generic'])
def test_faults_are_seen(programs, tmp_path, head_dim):
    """With a value that is too short by one number the program ends, so the tests above can fail."""
    case = make_case(num_queries=64, num_heads=1, head_dim=head_dim, missing_bytes=4)
    case.reference_points[:] = 1  # the last pixels
    case.sampling_offsets[:] = -0.5
    with pytest.raises(RuntimeError, match='heap-buffer-overflow'):
        host_kernels.run(programs['sm_90'], [case], tmp_path)
