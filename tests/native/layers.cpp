// Compares layers with plain loops: layers INSTRUCTIONS TOLERANCE. For processors without Python.
#include "layers.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace {

using pcnn::Layer;
using pcnn::LayerKind;
using pcnn::Layers;

std::mt19937 numbers(0);

int between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(numbers); }

std::vector<float> random_floats(std::size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> found(count);
  for (float& value : found) value = normal(numbers);
  return found;
}

// The largest error of one random convolution, as a part of the largest sum of its products.
double error_of_one(const std::string& instructions) {
  const bool depthwise = between(0, 2) == 0;
  Layer layer = {};
  layer.kind = depthwise ? LayerKind::kDepthwise : LayerKind::kConvolution;
  layer.kernel = depthwise ? 3 : between(0, 3) * 2 + 1;
  layer.stride = between(1, 2);
  layer.padding = between(0, layer.kernel / 2);
  layer.width = between(1, 40);
  layer.channels = depthwise ? layer.width : between(1, 40);
  layer.leak = 0.1f * static_cast<float>(between(0, 2));
  layer.most = between(0, 1) ? 6.0f : INFINITY;
  layer.onto = -1;
  const int batch = between(1, 5), height = between(7, 20), width = between(7, 20);
  const int inner = depthwise ? 1 : layer.width, kernel = layer.kernel;
  const std::vector<float> weights =
      random_floats(static_cast<std::size_t>(layer.channels) * kernel * kernel * inner);
  const std::vector<float> bias = random_floats(layer.channels);
  const std::vector<float> source =
      random_floats(static_cast<std::size_t>(batch) * height * width * layer.width);

  Layers layers(instructions);
  layer.source = layers.add_maps(layer.width);
  layer.out = layers.add_maps(layer.channels);
  const Layer shape = layer;
  layers.add(std::move(layer), weights.data(), bias.data());
  const Layers::Input input{shape.source, source.data(), height, width};
  const Layers::Size size = layers.sizes({input})[shape.out];
  std::vector<float> found(batch * size.first * size.second * shape.channels);
  layers.run({input}, {{shape.out, found.data()}}, batch, between(1, 3));

  double worst = 0, largest = 1;
  for (int b = 0; b < batch; ++b) {
    for (int y = 0; y < size.first; ++y) {
      for (int x = 0; x < size.second; ++x) {
        for (int n = 0; n < shape.channels; ++n) {
          double sum = bias[n], total = 0;
          for (int i = 0; i < kernel; ++i) {
            for (int j = 0; j < kernel; ++j) {
              const int row = y * shape.stride - shape.padding + i;
              const int column = x * shape.stride - shape.padding + j;
              if (row < 0 || row >= height || column < 0 || column >= width) continue;
              for (int c = 0; c < inner; ++c) {
                const int channel = depthwise ? n : c;
                const double product =
                    double{source[((b * height + row) * width + column) * shape.width + channel]} *
                    weights[((n * kernel + i) * kernel + j) * inner + c];
                sum += product;
                total += std::abs(product);
              }
            }
          }
          sum = std::min<double>(shape.most, sum > 0 ? sum : shape.leak * sum);
          const double got = found[((b * size.first + y) * size.second + x) * shape.channels + n];
          worst = std::max(worst, std::abs(got - sum));
          largest = std::max(largest, total);
        }
      }
    }
  }
  return worst / largest;
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) return 2;
  double worst = 0;
  for (int trial = 0; trial < 300; ++trial) worst = std::max(worst, error_of_one(words[1]));
  std::printf("%s: %.2e\n", words[1], worst);
  return worst <= std::atof(words[2]) ? 0 : 1;
}
