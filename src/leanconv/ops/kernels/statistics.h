// Sums over samples: statistics of batches, and what gradients need.

#pragma once

#include <cmath>
#include <vector>

#include "outputs.h"

inline void add(float* sum, Vector value) { store(sum, load(sum) + value); }

// The sum of what was summed up for each group of images.
inline std::vector<double> total(const std::vector<float>& values, int64_t groups) {
  const int64_t size = values.size() / groups;
  std::vector<double> result(size);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < size; ++i) result[i] += values[g * size + i];
  return result;
}

// The convolution's output at the middle of an image.
template <class P, class T>
inline Vector middle_output(const P& p, const T* x, const Weights<P>& w) {
  const int64_t i = p.out_height / 2, j = p.out_width / 2;
  if constexpr (P::TAPS == 0) return load(x + (i * p.width + j) * p.channels);
  Vector sum{};
  for (int t = 0; t < P::TAPS; ++t) {
    const int64_t row = i * p.stride_high + p.rows[t], column = j * p.stride_wide + p.columns[t];
    if (row >= 0 && row < p.height && column >= 0 && column < p.width)
      sum += w.taps[t] * load(x + (row * p.width + column) * p.channels);
  }
  return sum;
}

// Sums of differences to one sample, and of their squares, for each group of images and channel: a mean far from zero
// costs no accuracy.
struct Moments {
  std::vector<float> origins, firsts, seconds;

  Moments(int64_t groups, int64_t width) : origins(groups * width), firsts(groups * width), seconds(groups * width) {}

  // Put the groups together (Chan et al., 1979).
  template <class P>
  void finish(const P& p, float eps, float* mean, float* variance, float* inverse) const {
    const int64_t width = p.blocks * LANES;
    std::vector<double> means(width), squares(width);
    for (int64_t g = 0, i = 0; g < p.groups; ++g)
      for (int64_t c = 0; c < width; ++c, ++i) means[c] += (p.samples(g) * origins[i] + firsts[i]) / p.count;
    for (int64_t g = 0, i = 0; g < p.groups; ++g)
      for (int64_t c = 0; c < width; ++c, ++i) {
        const double shift = firsts[i] / p.samples(g), distance = origins[i] + shift - means[c];
        squares[c] += seconds[i] - shift * firsts[i] + p.samples(g) * distance * distance;
      }
    for (int64_t c = 0; c < p.channels; ++c) {
      const double square = squares[p.by_block(c)] / p.count;
      mean[c] = means[p.by_block(c)];
      variance[c] = square < 0 ? 0 : square;  // NaN stays NaN
      inverse[c] = 1 / std::sqrt(double(variance[c]) + eps);
    }
  }
};

// Mean, variance and inverse standard deviation of the convolution's output.
template <class T, class P>
void statistics(const P& p, const T* x, const float* weight, float eps, float* mean, float* variance,
                float* inverse) {
  const std::vector<T> zeros(p.width * p.channels);
  const int64_t width = p.blocks * LANES;
  Moments moments(p.groups, width);
  for_groups(p, UP, 0, [&](int64_t group, float*) {
    for_bands(
        p, group, UP,
        [&](const Band& band, int64_t block, int64_t c) {
          const Weights<P> w(weight, p.channels, c);
          const int64_t at = group * width + block * LANES;
          if (band.begin == 0 && band.from == 0)
            store(&moments.origins[at], middle_output(p, x + band.first * p.image + c, w));
          const Vector origin = load(&moments.origins[at]);
          Vector first[2]{}, second[2]{};
          for (int64_t n = band.first; n < band.last; ++n)
            for_outputs(p, band, x + n * p.image + c, zeros.data(),
                        [&](int64_t, const Vector* inputs, int parity) __attribute__((always_inline)) {
                          const Vector difference = w(inputs) - origin;
                          first[parity] += difference;
                          second[parity] += difference * difference;
                        });
          add(&moments.firsts[at], first[0] + first[1]);
          add(&moments.seconds[at], second[0] + second[1]);
        },
        nothing);
  });
  moments.finish(p, eps, mean, variance, inverse);
}

// Sums of the gradient behind a norm, and of its product with the difference of the norm's input and its mean, give the
// gradients of the norm's parameters; that of its input is `scale * gradient + slope * input + level`.
template <class P>
void reduce(const P& p, const std::vector<float>& firsts, const std::vector<float>& seconds, const float* mean,
            const float* inverse, const std::vector<float>& scale, float* dgamma, float* dbeta,
            std::vector<float>& slope, std::vector<float>& level) {
  const std::vector<double> sum_first = total(firsts, p.groups), sum_second = total(seconds, p.groups);
  for (int64_t c = 0; c < p.channels; ++c) {
    const double first = sum_first[p.by_block(c)], second = sum_second[p.by_block(c)];
    dbeta[c] = first;
    dgamma[c] = second * inverse[c];
    const double share = double(scale[c]) * inverse[c] * inverse[c] * second / p.count;
    slope[c] = -share;
    level[c] = share * mean[c] - scale[c] * first / p.count;
  }
}

// Sum up gradients of weights, and write them as convolutions of torch have them.
template <class P>
void by_channel(const P& p, const std::vector<float>& products, float* dweight) {
  const std::vector<double> sums = total(products, p.groups);
  for (int64_t c = 0; c < p.channels; ++c)
    for (int64_t t = 0; t < P::TAPS; ++t) dweight[c * P::TAPS + t] = sums[t * p.blocks * LANES + p.by_block(c)];
}
