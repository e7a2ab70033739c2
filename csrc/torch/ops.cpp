#include "torch/ops.h"

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <string>
#include <vector>

#include "core/request.h"
#include "torch/check.h"
#include "torch/passes.h"

using convext::check;
using convext::Geometry;
using convext::PaddingMode;
using convext::Size2;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using IntList = std::vector<int64_t>;

// The schema's `str padding_mode`. torch's own conversion to std::string leaks the string in 2.10 to 2.13.
HIDDEN_NAMESPACE_BEGIN(torch, stable, detail)
template <>
struct ToImpl<PaddingMode> {
  static PaddingMode call(StableIValue value, uint64_t, bool) {
    const StringHandle handle = to<StringHandle>(value);
    const char* text = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &text));
    const std::string name = text;
    TORCH_ERROR_CODE_CHECK(torch_delete_string(handle));
    PaddingMode mode = PaddingMode::zeros;
    check(convext::parse_padding_mode(name.c_str(), &mode),
          "padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', but it is '", name, "'");
    return mode;
  }
};
HIDDEN_NAMESPACE_END(torch, stable, detail)

namespace {

Size2 pair_of(const IntList& list, const char* name) {
  check(list.size() == 1 || list.size() == 2, name, " must be one or two integers, but it has ", list.size());
  return {list.front(), list.back()};
}

Geometry geometry_of(const IntList& stride, const IntList& padding, const IntList& dilation, int64_t groups,
                     PaddingMode mode) {
  Geometry geometry;
  geometry.stride = pair_of(stride, "stride");
  geometry.dilation = pair_of(dilation, "dilation");
  geometry.groups = groups;
  geometry.padding_mode = mode;
  if (padding.size() == 4) {
    geometry.padding = {padding[0], padding[1], padding[2], padding[3]};
  } else {
    check(padding.size() == 1 || padding.size() == 2,
          "padding must be one, two (height, width) or four (top, bottom, left, right) integers, but it has ",
          padding.size());
    geometry.padding = {padding.front(), padding.front(), padding.back(), padding.back()};
  }
  return geometry;
}

Tensor corr2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
              const IntList& stride, const IntList& padding, const IntList& dilation, int64_t groups,
              PaddingMode padding_mode, std::optional<ScalarType> out_dtype) {
  return convext::corr2d(input, weight, bias, geometry_of(stride, padding, dilation, groups, padding_mode),
                         out_dtype);
}

Tensor corr2d_grad_input(const Tensor& grad_output, const Tensor& weight, const IntList& input_size,
                         const IntList& stride, const IntList& padding, const IntList& dilation,
                         int64_t groups, PaddingMode padding_mode, bool channels_last) {
  return convext::corr2d_grad_input(grad_output, weight, pair_of(input_size, "input_size"),
                                    geometry_of(stride, padding, dilation, groups, padding_mode),
                                    channels_last);
}

Tensor corr2d_grad_weight(const Tensor& grad_output, const Tensor& input, const IntList& kernel_size,
                          const IntList& stride, const IntList& padding, const IntList& dilation,
                          int64_t groups, PaddingMode padding_mode, bool channels_last) {
  return convext::corr2d_grad_weight(grad_output, input, pair_of(kernel_size, "kernel_size"),
                                     geometry_of(stride, padding, dilation, groups, padding_mode),
                                     channels_last);
}

Tensor corr2d_grad_bias(const Tensor& grad_output) {
  return convext::corr2d_grad_bias(grad_output);
}

}  // namespace

void convext::implement_operators(torch::stable::detail::StableLibrary& library) {
  library.impl("corr2d", TORCH_BOX(&::corr2d));
  library.impl("corr2d_grad_input", TORCH_BOX(&::corr2d_grad_input));
  library.impl("corr2d_grad_weight", TORCH_BOX(&::corr2d_grad_weight));
  library.impl("corr2d_grad_bias", TORCH_BOX(&::corr2d_grad_bias));
}
