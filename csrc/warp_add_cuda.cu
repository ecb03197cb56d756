#include "maps_launch.h"
#include "warp_add.h"

namespace pcnn {
namespace {

template <typename T, int N>
__global__ void __launch_bounds__(kThreads)
    warp_kernel(const __grid_constant__ WarpAdd op, const Walk<N> walk) {
  const unsigned index = blockIdx.x * kThreads + threadIdx.x;
  if (index >= walk.across) return;
  for (std::int64_t row = blockIdx.y; row < walk.rows; row += gridDim.y) {
    const Element at = element_at(walk, row, index);
    const Stencil<T> stencil = warp_stencil<T>(op, at.item, at.y, at.x);
    warp_element<T, N>(op, stencil, op.face.pixel<T>(at.item, at.y, at.x),
                       op.out.pixel<T>(at.item, at.y, at.x), at.channel);
  }
}

template <typename T, int N>
void launch(const WarpAdd& op, cudaStream_t stream) {
  const auto walk = walk_over<N>(op.out, op.batch, op.channels);
  warp_kernel<T, N><<<grid_for(walk.across, walk.rows), kThreads, 0, stream>>>(op, walk);
}

template <typename T>
void choose(const WarpAdd& op, cudaStream_t stream) {
  const bool packed = packable<T>(op.out, op.channels) && packable<T>(op.face, op.channels) &&
                      packable<T>(op.stitched, op.channels);
  packed ? launch<T, kPackLanes<T>>(op, stream) : launch<T, 1>(op, stream);
}

}  // namespace

void warp_add_cuda(const WarpAdd& op, int device, void* stream) {
  if (op.batch == 0) return;
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  switch (op.dtype) {
    case Dtype::kFloat32:
      choose<float>(op, on);
      break;
    case Dtype::kFloat16:
      choose<Half>(op, on);
      break;
    case Dtype::kBFloat16:
      choose<BFloat16>(op, on);
      break;
  }
  check_launch("warp_add");
}

}  // namespace pcnn
