// Finds the entries of a mask and lists them as the products read them.
#ifndef SPARSITY_LISTING_H_
#define SPARSITY_LISTING_H_

#include <cstdint>

#include "layer.h"
#include "pool.h"

namespace sparsity {

// A dense [inputs, outputs] weight, of which only what the mask shows counts.
struct MaskedWeight {
  const void* data;
  Type type;
  const uint8_t* mask;  // 0 or 1
  int64_t num_inputs, num_outputs;
};

// The entries; they lie in memory of the thread that asked for them, until it
// asks again.
struct Listed {
  Cells cells;
  float* values;

  Values all() const { return {values, Type::kFloat32}; }
};

// Lists them by output, as `forward` reads them, or by input, as
// `input_gradient` does.
Listed list_by_output(const Kernels& kernels, const Pool& pool,
                      const MaskedWeight& weight);
Listed list_by_input(const Kernels& kernels, const Pool& pool,
                     const MaskedWeight& weight);

}  // namespace sparsity

#endif  // SPARSITY_LISTING_H_
