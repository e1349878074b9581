// Gradients of inputs of convolutions of any geometry, row by row.  A residual may not have an activation behind it.

#pragma once

#include "outputs.h"

// Gradients at the convolution's output of the last rows of each image of a group, from which those of its input
// follow.
template <class P>
struct Ring {
  const P& p;
  int64_t width, rows;  // elements of a row with borders of zeros; a power of two

  explicit Ring(const P& p)
      : p(p), width((p.width + p.dilation_wide * (p.taps_wide - 1)) * p.channels), rows(1) {
    while (rows < p.band + p.dilation_high * (p.taps_high - 1) / p.stride_high + 1) rows *= 2;
  }

  // There is one more row of zeros.
  int64_t elements() const { return (p.group * rows + 1) * width; }

  // Where the gradients of an output row begin.
  inline int64_t row(int64_t image, int64_t i) const {
    return (image * rows + (i & (rows - 1))) * width + p.columns[P::ROOM - 1] * p.channels;
  }
  inline int64_t zeros() const { return p.group * rows * width; }

  // Write the gradients of some rows of one image's input.
  template <class T>
  void write(const float* memory, int64_t image, int64_t begin, int64_t end, const float* weight, const T* dy,
             T* dx) const {
    constexpr int64_t MOST = 32;
    int64_t from[MOST][P::ROOM];
    for (int64_t h0 = begin; h0 < end; h0 += MOST) {
      const int64_t count = std::min(MOST, end - h0);
      for (int64_t h = 0; h < count; ++h)
        for (int t = 0; t < P::TAPS; ++t) {
          const int64_t position = h0 + h - p.rows[t], i = p.stride_high == 1 ? position : position / p.stride_high;
          const bool known = position >= 0 && i * p.stride_high == position && i < p.out_height;
          from[h][t] = known ? row(image, i) - p.columns[t] * p.channels : zeros();
        }
      for (int64_t block = 0; block < p.blocks; ++block) {
        const int64_t c = p.channel(block);
        const Weights<P> w(weight, p.channels, c);
        for (int64_t h = 0; h < count; ++h) {
          const float* taps[P::ROOM];
          for (int t = 0; t < P::TAPS; ++t) taps[t] = memory + from[h][t] + c;
          const int64_t start = (h0 + h) * p.width * p.channels + c;
          for (int64_t v = 0; v < p.width; ++v) {
            Vector gradients[P::ROOM];
#pragma GCC unroll 9
            for (int t = 0; t < P::TAPS; ++t) gradients[t] = load(taps[t] + v * p.channels);
            Vector result = w(gradients);
            if (p.residual) result += load(dy + start + v * p.channels);
            store(dx + start + v * p.channels, result);
          }
        }
      }
    }
  }

  // Write the gradients of the rows of inputs that depend on no band after this one.
  template <class T>
  void write(const float* memory, const Band& band, const float* weight, const T* dy, T* dx) const {
    const auto until = [&](int64_t end) {
      return end == p.out_height ? p.height : std::clamp(end * p.stride_high - p.pad_high, int64_t(0), p.height);
    };
    const int64_t begin = band.begin ? until(band.begin) : 0;
    for (int64_t n = band.first; n < band.last; ++n)
      write(memory, n - band.first, begin, until(band.end), weight, dy + n * p.out_image, dx + n * p.image);
  }

  // Keep the gradients at the outputs of some rows of one image; see gradients_of_lines.
  template <class T, class Differentiate>
  __attribute__((always_inline)) inline void gradients_of_rows(float* memory, const Band& band, int64_t image,
                                                               const T* x, const T* zeros, Vector* products,
                                                               const Differentiate& differentiate) const {
    for (int64_t i = band.begin; i < band.end; ++i) {
      float* to = memory + row(image, i);
      for_outputs_of_rows(p, i, i + 1, band.ahead, x, zeros,
                          [&](int64_t at, const Vector* inputs, int) __attribute__((always_inline)) {
                            Vector passed;
                            const Vector gradient = differentiate(at, inputs, passed);
                            store(to + (at - i * p.between) * p.stride_wide, gradient);
#pragma GCC unroll 9
                            for (int t = 0; t < P::TAPS; ++t) products[t] += gradient * inputs[t];
                          });
    }
  }
};
