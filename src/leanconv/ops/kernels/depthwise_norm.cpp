// Depthwise convolution, batch norm, residual and activation, forward and backward, for float32 and bfloat16 images
// whose channels lie last in memory.
//
// Every pass goes through an image a few rows at a time, which the first cache holds, and through these 16 channels at
// a time: weights, sums and gradients of weights then stay in registers.  The convolution is computed again in every
// pass, because that takes less time than to write its result and read it back.  Sums are kept for each image and added
// up in a fixed order, in double precision: results do not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace {

constexpr int64_t LANES = 16;
// As they lie in memory, where addresses are multiples of one element.
using Floats = float __attribute__((vector_size(4 * LANES), aligned(4)));
using Halves = uint16_t __attribute__((vector_size(2 * LANES), aligned(2)));
// In registers.
using Vector = float __attribute__((vector_size(4 * LANES)));
using Words = uint32_t __attribute__((vector_size(4 * LANES)));

inline Vector load(const float* from) { return *reinterpret_cast<const Floats*>(from); }

inline Vector load(const uint16_t* from) {
  return reinterpret_cast<Vector>(__builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words) << 16);
}

inline void store(float* to, Vector value) { *reinterpret_cast<Floats*>(to) = value; }

inline void store(uint16_t* to, Vector value) {  // rounds to nearest, ties to even; NaN stays NaN
  const Words bits = reinterpret_cast<Words>(value);
  const Words rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(value == value ? rounded : (bits >> 16 | 0x40u), Halves);
}

// Fetch one of several equal parts of what a pass reads next.  It goes through memory in steps that
// processors do not foresee.
template <class T>
inline void fetch(const T* from, int64_t elements, int64_t part, int64_t parts) {
  const int64_t size = (elements + parts - 1) / parts;
  for (int64_t i = part * size; i < (part + 1) * size; i += 64 / sizeof(T)) __builtin_prefetch(from + i);
}

inline Vector all(float value) { return Vector{} + value; }

}  // namespace

// What a call works on; the fields and their order are repeated in library.py.
struct Problem {
  int64_t images, height, width, channels, out_height, out_width;
  int64_t taps_high, taps_wide, stride_high, stride_wide, pad_high, pad_wide, dilation_high, dilation_wide;
  int64_t taps;      // 0: no convolution, else taps_high * taps_wide
  int64_t residual;  // whether the input is added to the norm's output; needs stride 1 and a middle tap
  int64_t threads;
  float upper;  // activation: none if 0, else values are clamped to 0 ... upper
};

namespace {

constexpr int64_t BAND = 32;       // samples of a band of rows, at least
constexpr int64_t NEAR = 1 << 19;  // elements that are found nearby when the next pass comes to them

// Order of images.  A pass that goes down after one that went up finds in the cache what that one came to last.
enum Order { UP, DOWN };

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
  int64_t band, blocks;               // rows of a band; blocks of channels
  int64_t image, out_image;           // elements
  double count, out_samples;
  bool large;

  explicit Plan(const Problem& p) : Problem(p) {
    for (int t = 0; t < TAPS; ++t) {
      rows[t] = t / taps_wide * dilation_high - pad_high;
      columns[t] = t % taps_wide * dilation_wide - pad_wide;
    }
    const int64_t inside = width + pad_wide - dilation_wide * (taps_wide - 1);
    first = std::min((pad_wide + stride_wide - 1) / stride_wide, out_width);
    last = std::max(first, std::min((inside + stride_wide - 1) / stride_wide, out_width));
    band = (BAND + out_width - 1) / out_width;
    blocks = (channels + LANES - 1) / LANES;
    image = height * width * channels;
    out_image = out_height * out_width * channels;
    out_samples = double(out_height) * out_width;
    count = out_samples * images;
    large = images * (image + out_image) > NEAR;
  }

  // First channel of a block.  Where channels are left over, the last block overlaps the one before it and computes
  // the same values again.
  inline int64_t channel(int64_t block) const { return std::min(block * LANES, channels - LANES); }

  Ahead ahead(int64_t n, int64_t end, Order order) const {
    if (end == out_height) {
      n += order == UP ? 1 : -1;
      return {n * image, n * out_image};
    }
    const int64_t row = std::min(end * stride_high + (TAPS ? rows[TAPS - 1] : 0), height - 1);
    return {n * image + row * width * channels, n * out_image + end * out_width * channels};
  }

  // Elements of the next band to fetch: none where all of them fit into a cache nearby.
  int64_t band_x() const { return large * band * stride_high * width * channels; }
  int64_t band_y() const { return large * band * out_width * channels; }

