#include "cpu/fma_probe.h"

namespace convext {
namespace {

const FmaProbe& best_probe() {
  switch (best_isa()) {
#if defined(CONVEXT_BUILD_AVX512)
    case Isa::avx512:
    case Isa::avx512bf16:
    case Isa::amxbf16:
      return avx512_isa::fma_probe;
#endif
#if defined(CONVEXT_BUILD_AVX2)
    case Isa::avx2:
      return avx2_isa::fma_probe;
#endif
#if defined(CONVEXT_BUILD_NEON)
    case Isa::neon:
      return neon_isa::fma_probe;
#endif
    default:
      return baseline_isa::fma_probe;
  }
}

}  // namespace

double run_fma_probe(DType dtype, int64_t steps, const Executor& executor) {
  const FmaProbe& probe = best_probe();
  auto run = dtype == DType::float64 ? probe.float64 : probe.float32;
#if defined(CONVEXT_BUILD_AVX512BF16)
  if (dtype == DType::bfloat16 && isa_available(Isa::avx512bf16)) run = avx512bf16_isa::fma_probe.bfloat16;
#endif
#if defined(CONVEXT_BUILD_AMXBF16)
  if (dtype == DType::bfloat16 && isa_available(Isa::amxbf16)) run = amxbf16_isa::fma_probe.bfloat16;
#endif
  double operations[64] = {};
  const int workers = executor.workers < 64 ? executor.workers : 64;
  for_each_tile({workers, executor.run_workers}, workers,
                [&](int64_t tile, int) { operations[tile] = run(steps); });
  double total = 0;
  for (double done : operations) total += done;
  return total;
}

}  // namespace convext
