// The ordered list of CUDA kernels: the first that can run a problem is taken. To add a kernel, write one .cu
// file that defines it, and add its name here. `generic`, which runs everything, stands last.
#pragma once

#include "cuda/kernel.h"

// X(name): defined as `extern const CudaKernel name` in namespace convext::cuda.
#define CONVEXT_CUDA_KERNELS(X) X(depthwise) X(tensor_cores) X(implicit_gemm) X(generic)

#define CONVEXT_DECLARE_KERNEL(name) extern const CudaKernel name;

namespace convext {
namespace cuda {
CONVEXT_CUDA_KERNELS(CONVEXT_DECLARE_KERNEL)
}
}  // namespace convext

#undef CONVEXT_DECLARE_KERNEL
