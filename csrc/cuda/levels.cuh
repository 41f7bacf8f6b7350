// The levels of the feature pyramid as the kernels see them, and the order in which blocks visit the queries.
#pragma once

#include "deform_attn_cuda.h"

namespace lite_detr {
namespace cuda {

__host__ __device__ __forceinline__ int64_t read_index(const void* base, bool is_int32, int index) {
  return is_int32 ? static_cast<const int32_t*>(base)[index] : static_cast<const int64_t*>(base)[index];
}

__host__ __device__ __forceinline__ Level read_level(const DeformAttnInputs& inputs, int level) {
  if (inputs.spatial_shapes == nullptr) return inputs.host_levels[level];
  return make_level(read_index(inputs.level_start_index, inputs.level_start_index_int32, level),
                    read_index(inputs.spatial_shapes, inputs.spatial_shapes_int32, 2 * level),
                    read_index(inputs.spatial_shapes, inputs.spatial_shapes_int32, 2 * level + 1), inputs.num_value);
}

__host__ __device__ __forceinline__ int64_t level_table_bytes(int num_levels) {
  return static_cast<int64_t>(sizeof(Level)) * num_levels;
}

// By all threads of a block.
__device__ __forceinline__ void fill_levels(const DeformAttnInputs& inputs, Level* levels) {
  for (int level = threadIdx.x; level < inputs.num_levels; level += blockDim.x) {
    levels[level] = read_level(inputs, level);
  }
  __syncthreads();
}

__host__ __device__ __forceinline__ int64_t tokens_of(const Level& level) {
  return static_cast<int64_t>(level.height) * level.width;
}

// The levels [first, last) whose tokens are the queries: all of them in a plain encoder layer, the last ones or the
// first one in an interleaved one. Empty if there is no such run. Of several the last is taken.
struct QueryLevels {
  int first, last;
};

__host__ __device__ __forceinline__ QueryLevels find_query_levels(const Level* levels, int num_levels,
                                                                  int64_t num_queries) {
  int64_t tokens = 0;
  int last = num_levels;
  for (int first = num_levels - 1; first >= 0; --first) {
    tokens += tokens_of(levels[first]);
    while (tokens > num_queries) tokens -= tokens_of(levels[--last]);
    if (tokens == num_queries && first < last) return {first, last};
  }
  return {0, 0};
}

// One block visits a tile of successive slots of the visiting order; of 64, inside a map these are 8 x 8 neighbours,
// which sample overlapping tokens.
constexpr int kTileSide = 8;

// Query at position `slot` of the visiting order, a permutation of [0, num_queries). Each map is cut into strips of
// kTileSide rows and a strip is walked column by column, so that any kTileSide * n successive slots cover about
// kTileSide x n tokens, without gaps at the borders: the number of blocks depends on num_queries alone, which the host
// knows.
__host__ __device__ __forceinline__ int query_of_slot(const Level* levels, QueryLevels run, int slot) {
  if (run.first == run.last) return slot;  // the queries are no map: in their own order
  int base = 0;
  int level = run.first;
  for (; level < run.last - 1; ++level) {
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
