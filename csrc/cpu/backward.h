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
  return static_cast<A*>(args.weights) + ((tile_in_chunk * kTileSize + i) * args.num_heads + head) * 2 * padded;
}

template <typename T, int HeadDim, bool SeparateKey>
struct BackwardQuery {
  using A = Accumulator<T>;
  using V = Vec<A>;
  using C = Channels<T, HeadDim>;
  static constexpr int N = kLanes<A>;
  static constexpr int kVectors = C::kVectors;
  static constexpr int kRegisters = kVectors > 0 ? kVectors : 1;

  // What one query and head read; the next one is located and prefetched meanwhile.
  struct Head {
    int64_t in_tile;
    int64_t query;
    int64_t head;
    const T* value;
    const T* key;            // value, if it is the key
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
  A* reference_grad;  // of the tile's queries: [query][x, y, w, h][sample], summed over the heads
  A* offset_grad;     // x and y of each sample of one query and head
  T* zeros;

  static size_t scratch_bytes(const Arguments& args) {
    const int64_t padded = padded_samples(args.num_levels, args.num_points);
    const int64_t row = C::row_of(args.head_dim);
    return Sampler<A>::scratch_bytes(args) + 4 * Scratch::size_of<int64_t>(4 * padded) +
           2 * (Scratch::size_of<A>(4 * padded) + Scratch::size_of<A>(kSlopes * padded) +
                Scratch::size_of<A>(2 * padded)) +
           Scratch::size_of<A>(5 * padded) + Scratch::size_of<A>(4 * padded) + 2 * Scratch::size_of<A>(row) +
           Scratch::size_of<A>(4 * padded * kTileSize) + Scratch::size_of<A>(2 * padded) + Scratch::size_of<T>(row);
  }

  LITE_DETR_METHOD BackwardQuery(const Arguments& arguments, Scratch& scratch)
      : args(arguments), channels(arguments.head_dim), sampler(arguments, scratch) {
    const int64_t padded = sampler.padded;
    for (Head& head : heads) {
      head.value_address = scratch.take<int64_t>(4 * padded);
      head.key_address = scratch.take<int64_t>(4 * padded);
      if (!SeparateKey) head.key_address = head.value_address;
      head.weight = scratch.take<A>(4 * padded);
      head.slope = scratch.take<A>(kSlopes * padded);
      head.offset = scratch.take<A>(2 * padded);
    }
    dots = scratch.take<A>(5 * padded);
    coefficient = scratch.take<A>(4 * padded);
    scaled = scratch.take<A>(channels.row());
    grad = scratch.take<A>(channels.row());
    reference_grad = scratch.take<A>(4 * padded * kTileSize);
    offset_grad = scratch.take<A>(2 * padded);
    zeros = scratch.take<T>(channels.row());
    __builtin_memset(zeros, 0, channels.row() * sizeof(T));
  }

