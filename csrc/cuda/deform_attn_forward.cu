// Forward pass of deformable attention.
#include "choose_kernel.cuh"

extern "C" cudaError_t lite_detr_deform_attn_forward(const lite_detr::cuda::DeformAttnForward* arguments,
                                                     cudaStream_t stream) {
  using namespace lite_detr::cuda;
  const DeformAttnInputs& inputs = arguments->inputs;
  if (inputs.batch_size == 0 || inputs.num_queries == 0) return cudaSuccess;
  const Forward pass{*arguments, stream};
  switch (inputs.dtype) {
    case DataType::kFloat64:
      return launch_kernel<double>(inputs, pass);
    case DataType::kFloat32:
      return launch_kernel<float>(inputs, pass);
    case DataType::kFloat16:
      return launch_kernel<__half>(inputs, pass);
    case DataType::kBFloat16:
      return launch_kernel<__nv_bfloat16>(inputs, pass);
  }
  return cudaErrorInvalidValue;
}
