// What the lists of cases are made with.
#pragma once

#include <initializer_list>
#include <utility>
#include <vector>

#include "case.h"
#include "random.h"

namespace convext::testing {

inline constexpr DType floating_dtypes[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};
inline constexpr Pass passes[] = {Pass::forward, Pass::grad_input, Pass::grad_weight};
inline constexpr PaddingMode modes[] = {PaddingMode::zeros, PaddingMode::reflect, PaddingMode::replicate,
                                        PaddingMode::circular};
inline constexpr Layout layouts[] = {Layout::contiguous, Layout::channels_last, Layout::row_gaps,
                                     Layout::transposed, Layout::expanded};

struct Shape {
  int64_t batch, in_channels, height, width, out_channels, kernel_height, kernel_width;
  int64_t groups = 1;
};

class Collector {
 public:
  Case start(const Shape& shape, Pass pass, DType dtype) {
    Case c;
    ConvProblem& p = c.problem;
    p.pass = pass;
    p.dtype = p.out_dtype = dtype;
    p.batch = shape.batch;
    p.in_channels = shape.in_channels;
    p.out_channels = shape.out_channels;
    p.groups = shape.groups;
    p.input = {shape.height, shape.width};
    p.kernel = {shape.kernel_height, shape.kernel_width};
    c.seed = ++seed_;
    p.epilogue.bias = pass == Pass::forward && c.seed % 2 == 0;
    return c;
  }

  void add(Case c) {
    if (finish(c)) cases_.push_back(c);
  }

  // The same problem with exact numbers, then with fractions.
  void add_exact_and_normal(Case c) {
    c.fill = Fill::small_integers;
    add(c);
    c.fill = Fill::normal;
    c.seed = ++seed_;
    add(c);
  }

  // Every pass, floating-point dtype and native layout.
  template <class Adjust>
  void add_everywhere(const Shape& shape, const Adjust& adjust) {
    for (Pass pass : passes) {
      for (DType dtype : floating_dtypes) {
        for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
          Case c = start(shape, pass, dtype);
          c.input_layout = c.weight_layout = c.output_layout = layout;
          adjust(c);
          add_exact_and_normal(c);
        }
      }
    }
  }

  void add_everywhere(const Shape& shape) {
    add_everywhere(shape, [](Case&) {});
  }

  // For sweeps over one quantity: every pass, with a dtype and a native layout drawn for each case, so that
  // neighbouring values of the quantity meet all of them.
  template <class Adjust>
  void add_drawn(const Shape& shape, const Adjust& adjust) {
    for (Pass pass : passes) {
      for (Fill fill : {Fill::small_integers, Fill::normal}) {
        Case c = start(shape, pass, floating_dtypes[draw_.between(0, 3)]);
        c.input_layout = c.weight_layout = c.output_layout = layouts[draw_.between(0, 1)];
        adjust(c);
        c.fill = fill;
        add(c);
      }
    }
  }

  void add_drawn(const Shape& shape) {
    add_drawn(shape, [](Case&) {});
  }

  std::vector<Case> take() { return std::move(cases_); }

 private:
  std::vector<Case> cases_;
  uint64_t seed_ = 0;
  Random draw_{1};
};

inline void pad(Case& c, int64_t top, int64_t bottom, int64_t left, int64_t right) {
  c.problem.padding = {top, bottom, left, right};
}

}  // namespace convext::testing
