// Backward kernel for head_dim 16, 32 and 64.
//
// With u_s = a_s * grad + dlogit_s * query, the gradient of a value token that is also a key, every gradient follows
// from the products of grad with the corners' values and of query with the corners' keys. So the samples are gathered
// once: a walk over the samples of a query keeps those 8 products a sample in shared memory and sums up what
// grad_query and delta = sum_s a_s * da_s need. Then, knowing delta, the gradients of the locations are formed, and
// what the scatter needs is left in shared memory. When a block has done so for its tile, it sorts the corners by
// token and adds each token's sum of w * u_s to memory.
#pragma once

#include "corner_sort.cuh"
#include "fast_path.cuh"
#include "scatter.cuh"

namespace lite_detr {
namespace cuda {

constexpr int kMaxBackwardThreads = 128;

// Products of grad_output with the values and of query with the keys of the four corners of a sample.
struct alignas(16) SampleProducts {
  float grad[4], query[4];
};
// And what stands in their place in the end.
enum SampleResult { kOffsetX, kOffsetY, kCenterX, kCenterY, kBoxWidth, kBoxHeight, kProducts = 8 };

template <typename T, int kHeadDim, Attention kAttention>
struct BackwardShape : FastShape<T, kHeadDim> {
  using Base = FastShape<T, kHeadDim>;
  // Samples gathered at once: as many as the registers hold. Divides kChunk.
  static constexpr int kBatch = kAttention == Attention::kSeparateKey || Base::kVector > 4 ? 1 : 2;
  // Blocks of kMaxBackwardThreads that the 64 Ki registers of a multiprocessor should hold: 128 a thread.
  static constexpr int kMinBlocks = 4;
  // Channels that a lane loads, sums and adds at once; successive lanes on successive addresses.
  static constexpr int kUnit = kAtomicChannels > 1 ? kAtomicChannels : (sizeof(T) == 4 ? 1 : 2);
};

// The shared memory after the tables: records of the tile, then what only the walk and what only the scatter needs.
template <typename T, int kHeadDim>
struct BackwardMemory {
  int64_t records, tokens, codes;  // of each sample of the tile
  int64_t chunks, products;        // of each group
  int64_t counts, sums, list, prepared;
  int64_t bytes;

  // 8 more products, so that the groups of a warp read from different banks.
  static __host__ __device__ __forceinline__ int product_stride(int num_samples) {
    return (num_samples + 1) * kProducts;
  }

