#include "call.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "../core/checks.h"
#include "scratch.h"

namespace lite_detr {
namespace cpu {
namespace {

// Whoever uses the kernels makes these dimensions dense; said here, because a slip would read other numbers.
void check_dense(const char* name, const TensorView& tensor, int64_t dims) {
  int64_t expected = 1;
  for (int64_t dim = tensor.ndim - 1; dim >= tensor.ndim - dims; --dim) {
    if (tensor.size(dim) != 1 && tensor.stride(dim) != expected) {
      throw ArgumentError(ArgumentError::Kind::kValue, std::string(name) + " must be dense in its last dimensions");
    }
    expected *= tensor.size(dim);
  }
}

// The kernels multiply by the distance of two tokens in 32 bits.
void check_token_stride(const char* name, const TensorView& tensor) {
  if (tensor.stride(1) * size_of(tensor.type) > std::numeric_limits<int32_t>::max()) {
    throw ArgumentError(ArgumentError::Kind::kValue, std::string(name) + " must have less than 2 GB between tokens");
  }
}

void copy_strides(const TensorView& tensor, int64_t count, int64_t* strides) {
  for (int64_t dim = 0; dim < count; ++dim) strides[dim] = tensor.stride(dim);
}

// Tiles per chunk of the backward pass, so that what is kept of a chunk stays near 4 MB (it is written by one loop and
// read by the next). The result does not depend on it.
int64_t tiles_per_chunk(const Arguments& args) {
  const int64_t bytes_per_tile =
      kTileSize * args.num_heads * 2 * padded_samples(args.num_levels, args.num_points) * size_of(args.type);
  return std::max<int64_t>(int64_t{4} * 1024 * 1024 / bytes_per_tile, 4);
}

}  // namespace

Call::Call(const Inputs& in)
    : Call(in, (check_inputs(in), read_levels(in.spatial_shapes, in.level_start_index, in.value.size(1)))) {}

Call::Call(const Inputs& in, std::vector<Level> levels) : levels_(std::move(levels)) {
  const int64_t num_value = in.value.size(1);
  if (num_value > std::numeric_limits<int32_t>::max()) {
    throw ArgumentError(ArgumentError::Kind::kValue,
                        "value must hold at most 2147483647 tokens per image, got " + std::to_string(num_value));
  }
  args_.bs = in.value.size(0);
  args_.num_queries = in.sampling_offsets.size(1);
  args_.num_heads = in.value.size(2);
  args_.head_dim = in.value.size(3);
  args_.num_levels = in.spatial_shapes.size(0);
  args_.num_points = in.sampling_offsets.size(4);
  args_.boxes = in.reference_points.size(3) == 4;
  args_.shared_offsets = in.sampling_offsets.size(3) == 1;
  args_.levels = levels_.data();

  args_.type = in.value.type;
  if (in.query != nullptr) {
    check_dense("query", *in.query, 1);
    // Without queries there may be no memory, but there is a query.
    args_.query = in.query->data != nullptr ? in.query->data : this;
    copy_strides(*in.query, 3, args_.query_stride);
  } else {
    check_dense("attention_weights", *in.attention_weights, 2);
    args_.weight_type = in.attention_weights->type;
    args_.attention_weights = in.attention_weights->data;
    copy_strides(*in.attention_weights, 3, args_.weight_stride);
  }
  check_dense("value", in.value, 1);
  check_token_stride("value", in.value);
  args_.value = in.value.data;
  copy_strides(in.value, 3, args_.value_stride);
  if (in.key != nullptr) {
    check_dense("key", *in.key, 1);
    check_token_stride("key", *in.key);
    args_.key = in.key->data != nullptr ? in.key->data : this;  // as above
    copy_strides(*in.key, 3, args_.key_stride);
  }
  check_dense("reference_points", in.reference_points, 1);
  args_.reference_type = in.reference_points.type;
  args_.reference_points = in.reference_points.data;
  copy_strides(in.reference_points, 3, args_.reference_stride);
  check_dense("sampling_offsets", in.sampling_offsets, 2);
  args_.offset_type = in.sampling_offsets.type;
  args_.sampling_offsets = in.sampling_offsets.data;
  copy_strides(in.sampling_offsets, 4, args_.offset_stride);
  if (args_.shared_offsets) args_.offset_stride[3] = 0;
  set_query_maps(num_value);
}

// As many queries as a run of successive levels has tokens are taken for those tokens: this changes the order of the
// work, never the result. Runs that end with the last level come first: an encoder layer updates all levels or the
// high ones; the sequential form updates the first level alone.
void Call::set_query_maps(int64_t num_value) {
  const int64_t num_levels = args_.num_levels;
  const auto end_of = [&](int64_t level) { return level + 1 < num_levels ? levels_[level + 1].start : num_value; };
  for (int64_t last = num_levels - 1; last >= 0 && query_maps_.empty(); --last) {
    for (int64_t first = 0; first <= last && query_maps_.empty(); ++first) {
      if (end_of(last) - levels_[first].start != args_.num_queries) continue;
      for (int64_t l = first; l <= last; ++l) {
        const Level& level = levels_[l];
        if (level.height == 0 || level.width == 0) continue;
        query_maps_.push_back({level.start - levels_[first].start, 0, level.height, level.width});
      }
    }
  }
  if (query_maps_.empty()) query_maps_.push_back({0, 0, 1, args_.num_queries});
  int64_t tiles = 0;
  for (QueryMap& map : query_maps_) {
    map.first_tile = tiles;
    const int64_t tile_height = map.height == 1 ? 1 : kTileSide;
    const int64_t tile_width = kTileSize / tile_height;
    tiles += (map.height + tile_height - 1) / tile_height * ((map.width + tile_width - 1) / tile_width);
  }
  args_.query_maps = query_maps_.data();
  args_.num_query_maps = static_cast<int64_t>(query_maps_.size());
  args_.tiles_per_image = tiles;
}

void Call::forward(void* output, void* logsumexp, const ParallelFor& parallel_for) {
  args_.output = output;
  args_.logsumexp = logsumexp;
  const Kernels& kernels = get_kernels(args_.type);
  parallel_for(0, args_.bs * args_.tiles_per_image,
               [&](int64_t begin, int64_t end) { kernels.forward(args_, begin, end); });
}

void Call::backward(const TensorView& grad_output, const void* logsumexp, const Gradients& gradients,
                    int64_t num_threads, const ParallelFor& parallel_for) {
  check_dense("grad_output", grad_output, 1);
  check_dense("grad_value", gradients.value, 1);
  check_token_stride("grad_value", gradients.value);
  args_.grad_output = grad_output.data;
  copy_strides(grad_output, 2, args_.grad_output_stride);
  args_.grad_output_stride[2] = args_.head_dim;
  args_.logsumexp = const_cast<void*>(logsumexp);
  args_.grad_query = gradients.query;
  args_.grad_value = const_cast<void*>(gradients.value.data);
  copy_strides(gradients.value, 3, args_.grad_value_stride);
  if (args_.key != nullptr) {
    check_dense("grad_key", gradients.key, 1);
    check_token_stride("grad_key", gradients.key);
    args_.grad_key = const_cast<void*>(gradients.key.data);
    copy_strides(gradients.key, 3, args_.grad_key_stride);
  }
  args_.grad_reference_points = gradients.reference_points;
  args_.grad_sampling_offsets = gradients.sampling_offsets;
  args_.grad_attention_weights = gradients.attention_weights;

  const int64_t num_tiles = args_.bs * args_.tiles_per_image;
  const int64_t heads = args_.num_heads;
  const int64_t chunk = std::min(tiles_per_chunk(args_), num_tiles);
  const int64_t kept = chunk * heads * kTileSize * 2 * padded_samples(args_.num_levels, args_.num_points);
  const AlignedMemory memory(args_.query == nullptr ? 0 : static_cast<size_t>(kept * size_of(args_.type)));
  args_.kept = memory.get();

  const Kernels& kernels = get_kernels(args_.type);
  for (int64_t begin = 0; begin < num_tiles; begin += chunk) {
    const int64_t end = std::min(begin + chunk, num_tiles);
    parallel_for(begin, end, [&](int64_t tile_begin, int64_t tile_end) {
      kernels.backward_query(args_, begin, tile_begin, tile_end);
    });
    const int64_t first_image = begin / args_.tiles_per_image;
    const int64_t num_images = (end - 1) / args_.tiles_per_image - first_image + 1;
    // One task per image and head; per level, too, where threads would idle. Levels share no tokens.
    const bool split = num_images * heads < num_threads;
    const int64_t levels = split ? args_.num_levels : 1;
    parallel_for(0, num_images * levels * heads, [&](int64_t task_begin, int64_t task_end) {
      for (int64_t task = task_begin, next = 0; task < task_end; task = next) {  // neighbouring heads at once
        const int64_t head = task % heads;
        const int64_t level = task / heads % levels;
        const int64_t image = first_image + task / heads / levels;
        const int64_t head_end = std::min(heads, head + task_end - task);
        next = task + head_end - head;
        kernels.backward_value(args_, begin, end, image, head, head_end, level, split ? level + 1 : args_.num_levels);
      }
    });
  }
}

}  // namespace cpu
}  // namespace lite_detr
