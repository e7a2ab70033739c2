// Depthwise problems and images of few channels, where a matrix product would spend its time on copying
// patches: bands of lines are copied once and correlated in place, with several rows and vectors of results
// in registers.
#include "cpu/direct_rows/plane_correlation.h"
#include "cpu/direct_rows/weight_gradient.h"
#include "cpu/kernel_list.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
int64_t workspace_bytes_as(const ConvProblem& problem, int workers) {
  if (problem.pass == Pass::grad_weight) return WeightGradientPlan<T>(problem).workspace_bytes(workers);
  return PlaneCorrelationPlan<T>(problem).workspace_bytes(workers);
}

template <class T>
void run_as(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  if (problem.pass == Pass::grad_weight) {
    const WeightGradientPlan<T> plan(problem);
    WeightGradient<T>(plan, problem, data, workspace).run(executor);
    return;
  }
  const PlaneCorrelationPlan<T> plan(problem);
  if (!PlaneCorrelation<T>(plan, problem, data, workspace).run(executor))
    reference_kernel.run(problem, data, nullptr, executor);
}

bool is_empty(const ConvProblem& p) {
  return p.batch == 0 || p.in_channels == 0 || p.out_channels == 0 || p.input.height == 0 ||
         p.input.width == 0;
}

Reason why_not(const ConvProblem& p) {
  if (p.dtype != DType::float32 && p.dtype != DType::float64 && p.dtype != DType::bfloat16 &&
      p.dtype != DType::float16)
    return "integers have no SIMD kernel";
  if (is_empty(p)) return "a tensor is empty";
  if (in_channels_per_group(p) * out_channels_per_group(p) > 16)
    return "a group has more than 16 pairs of channels";
  constexpr int64_t longest = 1 << 20;
  if (p.stride.height > longest || p.stride.width > longest || p.dilation.height > longest ||
      p.dilation.width > longest)
    return "a stride or dilation is larger than 2^20";
  if (p.kernel.width > block_terms) return "the kernel is wider than 256";
  if (p.pass == Pass::grad_input && (p.stride.height > most_residues || p.stride.width > most_residues))
    return "a stride larger than 16 leaves its phases too short for vectors";
  return nullptr;
}

int64_t workspace_bytes(const ConvProblem& problem, int workers) {
  switch (problem.dtype) {
    case DType::float64:
      return workspace_bytes_as<double>(problem, workers);
    case DType::bfloat16:
      return workspace_bytes_as<BFloat16>(problem, workers);
    case DType::float16:
      return workspace_bytes_as<Float16>(problem, workers);
    default:
      return workspace_bytes_as<float>(problem, workers);
  }
}

void run(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  switch (problem.dtype) {
    case DType::float64:
      return run_as<double>(problem, data, workspace, executor);
    case DType::bfloat16:
      return run_as<BFloat16>(problem, data, workspace, executor);
    case DType::float16:
      return run_as<Float16>(problem, data, workspace, executor);
    default:
      return run_as<float>(problem, data, workspace, executor);
  }
}

}  // namespace

extern const Kernel direct_rows{
    "direct_rows",
    CONVEXT_ISA_ENUMERATOR,
    "bands of image lines, correlated in place; depthwise and few channels, forward and both gradients",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
