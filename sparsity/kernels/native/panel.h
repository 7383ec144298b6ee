// The operations of `kernels.h` that move numbers, in the instruction set of
// the including file.
#ifndef SPARSITY_PANEL_H_
#define SPARSITY_PANEL_H_

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

}  // namespace
}  // namespace sparsity

#endif  // SPARSITY_PANEL_H_
