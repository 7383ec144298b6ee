#include <algorithm>
#include <vector>

#include "layer.h"
#include "order.h"
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
  Order order;
  bool in_strips;  // or in the order of the structure

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

  int64_t rows_at_once() const { return in_strips ? kOrderRows : kRowBlock; }

  int64_t num_blocks() const {
    return (dy.channels + rows_at_once() - 1) / rows_at_once();
  }

  // The entries of a block of rows, in the structure and as sums are kept.
  int64_t first_entry(int64_t block) const {
    return rows[std::min(block * rows_at_once(), dy.channels)];
  }
  int64_t count(int64_t block) const {
    return first_entry(block + 1) - first_entry(block);
  }

  // The sums of a block's entries; in strips, in the order of their places.
  void sample(const float* panel, int64_t block, const float* places, bool add,
              float* sums) const {
    const float* under = panel + num_rows * lanes;
    if (in_strips) {
      kernels.strip_sample({order.strips<Place>(block, places), panel, under,
                            lanes, add, sums});
      return;
    }
    const int64_t first = block * kRowBlock;
    const int64_t last = std::min(first + kRowBlock, dy.channels);
    kernels.sample({rows, columns, panel, under, lanes, first, last, add,
                    sums - first_entry(block)});
  }

  // Adds up a block's sums of some tasks, into the order of the structure.
  void finish(int64_t block, const float* places, const float* sums,
              int64_t num_tasks, bool add, float* values) const {
    const Place* to = reinterpret_cast<const Place*>(places);
    const int64_t first = first_entry(block);
    for (int64_t i = 0; i < count(block); ++i) {
      float sum = 0.0f;
      for (int64_t task = 0; task < num_tasks; ++task) {
        sum += sums[task * num_entries + i];
      }
      float& value = values[in_strips ? to[i].entry : first + i];
      value = add ? value + sum : sum;
    }
  }
};

// Many tiles, few entries: each task has its tiles and sums of its own.
void sum_apart(const Correlation& c, int64_t num_tasks, float* values) {
  float* sums = shared_scratch().get(num_tasks * c.num_entries);
  float* places = nullptr;
  if (c.in_strips) {
    places = value_scratch().get(c.order.start(c.num_blocks()));
    c.pool.run(c.num_blocks(), kMove * c.num_entries, [&](int64_t block) {
      c.order.make_places(block, places + c.order.start(block));
    });
  }
  const auto places_of = [&](int64_t block) {
    return places ? places + c.order.start(block) : nullptr;
  };
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
      for (int64_t block = 0; block < c.num_blocks(); ++block) {
        c.sample(panel, block, places_of(block), i > first,
                 sums + task * c.num_entries + c.first_entry(block));
      }
    }
  });
  c.pool.run(c.num_blocks(), kMove * num_tasks * c.num_entries,
             [&](int64_t block) {
               c.finish(block, places_of(block), sums + c.first_entry(block),
                        num_tasks, false, values);
             });
}

// Few tiles, many entries: the threads pack some tiles together, then divide
// the rows.
void sum_together(const Correlation& c, float* values) {
  const int64_t num_tiles = c.tiles.size(), size = c.size();
  const int64_t at_once = std::min(
      num_tiles, std::max<int64_t>(kSharedBytes / (4 * size), 1));
  float* panels = shared_scratch().get(at_once * size);
  const int64_t sources = c.tiles[0].grid->taps.size() + 1;
  for (int64_t start = 0; start < num_tiles; start += at_once) {
    const int64_t count = std::min(at_once, num_tiles - start);
    c.pool.run(count * sources, kMove * count * size, [&](int64_t i) {
      c.pack(c.tiles[start + i / sources], i % sources,
             panels + i / sources * size);
    });
    c.pool.run(c.num_blocks(), c.operations(count), [&](int64_t block) {
      float* const to = values + c.first_entry(block);
      if (!c.in_strips) {
        for (int64_t i = 0; i < count; ++i) {
          c.sample(panels + i * size, block, nullptr, start + i > 0, to);
        }
        return;
      }
      // Made again for each round: they stay in the core's own cache.
      float* places = own_scratch().get(c.order.size(block) + c.count(block));
      float* sums = places + c.order.size(block);
      c.order.make_places(block, places);
      for (int64_t i = 0; i < count; ++i) {
        c.sample(panels + i * size, block, places, i > 0, sums);
      }
      c.finish(block, places, sums, 1, start > 0, values);
    });
  }
}

}  // namespace

void weight_gradient(const Kernels& kernels, const Pool& pool, const Image& x,
                     const Image& dy, const int32_t* rows, const int32_t* split,
                     const int32_t* columns, int64_t num_entries,
                     const Window& window, float* values) {
  std::vector<Grid> grids = {output_grid(x, window, dy)};
  const int64_t num_pixels = grids[0].size();
  const int64_t num_rows = window.height * window.width * x.channels;
  if (num_pixels == 0 || num_entries == 0) {
    std::fill(values, values + num_entries, 0.0f);
    return;
  }
  const Source source{{{rows, split, 0}, {split, rows + 1, 0}},
                      true, num_rows, dy.channels, columns};
  int lanes = choose_lanes(num_rows, num_pixels, INT64_MAX);
  const bool even = num_pixels > kMaxLanes / 2 * 3;
  if (lanes == kMaxLanes / 2 && (even || num_pixels % kMaxLanes == 0)) {
    lanes = kMaxLanes;
  }
  // Places are made and sums put back: twice the work of other products.
  Order order(source, lanes, num_pixels / lanes / 2);
  if (!order.pays()) {
    lanes = choose_lanes(num_rows + dy.channels, num_pixels, kPanelBytes);
  }
  Correlation c{kernels,     pool,     x,     dy,   rows, columns,
                num_entries, num_rows, lanes, tiles_of(grids, lanes),
                order,       order.pays()};
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
