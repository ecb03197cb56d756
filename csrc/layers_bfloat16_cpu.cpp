// The loops of layers with AVX-512's products of bfloat16 pairs; sums are float32.
#include "layers.h"

// Compilers before these do not know the instructions.
#if defined(__clang__)
#define PCNN_KNOWS_BFLOAT16 (__clang_major__ >= 14)
#elif defined(__GNUC__)
#define PCNN_KNOWS_BFLOAT16 (__GNUC__ >= 12)
#else
#define PCNN_KNOWS_BFLOAT16 0
#endif

#if defined(PCNN_X86_VECTORS) && PCNN_KNOWS_BFLOAT16
#define PCNN_TARGET __attribute__((target("avx512f,avx512bf16")))
#include "layers_avx512.h"

namespace pcnn {
namespace {

PCNN_TARGET inline Vector product_add(Vector a, Vector b, Vector c) {
  return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

PCNN_TARGET void narrow_row(const float* from, std::int64_t count, float* to) {
  for (std::int64_t k = 0; k < count; k += 16) {
    const Vector values = load(from + k, first(static_cast<int>(count - k)));
    const __m256bh pairs = _mm512_cvtneps_pbh(values);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k / 2), reinterpret_cast<__m256i>(pairs));
  }
}

}  // namespace
}  // namespace pcnn

#include "layer_loops.h"

namespace pcnn {

const Kernels* bfloat16_kernels() {
  static const Kernels own = make_kernels("AVX-512 BF16");
  return __builtin_cpu_supports("avx512bf16") ? &own : nullptr;
}

}  // namespace pcnn
#else
namespace pcnn {
const Kernels* bfloat16_kernels() { return nullptr; }
}  // namespace pcnn
#endif
