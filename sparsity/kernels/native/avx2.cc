// The operations for AVX2 with FMA.
#include "marks.h"
#include "panel.h"
#include "strips.h"

namespace sparsity {

extern const Kernels kAvx2 = {"avx2", pack,   gather, product,
                              sample, count,  list};

}  // namespace sparsity
