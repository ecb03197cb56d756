// The loops of layers with AVX2 and FMA.
#include "layers.h"

#if defined(PCNN_X86_VECTORS)
#include <immintrin.h>

#include <algorithm>

#define PCNN_LANES 8
#define PCNN_ROWS 6
#define PCNN_TARGET __attribute__((target("avx2,fma")))

namespace pcnn {
namespace {

using Vector = __m256;
using Mask = __m256i;

PCNN_TARGET inline Vector load(const float* from) { return _mm256_loadu_ps(from); }
PCNN_TARGET inline Vector load(const float* from, Mask mask) {
  return _mm256_maskload_ps(from, mask);
}
PCNN_TARGET inline void store(float* to, Vector value, Mask mask) {
  _mm256_maskstore_ps(to, mask, value);
}
PCNN_TARGET inline Vector all(float value) { return _mm256_set1_ps(value); }
PCNN_TARGET inline Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
PCNN_TARGET inline Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
PCNN_TARGET inline Vector multiply_add(Vector a, Vector b, Vector c) {
  return _mm256_fmadd_ps(a, b, c);
}
PCNN_TARGET inline Vector product_add(Vector a, Vector b, Vector c) {
  return multiply_add(a, b, c);
}
constexpr void (*narrow_row)(const float*, std::int64_t, float*) = nullptr;
// Of two numbers of which one is NaN, min gives the second.
PCNN_TARGET inline Vector least(Vector a, Vector b) { return _mm256_min_ps(a, b); }
PCNN_TARGET inline Vector rectify(Vector value, Vector leak) {
  const Vector zero = _mm256_setzero_ps();
  const Vector positive = _mm256_cmp_ps(value, zero, _CMP_GT_OQ);
  const Vector leaking = _mm256_blendv_ps(_mm256_mul_ps(value, leak), value, positive);
  // 0 · -∞ would be NaN. Of two numbers of which one is NaN, max gives the second.
  const Vector plain = _mm256_max_ps(zero, value);
  return _mm256_blendv_ps(leaking, plain, _mm256_cmp_ps(leak, zero, _CMP_EQ_OQ));
}
PCNN_TARGET inline Mask first(int count) {
  const __m256i places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), places);
}

}  // namespace
}  // namespace pcnn

#include "layer_loops.h"

namespace pcnn {

const Kernels* avx2_kernels() {
  static const Kernels own = make_kernels("AVX2");
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &own : nullptr;
}

}  // namespace pcnn
#else
namespace pcnn {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace pcnn
#endif