  LITE_DETR_METHOD void locate(const Tile& tile, int64_t i, int64_t h, Head& to) {
    to.in_tile = i;
    to.query = tile.query[i];
    to.head = h;
    to.value = static_cast<const T*>(args.value) + tile.image * args.value_stride[0] + h * args.value_stride[2];
    to.key = to.value;
    if (SeparateKey) {
      to.key = static_cast<const T*>(args.key) + tile.image * args.key_stride[0] + h * args.key_stride[2];
    }
    if (i + 1 < tile.size) {
      const int64_t ahead = tile.query[i + 1];
      const int64_t bytes = args.head_dim * sizeof(T);
      sampler.prefetch_offsets(args, tile.image, ahead, h);
      prefetch(row_of_query<T>(args.query, args.query_stride, tile.image, ahead, h), 0, bytes);
      prefetch(row_of_query<T>(args.grad_output, args.grad_output_stride, tile.image, ahead, h), 0, bytes);
    }
    const A* xy = sampler.get_offsets(args, tile.image, to.query, h);
    const V one = splat(A(1));
    for (int64_t block = 0; block * N < sampler.num_samples; ++block) {
      const auto cells = sampler.locate(args, i, xy, block);
      sampler.store_weights(cells, to.weight + 4 * N * block);
      sampler.store_addresses(cells, args.value_stride[1] * sizeof(T), to.value, zeros,
                              to.value_address + 4 * N * block);
      if (SeparateKey) {
        sampler.store_addresses(cells, args.key_stride[1] * sizeof(T), to.key, zeros, to.key_address + 4 * N * block);
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
    const T* value;
    const T* key;
    const int64_t* value_address;
    const int64_t* key_address;
    const A* scaled;  // where they do not fit registers
    const A* grad;
    const T* next_value;
    const T* next_key;
    const int64_t* next_value_address;
    const int64_t* next_key_address;
    int64_t lanes;  // that hold samples
    int64_t row_bytes;
    V query_registers[kRegisters];
    V grad_registers[kRegisters];

    LITE_DETR_METHOD VecPair<A> operator()(int lane) const {
      if (lane >= lanes) return {V{}, V{}};
      if constexpr (C::kInline) return products(lane);
      return products_outlined(lane);
    }
    LITE_DETR_OUTLINE VecPair<A> products_outlined(int64_t lane) const { return products(lane); }
    LITE_DETR_METHOD VecPair<A> products(int64_t lane) const {
      const int64_t bytes = HeadDim > 0 ? HeadDim * sizeof(T) : row_bytes;
      prefetch(next_value, next_value_address[lane], bytes);
      if (SeparateKey) prefetch(next_key, next_key_address[lane], bytes);
      const T* value_row = at<T>(value, value_address[lane]);
      const T* key_row = SeparateKey ? at<T>(key, key_address[lane]) : value_row;
      VecPair<A> sums{V{}, V{}};
      for (int64_t v = 0; v < channels.vectors(); ++v) {
        const V x = channels.load(value_row, v);
        const V k = SeparateKey ? channels.load(key_row, v) : x;
        sums.first += k * (kVectors > 0 ? query_registers[kVectors > 0 ? v : 0] : load_bits<V>(scaled + v * N));
        sums.second += x * (kVectors > 0 ? grad_registers[kVectors > 0 ? v : 0] : load_bits<V>(grad + v * N));
      }
      return sums;
    }
  };

  LITE_DETR_METHOD void attend(int64_t image, int64_t tile_in_chunk, const Head& head, const Head& next) {
    const int64_t p = sampler.padded;
    const int64_t num_samples = sampler.num_samples;
    const int64_t blocks = (num_samples + N - 1) / N;
    const int64_t at_head = (image * args.num_queries + head.query) * args.num_heads + head.head;
    const A scale = A(1) / std::sqrt(static_cast<A>(args.head_dim));
    const int64_t row_bytes = args.head_dim * sizeof(T);
    ProductsOf products{channels, head.value, head.key, nullptr, nullptr,   scaled, grad, next.value,
                        next.key, nullptr,    nullptr,  0,       row_bytes, {},     {}};
    {
      const T* q = row_of_query<T>(args.query, args.query_stride, image, head.query, head.head);
      const T* g = row_of_query<T>(args.grad_output, args.grad_output_stride, image, head.query, head.head);
      for (int64_t v = 0; v < channels.vectors(); ++v) {
        if (kVectors > 0) {
          products.query_registers[kVectors > 0 ? v : 0] = channels.load(q, v) * scale;
          products.grad_registers[kVectors > 0 ? v : 0] = channels.load(g, v);
        } else {
          store_bits(scaled + v * N, channels.load(q, v) * scale);
          store_bits(grad + v * N, channels.load(g, v));
        }
      }
    }

    const V logsumexp = splat(static_cast<const A*>(args.logsumexp)[at_head]);
    A* const attention = weights_of<A>(args, tile_in_chunk, head.in_tile, head.head);
    A* const logit_grad = attention + p;
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
        const VecPair<A> dots_of_corner = sum_of_each_pair<A, 0, N>(products);
        const V dot_q = dots_of_corner.first;
        const V dot_g = dots_of_corner.second;
        const V along_x = load_bits<V>(slope + (corner % 2) * N);
        const V along_y = load_bits<V>(slope + (2 + corner / 2) * N);
        const V in_x = load_bits<V>(slope + (4 + corner % 2) * N) * along_y;
        const V in_y = load_bits<V>(slope + (6 + corner / 2) * N) * along_x;
        qk += along_x * along_y * dot_q;
        gv += along_x * along_y * dot_g;
        qk_x += in_x * dot_q;
        qk_y += in_y * dot_q;
        gv_x += in_x * dot_g;
        gv_y += in_y * dot_g;
      }
      const V a = exp_lanes(qk + load_bits<V>(sampler.padding_bias + block * N) - logsumexp);
      weighted += a * gv;
      store_bits(attention + block * N, a);
      A* dot = dots + 5 * N * block;
      store_bits(dot, qk_x);
      store_bits(dot + N, qk_y);
      store_bits(dot + 2 * N, gv_x);
      store_bits(dot + 3 * N, gv_y);
      store_bits(dot + 4 * N, gv);
    }
    weighted = sum_lanes<A>(weighted);

    A* const reference = reference_grad + head.in_tile * 4 * p;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t s = block * N;
      const A* dot = dots + 5 * s;
      const V a = load_bits<V>(attention + s);
      const V logit = a * (load_bits<V>(dot + 4 * N) - weighted);
      store_bits(logit_grad + s, logit * scale);
      LITE_DETR_UNROLL for (int corner = 0; corner < 4; ++corner) {
        store_bits(coefficient + 4 * s + corner * N, load_bits<V>(head.weight + 4 * s + corner * N) * logit * scale);
      }
      // Slopes outside of the map are exactly zero, whatever the offset.
      V x = a * load_bits<V>(dot + 2 * N) + logit * load_bits<V>(dot);
      V y = a * load_bits<V>(dot + 3 * N) + logit * load_bits<V>(dot + N);
      store_bits(reference + s, load_bits<V>(reference + s) + x);
      store_bits(reference + p + s, load_bits<V>(reference + p + s) + y);
      if (args.boxes) {
        const A* offset = head.offset + 2 * s;
        store_bits(reference + 2 * p + s, load_bits<V>(reference + 2 * p + s) + x * load_bits<V>(offset));
        store_bits(reference + 3 * p + s, load_bits<V>(reference + 3 * p + s) + y * load_bits<V>(offset + N));
        const auto inside = load_bits<V>(head.slope + kSlopes * s + 8 * N) != V{};
        const int64_t at_query = head.in_tile * p + s;
        x *= inside ? load_bits<V>(sampler.scale_x + at_query) : V{};
        y *= inside ? load_bits<V>(sampler.scale_y + at_query) : V{};
      }
      interleave<A>(offset_grad + 2 * s, x, y, std::make_integer_sequence<int, N>{});
    }
    store_offset_grad(at_head);

