// Backward pass in two steps per chunk of tiles, both without atomics and in an order that no thread count changes:
// what belongs to a query (gradients of query, offsets and reference points; the attention weights and logit
// gradients of the chunk are kept), then what belongs to a head's tokens (gradients of value and key).
#pragma once

#include "sampling.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

// Where the chunk's attention weights lie; the gradients of the logits follow them, padded_samples() numbers each.
template <typename A>
LITE_DETR_INLINE A* weights_of(const Arguments& args, int64_t tile_in_chunk, int64_t i, int64_t head) {
  const int64_t padded = padded_samples(args.num_levels, args.num_points);
  return static_cast<A*>(args.weights) + ((tile_in_chunk * args.num_heads + head) * kTileSize + i) * 2 * padded;
}

template <typename T, int HeadDim, bool SeparateKey>
struct BackwardQuery {
  using A = Accumulator<T>;
  using V = Vec<A>;
  using C = Channels<T, HeadDim>;
  static constexpr int N = kLanes<A>;
  static constexpr int kVectors = C::kVectors;

  const Arguments& args;
  C channels;
  Sampler<A> sampler;
  int64_t row;
  int64_t* address;     // [value, key][corner][sample]
  A* weight;            // bilinear weights [corner][sample], then times the gradient of the logit
  A* slope;             // per sample: d(q k)/dx, d(q k)/dy, d(g v)/dx, d(g v)/dy, g v
  A* vectors;           // query and output gradient, where they do not fit registers
  A* reference_grad;    // of the tile's queries: [query][x, y, w, h][sample], summed over the heads
  A* offset_grad;       // x and y of each sample of one query and head
  T* zeros;
  V query_vectors[kVectors > 0 ? kVectors : 1];  // scaled
  V grad_vectors[kVectors > 0 ? kVectors : 1];

  static int64_t row_of(const Arguments& args) { return (args.head_dim + N - 1) / N * N; }
  static size_t scratch_bytes(const Arguments& args) {
    const int64_t padded = padded_samples(args.num_levels, args.num_points);
    return Sampler<A>::scratch_bytes(args) + Scratch::size_of<int64_t>(8 * padded) +
           Scratch::size_of<A>(4 * padded) + Scratch::size_of<A>(5 * padded) + Scratch::size_of<A>(2 * row_of(args)) +
           Scratch::size_of<A>(4 * padded * kTileSize) + Scratch::size_of<A>(2 * padded) +
           Scratch::size_of<T>(row_of(args));
  }

  LITE_DETR_METHOD BackwardQuery(const Arguments& arguments, Scratch& scratch)
      : args(arguments), channels(arguments.head_dim), sampler(arguments, scratch), row(row_of(arguments)) {
    address = scratch.take<int64_t>(8 * sampler.padded);
    weight = scratch.take<A>(4 * sampler.padded);
    slope = scratch.take<A>(5 * sampler.padded);
    vectors = scratch.take<A>(2 * row);
    reference_grad = scratch.take<A>(4 * sampler.padded * kTileSize);
    offset_grad = scratch.take<A>(2 * sampler.padded);
    zeros = scratch.take<T>(row);
    __builtin_memset(zeros, 0, row * sizeof(T));
  }

  LITE_DETR_METHOD V query_vector(int64_t v) const {
    return kVectors > 0 ? query_vectors[kVectors > 0 ? v : 0] : load_bits<V>(vectors + v * N);
  }
  LITE_DETR_METHOD V grad_vector(int64_t v) const {
    return kVectors > 0 ? grad_vectors[kVectors > 0 ? v : 0] : load_bits<V>(vectors + row + v * N);
  }

  // Lane-wise products of a corner's row with the query or with the gradient of the output.
  template <bool WithQuery>
  struct ProductOf {
    const BackwardQuery& self;
    const void* base;
    const int64_t* addresses;
    int64_t lanes;  // that hold samples
    LITE_DETR_METHOD V operator()(int lane) const {
      if (lane >= lanes) return V{};
      if constexpr (C::kInline) return product(at<T>(base, addresses[lane]));
      return product_outlined(at<T>(base, addresses[lane]));
    }
    LITE_DETR_OUTLINE V product_outlined(const T* from) const { return product(from); }
    LITE_DETR_METHOD V product(const T* from) const {
      V sum = {};
      for (int64_t v = 0; v < self.channels.vectors(); ++v) {
        sum += self.channels.load(from, v) * (WithQuery ? self.query_vector(v) : self.grad_vector(v));
      }
      return sum;
    }
  };

