// Images in float32 or bfloat16 with their channels moved last in memory.
//
// 16 samples of 16 channels at a time are transposed in registers, so that what is read and what is written are whole
// cache lines.

#include <algorithm>

#include "vectors.h"

namespace {

// Transpose 16 vectors: four times what lies 8 vectors apart comes to lie side by side.
inline void transpose(Vector* v) {
  using Places = int32_t __attribute__((vector_size(4 * LANES)));
  constexpr Places FIRST = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  constexpr Places SECOND = FIRST + 8;
  for (int step = 0; step < 4; ++step) {
    Vector next[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < LANES / 2; ++i) {
      next[2 * i] = __builtin_shuffle(v[i], v[i + LANES / 2], FIRST);
      next[2 * i + 1] = __builtin_shuffle(v[i], v[i + LANES / 2], SECOND);
    }
    std::copy(next, next + LANES, v);
  }
}

template <class T>
void move(int64_t images, int64_t channels, int64_t samples, int64_t threads, const T* x, T* y) {
  const int64_t strips = (samples + LANES - 1) / LANES;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int64_t i = 0; i < images * strips; ++i) {
    // Where samples or channels are left over, the last ones overlap those before them.
    const int64_t at = i / strips * channels * samples, j = std::min(i % strips * LANES, samples - LANES);
    for (int64_t block = 0; block < channels; block += LANES) {
      const int64_t c = std::min(block, channels - LANES);
      Vector v[LANES];
#pragma GCC unroll 16
      for (int k = 0; k < LANES; ++k) v[k] = load(x + at + (c + k) * samples + j);
      transpose(v);
#pragma GCC unroll 16
      for (int k = 0; k < LANES; ++k) store(y + at + (j + k) * channels + c, v[k]);
    }
  }
}

}  // namespace

#define DEFINE(NAME, T)                                                                                        \
  extern "C" void channels_last_##NAME(int64_t images, int64_t channels, int64_t samples, int64_t threads,     \
                                       const T* x, T* y) {                                                     \
    move(images, channels, samples, threads, x, y);                                                            \
  }

DEFINE(float32, float)
DEFINE(bfloat16, uint16_t)
