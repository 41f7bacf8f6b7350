// Tests the index arithmetic of the kernels where the emulator cannot go: sizes beyond memory and any bit pattern.
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "corner_sort.cuh"
#include "sampling.cuh"
#include "scatter.cuh"

// Not used here.
emulation::Index threadIdx, blockIdx, blockDim, gridDim;
namespace emulation {
void wait_for_all(Barrier) {}
uint64_t exchange(uint64_t bits, int, uint64_t) { return bits; }
void note_addition(const void*) {}
}  // namespace emulation

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

// Every query is visited once, whichever run of levels is the queries.
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
    const int last = first + static_cast<int>(random_below(num_levels + 1 - first));
    int num_queries = 0;
    for (int l = first; l < last; ++l) num_queries += levels[l].height * levels[l].width;
    if (num_queries == 0) num_queries = 1 + static_cast<int>(random_below(1000));
    const QueryLevels found = find_query_levels(levels.data(), num_levels, num_queries);
    CHECK(0 <= found.first && found.first <= found.last && found.last <= num_levels);
    int tokens = 0;
    for (int l = found.first; l < found.last; ++l) tokens += levels[l].height * levels[l].width;
    CHECK(found.first == found.last || tokens == num_queries);
    int in_run = 0;
    for (int l = first; l < last; ++l) in_run += levels[l].height * levels[l].width;
    CHECK(in_run != num_queries || found.first < found.last);  // a run is found where there is one
    std::vector<int> visits(num_queries, 0);
    for (int slot = 0; slot < num_queries; ++slot) {
      const int query = query_of_slot(levels.data(), found, slot);
      CHECK(query >= 0 && query < num_queries);
      ++visits[query];
    }
    for (const int count : visits) CHECK(count == 1);
  }
}

void test_tiles_are_square() {
  const Level levels[3] = {{0, 100, 167}, {16700, 50, 84}, {20900, 25, 42}};
  const auto is_run = [&](int64_t num_queries, int first, int last) {
    const QueryLevels found = find_query_levels(levels, 3, num_queries);
    return found.first == first && found.last == last;
  };
  CHECK(is_run(16700 + 4200 + 1050, 0, 3));
  CHECK(is_run(4200 + 1050, 1, 3));
  CHECK(is_run(16700, 0, 1));  // the low level of the sequential form
  CHECK(is_run(16700 + 4200, 0, 2));
  CHECK(is_run(4200, 1, 2));
  CHECK(is_run(4201, 0, 0));
  for (int slot = 0; slot < kTileSide * kTileSide; ++slot) {
    const int query = query_of_slot(levels, {0, 1}, 10 * kTileSide * kTileSide + slot);
    CHECK(query % 167 / kTileSide == 10 && query / 167 / kTileSide == 0);
  }
  // The widest and the highest map there can be.
  const int largest = static_cast<int>(kMaxTokens - 1);
  const Level wide = {0, 1, largest}, high = {0, largest, 1};
  CHECK(query_of_slot(&wide, {0, 1}, largest - 1) == largest - 1);
  CHECK(query_of_slot(&high, {0, 1}, largest - 1) == largest - 1);
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
    const Cell<A> cell =
        find_cell(A(map.width), A(map.height), any_coordinate<A>(map.width), any_coordinate<A>(map.height));
    const Corners<A> corners = find_corners(map.width, map.height, cell);
    A sum = A(0);
    for (int c = 0; c < 4; ++c) {
      const int x = corners.x[c % 2], y = corners.y[c / 2];
      // An empty map has no pixel: the first token of value is read, and there is one where this is called.
      CHECK(x >= 0 && y >= 0 && (map.width == 0 ? x == 0 && y == 0 : x < map.width && y < map.height));
      const A weight = corners.weight_y[c / 2] * corners.weight_x[c % 2];
      const bool at_cell = x == cell.left + c % 2 && y == cell.top + c / 2;
      CHECK(weight >= A(0) && weight <= A(1) && (weight == A(0) || at_cell));
      sum += weight;
    }
    const bool whole = cell.left >= 0 && cell.left + 1 < map.width && cell.top >= 0 && cell.top + 1 < map.height;
    CHECK(cell.inside() ? sum <= A(1.00001) && (!whole || sum > A(0.99999)) : sum == A(0));
  }
  // Right of the last column, above the first row.
  const Corners<A> corner = find_corners(3, 2, find_cell<A>(A(3), A(2), A(2.25), A(-0.5)));
  CHECK(corner.weight_x[0] == A(0.75) && corner.weight_x[1] == A(0) && corner.weight_y[0] == A(0));
  CHECK(corner.weight_y[1] == A(0.5) && corner.x[0] == 2 && corner.x[1] == 2 && corner.y[0] == 0 && corner.y[1] == 0);
}

void test_buckets() {
  // 16 x 16 successive pixels of a map have a bucket each, also where they do not begin at a multiple of 16, and so do
  // the corners of samples above and to the left of the map.
  for (int i = 0; i < 100; ++i) {
    const int left = static_cast<int>(random_below(1000)) - 1, top = static_cast<int>(random_below(1000)) - 1;
    std::vector<int> found(kBuckets, 0);
    for (int y = 0; y < 16; ++y) {
      for (int x = 0; x < 16; ++x) {
        for (int level = 0; level < 4; ++level) {
          ++found[bucket_of_corner(corner_code(level, left + x, top + y, 15), 0)];
          for (int c = 1; c < 4; ++c) {
            const unsigned int code = corner_code(level, left + x - c % 2, top + y - c / 2, 15);
            CHECK(bucket_of_corner(code, c) == bucket_of_corner(corner_code(level, left + x, top + y, 1), 0));
          }
        }
      }
    }
    for (const int count : found) CHECK(count == 1);
  }
  const unsigned int code = corner_code(3, -1, 7, 9);
  CHECK(has_corner(code, 0) && !has_corner(code, 1) && !has_corner(code, 2) && has_corner(code, 3));
  const SortedCorner corner(pack_corner(63, 255, 2));
  CHECK(corner.slot == 63 && corner.sample == 255 && corner.corner == 2);
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
  test_buckets();
  test_fixed_point_sums_fit();
  return 0;
}