  // Where a value of a channel is found among values by block.
  inline int64_t by_block(int64_t c) const {
    const int64_t block = c / LANES;
    return block * LANES + c - channel(block);
  }
};

// Call `work(image, scratch)` for all images, with scratch memory of this many zeros for each thread.
template <class Work>
void for_images(const Problem& p, Order order, int64_t scratch, const Work& work) {
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
  {
    std::vector<float> memory(scratch);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < p.images; ++n) work(order == UP ? n : p.images - 1 - n, memory.data());
  }
}

// Call `use(output sample, inputs, parity)` for outputs of some rows of one image, where `inputs` are the samples under
// the taps.  Two sums by parity are faster than one, whose every addition waits for the one before.
template <int TAPS, class T, class Use>
inline void for_outputs(const Plan<TAPS>& p, int64_t begin, int64_t end, const T* x, const T* zeros, const Use& use) {
  const int64_t step = p.channels * p.stride_wide;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t sample = i * p.out_width;
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
    for (; j + 1 < p.last; j += 2) inside(j, 0), inside(j + 1, 1);
    for (; j < p.last; ++j) inside(j, 0);
    if constexpr (TAPS > 0)
      for (; j < p.out_width; ++j) at_border(j);
  }
}

// Call `work(first row, end, block, first channel)` for bands of rows and within them for blocks of channels, and
// `end_band(end)` after each band.
template <int TAPS, class Work, class End>
inline void for_bands(const Plan<TAPS>& p, const Work& work, const End& end_band) {
  for (int64_t begin = 0; begin < p.out_height; begin += p.band) {
    const int64_t end = std::min(begin + p.band, p.out_height);
    for (int64_t block = 0; block < p.blocks; ++block) work(begin, end, block, p.channel(block));
    end_band(end);
  }
}

inline void nothing(int64_t) {}

template <int TAPS>
struct Weights {
  Vector taps[Plan<TAPS>::ROOM];

  // `weight` is (taps, channels).
  Weights(const float* weight, int64_t channels, int64_t first) {
    for (int t = 0; t < TAPS; ++t) taps[t] = load(weight + t * channels + first);
  }

  inline Vector operator()(const Vector* inputs) const {
    if constexpr (TAPS == 0) return inputs[0];
    Vector sum = taps[0] * inputs[0];
#pragma GCC unroll 9
    for (int t = 1; t < TAPS; ++t) sum += taps[t] * inputs[t];
    return sum;
  }
};

// Weights as convolutions of torch have them, (channels, taps), with the taps first.
std::vector<float> by_tap(const Problem& p, const float* weight) {
  std::vector<float> result(p.taps * p.channels);
  for (int64_t c = 0; c < p.channels; ++c)
    for (int64_t t = 0; t < p.taps; ++t) result[t * p.channels + c] = weight[c * p.taps + t];
  return result;
}

inline void add(float* sum, const Vector* by_parity) { store(sum, load(sum) + (by_parity[0] + by_parity[1])); }

// The sum of what was summed up for each image.
std::vector<double> total(const std::vector<float>& values, int64_t images) {
  const int64_t size = values.size() / images;
  std::vector<double> result(size);
  for (int64_t n = 0; n < images; ++n)
    for (int64_t i = 0; i < size; ++i) result[i] += values[n * size + i];
  return result;
}

// The convolution's output at the middle of an image.
template <int TAPS, class T>
inline Vector middle_output(const Plan<TAPS>& p, const T* x, const Weights<TAPS>& w) {
  const int64_t i = p.out_height / 2, j = p.out_width / 2;
  if constexpr (TAPS == 0) return load(x + (i * p.width + j) * p.channels);
  Vector sum{};
  for (int t = 0; t < TAPS; ++t) {
    const int64_t row = i * p.stride_high + p.rows[t], column = j * p.stride_wide + p.columns[t];
    if (row >= 0 && row < p.height && column >= 0 && column < p.width)
      sum += w.taps[t] * load(x + (row * p.width + column) * p.channels);
  }
  return sum;
}

