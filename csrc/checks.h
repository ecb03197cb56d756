// The native layer's own checks. pcnn.ops checks first, with messages for users. These checks
// protect the interpreter from other callers. Their errors become ValueError in Python.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "maps.h"

namespace pcnn {

inline void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

inline Dtype dtype_of(const char* op, int code) {
  require(code >= 0 && code <= 2, std::string(op) + ": dtype must be 0 (float32), 1 (float16) or " +
                                      "2 (bfloat16), got " + std::to_string(code));
  return static_cast<Dtype>(code);
}

inline void* pointer_of(const char* op, const char* name, std::int64_t address,
                        std::int64_t elements) {
  require(address != 0 || elements == 0, std::string(op) + ": " + name + " has no memory");
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address));
}

// A 4-dimensional tensor from Python: its address, 4 sizes, 4 strides in elements.
using Tensor4 = std::array<std::int64_t, 9>;

inline Map map_of(const char* op, const char* name, const Tensor4& tensor, std::int64_t batch,
                  std::int64_t channels) {
  const std::int64_t *shape = &tensor[1], *strides = &tensor[5];
  const std::string where = std::string(op) + ": " + name;
  require(shape[0] == batch && shape[1] == channels, where + " has another batch or channel count");
  require(batch >= 0 && channels >= 1 && shape[2] >= 1 && shape[3] >= 1,
          where + " must have channels and pixels");
  // The kernels count channels and pixels of one item with 32 bits; addresses have 64 bits.
  constexpr std::int64_t kLimit = std::numeric_limits<std::int32_t>::max();
  require(shape[2] <= kLimit && shape[3] <= kLimit && channels <= kLimit &&
              shape[2] <= kLimit / shape[3] && shape[3] <= kLimit / channels,
          where + " is too large");
  void* data = pointer_of(op, name, tensor[0], batch);
  return Map{data, shape[2], shape[3], strides[0], strides[1], strides[2], strides[3]};
}

}  // namespace pcnn