    T* const to = static_cast<T*>(args.grad_query) + at_head * args.head_dim;
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
    const T* const key = head.key;
    for (int64_t block = 0; block * N < sampler.num_samples; ++block) {
      const int64_t left = sampler.num_samples - block * N;
      const int64_t lanes = left < N ? left : N;
      const int64_t* const address = head.key_address + 4 * N * block;
      const A* const weight = coefficient + 4 * N * block;
      LITE_DETR_NO_UNROLL for (int64_t lane = 0; lane < lanes; ++lane) {
        for (int corner = 0; corner < 4; ++corner) {
          const T* from = at<T>(key, address[corner * N + lane]);
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
      const int64_t count = tile.size * args.num_heads;
      int64_t i = 0, h = 0;
      locate(tile, 0, 0, heads[0]);
      for (int64_t n = 0; n < count; ++n) {
        if (++h == args.num_heads) {
          h = 0;
          ++i;
        }
        const Head& current = heads[n % 2];
        Head& next = heads[(n + 1) % 2];
        if (n + 1 < count) locate(tile, i, h, next);
        attend(tile.image, t - chunk_begin, current, n + 1 < count ? next : current);
      }
      store_reference_grad(tile);
    }
  }
};

// Gradients of value and key of some heads of one image. Samples outside of their map write to a row of their own, so
// that no branch is needed.
template <typename T, int HeadDim, bool SeparateKey>
struct BackwardValue {
  using A = Accumulator<T>;
  using V = Vec<A>;
  using C = Channels<T, HeadDim>;
  using G = Channels<A, HeadDim>;
  static constexpr int N = kLanes<A>;
  static constexpr int kVectors = C::kVectors;
  static constexpr int kRegisters = kVectors > 0 ? kVectors : 1;

  // What one query and head write to; the next one is located and prefetched meanwhile.
  struct Head {
    int64_t in_tile;
    int64_t query;
    int64_t head;
    A* grad_value;
    A* grad_key;
    int64_t* value_address;  // [block][corner][lane]
    int64_t* key_address;
    A* weight;  // bilinear
  };

  const Arguments& args;
  C channels;
  G grad_channels;
  Sampler<A> sampler;
  Head heads[2];
  A* query;  // where they do not fit registers
  A* grad;
  A* outside;  // row that nobody reads

