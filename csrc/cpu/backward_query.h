// Backward pass in two steps per chunk of tiles, both without atomics and in an order that no thread count changes:
// here what belongs to a query (gradients of query, offsets, reference points and given attention weights; the weights
// and logit gradients of the chunk are kept), in backward_value.h what belongs to a head's tokens.
#pragma once

#include "channels.h"
#include "sampler.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

// Where a chunk's attention weights of a query and head are kept; the gradients of its logits follow,
// padded_samples() numbers each.
template <typename A>
LITE_DETR_INLINE A* kept_of(const Arguments& args, int64_t tile_in_chunk, int64_t i, int64_t head) {
  const int64_t padded = padded_samples(args.num_levels, args.num_points);
  return static_cast<A*>(args.kept) + ((tile_in_chunk * kTileSize + i) * args.num_heads + head) * 2 * padded;
}

template <typename A, int HeadDim, Form form>
struct BackwardQuery {
  static constexpr bool kGiven = form == Form::kGivenWeights;
  static constexpr bool kSeparateKey = form == Form::kSeparateKey;
  using V = Vec<A>;
  using C = Channels<A, HeadDim>;
  static constexpr int N = kLanes<A>;
  static constexpr int kVectors = C::kVectors;
  static constexpr int kRegisters = kVectors > 0 ? kVectors : 1;

  // What one query and head read.
  struct Head {
    int64_t in_tile;
    int64_t query;
    int64_t head;
    int64_t* value_address;  // [block][corner][lane]
    int64_t* key_address;    // value_address, if value is the key
    A* weight;               // bilinear
    A* slope;                // [block][weight of left, right, top, bottom, presence of the same, inside][lane]
    A* offset;               // x and y of each sample, zero outside of the map: boxes only
  };
  static constexpr int kSlopes = 9;

  const Arguments& args;
  C channels;
  Sampler<A> sampler;
  Head heads[2];
  A* dots;            // [block][d(q k)/dx, d(q k)/dy, d(g v)/dx, d(g v)/dy, g v][lane]
  A* coefficient;     // bilinear weight times gradient of the logit [block][corner][lane]
  A* scaled;          // query, where it does not fit registers
  A* grad;            // likewise the output's gradient
  A* reference_grad;  // of the tile's queries: [query][x, y, w, h][sample], summed over the heads; null: not wanted
  A* offset_grad;     // x and y of each sample of one query and head
  A* weight_grad;     // of each sample of one query and head, if the weights are given
  int64_t tile_in_chunk = 0;
  A* zeros;

  LITE_DETR_METHOD BackwardQuery(const Arguments& arguments, Scratch& scratch)
      : args(arguments), channels(arguments.head_dim), sampler(arguments, scratch) {
    const int64_t padded = sampler.padded;
    for (Head& head : heads) {
      head.value_address = scratch.take<int64_t>(4 * padded);
      head.key_address = kSeparateKey ? scratch.take<int64_t>(4 * padded) : head.value_address;
      head.weight = scratch.take<A>(4 * padded);
      head.slope = scratch.take<A>(kSlopes * padded);
      head.offset = scratch.take<A>(2 * padded);
    }
    dots = scratch.take<A>(5 * padded);
    coefficient = scratch.take<A>(4 * padded);
    scaled = scratch.take<A>(channels.row());
    grad = scratch.take<A>(channels.row());
    const bool wanted = args.grad_reference_points != nullptr;
    reference_grad = wanted ? scratch.take<A>(4 * padded * kTileSize) : nullptr;
    offset_grad = scratch.take<A>(2 * padded);
    weight_grad = scratch.take<A>(padded);
    zeros = scratch.take<A>(channels.row());
    __builtin_memset(zeros, 0, channels.row() * sizeof(A));
  }

