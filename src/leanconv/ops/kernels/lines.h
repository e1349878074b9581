// Convolutions along one axis that keep the size of images, and none at all, line by line: each sample is read once.

#pragma once

#include "taps.h"

// The samples under the taps while an output moves along a line; beyond its ends are zeros.
template <class P, class T>
struct Window {
  Vector samples[P::ROOM];
  const T* line;
  int64_t step, length, ahead;

  // Begin before output `i`.
  inline Window(const P& p, const Band& band, const T* line, int64_t i)
      : samples{}, line(line), step(p.along), length(p.length), ahead(band.ahead) {
#pragma GCC unroll 9
    for (int t = 1; t < P::ROOM; ++t) {
      const int64_t at = i + t - P::REACH - 1;
      if (at >= 0 && at < length) samples[t] = load(line + at * step);
    }
  }

  // Move to output `i` from the one before it.
  inline void move(int64_t i) {
    push<P::ROOM>(samples, Vector{});
    if (i + P::REACH >= length) return;
    const T* next = line + (i + P::REACH) * step;
    samples[P::ROOM - 1] = load(next);
    __builtin_prefetch(next + ahead);
  }
};

// See for_outputs.
template <class P, class T, class Use>
__attribute__((always_inline)) inline void for_outputs_of_lines(const P& p, const Band& band, const T* x,
                                                                const Use& use) {
  for (int64_t line = band.begin; line < band.end; ++line) {
    int64_t i = band.from, at = line * p.between + i * p.along;
    Window<P, T> window(p, band, x + line * p.between, i);
    const auto next = [&](int parity) __attribute__((always_inline)) {
      window.move(i++);
      use(at, window.samples, parity);
      at += p.along;
    };
    while (i + 1 < band.to) next(0), next(1);
    if (i < band.to) next(0);
  }
}

// Call `differentiate(offset, inputs, passed)` for the outputs of some lines of one image: it returns the gradient at
// the convolution's output, and what the residual passes.  Gradients of the input follow as the window moves on, those
// of weights are added to `products`.
template <class P, class T, class Differentiate>
__attribute__((always_inline)) inline void gradients_of_lines(const P& p, const Band& band, const Weights<P>& w,
                                                              const T* x, T* dx, Vector* products,
                                                              const Differentiate& differentiate) {
  const int64_t before = std::max(band.from - P::REACH, int64_t(0)), behind = std::min(band.to + P::REACH, p.length);
  for (int64_t line = band.begin; line < band.end; ++line) {
    const int64_t start = line * p.between;
    Window<P, T> window(p, band, x + start, before);
    Vector gradients[P::ROOM]{}, passed[P::REACH + 1]{};
    for (int64_t i = before; i < band.to + P::REACH; ++i) {
      push<P::ROOM>(gradients, Vector{});
      push<P::REACH + 1>(passed, Vector{});
      if (i < behind) {
        window.move(i);
        const Vector gradient = differentiate(start + i * p.along, window.samples, passed[P::REACH]);
        gradients[P::ROOM - 1] = gradient;
        if (i >= band.from && i < band.to)
#pragma GCC unroll 9
          for (int t = 0; t < P::TAPS; ++t) products[t] += gradient * window.samples[t];
      }
      if (i < band.from + P::REACH) continue;
      T* to = dx + start + (i - P::REACH) * p.along;
      __builtin_prefetch(to + band.ahead, 1);
      const Vector result = w.backward(gradients);
      store(to, p.residual ? result + passed[0] : result);
    }
  }
}
