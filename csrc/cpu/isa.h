// Kernels are compiled once per instruction set from the same source. The build defines CONVEXT_ISA
// (baseline, avx2, avx512 or neon) and the compiler flags that go with it.
//
// A kernel source puts its code into CONVEXT_ISA_NAMESPACE and, but for the one Kernel constant that it
// defines there, into an unnamed namespace inside it. Nothing that such a source compiles may be visible to
// the linker under a name that another instruction set shares: the linker would keep one copy for all, and an
// older CPU would meet an instruction that it does not have. `tests/test_build.py` checks the objects for
// weak symbols.
#pragma once

#include "core/kernel.h"

#define CONVEXT_ISA_NAMESPACE CONVEXT_ISA_NAMESPACE_OF(CONVEXT_ISA)
#define CONVEXT_ISA_NAMESPACE_OF(isa) CONVEXT_ISA_NAMESPACE_PASTE(isa)
#define CONVEXT_ISA_NAMESPACE_PASTE(isa) isa##_isa
#define CONVEXT_ISA_ENUMERATOR Isa::CONVEXT_ISA
