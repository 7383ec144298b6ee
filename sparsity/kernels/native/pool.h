// Work shared among XLA's own threads, and memory that is kept between calls.
#ifndef SPARSITY_POOL_H_
#define SPARSITY_POOL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

namespace sparsity {

// To move a number costs about as much as so many multiplications.
constexpr int64_t kMove = 8;

// Runs a function's calls on several threads. The threads are those that XLA
// runs this program with: no more than the processor has, and no others.
class Pool {
 public:
  using Schedule = std::function<void(std::function<void()>)>;

  Pool(int num_threads, Schedule schedule)
      : num_threads_(num_threads < 1 ? 1 : num_threads),
        schedule_(std::move(schedule)) {}

  int num_threads() const { return num_threads_; }

  // Calls task(0), ..., task(num_tasks - 1), in about this order, and returns
  // when all are done. The caller works too, so it never waits for a thread
  // to become free: helpers that come late find nothing left to do. There are
  // no more helpers than `operations`, multiplications or the like,
  // keep busy for longer than it takes to wake them.
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
    const Task* tasks = &task;  // used only while some are not done
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

// Memory for panels, on huge pages where the system has them: rows of a panel
// are read in random order, and with small pages each read would miss the
// first level of the address cache.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Returns room for `size` numbers; what was there before is lost.
  template <typename T = float>
  T* get(size_t size) {
    return static_cast<T*>(get_bytes(size * sizeof(T)));
  }

 private:
  void* get_bytes(size_t size);

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Each thread's own, apart because they are in use at the same time.
Scratch& own_scratch();     // panels it fills for itself
Scratch& shared_scratch();  // panels it fills with the help of others
Scratch& value_scratch();   // values in another order
Scratch& begin_scratch();   // cells, and the columns of their entries, that
Scratch& column_scratch();  // were made of a mask

}  // namespace sparsity

#endif  // SPARSITY_POOL_H_
