// Images without a library: binary PPM (P6) and uncompressed 24- or 32-bit BMP.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

// Rows from top to bottom, pixels from left to right, three bytes each: blue, green, red.
struct Image {
  int height = 0;
  int width = 0;
  std::vector<uint8_t> pixels;

  uint8_t* at(int y, int x) { return &pixels[3 * (static_cast<size_t>(y) * width + x)]; }
  const uint8_t* at(int y, int x) const { return &pixels[3 * (static_cast<size_t>(y) * width + x)]; }
};

// Throws a std::runtime_error that names the file if it is neither PPM nor BMP, or not whole.
Image read_image(const std::string& path);

// Writes a PPM.
void write_image(const std::string& path, const Image& image);

// Bilinear, pixel centres at half-integers, border pixels repeated.
Image resize(const Image& image, int height, int width);

// A frame of two pixels, cut off at the borders.
void draw_box(Image& image, const float box[4], const uint8_t color[3]);
