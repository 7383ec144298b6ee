#include <algorithm>
#include <vector>

#include "layer.h"
#include "tiling.h"

namespace sparsity {

namespace {

constexpr int64_t kMaxSums = 32;  // sums of a gradient that are apart

// The gradient of the weights: a panel of x, of all taps, and under it one of
// dy.
struct Correlation {
  const Kernels& kernels;
  const Pool& pool;
  Image x, dy;
  const int32_t* rows;
  const int32_t* columns;
  int64_t num_entries;
  int64_t num_rows;  // of the panel of x
  int lanes;
  std::vector<Tile> tiles;

  int64_t size() const { return (num_rows + dy.channels) * lanes; }

  int64_t operations(int64_t num_tiles) const {
    return num_entries * lanes * num_tiles;
  }

  // Packs x of one tap or, after the last of them, dy.
  void pack(const Tile& tile, size_t source, float* panel) const {
    const std::vector<Tap>& taps = tile.grid->taps;
    const void* from[kMaxLanes];
    if (source < taps.size()) {
      read_rows(tile, lanes, taps[source], x, from);
      float* to = panel + source * x.channels * lanes;
      kernels.pack({from, x.type, lanes, 0, x.channels, to});
    } else {
      void* own[kMaxLanes];
      own_rows(tile, lanes, dy, own);
      std::copy(own, own + lanes, from);
      float* to = panel + num_rows * lanes;
      kernels.pack({from, dy.type, lanes, 0, dy.channels, to});
    }
  }

  void sample(const float* panel, int64_t first, int64_t last, bool add,
              float* values) const {
    kernels.sample({rows, columns, panel, panel + num_rows * lanes, lanes,
                    first, last, add, values});
  }
};

// Many tiles, few entries: each task has its tiles and sums of its own.
void sum_apart(const Correlation& c, int64_t num_tasks, float* values) {
  float* sums = shared_scratch().get(num_tasks * c.num_entries);
  const int64_t num_tiles = c.tiles.size();
  c.pool.run(num_tasks, c.operations(num_tiles), [&](int64_t task) {
    float* panel = own_scratch().get(c.size());
    const int64_t first = num_tiles * task / num_tasks;
    const int64_t last = num_tiles * (task + 1) / num_tasks;
    for (int64_t i = first; i < last; ++i) {
      const Tile& tile = c.tiles[i];
      for (size_t j = 0; j <= tile.grid->taps.size(); ++j) {
        c.pack(tile, j, panel);
      }
      c.sample(panel, 0, c.dy.channels, i > first,
               sums + task * c.num_entries);
    }
  });
  std::copy(sums, sums + c.num_entries, values);
  for (int64_t task = 1; task < num_tasks; ++task) {
    const float* part = sums + task * c.num_entries;
    for (int64_t i = 0; i < c.num_entries; ++i) values[i] += part[i];
  }
}

// Few tiles, many entries: the threads pack some tiles together, then divide
// the rows.
void sum_together(const Correlation& c, float* values) {
  const int64_t num_tiles = c.tiles.size(), size = c.size();
  const int64_t at_once = std::min(
      num_tiles, std::max<int64_t>(kSharedBytes / (4 * size), 1));
  float* panels = shared_scratch().get(at_once * size);
  const int64_t sources = c.tiles[0].grid->taps.size() + 1;
  const int64_t blocks = (c.dy.channels + kRowBlock - 1) / kRowBlock;
  for (int64_t start = 0; start < num_tiles; start += at_once) {
    const int64_t count = std::min(at_once, num_tiles - start);
    c.pool.run(count * sources, kMove * count * size, [&](int64_t i) {
      c.pack(c.tiles[start + i / sources], i % sources,
             panels + i / sources * size);
    });
    c.pool.run(blocks, c.operations(count), [&](int64_t block) {
      const int64_t first = block * kRowBlock;
      const int64_t last = std::min(first + kRowBlock, c.dy.channels);
      for (int64_t i = 0; i < count; ++i) {
        c.sample(panels + i * size, first, last, start + i > 0, values);
      }
    });
  }
}

}  // namespace

void weight_gradient(const Kernels& kernels, const Pool& pool, const Image& x,
                     const Image& dy, const int32_t* rows,
                     const int32_t* columns, int64_t num_entries,
                     const Window& window, float* values) {
  std::vector<Grid> grids = {output_grid(x, window, dy)};
  const int64_t num_rows = window.height * window.width * x.channels;
  const int lanes = choose_lanes(num_rows + dy.channels, grids[0].size());
  Correlation c{kernels,     pool,     x,     dy,   rows, columns,
                num_entries, num_rows, lanes, tiles_of(grids, lanes)};
  if (c.tiles.empty() || num_entries == 0) {
    std::fill(values, values + num_entries, 0.0f);
    return;
  }
  const int64_t num_tasks =
      std::min<int64_t>({kMaxSums, static_cast<int64_t>(c.tiles.size()) / 2,
                         kSharedBytes / (4 * num_entries)});
  if (num_tasks >= 2 * pool.num_threads()) {
    sum_apart(c, num_tasks, values);
  } else {
    sum_together(c, values);
  }
}

}  // namespace sparsity
