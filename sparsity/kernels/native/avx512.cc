// The operations for AVX-512.
#include "panel.h"
#include "strips.h"

namespace sparsity {

extern const Kernels kAvx512 = {"avx512", pack, gather, product, sample,
                                strip_product, strip_sample};

}  // namespace sparsity