  LITE_DETR_METHOD void head(const Tile& tile, int64_t tile_in_chunk, int64_t i, int64_t h) {
    const int64_t q = tile.query[i];
    const int64_t p = sampler.padded;
    const T* value = static_cast<const T*>(args.value) + tile.image * args.value_stride[0] + h * args.value_stride[2];
    const T* key = value;
    if (SeparateKey) {
      key = static_cast<const T*>(args.key) + tile.image * args.key_stride[0] + h * args.key_stride[2];
    }
    const T* from = static_cast<const T*>(args.query) + tile.image * args.query_stride[0] + q * args.query_stride[1] +
                    h * args.query_stride[2];
    const T* grad = static_cast<const T*>(args.grad_output) + tile.image * args.grad_output_stride[0] +
                    q * args.grad_output_stride[1] + h * args.grad_output_stride[2];
    const A scale = A(1) / std::sqrt(static_cast<A>(args.head_dim));
    for (int64_t v = 0; v < channels.vectors(); ++v) {
      const V scaled = channels.load(from, v) * scale;
      const V g = channels.load(grad, v);
      if (kVectors > 0) {
        query_vectors[kVectors > 0 ? v : 0] = scaled;
        grad_vectors[kVectors > 0 ? v : 0] = g;
      } else {
        store_bits(vectors + v * N, scaled);
        store_bits(vectors + row + v * N, g);
      }
    }

    const int64_t at_head = (tile.image * args.num_queries + q) * args.num_heads + h;
    const V logsumexp = splat(static_cast<const A*>(args.logsumexp)[at_head]);
    A* attention = weights_of<A>(args, tile_in_chunk, i, h);
    A* logit_grad = attention + p;
    const A* xy = sampler.get_offsets(args, tile.image, q, h);
    const int64_t blocks = (sampler.num_samples + N - 1) / N;
    const int64_t* key_address = SeparateKey ? address + 4 * p : address;
    V weighted = {};  // attention weight * (g v), summed
    for (int64_t block = 0; block < blocks; ++block) {
      const auto cells = sampler.locate(args, i, xy, block);
      sampler.store_weights(cells, block, weight);
      sampler.store_addresses(cells, block, args.value_stride[1] * sizeof(T), value, zeros, address);
      if (SeparateKey) {
        sampler.store_addresses(cells, block, args.key_stride[1] * sizeof(T), key, zeros, address + 4 * p);
      }
      V qk = {}, gv = {}, qk_x = {}, qk_y = {}, gv_x = {}, gv_y = {};
      // Per corner: weights along x and y and their derivatives.
      const V along_x[2] = {cells.left, cells.right};
      const V along_y[2] = {cells.top, cells.bottom};
      const V slope_x[2] = {select<A>(cells.has_left, splat(A(-1)), V{}),
                            select<A>(cells.has_right, splat(A(1)), V{})};
      const V slope_y[2] = {select<A>(cells.has_top, splat(A(-1)), V{}),
                            select<A>(cells.has_bottom, splat(A(1)), V{})};
      const int64_t lanes = sampler.num_samples - block * N;
      LITE_DETR_NO_UNROLL for (int corner = 0; corner < 4; ++corner) {
        const int64_t first = corner * p + block * N;
        const V dot_q = sum_of_each<A, 0, N>(ProductOf<true>{*this, key, key_address + first, lanes});
        const V dot_g = sum_of_each<A, 0, N>(ProductOf<false>{*this, value, address + first, lanes});
        const V w = along_x[corner % 2] * along_y[corner / 2];
        const V in_x = slope_x[corner % 2] * along_y[corner / 2];
        const V in_y = slope_y[corner / 2] * along_x[corner % 2];
        qk += w * dot_q;
        gv += w * dot_g;
        qk_x += in_x * dot_q;
        qk_y += in_y * dot_q;
        gv_x += in_x * dot_g;
        gv_y += in_y * dot_g;
      }
      const V a = exp_lanes(qk + load_bits<V>(sampler.padding_bias + block * N) - logsumexp);
      weighted += a * gv;
      store_bits(attention + block * N, a);
      store_bits(slope + block * N, qk_x);
      store_bits(slope + p + block * N, qk_y);
      store_bits(slope + 2 * p + block * N, gv_x);
      store_bits(slope + 3 * p + block * N, gv_y);
      store_bits(slope + 4 * p + block * N, gv);
    }
    weighted = sum_lanes<A>(weighted);

    A* reference = reference_grad + i * 4 * p;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t s = block * N;
      const V a = load_bits<V>(attention + s);
      const V logit = a * (load_bits<V>(slope + 4 * p + s) - weighted);
      store_bits(logit_grad + s, logit * scale);
      LITE_DETR_UNROLL for (int corner = 0; corner < 4; ++corner) {
        A* w = weight + corner * p + s;
        store_bits(w, load_bits<V>(w) * (logit * scale));
      }
      // Slopes outside of the map are exactly zero, whatever the offset.
      V x = a * load_bits<V>(slope + 2 * p + s) + logit * load_bits<V>(slope + s);
      V y = a * load_bits<V>(slope + 3 * p + s) + logit * load_bits<V>(slope + p + s);
      store_bits(reference + s, load_bits<V>(reference + s) + x);
      store_bits(reference + p + s, load_bits<V>(reference + p + s) + y);
      if (args.boxes) {
        const auto cells = sampler.locate(args, i, xy, block);
        const V offset_x = select<A>(cells.inside, cells.offset_x, V{});
        const V offset_y = select<A>(cells.inside, cells.offset_y, V{});
        store_bits(reference + 2 * p + s, load_bits<V>(reference + 2 * p + s) + x * offset_x);
        store_bits(reference + 3 * p + s, load_bits<V>(reference + 3 * p + s) + y * offset_y);
        x *= select<A>(cells.inside, load_bits<V>(sampler.scale_x + i * p + s), V{});
        y *= select<A>(cells.inside, load_bits<V>(sampler.scale_y + i * p + s), V{});
      }
      interleave<A>(offset_grad + 2 * s, x, y, std::make_integer_sequence<int, N>{});
    }
    store_offset_grad(at_head);

