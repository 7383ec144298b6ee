// Entries in the order of strips: rows of a panel that stay in the first-level
// cache while all the entries that read them are gone through.
//
// In the order of the structure, every entry reads its row of the panel from
// the second-level cache, and that is what a product then waits for.
#ifndef SPARSITY_ORDER_H_
#define SPARSITY_ORDER_H_

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace sparsity {

// Entries of each row, by ascending column.
struct Range {
  const int32_t* begins;
  const int32_t* ends;
  int64_t panel_row;  // what column 0 means
};

// The entries as the structure has them.
struct Source {
  std::vector<Range> ranges;  // each of its own part of the panel, or
  bool share;                 // all of the same rows of it
  int64_t range_size;         // columns are less than this
  int64_t num_rows;
  const int32_t* columns;
};

class Order {
 public:
  // Of panels with so many lanes; `num_panels` of them will be multiplied.
  Order(const Source& source, int lanes, int64_t num_panels);

  // Whether what is gained is more than what it costs.
  bool pays() const { return pays_; }

  int64_t num_entries() const { return firsts_.back(); }
  int64_t num_blocks() const { return firsts_.size() - 1; }
  int64_t first_entry(int64_t block) const { return firsts_[block]; }

  // Floats of room that a block needs, and where it begins in that of all.
  int64_t size(int64_t block) const { return start(block + 1) - start(block); }
  int64_t start(int64_t block) const {
    return 2 * first_entry(block) + block * counts_;
  }

  // Fills `room` with the values of a block's entries, or with their places.
  // The value of entry e is values[places[e]]; values[e] if that is null.
  void make_values(int64_t block, const void* values, Type type,
                   const int32_t* places, float* room) const;
  void make_places(int64_t block, float* room) const;

  // Returns what was made of a block.
  template <typename T>
  Strips<T> strips(int64_t block, const float* room) const {
    const float* counts = room + size(block) - counts_;
    return {reinterpret_cast<const T*>(room),
            reinterpret_cast<const int32_t*>(counts), num_strips_,
            first_row(block), last_row(block)};
  }

 private:
  // The entries of one row, range and strip: they lie together, here and in the
  // structure, so one number says how far all of them move.
  struct Cell {
    int32_t move, number;
  };

  template <typename T, typename Make>
  void make(int64_t block, float* room, const Make& make) const;
  template <typename T>
  void make_type(int64_t block, const T* values, const int32_t* places,
                 float* room) const;
  std::vector<Cell> count(int64_t block, int32_t* counts) const;

  int64_t first_row(int64_t block) const { return block * kOrderRows; }
  int64_t last_row(int64_t block) const {
    int64_t last = (block + 1) * kOrderRows;
    return last < source_.num_rows ? last : source_.num_rows;
  }

  Source source_;
  int lanes_;
  int shift_;           // a strip has 1 << shift_ rows
  int strips_;          // of a range
  int num_strips_;      // of the panel
  int64_t counts_;      // of a block
  bool pays_;
  std::vector<int64_t> firsts_;
};

}  // namespace sparsity

#endif  // SPARSITY_ORDER_H_
