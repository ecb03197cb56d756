// Number formats and short vectors, for the CPU and for CUDA.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define PCNN_HD __host__ __device__
#else
#define PCNN_HD
#endif

// Loops over channels are compiled for any x86-64 and again for wider vectors, which halves their
// time. The loader chooses the version.
// Sanitizers start before this choice is possible, so their builds have one version.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__CUDACC__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(PCNN_NO_CLONES)
#define PCNN_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define PCNN_CLONES
#endif

#if defined(__GNUC__) && !defined(__CUDACC__)
#define PCNN_INLINE inline __attribute__((always_inline))  // else a clone calls the plain version
#else
#define PCNN_INLINE PCNN_HD inline
#endif

namespace pcnn {

enum class Dtype : int { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

struct Half {
  std::uint16_t bits;
};

struct BFloat16 {
  std::uint16_t bits;
};

PCNN_INLINE std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

PCNN_INLINE float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

PCNN_INLINE float to_float(float value) { return value; }

PCNN_INLINE float to_float(BFloat16 value) { return float_of(std::uint32_t{value.bits} << 16); }

PCNN_INLINE float to_float(Half value) {
#ifdef __CUDA_ARCH__
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#else
  const std::uint32_t magnitude = value.bits & 0x7fffu;
  const std::uint32_t sign = (value.bits & 0x8000u) << 16;
  // The exponent's bias grows from 15 to 127; infinity and NaN go from exponent 31 to 255.
  const std::uint32_t rebias = magnitude < 0x7c00u ? 112u << 23 : 224u << 23;
  const float normal = float_of((magnitude << 13) + rebias);
  const float subnormal = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
  return float_of(bits_of(magnitude < 0x400u ? subnormal : normal) | sign);
#endif
}

template <typename T>
PCNN_INLINE T from_float(float value);

template <>
PCNN_INLINE float from_float<float>(float value) {
  return value;
}

// Both narrow formats round to nearest, ties to even, as PyTorch does; NaN stays NaN.
template <>
PCNN_INLINE BFloat16 from_float<BFloat16>(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return BFloat16{static_cast<std::uint16_t>(is_nan ? 0x7fc0u : rounded)};
}

template <>
PCNN_INLINE Half from_float<Half>(float value) {
#ifdef __CUDA_ARCH__
  Half result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
#else
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // The last place of 0.5 is half precision's smallest step, so adding 0.5 rounds to a multiple.
  const std::uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  std::uint32_t result = magnitude < 0x38800000u ? subnormal : normal;
  result = magnitude >= 0x477ff000u ? 0x7c00u : result;  // 65520 and more round to infinity
  result = magnitude > 0x7f800000u ? 0x7e00u : result;
  return Half{static_cast<std::uint16_t>(result | (bits >> 16 & 0x8000u))};
#endif
}

// N neighbouring elements that CUDA moves together. The address must be a multiple of their size.
template <typename T, int N>
struct alignas(sizeof(T) * N <= 16 ? sizeof(T) * N : 16) Pack {
  T lane[N];
  PCNN_HD const T& operator[](int index) const { return lane[index]; }
};

// Declares a name for N neighbouring elements. On CUDA it is a copy in registers. On the CPU it is
// the memory itself, which the compiler vectorises best.
#ifdef __CUDA_ARCH__
#define PCNN_LOAD(name, T, N, from) \
  const Pack<T, N> name = *reinterpret_cast<const Pack<T, N>*>(from)
#else
#define PCNN_LOAD(name, T, N, from) const T* const name = from
#endif

// Writes a pack with one instruction. Without this, the compiler splits lanes that were rounded
// separately into stores of 32 bits (nvcc 13, sm_90).
template <typename T, int N>
PCNN_INLINE void store_pack(T* to, const Pack<T, N>& pack) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(pack) == 16) {
    std::uint32_t word[4];
    std::memcpy(word, &pack, 16);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(to)), "r"(word[0]), "r"(word[1]), "r"(word[2]),
                   "r"(word[3])
                 : "memory");
    return;
  }
#endif
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Rounds N values and writes them to neighbouring elements.
template <typename T, int N>
PCNN_INLINE void store(T* to, const float (&values)[N]) {
#ifdef __CUDA_ARCH__
  Pack<T, N> pack;
  for (int lane = 0; lane < N; ++lane) pack.lane[lane] = from_float<T>(values[lane]);
  store_pack(to, pack);
#else
  for (int lane = 0; lane < N; ++lane) to[lane] = from_float<T>(values[lane]);
#endif
}

}  // namespace pcnn
