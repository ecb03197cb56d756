// Weights are packed in panels of output channels, two vectors wide; the last may be one vector
// wide. A panel has a row of that width for each input of a channel: (kernel row, kernel column,
// input channel). Missing channels are zeros. In bfloat16 a number's place holds those of two
// inputs. A depthwise convolution has nine vectors for each vector of channels.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <tuple>
#include <utility>

#include "checks.h"
#include "layers.h"
#include "numeric.h"
#include "parallel.h"

namespace pcnn {
namespace {

// The most numbers of a block of gathered patches: half of a usual L2 cache.
constexpr std::int64_t kBlock = 1 << 15;
constexpr std::int64_t kMostRows = 96;
// The most numbers of a chunk's maps, of images that one thread takes through all layers.
constexpr std::int64_t kChunk = 1 << 19;
constexpr std::int64_t kMostImages = 8;
// Multiplications of a thread, at least: what it does while another one starts.
#ifndef PCNN_WORTH_A_THREAD  // a test has less work
#define PCNN_WORTH_A_THREAD 4e6
#endif
// Looks at the others' progress before a thread lets another one have its processor.
constexpr int kTurns = 1000;
// Of a side: products of sizes stay below 2⁶³.
constexpr std::int64_t kMostPixels = 1 << 16;
constexpr std::int64_t kTilesAtOnce = 24;  // of Winograd's, in a block
// The most pairs of channels for each tile of an image: each has kValues weights to read.
constexpr std::int64_t kPairsOfTile = 12000;

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t padding_before(const Layer& layer, std::int64_t size) {
  if (layer.padding >= 0) return layer.padding;
  const std::int64_t out = divide_up(size, layer.stride);
  return std::max<std::int64_t>((out - 1) * layer.stride + layer.kernel - size, 0) / 2;
}

std::int64_t size_after(const Layer& layer, std::int64_t size) {
  if (layer.padding < 0) return divide_up(size, layer.stride);
  if (size + 2 * layer.padding < layer.kernel) return 0;
  return (size + 2 * layer.padding - layer.kernel) / layer.stride + 1;
}

// The packed places of one output channel's weights: the first, and the step to the next.
struct Places {
  std::int64_t first, step, count;
};

Places places_of(const Layer& layer, int channel) {
  const int lanes = layer.kernels->lanes;
  if (layer.kind == LayerKind::kDepthwise) {
    return {channel / lanes * lanes * kTaps + channel % lanes, lanes, kTaps};
  }
  const std::int64_t count = layer.kernels->narrow ? divide_up(layer.count(), 2) : layer.count();
  const int start = channel / (2 * lanes) * 2 * lanes;
  return {start * count + (channel - start), layer.channels - start > lanes ? 2 * lanes : lanes,
          count};
}

bool is_narrow(const Layer& layer) {
  return layer.kind == LayerKind::kConvolution && layer.kernels->narrow;
}

std::vector<float> packed(const Layer& layer, const float* weights) {
  const int lanes = layer.kernels->lanes;
  const std::int64_t inputs = layer.kind == LayerKind::kDepthwise ? kTaps : layer.count();
  std::vector<float> narrowed(divide_up(inputs, 2 * lanes) * lanes);
  std::vector<float> found(divide_up(layer.channels, lanes) * lanes * places_of(layer, 0).count);
  for (int channel = 0; channel < layer.channels; ++channel) {
    const Places places = places_of(layer, channel);
    const float* from = weights + channel * inputs;
    if (is_narrow(layer)) {
      layer.kernels->narrow(from, inputs, narrowed.data());
      from = narrowed.data();
    }
    for (std::int64_t k = 0; k < places.count; ++k) {
      found[places.first + k * places.step] = from[k];
    }
  }
  return found;
}

// The numbers that were packed, (channels, inputs).
std::vector<float> unpacked(const Layer& layer) {
  const std::int64_t inputs = layer.kind == LayerKind::kDepthwise ? kTaps : layer.count();
  const bool narrow = is_narrow(layer);
  std::vector<float> found;
  found.reserve(layer.channels * inputs);
  for (int channel = 0; channel < layer.channels; ++channel) {
    const Places places = places_of(layer, channel);
    for (std::int64_t k = 0; k < inputs; ++k) {
      const float value = layer.weights[places.first + (narrow ? k / 2 : k) * places.step];
      const std::uint32_t bits = bits_of(value);  // two numbers of bfloat16, the lower one first
      found.push_back(narrow ? float_of(k % 2 ? bits & 0xffff0000u : bits << 16) : value);
    }
  }
  return found;
}

// The weights as kValues packed matrices, one for each value of a patch.
std::vector<float> transformed(const Layer& layer) {
  constexpr double kMatrix[kPatch][3] = {{1 / 4.0, 0, 0},
                                         {-1 / 6.0, -1 / 6.0, -1 / 6.0},
                                         {-1 / 6.0, 1 / 6.0, -1 / 6.0},
                                         {1 / 24.0, 1 / 12.0, 1 / 6.0},
                                         {1 / 24.0, -1 / 12.0, 1 / 6.0},
                                         {0, 0, 1}};
  const std::vector<float> weights = unpacked(layer);
  Layer pointwise = {};
  pointwise.kind = LayerKind::kConvolution;
  pointwise.kernel = 1;
  pointwise.width = layer.width;
  pointwise.channels = layer.channels;
  pointwise.kernels = layer.kernels;
  std::vector<double> sums(layer.width);
  std::vector<float> found, matrix(std::int64_t{layer.channels} * layer.width);
  const int lanes = layer.kernels->lanes;
  found.reserve(kValues * divide_up(layer.channels, lanes) * lanes * layer.width);
  for (int value = 0; value < kValues; ++value) {
    for (std::int64_t n = 0; n < layer.channels; ++n) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (int tap = 0; tap < kTaps; ++tap) {
        const double factor = kMatrix[value / kPatch][tap / 3] * kMatrix[value % kPatch][tap % 3];
        const float* from = weights.data() + (n * kTaps + tap) * layer.width;
        for (int c = 0; c < layer.width; ++c) sums[c] += factor * static_cast<double>(from[c]);
      }
      std::copy(sums.begin(), sums.end(), matrix.begin() + n * layer.width);
    }
    const std::vector<float> one = packed(pointwise, matrix.data());
    found.insert(found.end(), one.begin(), one.end());
  }
  return found;
}

// As std::memcpy, whose call takes longer than the copy of a few numbers.
inline void copy_few(float* to, const float* from, std::int64_t count) {
  if (count >= 64) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  for (; count >= 4; count -= 4, to += 4, from += 4) std::memcpy(to, from, 4 * sizeof(float));
  if (count & 2) std::memcpy(to, from, 2 * sizeof(float));
  if (count & 1) to[count - 1] = from[count - 1];
}

// Copies the patches of output pixels begin … end to rows of kernel² · width numbers.
void gather(const Layer& layer, const LayerMaps& maps, std::int64_t begin, std::int64_t end,
            float* to) {
  const std::int64_t pixels = maps.out_height * maps.out_width, step = maps.source_channels;
  const std::int64_t kernel = layer.kernel, width = layer.width;
  const bool joined = width == step;  // neighbours in a row are neighbours in memory
  std::int64_t image = begin / pixels, row = begin % pixels / maps.out_width;
  std::int64_t column = begin % maps.out_width;
  for (std::int64_t index = begin; index < end; ++index) {
    const std::int64_t y = row * layer.stride - maps.top, x = column * layer.stride - maps.left;
    std::int64_t place = ((image * maps.height + y) * maps.width + x) * step + layer.source_first;
    const std::int64_t left = std::clamp<std::int64_t>(-x, 0, kernel);
    const std::int64_t right = std::clamp<std::int64_t>(maps.width - x, left, kernel);
    for (std::int64_t i = 0; i < kernel; ++i, place += maps.width * step, to += kernel * width) {
      if (y + i < 0 || y + i >= maps.height || left == right) {
        std::fill_n(to, kernel * width, 0.0f);
        continue;
      }
      if (left > 0) std::fill_n(to, left * width, 0.0f);
      if (joined) {
        copy_few(to + left * width, maps.source + place + left * width, (right - left) * width);
      } else {
        for (std::int64_t j = left; j < right; ++j) {
          copy_few(to + j * width, maps.source + place + j * step, width);
        }
      }
      if (right < kernel) std::fill_n(to + right * width, (kernel - right) * width, 0.0f);
    }
    if (++column == maps.out_width) {
      column = 0;
      if (++row == maps.out_height) {
        row = 0;
        ++image;
      }
    }
  }
}

PCNN_CLONES void pool_rows(const Layer& layer, const LayerMaps& maps, std::int64_t begin,
                           std::int64_t end) {
  const std::int64_t channels = layer.channels;
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t image = item / maps.out_height, y = item % maps.out_height;
    const std::int64_t top = y * layer.stride - maps.top;
    for (std::int64_t x = 0; x < maps.out_width; ++x) {
      float* out = maps.out + (item * maps.out_width + x) * channels;
      std::fill_n(out, channels, -std::numeric_limits<float>::infinity());
      const std::int64_t left = x * layer.stride - maps.left;
      for (std::int64_t i = std::max<std::int64_t>(top, 0);
           i < std::min(top + layer.kernel, maps.height); ++i) {
        for (std::int64_t j = std::max<std::int64_t>(left, 0);
             j < std::min(left + layer.kernel, maps.width); ++j) {
          const float* from = maps.source + ((image * maps.height + i) * maps.width + j) * channels;
          for (std::int64_t c = 0; c < channels; ++c) {
            const bool greater = from[c] > out[c] || from[c] != from[c];  // NaN stays
            out[c] = greater ? from[c] : out[c];
          }
        }
      }
    }
  }
}

