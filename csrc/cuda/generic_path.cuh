// What the generic kernels share: a warp owns one head of one query, lane i the channels i, i + 32, ...
#pragma once

#include "fast_path.cuh"

namespace lite_detr {
namespace cuda {

constexpr int kGenericThreads = 128;
constexpr int kGenericChannels = 8;                   // channels a lane keeps in registers
constexpr int kGenericBlock = 32 * kGenericChannels;  // channels a warp keeps in registers

// Blocks that the 64 Ki registers of a multiprocessor should hold: 128 a thread, 255 for double.
template <typename T>
constexpr int kGenericMinBlocks = sizeof(T) == 8 ? 2 : 4;

__host__ __forceinline__ int64_t count_generic_blocks(const KeyAwareDeformAttnInputs& inputs) {
  return divide_up(inputs.batch_size * inputs.num_queries * inputs.num_heads, kGenericThreads / 32);
}

template <typename T>
struct GenericHead {
  using A = Accumulator<T>;
  int64_t pair, row;  // (batch, query, head) and (batch, query)
  bool exists;
  int64_t first_query_channel, first_token_channel;  // channel 0 of the head in query-like and value-like tensors
  int64_t token_stride;
  const T* value;
  const T* key;

  __device__ __forceinline__ explicit GenericHead(const KeyAwareDeformAttnInputs& inputs) {
    pair = static_cast<int64_t>(blockIdx.x) * (kGenericThreads / 32) + threadIdx.x / 32;
    row = pair / inputs.num_heads;
    exists = row < inputs.batch_size * inputs.num_queries;
    first_query_channel = pair * inputs.head_dim;
    token_stride = static_cast<int64_t>(inputs.num_heads) * inputs.head_dim;
    first_token_channel =
        row / inputs.num_queries * inputs.num_value * token_stride + (pair - row * inputs.num_heads) * inputs.head_dim;
    if (!exists) return;
    value = static_cast<const T*>(inputs.value) + first_token_channel;
    key = inputs.key == nullptr ? value : static_cast<const T*>(inputs.key) + first_token_channel;
  }

  __device__ __forceinline__ A corner_channel(const T* channels, int token, int channel) const {
    return token < 0 ? A(0) : convert_to<A>(channels[token * token_stride + channel]);
  }

  __device__ __forceinline__ A sample_channel(const T* channels, const Sample<A>& sample, int channel) const {
    A sum = A(0);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      sum += sample.weights.weight[c] * corner_channel(channels, sample.corners.token[c], channel);
    }
    return sum;
  }
};

}  // namespace cuda
}  // namespace lite_detr
