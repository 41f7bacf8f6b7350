// Where a query and head sample: tiles of queries, per-sample constants and the corners of the bilinear cells.
#pragma once

#include <cstdlib>
#include <new>

#include "kernels.h"
#include "simd.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

// Memory of one thread for one call: a few kilobytes, in cache lines of their own.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : memory_(static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64))) {
    if (memory_ == nullptr) throw std::bad_alloc();
    next_ = memory_;
  }
  ~Scratch() { std::free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <typename T>
  T* take(int64_t count) {
    T* taken = reinterpret_cast<T*>(next_);
    next_ += size_of<T>(count);
    return taken;
  }
  template <typename T>
  static constexpr size_t size_of(int64_t count) {
    return (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
  }

 private:
  char* memory_;
  char* next_;
};

template <typename T>
LITE_DETR_INLINE const T* at(const void* base, int64_t bytes) {
  return reinterpret_cast<const T*>(reinterpret_cast<uintptr_t>(base) + static_cast<uintptr_t>(bytes));
}
template <typename T>
LITE_DETR_INLINE T* at_mutable(void* base, int64_t bytes) {
  return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(base) + static_cast<uintptr_t>(bytes));
}

// Asks for cache lines ahead of their use.
LITE_DETR_INLINE void prefetch(const void* base, int64_t address, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(at<char>(base, address + line));
}

// The queries of one tile of one image.
struct Tile {
  int64_t image;
  int64_t size;
  int64_t query[kTileSize];
};

LITE_DETR_INLINE void get_tile(const Arguments& args, int64_t index, Tile& tile) {
  tile.image = index / args.tiles_per_image;
  const int64_t in_image = index % args.tiles_per_image;
  int64_t m = 0;
  while (m + 1 < args.num_query_maps && args.query_maps[m + 1].first_tile <= in_image) ++m;
  const QueryMap& map = args.query_maps[m];
  const int64_t tile_height = map.height == 1 ? 1 : kTileSide;
  const int64_t tile_width = kTileSize / tile_height;
  const int64_t tiles_x = (map.width + tile_width - 1) / tile_width;
  const int64_t y_begin = (in_image - map.first_tile) / tiles_x * tile_height;
  const int64_t x_begin = (in_image - map.first_tile) % tiles_x * tile_width;
  const int64_t y_end = y_begin + tile_height < map.height ? y_begin + tile_height : map.height;
  const int64_t x_end = x_begin + tile_width < map.width ? x_begin + tile_width : map.width;
  tile.size = 0;
  for (int64_t y = y_begin; y < y_end; ++y) {
    for (int64_t x = x_begin; x < x_end; ++x) tile.query[tile.size++] = map.first_query + y * map.width + x;
  }
}

// Copies `count` numbers of any storage type into the computing type.
template <typename T, typename A>
LITE_DETR_INLINE void convert(const void* from, A* to, int64_t count) {
  const T* typed = static_cast<const T*>(from);
  if constexpr (std::is_same<T, A>::value) {
    __builtin_memcpy(to, typed, count * sizeof(A));
  } else if constexpr (std::is_same<Accumulator<T>, A>::value) {
    int64_t i = 0;
    for (; i + kLanes<A> <= count; i += kLanes<A>) store_bits(to + i, Storage<T>::load(typed + i));
    for (; i < count; ++i) to[i] = Storage<T>::load_one(typed + i);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<A>(Storage<T>::load_one(typed + i));
  }
}

template <typename A>
LITE_DETR_INLINE void convert_from(ScalarType type, const void* base, int64_t offset, A* to, int64_t count) {
  switch (type) {
    case ScalarType::kDouble:
      return convert<double>(static_cast<const double*>(base) + offset, to, count);
    case ScalarType::kFloat:
      return convert<float>(static_cast<const float*>(base) + offset, to, count);
    case ScalarType::kHalf:
      return convert<Half>(static_cast<const Half*>(base) + offset, to, count);
    case ScalarType::kBFloat16:
      return convert<BFloat16>(static_cast<const BFloat16*>(base) + offset, to, count);
  }
}

