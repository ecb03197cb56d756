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

// The keys of an image's candidates after so many rounds of groups, and their number.
struct Keys {
  std::uint64_t* at;
  std::int64_t count;
};

__device__ inline Keys keys_after(const DecodeFaces& op, const FacesWork& work, std::int64_t item,
                                  int rounds) {
  std::int64_t count = work.counts[2 * item];
  for (int round = 0; round < rounds; ++round) count = kept_of(count, op.most);
  return {work.keys + (rounds % 2 * op.batch + item) * op.count, count};
}

// The number of better candidates in a candidate's group.
__device__ inline std::int64_t rank_of(const Keys& keys, std::int64_t slot) {
  const std::int64_t first = slot / kGroup * kGroup, rest = keys.count - first;
  const int size = static_cast<int>(rest < kGroup ? rest : kGroup);
  const std::uint64_t* group = keys.at + first;
  const std::uint64_t own = keys.at[slot];
  int rank = 0;
  for (int other = 0; other < size; ++other) rank += group[other] > own;
  return rank;
}

// Calls visit(item, slot, rank, key) for the best `most` candidates of each group, one a thread.
// rounds: how many rounds of groups there were before.
template <typename Visit>
__device__ inline void visit_best(const DecodeFaces& op, const FacesWork& work, int rounds,
                                  const Visit& visit) {
  const std::int64_t slot = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (std::int64_t item = blockIdx.y; item < op.batch; item += gridDim.y) {
    const Keys keys = keys_after(op, work, item, rounds);
    if (slot >= keys.count) continue;
    const std::int64_t rank = rank_of(keys, slot);
    if (rank < op.most) visit(item, slot, rank, keys.at[slot]);
  }
}

// A round of groups: each keeps its best `most`.
__global__ void __launch_bounds__(kThreads)
    narrow_kernel(const __grid_constant__ DecodeFaces op, const __grid_constant__ FacesWork work,
                  int rounds) {
  visit_best(op, work, rounds,
             [&](std::int64_t item, std::int64_t slot, std::int64_t rank, std::uint64_t key) {
               const Keys kept = keys_after(op, work, item, rounds + 1);
               kept.at[slot / kGroup * op.most + rank] = key;
             });
}

// Writes each candidate of the one group that is left to the place of its rank.
__global__ void __launch_bounds__(kThreads)
    rank_kernel(const __grid_constant__ DecodeFaces op, const __grid_constant__ FacesWork work,
                int rounds) {
  visit_best(op, work, rounds,
             [&](std::int64_t item, std::int64_t, std::int64_t rank, std::uint64_t key) {
               float* face = work.ranked + (item * op.most + rank) * kFaceValues;
               decode_box(op, item, key, face);
               decode_landmarks(op, item, key, face + 5);
               // Several threads may write the same number.
               if (is_large(op, face + 1)) work.counts[2 * item + 1] = 1;
             });
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
  collect_kernel<<<grid_for(op.count, op.batch), kThreads, 0, on>>>(op, work);
  std::int64_t most_left = op.count;  // the candidates that an image may have
  int rounds = 0;
  for (; most_left > kGroup; ++rounds) {
    narrow_kernel<<<grid_for(most_left, op.batch), kThreads, 0, on>>>(op, work, rounds);
    most_left = kept_of(most_left, op.most);
  }
  rank_kernel<<<grid_for(most_left, op.batch), kThreads, 0, on>>>(op, work, rounds);
  rivals_kernel<<<grid_for(op.most * words_of(op.most), op.batch), kThreads, 0, on>>>(op, work);
  suppress_kernel<<<grid_for(op.batch, 1), kThreads, 0, on>>>(op, work);
  check_launch("decode_faces");
}

}  // namespace pcnn
