#include "layer.h"

#include <algorithm>
#include <vector>

namespace sparsity {

namespace {

constexpr int64_t kGatherBlock = 1 << 16;  // entries gathered by one task
constexpr int64_t kPackBlock = 256;        // channels packed by one task

// The arguments of `forward` or `input_gradient`.
struct Job {
  const Kernels& kernels;
  Image from, to;
  Values values;
  const Cells& cells;
  const int32_t* places;  // index of each entry in the values; null: identity
  // Distance between the rows of two taps; 0 if all taps share a row.
  int64_t rows_per_tap;
  int64_t num_rows;  // of the largest panel
  std::vector<Grid> grids;
  int lanes = 0;
  const float* ready = nullptr;  // values in the order of the entries

  int64_t num_blocks() const { return (to.channels + kBlock - 1) / kBlock; }
};

void pack_tap(const Job& job, const Tile& tile, int64_t tap, int64_t first,
              int64_t last, float* panel) {
  const void* rows[kMaxLanes];
  read_rows(tile, job.lanes, tile.grid->taps[tap], job.from, rows);
  float* to = panel + tap * job.from.channels * job.lanes;
  job.kernels.pack({rows, job.from.type, job.lanes, first, last, to});
}

// Returns the cells of a block's rows in all strips and, if each tap has its
// own rows, in all taps.
std::vector<Piece> pieces_of(const Job& job, const Grid& grid, int64_t first,
                             int64_t last) {
  const Cells& cells = job.cells;
  const int64_t num_taps = job.rows_per_tap == 0 ? 1 : grid.taps.size();
  std::vector<Piece> pieces;
  for (int64_t tap = 0; tap < num_taps; ++tap) {
    const int64_t skip = grid.taps[tap].index * job.rows_per_tap;
    // The rows of a tap may start inside a block of the structure.
    for (int64_t row = first, next = first; row < last; row = next) {
      const int64_t block = (skip + row) / kBlock * kBlock;
      const int64_t size = std::min<int64_t>(kBlock, cells.num_rows - block);
      next = std::min(last, block + size - skip);
      const int32_t* begins = cells.begins + block * cells.num_strips();
      for (int64_t strip = 0; strip < cells.num_strips(); ++strip) {
        pieces.push_back({begins + strip * size + skip + row - block,
                          static_cast<int>(row - first),
                          static_cast<int>(next - row),
                          tap * job.from.channels});
      }
    }
  }
  return pieces;
}

void multiply(const Job& job, const Tile& tile, int64_t block,
              const float* panel) {
  void* outputs[kMaxLanes];
  own_rows(tile, job.lanes, job.to, outputs);
  const int64_t first = block * kBlock;
  const int64_t last = std::min(first + kBlock, job.to.channels);
  const std::vector<Piece> pieces = pieces_of(job, *tile.grid, first, last);
  job.kernels.product({pieces.data(), static_cast<int>(pieces.size()),
                       job.ready, job.cells.columns, panel, job.lanes, first,
                       static_cast<int>(last - first), outputs, job.to.type});
}

int64_t panel_size(const Job& job, const Grid& grid) {
  return static_cast<int64_t>(grid.taps.size()) * job.from.channels * job.lanes;
}

int64_t operations(const Job& job, const std::vector<Tile>& tiles) {
  return job.cells.num_entries() * job.lanes * tiles.size();
}

// Many tiles: each thread packs and multiplies its own tiles.
void run_tiles(const Job& job, const Pool& pool,
               const std::vector<Tile>& tiles) {
  pool.run(tiles.size(), operations(job, tiles), [&](int64_t i) {
    const Tile& tile = tiles[i];
    float* panel = scratch<Use::kOwn>().get(panel_size(job, *tile.grid));
    for (size_t tap = 0; tap < tile.grid->taps.size(); ++tap) {
      pack_tap(job, tile, tap, 0, job.from.channels, panel);
    }
    for (int64_t block = 0; block < job.num_blocks(); ++block) {
      multiply(job, tile, block, panel);
    }
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
  float* panels = scratch<Use::kShared>().get(tiles.size() * size);
  pool.run(tasks.size(), kMove * tiles.size() * size, [&](int64_t i) {
    const PackTask& task = tasks[i];
    int64_t last = std::min(task.first + kPackBlock, job.from.channels);
    pack_tap(job, tiles[task.tile], task.tap, task.first, last,
             panels + task.tile * size);
  });
  const int64_t blocks = job.num_blocks();
  pool.run(tiles.size() * blocks, operations(job, tiles), [&](int64_t i) {
    // Panels innermost, so that a block's entries stay in the cache.
    const int64_t tile = i % tiles.size();
    multiply(job, tiles[tile], i / tiles.size(), panels + tile * size);
  });
}

// Gathers the values once for all tiles.
void gather(Job& job, const Pool& pool) {
  if (job.places == nullptr && job.values.type == Type::kFloat32) {
    job.ready = static_cast<const float*>(job.values.data);
    return;
  }
  const int64_t size = job.cells.num_entries();
  float* const gathered = scratch<Use::kValues>().get(size);
  const int64_t blocks = (size + kGatherBlock - 1) / kGatherBlock;
  pool.run(blocks, kMove * size, [&](int64_t i) {
    const int64_t first = i * kGatherBlock;
    const int64_t last = std::min(first + kGatherBlock, size);
    job.kernels.gather({job.values.data, job.values.type, job.places, first,
                        last, gathered});
  });
  job.ready = gathered;
}

void run(Job& job, const Pool& pool) {
  int64_t num_pixels = 0;
  for (const Grid& grid : job.grids) {
    num_pixels = std::max(num_pixels, grid.size());
  }
  job.lanes = choose_lanes(kProductLanes, num_pixels);
  gather(job, pool);
  std::vector<Tile> tiles = tiles_of(job.grids, job.lanes);
  const int64_t num_tiles = tiles.size();
  if (num_tiles >= 4 * pool.num_threads()) return run_tiles(job, pool, tiles);
  const int64_t size = std::max<int64_t>(job.num_rows * job.lanes, 1);
  const int64_t at_once = std::max<int64_t>(kSharedBytes / (4 * size), 1);
  for (int64_t i = 0; i < num_tiles; i += at_once) {
    auto first = tiles.begin() + i;
    run_rows(job, pool, {first, first + std::min(at_once, num_tiles - i)});
  }
}

}  // namespace

void forward(const Kernels& kernels, const Pool& pool, const Image& x,
             const Values& values, const Cells& cells, const Window& window,
             const Image& y) {
  Job job{kernels, x, y, values, cells, nullptr, 0, cells.num_columns,
          {output_grid(x, window, y)}};
  run(job, pool);
}

void input_gradient(const Kernels& kernels, const Pool& pool, const Image& dy,
                    const Values& values, const Cells& cells,
                    const int32_t* entries, const Window& window,
                    const Image& dx) {
  Job job{kernels, dy, dx, values, cells, entries, dx.channels, 0,
          input_grids(dx, window)};
  for (const Grid& grid : job.grids) {
    const int64_t size = grid.taps.size() * dy.channels;
    job.num_rows = std::max(job.num_rows, size);
  }
  run(job, pool);
}

}  // namespace sparsity
