// The entry points of XLA: check shapes and types, then pass pointers on.
#include <functional>
#include <limits>
#include <string>

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

bool supports(int64_t isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (isa == 2) {
    return __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma");
  }
  if (isa == 1) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
#endif
  return isa == 0;
}

// The kernels of an instruction set, numbered as in `native.py`.
const Kernels& kernels_of(int64_t isa) {
#if defined(__x86_64__)
  if (isa == 2) return kAvx512;
  if (isa == 1) return kAvx2;
#endif
  return kPortable;
}

ffi::Error invalid(const std::string& message) {
  return ffi::Error::InvalidArgument("sparsity kernels: " + message);
}

bool is_number(const Any& buffer) {
  return buffer.element_type() == ffi::F32 ||
         buffer.element_type() == ffi::BF16;
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

ffi::Error check(int64_t isa, Numbers window, const Any& x, const Any& y) {
  if (!supports(isa)) return invalid("instruction set not supported");
  if (window.size() != 6) return invalid("expected six numbers for the window");
  if (x.dimensions().size() != 4 || y.dimensions().size() != 4) {
    return invalid("expected [batch, height, width, channels]");
  }
  if (!is_number(x) || !is_number(y)) {
    return invalid("expected float32 or bfloat16");
  }
  return ffi::Error::Success();
}

// The cells in the arrays, which hold `parts` times the cells of a
// [rows, columns] weight and `num_entries` entries.
ffi::ErrorOr<Cells> cells_of(Indices begins, Indices columns, int64_t num_rows,
                             int64_t num_columns, int64_t strip, int parts,
                             size_t num_entries) {
  if (strip > 0 && columns.element_count() == num_entries) {
    const Cells cells{begins.typed_data(), columns.typed_data(), num_rows,
                      num_columns, strip};
    const int64_t expected = parts * cells.size() + 1;
    if (static_cast<int64_t>(begins.element_count()) == expected) return cells;
  }
  return ffi::Unexpected(invalid("the structure does not match the shapes"));
}

int64_t rows_of(Numbers window, const Any& x) {
  return window[0] * window[1] * x.dimensions()[3];
}

ffi::Error forward_impl(ffi::ThreadPool threads, Any x, Any values,
                        Indices begins, Indices columns, ffi::Result<Any> y,
                        Numbers window, int64_t strip, int64_t isa) {
  if (auto error = check(isa, window, x, *y); error.failure()) return error;
  const auto cells = cells_of(begins, columns, y->dimensions()[3],
                              rows_of(window, x), strip, 2,
                              values.element_count());
  if (cells.has_error()) return cells.error();
  if (!is_number(values)) return invalid("expected float32 or bfloat16");
  forward(kernels_of(isa), pool_of(threads), image_of(x),
          {values.untyped_data(), type_of(values)}, *cells, window_of(window),
          image_of(*y));
  return ffi::Error::Success();
}

ffi::Error input_gradient_impl(ffi::ThreadPool threads, Any dy, Any values,
                               Indices begins, Indices columns, Indices entries,
                               ffi::Result<Any> dx, Numbers window,
                               int64_t strip, int64_t isa) {
  if (auto error = check(isa, window, dy, *dx); error.failure()) return error;
  const auto cells = cells_of(begins, columns, rows_of(window, *dx),
                              dy.dimensions()[3], strip, 1,
                              entries.element_count());
  if (cells.has_error()) return cells.error();
  if (!is_number(values)) return invalid("expected float32 or bfloat16");
  input_gradient(kernels_of(isa), pool_of(threads), image_of(dy),
                 {values.untyped_data(), type_of(values)}, *cells,
                 entries.typed_data(), window_of(window), image_of(*dx));
  return ffi::Error::Success();
}

ffi::Error weight_gradient_impl(ffi::ThreadPool threads, Any x, Any dy,
                                Indices begins, Indices columns,
                                ffi::Result<Gradient> values, Numbers window,
                                int64_t strip, int64_t isa) {
  if (auto error = check(isa, window, x, dy); error.failure()) return error;
  const auto cells = cells_of(begins, columns, dy.dimensions()[3],
                              rows_of(window, x), strip, 2,
                              values->element_count());
  if (cells.has_error()) return cells.error();
  weight_gradient(kernels_of(isa), pool_of(threads), image_of(x),
                  image_of(dy), *cells, window_of(window),
                  values->typed_data());
  return ffi::Error::Success();
}

ffi::ErrorOr<MaskedWeight> masked_of(const Any& weight, Mask mask,
                                     int64_t num_inputs, int64_t num_outputs) {
  const auto d = mask.dimensions();
  if (!is_number(weight) || d[0] != num_inputs || d[1] != num_outputs ||
      weight.element_count() != mask.element_count()) {
    return ffi::Unexpected(invalid("weight and mask do not match the shapes"));
  }
  if (mask.element_count() > std::numeric_limits<int32_t>::max()) {
    return ffi::Unexpected(invalid("expected fewer than 2^31 entries"));
  }
  return MaskedWeight{weight.untyped_data(), type_of(weight),
                      reinterpret_cast<const uint8_t*>(mask.typed_data()),
                      num_inputs, num_outputs};
}

ffi::Error masked_forward_impl(ffi::ThreadPool threads, Any x, Any weight,
                               Mask mask, ffi::Result<Any> y, Numbers window,
                               int64_t isa) {
  if (auto error = check(isa, window, x, *y); error.failure()) return error;
  const auto masked =
      masked_of(weight, mask, rows_of(window, x), y->dimensions()[3]);
  if (masked.has_error()) return masked.error();
  const Pool pool = pool_of(threads);
  const Listed listed = list(kernels_of(isa), pool, *masked, true);
  forward(kernels_of(isa), pool, image_of(x), listed.values,
          listed.cells, window_of(window), image_of(*y));
  return ffi::Error::Success();
}

ffi::Error masked_input_gradient_impl(ffi::ThreadPool threads, Any dy,
                                      Any weight, Mask mask,
                                      ffi::Result<Any> dx, Numbers window,
                                      int64_t isa) {
  if (auto error = check(isa, window, dy, *dx); error.failure()) return error;
  const auto masked =
      masked_of(weight, mask, rows_of(window, *dx), dy.dimensions()[3]);
  if (masked.has_error()) return masked.error();
  const Pool pool = pool_of(threads);
  const Listed listed = list(kernels_of(isa), pool, *masked, false);
  input_gradient(kernels_of(isa), pool, image_of(dy), listed.values,
                 listed.cells, nullptr, window_of(window), image_of(*dx));
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
extern "C" int sparsity_supports(int isa) { return supports(isa); }
extern "C" const char* sparsity_sources() { return SPARSITY_SOURCES; }

}  // namespace sparsity
