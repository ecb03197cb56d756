#include <algorithm>
#include <cstring>
#include <iterator>
#include <vector>

#include "landmark_crop.h"
#include "parallel.h"

namespace pcnn {
namespace {

// The place of a view in its face's first view, if it is a part of it. The packaged networks see
// regions at the scale of the face, so their pixels can be copied. That halves the work.
struct Window {
  bool found;
  std::int64_t top, left;
};

Window window(const float* whole, const View& first, const float* part, const View& view) {
  const Window none{false, 0, 0};
  for (int i : {0, 1, 3, 4}) {
    if (whole[i] != part[i]) return none;
  }
  const double a = whole[0], b = whole[1], c = whole[3], d = whole[4];
  const double across = static_cast<double>(part[2]) - static_cast<double>(whole[2]);
  const double down = static_cast<double>(part[5]) - static_cast<double>(whole[5]);
  const double determinant = a * d - b * c;
  const double left = std::round((d * across - b * down) / determinant);
  const double top = std::round((a * down - c * across) / determinant);
  // The shift must be whole view pixels, up to float32's rounding; NaN fails this test.
  const double right = a * left + b * top, below = c * left + d * top;
  const double sizes = std::abs(whole[2]) + std::abs(part[2]) + std::abs(whole[5]) +
                       std::abs(part[5]) + std::abs(right) + std::abs(below);
  const double rounding = sizes / (1 << 24);
  const bool meets = std::abs(right - across) <= rounding && std::abs(below - down) <= rounding;
  const bool lies_in = left >= 0 && top >= 0 &&
                       left + static_cast<double>(view.width) <= static_cast<double>(first.width) &&
                       top + static_cast<double>(view.height) <= static_cast<double>(first.height);
  if (!meets || !lies_in) return none;
  return {true, static_cast<std::int64_t>(top), static_cast<std::int64_t>(left)};
}

// The windows of all views of all faces.
struct Windows {
  std::vector<Window> all;
  std::int64_t view_count;

  Windows(const CropRegions& op, const View* views) : view_count(op.view_count) {
    all.reserve(static_cast<std::size_t>(op.faces * view_count));
    for (std::int64_t face = 0; face < op.faces; ++face) {
      all.push_back({false, 0, 0});
      const float* first = op.transform(face, 0);
      for (std::int64_t view = 1; view < view_count; ++view) {
        all.push_back(window(first, views[0], op.transform(face, view), views[view]));
      }
    }
  }

