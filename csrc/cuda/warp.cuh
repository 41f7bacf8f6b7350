// Exchanges between the lanes of a group: kLanes successive lanes of a warp, a power of two. All 32 lanes of the warp
// must take part.
#pragma once

#include <cuda_runtime.h>

namespace lite_detr {
namespace cuda {

constexpr unsigned int kAllLanes = 0xffffffffu;

// Every lane gets the sum.
template <int kLanes, typename A>
__device__ __forceinline__ A group_sum(A x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// Which of the kValues sums of group_sums a lane is left with, if there are not more sums than lanes.
template <int kLanes, int kValues>
__device__ __forceinline__ int owned_sum(int lane) {
  static_assert(kValues <= kLanes, "at most one sum a lane");
  return lane * kValues / kLanes;
}
// Number of sums that it leaves in each lane.
template <int kLanes, int kValues>
constexpr int kSumsPerLane = kValues > kLanes ? kValues / kLanes : 1;

// Sums of kValues values (a power of two) at once: lane `lane` is left with the sums of the values
// lane * kValues / kLanes and following, kSumsPerLane of them, in values[0], values[1], ... This exchanges about
// kValues numbers a lane, where one sum after the other exchanges kValues * log2(kLanes).
template <int kLanes, int kValues, typename A>
__device__ __forceinline__ void group_sums(int lane, A (&values)[kValues]) {
  int count = kValues;
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    if (count > 1) {
      count /= 2;
      const bool upper = (lane & offset) != 0;
#pragma unroll
      for (int i = 0; i < kValues / 2; ++i) {
        if (i < count) {
          const A sent = upper ? values[i] : values[i + count];
          const A kept = upper ? values[i + count] : values[i];
          values[i] = kept + __shfl_xor_sync(kAllLanes, sent, offset);
        }
      }
    } else {
      values[0] += __shfl_xor_sync(kAllLanes, values[0], offset);
    }
  }
}

// The largest of the kValues numbers that the lanes of a group own (see owned_sum), for every lane.
template <int kLanes, int kValues>
__device__ __forceinline__ float largest_owned(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset >= kLanes / kValues; offset /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  }
  return x;
}

// Their sum.
template <int kLanes, int kValues>
__device__ __forceinline__ float sum_owned(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset >= kLanes / kValues; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// What the lane that owns number `index` of kValues has.
template <int kLanes, int kValues>
__device__ __forceinline__ float from_owner(float x, int index) {
  return __shfl_sync(kAllLanes, x, index * (kLanes / kValues), kLanes);
}

}  // namespace cuda
}  // namespace lite_detr
