// Key-aware deformable attention on the CPU: checks, memory and threads around the kernels of kernels.h.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "../key_aware_deform_attn.h"
#include "kernels.h"

namespace lite_detr {
namespace cpu {
namespace {

const Kernels& choose_kernels() {
  const char* wish = std::getenv("LITE_DETR_CPU_CAPABILITY");  // to test the lower ones: default, avx2 or avx512
  const std::string limit = wish == nullptr ? "avx512" : wish;
  TORCH_CHECK_VALUE(limit == "default" || limit == "avx2" || limit == "avx512",
                    "LITE_DETR_CPU_CAPABILITY must be default, avx2 or avx512, got ", limit);
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && limit == "avx512") return kernels_avx512();
  if (avx2 && limit != "default") return kernels_avx2();
#endif
  return kernels_default();
}

const Kernels& get_kernels() {
  static const Kernels& kernels = choose_kernels();
  return kernels;
}

std::string cpu_capability() { return get_kernels().name; }

ScalarType to_scalar_type(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return ScalarType::kDouble;
    case at::kHalf:
      return ScalarType::kHalf;
    case at::kBFloat16:
      return ScalarType::kBFloat16;
    default:
      return ScalarType::kFloat;
  }
}

// The kernels want the last `dims` dimensions dense and take any strides (zero included) for the others.
at::Tensor dense_tail(const at::Tensor& tensor, int64_t dims) {
  int64_t expected = 1;
  for (int64_t dim = tensor.dim() - 1; dim >= tensor.dim() - dims; --dim) {
    if (tensor.size(dim) != 1 && tensor.stride(dim) != expected) return tensor.contiguous();
    expected *= tensor.size(dim);
  }
  return tensor;
}

void copy_strides(const at::Tensor& tensor, int64_t count, int64_t* strides) {
  std::copy_n(tensor.strides().begin(), count, strides);
}

// The arguments with all that they point to.
struct Call {
  Arguments args{};
  at::Tensor query, value, key, reference_points, sampling_offsets;
  std::vector<int64_t> heights, widths, starts;
  std::vector<QueryMap> query_maps;

  Call(const at::Tensor& query_in, const at::Tensor& value_in, const std::optional<at::Tensor>& key_in,
       const at::Tensor& spatial_shapes, const at::Tensor& level_start_index, const at::Tensor& reference_points_in,
       const at::Tensor& sampling_offsets_in)
      : query(dense_tail(query_in, 1)),
        value(dense_tail(value_in, 1)),
        reference_points(dense_tail(reference_points_in, 1)),
        sampling_offsets(dense_tail(sampling_offsets_in, 2)) {
    TORCH_CHECK_VALUE(value.size(1) <= std::numeric_limits<int32_t>::max(),
                      "value must hold at most 2147483647 tokens per image, got ", value.size(1));
    args.bs = query.size(0);
    args.num_queries = query.size(1);
    args.num_heads = query.size(2);
    args.head_dim = query.size(3);
    args.num_value = value.size(1);
    args.num_levels = spatial_shapes.size(0);
    args.num_points = sampling_offsets.size(4);
    args.boxes = reference_points.size(3) == 4;
    args.shared_offsets = sampling_offsets.size(3) == 1;
    args.type = to_scalar_type(query.scalar_type());
    args.query = query.const_data_ptr();
    copy_strides(query, 3, args.query_stride);
    args.value = value.const_data_ptr();
    copy_strides(value, 3, args.value_stride);
    if (key_in.has_value()) {
      key = dense_tail(*key_in, 1);
      args.key = key.const_data_ptr();
      copy_strides(key, 3, args.key_stride);
    }
    args.reference_type = to_scalar_type(reference_points.scalar_type());
    args.reference_points = reference_points.const_data_ptr();
    copy_strides(reference_points, 3, args.reference_stride);
    args.offset_type = to_scalar_type(sampling_offsets.scalar_type());
    args.sampling_offsets = sampling_offsets.const_data_ptr();
    copy_strides(sampling_offsets, 4, args.offset_stride);
    if (args.shared_offsets) args.offset_stride[3] = 0;

    const at::Tensor shapes = spatial_shapes.to(at::kCPU, at::kLong).contiguous();
    const at::Tensor level_starts = level_start_index.to(at::kCPU, at::kLong).contiguous();
    for (int64_t level = 0; level < args.num_levels; ++level) {
      heights.push_back(shapes.const_data_ptr<int64_t>()[2 * level]);
      widths.push_back(shapes.const_data_ptr<int64_t>()[2 * level + 1]);
      starts.push_back(level_starts.const_data_ptr<int64_t>()[level]);
    }
    args.heights = heights.data();
    args.widths = widths.data();
    args.starts = starts.data();
    set_query_maps();
  }

