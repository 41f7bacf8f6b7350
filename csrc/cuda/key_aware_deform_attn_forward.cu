// Forward pass of key-aware deformable attention.
#include "forward_fast.cuh"
#include "forward_generic.cuh"

namespace lite_detr {
namespace cuda {
namespace {

// float, __half and __nv_bfloat16; double is for checking gradients and takes the generic kernel.
template <typename T>
cudaError_t launch_fast_or_generic(const KeyAwareDeformAttnForward& arguments, cudaStream_t stream) {
  switch (arguments.inputs.head_dim) {
    case 16:
      return launch_forward_fast<T, 16>(arguments, stream);
    case 32:
      return launch_forward_fast<T, 32>(arguments, stream);
    case 64:
      return launch_forward_fast<T, 64>(arguments, stream);
    default:
      return launch_forward_generic<T>(arguments, stream);
  }
}

}  // namespace
}  // namespace cuda
}  // namespace lite_detr

extern "C" cudaError_t lite_detr_key_aware_deform_attn_forward(
    const lite_detr::cuda::KeyAwareDeformAttnForward* arguments, cudaStream_t stream) {
  using namespace lite_detr::cuda;
  const KeyAwareDeformAttnInputs& inputs = arguments->inputs;
  if (inputs.batch_size == 0 || inputs.num_queries == 0) return cudaSuccess;
  switch (inputs.dtype) {
    case DataType::kFloat64:
      return launch_forward_generic<double>(*arguments, stream);
    case DataType::kFloat32:
      return launch_fast_or_generic<float>(*arguments, stream);
    case DataType::kFloat16:
      return launch_fast_or_generic<__half>(*arguments, stream);
    case DataType::kBFloat16:
      return launch_fast_or_generic<__nv_bfloat16>(*arguments, stream);
  }
  return cudaErrorInvalidValue;
}
