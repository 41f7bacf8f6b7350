// The operators on the CPU in torch: devices, memory and threads around the calls of call.h.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../operators.h"
#include "call.h"

#if AT_PARALLEL_OPENMP && !defined(_OPENMP)
#error "at::parallel_for would run on one thread: compile with OpenMP, see setup.py"
#endif

namespace lite_detr {
namespace cpu {
namespace {

void parallel_for(int64_t begin, int64_t end, const Body& body) { at::parallel_for(begin, end, 1, body); }

// The kernels want the last `dims` dimensions dense and take any strides (zero included) for the others.
at::Tensor dense_tail(const at::Tensor& tensor, int64_t dims) {
  int64_t expected = 1;
  for (int64_t dim = tensor.dim() - 1; dim >= tensor.dim() - dims; --dim) {
    if (tensor.size(dim) != 1 && tensor.stride(dim) != expected) return tensor.contiguous();
    expected *= tensor.size(dim);
  }
  return tensor;
}

at::ScalarType accumulator_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// The inputs of a call with the tensors that hold them. The backward pass computes half precision in float32.
struct Operands {
  at::Tensor query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key, weights;
  TensorView query_view, key_view, weights_view;
  Inputs inputs;

  // Key-aware deformable attention.
  Operands(const at::Tensor& query_in, const at::Tensor& value_in, const at::Tensor& shapes, const at::Tensor& starts,
           const at::Tensor& points, const at::Tensor& offsets, const std::optional<at::Tensor>& key_in,
           at::ScalarType type)
      : Operands(value_in, shapes, starts, points, offsets, type) {
    query = dense_tail(query_in.to(type), 1);
    query_view = view_of(query);
    inputs.query = &query_view;
    if (key_in.has_value()) {
      key = dense_tail(key_in->to(type), 1);
      key_view = view_of(key);
      inputs.key = &key_view;
    }
  }

  // Multi-scale deformable attention.
  Operands(const at::Tensor& value_in, const at::Tensor& shapes, const at::Tensor& starts, const at::Tensor& points,
           const at::Tensor& offsets, const at::Tensor& weights_in, at::ScalarType type)
      : Operands(value_in, shapes, starts, points, offsets, type) {
    weights = dense_tail(weights_in, 2);
    weights_view = view_of(weights);
    inputs.attention_weights = &weights_view;
  }