template <typename A>
LITE_DETR_INLINE void convert_to(ScalarType type, const A* from, void* base, int64_t offset, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    switch (type) {
      case ScalarType::kDouble:
        static_cast<double*>(base)[offset + i] = from[i];
        break;
      case ScalarType::kFloat:
        static_cast<float*>(base)[offset + i] = static_cast<float>(from[i]);
        break;
      case ScalarType::kHalf:
        Storage<Half>::store_one(static_cast<Half*>(base) + offset + i, static_cast<float>(from[i]));
        break;
      case ScalarType::kBFloat16:
        Storage<BFloat16>::store_one(static_cast<BFloat16*>(base) + offset + i, static_cast<float>(from[i]));
        break;
    }
  }
}

template <typename A>
constexpr ScalarType kScalarType = sizeof(A) == 8 ? ScalarType::kDouble : ScalarType::kFloat;

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
  A* level_width;  // in the unit of the gradient of reference points
  A* level_height;
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

  static size_t scratch_bytes(const Arguments& args) {
    const int64_t padded = padded_samples(args.num_levels, args.num_points);
    return 5 * Scratch::size_of<A>(padded) + 3 * Scratch::size_of<I>(padded) +
           4 * Scratch::size_of<A>(padded * kTileSize) + Scratch::size_of<A>(2 * padded) +
           Scratch::size_of<A>(4 * args.num_levels);
  }

  LITE_DETR_METHOD Sampler(const Arguments& args, Scratch& scratch)
      : num_samples(args.num_levels * args.num_points), padded(padded_samples(args.num_levels, args.num_points)) {
    limit_x = scratch.take<A>(padded);
    limit_y = scratch.take<A>(padded);
    level_width = scratch.take<A>(padded);
    level_height = scratch.take<A>(padded);
    padding_bias = scratch.take<A>(padded);
    width = scratch.take<I>(padded);
    height = scratch.take<I>(padded);
    start = scratch.take<I>(padded);
    base_x = scratch.take<A>(padded * kTileSize);
    base_y = scratch.take<A>(padded * kTileSize);
    scale_x = scratch.take<A>(padded * kTileSize);
    scale_y = scratch.take<A>(padded * kTileSize);
    offsets = scratch.take<A>(2 * padded);
    reference_ = scratch.take<A>(4 * args.num_levels);
    for (int64_t s = 0; s < padded; ++s) {
      const bool real = s < num_samples;
      const int64_t level = real ? s / args.num_points : 0;
      const bool empty = !real || args.heights[level] == 0 || args.widths[level] == 0;
      limit_x[s] = empty ? A(-1) : static_cast<A>(args.widths[level]);
      limit_y[s] = empty ? A(-1) : static_cast<A>(args.heights[level]);
      level_width[s] = static_cast<A>(args.widths[level]);
      level_height[s] = static_cast<A>(args.heights[level]);
      width[s] = empty ? I(0) : static_cast<I>(args.widths[level]);
      height[s] = empty ? I(0) : static_cast<I>(args.heights[level]);
      start[s] = static_cast<I>(args.starts[level]);
      padding_bias[s] = real ? A(0) : -static_cast<A>(INFINITY);
    }
    for (int64_t i = 0; i < padded * kTileSize; ++i) base_x[i] = base_y[i] = scale_x[i] = scale_y[i] = 0;
    for (int64_t i = 0; i < 2 * padded; ++i) offsets[i] = 0;
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
        const A w = static_cast<A>(args.widths[l]);
        const A h = static_cast<A>(args.heights[l]);
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

  // Asks for the offsets of another query ahead of their use.
  LITE_DETR_METHOD void prefetch_offsets(const Arguments& args, int64_t image, int64_t query, int64_t head) const {
    const int64_t size = args.offset_type == ScalarType::kDouble ? 8 : args.offset_type == ScalarType::kFloat ? 4 : 2;
    const int64_t at = image * args.offset_stride[0] + query * args.offset_stride[1] + head * args.offset_stride[2];
    const int64_t count = args.shared_offsets ? args.num_points : num_samples;
    prefetch(args.sampling_offsets, at * size, 2 * count * size);
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

  // Corners of a block of samples, [block][corner][lane]: distances in bytes from `base` to their rows. `outside`
  // replaces the row of samples outside of the map, so that reading and writing needs no branch.
  LITE_DETR_METHOD static void store_addresses(const Cells& c, int64_t stride_bytes, const void* base,
                                               const void* outside, int64_t* address) {
    const int64_t elsewhere =
        static_cast<int64_t>(reinterpret_cast<uintptr_t>(outside) - reinterpret_cast<uintptr_t>(base));
    constexpr int kHalf = LITE_DETR_VECTOR_BYTES / 8;  // lanes of 64 bits
    using Wide = typename VectorOf<int64_t, kHalf>::type;
    LITE_DETR_UNROLL for (int corner = 0; corner < 4; ++corner) {
      int64_t* to = address + corner * N;
      if constexpr (N == kHalf) {
        store_bits(to, c.inside ? c.token[corner] * stride_bytes : Wide{} + elsewhere);
      } else {
        using Narrow = typename VectorOf<int32_t, kHalf>::type;
        Narrow token[2], inside[2];
        __builtin_memcpy(token, &c.token[corner], sizeof(token));
        __builtin_memcpy(inside, &c.inside, sizeof(inside));
        LITE_DETR_UNROLL for (int half = 0; half < 2; ++half) {
          const Wide mask = __builtin_convertvector(inside[half], Wide);
          const Wide rows = __builtin_convertvector(token[half], Wide) * stride_bytes;
          store_bits(to + half * kHalf, mask ? rows : Wide{} + elsewhere);
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

// First channel of a query and head of `query` or `grad_output`.
template <typename T>
LITE_DETR_INLINE const T* row_of_query(const void* base, const int64_t* stride, int64_t image, int64_t query,
                                       int64_t head) {
  return static_cast<const T*>(base) + image * stride[0] + query * stride[1] + head * stride[2];
}

// The channels of a head as vectors: a compile-time number of full vectors if HeadDim > 0, else any number of
// channels, the last vector of which may be partial.
template <typename T, int HeadDim>
struct Channels {
  using A = Accumulator<T>;
  using V = Vec<A>;
  static constexpr int N = kLanes<A>;
  static constexpr int kVectors = HeadDim / N;  // 0: known at run time only
  static_assert(HeadDim % N == 0, "fast paths have full vectors");
  // Whether the work on a row is short enough to be inlined once per lane; otherwise it is a function of its own.
  static constexpr bool kInline =
      kVectors > 0 && kVectors <= 4 && !(std::is_same<T, Half>::value && LITE_DETR_VECTOR_BYTES == 16);

  int64_t count;
  int64_t tail;  // channels of the last vector if it is partial, else N

  LITE_DETR_METHOD explicit Channels(int64_t head_dim)
      : count((head_dim + N - 1) / N), tail(head_dim - (count - 1) * N) {}

  LITE_DETR_METHOD int64_t vectors() const { return kVectors > 0 ? kVectors : count; }
  LITE_DETR_METHOD int64_t row() const { return vectors() * N; }  // channels, rounded up to full vectors
  static int64_t row_of(int64_t head_dim) { return (head_dim + N - 1) / N * N; }
  LITE_DETR_METHOD V load(const T* from, int64_t v) const {
    if (kVectors == 0 && v == count - 1 && tail != N) return load_partial<T>(from + v * N, tail);
    return Storage<T>::load(from + v * N);
  }
  LITE_DETR_METHOD void store(T* to, int64_t v, V x) const {
    if (kVectors == 0 && v == count - 1 && tail != N) return store_partial<T>(to + v * N, x, tail);
    Storage<T>::store(to + v * N, x);
  }
};

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
