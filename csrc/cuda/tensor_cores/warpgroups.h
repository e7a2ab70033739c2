// forward and grad_input by the instructions for warpgroups that Hopper has. No CUDA headers.
#pragma once

#include "cuda/kernel.h"
#include "cuda/tensor_cores/packing.h"

namespace convext {
namespace cuda {
namespace mma {

// Whether a problem, as it is packed, runs on them. The batch does not matter: sums are the same for a sample
// by itself.
bool wants_warpgroups(const ConvProblem& packed, const CudaDevice& device);

// `flag`: see Packing.
const char* launch_warpgroups(const Packing& packing, const ConvData& data, const int* flag,
                              const CudaDevice& device, void* stream);

}  // namespace mma
}  // namespace cuda
}  // namespace convext
