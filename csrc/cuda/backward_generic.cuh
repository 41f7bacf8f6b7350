// Backward kernel for any head_dim, for double, and for more samples than the fast kernel has room for.
#pragma once

#include "generic_path.cuh"
#include "scatter.cuh"

namespace lite_detr {
namespace cuda {

// One sample as the whole warp sees it.
template <typename A>
struct GenericSample {
  Location<A> at;
  Sample<A> sample;
  A weight, grad;  // softmax weight, and the gradient with respect to it
};

template <typename T>
struct GenericBackward {
  using A = Accumulator<T>;
  const KeyAwareDeformAttnInputs& inputs;
  const Level* levels;
  const GenericHead<T>& head;
  const T* query;
  const T* grad;
  A scale, logsumexp;  // of the logits; in base 2
  int lane;

  __device__ __forceinline__ GenericSample<A> visit(int level, int point) const {
    GenericSample<A> result;
    result.at = locate<A>(inputs, levels[level], head.row, head.pair, level, point);
    result.sample = make_sample(levels[level], result.at.x, result.at.y);
    A logit = A(0), dot = A(0);
    for (int channel = lane; channel < inputs.head_dim; channel += 32) {
      logit += convert_to<A>(query[channel]) * head.sample_channel(head.key, result.sample, channel);
      dot += convert_to<A>(grad[channel]) * head.sample_channel(head.value, result.sample, channel);
    }
    logit = group_sum<32>(logit) * scale;
    result.grad = group_sum<32>(dot);
    result.weight = exp2_of(logit * A(kLog2E) - logsumexp);
    return result;
  }
};

template <typename T>
__global__ void __launch_bounds__(kGenericThreads, kGenericMinBlocks<T>)
    backward_generic_kernel(const KeyAwareDeformAttnBackward arguments) {
  using A = Accumulator<T>;
  const KeyAwareDeformAttnInputs& inputs = arguments.inputs;
  LITE_DETR_SHARED_MEMORY(shared);
  Level* levels = reinterpret_cast<Level*>(shared);
  fill_levels(inputs, levels);

  const GenericHead<T> head(inputs);
  if (!head.exists) return;  // a whole warp
  const int lane = threadIdx.x % 32;
  const GenericBackward<T> walk{inputs,
                                levels,
                                head,
                                static_cast<const T*>(inputs.query) + head.first_query_channel,
                                static_cast<const T*>(arguments.grad_output) + head.first_query_channel,
                                A(1) / sqrt(A(inputs.head_dim)),
                                static_cast<const A*>(arguments.logsumexp)[head.pair] * A(kLog2E),
                                lane};
  const Scatter<A> scatter_value = make_scatter<A>(arguments, arguments.grad_value_sum);
  const Scatter<A> scatter_key{inputs.key == nullptr ? arguments.grad_value_sum : arguments.grad_key_sum,
                               scatter_value.fixed, scatter_value.scale};

  A delta = A(0);
  for (int level = 0; level < inputs.num_levels; ++level) {
    for (int point = 0; point < inputs.num_points; ++point) {
      const GenericSample<A> s = walk.visit(level, point);
      delta += s.weight * s.grad;
    }
  }

  A* references =
      static_cast<A*>(arguments.grad_reference_per_head) + head.pair * inputs.num_levels * inputs.reference_dim;
  // As many channels of grad_query as fit into registers at a time; the first time everything else is done as well.
  for (int first = 0; first < inputs.head_dim; first += kGenericBlock) {
    A grad_query[kGenericChannels];
#pragma unroll
    for (int i = 0; i < kGenericChannels; ++i) grad_query[i] = A(0);
    // The levels inside, as they may share the offsets of a point.
    for (int point = 0; point < inputs.num_points; ++point) {
      A offset_x = A(0), offset_y = A(0);
      for (int level = 0; level < inputs.num_levels; ++level) {
        const GenericSample<A> s = walk.visit(level, point);
        const A logit_grad = s.weight * (s.grad - delta) * walk.scale;
#pragma unroll
        for (int i = 0; i < kGenericChannels; ++i) {
          const int channel = first + lane + 32 * i;
          if (channel < inputs.head_dim)
            grad_query[i] += logit_grad * head.sample_channel(head.key, s.sample, channel);
        }
        if (first > 0) continue;

        A corner_grad[4] = {A(0), A(0), A(0), A(0)};
        for (int channel = lane; channel < inputs.head_dim; channel += 32) {
          const A grad_of_value = s.weight * convert_to<A>(walk.grad[channel]);
          const A grad_of_key = logit_grad * convert_to<A>(walk.query[channel]);
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            const int token = s.sample.corners.token[c];
            if (token < 0) continue;
            const A value = head.corner_channel(head.value, token, channel);
            const A key = head.corner_channel(head.key, token, channel);
            corner_grad[c] += grad_of_value * value + grad_of_key * key;
            const int64_t index = head.first_token_channel + token * head.token_stride + channel;
            const A weight = s.sample.weights.weight[c];
            if (inputs.key == nullptr) {
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
        const LocationGradient<A> location =
            location_gradient(s.at, s.sample, levels[level], inputs.num_points, corner_grad);
        if (inputs.offset_levels == 1) {
          offset_x += location.offset_x;
          offset_y += location.offset_y;
        } else {
          offset_x = location.offset_x;
          offset_y = location.offset_y;
        }
        if (lane == 0) {
          if (inputs.offset_levels > 1 || level == inputs.num_levels - 1) {
            const int64_t offset_level = inputs.offset_levels > 1 ? level : 0;
            const int64_t index = 2 * ((head.pair * inputs.offset_levels + offset_level) * inputs.num_points + point);
            store_as(arguments.grad_sampling_offsets, inputs.offset_dtype, index, offset_x);
            store_as(arguments.grad_sampling_offsets, inputs.offset_dtype, index + 1, offset_y);
          }
          A* reference = references + level * inputs.reference_dim;
          const A parts[4] = {location.center_x, location.center_y, location.box_width, location.box_height};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (i < inputs.reference_dim) reference[i] = (point == 0 ? A(0) : reference[i]) + parts[i];
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kGenericChannels; ++i) {
      const int channel = first + lane + 32 * i;
      if (channel < inputs.head_dim) {
        static_cast<T*>(arguments.grad_query)[head.first_query_channel + channel] = convert_to<T>(grad_query[i]);
      }
    }
  }
}

template <typename T>
cudaError_t launch_backward_generic(const KeyAwareDeformAttnBackward& arguments, cudaStream_t stream) {
  const int64_t blocks = count_generic_blocks(arguments.inputs);
  const int64_t shared_bytes = level_table_bytes(arguments.inputs.num_levels);
  if (blocks > kMaxBlocks || shared_bytes > kMaxSharedBytes) return cudaErrorInvalidConfiguration;
  LITE_DETR_LAUNCH((backward_generic_kernel<T>), blocks, kGenericThreads, shared_bytes, stream, arguments);
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace lite_detr
