// Adding gradients to tokens: floating-point atomics, or integers for a sum that does not depend on the order.
#pragma once

#include "launch.cuh"
#include "numeric.cuh"

namespace lite_detr {
namespace cuda {

// Channels of one atomic. Four floats at once exist from sm_90 on and do not compile for less.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define LITE_DETR_FLOAT4_ATOMICS 1
constexpr int kAtomicChannels = 4;
#else
#define LITE_DETR_FLOAT4_ATOMICS 0
constexpr int kAtomicChannels = 1;
#endif

// Fixed point: a sum of x is kept as the sum of the integers round(x * 2^exponent). The exponent is the largest with
// which no sum can leave an int64, found from bounds of the inputs, so it depends on the inputs alone.
constexpr int kNotFinite = INT32_MIN;  // exponent where an input is not finite: the sums are NaN

// Which rows' largest 2-norm; with given weights kNormQuery is of the rows of attention_weights.
enum Norm { kNormGradOutput, kNormQuery, kNormValue, kNormKey };

// bound: finite, no summand is larger; count: of the summands.
__host__ __device__ __forceinline__ int fixed_point_exponent(double bound, int64_t count, int largest_exponent) {
  if (bound == 0.0) return 0;
  int count_bits = 0;
  while (count_bits < 62 && (int64_t{1} << count_bits) < count) ++count_bits;
  const int exponent = 61 - (ilogb(bound) + 1) - count_bits;  // one bit to spare for rounding
  return exponent > largest_exponent ? largest_exponent
                                     : (exponent < -largest_exponent ? -largest_exponent : exponent);
}

// 2^exponent lies in A: the largest exponent it is asked for.
template <typename A>
constexpr int kLargestExponent = sizeof(A) == 8 ? 1022 : 126;

// Of the sums of one head of one image: an outlier elsewhere takes no bits from them.
template <typename A>
__device__ __forceinline__ int exponent_of_scatter(const DeformAttnBackward& arguments, int64_t batch, int head) {
  const DeformAttnInputs& inputs = arguments.inputs;
  const int64_t heads = inputs.batch_size * inputs.num_heads, index = batch * inputs.num_heads + head;
  const double* norms = arguments.largest_norms;
  const double grad = norms[kNormGradOutput * heads + index], query = norms[kNormQuery * heads + index];
  const double value = norms[kNormValue * heads + index], key = norms[kNormKey * heads + index];
  double bound, products;
  int64_t count;
  if (inputs.attention == Attention::kGivenWeights) {
    // A token receives a * grad times a bilinear weight <= 1 from each sample.
    bound = products = grad * query;
    count = inputs.num_queries * inputs.num_levels * inputs.num_points;
  } else {
    // The samples of one query add up to less than |grad| + 2 * |grad| * |value| * |query| / sqrt(head_dim), as a
    // token receives a * grad + dlogit * query / sqrt(head_dim) with sum(a) = 1, dlogit = a * (da - sum(a * da)) and
    // |da| = |<grad, sampled value>|, times a bilinear weight <= 1.
    bound = grad * (1.0 + 2.0 * value * query / sqrt(static_cast<double>(inputs.head_dim)));
    products = grad * value + query * (value + key);
    count = inputs.num_queries;
  }
  // Nothing on the way may leave the range of A either. These are not numbers if an input is not.
  const double limit = sizeof(A) == 8 ? 1e300 : 1e37;
  if (!(bound <= limit && products <= limit)) return kNotFinite;
  return fixed_point_exponent(bound, count, kLargestExponent<A>);
}

__device__ __forceinline__ long long to_fixed(float x, float scale) { return __float2ll_rn(x * scale); }
__device__ __forceinline__ long long to_fixed(double x, double scale) { return __double2ll_rn(x * scale); }

template <int kCount, typename A>
__device__ __forceinline__ void add_floating(A* address, const A (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) atomicAdd(address + i, values[i]);
}
#if LITE_DETR_FLOAT4_ATOMICS
template <>
__device__ __forceinline__ void add_floating<4, float>(float* address, const float (&values)[4]) {
  atomicAdd(reinterpret_cast<float4*>(address), make_float4(values[0], values[1], values[2], values[3]));
}
#endif

// Adds the kCount values to successive elements of `sum` from `index` on.
template <typename A>
struct Scatter {
  void* sum;
  bool fixed;
  A scale;

  template <int kCount>
  __device__ __forceinline__ void add(int64_t index, const A (&values)[kCount]) const {
    if (fixed) {
      unsigned long long* base = static_cast<unsigned long long*>(sum) + index;
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        atomicAdd(base + i, static_cast<unsigned long long>(to_fixed(values[i], scale)));
      return;
    }
    add_floating(static_cast<A*>(sum) + index, values);
  }
};

template <typename A>
__device__ __forceinline__ Scatter<A> make_scatter(const DeformAttnBackward& arguments, void* sum, int64_t batch,
                                                   int head) {
  Scatter<A> scatter{sum, arguments.deterministic, A(1)};
  if (arguments.deterministic) {
    const int exponent = exponent_of_scatter<A>(arguments, batch, head);
    scatter.scale = exponent == kNotFinite ? A(0) : static_cast<A>(ldexp(1.0, exponent));
  }
  return scatter;
}

}  // namespace cuda
}  // namespace lite_detr
