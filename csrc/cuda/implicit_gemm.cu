// Floating-point problems with channels enough for products of matrices. docs/cuda.md has the reasoning.
#include <initializer_list>

#include "cuda/kernel_list.h"
#include "cuda/tiles/axis.h"
#include "cuda/tiles/launch.h"

namespace convext {
namespace cuda {
namespace {

constexpr int64_t largest = int64_t{1}
                            << 29;  // of positions and numbers of elements, so that 32 bits do for them

// Whether the product of these, none of them 0, is no larger than `largest`.
bool product_fits(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (const int64_t factor : factors) {
    if (factor > largest / product) return false;
    product *= factor;
  }
  return true;
}

bool axis_fits(int64_t input, int64_t output, int64_t kernel, int64_t stride, int64_t dilation,
               int64_t before, int64_t after) {
  return input <= largest && before <= largest && after <= largest && stride <= largest &&
         input + before + after + stride <= largest && product_fits({output + dilation, stride}) &&
         product_fits({kernel, dilation}) && product_fits({stride, dilation});
}

Reason why_not(const ConvProblem& p, const CudaDevice&) {
  if (p.dtype != DType::float32 && p.dtype != DType::float64 && p.dtype != DType::bfloat16 &&
      p.dtype != DType::float16)
    return "the dtype is an integer";
  if (p.batch == 0 || p.in_channels == 0 || p.out_channels == 0) return "a tensor is empty";
  const int64_t in = in_channels_per_group(p);
  const int64_t out = out_channels_per_group(p);
  // Below this, most of a tile would be empty.
  if (p.pass == Pass::grad_input ? in < 8 : out < 8) return "a group has fewer than 8 channels in the result";
  if (p.groups > 65535) return "there are more than 65535 groups";
  if (!axis_fits(p.input.height, p.output.height, p.kernel.height, p.stride.height, p.dilation.height,
                 p.padding.top, p.padding.bottom) ||
      !axis_fits(p.input.width, p.output.width, p.kernel.width, p.stride.width, p.dilation.width,
                 p.padding.left, p.padding.right) ||
      !product_fits({p.batch, p.output.height, p.output.width}) ||
      !product_fits({p.batch, p.input.height, p.input.width}) ||
      !product_fits({in, p.kernel.height, p.kernel.width}) ||
      !product_fits({out, p.kernel.height, p.kernel.width}))
    return "a sum or a batch of images has more than 2^29 elements";
  if (p.pass != Pass::grad_input) return nullptr;
  const bool is_padded =
      p.padding.top != 0 || p.padding.bottom != 0 || p.padding.left != 0 || p.padding.right != 0;
  if (is_padded && p.padding_mode != PaddingMode::zeros)
    return "the gradient of padding that is not zeros goes to other pixels";
  const int64_t classes = int64_t{tiles::classes_of(true, p.stride.height, p.dilation.height)} *
                          tiles::classes_of(true, p.stride.width, p.dilation.width);
  if (classes > 16) return "stride and dilation cut the gradient of the input into more than 16 parts";
  return nullptr;
}

int64_t workspace_bytes(const ConvProblem& problem, const CudaDevice&) {
  return problem.pass == Pass::grad_weight ? tiles::weight_gradient_workspace_bytes(problem) : 0;
}

const char* run(const ConvProblem& problem, const ConvData& data, void* workspace, const CudaDevice& device,
                void* stream) {
  return problem.pass == Pass::grad_weight
             ? tiles::launch_weight_gradient(problem, data, workspace, device, stream)
             : tiles::launch_correlation(problem, data, stream);
}

}  // namespace

extern const CudaKernel implicit_gemm{
    "implicit_gemm",
    "a product of matrices whose elements are gathered where they lie",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace cuda
}  // namespace convext
