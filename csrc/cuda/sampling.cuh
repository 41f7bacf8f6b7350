// Sampling locations, bilinear corners and the gradient of a location.
#pragma once

#include "levels.cuh"
#include "numeric.cuh"

namespace lite_detr {
namespace cuda {

// Top left, top right, bottom left, bottom right; -1 for a corner outside the map.
struct alignas(16) CornerTokens {
  int token[4];
};

template <typename A>
struct alignas(16) CornerWeights {
  A weight[4];
};

// A sampling location in pixels of its level (the centre of the first pixel is 0) and how it came about.
template <typename A>
struct Location {
  A x, y;
  A offset_x, offset_y;  // as given
  A scale_x, scale_y;    // pixels per unit of offset
};

template <typename A>
struct Sample {
  CornerTokens corners;
  CornerWeights<A> weights;
  A fraction_x, fraction_y;
  bool inside;  // touches the map; false for a location that is not finite
};

// Location of point `point` of level `level` for row = b * num_queries + q and pair = row * num_heads + m.
template <typename A>
__device__ __forceinline__ Location<A> locate(const KeyAwareDeformAttnInputs& inputs, const Level& map, int64_t row,
                                              int64_t pair, int level, int point) {
  Location<A> at;
  const int64_t offset_level = inputs.offset_levels == 1 ? 0 : level;
  load_pair(inputs.sampling_offsets, inputs.offset_dtype,
            (pair * inputs.offset_levels + offset_level) * inputs.num_points + point, at.offset_x, at.offset_y);
  const int64_t reference = (row * inputs.num_levels + level) * (inputs.reference_dim / 2);
  A center_x, center_y;
  load_pair(inputs.reference_points, inputs.reference_dtype, reference, center_x, center_y);
  at.scale_x = at.scale_y = A(1);
  if (inputs.reference_dim == 4) {  // offsets in units of half the box, shared out over the points
    A box_width, box_height;
    load_pair(inputs.reference_points, inputs.reference_dtype, reference + 1, box_width, box_height);
    at.scale_x = box_width * map.width * (A(0.5) / inputs.num_points);
    at.scale_y = box_height * map.height * (A(0.5) / inputs.num_points);
  }
  at.x = center_x * map.width - A(0.5) + at.offset_x * at.scale_x;
  at.y = center_y * map.height - A(0.5) + at.offset_y * at.scale_y;
  return at;
}

template <typename A>
__host__ __device__ __forceinline__ Sample<A> empty_sample() {
  return {{{-1, -1, -1, -1}}, {{A(0), A(0), A(0), A(0)}}, A(0), A(0), false};
}

// Corners and weights at (x, y). Every token that is not -1 lies inside the map.
template <typename A>
__host__ __device__ __forceinline__ Sample<A> make_sample(const Level& map, A x, A y) {
  // False for NaN, and what passes can be converted to an int.
  const bool inside = x > A(-1) && x < A(map.width) && y > A(-1) && y < A(map.height);
  if (!inside) return empty_sample<A>();
  const A floor_x = floor_of(x), floor_y = floor_of(y);
  const int left = static_cast<int>(floor_x), top = static_cast<int>(floor_y);
  const A fx = x - floor_x, fy = y - floor_y;
  // On integers: a float cannot tell the last pixels of a map wider than 2^24 apart.
  const bool has_left = left >= 0 && left < map.width, has_right = left + 1 < map.width;
  const bool has_top = top >= 0 && top < map.height, has_bottom = top + 1 < map.height;
  const int token = map.start + top * map.width + left;
  Sample<A> sample;
  sample.corners.token[0] = has_top && has_left ? token : -1;
  sample.corners.token[1] = has_top && has_right ? token + 1 : -1;
  sample.corners.token[2] = has_bottom && has_left ? token + map.width : -1;
  sample.corners.token[3] = has_bottom && has_right ? token + map.width + 1 : -1;
  sample.weights.weight[0] = (A(1) - fy) * (A(1) - fx);
  sample.weights.weight[1] = (A(1) - fy) * fx;
  sample.weights.weight[2] = fy * (A(1) - fx);
  sample.weights.weight[3] = fy * fx;
  sample.fraction_x = fx, sample.fraction_y = fy;
  sample.inside = true;
  return sample;
}

// Gradient of one sample with respect to what its location was made of.
template <typename A>
struct LocationGradient {
  A offset_x, offset_y;
  A center_x, center_y, box_width, box_height;  // of the normalised reference
};

// corner_grad[c]: derivative of the loss with respect to the weight of corner c (0 outside the map).
template <typename A>
__host__ __device__ __forceinline__ LocationGradient<A> location_gradient(const Location<A>& at,
                                                                          const Sample<A>& sample, const Level& map,
                                                                          int num_points, const A (&corner_grad)[4]) {
  // Not multiplied out: the offset or the scale may be infinite.
  if (!sample.inside) return {A(0), A(0), A(0), A(0), A(0), A(0)};
  const A fx = sample.fraction_x, fy = sample.fraction_y;
  const A grad_x = (A(1) - fy) * (corner_grad[1] - corner_grad[0]) + fy * (corner_grad[3] - corner_grad[2]);
  const A grad_y = (A(1) - fx) * (corner_grad[2] - corner_grad[0]) + fx * (corner_grad[3] - corner_grad[1]);
  LocationGradient<A> grad;
  grad.offset_x = grad_x * at.scale_x;
  grad.offset_y = grad_y * at.scale_y;
  grad.center_x = grad_x * map.width;
  grad.center_y = grad_y * map.height;
  grad.box_width = grad.center_x * at.offset_x * (A(0.5) / num_points);
  grad.box_height = grad.center_y * at.offset_y * (A(0.5) / num_points);
  return grad;
}

}  // namespace cuda
}  // namespace lite_detr
