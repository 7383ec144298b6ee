// Parallel loops on XLA's threads, and scratch memory kept between calls.
#ifndef SPARSITY_POOL_H_
#define SPARSITY_POOL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sparsity {

// Cost of moving one number, in multiplications.
constexpr int64_t kMove = 8;

// Runs parallel loops on the threads of the XLA program, which never exceed the
// processor's.
class Pool {
 public:
  using Schedule = std::function<void(std::function<void()>)>;

  Pool(int num_threads, Schedule schedule)
      : num_threads_(num_threads < 1 ? 1 : num_threads),
        schedule_(std::move(schedule)) {}

  int num_threads() const { return num_threads_; }

  // Calls task(0), ..., task(num_tasks - 1), roughly in this order, and returns
  // when all have finished. The caller takes tasks too and never waits for a
  // free thread: late helpers find no task left. The number of helpers is
  // limited by `operations` (multiplications), so that each has more work than
  // waking it costs.
  template <typename Task>
  void run(int64_t num_tasks, int64_t operations, const Task& task) const {
    int64_t helpers = (num_tasks < num_threads_ ? num_tasks : num_threads_) - 1;
    helpers = std::min(helpers, operations / kOperationsPerHelper);
    if (helpers <= 0) {
      for (int64_t i = 0; i < num_tasks; ++i) task(i);
      return;
    }
    struct State {
      std::atomic<int64_t> next{0};
      std::atomic<int64_t> done{0};
    };
    auto state = std::make_shared<State>();
    const Task* tasks = &task;  // not used after the last task
    auto work = [state, num_tasks, tasks] {
      for (;;) {
        int64_t i = state->next.fetch_add(1, std::memory_order_relaxed);
        if (i >= num_tasks) return;
        (*tasks)(i);
        state->done.fetch_add(1, std::memory_order_release);
      }
    };
    for (int64_t i = 0; i < helpers; ++i) schedule_(work);
    work();
    for (int spins = 0; state->done.load(std::memory_order_acquire) < num_tasks;
         ++spins) {
      if (spins > 1000) std::this_thread::yield();
    }
  }

 private:
  static constexpr int64_t kOperationsPerHelper = 1 << 18;

  int num_threads_;
  Schedule schedule_;
};

// Memory for panels, on huge pages if available: rows of a panel are read in
// random order and would miss the L1 TLB with small pages.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Returns memory for `size` numbers; earlier contents are lost.
  template <typename T = float>
  T* get(size_t size) {
    return static_cast<T*>(get_bytes(size * sizeof(T)));
  }

 private:
  void* get_bytes(size_t size) {
    const size_t bytes = (size + kHugePage - 1) / kHugePage * kHugePage;
    if (bytes > bytes_) {
      std::free(data_);
      bytes_ = 0;
      data_ = std::aligned_alloc(kHugePage, bytes);
      if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
      madvise(data_, bytes, MADV_HUGEPAGE);
#endif
      bytes_ = bytes;
    }
    return data_;
  }

  static constexpr size_t kHugePage = size_t{2} << 20;

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

enum class Use {
  kOwn,      // panels that one thread packs and reads
  kShared,   // panels that several threads pack and read
  kValues,   // gathered values
  kBegins,   // cell boundaries of a listed mask
  kColumns,  // columns of its entries
};

// Returns the calling thread's memory for one use.
template <Use use>
Scratch& scratch() {
  static thread_local Scratch scratch;
  return scratch;
}

}  // namespace sparsity

#endif  // SPARSITY_POOL_H_
