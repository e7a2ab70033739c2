// What the kernels' descriptors share: questions about a problem, and the way from its dtype to a type.
#pragma once

#include "core/problem.h"
#include "cpu/element.h"
#include "cpu/isa.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Whether the dtype is one of those that with_type knows.
inline bool is_floating(DType dtype) {
  return dtype == DType::float32 || dtype == DType::float64 || dtype == DType::bfloat16 ||
         dtype == DType::float16;
}

// Calls visit(T{}) with the element type of a floating-point dtype.
template <class Visit>
auto with_type(DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::float64:
      return visit(double{});
    case DType::bfloat16:
      return visit(BFloat16{});
    case DType::float16:
      return visit(Float16{});
    default:
      return visit(float{});
  }
}

inline bool is_empty(const ConvProblem& p) {
  return p.batch == 0 || p.in_channels == 0 || p.out_channels == 0 || p.input.height == 0 ||
         p.input.width == 0;
}

// Whether positions of the padding stand for positions of the input, so that one of those collects gradients
// of several.
inline bool collects_padding(const ConvProblem& p) {
  return p.pass == Pass::grad_input && p.padding_mode != PaddingMode::zeros &&
         (p.padding.top != 0 || p.padding.bottom != 0 || p.padding.left != 0 || p.padding.right != 0);
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
