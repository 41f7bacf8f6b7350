// Every check of the arguments of the two operators, in one order. Free of torch.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "arguments.h"

namespace lite_detr {

// A wrong argument. The message names it, what was expected and what came.
class ArgumentError : public std::runtime_error {
 public:
  enum class Kind { kType, kValue };
  ArgumentError(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

// Dtypes and sizes of all inputs. Reads no data.
void check_inputs(const Inputs& inputs);

// The same for what only the backward pass takes. `leader` is the query or, where the attention weights are given, the
// value; `logsumexp` is null for the latter.
void check_backward_inputs(const char* leader_name, const TensorView& leader, const TensorView& sampling_offsets,
                           const TensorView& grad_output, const TensorView* logsumexp);

// The levels, whose values must fit the `num_value` tokens: the kernels take each level's tokens from them, so a wrong
// one would read outside of `value`. Both tensors must lie in host memory.
std::vector<Level> read_levels(const TensorView& spatial_shapes, const TensorView& level_start_index,
                               int64_t num_value);

}  // namespace lite_detr
