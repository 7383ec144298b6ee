// The three products of a layer, and how they are cut into panels.
//
// Everything is a convolution of [batch, height, width, channels]: a plain
// product is one whose image has a single pixel.
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

// y = x W, of each output's entries from begins[output] to ends[output].
void forward(const Kernels& kernels, const Pool& pool, const Image& x,
             const Values& values, const int32_t* begins, const int32_t* ends,
             const int32_t* columns, int64_t num_entries, const Window& window,
             const Image& y);

// dx = dy W^T, by the transposed structure.
void input_gradient(const Kernels& kernels, const Pool& pool, const Image& dy,
                    const Values& values, const int32_t* rows,
                    const int32_t* columns, const int32_t* entries,
                    int64_t num_entries, const Window& window,
                    const Image& dx);

// dW at the entries; those of A end at split[output].
void weight_gradient(const Kernels& kernels, const Pool& pool, const Image& x,
                     const Image& dy, const int32_t* rows, const int32_t* split,
                     const int32_t* columns, int64_t num_entries,
                     const Window& window, float* values);

}  // namespace sparsity

#endif  // SPARSITY_LAYER_H_
