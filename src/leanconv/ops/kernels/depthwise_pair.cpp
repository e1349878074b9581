// Two depthwise convolutions, along the height and then along the width, in one pass, for float32 and bfloat16 images
// whose channels lie last in memory.
//
// A few rows at a time, and of these 16 channels at a time, the first convolution goes into scratch memory that the
// first cache holds, between columns of zeros, and the second one from there into the result.  Each loads a sample once
// for all the outputs it is part of.

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t ROWS = 4;       // of outputs that are computed together
constexpr int64_t COLUMNS = 4;    // the same along the width
constexpr int64_t SAMPLES = 64;   // that a band should have: images that are smaller share one

struct Size {
  int64_t images, height, width, channels, threads;
};

// Weights as convolutions of torch have them, (channels, taps), with the taps first.
std::vector<float> by_tap(const float* weight, int64_t channels, int64_t taps) {
  std::vector<float> result(taps * channels);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t t = 0; t < taps; ++t) result[t * channels + c] = weight[c * taps + t];
  return result;
}

// Outputs of a 1-D convolution that lie next to each other: `input(i)` is called once for each input, `present(i)` says
// whether there is one.
template <int TAPS, int64_t OUTPUTS, class Present, class Input>
__attribute__((always_inline)) inline void convolve(const Vector* taps, Vector bias, const Present& present,
                                                    const Input& input, Vector* sums) {
#pragma GCC unroll 16
  for (int o = 0; o < OUTPUTS; ++o) sums[o] = bias;
#pragma GCC unroll 16
  for (int i = 0; i < OUTPUTS + TAPS - 1; ++i)
    if (present(i)) {
      const Vector value = input(i);
#pragma GCC unroll 16
      for (int o = 0; o < OUTPUTS; ++o)
        if (i - o >= 0 && i - o < TAPS) sums[o] += taps[i - o] * value;
    }
}

template <int TAPS>
void load_taps(const std::vector<float>& weight, int64_t channels, int64_t c, Vector* taps) {
  for (int t = 0; t < TAPS; ++t) taps[t] = load(&weight[t * channels + c]);
}

template <class T, int TAPS>
void pair(const Size& s, const T* x, const float* high, const float* high_bias, const float* wide,
          const float* wide_bias, float upper, T* y) {
  constexpr int64_t PAD = TAPS / 2;
  const std::vector<float> high_weight = by_tap(high, s.channels, TAPS), wide_weight = by_tap(wide, s.channels, TAPS);
  const int64_t row = s.width * s.channels, line = (s.width + TAPS - 1 + COLUMNS) * LANES;
  const int64_t blocks = (s.channels + LANES - 1) / LANES, bands = (s.height + ROWS - 1) / ROWS;
  const int64_t group = std::max<int64_t>(1, std::min(s.images, SAMPLES / (s.height * s.width)));
  const int64_t groups = (s.images + group - 1) / group;
  const Vector most = all(upper);

  // The rows from `begin` of one image, of which those from `first` to before `end` are written.
  const auto compute = [&](const T* from, T* to, float* scratch, int64_t begin, int64_t first, int64_t end, int64_t c) {
    Vector taps[TAPS], sums[std::max(ROWS, COLUMNS)];
    load_taps<TAPS>(high_weight, s.channels, c, taps);
    Vector bias = load(high_bias + c);
    const T* above = from + (begin - PAD) * row + c;
    const auto columns = [&](const auto& present) __attribute__((always_inline)) {
      for (int64_t j = 0; j < s.width; ++j) {
        convolve<TAPS, ROWS>(
            taps, bias, present, [&](int i) __attribute__((always_inline)) { return load(above + i * row + j * s.channels); },
            sums);
        for (int64_t o = 0; o < ROWS; ++o) store(scratch + o * line + (PAD + j) * LANES, sums[o]);
      }
    };
    const auto inside = [&](int i) { return begin + i >= PAD && begin + i < s.height + PAD; };
    if (inside(0) && inside(ROWS + TAPS - 2))
      columns([](int) __attribute__((always_inline)) { return true; });
    else
      columns(inside);

    load_taps<TAPS>(wide_weight, s.channels, c, taps);
    bias = load(wide_bias + c);
    for (int64_t h = first; h < end; ++h)
      for (int64_t j = 0; j < s.width; j += COLUMNS) {
        const float* left = scratch + (h - begin) * line + j * LANES;
        convolve<TAPS, COLUMNS>(
            taps, bias, [](int) __attribute__((always_inline)) { return true; },
            [&](int i) __attribute__((always_inline)) { return load(left + i * LANES); }, sums);
        T* result = to + h * row + j * s.channels + c;
        const int64_t count = std::min(COLUMNS, s.width - j);
#pragma GCC unroll 4
        for (int64_t o = 0; o < COLUMNS; ++o) {
          const Vector value = sums[o];
          if (o < count)
            store(result + o * s.channels, upper > 0 ? (value < Vector{} ? Vector{} : value > most ? most : value) : value);
        }
      }
  };

#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
  {
    std::vector<float> memory(ROWS * line + LANES);
    float* scratch = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t{63});
#pragma omp for schedule(static)
    for (int64_t i = 0; i < groups * bands; ++i) {
      const int64_t n = i / bands * group, first = i % bands * ROWS, end = std::min(first + ROWS, s.height);
      const int64_t begin = std::max<int64_t>(0, std::min(first, s.height - ROWS));
      for (int64_t block = 0; block < blocks; ++block) {
        // Where channels are left over, the last block overlaps the one before it.
        const int64_t c = std::min(block * LANES, s.channels - LANES);
        for (int64_t m = n; m < std::min(n + group, s.images); ++m)
          compute(x + m * s.height * row, y + m * s.height * row, scratch, begin, first, end, c);
      }
    }
  }
}

}  // namespace

#define DEFINE(NAME, T)                                                                                               \
  extern "C" int depthwise_pair_##NAME(int64_t taps, const Size* s, const T* x, const float* high, const float* high_bias, \
                                       const float* wide, const float* wide_bias, float upper, T* y) {                \
    switch (taps) {                                                                                                   \
      case 3: pair<T, 3>(*s, x, high, high_bias, wide, wide_bias, upper, y); return 0;                                \
      case 5: pair<T, 5>(*s, x, high, high_bias, wide, wide_bias, upper, y); return 0;                                \
      case 7: pair<T, 7>(*s, x, high, high_bias, wide, wide_bias, upper, y); return 0;                                \
      case 9: pair<T, 9>(*s, x, high, high_bias, wide, wide_bias, upper, y); return 0;                                \
      default: return 1;                                                                                              \
    }                                                                                                                 \
  }

DEFINE(float32, float)
DEFINE(bfloat16, uint16_t)
