// Two depthwise convolutions, along the height and then along the width, in one pass, for float32 and bfloat16 images
// whose channels lie last in memory.
//
// A few rows at a time, and of these 32 channels at a time, which are two cache lines side by side, the first
// convolution goes into scratch memory that the first cache holds, between columns of zeros, and the second one from
// there into the result.  Each loads a sample once for all the outputs of a few that it is part of.

#include <algorithm>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t ROWS = 4;      // of outputs that are computed together
constexpr int64_t COLUMNS = 2;   // the same along the width
constexpr int64_t SAMPLES = 64;  // that a band should have: images that are smaller share one
constexpr int WIDE = 2;          // vectors of channels that are computed together where there are as many

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

// Weights and biases of a 1-D convolution of some vectors of channels.
template <int TAPS, int VECTORS>
struct Weights {
  Vector taps[VECTORS][TAPS], bias[VECTORS];

  Weights(const std::vector<float>& by_tap, const float* biases, int64_t channels, int64_t c) {
    for (int v = 0; v < VECTORS; ++v) {
      for (int t = 0; t < TAPS; ++t) taps[v][t] = load(&by_tap[t * channels + c + v * LANES]);
      bias[v] = load(biases + c + v * LANES);
    }
  }
};

// Some rows of one image: those from `begin` are computed, those from `first` to before `end` are written.
struct Band {
  int64_t begin, first, end;
};

// Elements of a row of scratch memory for one vector of channels.
inline int64_t line(const Size& s, int64_t taps) { return (s.width + taps - 1 + COLUMNS) * LANES; }

// Inlined, weights stay in registers.
template <int TAPS, int VECTORS, class T>
__attribute__((always_inline)) inline void along_height(const Size& s, const Band& band, Weights<TAPS, VECTORS> w,
                                                        const T* x, float* scratch) {
  constexpr int64_t PAD = TAPS / 2;
  const int64_t row = s.width * s.channels;
  const auto columns = [&](const auto& present) __attribute__((always_inline)) {
    for (int64_t j = 0; j < s.width; ++j)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) {
        const T* above = x + (band.begin - PAD) * row + j * s.channels + v * LANES;
        float* to = scratch + ((PAD + j) * VECTORS + v) * LANES;
        Vector sums[ROWS];
        convolve<TAPS, ROWS>(
            w.taps[v], w.bias[v], present,
            [&](int i) __attribute__((always_inline)) { return load(above + i * row); }, sums);
        for (int64_t o = 0; o < ROWS; ++o) store(to + o * VECTORS * line(s, TAPS), sums[o]);
      }
  };
  const auto inside = [&](int i) { return band.begin + i >= PAD && band.begin + i < s.height + PAD; };
  if (inside(0) && inside(ROWS + TAPS - 2))
    columns([](int) __attribute__((always_inline)) { return true; });
  else
    columns(inside);
}

template <int TAPS, int VECTORS, class T>
__attribute__((always_inline)) inline void along_width(const Size& s, const Band& band, Weights<TAPS, VECTORS> w,
                                                       const float* scratch, float upper, T* y) {
  const Vector most = all(upper);
  for (int64_t h = band.first; h < band.end; ++h)
    for (int64_t j = 0; j < s.width; j += COLUMNS)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) {
        const float* left = scratch + (h - band.begin) * VECTORS * line(s, TAPS) + (j * VECTORS + v) * LANES;
        T* to = y + (h * s.width + j) * s.channels + v * LANES;
        Vector sums[COLUMNS];
        convolve<TAPS, COLUMNS>(
            w.taps[v], w.bias[v], [](int) __attribute__((always_inline)) { return true; },
            [&](int i) __attribute__((always_inline)) { return load(left + i * VECTORS * LANES); }, sums);
#pragma GCC unroll 2
        for (int64_t o = 0; o < COLUMNS; ++o) {
          const Vector sum = sums[o];
          if (j + o < s.width)
            store(to + o * s.channels, upper > 0 ? (sum < Vector{} ? Vector{} : sum > most ? most : sum) : sum);
        }
      }
}

template <class T, int TAPS>
void pair(const Size& s, const T* x, const float* high, const float* high_bias, const float* wide,
          const float* wide_bias, float upper, T* y) {
  const std::vector<float> high_taps = by_tap(high, s.channels, TAPS), wide_taps = by_tap(wide, s.channels, TAPS);
  const int64_t image = s.height * s.width * s.channels, bands = (s.height + ROWS - 1) / ROWS;
  const int64_t group = std::max<int64_t>(1, std::min(s.images, SAMPLES / (s.height * s.width)));
  const int64_t groups = (s.images + group - 1) / group;

#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
  {
    std::vector<float> memory(ROWS * (WIDE + 1) * line(s, TAPS) + LANES);
    // For each number of vectors its own, whose borders stay zero.
    float* scratch = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t{63});
    float* narrow = scratch + ROWS * WIDE * line(s, TAPS);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < groups * bands; ++i) {
      const int64_t n = i / bands * group, first = i % bands * ROWS;
      const Band band{std::max<int64_t>(0, std::min(first, s.height - ROWS)), first, std::min(first + ROWS, s.height)};
      const auto channels = [&](auto vectors, int64_t c, float* rows) {
        constexpr int VECTORS = decltype(vectors)::value;
        const Weights<TAPS, VECTORS> w(high_taps, high_bias, s.channels, c), u(wide_taps, wide_bias, s.channels, c);
        for (int64_t m = n; m < std::min(n + group, s.images); ++m) {
          along_height(s, band, w, x + m * image + c, rows);
          along_width(s, band, u, rows, upper, y + m * image + c);
        }
      };
      // Where channels are left over, the last ones overlap those before them.
      int64_t c = 0;
      for (; s.channels >= WIDE * LANES && c + LANES < s.channels; c += WIDE * LANES)
        channels(std::integral_constant<int, WIDE>(), std::min(c, s.channels - WIDE * LANES), scratch);
      for (; c < s.channels; c += LANES)
        channels(std::integral_constant<int, 1>(), std::min(c, s.channels - LANES), narrow);
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
