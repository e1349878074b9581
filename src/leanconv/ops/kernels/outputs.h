// The outputs of a convolution, one by one.

#pragma once

#include "lines.h"

// See for_outputs; of rows of any geometry.
template <class P, class T, class Use>
__attribute__((always_inline)) inline void for_outputs_of_rows(const P& p, int64_t begin, int64_t end, int64_t ahead,
                                                               const T* x, const T* zeros, const Use& use) {
  const int64_t step = p.channels * p.stride_wide;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t start = i * p.between;
    const T *rows[P::ROOM], *next = x + i * p.stride_high * p.width * p.channels + ahead;
    for (int t = 0; t < P::TAPS; ++t) {
      const int64_t row = i * p.stride_high + p.rows[t];
      rows[t] = (row >= 0 && row < p.height ? x + row * p.width * p.channels : zeros) + p.columns[t] * p.channels;
    }
    const auto inside = [&](int64_t j, int parity) __attribute__((always_inline)) {
      Vector inputs[P::ROOM];
#pragma GCC unroll 9
      for (int t = 0; t < P::TAPS; ++t) inputs[t] = load(rows[t] + j * step);
      for (int64_t row = 0; row < p.stride_high; ++row)
        for (int64_t column = 0; column < p.stride_wide; ++column)
          __builtin_prefetch(next + j * step + (row * p.width + column) * p.channels);
      use(start + j * p.channels, inputs, parity);
    };
    const auto at_border = [&](int64_t j) __attribute__((always_inline)) {
      Vector inputs[P::ROOM];
#pragma GCC unroll 9
      for (int t = 0; t < P::TAPS; ++t) {
        const int64_t column = j * p.stride_wide + p.columns[t];
        inputs[t] = load(column >= 0 && column < p.width ? rows[t] + j * step : zeros);
      }
      use(start + j * p.channels, inputs, 0);
    };
    int64_t j = 0;
    for (; j < p.first; ++j) at_border(j);
    for (; j + 1 < p.last; j += 2) inside(j, 0), inside(j + 1, 1);
    for (; j < p.last; ++j) inside(j, 0);
    for (; j < p.out_width; ++j) at_border(j);
  }
}

// Call `use(offset, inputs, parity)` for the outputs of a band in one image, where `offset` is that of the output and
// `inputs` are the samples under the taps.  Two sums by parity are faster than one, whose every addition waits for the
// one before.  Inlined, weights stay in registers.
template <class P, class T, class Use>
__attribute__((always_inline)) inline void for_outputs(const P& p, const Band& band, const T* x, const T* zeros,
                                                       const Use& use) {
  if constexpr (P::LINEWISE) for_outputs_of_lines(p, band, x, use);
  else for_outputs_of_rows(p, band.begin, band.end, band.ahead, x, zeros, use);
}
