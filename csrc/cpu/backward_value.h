// Second step of the backward pass, see backward_query.h: gradients of value and key.
#pragma once

#include "backward_query.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

// Gradients of value and key of some heads of one image. Samples outside of their map write to a row of their own, so
// that no branch is needed.
template <typename A, int HeadDim, Form form>
struct BackwardValue {
  static constexpr bool kGiven = form == Form::kGivenWeights;
  static constexpr bool kSeparateKey = form == Form::kSeparateKey;
  using V = Vec<A>;
  using C = Channels<A, HeadDim>;
  static constexpr int N = kLanes<A>;
  static constexpr int kVectors = C::kVectors;
  static constexpr int kRegisters = kVectors > 0 ? kVectors : 1;

  // What one query and head write to.
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
  A* query;  // where they do not fit registers
  A* grad;
  A* outside;  // row that nobody reads
  int64_t tile_in_chunk = 0;
  int64_t s_begin = 0;  // samples of the levels that are asked for
  int64_t s_end = 0;

  LITE_DETR_METHOD BackwardValue(const Arguments& arguments, Scratch& scratch)
      : args(arguments), channels(arguments.head_dim), sampler(arguments, scratch) {
    for (Head& head : heads) {
      head.value_address = scratch.take<int64_t>(4 * sampler.padded);
      head.key_address = kSeparateKey ? scratch.take<int64_t>(4 * sampler.padded) : nullptr;
      head.weight = scratch.take<A>(4 * sampler.padded);
    }
    query = scratch.take<A>(channels.row());
    grad = scratch.take<A>(channels.row());
    outside = scratch.take<A>(channels.row());
    __builtin_memset(outside, 0, channels.row() * sizeof(A));
  }

  LITE_DETR_METHOD void locate(const Tile& tile, int64_t i, int64_t h, Head& to) {
    const int64_t* stride = args.grad_value_stride;
    to.in_tile = i;
    to.query = tile.query[i];
    to.head = h;
    const A* grad_value = row_of_query<A>(args.grad_value, stride, tile.image, 0, h);
    const A* grad_key =
        kSeparateKey ? row_of_query<A>(args.grad_key, args.grad_key_stride, tile.image, 0, h) : nullptr;
    if (i + 1 < tile.size) {
      const int64_t ahead = tile.query[i + 1];
      const int64_t bytes = args.head_dim * sizeof(A);
      sampler.prefetch_offsets(args, tile.image, ahead, h);
      if (!kGiven) prefetch(row_of_query<A>(args.query, args.query_stride, tile.image, ahead, h), bytes);
      prefetch(row_of_query<A>(args.grad_output, args.grad_output_stride, tile.image, ahead, h), bytes);
    }
    const A* xy = sampler.get_offsets(args, tile.image, to.query, h);
    for (int64_t block = s_begin / N; block * N < s_end; ++block) {
      const auto cells = sampler.locate(args, i, xy, block);
      sampler.store_weights(cells, to.weight + 4 * N * block);
      sampler.store_addresses(cells, stride[1] * sizeof(A), grad_value, outside, to.value_address + 4 * N * block);
      if (kSeparateKey) {
        sampler.store_addresses(cells, args.grad_key_stride[1] * sizeof(A), grad_key, outside,
                                to.key_address + 4 * N * block);
      }
    }
  }

  // Adds a sample's update to one corner after the other: two corners may be the same token.
  LITE_DETR_METHOD void add(const int64_t* address, const A* weight, const V* update) const {
    LITE_DETR_UNROLL for (int corner = 0; corner < 4; ++corner) {
      A* to = at<A>(address[corner * N]);
      const A w = weight[corner * N];
      for (int64_t v = 0; v < kVectors; ++v) {
        channels.store(to, v, channels.load(to, v) + w * update[v]);
      }
    }
  }

