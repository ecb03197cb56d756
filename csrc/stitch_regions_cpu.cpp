#include "parallel.h"
#include "stitch_regions.h"

namespace pcnn {
namespace {

// Channels in one loop. GCC unrolls shorter loops instead of vectorising them.
constexpr int kLanes = 32;

template <typename T>
PCNN_INLINE void stitch_row(const StitchRegions& op, bool packed, std::int64_t row) {
  const std::int64_t item = row / op.out.height, y = row % op.out.height;
  for (std::int64_t x = 0; x < op.out.width; ++x) {
    const Stencil<T> stencil = stitch_stencil<T>(op, item, y, x);
    T* out = op.out.pixel<T>(item, y, x);
    std::int64_t channel = 0;
    for (; packed && channel + kLanes <= op.channels; channel += kLanes) {
      stitch_element<T, kLanes>(op, stencil, out, channel);
    }
    for (; channel < op.channels; ++channel) stitch_element<T, 1>(op, stencil, out, channel);
  }
}

PCNN_CLONES void stitch_rows(const StitchRegions& op, std::int64_t begin, std::int64_t end) {
  bool packed = op.out.channel_stride == 1;
  for (const Map& region : op.regions) packed = packed && region.channel_stride == 1;
  for (std::int64_t row = begin; row < end; ++row) {
    switch (op.dtype) {
      case Dtype::kFloat32:
        stitch_row<float>(op, packed, row);
        break;
      case Dtype::kFloat16:
        stitch_row<Half>(op, packed, row);
        break;
      case Dtype::kBFloat16:
        stitch_row<BFloat16>(op, packed, row);
        break;
    }
  }
}

}  // namespace

void stitch_regions_cpu(const StitchRegions& op, int threads) {
  const std::int64_t rows = op.batch * op.out.height;
  const double nanoseconds = 0.5 * static_cast<double>(rows * op.out.width * op.channels);
  parallel_for(rows, nanoseconds, threads,
               [&](std::int64_t begin, std::int64_t end) { stitch_rows(op, begin, end); });
}

}  // namespace pcnn
