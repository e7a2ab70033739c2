// What pixel_window.h and plane_window.h have in common: a square kernel on one source channel, forward with
// stride 1 or 2, or the gradient of the input with stride 1, which is a correlation with the kernel turned
// round. Either may have a dilation, then without a stride.
#pragma once

#include "cpu/direct_rows/axis.h"
#include "cpu/dispatch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct Window {
  bool is_forward;
  int64_t taps;  // down and across
  int64_t step;
  Size2 dilation;
  Size2 source;
  Size2 result;
  int64_t before_rows;  // rows of padding before the source's first
  int64_t before_columns;

  static bool fits(const ConvProblem& p) { return fits_dilated(p) && !is_dilated(p); }

  static bool is_dilated(const ConvProblem& p) {
    return vertical_axis(p).dilation != 1 || horizontal_axis(p).dilation != 1;
  }

  static bool fits_dilated(const ConvProblem& p) {
    const RowsAxis rows = vertical_axis(p);
    const RowsAxis columns = horizontal_axis(p);
    const bool has_step = rows.stride == 1 || (rows.stride == 2 && p.pass == Pass::forward);
    return p.pass != Pass::grad_weight && in_channels_per_group(p) == 1 &&
           p.padding_mode == PaddingMode::zeros && rows.kernel == columns.kernel && has_step &&
           columns.stride == rows.stride && (rows.stride == 1 || !is_dilated(p));
  }

  explicit Window(const ConvProblem& p)
      : is_forward(p.pass == Pass::forward),
        taps(p.kernel.height),
        step(vertical_axis(p).stride),
        dilation{vertical_axis(p).dilation, horizontal_axis(p).dilation},
        source(is_forward ? p.input : p.output),
        result(is_forward ? p.output : p.input),
        before_rows(is_forward ? p.padding.top : (taps - 1) * dilation.height - p.padding.top),
        before_columns(is_forward ? p.padding.left : (taps - 1) * dilation.width - p.padding.left) {}
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
