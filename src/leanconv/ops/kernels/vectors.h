// Vectors of 16 channels, in memory and in registers.

#pragma once

#include <cstdint>

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

inline Vector all(float value) { return Vector{} + value; }
