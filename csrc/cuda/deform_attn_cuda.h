// Interface between the CUDA kernels of deformable attention (plain pointers, no ATen) and whoever allocates the
// tensors. Key-aware attention computes its weights from query and key; ordinary attention is given them.
//
// All tensors are in device memory and 16-byte aligned; contiguous but for value, key and their gradients. The
// launchers enqueue on `stream`, never synchronise and return the launch error; sizes of zero launch nothing.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lite_detr {
namespace cuda {

enum class DataType : int { kFloat64, kFloat32, kFloat16, kBFloat16 };

// Where the weights of the samples come from: the query compared with the sampled values (the key is the value), with
// a key that is sampled beside them, or attention_weights.
enum class Attention : int { kSharedKey, kSeparateKey, kGivenWeights };

// Levels whose shapes are known in host memory travel inside the kernel arguments: nothing is copied, and a captured
// graph keeps them.
constexpr int kMaxHostLevels = 64;
// The table of levels lies in shared memory, 16 bytes a level.
constexpr int kMaxLevels = 1024;
// Token indices and the index of the token below and to the right of any token fit in an int.
constexpr int64_t kMaxTokens = int64_t{1} << 30;

// A map of height x width tokens that starts at token `start`; empty when height == width == 0.
struct alignas(16) Level {
  int start, height, width;
};

// A level that does not lie inside the num_value tokens becomes empty, so that shapes in device memory, which nobody
// checks because that would synchronise, cannot send a kernel outside value. num_value < kMaxTokens.
__host__ __device__ __forceinline__ Level make_level(int64_t start, int64_t height, int64_t width, int64_t num_value) {
  const bool fits = height > 0 && width > 0 && height <= num_value && width <= num_value &&
                    height * width <= num_value && start >= 0 && start <= num_value - height * width;
  if (!fits) return {0, 0, 0};
  return {static_cast<int>(start), static_cast<int>(height), static_cast<int>(width)};
}

// Elements from one index to the next in value, key and their gradients; channels are contiguous.
struct ValueStrides {
  int64_t batch, token, head;
};

// What forward and backward read. Sizes in elements; bs = batch size.
struct DeformAttnInputs {
  const void* query;              // (bs, num_queries, num_heads, head_dim), dtype; null with given weights
  const void* value;              // (bs, num_value, num_heads, head_dim), dtype, value_strides
  const void* key;                // like value; only with a separate key
  const void* attention_weights;  // (bs, num_queries, num_heads, num_levels, num_points), weight_dtype; only if given
  const void* reference_points;   // (bs, num_queries, num_levels, reference_dim), reference_dtype
  const void* sampling_offsets;   // (bs, num_queries, num_heads, offset_levels, num_points, 2), offset_dtype

  const void* spatial_shapes;     // (num_levels, 2) of (height, width); null: host_levels holds them
  const void* level_start_index;  // (num_levels)
  bool spatial_shapes_int32;      // else int64
  bool level_start_index_int32;
  Level host_levels[kMaxHostLevels];

  int64_t batch_size, num_queries, num_value;  // num_queries and num_value < kMaxTokens
  ValueStrides value_strides;
  int num_heads, head_dim, num_levels, num_points;
  int reference_dim;  // 2: points, 4: boxes
  int offset_levels;  // num_levels, or 1: the levels share the offsets
  Attention attention;
  DataType dtype, reference_dtype, offset_dtype, weight_dtype;
};

struct DeformAttnForward {
  DeformAttnInputs inputs;
  void* output;     // (bs, num_queries, num_heads * head_dim), dtype
  void* logsumexp;  // (bs, num_queries, num_heads), float (double for double); null with given weights
};

// "accumulator" is float, or double for double.
struct DeformAttnBackward {
  DeformAttnInputs inputs;
  const void* grad_output;  // (bs, num_queries, num_heads * head_dim), dtype
  const void* logsumexp;    // of the forward pass; null with given weights
  void* grad_query;         // like query, dtype; null with given weights
  // Sums of the scatter, filled with zeros by the caller: accumulator without `deterministic`, int64 with it.
  void* grad_value_sum;          // like value, value_strides
  void* grad_key_sum;            // like value; only with a separate key
  void* grad_attention_weights;  // like attention_weights, weight_dtype; only with given weights
  void* grad_sampling_offsets;   // like sampling_offsets, offset_dtype
  void* grad_reference_points;   // like reference_points, reference_dtype; null: not wanted
  // Workspace (bs, num_queries, num_heads, num_levels, reference_dim), accumulator; null with grad_reference_points.
  void* grad_reference_per_head;
  // With `deterministic` the scatter adds integers (fixed point), whose sum does not depend on the order.
  bool deterministic;
  void* grad_value;       // like value, dtype, value_strides; written from grad_value_sum; only with `deterministic`
  void* grad_key;         // like grad_value; only with a separate key
  double* largest_norms;  // kNumNorms * bs * num_heads zeros; workspace; only with `deterministic`
};
// Largest 2-norm of a row of grad_output, query or attention_weights, value, key.
constexpr int kNumNorms = 4;

}  // namespace cuda
}  // namespace lite_detr

extern "C" {
cudaError_t lite_detr_deform_attn_forward(const lite_detr::cuda::DeformAttnForward* arguments, cudaStream_t stream);
cudaError_t lite_detr_deform_attn_backward(const lite_detr::cuda::DeformAttnBackward* arguments, cudaStream_t stream);
}
