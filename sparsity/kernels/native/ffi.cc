// What XLA calls: checks the shapes and hands plain pointers on.
#include <functional>
#include <limits>
#include <string>

#include "kernels.h"
#include "layer.h"
#include "listing.h"
#include "pool.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace sparsity {
namespace {

using Indices = ffi::Buffer<ffi::S32, 1>;
using Gradient = ffi::Buffer<ffi::F32, 1>;
using Count = ffi::Buffer<ffi::S32, 0>;
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

// The kernels of an instruction set: 0, 1, 2 in order of need.
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

bool is_number(const ffi::AnyBuffer& buffer) {
  return buffer.element_type() == ffi::F32 ||
         buffer.element_type() == ffi::BF16;
}

Type type_of(const ffi::AnyBuffer& buffer) {
  return buffer.element_type() == ffi::F32 ? Type::kFloat32 : Type::kBFloat16;
}

Image image_of(const ffi::AnyBuffer& buffer) {
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

ffi::Error check(int64_t isa, Numbers window, const ffi::AnyBuffer& x,
                 const ffi::AnyBuffer& y) {
  if (!supports(isa)) return invalid("no such instruction set here");
  if (window.size() != 6) return invalid("expected six numbers for the window");
  if (x.dimensions().size() != 4 || y.dimensions().size() != 4) {
    return invalid("expected [batch, height, width, channels]");
  }
  if (!is_number(x) || !is_number(y)) {
    return invalid("expected float32 or bfloat16");
  }
  return ffi::Error::Success();
}

// The cells that the arrays describe: `parts` times as many as a weight of
// [rows, columns] has.
ffi::ErrorOr<Cells> cells_of(Indices begins, Indices columns, int64_t num_rows,
                             int64_t num_columns, int64_t strip, int parts) {
  if (strip > 0) {
    const Cells cells{begins.typed_data(), columns.typed_data(), num_rows,
                      num_columns, strip};
    const int64_t expected = parts * cells.size() + 1;
    if (static_cast<int64_t>(begins.element_count()) == expected) return cells;
  }
  return ffi::Unexpected(invalid("the structure does not match the shapes"));
}

ffi::Error forward_impl(ffi::ThreadPool threads, ffi::AnyBuffer x,
                        ffi::AnyBuffer values, Indices begins, Indices columns,
                        ffi::Result<ffi::AnyBuffer> y, Numbers window,
                        int64_t strip, int64_t isa) {
  if (auto error = check(isa, window, x, *y); error.failure()) return error;
  const int64_t num_inputs = window[0] * window[1] * x.dimensions()[3];
  const auto cells = cells_of(begins, columns, y->dimensions()[3], num_inputs,
                              strip, 2);
  if (cells.has_error()) return cells.error();
  if (!is_number(values) ||
      values.element_count() != columns.element_count()) {
    return invalid("the values do not match the structure");
  }
  forward(kernels_of(isa), pool_of(threads), image_of(x),
          {values.untyped_data(), type_of(values)}, *cells, window_of(window),
          image_of(*y));
  return ffi::Error::Success();
}

ffi::Error input_gradient_impl(ffi::ThreadPool threads, ffi::AnyBuffer dy,
                               ffi::AnyBuffer values, Indices begins,
                               Indices columns, Indices entries,
                               ffi::Result<ffi::AnyBuffer> dx, Numbers window,
                               int64_t strip, int64_t isa) {
  if (auto error = check(isa, window, dy, *dx); error.failure()) return error;
  const int64_t num_inputs = window[0] * window[1] * dx->dimensions()[3];
  const auto cells = cells_of(begins, columns, num_inputs, dy.dimensions()[3],
                              strip, 1);
  if (cells.has_error()) return cells.error();
  if (!is_number(values) ||
      entries.element_count() != columns.element_count()) {
    return invalid("the values do not match the structure");
  }
  input_gradient(kernels_of(isa), pool_of(threads), image_of(dy),
                 {values.untyped_data(), type_of(values)}, *cells,
                 entries.typed_data(), window_of(window), image_of(*dx));
  return ffi::Error::Success();
}

ffi::Error weight_gradient_impl(ffi::ThreadPool threads, ffi::AnyBuffer x,
                                ffi::AnyBuffer dy, Indices begins,
                                Indices columns, ffi::Result<Gradient> values,
                                Numbers window, int64_t strip, int64_t isa) {
  if (auto error = check(isa, window, x, dy); error.failure()) return error;
  const int64_t num_inputs = window[0] * window[1] * x.dimensions()[3];
  const auto cells = cells_of(begins, columns, dy.dimensions()[3], num_inputs,
                              strip, 2);
  if (cells.has_error()) return cells.error();
  if (values->element_count() != columns.element_count()) {
    return invalid("the values do not match the structure");
  }
  weight_gradient(kernels_of(isa), pool_of(threads), image_of(x),
                  image_of(dy), *cells, window_of(window),
                  values->typed_data());
  return ffi::Error::Success();
}

using Mask = ffi::Buffer<ffi::PRED, 2>;

// A weight of [inputs, outputs] and its mask.
ffi::ErrorOr<MaskedWeight> masked_of(const ffi::AnyBuffer& weight,
                                     Mask mask, int64_t num_inputs,
                                     int64_t num_outputs) {
  const auto d = mask.dimensions();
  if (!is_number(weight) || d[0] != num_inputs || d[1] != num_outputs ||
      weight.element_count() != mask.element_count()) {
    return ffi::Unexpected(invalid("weight and mask do not match the shapes"));
  }
  if (mask.element_count() > std::numeric_limits<int32_t>::max()) {
    return ffi::Unexpected(invalid("more entries than 32 bits can count"));
  }
  return MaskedWeight{weight.untyped_data(), type_of(weight),
                      reinterpret_cast<const uint8_t*>(mask.typed_data()),
                      num_inputs, num_outputs};
}

ffi::Error masked_forward_impl(ffi::ThreadPool threads, ffi::AnyBuffer x,
                               ffi::AnyBuffer weight, Mask mask,
                               ffi::Result<ffi::AnyBuffer> y, Numbers window,
                               int64_t isa) {
  if (auto error = check(isa, window, x, *y); error.failure()) return error;
  const auto masked =
      masked_of(weight, mask, window[0] * window[1] * x.dimensions()[3],
                y->dimensions()[3]);
  if (masked.has_error()) return masked.error();
  const Pool pool = pool_of(threads);
  const Listed listed = list_by_output(kernels_of(isa), pool, *masked);
  forward(kernels_of(isa), pool, image_of(x), listed.all(), listed.cells,
          window_of(window), image_of(*y));
  return ffi::Error::Success();
}

ffi::Error masked_input_gradient_impl(ffi::ThreadPool threads,
                                      ffi::AnyBuffer dy, ffi::AnyBuffer weight,
                                      Mask mask,
                                      ffi::Result<ffi::AnyBuffer> dx,
                                      Numbers window, int64_t isa) {
  if (auto error = check(isa, window, dy, *dx); error.failure()) return error;
  const auto masked =
      masked_of(weight, mask, window[0] * window[1] * dx->dimensions()[3],
                dy.dimensions()[3]);
  if (masked.has_error()) return masked.error();
  const Pool pool = pool_of(threads);
  const Listed listed = list_by_input(kernels_of(isa), pool, *masked);
  input_gradient(kernels_of(isa), pool, image_of(dy), listed.all(),
                 listed.cells, nullptr, window_of(window), image_of(*dx));
  return ffi::Error::Success();
}

ffi::Error num_threads_impl(ffi::ThreadPool threads,
                            ffi::Result<Count> result) {
  *result->typed_data() = static_cast<int32_t>(threads.num_threads());
  return ffi::Error::Success();
}

}  // namespace
}  // namespace sparsity

XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsity_forward,
                              sparsity::forward_impl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<sparsity::Indices>()
                                  .Arg<sparsity::Indices>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<sparsity::Numbers>("window")
                                  .Attr<int64_t>("strip")
                                  .Attr<int64_t>("isa"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsity_input_gradient,
                              sparsity::input_gradient_impl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<sparsity::Indices>()
                                  .Arg<sparsity::Indices>()
                                  .Arg<sparsity::Indices>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<sparsity::Numbers>("window")
                                  .Attr<int64_t>("strip")
                                  .Attr<int64_t>("isa"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsity_weight_gradient,
                              sparsity::weight_gradient_impl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<sparsity::Indices>()
                                  .Arg<sparsity::Indices>()
                                  .Ret<sparsity::Gradient>()
                                  .Attr<sparsity::Numbers>("window")
                                  .Attr<int64_t>("strip")
                                  .Attr<int64_t>("isa"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsity_masked_forward,
                              sparsity::masked_forward_impl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<sparsity::Mask>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<sparsity::Numbers>("window")
                                  .Attr<int64_t>("isa"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(sparsity_masked_input_gradient,
                              sparsity::masked_input_gradient_impl,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<sparsity::Mask>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<sparsity::Numbers>("window")
                                  .Attr<int64_t>("isa"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    sparsity_num_threads, sparsity::num_threads_impl,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Ret<sparsity::Count>());

// For the loader: what runs here, and what this file was built from.
extern "C" int sparsity_supports(int isa) { return sparsity::supports(isa); }
extern "C" const char* sparsity_sources() { return SPARSITY_SOURCES; }
