// Backward pass of deformable attention: recomputes the samples from the inputs and logsumexp.
#include "choose_kernel.cuh"
#include "reductions.cuh"

namespace lite_detr {
namespace cuda {
namespace {

template <typename T>
cudaError_t launch(const DeformAttnBackward& arguments, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  if (arguments.deterministic) error = launch_largest_norms(arguments, stream);
  if (error == cudaSuccess) error = launch_kernel<T>(Backward{arguments, stream});
  if (error == cudaSuccess && arguments.grad_reference_points != nullptr) {
    error = launch_sum_heads<Accumulator<T>>(arguments, stream);
  }
  if (error == cudaSuccess && arguments.deterministic) error = launch_from_fixed<T>(arguments, stream);
  return error;
}

}  // namespace
}  // namespace cuda
}  // namespace lite_detr

extern "C" cudaError_t lite_detr_deform_attn_backward(const lite_detr::cuda::DeformAttnBackward* arguments,
                                                      cudaStream_t stream) {
  using namespace lite_detr::cuda;
  const DeformAttnInputs& inputs = arguments->inputs;
  if (inputs.batch_size == 0 || inputs.num_queries == 0) return cudaSuccess;
  return with_dtype(inputs.dtype, [&](auto zero) { return launch<decltype(zero)>(*arguments, stream); });
}
