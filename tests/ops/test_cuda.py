"""The fused operators on a GPU. Without one, test_cuda_host.py runs the same kernels in an emulator.

Needs torch and the compiled extension alone: ``LITE_DETR_OPS_ONLY=1 pytest --noconftest tests/ops/test_cuda.py``.
"""

import pytest
import torch

from lite_detr_mmdet.ops import key_aware_deform_attn, multi_scale_deform_attn


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
NAMES = ('query', 'value', 'reference_points', 'sampling_offsets', 'key', 'attention_weights')
ATTENTION = ['shared', 'separate', 'given']


def make_arguments(
    shapes=PYRAMID,
    bs=2,
    num_queries=None,
    num_heads=8,
    head_dim=32,
    num_points=4,
    dtype=torch.float32,
    location_dtype=torch.float32,
    attention='shared',
    boxes=False,
    shared_offsets=False,
    device='cuda',
):
    """Random arguments by name; ``num_queries`` None: the tokens. Locations keep away from the borders of cells.

    ``attention`` is 'shared' or 'separate' (the key), or 'given' (the weights: ordinary attention).
    """
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
        value=torch.randn(value_size, generator=generator).to(dtype),
        spatial_shapes=spatial_shapes,
        level_start_index=torch.cat([spatial_shapes.new_zeros(1), spatial_shapes.prod(1).cumsum(0)[:-1]]),
        reference_points=reference_points,
        sampling_offsets=offsets,
    )
    if attention == 'given':
        weights = torch.randn((bs, num_queries, num_heads, len(shapes) * num_points), generator=generator).softmax(-1)
        arguments['attention_weights'] = weights.unflatten(-1, (len(shapes), num_points)).to(dtype)
    else:
        arguments['query'] = torch.randn((bs, num_queries, num_heads, head_dim), generator=generator).to(dtype)
    if attention == 'separate':
        arguments['key'] = torch.randn(value_size, generator=generator).to(dtype)
    return {name: tensor.to(device) for name, tensor in arguments.items()}


def call(arguments, backend='fused'):
    operator = multi_scale_deform_attn if 'attention_weights' in arguments else key_aware_deform_attn
    return operator(**arguments, backend=backend)


def run(arguments, backend, dtype=None):
    """Output and gradients by name, of the sum of the output weighted by fixed numbers."""
    arguments, given_dtype = dict(arguments), arguments['value'].dtype
    names = [name for name in NAMES if name in arguments]
    for name in names:
        arguments[name] = arguments[name].detach().to(dtype or arguments[name].dtype).requires_grad_()
    output = call(arguments, backend)
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
        bound = max(TOLERANCE[result.dtype], TOLERANCE[dtype])
        assert error <= bound, f'{name}: {error:.2e}, at most {bound:.2e} is allowed'


def check(**options):
    arguments = make_arguments(**options)
    dtype = options.get('dtype', torch.float32)
    # Against the reference in float64 on the same numbers.
    assert_close(run(arguments, 'fused'), run(arguments, 'reference', torch.float64), dtype)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('attention', ATTENTION)
@pytest.mark.parametrize('head_dim', [16, 32, 64, 5, 48, 300])
def test_matches_reference(dtype, attention, head_dim):
    check(dtype=dtype, attention=attention, head_dim=head_dim, num_queries=None if head_dim == 32 else 100)


@pytest.mark.parametrize('num_levels', [1, 2, 3, 4])
@pytest.mark.parametrize('num_points', [1, 3, 4, 8])
@pytest.mark.parametrize('attention', ['shared', 'given'])
def test_levels_and_points(num_levels, num_points, attention):
    check(shapes=PYRAMID[:num_levels], num_points=num_points, attention=attention)


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
        output = call(dict(arguments, value=late))
    assert not stream.query()
    stream.synchronize()
    torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_in_a_graph():
    """Captured with shapes in host memory, and replayed on other numbers."""
    arguments = make_arguments(num_queries=64)
    for name in ('spatial_shapes', 'level_start_index'):
        arguments[name] = arguments[name].cpu()
    call(arguments)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call(arguments)
    arguments['value'].mul_(0.5)
    graph.replay()
    torch.testing.assert_close(output, call(arguments), rtol=0, atol=0)


@needs_two_gpus
def test_another_device_than_the_current_one():
    first = run(make_arguments(device='cuda:0'), 'fused')
    with torch.cuda.device(0):
        second = run(make_arguments(device='cuda:1'), 'fused')
    assert second['output'].device == torch.device('cuda:1')
    assert_close({name: tensor.cpu() for name, tensor in second.items()}, {k: v.cpu() for k, v in first.items()}, None)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('attention', ATTENTION)
