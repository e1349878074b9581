// Depthwise convolution, batch norm, residual and activation, forward and backward, for float32 and bfloat16 images
// whose channels lie last in memory.
//
// Every pass goes through an image a few rows at a time, which the first cache holds, and through these 16 channels at
// a time: weights, sums and gradients of weights then stay in registers.  The convolution is computed again in every
// pass, because that takes less time than to write its result and read it back.  Sums are kept for each group of images
// and added up in a fixed order, in double precision: results do not depend on the number of threads.

#include <cmath>
#include <type_traits>

#include "statistics.h"

namespace {

// y = activation(scale * convolution(x) + bias + residual + added).
template <class T, int TAPS>
void convolve(const Plan<TAPS>& p, const T* x, const float* weight, const float* scale, const float* bias,
              const T* added, T* y) {
  const std::vector<T> zeros(p.width * p.channels);
  const Vector upper = all(p.upper);
  const bool clamped = p.upper > 0;
  for_groups(p, DOWN, 0, [&](int64_t group, float*) {
    for_bands(
        p, group,
        [&](const Band& band, int64_t block, int64_t c) {
          const Ahead next = p.ahead(band, DOWN);
          fetch(x + next.x, p.band_x(), block, p.blocks);
          if (added) fetch(added + next.y, p.band_y(), block, p.blocks);
          fetch<true>(y + next.y, p.band_y(), block, p.blocks);
          const Weights<TAPS> w(weight, p.channels, c);
          const Vector factor = load(scale + c), constant = load(bias + c);
          for (int64_t n = band.first; n < band.last; ++n) {
            const int64_t start = n * p.out_image + c;
            for_outputs<TAPS>(p, band.begin, band.end, x + n * p.image + c, zeros.data(),
                              [&](int64_t sample, const Vector* inputs, int) __attribute__((always_inline)) {
                                const int64_t at = start + sample * p.channels;
                                Vector value = w(inputs) * factor + constant;
                                if (p.residual) value += inputs[TAPS / 2];
                                if (added) value += load(added + at);
                                if (clamped) value = value < Vector{} ? Vector{} : value > upper ? upper : value;
                                store(y + at, value);
                              });
          }
        },
        nothing);
  });
}

template <class T, int TAPS>
void forward(const Plan<TAPS>& p, const T* x, const float* weight, const float* gamma, const float* beta,
             const T* added, float eps, T* y, float* mean, float* variance, float* inverse) {
  statistics<T, TAPS>(p, x, weight, eps, mean, variance, inverse);
  std::vector<float> scale(p.channels), bias(p.channels);
  for (int64_t c = 0; c < p.channels; ++c) {
    scale[c] = gamma[c] * inverse[c];
    bias[c] = beta[c] - mean[c] * scale[c];
  }
  convolve<T, TAPS>(p, x, weight, scale.data(), bias.data(), added, y);
}

// Gradients at the convolution's output of the last rows of each image of a group, from which those of its input follow.
template <int TAPS>
struct Ring {
  const Plan<TAPS>& p;
  int64_t width, rows;  // elements of a row with borders of zeros; a power of two

  explicit Ring(const Plan<TAPS>& p) : p(p), width((p.width + p.dilation_wide * (p.taps_wide - 1)) * p.channels), rows(1) {
    while (rows < p.band + p.dilation_high * (p.taps_high - 1) / p.stride_high + 1) rows *= 2;
  }

  // There is one more row of zeros.
  int64_t elements() const { return TAPS ? (p.group * rows + 1) * width : 0; }

  // Where the gradients of an output row begin.
  inline int64_t row(int64_t image, int64_t i) const {
    return (image * rows + (i & (rows - 1))) * width + p.columns[Plan<TAPS>::ROOM - 1] * p.channels;
  }
  inline int64_t zeros() const { return p.group * rows * width; }

