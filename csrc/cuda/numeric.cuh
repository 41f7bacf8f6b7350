// Number types of the kernels: conversions, 16-byte loads and stores, loads by a dtype known at run time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>

#include "deform_attn_cuda.h"

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

template <typename T>
__host__ __device__ __forceinline__ T from_raw(unsigned short raw) {
  static_assert(sizeof(T) == sizeof(raw), "16 bits");
  T x;
  memcpy(&x, &raw, sizeof(x));
  return x;
}

// Two numbers of a 16-bit type that one instruction works on.
template <typename T>
struct PairOf;
template <>
struct PairOf<__half> {
  using type = __half2;
};
template <>
struct PairOf<__nv_bfloat16> {
  using type = __nv_bfloat162;
};
__device__ __forceinline__ __half2 twice(float x, __half) { return __float2half2_rn(x); }
__device__ __forceinline__ __nv_bfloat162 twice(float x, __nv_bfloat16) { return __float2bfloat162_rn(x); }
__device__ __forceinline__ float2 to_floats(__half2 x) { return __half22float2(x); }
__device__ __forceinline__ float2 to_floats(__nv_bfloat162 x) {
  unsigned int raw;  // a bfloat16 is the upper half of a float
  memcpy(&raw, &x, sizeof(raw));
  return make_float2(__uint_as_float(raw << 16), __uint_as_float(raw & 0xffff0000u));
}
__device__ __forceinline__ __half2 multiply(__half2 a, __half2 b) { return __hmul2(a, b); }
__device__ __forceinline__ __half2 multiply_add(__half2 a, __half2 b, __half2 c) { return __hfma2(a, b, c); }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800  // no arithmetic in bfloat16: in float, then rounded
__device__ __forceinline__ __nv_bfloat162 multiply(__nv_bfloat162 a, __nv_bfloat162 b) {
  const float2 x = to_floats(a), y = to_floats(b);
  return __floats2bfloat162_rn(x.x * y.x, x.y * y.y);
}
__device__ __forceinline__ __nv_bfloat162 multiply_add(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  const float2 x = to_floats(a), y = to_floats(b), z = to_floats(c);
  return __floats2bfloat162_rn(fmaf(x.x, y.x, z.x), fmaf(x.y, y.y, z.y));
}
#else
__device__ __forceinline__ __nv_bfloat162 multiply(__nv_bfloat162 a, __nv_bfloat162 b) { return __hmul2(a, b); }
__device__ __forceinline__ __nv_bfloat162 multiply_add(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return __hfma2(a, b, c);
}
#endif

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

// Reads kBytes (2, 4, 8 or 16), aligned likewise.
template <int kBytes, typename T, int kSize>
__device__ __forceinline__ void load_bytes(const T* ptr, T (&out)[kSize]) {
  static_assert(kSize * sizeof(T) == kBytes, "fills out");
  if constexpr (kBytes == 16) {
    const uint4 raw = __ldg(reinterpret_cast<const uint4*>(ptr));
    memcpy(out, &raw, kBytes);
  } else if constexpr (kBytes == 8) {
    const uint2 raw = __ldg(reinterpret_cast<const uint2*>(ptr));
    memcpy(out, &raw, kBytes);
  } else if constexpr (kBytes == 4) {
    const unsigned int raw = __ldg(reinterpret_cast<const unsigned int*>(ptr));
    memcpy(out, &raw, kBytes);
  } else {
    const unsigned short raw = __ldg(reinterpret_cast<const unsigned short*>(ptr));
    memcpy(out, &raw, kBytes);
  }
}

// Bytes of an element.
__host__ __device__ __forceinline__ int bytes_of(DataType dtype) {
  return dtype == DataType::kFloat64 ? 8 : (dtype == DataType::kFloat32 ? 4 : 2);
}

// The element at an address, and the two elements there. All threads of a launch take the same case.
template <typename A>
__device__ __forceinline__ A load_as(const char* address, DataType dtype) {
  if (dtype == DataType::kFloat32) return static_cast<A>(__ldg(reinterpret_cast<const float*>(address)));
  if (dtype == DataType::kFloat64) return static_cast<A>(__ldg(reinterpret_cast<const double*>(address)));
  const unsigned short raw = __ldg(reinterpret_cast<const unsigned short*>(address));
  if (dtype == DataType::kBFloat16) return convert_to<A>(from_raw<__nv_bfloat16>(raw));
  return convert_to<A>(from_raw<__half>(raw));
}

template <typename A>
__device__ __forceinline__ void load_pair(const char* address, DataType dtype, A& x, A& y) {
  if (dtype == DataType::kFloat32) {
    const float2 v = __ldg(reinterpret_cast<const float2*>(address));
    x = v.x, y = v.y;
  } else if (dtype == DataType::kFloat64) {
    const double2 v = __ldg(reinterpret_cast<const double2*>(address));
    x = static_cast<A>(v.x), y = static_cast<A>(v.y);
  } else {
    const unsigned int raw = __ldg(reinterpret_cast<const unsigned int*>(address));
    if (dtype == DataType::kBFloat16) {
      __nv_bfloat162 v;
      memcpy(&v, &raw, sizeof(raw));
      const float2 both = to_floats(v);
      x = static_cast<A>(both.x), y = static_cast<A>(both.y);
    } else {
      __half2 v;
      memcpy(&v, &raw, sizeof(raw));
      const float2 both = to_floats(v);
      x = static_cast<A>(both.x), y = static_cast<A>(both.y);
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

// Keeps an address in registers: the compiler would otherwise form it anew before each load.
template <typename P>
__device__ __forceinline__ void pin(P*& address) {
#if defined(__CUDACC__)
  asm volatile("" : "+l"(address));
#else
  static_cast<void>(address);
#endif
}

// 2^x, log2(x) and 1 / x of a float, for results that lie in its range: one instruction, off by a few units of 2^-23;
// numbers below 2^-126 are zero.
__device__ __forceinline__ float exp2_of(float x) {
#if defined(__CUDACC__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return x < -126.0f ? 0.0f : exp2f(x);
#endif
}
__device__ __forceinline__ float log2_of(float x) {
#if defined(__CUDACC__)
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return log2f(x);
#endif
}
__device__ __forceinline__ float reciprocal_of(float x) {
#if defined(__CUDACC__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}
__device__ __forceinline__ double exp2_of(double x) { return exp2(x); }
__device__ __forceinline__ double log2_of(double x) { return log2(x); }

// Rounded as written: the compiler does not fuse these with others, so that two places that compute the same location
// find the same bits.
__device__ __forceinline__ float multiply_rounded(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double multiply_rounded(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float add_rounded(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double add_rounded(double a, double b) { return __dadd_rn(a, b); }
__host__ __device__ __forceinline__ float fma_of(float a, float b, float c) { return fmaf(a, b, c); }
__host__ __device__ __forceinline__ double fma_of(double a, double b, double c) { return fma(a, b, c); }

__host__ __device__ __forceinline__ float floor_of(float x) { return floorf(x); }
__host__ __device__ __forceinline__ double floor_of(double x) { return floor(x); }
__host__ __device__ __forceinline__ float larger_of(float x, float y) { return fmaxf(x, y); }
__host__ __device__ __forceinline__ double larger_of(double x, double y) { return fmax(x, y); }

constexpr double kLog2E = 1.4426950408889634;  // log2(e): the kernels exponentiate in base 2
constexpr double kLn2 = 0.6931471805599453;

}  // namespace cuda
}  // namespace lite_detr
