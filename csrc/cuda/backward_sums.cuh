// Small kernels around the backward kernel: the sum over heads, and what fixed-point sums need before and after.
#pragma once

#include "fast_path.cuh"
#include "scatter.cuh"

namespace lite_detr {
namespace cuda {

constexpr int kSumThreads = 256;
constexpr int64_t kMaxSumBlocks = 4096;  // the kernels below walk on from there

__host__ __forceinline__ int64_t count_sum_blocks(int64_t size) {
  const int64_t blocks = divide_up(size, kSumThreads);
  return blocks < kMaxSumBlocks ? blocks : kMaxSumBlocks;
}

__device__ __forceinline__ int64_t first_element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t element_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// grad_reference_points from the sums of each head, in the order of the heads.
template <typename A>
__global__ void __launch_bounds__(kSumThreads) sum_heads_kernel(const KeyAwareDeformAttnBackward arguments) {
  const KeyAwareDeformAttnInputs& inputs = arguments.inputs;
  const int64_t references = static_cast<int64_t>(inputs.num_levels) * inputs.reference_dim;
  const int64_t size = inputs.batch_size * inputs.num_queries * references;
  for (int64_t i = first_element(); i < size; i += element_step()) {
    const int64_t row = i / references;
    const A* per_head = static_cast<const A*>(arguments.grad_reference_per_head) +
                        row * inputs.num_heads * references + (i - row * references);
    A sum = A(0);
    for (int head = 0; head < inputs.num_heads; ++head) sum += per_head[head * references];
    store_as(arguments.grad_reference_points, inputs.reference_dtype, i, sum);
  }
}

// Bits of the largest magnitude of a tensor; those of infinity and NaN are larger than those of any number.
template <typename T>
__global__ void __launch_bounds__(kSumThreads)
    largest_value_kernel(const T* tensor, int64_t size, unsigned long long* largest) {
  using A = Accumulator<T>;
  unsigned long long bits = 0;
  for (int64_t i = first_element(); i < size; i += element_step()) {
    const unsigned long long other = magnitude_bits(convert_to<A>(tensor[i]));
    bits = other > bits ? other : bits;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const unsigned long long other = __shfl_xor_sync(kAllLanes, bits, offset);
    bits = other > bits ? other : bits;
  }
  if (threadIdx.x % 32 == 0) atomicMax(largest, bits);
}

template <typename T>
__global__ void __launch_bounds__(kSumThreads)
    from_fixed_kernel(const KeyAwareDeformAttnBackward arguments, const long long* sum, T* out, int64_t size) {
  using A = Accumulator<T>;
  const int exponent = exponent_of_scatter<A>(arguments);
  const double scale = exponent == kNotFinite ? NAN : ldexp(1.0, -exponent);
  for (int64_t i = first_element(); i < size; i += element_step()) {
    out[i] = convert_to<T>(static_cast<A>(static_cast<double>(sum[i]) * scale));
  }
}

template <typename T>
cudaError_t launch_largest_values(const KeyAwareDeformAttnBackward& arguments, cudaStream_t stream) {
  const KeyAwareDeformAttnInputs& inputs = arguments.inputs;
  const int64_t queries = inputs.batch_size * inputs.num_queries * inputs.num_heads * inputs.head_dim;
  const int64_t values = inputs.batch_size * inputs.num_value * inputs.num_heads * inputs.head_dim;
  const void* tensors[4] = {arguments.grad_output, inputs.query, inputs.value, inputs.key};
  const int64_t sizes[4] = {queries, queries, values, inputs.key == nullptr ? 0 : values};
  for (int i = 0; i < 4; ++i) {
    if (sizes[i] == 0) continue;
    LITE_DETR_LAUNCH((largest_value_kernel<T>), count_sum_blocks(sizes[i]), kSumThreads, 0, stream,
                     static_cast<const T*>(tensors[i]), sizes[i], arguments.largest_values + i);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

template <typename T>
cudaError_t launch_from_fixed(const KeyAwareDeformAttnBackward& arguments, cudaStream_t stream) {
  const KeyAwareDeformAttnInputs& inputs = arguments.inputs;
  const int64_t size = inputs.batch_size * inputs.num_value * inputs.num_heads * inputs.head_dim;
  if (size == 0) return cudaSuccess;
  LITE_DETR_LAUNCH((from_fixed_kernel<T>), count_sum_blocks(size), kSumThreads, 0, stream, arguments,
                   static_cast<const long long*>(arguments.grad_value_sum), static_cast<T*>(arguments.grad_value),
                   size);
  cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess || inputs.key == nullptr) return error;
  LITE_DETR_LAUNCH((from_fixed_kernel<T>), count_sum_blocks(size), kSumThreads, 0, stream, arguments,
                   static_cast<const long long*>(arguments.grad_key_sum), static_cast<T*>(arguments.grad_key), size);
  return cudaGetLastError();
}

template <typename A>
cudaError_t launch_sum_heads(const KeyAwareDeformAttnBackward& arguments, cudaStream_t stream) {
  const KeyAwareDeformAttnInputs& inputs = arguments.inputs;
  const int64_t size = inputs.batch_size * inputs.num_queries * inputs.num_levels * inputs.reference_dim;
  LITE_DETR_LAUNCH((sum_heads_kernel<A>), count_sum_blocks(size), kSumThreads, 0, stream, arguments);
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace lite_detr
