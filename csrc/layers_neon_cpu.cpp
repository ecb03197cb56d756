// The loops of layers for 64-bit ARM.
#include "layers.h"

#if defined(__aarch64__) && defined(__GNUC__)
#include <arm_neon.h>

#include <algorithm>
#include <cstring>

#define PCNN_LANES 4
#define PCNN_ROWS 12
#define PCNN_TARGET

namespace pcnn {
namespace {

using Vector = float32x4_t;
using Mask = int;  // how many numbers, from the first

inline Vector load(const float* from) { return vld1q_f32(from); }
inline Vector load(const float* from, Mask mask) {
  if (mask >= 4) return vld1q_f32(from);
  float numbers[4] = {};
  std::memcpy(numbers, from, mask * sizeof(float));
  return vld1q_f32(numbers);
}
inline void store(float* to, Vector value, Mask mask) {
  if (mask >= 4) return vst1q_f32(to, value);
  float numbers[4];
  vst1q_f32(numbers, value);
  std::memcpy(to, numbers, mask * sizeof(float));
}
inline Vector all(float value) { return vdupq_n_f32(value); }
inline Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
inline Vector subtract(Vector a, Vector b) { return vsubq_f32(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
inline Vector product_add(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
constexpr void (*narrow_row)(const float*, std::int64_t, float*) = nullptr;
inline Vector least(Vector a, Vector b) { return vminq_f32(a, b); }
inline Vector rectify(Vector value, Vector leak) {
  const Vector zero = vdupq_n_f32(0.0f);
  const Vector leaking = vbslq_f32(vcgtq_f32(value, zero), value, vmulq_f32(value, leak));
  return vbslq_f32(vceqq_f32(leak, zero), vmaxq_f32(zero, value), leaking);  // 0 · -∞ is NaN
}
inline Mask first(int count) { return count < 4 ? count : 4; }

}  // namespace
}  // namespace pcnn

#include "layer_loops.h"

namespace pcnn {

const Kernels* neon_kernels() {
  static const Kernels own = make_kernels("NEON");
  return &own;
}

}  // namespace pcnn
#else
namespace pcnn {
const Kernels* neon_kernels() { return nullptr; }
}  // namespace pcnn
#endif