  static size_t scratch_bytes(const Arguments& args) {
    const int64_t padded = padded_samples(args.num_levels, args.num_points);
    return Sampler<A>::scratch_bytes(args) + 4 * Scratch::size_of<int64_t>(4 * padded) +
           2 * Scratch::size_of<A>(4 * padded) + 3 * Scratch::size_of<A>(C::row_of(args.head_dim));
  }

  LITE_DETR_METHOD BackwardValue(const Arguments& arguments, Scratch& scratch)
      : args(arguments), channels(arguments.head_dim), grad_channels(arguments.head_dim), sampler(arguments, scratch) {
    for (Head& head : heads) {
      head.value_address = scratch.take<int64_t>(4 * sampler.padded);
      head.key_address = scratch.take<int64_t>(4 * sampler.padded);
      head.weight = scratch.take<A>(4 * sampler.padded);
    }
    query = scratch.take<A>(channels.row());
    grad = scratch.take<A>(channels.row());
    outside = scratch.take<A>(channels.row());
    __builtin_memset(outside, 0, channels.row() * sizeof(A));
  }

  LITE_DETR_METHOD void locate(const Tile& tile, int64_t i, int64_t h, int64_t s_begin, int64_t s_end, Head& to) {
    const int64_t token_stride = args.num_heads * args.head_dim;
    const int64_t at_head = tile.image * args.num_value * token_stride + h * args.head_dim;
    to.in_tile = i;
    to.query = tile.query[i];
    to.head = h;
    to.grad_value = static_cast<A*>(args.grad_value) + at_head;
    if (SeparateKey) to.grad_key = static_cast<A*>(args.grad_key) + at_head;
    if (i + 1 < tile.size) {
      const int64_t ahead = tile.query[i + 1];
      const int64_t bytes = args.head_dim * sizeof(T);
      sampler.prefetch_offsets(args, tile.image, ahead, h);
      prefetch(row_of_query<T>(args.query, args.query_stride, tile.image, ahead, h), 0, bytes);
      prefetch(row_of_query<T>(args.grad_output, args.grad_output_stride, tile.image, ahead, h), 0, bytes);
    }
    const A* xy = sampler.get_offsets(args, tile.image, to.query, h);
    for (int64_t block = s_begin / N; block * N < s_end; ++block) {
      const auto cells = sampler.locate(args, i, xy, block);
      sampler.store_weights(cells, to.weight + 4 * N * block);
      sampler.store_addresses(cells, token_stride * sizeof(A), to.grad_value, outside,
                              to.value_address + 4 * N * block);
      if (SeparateKey) {
        sampler.store_addresses(cells, token_stride * sizeof(A), to.grad_key, outside, to.key_address + 4 * N * block);
      }
    }
  }

  // Adds a sample's update to one corner after the other: two corners may be the same token.
  LITE_DETR_METHOD void add(A* base, const int64_t* address, const A* weight, const V* update) const {
    LITE_DETR_UNROLL for (int corner = 0; corner < 4; ++corner) {
      A* to = at_mutable<A>(base, address[corner * N]);
      const A w = weight[corner * N];
      for (int64_t v = 0; v < kVectors; ++v) {
        grad_channels.store(to, v, grad_channels.load(to, v) + w * update[v]);
      }
    }
  }

  // The same for any number of channels: (a * x + b * y) times the bilinear weights.
  LITE_DETR_METHOD void add_rows(A* base, const int64_t* address, const A* weight, A a, const A* x, A b,
                                 const A* y) const {
    LITE_DETR_NO_UNROLL for (int corner = 0; corner < 4; ++corner) {
      A* to = at_mutable<A>(base, address[corner * N]);
      const A w = weight[corner * N];
      for (int64_t v = 0; v < channels.vectors(); ++v) {
        const V update = a * load_bits<V>(x + v * N) + b * load_bits<V>(y + v * N);
        grad_channels.store(to, v, grad_channels.load(to, v) + w * update);
      }
    }
  }

