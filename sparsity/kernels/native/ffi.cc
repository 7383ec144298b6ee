// The entry points of XLA. `products.py` has checked all shapes and types.
#include <functional>
#include <utility>

#include "kernels.h"
#include "layer.h"
#include "pool.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace sparsity {
namespace {

using Any = ffi::AnyBuffer;
using Indices = ffi::Buffer<ffi::S32, 1>;
using Mask = ffi::Buffer<ffi::PRED, 2>;
using Gradient = ffi::Buffer<ffi::F32, 1>;
using Numbers = ffi::Span<const int64_t>;

// The kernels of an instruction set, numbered as in `native.py`; null if the
// processor does not support it.
const Kernels* kernels_of(int64_t isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (isa == 2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma")) {
    return &kAvx512;
  }
  if (isa == 1 && __builtin_cpu_supports("avx2") &&
      __builtin_cpu_supports("fma")) {
    return &kAvx2;
  }
#endif
  return isa == 0 ? &kPortable : nullptr;
}

// For a program compiled on another machine.
ffi::Error unsupported() {
  return ffi::Error::InvalidArgument(
      "sparsity kernels: instruction set not supported");
}

Type type_of(const Any& buffer) {
  return buffer.element_type() == ffi::F32 ? Type::kFloat32 : Type::kBFloat16;
}

Image image_of(const Any& buffer) {
  auto d = buffer.dimensions();
  return {buffer.untyped_data(), type_of(buffer), d[0], d[1], d[2], d[3]};
}

Window window_of(Numbers window) {
  return {window[0], window[1], window[2], window[3], window[4], window[5]};
}

Pool pool_of(ffi::ThreadPool& threads) {
  return Pool(static_cast<int>(threads.num_threads()),
              [&threads](std::function<void()> task) {
                threads.Schedule(std::move(task));
              });
}

Values values_of(const Any& buffer) {
  return {buffer.untyped_data(), type_of(buffer)};
}

int64_t rows_of(Numbers window, const Any& x) {
  return window[0] * window[1] * x.dimensions()[3];
}

ffi::Error forward_impl(ffi::ThreadPool threads, Any x, Any values,
                        Indices begins, Indices columns, ffi::Result<Any> y,
                        Numbers window, int64_t strip, int64_t isa) {
  const Kernels* kernels = kernels_of(isa);
  if (kernels == nullptr) return unsupported();
  const Cells cells{begins.typed_data(), columns.typed_data(),
                    y->dimensions()[3], rows_of(window, x), strip};
  forward(*kernels, pool_of(threads), image_of(x), values_of(values), cells,
          window_of(window), image_of(*y));
  return ffi::Error::Success();
}

ffi::Error input_gradient_impl(ffi::ThreadPool threads, Any dy, Any values,
                               Indices begins, Indices columns, Indices entries,
                               ffi::Result<Any> dx, Numbers window,
                               int64_t strip, int64_t isa) {
  const Kernels* kernels = kernels_of(isa);
  if (kernels == nullptr) return unsupported();
  const Cells cells{begins.typed_data(), columns.typed_data(),
                    rows_of(window, *dx), dy.dimensions()[3], strip};
  input_gradient(*kernels, pool_of(threads), image_of(dy), values_of(values),
                 cells, entries.typed_data(), window_of(window),
                 image_of(*dx));
  return ffi::Error::Success();
}

ffi::Error weight_gradient_impl(ffi::ThreadPool threads, Any x, Any dy,
                                Indices begins, Indices columns,
                                ffi::Result<Gradient> values, Numbers window,
                                int64_t strip, int64_t isa) {
  const Kernels* kernels = kernels_of(isa);
  if (kernels == nullptr) return unsupported();
  const Cells cells{begins.typed_data(), columns.typed_data(),
                    dy.dimensions()[3], rows_of(window, x), strip};
  weight_gradient(*kernels, pool_of(threads), image_of(x), image_of(dy), cells,
                  window_of(window), values->typed_data());
  return ffi::Error::Success();
}

MaskedWeight masked_of(const Any& weight, Mask mask) {
  return {weight.untyped_data(), type_of(weight),
          reinterpret_cast<const uint8_t*>(mask.typed_data()),
          mask.dimensions()[0], mask.dimensions()[1]};
}

ffi::Error masked_forward_impl(ffi::ThreadPool threads, Any x, Any weight,
                               Mask mask, ffi::Result<Any> y, Numbers window,
                               int64_t isa) {
  const Kernels* kernels = kernels_of(isa);
  if (kernels == nullptr) return unsupported();
  const Pool pool = pool_of(threads);
  const Listed listed = list(*kernels, pool, masked_of(weight, mask), true);
  forward(*kernels, pool, image_of(x), listed.values, listed.cells,
          window_of(window), image_of(*y));
  return ffi::Error::Success();
}

ffi::Error masked_input_gradient_impl(ffi::ThreadPool threads, Any dy,
                                      Any weight, Mask mask,
                                      ffi::Result<Any> dx, Numbers window,
                                      int64_t isa) {
  const Kernels* kernels = kernels_of(isa);
  if (kernels == nullptr) return unsupported();
  const Pool pool = pool_of(threads);
  const Listed listed = list(*kernels, pool, masked_of(weight, mask), false);
  input_gradient(*kernels, pool, image_of(dy), listed.values, listed.cells,
                 nullptr, window_of(window), image_of(*dx));
  return ffi::Error::Success();
}

}  // namespace

// Defines `sparsity_NAME`, which XLA calls with these buffers, a window,
// further attributes, and an instruction set.
#define SPARSITY_HANDLER(NAME, BUFFERS, ...)                           \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsity_##NAME, NAME##_impl,          \
                                ffi::Ffi::Bind()                       \
                                    .Ctx<ffi::ThreadPool>()            \
                                        BUFFERS.Attr<Numbers>("window") \
                                    __VA_ARGS__.Attr<int64_t>("isa"))

#define SPARSITY_NUMBERS .Arg<Any>().Arg<Any>()
#define SPARSITY_CELLS .Arg<Indices>().Arg<Indices>()
#define SPARSITY_STRIP .Attr<int64_t>("strip")

SPARSITY_HANDLER(forward, SPARSITY_NUMBERS SPARSITY_CELLS.Ret<Any>(),
                 SPARSITY_STRIP);
SPARSITY_HANDLER(input_gradient,
                 SPARSITY_NUMBERS SPARSITY_CELLS.Arg<Indices>().Ret<Any>(),
                 SPARSITY_STRIP);
SPARSITY_HANDLER(weight_gradient,
                 SPARSITY_NUMBERS SPARSITY_CELLS.Ret<Gradient>(),
                 SPARSITY_STRIP);
SPARSITY_HANDLER(masked_forward, SPARSITY_NUMBERS.Arg<Mask>().Ret<Any>());
SPARSITY_HANDLER(masked_input_gradient,
                 SPARSITY_NUMBERS.Arg<Mask>().Ret<Any>());

// For the loader: supported instruction sets, and the digest of the sources.
extern "C" int sparsity_supports(int isa) {
  return kernels_of(isa) != nullptr;
}
extern "C" const char* sparsity_sources() { return SPARSITY_SOURCES; }

}  // namespace sparsity
