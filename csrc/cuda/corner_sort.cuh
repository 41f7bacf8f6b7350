// The corners of a tile's samples, sorted by token in shared memory, so that the gradient of a token is summed up in
// registers and added to memory once.
#pragma once

#include "launch.cuh"
#include "warp.cuh"

namespace lite_detr {
namespace cuda {

// What a sample leaves for the scatter. A corner's weight follows from the fractions.
struct alignas(16) SampleRecord {
  float fraction_x, fraction_y;
  float weight, logit_grad;  // what grad_output and query are multiplied by
};

// Buckets of the counting sort: 16 x 16 successive columns and rows of a map have their own, for four levels. Tokens
// that share a bucket cost additions to memory, nothing else.
constexpr int kBuckets = 1024;

// A sample's bucket of its top left corner and, above it, a bit for each corner that is to be counted.
__device__ __forceinline__ unsigned short corner_code(int level, int left, int top, unsigned int corners) {
  return static_cast<unsigned short>(corners << 10 | (level & 3) << 8 | (top & 15) << 4 | (left & 15));
}
__device__ __forceinline__ bool has_corner(unsigned int code, int corner) { return (code >> (10 + corner) & 1) != 0; }
__device__ __forceinline__ int bucket_of_corner(unsigned int code, int corner) {
  const unsigned int column = (code + (corner & 1)) & 15, row = (code + ((corner & 2) << 3)) & 0xf0;
  return static_cast<int>((code & 0x300) | row | column);
}

// A corner in the sorted list: which query of the tile, which of its samples, which corner.
constexpr int kMaxSortedSamples = 256;
struct SortedCorner {
  int slot, sample, corner;
  __device__ __forceinline__ explicit SortedCorner(unsigned short packed)
      : slot(packed >> 10), sample(packed >> 2 & 255), corner(packed & 3) {}
};
__device__ __forceinline__ unsigned short pack_corner(int slot, int sample, int corner) {
  return static_cast<unsigned short>(slot << 10 | sample << 2 | corner);
}

// Replaces counts by the sums of those before. All threads of a block; `sums` has room for one number a warp.
__device__ __forceinline__ void scan_buckets(int* counts, int* sums) {
  const int each = kBuckets / blockDim.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int* own = counts + threadIdx.x * each;
  int total = 0;
  for (int i = 0; i < each; ++i) total += own[i];
  int before = total;  // of this lane and those below
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(kAllLanes, before, offset);
    if (lane >= offset) before += other;
  }
  if (lane == 31) sums[warp] = before;
  __syncthreads();
  before -= total;
  for (int i = 0; i < warp; ++i) before += sums[i];
  for (int i = 0; i < each; ++i) {
    const int count = own[i];
    own[i] = before;
    before += count;
  }
}

// Sorts the corners of num_queries * num_samples samples into `list` and returns their number. All threads of a block.
// `counts` (kBuckets) and `sums` (one number a warp) are workspace.
__device__ __forceinline__ int sort_corners(const unsigned short* codes, int num_queries, int num_samples, int* counts,
                                            int* sums, unsigned short* list) {
  for (int i = threadIdx.x; i < kBuckets; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  const int size = num_queries * num_samples;
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const unsigned int code = codes[i];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (has_corner(code, c)) atomicAdd(counts + bucket_of_corner(code, c), 1);
    }
  }
  __syncthreads();
  scan_buckets(counts, sums);
  __syncthreads();
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const unsigned int code = codes[i];
    const int slot = i / num_samples, sample = i - slot * num_samples;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (has_corner(code, c)) list[atomicAdd(counts + bucket_of_corner(code, c), 1)] = pack_corner(slot, sample, c);
    }
  }
  __syncthreads();
  return counts[kBuckets - 1];  // by now where the last bucket ends
}

}  // namespace cuda
}  // namespace lite_detr