// Mean and inverse standard deviation of the convolution's output.  Of each image, sums are taken of differences to
// one sample, so that a mean far from zero costs no accuracy; then images are put together (Chan et al., 1979).
template <class T, int TAPS>
void statistics(const Plan<TAPS>& p, const T* x, const float* weight, float eps, float* mean, float* variance,
                float* inverse) {
  const std::vector<T> zeros(p.width * p.channels);
  const int64_t width = p.blocks * LANES;
  std::vector<float> origins(p.images * width), firsts(p.images * width), seconds(p.images * width);
  for_images(p, UP, 0, [&](int64_t n, float*) {
    const T* image = x + n * p.image;
    for_bands<TAPS>(
        p,
        [&](int64_t begin, int64_t end, int64_t block, int64_t c) {
          fetch(x + p.ahead(n, end, UP).x, p.band_x(), block, p.blocks);
          const Weights<TAPS> w(weight, p.channels, c);
          const int64_t at = n * width + block * LANES;
          if (begin == 0) store(&origins[at], middle_output(p, image + c, w));
          const Vector origin = load(&origins[at]);
          Vector first[2]{}, second[2]{};
          for_outputs<TAPS>(p, begin, end, image + c, zeros.data(),
                            [&](int64_t, const Vector* inputs, int parity) __attribute__((always_inline)) {
                              const Vector difference = w(inputs) - origin;
                              first[parity] += difference;
                              second[parity] += difference * difference;
                            });
          add(&firsts[at], first);
          add(&seconds[at], second);
        },
        nothing);
  });
  std::vector<double> means(width), squares(width);
  for (int64_t n = 0; n < p.images; ++n)
    for (int64_t c = 0, i = n * width; c < width; ++c, ++i) means[c] += origins[i] + firsts[i] / p.out_samples;
  for (double& value : means) value /= p.images;
  for (int64_t n = 0; n < p.images; ++n)
    for (int64_t c = 0, i = n * width; c < width; ++c, ++i) {
      const double shift = firsts[i] / p.out_samples, distance = origins[i] + shift - means[c];
      squares[c] += seconds[i] - shift * firsts[i] + p.out_samples * distance * distance;
    }
  for (int64_t c = 0; c < p.channels; ++c) {
    const double square = squares[p.by_block(c)] / p.count;
    mean[c] = means[p.by_block(c)];
    variance[c] = square < 0 ? 0 : square;  // NaN stays NaN
    inverse[c] = 1 / std::sqrt(double(variance[c]) + eps);
  }
}

// y = activation(scale * convolution(x) + bias + residual + added).
template <class T, int TAPS>
void convolve(const Plan<TAPS>& p, const T* x, const float* weight, const float* scale, const float* bias,
              const T* added, T* y) {
  const std::vector<T> zeros(p.width * p.channels);
  const Vector upper = all(p.upper);
  const bool clamped = p.upper > 0;
  for_images(p, DOWN, 0, [&](int64_t n, float*) {
    for_bands<TAPS>(
        p,
        [&](int64_t begin, int64_t end, int64_t block, int64_t c) {
          const Ahead next = p.ahead(n, end, DOWN);
          fetch(x + next.x, p.band_x(), block, p.blocks);
          if (added) fetch(added + next.y, p.band_y(), block, p.blocks);
          const Weights<TAPS> w(weight, p.channels, c);
          const Vector factor = load(scale + c), constant = load(bias + c);
          const int64_t start = n * p.out_image + c;
          for_outputs<TAPS>(p, begin, end, x + n * p.image + c, zeros.data(),
                            [&](int64_t sample, const Vector* inputs, int) __attribute__((always_inline)) {
                              const int64_t at = start + sample * p.channels;
                              Vector value = w(inputs) * factor + constant;
                              if (p.residual) value += inputs[TAPS / 2];
                              if (added) value += load(added + at);
                              if (clamped) value = value < Vector{} ? Vector{} : value > upper ? upper : value;
                              store(y + at, value);
                            });
        },
        nothing);
  });
}

template <class T, int TAPS>
void forward(const Plan<TAPS>& p, const T* x, const float* weight, const float* gamma, const float* beta,
             const T* added, float eps, T* y, float* mean, float* variance, float* inverse) {
  statistics<T, TAPS>(p, x, weight, eps, mean, variance, inverse);
  std::vector<float> scale(p.channels), bias(p.channels);
  for (int64_t c = 0; c < p.channels; ++c) {
    scale[c] = gamma[c] * inverse[c];
    bias[c] = beta[c] - mean[c] * scale[c];
  }
  convolve<T, TAPS>(p, x, weight, scale.data(), bias.data(), added, y);
}

// Gradients at the convolution's output of the last rows of one image, from which those of its input follow.
template <int TAPS>
struct Ring {
  const Plan<TAPS>& p;
  int64_t reach_high, reach_wide, width, rows;

  explicit Ring(const Plan<TAPS>& p)
      : p(p),
        reach_high(p.dilation_high * (p.taps_high - 1)),
        reach_wide(p.dilation_wide * (p.taps_wide - 1)),
        width((p.width + reach_wide) * p.channels),
        rows(p.band + reach_high / p.stride_high + 1) {}

