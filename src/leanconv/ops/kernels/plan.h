// In which order a pass goes through images.

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

// What a call works on; the fields and their order are repeated in library.py.
struct Problem {
  int64_t images, height, width, channels, out_height, out_width;
  int64_t taps_high, taps_wide, stride_high, stride_wide, pad_high, pad_wide, dilation_high, dilation_wide;
  int64_t taps;      // 0: no convolution, else taps_high * taps_wide
  int64_t residual;  // whether the input is added to the norm's output; needs stride 1 and a middle tap
  int64_t threads;
  float upper;  // activation: none if 0, else values are clamped to 0 ... upper
};

constexpr int64_t BAND = 32;       // samples of a band, at least
constexpr int64_t NEAR = 1 << 19;  // elements that are found nearby when the next pass comes to them

// Order of images.  A pass that goes down after one that went up finds in the cache what that one came to last.
enum Order { UP, DOWN };

// Some rows of one image, or all rows of a group of images.
struct Band {
  int64_t group, first, last;  // images from `first` to before `last`
  int64_t begin, end;          // rows
};

// Elements from which on the next band reads and writes.
struct Ahead {
  int64_t x, y;
};

// A problem with what follows from it, worked out once: divisions take as long as several samples.
template <int TAPS>
struct Plan : Problem {
  static constexpr int ROOM = TAPS ? TAPS : 1;
  int64_t rows[ROOM], columns[ROOM];  // of the taps, relative to the first sample of an output
  int64_t first, last;                // between these columns of outputs no tap leaves a row
  int64_t top, bottom;                // between these rows of outputs lines of samples go on from row to row
  int64_t band, group, groups;        // rows of a band; images that have a band in common
  int64_t blocks;                     // of channels
  int64_t image, out_image;           // elements
  double count;                       // samples that a channel is normalised over
  bool large;

  explicit Plan(const Problem& p) : Problem(p) {
    for (int t = 0; t < TAPS; ++t) {
      rows[t] = t / taps_wide * dilation_high - pad_high;
      columns[t] = t % taps_wide * dilation_wide - pad_wide;
    }
    const int64_t inside = width + pad_wide - dilation_wide * (taps_wide - 1);
    first = std::min((pad_wide + stride_wide - 1) / stride_wide, out_width);
    last = std::max(first, std::min((inside + stride_wide - 1) / stride_wide, out_width));
    const bool lines = width == out_width && taps_wide == 1 && stride_wide == 1 && stride_high == 1;
    top = lines ? pad_high : 0;
    bottom = lines ? height - dilation_high * (taps_high - 1) + pad_high : 0;
    const int64_t samples = out_height * out_width;
    band = std::min((BAND + out_width - 1) / out_width, out_height);
    group = band < out_height ? 1 : std::min((BAND + samples - 1) / samples, images);
    groups = (images + group - 1) / group;
    blocks = (channels + LANES - 1) / LANES;
    image = height * width * channels;
    out_image = out_height * out_width * channels;
    count = double(images) * samples;
    large = images * (image + out_image) > NEAR;
  }

  // Samples of a group.
  inline double samples(int64_t g) const {
    return double(std::min(group, images - g * group)) * out_height * out_width;
  }

  // First channel of a block.  Where channels are left over, the last block overlaps the one before it and computes
  // the same values again.
  inline int64_t channel(int64_t block) const { return std::min(block * LANES, channels - LANES); }

  Ahead ahead(const Band& now, Order order) const {
    if (now.end == out_height) {
      const int64_t n = order == UP ? now.last : now.first - group;
      return {n * image, n * out_image};
    }
    const int64_t row = std::min(now.end * stride_high + (TAPS ? rows[TAPS - 1] : 0), height - 1);
    return {now.first * image + row * width * channels, now.first * out_image + now.end * out_width * channels};
  }

  // Elements of the next band to fetch: none where all of them fit into a cache nearby.
  int64_t band_x() const { return large * group * band * stride_high * width * channels; }
  int64_t band_y() const { return large * group * band * out_width * channels; }

  // Where a value of a channel is found among values by block.
  inline int64_t by_block(int64_t c) const {
    const int64_t block = c / LANES;
    return block * LANES + c - channel(block);
  }
};

// Call `work(group, scratch)` for all groups of images, with scratch memory of this many zeros for each thread.
template <int TAPS, class Work>
void for_groups(const Plan<TAPS>& p, Order order, int64_t scratch, const Work& work) {
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
  {
    std::vector<float> memory(scratch);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < p.groups; ++i) work(order == UP ? i : p.groups - 1 - i, memory.data());
  }
}

// Call `use(output sample, inputs, parity)` for outputs of some rows of one image, where `inputs` are the samples under
// the taps.  Two sums by parity are faster than one, whose every addition waits for the one before.  Inlined, weights
// stay in registers.
template <int TAPS, class T, class Use>
__attribute__((always_inline)) inline void for_outputs(const Plan<TAPS>& p, int64_t begin, int64_t end, const T* x, const T* zeros, const Use& use) {
  const int64_t step = p.channels * p.stride_wide;
  for (int64_t i = begin, rows_done = 1; i < end; i += rows_done) {
    rows_done = i >= p.top && i < p.bottom ? std::min(end, p.bottom) - i : 1;
    const int64_t sample = i * p.out_width, stop = rows_done * p.out_width, last = rows_done == 1 ? p.last : stop;
    const T* rows[Plan<TAPS>::ROOM] = {x + sample * p.channels};
    for (int t = 0; t < TAPS; ++t) {
      const int64_t row = i * p.stride_high + p.rows[t];
      rows[t] = (row >= 0 && row < p.height ? x + row * p.width * p.channels : zeros) + p.columns[t] * p.channels;
    }
    auto inside = [&](int64_t j, int parity) __attribute__((always_inline)) {
      Vector inputs[Plan<TAPS>::ROOM];
      if constexpr (TAPS == 0) inputs[0] = load(rows[0] + j * step);
#pragma GCC unroll 9
      for (int t = 0; t < TAPS; ++t) inputs[t] = load(rows[t] + j * step);
      use(sample + j, inputs, parity);
    };
    auto at_border = [&](int64_t j) __attribute__((always_inline)) {
      Vector inputs[Plan<TAPS>::ROOM];
#pragma GCC unroll 9
      for (int t = 0; t < TAPS; ++t) {
        const int64_t column = j * p.stride_wide + p.columns[t];
        inputs[t] = load(column >= 0 && column < p.width ? rows[t] + j * step : zeros);
      }
      use(sample + j, inputs, 0);
    };
    int64_t j = 0;
    if constexpr (TAPS > 0)
      for (; j < p.first; ++j) at_border(j);
    for (; j + 1 < last; j += 2) inside(j, 0), inside(j + 1, 1);
    for (; j < last; ++j) inside(j, 0);
    if constexpr (TAPS > 0)
      for (; j < stop; ++j) at_border(j);
  }
}

// Call `work(band, block, first channel)` for the bands of a group and within them for blocks of channels, and
// `end_band(band)` after each band.
template <int TAPS, class Work, class End>
inline void for_bands(const Plan<TAPS>& p, int64_t group, const Work& work, const End& end_band) {
  const int64_t first = group * p.group, last = std::min(first + p.group, p.images);
  for (int64_t begin = 0; begin < p.out_height; begin += p.band) {
    const Band band{group, first, last, begin, std::min(begin + p.band, p.out_height)};
    for (int64_t block = 0; block < p.blocks; ++block) work(band, block, p.channel(block));
    end_band(band);
  }
}

inline void nothing(const Band&) {}
