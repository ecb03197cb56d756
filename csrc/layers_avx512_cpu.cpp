// The loops of layers with AVX-512.
#include "layers.h"

#if defined(PCNN_X86_VECTORS)
#define PCNN_TARGET __attribute__((target("avx512f")))
#include "layers_avx512.h"

namespace pcnn {
namespace {

PCNN_TARGET inline Vector product_add(Vector a, Vector b, Vector c) {
  return multiply_add(a, b, c);
}
constexpr void (*narrow_row)(const float*, std::int64_t, float*) = nullptr;

}  // namespace
}  // namespace pcnn

#include "layer_loops.h"

namespace pcnn {

const Kernels* avx512_kernels() {
  static const Kernels own = make_kernels("AVX-512");
  return __builtin_cpu_supports("avx512f") ? &own : nullptr;
}

}  // namespace pcnn
#else
namespace pcnn {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace pcnn
#endif
