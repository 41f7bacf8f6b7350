// Forward pass of one tile of queries.
#pragma once

#include "sampling.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

template <typename T, int HeadDim, bool SeparateKey>
struct Forward {
  using A = Accumulator<T>;
  using V = Vec<A>;
  using C = Channels<T, HeadDim>;
  static constexpr int N = kLanes<A>;
  static constexpr int kVectors = C::kVectors;

  const Arguments& args;
  C channels;
  Sampler<A> sampler;
  int64_t row;       // channels of a row of `samples`, full vectors
  int64_t* address;  // [value, key][corner][sample]
  A* weight;         // bilinear weights [corner][sample]
  A* samples;        // sampled values [sample][row]
  A* logits;         // then attention weights
  A* query;          // scaled query, where it does not fit registers
  T* zeros;          // what samples outside of the map read
  V query_vectors[kVectors > 0 ? kVectors : 1];

  static int64_t row_of(const Arguments& args) { return (args.head_dim + N - 1) / N * N; }
  static size_t scratch_bytes(const Arguments& args) {
    const int64_t padded = padded_samples(args.num_levels, args.num_points);
    return Sampler<A>::scratch_bytes(args) + Scratch::size_of<int64_t>(8 * padded) +
           Scratch::size_of<A>(4 * padded) + Scratch::size_of<A>(padded * row_of(args)) +
           Scratch::size_of<A>(padded) + Scratch::size_of<A>(row_of(args)) + Scratch::size_of<T>(row_of(args));
  }

  LITE_DETR_METHOD Forward(const Arguments& arguments, Scratch& scratch)
      : args(arguments), channels(arguments.head_dim), sampler(arguments, scratch), row(row_of(arguments)) {
    address = scratch.take<int64_t>(8 * sampler.padded);
    weight = scratch.take<A>(4 * sampler.padded);
    samples = scratch.take<A>(sampler.padded * row);
    logits = scratch.take<A>(sampler.padded);
    query = scratch.take<A>(row);
    zeros = scratch.take<T>(row);
    __builtin_memset(zeros, 0, row * sizeof(T));
  }

  LITE_DETR_METHOD V query_vector(int64_t v) const {
    return kVectors > 0 ? query_vectors[kVectors > 0 ? v : 0] : load_bits<V>(query + v * N);
  }

  // Interpolated vector `v` of the channels of sample s.
  LITE_DETR_METHOD V interpolate(const void* base, const int64_t* addresses, int64_t s, int64_t v) const {
    const int64_t p = sampler.padded;
    V sum = weight[s] * channels.load(at<T>(base, addresses[s]), v);
    sum += weight[p + s] * channels.load(at<T>(base, addresses[p + s]), v);
    sum += weight[2 * p + s] * channels.load(at<T>(base, addresses[2 * p + s]), v);
    sum += weight[3 * p + s] * channels.load(at<T>(base, addresses[3 * p + s]), v);
    return sum;
  }

  // Samples the block's values, keeps them and returns the lane-wise products of key and query.
  struct SampleOf {
    const Forward& self;
    const void* value;
    const void* key;
    int64_t block;
    LITE_DETR_METHOD V operator()(int lane) const {
      const int64_t s = block * N + lane;
      if (s >= self.sampler.num_samples) return V{};
      if constexpr (C::kInline) return sample(s);
      return sample_outlined(s);
    }
    LITE_DETR_OUTLINE V sample_outlined(int64_t s) const { return sample(s); }
    LITE_DETR_METHOD V sample(int64_t s) const {
      V product = {};
      A* to = self.samples + s * self.row;
      for (int64_t v = 0; v < self.channels.vectors(); ++v) {
        const V sampled = self.interpolate(value, self.address, s, v);
        store_bits(to + v * N, sampled);
        if (SeparateKey) {
          product += self.query_vector(v) * self.interpolate(key, self.address + 4 * self.sampler.padded, s, v);
        } else {
          product += self.query_vector(v) * sampled;
        }
      }
      return product;
    }
  };

