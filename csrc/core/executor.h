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

// Calls tile(index, worker) for every index in [0, tiles). Workers draw runs of tiles from a shared counter:
// neighbours, since these often read neighbouring memory; long runs first and single tiles at the end, so
// that all workers finish at about the same time. A kernel's result must not depend on which worker runs a
// tile or in which order: each output element belongs to exactly one tile, and the order of the additions
// inside it is fixed by the problem alone.
template <class Tile>
static inline void for_each_tile(const Executor& executor, int64_t tiles, const Tile& tile) {
  if (executor.workers <= 1 || executor.run_workers == nullptr || tiles <= 1) {
    for (int64_t index = 0; index < tiles; ++index) tile(index, 0);
    return;
  }
  struct Context {
    const Tile* tile;
    int64_t tiles;
    int64_t shares;
    std::atomic<int64_t> next;
  } context{&tile, tiles, int64_t{8} * executor.workers, {0}};
  const int workers =
      static_cast<int64_t>(executor.workers) < tiles ? executor.workers : static_cast<int>(tiles);
  executor.run_workers(
      workers,
      [](void* opaque, int worker) {
        Context& shared = *static_cast<Context*>(opaque);
        int64_t begin = shared.next.load(std::memory_order_relaxed);
        while (begin < shared.tiles) {
          const int64_t share = (shared.tiles - begin) / shared.shares;
          const int64_t end = begin + (share < 1 ? 1 : share);
          if (!shared.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
          for (int64_t index = begin; index < end; ++index) (*shared.tile)(index, worker);
          begin = shared.next.load(std::memory_order_relaxed);
        }
      },
      &context);
}

}  // namespace convext
