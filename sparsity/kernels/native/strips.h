// The operations of `kernels.h` on panels, in the instruction set of the
// including file.
#ifndef SPARSITY_STRIPS_H_
#define SPARSITY_STRIPS_H_

#include "vector.h"

namespace sparsity {
namespace {

// Channels packed together: consecutive cache lines of a row, and no more of
// the panel than fits the L1 cache.
constexpr int64_t kPackTile = 64;

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
  if (a.entries == nullptr) {
    for (int64_t i = a.first; i < a.last; ++i) a.to[i] = to_float(values[i]);
    return;
  }
  for (int64_t i = a.first; i < a.last; ++i) {
    if (i + 64 < a.last) __builtin_prefetch(values + a.entries[i + 64]);
    a.to[i] = to_float(values[a.entries[i]]);
  }
}

void gather(const Gather& a) {
  if (a.type == Type::kFloat32) return gather_type<float>(a);
  return gather_type<BFloat16>(a);
}

// Transposes `count` rows of a [rows, lanes] tile into the lanes' outputs; the
// tile is padded to a multiple of eight rows.
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

// Adds the entries of a cell to its row's sums, for kVectors vectors of lanes.
// With few vectors per row, several entries have separate sums, to break the
// dependency of each on the last.
template <int kLanes, int kVectors>
SPARSITY_INLINE void add_cell(const float* values, const int32_t* columns,
                              int32_t count, const float* panel, float* sums) {
  constexpr int kApart = kVectors >= 4 ? 1 : 4 / kVectors;
  Vector sum[kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) sum[i] = load<Vector>(sums + i * kWidth);
  int32_t k = 0;
  if (kApart > 1) {
    Vector apart[kApart][kVectors] = {};
    for (; k + kApart <= count; k += kApart) {
#pragma GCC unroll 4
      for (int j = 0; j < kApart; ++j) {
        const float* x = panel + static_cast<int64_t>(columns[k + j]) * kLanes;
#pragma GCC unroll 8
        for (int i = 0; i < kVectors; ++i) {
          apart[j][i] += values[k + j] * load<Vector>(x + i * kWidth);
        }
      }
    }
#pragma GCC unroll 4
    for (int j = 0; j < kApart; ++j) {
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) sum[i] += apart[j][i];
    }
  }
  for (; k < count; ++k) {
    const float* x = panel + static_cast<int64_t>(columns[k]) * kLanes;
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      sum[i] += values[k] * load<Vector>(x + i * kWidth);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) store(sum[i], sums + i * kWidth);
}

template <int kLanes>
void product_lanes(const Product& a) {
  // Eight sums and their operands fit the registers of any processor.
  constexpr int kVectors = kLanes / kWidth < 8 ? kLanes / kWidth : 8;
  alignas(64) float sums[kBlock * kLanes];
  memset(sums, 0, sizeof(float) * kLanes * ((a.num_rows + 7) / 8 * 8));
  for (int i = 0; i < a.num_pieces; ++i) {
    const Piece& piece = a.pieces[i];
    const float* panel = a.panel + piece.panel_row * kLanes;
    float* row_sums = sums + piece.first_row * kLanes;
    for (int row = 0; row < piece.num_rows; ++row, row_sums += kLanes) {
      const int32_t begin = piece.begins[row];
      const int32_t count = piece.begins[row + 1] - begin;
      for (int lane = 0; lane < kLanes; lane += kVectors * kWidth) {
        add_cell<kLanes, kVectors>(a.values + begin, a.columns + begin, count,
                                   panel + lane, row_sums + lane);
      }
    }
  }
  if (a.output_type == Type::kFloat32) {
    unpack<float>(sums, kLanes, a.first_row, a.num_rows, a.outputs);
  } else {
    unpack<BFloat16>(sums, kLanes, a.first_row, a.num_rows, a.outputs);
  }
}

void product(const Product& a) {
  if (a.lanes == 64) return product_lanes<64>(a);
  if (a.lanes == 32) return product_lanes<32>(a);
  return product_lanes<16>(a);
}

