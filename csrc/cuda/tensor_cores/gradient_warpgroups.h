// The gradient of the weight by the instructions for warpgroups that Hopper has. No CUDA headers.
#pragma once

#include "cuda/kernel.h"

namespace convext {
namespace cuda {
namespace mma {

// Of a problem and what it is when it is packed.
bool gradient_wants_warpgroups(const ConvProblem& problem, const ConvProblem& packed,
                               const CudaDevice& device);

// Of the sums of chunks.
int64_t gradient_warpgroups_bytes(const ConvProblem& problem, const ConvProblem& packed);

const char* launch_gradient_warpgroups(const ConvProblem& problem, const ConvProblem& packed,
                                       const ConvData& data, void* chunk_sums, const CudaDevice& device,
                                       void* stream);

}  // namespace mma
}  // namespace cuda
}  // namespace convext