    T* to = static_cast<T*>(args.grad_query) + at_head * args.head_dim;
    for (int64_t v = 0; v < channels.vectors(); ++v) {
      V top = {}, bottom = {};
      for (int64_t s = 0; s < sampler.num_samples; ++s) {
        top += weight[s] * channels.load(at<T>(key, key_address[s]), v);
        top += weight[p + s] * channels.load(at<T>(key, key_address[p + s]), v);
        bottom += weight[2 * p + s] * channels.load(at<T>(key, key_address[2 * p + s]), v);
        bottom += weight[3 * p + s] * channels.load(at<T>(key, key_address[3 * p + s]), v);
      }
      channels.store(to, v, top + bottom);
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
          sums[j] *= static_cast<A>(j % 2 ? args.heights[l] : args.widths[l]) * (j / 2 ? half : A(1));
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
      __builtin_memset(reference_grad, 0, 4 * sampler.padded * kTileSize * sizeof(A));
      for (int64_t h = 0; h < args.num_heads; ++h) {
        for (int64_t i = 0; i < tile.size; ++i) head(tile, t - chunk_begin, i, h);
      }
      store_reference_grad(tile);
    }
  }
};

// Samples outside of their map write to a row of its own, so that no branch is needed.
template <typename T, int HeadDim, bool SeparateKey>
struct BackwardValue {
  using A = Accumulator<T>;
  using V = Vec<A>;
  using C = Channels<T, HeadDim>;
  using G = Channels<A, HeadDim>;
  static constexpr int N = kLanes<A>;

  const Arguments& args;
  C channels;
  G grad_channels;
  Sampler<A> sampler;
  int64_t row;
  int64_t* address;
  A* weight;
  A* update;   // what a sample adds to its corners, before their bilinear weights
  A* outside;  // row that nobody reads

  static int64_t row_of(const Arguments& args) { return (args.head_dim + N - 1) / N * N; }
  static size_t scratch_bytes(const Arguments& args) {
    const int64_t padded = padded_samples(args.num_levels, args.num_points);
    return Sampler<A>::scratch_bytes(args) + Scratch::size_of<int64_t>(4 * padded) +
           Scratch::size_of<A>(4 * padded) + Scratch::size_of<A>(row_of(args));
  }

  LITE_DETR_METHOD BackwardValue(const Arguments& arguments, Scratch& scratch)
      : args(arguments),
        channels(arguments.head_dim),
        grad_channels(arguments.head_dim),
        sampler(arguments, scratch),
        row(row_of(arguments)) {
    address = scratch.take<int64_t>(4 * sampler.padded);
    weight = scratch.take<A>(4 * sampler.padded);
    outside = scratch.take<A>(row);
    __builtin_memset(outside, 0, row * sizeof(A));
  }

