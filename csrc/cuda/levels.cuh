// The levels of the feature pyramid as the kernels see them, and the order in which blocks visit the queries.
#pragma once

#include "key_aware_deform_attn_cuda.h"

namespace lite_detr {
namespace cuda {

// A map of height x width tokens that starts at token `start`; empty when height == width == 0.
struct alignas(16) Level {
  int start, height, width;
};

// A level that does not lie inside the num_value tokens becomes empty, so that shapes in device memory, which nobody
// checks because that would synchronise, cannot send a kernel outside value. num_value < kMaxTokens.
__host__ __device__ __forceinline__ Level make_level(int64_t start, int64_t height, int64_t width, int64_t num_value) {
  const bool fits = height > 0 && width > 0 && height <= num_value && width <= num_value &&
                    height * width <= num_value && start >= 0 && start <= num_value - height * width;
  if (!fits) return {0, 0, 0};
  return {static_cast<int>(start), static_cast<int>(height), static_cast<int>(width)};
}

__host__ __device__ __forceinline__ int64_t read_index(const void* base, bool is_int32, int index) {
  return is_int32 ? static_cast<const int32_t*>(base)[index] : static_cast<const int64_t*>(base)[index];
}

__host__ __device__ __forceinline__ Level read_level(const KeyAwareDeformAttnInputs& inputs, int level) {
  if (inputs.spatial_shapes == nullptr) {
    const HostLevel& host = inputs.host_levels[level];
    return make_level(host.start, host.height, host.width, inputs.num_value);
  }
  return make_level(read_index(inputs.level_start_index, inputs.level_start_index_int32, level),
                    read_index(inputs.spatial_shapes, inputs.spatial_shapes_int32, 2 * level),
                    read_index(inputs.spatial_shapes, inputs.spatial_shapes_int32, 2 * level + 1), inputs.num_value);
}

// One block visits kTileQueries queries. Where the queries are the tokens of the last levels (all of them in a plain
// encoder layer, the high levels in an interleaved one), these are about 8 x 8 neighbours, which sample overlapping
// tokens: see query_of_slot.
constexpr int kTileSide = 8;
constexpr int kTileQueries = kTileSide * kTileSide;

// First of the levels, through the last one, whose tokens are the queries; num_levels if there is none.
__host__ __device__ __forceinline__ int first_query_level(const Level* levels, int num_levels, int64_t num_queries) {
  int64_t tokens = 0;
  for (int level = num_levels - 1; level >= 0; --level) {
    tokens += static_cast<int64_t>(levels[level].height) * levels[level].width;
    if (tokens == num_queries) return level;
    if (tokens > num_queries) break;
  }
  return num_levels;
}

// Query at position `slot` of the visiting order, a permutation of [0, num_queries). Each map is cut into strips of
// kTileSide rows and a strip is walked column by column, so that any kTileQueries successive slots cover about a
// square, without gaps at the borders: the number of blocks depends on num_queries alone, which the host knows.
__host__ __device__ __forceinline__ int query_of_slot(const Level* levels, int num_levels, int first_level, int slot) {
  if (first_level == num_levels) return slot;  // the queries are no map: in their own order
  int base = 0;
  int level = first_level;
  for (; level < num_levels - 1; ++level) {
    const int tokens = levels[level].height * levels[level].width;
    if (slot < tokens) break;
    slot -= tokens;
    base += tokens;
  }
  const int width = levels[level].width;
  const int64_t strip_tokens = static_cast<int64_t>(width) * kTileSide;
  const int strip = static_cast<int>(slot / strip_tokens);
  const int in_strip = static_cast<int>(slot - strip * strip_tokens);
  const int left = levels[level].height - strip * kTileSide;
  const int rows = left < kTileSide ? left : kTileSide;
  const int column = in_strip / rows;
  const int row = strip * kTileSide + in_strip - column * rows;
  return base + row * width + column;
}

}  // namespace cuda
}  // namespace lite_detr
