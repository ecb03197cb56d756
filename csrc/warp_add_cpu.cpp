#include "parallel.h"
#include "warp_add.h"

namespace pcnn {
namespace {

// Channels in one loop. GCC unrolls shorter loops instead of vectorising them.
constexpr int kLanes = 32;

template <typename T>
PCNN_INLINE void warp_row(const WarpAdd& op, bool packed, std::int64_t row) {
  const std::int64_t item = row / op.out.height, y = row % op.out.height;
  for (std::int64_t x = 0; x < op.out.width; ++x) {
    const Stencil<T> stencil = warp_stencil<T>(op, item, y, x);
    const T* face = op.face.pixel<T>(item, y, x);
    T* out = op.out.pixel<T>(item, y, x);
    std::int64_t channel = 0;
    for (; packed && channel + kLanes <= op.channels; channel += kLanes) {
      warp_element<T, kLanes>(op, stencil, face, out, channel);
    }
    for (; channel < op.channels; ++channel) warp_element<T, 1>(op, stencil, face, out, channel);
  }
}

PCNN_CLONES void warp_rows(const WarpAdd& op, std::int64_t begin, std::int64_t end) {
  const bool packed =
      op.out.channel_stride == 1 && op.face.channel_stride == 1 && op.stitched.channel_stride == 1;
  for (std::int64_t row = begin; row < end; ++row) {
    switch (op.dtype) {
      case Dtype::kFloat32:
        warp_row<float>(op, packed, row);
        break;
      case Dtype::kFloat16:
        warp_row<Half>(op, packed, row);
        break;
      case Dtype::kBFloat16:
        warp_row<BFloat16>(op, packed, row);
        break;
    }
  }
}

}  // namespace

void warp_add_cpu(const WarpAdd& op, int threads) {
  const std::int64_t rows = op.batch * op.out.height;
  const double nanoseconds = 0.5 * static_cast<double>(rows * op.out.width * op.channels);
  parallel_for(rows, nanoseconds, threads,
               [&](std::int64_t begin, std::int64_t end) { warp_rows(op, begin, end); });
}

}  // namespace pcnn
