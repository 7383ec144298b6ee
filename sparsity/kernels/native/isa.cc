// The operations, compiled once for each instruction set.
#include "marks.h"
#include "strips.h"

namespace sparsity {

extern const Kernels SPARSITY_ISA = {pack, gather, product, sample, count, list};

}  // namespace sparsity
