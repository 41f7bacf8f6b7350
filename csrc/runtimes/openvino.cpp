// The operators in OpenVINO: an extension for its CPU plugin, for ONNX files and for OpenVINO's own.
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/conversion.hpp>
#include <openvino/op/op.hpp>
#if defined(LITE_DETR_WITH_TBB)
#include <tbb/parallel_for.h>
#endif

#include <string>
#include <vector>

#include "core/arguments.h"
#include "core/checks.h"
#include "cpu/call.h"

namespace lite_detr {
namespace {

// Tiles of queries that a thread takes at a time.
constexpr int64_t kTilesPerTask = 4;

ScalarType to_scalar_type(const ov::element::Type& type) {
  if (type == ov::element::f32) return ScalarType::kFloat;
  if (type == ov::element::f16) return ScalarType::kHalf;
  if (type == ov::element::bf16) return ScalarType::kBFloat16;
  if (type == ov::element::i64) return ScalarType::kLong;
  if (type == ov::element::i32) return ScalarType::kInt;
  return ScalarType::kOther;
}

// A tensor of OpenVINO with its sizes.
struct Tensor {
  std::vector<int64_t> sizes;
  TensorView view;

  explicit Tensor(const ov::Tensor& tensor) {
    for (const size_t size : tensor.get_shape()) sizes.push_back(static_cast<int64_t>(size));
    view.data = tensor.data();
    view.type = to_scalar_type(tensor.get_element_type());
    view.ndim = static_cast<int64_t>(sizes.size());
    view.sizes = sizes.data();
    view.type_name = "another type";
  }
  Tensor(const Tensor&) = delete;
};

// Runs ranges on the threads that OpenVINO gave this call.
void parallel_for(int64_t begin, int64_t end, const cpu::Body& body) {
#if defined(LITE_DETR_WITH_TBB)
  tbb::parallel_for(tbb::blocked_range<int64_t>(begin, end, kTilesPerTask),
                    [&](const tbb::blocked_range<int64_t>& range) { body(range.begin(), range.end()); });
#else
  body(begin, end);
#endif
}

// What both nodes share; `First` is the input that holds the values.
class AttentionOp : public ov::op::Op {
 public:
  using ov::op::Op::Op;

  void infer(size_t first, size_t num_inputs) {
    NODE_VALIDATION_CHECK(this, get_input_size() >= num_inputs, "needs ", num_inputs, " inputs, got ",
                          get_input_size());
    const ov::PartialShape& value = get_input_partial_shape(first);
    const ov::PartialShape& offsets = get_input_partial_shape(first + 4);
    ov::PartialShape output = ov::PartialShape::dynamic(3);
    if (value.rank().is_static() && offsets.rank().is_static()) {
      NODE_VALIDATION_CHECK(this, value.size() == 4, "value must have 4 dimensions, got ", value);
      NODE_VALIDATION_CHECK(this, offsets.size() == 6, "sampling_offsets must have 6 dimensions, got ", offsets);
      output = {value[0], offsets[1], value[2] * value[3]};
    }
    set_output_type(0, get_input_element_type(first), output);
  }

  bool run(bool key_aware, ov::TensorVector& outputs, const ov::TensorVector& tensors) const {
    std::vector<std::unique_ptr<Tensor>> views;
    for (const ov::Tensor& tensor : tensors) views.push_back(std::make_unique<Tensor>(tensor));
    const size_t first = key_aware ? 1 : 0;
    Inputs inputs;
    inputs.value = views[first]->view;
    inputs.spatial_shapes = views[first + 1]->view;
    inputs.level_start_index = views[first + 2]->view;
    inputs.reference_points = views[first + 3]->view;
    inputs.sampling_offsets = views[first + 4]->view;
    if (key_aware) {
      inputs.query = &views[0]->view;
      if (views.size() > 6) inputs.key = &views[6]->view;
    } else {
      inputs.attention_weights = &views[5]->view;
    }
    cpu::Call call(inputs);  // throws what names the wrong argument
    const TensorView& value = inputs.value;
    outputs[0].set_shape({static_cast<size_t>(value.size(0)), static_cast<size_t>(inputs.sampling_offsets.size(1)),
                          static_cast<size_t>(value.size(2) * value.size(3))});
    call.forward(outputs[0].data(), nullptr, parallel_for);
    return true;
  }
};

class KeyAwareDeformAttn : public AttentionOp {
 public:
  OPENVINO_OP("KeyAwareDeformAttn", "lite_detr");
  KeyAwareDeformAttn() = default;
  explicit KeyAwareDeformAttn(const ov::OutputVector& inputs) : AttentionOp(inputs) {
    constructor_validate_and_infer_types();
  }
  void validate_and_infer_types() override { infer(1, 6); }
  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
    return std::make_shared<KeyAwareDeformAttn>(inputs);
  }
  bool visit_attributes(ov::AttributeVisitor&) override { return true; }
  bool has_evaluate() const override { return true; }
  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
    return run(true, outputs, inputs);
  }
};

class MultiScaleDeformAttn : public AttentionOp {
 public:
  OPENVINO_OP("MultiScaleDeformAttn", "lite_detr");
  MultiScaleDeformAttn() = default;
  explicit MultiScaleDeformAttn(const ov::OutputVector& inputs) : AttentionOp(inputs) {
    constructor_validate_and_infer_types();
  }
  void validate_and_infer_types() override { infer(0, 6); }
  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
    return std::make_shared<MultiScaleDeformAttn>(inputs);
  }
  bool visit_attributes(ov::AttributeVisitor&) override { return true; }
  bool has_evaluate() const override { return true; }
  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
    return run(false, outputs, inputs);
  }
};

template <typename Node>
ov::Extension::Ptr from_onnx(const char* name) {
  return std::make_shared<ov::frontend::onnx::ConversionExtension>(
      name, "lite_detr", [](const ov::frontend::NodeContext& node) -> ov::OutputVector {
        ov::OutputVector inputs;
        for (size_t i = 0; i < node.get_input_size(); ++i) inputs.push_back(node.get_input(static_cast<int>(i)));
        return std::make_shared<Node>(inputs)->outputs();
      });
}

}  // namespace
}  // namespace lite_detr

OPENVINO_CREATE_EXTENSIONS(
    std::vector<ov::Extension::Ptr>({std::make_shared<ov::OpExtension<lite_detr::KeyAwareDeformAttn>>(),
                                     std::make_shared<ov::OpExtension<lite_detr::MultiScaleDeformAttn>>(),
                                     lite_detr::from_onnx<lite_detr::KeyAwareDeformAttn>("KeyAwareDeformAttn"),
                                     lite_detr::from_onnx<lite_detr::MultiScaleDeformAttn>("MultiScaleDeformAttn")}));
