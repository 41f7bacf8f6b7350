"""The fused operator on a GPU. Without one, test_cuda_host.py runs the same kernels in an emulator.

Needs torch and the compiled extension alone: ``LITE_DETR_OPS_ONLY=1 pytest --noconftest tests/ops/test_cuda.py``.
"""

import pytest
import torch

from lite_detr_mmdet.ops import key_aware_deform_attn


def find_obstacle() -> str:
    """Why these tests cannot run, or an empty string."""
    if not torch.cuda.is_available():
        return 'torch finds no CUDA device'
    if not hasattr(torch.ops.lite_detr, 'key_aware_deform_attn'):
        return 'the extension is not built'
    if not torch._C._dispatch_has_kernel_for_dispatch_key('lite_detr::key_aware_deform_attn', 'CUDA'):
        return 'the extension is built without CUDA'
    return ''


pytestmark = pytest.mark.skipif(bool(find_obstacle()), reason=find_obstacle() or 'none')
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
# Bound of the relative L2 error by the dtype of the result.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 1.5e-3, torch.bfloat16: 1.2e-2}
PYRAMID = [(25, 42), (13, 21), (7, 11), (4, 6)]
NAMES = ('query', 'value', 'reference_points', 'sampling_offsets', 'key')


def make_arguments(
    shapes=PYRAMID,
    bs=2,
    num_queries=None,
    num_heads=8,
    head_dim=32,
    num_points=4,
    dtype=torch.float32,
    location_dtype=torch.float32,
    separate_key=False,
    boxes=False,
    shared_offsets=False,
    device='cuda',
):
    """Random arguments by name; ``num_queries`` None: the tokens. Locations keep away from the borders of cells."""
    generator = torch.Generator().manual_seed(0)
    spatial_shapes = torch.tensor(shapes)
    num_value = int(spatial_shapes.prod(1).sum())
    num_queries = num_value if num_queries is None else num_queries
    value_size = (bs, num_value, num_heads, head_dim)
    offset_size = (bs, num_queries, num_heads, 1 if shared_offsets else len(shapes), num_points, 2)
    reference_points = torch.rand((bs, num_queries, len(shapes), 4 if boxes else 2), generator=generator)
    reference_points = reference_points.to(location_dtype)
    offsets = (2 * torch.randn(offset_size, generator=generator)).to(location_dtype)
    size = spatial_shapes.flip(1).double()[:, None]
    for _ in range(20):
        reference = reference_points.double()[:, :, None, :, None]
        scale = reference[..., 2:] * size * 0.5 / num_points if boxes else 1.0
        locations = reference[..., :2] * size - 0.5 + offsets.double() * scale
        distance = (locations - locations.round()).abs()
        again = (distance.amin(3, keepdim=True) if shared_offsets else distance) < 2e-3
        offsets = torch.where(again, (2 * torch.randn(offset_size, generator=generator)).to(location_dtype), offsets)
    arguments = dict(
        query=torch.randn((bs, num_queries, num_heads, head_dim), generator=generator).to(dtype),
        value=torch.randn(value_size, generator=generator).to(dtype),
        spatial_shapes=spatial_shapes,
        level_start_index=torch.cat([spatial_shapes.new_zeros(1), spatial_shapes.prod(1).cumsum(0)[:-1]]),
        reference_points=reference_points,
        sampling_offsets=offsets,
        key=torch.randn(value_size, generator=generator).to(dtype) if separate_key else None,
    )
    return {name: tensor if tensor is None else tensor.to(device) for name, tensor in arguments.items()}


def run(arguments, backend, dtype=None):
    """Output and gradients by name, of the sum of the output weighted by fixed numbers."""
    arguments, given_dtype = dict(arguments), arguments['query'].dtype
    names = [name for name in NAMES if arguments[name] is not None]
    for name in names:
        arguments[name] = arguments[name].detach().to(dtype or arguments[name].dtype).requires_grad_()
    output = key_aware_deform_attn(**arguments, backend=backend)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64, device=output.device).sin() * 3
    grad_output = weights.view_as(output).to(given_dtype).to(output.dtype)
    grads = torch.autograd.grad(output, [arguments[name] for name in names], grad_output)
    return {'output': output.detach(), **dict(zip(names, grads))}


def assert_close(actual, expected, dtype):
    # A gradient that is zero but for rounding is compared with another one.
    smallest = 0.01 * expected['value'].double().norm() + 1e-12
    for name, reference in expected.items():
        result = actual[name]
        error = (result.double() - reference.double()).norm() / torch.maximum(reference.double().norm(), smallest)
        bound = max(TOLERANCE[result.dtype], TOLERANCE[torch.float64 if dtype == torch.float64 else torch.float32])
        assert error <= bound, f'{name}: {error:.2e}, at most {bound:.2e} is allowed'


