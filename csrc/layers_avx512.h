// Vectors of AVX-512, for layer_loops.h.
#include <immintrin.h>

#include <algorithm>

#define PCNN_LANES 16
#define PCNN_ROWS 12

namespace pcnn {
namespace {

using Vector = __m512;
using Mask = __mmask16;

PCNN_TARGET inline Vector load(const float* from) { return _mm512_loadu_ps(from); }
PCNN_TARGET inline Vector load(const float* from, Mask mask) {
  return _mm512_maskz_loadu_ps(mask, from);
}
PCNN_TARGET inline void store(float* to, Vector value, Mask mask) {
  _mm512_mask_storeu_ps(to, mask, value);
}
PCNN_TARGET inline Vector all(float value) { return _mm512_set1_ps(value); }
PCNN_TARGET inline Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
PCNN_TARGET inline Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
PCNN_TARGET inline Vector multiply_add(Vector a, Vector b, Vector c) {
  return _mm512_fmadd_ps(a, b, c);
}
// Of two numbers of which one is NaN, min gives the second. (GCC 12 warns of the form without
// mask.)
PCNN_TARGET inline Vector least(Vector a, Vector b) { return _mm512_maskz_min_ps(0xffff, a, b); }
PCNN_TARGET inline Vector rectify(Vector value, Vector leak) {
  const Vector zero = _mm512_setzero_ps();
  const Mask positive = _mm512_cmp_ps_mask(value, zero, _CMP_GT_OQ);
  const Vector leaking = _mm512_mask_blend_ps(positive, _mm512_mul_ps(value, leak), value);
  // 0 · -∞ would be NaN. Of two numbers of which one is NaN, max gives the second.
  return _mm512_mask_max_ps(leaking, _mm512_cmp_ps_mask(leak, zero, _CMP_EQ_OQ), zero, value);
}
PCNN_TARGET inline Mask first(int count) {
  return static_cast<Mask>(count >= 16 ? 0xffff : (1 << count) - 1);
}

}  // namespace
}  // namespace pcnn
