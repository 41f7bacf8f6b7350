#include "checks.h"

#include <sstream>

namespace lite_detr {
namespace {

const char* name_of(const TensorView& tensor) {
  switch (tensor.type) {
    case ScalarType::kDouble:
      return "Double";
    case ScalarType::kFloat:
      return "Float";
    case ScalarType::kHalf:
      return "Half";
    case ScalarType::kBFloat16:
      return "BFloat16";
    case ScalarType::kLong:
      return "Long";
    case ScalarType::kInt:
      return "Int";
    default:
      return tensor.type_name == nullptr ? "another dtype" : tensor.type_name;
  }
}

std::ostream& operator<<(std::ostream& stream, const TensorView& tensor) {  // its shape
  stream << '[';
  for (int64_t dim = 0; dim < tensor.ndim; ++dim) stream << (dim > 0 ? ", " : "") << tensor.size(dim);
  return stream << ']';
}

template <typename... Parts>
[[noreturn]] void fail(ArgumentError::Kind kind, const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw ArgumentError(kind, message.str());
}

template <typename... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) fail(ArgumentError::Kind::kValue, parts...);
}

template <typename... Parts>
void require_type(bool condition, const Parts&... parts) {
  if (!condition) fail(ArgumentError::Kind::kType, parts...);
}

void check_ndim(const char* name, const TensorView& tensor, int64_t ndim, const char* layout) {
  require(tensor.ndim == ndim, name, " must have ", ndim, " dimensions ", layout, ", got shape ", tensor);
}

void check_float(const char* name, const TensorView& tensor, int64_t ndim, const char* layout) {
  require_type(is_float(tensor.type), name, " must be a float64, float32, bfloat16 or float16 tensor, got ",
               name_of(tensor));
  check_ndim(name, tensor, ndim, layout);
}

void check_index(const char* name, const TensorView& tensor, int64_t ndim, const char* layout) {
  require_type(tensor.type == ScalarType::kLong || tensor.type == ScalarType::kInt, name,
               " must be an int64 or int32 tensor, got ", name_of(tensor));
  check_ndim(name, tensor, ndim, layout);
}

void check_size(const char* name, const TensorView& tensor, int64_t dim, int64_t expected, const char* part,
                const char* owner) {
  require(tensor.size(dim) == expected, name, " must have size ", expected, " in dimension ", dim, " (", part, " of ",
          owner, "), got shape ", tensor);
}

void check_same_type(const char* name, const TensorView& tensor, const char* owner, const TensorView& other) {
  require_type(tensor.type == other.type, name, " must have the dtype of ", owner, ", ", name_of(other), ", got ",
               name_of(tensor));
}

int64_t read_index(const TensorView& tensor, int64_t offset) {
  return tensor.type == ScalarType::kInt ? static_cast<const int32_t*>(tensor.data)[offset]
                                         : static_cast<const int64_t*>(tensor.data)[offset];
}

}  // namespace

