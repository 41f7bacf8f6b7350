// Vectors in the vector extensions of GCC and clang. Every function carries the target attribute of the instruction
// set of its translation unit (LITE_DETR_TARGET), so no compiler flag can leak instructions into shared code.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
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

// Products of 32-bit numbers that are not negative, in 64 bits. Compilers do not see that one instruction does it.
constexpr int kWideLanes = LITE_DETR_VECTOR_BYTES / 8;
using WideVec = typename VectorOf<int64_t, kWideLanes>::type;
using NarrowVec = typename VectorOf<int32_t, kWideLanes>::type;
LITE_DETR_INLINE WideVec multiply_wide(NarrowVec a, uint32_t b) {
#if LITE_DETR_VECTOR_BYTES == 64
  return (WideVec)_mm512_mul_epu32(_mm512_cvtepu32_epi64((__m256i)a), _mm512_set1_epi64(b));
#elif LITE_DETR_VECTOR_BYTES == 32
  return (WideVec)_mm256_mul_epu32(_mm256_cvtepu32_epi64((__m128i)a), _mm256_set1_epi64x(b));
#elif defined(__aarch64__)
  return (WideVec)vmull_n_u32((uint32x2_t)a, b);
#else
  return __builtin_convertvector(a, WideVec) * static_cast<int64_t>(b);
#endif
}

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

// log(x) of numbers that are normal and not negative, with an error near 1e-7. NaN and infinity stay.
LITE_DETR_INLINE Vec<float> log_lanes(Vec<float> x) {
  using U = typename VectorOf<uint32_t, kLanes<float>>::type;
  using I = IntVec<float>;
  // x = m * 2^e with sqrt(1/2) <= m < sqrt(2); log(m) = 2 * atanh(t) with t = (m - 1) / (m + 1), |t| < 0.172.
  const U shifted = bit_cast<U>(x) - 0x3f3504f3u;
  const I exponent = bit_cast<I>(shifted) >> 23;
  const Vec<float> m = bit_cast<Vec<float>>((shifted & 0x007fffffu) + 0x3f3504f3u);
  const Vec<float> t = (m - 1.0f) / (m + 1.0f);
  const Vec<float> s = t * t;
  Vec<float> p = splat(2.0f / 9);
  p = p * s + 2.0f / 7;
  p = p * s + 2.0f / 5;
  p = p * s + 2.0f / 3;
  p = p * s + 2.0f;
  const Vec<float> e = __builtin_convertvector(exponent, Vec<float>);
  const Vec<float> result = e * 0.693359375f + (t * p - e * 2.12194440e-4f);
  return x < INFINITY ? result : x;
}

LITE_DETR_INLINE Vec<double> log_lanes(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::log(x[i]);
  return x;
}

LITE_DETR_INLINE Vec<double> exp_lanes(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
