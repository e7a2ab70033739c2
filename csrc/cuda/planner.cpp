#include "cuda/planner.h"

#include "core/settings.h"
#include "cuda/kernel_list.h"

namespace convext {
namespace cuda {

const std::vector<const CudaKernel*>& all_kernels() {
#define CONVEXT_ADD(name) &name,
  static const std::vector<const CudaKernel*> list = {CONVEXT_CUDA_KERNELS(CONVEXT_ADD)};
#undef CONVEXT_ADD
  return list;
}

std::string qualified_name(const CudaKernel& kernel) {
  return std::string(kernel.name) + "/cuda";
}

const CudaKernel* plan(const ConvProblem& problem, const CudaDevice& device, std::string* error) {
  if (!kernel_is_forced()) {
    for (const CudaKernel* kernel : all_kernels()) {
      if (kernel->why_not(problem, device) == nullptr) return kernel;
    }
    *error = "no CUDA kernel can run this problem";
    return nullptr;
  }
  const std::string name = forced_kernel();
  std::string reasons;
  for (const CudaKernel* kernel : all_kernels()) {
    if (!name.empty() && name != kernel->name && name != qualified_name(*kernel)) continue;
    const Reason reason = kernel->why_not(problem, device);
    if (reason == nullptr) return kernel;
    reasons += (reasons.empty() ? "" : "; ") + qualified_name(*kernel) + ": " + reason;
  }
  if (reasons.empty()) reasons = "it is no CUDA kernel, and the tensors are on a CUDA device";
  *error = forced_kernel_cannot_run(name, reasons);
  return nullptr;
}

std::vector<Rejection> rejections(const ConvProblem& problem, const CudaDevice& device,
                                  const CudaKernel& chosen) {
  std::vector<Rejection> list;
  for (const CudaKernel* kernel : all_kernels()) {
    if (kernel == &chosen) break;
    const Reason reason = kernel->why_not(problem, device);
    list.push_back({qualified_name(*kernel), reason == nullptr ? "another kernel is forced" : reason});
  }
  return list;
}

}  // namespace cuda
}  // namespace convext