  LITE_DETR_METHOD void locate(const Tile& tile, int64_t i, int64_t h, Head& to) {
    to.in_tile = i;
    to.query = tile.query[i];
    to.head = h;
    const A* value = row_of_query<A>(args.value, args.value_stride, tile.image, 0, h);
    const A* key = kSeparateKey ? row_of_query<A>(args.key, args.key_stride, tile.image, 0, h) : nullptr;
    if (i + 1 < tile.size) {
      const int64_t ahead = tile.query[i + 1];
      const int64_t bytes = args.head_dim * sizeof(A);
      sampler.prefetch_offsets(args, tile.image, ahead, h);
      if (!kGiven) prefetch(row_of_query<A>(args.query, args.query_stride, tile.image, ahead, h), bytes);
      prefetch(row_of_query<A>(args.grad_output, args.grad_output_stride, tile.image, ahead, h), bytes);
    }
    const A* xy = sampler.get_offsets(args, tile.image, to.query, h);
    const V one = splat(A(1));
    for (int64_t block = 0; block * N < sampler.num_samples; ++block) {
      const auto cells = sampler.locate(args, i, xy, block);
      sampler.store_weights(cells, to.weight + 4 * N * block);
      sampler.store_addresses(cells, args.value_stride[1] * sizeof(A), value, zeros, to.value_address + 4 * N * block);
      if (kSeparateKey) {
        sampler.store_addresses(cells, args.key_stride[1] * sizeof(A), key, zeros, to.key_address + 4 * N * block);
      }
      A* slope = to.slope + kSlopes * N * block;
      store_bits(slope, cells.left);
      store_bits(slope + N, cells.right);
      store_bits(slope + 2 * N, cells.top);
      store_bits(slope + 3 * N, cells.bottom);
      store_bits(slope + 4 * N, select<A>(cells.has_left, -one, V{}));
      store_bits(slope + 5 * N, select<A>(cells.has_right, one, V{}));
      store_bits(slope + 6 * N, select<A>(cells.has_top, -one, V{}));
      store_bits(slope + 7 * N, select<A>(cells.has_bottom, one, V{}));
      store_bits(slope + 8 * N, select<A>(cells.inside, one, V{}));
      if (args.boxes) {
        store_bits(to.offset + 2 * N * block, select<A>(cells.inside, cells.offset_x, V{}));
        store_bits(to.offset + 2 * N * block + N, select<A>(cells.inside, cells.offset_y, V{}));
      }
    }
  }

  // Lane-wise products of a corner's rows with the query and with the gradient of the output.
  struct ProductsOf {
    C channels;
    const int64_t* value_address;
    const int64_t* key_address;
    const A* scaled;  // where they do not fit registers
    const A* grad;
    const int64_t* next_value_address;
    const int64_t* next_key_address;
    int64_t lanes;  // that hold samples
    int64_t row_bytes;
    V query_registers[kRegisters];
    V grad_registers[kRegisters];

    using Products = std::conditional_t<kGiven, V, VecPair<A>>;

    LITE_DETR_METHOD Products operator()(int lane) const {
      if (lane >= lanes) return Products{};
      if constexpr (C::kInline) return products(lane);
      return products_outlined(lane);
    }
    LITE_DETR_OUTLINE Products products_outlined(int64_t lane) const { return products(lane); }
    LITE_DETR_METHOD Products products(int64_t lane) const {
      const int64_t bytes = HeadDim > 0 ? HeadDim * sizeof(A) : row_bytes;
      prefetch(next_value_address[lane], bytes);
      if (kSeparateKey) prefetch(next_key_address[lane], bytes);
      const A* value_row = at<const A>(value_address[lane]);
      const A* key_row = kSeparateKey ? at<const A>(key_address[lane]) : value_row;
      V with_query = {}, with_grad = {};
      for (int64_t v = 0; v < channels.vectors(); ++v) {
        const V x = channels.load(value_row, v);
        with_grad += x * (kVectors > 0 ? grad_registers[kVectors > 0 ? v : 0] : load_bits<V>(grad + v * N));
        if (kGiven) continue;
        const V k = kSeparateKey ? channels.load(key_row, v) : x;
        with_query += k * (kVectors > 0 ? query_registers[kVectors > 0 ? v : 0] : load_bits<V>(scaled + v * N));
      }
      if constexpr (kGiven) {
        return with_grad;
      } else {
        return {with_query, with_grad};
      }
    }
  };

