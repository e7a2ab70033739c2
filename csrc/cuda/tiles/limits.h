// Which problems are products of matrices with tiles that are worth filling.
#pragma once

#include <initializer_list>

#include "cuda/kernel.h"
#include "cuda/tiles/axis.h"

namespace convext {
namespace cuda {
namespace tiles {

// Of positions and numbers of elements, so that 32 bits do for them.
constexpr int64_t largest = int64_t{1} << 29;

// Whether the product of these, none of them 0, is no larger than `largest`.
inline bool product_fits(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (const int64_t factor : factors) {
    if (factor > largest / product) return false;
    product *= factor;
  }
  return true;
}

inline bool axis_fits(int64_t input, int64_t output, int64_t kernel, int64_t stride, int64_t dilation,
                      int64_t before, int64_t after) {
  return input <= largest && before <= largest && after <= largest && stride <= largest &&
         input + before + after + stride <= largest && product_fits({output + dilation, stride}) &&
         product_fits({kernel, dilation}) && product_fits({stride, dilation});
}

// Why a problem is no product of such matrices, whatever its dtype.
inline Reason why_no_tiles(const ConvProblem& p) {
  if (p.batch == 0 || p.in_channels == 0 || p.out_channels == 0) return "a tensor is empty";
  const int64_t in = in_channels_per_group(p);
  const int64_t out = out_channels_per_group(p);
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
  const int64_t classes = int64_t{classes_of(true, p.stride.height)} * classes_of(true, p.stride.width);
  if (classes > 16) return "the stride cuts the gradient of the input into more than 16 parts";
  return nullptr;
}

}  // namespace tiles
}  // namespace cuda
}  // namespace convext
