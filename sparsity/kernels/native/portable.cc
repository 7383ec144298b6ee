// The operations for any processor.
#include "panel.h"

namespace sparsity {

extern const Kernels kPortable = {"portable", pack, gather, product, sample};

}  // namespace sparsity
