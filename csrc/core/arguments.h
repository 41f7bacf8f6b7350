// The tensors of a call as plain views: what the checks, the CPU kernels and every runtime that uses them share.
// Nothing below csrc/core and csrc/cpu but operators_cpu.cpp knows torch.
#pragma once

#include <cstdint>

namespace lite_detr {

enum class ScalarType { kDouble, kFloat, kHalf, kBFloat16, kLong, kInt, kOther };

inline bool is_float(ScalarType type) { return static_cast<int>(type) <= static_cast<int>(ScalarType::kBFloat16); }

inline int64_t size_of(ScalarType type) {
  switch (type) {
    case ScalarType::kDouble:
    case ScalarType::kLong:
      return 8;
    case ScalarType::kHalf:
    case ScalarType::kBFloat16:
      return 2;
    default:
      return 4;
  }
}

// A tensor that somebody else owns. `sizes` and `strides` (in elements) hold `ndim` numbers; no strides: contiguous.
struct TensorView {
  const void* data = nullptr;
  ScalarType type = ScalarType::kOther;
  int64_t ndim = 0;
  const int64_t* sizes = nullptr;
  const int64_t* strides = nullptr;
  const char* type_name = nullptr;  // for messages about a type that is none of ScalarType's

  int64_t size(int64_t dim) const { return sizes[dim]; }
  int64_t stride(int64_t dim) const {
    if (strides != nullptr) return strides[dim];
    int64_t stride = 1;
    for (int64_t d = ndim - 1; d > dim; --d) stride *= sizes[d];
    return stride;
  }
};

// Inputs of the two operators:
//   key-aware deformable attention has a query, and a key unless the key is the value;
//   multi-scale deformable attention has attention_weights instead.
struct Inputs {
  const TensorView* query = nullptr;              // (bs, num_queries, num_heads, head_dim)
  TensorView value;                               // (bs, num_value, num_heads, head_dim)
  TensorView spatial_shapes;                      // (num_levels, 2) of (height, width)
  TensorView level_start_index;                   // (num_levels, )
  TensorView reference_points;                    // (bs, num_queries, num_levels, 2 or 4)
  TensorView sampling_offsets;                    // (bs, num_queries, num_heads, num_levels or 1, num_points, 2)
  const TensorView* key = nullptr;                // like value
  const TensorView* attention_weights = nullptr;  // (bs, num_queries, num_heads, num_levels, num_points)
};

// A map of height x width tokens that starts at token `start`.
struct Level {
  int64_t start;
  int64_t height;
  int64_t width;
};

}  // namespace lite_detr
