// Interface between the CUDA kernels (plain pointers, no ATen) and whoever allocates the tensors.
//
// All tensors are contiguous, in device memory and 16-byte aligned. The launchers enqueue on `stream`, never
// synchronise and return the launch error; sizes of zero launch nothing.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lite_detr {
namespace cuda {

enum class DataType : int { kFloat64, kFloat32, kFloat16, kBFloat16 };

// Levels whose shapes are known in host memory travel inside the kernel arguments: nothing is copied, and a captured
// graph keeps them.
constexpr int kMaxHostLevels = 16;
// The table of levels lies in shared memory, 16 bytes a level.
constexpr int kMaxLevels = 1024;
// Token indices and the index of the token below and to the right of any token fit in an int.
constexpr int64_t kMaxTokens = int64_t{1} << 30;

struct HostLevel {
  int64_t start, height, width;
};

// What forward and backward read. Sizes in elements; bs = batch size.
struct KeyAwareDeformAttnInputs {
  const void* query;             // (bs, num_queries, num_heads, head_dim), dtype
  const void* value;             // (bs, num_value, num_heads, head_dim), dtype
  const void* key;               // like value; null: the key is the value
  const void* reference_points;  // (bs, num_queries, num_levels, reference_dim), reference_dtype
  const void* sampling_offsets;  // (bs, num_queries, num_heads, offset_levels, num_points, 2), offset_dtype

  const void* spatial_shapes;     // (num_levels, 2) of (height, width); null: host_levels holds them
  const void* level_start_index;  // (num_levels)
  bool spatial_shapes_int32;      // else int64
  bool level_start_index_int32;
  HostLevel host_levels[kMaxHostLevels];

  int64_t batch_size, num_queries, num_value;  // num_queries and num_value < kMaxTokens
  int num_heads, head_dim, num_levels, num_points;
  int reference_dim;  // 2: points, 4: boxes
  int offset_levels;  // num_levels, or 1: the levels share the offsets
  DataType dtype, reference_dtype, offset_dtype;
};

struct KeyAwareDeformAttnForward {
  KeyAwareDeformAttnInputs inputs;
  void* output;     // (bs, num_queries, num_heads * head_dim), dtype
  void* logsumexp;  // (bs, num_queries, num_heads), float (double for double)
};

// "accumulator" is float, or double for double.
struct KeyAwareDeformAttnBackward {
  KeyAwareDeformAttnInputs inputs;
  const void* grad_output;  // (bs, num_queries, num_heads * head_dim), dtype
  const void* logsumexp;    // of the forward pass
  void* grad_query;         // like query, dtype
  // Sums of the scatter, filled with zeros by the caller: accumulator without `deterministic`, int64 with it.
  void* grad_value_sum;           // (bs, num_value, num_heads, head_dim)
  void* grad_key_sum;             // like grad_value_sum; null if key is null
  void* grad_sampling_offsets;    // like sampling_offsets, offset_dtype
  void* grad_reference_points;    // like reference_points, reference_dtype
  void* grad_reference_per_head;  // workspace (bs, num_queries, num_heads, num_levels, reference_dim), accumulator
  // With `deterministic` the scatter adds integers (fixed point), whose sum does not depend on the order.
  bool deterministic;
  void* grad_value;                    // like value, dtype; written from grad_value_sum; only with `deterministic`
  void* grad_key;                      // like key
  unsigned long long* largest_values;  // 4 zeros; workspace; only with `deterministic`
};

}  // namespace cuda
}  // namespace lite_detr

extern "C" {
cudaError_t lite_detr_key_aware_deform_attn_forward(const lite_detr::cuda::KeyAwareDeformAttnForward* arguments,
                                                    cudaStream_t stream);
cudaError_t lite_detr_key_aware_deform_attn_backward(const lite_detr::cuda::KeyAwareDeformAttnBackward* arguments,
                                                     cudaStream_t stream);
}
