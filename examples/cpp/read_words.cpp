// Reads word crops with an exported network: read_words EXPORT IMAGE...
//
// Prints `path TAB text TAB confidence` for each image, as `--mode=predict` does. The
// export is a folder that `--mode=export --format=onnx` wrote; its manifest says how
// images are scaled and what the ids mean.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <opencv2/core.hpp>
#include <opencv2/core/persistence.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <openvino/openvino.hpp>

namespace {

// How an image is scaled and padded, and what the ids mean; see manifest.json.
struct Manifest {
  int height, min_width, max_width, width_multiple;
  bool clamp_first, rgb;
  std::vector<std::string> characters;  // UTF-8, one each
  int end_id, pad_id, unknown_id;
};

// Splits UTF-8 into characters: a byte 10xxxxxx continues the one before.
std::vector<std::string> split_characters(const std::string& text) {
  std::vector<std::string> found;
  for (unsigned char byte : text) {
    if ((byte & 0xC0) == 0x80 && !found.empty()) {
      found.back() += static_cast<char>(byte);
    } else {
      found.emplace_back(1, static_cast<char>(byte));
    }
  }
  return found;
}

Manifest read_manifest(const std::string& path) {
  cv::FileStorage file(path, cv::FileStorage::READ | cv::FileStorage::FORMAT_JSON);
  if (!file.isOpened()) throw std::runtime_error(path + ": cannot be read");
  if (static_cast<std::string>(file["format"]) != "robustscanner_jax.artefact" ||
      static_cast<int>(file["format_version"]) != 1) {
    throw std::runtime_error(path + ": not an export of format version 1");
  }
  const cv::FileNode rule = file["preprocessing"], charset = file["charset"];
  Manifest m;
  m.height = rule["height"];
  m.min_width = rule["min_width"];
  m.max_width = rule["max_width"];
  m.width_multiple = rule["width_multiple"];
  // OpenCV's reader gives true as 1, or as a text in some versions.
  const cv::FileNode clamp = rule["clamp_first"];
  m.clamp_first = clamp.isString() ? static_cast<std::string>(clamp) == "true"
                                   : static_cast<int>(clamp) != 0;
  m.rgb = static_cast<std::string>(rule["channel_order"]) == "RGB";
  m.characters = split_characters(static_cast<std::string>(charset["characters"]));
  m.end_id = charset["end_id"];
  m.pad_id = charset["pad_id"];
  m.unknown_id = charset["unknown_id"];
  return m;
}

// The width in pixels to which a crop is scaled; rounds half to even, as Python does.
int content_width(int height, int width, const Manifest& m) {
  double scaled = std::ceil(static_cast<double>(m.height) / height * width);
  const auto clamp = [&](double value) {
    return std::min<double>(std::max<double>(value, m.min_width), m.max_width);
  };
  if (m.clamp_first) scaled = clamp(scaled);
  scaled = std::nearbyint(scaled / m.width_multiple) * m.width_multiple;
  return static_cast<int>(clamp(scaled));
}

// Fills `image` [1, height, max_width, 3] and `width` [1].
void prepare(const std::string& path, const Manifest& m, ov::Tensor image,
             ov::Tensor width) {
  const cv::Mat pixels = cv::imread(path, cv::IMREAD_COLOR);
  if (pixels.empty()) throw std::runtime_error("cannot be decoded");
  const int scaled_width = content_width(pixels.rows, pixels.cols, m);
  cv::Mat scaled;
  cv::resize(pixels, scaled, {scaled_width, m.height}, 0, 0, cv::INTER_LINEAR);
  if (m.rgb) cv::cvtColor(scaled, scaled, cv::COLOR_BGR2RGB);
  cv::Mat canvas(m.height, m.max_width, CV_8UC3, image.data<std::uint8_t>());
  canvas.setTo(0);
  scaled.copyTo(canvas(cv::Rect(0, 0, scaled_width, m.height)));
  *width.data<std::int32_t>() = scaled_width;
}

std::string to_text(const std::int32_t* ids, std::size_t steps, const Manifest& m) {
  std::string text;
  for (std::size_t i = 0; i < steps && ids[i] != m.end_id; ++i) {
    if (ids[i] == m.pad_id) continue;
    text += ids[i] == m.unknown_id ? "<UKN>" : m.characters.at(ids[i]);
  }
  return text;
}

int run(const std::string& folder, const std::vector<std::string>& paths) {
  const Manifest manifest = read_manifest(folder + "/manifest.json");
  ov::Core core;
  // OpenVINO takes bfloat16 by itself where the processor has it; this is exact.
  ov::CompiledModel model = core.compile_model(
      folder + "/model.onnx", "CPU", ov::hint::inference_precision(ov::element::f32));
  ov::InferRequest request = model.create_infer_request();
  const auto height = static_cast<std::size_t>(manifest.height);
  const auto max_width = static_cast<std::size_t>(manifest.max_width);
  ov::Tensor image(ov::element::u8, {1, height, max_width, 3});
  ov::Tensor width(ov::element::i32, {1});
  int failed = 0;
  for (const std::string& path : paths) {
    try {
      prepare(path, manifest, image, width);
    } catch (const std::exception& error) {
      std::cerr << path << ": " << error.what() << "\n";
      ++failed;
      continue;
    }
    request.set_tensor("image", image);
    request.set_tensor("width", width);
    request.infer();
    const ov::Tensor ids = request.get_tensor("ids");
    const ov::Tensor probabilities = request.get_tensor("probabilities");
    const std::size_t steps = ids.get_shape().at(1);
    double confidence = 1.0;
    for (std::size_t i = 0; i < steps; ++i) confidence *= probabilities.data<float>()[i];
    std::printf("%s\t%s\t%.4f\n", path.c_str(),
                to_text(ids.data<std::int32_t>(), steps, manifest).c_str(), confidence);
  }
  return failed > 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: read_words EXPORT IMAGE...\n";
    return 2;
  }
  try {
    return run(argv[1], std::vector<std::string>(argv + 2, argv + argc));
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
