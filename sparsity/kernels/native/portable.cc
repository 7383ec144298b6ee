// The operations for any processor.
#include "panel.h"
#include "strips.h"

namespace sparsity {

extern const Kernels kPortable = {"portable", pack, gather, product, sample};

}  // namespace sparsity
