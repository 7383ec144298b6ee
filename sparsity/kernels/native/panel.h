// The operations of `kernels.h`, in the vectors of the including file.
#ifndef SPARSITY_PANEL_H_
#define SPARSITY_PANEL_H_

#include "vector.h"

namespace sparsity {
namespace {

// Rows of a product that are finished together: their results are turned round
// in a small tile, so that whole cache lines are written.
constexpr int kTile = 16;

template <typename T>
void pack_type(const Pack& a) {
  const T* const* rows = reinterpret_cast<const T* const*>(a.rows);
  int64_t channel = a.first_channel;
  for (; channel + 8 <= a.last_channel;) {
    // Sixteen channels are a cache line of float32: used up while it is here.
    int blocks = channel + 16 <= a.last_channel ? 2 : 1;
    for (int lane = 0; lane < a.lanes; lane += 8) {
      for (int block = 0; block < blocks; ++block) {
        int64_t c = channel + 8 * block;
        Eight square[8];
        for (int i = 0; i < 8; ++i) {
          const T* row = rows[lane + i];
          square[i] = row ? load_eight(row + c) : Eight{};
        }
        transpose(square);
        for (int i = 0; i < 8; ++i) {
          store(square[i], a.panel + (c + i) * a.lanes + lane);
        }
      }
    }
    channel += 8 * blocks;
  }
  for (; channel < a.last_channel; ++channel) {
    for (int lane = 0; lane < a.lanes; ++lane) {
      const T* row = rows[lane];
      a.panel[channel * a.lanes + lane] = row ? to_float(row[channel]) : 0.0f;
    }
  }
}

void pack(const Pack& a) {
  if (a.type == Type::kFloat32) {
    pack_type<float>(a);
  } else {
    pack_type<BFloat16>(a);
  }
}

// Writes `count` rows of a [kTile, lanes] tile into the lanes' outputs.
template <typename T>
void unpack(const float* tile, int lanes, int64_t first_row, int count,
            void* const* outputs) {
  T* const* rows = reinterpret_cast<T* const*>(outputs);
  for (int lane = 0; lane < lanes; lane += 8) {
    for (int block = 0; block < count; block += 8) {
      Eight square[8];
      for (int i = 0; i < 8; ++i) {
        square[i] = load<Eight>(tile + (block + i) * lanes + lane);
      }
      transpose(square);
      int valid = count - block < 8 ? count - block : 8;
      for (int i = 0; i < 8; ++i) {
        if (rows[lane + i] == nullptr) continue;
        T* to = rows[lane + i] + first_row + block;
        if (valid == 8) {
          store_eight(square[i], to);
        } else {
          T part[8];
          store_eight(square[i], part);
          memcpy(to, part, sizeof(T) * valid);
        }
      }
    }
  }
}

// Adds the entries of one row to its sums. With few vectors a row, several
// entries are summed apart, or each would wait for the one before.
template <int kVectors, bool kIndirect, typename T>
SPARSITY_INLINE void add_entries(const Product& a, const Part& part,
                                 int64_t row, Vector sum[kVectors]) {
  constexpr int kLanes = kVectors * kWidth;
  constexpr int kApart = kVectors >= 4 ? 1 : 4 / kVectors;
  const T* values = static_cast<const T*>(a.values);
  const int32_t* columns = a.columns;
  const int32_t* entries = a.entries;
  int32_t entry = part.begins[row];
  const int32_t end = part.ends[row];
  Vector apart[kApart][kVectors] = {};
  for (; entry + kApart <= end; entry += kApart) {
#pragma GCC unroll 4
    for (int k = 0; k < kApart; ++k) {
      float value = to_float(values[kIndirect ? entries[entry + k] : entry + k]);
      const float* x =
          part.panel + static_cast<int64_t>(columns[entry + k]) * kLanes;
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) {
        apart[k][i] += value * load<Vector>(x + i * kWidth);
      }
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < kApart; ++k) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) sum[i] += apart[k][i];
  }
  if (kApart == 1) return;
  for (; entry < end; ++entry) {
    float value = to_float(values[kIndirect ? entries[entry] : entry]);
    const float* x = part.panel + static_cast<int64_t>(columns[entry]) * kLanes;
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      sum[i] += value * load<Vector>(x + i * kWidth);
    }
  }
}

template <int kVectors, bool kIndirect, typename T>
void product_type(const Product& a) {
  constexpr int kLanes = kVectors * kWidth;
  alignas(64) float tile[kTile * kLanes] = {};
  for (int64_t first = a.first_row; first < a.last_row; first += kTile) {
    int64_t left = a.last_row - first;
    int count = left < kTile ? static_cast<int>(left) : kTile;
    for (int r = 0; r < count; ++r) {
      Vector sum[kVectors] = {};
      for (int part = 0; part < a.num_parts; ++part) {
        add_entries<kVectors, kIndirect, T>(a, a.parts[part], first + r, sum);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) {
        store(sum[i], tile + r * kLanes + i * kWidth);
      }
    }
    if (a.output_type == Type::kFloat32) {
      unpack<float>(tile, kLanes, first, count, a.outputs);
    } else {
      unpack<BFloat16>(tile, kLanes, first, count, a.outputs);
    }
  }
}

template <int kVectors>
void product_lanes(const Product& a) {
  bool is_float = a.value_type == Type::kFloat32;
  if (a.entries != nullptr) {
    if (is_float) return product_type<kVectors, true, float>(a);
    return product_type<kVectors, true, BFloat16>(a);
  }
  if (is_float) return product_type<kVectors, false, float>(a);
  return product_type<kVectors, false, BFloat16>(a);
}

void product(const Product& a) {
  if (a.lanes == 64) return product_lanes<64 / kWidth>(a);
  if (a.lanes == 32) return product_lanes<32 / kWidth>(a);
  return product_lanes<16 / kWidth>(a);
}

// The row's own vectors stay in registers while eight entries at a time are
// multiplied with them.
template <int kVectors>
void sample_lanes(const Sample& a) {
  constexpr int kLanes = kVectors * kWidth;
  for (int64_t row = a.first_row; row < a.last_row; ++row) {
    int32_t entry = a.rows[row];
    const int32_t end = a.rows[row + 1];
    Vector dy[kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      dy[i] = load<Vector>(a.outputs + row * kLanes + i * kWidth);
    }
    for (; entry < end; entry += 8) {
      int count = end - entry < 8 ? end - entry : 8;
      Eight dots[8];
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) {
        // Beyond the end, the last entry again: its sum is thrown away.
        int32_t column = a.columns[k < count ? entry + k : end - 1];
        const float* x = a.inputs + static_cast<int64_t>(column) * kLanes;
        Vector dot = dy[0] * load<Vector>(x);
#pragma GCC unroll 8
        for (int i = 1; i < kVectors; ++i) {
          dot += dy[i] * load<Vector>(x + i * kWidth);
        }
        dots[k] = fold(dot);
      }
      Eight result = sums(dots);
      if (count == 8) {
        if (a.add) result += load<Eight>(a.values + entry);
        store(result, a.values + entry);
      } else {
        float part[8];
        store(result, part);
        for (int k = 0; k < count; ++k) {
          a.values[entry + k] = part[k] + (a.add ? a.values[entry + k] : 0.0f);
        }
      }
    }
  }
}

void sample(const Sample& a) {
  if (a.lanes == 64) return sample_lanes<64 / kWidth>(a);
  if (a.lanes == 32) return sample_lanes<32 / kWidth>(a);
  return sample_lanes<16 / kWidth>(a);
}

}  // namespace
}  // namespace sparsity

#endif  // SPARSITY_PANEL_H_
