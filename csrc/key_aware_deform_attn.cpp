// Schema and argument checks of key-aware deformable attention (Lite DETR, Sec. 3.6, Eq. 4).
#include "key_aware_deform_attn.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

namespace lite_detr {
namespace {

bool is_supported_float(at::ScalarType type) {
  return type == at::kDouble || type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
}

void check_tensor(const char* name, const at::Tensor& tensor, int64_t ndim, const char* layout) {
  TORCH_CHECK_TYPE(is_supported_float(tensor.scalar_type()), name,
                   " must be a float64, float32, bfloat16 or float16 tensor, got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.dim() == ndim, name, " must have ", ndim, " dimensions ", layout, ", got shape ",
                    tensor.sizes());
}

void check_index_tensor(const char* name, const at::Tensor& tensor, int64_t ndim, const char* layout) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == at::kLong || tensor.scalar_type() == at::kInt, name,
                   " must be an int64 or int32 tensor, got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.dim() == ndim, name, " must have ", ndim, " dimensions ", layout, ", got shape ",
                    tensor.sizes());
}

void check_size(const char* name, const at::Tensor& tensor, int64_t dim, int64_t expected, const char* meaning) {
  TORCH_CHECK_VALUE(tensor.size(dim) == expected, name, " must have size ", expected, " in dimension ", dim, " (",
                    meaning, "), got shape ", tensor.sizes());
}

void check_device(const char* name, const at::Tensor& tensor, const at::Tensor& query) {
  TORCH_CHECK_VALUE(tensor.device() == query.device(), name, " must be on the device of query, ", query.device(),
                    ", got ", tensor.device());
}

// The kernels take each level's tokens from these values, so a wrong one would read outside of `value`.
void check_levels(const at::Tensor& spatial_shapes, const at::Tensor& level_start_index, int64_t num_value) {
  const at::Tensor shapes = spatial_shapes.to(at::kLong).contiguous();
  const at::Tensor starts = level_start_index.to(at::kLong).contiguous();
  const int64_t* shape = shapes.const_data_ptr<int64_t>();
  const int64_t* start = starts.const_data_ptr<int64_t>();
  int64_t num_tokens = 0;
  for (int64_t level = 0; level < shapes.size(0); ++level) {
    const int64_t height = shape[2 * level];
    const int64_t width = shape[2 * level + 1];
    TORCH_CHECK_VALUE(height >= 0 && width >= 0, "spatial_shapes must not be negative, got (", height, ", ", width,
                      ") for level ", level);
    TORCH_CHECK_VALUE(start[level] == num_tokens, "level_start_index must be ", num_tokens, " for level ", level,
                      ", the number of tokens of the levels before it, got ", start[level]);
    // Divides instead of multiplying: the product of two wrong sizes may not fit 64 bits.
    TORCH_CHECK_VALUE(width == 0 || height <= (num_value - num_tokens) / width, "spatial_shapes must add up to the ",
                      num_value, " tokens of value, got more with (", height, ", ", width, ") for level ", level);
    num_tokens += height * width;
  }
  TORCH_CHECK_VALUE(num_tokens == num_value, "spatial_shapes must add up to the ", num_value, " tokens of value, got ",
                    num_tokens);
}

}  // namespace

