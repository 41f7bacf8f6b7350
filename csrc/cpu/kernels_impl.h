// Entry points of the CPU kernels for one instruction set. A file that includes this defines LITE_DETR_ISA (a
// namespace), LITE_DETR_TARGET (function attribute) and LITE_DETR_VECTOR_BYTES.
#pragma once

#include "backward.h"
#include "forward.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

// The instance of Function<T, HeadDim, SeparateKey> for the arguments. Each instance costs seconds of compilation, so
// only what models use has one of its own: all released models share key and value.
#define LITE_DETR_DISPATCH_HEAD_DIM(Function, T, ...)                                         \
  if (args.key != nullptr) {                                                                  \
    return (args.head_dim == 32 ? Function<T, 32, true> : Function<T, 0, true>)(__VA_ARGS__); \
  }                                                                                           \
  switch (args.head_dim) {                                                                    \
    case 16:                                                                                  \
      return Function<T, 16, false>(__VA_ARGS__);                                             \
    case 32:                                                                                  \
      return Function<T, 32, false>(__VA_ARGS__);                                             \
    case 64:                                                                                  \
      return Function<T, 64, false>(__VA_ARGS__);                                             \
    default:                                                                                  \
      return Function<T, 0, false>(__VA_ARGS__);                                              \
  }

#define LITE_DETR_DISPATCH_ANY(Function, T, ...) \
  return (args.key != nullptr ? Function<T, 0, true> : Function<T, 0, false>)(__VA_ARGS__);

#if LITE_DETR_VECTOR_BYTES == 16 && defined(__x86_64__)  // processors from before 2013
#define LITE_DETR_DISPATCH_FLOAT LITE_DETR_DISPATCH_ANY
#define LITE_DETR_DISPATCH_HALF LITE_DETR_DISPATCH_ANY
#elif LITE_DETR_VECTOR_BYTES == 16  // float16 is bound by its conversion
#define LITE_DETR_DISPATCH_FLOAT LITE_DETR_DISPATCH_HEAD_DIM
#define LITE_DETR_DISPATCH_HALF LITE_DETR_DISPATCH_ANY
#else
#define LITE_DETR_DISPATCH_FLOAT LITE_DETR_DISPATCH_HEAD_DIM
#define LITE_DETR_DISPATCH_HALF LITE_DETR_DISPATCH_HEAD_DIM
#endif

#define LITE_DETR_DISPATCH(Function, ...)                       \
  switch (args.type) {                                          \
    case ScalarType::kDouble:                                   \
      LITE_DETR_DISPATCH_ANY(Function, double, __VA_ARGS__)     \
    case ScalarType::kFloat:                                    \
      LITE_DETR_DISPATCH_FLOAT(Function, float, __VA_ARGS__)    \
    case ScalarType::kHalf:                                     \
      LITE_DETR_DISPATCH_HALF(Function, Half, __VA_ARGS__)      \
    case ScalarType::kBFloat16:                                 \
      LITE_DETR_DISPATCH_FLOAT(Function, BFloat16, __VA_ARGS__) \
  }

static void forward(const Arguments& args, int64_t tile_begin, int64_t tile_end) {
  LITE_DETR_DISPATCH(forward_tiles, args, tile_begin, tile_end)
}

static void backward_query(const Arguments& args, int64_t chunk_begin, int64_t tile_begin, int64_t tile_end) {
  LITE_DETR_DISPATCH(backward_query_tiles, args, chunk_begin, tile_begin, tile_end)
}

static void backward_value(const Arguments& args, int64_t chunk_begin, int64_t chunk_end, int64_t image,
                           int64_t head_begin, int64_t head_end, int64_t level_begin, int64_t level_end) {
  LITE_DETR_DISPATCH(backward_value_heads, args, chunk_begin, chunk_end, image, head_begin, head_end, level_begin,
                     level_end)
}

static const Kernels& kernels(const char* name) {
  static const Kernels table{name, forward, backward_query, backward_value};
  return table;
}

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
