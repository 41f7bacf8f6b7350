// Plain arguments of the CPU kernels and the table of their entry points for one instruction set.
// Free of torch, so that the files compiled for several instruction sets stay small and share no inline functions.
#pragma once

#include <cstdint>

#include "../core/arguments.h"

namespace lite_detr {
namespace cpu {

// Queries that come in the raster order of a map are visited in square tiles: neighbours sample the same pixels, which
// are then still in the cache.
constexpr int64_t kTileSize = 64;
constexpr int64_t kTileSide = 8;

// Consecutive queries in raster order. A list of queries without known geometry is a map of height 1.
struct QueryMap {
  int64_t first_query;
  int64_t first_tile;
  int64_t height;
  int64_t width;
};

// All strides count elements.
struct Arguments {
  int64_t bs;
  int64_t num_queries;
  int64_t num_heads;
  int64_t head_dim;
  int64_t num_levels;
  int64_t num_points;
  bool boxes;           // reference_points are (x, y, w, h)
  bool shared_offsets;  // sampling_offsets has one level for all

  ScalarType type;          // of query, value, key and output
  const void* query;        // null: attention_weights are given
  int64_t query_stride[3];  // image, query, head
  const void* value;
  int64_t value_stride[3];  // image, token, head
  const void* key;          // null: the key is the value
  int64_t key_stride[3];
  ScalarType weight_type;
  const void* attention_weights;
  int64_t weight_stride[3];  // image, query, head; the samples are contiguous

  const Level* levels;

  ScalarType reference_type;
  const void* reference_points;
  int64_t reference_stride[3];  // image, query, level
  ScalarType offset_type;
  const void* sampling_offsets;
  int64_t offset_stride[4];  // image, query, head, level; the points of a level are contiguous

  const QueryMap* query_maps;
  int64_t num_query_maps;
  int64_t tiles_per_image;

  void* output;     // contiguous
  void* logsumexp;  // contiguous, float32 (float64 for float64); null: nobody asks

  // Of the backward pass alone, in float32 or float64. Outputs are contiguous where there are no strides.
  const void* grad_output;
  int64_t grad_output_stride[3];  // image, query, head
  void* grad_query;
  void* grad_reference_points;  // null: nobody asks
  void* grad_sampling_offsets;
  void* grad_attention_weights;
  void* grad_value;
  int64_t grad_value_stride[3];  // image, token, head
  void* grad_key;
  int64_t grad_key_stride[3];
  void* kept;  // attention weights and logit gradients of a chunk of tiles, see backward_query.h
};

// Entry points. A tile is kTileSize queries (or fewer) of one image, and [tile_begin, tile_end) counts over the batch.
// An entry is null where the instruction set has no kernels of its own for a dtype.
struct Kernels {
  const char* name;
  // Output and logsumexp of the tiles.
  void (*forward)(const Arguments& args, int64_t tile_begin, int64_t tile_end);
  // Gradients of what belongs to a query, and the weights that `backward_value` needs, of tiles of the chunk that
  // starts at `chunk_begin`. float32 and float64 only.
  void (*backward_query)(const Arguments& args, int64_t chunk_begin, int64_t tile_begin, int64_t tile_end);
  // Adds the gradient of value and key of some heads and levels of one image over the tiles of a chunk. Calls for
  // different images, heads or levels write to different addresses. float32 and float64 only.
  void (*backward_value)(const Arguments& args, int64_t chunk_begin, int64_t chunk_end, int64_t image,
                         int64_t head_begin, int64_t head_end, int64_t level_begin, int64_t level_end);
};

// Number of samples of a query and head, rounded up so that every vector of them is full.
inline int64_t padded_samples(int64_t num_levels, int64_t num_points) {
  return (num_levels * num_points + 15) / 16 * 16;
}

// The kernels for this processor. float64 takes those of the baseline: it serves tests, not speed.
const Kernels& get_kernels(ScalarType type);

// The instruction set of the kernels for all other dtypes: "default", "avx2" or "avx512". The environment variable
// LITE_DETR_CPU_CAPABILITY limits it; throws an ArgumentError if that is none of the three.
const char* cpu_capability();

const Kernels& kernels_default();
#if defined(__x86_64__)
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
#endif

}  // namespace cpu
}  // namespace lite_detr