  // Write the gradients of some rows of one image's input.
  template <class T>
  void write(const float* memory, int64_t image, int64_t begin, int64_t end, const float* weight, const T* dy,
             T* dx) const {
    constexpr int64_t MOST = 32;
    int64_t from[MOST][Plan<TAPS>::ROOM];
    for (int64_t h0 = begin; h0 < end; h0 += MOST) {
      const int64_t count = std::min(MOST, end - h0);
      for (int64_t h = 0; h < count; ++h)
        for (int t = 0; t < TAPS; ++t) {
          const int64_t position = h0 + h - p.rows[t], i = p.stride_high == 1 ? position : position / p.stride_high;
          const bool known = position >= 0 && i * p.stride_high == position && i < p.out_height;
          from[h][t] = known ? row(image, i) - p.columns[t] * p.channels : zeros();
        }
      for (int64_t block = 0; block < p.blocks; ++block) {
        const int64_t c = p.channel(block);
        const Weights<TAPS> w(weight, p.channels, c);
        for (int64_t h = 0; h < count; ++h) {
          const float* taps[Plan<TAPS>::ROOM];
          for (int t = 0; t < TAPS; ++t) taps[t] = memory + from[h][t] + c;
          const int64_t start = (h0 + h) * p.width * p.channels + c;
          for (int64_t v = 0; v < p.width; ++v) {
            Vector gradients[Plan<TAPS>::ROOM];
#pragma GCC unroll 9
            for (int t = 0; t < TAPS; ++t) gradients[t] = load(taps[t] + v * p.channels);
            Vector result = w(gradients);
            if (p.residual) result += load(dy + start + v * p.channels);
            store(dx + start + v * p.channels, result);
          }
        }
      }
    }
  }
};

template <class T, int TAPS>
void backward(const Plan<TAPS>& p, const T* x, const T* y, const T* dy, const float* weight, const float* gamma,
              const float* beta, const float* mean, const float* inverse, T* dx, T* dadded, float* dweight,
              float* dgamma, float* dbeta) {
  const std::vector<T> zeros(p.width * p.channels);
  const int64_t width = p.blocks * LANES;
  const Vector upper = all(p.upper);
  const bool clamped = p.upper > 0;
  std::vector<float> firsts(p.groups * width), seconds(p.groups * width), scale(p.channels), bias(p.channels);
  for (int64_t c = 0; c < p.channels; ++c) {
    scale[c] = gamma[c] * inverse[c];
    bias[c] = beta[c] - mean[c] * scale[c];
  }
  // Sums of the gradient at the norm's output, and of its product with the norm's input.
  for_groups(p, UP, 0, [&](int64_t group, float*) {
    for_bands(
        p, group,
        [&](const Band& band, int64_t block, int64_t c) {
          const Ahead next = p.ahead(band, UP);
          fetch(x + next.x, p.band_x(), block, p.blocks);
          fetch(dy + next.y, p.band_y(), block, p.blocks);
          if (y) fetch(y + next.y, p.band_y(), block, p.blocks);
          const Weights<TAPS> w(weight, p.channels, c);
          const Vector centre = load(mean + c), factor = load(&scale[c]), constant = load(&bias[c]);
          const int64_t at = group * width + block * LANES;
          Vector first[2]{}, second[2]{};
          for (int64_t n = band.first; n < band.last; ++n) {
            const int64_t start = n * p.out_image + c;
            for_outputs<TAPS>(p, band.begin, band.end, x + n * p.image + c, zeros.data(),
                              [&](int64_t sample, const Vector* inputs, int parity) __attribute__((always_inline)) {
                                const int64_t here = start + sample * p.channels;
                                const Vector value = w(inputs);
                                Vector gradient = load(dy + here);
                                if (clamped) {
                                  const Vector out = y ? load(y + here) : value * factor + constant;
                                  gradient = (out > Vector{}) & (out < upper) ? gradient : Vector{};
                                  if (dadded) store(dadded + here, gradient);
                                }
                                first[parity] += gradient;
                                second[parity] += gradient * (value - centre);
                              });
          }
          add(&firsts[at], first);
          add(&seconds[at], second);
        },
        nothing);
  });
  std::vector<float> slope(p.channels), level(p.channels);
  reduce(p, firsts, seconds, mean, inverse, scale, dgamma, dbeta, slope, level);
  if (clamped && dadded) dy = dadded;
  const bool masked = clamped && !dadded;
  const Ring<TAPS> ring(p);
  std::vector<float> dweights(p.groups * TAPS * width);
  for_groups(p, DOWN, ring.elements(), [&](int64_t group, float* memory) {
    int64_t written = 0;
    for_bands(
        p, group,
        [&](const Band& band, int64_t block, int64_t c) {
          const Ahead next = p.ahead(band, DOWN);
          fetch(x + next.x, p.band_x(), block, p.blocks);
          fetch(dy + next.y, p.band_y(), block, p.blocks);
          const Weights<TAPS> w(weight, p.channels, c);
          const Vector factor = load(&scale[c]), constant = load(&bias[c]);
          const Vector inclined = load(&slope[c]), flat = load(&level[c]);
          Vector products[Plan<TAPS>::ROOM][2]{};
          for (int64_t n = band.first; n < band.last; ++n) {
            const int64_t start = n * p.out_image + c, step = p.channels * p.stride_wide;
            const auto differentiate = [&](int64_t begin, int64_t end, auto* to, int64_t to_step) {
              for_outputs<TAPS>(p, begin, end, x + n * p.image + c, zeros.data(),
                                [&](int64_t sample, const Vector* inputs, int parity) __attribute__((always_inline)) {
                                  const Vector value = w(inputs);
                                  Vector gradient = load(dy + start + sample * p.channels);
                                  if (masked) {
                                    const Vector out = value * factor + constant;
                                    gradient = (out > Vector{}) & (out < upper) ? gradient : Vector{};
                                  }
                                  const Vector result = gradient * factor + value * inclined + flat;
                                  store(to + sample * to_step, result);
#pragma GCC unroll 9
                                  for (int t = 0; t < TAPS; ++t) products[t][parity] += result * inputs[t];
                                });
            };
            if constexpr (TAPS == 0) differentiate(band.begin, band.end, dx + start, p.channels);
            if constexpr (TAPS > 0)
              for (int64_t i = band.begin; i < band.end; ++i)
                differentiate(i, i + 1, memory + ring.row(n - band.first, i) + c - i * p.out_width * step, step);
          }
          for (int t = 0; t < TAPS; ++t) add(&dweights[(group * TAPS + t) * width + block * LANES], products[t]);
        },
        [&](const Band& band) {
          if constexpr (TAPS > 0) {
            const int64_t known = band.end * p.stride_high - p.pad_high;  // rows up to here depend on no later band
            const int64_t until = band.end == p.out_height ? p.height : std::min(std::max(known, written), p.height);
            for (int64_t n = band.first; n < band.last; ++n)
              ring.write(memory, n - band.first, written, until, weight, dy + n * p.out_image, dx + n * p.image);
            written = until;
          }
        });
  });
  by_channel<TAPS>(p, dweights, dweight);
}

}  // namespace

