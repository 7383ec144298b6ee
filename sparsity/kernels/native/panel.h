// The operations of `kernels.h`, in the vectors of the including file.
#ifndef SPARSITY_PANEL_H_
#define SPARSITY_PANEL_H_

#include "vector.h"

namespace sparsity {
namespace {

// Rows of a product that are finished together: their results are turned round
// in a small tile, so that whole cache lines are written.
constexpr int kTile = 64;

// Channels packed together: some cache lines of a row one after the other, and
// no more of the panel than the first-level cache holds.
constexpr int64_t kPackTile = 64;

// Entries are read once for each panel, in order: they are fetched early, and
// past the second-level cache, where they would push out the panel.
constexpr int kAhead = 48;

SPARSITY_INLINE void prefetch_once(const void* address) {
  __builtin_prefetch(address, 0, 0);
}

template <typename T>
void pack_type(const Pack& a) {
  const T* const* rows = reinterpret_cast<const T* const*>(a.rows);
  int64_t channel = a.first_channel;
  while (channel + 8 <= a.last_channel) {
    int64_t left = (a.last_channel - channel) / 8 * 8;
    int64_t end = channel + (left < kPackTile ? left : kPackTile);
    for (int lane = 0; lane < a.lanes; lane += 8) {
      for (int64_t c = channel; c < end; c += 8) {
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
    channel = end;
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

template <typename T>
void gather_type(const Gather& a) {
  const T* values = static_cast<const T*>(a.values);
  for (int64_t i = a.first; i < a.last; ++i) {
    if (i + 64 < a.last) __builtin_prefetch(values + a.entries[i + 64]);
    a.to[i] = to_float(values[a.entries[i]]);
  }
}

void gather(const Gather& a) {
  if (a.type == Type::kFloat32) return gather_type<float>(a);
  return gather_type<BFloat16>(a);
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

// The rows of A lie apart, those of B only in between, so the processor cannot
// guess where the next one begins.
SPARSITY_INLINE void prefetch_row(const Product& a, int32_t begin) {
  const char* columns = reinterpret_cast<const char*>(a.columns + begin);
  size_t size = a.value_type == Type::kFloat32 ? 4 : 2;
  const char* values = static_cast<const char*>(a.values) + begin * size;
  for (int line = 0; line < 4; ++line) {
    __builtin_prefetch(columns + 64 * line);
    __builtin_prefetch(values + 64 * line);
  }
}

// Adds the entries of one row to its sums, for some of the panel's lanes. With
// few vectors a row, several entries are summed apart, or each would wait for
// the one before.
template <int kLanes, int kVectors, typename T>
SPARSITY_INLINE void add_entries(const Product& a, int32_t entry, int32_t end,
                                 const float* panel, Vector sum[kVectors]) {
  constexpr int kApart = kVectors >= 4 ? 1 : 4 / kVectors;
  const T* values = static_cast<const T*>(a.values);
  Vector apart[kApart][kVectors] = {};
  for (; entry + kApart <= end; entry += kApart) {
    if (entry % 16 < kApart) {
      prefetch_once(a.columns + entry + kAhead);
      prefetch_once(values + entry + kAhead);
    }
#pragma GCC unroll 4
    for (int k = 0; k < kApart; ++k) {
      const float value = to_float(values[entry + k]);
      const float* x =
          panel + static_cast<int64_t>(a.columns[entry + k]) * kLanes;
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
    const float value = to_float(values[entry]);
    const float* x = panel + static_cast<int64_t>(a.columns[entry]) * kLanes;
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      sum[i] += value * load<Vector>(x + i * kWidth);
    }
  }
}

template <int kLanes, typename T>
void product_type(const Product& a) {
  // Eight sums and what is added to them fit the registers of any processor.
  constexpr int kVectors = kLanes / kWidth < 8 ? kLanes / kWidth : 8;
  alignas(64) float tile[kTile * kLanes] = {};
  for (int64_t first = a.first_row; first < a.last_row; first += kTile) {
    const int64_t left = a.last_row - first;
    const int count = left < kTile ? static_cast<int>(left) : kTile;
    for (int r = 0; r < count; ++r) {
      const int64_t row = first + r;
      for (int lane = 0; lane < kLanes; lane += kVectors * kWidth) {
        Vector sum[kVectors] = {};
        for (int i = 0; i < a.num_parts; ++i) {
          const Part& part = a.parts[i];
          if (row + 1 < a.last_row) prefetch_row(a, part.begins[row + 1]);
          add_entries<kLanes, kVectors, T>(a, part.begins[row], part.ends[row],
                                           part.panel + lane, sum);
        }
#pragma GCC unroll 8
        for (int i = 0; i < kVectors; ++i) {
          store(sum[i], tile + r * kLanes + lane + i * kWidth);
        }
      }
    }
    if (a.output_type == Type::kFloat32) {
      unpack<float>(tile, kLanes, first, count, a.outputs);
    } else {
      unpack<BFloat16>(tile, kLanes, first, count, a.outputs);
    }
  }
}

template <int kLanes>
void product_lanes(const Product& a) {
  if (a.value_type == Type::kFloat32) return product_type<kLanes, float>(a);
  return product_type<kLanes, BFloat16>(a);
}

void product(const Product& a) {
  if (a.lanes == 64) return product_lanes<64>(a);
  if (a.lanes == 32) return product_lanes<32>(a);
  return product_lanes<16>(a);
}

// The row's own vectors stay in registers while eight entries at a time are
// multiplied with them.
template <int kLanes>
void sample_lanes(const Sample& a) {
  constexpr int kVectors = kLanes / kWide;
  for (int64_t row = a.first_row; row < a.last_row; ++row) {
    int32_t entry = a.rows[row];
    const int32_t end = a.rows[row + 1];
    Wide dy[kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      dy[i] = load<Wide>(a.outputs + row * kLanes + i * kWide);
    }
    for (; entry < end; entry += 8) {
      int count = end - entry < 8 ? end - entry : 8;
      prefetch_once(a.columns + entry + kAhead);
      Eight dots[8];
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) {
        // Beyond the end, the last entry again: its sum is thrown away.
        int32_t column = a.columns[k < count ? entry + k : end - 1];
        const float* x = a.inputs + static_cast<int64_t>(column) * kLanes;
        Wide dot = dy[0] * load<Wide>(x);
#pragma GCC unroll 8
        for (int i = 1; i < kVectors; ++i) {
          dot += dy[i] * load<Wide>(x + i * kWide);
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
  if (a.lanes == 64) return sample_lanes<64>(a);
  if (a.lanes == 32) return sample_lanes<32>(a);
  return sample_lanes<16>(a);
}

}  // namespace
}  // namespace sparsity

#endif  // SPARSITY_PANEL_H_
