#include "decode_faces.h"
#include "launch.h"

namespace pcnn {
namespace {

// Each kernel needs all results of the one before. Threads of a kernel share nothing but counters.
// Images are the grid's rows.

__global__ void __launch_bounds__(kThreads)
    collect_kernel(const __grid_constant__ DecodeFaces op, const __grid_constant__ FacesWork work) {
  const std::int64_t anchor = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (anchor >= op.count) return;
  for (std::int64_t item = blockIdx.y; item < op.batch; item += gridDim.y) {
    const float logit = *op.prediction(item, anchor);
    if (!(logit >= op.least_logit)) continue;
    const int slot = atomicAdd(work.counts + 2 * item, 1);
    work.keys[item * op.count + slot] = key_of(logit, anchor);
  }
}

// Writes each candidate to the place of its rank, the number of better ones.
__global__ void __launch_bounds__(kThreads)
    rank_kernel(const __grid_constant__ DecodeFaces op, const __grid_constant__ FacesWork work) {
  const std::int64_t slot = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (std::int64_t item = blockIdx.y; item < op.batch; item += gridDim.y) {
    int* counts = work.counts + 2 * item;
    const std::uint64_t* keys = work.keys + item * op.count;
    const int found = counts[0];
    if (slot >= found) continue;
    const std::uint64_t own = keys[slot];
    std::int64_t rank = 0;
    for (int other = 0; other < found; ++other) rank += keys[other] > own;
    if (rank >= op.most) continue;
    float* face = work.ranked + (item * op.most + rank) * kFaceValues;
    decode_box(op, item, own, face);
    decode_landmarks(op, item, own, face + 5);
    if (is_large(op, face + 1)) counts[1] = 1;  // several threads may write the same number
  }
}

// The number of ranked candidates of an image.
__device__ inline std::int64_t ranked_count(const DecodeFaces& op, const FacesWork& work,
                                            std::int64_t item) {
  const std::int64_t found = work.counts[2 * item];
  return found < op.most ? found : op.most;
}

// One thread compares one candidate with 64 others.
__global__ void __launch_bounds__(kThreads)
    rivals_kernel(const __grid_constant__ DecodeFaces op, const __grid_constant__ FacesWork work) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t words = words_of(op.most);
  const std::int64_t own = index / words, word = index % words;
  for (std::int64_t item = blockIdx.y; item < op.batch; item += gridDim.y) {
    const std::int64_t count = ranked_count(op, work, item);
    const std::int64_t first = word * kWordBits;
    if (own >= count || first >= count || first + kWordBits <= own) continue;
    const float* faces = work.ranked + item * op.most * kFaceValues;
    const float* face = faces + own * kFaceValues;
    std::uint64_t bits = 0;
    for (std::int64_t bit = 0; bit < kWordBits; ++bit) {
      const std::int64_t other = first + bit;
      if (other <= own || other >= count) continue;
      const bool rival = overlap(op, face + 1, faces + other * kFaceValues + 1);
      bits |= static_cast<std::uint64_t>(rival) << bit;
    }
    work.rivals[(item * op.most + own) * words + word] = bits;
  }
}

// One thread walks through an image's candidates, best first, and writes the faces.
__global__ void __launch_bounds__(kThreads)
    suppress_kernel(const __grid_constant__ DecodeFaces op,
                    const __grid_constant__ FacesWork work) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= op.batch) return;
  const std::int64_t count = ranked_count(op, work, item), words = words_of(op.most);
  std::uint64_t suppressed[kMostFaces / kWordBits] = {};
  std::int64_t faces = 0;
  for (std::int64_t own = 0; own < count; ++own) {
    const float* face = work.ranked + (item * op.most + own) * kFaceValues;
    if (face[0] < op.min_score) break;
    if (suppressed[own / kWordBits] >> (own % kWordBits) & 1u) continue;
    const std::uint64_t* rivals = work.rivals + (item * op.most + own) * words;
    for (std::int64_t word = own / kWordBits; word * kWordBits < count; ++word) {
      suppressed[word] |= rivals[word];
    }
    float* out = op.row(item, ++faces);
    for (int value = 0; value < kFaceValues; ++value) out[value] = face[value];
  }
  float* summary = op.row(item, 0);
  summary[0] = static_cast<float>(faces);
  summary[1] = static_cast<float>(work.counts[2 * item + 1]);
}

}  // namespace

void decode_faces_cuda(const DecodeFaces& op, const FacesWork& work, int device, void* stream) {
  if (op.batch == 0 || op.count == 0) return;
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const dim3 anchors = grid_for(op.count, op.batch);
  collect_kernel<<<anchors, kThreads, 0, on>>>(op, work);
  rank_kernel<<<anchors, kThreads, 0, on>>>(op, work);
  rivals_kernel<<<grid_for(op.most * words_of(op.most), op.batch), kThreads, 0, on>>>(op, work);
  suppress_kernel<<<grid_for(op.batch, 1), kThreads, 0, on>>>(op, work);
  check_launch("decode_faces");
}

}  // namespace pcnn
