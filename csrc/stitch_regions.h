// stitch_regions: five region maps stitched into a face, with the three resizes in one step.
//
// The pairs are resized to the output's width, which the mouth already has. So the last resize
// changes only rows: an output pixel blends two rows of the stack and, for a pair, two columns.
#pragma once

#include "maps.h"

namespace pcnn {

struct StitchRegions {
  Map regions[5];  // left eye, right eye, left cheek, right cheek, mouth
  Map out;
  std::int64_t batch, channels;
  Dtype dtype;
};

// Two neighbouring source indices and the weight of the second, for align_corners=True.
struct Neighbours {
  std::int64_t first, second;
  float share;
};

PCNN_INLINE Neighbours neighbours(std::int64_t index, std::int64_t from, std::int64_t to) {
  if (from == to) return {index, index, 0.0f};
  const float step = to > 1 ? static_cast<float>(from - 1) / static_cast<float>(to - 1) : 0.0f;
  const float position = step * static_cast<float>(index);
  std::int64_t first = static_cast<std::int64_t>(position);
  first = first < from - 1 ? first : from - 1;
  return {first, first < from - 1 ? first + 1 : first, position - static_cast<float>(first)};
}

// Two taps of the stencil: output column x in one row of the stack of eyes, cheeks and mouth.
template <typename T>
PCNN_INLINE void stack_row(const StitchRegions& op, std::int64_t item, std::int64_t row,
                           std::int64_t x, float weight, int tap, Stencil<T>& stencil) {
  int left = 0;
  for (; left < 4 && row >= op.regions[left].height; left += 2) row -= op.regions[left].height;
  const bool pair = left < 4;
  const std::int64_t middle = op.regions[left].width;
  const std::int64_t width = pair ? middle + op.regions[left + 1].width : middle;
  const Neighbours columns = neighbours(x, width, op.out.width);
  const std::int64_t column[2] = {columns.first, columns.second};
  const float share[2] = {1.0f - columns.share, columns.share};
  for (int side = 0; side < 2; ++side) {
    const bool right = pair && column[side] >= middle;
    const Map& map = op.regions[left + right];
    stencil.at[tap + side] = map.pixel<T>(item, row, column[side] - (right ? middle : 0));
    stencil.channel_stride[tap + side] = map.channel_stride;
    stencil.weight[tap + side] = weight * share[side];
  }
}

template <typename T>
PCNN_INLINE Stencil<T> stitch_stencil(const StitchRegions& op, std::int64_t item, std::int64_t y,
                                      std::int64_t x) {
  const std::int64_t stacked = op.regions[0].height + op.regions[2].height + op.regions[4].height;
  const Neighbours rows = neighbours(y, stacked, op.out.height);
  Stencil<T> stencil;
  stack_row(op, item, rows.first, x, 1.0f - rows.share, 0, stencil);
  stack_row(op, item, rows.second, x, rows.share, 2, stencil);
  return stencil;
}

// N channels of one output pixel.
template <typename T, int N>
PCNN_INLINE void stitch_element(const StitchRegions& op, const Stencil<T>& stencil, T* out,
                                std::int64_t channel) {
  float sum[N] = {};
  add_pixels<T, N>(stencil, channel, sum);
  store<T, N>(out + channel * op.out.channel_stride, sum);
}

void stitch_regions_cpu(const StitchRegions& op, int threads);
void stitch_regions_cuda(const StitchRegions& op, int device, void* stream);

}  // namespace pcnn
