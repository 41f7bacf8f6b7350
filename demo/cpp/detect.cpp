// Detect in an image with an exported model: OpenVINO and the compiled operators, no Python.
//
//   lite_detr_detect MODEL.onnx IMAGE.ppm OUT.ppm [--extension LIBRARY] [--threads N] [--score-thr 0.3]
//
// Prints one line for each detection: label, score, x1, y1, x2, y2 in pixels of the image, and draws its box into
// OUT.ppm. How the image is prepared stands in the model's metadata, which tools/deployment/export_onnx.py writes.
#include <openvino/openvino.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "image.h"

namespace {

constexpr const char* kUsage =
    "usage: lite_detr_detect MODEL.onnx IMAGE.ppm OUT.ppm [--extension LIBRARY] [--threads N] [--score-thr 0.3]";

struct Options {
  std::string model, image, out, extension;
  int threads = 0;
  float score_threshold = 0.3f;
};

Options parse(int argc, char** argv) {
  Options options;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("--", 0) != 0) {
      files.push_back(argument);
      continue;
    }
    if (i + 1 == argc) throw std::invalid_argument(argument + " needs a value\n" + kUsage);
    const std::string value = argv[++i];
    try {
      if (argument == "--extension") {
        options.extension = value;
      } else if (argument == "--threads") {
        options.threads = std::stoi(value);
      } else if (argument == "--score-thr") {
        options.score_threshold = std::stof(value);
      } else {
        throw std::invalid_argument("");
      }
    } catch (const std::logic_error&) {
      throw std::invalid_argument("cannot read " + argument + " " + value + "\n" + kUsage);
    }
  }
  if (files.size() != 3) throw std::invalid_argument(kUsage);
  options.model = files[0], options.image = files[1], options.out = files[2];
  return options;
}

// The part of a JSON object behind a key: the metadata is a flat object of lists of numbers, strings and booleans.
std::string entry(const std::string& json, const std::string& key) {
  const size_t found = json.find("\"" + key + "\"");
  if (found == std::string::npos) throw std::runtime_error("the model's metadata has no " + key);
  const size_t start = json.find(':', found) + 1;
  const size_t end = json.find(json[json.find_first_not_of(' ', start)] == '[' ? ']' : ',', start);
  return json.substr(start, end - start);
}

std::vector<float> numbers(const std::string& json, const std::string& key) {
  std::vector<float> found;
  std::string text = entry(json, key);
  std::replace_if(text.begin(), text.end(), [](char c) { return c == '[' || c == ','; }, ' ');
  const char* position = text.c_str();
  for (char* end = nullptr;; position = end) {
    const float number = std::strtof(position, &end);
    if (end == position) return found;
    found.push_back(number);
  }
}

// Height and width of the model's input for an image.
std::pair<int, int> input_size(const ov::PartialShape& shape, const std::string& preprocessing, const Image& image) {
  if (shape[2].is_static()) {
    return {static_cast<int>(shape[2].get_length()), static_cast<int>(shape[3].get_length())};
  }
  std::vector<float> scale = numbers(preprocessing, "scale");
  if (scale.size() != 2) scale = {1333, 800};
  const float longest = std::max(scale[0], scale[1]), shortest = std::min(scale[0], scale[1]);
  const float factor = std::min(longest / std::max(image.height, image.width),
                                shortest / std::min(image.height, image.width));
  return {static_cast<int>(std::lround(image.height * factor)), static_cast<int>(std::lround(image.width * factor))};
}

// (1, 3, height, width), float32.
ov::Tensor prepare(const Image& image, const std::string& preprocessing) {
  const std::vector<float> mean = numbers(preprocessing, "mean"), std = numbers(preprocessing, "std");
  if (mean.size() != 3 || std.size() != 3) throw std::runtime_error("the model's metadata must have 3 means and stds");
  const bool rgb = entry(preprocessing, "channels").find("RGB") != std::string::npos;
  ov::Tensor tensor(ov::element::f32, {1, 3, static_cast<size_t>(image.height), static_cast<size_t>(image.width)});
  float* output = tensor.data<float>();
  const size_t pixels = static_cast<size_t>(image.height) * image.width;
  for (size_t channel = 0; channel < 3; ++channel) {
    const uint8_t* source = image.pixels.data() + (rgb ? 2 - channel : channel);
    for (size_t i = 0; i < pixels; ++i) *output++ = (source[3 * i] - mean[channel]) / std[channel];
  }
  return tensor;
}

void run(const Options& options) {
  ov::Core core;
  if (!options.extension.empty()) core.add_extension(options.extension);
  const std::shared_ptr<ov::Model> model = core.read_model(options.model);
  if (!model->has_rt_info("framework", "preprocessing")) {
    throw std::runtime_error(options.model + " has no metadata `preprocessing`: it must come from export_onnx.py");
  }
  const std::string preprocessing = model->get_rt_info<std::string>("framework", "preprocessing");
  ov::AnyMap config{ov::hint::inference_precision(ov::element::f32),
                    ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)};
  if (options.threads > 0) config.insert(ov::inference_num_threads(options.threads));
  ov::InferRequest request = core.compile_model(model, "CPU", config).create_infer_request();

  Image image = read_image(options.image);
  const auto [height, width] = input_size(model->input("images").get_partial_shape(), preprocessing, image);
  request.set_tensor("images", prepare(resize(image, height, width), preprocessing));
  const auto start = std::chrono::steady_clock::now();
  // Not `infer`: with one thread it hides exceptions of the operators (2026.4).
  request.start_async();
  request.wait();
  const double milliseconds =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();

  const float* boxes = request.get_tensor("boxes").data<float>();
  const ov::Tensor scores = request.get_tensor("scores");
  const int64_t* labels = request.get_tensor("labels").data<int64_t>();
  const float scale_x = static_cast<float>(image.width) / width, scale_y = static_cast<float>(image.height) / height;
  const uint8_t colors[3][3] = {{60, 20, 220}, {60, 140, 0}, {230, 60, 30}};
  for (size_t i = 0; i < scores.get_size(); ++i) {
    const float score = scores.data<float>()[i];
    if (score < options.score_threshold) break;  // the best come first
    const float box[4] = {boxes[4 * i] * scale_x, boxes[4 * i + 1] * scale_y, boxes[4 * i + 2] * scale_x,
                          boxes[4 * i + 3] * scale_y};
    std::printf("%lld %.6f %.4f %.4f %.4f %.4f\n", static_cast<long long>(labels[i]), score, box[0], box[1], box[2],
                box[3]);
    draw_box(image, box, colors[labels[i] % 3]);
  }
  write_image(options.out, image);
  std::fprintf(stderr, "%.1f ms, written: %s\n", milliseconds, options.out.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
