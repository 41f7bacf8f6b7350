// Backward pass of key-aware deformable attention: recomputes the samples from the inputs and logsumexp.
#include "backward_fast.cuh"
#include "backward_generic.cuh"
#include "backward_sums.cuh"

namespace lite_detr {
namespace cuda {
namespace {

template <typename T, int kHeadDim>
cudaError_t launch_fast_or_generic(const KeyAwareDeformAttnBackward& arguments, cudaStream_t stream) {
  const int threads = backward_fast_threads<T, kHeadDim>(arguments.inputs);
  if (threads == 0) return launch_backward_generic<T>(arguments, stream);
  return arguments.inputs.key == nullptr ? launch_backward_fast<T, kHeadDim, false>(arguments, threads, stream)
                                         : launch_backward_fast<T, kHeadDim, true>(arguments, threads, stream);
}

template <typename T>
cudaError_t launch_by_head_dim(const KeyAwareDeformAttnBackward& arguments, cudaStream_t stream) {
  switch (arguments.inputs.head_dim) {
    case 16:
      return launch_fast_or_generic<T, 16>(arguments, stream);
    case 32:
      return launch_fast_or_generic<T, 32>(arguments, stream);
    case 64:
      return launch_fast_or_generic<T, 64>(arguments, stream);
    default:
      return launch_backward_generic<T>(arguments, stream);
  }
}

// double is for checking gradients and has no fast kernels.
template <>
cudaError_t launch_by_head_dim<double>(const KeyAwareDeformAttnBackward& arguments, cudaStream_t stream) {
  return launch_backward_generic<double>(arguments, stream);
}

template <typename T>
cudaError_t launch(const KeyAwareDeformAttnBackward& arguments, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  if (arguments.deterministic) error = launch_largest_values<T>(arguments, stream);
  if (error == cudaSuccess) error = launch_by_head_dim<T>(arguments, stream);
  if (error == cudaSuccess) error = launch_sum_heads<Accumulator<T>>(arguments, stream);
  if (error == cudaSuccess && arguments.deterministic) error = launch_from_fixed<T>(arguments, stream);
  return error;
}

}  // namespace
}  // namespace cuda
}  // namespace lite_detr

extern "C" cudaError_t lite_detr_key_aware_deform_attn_backward(
    const lite_detr::cuda::KeyAwareDeformAttnBackward* arguments, cudaStream_t stream) {
  using namespace lite_detr::cuda;
  const KeyAwareDeformAttnInputs& inputs = arguments->inputs;
  if (inputs.batch_size == 0 || inputs.num_queries == 0) return cudaSuccess;
  switch (inputs.dtype) {
    case DataType::kFloat64:
      return launch<double>(*arguments, stream);
    case DataType::kFloat32:
      return launch<float>(*arguments, stream);
    case DataType::kFloat16:
      return launch<__half>(*arguments, stream);
    case DataType::kBFloat16:
      return launch<__nv_bfloat16>(*arguments, stream);
  }
  return cudaErrorInvalidValue;
}