// Adds the nearest pixel of smaller maps to each pixel.
PCNN_CLONES void add_rows(const Layer& layer, const LayerMaps& maps, std::int64_t begin,
                          std::int64_t end) {
  const std::int64_t channels = layer.channels;
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t image = item / maps.out_height, y = item % maps.out_height;
    const std::int64_t row = image * maps.height + y * maps.height / maps.out_height;
    for (std::int64_t x = 0; x < maps.out_width; ++x) {
      float* out = maps.out + (item * maps.out_width + x) * channels;
      const float* from =
          maps.source + (row * maps.width + x * maps.width / maps.out_width) * channels;
      for (std::int64_t c = 0; c < channels; ++c) out[c] += from[c];
    }
  }
}

const Kernels* kernels_for(const std::string& instructions) {
  for (const Kernels* found :
       {avx512_kernels(), avx2_kernels(), neon_kernels(), bfloat16_kernels()}) {
    if (found && (instructions == found->name || (instructions.empty() && !found->narrow))) {
      return found;
    }
  }
  throw std::runtime_error("Layers: this processor lacks the instructions " + instructions);
}

}  // namespace

// The work on a batch, or on some of its images. All threads share it.
struct Layers::Run {
  const Layers& own;
  std::vector<int> uses;              // of maps: by layers that are needed, and as an output
  std::vector<bool> needed;           // layers on which an output depends, but for joined ones
  std::vector<LayerMaps> memory;      // of each layer
  std::vector<std::int64_t> columns;  // parts into which each layer's output channels are cut
  std::vector<std::int64_t> rows;     // rows of a block of each layer, or Winograd's tiles
  // Of a pointwise convolution, the depthwise one before it, if it computes that one's rows for
  // each of its blocks. They never reach memory then. -1 for none.
  std::vector<int> joined;
  std::unique_ptr<float[]> arena;
  std::size_t scratch = 0;  // numbers of a thread's patches