  LITE_DETR_METHOD void scatter(int64_t image, int64_t tile_in_chunk, const Head& head, const Head& next,
                                int64_t s_begin, int64_t s_end) {
    const T* q_row = row_of_query<T>(args.query, args.query_stride, image, head.query, head.head);
    const T* g_row = row_of_query<T>(args.grad_output, args.grad_output_stride, image, head.query, head.head);
    V q[kRegisters], g[kRegisters];
    for (int64_t v = 0; v < channels.vectors(); ++v) {
      if (kVectors > 0) {
        q[kVectors > 0 ? v : 0] = channels.load(q_row, v);
        g[kVectors > 0 ? v : 0] = channels.load(g_row, v);
      } else {
        store_bits(query + v * N, channels.load(q_row, v));
        store_bits(grad + v * N, channels.load(g_row, v));
      }
    }
    const A* const attention = weights_of<A>(args, tile_in_chunk, head.in_tile, head.head);
    const A* const logit_grad = attention + sampler.padded;
    const int64_t row_bytes = args.head_dim * sizeof(A);
    LITE_DETR_NO_UNROLL for (int64_t s = s_begin; s < s_end; ++s) {
      const int64_t lane = s & (N - 1);
      const int64_t at_sample = 4 * (s - lane) + lane;
      const int64_t* value_address = head.value_address + at_sample;
      const int64_t* key_address = head.key_address + at_sample;
      const A* weight = head.weight + at_sample;
      for (int corner = 0; corner < 4; ++corner) {
        prefetch(next.grad_value, next.value_address[at_sample + corner * N],
                 HeadDim > 0 ? HeadDim * sizeof(A) : row_bytes);
      }
      const A a = attention[s];
      const A b = logit_grad[s];
      if constexpr (kVectors > 0) {
        V value_update[kRegisters], key_update[kRegisters];
        for (int64_t v = 0; v < kVectors; ++v) {
          value_update[v] = a * g[v];
          key_update[v] = b * q[v];
          if (!SeparateKey) value_update[v] += key_update[v];
        }
        add(head.grad_value, value_address, weight, value_update);
        if (SeparateKey) add(head.grad_key, key_address, weight, key_update);
      } else {
        add_rows(head.grad_value, value_address, weight, a, grad, SeparateKey ? A(0) : b, query);
        if (SeparateKey) add_rows(head.grad_key, key_address, weight, A(0), grad, b, query);
      }
    }
  }

  LITE_DETR_METHOD void run(int64_t chunk_begin, int64_t chunk_end, int64_t image, int64_t head_begin,
                            int64_t head_end, int64_t level_begin, int64_t level_end) {
    Tile tile;
    const int64_t s_begin = level_begin * args.num_points;
    const int64_t s_end = level_end * args.num_points;
    const int64_t first_tile = image * args.tiles_per_image;
    const int64_t last_tile = first_tile + args.tiles_per_image;
    const int64_t t_begin = chunk_begin > first_tile ? chunk_begin : first_tile;
    const int64_t t_end = chunk_end < last_tile ? chunk_end : last_tile;
    for (int64_t t = t_begin; t < t_end; ++t) {
      get_tile(args, t, tile);
      sampler.set_tile(args, tile);
      const int64_t count = tile.size * (head_end - head_begin);
      int64_t i = 0, h = head_begin;
      locate(tile, i, h, s_begin, s_end, heads[0]);
      for (int64_t n = 0; n < count; ++n) {
        if (++h == head_end) {
          h = head_begin;
          ++i;
        }
        const Head& current = heads[n % 2];
        Head& next = heads[(n + 1) % 2];
        if (n + 1 < count) locate(tile, i, h, s_begin, s_end, next);
        scatter(image, t - chunk_begin, current, n + 1 < count ? next : current, s_begin, s_end);
      }
    }
  }
};

template <typename T, int HeadDim, bool SeparateKey>
LITE_DETR_OUTLINE void backward_query_tiles(const Arguments& args, int64_t chunk_begin, int64_t tile_begin,
                                            int64_t tile_end) {
  using B = BackwardQuery<T, HeadDim, SeparateKey>;
  Scratch scratch(B::scratch_bytes(args));
  B(args, scratch).run(chunk_begin, tile_begin, tile_end);
}

template <typename T, int HeadDim, bool SeparateKey>
LITE_DETR_OUTLINE void backward_value_heads(const Arguments& args, int64_t chunk_begin, int64_t chunk_end,
                                            int64_t image, int64_t head_begin, int64_t head_end, int64_t level_begin,
                                            int64_t level_end) {
  using B = BackwardValue<T, HeadDim, SeparateKey>;
  Scratch scratch(B::scratch_bytes(args));
  B(args, scratch).run(chunk_begin, chunk_end, image, head_begin, head_end, level_begin, level_end);
}

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
