// warp_add: face + stitched, warped by an affine map, without grid and warped map in memory.
#pragma once

#include <cmath>

#include "maps.h"

namespace pcnn {

struct WarpAdd {
  Map stitched, face, out;  // of one shape
  const float* theta;       // (B, 2, 3), contiguous
  std::int64_t batch, channels;
  Dtype dtype;
};

// The centre of pixel `index` of `size` in the normalised coordinates -1 … 1 (align_corners=True).
PCNN_INLINE float normalised(std::int64_t index, std::int64_t size) {
  return size > 1 ? static_cast<float>(2 * index - (size - 1)) / static_cast<float>(size - 1)
                  : 0.0f;
}

template <typename T>
PCNN_INLINE Stencil<T> warp_stencil(const WarpAdd& op, std::int64_t item, std::int64_t row,
                                    std::int64_t column) {
  const Map& from = op.stitched;
  const float* theta = op.theta + 6 * item;
  const float u = normalised(column, from.width), v = normalised(row, from.height);
  const float last_x = static_cast<float>(from.width - 1);
  const float last_y = static_cast<float>(from.height - 1);
  const float x = (theta[0] * u + theta[1] * v + theta[2] + 1.0f) * 0.5f * last_x;
  const float y = (theta[3] * u + theta[4] * v + theta[5] + 1.0f) * 0.5f * last_y;
  const float left = floorf(x), top = floorf(y);
  Stencil<T> stencil;
  for (int tap = 0; tap < 4; ++tap) {
    const float to_column = left + static_cast<float>(tap % 2);
    const float to_row = top + static_cast<float>(tap / 2);
    // Compared as floats, because large positions and NaN cannot be converted to integers.
    const bool inside = to_column >= 0 && to_column <= last_x && to_row >= 0 && to_row <= last_y;
    stencil.at[tap] = from.pixel<T>(item, inside ? static_cast<std::int64_t>(to_row) : 0,
                                    inside ? static_cast<std::int64_t>(to_column) : 0);
    stencil.channel_stride[tap] = from.channel_stride;
    const float across = tap % 2 ? x - left : 1.0f - (x - left);
    const float down = tap / 2 ? y - top : 1.0f - (y - top);
    stencil.weight[tap] = inside ? across * down : 0.0f;
  }
  // An infinite or NaN position gives NaN: a failed registration must not look like "outside".
  if (!std::isfinite(x) || !std::isfinite(y)) stencil.weight[0] = NAN;
  return stencil;
}

// N channels of one output pixel.
template <typename T, int N>
PCNN_INLINE void warp_element(const WarpAdd& op, const Stencil<T>& stencil, const T* face, T* out,
                              std::int64_t channel) {
  float sum[N] = {};
  add_pixels<T, N>(stencil, channel, sum);
  PCNN_LOAD(base, T, N, face + channel * op.face.channel_stride);
  for (int lane = 0; lane < N; ++lane) sum[lane] = to_float(base[lane]) + sum[lane];
  store<T, N>(out + channel * op.out.channel_stride, sum);
}

void warp_add_cpu(const WarpAdd& op, int threads);
void warp_add_cuda(const WarpAdd& op, int device, void* stream);

}  // namespace pcnn
