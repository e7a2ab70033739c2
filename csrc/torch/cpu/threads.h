// Kernels run on torch's own threads, so that torch.set_num_threads and nested parallelism mean what they
// always mean.
#pragma once

#include <torch/csrc/stable/c/shim.h>

#include <cstdint>

#include "core/executor.h"

namespace convext {

inline int torch_threads() {
  uint32_t threads = 1;
  if (torch_get_num_threads(&threads) != AOTI_TORCH_SUCCESS || threads < 1) return 1;
  return static_cast<int>(threads);
}

inline void run_on_torch_threads(int workers, void (*body)(void*, int), void* context) {
  struct Call {
    void (*body)(void*, int);
    void* context;
  } call{body, context};
  torch_parallel_for(
      0, workers, 1,
      [](int64_t begin, int64_t end, void* opaque) {
        const Call& shared = *static_cast<Call*>(opaque);
        for (int64_t worker = begin; worker < end; ++worker)
          shared.body(shared.context, static_cast<int>(worker));
      },
      &call);
}

inline Executor torch_executor(int workers) {
  return {workers, run_on_torch_threads};
}

}  // namespace convext