  Run(const Layers& own, const std::vector<Input>& inputs, const std::vector<Output>& outputs,
      const std::vector<Size>& sizes, std::int64_t batch, int threads);

  int count() const { return static_cast<int>(own.layers_.size()); }
  // The constructor's steps, in this order.
  void find_needed(const std::vector<Output>& outputs);
  void cut(int threads);
  void join();
  void transform_weights() const;
  void measure_scratch();
  int to_join(int layer) const;
  std::vector<float*> places(const std::vector<Input>& inputs, const std::vector<Output>& outputs,
                             const std::vector<Size>& sizes, std::int64_t batch);
  std::int64_t pieces(int layer) const;
  std::pair<std::int64_t, std::int64_t> panels_of(int layer, std::int64_t piece) const;
  void work(int layer, std::int64_t piece, float* patches) const;
  void multiply(int layer, std::int64_t piece, float* patches) const;
  std::int64_t tiles_of_image(int layer) const;
  bool in_tiles(int layer) const;
  WinogradTile tile_at(int layer, std::int64_t number) const;
  void multiply_tiles(int layer, std::int64_t piece, float* patches) const;
  void alone() const;
  void together(int threads) const;
};

Layers::Run::Run(const Layers& own, const std::vector<Input>& inputs,
                 const std::vector<Output>& outputs, const std::vector<Size>& sizes,
                 std::int64_t batch, int threads)
    : own(own), uses(own.maps_.size()), needed(own.layers_.size()), joined(own.layers_.size(), -1) {
  find_needed(outputs);
  for (const Layer& layer : own.layers_) {
    LayerMaps maps = {};
    maps.batch = batch;
    std::tie(maps.height, maps.width) = sizes[layer.source];
    std::tie(maps.out_height, maps.out_width) = sizes[layer.out];
    maps.source_channels = own.maps_[layer.source].channels;
    maps.out_channels = own.maps_[layer.out].channels;
    if (layer.onto >= 0) maps.onto_channels = own.maps_[layer.onto].channels;
    maps.top = padding_before(layer, maps.height);
    maps.left = padding_before(layer, maps.width);
    memory.push_back(maps);
  }
  cut(threads);
  join();
  transform_weights();
  measure_scratch();
  const std::vector<float*> place = places(inputs, outputs, sizes, batch);
  for (std::size_t index = 0; index < memory.size(); ++index) {
    const Layer& layer = own.layers_[index];
    memory[index].source = place[layer.source];
    memory[index].out = place[layer.out];
    if (layer.onto >= 0) memory[index].onto = place[layer.onto];
  }
}

void Layers::Run::find_needed(const std::vector<Output>& outputs) {
  for (const Output& output : outputs) ++uses[output.maps];
  for (std::size_t index = own.layers_.size(); index-- > 0;) {
    const Layer& layer = own.layers_[index];
    needed[index] = uses[layer.out] > 0;
    if (!needed[index]) continue;
    ++uses[layer.source];
    if (layer.onto >= 0) ++uses[layer.onto];
  }
}

