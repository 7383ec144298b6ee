// The operations for AVX2 with FMA.
#include "panel.h"
#include "strips.h"

namespace sparsity {

extern const Kernels kAvx2 = {"avx2", pack, gather, product, sample};

}  // namespace sparsity
