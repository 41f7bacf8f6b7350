// CUDA implementation of the operators: checks, allocation and the launch on the current stream of query's device.
//
// Nothing here waits for the GPU: shapes in host memory travel as kernel arguments, shapes in device memory are read
// by the kernels alone.
#include "key_aware_deform_attn_cuda.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <limits>
#include <optional>
#include <tuple>

#include "../operators.h"

namespace lite_detr {
namespace {

using cuda::DataType;

DataType data_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return DataType::kFloat64;
    case at::kFloat:
      return DataType::kFloat32;
    case at::kHalf:
      return DataType::kFloat16;
    default:  // check_arguments lets no other through
      return DataType::kBFloat16;
  }
}

at::ScalarType accumulator_type(const at::Tensor& query) {
  return query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Contiguous and at a multiple of 16 bytes, which a view into the middle of a tensor need not be.
at::Tensor aligned(const at::Tensor& tensor) {
  const at::Tensor contiguous = tensor.contiguous();
  return reinterpret_cast<uintptr_t>(contiguous.const_data_ptr()) % 16 == 0 ? contiguous : contiguous.clone();
}

// A gradient in the layout of what it is the gradient of.
at::Tensor in_layout_of(const at::Tensor& like, const at::Tensor& gradient) {
  return like.is_contiguous() ? gradient : at::empty_like(like).copy_(gradient);
}

// The arguments as the kernels take them; owns the copies that this needed.
class Arguments {
 public:
  Arguments(const at::Tensor& query, const at::Tensor& value, const std::optional<at::Tensor>& key,
            const at::Tensor& spatial_shapes, const at::Tensor& level_start_index, const at::Tensor& reference_points,
            const at::Tensor& sampling_offsets)
      : query_(aligned(query)),
        value_(aligned(value)),
        key_(key.has_value() ? aligned(*key) : at::Tensor()),
        reference_points_(aligned(reference_points)),
        sampling_offsets_(aligned(sampling_offsets)) {
    check_limits(query, value, spatial_shapes, sampling_offsets);
    inputs_.query = query_.const_data_ptr();
    inputs_.value = value_.const_data_ptr();
    inputs_.key = key.has_value() ? key_.const_data_ptr() : nullptr;
    // No tokens, no memory: but there is a key, and so a gradient of it.
    if (key.has_value() && inputs_.key == nullptr) inputs_.key = query_.const_data_ptr();
    inputs_.reference_points = reference_points_.const_data_ptr();
    inputs_.sampling_offsets = sampling_offsets_.const_data_ptr();
    inputs_.batch_size = query.size(0);
    inputs_.num_queries = query.size(1);
    inputs_.num_value = value.size(1);
    inputs_.num_heads = static_cast<int>(query.size(2));
    inputs_.head_dim = static_cast<int>(query.size(3));
    inputs_.num_levels = static_cast<int>(spatial_shapes.size(0));
    inputs_.num_points = static_cast<int>(sampling_offsets.size(4));
    inputs_.reference_dim = static_cast<int>(reference_points.size(3));
    inputs_.offset_levels = static_cast<int>(sampling_offsets.size(3));
    inputs_.dtype = data_type(query);
    inputs_.reference_dtype = data_type(reference_points);
    inputs_.offset_dtype = data_type(sampling_offsets);
    set_levels(spatial_shapes, level_start_index);
  }

  const cuda::KeyAwareDeformAttnInputs& inputs() const { return inputs_; }
  bool empty() const { return inputs_.batch_size == 0 || inputs_.num_queries == 0; }

 private:
  static void check_limits(const at::Tensor& query, const at::Tensor& value, const at::Tensor& spatial_shapes,
                           const at::Tensor& sampling_offsets) {
    TORCH_CHECK_VALUE(value.size(1) < cuda::kMaxTokens && query.size(1) < cuda::kMaxTokens,
                      "value and query must have less than 2**30 tokens on CUDA, got ", value.size(1), " and ",
                      query.size(1));
    TORCH_CHECK_VALUE(spatial_shapes.size(0) <= cuda::kMaxLevels, "spatial_shapes must hold at most ",
                      cuda::kMaxLevels, " levels on CUDA, got ", spatial_shapes.size(0));
    constexpr int64_t kLargest = std::numeric_limits<int>::max();
    TORCH_CHECK_VALUE(query.size(2) <= kLargest && query.size(3) <= kLargest,
                      "query must have less than 2**31 heads and channels per head on CUDA, got shape ",
                      query.sizes());
    TORCH_CHECK_VALUE(sampling_offsets.size(4) <= kLargest / (8 * spatial_shapes.size(0)),
                      "sampling_offsets has too many points for CUDA, got shape ", sampling_offsets.sizes());
  }

  void set_levels(const at::Tensor& spatial_shapes, const at::Tensor& level_start_index) {
    if (spatial_shapes.is_cpu() && level_start_index.is_cpu() && inputs_.num_levels <= cuda::kMaxHostLevels) {
      const at::Tensor shapes = spatial_shapes.to(at::kLong).contiguous();
      const at::Tensor starts = level_start_index.to(at::kLong).contiguous();
      const int64_t* shape = shapes.const_data_ptr<int64_t>();
      const int64_t* start = starts.const_data_ptr<int64_t>();
      for (int level = 0; level < inputs_.num_levels; ++level) {
        inputs_.host_levels[level] = {start[level], shape[2 * level], shape[2 * level + 1]};
      }
      return;
    }
    // Copies from host memory, if any, are small and enqueued; the driver keeps what it has not read yet.
    spatial_shapes_ = spatial_shapes.to(query_.device(), /*non_blocking=*/true).contiguous();
    level_start_index_ = level_start_index.to(query_.device(), /*non_blocking=*/true).contiguous();
    inputs_.spatial_shapes = spatial_shapes_.const_data_ptr();
    inputs_.level_start_index = level_start_index_.const_data_ptr();
    inputs_.spatial_shapes_int32 = spatial_shapes_.scalar_type() == at::kInt;
    inputs_.level_start_index_int32 = level_start_index_.scalar_type() == at::kInt;
  }

  at::Tensor query_, value_, key_, reference_points_, sampling_offsets_, spatial_shapes_, level_start_index_;
  cuda::KeyAwareDeformAttnInputs inputs_{};
};

std::tuple<at::Tensor, at::Tensor> forward_cuda(const at::Tensor& query, const at::Tensor& value,
                                                const at::Tensor& spatial_shapes, const at::Tensor& level_start_index,
                                                const at::Tensor& reference_points, const at::Tensor& sampling_offsets,
                                                const std::optional<at::Tensor>& key) {
  check_key_aware_deform_attn(query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets,
                              key);
  const c10::cuda::CUDAGuard guard(query.device());
  const Arguments arguments(query, value, key, spatial_shapes, level_start_index, reference_points, sampling_offsets);
  at::Tensor output = at::empty({query.size(0), query.size(1), query.size(2) * query.size(3)}, query.options());
  at::Tensor logsumexp =
      at::empty({query.size(0), query.size(1), query.size(2)}, query.options().dtype(accumulator_type(query)));
  const cuda::KeyAwareDeformAttnForward call{arguments.inputs(), output.data_ptr(), logsumexp.data_ptr()};
  C10_CUDA_CHECK(lite_detr_key_aware_deform_attn_forward(&call, c10::cuda::getCurrentCUDAStream()));
  return {output, logsumexp};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> backward_cuda(
    const at::Tensor& grad_output, const at::Tensor& query, const at::Tensor& value, const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index, const at::Tensor& reference_points, const at::Tensor& sampling_offsets,
    const std::optional<at::Tensor>& key, const at::Tensor& logsumexp, bool reference_points_grad) {
  check_key_aware_deform_attn(query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets,
                              key);
  check_backward("query", query, sampling_offsets, grad_output, &logsumexp);
  const c10::cuda::CUDAGuard guard(query.device());
  const Arguments arguments(query, value, key, spatial_shapes, level_start_index, reference_points, sampling_offsets);
  const at::TensorOptions options = query.options();
  const at::TensorOptions accumulator = options.dtype(accumulator_type(query));
  const at::Tensor no_key = at::empty({0}, options);
  if (arguments.empty()) {
    return {at::zeros(query.sizes(), options), at::zeros_like(value),
            reference_points_grad ? at::zeros(reference_points.sizes(), reference_points.options())
                                  : at::empty({0}, reference_points.options()),
            at::zeros(sampling_offsets.sizes(), sampling_offsets.options()),
            key.has_value() ? at::zeros_like(*key) : no_key};
  }

  const bool deterministic = at::globalContext().deterministicAlgorithms();
  const at::TensorOptions sum_options = deterministic ? options.dtype(at::kLong) : accumulator;
  const at::Tensor gradient = aligned(grad_output), saved = aligned(logsumexp);
  at::Tensor grad_query = at::empty(query.sizes(), options);
  at::Tensor value_sum = at::zeros(value.sizes(), sum_options);
  at::Tensor key_sum = key.has_value() ? at::zeros(value.sizes(), sum_options) : no_key;
  at::Tensor grad_offsets = at::empty(sampling_offsets.sizes(), sampling_offsets.options());
  at::Tensor grad_references = at::empty(reference_points.sizes(), reference_points.options());
  at::Tensor per_head = at::empty(
      {query.size(0), query.size(1), query.size(2), reference_points.size(2), reference_points.size(3)}, accumulator);

  cuda::KeyAwareDeformAttnBackward call{};
  call.inputs = arguments.inputs();
  call.grad_output = gradient.const_data_ptr();
  call.logsumexp = saved.const_data_ptr();
  call.grad_query = grad_query.data_ptr();
  call.grad_value_sum = value_sum.data_ptr();
  call.grad_key_sum = key.has_value() ? key_sum.data_ptr() : nullptr;
  call.grad_sampling_offsets = grad_offsets.data_ptr();
  call.grad_reference_points = grad_references.data_ptr();
  call.grad_reference_per_head = per_head.data_ptr();
  call.deterministic = deterministic;
  at::Tensor grad_value, grad_key = no_key, largest;
  if (deterministic) {
    grad_value = at::empty(value.sizes(), options);
    if (key.has_value()) grad_key = at::empty(value.sizes(), options);
    largest = at::zeros({4}, sum_options);
    call.grad_value = grad_value.data_ptr();
    call.grad_key = key.has_value() ? grad_key.data_ptr() : nullptr;
    call.largest_values = static_cast<unsigned long long*>(largest.data_ptr());
  }
  C10_CUDA_CHECK(lite_detr_key_aware_deform_attn_backward(&call, c10::cuda::getCurrentCUDAStream()));
  if (!deterministic) {
    grad_value = value_sum.to(query.scalar_type());
    if (key.has_value()) grad_key = key_sum.to(query.scalar_type());
  }
  if (!reference_points_grad) grad_references = at::empty({0}, reference_points.options());
  return {grad_query, in_layout_of(value, grad_value), grad_references, grad_offsets,
          key.has_value() ? in_layout_of(*key, grad_key) : no_key};
}

}  // namespace
}  // namespace lite_detr

TORCH_LIBRARY_IMPL(lite_detr, CUDA, m) {
  m.impl("key_aware_deform_attn", &lite_detr::forward_cuda);
  m.impl("key_aware_deform_attn_backward", &lite_detr::backward_cuda);
}
