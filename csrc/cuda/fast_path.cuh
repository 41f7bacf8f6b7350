// What the fast forward and backward kernels share: how threads are laid out over a head, the tables in shared memory
// and the bilinear gather.
//
// A group of kLanes threads owns one head of one query, each thread kVector channels, the 16 bytes of one load. A
// block visits the kTileQueries queries of one tile for one head of one image.
#pragma once

#include <type_traits>

#include "launch.cuh"
#include "sampling.cuh"
#include "warp.cuh"

namespace lite_detr {
namespace cuda {

template <typename T, int kHeadDim>
struct FastShape {
  static constexpr int kVector = kVectorSize<T>;
  static constexpr int kLanes = kHeadDim / kVector;
  static_assert(kLanes * kVector == kHeadDim && kLanes >= 2 && kLanes <= 32 && 32 % kLanes == 0, "whole groups");
  // Samples whose corners are worked out together, each by one thread of the group, and then read by all of them.
  static constexpr int kChunk = kLanes > 8 ? kLanes : 8;
  // One entry more than a chunk: the groups of a warp then read from different banks.
  static constexpr int kChunkStride = kChunk + 1;
};

__host__ __device__ __forceinline__ int64_t level_table_bytes(int num_levels) {
  return static_cast<int64_t>(sizeof(Level)) * num_levels;
}

// The tables at the start of the shared memory: levels, then the queries of the tile (-1 past the last query).
struct BlockTables {
  const Level* levels;
  const int* queries;
  int64_t batch;
  int head;
};

__host__ __device__ __forceinline__ int64_t block_tables_bytes(int num_levels) {
  return level_table_bytes(num_levels) + kTileQueries * static_cast<int64_t>(sizeof(int));
}

// The corners of a chunk for each group, after the tables.
template <typename T, int kHeadDim>
__host__ __device__ __forceinline__ int64_t chunk_bytes(int groups) {
  return static_cast<int64_t>(groups) * FastShape<T, kHeadDim>::kChunkStride *
         (sizeof(CornerTokens) + sizeof(CornerWeights<Accumulator<T>>));
}

__device__ __forceinline__ void fill_levels(const KeyAwareDeformAttnInputs& inputs, Level* levels) {
  for (int level = threadIdx.x; level < inputs.num_levels; level += blockDim.x) {
    levels[level] = read_level(inputs, level);
  }
  __syncthreads();
}

// Number of blocks of the fast kernels. The head runs fastest: the heads of a tile read the same lines of memory.
__host__ __forceinline__ int64_t count_blocks(const KeyAwareDeformAttnInputs& inputs) {
  return inputs.batch_size * divide_up(inputs.num_queries, kTileQueries) * inputs.num_heads;
}

__device__ __forceinline__ BlockTables fill_tables(const KeyAwareDeformAttnInputs& inputs, void* shared) {
  Level* levels = static_cast<Level*>(shared);
  int* queries = reinterpret_cast<int*>(levels + inputs.num_levels);
  const unsigned int num_heads = inputs.num_heads;
  const unsigned int num_tiles = static_cast<unsigned int>(divide_up(inputs.num_queries, kTileQueries));
  const unsigned int tile_of_batch = blockIdx.x / num_heads;

  fill_levels(inputs, levels);
  const int first_slot = static_cast<int>(tile_of_batch % num_tiles) * kTileQueries;
  const int first_level = first_query_level(levels, inputs.num_levels, inputs.num_queries);
  for (int i = threadIdx.x; i < kTileQueries; i += blockDim.x) {
    const int slot = first_slot + i;
    queries[i] = slot < inputs.num_queries ? query_of_slot(levels, inputs.num_levels, first_level, slot) : -1;
  }
  __syncthreads();
  return {levels, queries, tile_of_batch / num_tiles, static_cast<int>(blockIdx.x % num_heads)};
}

// Bytes from a token to the next one, in value-like tensors and in their sums: an int, so that an address takes one
// multiplication. The fast kernels are launched where it fits.
template <typename T>
__host__ __device__ __forceinline__ int token_bytes(const KeyAwareDeformAttnInputs& inputs) {
  return inputs.num_heads * inputs.head_dim * static_cast<int>(sizeof(T));
}
__host__ __forceinline__ bool fast_path_fits(const KeyAwareDeformAttnInputs& inputs) {
  const int64_t largest_token = static_cast<int64_t>(inputs.num_heads) * inputs.head_dim * sizeof(int64_t);
  return count_blocks(inputs) <= kMaxBlocks && largest_token <= INT32_MAX;
}

template <typename T>
__device__ __forceinline__ T* at_token(T* first, int bytes, int token) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(first) + static_cast<int64_t>(token) * bytes);
}

// kVector channels of a corner; zero for a corner outside the map.
template <typename A, typename T, int kVector>
__device__ __forceinline__ void load_corner(const T* channels, int bytes, int token, A (&out)[kVector]) {
  uint4 raw = make_uint4(0, 0, 0, 0);
  if (token >= 0) raw = __ldg(reinterpret_cast<const uint4*>(at_token(channels, bytes, token)));
  unpack<A, T>(raw, out);
}

template <typename A, typename T, int kVector>
__device__ __forceinline__ void gather(const T* channels, int bytes, const CornerTokens& corners,
                                       const CornerWeights<A>& weights, A (&sample)[kVector]) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) sample[i] = A(0);
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    A corner[kVector];
    load_corner<A>(channels, bytes, corners.token[c], corner);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sample[i] += weights.weight[c] * corner[i];
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
