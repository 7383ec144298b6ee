#include "layer.h"

#include <algorithm>
#include <vector>

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
  // How far apart the rows of two taps lie in `begins` and `ends`; 0 where all
  // taps are in one row.
  int64_t rows_per_tap;
  int64_t num_entries;
  int lanes;
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
  void* outputs[kMaxLanes];
  own_rows(tile, job.lanes, job.to, outputs);
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
  int64_t blocks = (job.to.channels + kRowBlock - 1) / kRowBlock;
  pool.run(tiles.size() * blocks, operations(job, tiles), [&](int64_t i) {
    int64_t first = i % blocks * kRowBlock;
    int64_t last = std::min(first + kRowBlock, job.to.channels);
    multiply(job, tiles[i / blocks], first, last, panels + i / blocks * size);
  });
}

void run(const Job& job, const Pool& pool, const std::vector<Grid>& grids) {
  std::vector<Tile> tiles = tiles_of(grids, job.lanes);
  const int64_t num_tiles = tiles.size();
  if (num_tiles >= 4 * pool.num_threads()) return run_tiles(job, pool, tiles);
  int64_t size = 1;
  for (const Grid& grid : grids) size = std::max(size, panel_size(job, grid));
  const int64_t at_once = std::max<int64_t>(kSharedBytes / (4 * size), 1);
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
  std::vector<Grid> grids = {output_grid(x, window, y)};
  int64_t num_rows = window.height * window.width * x.channels;
  Job job{kernels, x, y, values, begins, ends, columns, 0, num_entries,
          choose_lanes(num_rows, grids[0].size())};
  run(job, pool, grids);
}

void input_gradient(const Kernels& kernels, const Pool& pool, const Image& dy,
                    const Values& values, const int32_t* rows,
                    const int32_t* columns, const int32_t* entries,
                    int64_t num_entries, const Window& window,
                    const Image& dx) {
  std::vector<Grid> grids = input_grids(dx, window);
  int64_t num_rows = 0, num_pixels = 0;
  for (const Grid& grid : grids) {
    int64_t size = grid.taps.size() * dy.channels;
    num_rows = std::max(num_rows, size);
    num_pixels = std::max(num_pixels, grid.size());
  }
  // Once in the order of the transposed rows, or each tile would read the
  // values here and there.
  float* ordered = value_scratch().get(num_entries);
  int64_t blocks = (num_entries + kGatherBlock - 1) / kGatherBlock;
  pool.run(blocks, kMove * num_entries, [&](int64_t i) {
    int64_t first = i * kGatherBlock;
    int64_t last = std::min(first + kGatherBlock, num_entries);
    kernels.gather({values.data, values.type, entries, first, last, ordered});
  });
  Job job{kernels, dy, dx, {ordered, Type::kFloat32}, rows, rows + 1, columns,
          dx.channels, num_entries,
          choose_lanes(num_rows, num_pixels)};
  run(job, pool, grids);
}

}  // namespace sparsity
