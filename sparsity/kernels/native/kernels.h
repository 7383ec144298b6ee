// What one instruction set has to offer: operations on one panel.
//
// A panel is [rows, lanes] float32: the rows are the inputs of a product (or
// its outputs, for the gradient of the weights), the lanes some examples (or
// pixels, in a convolution) side by side, so that one weight times a row is a
// few vector instructions. Panels are made to stay in the core's own cache.
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

// Rows of a product whose entries are put in order together.
constexpr int kOrderRows = 128;

// Writes channels of `lanes` rows as [channels, lanes]; null rows are zero.
struct Pack {
  const void* const* rows;  // [lanes]
  Type type;
  int lanes;
  int64_t first_channel, last_channel;
  float* panel;  // row 0 of it is channel 0
};

// One part of each row's entries: a convolution's input gradient has one for
// each tap of the kernel, everything else has just one.
struct Part {
  const int32_t* begins;  // [rows]
  const int32_t* ends;    // [rows]
  const float* panel;     // what index 0 of the columns means
};

// to[i] = values[entries[i]], as float32.
struct Gather {
  const void* values;
  Type type;
  const int32_t* entries;
  int64_t first, last;
  float* to;
};

// outputs[lane][row] = sum over entries of value * panel[column][lane].
struct Product {
  const Part* parts;
  int num_parts;
  const void* values;
  Type value_type;
  const int32_t* columns;
  int lanes;
  int64_t first_row, last_row;
  void* const* outputs;  // [lanes]; null: nobody wants this lane
  Type output_type;
};

// values[entry] (+)= sum over lanes of inputs[column] * outputs[row].
struct Sample {
  const int32_t* rows;  // [rows + 1]
  const int32_t* columns;
  const float* inputs;
  const float* outputs;
  int lanes;
  int64_t first_row, last_row;
  bool add;
  float* values;
};

// An entry in the order of strips. Its row of the panel begins at `offset`.
struct Entry {
  float value;
  int32_t offset;
};

struct Place {
  int32_t entry;  // in the structure
  int32_t offset;
};

// A block's rows in the order of strips: for each strip of the panel the
// entries of each row that read it; see `order.h`.
template <typename T>
struct Strips {
  const T* entries;
  const int32_t* counts;  // [strips, kOrderRows]
  int num_strips;
  int64_t first_row, last_row;
};

// As Product, of one block.
struct StripProduct {
  Strips<Entry> strips;
  const float* panel;
  int lanes;
  void* const* outputs;
  Type output_type;
};

// As Sample, of one block; sums[i] is that of its i-th entry.
struct StripSample {
  Strips<Place> strips;
  const float* inputs;
  const float* outputs;
  int lanes;
  bool add;
  float* sums;
};

struct Kernels {
  const char* name;
  void (*pack)(const Pack&);
  void (*gather)(const Gather&);
  void (*product)(const Product&);
  void (*sample)(const Sample&);
  void (*strip_product)(const StripProduct&);
  void (*strip_sample)(const StripSample&);
};

extern const Kernels kPortable;
extern const Kernels kAvx2;
extern const Kernels kAvx512;

}  // namespace sparsity

#endif  // SPARSITY_KERNELS_H_
