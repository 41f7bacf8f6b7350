// Entry points of the CPU kernels for one instruction set, and the one place that chooses an instance for the
// arguments. A file that includes this defines LITE_DETR_ISA (a namespace), LITE_DETR_TARGET (function attribute),
// LITE_DETR_VECTOR_BYTES, LITE_DETR_FAST (1: instances of their own for the sizes that models use) and
// LITE_DETR_DOUBLE (1: float64, too). LITE_DETR_FORWARD_ONLY leaves the backward pass out, for runtimes that infer.
#pragma once

#include "forward.h"
#include "forward_given.h"
#if !defined(LITE_DETR_FORWARD_ONLY)
#include "backward_query.h"
#include "backward_value.h"
#endif

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

template <typename Pass, typename... Range>
LITE_DETR_OUTLINE void run(const Arguments& args, Range... range) {
  Scratch scratch;
  Pass(args, scratch).run(range...);
}

// The passes for dtype T and HeadDim channels per head, 0: known at run time only.
template <typename T, int HeadDim>
struct Passes {
  static void forward(const Arguments& args, int64_t begin, int64_t end) {
    if (args.query == nullptr) return run<ForwardGiven<T, HeadDim>>(args, begin, end);
    run<Forward<T, HeadDim, false>>(args, begin, end);
  }
#if !defined(LITE_DETR_FORWARD_ONLY)
  static void backward_query(const Arguments& args, int64_t chunk_begin, int64_t begin, int64_t end) {
    if (args.query == nullptr) {
      return run<BackwardQuery<T, HeadDim, Form::kGivenWeights>>(args, chunk_begin, begin, end);
    }
    run<BackwardQuery<T, HeadDim, Form::kSharedKey>>(args, chunk_begin, begin, end);
  }
  static void backward_value(const Arguments& args, int64_t chunk_begin, int64_t chunk_end, int64_t image,
                             int64_t head_begin, int64_t head_end, int64_t level_begin, int64_t level_end) {
    if (args.query == nullptr) {
      return run<BackwardValue<T, HeadDim, Form::kGivenWeights>>(args, chunk_begin, chunk_end, image, head_begin,
                                                                 head_end, level_begin, level_end);
    }
    run<BackwardValue<T, HeadDim, Form::kSharedKey>>(args, chunk_begin, chunk_end, image, head_begin, head_end,
                                                     level_begin, level_end);
  }
#endif
};

// Each instance costs about a second of compilation, so only what models use has one of its own: float32 with common
// head sizes, half precision with the most common one. Separate keys, which no released model has, share one.
#if LITE_DETR_FAST
#define LITE_DETR_CALL_FLOAT(function, ...)            \
  switch (args.head_dim) {                             \
    case 16:                                           \
      return Passes<float, 16>::function(__VA_ARGS__); \
    case 32:                                           \
      return Passes<float, 32>::function(__VA_ARGS__); \
    case 64:                                           \
      return Passes<float, 64>::function(__VA_ARGS__); \
    default:                                           \
      return Passes<float, 0>::function(__VA_ARGS__);  \
  }
#define LITE_DETR_CALL_HALF(T, function, ...) \
  return args.head_dim == 32 ? Passes<T, 32>::function(__VA_ARGS__) : Passes<T, 0>::function(__VA_ARGS__)
#else
#define LITE_DETR_CALL_FLOAT(function, ...) return Passes<float, 0>::function(__VA_ARGS__)
#define LITE_DETR_CALL_HALF(T, function, ...) return Passes<T, 0>::function(__VA_ARGS__)
#endif

static void forward(const Arguments& args, int64_t begin, int64_t end) {
  switch (args.type) {
#if LITE_DETR_DOUBLE
    case ScalarType::kDouble:
      if (args.key != nullptr) return run<Forward<double, 0, true>>(args, begin, end);
      return Passes<double, 0>::forward(args, begin, end);
#endif
    case ScalarType::kHalf:
      if (args.key != nullptr) return run<Forward<Half, 0, true>>(args, begin, end);
      LITE_DETR_CALL_HALF(Half, forward, args, begin, end);
    case ScalarType::kBFloat16:
      if (args.key != nullptr) return run<Forward<BFloat16, 0, true>>(args, begin, end);
      LITE_DETR_CALL_HALF(BFloat16, forward, args, begin, end);
    default:
      if (args.key != nullptr) return run<Forward<float, 0, true>>(args, begin, end);
      LITE_DETR_CALL_FLOAT(forward, args, begin, end);
  }
}

#if !defined(LITE_DETR_FORWARD_ONLY)
template <typename T>
using QuerySeparateKey = BackwardQuery<T, 0, Form::kSeparateKey>;
template <typename T>
using ValueSeparateKey = BackwardValue<T, 0, Form::kSeparateKey>;

static void backward_query(const Arguments& args, int64_t chunk_begin, int64_t begin, int64_t end) {
#if LITE_DETR_DOUBLE
  if (args.type == ScalarType::kDouble) {
    if (args.key != nullptr) return run<QuerySeparateKey<double>>(args, chunk_begin, begin, end);
    return Passes<double, 0>::backward_query(args, chunk_begin, begin, end);
  }
#endif
  if (args.key != nullptr) return run<QuerySeparateKey<float>>(args, chunk_begin, begin, end);
  LITE_DETR_CALL_FLOAT(backward_query, args, chunk_begin, begin, end);
}

static void backward_value(const Arguments& args, int64_t chunk_begin, int64_t chunk_end, int64_t image,
                           int64_t head_begin, int64_t head_end, int64_t level_begin, int64_t level_end) {
#if LITE_DETR_DOUBLE
  if (args.type == ScalarType::kDouble) {
    if (args.key != nullptr) {
      return run<ValueSeparateKey<double>>(args, chunk_begin, chunk_end, image, head_begin, head_end, level_begin,
                                           level_end);
    }
    return Passes<double, 0>::backward_value(args, chunk_begin, chunk_end, image, head_begin, head_end, level_begin,
                                             level_end);
  }
#endif
  if (args.key != nullptr) {
    return run<ValueSeparateKey<float>>(args, chunk_begin, chunk_end, image, head_begin, head_end, level_begin,
                                        level_end);
  }
  LITE_DETR_CALL_FLOAT(backward_value, args, chunk_begin, chunk_end, image, head_begin, head_end, level_begin,
                       level_end);
}
#endif

static const Kernels& kernels(const char* name) {
#if defined(LITE_DETR_FORWARD_ONLY)
  static const Kernels table{name, forward, nullptr, nullptr};
#else
  static const Kernels table{name, forward, backward_query, backward_value};
#endif
  return table;
}

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
