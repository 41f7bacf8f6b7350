// Forward kernel for head_dim 16, 32 and 64: one group of threads a head, softmax online over the samples.
#pragma once

#include "fast_path.cuh"

namespace lite_detr {
namespace cuda {

template <typename T, int kHeadDim, Attention kAttention>
struct ForwardShape : FastShape<T, kHeadDim> {
  static constexpr int kThreads = 128;
  static constexpr int kGroups = kThreads / FastShape<T, kHeadDim>::kLanes;
  // Blocks that the 64 Ki registers of a multiprocessor should hold: 96 or 128 a thread on sm_90, fewer blocks on the
  // other architectures, where the same code takes some more registers and would spill.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ != 900
  static constexpr int kMinBlocks = kAttention == Attention::kSeparateKey ? 2 : 4;
#else
  static constexpr int kMinBlocks = kAttention == Attention::kSeparateKey ? 4 : 5;
#endif

  static __host__ __forceinline__ int64_t shared_bytes(const DeformAttnInputs& inputs, int tile_queries) {
    return block_tables_bytes(inputs, tile_queries) + chunk_bytes<T, kHeadDim>(kGroups);
  }
};

template <typename T, int kHeadDim, Attention kAttention>
__global__ void __launch_bounds__(ForwardShape<T, kHeadDim, kAttention>::kThreads,
                                  ForwardShape<T, kHeadDim, kAttention>::kMinBlocks)
    forward_fast_kernel(const DeformAttnForward arguments, int tile_queries) {
  using Shape = ForwardShape<T, kHeadDim, kAttention>;
  using Weight = typename CornerWeights<T>::type;
  constexpr bool kGiven = kAttention == Attention::kGivenWeights;
  constexpr bool kSeparate = kAttention == Attention::kSeparateKey;
  constexpr int kLanes = Shape::kLanes, kVector = Shape::kVector, kBatch = Shape::kBatch;
  const DeformAttnInputs& inputs = arguments.inputs;

  LITE_DETR_SHARED_MEMORY(shared);
  const BlockTables tables = fill_tables(inputs, tile_queries, shared);
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  const Chunk chunk = chunk_of_group<T, kHeadDim>(
      reinterpret_cast<char*>(shared) + block_tables_bytes(inputs, tile_queries), group, Shape::kGroups);

  const int num_samples = inputs.num_levels * inputs.num_points;
  const unsigned int units = token_units<T>(inputs);
  const int64_t first_channel = first_of_head(inputs, tables) + lane * kVector;
  const uint4* value = reinterpret_cast<const uint4*>(static_cast<const T*>(inputs.value) + first_channel);
  const uint4* key =
      kSeparate ? reinterpret_cast<const uint4*>(static_cast<const T*>(inputs.key) + first_channel) : nullptr;
  pin(value);
  if (kSeparate) pin(key);
  // Logits in base 2: exp2 is what the hardware has.
  const float scale = static_cast<float>(kLog2E) / sqrtf(static_cast<float>(kHeadDim));
  const int owned = owned_sum<kLanes, kBatch>(lane);  // the sample of a batch whose weight this lane works out

  for (int slot = group; slot < tile_queries; slot += Shape::kGroups) {
    const int first_of_warp = slot - group % (32 / kLanes);
    if (tables.queries[first_of_warp] < 0) break;  // none of the warp's groups has a query left
    // A group without a query works on that of a neighbour, as all lanes must take part in the shuffles.
    const bool active = slot < tile_queries && tables.queries[slot] >= 0;
    const int64_t row = tables.batch * inputs.num_queries + tables.queries[active ? slot : first_of_warp];
    const int64_t pair = row * inputs.num_heads + tables.head;
    const LocationRows rows = location_rows(inputs, row, pair);
    const char* given_weights = kGiven ? static_cast<const char*>(inputs.attention_weights) +
                                             pair * (num_samples * bytes_of(inputs.weight_dtype))
                                       : nullptr;
    float query[kVector], weighted[kVector];
    if (!kGiven) load_vector(static_cast<const T*>(inputs.query) + pair * kHeadDim + lane * kVector, query);
    // Of the samples seen so far: the largest logit (finite, so that logits of minus infinity have weight zero beside
    // others), and the sum of the weights that this lane owns.
    float max = -3.4e38f, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      query[i] = kGiven ? 0.0f : query[i] * scale;
      weighted[i] = 0.0f;
    }

    for (int first = 0; first < num_samples; first += Shape::kChunk) {
      fill_chunk<Weight, kLanes, Shape::kChunk>(inputs, tables, rows, units, num_samples, first, lane, chunk);
      __syncwarp();

      const int count = min(Shape::kChunk, num_samples - first);
#pragma unroll 1
      for (int entry = 0; entry < count; entry += kBatch) {
        float samples[kBatch][kVector], logits[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          gather<T>(value, chunk, entry + i, samples[i]);
          if (kSeparate) {
            float sampled_key[kVector];
            gather<T>(key, chunk, entry + i, sampled_key);
            logits[i] = dot(query, sampled_key);
          } else if (!kGiven) {
            logits[i] = dot(query, samples[i]);
          }
        }
        const bool exists = entry + owned < count;
        float weight;
        if (kGiven) {
          const int sample = first + min(entry + owned, count - 1);
          weight = load_as<float>(given_weights + sample * bytes_of(inputs.weight_dtype), inputs.weight_dtype);
          weight = exists ? weight : 0.0f;
        } else {
          group_sums<kLanes>(lane, logits);
          const float logit = exists ? logits[0] : -3.4e38f;
          const float new_max = fmaxf(max, largest_owned<kLanes, kBatch>(logit));
          const float rescale = exp2_of(max - new_max);
          max = new_max;
          weight = exists ? exp2_of(logit - max) : 0.0f;
          sum = sum * rescale + weight;
#pragma unroll
          for (int c = 0; c < kVector; ++c) weighted[c] *= rescale;
        }
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const float weight_of_sample = from_owner<kLanes, kBatch>(weight, i);
#pragma unroll
          for (int c = 0; c < kVector; ++c) weighted[c] += weight_of_sample * samples[i][c];
        }
      }
      __syncwarp();  // before the next chunk overwrites the corners
    }

    if (!kGiven) {
      sum = sum_owned<kLanes, kBatch>(sum);
      const float normalizer = reciprocal_of(sum);
#pragma unroll
      for (int c = 0; c < kVector; ++c) weighted[c] *= normalizer;
    }
    if (slot < tile_queries && tables.queries[slot] >= 0) {
      // Worked out once more, not kept in registers.
      const int64_t own_pair =
          (tables.batch * inputs.num_queries + tables.queries[slot]) * inputs.num_heads + tables.head;
      store_vector(static_cast<T*>(arguments.output) + own_pair * kHeadDim + lane * kVector, weighted);
      if (!kGiven && lane == 0) {
        static_cast<float*>(arguments.logsumexp)[own_pair] = (max + log2_of(sum)) * static_cast<float>(kLn2);
      }
    }
  }
}

}  // namespace cuda
}  // namespace lite_detr