def test_deterministic_algorithms(dtype, attention):
    """Bitwise equal from run to run, and close to the reference."""
    arguments = make_arguments(dtype=dtype, attention=attention)
    expected = run(arguments, 'reference', torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        first = run(arguments, 'fused')
        for _ in range(5):
            again = run(arguments, 'fused')
            assert all(torch.equal(first[name], again[name]) for name in first)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(first, expected, dtype)


def test_deterministic_with_outliers():
    """Outliers in one head take no exactness from the others."""
    arguments = make_arguments()
    arguments['query'][0, :3, 0] *= 1e4
    expected = run(arguments, 'reference', torch.float64)['value'][:, :, 1:]
    torch.use_deterministic_algorithms(True)
    try:
        result = run(arguments, 'fused')['value'][:, :, 1:]
    finally:
        torch.use_deterministic_algorithms(False)
    assert (result.double() - expected).norm() <= 2e-6 * expected.norm()


def test_head_major_values():
    """Values whose heads lie outside of the tokens in memory: no copy, equal results."""
    arguments = make_arguments()
    expected = run(arguments, 'fused')
    value = arguments['value'].transpose(1, 2).contiguous().transpose(1, 2)
    assert_close(run(dict(arguments, value=value), 'fused'), expected, torch.float32)


@pytest.mark.parametrize('attention', ATTENTION)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_runs_the_fast_kernels(dtype, attention):
    """What csrc/cuda/choose_kernel.cuh says, seen by the profiler."""
    arguments = make_arguments(dtype=dtype, attention=attention)
    for head_dim, kind in ((32, 'fast'), (24, 'generic')):
        arguments = make_arguments(dtype=dtype, attention=attention, head_dim=head_dim, num_queries=64)
        run(arguments, 'fused')
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            run(arguments, 'fused')
            torch.cuda.synchronize()
        names = [event.key for event in profile.key_averages()]
        for direction in ('forward', 'backward'):
            assert any(f'{direction}_{kind}_kernel' in name for name in names), names


@pytest.mark.parametrize('attention', ATTENTION)
def test_opcheck(attention):
    """Schema, fake kernel and autograd registration agree with the CUDA implementation."""
    arguments = make_arguments(attention=attention, num_queries=30)
    for name in NAMES:
        if name in arguments:
            arguments[name].requires_grad_()
    order = ('query', 'value', 'spatial_shapes', 'level_start_index', 'reference_points', 'sampling_offsets')
    if attention == 'given':
        operator = torch.ops.lite_detr.multi_scale_deform_attn.default
        call_with = [arguments[name] for name in (*order[1:], 'attention_weights')]
    else:
        operator = torch.ops.lite_detr.key_aware_deform_attn.default
        call_with = [*(arguments[name] for name in order), arguments.get('key')]
    # Atomics add in no fixed order: compare two runs loosely.
    torch.library.opcheck(operator, tuple(call_with), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('attention', ATTENTION)
@pytest.mark.parametrize('mode', ['default', 'reduce-overhead'])
def test_compile(attention, mode):
    """Without a graph break; 'reduce-overhead' captures CUDA graphs."""
    arguments = make_arguments(attention=attention, num_queries=64)
    expected = call(arguments)
    compiled = torch.compile(lambda given: call(given) * 2, fullgraph=True, mode=mode)
    for _ in range(3):
        output = compiled(arguments).clone()
    torch.testing.assert_close(output, 2 * expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('attention', ATTENTION)
def test_autocast(attention, dtype):
    """Values are cast, locations are not, and the gradients have the dtypes of what came in."""
    arguments = make_arguments(attention=attention, num_queries=50)
    expected = run(arguments, 'reference', torch.float64)
    with torch.autocast('cuda', dtype):
        result = run(arguments, 'fused')
    assert result['output'].dtype == dtype and result['value'].dtype == torch.float32
    assert_close({name: tensor.float() for name, tensor in result.items()}, expected, dtype)


@pytest.mark.parametrize('attention', ATTENTION)
def test_backward_in_a_graph(attention):
    """A whole training step captured, and replayed on other numbers."""
    arguments = make_arguments(attention=attention, num_queries=64)
    for name in ('spatial_shapes', 'level_start_index'):
        arguments[name] = arguments[name].cpu()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(arguments, 'fused')
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(arguments, 'fused')
    arguments['value'].mul_(0.5)
    graph.replay()
    assert_close(captured, run(arguments, 'fused'), torch.float32)


def test_capture_of_shapes_that_need_a_copy_is_refused():
    """A copy from pageable memory cannot be captured: the error says what can."""
    arguments = make_arguments(num_queries=8)
    arguments['spatial_shapes'] = arguments['spatial_shapes'].cpu()
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(ValueError, match='while a CUDA graph is captured'), torch.cuda.graph(graph):
        call(arguments)


def test_forward_is_deterministic():
    arguments = make_arguments()
    first = call(arguments)
    assert all(torch.equal(first, call(arguments)) for _ in range(5))


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
    output = call(arguments)
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
        call(arguments)
