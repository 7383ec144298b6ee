// The dense part of refreshes on the host. Python passes plain pointers to arrays
// whose sizes it has checked.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace sparsity {
namespace {

// Calls task(i, first, last) for i = 0, ..., num_tasks - 1 in parallel, which
// divide [0, size) among them at multiples of `step`.
void divide(int64_t num_tasks, int64_t size, int64_t step,
            const std::function<void(int64_t, int64_t, int64_t)>& task) {
  const int64_t steps = (size + step - 1) / step;
  const auto begin = [&](int64_t i) {
    return std::min(steps * i / num_tasks * step, size);
  };
  std::vector<std::thread> threads;
  for (int64_t i = 1; i < num_tasks; ++i) {
    threads.emplace_back(task, i, begin(i), begin(i + 1));
  }
  task(0, begin(0), begin(1));
  for (std::thread& thread : threads) thread.join();
}

constexpr int64_t kBlock = 128;  // outputs per block; see `structure.py`

int64_t strips_of(int64_t size, int64_t strip) {
  return (size + strip - 1) / strip;
}

// Adds the entries of one input to the counts of a block's outputs, in A and in
// B minus A. Returns the number in A; sets `outside` to 1 if A exceeds B.
int32_t add(const uint8_t* forward, const uint8_t* backward, int64_t size,
            int32_t* counts, int32_t* more, uint8_t& outside) {
  int32_t number = 0;
  uint8_t any = 0;
  for (int64_t o = 0; o < size; ++o) {
    any |= forward[o] & ~backward[o];
    number += forward[o];
    counts[o] += forward[o];
    more[o] += backward[o] - forward[o];
  }
  // Written only if needed: other threads' flags share the cache line.
  if (any) outside = 1;
  return number;
}

// Replaces counts by their exclusive prefix sum, and appends the total.
void to_starts(int32_t* counts, int64_t size) {
  int32_t next = 0;
  for (int64_t i = 0; i < size; ++i) {
    const int32_t number = counts[i];
    counts[i] = next;
    next += number;
  }
  counts[size] = next;
}

// Calls each(o) for the outputs in a mask.
template <typename Each>
void for_each(const uint8_t* mask, int64_t num_outputs, const Each& each) {
  int64_t o = 0;
  for (; o + 8 <= num_outputs; o += 8) {
    uint64_t eight;
    std::memcpy(&eight, mask + o, 8);
    if (eight == 0) continue;
    for (int i = 0; i < 8; ++i) {
      if (mask[o + i]) each(o + i);
    }
  }
  for (; o < num_outputs; ++o) {
    if (mask[o]) each(o);
  }
}

// Outputs of one block, seen from one input.
struct Block {
  int64_t task;
  int64_t place;  // of the first output, in the masks
  int64_t first, size;
  int64_t cell;    // of the first output
  int64_t t_cell;  // of the input
};

// Two masks [inputs, outputs], and the cells of their structure.
struct Masks {
  const uint8_t* forward;
  const uint8_t* backward;
  int64_t num_inputs, num_outputs, strip, num_tasks;
  int64_t strips = strips_of(num_inputs, strip);
  int64_t t_strips = strips_of(num_outputs, strip);

  int64_t num_cells() const { return strips * num_outputs; }
  int64_t num_t_cells() const { return t_strips * num_inputs; }

  int64_t t_cell(int64_t input, int64_t t_strip) const {
    const int64_t first = input / kBlock * kBlock;
    const int64_t size = std::min(kBlock, num_inputs - first);
    return first * t_strips + t_strip * size + input - first;
  }

  // Calls visit(input, block) in memory order. Each task has whole strips of
  // outputs, whose transposed cells no other task writes.
  template <typename Visit>
  void for_each_block(const Visit& visit) const {
    divide(num_tasks, num_outputs, strip, [&](int64_t task, int64_t first,
                                              int64_t last) {
      for (int64_t i = 0; i < num_inputs; ++i) {
        for (int64_t o = first; o < last; o += kBlock) {
          const int64_t size = std::min(kBlock, num_outputs - o);
          visit(i, Block{task, i * num_outputs + o, o, size,
                         o * strips + i / strip * size,
                         t_cell(i, o / strip)});
        }
      }
    });
  }
};

// Counts the entries of each cell. Returns whether A is a subset of B.
bool count(const Masks& masks, int32_t* cells, int32_t* t_cells) {
  const int64_t num_cells = masks.num_cells();
  std::vector<uint8_t> outside(masks.num_tasks);
  std::fill(cells, cells + 2 * num_cells, 0);
  std::fill(t_cells, t_cells + masks.num_t_cells(), 0);
  masks.for_each_block([&](int64_t, const Block& b) {
    t_cells[b.t_cell] +=
        add(masks.forward + b.place, masks.backward + b.place, b.size,
            cells + b.cell, cells + num_cells + b.cell, outside[b.task]);
  });
  return std::none_of(outside.begin(), outside.end(), [](auto x) { return x; });
}

// Writes the entries of each cell.
void fill(const Masks& masks, const int32_t* cells, const int32_t* t_cells,
          int32_t* columns, int32_t* t_columns, int32_t* t_entries) {
  const int64_t num_cells = masks.num_cells();
  // Position of the next entry of each cell.
  std::vector<int32_t> next(cells, cells + 2 * num_cells);
  std::vector<int32_t> t_next(t_cells, t_cells + masks.num_t_cells());
  masks.for_each_block([&](int64_t i, const Block& b) {
    int32_t* const in_a = next.data() + b.cell;
    int32_t* const in_more = in_a + num_cells;
    int32_t at = t_next[b.t_cell];
    for_each(masks.backward + b.place, b.size, [&](int64_t o) {
      if (!masks.forward[b.place + o]) {
        columns[in_more[o]++] = static_cast<int32_t>(i);
        return;
      }
      const int32_t entry = in_a[o]++;
      columns[entry] = static_cast<int32_t>(i);
      t_columns[at] = static_cast<int32_t>(b.first + o);
      t_entries[at++] = entry;
    });
    t_next[b.t_cell] = at;
  });
}

}  // namespace
}  // namespace sparsity

