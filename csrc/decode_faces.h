// decode_faces: a detector's predictions become faces.
//
// Candidates are the anchors with a sufficient logit. Their order is that of their keys: better
// scores first, then lower indices. A candidate is a face if no better face overlaps it too much
// (greedy non-maximum suppression). Exponentials are computed in double precision and rounded once,
// so that every processor finds the same faces.
#pragma once

#include <cmath>

#include "numeric.h"

namespace pcnn {

// The numbers of a prediction (logit, box, landmarks) and of a face (score, box, landmarks).
constexpr int kFaceValues = 15;
// The largest `most`. A CUDA thread holds one bit for each candidate.
constexpr std::int64_t kMostFaces = 2048;
// Limits exponents to avoid overflow, as pcnn/ops/reference.py does.
constexpr float kLargestExponent = 16.0f;

struct DecodeFaces {
  const float* predictions;  // (B, N, 15)
  std::int64_t batch, count;
  std::int64_t batch_stride, anchor_stride, value_stride;
  const float* anchors;  // (N, 4), contiguous: centre x, centre y, width, height
  float variances[2];    // the scales of centre and size offsets
  float least_logit;     // of candidates
  float min_score;       // of faces
  float iou;             // overlap strictly above it is suppressed
  float large;           // the shorter side from which a candidate counts as large
  std::int64_t most;     // the largest number of candidates of an image, and of faces
  float* out;            // (B, 1 + most, 15), contiguous, zeros: see pcnn.ops.decode_faces

  PCNN_INLINE const float* prediction(std::int64_t item, std::int64_t anchor) const {
    return predictions + item * batch_stride + anchor * anchor_stride;
  }
  PCNN_INLINE float* row(std::int64_t item, std::int64_t index) const {
    return out + (item * (1 + most) + index) * kFaceValues;
  }
};

// A candidate as one integer: the larger, the better. Scores are not negative, so their bits have
// the order of their values.
PCNN_INLINE std::uint64_t key_of(float logit, std::int64_t anchor) {
  const float score = static_cast<float>(1.0 / (1.0 + exp(-static_cast<double>(logit))));
  return std::uint64_t{bits_of(score)} << 32 | (0xffffffffu - static_cast<std::uint32_t>(anchor));
}

PCNN_INLINE float score_of(std::uint64_t key) {
  return float_of(static_cast<std::uint32_t>(key >> 32));
}

PCNN_INLINE std::int64_t anchor_of(std::uint64_t key) {
  return 0xffffffffu - static_cast<std::uint32_t>(key);
}

// Writes a candidate's score and box (x1 y1 x2 y2): the first five numbers of a face.
PCNN_INLINE void decode_box(const DecodeFaces& op, std::int64_t item, std::uint64_t key,
                            float* face) {
  const float* offsets = op.prediction(item, anchor_of(key)) + op.value_stride;
  const float* anchor = op.anchors + 4 * anchor_of(key);
  face[0] = score_of(key);
  for (int axis = 0; axis < 2; ++axis) {
    const float side = anchor[2 + axis];
    const float centre = anchor[axis] + offsets[axis * op.value_stride] * op.variances[0] * side;
    float exponent = offsets[(2 + axis) * op.value_stride] * op.variances[1];
    exponent = exponent > kLargestExponent ? kLargestExponent : exponent;  // NaN stays NaN
    const float half = side * static_cast<float>(exp(static_cast<double>(exponent))) / 2.0f;
    face[1 + axis] = centre - half;
    face[3 + axis] = centre + half;
  }
}

// Writes a candidate's landmarks, x and y of each of five points.
PCNN_INLINE void decode_landmarks(const DecodeFaces& op, std::int64_t item, std::uint64_t key,
                                  float* landmarks) {
  const float* offsets = op.prediction(item, anchor_of(key)) + 5 * op.value_stride;
  const float* anchor = op.anchors + 4 * anchor_of(key);
  for (int value = 0; value < 10; ++value) {
    const float scale = anchor[2 + value % 2] * op.variances[0];
    landmarks[value] = anchor[value % 2] + offsets[value * op.value_stride] * scale;
  }
}

PCNN_INLINE float at_least_zero(float value) { return value < 0.0f ? 0.0f : value; }  // NaN stays

PCNN_INLINE float area(const float* box) {
  return at_least_zero(box[2] - box[0]) * at_least_zero(box[3] - box[1]);
}

// Whether a candidate's shorter side reaches `large`; not if a coordinate is NaN.
PCNN_INLINE bool is_large(const DecodeFaces& op, const float* box) {
  return box[2] - box[0] >= op.large && box[3] - box[1] >= op.large;
}

// Whether the boxes' intersection over their union exceeds op.iou. Boxes with NaN never do: their
// area is NaN, and so is the union.
PCNN_INLINE bool overlap(const DecodeFaces& op, const float* one, const float* other) {
  const float left = one[0] > other[0] ? one[0] : other[0];
  const float top = one[1] > other[1] ? one[1] : other[1];
  const float right = one[2] < other[2] ? one[2] : other[2];
  const float bottom = one[3] < other[3] ? one[3] : other[3];
  const float shared = at_least_zero(right - left) * at_least_zero(bottom - top);
  const float both = area(one) + area(other) - shared;
  const float share = both > 0.0f ? shared / (both > 1e-12f ? both : 1e-12f) : 0.0f;
  return share > op.iou;
}

// The workspace of the CUDA kernels. Its contents before and after a call are arbitrary, but for
// `counts`, which must be zeros.
struct FacesWork {
  int* counts;            // (B, 2): candidates of each image, and whether one of them is large
  std::uint64_t* keys;    // (2, B, N): the candidates' keys in any order, twice to narrow them
  float* ranked;          // (B, most, 15): the best candidates as faces, best first
  std::uint64_t* rivals;  // (B, most, words): the later ones that each of them suppresses, as bits
};

// The CUDA kernels rank candidates in groups of this many: each candidate is compared with all of
// its group. So the cost is linear in their number. While an image may have several groups, each
// keeps its best `most`, and these are grouped again.
constexpr std::int64_t kGroup = 8192;
static_assert(kGroup >= 2 * kMostFaces, "a round of groups must leave fewer candidates");

// The number of candidates that stay of `found` after such a round. Every group but the last is
// full, so they lie side by side if each group writes from its number times `most` on.
PCNN_INLINE std::int64_t kept_of(std::int64_t found, std::int64_t most) {
  const std::int64_t last = found % kGroup;
  return found / kGroup * most + (last < most ? last : most);
}

constexpr std::int64_t kWordBits = 64;

PCNN_INLINE std::int64_t words_of(std::int64_t most) { return (most + kWordBits - 1) / kWordBits; }

void decode_faces_cpu(const DecodeFaces& op, int threads);
void decode_faces_cuda(const DecodeFaces& op, const FacesWork& work, int device, void* stream);

}  // namespace pcnn
