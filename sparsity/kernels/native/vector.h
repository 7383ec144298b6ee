// Float vectors by compiler extensions, in the instruction set of the including
// file.
#ifndef SPARSITY_VECTOR_H_
#define SPARSITY_VECTOR_H_

#include <string.h>

#include "kernels.h"

#define SPARSITY_INLINE inline __attribute__((always_inline))

namespace sparsity {
namespace {

// Floats per register.
#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
constexpr int kWide = kWidth < 8 ? 8 : kWidth;

typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef float Wide __attribute__((vector_size(4 * kWide)));
typedef float Eight __attribute__((vector_size(32)));
typedef uint32_t EightBits __attribute__((vector_size(32)));
typedef uint16_t EightHalves __attribute__((vector_size(16)));

struct BFloat16 {
  uint16_t bits;
};

template <typename V>
SPARSITY_INLINE V load(const void* from) {
  V vector;
  memcpy(&vector, from, sizeof(V));
  return vector;
}

template <typename V>
SPARSITY_INLINE void store(V vector, void* to) {
  memcpy(to, &vector, sizeof(V));
}

SPARSITY_INLINE float to_float(float x) { return x; }

SPARSITY_INLINE float to_float(BFloat16 x) {
  uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float result;
  memcpy(&result, &bits, 4);
  return result;
}

SPARSITY_INLINE Eight load_eight(const float* from) {
  return load<Eight>(from);
}

SPARSITY_INLINE Eight load_eight(const BFloat16* from) {
  EightHalves halves = load<EightHalves>(from);
  return (Eight)(__builtin_convertvector(halves, EightBits) << 16);
}

SPARSITY_INLINE void store_eight(Eight x, float* to) { store(x, to); }

// Rounds to nearest, ties to even; keeps NaN.
SPARSITY_INLINE void store_eight(Eight x, BFloat16* to) {
  EightBits bits = (EightBits)x;
  EightBits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  EightBits is_nan = (EightBits)(x != x);
  rounded = (is_nan & 0x7fc0) | (~is_nan & rounded);
  store(__builtin_convertvector(rounded, EightHalves), to);
}

#define SPARSITY_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

SPARSITY_INLINE void transpose(Eight r[8]) {
  Eight s[8], t[8];
  for (int i = 0; i < 8; i += 2) {
    s[i] = SPARSITY_SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    s[i + 1] = SPARSITY_SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      Eight a = s[i + j], b = s[i + j + 2];
      t[i + 2 * j] = SPARSITY_SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
      t[i + 2 * j + 1] = SPARSITY_SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = SPARSITY_SHUFFLE(t[i], t[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    r[i + 4] = SPARSITY_SHUFFLE(t[i], t[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

#if defined(__AVX512F__)
SPARSITY_INLINE Eight fold(Wide x) {
  return SPARSITY_SHUFFLE(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
         SPARSITY_SHUFFLE(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
}
#else
SPARSITY_INLINE Eight fold(Wide x) { return x; }
#endif

SPARSITY_INLINE Eight add_pairs(Eight a, Eight b) {
  return SPARSITY_SHUFFLE(a, b, 0, 2, 8, 10, 4, 6, 12, 14) +
         SPARSITY_SHUFFLE(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
}

// Returns the horizontal sums of eight vectors at the cost of two or three; one
// by one they would cost more than the products before them.
SPARSITY_INLINE Eight sums(const Eight x[8]) {
  Eight low = add_pairs(add_pairs(x[0], x[1]), add_pairs(x[2], x[3]));
  Eight high = add_pairs(add_pairs(x[4], x[5]), add_pairs(x[6], x[7]));
  return SPARSITY_SHUFFLE(low, high, 0, 1, 2, 3, 8, 9, 10, 11) +
         SPARSITY_SHUFFLE(low, high, 4, 5, 6, 7, 12, 13, 14, 15);
}

}  // namespace
}  // namespace sparsity

#endif  // SPARSITY_VECTOR_H_
