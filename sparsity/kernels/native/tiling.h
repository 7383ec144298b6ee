// Which pixels lie side by side in a panel, and what each of them reads.
#ifndef SPARSITY_TILING_H_
#define SPARSITY_TILING_H_

#include <cstdint>
#include <vector>

#include "layer.h"

namespace sparsity {

constexpr int64_t kSharedBytes = 4 << 20;  // of the last-level cache

// How many lanes a panel may have, and what one of them costs; measured.
struct Lanes {
  int number;
  double cost;
};
const std::vector<Lanes> kProductLanes = {{64, 1.0}, {32, 1.1}, {16, 1.4}};
// The sum over the lanes costs the same for any number of them.
const std::vector<Lanes> kSampleLanes = {
    {128, 0.95}, {64, 1.0}, {32, 1.6}, {16, 2.8}};

// Returns the best number of lanes for so many pixels in all.
int choose_lanes(const std::vector<Lanes>& choices, int64_t num_pixels);

// One place of the kernel's window: where it reads, seen from a pixel.
struct Tap {
  int64_t index;  // height position * window width + width position
  int64_t shift_height, shift_width;
};

// Pixels that read through the same taps. The output of a convolution has one
// such grid. Its input gradient has one for each remainder of a position by
// the stride, since with stride 2 an input met only every other tap; so no
// product with the zeros in between is ever made.
struct Grid {
  int64_t batch, height, width;         // of the pixels that are computed
  int64_t first_height, first_width;    // where they are in their image
  int64_t out_step_height, out_step_width;
  int64_t in_step_height, in_step_width;  // how the pixels read
  std::vector<Tap> taps;

  int64_t size() const { return batch * height * width; }
};

struct Tile {
  const Grid* grid;
  int64_t first;  // pixel of the grid
};

Grid output_grid(const Image& x, const Window& window, const Image& y);
std::vector<Grid> input_grids(const Image& dx, const Window& window);

std::vector<Tile> tiles_of(const std::vector<Grid>& grids, int lanes);

// Fills rows[lane] with where the lane's pixel reads through a tap; null where
// that lies in the padding or the tile has fewer pixels than lanes.
void read_rows(const Tile& tile, int lanes, const Tap& tap, const Image& from,
               const void** rows);

// Fills rows[lane] with where the lane's pixel is in its own image.
void own_rows(const Tile& tile, int lanes, const Image& image, void** rows);

}  // namespace sparsity

#endif  // SPARSITY_TILING_H_
