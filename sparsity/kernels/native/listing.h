// Lists the active entries of a masked weight in the order of the products.
#ifndef SPARSITY_LISTING_H_
#define SPARSITY_LISTING_H_

#include <cstdint>

#include "layer.h"
#include "pool.h"

namespace sparsity {

// A dense [inputs, outputs] weight and its mask.
struct MaskedWeight {
  const void* data;
  Type type;
  const uint8_t* mask;  // 0 or 1
  int64_t num_inputs, num_outputs;
};

// The entries, in scratch memory of the calling thread, valid until its next
// call.
struct Listed {
  Cells cells;
  float* values;

  Values all_values() const { return {values, Type::kFloat32}; }
};

// Lists the entries by output for `forward`, or by input for `input_gradient`.
Listed list(const Kernels& kernels, const Pool& pool,
            const MaskedWeight& weight, bool by_output);

}  // namespace sparsity

#endif  // SPARSITY_LISTING_H_
