#include <algorithm>

#include "landmark_crop.h"
#include "launch.h"

namespace pcnn {
namespace {

// Views are kernel arguments, which saves a copy to the device. One launch takes this many, more
// than the network's six. Further views need another launch.
constexpr int kViewsPerLaunch = 16;

struct Views {
  View view[kViewsPerLaunch];
  unsigned first_block[kViewsPerLaunch + 1];  // blocks are numbered across all views
  int count;
  std::int64_t offset;  // index of the first view here among all
};

// Op: CropRegions or LandmarkCrop.
template <typename T, typename Op>
__global__ void __launch_bounds__(kThreads)
    crop_kernel(const __grid_constant__ Op op, const __grid_constant__ Views views) {
  int which = 0;
  while (blockIdx.x >= views.first_block[which + 1]) ++which;
  const View& view = views.view[which];
  const std::int64_t pixel =
      static_cast<std::int64_t>(blockIdx.x - views.first_block[which]) * kThreads + threadIdx.x;
  const std::int64_t pixels = view.height * view.width;
  if (pixel >= pixels) return;
  const std::int64_t row = pixel / view.width, column = pixel % view.width;
  for (std::int64_t face = blockIdx.y; face < op.faces; face += gridDim.y) {
    const Transform transform = op.map(face, views.offset + which, view);
    const int count = taps(transform.value, op.footprint);
    const float footprint = static_cast<float>(op.footprint);
    const auto offset = [=](int i) { return tap_offset(i, count, footprint); };
    float colour[3];
    view_pixel(op, transform.value, count, offset, row, column, colour);
    write_both<T>(op.normalisation, view, colour, face, row, column);
  }
}

template <typename T, typename Op>
void launch(const Op& op, const Views& views, cudaStream_t stream) {
  const dim3 grid(views.first_block[views.count],
                  static_cast<unsigned>(std::min(op.faces, kMaxGridY)));
  crop_kernel<T, Op><<<grid, kThreads, 0, stream>>>(op, views);
}

template <typename Op>
void crop(const char* name, const Op& op, const View* views, int device, void* stream) {
  if (op.faces == 0) return;
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  for (std::int64_t offset = 0; offset < op.view_count; offset += kViewsPerLaunch) {
    Views some = {};
    some.offset = offset;
    some.count = static_cast<int>(std::min<std::int64_t>(kViewsPerLaunch, op.view_count - offset));
    for (int index = 0; index < some.count; ++index) {
      some.view[index] = views[offset + index];
      const std::int64_t pixels = some.view[index].height * some.view[index].width;
      some.first_block[index + 1] =
          some.first_block[index] + static_cast<unsigned>((pixels + kThreads - 1) / kThreads);
    }
    switch (op.dtype) {
      case Dtype::kFloat32:
        launch<float>(op, some, on);
        break;
      case Dtype::kFloat16:
        launch<Half>(op, some, on);
        break;
      case Dtype::kBFloat16:
        launch<BFloat16>(op, some, on);
        break;
    }
    check_launch(name);
  }
}

}  // namespace

void crop_regions_cuda(const CropRegions& op, const View* views, int device, void* stream) {
  crop("crop_regions", op, views, device, stream);
}

void landmark_crop_cuda(const LandmarkCrop& op, const View* views, int device, void* stream) {
  crop("landmark_crop", op, views, device, stream);
}

}  // namespace pcnn
