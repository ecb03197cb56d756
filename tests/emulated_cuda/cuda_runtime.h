// Stands in for CUDA's own header where there is no GPU: kernels run on the CPU, one thread after
// the other. That is all that kernels need which share no memory and wait for nobody, as ours.
// What it cannot show: speed, the compiler's own mistakes, the conversions in machine code.
// With EMULATED_CUDA_ERROR in the environment every launch fails, and says so in its words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(threads)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline thread_local dim3 gridDim, blockIdx, threadIdx;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration, cudaErrorAsTold };
inline thread_local int current_device = 0;
inline thread_local cudaError_t last_error = cudaSuccess;

inline cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  current_device = device;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = std::getenv("EMULATED_CUDA_ERROR") ? cudaErrorAsTold : last_error;
  last_error = cudaSuccess;
  return error;
}
inline const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorAsTold) return std::getenv("EMULATED_CUDA_ERROR");
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}

inline int atomicAdd(int* address, int value) {
  const int before = *address;
  *address += value;
  return before;
}

// kernel<<<grid, threads, shared, stream>>>(…): the same limits as a GPU has, and the last blocks
// first, because no order is promised.
template <typename Kernel>
void launch_on_cpu(dim3 grid, unsigned threads, std::size_t, cudaStream_t, const Kernel& kernel) {
  const bool fits = grid.x >= 1 && grid.x <= 0x7fffffffu && grid.y >= 1 && grid.y <= 65535u;
  if (!fits || threads < 1 || threads > 1024) {
    last_error = cudaErrorInvalidConfiguration;
    return;
  }
  gridDim = grid;
  for (unsigned y = grid.y; y-- > 0;) {
    for (unsigned x = grid.x; x-- > 0;) {
      for (unsigned thread = threads; thread-- > 0;) {
        blockIdx = dim3(x, y);
        threadIdx = dim3(thread);
        kernel();
      }
    }
  }
}
