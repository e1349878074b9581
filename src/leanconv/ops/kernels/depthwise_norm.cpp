// Depthwise convolution, batch norm, residual and activation, forward and backward, for float32 and bfloat16 images
// whose channels lie last in memory.
//
// Every pass goes through an image a few lines at a time, which the first cache holds, and through these 16 channels at
// a time: weights, sums and gradients of weights then stay in registers.  The convolution is computed again in every
// pass, because that takes less time than to write its result and read it back.  Sums are kept for each group of images
// and added up in a fixed order, in double precision: results do not depend on the number of threads.

#include <cmath>
#include <type_traits>

#include "ring.h"
#include "statistics.h"

namespace {

// The norm of all channels: `scale * value + bias`.
struct Scale {
  std::vector<float> scale, bias;

  Scale(int64_t channels, const float* gamma, const float* beta, const float* mean, const float* inverse)
      : scale(channels), bias(channels) {
    for (int64_t c = 0; c < channels; ++c) {
      scale[c] = gamma[c] * inverse[c];
      bias[c] = beta[c] - mean[c] * scale[c];
    }
  }
};

// What follows the convolution, for a block of channels.
template <class P>
struct Finish {
  Vector factor, constant, upper;
  bool residual, clamped;

  Finish(const P& p, const Scale& s, int64_t c)
      : factor(load(&s.scale[c])), constant(load(&s.bias[c])), upper(all(p.upper)), residual(p.residual),
        clamped(p.upper > 0) {}

