#include "crop_regions.h"
#include "parallel.h"

namespace pcnn {
namespace {

template <typename T>
PCNN_INLINE void crop_row(const CropRegions& op, const View& view, const float* transform,
                          std::int64_t face, std::int64_t row) {
  const int count = taps(transform, op.footprint);
  float offsets[kMaxTaps];
  for (int i = 0; i < count; ++i) {
    offsets[i] = tap_offset(i, count, static_cast<float>(op.footprint));
  }
  const auto offset = [&offsets](int i) { return offsets[i]; };
  const int channels = op.normalisation.channels;
  T* out = static_cast<T*>(view.out) + (face * view.height + row) * view.width * channels;
  for (std::int64_t column = 0; column < view.width; ++column, out += channels) {
    float colour[3];
    view_pixel(op, transform, count, offset, row, column, colour);
    write_pixel(op.normalisation, colour, out);
  }
}

// Rows are numbered through: of every view of the first face, then of the next.
void crop_rows(const CropRegions& op, const View* views, std::int64_t rows_per_face,
               std::int64_t begin, std::int64_t end) {
  for (std::int64_t index = begin; index < end; ++index) {
    const std::int64_t face = index / rows_per_face;
    std::int64_t row = index % rows_per_face, view = 0;
    for (; row >= views[view].height; ++view) row -= views[view].height;
    const float* transform = op.transform(face, view);
    switch (op.dtype) {
      case Dtype::kFloat32:
        crop_row<float>(op, views[view], transform, face, row);
        break;
      case Dtype::kFloat16:
        crop_row<Half>(op, views[view], transform, face, row);
        break;
      case Dtype::kBFloat16:
        crop_row<BFloat16>(op, views[view], transform, face, row);
        break;
    }
  }
}

}  // namespace

void crop_regions_cpu(const CropRegions& op, const View* views, int threads) {
  std::int64_t rows_per_face = 0;
  double nanoseconds = 0;
  for (std::int64_t view = 0; view < op.view_count; ++view) {
    rows_per_face += views[view].height;
    const double pixels = static_cast<double>(views[view].height * views[view].width);
    for (std::int64_t face = 0; face < op.faces; ++face) {
      const int count = taps(op.transform(face, view), op.footprint);
      nanoseconds += pixels * (5.0 + 8.0 * count * count);
    }
  }
  parallel_for(op.faces * rows_per_face, nanoseconds, threads,
               [&](std::int64_t begin, std::int64_t end) {
                 crop_rows(op, views, rows_per_face, begin, end);
               });
}

}  // namespace pcnn