  __host__ __device__ __forceinline__ BackwardMemory(const DeformAttnInputs& inputs, int tile_queries, int threads) {
    const int num_samples = inputs.num_levels * inputs.num_points, groups = threads / FastShape<T, kHeadDim>::kLanes;
    const int64_t samples = static_cast<int64_t>(num_samples) * tile_queries;
    const auto aligned = [](int64_t bytes) { return (bytes + 15) / 16 * 16; };
    records = block_tables_bytes(inputs, tile_queries);
    tokens = records + samples * static_cast<int64_t>(sizeof(SampleRecord));
    codes = aligned(tokens + samples * static_cast<int64_t>(sizeof(int)));
    chunks = aligned(codes + samples * static_cast<int64_t>(sizeof(unsigned short)));
    products = chunks + chunk_bytes<T, kHeadDim>(groups);
    const int64_t walk =
        products + static_cast<int64_t>(groups) * product_stride(num_samples) * static_cast<int64_t>(sizeof(float));
    counts = chunks;
    sums = counts + kBuckets * static_cast<int64_t>(sizeof(int));
    prepared = sums + 32 * static_cast<int64_t>(sizeof(int));
    list = prepared + threads * static_cast<int64_t>(sizeof(uint4));
    const int64_t scatter = list + 4 * samples * static_cast<int64_t>(sizeof(unsigned short));
    bytes = walk > scatter ? walk : scatter;
  }
};

// Weight of a sample and the gradient with respect to it, from its products.
struct SampleWeight {
  float weight, grad;
  __device__ __forceinline__ SampleWeight(const SampleProducts& products, const float (&corners)[4],
                                          float logsumexp_base2) {
    float logit = 0.0f;
    grad = 0.0f;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      grad += corners[c] * products.grad[c];
      logit += corners[c] * products.query[c];
    }
    weight = exp2_of(logit * static_cast<float>(kLog2E) - logsumexp_base2);
  }
};

// Channels (unit * kLanes + lane) * kUnit and following of a row, for each unit of a lane.
template <int kLanes, int kUnit, typename T, int kVector>
__device__ __forceinline__ void load_units(const T* row, int lane, float (&out)[kVector]) {
#pragma unroll
  for (int unit = 0; unit < kVector / kUnit; ++unit) {
    T packed[kUnit];
    load_bytes<kUnit* static_cast<int>(sizeof(T))>(row + (unit * kLanes + lane) * kUnit, packed);
#pragma unroll
    for (int i = 0; i < kUnit; ++i) out[unit * kUnit + i] = convert_to<float>(packed[i]);
  }
}

// Adds those channels to the row of a token.
template <int kLanes, int kUnit, int kVector>
__device__ __forceinline__ void add_units(const Scatter<float>& scatter, int64_t row, int lane,
                                          const float (&sums)[kVector]) {
#pragma unroll
  for (int unit = 0; unit < kVector / kUnit; ++unit) {
    float values[kUnit];
#pragma unroll
    for (int i = 0; i < kUnit; ++i) values[i] = sums[unit * kUnit + i];
    scatter.add(row + (unit * kLanes + lane) * kUnit, values);
  }
}

// What the samples of a query have in common. The weights are divided by their sum once more: in 16 bits the logits of
// the forward pass are rounded otherwise, and dlogit must add up to zero.
struct QuerySums {
  float normalizer, delta;
};

// One query: everything but the scatter.
template <typename T, int kHeadDim, Attention kAttention>
struct BackwardWalk {
  using Shape = BackwardShape<T, kHeadDim, kAttention>;
  static constexpr bool kGiven = kAttention == Attention::kGivenWeights;
  static constexpr bool kSeparate = kAttention == Attention::kSeparateKey;
  static constexpr int kLanes = Shape::kLanes, kVector = Shape::kVector, kBatch = Shape::kBatch;

  const DeformAttnBackward& arguments;
  const BlockTables& tables;
  const uint4* value;
  const uint4* key;
  Chunk chunk;
  float* products;
  int num_samples, lane;
  float scale;