  // Rows have borders of zeros, and there is one more row of zeros.
  int64_t elements() const { return TAPS ? (rows + 1) * width : 0; }

  // Where the gradients of an output row begin.
  inline float* row(float* memory, int64_t i) const {
    return memory + i % rows * width + (reach_wide - p.pad_wide) * p.channels;
  }

  // Write the gradients of some rows of one image's input.
  template <class T>
  void write(const float* memory, int64_t begin, int64_t end, const float* weight, const T* dy, T* dx) const {
    for (int64_t block = 0; block < p.blocks; ++block) {
      const int64_t c = p.channel(block);
      const Weights<TAPS> w(weight, p.channels, c);
      for (int64_t h = begin; h < end; ++h) {
        const float* from[Plan<TAPS>::ROOM];
        for (int t = 0; t < TAPS; ++t) {
          const int64_t position = h - p.rows[t], i = position / p.stride_high;
          const bool known = position >= 0 && i * p.stride_high == position && i < p.out_height;
          from[t] = memory + (known ? i % rows : rows) * width + (reach_wide - p.pad_wide - p.columns[t]) * p.channels + c;
        }
        const int64_t start = h * p.width * p.channels + c;
        for (int64_t v = 0; v < p.width; ++v) {
          Vector gradients[Plan<TAPS>::ROOM];
#pragma GCC unroll 9
          for (int t = 0; t < TAPS; ++t) gradients[t] = load(from[t] + v * p.channels);
          Vector result = w(gradients);
          if (p.residual) result += load(dy + start + v * p.channels);
          store(dx + start + v * p.channels, result);
        }
      }
    }
  }
};

template <class T, int TAPS>
void backward(const Plan<TAPS>& p, const T* x, const T* y, const T* dy, const float* weight, const float* gamma,
              const float* beta, const float* mean, const float* inverse, T* dx, T* dadded, float* dweight,
              float* dgamma, float* dbeta) {
  const std::vector<T> zeros(p.width * p.channels);
  const int64_t width = p.blocks * LANES;
  const Vector upper = all(p.upper);
  const bool clamped = p.upper > 0;
  std::vector<float> firsts(p.images * width), seconds(p.images * width), scale(p.channels), bias(p.channels);
  for (int64_t c = 0; c < p.channels; ++c) {
    scale[c] = gamma[c] * inverse[c];
    bias[c] = beta[c] - mean[c] * scale[c];
  }
  // Sums of the gradient at the norm's output, and of its product with the norm's input.
  for_images(p, UP, 0, [&](int64_t n, float*) {
    for_bands<TAPS>(
        p,
        [&](int64_t begin, int64_t end, int64_t block, int64_t c) {
          const Ahead next = p.ahead(n, end, UP);
          fetch(x + next.x, p.band_x(), block, p.blocks);
          fetch(dy + next.y, p.band_y(), block, p.blocks);
          if (y) fetch(y + next.y, p.band_y(), block, p.blocks);
          const Weights<TAPS> w(weight, p.channels, c);
          const Vector centre = load(mean + c), factor = load(&scale[c]), constant = load(&bias[c]);
          const int64_t start = n * p.out_image + c, at = n * width + block * LANES;
          Vector first[2]{}, second[2]{};
          for_outputs<TAPS>(p, begin, end, x + n * p.image + c, zeros.data(),
                            [&](int64_t sample, const Vector* inputs, int parity) __attribute__((always_inline)) {
                              const int64_t here = start + sample * p.channels;
                              const Vector value = w(inputs);
                              Vector gradient = load(dy + here);
                              if (clamped) {
                                const Vector out = y ? load(y + here) : value * factor + constant;
                                gradient = (out > Vector{}) & (out < upper) ? gradient : Vector{};
                                if (dadded) store(dadded + here, gradient);
                              }
                              first[parity] += gradient;
                              second[parity] += gradient * (value - centre);
                            });
          add(&firsts[at], first);
          add(&seconds[at], second);
        },
        nothing);
  });
  const std::vector<double> sum_first = total(firsts, p.images), sum_second = total(seconds, p.images);
  // The gradient at the convolution's output is `scale * gradient + slope * output + level`.
  std::vector<float> slope(p.channels), level(p.channels);
  for (int64_t c = 0; c < p.channels; ++c) {
    const double first = sum_first[p.by_block(c)], second = sum_second[p.by_block(c)];
    dbeta[c] = first;
    dgamma[c] = second * inverse[c];
    const double share = double(scale[c]) * inverse[c] * inverse[c] * second / p.count;
    slope[c] = -share;
    level[c] = share * mean[c] - scale[c] * first / p.count;
  }
  if (clamped && dadded) dy = dadded;
  const bool masked = clamped && !dadded;
  const Ring<TAPS> ring(p);
  std::vector<float> dweights(p.images * TAPS * width);
  for_images(p, DOWN, ring.elements(), [&](int64_t n, float* memory) {
    int64_t written = 0;
    for_bands<TAPS>(
        p,
        [&](int64_t begin, int64_t end, int64_t block, int64_t c) {
          const Ahead next = p.ahead(n, end, DOWN);
          fetch(x + next.x, p.band_x(), block, p.blocks);
          fetch(dy + next.y, p.band_y(), block, p.blocks);
          const Weights<TAPS> w(weight, p.channels, c);
          const Vector factor = load(&scale[c]), constant = load(&bias[c]);
          const Vector inclined = load(&slope[c]), flat = load(&level[c]);
          const int64_t start = n * p.out_image + c;
          Vector products[Plan<TAPS>::ROOM][2]{};
          for (int64_t i = begin; i < end; ++i) {
            float* const inner = TAPS ? ring.row(memory, i) + c - i * p.out_width * p.channels * p.stride_wide : memory;
            for_outputs<TAPS>(p, i, i + 1, x + n * p.image + c, zeros.data(),
                              [&](int64_t sample, const Vector* inputs, int parity) __attribute__((always_inline)) {
                                const Vector value = w(inputs);
                                Vector gradient = load(dy + start + sample * p.channels);
                                if (masked) {
                                  const Vector out = value * factor + constant;
                                  gradient = (out > Vector{}) & (out < upper) ? gradient : Vector{};
                                }
                                const Vector result = gradient * factor + value * inclined + flat;
                                if constexpr (TAPS == 0) {
                                  store(dx + start + sample * p.channels, result);
                                } else {
                                  store(inner + sample * p.channels * p.stride_wide, result);
#pragma GCC unroll 9
                                  for (int t = 0; t < TAPS; ++t) products[t][parity] += result * inputs[t];
                                }
                              });
          }
          for (int t = 0; t < TAPS; ++t) add(&dweights[(n * TAPS + t) * width + block * LANES], products[t]);
        },
        [&](int64_t end) {
          if constexpr (TAPS > 0) {
            const int64_t known = end * p.stride_high - p.pad_high;  // rows up to here depend on no later band
            const int64_t until = end == p.out_height ? p.height : std::min(std::max(known, written), p.height);
            ring.write(memory, written, until, weight, dy + n * p.out_image, dx + n * p.image);
            written = until;
          }
        });
  });
  const std::vector<double> sums = total(dweights, p.images);
  for (int64_t c = 0; c < p.channels; ++c)
    for (int64_t t = 0; t < TAPS; ++t) dweight[c * TAPS + t] = sums[t * width + p.by_block(c)];
}

}  // namespace

