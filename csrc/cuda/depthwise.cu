// Depthwise correlation: every channel by itself, one filter each. docs/cuda.md has the reasoning.
#include <initializer_list>

#include "cuda/depthwise/launch.h"
#include "cuda/kernel_list.h"

namespace convext {
namespace cuda {
namespace {

constexpr int64_t largest = int64_t{1} << 29;  // of positions along an axis, so that 32 bits do for them

bool fits(int64_t input, int64_t output, int64_t kernel, int64_t stride, int64_t dilation, int64_t before,
          int64_t after) {
  // Each factor by itself first, so that the products cannot overflow.
  for (const int64_t size : {input, output, kernel, stride, dilation, before, after}) {
    if (size > largest) return false;
  }
  return input + before + after + stride <= largest && dilation * kernel <= largest &&
         stride * dilation <= largest && (output + 8 * dilation) * stride <= largest;
}

Reason why_not(const ConvProblem& p, const CudaDevice&) {
  if (p.dtype != DType::float32 && p.dtype != DType::float64 && p.dtype != DType::bfloat16 &&
      p.dtype != DType::float16)
    return "the dtype is an integer";
  if (p.groups != p.in_channels || p.groups != p.out_channels)
    return "the groups do not have one input and one output channel each";
  const bool is_padded =
      p.padding.top != 0 || p.padding.bottom != 0 || p.padding.left != 0 || p.padding.right != 0;
  if (is_padded && p.padding_mode != PaddingMode::zeros) return "the padding is not zeros";
  if (p.kernel.height > 256 || p.kernel.height * p.kernel.width > 65536)
    return "the kernel has more than 256 rows or 65536 taps";
  if (p.batch == 0 || p.in_channels == 0) return "a tensor is empty";
  if (p.in_channels > largest ||
      !fits(p.input.height, p.output.height, p.kernel.height, p.stride.height, p.dilation.height,
            p.padding.top, p.padding.bottom) ||
      !fits(p.input.width, p.output.width, p.kernel.width, p.stride.width, p.dilation.width, p.padding.left,
            p.padding.right) ||
      (p.input.height + 8) * p.input.width > largest || (p.output.height + 8) * p.output.width > largest)
    return "an image has more than 2^29 pixels, padding included";
  return nullptr;
}

int64_t workspace_bytes(const ConvProblem& problem, const CudaDevice&) {
  if (problem.pass != Pass::grad_weight) return 0;
  return depthwise_kernels::takes_stream(problem)
             ? depthwise_kernels::weight_stream_workspace_bytes(problem)
             : depthwise_kernels::weight_gradient_workspace_bytes(problem);
}

const char* run(const ConvProblem& problem, const ConvData& data, void* workspace, const CudaDevice& device,
                void* stream) {
  const bool takes_stream = depthwise_kernels::takes_stream(problem);
  if (problem.pass == Pass::grad_weight) {
    return takes_stream ? depthwise_kernels::launch_weight_stream(problem, data, workspace, device, stream)
                        : depthwise_kernels::launch_weight_gradient(problem, data, workspace, device, stream);
  }
  if (depthwise_kernels::takes_large(problem))
    return depthwise_kernels::launch_large(problem, data, device, stream);
  return takes_stream ? depthwise_kernels::launch_stream(problem, data, device, stream)
                      : depthwise_kernels::launch_correlation(problem, data, device, stream);
}

}  // namespace

extern const CudaKernel depthwise{
    "depthwise", "one filter for each channel: columns of pixels in registers, bounded by memory bandwidth",
    why_not,     workspace_bytes,
    run,
};

}  // namespace cuda
}  // namespace convext
