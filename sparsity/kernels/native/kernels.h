// Operations on one panel, implemented for each instruction set.
//
// A panel is [rows, lanes] float32. Rows are the inputs of a product (its
// outputs, for the weight gradient); lanes are examples or pixels, so that one
// weight times a row takes a few vector instructions.
//
// `isa.cc` must not include the C++ library: the linker might
// use its inline functions, compiled for a new processor, everywhere.
#ifndef SPARSITY_KERNELS_H_
#define SPARSITY_KERNELS_H_

#include <stddef.h>
#include <stdint.h>

namespace sparsity {

enum class Type { kFloat32, kBFloat16 };

// A panel has 16, 32 or 64 lanes, or 128 for the weight gradient.
constexpr int kMaxLanes = 128;

// Rows of a product that traverse the strips together; a strip is a range of
// panel rows that stays in the L1 cache meanwhile. The entries are stored in
// this order; see `structure.py`.
constexpr int kBlock = 128;

// Transposes channels of `lanes` rows to [channels, lanes]; null rows are zero.
struct Pack {
  const void* const* rows;  // [lanes]
  Type type;
  int lanes;
  int64_t first_channel, last_channel;
  float* panel;  // starts at channel 0
};

// to[i] = values[entries[i]] in float32; values[i] if `entries` is null.
struct Gather {
  const void* values;
  Type type;
  const int32_t* entries;
  int64_t first, last;
  float* to;
};

// Cells of one strip for rows of a block; the entries of a row are
// begins[row], ..., begins[row + 1] - 1.
struct Piece {
  const int32_t* begins;
  int first_row, num_rows;  // of the block
  int64_t panel_row;        // panel row of column 0
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
  void* const* outputs;  // [lanes]; null for unused lanes
  Type output_type;
};

// values[entry] (+)= sum over lanes of inputs[column] * outputs[row], for the
// rows of one block.
struct Sample {
  const int32_t* cells[2];  // [strips, rows] of A, and of B minus A
  int num_strips, num_rows;
  const int32_t* columns;
  const float* inputs;
  const float* outputs;  // of the block
  int lanes;
  bool add;
  float* values;
};

// A rectangle of a dense weight and its mask, whose columns (at most kBlock, if
// `by_column`) or rows are consecutive cells.
struct Patch {
  const uint8_t* mask;  // 0 or 1
  const void* weights;
  Type type;
  int64_t stride;  // between rows
  int num_rows, num_columns;
  bool by_column;
  int32_t first;    // index of a cell's first row (or column)
  int32_t* begins;  // `count` writes the number of entries of each cell, `list`
                    // reads their start
  int32_t* columns;
  float* values;
};

struct Kernels {
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
