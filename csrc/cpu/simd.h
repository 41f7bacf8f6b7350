// Vectors in the vector extensions of GCC and clang. Every function carries the target attribute of the instruction
// set of its translation unit (LITE_DETR_TARGET), so no compiler flag can leak instructions into shared code.
#pragma once

#include <c10/util/Half.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LITE_DETR_INLINE static inline __attribute__((always_inline)) LITE_DETR_TARGET
#define LITE_DETR_METHOD inline __attribute__((always_inline)) LITE_DETR_TARGET
#define LITE_DETR_OUTLINE __attribute__((noinline)) LITE_DETR_TARGET

#if defined(__GNUC__) && !defined(__clang__)
// GCC warns that the calling convention of wide vectors depends on flags; all functions that pass them are inlined.
#pragma GCC diagnostic ignored "-Wpsabi"
#define LITE_DETR_UNROLL _Pragma("GCC unroll 16")
#define LITE_DETR_NO_UNROLL _Pragma("GCC unroll 1")
#else
#define LITE_DETR_UNROLL _Pragma("unroll")
#define LITE_DETR_NO_UNROLL _Pragma("nounroll")
#endif

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

template <typename A>
using IntOf = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;

template <typename A>
constexpr int kLanes = LITE_DETR_VECTOR_BYTES / sizeof(A);

template <typename T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};

// A full vector of the computing type A (float or double), or of integers or bits of its width.
template <typename A>
using Vec = typename VectorOf<A, kLanes<A>>::type;
template <typename A>
using IntVec = typename VectorOf<IntOf<A>, kLanes<A>>::type;

template <typename To, typename From>
LITE_DETR_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename A>
LITE_DETR_INLINE Vec<A> splat(A x) {
  return Vec<A>{} + x;
}

