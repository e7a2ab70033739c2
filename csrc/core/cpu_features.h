// The instruction sets that kernels are compiled for, and which of them this CPU and the user allow.
#pragma once

#include <cstdint>

namespace convext {

// In order of preference within an architecture. `baseline` is what the ABI guarantees (SSE2 on x86-64).
enum class Isa : int32_t { baseline, neon, avx2, avx512, avx512bf16, amxbf16 };

const char* isa_name(Isa isa);

// True when this CPU executes `isa` (avx2 means AVX2 + FMA + F16C; avx512 means F + BW + DQ + VL, avx512bf16
// AVX512_BF16 besides; amxbf16 AMX_TILE and AMX_BF16 besides, if the system lets programs use them) and the
// environment variable CONVEXT_MAX_ISA, read once, does not cap it below that.
bool isa_available(Isa isa);

// The most capable instruction set that is available.
Isa best_isa();

}  // namespace convext
