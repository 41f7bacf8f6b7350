// Forward pass of key-aware attention over tiles of queries.
#pragma once

#include "channels.h"
#include "sampler.h"

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
  static constexpr int kRegisters = kVectors > 0 ? kVectors : 1;
  static constexpr int kTogether = kVectors == 0 ? 1 : kVectors > 4 ? 4 : kVectors;  // vectors of the output

  // What one query and head read.
  struct Head {
    int64_t in_tile;
    int64_t query;
    int64_t head;
    int64_t* value_address;  // [block][corner][lane]
    int64_t* key_address;
    A* weight;  // bilinear
  };

  const Arguments& args;
  C channels;
  Sampler<A> sampler;
  Head heads[2];
  A* samples;  // sampled values [sample][row]
  A* logits;   // then attention weights
  A* scaled;   // query, where it does not fit registers
  A* maxima;   // of the logits of each query of the tile and head; with sums, what the log-sum-exp is made of
  A* sums;
  T* zeros;  // what samples outside of the map read

  LITE_DETR_METHOD Forward(const Arguments& arguments, Scratch& scratch)
      : args(arguments), channels(arguments.head_dim), sampler(arguments, scratch) {
    for (Head& head : heads) {
      head.value_address = scratch.take<int64_t>(4 * sampler.padded);
      head.key_address = SeparateKey ? scratch.take<int64_t>(4 * sampler.padded) : nullptr;
      head.weight = scratch.take<A>(4 * sampler.padded);
    }
    samples = scratch.take<A>(sampler.padded * channels.row());
    logits = scratch.take<A>(sampler.padded);
    scaled = scratch.take<A>(channels.row());
    maxima = scratch.take<A>(kTileSize * args.num_heads + N);
    sums = scratch.take<A>(kTileSize * args.num_heads + N);
    zeros = scratch.take<T>(channels.row());
    __builtin_memset(zeros, 0, channels.row() * sizeof(T));
  }

  LITE_DETR_METHOD void locate(const Tile& tile, int64_t i, int64_t h, Head& to) {
    to.in_tile = i;
    to.query = tile.query[i];
    to.head = h;
    const T* value = row_of_query<T>(args.value, args.value_stride, tile.image, 0, h);
    const T* key = SeparateKey ? row_of_query<T>(args.key, args.key_stride, tile.image, 0, h) : nullptr;
    if (i + 1 < tile.size) {
      const int64_t ahead = tile.query[i + 1];
      sampler.prefetch_offsets(args, tile.image, ahead, h);
      prefetch(row_of_query<T>(args.query, args.query_stride, tile.image, ahead, h), args.head_dim * sizeof(T));
    }
    const A* xy = sampler.get_offsets(args, tile.image, to.query, h);
    const int64_t value_stride = args.value_stride[1] * sizeof(T);
    const int64_t key_stride = args.key_stride[1] * sizeof(T);
    for (int64_t block = 0; block * N < sampler.num_samples; ++block) {
      const auto cells = sampler.locate(args, i, xy, block);
      sampler.store_weights(cells, to.weight + 4 * N * block);
      sampler.store_addresses(cells, value_stride, value, zeros, to.value_address + 4 * N * block);
      if (SeparateKey) {
        sampler.store_addresses(cells, key_stride, key, zeros, to.key_address + 4 * N * block);
      }
    }
  }

  // Samples the value of one lane of a block, keeps it and returns the lane-wise products of key and query. Holds
  // copies only: a pointer to the whole state would be read again after every store.
  struct SampleOf {
    C channels;
    const int64_t* value_address;
    const int64_t* key_address;
    const A* weight;
    A* samples;
    const A* scaled;
    const int64_t* next_address;
    int64_t lanes;  // that hold samples
    int64_t row_bytes;
    V query[kRegisters];

    LITE_DETR_METHOD V operator()(int lane) const {
      if (lane >= lanes) return V{};
      if constexpr (C::kInline) return sample(lane);
      return sample_outlined(lane);
    }
    LITE_DETR_OUTLINE V sample_outlined(int64_t lane) const { return sample(lane); }
    LITE_DETR_METHOD V sample(int64_t lane) const {
      const A w0 = weight[lane], w1 = weight[N + lane], w2 = weight[2 * N + lane], w3 = weight[3 * N + lane];
      const Corners<T> at_value(value_address + lane, N);
      const Corners<T> at_key = SeparateKey ? Corners<T>(key_address + lane, N) : at_value;
      for (int corner = 0; corner < 4; ++corner) {
        prefetch(next_address[corner * N + lane], HeadDim > 0 ? HeadDim * sizeof(T) : row_bytes);
      }
      V product = {};
      for (int64_t v = 0; v < channels.vectors(); ++v) {
        const V sampled = channels.interpolate(at_value, v, w0, w1, w2, w3);
        store_bits(samples + lane * channels.row() + v * N, sampled);
        const V q = kVectors > 0 ? query[kVectors > 0 ? v : 0] : load_bits<V>(scaled + v * N);
        product += q * (SeparateKey ? channels.interpolate(at_key, v, w0, w1, w2, w3) : sampled);
      }
      return product;
    }
  };

  LITE_DETR_METHOD void compute(const Tile& tile, const Head& head, const Head& next) {
    const T* from = row_of_query<T>(args.query, args.query_stride, tile.image, head.query, head.head);
    const A scale = A(1) / std::sqrt(static_cast<A>(args.head_dim));
    const int64_t row_bytes = args.head_dim * static_cast<int64_t>(sizeof(T));
    SampleOf sample{channels, nullptr, nullptr, nullptr, nullptr, scaled, nullptr, 0, row_bytes, {}};
    for (int64_t v = 0; v < channels.vectors(); ++v) {
      const V q = channels.load(from, v) * scale;
      if (kVectors > 0) {
        sample.query[kVectors > 0 ? v : 0] = q;
      } else {
        store_bits(scaled + v * N, q);
      }
    }

    const int64_t num_samples = sampler.num_samples;
    const int64_t blocks = (num_samples + N - 1) / N;
    const int64_t row = channels.row();
    A* const sampled = samples;
    A* const attention = logits;
    V maximum = splat(-static_cast<A>(INFINITY));
    for (int64_t block = 0; block < blocks; ++block) {
      sample.value_address = head.value_address + 4 * N * block;
      if (SeparateKey) sample.key_address = head.key_address + 4 * N * block;
      sample.weight = head.weight + 4 * N * block;
      sample.samples = sampled + N * block * row;
      sample.next_address = next.value_address + 4 * N * block;
      sample.lanes = num_samples - block * N;
      const V logit = sum_of_each<A, 0, N>(sample) + load_bits<V>(sampler.padding_bias + block * N);
      store_bits(attention + block * N, logit);
      maximum = logit > maximum ? logit : maximum;
    }
    maximum = max_lanes<A>(maximum);
    V sum = {};
    for (int64_t block = 0; block < blocks; ++block) {
      const V e = exp_lanes(load_bits<V>(attention + block * N) - maximum);
      store_bits(attention + block * N, e);
      sum += e;
    }
    sum = sum_lanes<A>(sum);
    const int64_t at_head = (tile.image * args.num_queries + head.query) * args.num_heads + head.head;
    maxima[head.in_tile * args.num_heads + head.head] = maximum[0];
    sums[head.in_tile * args.num_heads + head.head] = sum[0];

    const V normaliser = A(1) / sum;
    T* to = static_cast<T*>(args.output) + at_head * args.head_dim;
    for (int64_t first = 0; first < channels.vectors(); first += kTogether) {
      V even[kTogether] = {}, odd[kTogether] = {};
      const A* from = sampled + first * N;
      int64_t s = 0;
      for (; s + 1 < num_samples; s += 2, from += 2 * row) {
        const A a = attention[s], b = attention[s + 1];
        for (int64_t v = 0; v < kTogether; ++v) {
          even[v] += a * load_bits<V>(from + v * N);
          odd[v] += b * load_bits<V>(from + row + v * N);
        }
      }
      for (int64_t v = 0; v < kTogether; ++v) {
        if (s < num_samples) even[v] += attention[s] * load_bits<V>(from + v * N);
        channels.store(to, first + v, (even[v] + odd[v]) * normaliser);
      }
    }
  }

  LITE_DETR_METHOD void store_logsumexp(const Tile& tile) {
    for (int64_t i = 0; i < tile.size; ++i) {
      A* to = static_cast<A*>(args.logsumexp) + (tile.image * args.num_queries + tile.query[i]) * args.num_heads;
      for (int64_t h = 0; h < args.num_heads; h += N) {
        const int64_t at = i * args.num_heads + h;
        const V result = load_bits<V>(maxima + at) + log_lanes(load_bits<V>(sums + at));
        const int64_t left = args.num_heads - h;
        if (left >= N) {
          store_bits(to + h, result);
        } else {
          store_partial<A>(to + h, result, left);
        }
      }
    }
  }

  LITE_DETR_METHOD void run(int64_t tile_begin, int64_t tile_end) {
    Tile tile;
    for (int64_t t = tile_begin; t < tile_end; ++t) {
      get_tile(args, t, tile);
      sampler.set_tile(args, tile);
      visit(*this, tile, 0, args.num_heads);
      if (args.logsumexp != nullptr) store_logsumexp(tile);
    }
  }
};

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
