// Where a query and head sample: per-sample constants and the corners of the bilinear cells.
#pragma once

#include "scratch.h"
#include "storage.h"
#include "tiles.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

// Samples are vectorised: sample s = level * num_points + point is lane s of arrays of padded_samples() numbers.
// `Sampler` holds what is the same for all heads of a tile's queries and finds the cells of one query and head.
template <typename A>
struct Sampler {
  using V = Vec<A>;
  using M = IntVec<A>;
  using I = IntOf<A>;
  static constexpr int N = kLanes<A>;

  int64_t num_samples;
  int64_t padded;
  // Per sample: a location is inside of its map where -1 < x < limit_x and -1 < y < limit_y. The limits of padding and
  // of levels without pixels are -1: nothing is inside.
  A* limit_x;
  A* limit_y;
  I* width;
  I* height;
  I* start;
  A* padding_bias;  // 0 for samples, -inf for padding
  // Per query of the tile and sample: location = base + offset * scale.
  A* base_x;
  A* base_y;
  A* scale_x;  // boxes only
  A* scale_y;
  A* offsets;  // x and y of each sample of one query and head, if they need conversion
  A* given;    // attention weights of one query and head, likewise; zero for padding

  LITE_DETR_METHOD Sampler(const Arguments& args, Scratch& scratch)
      : num_samples(args.num_levels * args.num_points), padded(padded_samples(args.num_levels, args.num_points)) {
    limit_x = scratch.take<A>(padded);
    limit_y = scratch.take<A>(padded);
    padding_bias = scratch.take<A>(padded);
    width = scratch.take<I>(padded);
    height = scratch.take<I>(padded);
    start = scratch.take<I>(padded);
    base_x = scratch.take<A>(padded * kTileSize);
    base_y = scratch.take<A>(padded * kTileSize);
    scale_x = scratch.take<A>(padded * kTileSize);
    scale_y = scratch.take<A>(padded * kTileSize);
    offsets = scratch.take<A>(2 * padded);
    given = scratch.take<A>(padded);
    reference_ = scratch.take<A>(4 * args.num_levels);
    for (int64_t s = 0; s < padded; ++s) {
      const bool real = s < num_samples;
      const Level& level = args.levels[real ? s / args.num_points : 0];
      const bool empty = !real || level.height == 0 || level.width == 0;
      limit_x[s] = empty ? A(-1) : static_cast<A>(level.width);
      limit_y[s] = empty ? A(-1) : static_cast<A>(level.height);
      width[s] = empty ? I(0) : static_cast<I>(level.width);
      height[s] = empty ? I(0) : static_cast<I>(level.height);
      start[s] = static_cast<I>(level.start);
      padding_bias[s] = real ? A(0) : -static_cast<A>(INFINITY);
    }
    for (int64_t i = 0; i < padded * kTileSize; ++i) base_x[i] = base_y[i] = scale_x[i] = scale_y[i] = 0;
    for (int64_t i = 0; i < 2 * padded; ++i) offsets[i] = 0;
    for (int64_t i = 0; i < padded; ++i) given[i] = 0;
  }

  LITE_DETR_METHOD void set_tile(const Arguments& args, const Tile& tile) {
    const int64_t size = args.boxes ? 4 : 2;
    for (int64_t i = 0; i < tile.size; ++i) {
      for (int64_t l = 0; l < args.num_levels; ++l) {
        convert_from(args.reference_type, args.reference_points,
                     tile.image * args.reference_stride[0] + tile.query[i] * args.reference_stride[1] +
                         l * args.reference_stride[2],
                     reference_ + 4 * l, size);
      }
      for (int64_t s = 0, l = 0; l < args.num_levels; ++l) {
        const A w = static_cast<A>(args.levels[l].width);
        const A h = static_cast<A>(args.levels[l].height);
        const A x = reference_[4 * l] * w - A(0.5);
        const A y = reference_[4 * l + 1] * h - A(0.5);
        for (int64_t p = 0; p < args.num_points; ++p, ++s) {
          base_x[i * padded + s] = x;
          base_y[i * padded + s] = y;
        }
        if (!args.boxes) continue;
        const A half = A(0.5) / static_cast<A>(args.num_points);
        for (int64_t p = 0; p < args.num_points; ++p) {
          scale_x[i * padded + s - args.num_points + p] = reference_[4 * l + 2] * w * half;
          scale_y[i * padded + s - args.num_points + p] = reference_[4 * l + 3] * h * half;
        }
      }
    }
  }

  // Offsets of all samples of a query and head as x0 y0 x1 y1 ...
  LITE_DETR_METHOD const A* get_offsets(const Arguments& args, int64_t image, int64_t query, int64_t head) const {
    const int64_t at = image * args.offset_stride[0] + query * args.offset_stride[1] + head * args.offset_stride[2];
    const int64_t level_size = 2 * args.num_points;
    if (args.offset_stride[3] == level_size && num_samples == padded && args.offset_type == kScalarType<A>) {
      return static_cast<const A*>(args.sampling_offsets) + at;
    }
    for (int64_t l = 0; l < args.num_levels; ++l) {
      convert_from(args.offset_type, args.sampling_offsets, at + l * args.offset_stride[3], offsets + l * level_size,
                   level_size);
    }
    return offsets;
  }

  // Given attention weights of all samples of a query and head.
  LITE_DETR_METHOD const A* get_weights(const Arguments& args, int64_t image, int64_t query, int64_t head) const {
    const int64_t at = image * args.weight_stride[0] + query * args.weight_stride[1] + head * args.weight_stride[2];
    if (num_samples == padded && args.weight_type == kScalarType<A>) {
      return static_cast<const A*>(args.attention_weights) + at;
    }
    convert_from(args.weight_type, args.attention_weights, at, given, num_samples);
    return given;
  }

