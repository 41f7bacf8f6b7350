// What the generic kernels share: a warp owns one head of one query, lane i the channels i, i + 32, ...
#pragma once

#include "launch.cuh"
#include "sampling.cuh"
#include "warp.cuh"

namespace lite_detr {
namespace cuda {

constexpr int kGenericThreads = 128;
constexpr int kGenericChannels = 8;                   // channels a lane keeps in registers
constexpr int kGenericBlock = 32 * kGenericChannels;  // channels a warp keeps in registers

// Blocks that the 64 Ki registers of a multiprocessor should hold: 128 a thread, 255 for double.
template <typename T>
constexpr int kGenericMinBlocks = sizeof(T) == 8 ? 2 : 4;

__host__ __forceinline__ int64_t count_generic_blocks(const DeformAttnInputs& inputs) {
  return divide_up(inputs.batch_size * inputs.num_queries * inputs.num_heads, kGenericThreads / 32);
}

// A sample: where it is, and its four corners; the token of a corner outside the map is -1.
template <typename A>
struct GenericSample {
  Location<A> at;
  Cell<A> cell;
  int token[4];
  A weight[4];
};

template <typename T>
struct GenericHead {
  using A = Accumulator<T>;
  const DeformAttnInputs& inputs;
  const Level* levels;
  int64_t pair, row;  // (batch, query, head) and (batch, query)
  bool exists;
  int64_t first_query_channel, first_value_channel;  // channel 0 of the head
  LocationRows rows;
  const T* value;
  const T* key;
  const T* query;

  __device__ __forceinline__ GenericHead(const DeformAttnInputs& given, const Level* table)
      : inputs(given), levels(table) {
    pair = static_cast<int64_t>(blockIdx.x) * (kGenericThreads / 32) + threadIdx.x / 32;
    row = pair / inputs.num_heads;
    exists = row < inputs.batch_size * inputs.num_queries;
    if (!exists) return;
    first_query_channel = pair * inputs.head_dim;
    first_value_channel = row / inputs.num_queries * inputs.value_strides.batch +
                          (pair - row * inputs.num_heads) * inputs.value_strides.head;
    rows = location_rows(inputs, row, pair);
    value = static_cast<const T*>(inputs.value) + first_value_channel;
    key =
        inputs.attention == Attention::kSeparateKey ? static_cast<const T*>(inputs.key) + first_value_channel : value;
    query = static_cast<const T*>(inputs.query) + first_query_channel;
  }

  __device__ __forceinline__ GenericSample<A> find_sample(int level, int point) const {
    GenericSample<A> sample;
    const Level& map = levels[level];
    const A width = static_cast<A>(map.width), height = static_cast<A>(map.height);
    const int offset_level = inputs.offset_levels == 1 ? 0 : level;
    sample.at = locate<A>(inputs, rows, offset_level * inputs.num_points + point, level * (inputs.reference_dim / 2),
                          width, height);
    sample.cell = find_cell(width, height, sample.at.x, sample.at.y);
    const Corners<A> corners = find_corners(map.width, map.height, sample.cell);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int x = sample.cell.left + c % 2, y = sample.cell.top + c / 2;
      const bool inside = x == corners.x[c % 2] && y == corners.y[c / 2] && x < map.width && y < map.height;
      sample.token[c] = inside ? map.start + y * map.width + x : -1;
      sample.weight[c] = corners.weight_y[c / 2] * corners.weight_x[c % 2];
    }
    return sample;
  }

  __device__ __forceinline__ A corner_channel(const T* channels, int token, int channel) const {
    return token < 0 ? A(0) : convert_to<A>(channels[token * inputs.value_strides.token + channel]);
  }

  __device__ __forceinline__ A sample_channel(const T* channels, const GenericSample<A>& sample, int channel) const {
    A sum = A(0);
#pragma unroll
    for (int c = 0; c < 4; ++c) sum += sample.weight[c] * corner_channel(channels, sample.token[c], channel);
    return sum;
  }

  // <query, sampled key>; all lanes get it.
  __device__ __forceinline__ A compare(const GenericSample<A>& sample) const {
    A sum = A(0);
    for (int channel = threadIdx.x % 32; channel < inputs.head_dim; channel += 32) {
      sum += convert_to<A>(query[channel]) * sample_channel(key, sample, channel);
    }
    return group_sum<32>(sum);
  }

  __device__ __forceinline__ A given_weight(int level, int point) const {
    const int64_t index = (pair * inputs.num_levels + level) * inputs.num_points + point;
    return load_as<A>(static_cast<const char*>(inputs.attention_weights) + index * bytes_of(inputs.weight_dtype),
                      inputs.weight_dtype);
  }
};

}  // namespace cuda
}  // namespace lite_detr
