// The gradient of the weight of depthwise 3 x 3 correlations of small planes, whose numbers follow each other
// without gaps: a vector holds neighbouring numbers of one or several rows. Lane q of a vector stands for
// position q of the source. The tap in row i, column j is the sum over q of source[q + j - 1] times
// gradient[q - (i - 1) * width]: three loads of each for nine products.
#pragma once

#include "cpu/direct_rows/axis.h"
#include "cpu/dispatch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Real>
class SmallPlane {
 public:
  static constexpr int64_t lanes = Vector<Real>::lanes;

  // Rows that would not fill vectors of their own.
  static bool fits(const ConvProblem& p) {
    const int64_t width = p.input.width;
    const int64_t pixels = p.input.height * width;
    return vertical_axis(p).stride == 1 && horizontal_axis(p).stride == 1 && p.output.width == width &&
           p.output.height == p.input.height && p.padding.top == 1 && p.padding.left == 1 &&
           p.input_strides.row == width && p.output_strides.row == width && pixels <= most_vectors * lanes &&
           round_up(pixels, lanes) < p.input.height * round_up(width, lanes);
  }

  SmallPlane(const ConvProblem& p, bool is_used)
      : size(p.input), source_ahead(p.input_strides.channel), gradient_ahead(p.output_strides.channel) {
    if (is_used) set_masks();
  }

  int64_t vectors() const { return ceil_div(size.height * size.width, lanes); }

  void add(const Real* source, const Real* gradient, Vector<Real>* totals) const {
    Vector<Real> sums[9];
    CONVEXT_UNROLL
    for (int k = 0; k < 9; ++k) sums[k] = totals[k];
    const Masks* mask = masks;
    const Real* const end = source + size.height * size.width;
    const int64_t width = size.width;
    const int64_t ahead_of_source = source_ahead;
    const int64_t ahead_of_gradient = gradient_ahead;
    for (; source < end; source += lanes, gradient += lanes, ++mask) {
      __builtin_prefetch(source + ahead_of_source, 0, 2);
      __builtin_prefetch(gradient + ahead_of_gradient, 0, 2);
      Vector<Real> values[3];
      CONVEXT_UNROLL
      for (int j = 0; j < 3; ++j) values[j] = load(source + j - 1, mask->source[j]);
      CONVEXT_UNROLL
      for (int i = 0; i < 3; ++i) {
        const Vector<Real> factor = load(gradient - (i - 1) * width, mask->gradient[i]);
        CONVEXT_UNROLL
        for (int j = 0; j < 3; ++j) sums[i * 3 + j] = fmadd(factor, values[j], sums[i * 3 + j]);
      }
    }
    CONVEXT_UNROLL
    for (int k = 0; k < 9; ++k) totals[k] = sums[k];
  }

 private:
  static constexpr int64_t most_vectors = 16;

  struct Masks {
    LaneMask<Real> source[3];
    LaneMask<Real> gradient[3];
  };

  void set_masks() {
    const int64_t pixels = size.height * size.width;
    for (int64_t vector = 0; vector < vectors(); ++vector) {
      const int64_t q = vector * lanes;
      for (int64_t i = 0; i < 3; ++i) {
        const int64_t first = q - (i - 1) * size.width;
        masks[vector].gradient[i] =
            lanes_between<Real>(smaller(lanes, larger(0, -first)), smaller(lanes, larger(0, pixels - first)));
      }
      for (int64_t j = 0; j < 3; ++j) {
        uint32_t inside = 0;
        for (int64_t lane = 0; lane < smaller(lanes, pixels - q); ++lane) {
          const int64_t column = (q + lane) % size.width + j - 1;
          if (column >= 0 && column < size.width) inside |= uint32_t{1} << lane;
        }
        masks[vector].source[j] = lanes_of<Real>(inside);
      }
    }
  }

  Size2 size;
  int64_t source_ahead;  // from a number to what is fetched when it is read
  int64_t gradient_ahead;
  Masks masks[most_vectors];
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