  // As many queries as the last levels have tokens are taken for those tokens: this changes the order of the work,
  // never the result.
  void set_query_maps() {
    for (int64_t first = 0; first < args.num_levels && query_maps.empty(); ++first) {
      if (args.num_value - starts[first] != args.num_queries) continue;
      for (int64_t level = first; level < args.num_levels; ++level) {
        if (heights[level] == 0 || widths[level] == 0) continue;
        query_maps.push_back({starts[level] - starts[first], 0, heights[level], widths[level]});
      }
    }
    if (query_maps.empty()) query_maps.push_back({0, 0, 1, args.num_queries});
    int64_t tiles = 0;
    for (QueryMap& map : query_maps) {
      map.first_tile = tiles;
      const int64_t tile_height = map.height == 1 ? 1 : kTileSide;
      const int64_t tile_width = kTileSize / tile_height;
      tiles += (map.height + tile_height - 1) / tile_height * ((map.width + tile_width - 1) / tile_width);
    }
    args.query_maps = query_maps.data();
    args.num_query_maps = static_cast<int64_t>(query_maps.size());
    args.tiles_per_image = tiles;
  }
};

at::TensorOptions accumulator_options(const at::Tensor& query) {
  return query.options().dtype(query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& query, const at::Tensor& value,
                                           const std::optional<at::Tensor>& key, const at::Tensor& spatial_shapes,
                                           const at::Tensor& level_start_index, const at::Tensor& reference_points,
                                           const at::Tensor& sampling_offsets) {
  check_arguments(query, value, key, spatial_shapes, level_start_index, reference_points, sampling_offsets);
  Call call(query, value, key, spatial_shapes, level_start_index, reference_points, sampling_offsets);
  Arguments& args = call.args;
  at::Tensor output = at::empty({args.bs, args.num_queries, args.num_heads * args.head_dim}, query.options());
  at::Tensor logsumexp = at::empty({args.bs, args.num_queries, args.num_heads}, accumulator_options(query));
  args.output = output.mutable_data_ptr();
  args.logsumexp = logsumexp.mutable_data_ptr();
  const Kernels& kernels = get_kernels();
  at::parallel_for(0, args.bs * args.tiles_per_image, 1,
                   [&](int64_t begin, int64_t end) { kernels.forward(args, begin, end); });
  return {output, logsumexp};
}

// Tiles per chunk of the backward pass, so that the kept weights of a chunk stay near 4 MB (they are written by one
// loop and read by the next). The result does not depend on it.
int64_t tiles_per_chunk(const Arguments& args, int64_t item_size) {
  const int64_t bytes_per_tile =
      kTileSize * args.num_heads * 2 * padded_samples(args.num_levels, args.num_points) * item_size;
  return std::max<int64_t>(int64_t{4} * 1024 * 1024 / bytes_per_tile, 4);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad_output_in, const at::Tensor& query, const at::Tensor& value,
    const std::optional<at::Tensor>& key, const at::Tensor& spatial_shapes, const at::Tensor& level_start_index,
    const at::Tensor& reference_points, const at::Tensor& sampling_offsets, const at::Tensor& logsumexp_in) {
  check_arguments(query, value, key, spatial_shapes, level_start_index, reference_points, sampling_offsets);
  check_backward_arguments(query, grad_output_in, logsumexp_in);
  Call call(query, value, key, spatial_shapes, level_start_index, reference_points, sampling_offsets);
  Arguments& args = call.args;
  const at::Tensor grad_output = dense_tail(grad_output_in, 1);
  const at::Tensor logsumexp = logsumexp_in.contiguous();
  const at::TensorOptions accumulator = accumulator_options(query);

  at::Tensor grad_query = at::empty(query.sizes(), query.options());
  at::Tensor grad_value = at::zeros(value.sizes(), accumulator);
  at::Tensor grad_key = key.has_value() ? at::zeros(value.sizes(), accumulator) : at::empty({0}, query.options());
  at::Tensor grad_reference_points = at::empty(reference_points.sizes(), reference_points.options());
  at::Tensor grad_sampling_offsets = at::empty(sampling_offsets.sizes(), sampling_offsets.options());

  args.grad_output = grad_output.const_data_ptr();
  copy_strides(grad_output, 2, args.grad_output_stride);
  args.grad_output_stride[2] = args.head_dim;
  args.logsumexp = const_cast<void*>(logsumexp.const_data_ptr());
  args.grad_query = grad_query.mutable_data_ptr();
  args.grad_value = grad_value.mutable_data_ptr();
  args.grad_key = key.has_value() ? grad_key.mutable_data_ptr() : nullptr;
  args.grad_reference_points = grad_reference_points.mutable_data_ptr();
  args.grad_sampling_offsets = grad_sampling_offsets.mutable_data_ptr();

  const int64_t num_tiles = args.bs * args.tiles_per_image;
  const int64_t chunk = std::min(tiles_per_chunk(args, accumulator.dtype().itemsize()), num_tiles);
  at::Tensor weights =
      at::empty({chunk, args.num_heads, kTileSize, 2, padded_samples(args.num_levels, args.num_points)}, accumulator);
  args.weights = weights.mutable_data_ptr();

  const Kernels& kernels = get_kernels();
  for (int64_t begin = 0; begin < num_tiles; begin += chunk) {
    const int64_t end = std::min(begin + chunk, num_tiles);
    at::parallel_for(begin, end, 1, [&](int64_t tile_begin, int64_t tile_end) {
      kernels.backward_query(args, begin, tile_begin, tile_end);
    });
    const int64_t first_image = begin / args.tiles_per_image;
    const int64_t num_images = (end - 1) / args.tiles_per_image - first_image + 1;
    // One task per image and head; per level, too, where threads would idle. Levels share no tokens.
    const bool split = num_images * args.num_heads < at::get_num_threads();
    const int64_t levels = split ? args.num_levels : 1;
    const int64_t heads = args.num_heads;
    at::parallel_for(0, num_images * levels * heads, 1, [&](int64_t task_begin, int64_t task_end) {
      for (int64_t task = task_begin, next = 0; task < task_end; task = next) {  // neighbouring heads at once
        const int64_t head = task % heads;
        const int64_t level = task / heads % levels;
        const int64_t image = first_image + task / heads / levels;
        const int64_t head_end = std::min(heads, head + task_end - task);
        next = task + head_end - head;
        kernels.backward_value(args, begin, end, image, head, head_end, level, split ? level + 1 : args.num_levels);
      }
    });
  }
  grad_value = grad_value.to(value.scalar_type());
  grad_key = grad_key.to(query.scalar_type());
  return {grad_query, grad_value, grad_key, grad_reference_points, grad_sampling_offsets};
}

}  // namespace

TORCH_LIBRARY_IMPL(lite_detr, CPU, m) {
  m.impl("key_aware_deform_attn", &forward);
  m.impl("key_aware_deform_attn_backward", &backward);
}

TORCH_LIBRARY_IMPL(lite_detr, CompositeExplicitAutograd, m) { m.impl("cpu_capability", &cpu_capability); }

}  // namespace cpu
}  // namespace lite_detr
