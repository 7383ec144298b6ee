// The operations for any processor.
#include "marks.h"
#include "panel.h"
#include "strips.h"

namespace sparsity {

extern const Kernels kPortable = {"portable", pack,   gather, product,
                                  sample, count,  list};

}  // namespace sparsity
