#include "pool.h"

#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sparsity {

constexpr size_t kHugePage = size_t{2} << 20;

Scratch::~Scratch() { std::free(data_); }

void* Scratch::get_bytes(size_t size) {
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

}  // namespace sparsity
