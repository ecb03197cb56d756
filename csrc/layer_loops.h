// The inner loops of layers for one instruction set. Included once for each, see
// layers_avx2_cpu.cpp. PCNN_LANES: floats of a vector. PCNN_ROWS: rows of the largest tile.
// PCNN_TARGET: the attribute that allows the instructions. Vector, Mask: types with the functions
// used here. product_add is multiply_add, except where the numbers of a tile are pairs of bfloat16.

namespace pcnn {
namespace {

constexpr int kLanes = PCNN_LANES;
constexpr int kRows = PCNN_ROWS;
static_assert(kLanes <= kMostLanes && kRows <= kMostTileRows, "see layers.h");

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
  const float* rows[3];  // of the source, at the vector's channels; nullptr outside
  float* out;
  std::int64_t width, step, out_step;  // pixels of the source's row; from one pixel to the next
  Mask mask;
  Vector weights[kTaps], bias, leak, most;
};

// The output whose patch begins at column x, where some of the patch may not exist.
PCNN_TARGET inline Vector depthwise_at_border(const DepthwiseRow& row, std::int64_t x) {
  Vector sum = row.bias;
  for (int i = 0; i < 3; ++i) {
    if (row.rows[i] == nullptr) continue;
    for (int j = 0; j < 3; ++j) {
      if (x + j < 0 || x + j >= row.width) continue;
      const Vector value = load(row.rows[i] + (x + j) * row.step, row.mask);
      sum = multiply_add(value, row.weights[3 * i + j], sum);
    }
  }
  return rectified(sum, row.leak, row.most);
}

// N neighbours, whose patches exist; the first begins at column x.
template <int Stride, int N>
PCNN_TARGET inline void depthwise_inside(const DepthwiseRow& row, std::int64_t x, float* out) {
  Vector sums[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) sums[n] = row.bias;
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    const float* from = row.rows[i] + x * row.step;
#pragma GCC unroll 8
    for (int j = 0; j < (N - 1) * Stride + 3; ++j) {
      const Vector value = load(from + j * row.step, row.mask);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const int tap = j - n * Stride;
        if (tap < 0 || tap > 2) continue;
        sums[n] = multiply_add(value, row.weights[3 * i + tap], sums[n]);
      }
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
    store(out + n * row.out_step, rectified(sums[n], row.leak, row.most), row.mask);
  }
}

// The outputs 0 … end of a row, of which left … right have whole patches. before: columns of
// padding before the maps.
template <int Stride, int N>
PCNN_TARGET void depthwise_row(const DepthwiseRow& given, std::int64_t before, std::int64_t left,
                               std::int64_t right, std::int64_t end) {
  const DepthwiseRow row = given;  // its own memory, which no output can change
  std::int64_t x = 0;
  float* out = row.out;
  const auto advance = [&](std::int64_t count) {
    x += count;
    out += count * row.out_step;
  };
  for (; x < left; advance(1)) store(out, depthwise_at_border(row, x * Stride - before), row.mask);
  for (; x + N <= right; advance(N)) depthwise_inside<Stride, N>(row, x * Stride - before, out);
  for (; x < right; advance(1)) depthwise_inside<Stride, 1>(row, x * Stride - before, out);
  for (; x < end; advance(1)) store(out, depthwise_at_border(row, x * Stride - before), row.mask);
}

PCNN_TARGET void depthwise_rows(const Layer& layer, const LayerMaps& maps, std::int64_t begin,
                                std::int64_t end, float* out) {
  const std::int64_t stride = layer.stride, columns = maps.out_width;
  // Outputs left … right have all three columns.
  const std::int64_t left = std::min((maps.left + stride - 1) / stride, columns);
  const std::int64_t reach = maps.width + maps.left - 3;
  const std::int64_t right = reach < 0 ? left : std::clamp(reach / stride + 1, left, columns);
  DepthwiseRow row;
  row.width = maps.width;
  row.step = maps.source_channels;
  row.out_step = maps.out_channels;
  row.leak = all(layer.leak);
  row.most = all(layer.most);
  for (std::int64_t item = begin; item < end; ++item) {
    const std::int64_t image = item / maps.out_height;
    const std::int64_t first_row = item % maps.out_height * stride - maps.top;
    const float* source = maps.source + image * maps.height * maps.width * row.step;
    for (int c = 0; c < layer.channels; c += kLanes) {
      bool whole = true;
      for (int i = 0; i < 3; ++i) {
        const bool exists = first_row + i >= 0 && first_row + i < maps.height;
        row.rows[i] = exists ? source + (first_row + i) * maps.width * row.step + c : nullptr;
        whole = whole && exists;
      }
      row.out = out + (item - begin) * columns * row.out_step + c;
      row.mask = first(layer.channels - c);
      row.bias = load(layer.bias.data() + c);
      for (int k = 0; k < kTaps; ++k) {
        row.weights[k] = load(layer.weights.data() + c * kTaps + k * kLanes);
      }
      const auto loop = stride == 1   ? depthwise_row<1, 4>
                        : stride == 2 ? depthwise_row<2, 2>
                                      : depthwise_row<3, 1>;
      loop(row, maps.left, whole ? left : columns, whole ? right : columns, columns);
    }
  }
}

