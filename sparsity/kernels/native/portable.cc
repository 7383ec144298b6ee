// The operations for any processor.
#include "panel.h"
#include "strips.h"

namespace sparsity {

extern const Kernels kPortable = {"portable", pack, gather, product, sample,
                                strip_product, strip_sample};

}  // namespace sparsity
