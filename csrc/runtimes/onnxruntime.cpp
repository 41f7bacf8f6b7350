// The operators in ONNX Runtime: nodes of the domain `lite_detr`, version 1, on the CPU.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "core/arguments.h"
#include "core/checks.h"
#include "cpu/call.h"

namespace lite_detr {
namespace {

// Tiles of queries that a thread takes at a time.
constexpr int64_t kTilesPerTask = 4;

ScalarType to_scalar_type(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return ScalarType::kFloat;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return ScalarType::kHalf;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return ScalarType::kLong;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return ScalarType::kInt;
    default:
      return ScalarType::kOther;
  }
}

// A tensor of ONNX Runtime with its sizes.
struct Tensor {
  std::vector<int64_t> sizes;
  TensorView view;

  explicit Tensor(const Ort::ConstValue& value) {
    const auto info = value.GetTensorTypeAndShapeInfo();
    sizes = info.GetShape();
    view.data = value.GetTensorRawData();
    view.type = to_scalar_type(info.GetElementType());
    view.ndim = static_cast<int64_t>(sizes.size());
    view.sizes = sizes.data();
    view.type_name = "another type";
  }
  Tensor(const Tensor&) = delete;
};

// Runs ranges on the threads of the session.
class Threads {
 public:
  explicit Threads(OrtKernelContext* context) : context_(context) {}
  void operator()(int64_t begin, int64_t end, const cpu::Body& body) const {
    struct Job {
      int64_t begin, end;
      const cpu::Body* body;
    } job{begin, end, &body};
    const int64_t tasks = (end - begin + kTilesPerTask - 1) / kTilesPerTask;
    if (tasks <= 1) return body(begin, end);
    Ort::ThrowOnError(Ort::GetApi().KernelContext_ParallelFor(
        context_,
        [](void* data, size_t index) {
          const Job& job = *static_cast<Job*>(data);
          const int64_t first = job.begin + static_cast<int64_t>(index) * kTilesPerTask;
          (*job.body)(first, std::min(first + kTilesPerTask, job.end));
        },
        static_cast<size_t>(tasks), 0, &job));
  }

 private:
  OrtKernelContext* context_;
};

template <bool KeyAware>
struct Kernel {
  OrtStatusPtr ComputeV2(OrtKernelContext* raw) {
    try {
      Ort::KernelContext context(raw);
      std::vector<std::unique_ptr<Tensor>> tensors;
      for (size_t i = 0; i < context.GetInputCount(); ++i) {
        const Ort::ConstValue value = context.GetInput(i);
        tensors.push_back(static_cast<const OrtValue*>(value) == nullptr ? nullptr : std::make_unique<Tensor>(value));
      }
      const size_t first = KeyAware ? 1 : 0;  // after the query
      Inputs inputs;
      inputs.value = tensors[first]->view;
      inputs.spatial_shapes = tensors[first + 1]->view;
      inputs.level_start_index = tensors[first + 2]->view;
      inputs.reference_points = tensors[first + 3]->view;
      inputs.sampling_offsets = tensors[first + 4]->view;
      if (KeyAware) {
        inputs.query = &tensors[0]->view;
        if (tensors.size() > 6 && tensors[6] != nullptr) inputs.key = &tensors[6]->view;
      } else {
        inputs.attention_weights = &tensors[5]->view;
      }
      cpu::Call call(inputs);
      const TensorView& value = inputs.value;
      const std::vector<int64_t> shape{value.size(0), inputs.sampling_offsets.size(1), value.size(2) * value.size(3)};
      Ort::UnownedValue output = context.GetOutput(0, shape);
      call.forward(output.GetTensorMutableRawData(), nullptr, Threads(raw));
      return nullptr;
    } catch (const ArgumentError& error) {
      return Ort::Status(error.what(), ORT_INVALID_ARGUMENT).release();
    } catch (const std::exception& error) {
      return Ort::Status(error.what(), ORT_RUNTIME_EXCEPTION).release();
    }
  }
};

// `Type` is that of values. Reference points are float32; offsets and weights come out of layers, as values do.
template <bool KeyAware, ONNXTensorElementDataType Type>
struct Op : Ort::CustomOpBase<Op<KeyAware, Type>, Kernel<KeyAware>, true> {
  static constexpr size_t kReferencePoints = KeyAware ? 4 : 3;

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo*, void** kernel) const {
    *kernel = new Kernel<KeyAware>();
    return nullptr;
  }
  const char* GetName() const { return KeyAware ? "KeyAwareDeformAttn" : "MultiScaleDeformAttn"; }
  size_t GetInputTypeCount() const { return KeyAware ? 7 : 6; }
  ONNXTensorElementDataType GetInputType(size_t index) const {
    if (index == kReferencePoints - 2 || index == kReferencePoints - 1) return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    return index == kReferencePoints ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : Type;
  }
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t index) const {
    return index == 6 ? OrtCustomOpInputOutputCharacteristic::INPUT_OUTPUT_OPTIONAL
                      : OrtCustomOpInputOutputCharacteristic::INPUT_OUTPUT_REQUIRED;
  }
  size_t GetOutputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return Type; }
};

}  // namespace
}  // namespace lite_detr

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    // Only the oldest interface is left to say so.
    return base->GetApi(1)->CreateStatus(ORT_FAIL, "this library was built for a newer ONNX Runtime");
  }
  Ort::InitApi(api);
  try {
    static const lite_detr::Op<true, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT> key_aware;
    static const lite_detr::Op<true, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16> key_aware_half;
    static const lite_detr::Op<false, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT> multi_scale;
    static const lite_detr::Op<false, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16> multi_scale_half;
    static Ort::CustomOpDomain domain = [] {
      Ort::CustomOpDomain made("lite_detr");
      made.Add(&key_aware);
      made.Add(&key_aware_half);
      made.Add(&multi_scale);
      made.Add(&multi_scale_half);
      return made;
    }();
    Ort::UnownedSessionOptions(options).Add(domain);
    return nullptr;
  } catch (const std::exception& error) {
    return Ort::Status(error).release();
  }
}