  LITE_DETR_METHOD void compute(const Tile& tile, const Head& head, const Head& next) {
    const int64_t p = sampler.padded;
    const int64_t num_samples = sampler.num_samples;
    const int64_t blocks = (num_samples + N - 1) / N;
    const int64_t at_head = (tile.image * args.num_queries + head.query) * args.num_heads + head.head;
    const A scale = A(1) / std::sqrt(static_cast<A>(args.head_dim));
    const int64_t row_bytes = args.head_dim * sizeof(A);
    ProductsOf products{channels, nullptr, nullptr, scaled, grad, nullptr, nullptr, 0, row_bytes, {}, {}};
    {
      const A* q =
          kGiven ? nullptr : row_of_query<A>(args.query, args.query_stride, tile.image, head.query, head.head);
      const A* g = row_of_query<A>(args.grad_output, args.grad_output_stride, tile.image, head.query, head.head);
      for (int64_t v = 0; v < channels.vectors(); ++v) {
        if (kVectors > 0) {
          if (!kGiven) products.query_registers[kVectors > 0 ? v : 0] = channels.load(q, v) * scale;
          products.grad_registers[kVectors > 0 ? v : 0] = channels.load(g, v);
        } else {
          if (!kGiven) store_bits(scaled + v * N, channels.load(q, v) * scale);
          store_bits(grad + v * N, channels.load(g, v));
        }
      }
    }

    const A* const given = kGiven ? sampler.get_weights(args, tile.image, head.query, head.head) : nullptr;
    const V logsumexp = kGiven ? V{} : splat(static_cast<const A*>(args.logsumexp)[at_head]);
    A* const attention = kGiven ? nullptr : kept_of<A>(args, tile_in_chunk, head.in_tile, head.head);
    A* const logit_grad = kGiven ? weight_grad : attention + p;
    V weighted = {};  // attention weight * (g v), summed
    for (int64_t block = 0; block < blocks; ++block) {
      V qk = {}, gv = {}, qk_x = {}, qk_y = {}, gv_x = {}, gv_y = {};
      const A* slope = head.slope + kSlopes * N * block;
      products.lanes = num_samples - block * N;
      LITE_DETR_NO_UNROLL for (int corner = 0; corner < 4; ++corner) {
        const int64_t first = (4 * block + corner) * N;
        products.value_address = head.value_address + first;
        products.key_address = head.key_address + first;
        products.next_value_address = next.value_address + first;
        products.next_key_address = next.key_address + first;
        V dot_q = {}, dot_g;
        if constexpr (kGiven) {
          dot_g = sum_of_each<A, 0, N>(products);
        } else {
          const VecPair<A> dots_of_corner = sum_of_each_pair<A, 0, N>(products);
          dot_q = dots_of_corner.first;
          dot_g = dots_of_corner.second;
        }
        const V along_x = load_bits<V>(slope + (corner % 2) * N);
        const V along_y = load_bits<V>(slope + (2 + corner / 2) * N);
        const V in_x = load_bits<V>(slope + (4 + corner % 2) * N) * along_y;
        const V in_y = load_bits<V>(slope + (6 + corner / 2) * N) * along_x;
        if (!kGiven) {
          qk += along_x * along_y * dot_q;
          qk_x += in_x * dot_q;
          qk_y += in_y * dot_q;
        }
        gv += along_x * along_y * dot_g;
        gv_x += in_x * dot_g;
        gv_y += in_y * dot_g;
      }
      A* dot = dots + 5 * N * block;
      if (!kGiven) {
        const V a = exp_lanes(qk + load_bits<V>(sampler.padding_bias + block * N) - logsumexp);
        weighted += a * gv;
        store_bits(attention + block * N, a);
        store_bits(dot, qk_x);
        store_bits(dot + N, qk_y);
      }
      store_bits(dot + 2 * N, gv_x);
      store_bits(dot + 3 * N, gv_y);
      store_bits(dot + 4 * N, gv);
    }
    weighted = sum_lanes<A>(weighted);

    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t s = block * N;
      const A* dot = dots + 5 * s;
      // The weight of a sample, and the gradient of its logit or, if it is given, of the weight itself.
      const V a = load_bits<V>((kGiven ? given : attention) + s);
      V x = a * load_bits<V>(dot + 2 * N);
      V y = a * load_bits<V>(dot + 3 * N);
      if (kGiven) {
        store_bits(logit_grad + s, load_bits<V>(dot + 4 * N));
      } else {
        const V logit = a * (load_bits<V>(dot + 4 * N) - weighted);
        store_bits(logit_grad + s, logit * scale);
        LITE_DETR_UNROLL for (int corner = 0; corner < 4; ++corner) {
          store_bits(coefficient + 4 * s + corner * N, load_bits<V>(head.weight + 4 * s + corner * N) * logit * scale);
        }
        x += logit * load_bits<V>(dot);
        y += logit * load_bits<V>(dot + N);
      }
      // Slopes outside of the map are exactly zero, whatever the offset.
      if (reference_grad != nullptr) {
        A* const reference = reference_grad + head.in_tile * 4 * p + s;
        store_bits(reference, load_bits<V>(reference) + x);
        store_bits(reference + p, load_bits<V>(reference + p) + y);
        if (args.boxes) {
          const A* offset = head.offset + 2 * s;
          store_bits(reference + 2 * p, load_bits<V>(reference + 2 * p) + x * load_bits<V>(offset));
          store_bits(reference + 3 * p, load_bits<V>(reference + 3 * p) + y * load_bits<V>(offset + N));
        }
      }
      if (args.boxes) {
        const auto inside = load_bits<V>(head.slope + kSlopes * s + 8 * N) != V{};
        const int64_t at_query = head.in_tile * p + s;
        x *= inside ? load_bits<V>(sampler.scale_x + at_query) : V{};
        y *= inside ? load_bits<V>(sampler.scale_y + at_query) : V{};
      }
      interleave<A>(offset_grad + 2 * s, x, y, std::make_integer_sequence<int, N>{});
    }
    store_offset_grad(at_head);
    if constexpr (kGiven) {
      convert_to(args.weight_type, weight_grad, args.grad_attention_weights, at_head * num_samples, num_samples);
      return;
    }