void check_arguments(const at::Tensor& query, const at::Tensor& value, const std::optional<at::Tensor>& key,
                     const at::Tensor& spatial_shapes, const at::Tensor& level_start_index,
                     const at::Tensor& reference_points, const at::Tensor& sampling_offsets) {
  check_tensor("query", query, 4, "(bs, num_queries, num_heads, head_dim)");
  check_tensor("value", value, 4, "(bs, num_value, num_heads, head_dim)");
  check_index_tensor("spatial_shapes", spatial_shapes, 2, "(num_levels, 2)");
  check_index_tensor("level_start_index", level_start_index, 1, "(num_levels, )");
  check_tensor("reference_points", reference_points, 4, "(bs, num_queries, num_levels, 2 or 4)");
  check_tensor("sampling_offsets", sampling_offsets, 6,
               "(bs, num_queries, num_heads, num_levels or 1, num_points, 2)");
  const int64_t num_levels = spatial_shapes.size(0);
  TORCH_CHECK_VALUE(query.size(2) >= 1 && query.size(3) >= 1,
                    "query must have at least one head and one channel per head, got shape ", query.sizes());
  TORCH_CHECK_VALUE(num_levels >= 1, "spatial_shapes must hold at least one level, got none");

  TORCH_CHECK_TYPE(value.scalar_type() == query.scalar_type(), "value must have the dtype of query, ",
                   query.scalar_type(), ", got ", value.scalar_type());
  check_size("value", value, 0, query.size(0), "the batch size of query");
  check_size("value", value, 2, query.size(2), "the heads of query");
  check_size("value", value, 3, query.size(3), "the channels per head of query");
  if (key.has_value()) {
    TORCH_CHECK_TYPE(key->scalar_type() == query.scalar_type(), "key must have the dtype of query, ",
                     query.scalar_type(), ", got ", key->scalar_type());
    TORCH_CHECK_VALUE(key->sizes() == value.sizes(), "key must have the shape of value, ", value.sizes(), ", got ",
                      key->sizes());
    check_device("key", *key, query);
  }

  check_size("spatial_shapes", spatial_shapes, 1, 2, "height and width");
  check_size("level_start_index", level_start_index, 0, num_levels, "the levels of spatial_shapes");

  check_size("reference_points", reference_points, 0, query.size(0), "the batch size of query");
  check_size("reference_points", reference_points, 1, query.size(1), "the queries of query");
  check_size("reference_points", reference_points, 2, num_levels, "the levels of spatial_shapes");
  TORCH_CHECK_VALUE(reference_points.size(3) == 2 || reference_points.size(3) == 4,
                    "reference_points must hold points (x, y) or boxes (x, y, w, h) in its last dimension, got shape ",
                    reference_points.sizes());

  check_size("sampling_offsets", sampling_offsets, 0, query.size(0), "the batch size of query");
  check_size("sampling_offsets", sampling_offsets, 1, query.size(1), "the queries of query");
  check_size("sampling_offsets", sampling_offsets, 2, query.size(2), "the heads of query");
  TORCH_CHECK_VALUE(sampling_offsets.size(3) == 1 || sampling_offsets.size(3) == num_levels,
                    "sampling_offsets must have size ", num_levels,
                    " (the levels of spatial_shapes) or 1 (offsets shared by the levels) in dimension 3, got shape ",
                    sampling_offsets.sizes());
  TORCH_CHECK_VALUE(sampling_offsets.size(4) >= 1, "sampling_offsets must hold at least one point, got shape ",
                    sampling_offsets.sizes());
  check_size("sampling_offsets", sampling_offsets, 5, 2, "x and y");

  check_device("value", value, query);
  check_device("reference_points", reference_points, query);
  check_device("sampling_offsets", sampling_offsets, query);
  TORCH_CHECK_VALUE(spatial_shapes.device() == query.device() || spatial_shapes.is_cpu(),
                    "spatial_shapes must be on the device of query, ", query.device(), ", or on cpu, got ",
                    spatial_shapes.device());
  TORCH_CHECK_VALUE(level_start_index.device() == query.device() || level_start_index.is_cpu(),
                    "level_start_index must be on the device of query, ", query.device(), ", or on cpu, got ",
                    level_start_index.device());
  if (spatial_shapes.is_cpu() && level_start_index.is_cpu()) {
    check_levels(spatial_shapes, level_start_index, value.size(1));
  }
}

void check_backward_arguments(const at::Tensor& query, const at::Tensor& grad_output, const at::Tensor& logsumexp) {
  TORCH_CHECK_TYPE(grad_output.scalar_type() == query.scalar_type(), "grad_output must have the dtype of query, ",
                   query.scalar_type(), ", got ", grad_output.scalar_type());
  TORCH_CHECK_VALUE(grad_output.dim() == 3 && grad_output.size(0) == query.size(0) &&
                        grad_output.size(1) == query.size(1) && grad_output.size(2) == query.size(2) * query.size(3),
                    "grad_output must have the shape (bs, num_queries, num_heads * head_dim) of query ", query.sizes(),
                    ", got ", grad_output.sizes());
  const at::ScalarType type = query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK_TYPE(logsumexp.scalar_type() == type, "logsumexp must be a ", type, " tensor, got ",
                   logsumexp.scalar_type());
  TORCH_CHECK_VALUE(logsumexp.sizes() == query.sizes().slice(0, 3),
                    "logsumexp must have the shape (bs, num_queries, num_heads) of query ", query.sizes(), ", got ",
                    logsumexp.sizes());
  check_device("grad_output", grad_output, query);
  check_device("logsumexp", logsumexp, query);
}

}  // namespace lite_detr

TORCH_LIBRARY(lite_detr, m) {
  // query (bs, num_queries, num_heads, head_dim); value and key (bs, num_value, num_heads, head_dim), all of one
  // dtype; no key means that the key is the value. spatial_shapes (num_levels, 2) and level_start_index (num_levels, )
  // are integers. reference_points (bs, num_queries, num_levels, 2 or 4) and sampling_offsets (bs, num_queries,
  // num_heads, num_levels or 1, num_points, 2) may each have a floating dtype of their own. output (bs, num_queries,
  // num_heads * head_dim) has the dtype of query; logsumexp (bs, num_queries, num_heads) of the scaled logits over all
  // samples is float32 (float64 for float64).
  m.def(
      "key_aware_deform_attn(Tensor query, Tensor value, Tensor? key, Tensor spatial_shapes, "
      "Tensor level_start_index, Tensor reference_points, Tensor sampling_offsets) "
      "-> (Tensor output, Tensor logsumexp)");
  // grad_key is empty when there is no key: grad_value then holds the gradient of both.
  m.def(
      "key_aware_deform_attn_backward(Tensor grad_output, Tensor query, Tensor value, Tensor? key, "
      "Tensor spatial_shapes, Tensor level_start_index, Tensor reference_points, Tensor sampling_offsets, "
      "Tensor logsumexp) -> (Tensor grad_query, Tensor grad_value, Tensor grad_key, "
      "Tensor grad_reference_points, Tensor grad_sampling_offsets)");
  // The instruction set that the CPU kernels were chosen for.
  m.def("cpu_capability() -> str");
}
