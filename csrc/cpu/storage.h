// Numbers in memory in their storage type, in registers in the type that is computed with.
#pragma once

#include "../core/arguments.h"
#include "simd.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

// Storage types that are computed in float.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename T>
using Accumulator = std::conditional_t<std::is_same<T, double>::value, double, float>;

LITE_DETR_INLINE float to_float(Half x) {
  // Exponent and mantissa move to their places in a float; the exponent's bias then differs by 112.
  const uint32_t magnitude = (x.bits & 0x7fffu) << 13;
  const uint32_t exponent = magnitude & 0x0f800000u;
  uint32_t bits = magnitude + (112u << 23);
  if (exponent == 0x0f800000u) bits = magnitude + (224u << 23);  // infinities and NaN
  if (exponent == 0u) {                                          // subnormal: 2^-14 is added and taken away
    bits = bit_cast<uint32_t>(bit_cast<float>(magnitude + (113u << 23)) - bit_cast<float>(113u << 23));
  }
  return bit_cast<float>(bits | (x.bits & 0x8000u) << 16);
}
LITE_DETR_INLINE Half to_half(float x) {  // to nearest even
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;  // NaN
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // 65520 and more: infinity
  } else if (magnitude < 0x38800000u) {
    half = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;  // subnormal: multiples of 2^-24
  } else {
    half = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}
