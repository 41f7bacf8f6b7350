"""Call each kernel of the CUDA operators on small random arguments, for compute-sanitizer (sanitize_cuda_op.sh)."""

import itertools

import torch

import lite_detr_mmdet.ops  # noqa: F401  loads the operators


def call(
    dtype: torch.dtype, head_dim: int, separate_key: bool, boxes: bool, num_queries: int, num_points: int
) -> None:
    """Forward and backward of both operators; some locations lie outside of the maps."""
    shapes = [(12, 17), (6, 9), (3, 5), (2, 3)]
    spatial_shapes = torch.tensor(shapes, device='cuda')
    starts = torch.cat([spatial_shapes.new_zeros(1), spatial_shapes.prod(1).cumsum(0)[:-1]])
    num_value, bs, num_heads = sum(height * width for height, width in shapes), 2, 3
    query = torch.randn(bs, num_queries, num_heads, head_dim, device='cuda').to(dtype)
    value = torch.randn(bs, num_value, num_heads, head_dim, device='cuda').to(dtype)
    key = torch.randn_like(value) if separate_key else None
    reference_points = torch.rand(bs, num_queries, len(shapes), 4 if boxes else 2, device='cuda')
    offset_levels = 1 if boxes else len(shapes)
    sampling_offsets = 2 * torch.randn(bs, num_queries, num_heads, offset_levels, num_points, 2, device='cuda')
    arguments = (query, value, spatial_shapes, starts, reference_points, sampling_offsets, key)
    output, logsumexp = torch.ops.lite_detr.key_aware_deform_attn(*arguments)
    grads = torch.ops.lite_detr.key_aware_deform_attn_backward(torch.randn_like(output), *arguments, logsumexp, True)
    weights = torch.rand(bs, num_queries, num_heads, len(shapes), num_points, device='cuda').to(dtype)
    arguments = (value, spatial_shapes, starts, reference_points, sampling_offsets, weights)
    given = torch.ops.lite_detr.multi_scale_deform_attn(*arguments)
    grads += torch.ops.lite_detr.multi_scale_deform_attn_backward(torch.randn_like(given), *arguments, boxes)
    for tensor in (output, logsumexp, given, *grads):
        assert torch.isfinite(tensor).all()


def main() -> None:
    torch.manual_seed(0)
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        for dtype, head_dim, separate_key in itertools.product(dtypes, (16, 32, 64, 20), (False, True)):
            call(dtype, head_dim, separate_key, boxes=False, num_queries=75, num_points=4)
        call(torch.float32, 32, False, boxes=True, num_queries=279, num_points=3)
        call(torch.float32, 16, False, boxes=True, num_queries=5, num_points=100)
    torch.cuda.synchronize()
    print('called every kernel')


if __name__ == '__main__':
    main()