#define FOR_TAPS(CALL)        \
  switch (p->taps) {          \
    case 0: CALL(0); break;   \
    case 3: CALL(3); break;   \
    case 5: CALL(5); break;   \
    case 7: CALL(7); break;   \
    case 9: CALL(9); break;   \
    default: return 1;        \
  }                           \
  return 0

#define DEFINE(NAME, T)                                                                                             \
  extern "C" int forward_##NAME(const Problem* p, const T* x, const float* weight, const float* gamma,              \
                                const float* beta, const T* added, float eps, T* y, float* mean, float* variance,   \
                                float* inverse) {                                                                   \
    FOR_TAPS(FORWARD);                                                                                              \
  }                                                                                                                 \
  extern "C" int backward_##NAME(const Problem* p, const T* x, const T* y, const T* dy, const float* weight,        \
                                 const float* gamma, const float* beta, const float* mean, const float* inverse,    \
                                 T* dx, T* dadded, float* dweight, float* dgamma, float* dbeta) {                   \
    FOR_TAPS(BACKWARD);                                                                                             \
  }

#define FORWARD(TAPS) forward<std::remove_const_t<std::remove_pointer_t<decltype(x)>>, TAPS>(Plan<TAPS>(*p), x, by_tap(*p, weight).data(), gamma, beta, added, eps, y, mean, variance, inverse)
#define BACKWARD(TAPS) backward<std::remove_const_t<std::remove_pointer_t<decltype(x)>>, TAPS>(Plan<TAPS>(*p), x, y, dy, by_tap(*p, weight).data(), gamma, beta, mean, inverse, dx, dadded, dweight, dgamma, dbeta)

DEFINE(float32, float)
DEFINE(bfloat16, uint16_t)