  LITE_DETR_METHOD void head(const Tile& tile, int64_t i, int64_t h) {
    const int64_t q = tile.query[i];
    const T* value = static_cast<const T*>(args.value) + tile.image * args.value_stride[0] + h * args.value_stride[2];
    const T* key = nullptr;
    if (SeparateKey) {
      key = static_cast<const T*>(args.key) + tile.image * args.key_stride[0] + h * args.key_stride[2];
    }
    const T* from = static_cast<const T*>(args.query) + tile.image * args.query_stride[0] + q * args.query_stride[1] +
                    h * args.query_stride[2];
    const A scale = A(1) / std::sqrt(static_cast<A>(args.head_dim));
    for (int64_t v = 0; v < channels.vectors(); ++v) {
      const V scaled = channels.load(from, v) * scale;
      if (kVectors > 0) {
        query_vectors[kVectors > 0 ? v : 0] = scaled;
      } else {
        store_bits(query + v * N, scaled);
      }
    }

    const A* xy = sampler.get_offsets(args, tile.image, q, h);
    const int64_t blocks = (sampler.num_samples + N - 1) / N;
    V maximum = splat(-static_cast<A>(INFINITY));
    for (int64_t block = 0; block < blocks; ++block) {
      const auto cells = sampler.locate(args, i, xy, block);
      sampler.store_weights(cells, block, weight);
      sampler.store_addresses(cells, block, args.value_stride[1] * sizeof(T), value, zeros, address);
      if (SeparateKey) {
        sampler.store_addresses(cells, block, args.key_stride[1] * sizeof(T), key, zeros,
                                address + 4 * sampler.padded);
      }
      const V logit = sum_of_each<A, 0, N>(SampleOf{*this, value, key, block}) +
                      load_bits<V>(sampler.padding_bias + block * N);
      store_bits(logits + block * N, logit);
      maximum = logit > maximum ? logit : maximum;
    }
    maximum = max_lanes<A>(maximum);
    V sum = {};
    for (int64_t block = 0; block < blocks; ++block) {
      const V e = exp_lanes(load_bits<V>(logits + block * N) - maximum);
      store_bits(logits + block * N, e);
      sum += e;
    }
    sum = sum_lanes<A>(sum);
    const int64_t at_head = (tile.image * args.num_queries + q) * args.num_heads + h;
    static_cast<A*>(args.logsumexp)[at_head] = maximum[0] + std::log(sum[0]);

    const V normaliser = A(1) / sum;
    T* to = static_cast<T*>(args.output) + at_head * args.head_dim;
    for (int64_t v = 0; v < channels.vectors(); ++v) {
      V even = {}, odd = {};
      int64_t s = 0;
      for (; s + 1 < sampler.num_samples; s += 2) {
        even += logits[s] * load_bits<V>(samples + s * row + v * N);
        odd += logits[s + 1] * load_bits<V>(samples + (s + 1) * row + v * N);
      }
      if (s < sampler.num_samples) even += logits[s] * load_bits<V>(samples + s * row + v * N);
      channels.store(to, v, (even + odd) * normaliser);
    }
  }

  LITE_DETR_METHOD void run(int64_t tile_begin, int64_t tile_end) {
    Tile tile;
    for (int64_t t = tile_begin; t < tile_end; ++t) {
      get_tile(args, t, tile);
      sampler.set_tile(args, tile);
      for (int64_t h = 0; h < args.num_heads; ++h) {
        for (int64_t i = 0; i < tile.size; ++i) head(tile, i, h);
      }
    }
  }
};

template <typename T, int HeadDim, bool SeparateKey>
LITE_DETR_TARGET __attribute__((noinline)) void forward_tiles(const Arguments& args, int64_t begin, int64_t end) {
  using F = Forward<T, HeadDim, SeparateKey>;
  Scratch scratch(F::scratch_bytes(args));
  F(args, scratch).run(begin, end);
}

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
