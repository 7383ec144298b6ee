#include <algorithm>
#include <vector>

#include "layer.h"

namespace sparsity {

namespace {

constexpr int64_t kMaxSums = 32;        // partial sums of a gradient
constexpr int64_t kSumBlock = 1 << 14;  // entries reduced by one task

// The weight gradient: a panel of x for all taps, followed by one of dy.
struct Correlation {
  const Kernels& kernels;
  const Pool& pool;
  Image x, dy;
  const Cells& cells;
  int64_t num_entries;
  int64_t num_rows;  // of the panel of x
  int lanes;
  std::vector<Tile> tiles;

  int64_t size() const { return (num_rows + dy.channels) * lanes; }

  int64_t operations(int64_t num_tiles) const {
    return num_entries * lanes * num_tiles;
  }

  // Packs x of one tap or, after the last tap, dy.
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

  int64_t num_blocks() const { return (dy.channels + kBlock - 1) / kBlock; }

  // Computes the entries of a block of outputs.
  void sample(const float* panel, int64_t block, bool add,
              float* values) const {
    const int64_t first = block * kBlock;
    const int64_t size = std::min<int64_t>(kBlock, dy.channels - first);
    const int32_t* begins = cells.begins + first * cells.num_strips();
    kernels.sample({{begins, begins + cells.size()},
                    static_cast<int>(cells.num_strips()),
                    static_cast<int>(size), cells.columns, panel,
                    panel + (num_rows + first) * lanes, lanes, add, values});
  }
};

// Many tiles, few entries: each task has its own tiles and partial sums.
void sum_apart(const Correlation& c, int64_t num_tasks, float* values) {
  float* sums = scratch<Use::kShared>().get(num_tasks * c.num_entries);
  const int64_t num_tiles = c.tiles.size();
  c.pool.run(num_tasks, c.operations(num_tiles), [&](int64_t task) {
    float* panel = scratch<Use::kOwn>().get(c.size());
    const int64_t first = num_tiles * task / num_tasks;
    const int64_t last = num_tiles * (task + 1) / num_tasks;
    for (int64_t i = first; i < last; ++i) {
      const Tile& tile = c.tiles[i];
      for (size_t j = 0; j <= tile.grid->taps.size(); ++j) {
        c.pack(tile, j, panel);
      }
      for (int64_t block = 0; block < c.num_blocks(); ++block) {
        c.sample(panel, block, i > first, sums + task * c.num_entries);
      }
    }
  });
  const int64_t blocks = (c.num_entries + kSumBlock - 1) / kSumBlock;
  c.pool.run(blocks, kMove * num_tasks * c.num_entries, [&](int64_t block) {
    const int64_t first = block * kSumBlock;
    const int64_t last = std::min(first + kSumBlock, c.num_entries);
    for (int64_t i = first; i < last; ++i) {
      float sum = 0.0f;
      for (int64_t task = 0; task < num_tasks; ++task) {
        sum += sums[task * c.num_entries + i];
      }
      values[i] = sum;
    }
  });
}

// Few tiles, many entries: the threads pack a few tiles together, then divide
// the rows among them.
void sum_together(const Correlation& c, float* values) {
  const int64_t num_tiles = c.tiles.size(), size = c.size();
  const int64_t at_once = std::min(
      num_tiles, std::max<int64_t>(kSharedBytes / (4 * size), 1));
  float* panels = scratch<Use::kShared>().get(at_once * size);
  const int64_t sources = c.tiles[0].grid->taps.size() + 1;
  for (int64_t start = 0; start < num_tiles; start += at_once) {
    const int64_t count = std::min(at_once, num_tiles - start);
    c.pool.run(count * sources, kMove * count * size, [&](int64_t i) {
      c.pack(c.tiles[start + i / sources], i % sources,
             panels + i / sources * size);
    });
    c.pool.run(c.num_blocks(), c.operations(count), [&](int64_t block) {
      for (int64_t i = 0; i < count; ++i) {
        c.sample(panels + i * size, block, start + i > 0, values);
      }
    });
  }
}

}  // namespace

void weight_gradient(const Kernels& kernels, const Pool& pool, const Image& x,
                     const Image& dy, const Cells& cells, const Window& window,
                     float* values) {
  std::vector<Grid> grids = {output_grid(x, window, dy)};
  const int64_t num_pixels = grids[0].size();
  const int64_t num_entries = cells.begins[2 * cells.size()];
  if (num_pixels == 0 || num_entries == 0) {
    std::fill(values, values + num_entries, 0.0f);
    return;
  }
  const int lanes = choose_lanes(kSampleLanes, num_pixels);
  Correlation c{kernels, pool, x, dy, cells, num_entries, cells.num_columns,
                lanes, tiles_of(grids, lanes)};
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
