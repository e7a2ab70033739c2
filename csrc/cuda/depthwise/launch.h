// The files of kernels behind depthwise.cu. No CUDA headers.
#pragma once

#include "cuda/kernel.h"

namespace convext {
namespace cuda {
namespace depthwise_kernels {

// forward and grad_input
const char* launch_correlation(const ConvProblem& problem, const ConvData& data, const CudaDevice& device,
                               void* stream);

int64_t weight_gradient_workspace_bytes(const ConvProblem& problem);
const char* launch_weight_gradient(const ConvProblem& problem, const ConvData& data, void* workspace,
                                   const CudaDevice& device, void* stream);

// The same for kernels of 3, 5 and 7 that are read as a stream of rows.
bool takes_stream(const ConvProblem& problem);
const char* launch_stream(const ConvProblem& problem, const ConvData& data, const CudaDevice& device,
                          void* stream);

// grad_input with stride 2.
const char* launch_gradient_stream(const ConvProblem& problem, const ConvData& data, const CudaDevice& device,
                                   void* stream);

int64_t weight_stream_workspace_bytes(const ConvProblem& problem);
const char* launch_weight_stream(const ConvProblem& problem, const ConvData& data, void* workspace,
                                 const CudaDevice& device, void* stream);

// forward and grad_input of kernels of 64 taps and more, with stride 1.
bool takes_large(const ConvProblem& problem);
const char* launch_large(const ConvProblem& problem, const ConvData& data, const CudaDevice& device,
                         void* stream);

}  // namespace depthwise_kernels
}  // namespace cuda
}  // namespace convext