void check_inputs(const Inputs& in) {
  const TensorView& value = in.value;
  const TensorView& points = in.reference_points;
  const TensorView& offsets = in.sampling_offsets;
  const bool key_aware = in.query != nullptr;
  if (key_aware) check_float("query", *in.query, 4, "(bs, num_queries, num_heads, head_dim)");
  check_float("value", value, 4, "(bs, num_value, num_heads, head_dim)");
  check_index("spatial_shapes", in.spatial_shapes, 2, "(num_levels, 2)");
  check_index("level_start_index", in.level_start_index, 1, "(num_levels, )");
  check_float("reference_points", points, 4, "(bs, num_queries, num_levels, 2 or 4)");
  check_float("sampling_offsets", offsets, 6, "(bs, num_queries, num_heads, num_levels or 1, num_points, 2)");
  if (!key_aware) {
    check_float("attention_weights", *in.attention_weights, 5, "(bs, num_queries, num_heads, num_levels, num_points)");
  }

  // The tensor that tells batch size, heads and channels, and the one that tells the queries.
  const TensorView& leader = key_aware ? *in.query : value;
  const char* leader_name = key_aware ? "query" : "value";
  const TensorView& asker = key_aware ? *in.query : offsets;
  const char* asker_name = key_aware ? "query" : "sampling_offsets";
  const int64_t num_levels = in.spatial_shapes.size(0);
  require(leader.size(2) >= 1 && leader.size(3) >= 1, leader_name,
          " must have at least one head and one channel per head, got shape ", leader);
  require(num_levels >= 1, "spatial_shapes must hold at least one level, got none");

  if (key_aware) {
    check_same_type("value", value, "query", leader);
    check_size("value", value, 0, leader.size(0), "the batch size", "query");
    check_size("value", value, 2, leader.size(2), "the heads", "query");
    check_size("value", value, 3, leader.size(3), "the channels per head", "query");
  }
  check_size("spatial_shapes", in.spatial_shapes, 1, 2, "height and width", "a level");
  check_size("level_start_index", in.level_start_index, 0, num_levels, "the levels", "spatial_shapes");

  check_size("reference_points", points, 0, leader.size(0), "the batch size", leader_name);
  check_size("reference_points", points, 1, asker.size(1), "the queries", asker_name);
  check_size("reference_points", points, 2, num_levels, "the levels", "spatial_shapes");
  require(points.size(3) == 2 || points.size(3) == 4,
          "reference_points must hold points (x, y) or boxes (x, y, w, h) in its last dimension, got shape ", points);

  check_size("sampling_offsets", offsets, 0, leader.size(0), "the batch size", leader_name);
  if (key_aware) check_size("sampling_offsets", offsets, 1, asker.size(1), "the queries", asker_name);
  check_size("sampling_offsets", offsets, 2, leader.size(2), "the heads", leader_name);
  require(offsets.size(3) == 1 || offsets.size(3) == num_levels, "sampling_offsets must have size ", num_levels,
          " (the levels of spatial_shapes) or 1 (offsets shared by the levels) in dimension 3, got shape ", offsets);
  require(offsets.size(4) >= 1, "sampling_offsets must hold at least one point, got shape ", offsets);
  check_size("sampling_offsets", offsets, 5, 2, "x and y", "an offset");

  if (in.key != nullptr) {
    check_float("key", *in.key, 4, "(bs, num_value, num_heads, head_dim)");
    check_same_type("key", *in.key, "query", leader);
    bool same = true;
    for (int64_t dim = 0; dim < 4; ++dim) same = same && in.key->size(dim) == value.size(dim);
    require(same, "key must have the shape of value, ", value, ", got ", *in.key);
  }
  if (!key_aware) {
    const TensorView& weights = *in.attention_weights;
    check_size("attention_weights", weights, 0, leader.size(0), "the batch size", leader_name);
    check_size("attention_weights", weights, 1, asker.size(1), "the queries", asker_name);
    check_size("attention_weights", weights, 2, leader.size(2), "the heads", leader_name);
    check_size("attention_weights", weights, 3, num_levels, "the levels", "spatial_shapes");
    check_size("attention_weights", weights, 4, offsets.size(4), "the points", "sampling_offsets");
  }
}

void check_backward_inputs(const char* leader_name, const TensorView& leader, const TensorView& offsets,
                           const TensorView& grad_output, const TensorView* logsumexp) {
  check_same_type("grad_output", grad_output, leader_name, leader);
  require(grad_output.ndim == 3 && grad_output.size(0) == leader.size(0) && grad_output.size(1) == offsets.size(1) &&
              grad_output.size(2) == leader.size(2) * leader.size(3),
          "grad_output must have the shape (bs, num_queries, num_heads * head_dim) = (", leader.size(0), ", ",
          offsets.size(1), ", ", leader.size(2) * leader.size(3), ") of the output, got ", grad_output);
  if (logsumexp == nullptr) return;
  const bool is_double = leader.type == ScalarType::kDouble;
  require_type(logsumexp->type == (is_double ? ScalarType::kDouble : ScalarType::kFloat), "logsumexp must be a ",
               is_double ? "Double" : "Float", " tensor, got ", name_of(*logsumexp));
  require(logsumexp->ndim == 3 && logsumexp->size(0) == leader.size(0) && logsumexp->size(1) == leader.size(1) &&
              logsumexp->size(2) == leader.size(2),
          "logsumexp must have the shape (bs, num_queries, num_heads) of query ", leader, ", got ", *logsumexp);
}

std::vector<Level> read_levels(const TensorView& spatial_shapes, const TensorView& level_start_index,
                               int64_t num_value) {
  std::vector<Level> levels;
  int64_t num_tokens = 0;
  for (int64_t i = 0; i < spatial_shapes.size(0); ++i) {
    const int64_t row = i * spatial_shapes.stride(0);
    const Level level{read_index(level_start_index, i * level_start_index.stride(0)), read_index(spatial_shapes, row),
                      read_index(spatial_shapes, row + spatial_shapes.stride(1))};
    require(level.height >= 0 && level.width >= 0, "spatial_shapes must not be negative, got (", level.height, ", ",
            level.width, ") for level ", i);
    require(level.start == num_tokens, "level_start_index must be ", num_tokens, " for level ", i,
            ", the number of tokens of the levels before it, got ", level.start);
    // Divides instead of multiplying: the product of two wrong sizes may not fit 64 bits.
    require(level.width == 0 || level.height <= (num_value - num_tokens) / level.width,
            "spatial_shapes must add up to the ", num_value, " tokens of value, got more with (", level.height, ", ",
            level.width, ") for level ", i);
    num_tokens += level.height * level.width;
    levels.push_back(level);
  }
  require(num_tokens == num_value, "spatial_shapes must add up to the ", num_value, " tokens of value, got ",
          num_tokens);
  return levels;
}

}  // namespace lite_detr