def check(**options):
    arguments = make_arguments(**options)
    dtype = options.get('dtype', torch.float32)
    # Against the reference in float64 on the same numbers.
    assert_close(run(arguments, 'fused'), run(arguments, 'reference', torch.float64), dtype)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('separate_key', [False, True], ids=['shared', 'separate'])
@pytest.mark.parametrize('head_dim', [16, 32, 64, 5, 48, 300])
def test_matches_reference(dtype, separate_key, head_dim):
    check(dtype=dtype, separate_key=separate_key, head_dim=head_dim, num_queries=None if head_dim == 32 else 100)


@pytest.mark.parametrize('num_levels', [1, 2, 3, 4])
@pytest.mark.parametrize('num_points', [1, 3, 4, 8])
def test_levels_and_points(num_levels, num_points):
    check(shapes=PYRAMID[:num_levels], num_points=num_points)


@pytest.mark.parametrize('boxes', [False, True], ids=['points', 'boxes'])
@pytest.mark.parametrize('shared_offsets', [False, True], ids=['per level', 'shared offsets'])
@pytest.mark.parametrize('location_dtype', DTYPES, ids=str)
def test_locations(boxes, shared_offsets, location_dtype):
    for dtype in (torch.float32, torch.bfloat16):
        options = dict(boxes=boxes, shared_offsets=shared_offsets, num_queries=100)
        check(dtype=dtype, location_dtype=location_dtype, **options)


@pytest.mark.parametrize('num_queries', [1, 63, 65, 378, 101, 24])
def test_query_tiles(num_queries):
    """378, 101 and 24 queries are the tokens of the last levels."""
    check(num_queries=num_queries)


def test_layouts():
    """Tensors that are transposed, expanded, or start in the middle of a 16-byte vector."""
    arguments = make_arguments(num_queries=50)
    expected = run(arguments, 'fused')
    odd = dict(arguments)
    odd['query'] = arguments['query'].transpose(1, 2).contiguous().transpose(1, 2)
    odd['value'] = torch.cat([arguments['value'].new_zeros(1), arguments['value'].flatten()])[1:].view_as(
        arguments['value']
    )
    assert odd['value'].data_ptr() % 16 != 0
    odd['reference_points'] = torch.cat([arguments['reference_points']] * 2, dim=-1)[..., :2]
    assert_close(run(odd, 'fused'), expected, torch.float32)
    expanded = dict(arguments, query=arguments['query'][:1].expand(2, -1, -1, -1))
    assert_close(run(expanded, 'fused'), run(expanded, 'reference', torch.float64), torch.float32)


@pytest.mark.parametrize('shapes', [[(0, 0)], [(3, 4), (0, 5), (2, 2)]], ids=['no tokens', 'an empty level'])
def test_empty_levels(shapes):
    check(shapes=shapes, num_queries=7)


@pytest.mark.parametrize('options', [dict(bs=0), dict(num_queries=0)], ids=['no images', 'no queries'])
@pytest.mark.parametrize('deterministic', [False, True])
def test_nothing_to_do(options, deterministic):
    arguments = make_arguments(**options)
    torch.use_deterministic_algorithms(deterministic)
    try:
        result = run(arguments, 'fused')
    finally:
        torch.use_deterministic_algorithms(False)
    assert result['output'].shape == arguments['query'].flatten(2).shape
    assert result['value'].shape == arguments['value'].shape and not result['value'].any()


def test_locations_that_are_not_finite():
    arguments = make_arguments(num_queries=20)
    numbers = [float('nan'), float('inf'), -float('inf'), 1e30, 4e9, -2147483648.0]
    for i, number in enumerate(numbers):
        arguments['sampling_offsets'][0, i, 0, :, i % 4, i % 2] = number
        arguments['reference_points'][0, 19 - i, i % 4, i % 2] = number
    assert_close(run(arguments, 'fused'), run(arguments, 'reference', torch.float64), torch.float32)


def test_wrong_shapes_on_the_device_stay_inside_value():
    arguments = make_arguments(num_queries=20)
    arguments['spatial_shapes'][:] = torch.tensor([[2**40, 3], [-1, 4], [2**31, 2**31], [13, 21]])
    result = run(arguments, 'fused')
    torch.cuda.synchronize()
    assert all(torch.isfinite(tensor).all() for tensor in result.values())


