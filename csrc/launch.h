// Common parts of CUDA launches. Kernels run on the caller's stream and device. Nothing here waits
// or allocates, so launches can be captured in a graph.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "numeric.h"

namespace pcnn {

// A row of this library's maps has a few hundred packs, so small blocks waste the fewest threads.
constexpr unsigned kThreads = 128;
constexpr std::int64_t kMaxGridY = 65535;

// Makes a device current during its lifetime.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&previous_), "cudaGetDevice");
    if (device != previous_) check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = device != previous_;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

  static void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
  }

 private:
  int previous_ = 0;
  bool changed_ = false;
};

inline void check_launch(const char* op) { DeviceGuard::check(cudaGetLastError(), op); }

// Blocks for `across` threads by `rows` rows. Kernels loop over rows beyond the grid's limit.
inline dim3 grid_for(std::int64_t across, std::int64_t rows) {
  return dim3(static_cast<unsigned>((across + kThreads - 1) / kThreads),
              static_cast<unsigned>(rows < kMaxGridY ? rows : kMaxGridY));
}

// The number of elements of T in one 16-byte access.
template <typename T>
constexpr int kPackLanes = 16 / sizeof(T);

}  // namespace pcnn