// Dot products whose lanes are reduced together.
constexpr int kDots = 32;

SPARSITY_INLINE void sum_dots(const float* dots, int count, bool add,
                              float* sums) {
  for (int k = 0; k < count; k += 8) {
    Eight folded[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const float* dot = dots + (k + i) * kWide;
      folded[i] = load<Eight>(dot);
      if (kWide > 8) folded[i] += load<Eight>(dot + kWide - 8);
    }
    Eight result = ::sparsity::sums(folded);
    if (count - k >= 8) {
      if (add) result += load<Eight>(sums + k);
      store(result, sums + k);
    } else {
      float part[8];
      store(result, part);
      for (int i = 0; k + i < count; ++i) {
        sums[k + i] = part[i] + (add ? sums[k + i] : 0.0f);
      }
    }
  }
}

template <int kVectors>
SPARSITY_INLINE void load_row(const float* row, Wide vectors[kVectors]) {
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) vectors[i] = load<Wide>(row + i * kWide);
}

// dots[k] (+)= products of an entry's panel row with a row of dy, per lane.
template <int kLanes, int kVectors, bool kAdd>
SPARSITY_INLINE void make_dots(const int32_t* columns, int count,
                               const float* inputs, const Wide dy[kVectors],
                               float* dots) {
  for (int k = 0; k < count; ++k) {
    const float* x = inputs + static_cast<int64_t>(columns[k]) * kLanes;
    Wide dot = dy[0] * load<Wide>(x);
    if (kAdd) dot += load<Wide>(dots + k * kWide);
#pragma GCC unroll 8
    for (int i = 1; i < kVectors; ++i) {
      dot += dy[i] * load<Wide>(x + i * kWide);
    }
    store(dot, dots + k * kWide);
  }
}

// Dot products of successive entries, and the destination of their sums.
struct Dots {
  alignas(64) float dots[kDots * kWide] = {};
  int count = 0;
  float* sums;

  SPARSITY_INLINE void flush(bool add) {
    sum_dots(dots, count, add, sums);
    sums += count;
    count = 0;
  }
};

template <int kLanes>
void sample_lanes(const Sample& a) {
  constexpr int kVectors = kLanes / kWide < 8 ? kLanes / kWide : 8;
  constexpr int kStep = kVectors * kWide;
  Dots parts[2];
  for (int i = 0; i < 2; ++i) parts[i].sums = a.values + a.cells[i][0];
  int cell = 0;
  for (int strip = 0; strip < a.num_strips; ++strip) {
    const float* outputs = a.outputs;
    for (int row = 0; row < a.num_rows; ++row, ++cell, outputs += kLanes) {
      Wide dy[kVectors];  // in registers for all entries of the row
      load_row<kVectors>(outputs, dy);
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        Dots& held = parts[i];
        const int32_t end = a.cells[i][cell + 1];
        for (int32_t entry = a.cells[i][cell]; entry < end;) {
          const int left = end - entry, room = kDots - held.count;
          const int count = left < room ? left : room;
          const int32_t* columns = a.columns + entry;
          float* to = held.dots + held.count * kWide;
          make_dots<kLanes, kVectors, false>(columns, count, a.inputs, dy, to);
          for (int lane = kStep; lane < kLanes; lane += kStep) {
            Wide more[kVectors];
            load_row<kVectors>(outputs + lane, more);
            make_dots<kLanes, kVectors, true>(columns, count, a.inputs + lane,
                                              more, to);
          }
          entry += count;
          held.count += count;
          if (held.count == kDots) held.flush(a.add);
        }
      }
    }
  }
  for (Dots& held : parts) held.flush(a.add);
}

void sample(const Sample& a) {
  if (a.lanes == 128) return sample_lanes<128>(a);
  if (a.lanes == 64) return sample_lanes<64>(a);
  if (a.lanes == 32) return sample_lanes<32>(a);
  return sample_lanes<16>(a);
}

}  // namespace
}  // namespace sparsity

#endif  // SPARSITY_STRIPS_H_
