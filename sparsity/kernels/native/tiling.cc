#include "layer.h"

namespace sparsity {

namespace {

char* pixel(const Image& image, int64_t n, int64_t h, int64_t w) {
  int64_t index = ((n * image.height + h) * image.width + w) * image.channels;
  int64_t bytes = image.type == Type::kFloat32 ? 4 : 2;
  return static_cast<char*>(image.data) + index * bytes;
}

// Iterates over the pixels of a tile in order.
class Walk {
 public:
  explicit Walk(const Tile& tile) : grid_(*tile.grid), index_(tile.first) {
    int64_t area = grid_.height * grid_.width;
    n = index_ / area;
    h = index_ % area / grid_.width;
    w = index_ % grid_.width;
  }

  bool done() const { return index_ >= grid_.size(); }

  void next() {
    ++index_;
    if (++w < grid_.width) return;
    w = 0;
    if (++h < grid_.height) return;
    h = 0;
    ++n;
  }

  int64_t n, h, w;

 private:
  const Grid& grid_;
  int64_t index_;
};

}  // namespace

// Wide panels use the registers best; narrow ones leave fewer lanes empty.
int choose_lanes(const std::vector<Lanes>& choices, int64_t num_pixels) {
  int best = 0;
  double lowest = 1e300;
  for (const Lanes& lanes : choices) {
    const int64_t tiles = (num_pixels + lanes.number - 1) / lanes.number;
    const double cost = tiles * lanes.number * lanes.cost;
    if (cost < lowest) {
      lowest = cost;
      best = lanes.number;
    }
  }
  return best;
}

Grid output_grid(const Image& x, const Window& window, const Image& y) {
  Grid grid{x.batch, y.height, y.width, 0, 0, 1, 1,
            window.stride_height, window.stride_width, {}};
  for (int64_t i = 0; i < window.height; ++i) {
    for (int64_t j = 0; j < window.width; ++j) {
      grid.taps.push_back(
          {i * window.width + j, i - window.pad_top, j - window.pad_left});
    }
  }
  return grid;
}

std::vector<Grid> input_grids(const Image& dx, const Window& window) {
  std::vector<Grid> grids;
  const int64_t sh = window.stride_height, sw = window.stride_width;
  for (int64_t r = 0; r < sh && r < dx.height; ++r) {
    for (int64_t c = 0; c < sw && c < dx.width; ++c) {
      Grid grid{dx.batch, (dx.height - r + sh - 1) / sh,
                (dx.width - c + sw - 1) / sw, r, c, sh, sw, 1, 1, {}};
      for (int64_t i = 0; i < window.height; ++i) {
        for (int64_t j = 0; j < window.width; ++j) {
          int64_t down = r + window.pad_top - i;
          int64_t right = c + window.pad_left - j;
          if (down % sh != 0 || right % sw != 0) continue;
          grid.taps.push_back({i * window.width + j, down / sh, right / sw});
        }
      }
      grids.push_back(grid);
    }
  }
  return grids;
}

std::vector<Tile> tiles_of(const std::vector<Grid>& grids, int lanes) {
  std::vector<Tile> tiles;
  for (const Grid& grid : grids) {
    for (int64_t first = 0; first < grid.size(); first += lanes) {
      tiles.push_back({&grid, first});
    }
  }
  return tiles;
}

void read_rows(const Tile& tile, int lanes, const Tap& tap, const Image& from,
               const void** rows) {
  const Grid& grid = *tile.grid;
  Walk walk(tile);
  for (int lane = 0; lane < lanes; ++lane, walk.next()) {
    rows[lane] = nullptr;
    if (walk.done()) continue;
    int64_t h = walk.h * grid.in_step_height + tap.shift_height;
    int64_t w = walk.w * grid.in_step_width + tap.shift_width;
    if (h < 0 || h >= from.height || w < 0 || w >= from.width) continue;
    rows[lane] = pixel(from, walk.n, h, w);
  }
}

void own_rows(const Tile& tile, int lanes, const Image& image, void** rows) {
  const Grid& grid = *tile.grid;
  Walk walk(tile);
  for (int lane = 0; lane < lanes; ++lane, walk.next()) {
    rows[lane] =
        walk.done()
            ? nullptr
            : pixel(image, walk.n,
                    walk.h * grid.out_step_height + grid.first_height,
                    walk.w * grid.out_step_width + grid.first_width);
  }
}

}  // namespace sparsity
