// What the multiply-add units of a core can do at best: the arithmetic roof of the benchmark.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/executor.h"
#include "core/problem.h"

namespace convext {

// Steps independent chains of fused multiply-adds in registers; one build for each instruction set.
// Returns the operations done, two for each multiply-add. The value goes nowhere, but is not optimised away.
struct FmaProbe {
  double (*float32)(int64_t steps);
  double (*float64)(int64_t steps);
  double (*bfloat16)(int64_t steps);  // nullptr but for dot products of pairs and tiles
};

namespace baseline_isa {
extern const FmaProbe fma_probe;
}
namespace neon_isa {
extern const FmaProbe fma_probe;
}
namespace avx2_isa {
extern const FmaProbe fma_probe;
}
namespace avx512_isa {
extern const FmaProbe fma_probe;
}
namespace avx512bf16_isa {
extern const FmaProbe fma_probe;
}
namespace amxbf16_isa {
extern const FmaProbe fma_probe;
}

// Runs the probe of the best instruction set, once on every worker, and returns the operations of all.
// bfloat16 is computed in float32 where there is nothing better.
double run_fma_probe(DType dtype, int64_t steps, const Executor& executor);

}  // namespace convext
