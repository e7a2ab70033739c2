// Chooses the CUDA kernel: walk the ordered list, take the first that says yes, keep the reasons of the
// others.
#pragma once

#include <string>
#include <vector>

#include "core/rejection.h"
#include "cuda/kernel.h"

namespace convext {
namespace cuda {

// In the order in which they are tried; `generic` stands last and runs everything.
const std::vector<const CudaKernel*>& all_kernels();

// "generic/cuda"
std::string qualified_name(const CudaKernel& kernel);

// The first kernel that can run the problem on that device. With a forced name ("generic" or "generic/cuda"):
// that kernel, or nullptr with `error` saying why it cannot.
const CudaKernel* plan(const ConvProblem& problem, const CudaDevice& device, std::string* error);

// The kernels before `chosen` in the list, with the reasons why none of them runs the problem.
std::vector<Rejection> rejections(const ConvProblem& problem, const CudaDevice& device,
                                  const CudaKernel& chosen);

}  // namespace cuda
}  // namespace convext