// Where all maps lie.
std::vector<float*> Layers::Run::places(const std::vector<Input>& inputs,
                                        const std::vector<Output>& outputs,
                                        const std::vector<Size>& sizes, std::int64_t batch) {
  std::vector<float*> place(own.maps_.size(), nullptr);
  // Checked by run(): no layer writes to an input.
  for (const Input& input : inputs) place[input.maps] = const_cast<float*>(input.data);
  for (const Output& output : outputs) place[output.maps] = output.data;
  std::vector<int> last;  // the level in which maps are read or written last
  for (const Maps& maps : own.maps_) last.push_back(std::max(maps.read, maps.written));
  for (std::size_t index = 0; index < joined.size(); ++index) {
    if (joined[index] < 0) continue;
    int& level = last[own.layers_[joined[index]].source];
    level = std::max(level, own.layers_[index].level);
  }
  // Other maps share an arena: a map takes the first gap that is free while it is needed.
  struct Block {
    int maps;
    std::int64_t begin, end;
  };
  std::vector<int> order;
  for (std::size_t maps = 0; maps < place.size(); ++maps) {
    if (!place[maps] && uses[maps] > 0) order.push_back(static_cast<int>(maps));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return own.maps_[a].first < own.maps_[b].first; });
  std::vector<Block> blocks;  // in order of their begin
  std::int64_t numbers = 0;   // of the arena
  for (int maps : order) {
    const Maps& own_maps = own.maps_[maps];
    const std::int64_t size = batch * sizes[maps].first * sizes[maps].second * own_maps.channels;
    std::int64_t begin = 0;
    for (const Block& block : blocks) {
      if (last[block.maps] < own_maps.first) continue;
      if (begin + size <= block.begin) break;
      begin = std::max(begin, block.end);
    }
    const Block found{maps, begin, begin + size};
    const auto before = [](const Block& a, const Block& b) { return a.begin < b.begin; };
    blocks.insert(std::upper_bound(blocks.begin(), blocks.end(), found, before), found);
    numbers = std::max(numbers, found.end);
  }
  arena.reset(new float[numbers]);
  for (const Block& block : blocks) place[block.maps] = arena.get() + block.begin;
  return place;
}

// How the work of each layer is cut into pieces.
void Layers::Run::cut(int threads) {
  for (int index = 0; index < count(); ++index) {
    const Layer& layer = own.layers_[index];
    const LayerMaps& maps = memory[index];
    if (layer.kind != LayerKind::kConvolution) {
      rows.push_back(std::max<std::int64_t>(1, maps.batch * maps.out_height / (4 * threads)));
      columns.push_back(1);
      continue;
    }
    const int most_rows = layer.kernels->rows;
    const bool tiled = in_tiles(index);
    const std::int64_t total =
        maps.batch * (tiled ? tiles_of_image(index) : maps.out_height * maps.out_width);
    std::int64_t block =
        tiled ? kTilesAtOnce
              : std::clamp<std::int64_t>(kBlock / layer.count(), most_rows, kMostRows);
    std::int64_t parts = 1;
    if (threads > 1) {
      block = std::min(block, std::max<std::int64_t>(most_rows, total / (4 * threads)));
      parts = std::clamp<std::int64_t>(4 * threads / divide_up(total, block), 1,
                                       divide_up(layer.channels, 2 * layer.kernels->lanes));
    }
    rows.push_back(divide_up(block, most_rows) * most_rows);
    columns.push_back(parts);
  }
}

// Lets each pointwise convolution compute the depthwise one before it, if it can. That one is then
// no layer with work of its own, and its maps take no memory.
void Layers::Run::join() {
  for (int index = 0; index < count(); ++index) {
    const int depthwise = to_join(index);
    if (depthwise < 0) continue;
    const std::int64_t width = memory[index].out_width;
    rows[index] = std::max<std::int64_t>(rows[index] / width, 1) * width;  // whole rows of its maps
    joined[index] = depthwise;
    needed[depthwise] = false;
    uses[own.layers_[index].source] = 0;
  }
}

// Prepares the weights of layers that are computed in tiles. All runs share them: the first one
// that needs them computes them, and others wait for it.
void Layers::Run::transform_weights() const {
  for (int index = 0; index < count(); ++index) {
    if (!needed[index] || !in_tiles(index)) continue;
    const Layer& layer = own.layers_[index];
    Layer::Transformed& shared = *layer.transformed;
    std::call_once(shared.once, [&] { shared.weights = transformed(layer); });
  }
}

// The memory of a thread: what the largest piece of any layer needs.
void Layers::Run::measure_scratch() {
  for (int index = 0; index < count(); ++index) {
    const Layer& layer = own.layers_[index];
    if (!needed[index] || layer.kind != LayerKind::kConvolution) continue;
    const int panel = 2 * layer.kernels->lanes;
    const std::int64_t narrowed =
        is_narrow(layer) ? divide_up(layer.count(), panel) * layer.kernels->lanes : 0;
    const std::int64_t values =
        (divide_up(layer.width, panel) + divide_up(layer.channels, panel)) * panel * kValues;
    const bool tiled = in_tiles(index);
    const std::int64_t size = rows[index] * (tiled ? values : layer.count() + narrowed);
    scratch = std::max(scratch, static_cast<std::size_t>(size));
  }
}

