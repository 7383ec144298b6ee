// What a refresh does on the host with arrays as large as the dense weight:
// called by Python with plain pointers, all of whose sizes it has checked.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace sparsity {
namespace {

// Calls task(0, ...), ..., task(num_tasks - 1, ...) with the first and last of
// `size` things that each of them does, a multiple of `step`.
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

// The entries of A and of B only, of each output.
struct Counts {
  explicit Counts(int64_t num_outputs) : forward(num_outputs), more(num_outputs) {}
  std::vector<int32_t> forward, more;
};

// Adds an input's to the counts; returns whether A is within B.
bool add(const uint8_t* forward, const uint8_t* backward, int64_t num_outputs,
         Counts& counts, int32_t& num_forward) {
  uint8_t outside = 0;
  int32_t number = 0;
  int32_t* const in_forward = counts.forward.data();
  int32_t* const in_more = counts.more.data();
  for (int64_t o = 0; o < num_outputs; ++o) {
    outside |= forward[o] & ~backward[o];
    number += forward[o];
    in_forward[o] += forward[o];
    in_more[o] += backward[o] - forward[o];
  }
  num_forward = number;
  return outside == 0;
}

// Calls each(o) for the outputs that are in a mask.
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

}  // namespace
}  // namespace sparsity

extern "C" {

// Fills the arrays of a structure from masks [inputs, outputs] of zeros and
// ones. Returns 0, or 1 if A is not within B; `found` are the numbers of entries
// that there are; if they are not as expected, nothing is written.
int sparsity_build(const uint8_t* forward, const uint8_t* backward,
                   int64_t num_inputs, int64_t num_outputs,
                   const int64_t* expected, int64_t num_tasks, int64_t* found,
                   int32_t* rows, int32_t* split, int32_t* columns,
                   int32_t* t_rows, int32_t* t_columns, int32_t* t_entries) {
  using sparsity::Counts;
  std::vector<Counts> counts(num_tasks, Counts(num_outputs));
  std::vector<uint8_t> outside(num_tasks);
  std::vector<int32_t> t_counts(num_inputs);
  sparsity::divide(num_tasks, num_inputs, 1, [&](int64_t task, int64_t first,
                                                 int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t row = i * num_outputs;
      outside[task] |= !sparsity::add(forward + row, backward + row,
                                      num_outputs, counts[task], t_counts[i]);
    }
  });
  if (std::any_of(outside.begin(), outside.end(), [](auto x) { return x; })) {
    return 1;
  }
  found[0] = found[1] = 0;
  for (const Counts& count : counts) {
    for (int32_t number : count.forward) found[0] += number;
    for (int32_t number : count.more) found[1] += number;
  }
  found[1] += found[0];
  if (found[0] != expected[0] || found[1] != expected[1]) return 0;

  // From how many entries to where each task's begin.
  int32_t next = 0;
  for (int64_t o = 0; o < num_outputs; ++o) {
    rows[o] = next;
    for (Counts& count : counts) {
      const int32_t number = count.forward[o];
      count.forward[o] = next;
      next += number;
    }
    split[o] = next;
    for (Counts& count : counts) {
      const int32_t number = count.more[o];
      count.more[o] = next;
      next += number;
    }
  }
  rows[num_outputs] = next;
  t_rows[0] = 0;
  for (int64_t i = 0; i < num_inputs; ++i) t_rows[i + 1] = t_rows[i] + t_counts[i];

  sparsity::divide(num_tasks, num_inputs, 1, [&](int64_t task, int64_t first,
                                                 int64_t last) {
    int32_t* const in_forward = counts[task].forward.data();
    int32_t* const in_more = counts[task].more.data();
    for (int64_t i = first; i < last; ++i) {
      const uint8_t* const is_forward = forward + i * num_outputs;
      int32_t at = t_rows[i];
      sparsity::for_each(backward + i * num_outputs, num_outputs, [&](int64_t o) {
        if (!is_forward[o]) {
          columns[in_more[o]++] = static_cast<int32_t>(i);
          return;
        }
        const int32_t entry = in_forward[o]++;
        columns[entry] = static_cast<int32_t>(i);
        t_columns[at] = static_cast<int32_t>(o);
        t_entries[at++] = entry;
      });
    }
  });
  return 0;
}

// Fills `origins`: which entry of the old structure each of the new one was.
void sparsity_origins(const int32_t* old_rows, const int32_t* old_columns,
                      const int32_t* new_rows, const int32_t* new_columns,
                      int64_t num_inputs, int64_t num_outputs,
                      int64_t num_tasks, int32_t* origins) {
  sparsity::divide(num_tasks, num_outputs, 1, [&](int64_t, int64_t first,
                                                  int64_t last) {
    std::vector<int32_t> entry_at(num_inputs, -1);
    for (int64_t o = first; o < last; ++o) {
      for (int32_t e = old_rows[o]; e < old_rows[o + 1]; ++e) {
        entry_at[old_columns[e]] = e;
      }
      for (int32_t e = new_rows[o]; e < new_rows[o + 1]; ++e) {
        origins[e] = entry_at[new_columns[e]];
      }
      for (int32_t e = old_rows[o]; e < old_rows[o + 1]; ++e) {
        entry_at[old_columns[e]] = -1;
      }
    }
  });
}

// Copies `dense` [inputs, outputs] of float32, and writes the entries into it.
void sparsity_put(const float* dense, const float* values, const int32_t* rows,
                  const int32_t* columns, int64_t num_inputs,
                  int64_t num_outputs, int64_t num_tasks, float* result) {
  const int64_t size = num_inputs * num_outputs;
  sparsity::divide(num_tasks, size, 1024, [&](int64_t, int64_t first,
                                              int64_t last) {
    std::memcpy(result + first, dense + first, 4 * (last - first));
  });
  // Outputs side by side are on one cache line: no two threads have the same.
  sparsity::divide(num_tasks, num_outputs, 16, [&](int64_t, int64_t first,
                                                   int64_t last) {
    for (int64_t o = first; o < last; ++o) {
      for (int32_t e = rows[o]; e < rows[o + 1]; ++e) {
        result[columns[e] * num_outputs + o] = values[e];
      }
    }
  });
}

// result[i] = values[origins[i]], or where that is negative fresh[i]; float32.
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
