// Forward pass of deformable attention.
#include "choose_kernel.cuh"

extern "C" cudaError_t lite_detr_deform_attn_forward(const lite_detr::cuda::DeformAttnForward* arguments,
                                                     cudaStream_t stream) {
  using namespace lite_detr::cuda;
  const DeformAttnInputs& inputs = arguments->inputs;
  if (inputs.batch_size == 0 || inputs.num_queries == 0) return cudaSuccess;
  const Forward pass{*arguments, stream};
  return with_dtype(inputs.dtype, [&](auto zero) { return launch_kernel<decltype(zero)>(pass); });
}
