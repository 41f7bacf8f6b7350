// Backward kernel for head_dim 16, 32 and 64.
//
// With u_s = a_s * grad + dlogit_s * query, the gradient of a value token that is also a key, every gradient follows
// from the products of grad with the corners' values and of query with the corners' keys. So the samples are gathered
// once: a first walk over them keeps those 8 products a sample in shared memory and sums up what grad_query and
// delta = sum_s a_s * da_s need; a second walk, knowing delta, scatters u_s and forms the gradients of the locations.
#pragma once

#include "fast_path.cuh"
#include "scatter.cuh"

namespace lite_detr {
namespace cuda {

constexpr int kMaxBackwardThreads = 128;

// What a sample leaves in shared memory in the first walk: products with the values and keys of its corners.
template <typename A>
struct alignas(16) SampleProducts {
  A grad[4], query[4];
};
// And what stands in the same place once its owner has been there in the second walk.
enum SampleResult { kOffsetX, kOffsetY, kCenterX, kCenterY, kBoxWidth, kBoxHeight, kWeight, kLogitGrad, kProducts };

template <typename T, int kHeadDim, bool kSeparateKey>
struct BackwardShape : FastShape<T, kHeadDim> {
  // Samples gathered at once: as many as the registers hold. Divides kChunk.
  static constexpr int kBatch = kSeparateKey || FastShape<T, kHeadDim>::kVector > 4 ? 1 : 2;
  // Blocks of kMaxBackwardThreads that the 64 Ki registers of a multiprocessor should hold: 96 or 128 a thread.
  static constexpr int kMinBlocks = kSeparateKey || FastShape<T, kHeadDim>::kVector > 4 ? 4 : 5;

  // Products of one group; 8 more, so that the groups of a warp read from different banks.
  static __host__ __device__ __forceinline__ int64_t product_stride(const KeyAwareDeformAttnInputs& inputs) {
    return (static_cast<int64_t>(inputs.num_levels) * inputs.num_points + 1) * kProducts;
  }
  static __host__ __device__ __forceinline__ int64_t shared_bytes(const KeyAwareDeformAttnInputs& inputs,
                                                                  int threads) {
    const int groups = threads / FastShape<T, kHeadDim>::kLanes;
    return block_tables_bytes(inputs.num_levels) + chunk_bytes<T, kHeadDim>(groups) +
           groups * product_stride(inputs) * static_cast<int64_t>(sizeof(Accumulator<T>));
  }
};

// Weight of a sample and the gradient with respect to it, from its products.
template <typename A>
struct SampleWeight {
  A weight, grad;
  __device__ __forceinline__ SampleWeight(const SampleProducts<A>& products, const CornerWeights<A>& weights,
                                          A logsumexp_base2) {
    A logit = A(0);
    grad = A(0);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      grad += weights.weight[c] * products.grad[c];
      logit += weights.weight[c] * products.query[c];
    }
    weight = exp2_of(logit * A(kLog2E) - logsumexp_base2);
  }
};

// Channels in the order of the scatter: unit `unit` of a lane starts at channel (unit * kLanes + lane) *
// kAtomicChannels, so that the lanes of a group add to successive addresses.
template <int kLanes, typename A, typename T, int kVector>
__device__ __forceinline__ void load_for_scatter(const T* head, int lane, A factor, A (&out)[kVector]) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    const int unit = i / kAtomicChannels;
    out[i] = convert_to<A>(head[(unit * kLanes + lane) * kAtomicChannels + i % kAtomicChannels]) * factor;
  }
}

