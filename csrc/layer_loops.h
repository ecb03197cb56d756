// The inner loops of layers for one instruction set. Included once for each, see layers_avx2_cpu.cpp.
// PCNN_LANES: floats of a vector. PCNN_ROWS: rows of the largest tile. PCNN_TARGET: the attribute
// that allows the instructions. Vector, Mask: types with the functions used here. product_add is
// multiply_add, except where the numbers of a tile are pairs of bfloat16.

namespace pcnn {
namespace {

constexpr int kLanes = PCNN_LANES;
constexpr int kRows = PCNN_ROWS;
constexpr int kTaps = 9;  // of a depthwise convolution

PCNN_TARGET inline Vector rectified(Vector value, Vector leak, Vector most) {
  return least(most, rectify(value, leak));
}

template <int R, int V>
PCNN_TARGET void tile(const Tile& t) {
  Vector sums[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sums[r][v] = load(t.bias + v * kLanes);
  }
  const float* b = t.b;
  const std::int64_t step = t.a_step;
  // One pointer for three rows: an address can add once or twice the step, and registers are few.
  constexpr int kGroups = (R + 2) / 3;
  const float* a[kGroups];
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g) a[g] = t.a + 3 * g * step;
  for (std::int64_t k = 0; k < t.count; ++k, b += V * kLanes) {
    Vector weights[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) weights[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vector value = all(a[r / 3][r % 3 * step]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sums[r][v] = product_add(value, weights[v], sums[r][v]);
    }
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) ++a[g];
  }
  const Vector leak = all(t.leak), most = all(t.most);
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    const int columns = t.columns - v * kLanes;
    if (columns <= 0) break;
    const Mask mask = first(columns);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vector value = sums[r][v];
      if (t.onto != nullptr) {
        value = add(value, load(t.onto + r * t.onto_step + v * kLanes, mask));
      }
      store(t.c + r * t.c_step + v * kLanes, rectified(value, leak, most), mask);
    }
  }
}

// One output row of a depthwise 3 × 3 convolution, for the channels of one vector.
struct DepthwiseRow {
  const float* rows[3];  // the source's rows, at the vector's channels; nullptr outside
  float* out;
  const float* weights;  // nine vectors
  Vector bias, leak, most;
};

template <bool Inside>
PCNN_TARGET inline Vector depthwise_at(const DepthwiseRow& row, std::int64_t x, std::int64_t width,
                                       std::int64_t channels, Mask mask,
                                       const Vector (&weights)[kTaps]) {
  Vector sum = row.bias;
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    if (!Inside && row.rows[i] == nullptr) continue;
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      if (!Inside && (x + j < 0 || x + j >= width)) continue;
      const Vector value = load(row.rows[i] + (x + j) * channels, mask);
      sum = multiply_add(value, weights[3 * i + j], sum);
    }
  }
  return rectified(sum, row.leak, row.most);
}

PCNN_TARGET void depthwise_rows(const Layer& layer, const LayerMaps& maps, std::int64_t begin,
                                std::int64_t end) {
  const Vector leak = all(layer.leak), most = all(layer.most);
  const std::int64_t in = maps.source_channels, out = maps.out_channels;
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t image = item / maps.out_height, y = item % maps.out_height;
    const float* source = maps.source + image * maps.height * maps.width * in;
    float* target = maps.out + item * maps.out_width * out;
    const std::int64_t first_row = y * layer.stride - maps.top;
    // Outputs left … right have all three columns.
    const std::int64_t left = (maps.left + layer.stride - 1) / layer.stride;
    const std::int64_t right = (maps.width + maps.left - 3) / layer.stride + 1;
    const bool inside = maps.width + maps.left >= 3;
    for (int c = 0; c < layer.channels; c += kLanes) {
      const Mask mask = first(layer.channels - c);
      DepthwiseRow row;
      bool whole = inside;
      for (int i = 0; i < 3; ++i) {
        const bool exists = first_row + i >= 0 && first_row + i < maps.height;
        row.rows[i] = exists ? source + (first_row + i) * maps.width * in + c : nullptr;
        whole = whole && exists;
      }
      row.bias = load(layer.bias.data() + c);
      row.leak = leak;
      row.most = most;
      Vector weights[kTaps];
      for (int k = 0; k < kTaps; ++k) weights[k] = load(layer.weights.data() + (c * kTaps) + k * kLanes);
      std::int64_t x = 0;
      for (; x < maps.out_width; ++x) {
        const std::int64_t start = x * layer.stride - maps.left;
        const Vector found =
            whole && x >= left && x < right
                ? depthwise_at<true>(row, start, maps.width, in, mask, weights)
                : depthwise_at<false>(row, start, maps.width, in, mask, weights);
        store(target + x * out + c, found, mask);
      }
    }
  }
}

template <int V>
constexpr void fill(void (*(&tiles)[12])(const Tile&)) {
  tiles[0] = tile<1, V>;
  tiles[1] = tile<2, V>;
  tiles[2] = tile<3, V>;
  tiles[3] = tile<4, V>;
  tiles[4] = tile<5, V>;
  tiles[5] = tile<6, V>;
  if constexpr (kRows == 12) {
    tiles[6] = tile<7, V>;
    tiles[7] = tile<8, V>;
    tiles[8] = tile<9, V>;
    tiles[9] = tile<10, V>;
    tiles[10] = tile<11, V>;
    tiles[11] = tile<12, V>;
  }
}

Kernels make_kernels(const char* name) {
  Kernels found = {};
  found.name = name;
  found.lanes = kLanes;
  found.rows = kRows;
  fill<1>(found.tiles[0]);
  fill<2>(found.tiles[1]);
  found.depthwise = depthwise_rows;
  found.narrow = narrow_row;
  return found;
}

}  // namespace
}  // namespace pcnn