  // Asks for the offsets of another query, and for its attention weights if they are given, ahead of their use.
  LITE_DETR_METHOD void prefetch_offsets(const Arguments& args, int64_t image, int64_t query, int64_t head) const {
    const int64_t size = size_of(args.offset_type);
    const int64_t at = image * args.offset_stride[0] + query * args.offset_stride[1] + head * args.offset_stride[2];
    const int64_t count = args.shared_offsets ? args.num_points : num_samples;
    prefetch(static_cast<const char*>(args.sampling_offsets) + at * size, 2 * count * size);
    if (args.attention_weights != nullptr) {
      const int64_t from =
          image * args.weight_stride[0] + query * args.weight_stride[1] + head * args.weight_stride[2];
      prefetch(static_cast<const char*>(args.attention_weights) + from * size_of(args.weight_type),
               num_samples * size_of(args.weight_type));
    }
  }

  // The cells of kLanes samples. Weights of corners outside of the map are zero.
  struct Cells {
    V offset_x, offset_y;
    V left, right, top, bottom;                  // bilinear weights along x and y
    M has_left, has_right, has_top, has_bottom;  // corner column or row lies in the map
    M inside;
    M token[4];  // clamped to the map: top left, top right, bottom left, bottom right
  };

  LITE_DETR_METHOD Cells locate(const Arguments& args, int64_t i, const A* xy, int64_t block) const {
    Cells c;
    const int64_t s = block * N;
    deinterleave<A>(xy + 2 * s, c.offset_x, c.offset_y, std::make_integer_sequence<int, N>{});
    V x = load_bits<V>(base_x + i * padded + s);
    V y = load_bits<V>(base_y + i * padded + s);
    if (args.boxes) {
      x += c.offset_x * load_bits<V>(scale_x + i * padded + s);
      y += c.offset_y * load_bits<V>(scale_y + i * padded + s);
    } else {
      x += c.offset_x;
      y += c.offset_y;
    }
    // Not a number is never inside.
    c.inside = (x > A(-1)) & (x < load_bits<V>(limit_x + s)) & (y > A(-1)) & (y < load_bits<V>(limit_y + s));
    x = select<A>(c.inside, x, V{});
    y = select<A>(c.inside, y, V{});
    M x0 = __builtin_convertvector(x, M);  // towards zero, so -1 < x < 0 needs one less
    M y0 = __builtin_convertvector(y, M);
    x0 += x < A(0);
    y0 += y < A(0);
    const V fx = x - __builtin_convertvector(x0, V);
    const V fy = y - __builtin_convertvector(y0, V);
    const M w = load_bits<M>(width + s);
    const M h = load_bits<M>(height + s);
    c.has_left = c.inside & (x0 >= 0);
    c.has_right = c.inside & (x0 + 1 < w);
    c.has_top = c.inside & (y0 >= 0);
    c.has_bottom = c.inside & (y0 + 1 < h);
    c.left = select<A>(c.has_left, A(1) - fx, V{});
    c.right = select<A>(c.has_right, fx, V{});
    c.top = select<A>(c.has_top, A(1) - fy, V{});
    c.bottom = select<A>(c.has_bottom, fy, V{});
    // A masked corner takes the token of its neighbour. Masks are -1 where true.
    const M x_left = x0 + 1 + c.has_left;
    const M x_right = x0 - c.has_right;
    const M first = load_bits<M>(start + s);
    const M row_top = first + (y0 + 1 + c.has_top) * w;
    const M row_bottom = first + (y0 - c.has_bottom) * w;
    c.token[0] = row_top + x_left;
    c.token[1] = row_top + x_right;
    c.token[2] = row_bottom + x_left;
    c.token[3] = row_bottom + x_right;
    return c;
  }

  // Addresses of the corners' rows of a block of samples, [block][corner][lane]; `base` is that of the first token.
  // `outside` replaces the row of samples outside of the map, so that reading and writing needs no branch.
  LITE_DETR_METHOD static void store_addresses(const Cells& c, int64_t stride_bytes, const void* base,
                                               const void* outside, int64_t* address) {
    const int64_t first = address_of(base);
    const WideVec elsewhere = WideVec{} + address_of(outside);
    LITE_DETR_UNROLL for (int corner = 0; corner < 4; ++corner) {
      int64_t* to = address + corner * N;
      if constexpr (N == kWideLanes) {
        store_bits(to, c.inside ? c.token[corner] * stride_bytes + first : elsewhere);
      } else {
        NarrowVec token[2], inside[2];
        __builtin_memcpy(token, &c.token[corner], sizeof(token));
        __builtin_memcpy(inside, &c.inside, sizeof(inside));
        LITE_DETR_UNROLL for (int half = 0; half < 2; ++half) {
          const WideVec mask = __builtin_convertvector(inside[half], WideVec);
          const WideVec rows = multiply_wide(token[half], static_cast<uint32_t>(stride_bytes)) + first;
          store_bits(to + half * kWideLanes, mask ? rows : elsewhere);
        }
      }
    }
  }

  // Bilinear weights of a block of samples, [block][corner][lane].
  LITE_DETR_METHOD static void store_weights(const Cells& c, A* weight) {
    store_bits(weight, c.left * c.top);
    store_bits(weight + N, c.right * c.top);
    store_bits(weight + 2 * N, c.left * c.bottom);
    store_bits(weight + 3 * N, c.right * c.bottom);
  }

 private:
  A* reference_;
};

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
