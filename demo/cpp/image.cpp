#include "image.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>

namespace {

constexpr int kLargestSide = 1 << 15;

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw std::runtime_error(path + ": " + what);
}

std::vector<uint8_t> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path, "cannot be read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void check_size(const std::string& path, int64_t height, int64_t width) {
  if (height < 1 || width < 1 || height > kLargestSide || width > kLargestSide) {
    fail(path, "must have from 1 to " + std::to_string(kLargestSide) + " pixels per side, got " +
                   std::to_string(height) + "x" + std::to_string(width));
  }
}

// A number of a PPM's head; comments start with '#'.
int64_t read_number(const std::string& path, const std::vector<uint8_t>& bytes, size_t& position) {
  while (position < bytes.size() && (std::isspace(bytes[position]) || bytes[position] == '#')) {
    if (bytes[position] == '#') {
      while (position < bytes.size() && bytes[position] != '\n') ++position;
    } else {
      ++position;
    }
  }
  int64_t number = 0;
  const size_t start = position;
  while (position < bytes.size() && std::isdigit(bytes[position]) && position - start < 9) {
    number = 10 * number + (bytes[position++] - '0');
  }
  if (position == start) fail(path, "is no whole PPM: a number is missing in its head");
  return number;
}

Image read_ppm(const std::string& path, const std::vector<uint8_t>& bytes) {
  size_t position = 2;
  const int64_t width = read_number(path, bytes, position);
  const int64_t height = read_number(path, bytes, position);
  const int64_t largest = read_number(path, bytes, position);
  ++position;  // one white space
  check_size(path, height, width);
  if (largest != 255) fail(path, "must have 8 bits per channel, got a largest value of " + std::to_string(largest));
  const size_t size = 3 * static_cast<size_t>(height) * width;
  if (position > bytes.size() || bytes.size() - position < size) fail(path, "ends before its last pixel");
  Image image{static_cast<int>(height), static_cast<int>(width), std::vector<uint8_t>(size)};
  for (size_t i = 0; i < size; i += 3) {
    for (size_t channel = 0; channel < 3; ++channel) image.pixels[i + channel] = bytes[position + i + 2 - channel];
  }
  return image;
}

// Little-endian, `count` bytes.
int64_t read_integer(const std::string& path, const std::vector<uint8_t>& bytes, size_t position, size_t count) {
  if (position + count > bytes.size()) fail(path, "ends within its head");
  uint32_t number = 0;
  for (size_t i = 0; i < count; ++i) number |= static_cast<uint32_t>(bytes[position + i]) << (8 * i);
  return static_cast<int32_t>(number);
}

Image read_bmp(const std::string& path, const std::vector<uint8_t>& bytes) {
  const int64_t start = read_integer(path, bytes, 10, 4);
  const int64_t width = read_integer(path, bytes, 18, 4);
  const int64_t signed_height = read_integer(path, bytes, 22, 4);  // negative: from top to bottom
  const int64_t bits = read_integer(path, bytes, 28, 2);
  const int64_t compression = read_integer(path, bytes, 30, 4);
  const int64_t height = std::abs(signed_height);
  check_size(path, height, width);
  if ((bits != 24 && bits != 32) || (compression != 0 && compression != 3)) {
    fail(path, "must be an uncompressed BMP of 24 or 32 bits, got " + std::to_string(bits) + " bits, compression " +
                   std::to_string(compression));
  }
  const int64_t pixel = bits / 8;
  const int64_t row = (width * pixel + 3) / 4 * 4;
  if (start < 0 || start + row * height > static_cast<int64_t>(bytes.size())) fail(path, "ends before its last pixel");
  Image image{static_cast<int>(height), static_cast<int>(width), std::vector<uint8_t>(3 * height * width)};
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* source = &bytes[start + row * (signed_height > 0 ? height - 1 - y : y)];
    for (int64_t x = 0; x < width; ++x) {
      std::copy_n(source + x * pixel, 3, image.at(static_cast<int>(y), static_cast<int>(x)));
    }
  }
  return image;
}

}  // namespace

Image read_image(const std::string& path) {
  const std::vector<uint8_t> bytes = read_file(path);
  const std::string kind(bytes.begin(), bytes.begin() + std::min<size_t>(2, bytes.size()));
  if (kind == "P6") return read_ppm(path, bytes);
  if (kind == "BM") return read_bmp(path, bytes);
  fail(path, "must be a binary PPM or an uncompressed BMP");
}

void write_image(const std::string& path, const Image& image) {
  std::ofstream file(path, std::ios::binary);
  file << "P6\n" << image.width << ' ' << image.height << "\n255\n";
  std::vector<uint8_t> pixels(image.pixels);
  for (size_t i = 0; i < pixels.size(); i += 3) std::swap(pixels[i], pixels[i + 2]);
  file.write(reinterpret_cast<const char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
  if (!file.flush()) fail(path, "cannot be written");
}

Image resize(const Image& image, int height, int width) {
  if (height == image.height && width == image.width) return image;
  Image result{height, width, std::vector<uint8_t>(3 * static_cast<size_t>(height) * width)};
  const auto split = [](int index, int from, int to, int& first, int& second) {
    const double position = std::clamp((index + 0.5) * from / to - 0.5, 0.0, from - 1.0);
    first = static_cast<int>(position);
    second = std::min(first + 1, from - 1);
    return position - first;
  };
  for (int y = 0; y < height; ++y) {
    int top, bottom, left, right;
    const double down = split(y, image.height, height, top, bottom);
    for (int x = 0; x < width; ++x) {
      const double across = split(x, image.width, width, left, right);
      for (int channel = 0; channel < 3; ++channel) {
        const double above = image.at(top, left)[channel] * (1 - across) + image.at(top, right)[channel] * across;
        const double below = image.at(bottom, left)[channel] * (1 - across) + image.at(bottom, right)[channel] * across;
        result.at(y, x)[channel] = static_cast<uint8_t>(std::lround(above * (1 - down) + below * down));
      }
    }
  }
  return result;
}

void draw_box(Image& image, const float box[4], const uint8_t color[3]) {
  const auto inside = [](float value, int size) { return std::clamp(static_cast<int>(std::lround(value)), 0, size - 1); };
  const int left = inside(box[0], image.width), right = inside(box[2], image.width);
  const int top = inside(box[1], image.height), bottom = inside(box[3], image.height);
  for (int y = top; y <= bottom; ++y) {
    for (int x = left; x <= right; ++x) {
      const bool frame = y < top + 2 || y > bottom - 2 || x < left + 2 || x > right - 2;
      if (frame) std::copy_n(color, 3, image.at(y, x));
    }
  }
}
