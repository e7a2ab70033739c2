// How a kernel spreads its tiles over threads without knowing whose threads they are.
#pragma once

#include <atomic>
#include <cstdint>

namespace convext {

// Calls body(context, worker) once for each worker in [0, workers), possibly at the same time.
using RunWorkers = void (*)(int workers, void (*body)(void* context, int worker), void* context);

struct Executor {
  int workers = 1;  // at most this many bodies run at a time; kernels size their scratch by it
  RunWorkers run_workers = nullptr;  // nullptr: run on the calling thread
};

// How many tiles a worker draws at a time while so many are left. Neighbours, since these often read
// neighbouring memory; many first and single ones at the end, so that all workers finish at about the same
// time.
static inline int64_t tiles_of_run(int64_t left, int workers) {
  const int64_t share = left / (int64_t{8} * workers);
  return share < 1 ? 1 : share;
}

// The tile that a worker computes after tile `index`, most likely; the others draw a run each meanwhile. May
// be past the last one.
static inline int64_t next_tile(int64_t index, int64_t tiles, int workers) {
  return index + (tiles_of_run(tiles - index, workers) > 1 ? 1 : workers);
}

// Calls tile(index, worker) for every index in [0, tiles). Workers draw runs of tiles from a shared counter,
// so a kernel's result must not depend on which worker runs a tile or in which order: each output element
// belongs to exactly one tile, and the order of the additions inside it is fixed by the problem alone.
template <class Tile>
static inline void for_each_tile(const Executor& executor, int64_t tiles, const Tile& tile) {
  if (executor.workers <= 1 || executor.run_workers == nullptr || tiles <= 1) {
    for (int64_t index = 0; index < tiles; ++index) tile(index, 0);
    return;
  }
  struct Context {
    const Tile* tile;
    int64_t tiles;
    int workers;
    std::atomic<int64_t> next;
  } context{&tile, tiles, executor.workers, {0}};
  const int workers =
      static_cast<int64_t>(executor.workers) < tiles ? executor.workers : static_cast<int>(tiles);
  executor.run_workers(
      workers,
      [](void* opaque, int worker) {
        Context& shared = *static_cast<Context*>(opaque);
        int64_t begin = shared.next.load(std::memory_order_relaxed);
        while (begin < shared.tiles) {
          const int64_t end = begin + tiles_of_run(shared.tiles - begin, shared.workers);
          if (!shared.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
          for (int64_t index = begin; index < end; ++index) (*shared.tile)(index, worker);
          begin = shared.next.load(std::memory_order_relaxed);
        }
      },
      &context);
}

}  // namespace convext