    A* const to = static_cast<A*>(args.grad_query) + at_head * args.head_dim;
    if constexpr (C::kInline) {
      V top[kRegisters] = {}, bottom[kRegisters] = {};  // two chains of additions
      add_keys(head, 0, kRegisters, top, bottom);
      for (int64_t v = 0; v < kRegisters; ++v) channels.store(to, v, top[v] + bottom[v]);
    } else {
      for (int64_t v = 0; v < channels.vectors(); ++v) {
        V top[1] = {}, bottom[1] = {};
        add_keys(head, v, 1, top, bottom);
        channels.store(to, v, top[0] + bottom[0]);
      }
    }
  }

  // Adds the gradient of the query: the corners' rows of the key times their coefficients.
  LITE_DETR_METHOD void add_keys(const Head& head, int64_t first_vector, int64_t num_vectors, V* top,
                                 V* bottom) const {
    for (int64_t block = 0; block * N < sampler.num_samples; ++block) {
      const int64_t left = sampler.num_samples - block * N;
      const int64_t lanes = left < N ? left : N;
      const int64_t* const address = head.key_address + 4 * N * block;
      const A* const weight = coefficient + 4 * N * block;
      LITE_DETR_NO_UNROLL for (int64_t lane = 0; lane < lanes; ++lane) {
        for (int corner = 0; corner < 4; ++corner) {
          const A* from = at<const A>(address[corner * N + lane]);
          for (int64_t v = 0; v < num_vectors; ++v) {
            (corner < 2 ? top : bottom)[v] += weight[corner * N + lane] * channels.load(from, first_vector + v);
          }
        }
      }
    }
  }

  LITE_DETR_METHOD void store_offset_grad(int64_t at_head) {
    const int64_t level_size = 2 * args.num_points;
    int64_t count = 2 * sampler.num_samples;
    if (args.shared_offsets) {
      for (int64_t l = 1; l < args.num_levels; ++l) {
        for (int64_t j = 0; j < level_size; ++j) offset_grad[j] += offset_grad[l * level_size + j];
      }
      count = level_size;
    }
    if (args.offset_type == kScalarType<A>) {
      __builtin_memcpy(static_cast<A*>(args.grad_sampling_offsets) + at_head * count, offset_grad, count * sizeof(A));
    } else {
      convert_to(args.offset_type, offset_grad, args.grad_sampling_offsets, at_head * count, count);
    }
  }

  LITE_DETR_METHOD void store_reference_grad(const Tile& tile) {
    const int64_t size = args.boxes ? 4 : 2;
    const A half = A(0.5) / static_cast<A>(args.num_points);
    for (int64_t i = 0; i < tile.size; ++i) {
      const A* from = reference_grad + i * 4 * sampler.padded;
      for (int64_t l = 0; l < args.num_levels; ++l) {
        A sums[4] = {};
        for (int64_t j = 0; j < size; ++j) {
          for (int64_t point = 0; point < args.num_points; ++point) {
            sums[j] += from[j * sampler.padded + l * args.num_points + point];
          }
          sums[j] *= static_cast<A>(j % 2 ? args.levels[l].height : args.levels[l].width) * (j / 2 ? half : A(1));
        }
        convert_to(args.reference_type, sums, args.grad_reference_points,
                   ((tile.image * args.num_queries + tile.query[i]) * args.num_levels + l) * size, size);
      }
    }
  }

  LITE_DETR_METHOD void run(int64_t chunk_begin, int64_t tile_begin, int64_t tile_end) {
    Tile tile;
    for (int64_t t = tile_begin; t < tile_end; ++t) {
      get_tile(args, t, tile);
      sampler.set_tile(args, tile);
      tile_in_chunk = t - chunk_begin;
      const bool wanted = reference_grad != nullptr;
      if (wanted) __builtin_memset(reference_grad, 0, 4 * sampler.padded * kTileSize * sizeof(A));
      visit(*this, tile, 0, args.num_heads);
      if (wanted) store_reference_grad(tile);
    }
  }
};

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
