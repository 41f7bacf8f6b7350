// Rows of channels: where they lie and how they are loaded and stored.
#pragma once

#include "storage.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

// Where the weights of the samples come from: the query's products with the sampled values, or with sampled keys, or
// the caller.
enum class Form { kSharedKey, kSeparateKey, kGivenWeights };

// First channel of a query and head of `query` or `grad_output`.
template <typename T>
LITE_DETR_INLINE const T* row_of_query(const void* base, const int64_t* stride, int64_t image, int64_t query,
                                       int64_t head) {
  return static_cast<const T*>(base) + image * stride[0] + query * stride[1] + head * stride[2];
}

// The rows of the four tokens around a sample.
template <typename T>
struct Corners {
  const T* row[4];
  LITE_DETR_METHOD Corners(const int64_t* address, int64_t stride)
      : row{at<const T>(address[0]), at<const T>(address[stride]), at<const T>(address[2 * stride]),
            at<const T>(address[3 * stride])} {}
};

// The channels of a head as vectors: a compile-time number of full vectors if HeadDim > 0, else any number of
// channels, the last vector of which may be partial.
template <typename T, int HeadDim>
struct Channels {
  using A = Accumulator<T>;
  using V = Vec<A>;
  static constexpr int N = kLanes<A>;
  static constexpr int kVectors = HeadDim / N;  // 0: known at run time only
  static_assert(HeadDim % N == 0, "fast paths have full vectors");
  // Whether the work on a row is short enough to be inlined once per lane; otherwise it is a function of its own.
#if defined(__aarch64__)
  static constexpr bool kInline = kVectors > 0 && kVectors <= 8;  // it has 32 registers
#else
  static constexpr bool kInline = kVectors > 0 && kVectors <= 4;
#endif

  int64_t count;
  int64_t tail;  // channels of the last vector if it is partial, else N

  LITE_DETR_METHOD explicit Channels(int64_t head_dim)
      : count((head_dim + N - 1) / N), tail(head_dim - (count - 1) * N) {}

  LITE_DETR_METHOD int64_t vectors() const { return kVectors > 0 ? kVectors : count; }
  LITE_DETR_METHOD int64_t row() const { return vectors() * N; }  // channels, rounded up to full vectors
  LITE_DETR_METHOD V load(const T* from, int64_t v) const {
    if (kVectors == 0 && v == count - 1 && tail != N) return load_partial<T>(from + v * N, tail);
    return Storage<T>::load(from + v * N);
  }
  LITE_DETR_METHOD V interpolate(const Corners<T>& corners, int64_t v, A w0, A w1, A w2, A w3) const {
    V sum = w0 * load(corners.row[0], v);
    sum += w1 * load(corners.row[1], v);
    sum += w2 * load(corners.row[2], v);
    sum += w3 * load(corners.row[3], v);
    return sum;
  }
  LITE_DETR_METHOD void store(T* to, int64_t v, V x) const {
    if (kVectors == 0 && v == count - 1 && tail != N) return store_partial<T>(to + v * N, x, tail);
    Storage<T>::store(to + v * N, x);
  }
};

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
