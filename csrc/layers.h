// Convolutional networks on a CPU, each run by one call: layers that read and write maps.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

// GCC for Windows does not align the stack for spilled vectors (its bug 54412).
#if defined(__x86_64__) && (defined(__clang__) || (defined(__GNUC__) && !defined(_WIN32)))
#define PCNN_X86_VECTORS
#endif

namespace pcnn {

struct Kernels;

constexpr int kTaps = 9;  // of a depthwise convolution
// Sides of Winograd's patches, and of the tiles that a 3 × 3 convolution makes of them; values of a
// patch.
constexpr int kPatch = 6, kTile = 4, kValues = kPatch * kPatch;
// The most floats of a vector, and the most rows of a product's tile, of all instruction sets.
constexpr int kMostLanes = 16, kMostTileRows = 12;

enum class LayerKind : int { kConvolution, kDepthwise, kMaxPool, kAddEnlarged };

// One layer. Maps are (batch, height, width, channels) float32, without gaps.
struct Layer {
  LayerKind kind;
  int source, source_first, width;  // the maps it reads; the first channel of these, how many
  int out, out_first, channels;     // the maps it writes, likewise
  int kernel, stride;
  int padding;       // pixels before the maps; -1 for TensorFlow's "same" padding
  int onto;          // maps that are added before the rectifier; -1 for none
  float leak, most;  // the rectifier: x > 0 ? x : leak · x, then at most `most`; NaN stays
  bool exact;        // products of float32 also where the others are of bfloat16
  bool winograd;     // by tiles of 4 × 4 pixels (Lavin and Gray 2016), if there are many; exact
  int number;        // of the layer, in the order in which they were added
  int level;         // layers of one level need none of each other's results
  const Kernels* kernels;
  std::vector<float> weights, bias;  // packed, see layers_cpu.cpp
  // Weights for Winograd's tiles: packed, for each value of a patch. Computed when first needed.
  struct Transformed {
    std::once_flag once;
    std::vector<float> weights;
  };
  std::shared_ptr<Transformed> transformed;  // nullptr without tiles

  // Inputs of one output number of a convolution.
  std::int64_t count() const { return std::int64_t{kernel} * kernel * width; }
};

// The memory of one layer in one run. top, left: padding before the maps.
struct LayerMaps {
  const float* source;
  const float* onto;
  float* out;
  std::int64_t batch, height, width, out_height, out_width;
  std::int64_t source_channels, onto_channels, out_channels;  // of whole maps, slices included
  std::int64_t top, left;
};

// One tile of a matrix product: c = rectified (a · b + bias + onto).
struct Tile {
  const float* a;  // rows of `count` numbers
  const float* b;  // a packed panel: `count` rows of one or two vectors
  const float* bias;
  const float* onto;  // nullptr for none
  float* c;
  std::int64_t a_step, onto_step, c_step, count;
  int columns;
  float leak, most;
};

// A patch of kPatch × kPatch pixels, and the tile of kTile × kTile pixels made of it.
struct WinogradTile {
  const float* source;  // the patch's first pixel, which may lie outside
  const float* onto;    // the tile's first pixel, like out; nullptr for none
  float* out;
  std::int64_t source_row, source_column, onto_row, onto_column, out_row, out_column;  // steps
  int top, bottom, left, right;  // the rows and columns of the patch that exist: top … bottom - 1
  int rows, columns;             // of the tile, that exist
  float* values;                 // kValues of each channel
  std::int64_t value_step;       // from one of a channel's values to the next
  int channels;
  const float* bias;
  float leak, most;
};

// The inner loops for one instruction set.
struct Kernels {
  const char* name;
  int lanes;                                     // floats of a vector; a full panel has two
  int rows;                                      // of the largest tile
  void (*tiles[2][kMostTileRows])(const Tile&);  // [vectors - 1][rows - 1]
  // Rows begin … end of a depthwise 3 × 3 convolution's maps, counted over all images. out: the
  // place of the first one, instead of that in LayerMaps.
  void (*depthwise)(const Layer&, const LayerMaps&, std::int64_t begin, std::int64_t end,
                    float* out);
  void (*winograd_in)(const WinogradTile&);   // from the patch to its values
  void (*winograd_out)(const WinogradTile&);  // from values to the tile
  // Rounds numbers to bfloat16, two in the place of one; writes up to the next vector's end.
  // nullptr if tiles take float32.
  void (*narrow)(const float* from, std::int64_t count, float* to);
};

// nullptr if this processor lacks the instructions.
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* bfloat16_kernels();
const Kernels* neon_kernels();

class Layers {
 public:
  struct Input {
    int maps;
    const float* data;
    std::int64_t height, width;
  };
  struct Output {
    int maps;
    float* data;
  };
  using Size = std::pair<std::int64_t, std::int64_t>;  // height, width

  // instructions: the name of Kernels, or "" for the best of this processor in float32.
  explicit Layers(const std::string& instructions);

  // The number of new maps. Layers number maps in the order in which they were added.
  int add_maps(int channels);
  // weights: (channels, kernel, kernel, width), depthwise (channels, 3, 3); none for other kinds.
  void add(Layer layer, const float* weights, const float* bias);
  // The weights and the bias of a layer in the order of `add`, one after the other. Weights that
  // are multiplied in bfloat16 are rounded to it.
  std::vector<float> weights(int number) const;
  // The size of all maps. inputs: no data needed.
  std::vector<Size> sizes(const std::vector<Input>& inputs) const;
  // Layers on which no output depends are left out.
  void run(const std::vector<Input>& inputs, const std::vector<Output>& outputs, std::int64_t batch,
           int threads) const;

 private:
  struct Run;
  struct Maps {
    int channels;
    int filled = 0;  // channels that layers write; 0 for an input
    int first = -1, written = -1,
        read = -1;  // levels: of the first writer, the last, the last reader
  };

  const Kernels* kernels_;
  const Kernels* exact_;
  std::vector<Maps> maps_;
  std::vector<Layer> layers_;  // in order of their levels
  int levels_ = 0;
};

}  // namespace pcnn
