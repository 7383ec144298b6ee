// The operations of `kernels.h` on masks, in the instruction set of the
// including file. Marked entries are those whose mask byte is 1.
#ifndef SPARSITY_MARKS_H_
#define SPARSITY_MARKS_H_

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "vector.h"

namespace sparsity {
namespace {

constexpr int kMarks = 64;  // mask bytes read together

#if defined(__AVX512F__)
SPARSITY_INLINE uint64_t marks_of_64(const uint8_t* mask) {
  const __m512i bytes = _mm512_loadu_si512(mask);
  return _mm512_test_epi8_mask(bytes, bytes);
}
#elif defined(__AVX2__)
SPARSITY_INLINE uint64_t marks_of_64(const uint8_t* mask) {
  // Shift each mark to the sign bit of its byte: 1 becomes 128.
  const auto marks = [](const uint8_t* from) {
    const auto* bytes = reinterpret_cast<const __m256i*>(from);
    const __m256i signs = _mm256_slli_epi16(_mm256_loadu_si256(bytes), 7);
    return static_cast<uint64_t>(
        static_cast<uint32_t>(_mm256_movemask_epi8(signs)));
  };
  return marks(mask) | marks(mask + 32) << 32;
}
#else
SPARSITY_INLINE uint64_t marks_of_64(const uint8_t* mask) {
  uint64_t result = 0;
  for (int i = 0; i < 64; i += 8) {
    // The product moves byte i from bit 8 i by 56 - 7 i to bit 56 + i.
    uint64_t bytes;
    memcpy(&bytes, mask + i, 8);
    result |= (bytes * 0x0102040810204080u) >> 56 << i;
  }
  return result;
}
#endif

// Returns byte i as bit i, for at most kMarks bytes that are 0 or 1.
SPARSITY_INLINE uint64_t marks_of(const uint8_t* mask, int count) {
  if (count >= kMarks) return marks_of_64(mask);
  uint8_t part[kMarks] = {};
  memcpy(part, mask, count);
  return marks_of_64(part);
}

// Adds the mask bytes of fewer than 256 rows to the counts of their columns.
SPARSITY_INLINE void count_columns(const uint8_t* mask, int64_t stride,
                                   int num_rows, int num_columns,
                                   int32_t* counts) {
  uint8_t sums[kBlock] = {};
  for (int row = 0; row < num_rows; ++row, mask += stride) {
    for (int i = 0; i < num_columns; ++i) sums[i] += mask[i];
  }
  for (int i = 0; i < num_columns; ++i) counts[i] += sums[i];
}

void count(const Patch& a) {
  if (!a.by_column) {
    const uint8_t* mask = a.mask;
    for (int row = 0; row < a.num_rows; ++row, mask += a.stride) {
      int32_t number = 0;
      for (int i = 0; i < a.num_columns; i += kMarks) {
        number += __builtin_popcountll(marks_of(mask + i, a.num_columns - i));
      }
      a.begins[row] = number;
    }
    return;
  }
  memset(a.begins, 0, sizeof(int32_t) * a.num_columns);
  constexpr int kRows = 255;
  for (int row = 0; row < a.num_rows; row += kRows) {
    const int left = a.num_rows - row;
    count_columns(a.mask + row * a.stride, a.stride, left < kRows ? left : kRows,
                  a.num_columns, a.begins);
  }
}

// Lists the marked weights of a row.
template <typename T>
SPARSITY_INLINE int32_t list_row(uint64_t marks, const T* weights,
                                 int32_t column, int32_t entry, int32_t* columns,
                                 float* values) {
  for (; marks != 0; marks &= marks - 1, ++entry) {
    const int i = __builtin_ctzll(marks);
    columns[entry] = column + i;
    values[entry] = to_float(weights[i]);
  }
  return entry;
}

#if defined(__AVX512F__)
// Lists sixteen at a time, without a branch for each.
SPARSITY_INLINE int32_t list_row(uint64_t marks, const float* weights,
                                 int32_t column, int32_t entry, int32_t* columns,
                                 float* values) {
  const __m512i places = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5,
                                          4, 3, 2, 1, 0);
  for (; marks != 0; marks >>= 16, weights += 16, column += 16) {
    const auto part = static_cast<__mmask16>(marks);
    const int number = __builtin_popcount(part);
    const auto all = static_cast<__mmask16>((1u << number) - 1);
    const __m512i from = _mm512_add_epi32(places, _mm512_set1_epi32(column));
    _mm512_mask_storeu_epi32(columns + entry, all,
                             _mm512_maskz_compress_epi32(part, from));
    _mm512_mask_storeu_ps(
        values + entry, all,
        _mm512_maskz_compress_ps(part, _mm512_maskz_loadu_ps(part, weights)));
    entry += number;
  }
  return entry;
}
#endif

template <typename T>
void list_type(const Patch& a) {
  const T* weights = static_cast<const T*>(a.weights);
  const uint8_t* mask = a.mask;
  int32_t next[kBlock];
  if (a.by_column) memcpy(next, a.begins, sizeof(int32_t) * a.num_columns);
  int32_t entry = *a.begins;
  for (int row = 0; row < a.num_rows;
       ++row, mask += a.stride, weights += a.stride) {
    for (int i = 0; i < a.num_columns; i += kMarks) {
      uint64_t marks = marks_of(mask + i, a.num_columns - i);
      if (!a.by_column) {
        entry = list_row(marks, weights + i, a.first + i, entry, a.columns,
                         a.values);
        continue;
      }
      for (; marks != 0; marks &= marks - 1) {
        const int column = i + __builtin_ctzll(marks);
        const int32_t at = next[column]++;
        a.columns[at] = a.first + row;
        a.values[at] = to_float(weights[column]);
      }
    }
  }
}

void list(const Patch& a) {
  if (a.type == Type::kFloat32) return list_type<float>(a);
  return list_type<BFloat16>(a);
}

}  // namespace
}  // namespace sparsity

#endif  // SPARSITY_MARKS_H_
