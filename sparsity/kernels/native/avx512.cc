// The operations for AVX-512.
#include "marks.h"
#include "panel.h"
#include "strips.h"

namespace sparsity {

extern const Kernels kAvx512 = {"avx512", pack,   gather, product,
                                sample, count,  list};

}  // namespace sparsity