LITE_DETR_INLINE float to_float(BFloat16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

template <typename T>
struct Storage {  // float or double in itself
  using A = T;
  LITE_DETR_METHOD static Vec<A> load(const T* from) { return load_bits<Vec<A>>(from); }
  LITE_DETR_METHOD static void store(T* to, Vec<A> v) { store_bits(to, v); }
  LITE_DETR_METHOD static A load_one(const T* from) { return *from; }
  LITE_DETR_METHOD static void store_one(T* to, A x) { *to = x; }
};

template <>
struct Storage<BFloat16> {
  using A = float;
  static constexpr int N = kLanes<float>;
  using U16 = typename VectorOf<uint16_t, N>::type;
  using U32 = typename VectorOf<uint32_t, N>::type;
  LITE_DETR_METHOD static Vec<A> load(const BFloat16* from) {
    return bit_cast<Vec<A>>(__builtin_convertvector(load_bits<U16>(from), U32) << 16);
  }
  LITE_DETR_METHOD static void store(BFloat16* to, Vec<A> v) {
    const U32 bits = bit_cast<U32>(v);
    const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest even
    const U32 is_nan = bit_cast<U32>(v != v);
    store_bits(to, __builtin_convertvector((rounded & ~is_nan) | (0x7fc0u & is_nan), U16));
  }
  LITE_DETR_METHOD static A load_one(const BFloat16* from) { return to_float(*from); }
  LITE_DETR_METHOD static void store_one(BFloat16* to, A x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    to->bits = x != x ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
};

template <>
struct Storage<Half> {
  using A = float;
  static constexpr int N = kLanes<float>;
  LITE_DETR_METHOD static Vec<A> load(const Half* from) {
#if LITE_DETR_VECTOR_BYTES == 64
    return (Vec<A>)_mm512_cvtph_ps(load_bits<__m256i>(from));
#elif LITE_DETR_VECTOR_BYTES == 32
    return (Vec<A>)_mm256_cvtph_ps(load_bits<__m128i>(from));
#elif defined(__aarch64__)
    return (Vec<A>)vcvt_f32_f16(load_bits<float16x4_t>(from));
#else
    using U16 = typename VectorOf<uint16_t, N>::type;
    using U32 = typename VectorOf<uint32_t, N>::type;
    const U32 bits = __builtin_convertvector(load_bits<U16>(from), U32);
    const U32 magnitude = (bits & 0x7fffu) << 13;
    const U32 exponent = magnitude & 0x0f800000u;
    const U32 normal = magnitude + (112u << 23);
    const U32 special = magnitude + (224u << 23);  // infinities and NaN
    const U32 subnormal =
        bit_cast<U32>(bit_cast<Vec<A>>(magnitude + (113u << 23)) - bit_cast<Vec<A>>(U32{} + (113u << 23)));
    U32 result = (exponent == 0x0f800000u) ? special : normal;
    result = (exponent == 0u) ? subnormal : result;
    return bit_cast<Vec<A>>(result | ((bits & 0x8000u) << 16));
#endif
  }
  LITE_DETR_METHOD static void store(Half* to, Vec<A> v) {
#if LITE_DETR_VECTOR_BYTES == 64
    store_bits(to, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif LITE_DETR_VECTOR_BYTES == 32
    store_bits(to, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__aarch64__)
    store_bits(to, vcvt_f16_f32((float32x4_t)v));
#else
    for (int i = 0; i < N; ++i) store_one(to + i, v[i]);
#endif
  }
  LITE_DETR_METHOD static A load_one(const Half* from) { return to_float(*from); }
  LITE_DETR_METHOD static void store_one(Half* to, A x) { *to = to_half(x); }
};

// The first `count` lanes; the others are zero.
template <typename T, typename A = Accumulator<T>>
LITE_DETR_INLINE Vec<A> load_partial(const T* from, int64_t count) {
  Vec<A> v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = Storage<T>::load_one(from + i);
  return v;
}

template <typename T, typename A = Accumulator<T>>
LITE_DETR_INLINE void store_partial(T* to, Vec<A> v, int64_t count) {
  for (int64_t i = 0; i < count; ++i) Storage<T>::store_one(to + i, v[i]);
}

// ---- Addresses ----

// A row at an address that was computed as a number.
template <typename T>
LITE_DETR_INLINE T* at(int64_t address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}
LITE_DETR_INLINE int64_t address_of(const void* pointer) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(pointer));
}

// Asks for cache lines ahead of their use.
LITE_DETR_INLINE void prefetch(int64_t address, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(at<const char>(address + line));
}
LITE_DETR_INLINE void prefetch(const void* from, int64_t bytes) { prefetch(address_of(from), bytes); }

// ---- Between storage types that are known at run time ----

// Copies `count` numbers of any storage type into the computing type.
template <typename T, typename A>
LITE_DETR_INLINE void convert(const void* from, A* to, int64_t count) {
  const T* typed = static_cast<const T*>(from);
  if constexpr (std::is_same<T, A>::value) {
    __builtin_memcpy(to, typed, count * sizeof(A));
  } else if constexpr (std::is_same<Accumulator<T>, A>::value) {
    int64_t i = 0;
    for (; i + kLanes<A> <= count; i += kLanes<A>) store_bits(to + i, Storage<T>::load(typed + i));
    for (; i < count; ++i) to[i] = Storage<T>::load_one(typed + i);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<A>(Storage<T>::load_one(typed + i));
  }
}

template <typename A>
LITE_DETR_INLINE void convert_from(ScalarType type, const void* base, int64_t offset, A* to, int64_t count) {
  switch (type) {
    case ScalarType::kDouble:
      return convert<double>(static_cast<const double*>(base) + offset, to, count);
    case ScalarType::kFloat:
      return convert<float>(static_cast<const float*>(base) + offset, to, count);
    case ScalarType::kHalf:
      return convert<Half>(static_cast<const Half*>(base) + offset, to, count);
    default:
      return convert<BFloat16>(static_cast<const BFloat16*>(base) + offset, to, count);
  }
}

template <typename A>
LITE_DETR_INLINE void convert_to(ScalarType type, const A* from, void* base, int64_t offset, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    switch (type) {
      case ScalarType::kDouble:
        static_cast<double*>(base)[offset + i] = from[i];
        break;
      case ScalarType::kFloat:
        static_cast<float*>(base)[offset + i] = static_cast<float>(from[i]);
        break;
      case ScalarType::kHalf:
        Storage<Half>::store_one(static_cast<Half*>(base) + offset + i, static_cast<float>(from[i]));
        break;
      default:
        Storage<BFloat16>::store_one(static_cast<BFloat16*>(base) + offset + i, static_cast<float>(from[i]));
        break;
    }
  }
}

template <typename A>
constexpr ScalarType kScalarType = sizeof(A) == 8 ? ScalarType::kDouble : ScalarType::kFloat;

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
