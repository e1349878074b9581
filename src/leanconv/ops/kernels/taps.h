// Weights of a convolution in registers.

#pragma once

#include "plan.h"

template <class P>
struct Weights {
  Vector taps[P::ROOM];

  // `weight` is (taps, channels).
  Weights(const float* weight, int64_t channels, int64_t first) {
    for (int t = 0; t < P::TAPS; ++t) taps[t] = load(weight + t * channels + first);
  }

  inline Vector operator()(const Vector* inputs) const {
    if constexpr (P::TAPS == 0) return inputs[0];
    Vector sum = taps[0] * inputs[0];
#pragma GCC unroll 9
    for (int t = 1; t < P::TAPS; ++t) sum += taps[t] * inputs[t];
    return sum;
  }

  // The gradient at an input, from those at the outputs of a line that have it under a tap.
  inline Vector backward(const Vector* gradients) const {
    if constexpr (P::TAPS == 0) return gradients[0];
    Vector sum = taps[0] * gradients[P::ROOM - 1];
#pragma GCC unroll 9
    for (int t = 1; t < P::TAPS; ++t) sum += taps[t] * gradients[P::ROOM - 1 - t];
    return sum;
  }
};

// Weights as convolutions of torch have them, (channels, taps), with the taps first.
inline std::vector<float> by_tap(const Problem& p, const float* weight) {
  std::vector<float> result(p.taps * p.channels);
  for (int64_t c = 0; c < p.channels; ++c)
    for (int64_t t = 0; t < p.taps; ++t) result[t * p.channels + c] = weight[c * p.taps + t];
  return result;
}

// Append to a row of values, which drops the first.
template <int SIZE>
inline void push(Vector* values, Vector value) {
#pragma GCC unroll 9
  for (int t = 0; t + 1 < SIZE; ++t) values[t] = values[t + 1];
  values[SIZE - 1] = value;
}
