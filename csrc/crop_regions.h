// crop_regions: views of faces cut from an image, resampled without aliasing and normalised.
#pragma once

#include <cmath>

#include "numeric.h"

namespace pcnn {

constexpr int kMaxTaps = 64;

struct Image {
  const std::uint8_t* data;  // (height, width, 3)
  std::int64_t height, width;
  std::int64_t row_stride, column_stride, channel_stride;
};

struct View {
  void* out;     // (F, height, width, C), contiguous
  void* mirror;  // the same for its mirror image; nullptr without one
  std::int64_t height, width;
  std::int64_t top, left;  // its corner in the face view, in pixels; see landmark_crop.h
};

// A map from view pixel (x, y) to image pixel: two rows of three numbers.
struct Transform {
  float value[6];
};

struct Normalisation {
  int channels;  // 3, or 1 for grey
  float shift[3], scale[3];
};

struct CropRegions {
  Image image;
  const float* transforms;  // (F, V, 2, 3), contiguous: view pixel → image pixel
  std::int64_t faces, view_count;
  Normalisation normalisation;
  double footprint;  // the side of the square that one view pixel averages, in view pixels
  Dtype dtype;

  PCNN_INLINE const float* transform(std::int64_t face, std::int64_t view) const {
    return transforms + 6 * (face * view_count + view);
  }

  // The same as a value, in the form of LandmarkCrop.
  PCNN_INLINE Transform map(std::int64_t face, std::int64_t view, const View&) const {
    const float* own = transform(face, view);
    return {{own[0], own[1], own[2], own[3], own[4], own[5]}};
  }
};

// The number of samples that a view pixel averages along each axis: its extent in the image,
// rounded up. The small allowance prevents an extra tap by rounding near a whole number.
PCNN_INLINE int taps(const float* transform, double footprint) {
  const float across = sqrtf(transform[0] * transform[0] + transform[3] * transform[3]);
  const float down = sqrtf(transform[1] * transform[1] + transform[4] * transform[4]);
  const double extent = static_cast<double>(across > down ? across : down) * footprint;
  if (!std::isfinite(across) || !std::isfinite(down) || !std::isfinite(extent)) return 1;
  const double count = ceil(extent - 1e-3);
  return count < 1 ? 1 : count > kMaxTaps ? kMaxTaps : static_cast<int>(count);
}

// Offset of sample `index` of `count` from the centre of its view pixel, in view pixels.
PCNN_INLINE float tap_offset(int index, int count, float footprint) {
  return ((static_cast<float>(index) + 0.5f) / static_cast<float>(count) - 0.5f) * footprint;
}

// Clamps a position to 0 … size - 1 (NaN to 0). Returns its lower neighbour; share is the weight of
// the next one.
template <typename Index>
PCNN_INLINE Index inside(float position, Index size, float& share) {
  const float last = static_cast<float>(size - 1);
  position = position > 0.0f ? position : 0.0f;
  position = position < last ? position : last;
  Index lower = static_cast<Index>(position);
  lower = lower < size - 1 ? lower : size - 1;  // `last` may have been rounded up
  share = position - static_cast<float>(lower);
  return lower;
}

// Adds the image's colour at a real position: bilinear, with replicated edges.
PCNN_INLINE void add_sample(const Image& image, float x, float y, float (&sum)[3]) {
  float along, down;
  const std::int64_t left = inside(x, image.width, along);
  const std::int64_t top = inside(y, image.height, down);
  const std::uint8_t* pixel = image.data + top * image.row_stride + left * image.column_stride;
  const std::int64_t right = left < image.width - 1 ? image.column_stride : 0;
  const std::int64_t below = top < image.height - 1 ? image.row_stride : 0;
  for (int channel = 0; channel < 3; ++channel, pixel += image.channel_stride) {
    const float p00 = pixel[0], p01 = pixel[right], p10 = pixel[below], p11 = pixel[below + right];
    const float upper = p00 + along * (p01 - p00), lower = p10 + along * (p11 - p10);
    sum[channel] += upper + down * (lower - upper);
  }
}

// The colour of one view pixel: the mean of count × count samples of its footprint.
// offset(i) is tap_offset(i, count, footprint). On the CPU it is a table, because division is slow.
template <typename Offset>
PCNN_INLINE void view_pixel(const CropRegions& op, const float* transform, int count,
                            const Offset& offset, std::int64_t row, std::int64_t column,
                            float (&colour)[3]) {
  for (float& value : colour) value = 0.0f;
  for (int j = 0; j < count; ++j) {
    const float y = static_cast<float>(row) + offset(j);
    for (int i = 0; i < count; ++i) {
      const float x = static_cast<float>(column) + offset(i);
      add_sample(op.image, transform[0] * x + transform[1] * y + transform[2],
                 transform[3] * x + transform[4] * y + transform[5], colour);
    }
  }
  for (float& value : colour) value /= static_cast<float>(count * count);
}

// Normalises a colour and writes its C values. Grey is Rec. 601 luma.
template <typename T>
PCNN_INLINE void write_pixel(const Normalisation& norm, const float (&colour)[3], T* out) {
  if (norm.channels == 1) {
    const float grey = 0.299f * colour[0] + 0.587f * colour[1] + 0.114f * colour[2];
    out[0] = from_float<T>((grey - norm.shift[0]) / norm.scale[0]);
    return;
  }
  for (int channel = 0; channel < 3; ++channel) {
    out[channel] = from_float<T>((colour[channel] - norm.shift[channel]) / norm.scale[channel]);
  }
}

// Writes the pixel of a view, and of its mirror image if there is one.
template <typename T>
PCNN_INLINE void write_both(const Normalisation& norm, const View& view, const float (&colour)[3],
                            std::int64_t face, std::int64_t row, std::int64_t column) {
  const std::int64_t first = (face * view.height + row) * view.width;
  const std::int64_t channels = norm.channels;
  write_pixel(norm, colour, static_cast<T*>(view.out) + (first + column) * channels);
  if (view.mirror == nullptr) return;
  const std::int64_t opposite = first + view.width - 1 - column;
  write_pixel(norm, colour, static_cast<T*>(view.mirror) + opposite * channels);
}

void crop_regions_cpu(const CropRegions& op, const View* views, int threads);
void crop_regions_cuda(const CropRegions& op, const View* views, int device, void* stream);

}  // namespace pcnn
