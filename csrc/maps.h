// Feature maps in memory, and the weighted sum of four of their pixels.
#pragma once

#include "numeric.h"

namespace pcnn {

// A (B, C, height, width) tensor. Strides count elements. All offsets have 64 bits, so maps of more
// than 2^31 bytes are addressed correctly.
struct Map {
  void* data;
  std::int64_t height, width;
  std::int64_t batch_stride, channel_stride, row_stride, column_stride;

  template <typename T>
  PCNN_INLINE T* pixel(std::int64_t item, std::int64_t row, std::int64_t column) const {
    return static_cast<T*>(data) + item * batch_stride + row * row_stride + column * column_stride;
  }
};

// The sources of one output pixel: up to four pixels, each given by its channel 0. A pixel of
// weight 0 is not read, so an infinity there has no effect.
template <typename T>
struct Stencil {
  const T* at[4];
  std::int64_t channel_stride[4];
  float weight[4];
};

// Adds N channels' weighted values to sum. N > 1 needs channel strides of 1.
template <typename T, int N>
PCNN_INLINE void add_pixels(const Stencil<T>& stencil, std::int64_t channel, float (&sum)[N]) {
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int tap = 0; tap < 4; ++tap) {
    const float weight = stencil.weight[tap];
    if (weight == 0.0f) continue;
    const T* values = stencil.at[tap] + channel * stencil.channel_stride[tap];
    PCNN_LOAD(pack, T, N, values);
    for (int lane = 0; lane < N; ++lane) sum[lane] += weight * to_float(pack[lane]);
  }
}

}  // namespace pcnn