@pytest.mark.parametrize('where', ['host', 'device'])
def test_does_not_wait_for_the_gpu(where):
    """Nor does it copy anything back: shapes in host memory are passed by value."""
    arguments = make_arguments()
    if where == 'host':
        for name in ('spatial_shapes', 'level_start_index'):
            arguments[name] = arguments[name].cpu()
    run(arguments, 'fused')
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        run(arguments, 'fused')
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_runs_on_the_current_stream():
    """The operator waits for what its stream does before, and for nothing else."""
    arguments = make_arguments()
    expected = run(arguments, 'fused')['output']
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(arguments['value'])
        torch.cuda._sleep(200_000_000)  # about 0.1 s
        late.copy_(arguments['value'])
        output = key_aware_deform_attn(**dict(arguments, value=late), backend='fused')
    assert not stream.query()
    stream.synchronize()
    torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_in_a_graph():
    """Captured with shapes in host memory, and replayed on other numbers."""
    arguments = make_arguments(num_queries=64)
    for name in ('spatial_shapes', 'level_start_index'):
        arguments[name] = arguments[name].cpu()
    key_aware_deform_attn(**arguments, backend='fused')
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = key_aware_deform_attn(**arguments, backend='fused')
    arguments['value'].mul_(0.5)
    graph.replay()
    torch.testing.assert_close(output, key_aware_deform_attn(**arguments, backend='fused'), rtol=0, atol=0)


@needs_two_gpus
def test_another_device_than_the_current_one():
    first = run(make_arguments(device='cuda:0'), 'fused')
    with torch.cuda.device(0):
        second = run(make_arguments(device='cuda:1'), 'fused')
    assert second['output'].device == torch.device('cuda:1')
    assert_close({name: tensor.cpu() for name, tensor in second.items()}, {k: v.cpu() for k, v in first.items()}, None)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('separate_key', [False, True], ids=['shared', 'separate'])
def test_deterministic_algorithms(dtype, separate_key):
    """Bitwise equal from run to run, and close to the reference."""
    arguments = make_arguments(dtype=dtype, separate_key=separate_key)
    expected = run(arguments, 'reference', torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        first = run(arguments, 'fused')
        for _ in range(5):
            again = run(arguments, 'fused')
            assert all(torch.equal(first[name], again[name]) for name in first)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(first, expected, torch.float32)


def test_forward_is_deterministic():
    arguments = make_arguments()
    first = key_aware_deform_attn(**arguments, backend='fused')
    assert all(torch.equal(first, key_aware_deform_attn(**arguments, backend='fused')) for _ in range(5))


def test_more_than_2_to_the_31_elements():
    """Indices beyond 32 bits, in the fast and in the generic kernels: the last image is as if it were alone."""
    for head_dim, bs in ((64, 1100), (48, 1500)):
        tokens = 3840
        num_bytes = bs * tokens * 8 * head_dim * 2
        if torch.cuda.mem_get_info()[0] < 6 * num_bytes:
            pytest.skip(f'needs {6 * num_bytes / 2**30:.0f} GiB of free memory on the GPU')
        small = make_arguments(shapes=[(60, 64)], bs=1, num_queries=4, head_dim=head_dim, dtype=torch.float16)
        big = dict(small)
        for name in ('query', 'reference_points', 'sampling_offsets'):
            big[name] = small[name].expand(bs, *small[name].shape[1:]).contiguous()
        big['value'] = small['value'].new_zeros(bs, tokens, 8, head_dim)
        big['value'][-1] = small['value'][0]
        assert big['value'].numel() > 2**31
        result, expected = run(big, 'fused'), run(small, 'fused')
        torch.testing.assert_close(result['output'][-1:], expected['output'], rtol=0, atol=0)
        assert not result['output'][0].any()
        assert result['value'][-1].any()
        del big, result
        torch.cuda.empty_cache()


def test_memory_of_forward():
    """The output and the logsumexp, nothing else."""
    arguments = make_arguments()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    output = key_aware_deform_attn(**arguments, backend='fused')
    extra = torch.cuda.max_memory_allocated() - before
    logsumexp_bytes = output.numel() // 32 * 4
    assert extra <= output.numel() * 4 + logsumexp_bytes + 4096


def test_limits_are_said():
    arguments = make_arguments(num_queries=3)
    arguments['spatial_shapes'] = torch.zeros((1025, 2), dtype=torch.int64, device='cuda')
    arguments['level_start_index'] = torch.zeros(1025, dtype=torch.int64, device='cuda')
    arguments['reference_points'] = torch.zeros((2, 3, 1025, 2), device='cuda')
    arguments['sampling_offsets'] = torch.zeros((2, 3, 8, 1, 4, 2), device='cuda')
    with pytest.raises(ValueError, match='at most 1024 levels'):
        key_aware_deform_attn(**arguments, backend='fused')
