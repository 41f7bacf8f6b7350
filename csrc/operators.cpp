// Schemas and argument checks of the operators in torch.
#include "operators.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include <string>

#include "core/checks.h"

namespace lite_detr {
namespace {

ScalarType scalar_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return ScalarType::kDouble;
    case at::kFloat:
      return ScalarType::kFloat;
    case at::kHalf:
      return ScalarType::kHalf;
    case at::kBFloat16:
      return ScalarType::kBFloat16;
    case at::kLong:
      return ScalarType::kLong;
    case at::kInt:
      return ScalarType::kInt;
    default:
      return ScalarType::kOther;
  }
}

void check_device(const char* name, const at::Tensor& tensor, const char* leader_name, const at::Tensor& leader) {
  TORCH_CHECK_VALUE(tensor.device() == leader.device(), name, " must be on the device of ", leader_name, ", ",
                    leader.device(), ", got ", tensor.device());
}

void check_device_or_cpu(const char* name, const at::Tensor& tensor, const char* leader_name,
                         const at::Tensor& leader) {
  TORCH_CHECK_VALUE(tensor.device() == leader.device() || tensor.is_cpu(), name, " must be on the device of ",
                    leader_name, ", ", leader.device(), ", or on cpu, got ", tensor.device());
}

std::vector<Level> check_levels(const at::Tensor& value, const at::Tensor& spatial_shapes,
                                const at::Tensor& level_start_index) {
  std::vector<Level> levels;
  if (!spatial_shapes.is_cpu() || !level_start_index.is_cpu()) return levels;
  with_torch_errors([&] { levels = read_levels(view_of(spatial_shapes), view_of(level_start_index), value.size(1)); });
  return levels;
}

}  // namespace

TensorView view_of(const at::Tensor& tensor) {
  TensorView view;
  view.type = scalar_type(tensor);
  view.ndim = tensor.dim();
  view.sizes = tensor.sizes().data();
  view.strides = tensor.strides().data();
  view.type_name = c10::toString(tensor.scalar_type());
  if (tensor.is_cpu()) view.data = tensor.const_data_ptr();
  return view;
}

void with_torch_errors(const std::function<void()>& function) {
  try {
    function();
  } catch (const ArgumentError& error) {
    TORCH_CHECK_TYPE(error.kind() != ArgumentError::Kind::kType, error.what());
    TORCH_CHECK_VALUE(false, error.what());
  }
}

std::vector<Level> check_key_aware_deform_attn(const at::Tensor& query, const at::Tensor& value,
                                               const at::Tensor& spatial_shapes, const at::Tensor& level_start_index,
                                               const at::Tensor& reference_points, const at::Tensor& sampling_offsets,
                                               const std::optional<at::Tensor>& key) {
  const TensorView query_view = view_of(query);
  const TensorView key_view = key.has_value() ? view_of(*key) : TensorView();
  Inputs inputs;
  inputs.query = &query_view;
  inputs.value = view_of(value);
  inputs.spatial_shapes = view_of(spatial_shapes);
  inputs.level_start_index = view_of(level_start_index);
  inputs.reference_points = view_of(reference_points);
  inputs.sampling_offsets = view_of(sampling_offsets);
  inputs.key = key.has_value() ? &key_view : nullptr;
  with_torch_errors([&] { check_inputs(inputs); });
  check_device("value", value, "query", query);
  check_device_or_cpu("spatial_shapes", spatial_shapes, "query", query);
  check_device_or_cpu("level_start_index", level_start_index, "query", query);
  check_device("reference_points", reference_points, "query", query);
  check_device("sampling_offsets", sampling_offsets, "query", query);
  if (key.has_value()) check_device("key", *key, "query", query);
  return check_levels(value, spatial_shapes, level_start_index);
}

