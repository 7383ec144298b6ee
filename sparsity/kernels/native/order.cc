#include "order.h"

#include <algorithm>
#include <cstring>

namespace sparsity {

namespace {

constexpr int64_t kStripBytes = 32 << 10;  // the first-level cache
constexpr int64_t kMostStripBytes = 128 << 10;

// A row's sums are read and written once for each strip; that costs as much as
// some entries.
constexpr int64_t kEntriesPerVisit = 9;

// What is needed of rows so far ahead is fetched early.
constexpr int64_t kRowsAhead = 2;

float to_float(float value) { return value; }

float to_float(uint16_t half) {
  uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// What is made of the structure's entry e: its value, in the order of the
// structure or elsewhere, or its place.
template <typename T>
struct Here {
  const T* values;
  void prefetch(int32_t first, int32_t last) const {
    for (int32_t e = first; e < last; e += 64 / sizeof(T)) {
      __builtin_prefetch(values + e);
    }
  }
  Entry operator()(int32_t e, int32_t offset) const {
    return {to_float(values[e]), offset};
  }
};

template <typename T>
struct Elsewhere {
  const T* values;
  const int32_t* places;
  void prefetch(int32_t first, int32_t last) const {
    for (int32_t e = first; e < last; ++e) {
      __builtin_prefetch(values + places[e]);
    }
  }
  Entry operator()(int32_t e, int32_t offset) const {
    return {to_float(values[places[e]]), offset};
  }
};

struct Itself {
  void prefetch(int32_t, int32_t) const {}
  Place operator()(int32_t e, int32_t offset) const { return {e, offset}; }
};

}  // namespace

Order::Order(const Source& source, int lanes, int64_t num_panels)
    : source_(source), lanes_(lanes), shift_(0) {
  firsts_.push_back(0);
  int64_t count = 0;
  for (int64_t row = 0; row < source.num_rows; ++row) {
    for (const Range& range : source.ranges) {
      count += range.ends[row] - range.begins[row];
    }
    if ((row + 1) % kOrderRows == 0 || row + 1 == source.num_rows) {
      firsts_.push_back(count);
    }
  }
  const int64_t row_bytes = lanes * 4;
  while ((row_bytes << (shift_ + 1)) <= kStripBytes) ++shift_;
  const int64_t num_columns = source.range_size * (source.share ? 1 : source.ranges.size());
  const int64_t cells = num_columns * source.num_rows;
  // The sparser, the longer, as far as the second-level cache is worth it.
  while ((row_bytes << (shift_ + 1)) <= kMostStripBytes &&
         (count << shift_) < kEntriesPerVisit * cells) {
    ++shift_;
  }
  strips_ = ((source.range_size - 1) >> shift_) + 1;
  num_strips_ = strips_ * (source.share ? 1 : source.ranges.size());
  counts_ = num_strips_ * kOrderRows;
  const bool fits = num_columns * row_bytes <= 2 * kStripBytes;
  const bool is_long = (row_bytes << shift_) > 2 * kStripBytes;
  pays_ = !fits && num_panels >= (is_long ? 8 : 4) &&
          2 * count >= kEntriesPerVisit * num_strips_ * source.num_rows;
}

// Returns the cells [row, range, strip] of a block, and fills the counts
// [strip, row] of the panel's strips.
std::vector<Order::Cell> Order::count(int64_t block, int32_t* counts) const {
  const int64_t first = first_row(block), num_rows = last_row(block) - first;
  const int64_t per_row = source_.ranges.size() * strips_;
  std::vector<Cell> cells(num_rows * per_row);
  std::vector<int32_t> ends(strips_);
  const int32_t* const columns = source_.columns;
  const int shift = shift_;
  Cell* cell = cells.data();
  for (int64_t row = first; row < first + num_rows; ++row) {
    for (const Range& range : source_.ranges) {
      int32_t begin = range.begins[row];
      std::fill(ends.begin(), ends.end(), begin);
      if (row + kRowsAhead < first + num_rows) {
        // Rows lie apart: the processor cannot guess where they begin.
        const int32_t next_end = range.ends[row + kRowsAhead];
        for (int32_t e = range.begins[row + kRowsAhead]; e < next_end; e += 16) {
          __builtin_prefetch(columns + e);
        }
      }
      int32_t* const strip_ends = ends.data();
      const int32_t last = range.ends[row];
      for (int32_t e = begin; e < last; ++e) {
        strip_ends[columns[e] >> shift] = e + 1;  // the last one stays
      }
      for (int32_t end : ends) {
        *cell = {-begin, std::max(end - begin, 0)};
        begin += (cell++)->number;
      }
    }
  }
  // Ranges that share strips: one cell follows the other.
  const int64_t together = source_.share ? source_.ranges.size() : 1;
  int32_t to = 0;
  for (int64_t strip = 0; strip < num_strips_; ++strip) {
    for (int64_t i = 0; i < num_rows; ++i) {
      const int32_t before = to;
      for (int64_t k = 0; k < together; ++k) {
        Cell& next = cells[i * per_row + strip + k * strips_];
        next.move += to;
        to += next.number;
      }
      counts[strip * kOrderRows + i] = to - before;
    }
  }
  return cells;
}

template <typename T, typename Make>
void Order::make(int64_t block, float* room, const Make& make) const {
  T* const entries = reinterpret_cast<T*>(room);
  float* const counts = room + size(block) - counts_;
  const std::vector<Cell> cells =
      count(block, reinterpret_cast<int32_t*>(counts));
  const int32_t* const columns = source_.columns;
  const int32_t lanes = lanes_;
  const int shift = shift_;
  const Cell* cell = cells.data();
  for (int64_t row = first_row(block); row < last_row(block); ++row) {
    for (const Range& range : source_.ranges) {
      const int32_t start = static_cast<int32_t>(range.panel_row * lanes);
      const int32_t end = range.ends[row];
      if (row + kRowsAhead < last_row(block)) {
        make.prefetch(range.begins[row + kRowsAhead],
                      range.ends[row + kRowsAhead]);
      }
      for (int32_t e = range.begins[row]; e < end; ++e) {
        const int32_t column = columns[e];
        entries[e + cell[column >> shift].move] =
            make(e, start + column * lanes);
      }
      cell += strips_;
    }
  }
}

template <typename T>
void Order::make_type(int64_t block, const T* values, const int32_t* places,
                      float* room) const {
  if (places == nullptr) {
    make<Entry>(block, room, Here<T>{values});
  } else {
    make<Entry>(block, room, Elsewhere<T>{values, places});
  }
}

void Order::make_values(int64_t block, const void* values, Type type,
                        const int32_t* places, float* room) const {
  if (type == Type::kFloat32) {
    make_type(block, static_cast<const float*>(values), places, room);
  } else {
    make_type(block, static_cast<const uint16_t*>(values), places, room);
  }
}

void Order::make_places(int64_t block, float* room) const {
  make<Place>(block, room, Itself{});
}

}  // namespace sparsity