  LITE_DETR_METHOD void add(void* base, int64_t s, int64_t v, V x) {
    LITE_DETR_UNROLL for (int64_t corner = 0; corner < 4; ++corner) {
      A* to = at_mutable<A>(base, address[corner * sampler.padded + s]);
      grad_channels.store(to, v, grad_channels.load(to, v) + weight[corner * sampler.padded + s] * x);
    }
  }

  LITE_DETR_METHOD void scatter(void* base, int64_t s, const A* attention, const A* logit_grad, const T* query,
                                const T* grad) {
    for (int64_t v = 0; v < channels.vectors(); ++v) {
      V x = {};
      if (attention != nullptr) x += attention[s] * channels.load(grad, v);
      if (logit_grad != nullptr) x += logit_grad[s] * channels.load(query, v);
      add(base, s, v, x);
    }
  }

  LITE_DETR_METHOD void run(int64_t chunk_begin, int64_t chunk_end, int64_t image, int64_t h, int64_t level_begin,
                            int64_t level_end) {
    Tile tile;
    const int64_t token_stride = args.num_heads * args.head_dim;
    const int64_t at_image = image * args.num_value * token_stride + h * args.head_dim;
    A* grad_value = static_cast<A*>(args.grad_value) + at_image;
    A* grad_key = SeparateKey ? static_cast<A*>(args.grad_key) + at_image : nullptr;
    const int64_t s_begin = level_begin * args.num_points;
    const int64_t s_end = level_end * args.num_points;
    const int64_t first_tile = image * args.tiles_per_image;
    const int64_t t_begin = chunk_begin > first_tile ? chunk_begin : first_tile;
    const int64_t last_tile = first_tile + args.tiles_per_image;
    const int64_t t_end = chunk_end < last_tile ? chunk_end : last_tile;
    for (int64_t t = t_begin; t < t_end; ++t) {
      get_tile(args, t, tile);
      sampler.set_tile(args, tile);
      for (int64_t i = 0; i < tile.size; ++i) {
        const int64_t q = tile.query[i];
        const T* query = static_cast<const T*>(args.query) + image * args.query_stride[0] +
                         q * args.query_stride[1] + h * args.query_stride[2];
        const T* grad = static_cast<const T*>(args.grad_output) + image * args.grad_output_stride[0] +
                        q * args.grad_output_stride[1] + h * args.grad_output_stride[2];
        const A* attention = weights_of<A>(args, t - chunk_begin, i, h);
        const A* logit_grad = attention + sampler.padded;
        const A* xy = sampler.get_offsets(args, image, q, h);
        for (int64_t block = s_begin / N; block * N < s_end; ++block) {
          const auto cells = sampler.locate(args, i, xy, block);
          sampler.store_weights(cells, block, weight);
          sampler.store_addresses(cells, block, token_stride * sizeof(A), grad_value, outside, address);
          const int64_t begin = block * N > s_begin ? block * N : s_begin;
          const int64_t end = (block + 1) * N < s_end ? (block + 1) * N : s_end;
          if (SeparateKey) {
            for (int64_t s = begin; s < end; ++s) scatter(grad_value, s, attention, nullptr, query, grad);
            sampler.store_addresses(cells, block, token_stride * sizeof(A), grad_key, outside, address);
            for (int64_t s = begin; s < end; ++s) scatter(grad_key, s, nullptr, logit_grad, query, grad);
          } else {
            for (int64_t s = begin; s < end; ++s) scatter(grad_value, s, attention, logit_grad, query, grad);
          }
        }
      }
    }
  }
};

template <typename T, int HeadDim, bool SeparateKey>
LITE_DETR_TARGET __attribute__((noinline)) void backward_query_tiles(const Arguments& args, int64_t chunk_begin,
                                                                     int64_t tile_begin, int64_t tile_end) {
  using B = BackwardQuery<T, HeadDim, SeparateKey>;
  Scratch scratch(B::scratch_bytes(args));
  B(args, scratch).run(chunk_begin, tile_begin, tile_end);
}

template <typename T, int HeadDim, bool SeparateKey>
LITE_DETR_TARGET __attribute__((noinline)) void backward_value_head(const Arguments& args, int64_t chunk_begin,
                                                                    int64_t chunk_end, int64_t image, int64_t head,
                                                                    int64_t level_begin, int64_t level_end) {
  using B = BackwardValue<T, HeadDim, SeparateKey>;
  Scratch scratch(B::scratch_bytes(args));
  B(args, scratch).run(chunk_begin, chunk_end, image, head, level_begin, level_end);
}

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
