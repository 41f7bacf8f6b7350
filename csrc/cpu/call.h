// Calls of the two operators on the CPU, free of torch: whoever uses this brings tensors, memory and threads.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "../core/arguments.h"
#include "kernels.h"

namespace lite_detr {
namespace cpu {

// Calls `body` with ranges that cover [begin, end), on as many threads as there are.
using Body = std::function<void(int64_t begin, int64_t end)>;
using ParallelFor = std::function<void(int64_t begin, int64_t end, const Body& body)>;

// Where gradients go. All are float32, or float64 where the inputs are, but those of the locations and the given
// weights, which have the dtypes of these. Contiguous but for grad_value and grad_key, which may have any strides
// with dense rows of channels and must hold zeros.
struct Gradients {
  void* query = nullptr;
  TensorView value;
  TensorView key;
  void* reference_points = nullptr;  // null: not wanted
  void* sampling_offsets = nullptr;
  void* attention_weights = nullptr;
};

// One call. The views must outlive it, and so must what they point to. `query`, `value`, `key` and `reference_points`
// have dense last dimensions (any strides before), `sampling_offsets` and `attention_weights` dense last two.
class Call {
 public:
  // Checks all arguments. Throws an ArgumentError that names the wrong one.
  explicit Call(const Inputs& inputs);

  // For inputs that were checked, with their levels.
  Call(const Inputs& inputs, std::vector<Level> levels);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // output (bs, num_queries, num_heads * head_dim) in the dtype of value. logsumexp (bs, num_queries, num_heads) in
  // float32, or float64 where value is; null where nobody asks and where the weights are given.
  void forward(void* output, void* logsumexp, const ParallelFor& parallel_for);

  // Gradients for float32 and float64. Deterministic: `num_threads` shares out the work and changes no sum.
  void backward(const TensorView& grad_output, const void* logsumexp, const Gradients& gradients, int64_t num_threads,
                const ParallelFor& parallel_for);

 private:
  void set_query_maps(int64_t num_value);

  Arguments args_{};
  std::vector<Level> levels_;
  std::vector<QueryMap> query_maps_;
};

}  // namespace cpu
}  // namespace lite_detr
