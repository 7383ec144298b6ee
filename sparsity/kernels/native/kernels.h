// What one instruction set has to offer: operations on one panel.
//
// A panel is [rows, lanes] float32: the rows are the inputs of a product (or
// its outputs, for the gradient of the weights), the lanes some examples (or
// pixels, in a convolution) side by side, so that one weight times a row is a
// few vector instructions.
//
// The files of the instruction sets include nothing of the C++ library: its
// inline functions, compiled for a new processor, could be the ones the linker
// keeps for everybody.
#ifndef SPARSITY_KERNELS_H_
#define SPARSITY_KERNELS_H_

#include <stddef.h>
#include <stdint.h>

namespace sparsity {

enum class Type { kFloat32, kBFloat16 };

// Lanes of a panel: one of 16, 32 and 64; 128 for the gradient of weights.
constexpr int kMaxLanes = 128;

// Rows of a product that go through the strips together; a strip is some rows
// of a panel that stay in the first-level cache meanwhile. The entries are in
// this order; see `structure.py`.
constexpr int kBlock = 128;

// Writes channels of `lanes` rows as [channels, lanes]; null rows are zero.
struct Pack {
  const void* const* rows;  // [lanes]
  Type type;
  int lanes;
  int64_t first_channel, last_channel;
  float* panel;  // row 0 of it is channel 0
};

// to[i] = values[entries[i]], or values[i] if there are none, as float32.
struct Gather {
  const void* values;
  Type type;
  const int32_t* entries;
  int64_t first, last;
  float* to;
};

// Cells of one strip: some rows of a block, each with entries from begins[row]
// to begins[row + 1].
struct Piece {
  const int32_t* begins;
  int first_row, num_rows;  // of the block
  int64_t panel_row;        // what index 0 of the columns means
};

// outputs[lane][row] = sum over entries of value * panel[column][lane], for the
// rows of one block.
struct Product {
  const Piece* pieces;
  int num_pieces;
  const float* values;
  const int32_t* columns;
  const float* panel;
  int lanes;
  int64_t first_row;
  int num_rows;
  void* const* outputs;  // [lanes]; null: nobody wants this lane
  Type output_type;
};

// values[entry] (+)= sum over lanes of inputs[column] * outputs[row], for the
// rows of one block.
struct Sample {
  const int32_t* cells[2];  // [strips, rows] of A, and of B only
  int num_strips, num_rows;
  const int32_t* columns;
  const float* inputs;
  const float* outputs;  // of the block
  int lanes;
  bool add;
  float* values;
};

// Some rows and columns of a dense weight and of its mask. They are cells one
// after the other: the columns are (`by_column`, of at most kBlock) or the rows.
struct Patch {
  const uint8_t* mask;  // 0 or 1
  const void* weights;
  Type type;
  int64_t stride;  // from row to row
  int num_rows, num_columns;
  bool by_column;
  int32_t first;    // what the first row (or column) of a cell is called
  int32_t* begins;  // `count` writes how many entries a cell has, `list` reads
                    // where they begin
  int32_t* columns;
  float* values;
};

struct Kernels {
  const char* name;
  void (*pack)(const Pack&);
  void (*gather)(const Gather&);
  void (*product)(const Product&);
  void (*sample)(const Sample&);
  void (*count)(const Patch&);
  void (*list)(const Patch&);
};

extern const Kernels kPortable;
extern const Kernels kAvx2;
extern const Kernels kAvx512;

}  // namespace sparsity

#endif  // SPARSITY_KERNELS_H_
