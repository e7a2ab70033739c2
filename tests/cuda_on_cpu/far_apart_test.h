// Tensors whose samples lie further apart than 32 bits count.
#pragma once

#include "cuda/kernel.h"

namespace convext::testing {

// Runs every pass that `kernel` accepts with samples 2^32 elements apart; the bits must be those of dense
// tensors. Does nothing where the address space cannot be had.
void test_far_apart(const CudaKernel& kernel, const CudaDevice& device);

}  // namespace convext::testing
