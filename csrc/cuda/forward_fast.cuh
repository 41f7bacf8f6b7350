// Forward kernel for head_dim 16, 32 and 64: one group of threads a head, softmax online over the samples.
#pragma once

#include "fast_path.cuh"
#include "forward_generic.cuh"

namespace lite_detr {
namespace cuda {

template <typename T, int kHeadDim, bool kSeparateKey>
struct ForwardShape : FastShape<T, kHeadDim> {
  static constexpr int kThreads = 128;
  static constexpr int kGroups = kThreads / FastShape<T, kHeadDim>::kLanes;
  // Samples gathered before the softmax is brought up to date: their loads overlap. Divides kChunk.
  static constexpr int kBatch = kSeparateKey || FastShape<T, kHeadDim>::kVector > 4 ? 2 : 4;
  // Blocks that the 64 Ki registers of a multiprocessor should hold: 96 or 128 a thread.
  static constexpr int kMinBlocks = kSeparateKey ? 4 : 5;
};

// Softmax over the samples seen so far, in base 2, and the sum that it weighs.
template <typename A, int kVector>
struct OnlineSoftmax {
  A max, sum, weighted[kVector];
};

template <typename T, int kHeadDim, bool kSeparateKey>
__global__ void __launch_bounds__(ForwardShape<T, kHeadDim, kSeparateKey>::kThreads,
                                  ForwardShape<T, kHeadDim, kSeparateKey>::kMinBlocks)
    forward_fast_kernel(const KeyAwareDeformAttnForward arguments) {
  using Shape = ForwardShape<T, kHeadDim, kSeparateKey>;
  using A = Accumulator<T>;
  constexpr int kLanes = Shape::kLanes, kVector = Shape::kVector, kBatch = Shape::kBatch;
  const KeyAwareDeformAttnInputs& inputs = arguments.inputs;

  LITE_DETR_SHARED_MEMORY(shared);
  const BlockTables tables = fill_tables(inputs, shared);
  char* chunks = reinterpret_cast<char*>(shared) + block_tables_bytes(inputs.num_levels);
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  CornerTokens* corners = reinterpret_cast<CornerTokens*>(chunks) + group * Shape::kChunkStride;
  CornerWeights<A>* weights =
      reinterpret_cast<CornerWeights<A>*>(chunks + sizeof(CornerTokens) * Shape::kChunkStride * Shape::kGroups) +
      group * Shape::kChunkStride;

  const int num_samples = inputs.num_levels * inputs.num_points;
  const int bytes = token_bytes<T>(inputs);
  const int64_t first_channel =
      tables.batch * inputs.num_value * inputs.num_heads * kHeadDim + tables.head * kHeadDim + lane * kVector;
  const T* value = static_cast<const T*>(inputs.value) + first_channel;
  const T* key = kSeparateKey ? static_cast<const T*>(inputs.key) + first_channel : value;
  // Logits in base 2: exp2 is what the hardware has.
  const A scale = A(kLog2E) / sqrt(A(kHeadDim));

  for (int slot = group; slot < kTileQueries; slot += Shape::kGroups) {
    const int first_of_warp = slot - group % (32 / kLanes);
    if (tables.queries[first_of_warp] < 0) break;  // none of the warp's groups has a query left
    // A group without a query works on that of a neighbour, as all lanes must take part in the shuffles.
    const bool active = tables.queries[slot] >= 0;
    const int64_t row = tables.batch * inputs.num_queries + tables.queries[active ? slot : first_of_warp];
    const int64_t pair = row * inputs.num_heads + tables.head;
    A query[kVector];
    load_vector(static_cast<const T*>(inputs.query) + pair * kHeadDim + lane * kVector, query);
    OnlineSoftmax<A, kVector> state;
    // Finite, so that logits of minus infinity have weight zero beside others. fp32's lowest serves double as well.
    state.max = A(-3.4e38);
    state.sum = A(0);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      query[i] *= scale;
      state.weighted[i] = A(0);
    }

    for (int first = 0; first < num_samples; first += Shape::kChunk) {
#pragma unroll 1
      for (int entry = lane; entry < Shape::kChunk; entry += kLanes) {
        Sample<A> sample = empty_sample<A>();
        if (first + entry < num_samples) {
          const int level = (first + entry) / inputs.num_points;
          const int point = first + entry - level * inputs.num_points;
          const Location<A> at = locate<A>(inputs, tables.levels[level], row, pair, level, point);
          sample = make_sample(tables.levels[level], at.x, at.y);
        }
        corners[entry] = sample.corners;
        weights[entry] = sample.weights;
      }
      __syncwarp();

      const int count = min(Shape::kChunk, num_samples - first);
      for (int entry = 0; entry < count; entry += kBatch) {
        A samples[kBatch][kVector], logits[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          gather(value, bytes, corners[entry + i], weights[entry + i], samples[i]);
          if (kSeparateKey) {
            A sampled_key[kVector];
            gather(key, bytes, corners[entry + i], weights[entry + i], sampled_key);
            logits[i] = dot(query, sampled_key);
          } else {
            logits[i] = dot(query, samples[i]);
          }
        }
        A max = state.max;
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          logits[i] = group_sum<kLanes>(logits[i]);
          if (entry + i < count) max = larger_of(max, logits[i]);
        }
        const A rescale = exp2_of(state.max - max);
        state.max = max;
        state.sum *= rescale;
#pragma unroll
        for (int c = 0; c < kVector; ++c) state.weighted[c] *= rescale;
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const A weight = entry + i < count ? exp2_of(logits[i] - max) : A(0);
          state.sum += weight;
#pragma unroll
          for (int c = 0; c < kVector; ++c) state.weighted[c] += weight * samples[i][c];
        }
      }
      __syncwarp();  // before the next chunk overwrites the corners
    }

    if (active) {
      const A normalizer = A(1) / state.sum;
#pragma unroll
      for (int c = 0; c < kVector; ++c) state.weighted[c] *= normalizer;
      store_vector(static_cast<T*>(arguments.output) + pair * kHeadDim + lane * kVector, state.weighted);
      if (lane == 0) {
        static_cast<A*>(arguments.logsumexp)[pair] = (state.max + log2_of(state.sum)) * A(kLn2);
      }
    }
  }
}

template <typename T, int kHeadDim, bool kSeparateKey>
cudaError_t launch_forward_fast(const KeyAwareDeformAttnForward& arguments, cudaStream_t stream) {
  using Shape = ForwardShape<T, kHeadDim, kSeparateKey>;
  const KeyAwareDeformAttnInputs& inputs = arguments.inputs;
  const int64_t shared_bytes = block_tables_bytes(inputs.num_levels) + chunk_bytes<T, kHeadDim>(Shape::kGroups);
  if (shared_bytes > kMaxSharedBytes) return cudaErrorInvalidConfiguration;
  LITE_DETR_LAUNCH((forward_fast_kernel<T, kHeadDim, kSeparateKey>), count_blocks(inputs), Shape::kThreads,
                   shared_bytes, stream, arguments);
  return cudaGetLastError();
}

template <typename T, int kHeadDim>
cudaError_t launch_forward_fast(const KeyAwareDeformAttnForward& arguments, cudaStream_t stream) {
  if (!fast_path_fits(arguments.inputs)) return launch_forward_generic<T>(arguments, stream);
  return arguments.inputs.key == nullptr ? launch_forward_fast<T, kHeadDim, false>(arguments, stream)
                                         : launch_forward_fast<T, kHeadDim, true>(arguments, stream);
}

}  // namespace cuda
}  // namespace lite_detr
