// landmark_crop: crop_regions with the transforms of faces that are aligned by their landmarks.
//
// As complex numbers, w of a place in the face view and z of a landmark, the best similarity in the
// sense of least squares (Umeyama 1991) is w ↦ z̄ + a (w - w̄) with
//   a = Σ conj(w_i - w̄) (z_i - z̄) / Σ |w_i - w̄|².
// A view shares its face's a. Its pixel p has the place w = corner + p + ½, and image pixels are
// continuous coordinates minus ½.
#pragma once

#include <initializer_list>

#include "crop_regions.h"

namespace pcnn {

constexpr int kLandmarks = 5;

// What all faces share.
struct Places {
  double middle[2];             // w̄: x, y
  double share[kLandmarks][2];  // (w_i - w̄) / Σ |w_j - w̄|²; zeros if all places coincide
};

// places: x, y of each landmark in the face view, in pixels (continuous).
inline Places places_of(const double (&places)[kLandmarks][2]) {
  Places found = {};
  for (const auto& place : places) {
    for (int axis : {0, 1}) found.middle[axis] += place[axis] / kLandmarks;
  }
  double spread = 0;
  for (int index = 0; index < kLandmarks; ++index) {
    for (int axis : {0, 1}) {
      const double centred = places[index][axis] - found.middle[axis];
      found.share[index][axis] = centred;
      spread += centred * centred;
    }
  }
  for (auto& share : found.share) {
    for (double& value : share) value = spread > 0 ? value / spread : 0.0;
  }
  return found;
}

struct LandmarkCrop : CropRegions {  // its transforms are unused
  const float* landmarks;            // (F, 5, 2), contiguous: x, y in continuous image coordinates
  Places places;

  // In double precision and rounded once, as a caller of crop_regions would compute it. A landmark
  // that is not finite makes all numbers NaN, since z̄ is not finite.
  PCNN_INLINE Transform map(std::int64_t face, std::int64_t, const View& view) const {
    const float* own = landmarks + 2 * kLandmarks * face;
    double x = 0, y = 0;
    for (int index = 0; index < kLandmarks; ++index) {
      x += static_cast<double>(own[2 * index]);
      y += static_cast<double>(own[2 * index + 1]);
    }
    x /= kLandmarks;
    y /= kLandmarks;
    double cosine = 0, sine = 0;  // a
    for (int index = 0; index < kLandmarks; ++index) {
      const double across = static_cast<double>(own[2 * index]) - x;
      const double down = static_cast<double>(own[2 * index + 1]) - y;
      cosine += places.share[index][0] * across + places.share[index][1] * down;
      sine += places.share[index][0] * down - places.share[index][1] * across;
    }
    const double left = static_cast<double>(view.left) + 0.5 - places.middle[0];
    const double top = static_cast<double>(view.top) + 0.5 - places.middle[1];
    const auto c = static_cast<float>(cosine), s = static_cast<float>(sine);
    return {{c, -s, static_cast<float>(cosine * left - sine * top + x - 0.5), s, c,
             static_cast<float>(sine * left + cosine * top + y - 0.5)}};
  }
};

void landmark_crop_cpu(const LandmarkCrop& op, const View* views, int threads);
void landmark_crop_cuda(const LandmarkCrop& op, const View* views, int device, void* stream);

}  // namespace pcnn
