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

// The tile that a worker computes after tile `index`, most likely. May be past the last one.
static inline int64_t next_tile(int64_t index) {
  return index + 1;
}

// A share of the tiles, which its worker draws from the front of, and so do workers that are done with
// theirs.
struct alignas(64) TileShare {
  std::atomic<int64_t> next;
  int64_t end;

  // The next tiles as [begin, end), none if begin == end. Many first and single ones at the end, so that all
  // workers finish at about the same time.
  int64_t draw(int64_t& begin) {
    begin = next.load(std::memory_order_relaxed);
    while (begin < end) {
      const int64_t run = (end - begin) / 8;
      const int64_t stop = begin + (run < 1 ? 1 : run);
      if (next.compare_exchange_weak(begin, stop, std::memory_order_relaxed)) return stop;
    }
    return begin;
  }
};

// Calls tile(index, worker) for every index in [0, tiles). Each worker begins with a share of neighbouring
// tiles, the same one in every loop over as many: what it wrote in one loop is in its own cache in the next.
// Whoever is done helps the others, so a kernel's result must not depend on which worker runs a tile or in
// which order: each output element belongs to exactly one tile, and the order of the additions inside it is
// fixed by the problem alone.
template <class Tile>
static inline void for_each_tile(const Executor& executor, int64_t tiles, const Tile& tile) {
  if (executor.workers <= 1 || executor.run_workers == nullptr || tiles <= 1) {
    for (int64_t index = 0; index < tiles; ++index) tile(index, 0);
    return;
  }
  constexpr int most_shares = 64;  // they lie on the stack
  struct Context {
    const Tile* tile;
    int shares;
    TileShare share[most_shares];
  } context;
  const int workers =
      static_cast<int64_t>(executor.workers) < tiles ? executor.workers : static_cast<int>(tiles);
  context.tile = &tile;
  context.shares = workers < most_shares ? workers : most_shares;
  for (int64_t i = 0; i < context.shares; ++i) {
    context.share[i].next.store(i * tiles / context.shares, std::memory_order_relaxed);
    context.share[i].end = (i + 1) * tiles / context.shares;
  }
  executor.run_workers(
      workers,
      [](void* opaque, int worker) {
        Context& shared = *static_cast<Context*>(opaque);
        for (int i = 0; i < shared.shares; ++i) {
          TileShare& share = shared.share[(worker + i) % shared.shares];
          int64_t index;
          for (int64_t end = share.draw(index); index < end; end = share.draw(index)) {
            for (; index < end; ++index) (*shared.tile)(index, worker);
          }
        }
      },
      &context);
}

}  // namespace convext
