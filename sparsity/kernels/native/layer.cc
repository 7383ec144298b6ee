#include "layer.h"

#include <algorithm>
#include <vector>

#include "order.h"
#include "tiling.h"

namespace sparsity {

namespace {

constexpr int64_t kGatherBlock = 1 << 16;  // entries gathered in one task
constexpr int64_t kPackBlock = 256;        // channels packed in one task

// What `forward` and `input_gradient` have in common.
struct Job {
  const Kernels& kernels;
  Image from, to;
  Values values;
  const int32_t* begins;
  const int32_t* ends;
  const int32_t* columns;
  const int32_t* places;  // of the entries in the values; null: the same
  // How far apart the rows of two taps lie in `begins` and `ends`; 0 where all
  // taps are in one row.
  int64_t rows_per_tap;
  int64_t num_rows;  // of the largest panel
  int64_t num_entries;
  std::vector<Grid> grids;
  int lanes = 0;
  // Of each grid the order of its entries, and what was made in it; null where
  // they stay as they are.
  std::vector<Order> orders = {};
  std::vector<float*> ordered = {};
  bool fused = false;  // the blocks of the one grid are made when needed

  int64_t grid(const Tile& tile) const { return tile.grid - grids.data(); }

  void make_block(int64_t grid, int64_t block, float* room) const {
    orders[grid].make_values(block, values.data, values.type, places, room);
  }
};

void pack_tap(const Job& job, const Tile& tile, int64_t tap, int64_t first,
              int64_t last, float* panel) {
  const void* rows[kMaxLanes];
  read_rows(tile, job.lanes, tile.grid->taps[tap], job.from, rows);
  float* to = panel + tap * job.from.channels * job.lanes;
  job.kernels.pack({rows, job.from.type, job.lanes, first, last, to});
}

void multiply(const Job& job, const Tile& tile, int64_t first, int64_t last,
              const float* panel) {
  void* outputs[kMaxLanes];
  own_rows(tile, job.lanes, job.to, outputs);
  const int64_t grid = job.grid(tile);
  if (job.ordered[grid] != nullptr) {
    const Order& order = job.orders[grid];
    for (int64_t row = first; row < last; row += kOrderRows) {
      const int64_t block = row / kOrderRows;
      const float* made = job.ordered[grid] + order.start(block);
      job.kernels.strip_product({order.strips<Entry>(block, made), panel,
                                 job.lanes, outputs, job.to.type});
    }
    return;
  }
  std::vector<Part> parts;
  if (job.rows_per_tap == 0) {
    parts.push_back({job.begins, job.ends, panel});
  } else {
    int64_t tap_size = job.from.channels * job.lanes;
    for (size_t i = 0; i < tile.grid->taps.size(); ++i) {
      int64_t skip = tile.grid->taps[i].index * job.rows_per_tap;
      parts.push_back(
          {job.begins + skip, job.ends + skip, panel + i * tap_size});
    }
  }
  job.kernels.product({parts.data(), static_cast<int>(parts.size()),
                       job.values.data, job.values.type, job.columns, job.lanes,
                       first, last, outputs, job.to.type});
}

int64_t panel_size(const Job& job, const Grid& grid) {
  return static_cast<int64_t>(grid.taps.size()) * job.from.channels * job.lanes;
}

int64_t operations(const Job& job, const std::vector<Tile>& tiles) {
  return job.num_entries * job.lanes * tiles.size();
}

// Many tiles: each thread packs and multiplies tiles of its own.
void run_tiles(const Job& job, const Pool& pool,
               const std::vector<Tile>& tiles) {
  pool.run(tiles.size(), operations(job, tiles), [&](int64_t i) {
    const Tile& tile = tiles[i];
    float* panel = own_scratch().get(panel_size(job, *tile.grid));
    for (size_t tap = 0; tap < tile.grid->taps.size(); ++tap) {
      pack_tap(job, tile, tap, 0, job.from.channels, panel);
    }
    multiply(job, tile, 0, job.to.channels, panel);
  });
}

// Few tiles: the threads pack them together, then divide the rows.
void run_rows(const Job& job, const Pool& pool,
              const std::vector<Tile>& tiles) {
  struct PackTask {
    int64_t tile, tap, first;
  };
  std::vector<PackTask> tasks;
  int64_t size = 0;
  for (size_t i = 0; i < tiles.size(); ++i) {
    size = std::max(size, panel_size(job, *tiles[i].grid));
    for (size_t tap = 0; tap < tiles[i].grid->taps.size(); ++tap) {
      for (int64_t c = 0; c < job.from.channels; c += kPackBlock) {
        tasks.push_back({static_cast<int64_t>(i), static_cast<int64_t>(tap), c});
      }
    }
  }
  float* panels = shared_scratch().get(tiles.size() * size);
  pool.run(tasks.size(), kMove * tiles.size() * size, [&](int64_t i) {
    const PackTask& task = tasks[i];
    int64_t last = std::min(task.first + kPackBlock, job.from.channels);
    pack_tap(job, tiles[task.tile], task.tap, task.first, last,
             panels + task.tile * size);
  });
  const bool any = std::any_of(job.ordered.begin(), job.ordered.end(),
                               [](const float* made) { return made; });
  const int64_t step = any || job.fused ? kOrderRows : kRowBlock;
  const int64_t blocks = (job.to.channels + step - 1) / step;
  if (job.fused) {
    pool.run(blocks, operations(job, tiles), [&](int64_t block) {
      const Order& order = job.orders[0];
      float* made = own_scratch().get(order.size(block));
      job.make_block(0, block, made);
      for (size_t i = 0; i < tiles.size(); ++i) {
        void* outputs[kMaxLanes];
        own_rows(tiles[i], job.lanes, job.to, outputs);
        job.kernels.strip_product({order.strips<Entry>(block, made),
                                   panels + i * size, job.lanes, outputs,
                                   job.to.type});
      }
    });
    return;
  }
  pool.run(tiles.size() * blocks, operations(job, tiles), [&](int64_t i) {
    int64_t first = i % blocks * step;
    int64_t last = std::min(first + step, job.to.channels);
    multiply(job, tiles[i / blocks], first, last, panels + i / blocks * size);
  });
}

// Chooses the lanes, and orders that are worth it.
void plan(Job& job, int64_t most_panel_bytes) {
  int64_t num_pixels = 0;
  for (const Grid& grid : job.grids) {
    num_pixels = std::max(num_pixels, grid.size());
  }
  job.lanes = choose_lanes(job.num_rows, num_pixels, most_panel_bytes);
  job.orders.clear();
  for (const Grid& grid : job.grids) {
    Source source{{}, false, job.num_rows, job.to.channels, job.columns};
    if (job.rows_per_tap == 0) {
      source.ranges.push_back({job.begins, job.ends, 0});
    } else {
      source.range_size = job.from.channels;
      for (const Tap& tap : grid.taps) {
        const int64_t skip = tap.index * job.rows_per_tap;
        const int64_t panel_row = source.ranges.size() * job.from.channels;
        source.ranges.push_back(
            {job.begins + skip, job.ends + skip, panel_row});
      }
    }
    const int64_t panels = (grid.size() + job.lanes - 1) / job.lanes;
    job.orders.emplace_back(source, job.lanes, panels);
  }
}

// Brings the entries into the order in which they will be read. Others, whose
// values are elsewhere, are gathered once, or each tile would do it.
void arrange(Job& job, const Pool& pool) {
  job.ordered.assign(job.grids.size(), nullptr);
  if (job.fused) return;
  int64_t size = 0;
  bool all = true;
  for (const Order& order : job.orders) {
    all = all && order.pays();
    size += order.pays() ? order.start(order.num_blocks()) : 0;
  }
  const bool gathers = !all && job.places != nullptr;
  const int64_t num_gathered = gathers ? job.num_entries : 0;
  float* const gathered = value_scratch().get(size + num_gathered);
  float* room = gathered + num_gathered;
  for (size_t grid = 0; grid < job.grids.size(); ++grid) {
    const Order& order = job.orders[grid];
    if (!order.pays()) continue;
    pool.run(order.num_blocks(), kMove * order.num_entries(),
             [&](int64_t block) {
               job.make_block(grid, block, room + order.start(block));
             });
    job.ordered[grid] = room;
    room += order.start(order.num_blocks());
  }
  if (!gathers) return;
  const int64_t blocks = (num_gathered + kGatherBlock - 1) / kGatherBlock;
  pool.run(blocks, kMove * num_gathered, [&](int64_t i) {
    int64_t first = i * kGatherBlock;
    int64_t last = std::min(first + kGatherBlock, num_gathered);
    job.kernels.gather({job.values.data, job.values.type, job.places, first,
                        last, gathered});
  });
  job.values = {gathered, Type::kFloat32};
}

void run(Job& job, const Pool& pool) {
  // A panel that is larger than the second-level cache is no harm in strips.
  plan(job, INT64_MAX);
  if (!std::all_of(job.orders.begin(), job.orders.end(),
                   [](const Order& order) { return order.pays(); })) {
    plan(job, kPanelBytes);
  }
  std::vector<Tile> tiles = tiles_of(job.grids, job.lanes);
  const int64_t num_tiles = tiles.size();
  const bool many = num_tiles >= 4 * pool.num_threads();
  const int64_t size = std::max<int64_t>(job.num_rows * job.lanes, 1);
  const int64_t at_once = std::max<int64_t>(kSharedBytes / (4 * size), 1);
  job.fused = !many && num_tiles <= at_once && job.grids.size() == 1 &&
              job.orders[0].pays();
  arrange(job, pool);
  if (many) return run_tiles(job, pool, tiles);
  for (int64_t i = 0; i < num_tiles; i += at_once) {
    auto first = tiles.begin() + i;
    run_rows(job, pool, {first, first + std::min(at_once, num_tiles - i)});
  }
}

}  // namespace

void forward(const Kernels& kernels, const Pool& pool, const Image& x,
             const Values& values, const int32_t* begins, const int32_t* ends,
             const int32_t* columns, int64_t num_entries, const Window& window,
             const Image& y) {
  const int64_t num_rows = window.height * window.width * x.channels;
  Job job{kernels, x, y, values, begins, ends, columns, nullptr, 0, num_rows,
          num_entries, {output_grid(x, window, y)}};
  run(job, pool);
}

void input_gradient(const Kernels& kernels, const Pool& pool, const Image& dy,
                    const Values& values, const int32_t* rows,
                    const int32_t* columns, const int32_t* entries,
                    int64_t num_entries, const Window& window,
                    const Image& dx) {
  Job job{kernels, dy, dx, values, rows, rows + 1, columns, entries,
          dx.channels, 0, num_entries, input_grids(dx, window)};
  for (const Grid& grid : job.grids) {
    const int64_t size = grid.taps.size() * dy.channels;
    job.num_rows = std::max(job.num_rows, size);
  }
  run(job, pool);
}

}  // namespace sparsity