// The depthwise convolution that a pointwise one can compute; -1 for none. It alone reads its maps,
// each row once, and the maps before it stay as they are until then.
int Layers::Run::to_join(int index) const {
  const Layer& layer = own.layers_[index];
  const bool pointwise = layer.kind == LayerKind::kConvolution && layer.kernel == 1 &&
                         layer.stride == 1 && layer.padding <= 0;
  if (!pointwise || !needed[index] || columns[index] > 1 || uses[layer.source] > 1) return -1;
  if (memory[index].out_width * layer.count() > kBlock) return -1;
  const auto writes = [&](const Layer& other) { return other.out == layer.source; };
  const auto found = std::find_if(own.layers_.begin(), own.layers_.end(), writes);
  if (found == own.layers_.end() || found->kind != LayerKind::kDepthwise ||
      found->channels != layer.width) {
    return -1;
  }
  for (const Layer& other : own.layers_) {
    const bool between = other.level >= found->level && other.level <= layer.level;
    if (between && other.out == found->source) return -1;
  }
  return static_cast<int>(found - own.layers_.begin());
}

std::int64_t Layers::Run::tiles_of_image(int index) const {
  const LayerMaps& maps = memory[index];
  return divide_up(maps.out_height, kTile) * divide_up(maps.out_width, kTile);
}

// Whether a layer is computed in Winograd's tiles: if they save a third of the products, and the
// weights are not too many for so few tiles. That must be the same in every batch.
bool Layers::Run::in_tiles(int index) const {
  const Layer& layer = own.layers_[index];
  const LayerMaps& maps = memory[index];
  const std::int64_t tiles = tiles_of_image(index), pixels = maps.out_height * maps.out_width;
  return layer.winograd && 3 * kValues * tiles < 2 * kTaps * pixels &&
         std::int64_t{layer.width} * layer.channels <= kPairsOfTile * tiles;
}

std::int64_t Layers::Run::pieces(int index) const {
  if (!needed[index]) return 0;
  const LayerMaps& maps = memory[index];
  if (in_tiles(index)) {
    return divide_up(maps.batch * tiles_of_image(index), rows[index]) * columns[index];
  }
  const std::int64_t total =
      maps.batch * maps.out_height *
      (own.layers_[index].kind == LayerKind::kConvolution ? maps.out_width : 1);
  return divide_up(total, rows[index]) * columns[index];
}

// The panels of output channels of a piece, from the first to behind the last.
std::pair<std::int64_t, std::int64_t> Layers::Run::panels_of(int index, std::int64_t piece) const {
  const Layer& layer = own.layers_[index];
  const std::int64_t panels = divide_up(layer.channels, 2 * layer.kernels->lanes);
  const std::int64_t part = piece % columns[index];
  return {part * panels / columns[index], (part + 1) * panels / columns[index]};
}

void Layers::Run::work(int index, std::int64_t piece, float* patches) const {
  const Layer& layer = own.layers_[index];
  const LayerMaps& maps = memory[index];
  if (in_tiles(index)) return multiply_tiles(index, piece, patches);
  if (layer.kind == LayerKind::kConvolution) return multiply(index, piece, patches);
  const std::int64_t begin = piece * rows[index];
  const std::int64_t end = std::min(begin + rows[index], maps.batch * maps.out_height);
  if (layer.kind == LayerKind::kDepthwise) {
    float* const out = maps.out + begin * maps.out_width * maps.out_channels;
    return layer.kernels->depthwise(layer, maps, begin, end, out);
  }
  if (layer.kind == LayerKind::kMaxPool) return pool_rows(layer, maps, begin, end);
  add_rows(layer, maps, begin, end);
}

void Layers::Run::multiply(int index, std::int64_t piece, float* patches) const {
  const Layer& layer = own.layers_[index];
  const LayerMaps& maps = memory[index];
  const Kernels& kernels = *layer.kernels;
  const std::int64_t begin = piece / columns[index] * rows[index];
  const std::int64_t total = maps.batch * maps.out_height * maps.out_width;
  const std::int64_t end = std::min(begin + rows[index], total);
  Tile tile = {};
  tile.count = layer.count();
  tile.leak = layer.leak;
  tile.most = layer.most;
  tile.c_step = maps.out_channels;
  tile.onto_step = maps.onto_channels;
  const float* a = nullptr;
  const std::int64_t step = divide_up(tile.count, 2 * kernels.lanes) * kernels.lanes;  // narrowed
  if (joined[index] >= 0) {
    const Layer& depthwise = own.layers_[joined[index]];
    depthwise.kernels->depthwise(depthwise, memory[joined[index]], begin / maps.out_width,
                                 end / maps.out_width, patches);
    a = patches;
    tile.a_step = tile.count;
  } else if (layer.kernel > 1 || layer.stride > 1) {
    gather(layer, maps, begin, end, patches);
    a = patches;
    tile.a_step = tile.count;
  } else {
    a = maps.source + begin * maps.source_channels + layer.source_first;
    tile.a_step = maps.source_channels;
  }
  if (kernels.narrow) {
    float* narrowed = patches + (end - begin) * tile.count;
    for (std::int64_t row = 0; row < end - begin; ++row) {
      kernels.narrow(a + row * tile.a_step, tile.count, narrowed + row * step);
    }
    a = narrowed;
    tile.a_step = step;
    tile.count = divide_up(tile.count, 2);
  }
  const int panel = 2 * kernels.lanes;
  const auto [first, last] = panels_of(index, piece);
  // Tiles of nearly equal heights: 16 rows are 8 and 8, not 12 and 4.
  const std::int64_t count = divide_up(end - begin, kernels.rows);
  for (std::int64_t p = first; p < last; ++p) {
    const std::int64_t start = p * panel;
    tile.columns = static_cast<int>(std::min<std::int64_t>(layer.channels - start, panel));
    tile.b = layer.weights.data() + start * tile.count;
    tile.bias = layer.bias.data() + start;
    const auto& tiles = kernels.tiles[tile.columns > kernels.lanes];
    std::int64_t row = begin;
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t height = (end - row) / (count - t);
      tile.a = a + (row - begin) * tile.a_step;
      tile.c = maps.out + row * maps.out_channels + layer.out_first + start;
      tile.onto = maps.onto ? maps.onto + row * maps.onto_channels + start : nullptr;
      tiles[height - 1](tile);
      row += height;
    }
  }
}