// Adds weight_a * a + weight_b * b to the corners of a sample.
template <int kLanes, typename A, int kVector>
__device__ __forceinline__ void scatter_sample(const Scatter<A>& scatter, int64_t first_channel, int token_channels,
                                               int lane, const CornerTokens& corners, const CornerWeights<A>& weights,
                                               A weight_a, const A (&a)[kVector], A weight_b, const A (&b)[kVector]) {
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const int token = corners.token[c];
    if (token < 0) continue;
    const A scaled_a = weights.weight[c] * weight_a, scaled_b = weights.weight[c] * weight_b;
    const int64_t channel = first_channel + static_cast<int64_t>(token) * token_channels + lane * kAtomicChannels;
#pragma unroll
    for (int unit = 0; unit < kVector / kAtomicChannels; ++unit) {
      A values[kAtomicChannels];
#pragma unroll
      for (int i = 0; i < kAtomicChannels; ++i) {
        values[i] = scaled_a * a[unit * kAtomicChannels + i] + scaled_b * b[unit * kAtomicChannels + i];
      }
      scatter.add(channel + unit * kLanes * kAtomicChannels, values);
    }
  }
}

template <typename T, int kHeadDim, bool kSeparateKey>
__global__ void __launch_bounds__(kMaxBackwardThreads, BackwardShape<T, kHeadDim, kSeparateKey>::kMinBlocks)
    backward_fast_kernel(const KeyAwareDeformAttnBackward arguments) {
  using Shape = BackwardShape<T, kHeadDim, kSeparateKey>;
  using A = Accumulator<T>;
  constexpr int kLanes = Shape::kLanes, kVector = Shape::kVector, kBatch = Shape::kBatch;
  const KeyAwareDeformAttnInputs& inputs = arguments.inputs;

  LITE_DETR_SHARED_MEMORY(shared);
  const BlockTables tables = fill_tables(inputs, shared);
  const int num_groups = blockDim.x / kLanes;
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  char* chunks = reinterpret_cast<char*>(shared) + block_tables_bytes(inputs.num_levels);
  CornerTokens* corners = reinterpret_cast<CornerTokens*>(chunks) + group * Shape::kChunkStride;
  CornerWeights<A>* weights =
      reinterpret_cast<CornerWeights<A>*>(chunks + sizeof(CornerTokens) * Shape::kChunkStride * num_groups) +
      group * Shape::kChunkStride;
  A* products =
      reinterpret_cast<A*>(chunks + chunk_bytes<T, kHeadDim>(num_groups)) + group * Shape::product_stride(inputs);

  const int num_samples = inputs.num_levels * inputs.num_points;
  const int bytes = token_bytes<T>(inputs), token_channels = inputs.num_heads * kHeadDim;
  const int64_t first_channel = tables.batch * inputs.num_value * inputs.num_heads * kHeadDim + tables.head * kHeadDim;
  const T* value = static_cast<const T*>(inputs.value) + first_channel + lane * kVector;
  const T* key = kSeparateKey ? static_cast<const T*>(inputs.key) + first_channel + lane * kVector : value;
  const Scatter<A> scatter_value = make_scatter<A>(arguments, arguments.grad_value_sum);
  const Scatter<A> scatter_key{arguments.grad_key_sum, scatter_value.fixed, scatter_value.scale};
  const A scale = A(1) / sqrt(A(kHeadDim));

  for (int slot = group; slot < kTileQueries; slot += num_groups) {
    const int first_of_warp = slot - group % (32 / kLanes);
    if (tables.queries[first_of_warp] < 0) break;  // none of the warp's groups has a query left
    // A group without a query works on that of a neighbour, as all lanes must take part in the shuffles.
    const bool active = tables.queries[slot] >= 0;
    const int64_t row = tables.batch * inputs.num_queries + tables.queries[active ? slot : first_of_warp];
    const int64_t pair = row * inputs.num_heads + tables.head;
    const T* query_head = static_cast<const T*>(inputs.query) + pair * kHeadDim;
    const T* grad_head = static_cast<const T*>(arguments.grad_output) + pair * kHeadDim;
    const A logsumexp = static_cast<const A*>(arguments.logsumexp)[pair] * A(kLog2E);
    A delta = A(0);

    {  // first walk: products, delta and grad_query
      A query[kVector], grad[kVector];
      load_vector(query_head + lane * kVector, query);
      load_vector(grad_head + lane * kVector, grad);
      // grad_query = scale * sum_s dlogit_s * key_s = scale * (sum_s a_s da_s key_s - delta * sum_s a_s key_s)
      A weighted_key[kVector], graded_key[kVector];
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        query[i] *= scale;
        weighted_key[i] = graded_key[i] = A(0);
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
          A sampled_key[kBatch][kVector];
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            A sums[kProducts];
#pragma unroll
            for (int channel = 0; channel < kVector; ++channel) sampled_key[i][channel] = A(0);
#pragma unroll
            for (int c = 0; c < 4; ++c) {
              const int token = corners[entry + i].token[c];
              A corner[kVector];
              load_corner<A>(value, bytes, token, corner);
              sums[c] = dot(grad, corner);
              if (kSeparateKey) load_corner<A>(key, bytes, token, corner);
              sums[4 + c] = dot(query, corner);
#pragma unroll
              for (int channel = 0; channel < kVector; ++channel) {
                sampled_key[i][channel] += weights[entry + i].weight[c] * corner[channel];
              }
            }
            group_sums<kLanes>(lane, sums);
            // The last batch may reach past the last sample, where there is no room for products. In a group of more
            // than kProducts lanes, neighbours hold the same sum.
            if (entry + i < count && lane * kProducts % kLanes == 0) {
              A* out = products + (first + entry + i) * kProducts;
#pragma unroll
              for (int j = 0; j < kSumsPerLane<kLanes, kProducts>; ++j) {
                out[lane * kProducts / kLanes + j] = sums[j];
              }
            }
          }
          __syncwarp();
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            if (entry + i < count) {
              const SampleWeight<A> sample(
                  *reinterpret_cast<const SampleProducts<A>*>(products + (first + entry + i) * kProducts),
                  weights[entry + i], logsumexp);
              const A graded = sample.weight * sample.grad;
              delta += graded;
#pragma unroll
              for (int channel = 0; channel < kVector; ++channel) {
                weighted_key[channel] += sample.weight * sampled_key[i][channel];
                graded_key[channel] += graded * sampled_key[i][channel];
              }
            }
          }
        }
        __syncwarp();  // before the next chunk overwrites the corners
      }
      if (active) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) graded_key[i] = scale * (graded_key[i] - delta * weighted_key[i]);
        store_vector(static_cast<T*>(arguments.grad_query) + pair * kHeadDim + lane * kVector, graded_key);
      }
    }

    {  // second walk: scatter, and the gradients of the locations in place of the products
      A query[kVector], grad[kVector], nothing[kVector];
      load_for_scatter<kLanes>(query_head, lane, scale, query);
      load_for_scatter<kLanes>(grad_head, lane, A(1), grad);
#pragma unroll
      for (int i = 0; i < kVector; ++i) nothing[i] = A(0);
      for (int first = 0; first < num_samples; first += Shape::kChunk) {
#pragma unroll 1
        for (int entry = lane; entry < Shape::kChunk; entry += kLanes) {
          if (first + entry >= num_samples) break;
          const int level = (first + entry) / inputs.num_points;
          const int point = first + entry - level * inputs.num_points;
          const Level map = tables.levels[level];
          const Location<A> at = locate<A>(inputs, map, row, pair, level, point);
          const Sample<A> sample = make_sample(map, at.x, at.y);
          corners[entry] = sample.corners;
          weights[entry] = sample.weights;
          A* result = products + (first + entry) * kProducts;
          const SampleProducts<A> product = *reinterpret_cast<const SampleProducts<A>*>(result);
          const SampleWeight<A> weight(product, sample.weights, logsumexp);
          const A logit_grad = weight.weight * (weight.grad - delta);
          A corner_grad[4];
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            corner_grad[c] = weight.weight * product.grad[c] + logit_grad * product.query[c];
          }
          const LocationGradient<A> location = location_gradient(at, sample, map, inputs.num_points, corner_grad);
          result[kOffsetX] = location.offset_x, result[kOffsetY] = location.offset_y;
          result[kCenterX] = location.center_x, result[kCenterY] = location.center_y;
          result[kBoxWidth] = location.box_width, result[kBoxHeight] = location.box_height;
          result[kWeight] = weight.weight, result[kLogitGrad] = logit_grad;
        }
        __syncwarp();

        if (active) {  // no shuffles in here
          const int count = min(Shape::kChunk, num_samples - first);
#pragma unroll 1
          for (int entry = 0; entry < count; ++entry) {
            const A* result = products + (first + entry) * kProducts;
            const A weight = result[kWeight], logit_grad = result[kLogitGrad];
            if (kSeparateKey) {
              scatter_sample<kLanes>(scatter_value, first_channel, token_channels, lane, corners[entry],
                                     weights[entry], weight, grad, A(0), nothing);
              scatter_sample<kLanes>(scatter_key, first_channel, token_channels, lane, corners[entry], weights[entry],
                                     logit_grad, query, A(0), nothing);
            } else {
              scatter_sample<kLanes>(scatter_value, first_channel, token_channels, lane, corners[entry],
                                     weights[entry], weight, grad, logit_grad, query);
            }
          }
        }
        __syncwarp();  // before the next chunk overwrites the corners
      }
    }

    if (active) {
      // Offsets: each sample its own, or the sum over the levels that share them.
      const int offset_samples = inputs.offset_levels * inputs.num_points;
      for (int s = lane; s < offset_samples; s += kLanes) {
        A x = A(0), y = A(0);
        for (int other = s; other < num_samples; other += offset_samples) {
          x += products[other * kProducts + kOffsetX];
          y += products[other * kProducts + kOffsetY];
        }
        const int64_t index = 2 * (pair * offset_samples + s);
        store_as(arguments.grad_sampling_offsets, inputs.offset_dtype, index, x);
        store_as(arguments.grad_sampling_offsets, inputs.offset_dtype, index + 1, y);
      }
      // References: the sum over the points here, over the heads in a kernel of its own.
      const int references = inputs.num_levels * inputs.reference_dim;
      for (int r = lane; r < references; r += kLanes) {
        const int level = r / inputs.reference_dim, coordinate = r - level * inputs.reference_dim;
        A sum = A(0);
        for (int point = 0; point < inputs.num_points; ++point) {
          sum += products[(level * inputs.num_points + point) * kProducts + kCenterX + coordinate];
        }
        static_cast<A*>(arguments.grad_reference_per_head)[pair * references + r] = sum;
      }
    }
    // The next query overwrites the products behind the barrier that follows its first corners.
  }
}

template <typename T, int kHeadDim, bool kSeparateKey>
cudaError_t launch_backward_fast(const KeyAwareDeformAttnBackward& arguments, int threads, cudaStream_t stream) {
  const int64_t shared_bytes = BackwardShape<T, kHeadDim, kSeparateKey>::shared_bytes(arguments.inputs, threads);
  LITE_DETR_LAUNCH((backward_fast_kernel<T, kHeadDim, kSeparateKey>), count_blocks(arguments.inputs), threads,
                   shared_bytes, stream, arguments);
  return cudaGetLastError();
}

// Threads of a block whose products fit into shared memory; 0: the fast kernel cannot take so many samples.
template <typename T, int kHeadDim>
int backward_fast_threads(const KeyAwareDeformAttnInputs& inputs) {
  if (!fast_path_fits(inputs)) return 0;
  for (int threads = kMaxBackwardThreads; threads >= 32; threads /= 2) {
    if (BackwardShape<T, kHeadDim, false>::shared_bytes(inputs, threads) <= kMaxSharedBytes) return threads;
  }
  return 0;
}

}  // namespace cuda
}  // namespace lite_detr