  // Fills the products and writes grad_query.
  __device__ __forceinline__ QuerySums gather_products(const LocationRows& rows, int64_t pair, bool active,
                                                       float logsumexp) const {
    const DeformAttnInputs& inputs = arguments.inputs;
    const unsigned int units = token_units<T>(inputs);
    float query[kVector], grad[kVector];
    load_vector(static_cast<const T*>(arguments.grad_output) + pair * kHeadDim + lane * kVector, grad);
    if (!kGiven) load_vector(static_cast<const T*>(inputs.query) + pair * kHeadDim + lane * kVector, query);
    // grad_query = scale * sum_s dlogit_s * key_s = scale * (sum_s a_s da_s key_s - delta * sum_s a_s key_s)
    float weighted_key[kVector], graded_key[kVector], sum = 0.0f, delta = 0.0f;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      query[i] = kGiven ? 0.0f : query[i] * scale;
      weighted_key[i] = graded_key[i] = 0.0f;
    }
    for (int first = 0; first < num_samples; first += Shape::kChunk) {
      fill_chunk<float, kLanes, Shape::kChunk>(inputs, tables, rows, units, num_samples, first, lane, chunk);
      __syncwarp();
      const int count = min(Shape::kChunk, num_samples - first);
#pragma unroll 1
      for (int entry = 0; entry < count; entry += kBatch) {
        float sampled_key[kBatch][kVector];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          gather_sample(entry + i, first, entry + i < count, query, grad, sampled_key[i]);
        }
        if (kGiven) continue;
        __syncwarp();
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          if (entry + i >= count) break;
          const uint4 raw = chunk.weights[entry + i];
          float corners[4];
          memcpy(corners, &raw, sizeof(raw));
          const SampleWeight sample(load_products(first + entry + i), corners, logsumexp);
          const float graded = sample.weight * sample.grad;
          sum += sample.weight;
          delta += graded;
#pragma unroll
          for (int channel = 0; channel < kVector; ++channel) {
            weighted_key[channel] += sample.weight * sampled_key[i][channel];
            graded_key[channel] += graded * sampled_key[i][channel];
          }
        }
      }
      __syncwarp();  // before the next chunk overwrites the corners, and others read the products
    }
    if (kGiven) return {1.0f, 0.0f};
    const float normalizer = reciprocal_of(sum);
    delta *= normalizer;
    if (active) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        graded_key[i] = scale * normalizer * (graded_key[i] - delta * weighted_key[i]);
      }
      store_vector(static_cast<T*>(arguments.grad_query) + pair * kHeadDim + lane * kVector, graded_key);
    }
    return {normalizer, delta};
  }

  __device__ __forceinline__ SampleProducts load_products(int sample) const {
    const uint4* from = reinterpret_cast<const uint4*>(products + sample * kProducts);
    const uint4 grad = from[0], query = kGiven ? make_uint4(0, 0, 0, 0) : from[1];
    SampleProducts result;
    memcpy(result.grad, &grad, sizeof(grad));
    memcpy(result.query, &query, sizeof(query));
    return result;
  }

  // exists: the last batch may reach past the last sample, where there is no room for products.
  __device__ __forceinline__ void gather_sample(int entry, int first, bool exists, const float (&query)[kVector],
                                                const float (&grad)[kVector], float (&sampled_key)[kVector]) const {
    constexpr int kSums = kGiven ? 4 : kProducts;
    const uint4 offsets = chunk.offsets[entry], raw_weights = chunk.weights[entry];
    const unsigned int offset[4] = {offsets.x, offsets.y, offsets.z, offsets.w};
    float weights[4], sums[kSums];
    memcpy(weights, &raw_weights, sizeof(weights));
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      float corner[kVector];
      unpack<float, T>(load_corner(value, offset[c]), corner);
      sums[c] = dot(grad, corner);
      if (kGiven) continue;
      if (kSeparate) unpack<float, T>(load_corner(key, offset[c]), corner);
      sums[kSums - 4 + c] = dot(query, corner);
#pragma unroll
      for (int channel = 0; channel < kVector; ++channel) {
        sampled_key[channel] =
            c == 0 ? weights[c] * corner[channel] : sampled_key[channel] + weights[c] * corner[channel];
      }
    }
    group_sums<kLanes>(lane, sums);
    // In a group of more lanes than sums, neighbours hold the same one.
    if (exists && lane * kSums % kLanes == 0) {
      float* out = products + (first + entry) * kProducts + lane * kSums / kLanes;
#pragma unroll
      for (int j = 0; j < kSumsPerLane<kLanes, kSums>; ++j) out[j] = sums[j];
    }
  }

  // Each sample by one lane: its record, and its gradients in place of the products.
  __device__ __forceinline__ void finish_samples(const LocationRows& rows, int64_t pair, bool active, float logsumexp,
                                                 const QuerySums& sums, SampleRecord* records, int* tokens,
                                                 unsigned short* codes) const {
    const DeformAttnInputs& inputs = arguments.inputs;
#pragma unroll 1
    for (int sample = lane; sample < num_samples; sample += kLanes) {
      const SampleEntry& map = tables.samples[sample];
      const Location<float> at =
          locate<float>(inputs, rows, map.offset, map.reference, map.width_of_map, map.height_of_map);
      const Cell<float> cell = find_cell(map.width_of_map, map.height_of_map, at.x, at.y);
      const Corners<float> corners = find_corners(map.width, map.height, cell);
      const SampleProducts product = load_products(sample);
      float weights[4];
      unsigned int counted = 0;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        weights[c] = corners.weight_y[c / 2] * corners.weight_x[c % 2];
        counted |= (weights[c] != 0.0f ? 1u : 0u) << c;
      }
      float weight, logit_grad = 0.0f;
      if (kGiven) {
        float grad = 0.0f;
#pragma unroll
        for (int c = 0; c < 4; ++c) grad += weights[c] * product.grad[c];
        const int64_t index = pair * num_samples + sample;
        weight =
            load_as<float>(static_cast<const char*>(inputs.attention_weights) + index * bytes_of(inputs.weight_dtype),
                           inputs.weight_dtype);
        if (active) store_as(arguments.grad_attention_weights, inputs.weight_dtype, index, grad);
      } else {
        const SampleWeight result(product, weights, logsumexp);
        weight = result.weight * sums.normalizer;
        logit_grad = weight * (result.grad - sums.delta);
      }
      float corner_grad[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        corner_grad[c] = weight * product.grad[c] + (kGiven ? 0.0f : logit_grad * product.query[c]);
      }
      const LocationGradient<float> location =
          location_gradient(at, cell, map.width, map.height, inputs.num_points, corner_grad);
      float* result = products + sample * kProducts;
      result[kOffsetX] = location.offset_x, result[kOffsetY] = location.offset_y;
      result[kCenterX] = location.center_x, result[kCenterY] = location.center_y;
      result[kBoxWidth] = location.box_width, result[kBoxHeight] = location.box_height;
      if (active) {
        records[sample] = {cell.fraction_x, cell.fraction_y, weight, logit_grad * scale};
        tokens[sample] = map.start + cell.top * map.width + cell.left;
        codes[sample] = corner_code(map.level, cell.left, cell.top, counted);
      }
    }
    __syncwarp();
    if (!active) return;

    // Offsets: each sample its own, or the sum over the levels that share them.
    const int offset_samples = inputs.offset_levels * inputs.num_points;
    for (int s = lane; s < offset_samples; s += kLanes) {
      float x = 0.0f, y = 0.0f;
      for (int other = s; other < num_samples; other += offset_samples) {
        x += products[other * kProducts + kOffsetX];
        y += products[other * kProducts + kOffsetY];
      }
      const int64_t index = 2 * (pair * offset_samples + s);
      store_as(arguments.grad_sampling_offsets, inputs.offset_dtype, index, x);
      store_as(arguments.grad_sampling_offsets, inputs.offset_dtype, index + 1, y);
    }
    // References: the sum over the points here, over the heads in a kernel of its own.
    if (arguments.grad_reference_per_head == nullptr) return;
    const int references = inputs.num_levels * inputs.reference_dim;
    for (int r = lane; r < references; r += kLanes) {
      const int level = r / inputs.reference_dim, coordinate = r - level * inputs.reference_dim;
      float sum = 0.0f;
      for (int point = 0; point < inputs.num_points; ++point) {
        sum += products[(level * inputs.num_points + point) * kProducts + kCenterX + coordinate];
      }
      static_cast<float*>(arguments.grad_reference_per_head)[pair * references + r] = sum;
    }
  }
};