// Six values of a row or column in Winograd's form.
PCNN_TARGET inline void to_winograd(Vector (&d)[kPatch]) {
  const Vector four = all(4.0f), five = all(-5.0f), two = all(2.0f);
  const Vector even = multiply_add(all(-4.0f), d[2], d[4]),
               odd = multiply_add(all(-4.0f), d[1], d[3]);
  const Vector sum = subtract(d[4], d[2]), difference = subtract(d[3], d[1]);
  const Vector first = multiply_add(four, d[0], multiply_add(five, d[2], d[4]));
  const Vector last = multiply_add(four, d[1], multiply_add(five, d[3], d[5]));
  d[0] = first;
  d[1] = add(even, odd);
  d[2] = subtract(even, odd);
  d[3] = multiply_add(two, difference, sum);
  d[4] = multiply_add(all(-2.0f), difference, sum);
  d[5] = last;
}

// Four values of a row or column from Winograd's six.
PCNN_TARGET inline void from_winograd(const Vector (&m)[kPatch], Vector (&y)[kTile]) {
  const Vector sum = add(m[1], m[2]), difference = subtract(m[1], m[2]);
  const Vector outer = add(m[3], m[4]), slope = subtract(m[3], m[4]);
  y[0] = add(add(m[0], sum), outer);
  y[1] = multiply_add(all(2.0f), slope, difference);
  y[2] = multiply_add(all(4.0f), outer, sum);
  y[3] = add(multiply_add(all(8.0f), slope, difference), m[5]);
}

PCNN_TARGET void winograd_in(const WinogradTile& t) {
  const bool whole = t.top == 0 && t.left == 0 && t.bottom == kPatch && t.right == kPatch;
  for (int c = 0; c < t.channels; c += kLanes) {
    const Mask mask = first(t.channels - c);
    Vector columns[kPatch][kPatch];  // [column][row]
    for (int j = 0; j < kPatch; ++j) {
      for (int i = 0; i < kPatch; ++i) {
        const bool exists = whole || (i >= t.top && i < t.bottom && j >= t.left && j < t.right);
        columns[j][i] =
            exists ? load(t.source + i * t.source_row + j * t.source_column + c, mask) : all(0.0f);
      }
      to_winograd(columns[j]);
    }
    for (int i = 0; i < kPatch; ++i) {
      Vector row[kPatch];
#pragma GCC unroll 6
      for (int j = 0; j < kPatch; ++j) row[j] = columns[j][i];
      to_winograd(row);
#pragma GCC unroll 6
      for (int j = 0; j < kPatch; ++j) {
        store(t.values + (kPatch * i + j) * t.value_step + c, row[j], first(kLanes));
      }
    }
  }
}

PCNN_TARGET void winograd_out(const WinogradTile& t) {
  const Vector leak = all(t.leak), most = all(t.most);
  for (int c = 0; c < t.channels; c += kLanes) {
    const Mask mask = first(t.channels - c);
    const Vector bias = load(t.bias + c);
    Vector columns[kPatch][kTile];  // [column][row]
    for (int j = 0; j < kPatch; ++j) {
      Vector values[kPatch];
#pragma GCC unroll 6
      for (int i = 0; i < kPatch; ++i) {
        values[i] = load(t.values + (kPatch * i + j) * t.value_step + c);
      }
      from_winograd(values, columns[j]);
    }
    for (int i = 0; i < t.rows; ++i) {
      Vector values[kPatch], row[kTile];
#pragma GCC unroll 6
      for (int j = 0; j < kPatch; ++j) values[j] = columns[j][i];
      from_winograd(values, row);
      for (int j = 0; j < t.columns; ++j) {
        Vector value = add(row[j], bias);
        if (t.onto != nullptr) {
          value = add(value, load(t.onto + i * t.onto_row + j * t.onto_column + c, mask));
        }
        store(t.out + i * t.out_row + j * t.out_column + c, rectified(value, leak, most), mask);
      }
    }
  }
}

template <int V, int... R>
void fill(void (*(&tiles)[kMostTileRows])(const Tile&), std::integer_sequence<int, R...>) {
  ((tiles[R] = tile<R + 1, V>), ...);
}

Kernels make_kernels(const char* name) {
  Kernels found = {};
  found.name = name;
  found.lanes = kLanes;
  found.rows = kRows;
  fill<1>(found.tiles[0], std::make_integer_sequence<int, kRows>());
  fill<2>(found.tiles[1], std::make_integer_sequence<int, kRows>());
  found.depthwise = depthwise_rows;
  found.winograd_in = winograd_in;
  found.winograd_out = winograd_out;
  found.narrow = narrow_row;
  return found;
}

}  // namespace
}  // namespace pcnn
