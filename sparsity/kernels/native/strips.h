// The products of `kernels.h` whose entries are in the order of strips.
#ifndef SPARSITY_STRIPS_H_
#define SPARSITY_STRIPS_H_

#include "panel.h"

namespace sparsity {
namespace {

// Adds a row's entries of one strip to its sums, for some lanes.
template <int kVectors>
SPARSITY_INLINE void add_strip(const Entry* entries, int32_t count,
                               const float* panel, float* sums) {
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
        const float* x = panel + entries[k + j].offset;
#pragma GCC unroll 8
        for (int i = 0; i < kVectors; ++i) {
          apart[j][i] += entries[k + j].value * load<Vector>(x + i * kWidth);
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
    const float* x = panel + entries[k].offset;
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      sum[i] += entries[k].value * load<Vector>(x + i * kWidth);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) store(sum[i], sums + i * kWidth);
}

template <int kLanes>
void strip_product_lanes(const StripProduct& a) {
  constexpr int kVectors = kLanes / kWidth < 8 ? kLanes / kWidth : 8;
  alignas(64) float sums[kOrderRows * kLanes];
  const Strips<Entry>& s = a.strips;
  const int num_rows = static_cast<int>(s.last_row - s.first_row);
  memset(sums, 0, sizeof(float) * kLanes * ((num_rows + 7) / 8 * 8));
  const Entry* entries = s.entries;
  for (int strip = 0; strip < s.num_strips; ++strip) {
    const int32_t* counts = s.counts + strip * kOrderRows;
    for (int row = 0; row < num_rows; ++row) {
      const int32_t count = counts[row];
      for (int lane = 0; lane < kLanes; lane += kVectors * kWidth) {
        add_strip<kVectors>(entries, count, a.panel + lane,
                            sums + row * kLanes + lane);
      }
      entries += count;
    }
  }
  if (a.output_type == Type::kFloat32) {
    unpack<float>(sums, kLanes, s.first_row, num_rows, a.outputs);
  } else {
    unpack<BFloat16>(sums, kLanes, s.first_row, num_rows, a.outputs);
  }
}

void strip_product(const StripProduct& a) {
  if (a.lanes == 64) return strip_product_lanes<64>(a);
  if (a.lanes == 32) return strip_product_lanes<32>(a);
  return strip_product_lanes<16>(a);
}

// Dots that are summed together, lane by lane until then.
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

// dots[k] (+)= the products of an entry's row of the panel with a row of dy.
template <int kVectors, bool kAdd>
SPARSITY_INLINE void make_dots(const Place* entries, int count,
                               const float* inputs, const float* outputs,
                               float* dots) {
  Wide dy[kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) dy[i] = load<Wide>(outputs + i * kWide);
  for (int k = 0; k < count; ++k) {
    const float* x = inputs + entries[k].offset;
    Wide dot = dy[0] * load<Wide>(x);
    if (kAdd) dot += load<Wide>(dots + k * kWide);
#pragma GCC unroll 8
    for (int i = 1; i < kVectors; ++i) {
      dot += dy[i] * load<Wide>(x + i * kWide);
    }
    store(dot, dots + k * kWide);
  }
}

template <int kLanes>
void strip_sample_lanes(const StripSample& a) {
  constexpr int kVectors = kLanes / kWide < 8 ? kLanes / kWide : 8;
  constexpr int kStep = kVectors * kWide;
  alignas(64) float dots[kDots * kWide] = {};
  int held = 0;  // dots that are not summed yet
  const Strips<Place>& s = a.strips;
  const int num_rows = static_cast<int>(s.last_row - s.first_row);
  const float* const outputs = a.outputs + s.first_row * kLanes;
  const Place* entries = s.entries;
  float* sums = a.sums;
  for (int strip = 0; strip < s.num_strips; ++strip) {
    const int32_t* counts = s.counts + strip * kOrderRows;
    for (int row = 0; row < num_rows; ++row) {
      const float* dy = outputs + row * kLanes;
      for (int32_t left = counts[row]; left > 0;) {
        const int count = left < kDots - held ? left : kDots - held;
        float* to = dots + held * kWide;
        make_dots<kVectors, false>(entries, count, a.inputs, dy, to);
        for (int lane = kStep; lane < kLanes; lane += kStep) {
          make_dots<kVectors, true>(entries, count, a.inputs + lane, dy + lane,
                                    to);
        }
        entries += count;
        left -= count;
        held += count;
        if (held == kDots) {
          sum_dots(dots, kDots, a.add, sums);
          sums += kDots;
          held = 0;
        }
      }
    }
  }
  sum_dots(dots, held, a.add, sums);
}

void strip_sample(const StripSample& a) {
  if (a.lanes == 128) return strip_sample_lanes<128>(a);
  if (a.lanes == 64) return strip_sample_lanes<64>(a);
  if (a.lanes == 32) return strip_sample_lanes<32>(a);
  return strip_sample_lanes<16>(a);
}

}  // namespace
}  // namespace sparsity

#endif  // SPARSITY_STRIPS_H_
