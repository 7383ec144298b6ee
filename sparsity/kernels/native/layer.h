// The three products of a layer, computed panel by panel.
//
// All are convolutions of [batch, height, width, channels]; a matrix product is
// one whose image has a single pixel.
#ifndef SPARSITY_LAYER_H_
#define SPARSITY_LAYER_H_

#include <cstdint>

#include "kernels.h"
#include "pool.h"

namespace sparsity {

struct Image {
  void* data;
  Type type;
  int64_t batch, height, width, channels;
};

struct Window {
  int64_t height, width;
  int64_t stride_height, stride_width;
  int64_t pad_top, pad_left;
};

struct Values {
  void* data;
  Type type;
};

// The entries of a [rows, columns] weight, in cells ordered by block of kBlock
// rows, then by strip of columns, then by row; see `structure.py`.
struct Cells {
  const int32_t* begins;  // start of each cell, and end of the last one
  const int32_t* columns;
  int64_t num_rows, num_columns;
  int64_t strip;  // columns per strip

  int64_t num_strips() const { return (num_columns + strip - 1) / strip; }
  int64_t size() const { return num_rows * num_strips(); }
  int64_t num_entries() const { return begins[size()]; }
};

// y = x W from the cells of A.
void forward(const Kernels& kernels, const Pool& pool, const Image& x,
             const Values& values, const Cells& cells, const Window& window,
             const Image& y);

// dx = dy W^T from the transposed cells; entries[i] is the index of the i-th
// entry in the values, null for the identity.
void input_gradient(const Kernels& kernels, const Pool& pool, const Image& dy,
                    const Values& values, const Cells& cells,
                    const int32_t* entries, const Window& window,
                    const Image& dx);

// dW at the entries; the cells of A are followed by those of B minus A.
void weight_gradient(const Kernels& kernels, const Pool& pool, const Image& x,
                     const Image& dy, const Cells& cells, const Window& window,
                     float* values);

// A dense [inputs, outputs] weight and its mask.
struct MaskedWeight {
  const void* data;
  Type type;
  const uint8_t* mask;  // 0 or 1
  int64_t num_inputs, num_outputs;
};

// Its active entries in the order of the products, in scratch memory of the
// calling thread, valid until its next call.
struct Listed {
  Cells cells;
  Values values;
};

// Lists the entries by output for `forward`, or by input for `input_gradient`.
Listed list(const Kernels& kernels, const Pool& pool,
            const MaskedWeight& weight, bool by_output);

}  // namespace sparsity

#endif  // SPARSITY_LAYER_H_