 private:
  Operands(const at::Tensor& value_in, const at::Tensor& shapes, const at::Tensor& starts, const at::Tensor& points,
           const at::Tensor& offsets, at::ScalarType type)
      : value(dense_tail(value_in.to(type), 1)),
        spatial_shapes(shapes),
        level_start_index(starts),
        reference_points(dense_tail(points, 1)),
        sampling_offsets(dense_tail(offsets, 2)) {
    inputs.value = view_of(value);
    inputs.spatial_shapes = view_of(spatial_shapes);
    inputs.level_start_index = view_of(level_start_index);
    inputs.reference_points = view_of(reference_points);
    inputs.sampling_offsets = view_of(sampling_offsets);
  }
};

at::Tensor empty_output(const Operands& operands) {
  const at::Tensor& value = operands.value;
  return at::empty({value.size(0), operands.sampling_offsets.size(1), value.size(2) * value.size(3)}, value.options());
}

// Zeros to add gradients of `like` to, in its layout, where this has dense rows of channels.
at::Tensor zeros_in_layout(const at::Tensor& like, at::ScalarType type) {
  at::Tensor zeros = at::empty_like(like, like.options().dtype(type));
  if (zeros.size(3) != 1 && zeros.stride(3) != 1) return at::zeros(like.sizes(), like.options().dtype(type));
  return zeros.zero_();
}

// A gradient with the dtype and the layout of what it is the gradient of.
at::Tensor in_layout_of(const at::Tensor& like, const at::Tensor& gradient) {
  const at::Tensor layout = at::empty_like(like, like.options().device(at::kMeta));
  if (layout.scalar_type() == gradient.scalar_type() && layout.strides() == gradient.strides()) return gradient;
  return at::empty_like(like).copy_(gradient);
}

at::Tensor empty_if(bool wanted, const at::Tensor& like) {
  return wanted ? at::empty(like.sizes(), like.options()) : at::empty({0}, like.options());
}

std::tuple<at::Tensor, at::Tensor> key_aware_deform_attn(const at::Tensor& query, const at::Tensor& value,
                                                         const at::Tensor& spatial_shapes,
                                                         const at::Tensor& level_start_index,
                                                         const at::Tensor& reference_points,
                                                         const at::Tensor& sampling_offsets,
                                                         const std::optional<at::Tensor>& key) {
  std::vector<Level> levels = check_key_aware_deform_attn(query, value, spatial_shapes, level_start_index,
                                                          reference_points, sampling_offsets, key);
  const Operands operands(query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key,
                          query.scalar_type());
  at::Tensor output = empty_output(operands);
  at::Tensor logsumexp = at::empty(query.sizes().slice(0, 3), query.options().dtype(accumulator_type(query)));
  with_torch_errors([&] {
    Call(operands.inputs, std::move(levels))
        .forward(output.mutable_data_ptr(), logsumexp.mutable_data_ptr(), parallel_for);
  });
  return {output, logsumexp};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> key_aware_deform_attn_backward(
    const at::Tensor& grad_output_in, const at::Tensor& query, const at::Tensor& value,
    const at::Tensor& spatial_shapes, const at::Tensor& level_start_index, const at::Tensor& reference_points,
    const at::Tensor& sampling_offsets, const std::optional<at::Tensor>& key, const at::Tensor& logsumexp_in,
    bool reference_points_grad) {
  std::vector<Level> levels = check_key_aware_deform_attn(query, value, spatial_shapes, level_start_index,
                                                          reference_points, sampling_offsets, key);
  check_backward("query", query, sampling_offsets, grad_output_in, &logsumexp_in);
  const at::ScalarType type = accumulator_type(query);
  const Operands operands(query, value, spatial_shapes, level_start_index, reference_points, sampling_offsets, key,
                          type);
  const at::Tensor grad_output = dense_tail(grad_output_in.to(type), 1);
  const at::Tensor logsumexp = logsumexp_in.contiguous();

  at::Tensor grad_query = at::empty(query.sizes(), query.options().dtype(type));
  at::Tensor grad_value = zeros_in_layout(value, type);
  at::Tensor grad_key = key.has_value() ? zeros_in_layout(*key, type) : at::empty({0}, query.options());
  at::Tensor grad_reference_points = empty_if(reference_points_grad, reference_points);
  at::Tensor grad_sampling_offsets = at::empty(sampling_offsets.sizes(), sampling_offsets.options());
  Gradients gradients;
  gradients.query = grad_query.mutable_data_ptr();
  gradients.value = view_of(grad_value);
  gradients.key = view_of(grad_key);
  if (reference_points_grad) gradients.reference_points = grad_reference_points.mutable_data_ptr();
  gradients.sampling_offsets = grad_sampling_offsets.mutable_data_ptr();
  with_torch_errors([&] {
    Call(operands.inputs, std::move(levels))
        .backward(view_of(grad_output), logsumexp.const_data_ptr(), gradients, at::get_num_threads(), parallel_for);
  });
  return {grad_query.to(query.scalar_type()), in_layout_of(value, grad_value), grad_reference_points,
          grad_sampling_offsets, key.has_value() ? in_layout_of(*key, grad_key) : grad_key};
}

at::Tensor multi_scale_deform_attn(const at::Tensor& value, const at::Tensor& spatial_shapes,
                                   const at::Tensor& level_start_index, const at::Tensor& reference_points,
                                   const at::Tensor& sampling_offsets, const at::Tensor& attention_weights) {
  std::vector<Level> levels = check_multi_scale_deform_attn(value, spatial_shapes, level_start_index, reference_points,
                                                            sampling_offsets, attention_weights);
  const Operands operands(value, spatial_shapes, level_start_index, reference_points, sampling_offsets,
                          attention_weights, value.scalar_type());
  at::Tensor output = empty_output(operands);
  with_torch_errors(
      [&] { Call(operands.inputs, std::move(levels)).forward(output.mutable_data_ptr(), nullptr, parallel_for); });
  return output;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> multi_scale_deform_attn_backward(
    const at::Tensor& grad_output_in, const at::Tensor& value, const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index, const at::Tensor& reference_points, const at::Tensor& sampling_offsets,
    const at::Tensor& attention_weights, bool reference_points_grad) {
  std::vector<Level> levels = check_multi_scale_deform_attn(value, spatial_shapes, level_start_index, reference_points,
                                                            sampling_offsets, attention_weights);
  check_backward("value", value, sampling_offsets, grad_output_in, nullptr);
  const at::ScalarType type = accumulator_type(value);
  const Operands operands(value, spatial_shapes, level_start_index, reference_points, sampling_offsets,
                          attention_weights, type);
  const at::Tensor grad_output = dense_tail(grad_output_in.to(type), 1);

  at::Tensor grad_value = zeros_in_layout(value, type);
  at::Tensor grad_reference_points = empty_if(reference_points_grad, reference_points);
  at::Tensor grad_sampling_offsets = at::empty(sampling_offsets.sizes(), sampling_offsets.options());
  at::Tensor grad_attention_weights = at::empty(attention_weights.sizes(), attention_weights.options());
  Gradients gradients;
  gradients.value = view_of(grad_value);
  if (reference_points_grad) gradients.reference_points = grad_reference_points.mutable_data_ptr();
  gradients.sampling_offsets = grad_sampling_offsets.mutable_data_ptr();
  gradients.attention_weights = grad_attention_weights.mutable_data_ptr();
  with_torch_errors([&] {
    Call(operands.inputs, std::move(levels))
        .backward(view_of(grad_output), nullptr, gradients, at::get_num_threads(), parallel_for);
  });
  return {in_layout_of(value, grad_value), grad_reference_points, grad_sampling_offsets, grad_attention_weights};
}

std::string capability() {
  std::string name;
  with_torch_errors([&] { name = cpu_capability(); });
  return name;
}

}  // namespace

TORCH_LIBRARY_IMPL(lite_detr, CPU, m) {
  m.impl("key_aware_deform_attn", &key_aware_deform_attn);
  m.impl("key_aware_deform_attn_backward", &key_aware_deform_attn_backward);
  m.impl("multi_scale_deform_attn", &multi_scale_deform_attn);
  m.impl("multi_scale_deform_attn_backward", &multi_scale_deform_attn_backward);
}

TORCH_LIBRARY_IMPL(lite_detr, CompositeExplicitAutograd, m) { m.impl("cpu_capability", &capability); }

}  // namespace cpu
}  // namespace lite_detr
