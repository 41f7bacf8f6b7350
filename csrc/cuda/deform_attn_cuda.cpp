// CUDA implementation of the operators: checks, allocation and the launch on the current stream of value's device.
//
// Nothing here waits for the GPU: shapes in host memory travel as kernel arguments, shapes in device memory are read
// by the kernels alone.
#include "deform_attn_cuda.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <array>
#include <limits>
#include <optional>
#include <tuple>

#include "../operators.h"

namespace lite_detr {
namespace {

using cuda::Attention;
using cuda::DataType;

DataType data_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return DataType::kFloat64;
    case at::kFloat:
      return DataType::kFloat32;
    case at::kHalf:
      return DataType::kFloat16;
    default:  // the checks let no other through
      return DataType::kBFloat16;
  }
}

at::ScalarType accumulator_type(const at::Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor at_multiple_of_16(const at::Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0 ? tensor : tensor.clone();
}

// Contiguous and at a multiple of 16 bytes, which a view into the middle of a tensor need not be.
at::Tensor aligned(const at::Tensor& tensor) { return at_multiple_of_16(tensor.contiguous()); }

// value, key and their gradients may have any order of images, tokens and heads in memory.
at::Tensor aligned_value(const at::Tensor& value) {
  const bool dense = value.is_non_overlapping_and_dense() && value.stride(3) == 1;
  return dense ? at_multiple_of_16(value) : aligned(value);
}

// What both operators are given; query, key or weights are absent in one of them.
struct Tensors {
  std::optional<at::Tensor> query, key, attention_weights;
  at::Tensor value, spatial_shapes, level_start_index, reference_points, sampling_offsets;
};

// The arguments as the kernels take them; owns the copies that this needed.
class Arguments {
 public:
  explicit Arguments(const Tensors& given)
      : value_(aligned_value(given.value)),
        reference_points_(aligned(given.reference_points)),
        sampling_offsets_(aligned(given.sampling_offsets)) {
    check_limits(given);
    if (given.query.has_value()) {
      query_ = aligned(*given.query);
      inputs_.query = query_.const_data_ptr();
      inputs_.attention = Attention::kSharedKey;
    }
    if (given.key.has_value()) {
      // In the layout of value, whose strides serve for both.
      key_ = given.key->strides() == value_.strides()
                 ? at_multiple_of_16(*given.key)
                 : at::empty_strided(value_.sizes(), value_.strides(), value_.options()).copy_(*given.key);
      inputs_.key = key_.const_data_ptr();
      inputs_.attention = Attention::kSeparateKey;
    }
    if (given.attention_weights.has_value()) {
      attention_weights_ = aligned(*given.attention_weights);
      inputs_.attention_weights = attention_weights_.const_data_ptr();
      inputs_.weight_dtype = data_type(attention_weights_);
      inputs_.attention = Attention::kGivenWeights;
    }
    inputs_.value = value_.const_data_ptr();
    inputs_.reference_points = reference_points_.const_data_ptr();
    inputs_.sampling_offsets = sampling_offsets_.const_data_ptr();
    inputs_.batch_size = value_.size(0);
    inputs_.num_queries = sampling_offsets_.size(1);
    inputs_.num_value = value_.size(1);
    inputs_.value_strides = {value_.stride(0), value_.stride(1), value_.stride(2)};
    inputs_.num_heads = static_cast<int>(value_.size(2));
    inputs_.head_dim = static_cast<int>(value_.size(3));
    inputs_.num_levels = static_cast<int>(given.spatial_shapes.size(0));
    inputs_.num_points = static_cast<int>(sampling_offsets_.size(4));
    inputs_.reference_dim = static_cast<int>(reference_points_.size(3));
    inputs_.offset_levels = static_cast<int>(sampling_offsets_.size(3));
    inputs_.dtype = data_type(value_);
    inputs_.reference_dtype = data_type(reference_points_);
    inputs_.offset_dtype = data_type(sampling_offsets_);
    set_levels(given.spatial_shapes, given.level_start_index);
  }

  const cuda::DeformAttnInputs& inputs() const { return inputs_; }
  const at::Tensor& value() const { return value_; }
  bool empty() const { return inputs_.batch_size == 0 || inputs_.num_queries == 0; }
  // (bs, num_queries, num_heads * head_dim)
  std::array<int64_t, 3> output_sizes() const {
    return {inputs_.batch_size, inputs_.num_queries, static_cast<int64_t>(inputs_.num_heads) * inputs_.head_dim};
  }

 private:
  static void check_limits(const Tensors& given) {
    const at::Tensor &value = given.value, &offsets = given.sampling_offsets;
    TORCH_CHECK_VALUE(value.size(1) < cuda::kMaxTokens && offsets.size(1) < cuda::kMaxTokens,
                      "value and query must have less than 2**30 tokens on CUDA, got ", value.size(1), " and ",
                      offsets.size(1));
    const int64_t num_levels = given.spatial_shapes.size(0);
    TORCH_CHECK_VALUE(num_levels <= cuda::kMaxLevels, "spatial_shapes must hold at most ", cuda::kMaxLevels,
                      " levels on CUDA, got ", num_levels);
    constexpr int64_t kLargest = std::numeric_limits<int>::max();
    TORCH_CHECK_VALUE(value.size(2) <= kLargest && value.size(3) <= kLargest,
                      "value must have less than 2**31 heads and channels per head on CUDA, got shape ",
                      value.sizes());
    // The bytes of a row of offsets fit in an int.
    TORCH_CHECK_VALUE(offsets.size(4) <= kLargest / (16 * num_levels),
                      "sampling_offsets has too many points for CUDA, got shape ", offsets.sizes());
  }

  void set_levels(const at::Tensor& spatial_shapes, const at::Tensor& level_start_index) {
    const bool on_host = spatial_shapes.is_cpu() && level_start_index.is_cpu();
    if (on_host && inputs_.num_levels <= cuda::kMaxHostLevels) {
      const at::Tensor shapes = spatial_shapes.to(at::kLong).contiguous();
      const at::Tensor starts = level_start_index.to(at::kLong).contiguous();
      const int64_t* shape = shapes.const_data_ptr<int64_t>();
      const int64_t* start = starts.const_data_ptr<int64_t>();
      for (int level = 0; level < inputs_.num_levels; ++level) {
        inputs_.host_levels[level] =
            cuda::make_level(start[level], shape[2 * level], shape[2 * level + 1], inputs_.num_value);
      }
      return;
    }
    // Copies from host memory, if any, are small and enqueued; the driver keeps what it has not read yet.
    TORCH_CHECK_VALUE((spatial_shapes.is_cuda() && level_start_index.is_cuda()) ||
                          c10::cuda::currentStreamCaptureStatusMayInitCtx() == c10::cuda::CaptureStatus::None,
                      "while a CUDA graph is captured, spatial_shapes and level_start_index must both be on the GPU, "
                      "or both on cpu with at most ",
                      cuda::kMaxHostLevels, " levels, got ", spatial_shapes.device(), " and ",
                      level_start_index.device(), " with ", inputs_.num_levels, " levels");
    spatial_shapes_ = spatial_shapes.to(value_.device(), /*non_blocking=*/true).contiguous();
    level_start_index_ = level_start_index.to(value_.device(), /*non_blocking=*/true).contiguous();
    inputs_.spatial_shapes = spatial_shapes_.const_data_ptr();
    inputs_.level_start_index = level_start_index_.const_data_ptr();
    inputs_.spatial_shapes_int32 = spatial_shapes_.scalar_type() == at::kInt;
    inputs_.level_start_index_int32 = level_start_index_.scalar_type() == at::kInt;
  }

  at::Tensor query_, value_, key_, attention_weights_, reference_points_, sampling_offsets_;
  at::Tensor spatial_shapes_, level_start_index_;
  cuda::DeformAttnInputs inputs_{};
};

// Output, and with a query logsumexp.
std::tuple<at::Tensor, at::Tensor> run_forward(const Tensors& given) {
  const c10::cuda::CUDAGuard guard(given.value.device());
  const Arguments arguments(given);
  const at::TensorOptions options = given.value.options();
  at::Tensor output = at::empty(arguments.output_sizes(), options), logsumexp;
  if (given.query.has_value()) {
    logsumexp = at::empty(given.query->sizes().slice(0, 3), options.dtype(accumulator_type(given.value)));
  }
  const cuda::DeformAttnForward call{arguments.inputs(), output.data_ptr(),
                                     logsumexp.defined() ? logsumexp.data_ptr() : nullptr};
  C10_CUDA_CHECK(lite_detr_deform_attn_forward(&call, c10::cuda::getCurrentCUDAStream()));
  return {output, logsumexp};
}

struct Gradients {
  at::Tensor query, value, key, attention_weights, reference_points, sampling_offsets;
};

// Zeros of sizes and dtype of a tensor with the gradients' layout: that of value as the kernels see it.
at::Tensor zeros_like_value(const at::Tensor& value, at::ScalarType type) {
  return at::empty_strided(value.sizes(), value.strides(), value.options().dtype(type)).zero_();
}

Gradients run_backward(const at::Tensor& grad_output, const Tensors& given, const std::optional<at::Tensor>& logsumexp,
                       bool reference_points_grad) {
  const c10::cuda::CUDAGuard guard(given.value.device());
  const Arguments arguments(given);
  const at::Tensor& value = arguments.value();
  const at::TensorOptions options = value.options();
  const auto like = [](const at::Tensor& tensor) { return at::empty(tensor.sizes(), tensor.options()); };
  Gradients grads;
  grads.key = at::empty({0}, options);
  grads.sampling_offsets = like(given.sampling_offsets);
  grads.reference_points =
      reference_points_grad ? like(given.reference_points) : at::empty({0}, given.reference_points.options());
  if (given.query.has_value()) grads.query = like(*given.query);
  if (given.attention_weights.has_value()) grads.attention_weights = like(*given.attention_weights);
  if (arguments.empty()) {  // no gradient but that of value has elements
    grads.value = zeros_like_value(value, value.scalar_type());
    if (given.key.has_value()) grads.key = zeros_like_value(value, value.scalar_type());
    return grads;
  }

  const bool deterministic = at::globalContext().deterministicAlgorithms();
  const at::ScalarType sum_type = deterministic ? at::kLong : accumulator_type(value);
  const at::Tensor gradient = aligned(grad_output), saved = logsumexp.has_value() ? aligned(*logsumexp) : at::Tensor();
  at::Tensor value_sum = zeros_like_value(value, sum_type), key_sum, per_head, norms;
  cuda::DeformAttnBackward call{};
  call.inputs = arguments.inputs();
  call.grad_output = gradient.const_data_ptr();
  call.grad_value_sum = value_sum.data_ptr();
  call.grad_sampling_offsets = grads.sampling_offsets.data_ptr();
  if (given.query.has_value()) {
    call.logsumexp = saved.const_data_ptr();
    call.grad_query = grads.query.data_ptr();
  }
  if (given.key.has_value()) {
    key_sum = zeros_like_value(value, sum_type);
    call.grad_key_sum = key_sum.data_ptr();
  }
  if (given.attention_weights.has_value()) call.grad_attention_weights = grads.attention_weights.data_ptr();
  if (reference_points_grad) {
    const cuda::DeformAttnInputs& inputs = call.inputs;
    per_head =
        at::empty({inputs.batch_size, inputs.num_queries, inputs.num_heads, inputs.num_levels, inputs.reference_dim},
                  options.dtype(accumulator_type(value)));
    call.grad_reference_points = grads.reference_points.data_ptr();
    call.grad_reference_per_head = per_head.data_ptr();
  }
  call.deterministic = deterministic;
  if (deterministic) {
    grads.value = zeros_like_value(value, value.scalar_type());
    call.grad_value = grads.value.data_ptr();
    if (given.key.has_value()) {
      grads.key = zeros_like_value(value, value.scalar_type());
      call.grad_key = grads.key.data_ptr();
    }
    norms = at::zeros({cuda::kNumNorms, value.size(0), value.size(2)}, options.dtype(at::kDouble));
    call.largest_norms = norms.data_ptr<double>();
  }
  C10_CUDA_CHECK(lite_detr_deform_attn_backward(&call, c10::cuda::getCurrentCUDAStream()));
  if (!deterministic) {
    grads.value = value_sum.to(value.scalar_type());
    if (given.key.has_value()) grads.key = key_sum.to(value.scalar_type());
  }
  return grads;
}

// A gradient in the layout that empty_like gives.
at::Tensor in_layout_of(const at::Tensor& like, const at::Tensor& gradient) {
  at::Tensor result = at::empty_like(like);
  return result.strides() == gradient.strides() ? gradient : result.copy_(gradient);
}

std::tuple<at::Tensor, at::Tensor> key_aware_forward(const at::Tensor& query, const at::Tensor& value,
                                                     const at::Tensor& spatial_shapes,
                                                     const at::Tensor& level_start_index,
                                                     const at::Tensor& reference_points,
                                                     const at::Tensor& sampling_offsets,
                                                     const std::optional<at::Tensor>& key) {
  check_key_aware_deform_attn(query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets,
                              key);
  return run_forward(
      {query, key, std::nullopt, value, spatial_shapes, level_start_index, reference_points, sampling_offsets});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> key_aware_backward(
    const at::Tensor& grad_output, const at::Tensor& query, const at::Tensor& value, const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index, const at::Tensor& reference_points, const at::Tensor& sampling_offsets,
    const std::optional<at::Tensor>& key, const at::Tensor& logsumexp, bool reference_points_grad) {
  check_key_aware_deform_attn(query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets,
                              key);
  check_backward("query", query, sampling_offsets, grad_output, &logsumexp);
  const Gradients grads = run_backward(
      grad_output,
      {query, key, std::nullopt, value, spatial_shapes, level_start_index, reference_points, sampling_offsets},
      logsumexp, reference_points_grad);
  return {in_layout_of(query, grads.query), in_layout_of(value, grads.value),
          reference_points_grad ? in_layout_of(reference_points, grads.reference_points) : grads.reference_points,
          in_layout_of(sampling_offsets, grads.sampling_offsets),
          key.has_value() ? in_layout_of(*key, grads.key) : grads.key};
}

at::Tensor multi_scale_forward(const at::Tensor& value, const at::Tensor& spatial_shapes,
                               const at::Tensor& level_start_index, const at::Tensor& reference_points,
                               const at::Tensor& sampling_offsets, const at::Tensor& attention_weights) {
  check_multi_scale_deform_attn(value, spatial_shapes, level_start_index, reference_points, sampling_offsets,
                                attention_weights);
  return std::get<0>(run_forward({std::nullopt, std::nullopt, attention_weights, value, spatial_shapes,
                                  level_start_index, reference_points, sampling_offsets}));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> multi_scale_backward(
    const at::Tensor& grad_output, const at::Tensor& value, const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index, const at::Tensor& reference_points, const at::Tensor& sampling_offsets,
    const at::Tensor& attention_weights, bool reference_points_grad) {
  check_multi_scale_deform_attn(value, spatial_shapes, level_start_index, reference_points, sampling_offsets,
                                attention_weights);
  check_backward("value", value, sampling_offsets, grad_output, nullptr);
  const Gradients grads = run_backward(grad_output,
                                       {std::nullopt, std::nullopt, attention_weights, value, spatial_shapes,
                                        level_start_index, reference_points, sampling_offsets},
                                       std::nullopt, reference_points_grad);
  return {in_layout_of(value, grads.value),
          reference_points_grad ? in_layout_of(reference_points, grads.reference_points) : grads.reference_points,
          in_layout_of(sampling_offsets, grads.sampling_offsets),
          in_layout_of(attention_weights, grads.attention_weights)};
}

}  // namespace
}  // namespace lite_detr

TORCH_LIBRARY_IMPL(lite_detr, CUDA, m) {
  m.impl("key_aware_deform_attn", &lite_detr::key_aware_forward);
  m.impl("key_aware_deform_attn_backward", &lite_detr::key_aware_backward);
  m.impl("multi_scale_deform_attn", &lite_detr::multi_scale_forward);
  m.impl("multi_scale_deform_attn_backward", &lite_detr::multi_scale_backward);
}
