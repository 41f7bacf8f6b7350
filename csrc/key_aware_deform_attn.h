// Key-aware deformable attention: what the CPU and the CUDA implementation share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace lite_detr {

// Checks dtypes, sizes and devices of the arguments; shapes and meanings are those of the schema in
// key_aware_deform_attn.cpp. Raises TypeError or ValueError that names the argument, what was expected and what came.
// Reads the values of spatial_shapes and level_start_index where both lie in host memory and `query` does, too.
void check_arguments(const at::Tensor& query, const at::Tensor& value, const std::optional<at::Tensor>& key,
                     const at::Tensor& spatial_shapes, const at::Tensor& level_start_index,
                     const at::Tensor& reference_points, const at::Tensor& sampling_offsets);

// The same for the arguments that only the backward pass has.
void check_backward_arguments(const at::Tensor& query, const at::Tensor& grad_output, const at::Tensor& logsumexp);

}  // namespace lite_detr