std::vector<Level> check_multi_scale_deform_attn(const at::Tensor& value, const at::Tensor& spatial_shapes,
                                                 const at::Tensor& level_start_index,
                                                 const at::Tensor& reference_points,
                                                 const at::Tensor& sampling_offsets,
                                                 const at::Tensor& attention_weights) {
  const TensorView weights_view = view_of(attention_weights);
  Inputs inputs;
  inputs.value = view_of(value);
  inputs.spatial_shapes = view_of(spatial_shapes);
  inputs.level_start_index = view_of(level_start_index);
  inputs.reference_points = view_of(reference_points);
  inputs.sampling_offsets = view_of(sampling_offsets);
  inputs.attention_weights = &weights_view;
  with_torch_errors([&] { check_inputs(inputs); });
  check_device_or_cpu("spatial_shapes", spatial_shapes, "value", value);
  check_device_or_cpu("level_start_index", level_start_index, "value", value);
  check_device("reference_points", reference_points, "value", value);
  check_device("sampling_offsets", sampling_offsets, "value", value);
  check_device("attention_weights", attention_weights, "value", value);
  return check_levels(value, spatial_shapes, level_start_index);
}

void check_backward(const char* leader_name, const at::Tensor& leader, const at::Tensor& sampling_offsets,
                    const at::Tensor& grad_output, const at::Tensor* logsumexp) {
  const TensorView logsumexp_view = logsumexp == nullptr ? TensorView() : view_of(*logsumexp);
  with_torch_errors([&] {
    check_backward_inputs(leader_name, view_of(leader), view_of(sampling_offsets), view_of(grad_output),
                          logsumexp == nullptr ? nullptr : &logsumexp_view);
  });
  check_device("grad_output", grad_output, leader_name, leader);
  if (logsumexp != nullptr) check_device("logsumexp", *logsumexp, leader_name, leader);
}

}  // namespace lite_detr

TORCH_LIBRARY(lite_detr, m) {
  // query (bs, num_queries, num_heads, head_dim); value and key (bs, num_value, num_heads, head_dim), all of one
  // dtype; no key means that the key is the value. spatial_shapes (num_levels, 2) and level_start_index (num_levels, )
  // are integers. reference_points (bs, num_queries, num_levels, 2 or 4), sampling_offsets (bs, num_queries,
  // num_heads, num_levels or 1, num_points, 2) and attention_weights (bs, num_queries, num_heads, num_levels,
  // num_points) may each have a floating dtype of their own. output (bs, num_queries, num_heads * head_dim) has the
  // dtype of value; logsumexp (bs, num_queries, num_heads) of the scaled logits over all samples is float32 (float64
  // for float64).
  m.def(
      "key_aware_deform_attn(Tensor query, Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor reference_points, Tensor sampling_offsets, Tensor? key=None) -> (Tensor output, Tensor logsumexp)");
  // Gradients come in the order of the inputs. grad_key is empty when there is no key: grad_value then holds the
  // gradient of both. grad_reference_points is empty unless reference_points_grad asks for it.
  m.def(
      "key_aware_deform_attn_backward(Tensor grad_output, Tensor query, Tensor value, Tensor spatial_shapes, "
      "Tensor level_start_index, Tensor reference_points, Tensor sampling_offsets, Tensor? key, Tensor logsumexp, "
      "bool reference_points_grad) -> (Tensor grad_query, Tensor grad_value, Tensor grad_reference_points, "
      "Tensor grad_sampling_offsets, Tensor grad_key)");
  m.def(
      "multi_scale_deform_attn(Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor reference_points, Tensor sampling_offsets, Tensor attention_weights) -> Tensor");
  m.def(
      "multi_scale_deform_attn_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, "
      "Tensor level_start_index, Tensor reference_points, Tensor sampling_offsets, Tensor attention_weights, "
      "bool reference_points_grad) -> (Tensor grad_value, Tensor grad_reference_points, "
      "Tensor grad_sampling_offsets, Tensor grad_attention_weights)");
  // The instruction set that the CPU kernels were chosen for.
  m.def("cpu_capability() -> str");
}