  inline Vector before_activation(Vector value, const Vector* inputs) const {
    const Vector result = value * factor + constant;
    return residual ? result + inputs[P::REACH] : result;
  }
  inline Vector activate(Vector value) const {
    return clamped ? value < Vector{} ? Vector{} : value > upper ? upper : value : value;
  }
  // The gradient before the activation, from what it was given or what it gave.
  inline Vector differentiate(Vector gradient, Vector value) const {
    return (value > Vector{}) & (value < upper) ? gradient : Vector{};
  }
};

// y = activation(scale * convolution(x) + bias + residual + added).
template <class T, class P>
void convolve(const P& p, const T* x, const float* weight, const Scale& scale, const T* added, T* y) {
  const std::vector<T> zeros(p.width * p.channels);
  for_groups(p, DOWN, 0, [&](int64_t group, float*) {
    for_bands(
        p, group, DOWN,
        [&](const Band& band, int64_t block, int64_t c) {
          const Weights<P> w(weight, p.channels, c);
          const Finish<P> finish(p, scale, c);
          for (int64_t n = band.first; n < band.last; ++n) {
            const int64_t start = n * p.out_image + c;
            for_outputs(p, band, x + n * p.image + c, zeros.data(),
                        [&](int64_t at, const Vector* inputs, int) __attribute__((always_inline)) {
                          Vector value = finish.before_activation(w(inputs), inputs);
                          if (added) {
                            value += load(added + start + at);
                            __builtin_prefetch(added + start + at + band.out_ahead);
                          }
                          store(y + start + at, finish.activate(value));
                          __builtin_prefetch(y + start + at + band.out_ahead, 1);
                        });
          }
        },
        nothing);
  });
}

template <class T, class P>
void forward(const P& p, const T* x, const float* weight, const float* gamma, const float* beta, const T* added,
             float eps, T* y, float* mean, float* variance, float* inverse) {
  statistics(p, x, weight, eps, mean, variance, inverse);
  convolve(p, x, weight, Scale(p.channels, gamma, beta, mean, inverse), added, y);
}

template <class T, class P>
void backward(const P& p, const T* x, const T* y, const T* dy, const float* weight, const float* gamma,
              const float* beta, const float* mean, const float* inverse, T* dx, T* dadded, float* dweight,
              float* dgamma, float* dbeta) {
  const std::vector<T> zeros(p.width * p.channels);
  const int64_t width = p.blocks * LANES;
  const Scale scale(p.channels, gamma, beta, mean, inverse);
  std::vector<float> firsts(p.groups * width), seconds(p.groups * width);
  // Sums of the gradient at the norm's output, and of its product with the norm's input.
  for_groups(p, UP, 0, [&](int64_t group, float*) {
    for_bands(
        p, group, UP,
        [&](const Band& band, int64_t block, int64_t c) {
          const Weights<P> w(weight, p.channels, c);
          const Finish<P> finish(p, scale, c);
          const Vector centre = load(mean + c);
          const int64_t sums = group * width + block * LANES;
          Vector first[2]{}, second[2]{};
          for (int64_t n = band.first; n < band.last; ++n) {
            const int64_t start = n * p.out_image + c;
            for_outputs(p, band, x + n * p.image + c, zeros.data(),
                        [&](int64_t at, const Vector* inputs, int parity) __attribute__((always_inline)) {
                          const int64_t here = start + at;
                          const Vector value = w(inputs);
                          Vector gradient = load(dy + here);
                          __builtin_prefetch(dy + here + band.out_ahead);
                          if (finish.clamped) {
                            if (y) __builtin_prefetch(y + here + band.out_ahead);
                            const Vector out = y ? load(y + here) : finish.before_activation(value, inputs);
                            gradient = finish.differentiate(gradient, out);
                            if (dadded) store(dadded + here, gradient);
                          }
                          first[parity] += gradient;
                          second[parity] += gradient * (value - centre);
                        });
          }
          add(&firsts[sums], first[0] + first[1]);
          add(&seconds[sums], second[0] + second[1]);
        },
        nothing);
  });
  std::vector<float> slope(p.channels), level(p.channels);
  reduce(p, firsts, seconds, mean, inverse, scale.scale, dgamma, dbeta, slope, level);
  const bool clamped = p.upper > 0, masked = clamped && !dadded;
  if (clamped && dadded) dy = dadded;
  const Ring<P> ring(p);
  std::vector<float> dweights(p.groups * P::TAPS * width);
  for_groups(p, DOWN, P::LINEWISE ? 0 : ring.elements(), [&](int64_t group, float* memory) {
    for_bands(
        p, group, DOWN,
        [&](const Band& band, int64_t block, int64_t c) {
          const Weights<P> w(weight, p.channels, c);
          const Finish<P> finish(p, scale, c);
          const Vector inclined = load(&slope[c]), flat = load(&level[c]);
          Vector products[P::ROOM]{};
          for (int64_t n = band.first; n < band.last; ++n) {
            const T *inputs_of_n = x + n * p.image + c, *gradients_of_n = dy + n * p.out_image + c;
            const auto differentiate = [&](int64_t at, const Vector* inputs, Vector& passed)
                                           __attribute__((always_inline)) {
              const Vector value = w(inputs);
              passed = load(gradients_of_n + at);
              __builtin_prefetch(gradients_of_n + at + band.out_ahead);
              if (masked) passed = finish.differentiate(passed, finish.before_activation(value, inputs));
              return passed * finish.factor + value * inclined + flat;
            };
            if constexpr (P::LINEWISE)
              gradients_of_lines(p, band, w, inputs_of_n, dx + n * p.image + c, products, differentiate);
            else
              ring.gradients_of_rows(memory + c, band, n - band.first, inputs_of_n, zeros.data(), products,
                                     differentiate);
          }
          for (int t = 0; t < P::TAPS; ++t)
            add(&dweights[(group * P::TAPS + t) * width + block * LANES], products[t]);
        },
        [&](const Band& band) {
          if constexpr (!P::LINEWISE) ring.write(memory, band, weight, dy, dx);
        });
  });
  by_channel(p, dweights, dweight);
}

// Whether a convolution goes along one axis and keeps the size.
bool along_an_axis(const Problem& p) {
  const auto keeps = [](int64_t taps, int64_t stride, int64_t pad, int64_t dilation) {
    return stride == 1 && 2 * pad == taps - 1 && (taps == 1 || dilation == 1);
  };
  return (p.taps_high == 1 || p.taps_wide == 1) && keeps(p.taps_high, p.stride_high, p.pad_high, p.dilation_high) &&
         keeps(p.taps_wide, p.stride_wide, p.pad_wide, p.dilation_wide);
}

// Call `work(plan)` with the plan of the problem's kind, and return 0, or 1 if there is no such kind.
template <class Work>
int planned(const Problem& p, const Work& work) {
  const auto either = [&](auto taps) {
    if (along_an_axis(p)) work(Plan<taps, true>(p));
    else work(Plan<taps, false>(p));
    return 0;
  };
  switch (p.taps) {
    case 0: work(Plan<0, true>(p)); return 0;
    case 3: return either(std::integral_constant<int, 3>());
    case 5: return either(std::integral_constant<int, 5>());
    case 7: return either(std::integral_constant<int, 7>());
    case 9: return either(std::integral_constant<int, 9>());
    default: return 1;
  }
}

}  // namespace

#define DEFINE(NAME, T)                                                                                               \
  extern "C" int forward_##NAME(const Problem* p, const T* x, const float* weight, const float* gamma,                \
                                const float* beta, const T* added, float eps, T* y, float* mean, float* variance,     \
                                float* inverse) {                                                                     \
    return planned(*p, [&](const auto& plan) {                                                                        \
      forward(plan, x, by_tap(*p, weight).data(), gamma, beta, added, eps, y, mean, variance, inverse);               \
    });                                                                                                               \
  }                                                                                                                   \
  extern "C" int backward_##NAME(const Problem* p, const T* x, const T* y, const T* dy, const float* weight,          \
                                 const float* gamma, const float* beta, const float* mean, const float* inverse,      \
                                 T* dx, T* dadded, float* dweight, float* dgamma, float* dbeta) {                     \
    return planned(*p, [&](const auto& plan) {                                                                        \
      backward(plan, x, y, dy, by_tap(*p, weight).data(), gamma, beta, mean, inverse, dx, dadded, dweight, dgamma,    \
               dbeta);                                                                                                \
    });                                                                                                               \
  }

DEFINE(float32, float)
DEFINE(bfloat16, uint16_t)
