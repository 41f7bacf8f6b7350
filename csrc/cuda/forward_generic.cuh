// Forward kernel for any head_dim, and for double: one warp a head, one channel a load. Built to be right.
#pragma once

#include "fast_path.cuh"
#include "generic_path.cuh"

namespace lite_detr {
namespace cuda {

template <typename T>
__global__ void __launch_bounds__(kGenericThreads, kGenericMinBlocks<T>)
    forward_generic_kernel(const KeyAwareDeformAttnForward arguments) {
  using A = Accumulator<T>;
  const KeyAwareDeformAttnInputs& inputs = arguments.inputs;
  LITE_DETR_SHARED_MEMORY(shared);
  Level* levels = reinterpret_cast<Level*>(shared);
  fill_levels(inputs, levels);

  const GenericHead<T> head(inputs);
  if (!head.exists) return;  // a whole warp
  const int lane = threadIdx.x % 32;
  const T* query = static_cast<const T*>(inputs.query) + head.first_query_channel;
  const A scale = A(kLog2E) / sqrt(A(inputs.head_dim));

  // As many channels as fit into registers at a time; each time the logits are computed again.
  for (int first = 0; first < inputs.head_dim; first += kGenericBlock) {
    A max = A(-3.4e38), sum = A(0), weighted[kGenericChannels];
#pragma unroll
    for (int i = 0; i < kGenericChannels; ++i) weighted[i] = A(0);
    for (int level = 0; level < inputs.num_levels; ++level) {
      for (int point = 0; point < inputs.num_points; ++point) {
        const Location<A> at = locate<A>(inputs, levels[level], head.row, head.pair, level, point);
        const Sample<A> sample = make_sample(levels[level], at.x, at.y);
        A logit = A(0);
        for (int channel = lane; channel < inputs.head_dim; channel += 32) {
          logit += convert_to<A>(query[channel]) * head.sample_channel(head.key, sample, channel);
        }
        logit = group_sum<32>(logit) * scale;
        const A new_max = larger_of(max, logit);
        const A rescale = exp2_of(max - new_max), weight = exp2_of(logit - new_max);
        max = new_max;
        sum = sum * rescale + weight;
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
        static_cast<T*>(arguments.output)[head.first_query_channel + channel] = convert_to<T>(weighted[i] / sum);
      }
    }
    if (first == 0 && lane == 0) {
      static_cast<A*>(arguments.logsumexp)[head.pair] = (max + log2_of(sum)) * A(kLn2);
    }
  }
}

template <typename T>
cudaError_t launch_forward_generic(const KeyAwareDeformAttnForward& arguments, cudaStream_t stream) {
  const int64_t blocks = count_generic_blocks(arguments.inputs);
  const int64_t shared_bytes = level_table_bytes(arguments.inputs.num_levels);
  if (blocks > kMaxBlocks || shared_bytes > kMaxSharedBytes) return cudaErrorInvalidConfiguration;
  LITE_DETR_LAUNCH((forward_generic_kernel<T>), blocks, kGenericThreads, shared_bytes, stream, arguments);
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace lite_detr
