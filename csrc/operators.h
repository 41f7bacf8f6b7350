// The operators in torch: what the CPU and the CUDA implementation share. Meanings of the arguments: operators.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <vector>

#include "core/arguments.h"

namespace lite_detr {

// A view of a tensor for the checks and the CPU kernels; the tensor must outlive it.
TensorView view_of(const at::Tensor& tensor);

// Runs `function` and turns an ArgumentError into torch's TypeError or ValueError.
void with_torch_errors(const std::function<void()>& function);

// Check devices, dtypes and sizes, and the values of spatial_shapes and level_start_index where both lie in host
// memory, in one order for all backends. Raise TypeError or ValueError that names the argument, what was expected and
// what came. Return the levels, or nothing where they lie elsewhere. Call them once, first.
std::vector<Level> check_key_aware_deform_attn(const at::Tensor& query, const at::Tensor& value,
                                               const at::Tensor& spatial_shapes, const at::Tensor& level_start_index,
                                               const at::Tensor& reference_points, const at::Tensor& sampling_offsets,
                                               const std::optional<at::Tensor>& key);
std::vector<Level> check_multi_scale_deform_attn(const at::Tensor& value, const at::Tensor& spatial_shapes,
                                                 const at::Tensor& level_start_index,
                                                 const at::Tensor& reference_points,
                                                 const at::Tensor& sampling_offsets,
                                                 const at::Tensor& attention_weights);

// The same for the arguments that only the backward pass has, after those above. `leader` is query or, for
// multi-scale deformable attention, value; `logsumexp` is null for the latter.
void check_backward(const char* leader_name, const at::Tensor& leader, const at::Tensor& sampling_offsets,
                    const at::Tensor& grad_output, const at::Tensor* logsumexp);

}  // namespace lite_detr
