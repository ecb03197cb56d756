// What every CUDA launch shares. Kernels run on the caller's stream and device; nothing here waits
// for them or allocates, so launches can be captured in a graph.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "numeric.h"

namespace pcnn {

// A row of the maps this library is made for holds a few hundred packs: small blocks waste least.
constexpr unsigned kThreads = 128;
constexpr std::int64_t kMaxGridY = 65535;

// Makes a device current for as long as it lives.
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

// Blocks for `across` threads by `rows` rows; rows beyond the grid's limit are walked to.
inline dim3 grid_for(std::int64_t across, std::int64_t rows) {
  return dim3(static_cast<unsigned>((across + kThreads - 1) / kThreads),
              static_cast<unsigned>(rows < kMaxGridY ? rows : kMaxGridY));
}

// How many elements of T one 16-byte access moves.
template <typename T>
constexpr int kPackLanes = 16 / sizeof(T);

}  // namespace pcnn