// One of a layer's tiles, counted over all images, without its values and channels.
WinogradTile Layers::Run::tile_at(int index, std::int64_t number) const {
  const Layer& layer = own.layers_[index];
  const LayerMaps& maps = memory[index];
  const std::int64_t across = divide_up(maps.out_width, kTile);
  const std::int64_t down = divide_up(maps.out_height, kTile);
  const std::int64_t image = number / (down * across);
  const std::int64_t y = number / across % down * kTile, x = number % across * kTile;
  const std::int64_t row = y - 1, column = x - 1;  // of the patch
  const std::int64_t pixel = (image * maps.out_height + y) * maps.out_width + x;
  const std::int64_t source = (image * maps.height + row) * maps.width + column;
  WinogradTile found = {};
  found.source_column = maps.source_channels;
  found.source_row = maps.width * found.source_column;
  found.source = maps.source + source * found.source_column + layer.source_first;
  found.out_column = maps.out_channels;
  found.out_row = maps.out_width * found.out_column;
  found.out = maps.out + pixel * found.out_column + layer.out_first;
  found.onto_column = maps.onto_channels;
  found.onto_row = maps.out_width * found.onto_column;
  found.onto = maps.onto ? maps.onto + pixel * found.onto_column : nullptr;
  found.top = row < 0;
  found.left = column < 0;
  found.bottom = static_cast<int>(std::min<std::int64_t>(kPatch, maps.height - row));
  found.right = static_cast<int>(std::min<std::int64_t>(kPatch, maps.width - column));
  found.rows = static_cast<int>(std::min<std::int64_t>(kTile, maps.out_height - y));
  found.columns = static_cast<int>(std::min<std::int64_t>(kTile, maps.out_width - x));
  found.bias = layer.bias.data();
  found.leak = layer.leak;
  found.most = layer.most;
  return found;
}

void Layers::Run::multiply_tiles(int index, std::int64_t piece, float* patches) const {
  static const float kZeros[2 * kMostLanes] = {};  // the bias of products
  const Layer& layer = own.layers_[index];
  const LayerMaps& maps = memory[index];
  const Kernels& kernels = *layer.kernels;
  const int panel = 2 * kernels.lanes;
  const std::int64_t begin = piece / columns[index] * rows[index];
  const std::int64_t tiles = std::min(rows[index], maps.batch * tiles_of_image(index) - begin);
  const auto [from, to] = panels_of(index, piece);
  const int first = static_cast<int>(from) * panel;  // output channel
  const int last = std::min(static_cast<int>(to) * panel, layer.channels);
  const std::int64_t in = divide_up(layer.width, panel) * panel;
  const std::int64_t out = divide_up(layer.channels, panel) * panel;
  float* const products = patches + kValues * tiles * in;
  for (std::int64_t t = 0; t < tiles; ++t) {
    WinogradTile tile = tile_at(index, begin + t);
    tile.values = patches + t * in;
    tile.value_step = tiles * in;
    tile.channels = layer.width;
    kernels.winograd_in(tile);
  }
  Tile product = {};
  product.bias = kZeros;
  product.a_step = in;
  product.c_step = out;
  product.count = layer.width;
  product.leak = 1;
  product.most = std::numeric_limits<float>::infinity();
  const std::vector<float>& weights = layer.transformed->weights;
  const std::int64_t matrix = static_cast<std::int64_t>(weights.size()) / kValues;
  for (int value = 0; value < kValues; ++value) {
    for (int start = first; start < last; start += panel) {
      product.columns = std::min(layer.channels - start, panel);
      product.b = weights.data() + value * matrix + start * product.count;
      const auto& loops = kernels.tiles[product.columns > kernels.lanes];
      product.columns = product.columns > kernels.lanes ? panel : kernels.lanes;
      for (std::int64_t t = 0; t < tiles; t += kernels.rows) {
        product.a = patches + (value * tiles + t) * in;
        product.c = products + (value * tiles + t) * out + start;
        loops[std::min<std::int64_t>(kernels.rows, tiles - t) - 1](product);
      }
    }
  }
  for (std::int64_t t = 0; t < tiles; ++t) {
    WinogradTile tile = tile_at(index, begin + t);
    tile.values = products + t * out + first;
    tile.value_step = tiles * out;
    tile.out += first;
    tile.onto = tile.onto ? tile.onto + first : nullptr;
    tile.bias += first;
    tile.channels = last - first;
    kernels.winograd_out(tile);
  }
}