template <typename V, typename P>
LITE_DETR_INLINE V load_bits(const P* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <typename P, typename V>
LITE_DETR_INLINE void store_bits(P* to, V v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

template <typename A>
LITE_DETR_INLINE Vec<A> select(IntVec<A> mask, Vec<A> yes, Vec<A> no) {
  return mask ? yes : no;
}

#if defined(__clang__) || __GNUC__ >= 12
#define LITE_DETR_SHUFFLE(T, N, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LITE_DETR_SHUFFLE(T, N, a, b, ...) __builtin_shuffle(a, b, typename VectorOf<IntOf<T>, N>::type{__VA_ARGS__})
#endif

// ---- Memory in storage type T, vectors in its accumulator type ----

LITE_DETR_INLINE float to_float(Half x) { return c10::detail::fp16_ieee_to_fp32_value(x.bits); }
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
#else
    // Exponent and mantissa move to their places in a float; the exponent's bias then differs by 112.
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
#else
    for (int i = 0; i < N; ++i) store_one(to + i, v[i]);
#endif
  }
  LITE_DETR_METHOD static A load_one(const Half* from) { return to_float(*from); }
  LITE_DETR_METHOD static void store_one(Half* to, A x) { to->bits = c10::detail::fp16_ieee_from_fp32_value(x); }
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

// ---- Across the lanes ----

// Lanes without `Bit` in their index: a + its neighbour at distance Bit; lanes with it: the same of b.
template <int Bit, typename A, int... I>
LITE_DETR_INLINE Vec<A> combine(Vec<A> a, Vec<A> b, std::integer_sequence<int, I...>) {
  const Vec<A> own = LITE_DETR_SHUFFLE(A, kLanes<A>, a, b, ((I & Bit) ? kLanes<A> + I : I)...);
  const Vec<A> other = LITE_DETR_SHUFFLE(A, kLanes<A>, a, b, ((I & Bit) ? kLanes<A> + (I ^ Bit) : (I ^ Bit))...);
  return own + other;
}

// Lane i of the result is the sum of the lanes of the vector make(i): transposes and adds in log2(lanes) steps, and
// makes the vectors when they are needed, so that few of them live at once.
template <typename A, int First, int Count, typename Make>
LITE_DETR_INLINE Vec<A> sum_of_each(const Make& make) {
  if constexpr (Count == 1) {
    return make(First);
  } else {
    const Vec<A> low = sum_of_each<A, First, Count / 2>(make);
    const Vec<A> high = sum_of_each<A, First + Count / 2, Count / 2>(make);
    return combine<Count / 2, A>(low, high, std::make_integer_sequence<int, kLanes<A>>{});
  }
}

// Two vectors, to sum both of a lane's products at once.
template <typename A>
struct VecPair {
  Vec<A> first;
  Vec<A> second;
};

template <typename A, int First, int Count, typename Make>
LITE_DETR_INLINE VecPair<A> sum_of_each_pair(const Make& make) {
  if constexpr (Count == 1) {
    return make(First);
  } else {
    const VecPair<A> low = sum_of_each_pair<A, First, Count / 2>(make);
    const VecPair<A> high = sum_of_each_pair<A, First + Count / 2, Count / 2>(make);
    constexpr auto lanes = std::make_integer_sequence<int, kLanes<A>>{};
    return {combine<Count / 2, A>(low.first, high.first, lanes),
            combine<Count / 2, A>(low.second, high.second, lanes)};
  }
}

template <int Bit, typename A, int... I>
LITE_DETR_INLINE Vec<A> swap_lanes(Vec<A> a, std::integer_sequence<int, I...>) {
  return LITE_DETR_SHUFFLE(A, kLanes<A>, a, a, (I ^ Bit)...);
}

// Sum of all lanes, in every lane.
template <typename A, int Bit = kLanes<A> / 2>
LITE_DETR_INLINE Vec<A> sum_lanes(Vec<A> a) {
  if constexpr (Bit == 0) {
    return a;
  } else {
    return sum_lanes<A, Bit / 2>(a + swap_lanes<Bit, A>(a, std::make_integer_sequence<int, kLanes<A>>{}));
  }
}

template <typename A, int Bit = kLanes<A> / 2>
LITE_DETR_INLINE Vec<A> max_lanes(Vec<A> a) {
  if constexpr (Bit == 0) {
    return a;
  } else {
    const Vec<A> b = swap_lanes<Bit, A>(a, std::make_integer_sequence<int, kLanes<A>>{});
    return max_lanes<A, Bit / 2>(a > b ? a : b);
  }
}

// Splits x0 y0 x1 y1 ... of two vectors into x and y, and back.
template <typename A, int... I>
LITE_DETR_INLINE void deinterleave(const A* from, Vec<A>& x, Vec<A>& y, std::integer_sequence<int, I...>) {
  const Vec<A> low = load_bits<Vec<A>>(from);
  const Vec<A> high = load_bits<Vec<A>>(from + kLanes<A>);
  x = LITE_DETR_SHUFFLE(A, kLanes<A>, low, high, (2 * I)...);
  y = LITE_DETR_SHUFFLE(A, kLanes<A>, low, high, (2 * I + 1)...);
}

template <typename A, int... I>
LITE_DETR_INLINE void interleave(A* to, Vec<A> x, Vec<A> y, std::integer_sequence<int, I...>) {
  constexpr int N = kLanes<A>;
  store_bits(to, LITE_DETR_SHUFFLE(A, N, x, y, ((I % 2) ? N + I / 2 : I / 2)...));
  store_bits(to + N, LITE_DETR_SHUFFLE(A, N, x, y, ((I % 2) ? N + N / 2 + I / 2 : N / 2 + I / 2)...));
}

// ---- Elementary functions ----

// exp(x) with a relative error near 1e-7; below the normal numbers 0. NaN stays NaN.
LITE_DETR_INLINE Vec<float> exp_lanes(Vec<float> x) {
  using U = typename VectorOf<uint32_t, kLanes<float>>::type;
  const Vec<float> in = x > 88.0f ? splat(88.0f) : x;
  // x = n * log(2) + r with |r| <= log(2) / 2. Adding 1.5 * 2^23 rounds to an integer in the low bits.
  const Vec<float> shifted = in * 1.44269504f + 12582912.0f;
  const Vec<float> n = shifted - 12582912.0f;
  const Vec<float> r = (in - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> p = splat(1.0f / 5040);  // Taylor series: the first term left out is below 6e-9
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // Unsigned, because lanes that end as 0 hold anything here.
  const U exponent = (bit_cast<U>(shifted) - 0x4b400000u + 127u) << 23;
  return x < -87.0f ? Vec<float>{} : p * bit_cast<Vec<float>>(exponent);
}

LITE_DETR_INLINE Vec<double> exp_lanes(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
