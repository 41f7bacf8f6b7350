// Sampling locations, bilinear corners and the gradient of a location.
#pragma once

#include "levels.cuh"
#include "numeric.cuh"

namespace lite_detr {
namespace cuda {

// What the locations of one head of one query are read from: its rows of sampling_offsets and reference_points.
struct LocationRows {
  const char* offsets;
  const char* references;
};

// row = b * num_queries + q, pair = row * num_heads + m.
__device__ __forceinline__ LocationRows location_rows(const DeformAttnInputs& inputs, int64_t row, int64_t pair) {
  const int offsets = 2 * inputs.offset_levels * inputs.num_points * bytes_of(inputs.offset_dtype);
  const int references = inputs.num_levels * inputs.reference_dim * bytes_of(inputs.reference_dtype);
  return {static_cast<const char*>(inputs.sampling_offsets) + pair * offsets,
          static_cast<const char*>(inputs.reference_points) + row * references};
}

// A sampling location in pixels of its level (the centre of the first pixel is 0) and how it came about.
template <typename A>
struct Location {
  A x, y;
  A offset_x, offset_y;  // as given
  A scale_x, scale_y;    // pixels per unit of offset
};

// offset, reference: which pair of its row. Rounded as written, so that forward and both walks of backward agree.
template <typename A>
__device__ __forceinline__ Location<A> locate(const DeformAttnInputs& inputs, const LocationRows& rows, int offset,
                                              int reference, A width, A height) {
  Location<A> at;
  load_pair(rows.offsets + offset * (2 * bytes_of(inputs.offset_dtype)), inputs.offset_dtype, at.offset_x,
            at.offset_y);
  const int reference_bytes = 2 * bytes_of(inputs.reference_dtype);
  const char* center = rows.references + reference * reference_bytes;
  A center_x, center_y;
  load_pair(center, inputs.reference_dtype, center_x, center_y);
  at.scale_x = at.scale_y = A(1);
  if (inputs.reference_dim == 4) {  // offsets in units of half the box, shared out over the points
    A box_width, box_height;
    load_pair(center + reference_bytes, inputs.reference_dtype, box_width, box_height);
    const A share = A(0.5) / static_cast<A>(inputs.num_points);
    at.scale_x = multiply_rounded(multiply_rounded(box_width, width), share);
    at.scale_y = multiply_rounded(multiply_rounded(box_height, height), share);
  }
  at.x = fma_of(at.offset_x, at.scale_x, add_rounded(multiply_rounded(center_x, width), A(-0.5)));
  at.y = fma_of(at.offset_y, at.scale_y, add_rounded(multiply_rounded(center_y, height), A(-0.5)));
  return at;
}

// The cell of a location: its top left pixel (-1 above or to the left of the map) and the position in the cell.
template <typename A>
struct Cell {
  int left, top;  // -2 for a location that touches no pixel or is not finite
  A fraction_x, fraction_y;
  __host__ __device__ __forceinline__ bool inside() const { return left != -2; }
};

template <typename A>
__host__ __device__ __forceinline__ Cell<A> find_cell(A width_of_map, A height_of_map, A x, A y) {
  // False for NaN, and what passes can be converted to an int.
  const bool inside = x > A(-1) && x < width_of_map && y > A(-1) && y < height_of_map;
  x = inside ? x : A(-2);
  y = inside ? y : A(-2);
  const A floor_x = floor_of(x), floor_y = floor_of(y);
  return {static_cast<int>(floor_x), static_cast<int>(floor_y), x - floor_x, y - floor_y};
}

// Top left, top right, bottom left, bottom right. Every corner is a pixel of the map (the first pixel of value where
// the map is empty): one outside is moved to the border, and its weight is zero. So nothing has to be asked before a
// load. Not for an empty value.
template <typename A>
struct Corners {
  int x[2], y[2];  // columns and rows
  A weight_x[2], weight_y[2];
};

template <typename A>
__host__ __device__ __forceinline__ Corners<A> find_corners(int width, int height, const Cell<A>& cell) {
  Corners<A> corners;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    // On integers: a float cannot tell the last pixels of a map wider than 2^24 apart.
    const int x = cell.left + i, y = cell.top + i;
    const A weight_x = i == 0 ? A(1) - cell.fraction_x : cell.fraction_x;
    const A weight_y = i == 0 ? A(1) - cell.fraction_y : cell.fraction_y;
    corners.weight_x[i] = static_cast<unsigned int>(x) < static_cast<unsigned int>(width) ? weight_x : A(0);
    corners.weight_y[i] = static_cast<unsigned int>(y) < static_cast<unsigned int>(height) ? weight_y : A(0);
    corners.x[i] = max(min(x, width - 1), 0);
    corners.y[i] = max(min(y, height - 1), 0);
  }
  return corners;
}

// Gradient of one sample with respect to what its location was made of.
template <typename A>
struct LocationGradient {
  A offset_x, offset_y;
  A center_x, center_y, box_width, box_height;  // of the normalised reference
};

// corner_grad[c]: derivative of the loss with respect to the weight of corner c, were it inside the map.
template <typename A>
__host__ __device__ __forceinline__ LocationGradient<A> location_gradient(const Location<A>& at, const Cell<A>& cell,
                                                                          int width, int height, int num_points,
                                                                          const A (&corner_grad)[4]) {
  // Not multiplied out: the offset or the scale may be infinite.
  if (!cell.inside()) return {A(0), A(0), A(0), A(0), A(0), A(0)};
  const A fx = cell.fraction_x, fy = cell.fraction_y;
  const A left = cell.left >= 0 ? A(1) : A(0), right = cell.left + 1 < width ? A(1) : A(0);
  const A top = cell.top >= 0 ? A(1) : A(0), bottom = cell.top + 1 < height ? A(1) : A(0);
  const A top_left = top * left * corner_grad[0], top_right = top * right * corner_grad[1];
  const A bottom_left = bottom * left * corner_grad[2], bottom_right = bottom * right * corner_grad[3];
  const A grad_x = (A(1) - fy) * (top_right - top_left) + fy * (bottom_right - bottom_left);
  const A grad_y = (A(1) - fx) * (bottom_left - top_left) + fx * (bottom_right - top_right);
  LocationGradient<A> grad;
  grad.offset_x = grad_x * at.scale_x;
  grad.offset_y = grad_y * at.scale_y;
  grad.center_x = grad_x * static_cast<A>(width);
  grad.center_y = grad_y * static_cast<A>(height);
  const A share = A(0.5) / static_cast<A>(num_points);
  grad.box_width = grad.center_x * at.offset_x * share;
  grad.box_height = grad.center_y * at.offset_y * share;
  return grad;
}

}  // namespace cuda
}  // namespace lite_detr
