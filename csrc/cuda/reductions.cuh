// Small kernels around the backward kernel: the sum over heads, and what fixed-point sums need before and after.
#pragma once

#include "scatter.cuh"
#include "warp.cuh"

namespace lite_detr {
namespace cuda {

constexpr int kReductionThreads = 256;
constexpr int64_t kMaxReductionBlocks = 4096;  // the kernels below walk on from there

__host__ __forceinline__ int64_t count_reduction_blocks(int64_t size) {
  const int64_t blocks = divide_up(size, kReductionThreads);
  return blocks < kMaxReductionBlocks ? blocks : kMaxReductionBlocks;
}

__device__ __forceinline__ int64_t first_element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t element_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// grad_reference_points from the sums of each head, in the order of the heads.
template <typename A>
__global__ void __launch_bounds__(kReductionThreads) sum_heads_kernel(const DeformAttnBackward arguments) {
  const DeformAttnInputs& inputs = arguments.inputs;
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

// A tensor of rows of `size` contiguous elements, num_rows of them for each head of each image.
struct Rows {
  const void* first;
  DataType dtype;
  int64_t num_rows;
  int size;
  ValueStrides strides;  // from one image, row and head to the next
};

// largest[(batch, head)]: largest 2-norm of its rows; that of a row with infinity or NaN is larger than any number. A
// block takes every slices-th group of rows of one head.
static __global__ void __launch_bounds__(kReductionThreads)
    largest_norm_kernel(const Rows rows, int num_heads, int slices, double* largest) {
  constexpr int kWarps = kReductionThreads / 32;
  const int64_t batch_head = blockIdx.x / slices;
  const int64_t batch = batch_head / num_heads, head = batch_head - batch * num_heads;
  const int bytes = bytes_of(rows.dtype);
  unsigned long long bits = 0;
  for (int64_t row = blockIdx.x % slices * kWarps + threadIdx.x / 32; row < rows.num_rows; row += slices * kWarps) {
    const char* first = static_cast<const char*>(rows.first) +
                        (batch * rows.strides.batch + row * rows.strides.token + head * rows.strides.head) * bytes;
    double sum = 0.0;
    for (int i = threadIdx.x % 32; i < rows.size; i += 32) {
      const double x = load_as<double>(first + static_cast<int64_t>(i) * bytes, rows.dtype);
      sum += x * x;
    }
    const unsigned long long other = static_cast<unsigned long long>(__double_as_longlong(sqrt(group_sum<32>(sum))));
    bits = other > bits ? other : bits;
  }
  if (threadIdx.x % 32 == 0) atomicMax(reinterpret_cast<unsigned long long*>(largest) + batch_head, bits);
}

template <typename T>
__global__ void __launch_bounds__(kReductionThreads)
    from_fixed_kernel(const DeformAttnBackward arguments, const long long* sum, T* out) {
  using A = Accumulator<T>;
  const DeformAttnInputs& inputs = arguments.inputs;
  const int64_t size = inputs.batch_size * inputs.num_value * inputs.num_heads * inputs.head_dim;
  for (int64_t i = first_element(); i < size; i += element_step()) {
    const int64_t row = i / inputs.head_dim, token = row / inputs.num_heads, batch = token / inputs.num_value;
    const int head = static_cast<int>(row - token * inputs.num_heads);
    const int exponent = exponent_of_scatter<A>(arguments, batch, head);
    const double scale = exponent == kNotFinite ? NAN : ldexp(1.0, -exponent);
    const ValueStrides& strides = inputs.value_strides;
    const int64_t index = batch * strides.batch + (token - batch * inputs.num_value) * strides.token +
                          head * strides.head + (i - row * inputs.head_dim);
    out[index] = convert_to<T>(static_cast<A>(static_cast<double>(sum[index]) * scale));
  }
}

inline cudaError_t launch_largest_norms(const DeformAttnBackward& arguments, cudaStream_t stream) {
  const DeformAttnInputs& inputs = arguments.inputs;
  const int64_t heads = inputs.batch_size * inputs.num_heads;
  const int64_t head_dim = inputs.head_dim, row = head_dim * inputs.num_heads;
  const ValueStrides of_query = {inputs.num_queries * row, row, head_dim};
  const int samples = inputs.num_levels * inputs.num_points;
  const int64_t weights = static_cast<int64_t>(samples) * inputs.num_heads;
  const Rows query = {inputs.query, inputs.dtype, inputs.num_queries, inputs.head_dim, of_query};
  const Rows given = {inputs.attention_weights,
                      inputs.weight_dtype,
                      inputs.num_queries,
                      samples,
                      {inputs.num_queries * weights, weights, samples}};
  const Rows tensors[kNumNorms] = {
      {arguments.grad_output, inputs.dtype, inputs.num_queries, inputs.head_dim, of_query},
      inputs.attention == Attention::kGivenWeights ? given : query,
      {inputs.value, inputs.dtype, inputs.num_value, inputs.head_dim, inputs.value_strides},
      {inputs.key, inputs.dtype, inputs.attention == Attention::kSeparateKey ? inputs.num_value : 0, inputs.head_dim,
       inputs.value_strides}};
  for (int i = 0; i < kNumNorms; ++i) {
    if (tensors[i].num_rows == 0) continue;
    const int64_t wanted = divide_up(tensors[i].num_rows, kReductionThreads / 32 * 16);
    const int slices = static_cast<int>(wanted < 32 ? wanted : 32);
    if (heads * slices > kMaxBlocks) return cudaErrorInvalidConfiguration;
    LITE_DETR_LAUNCH((largest_norm_kernel), heads * slices, kReductionThreads, 0, stream, tensors[i], inputs.num_heads,
                     slices, arguments.largest_norms + i * heads);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

template <typename T>
cudaError_t launch_from_fixed(const DeformAttnBackward& arguments, cudaStream_t stream) {
  const DeformAttnInputs& inputs = arguments.inputs;
  const int64_t size = inputs.batch_size * inputs.num_value * inputs.num_heads * inputs.head_dim;
  if (size == 0) return cudaSuccess;
  LITE_DETR_LAUNCH((from_fixed_kernel<T>), count_reduction_blocks(size), kReductionThreads, 0, stream, arguments,
                   static_cast<const long long*>(arguments.grad_value_sum), static_cast<T*>(arguments.grad_value));
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess || inputs.attention != Attention::kSeparateKey) return error;
  LITE_DETR_LAUNCH((from_fixed_kernel<T>), count_reduction_blocks(size), kReductionThreads, 0, stream, arguments,
                   static_cast<const long long*>(arguments.grad_key_sum), static_cast<T*>(arguments.grad_key));
  return cudaGetLastError();
}

template <typename A>
cudaError_t launch_sum_heads(const DeformAttnBackward& arguments, cudaStream_t stream) {
  const DeformAttnInputs& inputs = arguments.inputs;
  const int64_t size = inputs.batch_size * inputs.num_queries * inputs.num_levels * inputs.reference_dim;
  LITE_DETR_LAUNCH((sum_heads_kernel<A>), count_reduction_blocks(size), kReductionThreads, 0, stream, arguments);
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace lite_detr
