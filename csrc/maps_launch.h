// The order in which a CUDA kernel visits the elements of its output, for both memory layouts.
#pragma once

#include "launch.h"
#include "maps.h"

namespace pcnn {

// Neighbouring threads take neighbouring elements in memory. If channels are contiguous (N > 1),
// these are packs of N channels along a row of pixels; else (N = 1) the pixels of one channel.
template <int N>
struct Walk {
  std::int64_t rows;  // grid.y: (item, y) for packs, (item, channel) for pixels
  unsigned across;    // grid.x: width · channels / N, or height · width
  unsigned inner;     // channels / N, or width
  unsigned rows_per_item;
};

template <int N>
Walk<N> walk_over(const Map& out, std::int64_t batch, std::int64_t channels) {
  if (N > 1) {
    return {batch * out.height, static_cast<unsigned>(out.width * (channels / N)),
            static_cast<unsigned>(channels / N), static_cast<unsigned>(out.height)};
  }
  return {batch * channels, static_cast<unsigned>(out.height * out.width),
          static_cast<unsigned>(out.width), static_cast<unsigned>(channels)};
}

struct Element {
  std::int64_t item, y, x, channel;
};

template <int N>
__device__ inline Element element_at(const Walk<N>& walk, std::int64_t row, unsigned index) {
  const std::int64_t item = row / walk.rows_per_item, rest = row % walk.rows_per_item;
  const unsigned outer = index / walk.inner, inner = index % walk.inner;
  if (N > 1) return {item, rest, outer, static_cast<std::int64_t>(inner) * N};
  return {item, outer, inner, rest};
}

// Whether every pixel of a map can be read in packs of 16 bytes.
template <typename T>
bool packable(const Map& map, std::int64_t channels) {
  constexpr int kLanes = kPackLanes<T>;
  return map.channel_stride == 1 && channels % kLanes == 0 &&
         reinterpret_cast<std::uintptr_t>(map.data) % 16 == 0 && map.batch_stride % kLanes == 0 &&
         map.row_stride % kLanes == 0 && map.column_stride % kLanes == 0;
}

}  // namespace pcnn
