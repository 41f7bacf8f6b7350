// Tests the index arithmetic of the kernels where the emulator cannot go: sizes beyond memory and any bit pattern.
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "sampling.cuh"
#include "scatter.cuh"

emulation::Index threadIdx, blockIdx, blockDim, gridDim;  // not used here

namespace {

using namespace lite_detr::cuda;

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      std::fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                 \
    }                                                                               \
  } while (false)

std::mt19937_64 random_bits(7);

int64_t random_below(int64_t bound) { return static_cast<int64_t>(random_bits() % static_cast<uint64_t>(bound)); }

// A number of any magnitude, often near a power of two.
int64_t any_number() {
  const int64_t near = random_below(5) - 2;
  const int shift = static_cast<int>(random_below(63));
  return random_below(2) == 0 ? static_cast<int64_t>(random_bits()) : (int64_t{1} << shift) + near;
}

void test_levels_stay_inside_value() {
  for (int i = 0; i < 200000; ++i) {
    const int64_t num_value = random_below(2) == 0 ? random_below(kMaxTokens) : random_below(100);
    const Level level = make_level(any_number(), any_number(), any_number(), num_value);
    CHECK(level.height >= 0 && level.width >= 0 && level.start >= 0);
    CHECK((level.height == 0) == (level.width == 0));
    CHECK(level.start + static_cast<int64_t>(level.height) * level.width <= num_value);
  }
  const Level whole = make_level(2, 3, 4, 14);
  CHECK(whole.start == 2 && whole.height == 3 && whole.width == 4);
  CHECK(make_level(3, 3, 4, 14).height == 0);
  CHECK(make_level(-1, 3, 4, 14).height == 0);
  const int64_t largest = kMaxTokens - 1;
  CHECK(make_level(0, 1, largest, largest).width == largest);
  CHECK(make_level(0, largest, largest, largest).width == 0);
}

// Number of different queries' maps that a tile touches is not tested: only that every query is visited once and that
// tiles inside a map are about square.
void test_visiting_order_is_a_permutation() {
  for (int i = 0; i < 3000; ++i) {
    std::vector<Level> levels(1 + random_below(5));
    int64_t num_value = 0;
    for (Level& level : levels) {
      level = {static_cast<int>(num_value), static_cast<int>(random_below(30)), static_cast<int>(random_below(30))};
      if (level.height == 0 || level.width == 0) level.height = level.width = 0;
      num_value += level.height * level.width;
    }
    const int num_levels = static_cast<int>(levels.size());
    const int first = static_cast<int>(random_below(num_levels + 1));
    int num_queries = 0;
    for (int l = first; l < num_levels; ++l) num_queries += levels[l].height * levels[l].width;
    if (first == num_levels) num_queries = 1 + static_cast<int>(random_below(1000));
    const int found = first_query_level(levels.data(), num_levels, num_queries);
    CHECK(num_queries == 0 || first == num_levels || found >= first);
    std::vector<int> visits(num_queries, 0);
    for (int slot = 0; slot < num_queries; ++slot) {
      const int query = query_of_slot(levels.data(), num_levels, found, slot);
      CHECK(query >= 0 && query < num_queries);
      ++visits[query];
    }
    for (const int count : visits) CHECK(count == 1);
  }
}

void test_tiles_are_square() {
  const Level levels[2] = {{0, 100, 167}, {16700, 50, 84}};
  CHECK(first_query_level(levels, 2, 16700 + 4200) == 0);
  CHECK(first_query_level(levels, 2, 4200) == 1);
  CHECK(first_query_level(levels, 2, 4201) == 2);
  for (int slot = 0; slot < kTileQueries; ++slot) {
    const int query = query_of_slot(levels, 2, 0, 10 * kTileQueries + slot);
    CHECK(query % 167 / kTileSide == 10 && query / 167 / kTileSide == 0);
  }
  // The widest and the highest map there can be.
  const int largest = static_cast<int>(kMaxTokens - 1);
  const Level wide = {0, 1, largest}, high = {0, largest, 1};
  CHECK(query_of_slot(&wide, 1, 0, largest - 1) == largest - 1);
  CHECK(query_of_slot(&high, 1, 0, largest - 1) == largest - 1);
}

template <typename A>
A any_coordinate(A size) {
  switch (random_below(4)) {
    case 0: {
      A x;
      const uint64_t bits = random_bits();
      memcpy(&x, &bits, sizeof(x));
      return x;
    }
    case 1:
      return std::nextafter(A(random_below(3)) * size / 2 - A(random_below(2)),
                            random_below(2) == 0 ? A(-9e9) : A(9e9));
    default:
      return (A(random_below(1 << 20)) / (1 << 20) * A(1.2) - A(0.1)) * size;
  }
}

template <typename A>
void test_corners_stay_inside_the_map() {
  const int largest = static_cast<int>(kMaxTokens - 1);
  for (int i = 0; i < 400000; ++i) {
    Level map = {static_cast<int>(random_below(50)), static_cast<int>(1 + random_below(40)),
                 static_cast<int>(1 + random_below(40))};
    if (i % 5 == 0) map = {0, 1, largest};
    if (i % 5 == 1) map = {0, largest, 1};
    if (i % 5 == 2) map = {largest - 32767 * 32767, 32767, 32767};
    if (i % 50 == 3) map = {0, 0, 0};
    const Sample<A> sample = make_sample(map, any_coordinate<A>(map.width), any_coordinate<A>(map.height));
    A sum = A(0);
    for (int c = 0; c < 4; ++c) {
      const int token = sample.corners.token[c];
      CHECK(token == -1 || (token >= map.start && token - map.start < static_cast<int64_t>(map.height) * map.width));
      CHECK(sample.weights.weight[c] >= A(0) && sample.weights.weight[c] <= A(1));
      sum += sample.weights.weight[c];
    }
    CHECK(sample.inside ? std::abs(sum - A(1)) < A(1e-5) : sum == A(0));
  }
  const Sample<A> corner =
      make_sample<A>({5, 2, 3}, A(2.25), A(-0.5));  // right of the last column, above the first row
  CHECK(corner.corners.token[0] == -1 && corner.corners.token[1] == -1 && corner.corners.token[3] == -1);
  CHECK(corner.corners.token[2] == 7 && corner.weights.weight[2] == A(0.375));
}

void test_fixed_point_sums_fit() {
  for (int i = 0; i < 100000; ++i) {
    const double bound =
        ldexp(1.0 + static_cast<double>(random_below(1000)) / 1000, static_cast<int>(random_below(240)) - 120);
    const int64_t count = 1 + random_below(int64_t{1} << random_below(40));
    const int exponent = fixed_point_exponent(bound, count, kLargestExponent<float>);
    CHECK(exponent >= -126 && exponent <= 126);
    // Every summand at its bound, rounded up: still below 2^62; and no bit more than necessary is given away.
    CHECK(static_cast<double>(count) * (ldexp(bound, exponent) + 1) < ldexp(1.0, 62) + ldexp(1.0, 41));
    CHECK(exponent == 126 || exponent == -126 || static_cast<double>(count) * ldexp(bound, exponent) > ldexp(1.0, 59));
  }
  CHECK(fixed_point_exponent(0.0, 10, 126) == 0);
}

}  // namespace

int main() {
  test_levels_stay_inside_value();
  test_visiting_order_is_a_permutation();
  test_tiles_are_square();
  test_corners_stay_inside_the_map<float>();
  test_corners_stay_inside_the_map<double>();
  test_fixed_point_sums_fit();
  return 0;
}
