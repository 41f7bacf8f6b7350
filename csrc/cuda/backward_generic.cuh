// Backward kernel for any head_dim, for double, and for more samples than the fast kernel has room for.
#pragma once

#include "generic_path.cuh"
#include "scatter.cuh"

namespace lite_detr {
namespace cuda {

// Weight of a sample, and the gradient with respect to it.
template <typename A>
struct GenericWeight {
  A weight, grad;
};

template <typename T>
struct GenericBackward {
  using A = Accumulator<T>;
  const GenericHead<T>& head;
  const T* grad_output;
  A scale, logsumexp;  // of the logits; in base 2
  bool given;

  __device__ __forceinline__ GenericWeight<A> weigh(const GenericSample<A>& sample, int level, int point) const {
    A dot = A(0);
    for (int channel = threadIdx.x % 32; channel < head.inputs.head_dim; channel += 32) {
      dot += convert_to<A>(grad_output[channel]) * head.sample_channel(head.value, sample, channel);
    }
    dot = group_sum<32>(dot);
    if (given) return {head.given_weight(level, point), dot};
    return {exp2_of(head.compare(sample) * scale * A(kLog2E) - logsumexp), dot};
  }
};

template <typename T>
__global__ void __launch_bounds__(kGenericThreads, kGenericMinBlocks<T>)
    backward_generic_kernel(const DeformAttnBackward arguments) {
  using A = Accumulator<T>;
  const DeformAttnInputs& inputs = arguments.inputs;
  LITE_DETR_SHARED_MEMORY(shared);
  Level* levels = reinterpret_cast<Level*>(shared);
  fill_levels(inputs, levels);

  const GenericHead<T> head(inputs, levels);
  if (!head.exists) return;  // a whole warp
  const int lane = threadIdx.x % 32;
  const bool given = inputs.attention == Attention::kGivenWeights;
  const bool separate = inputs.attention == Attention::kSeparateKey;
  const GenericBackward<T> walk{
      head, static_cast<const T*>(arguments.grad_output) + head.first_query_channel, A(1) / sqrt(A(inputs.head_dim)),
      given ? A(0) : static_cast<const A*>(arguments.logsumexp)[head.pair] * A(kLog2E), given};
  const int batch = static_cast<int>(head.row / inputs.num_queries);
  const int head_index = static_cast<int>(head.pair - head.row * inputs.num_heads);
  const Scatter<A> scatter_value = make_scatter<A>(arguments, arguments.grad_value_sum, batch, head_index);
  const Scatter<A> scatter_key{separate ? arguments.grad_key_sum : arguments.grad_value_sum, scatter_value.fixed,
                               scatter_value.scale};

  A delta = A(0);
  for (int level = 0; !given && level < inputs.num_levels; ++level) {
    for (int point = 0; point < inputs.num_points; ++point) {
      const GenericWeight<A> s = walk.weigh(head.find_sample(level, point), level, point);
      delta += s.weight * s.grad;
    }
  }

  A* references =
      arguments.grad_reference_per_head == nullptr
          ? nullptr
          : static_cast<A*>(arguments.grad_reference_per_head) + head.pair * inputs.num_levels * inputs.reference_dim;
  // As many channels of grad_query as fit into registers at a time; the first time everything else is done as well.
  for (int first = 0; first < inputs.head_dim; first += kGenericBlock) {
    if (given && first > 0) break;
    A grad_query[kGenericChannels];
#pragma unroll
    for (int i = 0; i < kGenericChannels; ++i) grad_query[i] = A(0);
    // The levels inside, as they may share the offsets of a point.
    for (int point = 0; point < inputs.num_points; ++point) {
      A offset_x = A(0), offset_y = A(0);
      for (int level = 0; level < inputs.num_levels; ++level) {
        const GenericSample<A> sample = head.find_sample(level, point);
        const GenericWeight<A> s = walk.weigh(sample, level, point);
        const A logit_grad = given ? A(0) : s.weight * (s.grad - delta) * walk.scale;
        if (!given) {
#pragma unroll
          for (int i = 0; i < kGenericChannels; ++i) {
            const int channel = first + lane + 32 * i;
            if (channel < inputs.head_dim)
              grad_query[i] += logit_grad * head.sample_channel(head.key, sample, channel);
          }
        }
        if (first > 0) continue;

        A corner_grad[4] = {A(0), A(0), A(0), A(0)};
        for (int channel = lane; channel < inputs.head_dim; channel += 32) {
          const A grad_of_value = s.weight * convert_to<A>(walk.grad_output[channel]);
          const A grad_of_key = given ? A(0) : logit_grad * convert_to<A>(head.query[channel]);
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            const int token = sample.token[c];
            if (token < 0) continue;
            corner_grad[c] += grad_of_value * head.corner_channel(head.value, token, channel);
            if (!given) corner_grad[c] += grad_of_key * head.corner_channel(head.key, token, channel);
            const int64_t index = head.first_value_channel + token * inputs.value_strides.token + channel;
            const A weight = sample.weight[c];
            if (!separate) {
              const A merged[1] = {weight * (grad_of_value + grad_of_key)};
              scatter_value.add(index, merged);
            } else {
              const A to_value[1] = {weight * grad_of_value}, to_key[1] = {weight * grad_of_key};
              scatter_value.add(index, to_value);
              scatter_key.add(index, to_key);
            }
          }
        }
#pragma unroll
        for (int c = 0; c < 4; ++c) corner_grad[c] = group_sum<32>(corner_grad[c]);
        const Level& map = levels[level];
        const LocationGradient<A> location =
            location_gradient(sample.at, sample.cell, map.width, map.height, inputs.num_points, corner_grad);
        if (inputs.offset_levels == 1) {
          offset_x += location.offset_x;
          offset_y += location.offset_y;
        } else {
          offset_x = location.offset_x;
          offset_y = location.offset_y;
        }
        if (lane == 0) {
          if (given) {
            const int64_t index = (head.pair * inputs.num_levels + level) * inputs.num_points + point;
            store_as(arguments.grad_attention_weights, inputs.weight_dtype, index, s.grad);
          }
          if (inputs.offset_levels > 1 || level == inputs.num_levels - 1) {
            const int64_t offset_level = inputs.offset_levels > 1 ? level : 0;
            const int64_t index = 2 * ((head.pair * inputs.offset_levels + offset_level) * inputs.num_points + point);
            store_as(arguments.grad_sampling_offsets, inputs.offset_dtype, index, offset_x);
            store_as(arguments.grad_sampling_offsets, inputs.offset_dtype, index + 1, offset_y);
          }
          if (references != nullptr) {
            A* reference = references + level * inputs.reference_dim;
            const A parts[4] = {location.center_x, location.center_y, location.box_width, location.box_height};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              if (i < inputs.reference_dim) reference[i] = (point == 0 ? A(0) : reference[i]) + parts[i];
            }
          }
        }
      }
    }
    if (given) break;
#pragma unroll
    for (int i = 0; i < kGenericChannels; ++i) {
      const int channel = first + lane + 32 * i;
      if (channel < inputs.head_dim) {
        static_cast<T*>(arguments.grad_query)[head.first_query_channel + channel] = convert_to<T>(grad_query[i]);
      }
    }
  }
}

}  // namespace cuda
}  // namespace lite_detr
