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
constexpr int64_t PART = 8;        // samples of a column: as many rows as caches hold at once, whatever their distance
constexpr int64_t NEAR = 1 << 19;  // elements that are found nearby when the next pass comes to them

// Order of images.  A pass that goes down after one that went up finds in the cache what that one came to last.
enum Order { UP, DOWN };

// Some lines of one image, or all lines of a group of images.
struct Band {
  int64_t group, first, last;  // images from `first` to before `last`
  int64_t begin, end;          // lines
  int64_t from, to;            // outputs of each line
  int64_t ahead, out_ahead;    // elements to what the next band reads and writes: it comes in steps that processors do
                               // not foresee, and is fetched early
};

// A problem with what follows from it, worked out once: divisions take as long as several samples.
//
// A line is a row of outputs.  LINEWISE, for convolutions along one axis that keep the size of images, and for none at
// all, it goes along that axis, and outputs lie as inputs do.
template <int N, bool LINEWISE_>
struct Plan : Problem {
  static constexpr int TAPS = N;
  static constexpr bool LINEWISE = LINEWISE_;
  static constexpr int ROOM = TAPS ? TAPS : 1;
  static constexpr int REACH = ROOM / 2;
  int64_t lines, length;              // of an image; outputs of a line
  int64_t part, band;                 // outputs of a line and lines that make a band
  int64_t along, between;             // elements from output to output and from line to line
  int64_t group, groups, blocks;      // images that have a band in common; of channels
  int64_t image, out_image;           // elements
  int64_t rows[ROOM], columns[ROOM];  // of the taps, relative to the first sample of an output
  int64_t first, last;                // between these columns of outputs no tap leaves a row
  double count;                       // samples that a channel is normalised over
  bool large;

  explicit Plan(const Problem& p) : Problem(p) {
    const bool vertical = LINEWISE && taps_high > 1;
    const int64_t samples = out_height * out_width;
    lines = TAPS == 0 && samples <= 2 * BAND ? 1 : vertical ? out_width : out_height;
    length = samples / lines;
    part = vertical ? std::min(PART, length) : length;
    band = std::min((BAND + part - 1) / part, lines);
    along = vertical ? out_width * channels : channels;
    between = vertical ? channels : out_width * channels;
    group = band < lines || part < length ? 1 : std::min((BAND + samples - 1) / samples, images);
    groups = (images + group - 1) / group;
    blocks = (channels + LANES - 1) / LANES;
    image = height * width * channels;
    out_image = samples * channels;
    count = double(images) * samples;
    for (int t = 0; t < TAPS; ++t) {
      rows[t] = t / taps_wide * dilation_high - pad_high;
      columns[t] = t % taps_wide * dilation_wide - pad_wide;
    }
    const int64_t inside = width + pad_wide - dilation_wide * (taps_wide - 1);
    first = std::min((pad_wide + stride_wide - 1) / stride_wide, out_width);
    last = std::max(first, std::min((inside + stride_wide - 1) / stride_wide, out_width));
    large = images * (image + out_image) > NEAR;
  }

  // Samples of a group.
  inline double samples(int64_t g) const {
    return double(std::min(group, images - g * group)) * out_height * out_width;
  }

  // First channel of a block.  Where channels are left over, the last block overlaps the one before it and computes
  // the same values again.
  inline int64_t channel(int64_t block) const { return std::min(block * LANES, channels - LANES); }

  // Where a value of a channel is found among values by block.
  inline int64_t by_block(int64_t c) const {
    const int64_t block = c / LANES;
    return block * LANES + c - channel(block);
  }

  inline Band band_at(int64_t number, int64_t from, int64_t begin, Order order) const {
    Band b{number, number * group, std::min((number + 1) * group, images)};
    b.begin = begin, b.end = std::min(begin + band, lines);
    b.from = from, b.to = std::min(from + part, length);
    if (!large) return b;
    const auto distance = [&](int64_t along, int64_t between, int64_t image) {
      if (b.end < lines) return (b.end - begin) * between;
      const int64_t next = b.to < length ? b.to * along : order == UP ? group * image : -group * image;
      return next - begin * between - from * along;
    };
    b.out_ahead = distance(along, between, out_image);
    b.ahead = LINEWISE ? b.out_ahead : distance(channels, stride_high * width * channels, image);
    return b;
  }
};

// Call `work(group, scratch)` for all groups of images, with scratch memory of this many zeros for each thread.
template <class P, class Work>
void for_groups(const P& p, Order order, int64_t scratch, const Work& work) {
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
  {
    std::vector<float> memory(scratch);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < p.groups; ++i) work(order == UP ? i : p.groups - 1 - i, memory.data());
  }
}

// Call `work(band, block, first channel)` for the bands of a group and within them for blocks of channels, and
// `end_band(band)` after each band.
template <class P, class Work, class End>
inline void for_bands(const P& p, int64_t group, Order order, const Work& work, const End& end_band) {
  for (int64_t from = 0; from < p.length; from += p.part)
    for (int64_t begin = 0; begin < p.lines; begin += p.band) {
      const Band band = p.band_at(group, from, begin, order);
      for (int64_t block = 0; block < p.blocks; ++block) work(band, block, p.channel(block));
      end_band(band);
    }
}

inline void nothing(const Band&) {}
