// The two files of kernels behind tensor_cores.cu. No CUDA headers.
#pragma once

#include "cuda/kernel.h"

namespace convext {
namespace cuda {
namespace mma {

// forward and grad_input
int64_t correlation_workspace_bytes(const ConvProblem& problem);
const char* launch_correlation(const ConvProblem& problem, const ConvData& data, void* workspace,
                               const CudaDevice& device, void* stream);

int64_t weight_gradient_workspace_bytes(const ConvProblem& problem, const CudaDevice& device);
const char* launch_weight_gradient(const ConvProblem& problem, const ConvData& data, void* workspace,
                                   const CudaDevice& device, void* stream);

}  // namespace mma
}  // namespace cuda
}  // namespace convext
