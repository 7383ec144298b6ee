// The three products of a layer, computed panel by panel.
//
// All are convolutions of [batch, height, width, channels]; a matrix product is
// one whose image has a single pixel.
#ifndef SPARSITY_LAYER_H_
#define SPARSITY_LAYER_H_

#include <cstdint>
#include <vector>

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

// Assignment of pixels to the lanes of panels, and the pixels that they read.

constexpr int64_t kSharedBytes = 4 << 20;  // share of the last-level cache

// A number of lanes, and the measured cost per lane.
struct Lanes {
  int number;
  double cost;
};
const std::vector<Lanes> kProductLanes = {{64, 1.0}, {32, 1.1}, {16, 1.4}};
// The reduction over lanes costs the same for any number of lanes.
const std::vector<Lanes> kSampleLanes = {
    {128, 0.95}, {64, 1.0}, {32, 1.6}, {16, 2.8}};

// Returns the cheapest number of lanes for a total number of pixels.
int choose_lanes(const std::vector<Lanes>& choices, int64_t num_pixels);

// One position of the kernel's window, as an offset from a pixel.
struct Tap {
  int64_t index;  // height position * window width + width position
  int64_t shift_height, shift_width;
};

// Pixels that read through the same taps. The output of a convolution is one
// grid. Its input gradient has one grid per position modulo the stride: with
// stride 2 an input meets every other tap only, and no zeros are multiplied.
struct Grid {
  int64_t batch, height, width;         // numbers of computed pixels
  int64_t first_height, first_width;    // position in their image
  int64_t out_step_height, out_step_width;
  int64_t in_step_height, in_step_width;  // steps in the image they read
  std::vector<Tap> taps;

  int64_t size() const { return batch * height * width; }
};

struct Tile {
  const Grid* grid;
  int64_t first;  // first pixel of the grid
};

Grid output_grid(const Image& x, const Window& window, const Image& y);
std::vector<Grid> input_grids(const Image& dx, const Window& window);

std::vector<Tile> tiles_of(const std::vector<Grid>& grids, int lanes);

// Sets rows[lane] to the pixel that the lane's pixel reads through a tap; null
// in the padding and for lanes without a pixel.
void read_rows(const Tile& tile, int lanes, const Tap& tap, const Image& from,
               const void** rows);

// Sets rows[lane] to the lane's pixel in its own image; null without a pixel.
void own_rows(const Tile& tile, int lanes, const Image& image, void** rows);

}  // namespace sparsity

#endif  // SPARSITY_LAYER_H_
