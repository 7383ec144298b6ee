#include <algorithm>
#include <utility>
#include <vector>

#include "layer.h"

namespace sparsity {
namespace {

// The shortest strip has `kShortestStrip` columns; the length doubles until a
// cell has `kEntriesPerCell` entries on average. As in structure.py.
constexpr int64_t kShortestStrip = kBlock;
constexpr int64_t kLongestStrip = 1024;
constexpr int64_t kEntriesPerCell = 8;

// Rows of the mask from which its density is estimated.
constexpr int64_t kSampledRows = 32;

int64_t choose_strip(const Kernels& kernels, const MaskedWeight& weight) {
  const int64_t step = std::max<int64_t>(weight.num_inputs / kSampledRows, 1);
  int64_t count = 0, size = 0;
  for (int64_t row = 0; row < weight.num_inputs; row += step) {
    Patch patch{};
    int32_t number = 0;
    patch.mask = weight.mask + row * weight.num_outputs;
    patch.num_rows = 1;
    patch.num_columns = static_cast<int>(weight.num_outputs);
    patch.begins = &number;
    kernels.count(patch);
    count += number;
    size += weight.num_outputs;
  }
  int64_t strip = kShortestStrip;
  while (strip < kLongestStrip && strip * count < kEntriesPerCell * size) {
    strip *= 2;
  }
  return strip;
}

// Cuts cells into blocks of rows and strips of columns.
std::vector<Patch> patches_of(const MaskedWeight& weight, const Cells& cells,
                              bool by_output, int32_t* begins) {
  const int64_t width = weight.type == Type::kFloat32 ? 4 : 2;
  std::vector<Patch> patches;
  for (int64_t row = 0; row < cells.num_rows; row += kBlock) {
    const int64_t rows = std::min<int64_t>(kBlock, cells.num_rows - row);
    for (int64_t column = 0; column < cells.num_columns;
         column += cells.strip) {
      const int64_t columns =
          std::min(cells.strip, cells.num_columns - column);
      const int64_t at = by_output ? column * weight.num_outputs + row
                                   : row * weight.num_outputs + column;
      Patch patch{};
      patch.mask = weight.mask + at;
      patch.weights = static_cast<const char*>(weight.data) + at * width;
      patch.type = weight.type;
      patch.stride = weight.num_outputs;
      patch.num_rows = static_cast<int>(by_output ? columns : rows);
      patch.num_columns = static_cast<int>(by_output ? rows : columns);
      patch.by_column = by_output;
      patch.first = static_cast<int32_t>(column);
      patch.begins = begins;
      patches.push_back(patch);
      begins += rows;
    }
  }
  return patches;
}

}  // namespace

Listed list(const Kernels& kernels, const Pool& pool,
            const MaskedWeight& weight, bool by_output) {
  Cells cells{nullptr, nullptr, weight.num_inputs, weight.num_outputs,
              choose_strip(kernels, weight)};
  if (by_output) std::swap(cells.num_rows, cells.num_columns);
  int32_t* begins = scratch<Use::kBegins>().get<int32_t>(cells.size() + 1);
  std::vector<Patch> patches = patches_of(weight, cells, by_output, begins);
  const int64_t size = cells.num_rows * cells.num_columns;
  pool.run(patches.size(), kMove * size / 8,
           [&](int64_t i) { kernels.count(patches[i]); });
  int32_t total = 0;
  for (int64_t i = 0; i < cells.size(); ++i) {
    total += std::exchange(begins[i], total);
  }
  begins[cells.size()] = total;
  int32_t* columns = scratch<Use::kColumns>().get<int32_t>(total);
  float* values = scratch<Use::kValues>().get<float>(total);
  pool.run(patches.size(), kMove * size, [&](int64_t i) {
    patches[i].columns = columns;
    patches[i].values = values;
    kernels.list(patches[i]);
  });
  cells.begins = begins;
  cells.columns = columns;
  return {cells, {values, Type::kFloat32}};
}

}  // namespace sparsity
