// Tiles of queries and the order in which their heads are visited.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace lite_detr {
namespace cpu {
namespace LITE_DETR_ISA {

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

// Computes the heads [head_begin, head_end) of a tile's queries with `pass`, heads innermost: the rows of one head may
// be a large power of two apart and then share few sets of the cache. While one is computed the next one is located
// and its rows are prefetched: they are spread over memory and come from the second or third level of the cache.
template <typename Pass>
LITE_DETR_METHOD void visit(Pass& pass, const Tile& tile, int64_t head_begin, int64_t head_end) {
  const int64_t count = tile.size * (head_end - head_begin);
  int64_t i = 0, h = head_begin;
  pass.locate(tile, i, h, pass.heads[0]);
  for (int64_t n = 0; n < count; ++n) {
    if (++h == head_end) {
      h = head_begin;
      ++i;
    }
    const bool last = n + 1 == count;
    if (!last) pass.locate(tile, i, h, pass.heads[(n + 1) % 2]);
    pass.compute(tile, pass.heads[n % 2], pass.heads[(last ? n : n + 1) % 2]);
  }
}

}  // namespace LITE_DETR_ISA
}  // namespace cpu
}  // namespace lite_detr
