#include <algorithm>
#include <functional>
#include <iterator>
#include <vector>

#include "decode_faces.h"
#include "parallel.h"

namespace pcnn {
namespace {

// The keys of an image's best candidates, best first.
std::vector<std::uint64_t> candidates(const DecodeFaces& op, std::int64_t item) {
  std::vector<std::uint64_t> keys;
  const float* logit = op.prediction(item, 0);
  for (std::int64_t anchor = 0; anchor < op.count; ++anchor, logit += op.anchor_stride) {
    if (*logit >= op.least_logit) keys.push_back(key_of(*logit, anchor));
  }
  const auto most = std::min<std::ptrdiff_t>(op.most, keys.end() - keys.begin());
  std::partial_sort(keys.begin(), keys.begin() + most, keys.end(), std::greater<>());
  keys.resize(static_cast<std::size_t>(most));
  return keys;
}

void decode_image(const DecodeFaces& op, std::int64_t item) {
  bool large = false;
  std::int64_t faces = 0;
  for (const std::uint64_t key : candidates(op, item)) {
    float* face = op.row(item, 1 + faces);
    float candidate[5];
    decode_box(op, item, key, candidate);
    large = large || is_large(op, candidate + 1);
    bool free = score_of(key) >= op.min_score;
    for (std::int64_t better = 0; free && better < faces; ++better) {
      free = !overlap(op, op.row(item, 1 + better) + 1, candidate + 1);
    }
    if (!free) continue;
    std::copy_n(candidate, std::size(candidate), face);
    decode_landmarks(op, item, key, face + 5);
    ++faces;
  }
  float* summary = op.row(item, 0);
  summary[0] = static_cast<float>(faces);
  summary[1] = large ? 1.0f : 0.0f;
}

}  // namespace

void decode_faces_cpu(const DecodeFaces& op, int threads) {
  const double nanoseconds = 2.0 * static_cast<double>(op.batch * op.count);
  parallel_for(op.batch, nanoseconds, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) decode_image(op, item);
  });
}

}  // namespace pcnn