void Layers::Run::alone() const {
  const std::unique_ptr<float[]> patches(new float[scratch]);
  for (std::size_t layer = 0; layer < own.layers_.size(); ++layer) {
    const std::int64_t count = pieces(static_cast<int>(layer));
    for (std::int64_t piece = 0; piece < count; ++piece) {
      work(static_cast<int>(layer), piece, patches.get());
    }
  }
}

// Threads take pieces of a level's layers, and go on when all pieces of the level are done. None
// waits for another to start, so the work gets done by as many as there are.
void Layers::Run::together(int threads) const {
  struct Level {
    std::vector<std::pair<int, std::int64_t>> layers;  // a layer, the number of its first piece
    std::int64_t pieces = 0;
    std::atomic<std::int64_t> next{0}, done{0};
  };
  std::vector<Level> levels(own.levels_);
  for (std::size_t index = 0; index < own.layers_.size(); ++index) {
    Level& level = levels[own.layers_[index].level];
    level.layers.emplace_back(static_cast<int>(index), level.pieces);
    level.pieces += pieces(static_cast<int>(index));
  }
  // Allocated here, because a piece that failed would never be done.
  std::vector<std::unique_ptr<float[]>> patches(threads);
  for (auto& own : patches) own.reset(new float[scratch]);
  on_threads(threads, [&](int thread) {
    for (Level& level : levels) {
      for (std::int64_t piece; (piece = level.next.fetch_add(1)) < level.pieces;) {
        auto layer = level.layers.end() - 1;
        while (layer->second > piece) --layer;
        work(layer->first, piece - layer->second, patches[thread].get());
        level.done.fetch_add(1, std::memory_order_release);
      }
      for (int turn = 0; level.done.load(std::memory_order_acquire) < level.pieces; ++turn) {
        if (turn > kTurns) std::this_thread::yield();
      }
    }
  });
}

Layers::Layers(const std::string& instructions)
    : kernels_(kernels_for(instructions)), exact_(kernels_->narrow ? kernels_for("") : kernels_) {}

int Layers::add_maps(int channels) {
  require(channels >= 1, "Layers: maps must have channels");
  maps_.emplace_back();
  maps_.back().channels = channels;
  return static_cast<int>(maps_.size()) - 1;
}

void Layers::add(Layer layer, const float* weights, const float* bias) {
  const auto known = [&](int maps) { return maps >= 0 && maps < static_cast<int>(maps_.size()); };
  require(known(layer.source) && known(layer.out) && (layer.onto < 0 || known(layer.onto)),
          "Layers: unknown maps");
  require(layer.source_first >= 0 && layer.width >= 1 && layer.out_first >= 0 &&
              layer.channels >= 1 &&
              layer.source_first <= maps_[layer.source].channels - layer.width &&
              layer.out_first <= maps_[layer.out].channels - layer.channels,
          "Layers: channels outside the maps");
  require(layer.kernel >= 1 && layer.stride >= 1 && layer.padding < layer.kernel,
          "Layers: wrong kernel, stride or padding");
  require(layer.source != layer.out && layer.onto != layer.out, "Layers: a layer reads its output");
  if (layer.kind != LayerKind::kConvolution) {
    const bool whole = layer.width == layer.channels && layer.source_first == 0 &&
                       layer.out_first == 0 && layer.onto < 0 &&
                       maps_[layer.source].channels == layer.width &&
                       maps_[layer.out].channels == layer.channels;
    require(whole, "Layers: only convolutions read or write some of the channels");
  }
  require(layer.kind != LayerKind::kDepthwise || (layer.kernel == 3 && layer.stride <= 3),
          "Layers: a depthwise kernel must be 3 × 3, its stride at most 3");
  require(!layer.winograd || (layer.kind == LayerKind::kConvolution && layer.kernel == 3 &&
                              layer.stride == 1 && layer.padding == 1),
          "Layers: Winograd's tiles are for 3 × 3 kernels, stride 1 and padding 1");
  require(layer.onto < 0 || maps_[layer.onto].channels == layer.channels,
          "Layers: the maps to add have other channels");
  const bool adds = layer.kind == LayerKind::kAddEnlarged;
  for (int maps : {layer.source, layer.onto < 0 ? layer.source : layer.onto}) {
    require(maps_[maps].filled == 0 || maps_[maps].filled == maps_[maps].channels,
            "Layers: maps are read before all of their channels are written");
  }
  require(
      maps_[layer.out].filled == (adds ? maps_[layer.out].channels : layer.out_first),
      "Layers: the parts of maps must be written once, in their order, and before they are read");
  if (!adds) maps_[layer.out].filled += layer.channels;
  layer.kernels = layer.exact || layer.winograd ? exact_ : kernels_;
  if (layer.kind == LayerKind::kConvolution || layer.kind == LayerKind::kDepthwise) {
    require(weights && bias, "Layers: no weights");
    layer.weights = packed(layer, weights);
    if (layer.winograd) layer.transformed = std::make_shared<Layer::Transformed>();
    const int panel = 2 * layer.kernels->lanes;
    layer.bias.assign(divide_up(layer.channels, panel) * panel, 0.0f);
    std::copy_n(bias, layer.channels, layer.bias.begin());
  }
  layer.number = static_cast<int>(layers_.size());
  layer.level =
      1 + std::max(maps_[layer.source].written, layer.onto < 0 ? -1 : maps_[layer.onto].written);
  Maps &source = maps_[layer.source], &out = maps_[layer.out];
  if (adds) layer.level = std::max(layer.level, 1 + std::max(out.written, out.read));
  source.read = std::max(source.read, layer.level);
  if (layer.onto >= 0) maps_[layer.onto].read = std::max(maps_[layer.onto].read, layer.level);
  out.first = out.first < 0 ? layer.level : std::min(out.first, layer.level);
  out.written = std::max(out.written, layer.level);
  levels_ = std::max(levels_, layer.level + 1);
  const auto later = [](int level, const Layer& other) { return level < other.level; };
  const auto place = std::upper_bound(layers_.begin(), layers_.end(), layer.level, later);
  layers_.insert(place, std::move(layer));
}

