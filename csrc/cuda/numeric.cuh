// Number types of the kernels: conversions, 16-byte loads and stores, loads by a dtype known at run time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "key_aware_deform_attn_cuda.h"

namespace lite_detr {
namespace cuda {

// Sums and coordinates: float, or double for double.
template <typename T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename T>
using Accumulator = typename AccumulatorOf<T>::type;

template <typename A, typename T>
__host__ __device__ __forceinline__ A convert_to(T x) {
  return static_cast<A>(x);
}
template <>
__host__ __device__ __forceinline__ float convert_to<float>(__half x) {
  return __half2float(x);
}
template <>
__host__ __device__ __forceinline__ float convert_to<float>(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
template <>
__host__ __device__ __forceinline__ double convert_to<double>(__half x) {
  return __half2float(x);
}
template <>
__host__ __device__ __forceinline__ double convert_to<double>(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
template <>
__host__ __device__ __forceinline__ __half convert_to<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__host__ __device__ __forceinline__ __nv_bfloat16 convert_to<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
// Rounded twice: this serves gradients of half-precision locations beside a double query, which nobody trains with.
template <>
__host__ __device__ __forceinline__ __half convert_to<__half>(double x) {
  return __float2half_rn(static_cast<float>(x));
}
template <>
__host__ __device__ __forceinline__ __nv_bfloat16 convert_to<__nv_bfloat16>(double x) {
  return __float2bfloat16_rn(static_cast<float>(x));
}

// Elements in one 16-byte load.
template <typename T>
constexpr int kVectorSize = 16 / static_cast<int>(sizeof(T));

template <typename A, typename T, int kSize>
__device__ __forceinline__ void unpack(const uint4& raw, A (&out)[kSize]) {
  static_assert(kSize == kVectorSize<T>, "one 16-byte vector");
  T packed[kSize];
  memcpy(packed, &raw, sizeof(raw));
#pragma unroll
  for (int i = 0; i < kSize; ++i) out[i] = convert_to<A>(packed[i]);
}

// Reads 16 bytes; ptr must be a multiple of 16 bytes and must not be written while the kernel runs.
template <typename A, typename T, int kSize>
__device__ __forceinline__ void load_vector(const T* ptr, A (&out)[kSize]) {
  unpack<A, T>(__ldg(reinterpret_cast<const uint4*>(ptr)), out);
}

template <typename A, typename T, int kSize>
__device__ __forceinline__ void store_vector(T* ptr, const A (&values)[kSize]) {
  static_assert(kSize == kVectorSize<T>, "one 16-byte vector");
  T packed[kSize];
#pragma unroll
  for (int i = 0; i < kSize; ++i) packed[i] = convert_to<T>(values[i]);
  uint4 raw;
  memcpy(&raw, packed, sizeof(raw));
  *reinterpret_cast<uint4*>(ptr) = raw;
}

// (x, y) at base[2 * pair], base[2 * pair + 1]. All threads of a launch take the same case.
template <typename A>
__device__ __forceinline__ void load_pair(const void* base, DataType dtype, int64_t pair, A& x, A& y) {
  switch (dtype) {
    case DataType::kFloat64: {
      const double2 v = __ldg(static_cast<const double2*>(base) + pair);
      x = static_cast<A>(v.x), y = static_cast<A>(v.y);
      return;
    }
    case DataType::kFloat32: {
      const float2 v = __ldg(static_cast<const float2*>(base) + pair);
      x = v.x, y = v.y;
      return;
    }
    case DataType::kFloat16: {
      const unsigned int raw = __ldg(static_cast<const unsigned int*>(base) + pair);
      __half v[2];
      memcpy(v, &raw, sizeof(raw));
      x = convert_to<A>(v[0]), y = convert_to<A>(v[1]);
      return;
    }
    case DataType::kBFloat16: {
      const unsigned int raw = __ldg(static_cast<const unsigned int*>(base) + pair);
      __nv_bfloat16 v[2];
      memcpy(v, &raw, sizeof(raw));
      x = convert_to<A>(v[0]), y = convert_to<A>(v[1]);
      return;
    }
  }
}

template <typename A>
__device__ __forceinline__ void store_as(void* base, DataType dtype, int64_t index, A x) {
  switch (dtype) {
    case DataType::kFloat64:
      static_cast<double*>(base)[index] = x;
      return;
    case DataType::kFloat32:
      static_cast<float*>(base)[index] = static_cast<float>(x);
      return;
    case DataType::kFloat16:
      static_cast<__half*>(base)[index] = convert_to<__half>(x);
      return;
    case DataType::kBFloat16:
      static_cast<__nv_bfloat16*>(base)[index] = convert_to<__nv_bfloat16>(x);
      return;
  }
}

__host__ __device__ __forceinline__ float exp2_of(float x) { return exp2f(x); }
__host__ __device__ __forceinline__ double exp2_of(double x) { return exp2(x); }
__host__ __device__ __forceinline__ float log2_of(float x) { return log2f(x); }
__host__ __device__ __forceinline__ double log2_of(double x) { return log2(x); }
__host__ __device__ __forceinline__ float floor_of(float x) { return floorf(x); }
__host__ __device__ __forceinline__ double floor_of(double x) { return floor(x); }
__host__ __device__ __forceinline__ float larger_of(float x, float y) { return fmaxf(x, y); }
__host__ __device__ __forceinline__ double larger_of(double x, double y) { return fmax(x, y); }

constexpr double kLog2E = 1.4426950408889634;  // log2(e): the kernels exponentiate in base 2
constexpr double kLn2 = 0.6931471805599453;

}  // namespace cuda
}  // namespace lite_detr