#define FOR_TAPS(CALL)        \
  switch (p->taps) {          \
    case 0: CALL(0); break;   \
    case 3: CALL(3); break;   \
    case 5: CALL(5); break;   \
    case 7: CALL(7); break;   \
    case 9: CALL(9); break;   \
    default: return 1;        \
  }                           \
  return 0

#define DEFINE(NAME, T)                                                                                             \
  extern "C" int forward_##NAME(const Problem* p, const T* x, const float* weight, const float* gamma,              \
                                const float* beta, const T* added, float eps, T* y, float* mean, float* variance,   \
                                float* inverse) {                                                                   \
    FOR_TAPS(FORWARD);                                                                                              \
  }                                                                                                                 \
  extern "C" int backward_##NAME(const Problem* p, const T* x, const T* y, const T* dy, const float* weight,        \
                                 const float* gamma, const float* beta, const float* mean, const float* inverse,    \
                                 T* dx, T* dadded, float* dweight, float* dgamma, float* dbeta) {                   \
    FOR_TAPS(BACKWARD);                                                                                             \
  }

#define FORWARD(TAPS) forward<std::remove_const_t<std::remove_pointer_t<decltype(x)>>, TAPS>(Plan<TAPS>(*p), x, by_tap(*p, weight).data(), gamma, beta, added, eps, y, mean, variance, inverse)
#define BACKWARD(TAPS) backward<std::remove_const_t<std::remove_pointer_t<decltype(x)>>, TAPS>(Plan<TAPS>(*p), x, y, dy, by_tap(*p, weight).data(), gamma, beta, mean, inverse, dx, dadded, dweight, dgamma, dbeta)

DEFINE(float32, float)
DEFINE(bfloat16, uint16_t)
