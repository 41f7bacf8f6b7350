// Forward pass over tiles of queries with attention weights that are given: ordinary deformable attention.
#pragma once

#include "channels.h"
#include "sampler.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

template <typename T, int HeadDim>
struct ForwardGiven {
  using A = Accumulator<T>;
  using V = Vec<A>;
  using C = Channels<T, HeadDim>;
  static constexpr int N = kLanes<A>;
  static constexpr int kVectors = C::kVectors;
  // Vectors of a row that are summed in registers at a time.
  static constexpr int kRegisters = kVectors == 0 ? 1 : kVectors > 4 ? 4 : kVectors;

  // What one query and head read.
  struct Head {
    int64_t query;
    int64_t head;
    int64_t* address;  // [block][corner][lane]
    A* weight;         // bilinear weight times attention weight
  };

  const Arguments& args;
  C channels;
  Sampler<A> sampler;
  Head heads[2];
  T* zeros;  // what samples outside of the map read

  LITE_DETR_METHOD ForwardGiven(const Arguments& arguments, Scratch& scratch)
      : args(arguments), channels(arguments.head_dim), sampler(arguments, scratch) {
    for (Head& head : heads) {
      head.address = scratch.take<int64_t>(4 * sampler.padded);
      head.weight = scratch.take<A>(4 * sampler.padded);
    }
    zeros = scratch.take<T>(channels.row());
    __builtin_memset(zeros, 0, channels.row() * sizeof(T));
  }

  LITE_DETR_METHOD void locate(const Tile& tile, int64_t i, int64_t h, Head& to) {
    to.query = tile.query[i];
    to.head = h;
    const T* value = row_of_query<T>(args.value, args.value_stride, tile.image, 0, h);
    if (i + 1 < tile.size) sampler.prefetch_offsets(args, tile.image, tile.query[i + 1], h);
    const A* xy = sampler.get_offsets(args, tile.image, to.query, h);
    const A* attention = sampler.get_weights(args, tile.image, to.query, h);
    for (int64_t block = 0; block * N < sampler.num_samples; ++block) {
      auto cells = sampler.locate(args, i, xy, block);
      const V weight = load_bits<V>(attention + N * block);
      cells.top *= weight;
      cells.bottom *= weight;
      sampler.store_weights(cells, to.weight + 4 * N * block);
      sampler.store_addresses(cells, args.value_stride[1] * sizeof(T), value, zeros, to.address + 4 * N * block);
    }
  }

  LITE_DETR_METHOD void compute(const Tile& tile, const Head& head, const Head& next) {
    const int64_t at_head = (tile.image * args.num_queries + head.query) * args.num_heads + head.head;
    T* const to = static_cast<T*>(args.output) + at_head * args.head_dim;
    for (int64_t v = 0; v < channels.vectors(); v += kRegisters) {
      V top[kRegisters] = {}, bottom[kRegisters] = {};  // two chains of additions
      add_samples(head, next, v, top, bottom);
      for (int64_t r = 0; r < kRegisters; ++r) channels.store(to, v + r, top[r] + bottom[r]);
    }
  }

  LITE_DETR_METHOD void add_samples(const Head& head, const Head& next, int64_t first, V* top, V* bottom) const {
    const int64_t row_bytes = HeadDim > 0 ? HeadDim * sizeof(T) : args.head_dim * static_cast<int64_t>(sizeof(T));
    for (int64_t block = 0; block * N < sampler.num_samples; ++block) {
      const int64_t left = sampler.num_samples - block * N;
      const int64_t lanes = left < N ? left : N;
      const int64_t* const address = head.address + 4 * N * block;
      const int64_t* const next_address = next.address + 4 * N * block;
      const A* const weight = head.weight + 4 * N * block;
      LITE_DETR_NO_UNROLL for (int64_t lane = 0; lane < lanes; ++lane) {
        const Corners<T> at_value(address + lane, N);
        if (first == 0) {
          for (int corner = 0; corner < 4; ++corner) prefetch(next_address[corner * N + lane], row_bytes);
        }
        const A w0 = weight[lane], w1 = weight[N + lane], w2 = weight[2 * N + lane], w3 = weight[3 * N + lane];
        for (int64_t r = 0; r < kRegisters; ++r) {
          top[r] += w0 * channels.load(at_value.row[0], first + r);
          bottom[r] += w2 * channels.load(at_value.row[2], first + r);
          top[r] += w1 * channels.load(at_value.row[1], first + r);
          bottom[r] += w3 * channels.load(at_value.row[3], first + r);
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
    }
  }
};

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