std::vector<float> Layers::weights(int number) const {
  std::vector<float> found;
  for (const Layer& layer : layers_) {
    if (layer.number != number || layer.weights.empty()) continue;
    found = unpacked(layer);
    found.insert(found.end(), layer.bias.begin(), layer.bias.begin() + layer.channels);
  }
  return found;
}

std::vector<Layers::Size> Layers::sizes(const std::vector<Input>& inputs) const {
  std::vector<Size> found(maps_.size(), Size{0, 0});
  for (const Input& input : inputs) {
    require(input.maps >= 0 && input.maps < static_cast<int>(maps_.size()), "Layers: unknown maps");
    require(maps_[input.maps].filled == 0, "Layers: an input is written by a layer");
    require(input.height >= 1 && input.width >= 1 && input.height <= kMostPixels &&
                input.width <= kMostPixels,
            "Layers: an input has no pixels, or too many");
    require(found[input.maps].first == 0, "Layers: an input is given twice");
    found[input.maps] = {input.height, input.width};
  }
  for (const Layer& layer : layers_) {
    const auto [height, width] = found[layer.source];
    require(height > 0, "Layers: maps without an input");
    if (layer.kind == LayerKind::kAddEnlarged) {
      require(found[layer.out].first > 0, "Layers: maps without an input");
      continue;
    }
    const Size size{size_after(layer, height), size_after(layer, width)};
    require(size.first >= 1 && size.second >= 1, "Layers: maps without pixels");
    require(found[layer.out].first == 0 || found[layer.out] == size,
            "Layers: parts of maps have different sizes");
    require(layer.onto < 0 || found[layer.onto] == size, "Layers: maps to add have another size");
    found[layer.out] = size;
  }
  return found;
}

void Layers::run(const std::vector<Input>& inputs, const std::vector<Output>& outputs,
                 std::int64_t batch, int threads) const {
  const std::vector<Size> all = sizes(inputs);
  std::vector<bool> given(maps_.size());
  for (const Output& output : outputs) {
    require(output.maps >= 0 && output.maps < static_cast<int>(maps_.size()) &&
                maps_[output.maps].filled == maps_[output.maps].channels,
            "Layers: an output is no maps that layers write");
    require(!given[output.maps], "Layers: an output is given twice");
    given[output.maps] = true;
  }
  if (batch < 1) return;
  double products = 0;
  std::int64_t numbers = 1;  // of an image's largest maps
  for (const Layer& layer : layers_) {
    const double pixels = static_cast<double>(all[layer.out].first * all[layer.out].second);
    const bool dense = layer.kind == LayerKind::kConvolution;
    products += pixels * layer.channels * layer.kernel * layer.kernel * (dense ? layer.width : 1);
    numbers =
        std::max(numbers, all[layer.out].first * all[layer.out].second * maps_[layer.out].channels);
  }
  const std::int64_t useful = static_cast<std::int64_t>(products * batch / PCNN_WORTH_A_THREAD);
  threads = static_cast<int>(std::clamp<std::int64_t>(useful, 1, std::max(threads, 1)));
  std::int64_t chunk = std::clamp<std::int64_t>(kChunk / numbers, 1, kMostImages);
  if (threads > 1 && batch < 2 * threads) {
    Run(*this, inputs, outputs, all, batch, threads).together(threads);
    return;
  }
  chunk = std::min(chunk, divide_up(batch, threads));
  std::atomic<std::int64_t> next{0};
  on_threads(threads, [&](int) {
    for (std::int64_t begin; (begin = next.fetch_add(chunk)) < batch;) {
      std::vector<Input> some = inputs;
      for (Input& input : some) {
        input.data += begin * input.height * input.width * maps_[input.maps].channels;
      }
      std::vector<Output> out = outputs;
      for (Output& output : out) {
        output.data +=
            begin * all[output.maps].first * all[output.maps].second * maps_[output.maps].channels;
      }
      Run(*this, some, out, all, std::min(chunk, batch - begin), 1).alone();
    }
  });
}

}  // namespace pcnn
