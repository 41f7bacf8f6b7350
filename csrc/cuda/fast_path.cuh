// What the fast forward and backward kernels share: how threads are laid out over a head, the tables in shared memory
// and the bilinear gather.
//
// A group of kLanes threads owns one head of one query, each thread kVector channels, the 16 bytes of one load. A
// block visits the queries of one tile for one head of one image. Tokens are addressed by 32-bit offsets in units of
// 16 bytes from the thread's channels of the first token.
#pragma once

#include "launch.cuh"
#include "sampling.cuh"
#include "warp.cuh"

namespace lite_detr {
namespace cuda {

constexpr int kMaxTileQueries = kTileSide * kTileSide;

template <typename T, int kHeadDim>
struct FastShape {
  static constexpr int kVector = kVectorSize<T>;
  static constexpr int kLanes = kHeadDim / kVector;
  static_assert(kLanes * kVector == kHeadDim && kLanes >= 2 && kLanes <= 32 && 32 % kLanes == 0, "whole groups");
  // Samples whose corners are worked out together, each by one thread of the group, and then read by all of them.
  static constexpr int kChunk = kLanes >= 8 ? 16 : 8;
  // One entry more than a chunk: the groups of a warp then read from different banks.
  static constexpr int kChunkStride = kChunk + 1;
  // Samples that are in registers at a time, so that their loads overlap.
  static constexpr int kBatch = kLanes < 4 ? kLanes : 4;
};

// What all queries know of a sample: the map of its level, and where its offset and its reference are in their rows.
struct alignas(16) SampleEntry {
  int width, height, start, offset;
  float width_of_map, height_of_map;
  int reference, level;
};

// The tables at the start of the shared memory: levels, samples, then the queries of the tile (-1 past the last one).
struct BlockTables {
  const Level* levels;
  const SampleEntry* samples;
  const int* queries;
  int64_t batch;
  int head;
};

__host__ __device__ __forceinline__ int64_t block_tables_bytes(const DeformAttnInputs& inputs, int tile_queries) {
  const int64_t samples = static_cast<int64_t>(inputs.num_levels) * inputs.num_points;
  return level_table_bytes(inputs.num_levels) + samples * static_cast<int64_t>(sizeof(SampleEntry)) +
         tile_queries * static_cast<int64_t>(sizeof(int));
}

// Number of blocks of the fast kernels. The head runs fastest: the heads of a tile read the same lines of memory.
__host__ __forceinline__ int64_t count_blocks(const DeformAttnInputs& inputs, int tile_queries) {
  return inputs.batch_size * divide_up(inputs.num_queries, tile_queries) * inputs.num_heads;
}

__device__ __forceinline__ BlockTables fill_tables(const DeformAttnInputs& inputs, int tile_queries, void* shared) {
  Level* levels = static_cast<Level*>(shared);
  SampleEntry* samples = reinterpret_cast<SampleEntry*>(levels + inputs.num_levels);
  const int num_samples = inputs.num_levels * inputs.num_points;
  int* queries = reinterpret_cast<int*>(samples + num_samples);
  const unsigned int num_heads = inputs.num_heads;
  const unsigned int num_tiles = static_cast<unsigned int>(divide_up(inputs.num_queries, tile_queries));
  const unsigned int tile_of_batch = blockIdx.x / num_heads;

  fill_levels(inputs, levels);
  for (int i = threadIdx.x; i < num_samples; i += blockDim.x) {
    const int level = i / inputs.num_points, point = i - level * inputs.num_points;
    const Level map = levels[level];
    samples[i] = {map.width,
                  map.height,
                  map.start,
                  (inputs.offset_levels == 1 ? 0 : level) * inputs.num_points + point,
                  static_cast<float>(map.width),
                  static_cast<float>(map.height),
                  level * (inputs.reference_dim / 2),
                  level};
  }
  const int first_slot = static_cast<int>(tile_of_batch % num_tiles) * tile_queries;
  const QueryLevels run = find_query_levels(levels, inputs.num_levels, inputs.num_queries);
  for (int i = threadIdx.x; i < tile_queries; i += blockDim.x) {
    const int slot = first_slot + i;
    queries[i] = slot < inputs.num_queries ? query_of_slot(levels, run, slot) : -1;
  }
  __syncthreads();
  return {levels, samples, queries, tile_of_batch / num_tiles, static_cast<int>(blockIdx.x % num_heads)};
}

// Units of 16 bytes from a token to the next one.
template <typename T>
__host__ __device__ __forceinline__ unsigned int token_units(const DeformAttnInputs& inputs) {
  return static_cast<unsigned int>(inputs.value_strides.token) / static_cast<unsigned int>(kVectorSize<T>);
}

// Whether the fast kernels can address value by 32-bit offsets and 16-byte loads.
__host__ __forceinline__ bool fast_path_fits(const DeformAttnInputs& inputs) {
  const int64_t vector = 16 / bytes_of(inputs.dtype);
  const ValueStrides& strides = inputs.value_strides;
  return inputs.num_value > 0 && strides.batch % vector == 0 && strides.token % vector == 0 &&
         strides.head % vector == 0 && strides.token >= 0 && strides.token <= UINT32_MAX &&
         strides.token / vector <= UINT32_MAX / inputs.num_value;
}

// First element of a head, for value, key and their gradients.
__device__ __forceinline__ int64_t first_of_head(const DeformAttnInputs& inputs, const BlockTables& tables) {
  return tables.batch * inputs.value_strides.batch + tables.head * inputs.value_strides.head;
}

// Weights of the corners as the products take them: floats, or pairs of equal 16-bit numbers. 16 bytes either way.
template <typename T>
struct CornerWeights {
  using type = float;
};
template <>
struct CornerWeights<__half> {
  using type = __half2;
};
template <>
struct CornerWeights<__nv_bfloat16> {
  using type = __nv_bfloat162;
};

__device__ __forceinline__ void set_weight(float& weight, float x) { weight = x; }
__device__ __forceinline__ void set_weight(__half2& weight, float x) { weight = twice(x, __half()); }
__device__ __forceinline__ void set_weight(__nv_bfloat162& weight, float x) { weight = twice(x, __nv_bfloat16()); }

// The corners of the samples of a chunk, for one group. uint4: four offsets, or four weights.
struct Chunk {
  uint4* offsets;
  uint4* weights;
};

template <typename T, int kHeadDim>
__host__ __device__ __forceinline__ int64_t chunk_bytes(int groups) {
  return 2 * static_cast<int64_t>(groups) * FastShape<T, kHeadDim>::kChunkStride * static_cast<int64_t>(sizeof(uint4));
}

template <typename T, int kHeadDim>
__device__ __forceinline__ Chunk chunk_of_group(char* chunks, int group, int num_groups) {
  constexpr int kStride = FastShape<T, kHeadDim>::kChunkStride;
  uint4* first = reinterpret_cast<uint4*>(chunks) + group * kStride;
  return {first, first + num_groups * kStride};
}

// Works out the corners of the samples `first` ... of a chunk, each by one lane of the group; past num_samples,
// corners of weight zero. W: type of the weights.
template <typename W, int kLanes, int kChunk>
__device__ __forceinline__ void fill_chunk(const DeformAttnInputs& inputs, const BlockTables& tables,
                                           const LocationRows& rows, unsigned int units, int num_samples, int first,
                                           int lane, const Chunk& chunk) {
#pragma unroll
  for (int i = 0; i < kChunk; i += kLanes) {
    const int entry = i + lane, sample = first + entry;
    if (kLanes > kChunk && entry >= kChunk) break;
    const SampleEntry& map = tables.samples[min(sample, num_samples - 1)];
    const Location<float> at =
        locate<float>(inputs, rows, map.offset, map.reference, map.width_of_map, map.height_of_map);
    const Cell<float> cell = find_cell(map.width_of_map, map.height_of_map, at.x, at.y);
    const Corners<float> corners = find_corners<float>(map.width, map.height, cell);
    unsigned int offsets[4];
    W weights[4];
#pragma unroll
    for (int y = 0; y < 2; ++y) {
      const unsigned int row = (map.start + corners.y[y] * map.width) * units;
      const float weight_y = sample < num_samples ? corners.weight_y[y] : 0.0f;
#pragma unroll
      for (int x = 0; x < 2; ++x) {
        offsets[2 * y + x] = row + corners.x[x] * units;
        set_weight(weights[2 * y + x], weight_y * corners.weight_x[x]);
      }
    }
    uint4 raw;
    memcpy(&raw, weights, sizeof(raw));
    chunk.offsets[entry] = make_uint4(offsets[0], offsets[1], offsets[2], offsets[3]);
    chunk.weights[entry] = raw;
  }
}

// 16 bytes of a corner.
__device__ __forceinline__ uint4 load_corner(const uint4* channels, unsigned int offset) {
  return __ldg(channels + offset);
}

// The bilinear sample of kVector channels: in float32 for float, in pairs of the 16-bit type otherwise, each product
// and sum rounded to it.
template <typename T>
__device__ __forceinline__ void gather(const uint4* channels, const Chunk& chunk, int entry, float (&sample)[4]) {
  const uint4 offsets = chunk.offsets[entry], raw_weights = chunk.weights[entry];
  float weights[4];
  memcpy(weights, &raw_weights, sizeof(weights));
  const unsigned int offset[4] = {offsets.x, offsets.y, offsets.z, offsets.w};
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    float corner[4];
    unpack<float, float>(load_corner(channels, offset[c]), corner);
#pragma unroll
    for (int i = 0; i < 4; ++i) sample[i] = c == 0 ? weights[c] * corner[i] : sample[i] + weights[c] * corner[i];
  }
}

template <typename T>
__device__ __forceinline__ void gather(const uint4* channels, const Chunk& chunk, int entry, float (&sample)[8]) {
  using Pair = typename PairOf<T>::type;
  const uint4 offsets = chunk.offsets[entry], raw_weights = chunk.weights[entry];
  Pair weights[4], sum[4];
  memcpy(weights, &raw_weights, sizeof(weights));
  const unsigned int offset[4] = {offsets.x, offsets.y, offsets.z, offsets.w};
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const uint4 raw = load_corner(channels, offset[c]);
    Pair corner[4];
    memcpy(corner, &raw, sizeof(raw));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum[i] = c == 0 ? multiply(weights[c], corner[i]) : multiply_add(weights[c], corner[i], sum[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 both = to_floats(sum[i]);
    sample[2 * i] = both.x, sample[2 * i + 1] = both.y;
  }
}

template <typename A, int kVector>
__device__ __forceinline__ A dot(const A (&a)[kVector], const A (&b)[kVector]) {
  A sum = a[0] * b[0];
#pragma unroll
  for (int i = 1; i < kVector; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace cuda
}  // namespace lite_detr