template <typename T, int kHeadDim, Attention kAttention>
__global__ void __launch_bounds__(kMaxBackwardThreads, BackwardShape<T, kHeadDim, kAttention>::kMinBlocks)
    backward_fast_kernel(const DeformAttnBackward arguments, int tile_queries) {
  using Shape = BackwardShape<T, kHeadDim, kAttention>;
  constexpr bool kGiven = kAttention == Attention::kGivenWeights;
  constexpr bool kSeparate = kAttention == Attention::kSeparateKey;
  constexpr int kLanes = Shape::kLanes, kVector = Shape::kVector, kUnit = Shape::kUnit;
  const DeformAttnInputs& inputs = arguments.inputs;
  const int num_samples = inputs.num_levels * inputs.num_points;

  LITE_DETR_SHARED_MEMORY(shared);
  char* memory = reinterpret_cast<char*>(shared);
  const BackwardMemory<T, kHeadDim> layout(inputs, tile_queries, blockDim.x);
  SampleRecord* records = reinterpret_cast<SampleRecord*>(memory + layout.records);
  int* tokens = reinterpret_cast<int*>(memory + layout.tokens);
  unsigned short* codes = reinterpret_cast<unsigned short*>(memory + layout.codes);
  // A slot without a query has no corners.
  for (int i = threadIdx.x; i < tile_queries * num_samples; i += blockDim.x) codes[i] = 0;
  const BlockTables tables = fill_tables(inputs, tile_queries, shared);
  const int num_groups = blockDim.x / kLanes;
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  const int64_t first_channel = first_of_head(inputs, tables);

  {
    const uint4* value =
        reinterpret_cast<const uint4*>(static_cast<const T*>(inputs.value) + first_channel + lane * kVector);
    const uint4* key =
        kSeparate ? reinterpret_cast<const uint4*>(static_cast<const T*>(inputs.key) + first_channel + lane * kVector)
                  : value;
    pin(value);
    if (kSeparate) pin(key);
    const BackwardWalk<T, kHeadDim, kAttention> walk{
        arguments,
        tables,
        value,
        key,
        chunk_of_group<T, kHeadDim>(memory + layout.chunks, group, num_groups),
        reinterpret_cast<float*>(memory + layout.products) +
            group * BackwardMemory<T, kHeadDim>::product_stride(num_samples),
        num_samples,
        lane,
        1.0f / sqrtf(static_cast<float>(kHeadDim))};
    for (int slot = group; slot < tile_queries; slot += num_groups) {
      const int first_of_warp = slot - group % (32 / kLanes);
      if (tables.queries[first_of_warp] < 0) break;  // none of the warp's groups has a query left
      // A group without a query works on that of a neighbour, as all lanes must take part in the shuffles.
      const bool active = tables.queries[slot] >= 0;
      const int64_t row = tables.batch * inputs.num_queries + tables.queries[active ? slot : first_of_warp];
      const int64_t pair = row * inputs.num_heads + tables.head;
      const LocationRows rows = location_rows(inputs, row, pair);
      const float logsumexp =
          kGiven ? 0.0f : static_cast<const float*>(arguments.logsumexp)[pair] * static_cast<float>(kLog2E);
      const QuerySums sums = walk.gather_products(rows, pair, active, logsumexp);
      walk.finish_samples(rows, pair, active, logsumexp, sums, records + slot * num_samples,
                          tokens + slot * num_samples, codes + slot * num_samples);
      __syncwarp();  // before the next query overwrites the products
    }
  }
  __syncthreads();

  unsigned short* list = reinterpret_cast<unsigned short*>(memory + layout.list);
  const int total = sort_corners(codes, tile_queries, num_samples, reinterpret_cast<int*>(memory + layout.counts),
                                 reinterpret_cast<int*>(memory + layout.sums), list);

  // Each group takes a part of the list that begins with a token, so that no token is added by two groups. Its lanes
  // prepare one corner each, then all go through these.
  uint4* prepared = reinterpret_cast<uint4*>(memory + layout.prepared) + group * kLanes;
  const Scatter<float> scatter_value =
      make_scatter<float>(arguments, arguments.grad_value_sum, tables.batch, tables.head);
  const Scatter<float> scatter_key{arguments.grad_key_sum, scatter_value.fixed, scatter_value.scale};
  const int row_channels = inputs.num_heads * kHeadDim;
  const int64_t first_row = (tables.batch * inputs.num_queries * inputs.num_heads + tables.head) * kHeadDim;
  const T* grad_rows = static_cast<const T*>(arguments.grad_output) + first_row;
  const T* query_rows = kGiven ? nullptr : static_cast<const T*>(inputs.query) + first_row;
  const int part = static_cast<int>(divide_up(total, num_groups));
  const auto token_at = [&](int i) {
    const SortedCorner corner(list[i]);
    return tokens[corner.slot * num_samples + corner.sample] + (corner.corner & 1) +
           ((corner.corner & 2) != 0 ? tables.samples[corner.sample].width : 0);
  };
  const auto next_token_from = [&](int i) {
    if (i == 0 || i >= total) return min(i, total);
    const int before = token_at(i - 1);
    while (i < total && token_at(i) == before) ++i;
    return i;
  };
  const int begin = next_token_from(group * part), end = next_token_from((group + 1) * part);
  int longest = end - begin;  // of the groups of a warp, which take the same steps
#pragma unroll
  for (int offset = kLanes; offset < 32; offset *= 2) {
    longest = max(longest, __shfl_xor_sync(kAllLanes, longest, offset));
  }
  int token = -1;
  float to_value[kVector], to_key[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) to_value[i] = to_key[i] = 0.0f;
  const auto add_token = [&] {
    if (token < 0) return;
    const int64_t row = first_channel + token * inputs.value_strides.token;
    add_units<kLanes, kUnit>(scatter_value, row, lane, to_value);
    if (kSeparate) add_units<kLanes, kUnit>(scatter_key, row, lane, to_key);
#pragma unroll
    for (int i = 0; i < kVector; ++i) to_value[i] = to_key[i] = 0.0f;
  };
#pragma unroll 1
  for (int step = 0; step < longest; step += kLanes) {
    if (begin + step + lane < end) {
      const SortedCorner corner(list[begin + step + lane]);
      const int index = corner.slot * num_samples + corner.sample;
      const SampleRecord record = records[index];
      const bool right = (corner.corner & 1) != 0, bottom = (corner.corner & 2) != 0;
      const float weight = (right ? record.fraction_x : 1.0f - record.fraction_x) *
                           (bottom ? record.fraction_y : 1.0f - record.fraction_y);
      prepared[lane] =
          make_uint4(static_cast<unsigned int>(token_at(begin + step + lane)),
                     static_cast<unsigned int>(tables.queries[corner.slot]), __float_as_uint(weight * record.weight),
                     __float_as_uint(weight * record.logit_grad));
    }
    __syncwarp();
    const int count = min(kLanes, end - begin - step);
#pragma unroll 2
    for (int i = 0; i < count; ++i) {
      const uint4 corner = prepared[i];
      const int next_token = static_cast<int>(corner.x);
      const int64_t row = static_cast<int64_t>(corner.y) * row_channels;
      float grad[kVector], query[kVector];
      load_units<kLanes, kUnit>(grad_rows + row, lane, grad);
      if (!kGiven) load_units<kLanes, kUnit>(query_rows + row, lane, query);
      // In fixed point each corner on its own, so that the sum does not depend on the order.
      if (next_token != token || scatter_value.fixed) add_token();
      token = next_token;
      const float weight = __uint_as_float(corner.z), logit_grad = __uint_as_float(corner.w);
#pragma unroll
      for (int c = 0; c < kVector; ++c) {
        to_value[c] = fma_of(weight, grad[c], to_value[c]);
        if (kSeparate) to_key[c] = fma_of(logit_grad, query[c], to_key[c]);
        if (!kSeparate && !kGiven) to_value[c] = fma_of(logit_grad, query[c], to_value[c]);
      }
    }
    __syncwarp();  // before the corners are overwritten
  }
  add_token();
}

}  // namespace cuda
}  // namespace lite_detr
