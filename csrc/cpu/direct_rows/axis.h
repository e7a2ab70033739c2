// One axis of a problem, cut so that neighbouring results always read neighbouring lines of scratch.
//
// A micro-kernel wants to read a line once and use it for several rows of the result. That works when result
// b and tap m read line b + m. With a stride s and a dilation d it holds within classes: let g = gcd(s, d),
// period = s / g and spread = d / g. Taps m * period + u (a *run* of taps) move the source by s * spread
// each, and so do results that are `spread` apart.
//
//   Forward: results a, a + spread, a + 2 * spread, ... form class a, and every result needs all the runs.
//   Gradient of the input: position r (counted with the padding) is reached by one run of taps only, the one
//   with u * d = r (mod s): no multiplications by the zeros between strided positions.
#pragma once

#include "core/padding.h"
#include "cpu/implicit_gemm/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct RowsAxis {
  int64_t input;
  int64_t output;
  int64_t kernel;
  int64_t stride;
  int64_t dilation;
  int64_t before;
  int64_t after;
  PaddingMode mode;
  int64_t period = 1;
  int64_t spread = 1;

  RowsAxis(int64_t input_size, int64_t output_size, int64_t kernel_size, int64_t step, int64_t tap_step,
           int64_t padding_before, int64_t padding_after, PaddingMode padding_mode)
      : input(input_size),
        output(output_size),
        kernel(kernel_size),
        stride(output_size == 1 ? 1 : step),  // what is never stepped over may as well be one
        dilation(kernel_size == 1 ? 1 : tap_step),
        before(padding_before),
        after(padding_after),
        mode(padding_mode) {
    int64_t a = stride;
    int64_t b = dilation;
    while (b != 0) {
      const int64_t remainder = a % b;
      a = b;
      b = remainder;
    }
    period = stride / a;
    spread = dilation / a;
  }

  int64_t runs() const { return smaller(period, kernel); }
  int64_t run_taps(int64_t u) const { return ceil_div(kernel - u, period); }
  int64_t padded() const { return input + before + after; }
};

inline RowsAxis vertical_axis(const ConvProblem& p) {
  return RowsAxis(p.input.height, p.output.height, p.kernel.height, p.stride.height, p.dilation.height,
                  p.padding.top, p.padding.bottom, p.padding_mode);
}
inline RowsAxis horizontal_axis(const ConvProblem& p) {
  return RowsAxis(p.input.width, p.output.width, p.kernel.width, p.stride.width, p.dilation.width,
                  p.padding.left, p.padding.right, p.padding_mode);
}

// For the gradient of the input: the taps that reach the padded positions t * stride + residue. Position t
// and tap m (in reverse: tap last_tap - m * period) read output position t - delay + m * spread.
struct Residue {
  int64_t taps = 0;
  int64_t taps_before = 0;  // of all smaller residues
  int64_t last_tap = 0;
  int64_t delay = 0;
};

constexpr int64_t most_residues = 16;

struct ResidueTable {
  Residue residues[most_residues];

  explicit ResidueTable(const RowsAxis& axis) {
    if (axis.stride > most_residues) return;  // of a forward problem, which needs none
    for (int64_t u = 0; u < axis.runs(); ++u) {
      Residue& residue = residues[u * axis.dilation % axis.stride];
      residue.taps = axis.run_taps(u);
      residue.last_tap = u + (residue.taps - 1) * axis.period;
      residue.delay = u * axis.dilation / axis.stride + (residue.taps - 1) * axis.spread;
    }
    int64_t taps = 0;
    for (int64_t r = 0; r < axis.stride; ++r) {
      residues[r].taps_before = taps;
      taps += residues[r].taps;
    }
  }
};

// The t with first <= t * stride + residue < last.
struct PaddedPositions {
  int64_t begin;
  int64_t end;

  PaddedPositions(int64_t first, int64_t last, int64_t residue, int64_t stride)
      : begin(first <= residue ? 0 : ceil_div(first - residue, stride)),
        end(last <= residue ? 0 : ceil_div(last - residue, stride)) {}
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
