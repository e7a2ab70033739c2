// The ordered list of CPU kernels: the first that can run a problem is taken. To add a kernel, write one
// source file in csrc/cpu/kernels/specialised/ that defines it, and add its name here. The reference kernel,
// which runs everything, follows after the last.
#pragma once

#include "core/kernel.h"

// X(name): defined as `extern const Kernel name` in the namespace of every instruction set.
#define CONVEXT_SPECIALISED_KERNELS(X) \
  X(fully_connected) X(grouped) X(direct_rows) X(winograd) X(image_lines) X(panel_gemm) X(integer_rows)
// Run all floating-point problems, and are all that the baseline build has: few CPUs are without wider
// vectors, and every installation would wait for the compiler. Integers are left to the reference kernel
// there.
#define CONVEXT_GENERAL_KERNELS(X) X(implicit_gemm)
// In csrc/cpu/kernels/amx/, for processors that multiply tiles of bfloat16; before all others.
#define CONVEXT_TILE_KERNELS(X) X(bfloat16_tiles)
// In csrc/cpu/kernels/bfloat16/, for processors that multiply pairs of bfloat16; before all but those.
#define CONVEXT_BFLOAT16_KERNELS(X) X(bfloat16_pairs)
#define CONVEXT_CPU_KERNELS(X) CONVEXT_SPECIALISED_KERNELS(X) CONVEXT_GENERAL_KERNELS(X)

#define CONVEXT_DECLARE_KERNEL(name) extern const Kernel name;

namespace convext {
namespace baseline_isa {
CONVEXT_GENERAL_KERNELS(CONVEXT_DECLARE_KERNEL)
}
namespace neon_isa {
CONVEXT_CPU_KERNELS(CONVEXT_DECLARE_KERNEL)
}
namespace avx2_isa {
CONVEXT_CPU_KERNELS(CONVEXT_DECLARE_KERNEL)
}
namespace avx512_isa {
CONVEXT_CPU_KERNELS(CONVEXT_DECLARE_KERNEL)
}
namespace amxbf16_isa {
CONVEXT_TILE_KERNELS(CONVEXT_DECLARE_KERNEL)
}
namespace avx512bf16_isa {
CONVEXT_BFLOAT16_KERNELS(CONVEXT_DECLARE_KERNEL)
}

extern const Kernel reference_kernel;

// The one reason, compared by its address, for which the planner asks the next narrower build of the same
// kernel before it goes on to other kernels.
extern const char narrower_vectors_fit[];
}  // namespace convext

#undef CONVEXT_DECLARE_KERNEL