extern "C" {

// Writes the arrays of a structure from masks [inputs, outputs] of zeros and
// ones. Returns 1 if A is not a subset of B, else 0. `found` receives the
// numbers of entries; if they differ from `expected`, nothing else is valid.
int sparsity_build(const uint8_t* forward, const uint8_t* backward,
                   int64_t num_inputs, int64_t num_outputs, int64_t strip,
                   const int64_t* expected, int64_t num_tasks, int64_t* found,
                   int32_t* cells, int32_t* columns, int32_t* t_cells,
                   int32_t* t_columns, int32_t* t_entries) {
  const sparsity::Masks masks{forward,     backward, num_inputs,
                              num_outputs, strip,    num_tasks};
  if (!sparsity::count(masks, cells, t_cells)) return 1;
  const int64_t num_cells = masks.num_cells();
  sparsity::to_starts(cells, 2 * num_cells);
  sparsity::to_starts(t_cells, masks.num_t_cells());
  found[0] = cells[num_cells];
  found[1] = cells[2 * num_cells];
  if (found[0] != expected[0] || found[1] != expected[1]) return 0;
  sparsity::fill(masks, cells, t_cells, columns, t_columns, t_entries);
  return 0;
}

// Writes the index of each new entry in the old structure, or -1.
void sparsity_origins(const int32_t* old_cells, const int32_t* old_columns,
                      const int32_t* new_cells, const int32_t* new_columns,
                      int64_t num_inputs, int64_t num_cells, int64_t num_tasks,
                      int32_t* origins) {
  sparsity::divide(num_tasks, num_cells, 1, [&](int64_t, int64_t first,
                                                int64_t last) {
    std::vector<int32_t> entry_at(num_inputs, -1);
    // Calls each(entry, entry_at[column]) for all entries of a cell.
    const auto visit = [&](const int32_t* cells, const int32_t* columns,
                           int64_t cell, const auto& each) {
      for (int64_t c : {cell, num_cells + cell}) {
        for (int32_t e = cells[c]; e < cells[c + 1]; ++e) {
          each(e, entry_at[columns[e]]);
        }
      }
    };
    for (int64_t cell = first; cell < last; ++cell) {
      visit(old_cells, old_columns, cell,
            [](int32_t e, int32_t& at) { at = e; });
      visit(new_cells, new_columns, cell,
            [&](int32_t e, int32_t& at) { origins[e] = at; });
      visit(old_cells, old_columns, cell,
            [](int32_t, int32_t& at) { at = -1; });
    }
  });
}

// Copies `dense` [inputs, outputs], float32, and overwrites the entries.
void sparsity_put(const float* dense, const float* values, const int32_t* cells,
                  const int32_t* columns, int64_t num_inputs,
                  int64_t num_outputs, int64_t strip, int64_t num_tasks,
                  float* result) {
  using sparsity::kBlock;
  const int64_t size = num_inputs * num_outputs;
  sparsity::divide(num_tasks, size, 1024, [&](int64_t, int64_t first,
                                              int64_t last) {
    std::memcpy(result + first, dense + first, 4 * (last - first));
  });
  const int64_t strips = sparsity::strips_of(num_inputs, strip);
  sparsity::divide(num_tasks, num_outputs, kBlock, [&](int64_t, int64_t first,
                                                       int64_t last) {
    for (int64_t o = first; o < last; o += kBlock) {
      const int64_t outputs = std::min(kBlock, num_outputs - o);
      for (int64_t i = 0; i < strips * outputs; ++i) {
        const int64_t cell = o * strips + i;
        float* const to = result + o + i % outputs;
        for (int64_t c : {cell, strips * num_outputs + cell}) {
          for (int32_t e = cells[c]; e < cells[c + 1]; ++e) {
            to[columns[e] * num_outputs] = values[e];
          }
        }
      }
    }
  });
}

// result[i] = values[origins[i]], or fresh[i] for negative origins; float32.
void sparsity_move(const float* values, const int32_t* origins,
                   const float* fresh, int64_t size, int64_t num_tasks,
                   float* result) {
  sparsity::divide(num_tasks, size, 16, [&](int64_t, int64_t first,
                                            int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int32_t origin = origins[i];
      result[i] = origin < 0 ? fresh[i] : values[origin];
    }
  });
}

}  // extern "C"