  const Window& of(std::int64_t face, std::int64_t view) const {
    return all[static_cast<std::size_t>(face * view_count + view)];
  }
};

// Copies a window's pixels from the first view of its face, and those of its mirror image.
template <typename T>
void copy_window(const CropRegions& op, const View* views, const Window& place, std::int64_t face,
                 std::int64_t view) {
  const std::int64_t channels = op.normalisation.channels;
  const View &first = views[0], &part = views[view];
  const auto copy = [&](const void* source, void* target, std::int64_t left) {
    const T* from = static_cast<const T*>(source) +
                    ((face * first.height + place.top) * first.width + left) * channels;
    T* to = static_cast<T*>(target) + face * part.height * part.width * channels;
    for (std::int64_t row = 0; row < part.height; ++row) {
      std::copy_n(from, part.width * channels, to);
      from += first.width * channels;
      to += part.width * channels;
    }
  };
  copy(first.out, part.out, place.left);
  if (part.mirror != nullptr) {
    copy(first.mirror, part.mirror, first.width - place.left - part.width);
  }
}

constexpr int kColumns = 64;  // view pixels of a row that are computed together

// The colours of neighbours in a row, one array for each channel.
struct RowColours {
  float channel[3][kColumns];
};

// Samples of neighbours in a row: the four pixels of each, and the weights of the later ones.
struct RowSamples {
  std::uint32_t corner[4][kColumns];  // upper left, upper right, lower left, lower right
  float along[kColumns], down[kColumns];
};

// A pixel's channels, red in the lowest byte. `whole`: four bytes can be read.
PCNN_INLINE std::uint32_t word(const std::uint8_t* pixel, bool whole) {
  std::uint32_t found;
  if (!whole) return pixel[0] | std::uint32_t{pixel[1]} << 8 | std::uint32_t{pixel[2]} << 16;
  std::memcpy(&found, pixel, sizeof found);
  return found;
}

// As add_sample, for all columns. Loops without calls or branches, which compilers vectorise.
PCNN_INLINE void add_samples(const RowSamples& samples, int columns, RowColours& sums) {
  for (int channel = 0; channel < 3; ++channel) {
    float* const sum = sums.channel[channel];
    const auto value = [&](int corner, int c) {
      const std::uint32_t bits = samples.corner[corner][c] >> (8 * channel) & 0xffu;
      return static_cast<float>(static_cast<std::int32_t>(bits));
    };
    for (int c = 0; c < columns; ++c) {
      const float p00 = value(0, c), p01 = value(1, c), p10 = value(2, c), p11 = value(3, c);
      const float upper = p00 + samples.along[c] * (p01 - p00);
      const float lower = p10 + samples.along[c] * (p11 - p10);
      sum[c] += upper + samples.down[c] * (lower - upper);
    }
  }
}

// The same colours as view_pixel's, to the last bit, of a row's pixels from `first` on. The image's
// channels must be neighbours in memory, its sides exact as float32.
PCNN_CLONES void row_colours(const CropRegions& op, const float* transform, int count,
                             const float* offsets, std::int64_t row, std::int64_t first,
                             int columns, RowColours& colours) {
  const Image image = op.image;
  float map[6];  // a copy that no other memory overlaps
  std::copy_n(transform, 6, map);
  const auto width = static_cast<std::int32_t>(image.width);
  const auto height = static_cast<std::int32_t>(image.height);
  const auto start = static_cast<std::int32_t>(first);
  const std::uint8_t* const last =
      image.data + (height - 1) * image.row_stride + (width - 1) * image.column_stride;
  RowSamples samples;
  std::int32_t left[kColumns], top[kColumns];
  colours = {};
  for (int j = 0; j < count; ++j) {
    const float y = static_cast<float>(row) + offsets[j];
    for (int i = 0; i < count; ++i) {
      const float offset = offsets[i];
      for (int c = 0; c < columns; ++c) {
        const float x = static_cast<float>(start + c) + offset;
        left[c] = inside(map[0] * x + map[1] * y + map[2], width, samples.along[c]);
        top[c] = inside(map[3] * x + map[4] * y + map[5], height, samples.down[c]);
      }
      for (int c = 0; c < columns; ++c) {
        const std::uint8_t* pixel =
            image.data + top[c] * image.row_stride + left[c] * image.column_stride;
        const std::int64_t right = left[c] < width - 1 ? image.column_stride : 0;
        const std::int64_t below = top[c] < height - 1 ? image.row_stride : 0;
        const bool whole = pixel + below + right < last;
        samples.corner[0][c] = word(pixel, whole);
        samples.corner[1][c] = word(pixel + right, whole);
        samples.corner[2][c] = word(pixel + below, whole);
        samples.corner[3][c] = word(pixel + below + right, whole);
      }
      add_samples(samples, columns, colours);
    }
  }
  for (auto& channel : colours.channel) {
    for (int c = 0; c < columns; ++c) channel[c] /= static_cast<float>(count * count);
  }
}

template <typename T>
PCNN_INLINE void crop_row(const CropRegions& op, const View& view, const float* transform,
                          std::int64_t face, std::int64_t row) {
  const int count = taps(transform, op.footprint);
  float offsets[kMaxTaps];
  for (int i = 0; i < count; ++i) {
    offsets[i] = tap_offset(i, count, static_cast<float>(op.footprint));
  }
  const Image& image = op.image;
  constexpr std::int64_t kExact = 1 << 24;
  if (image.channel_stride == 1 && image.width <= kExact && image.height <= kExact) {
    RowColours colours;
    for (std::int64_t first = 0; first < view.width; first += kColumns) {
      const int columns = static_cast<int>(std::min<std::int64_t>(kColumns, view.width - first));
      row_colours(op, transform, count, offsets, row, first, columns, colours);
      for (int c = 0; c < columns; ++c) {
        const float colour[3] = {colours.channel[0][c], colours.channel[1][c],
                                 colours.channel[2][c]};
        write_both<T>(op.normalisation, view, colour, face, row, first + c);
      }
    }
    return;
  }
  const auto offset = [&offsets](int i) { return offsets[i]; };
  for (std::int64_t column = 0; column < view.width; ++column) {
    float colour[3];
    view_pixel(op, transform, count, offset, row, column, colour);
    write_both<T>(op.normalisation, view, colour, face, row, column);
  }
}

// Rows are numbered consecutively: all views of the first face, then those of the next.
template <typename T>
void crop_rows(const CropRegions& op, const View* views, const Windows& copied,
               std::int64_t rows_per_face, std::int64_t begin, std::int64_t end) {
  for (std::int64_t index = begin; index < end; ++index) {
    const std::int64_t face = index / rows_per_face;
    std::int64_t row = index % rows_per_face, view = 0;
    for (; row >= views[view].height; ++view) row -= views[view].height;
    if (copied.of(face, view).found) continue;
    crop_row<T>(op, views[view], op.transform(face, view), face, row);
  }
}

template <typename T>
void crop(const CropRegions& op, const View* views, int threads) {
  const Windows copied(op, views);
  std::int64_t rows_per_face = 0;
  double nanoseconds = 0;
  for (std::int64_t view = 0; view < op.view_count; ++view) {
    rows_per_face += views[view].height;
    const double pixels = static_cast<double>(views[view].height * views[view].width);
    for (std::int64_t face = 0; face < op.faces; ++face) {
      if (copied.of(face, view).found) continue;
      const int count = taps(op.transform(face, view), op.footprint);
      nanoseconds += pixels * (6.0 + 2.7 * count * count);
    }
  }
  parallel_for(op.faces * rows_per_face, nanoseconds, threads,
               [&](std::int64_t begin, std::int64_t end) {
                 crop_rows<T>(op, views, copied, rows_per_face, begin, end);
               });
  for (std::int64_t face = 0; face < op.faces; ++face) {
    for (std::int64_t view = 1; view < op.view_count; ++view) {
      const Window& place = copied.of(face, view);
      if (place.found) copy_window<T>(op, views, place, face, view);
    }
  }
}

}  // namespace

void crop_regions_cpu(const CropRegions& op, const View* views, int threads) {
  switch (op.dtype) {
    case Dtype::kFloat32:
      return crop<float>(op, views, threads);
    case Dtype::kFloat16:
      return crop<Half>(op, views, threads);
    case Dtype::kBFloat16:
      return crop<BFloat16>(op, views, threads);
  }
}

void landmark_crop_cpu(const LandmarkCrop& op, const View* views, int threads) {
  std::vector<float> transforms;
  transforms.reserve(static_cast<std::size_t>(6 * op.faces * op.view_count));
  for (std::int64_t face = 0; face < op.faces; ++face) {
    for (std::int64_t view = 0; view < op.view_count; ++view) {
      const Transform own = op.map(face, view, views[view]);
      transforms.insert(transforms.end(), std::begin(own.value), std::end(own.value));
    }
  }
  CropRegions crop = op;
  crop.transforms = transforms.data();
  crop_regions_cpu(crop, views, threads);
}

}  // namespace pcnn