  // The same for any number of channels: (a * x + b * y) times the bilinear weights.
  LITE_DETR_METHOD void add_rows(const int64_t* address, const A* weight, A a, const A* x, A b, const A* y) const {
    LITE_DETR_NO_UNROLL for (int corner = 0; corner < 4; ++corner) {
      A* to = at<A>(address[corner * N]);
      const A w = weight[corner * N];
      for (int64_t v = 0; v < channels.vectors(); ++v) {
        const V update = a * load_bits<V>(x + v * N) + b * load_bits<V>(y + v * N);
        channels.store(to, v, channels.load(to, v) + w * update);
      }
    }
  }

  LITE_DETR_METHOD void compute(const Tile& tile, const Head& head, const Head& next) {
    const A* q_row =
        kGiven ? nullptr : row_of_query<A>(args.query, args.query_stride, tile.image, head.query, head.head);
    const A* g_row = row_of_query<A>(args.grad_output, args.grad_output_stride, tile.image, head.query, head.head);
    V q[kRegisters] = {}, g[kRegisters];
    for (int64_t v = 0; v < channels.vectors(); ++v) {
      if (kVectors > 0) {
        if (!kGiven) q[kVectors > 0 ? v : 0] = channels.load(q_row, v);
        g[kVectors > 0 ? v : 0] = channels.load(g_row, v);
      } else {
        if (!kGiven) store_bits(query + v * N, channels.load(q_row, v));
        store_bits(grad + v * N, channels.load(g_row, v));
      }
    }
    const A* const attention = kGiven ? sampler.get_weights(args, tile.image, head.query, head.head)
                                      : kept_of<A>(args, tile_in_chunk, head.in_tile, head.head);
    const A* const logit_grad = attention + sampler.padded;
    const int64_t row_bytes = args.head_dim * sizeof(A);
    LITE_DETR_NO_UNROLL for (int64_t s = s_begin; s < s_end; ++s) {
      const int64_t lane = s & (N - 1);
      const int64_t at_sample = 4 * (s - lane) + lane;
      const int64_t* value_address = head.value_address + at_sample;
      const A* weight = head.weight + at_sample;
      for (int corner = 0; corner < 4; ++corner) {
        prefetch(next.value_address[at_sample + corner * N], HeadDim > 0 ? HeadDim * sizeof(A) : row_bytes);
      }
      const A a = attention[s];
      const A b = kGiven ? A(0) : logit_grad[s];
      if constexpr (kVectors > 0) {
        V value_update[kRegisters], key_update[kRegisters];
        for (int64_t v = 0; v < kVectors; ++v) {
          value_update[v] = a * g[v];
          key_update[v] = b * q[v];
          if (form == Form::kSharedKey) value_update[v] += key_update[v];
        }
        add(value_address, weight, value_update);
        if (kSeparateKey) add(head.key_address + at_sample, weight, key_update);
      } else if constexpr (kGiven) {
        add_rows(value_address, weight, a, grad, A(0), grad);
      } else {
        add_rows(value_address, weight, a, grad, kSeparateKey ? A(0) : b, query);
        if (kSeparateKey) add_rows(head.key_address + at_sample, weight, A(0), grad, b, query);
      }
    }
  }

  LITE_DETR_METHOD void run(int64_t chunk_begin, int64_t chunk_end, int64_t image, int64_t head_begin,
                            int64_t head_end, int64_t level_begin, int64_t level_end) {
    Tile tile;
    s_begin = level_begin * args.num_points;
    s_end = level_end * args.num_points;
    const int64_t first_tile = image * args.tiles_per_image;
    const int64_t last_tile = first_tile + args.tiles_per_image;
    const int64_t t_begin = chunk_begin > first_tile ? chunk_begin : first_tile;
    const int64_t t_end = chunk_end < last_tile ? chunk_end : last_tile;
    for (int64_t t = t_begin; t < t_end; ++t) {
      get_tile(args, t, tile);
      sampler.set_tile(args, tile);
      tile_in_chunk = t - chunk_begin;
      visit(*this, tile, head_begin, head_end);
    }
  }
};

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
