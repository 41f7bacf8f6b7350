// Half precision for the host emulation: storage and conversions with the rounding of the hardware.
#pragma once

#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
};

inline float __half2float(__half h) {
  const uint32_t sign = (h.bits & 0x8000u) << 16, exponent = (h.bits >> 10) & 31, mantissa = h.bits & 0x3ffu;
  if (exponent == 31) return emulated_bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  const float magnitude = exponent == 0
                              ? ldexpf(static_cast<float>(mantissa), -24)
                              : ldexpf(static_cast<float>(mantissa | 0x400u), static_cast<int>(exponent) - 25);
  return sign != 0 ? -magnitude : magnitude;
}

inline __half __float2half_rn(float x) {
  const uint16_t sign = static_cast<uint16_t>(emulated_bit_cast<uint32_t>(x) >> 16 & 0x8000u);
  if (x != x) return {static_cast<uint16_t>(sign | 0x7fffu)};
  const float magnitude = fabsf(x);
  if (magnitude >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00u)};
  int exponent = magnitude == 0.0f ? -14 : ilogbf(magnitude);
  if (exponent < -14) exponent = -14;
  // In units of the last place: 1024 ... 2048 (rounded up: the next exponent), less for subnormal numbers.
  const long units = lrintf(ldexpf(magnitude, 10 - exponent));
  return {static_cast<uint16_t>(sign | (((exponent + 14) << 10) + units))};
}

// Two at a time; each result rounded once.
struct alignas(4) __half2 {
  __half x, y;
};
inline __half2 __float2half2_rn(float x) { return {__float2half_rn(x), __float2half_rn(x)}; }
inline __half2 __hmul2(__half2 a, __half2 b) {
  return {__float2half_rn(__half2float(a.x) * __half2float(b.x)),
          __float2half_rn(__half2float(a.y) * __half2float(b.y))};
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return {__float2half_rn(fmaf(__half2float(a.x), __half2float(b.x), __half2float(c.x))),
          __float2half_rn(fmaf(__half2float(a.y), __half2float(b.y), __half2float(c.y)))};
}
inline float2 __half22float2(__half2 x) { return make_float2(__half2float(x.x), __half2float(x.y)); }
