// Forward kernel for any head_dim, and for double: one warp a head, one channel a load. Built to be right.
#pragma once

#include "generic_path.cuh"

namespace lite_detr {
namespace cuda {

template <typename T>
__global__ void __launch_bounds__(kGenericThreads, kGenericMinBlocks<T>)
    forward_generic_kernel(const DeformAttnForward arguments) {
  using A = Accumulator<T>;
  const DeformAttnInputs& inputs = arguments.inputs;
  LITE_DETR_SHARED_MEMORY(shared);
  Level* levels = reinterpret_cast<Level*>(shared);
  fill_levels(inputs, levels);

  const GenericHead<T> head(inputs, levels);
  if (!head.exists) return;  // a whole warp
  const int lane = threadIdx.x % 32;
  const bool given = inputs.attention == Attention::kGivenWeights;
  const A scale = A(kLog2E) / sqrt(A(inputs.head_dim));

  // As many channels as fit into registers at a time; each time the logits are computed again.
  for (int first = 0; first < inputs.head_dim; first += kGenericBlock) {
    A max = A(-3.4e38), sum = A(0), weighted[kGenericChannels];
#pragma unroll
    for (int i = 0; i < kGenericChannels; ++i) weighted[i] = A(0);
    for (int level = 0; level < inputs.num_levels; ++level) {
      for (int point = 0; point < inputs.num_points; ++point) {
        const GenericSample<A> sample = head.find_sample(level, point);
        A rescale = A(1), weight;
        if (given) {
          weight = head.given_weight(level, point);
        } else {
          const A logit = head.compare(sample) * scale;
          const A new_max = larger_of(max, logit);
          rescale = exp2_of(max - new_max);
          weight = exp2_of(logit - new_max);
          max = new_max;
          sum = sum * rescale + weight;
        }
#pragma unroll
        for (int i = 0; i < kGenericChannels; ++i) {
          const int channel = first + lane + 32 * i;
          weighted[i] *= rescale;
          if (channel < inputs.head_dim) weighted[i] += weight * head.sample_channel(head.value, sample, channel);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kGenericChannels; ++i) {
      const int channel = first + lane + 32 * i;
      if (channel < inputs.head_dim) {
        const A result = given ? weighted[i] : weighted[i] / sum;
        static_cast<T*>(arguments.output)[head.first_query_channel + channel] = convert_to<T>(result);
      }
    }
    if (!given && first == 0 && lane == 0) {
      static_cast<A*>(arguments.logsumexp)[head.pair] = (max + log2_of(sum)) * A(kLn2);
    }
  }
}

}  // namespace cuda
}  // namespace lite_detr
