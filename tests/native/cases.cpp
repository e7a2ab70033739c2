#include "cases.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "bfloat16_cases.h"
#include "integer_cases.h"
#include "random.h"

namespace convext::testing {
namespace {

constexpr DType floating_dtypes[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};
constexpr Pass passes[] = {Pass::forward, Pass::grad_input, Pass::grad_weight};
constexpr PaddingMode modes[] = {PaddingMode::zeros, PaddingMode::reflect, PaddingMode::replicate,
                                 PaddingMode::circular};
constexpr Layout layouts[] = {Layout::contiguous, Layout::channels_last, Layout::row_gaps, Layout::transposed,
                              Layout::expanded};

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

void pad(Case& c, int64_t top, int64_t bottom, int64_t left, int64_t right) {
  c.problem.padding = {top, bottom, left, right};
}

// Sizes around every plausible register and cache block.
void add_size_sweeps(Collector& cases) {
  for (int64_t width = 1; width <= 70; ++width) {
    cases.add_drawn({2, 3, 4, width, 5, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
    cases.add_drawn({1, 1, 5, width, 1, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
    cases.add_drawn({1, 2, 5, width, 2, 5, 5, 2}, [](Case& c) { pad(c, 2, 2, 2, 2); });
    cases.add_drawn({1, 3, 3, width, 4, 1, 1});
    cases.add_drawn({1, 2, 5, width, 3, 3, 3}, [](Case& c) {
      pad(c, 1, 0, 0, 1);
      c.problem.stride = {2, 2};
    });
  }
  for (int64_t height = 1; height <= 40; ++height) {
    cases.add_drawn({1, 3, height, 5, 4, 3, 2}, [](Case& c) { pad(c, 1, 2, 1, 0); });
    cases.add_drawn({2, 3, height, 7, 3, 3, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
  }
  for (int64_t channels = 1; channels <= 70; ++channels) {
    cases.add_drawn({2, channels, 4, 9, 7, 2, 3});
    cases.add_drawn({2, 5, 4, 9, channels, 3, 2});
    cases.add_drawn({1, channels, 5, 6, channels, 3, 3, channels}, [](Case& c) { pad(c, 1, 1, 1, 1); });
    if (channels % 2 == 0)
      cases.add_drawn({1, channels / 2, 3, 7, channels, 3, 3, channels / 2},
                      [](Case& c) { pad(c, 1, 1, 1, 1); });
  }
}

// Lengths of the sum around 256 and its multiples: in_channels * taps forward, out_channels * taps for
// grad_input, pixels for grad_weight.
void add_reduction_sweeps(Collector& cases) {
  for (int64_t length : {252, 253, 254, 255, 256, 257, 258, 259, 260, 511, 512, 513, 767, 769, 1025}) {
    cases.add_drawn({1, length, 3, 4, 9, 1, 1});
    cases.add_drawn({1, 9, 3, 4, length, 1, 1});
    cases.add_drawn({1, 2, 1, length, 3, 1, 1});
    cases.add_drawn({3, 2, 2, length, 3, 1, 2});
    cases.add_drawn({1, 2, length, 1, 3, 1, 1});
    cases.add_drawn({2, 3, length, 2, 3, 2, 1, 3});
    cases.add_drawn({length, 2, 1, 2, 3, 1, 1});
  }
  for (int64_t channels : {28, 29, 56, 57, 85, 86}) {
    cases.add_everywhere({1, channels, 4, 6, 7, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
    cases.add_everywhere({1, 7, 4, 6, channels, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
  }
  // Long sums of positive numbers: the bound is only met if partial sums are kept short.
  for (DType dtype : floating_dtypes) {
    for (Shape shape :
         {Shape{1, 1, 200, 300, 1, 3, 3}, Shape{1, 1, 64, 80, 1, 31, 31}, Shape{1, 4000, 3, 5, 4, 1, 1},
          Shape{1, 4, 3, 5, 4000, 1, 1}, Shape{6, 2, 60, 60, 2, 3, 3, 2}, Shape{2, 3, 50, 60, 8, 3, 3}}) {
      for (Pass pass : passes) {
        Case c = cases.start(shape, pass, dtype);
        c.fill = Fill::positive;
        cases.add(c);
        c.input_layout = c.output_layout = Layout::channels_last;
        cases.add(c);
      }
    }
  }
}

void add_kernel_sizes(Collector& cases) {
  for (int64_t height = 1; height <= 8; ++height) {
    for (int64_t width = 1; width <= 12; ++width) {
      const auto same = [=](Case& c) { pad(c, height / 2, (height - 1) / 2, width / 2, (width - 1) / 2); };
      cases.add_drawn({1, 1, 9, 21, 1, height, width}, same);
      cases.add_drawn({1, 3, 9, 17, 3, height, width, 3}, same);
      cases.add_drawn({1, 2, 9, 14, 4, height, width}, same);
    }
  }
  for (Shape shape : {Shape{1, 1, 40, 45, 1, 31, 31}, Shape{1, 1, 3, 80, 1, 1, 63},
                      Shape{1, 1, 80, 3, 1, 63, 1}, Shape{1, 2, 20, 33, 2, 13, 17, 2},
                      Shape{1, 2, 12, 12, 3, 11, 11}, Shape{2, 9, 16, 16, 9, 15, 15, 9}}) {
    cases.add_everywhere(shape);
    cases.add_everywhere(shape, [&](Case& c) {
      pad(c, shape.kernel_height / 2, shape.kernel_height / 2, shape.kernel_width / 2,
          shape.kernel_width / 2);
    });
  }
  // A few channels side by side: every number of them, rows around a few vectors of them, bands of rows.
  for (int64_t channels = 2; channels <= 9; ++channels) {
    for (int64_t width : {1, 3, 5, 8, 15, 16, 17, 31, 33, 70, 190}) {
      for (Pass pass : {Pass::forward, Pass::grad_input}) {
        for (DType dtype : floating_dtypes) {
          const int64_t height = width < 9 ? 41 : 6;
          Case c = cases.start({2, channels, height, width, channels, 3, 3, channels}, pass, dtype);
          c.input_layout = c.output_layout = Layout::channels_last;
          pad(c, 1, 2, 1, 0);
          cases.add(c);
          c.problem.dilation = {2, 3};
          pad(c, 2, 1, 3, 4);
          cases.add(c);
        }
      }
    }
  }
  // The kernel covers the whole padded input, or sees nothing but padding at its corners.
  cases.add_everywhere({2, 3, 6, 7, 4, 6, 7});
  cases.add_everywhere({1, 1, 2, 3, 2, 3, 3}, [](Case& c) { pad(c, 5, 7, 6, 9); });
  cases.add_everywhere({1, 2, 1, 1, 2, 3, 3, 2}, [](Case& c) { pad(c, 1, 1, 1, 1); });
  // Tiles that leave out rows of taps: maps lower than the kernel and higher, strips of several rows or
  // images and rows of several strips, numbers of channels beside whole vectors.
  for (Shape shape :
       {Shape{2, 16, 9, 8, 20, 5, 5}, Shape{3, 6, 3, 7, 16, 5, 5}, Shape{1, 20, 7, 250, 9, 5, 7},
        Shape{1, 8, 8, 9, 8, 15, 15}, Shape{1, 33, 6, 9, 33, 5, 5}}) {
    for (Pass pass : {Pass::forward, Pass::grad_input}) {
      for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
        for (Fill fill : {Fill::small_integers, Fill::normal, Fill::non_finite}) {
          for (DType dtype : {DType::float32, DType::float64, DType::bfloat16}) {
            Case c = cases.start(shape, pass, dtype);
            c.input_layout = c.weight_layout = c.output_layout = layout;
            c.fill = fill;
            pad(c, shape.kernel_height / 2, shape.kernel_height / 2, shape.kernel_width / 2,
                shape.kernel_width / 2 - 1);
            cases.add(c);
          }
        }
      }
    }
  }
}

void add_few_channels(Collector& cases) {
  // Few channels to many: rows of taps around what has sums in registers, images of several pieces.
  for (int64_t inputs = 1; inputs <= 4; ++inputs) {
    for (int64_t outputs : {4, 8, 16, 17, 33, 40}) {
      for (int64_t width : {1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 25}) {
        for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
          Case c = cases.start({2, inputs, 9, 31, outputs, 4, width}, Pass::grad_weight, DType::float32);
          c.input_layout = c.output_layout = layout;
          pad(c, 1, 2, width / 2, 0);
          cases.add(c);
          c.problem.stride = {2, 3};
          c.problem.dilation = {2, 1};
          cases.add(c);
        }
      }
    }
  }
  for (Shape shape : {Shape{1, 1, 5, 700, 20, 3, 3}, Shape{2, 3, 24, 270, 6, 3, 3},
                      Shape{1, 2, 90, 20, 18, 9, 2}, Shape{3, 1, 75, 70, 5, 12, 13}}) {
    for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
      Case c = cases.start(shape, Pass::grad_weight, DType::float32);
      c.input_layout = c.output_layout = layout;
      cases.add(c);
    }
  }
  // 1x1 kernels of a few channels: pixels around a few vectors of them, and several tiles.
  for (int64_t inputs = 1; inputs <= 5; ++inputs) {
    for (int64_t outputs : {1, 2, 3, 4, 5, 7, 8, 9, 16, 17}) {
      for (Pass pass : passes) {
        for (DType dtype : floating_dtypes) {
          for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
            for (int64_t width : {5, 37}) {
              Case c = cases.start({2, inputs, 2, width, outputs, 1, 1}, pass, dtype);
              c.input_layout = c.output_layout = layout;
              cases.add(c);
            }
          }
        }
      }
    }
  }
  for (Pass pass : passes) {
    for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
      Case c = cases.start({1, 3, 70, 127, 2, 1, 1}, pass, DType::float32);
      c.input_layout = c.output_layout = layout;
      cases.add(c);
    }
  }
}

void add_strides_and_dilations(Collector& cases) {
  for (int64_t stride_height : {1, 2, 3}) {
    for (int64_t stride_width : {1, 2, 3, 5}) {
      for (int64_t dilation_height : {1, 3}) {
        for (int64_t dilation_width : {1, 2, 4}) {
          for (PaddingMode mode : modes) {
            const auto adjust = [&](Case& c) {
              c.problem.stride = {stride_height, stride_width};
              c.problem.dilation = {dilation_height, dilation_width};
              c.problem.padding_mode = mode;
              pad(c, 2, 1, 4, 3);
            };
            cases.add_drawn({2, 3, 9, 13, 4, 3, 3}, adjust);
            cases.add_drawn({1, 3, 8, 27, 3, 3, 3, 3}, adjust);
            cases.add_drawn({1, 1, 10, 40, 2, 2, 5}, adjust);
            cases.add_drawn({1, 4, 8, 12, 6, 3, 2, 2}, adjust);
          }
        }
      }
    }
  }
}

void add_padding_modes(Collector& cases) {
  for (PaddingMode mode : modes) {
    for (Padding padding :
         {Padding{1, 1, 1, 1}, Padding{0, 2, 3, 0}, Padding{4, 4, 5, 5}, Padding{5, 1, 0, 6}}) {
      const auto adjust = [&](Case& c) {
        c.problem.padding_mode = mode;
        c.problem.padding = padding;
      };
      cases.add_everywhere({1, 2, 5, 6, 3, 3, 3}, adjust);
      cases.add_everywhere({2, 3, 6, 7, 3, 2, 4, 3}, adjust);
      cases.add_everywhere({1, 1, 6, 33, 1, 5, 3}, adjust);
      cases.add_everywhere({1, 17, 6, 7, 17, 3, 3, 17}, adjust);
      cases.add_everywhere({2, 20, 6, 8, 31, 2, 4}, adjust);
    }
  }
}

void add_groups(Collector& cases) {
  for (Shape shape : {Shape{2, 6, 5, 9, 4, 3, 3, 2}, Shape{1, 8, 6, 7, 24, 3, 3, 8},
                      Shape{1, 12, 6, 7, 6, 2, 2, 3}, Shape{1, 64, 4, 9, 64, 3, 3, 8},
                      Shape{2, 33, 7, 8, 66, 5, 5, 33}, Shape{1, 10, 6, 20, 10, 7, 7, 10}}) {
    cases.add_everywhere(shape);
    cases.add_everywhere(shape, [](Case& c) {
      pad(c, 2, 2, 2, 2);
      c.problem.stride = {2, 2};
    });
    cases.add_everywhere(shape, [](Case& c) {
      pad(c, 3, 3, 3, 3);
      c.problem.dilation = {2, 2};
    });
  }
  // Few channels of a group, so that several groups meet in a vector: every pair of numbers around the
  // vectors, and enough groups for vectors that are full and for one that is not.
  for (int64_t in = 1; in <= 9; ++in) {
    for (int64_t out = 1; out <= 9; ++out) {
      const int64_t groups = 3 + (7 * in + 5 * out) % 17;
      cases.add_drawn({2, groups * in, 4, 9, groups * out, 3, 3, groups},
                      [](Case& c) { pad(c, 1, 1, 1, 1); });
      cases.add_drawn({1, groups * in, 7, 8, groups * out, 3, 3, groups}, [](Case& c) {
        pad(c, 1, 0, 2, 1);
        c.problem.stride = {2, 2};
      });
    }
  }
  for (int64_t channels : {10, 11, 12, 13, 15, 16, 17, 20, 24, 30, 31}) {
    cases.add_drawn({2, 3 * channels, 5, 7, 3 * channels, 3, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
    cases.add_drawn({1, 5 * channels, 4, 5, 10, 3, 2, 5}, [](Case& c) { pad(c, 0, 1, 1, 0); });
    cases.add_drawn({1, 10, 4, 5, 5 * channels, 2, 3, 5}, [](Case& c) { pad(c, 0, 1, 1, 0); });
  }
  for (int64_t width : {7, 14, 15, 29, 57, 63, 64, 65, 129, 130}) {
    cases.add_drawn({1, 32, 5, width, 32, 3, 3, 8}, [](Case& c) { pad(c, 1, 1, 1, 1); });
    cases.add_drawn({2, 32, width, 5, 32, 3, 3, 16}, [](Case& c) {
      pad(c, 1, 1, 1, 1);
      c.problem.stride = {2, 2};
    });
  }
  for (Shape shape : {Shape{2, 32, 9, 8, 32, 3, 3, 8}, Shape{1, 34, 6, 9, 34, 5, 4, 17},
                      Shape{1, 30, 9, 9, 40, 7, 7, 10}, Shape{3, 24, 6, 5, 24, 1, 1, 6}}) {
    cases.add_everywhere(shape, [&](Case& c) {
      pad(c, shape.kernel_height / 2, shape.kernel_height / 2, shape.kernel_width / 2,
          shape.kernel_width / 2);
    });
    for (int64_t stride : {1, 2, 3}) {
      for (int64_t dilation : {1, 2, 3}) {
        for (PaddingMode mode : modes) {
          cases.add_drawn(shape, [&](Case& c) {
            pad(c, 3, 2, 4, 3);
            c.problem.stride = {stride, 3 - stride % 3};
            c.problem.dilation = {dilation, 3 - dilation % 3};
            c.problem.padding_mode = mode;
          });
        }
      }
    }
  }
}

// Enough channels for kernels that transform tiles of pixels: maps of every size around a few tiles, channels
// around vectors and chains of additions.
void add_tiles(Collector& cases) {
  for (int64_t height = 1; height <= 6; ++height) {
    for (int64_t width = 1; width <= 6; ++width) {
      cases.add_drawn({2, 32, height, width, 33, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
      cases.add_drawn({1, 33, height, width, 32, 3, 3}, [](Case& c) { pad(c, 2, 1, 0, 3); });
    }
  }
  for (int64_t width : {7, 8, 9, 15, 16, 17, 31, 32, 33, 62, 63, 64, 65, 66, 67, 129, 130}) {
    cases.add_drawn({1, 32, 3, width, 32, 3, 3}, [](Case& c) { pad(c, 1, 0, 1, 1); });
    cases.add_drawn({1, 32, width, 3, 32, 3, 3}, [](Case& c) { pad(c, 1, 1, 0, 1); });
  }
  for (int64_t channels : {39, 40, 47, 48, 49, 63, 64, 65, 80, 97, 128, 129, 256, 257, 320, 520}) {
    cases.add_drawn({2, channels, 4, 5, 32, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
    cases.add_drawn({2, 32, 4, 5, channels, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
  }
  for (PaddingMode mode : modes) {
    for (Padding padding : {Padding{1, 1, 1, 1}, Padding{0, 2, 3, 0}, Padding{4, 0, 3, 4}}) {
      cases.add_everywhere({1, 32, 5, 6, 32, 3, 3}, [&](Case& c) {
        c.problem.padding_mode = mode;
        c.problem.padding = padding;
      });
    }
  }
  cases.add_everywhere({2, 64, 6, 7, 66, 3, 3, 2}, [](Case& c) { pad(c, 1, 1, 1, 1); });
  cases.add_everywhere({40, 32, 3, 3, 34, 3, 3});
  for (int64_t size : {5, 6, 7, 8, 9, 16, 17, 65, 66}) {
    for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
      for (Pass pass : {Pass::forward, Pass::grad_input}) {
        Case c = cases.start({2, 34, size, size % 9 + 3, 40, 3, 3}, pass, DType::float32);
        c.problem.precision = Float32Precision::high;
        c.input_layout = c.weight_layout = c.output_layout = layout;
        c.fill = Fill::normal;
        pad(c, 1, 1, 1, 1);
        cases.add(c);
      }
    }
  }
  cases.add_everywhere({1, 32, 20, 21, 34, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
  for (Layout input : layouts) {
    for (Layout weight : layouts) {
      for (Layout output : layouts) {
        cases.add_drawn({3, 37, 3, 9, 35, 3, 3}, [&](Case& c) {
          c.input_layout = input;
          c.weight_layout = weight;
          c.output_layout = output;
          pad(c, 1, 0, 1, 1);
        });
      }
    }
  }
  for (Pass pass : passes) {
    for (DType dtype : floating_dtypes) {
      for (Fill fill : {Fill::non_finite, Fill::large_integers, Fill::positive}) {
        Case c = cases.start({2, 36, 5, 5, 40, 3, 3}, pass, dtype);
        c.fill = fill;
        pad(c, 1, 1, 1, 1);
        cases.add(c);
        c.input_layout = c.weight_layout = c.output_layout = Layout::channels_last;
        cases.add(c);
      }
    }
  }
}

void add_layouts(Collector& cases) {
  for (Layout input : layouts) {
    for (Layout weight : layouts) {
      for (Layout output : layouts) {
        for (Shape shape : {Shape{2, 4, 6, 9, 6, 3, 3, 2}, Shape{3, 5, 5, 19, 5, 3, 3, 5},
                            Shape{2, 1, 7, 18, 1, 3, 5}, Shape{2, 19, 1, 5, 3, 1, 1}}) {
          cases.add_drawn(shape, [&](Case& c) {
            c.input_layout = input;
            c.weight_layout = weight;
            c.output_layout = output;
            pad(c, 1, 0, 1, 1);
          });
        }
      }
    }
  }
}

void add_empty(Collector& cases) {
  for (Shape shape :
       {Shape{0, 3, 5, 6, 4, 3, 3}, Shape{2, 0, 5, 6, 4, 3, 3}, Shape{2, 3, 5, 6, 0, 3, 3},
        Shape{2, 0, 5, 6, 0, 3, 3}, Shape{0, 3, 5, 6, 3, 3, 3, 3}, Shape{0, 1, 5, 6, 1, 3, 3}}) {
    cases.add_everywhere(shape);
    cases.add_everywhere(shape, [](Case& c) { c.problem.stride = {2, 2}; });
  }
}

// Infinities and NaN anywhere, and sums that overflow float16.
void add_extreme_values(Collector& cases) {
  for (int round = 0; round < 4; ++round) {
    for (Shape shape :
         {Shape{2, 3, 7, 19, 5, 3, 3}, Shape{1, 1, 9, 37, 1, 3, 5}, Shape{1, 5, 8, 9, 5, 3, 3, 5},
          Shape{1, 20, 6, 7, 20, 3, 3, 20}, Shape{1, 9, 5, 6, 17, 1, 1}}) {
      for (Fill fill : {Fill::non_finite, Fill::large_integers}) {
        for (Pass pass : passes) {
          for (DType dtype : floating_dtypes) {
            for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
              Case c = cases.start(shape, pass, dtype);
              c.fill = fill;
              c.input_layout = c.output_layout = layout;
              if (round % 2 == 1) pad(c, 1, 2, 2, 1);
              if (round >= 2) c.problem.stride = {2, 2};
              cases.add(c);
            }
          }
        }
      }
    }
  }
}

// Kernels as large as the image.
void add_fully_connected(Collector& cases) {
  for (int64_t batch : {1, 4, 6}) {
    for (int64_t channels : {1, 5, 20}) {
      for (int64_t outputs : {3, 8, 34}) {
        for (int64_t side : {1, 3}) {
          for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
            cases.add_drawn({batch, channels, side, side + 1, outputs, side, side + 1},
                            [&](Case& c) { c.input_layout = c.weight_layout = c.output_layout = layout; });
          }
        }
      }
    }
  }
  // More terms than are added up in one chain, and more rows and numbers than an item has.
  for (Shape shape :
       {Shape{2, 2100, 1, 1, 3, 1, 1}, Shape{35, 40, 3, 3, 37, 3, 3}, Shape{3, 4, 1, 1, 1100, 1, 1}}) {
    cases.add_everywhere(shape);
  }
}

// Where most products are with zeros of padding, which kernels leave out, unless a weight is not finite.
void add_mostly_padding(Collector& cases) {
  const auto add = [&](const Shape& shape, int64_t stride, int64_t dilation, int64_t padding) {
    for (Fill fill : {Fill::small_integers, Fill::non_finite, Fill::normal}) {
      for (Pass pass : {Pass::forward, Pass::grad_input}) {
        for (DType dtype : {DType::float32, DType::float64, DType::bfloat16}) {
          for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
            Case c = cases.start(shape, pass, dtype);
            c.fill = fill;
            c.input_layout = c.weight_layout = c.output_layout = layout;
            c.problem.stride = {stride, stride};
            c.problem.dilation = {dilation, dilation};
            pad(c, padding, padding, padding, padding);
            cases.add(c);
          }
        }
      }
    }
  };
  add({1, 34, 5, 4, 18, 7, 5}, 1, 1, 3);
  add({1, 140, 3, 4, 5, 3, 3}, 1, 2, 2);  // a block of terms within a tap
  add({1, 5, 3, 4, 140, 3, 3}, 1, 2, 2);  // the same for the gradient of the input
  add({2, 64, 4, 3, 6, 5, 5}, 1, 1, 2);   // blocks of single taps
  add({1, 66, 9, 7, 4, 5, 5}, 2, 1, 4);   // phases
  add({2, 48, 6, 9, 20, 3, 3}, 1, 1, 1);  // tiles of a row, some of whose pixels read less
  add({1, 24, 9, 10, 48, 5, 3}, 2, 1, 1);
  add({1, 128, 3, 5, 33, 3, 5}, 1, 1, 2);  // two chains for a tap
  add({1, 3, 6, 6, 33, 13, 13}, 1, 1, 6);  // more taps than are transposed at a time
}

// Depthwise results of every width around the tiles' one: what a micro-kernel reads past the last of them has
// to be there. Cheap, and AddressSanitizer sees it only in the widths that go wrong: they belong in every
// run.
void add_ends_of_lines(Collector& cases) {
  for (int64_t width = 1; width <= 36; ++width) {
    for (int64_t stride : {1, 2, 3}) {
      for (int64_t kernel : {1, 2, 3, 5}) {
        for (Pass pass : {Pass::forward, Pass::grad_input}) {
          const DType dtype = (width + kernel) % 2 == 0 ? DType::float32 : DType::float64;
          Case c = cases.start({1, 16, 3, width, 16, 1, kernel, 16}, pass, dtype);
          c.input_layout = c.weight_layout = c.output_layout =
              (width + stride) % 4 == 0 ? Layout::contiguous : Layout::channels_last;
          c.problem.stride = {1, stride};
          pad(c, 0, 0, kernel / 2, width % 2);
          cases.add(c);
        }
      }
    }
  }
}

// Square depthwise kernels that read planes and pixels in place, beside their padding: every width around one
// and two vectors, heights around the rows of a micro-kernel, channels that do not fill their last vector.
void add_depthwise_windows(Collector& cases) {
  int64_t number = 0;
  for (int64_t width = 1; width <= 36; ++width) {
    for (int64_t kernel : {3, 5, 7}) {
      for (int64_t stride : {1, 2}) {
        for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
          for (Pass pass : {Pass::forward, Pass::grad_input, Pass::grad_weight}) {
            if (pass == Pass::grad_weight && kernel != 3) continue;
            ++number;
            const DType dtype = floating_dtypes[number % 5 == 0 ? 2 + number % 2 : number % 2];
            const int64_t channels = layout == Layout::contiguous ? 3 : 16 + number % 3 * 5;
            const int64_t height = 1 + number % 7;
            const int64_t results = channels * (number % 6 == 1 ? 2 : 1);
            const int64_t batch = pass == Pass::grad_weight ? 1 + number % 10 : 2;
            Case c =
                cases.start({batch, channels, height, width, results, kernel, kernel, channels}, pass, dtype);
            c.input_layout = c.weight_layout = c.output_layout = layout;
            c.problem.stride = {stride, stride};
            const int64_t half = kernel / 2;
            pad(c, half, half + number % 2, number % 4 == 0 ? 0 : half, half + number % 3);
            if (number % 11 == 0) c.fill = Fill::non_finite;
            if (finish(c)) cases.add(c);
          }
        }
      }
    }
  }
}

// The gradient of the weight of depthwise kernels in channels_last: channels around those of vectors and
// tiles, chains of several images, wide padding and dilation.
void add_pixel_window_gradients(Collector& cases) {
  int64_t number = 0;
  for (int64_t width = 1; width <= 62; ++width) {
    for (int64_t stride : {1, 2}) {
      ++number;
      const int64_t channels = number % 29 == 0 ? 270 : 2 + number % 37;
      const int64_t batch = width < 10 ? 1 + number % 9 : 1 + number % 2;
      Case c = cases.start({batch, channels, 1 + number % 11, width, channels, 3, 3, channels},
                           Pass::grad_weight, floating_dtypes[number % 3 == 0]);
      c.input_layout = c.weight_layout = c.output_layout = Layout::channels_last;
      c.problem.stride = {1 + number % 3, stride};
      if (number % 5 == 0) c.problem.dilation = {1 + number % 3, 1 + number % 4};
      pad(c, number % 4, 1 + number % 3, number % 5, 1 + number % 2);
      c.fill = number % 7 == 3 ? Fill::non_finite : number % 3 == 1 ? Fill::normal : Fill::small_integers;
      if (finish(c)) cases.add(c);
    }
  }
}

// Many channels to few: sizes around vectors, bands and parts, edges that are wider than the image, chains.
void add_channel_sums(Collector& cases) {
  int64_t number = 0;
  for (int64_t width = 1; width <= 36; ++width) {
    for (int64_t kernel : {2, 3, 5}) {
      for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
        for (Pass pass : {Pass::forward, Pass::grad_input}) {
          ++number;
          const int64_t many = number % 13 == 0 ? 70 : 4 + number % 31;
          const int64_t few = number % 5 == 0 ? 3 : 1 + number % 2;
          const int64_t groups = number % 7 == 0 ? 2 : 1;
          const bool is_forward = pass == Pass::forward;
          Case c = cases.start({1 + number % 2, groups * (is_forward ? many : few), 1 + number % 19,
                                width + (number % 17 == 0 ? 130 : 0), groups * (is_forward ? few : many),
                                kernel, kernel, groups},
                               pass, floating_dtypes[number % 11 == 0 ? 2 : number % 2]);
          c.input_layout = c.weight_layout = c.output_layout = layout;
          const int64_t half = kernel / 2;
          pad(c, number % 3 == 0 ? 0 : half, half, kernel - 1 - number % 2, half + number % 3);
          c.fill = number % 11 == 3  ? Fill::non_finite
                   : number % 3 == 1 ? Fill::normal
                                     : Fill::small_integers;
          if (finish(c)) cases.add(c);
        }
      }
    }
  }
}

// 1x1 kernels with few channels on one side and many on the other: numbers of pixels around those of vectors
// and tiles, of channels around those of chains.
void add_pointwise_sums(Collector& cases) {
  int64_t number = 0;
  for (int64_t width = 1; width <= 36; ++width) {
    for (Pass pass : {Pass::forward, Pass::grad_input, Pass::grad_weight}) {
      for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
        ++number;
        const int64_t many = number % 13 == 0 ? 140 : number % 5 == 0 ? 60 + number % 9 : 5 + number % 27;
        const int64_t few = 1 + number % 4;
        const bool has_many_inputs = pass == Pass::forward || (pass == Pass::grad_weight && number % 3 != 0);
        const int64_t height = number % 11 == 0 ? 150 : 1 + number % 19;
        Case c = cases.start(
            {1 + number % 3, has_many_inputs ? many : few, height, width, has_many_inputs ? few : many, 1, 1},
            pass, floating_dtypes[number % 17 == 0 ? 2 : number / 2 % 2]);
        c.input_layout = c.weight_layout = c.output_layout = layout;
        if (number % 7 == 0) c.output_layout = Layout::contiguous;
        if (number % 7 == 2) c.input_layout = Layout::row_gaps;
        c.fill = number % 11 == 3 ? Fill::non_finite : number % 3 == 1 ? Fill::normal : Fill::small_integers;
        if (finish(c)) cases.add(c);
      }
    }
  }
}

// Products of matrices in panels: numbers of pixels, rows and terms around those of vectors, tiles, chains
// and blocks.
void add_panels(Collector& cases) {
  int64_t number = 0;
  const auto add = [&](const Shape& shape, Pass pass, Layout layout, int64_t stride, int64_t padding) {
    ++number;
    Case c = cases.start(shape, pass, floating_dtypes[number % 2]);
    c.input_layout = c.weight_layout = c.output_layout = layout;
    if (number % 7 == 0) c.weight_layout = Layout::channels_last;
    if (number % 5 == 0) c.problem.padding_mode = modes[number / 5 % 4];
    c.fill = number % 11 == 0 ? Fill::non_finite : number % 3 == 0 ? Fill::normal : Fill::small_integers;
    c.problem.stride = {stride, stride};
    pad(c, padding, padding, padding, padding);
    if (finish(c)) cases.add(c);
  };
  for (Pass pass : {Pass::forward, Pass::grad_input}) {
    for (int64_t width = 7; width <= 33; ++width) {
      for (int64_t stride : {1, 1, 2, 3}) {
        const int64_t groups = 1 + number % 2;
        const int64_t rows = 8 + number % 12;
        add({2, groups * (9 + number % 3), 3, width, groups * rows, 1, 1, groups}, pass, Layout::contiguous,
            stride, number % 4 == 3);
      }
    }
    for (int64_t terms : {64, 65, 129, 520, 2060}) {
      const bool is_forward = pass == Pass::forward;
      add({1, is_forward ? terms : 33, 4, 12, is_forward ? 33 : terms, 1, 1}, pass, Layout::contiguous, 1, 0);
      add({1, is_forward ? terms : 9, 5, 24, is_forward ? 9 : terms, 1, 1}, pass, Layout::contiguous, 2, 0);
    }
  }
  // Patches of several taps.
  for (int64_t width = 15; width <= 34; ++width) {
    add({1, 8 + width % 3, 7, width, 130, 3, 2}, Pass::forward, Layout::contiguous, 2, width % 3);
    add({2, 3, 9, 2 * width, 50, 4, 4}, Pass::forward, Layout::contiguous, width % 3 == 0 ? 2 : 4, width % 2);
  }
  add({1, 70, 9, 17, 129, 3, 3}, Pass::forward, Layout::contiguous, 2, 1);  // more than one block of terms
  // Windows side by side.
  for (int64_t width = 7; width <= 20; ++width) {
    const int64_t side = 2 + width % 3;
    add({2, 4 + width % 9, 3 * side, width * side, 9, side, side}, Pass::grad_input, Layout::contiguous, side,
        0);
  }
  // Pixels of channels_last images around blocks of 256 and chunks of 768.
  for (int64_t pixels : {16, 17, 65, 255, 256, 257, 300, 1535, 1540}) {
    for (int64_t channels : {8, 17, 49}) {
      const int64_t groups = 1 + number % 2;
      add({1, groups * channels, 1, pixels, groups * (8 + number % 30), 1, 1, groups}, Pass::grad_weight,
          Layout::channels_last, 1, 0);
    }
  }
}

// Gradients of 3 x 3 kernels by tiles of 2 x 2 outputs: maps of even and odd size, some of them cut by their
// edge, channels around vectors and tiles of rows, several chunks of tiles.
void add_tiles_of_gradients(Collector& cases) {
  int64_t number = 0;
  const auto add = [&](const Shape& shape, const Padding& padding) {
    ++number;
    Case c = cases.start(shape, Pass::grad_weight, floating_dtypes[number % 5 % 4]);
    ConvProblem& p = c.problem;
    const Layout layout = number % 2 == 0 ? Layout::channels_last : Layout::contiguous;
    c.input_layout = c.output_layout = c.weight_layout = layout;
    if (number % 7 == 0) c.weight_layout = Layout::transposed;
    if (number % 9 == 0) c.input_layout = Layout::row_gaps;
    if (number % 11 == 0) c.output_layout = Layout::transposed;
    p.padding = padding;
    if (number % 3 == 0) p.padding_mode = modes[number / 3 % 4];
    // Few pixels of channels_last images are summed more exactly without tiles.
    if (number % 4 != 0) p.precision = Float32Precision::high;
    c.fill = number % 13 == 0 ? Fill::non_finite : number % 4 == 1 ? Fill::normal : Fill::small_integers;
    if (finish(c)) cases.add(c);
  };
  for (int64_t height = 2; height <= 9; ++height) {
    for (int64_t width : {2, 3, 7, 16}) {
      const int64_t batch = 1 + 140 / (height * width);
      add({batch, 32 + number % 3, height, width, 32 + number % 18, 3, 3}, {1, 1, 1, 1});
      add({batch, 32, height + 2, width + 2, 33, 3, 3}, {number % 3, number % 2, 0, number % 3});
    }
  }
  for (int64_t channels : {47, 48, 49, 64, 65, 96, 97, 112}) {
    add({2, channels, 8, 9, 32, 3, 3}, {1, 1, 1, 1});
    add({2, 34, 9, 8, channels, 3, 3}, {1, 1, 1, 1});
    add({1, 2 * 32, 12, 13, 2 * (channels / 2 + 10), 3, 3, 2}, {0, 1, 1, 0});
  }
  for (int64_t width : {63, 64, 65, 67, 129}) add({1, 32, 9, width, 40, 3, 3}, {1, 1, 1, 1});
  add({3, 32, 26, 33, 32, 3, 3}, {1, 1, 1, 1});
}

// Tiles of every pixel, or of every second or third one, a phase of the map at a time.
void add_tiles_of_phases(Collector& cases) {
  int64_t number = 0;
  for (Size2 dilation : {Size2{1, 1}, Size2{2, 2}, Size2{1, 2}, Size2{3, 1}, Size2{3, 4}, Size2{6, 6}}) {
    for (Size2 size : {Size2{12, 13}, Size2{13, 20}, Size2{17, 9}}) {
      for (Pass pass : passes) {
        for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
          ++number;
          const int64_t out_channels = pass == Pass::grad_input ? 89 : 34 - number % 2;
          Case c = cases.start({2, 32 + number % 3, size.height, size.width, out_channels, 3, 3}, pass,
                               floating_dtypes[number % 3 % 2 + number % 5 / 4]);
          ConvProblem& p = c.problem;
          c.input_layout = c.output_layout = c.weight_layout = layout;
          p.dilation = dilation;
          p.padding = {dilation.height, dilation.height, dilation.width, dilation.width};
          if (number % 4 == 0) p.padding = {dilation.height + 1, 1, 2, dilation.width - 1};
          if (number % 3 == 0) p.padding_mode = modes[number / 3 % 4];
          if (pass == Pass::grad_weight) p.precision = Float32Precision::high;
          c.fill = number % 7 == 0 ? Fill::non_finite : number % 5 == 0 ? Fill::normal : Fill::small_integers;
          if (finish(c)) cases.add(c);
        }
      }
    }
  }
}

// Kernels that are cut into blocks of up to 3 x 3 taps: of three and two along an axis, and of one row or
// column.
void add_kernel_blocks(Collector& cases) {
  int64_t number = 0;
  for (Size2 kernel :
       {Size2{5, 5}, Size2{3, 5}, Size2{8, 6}, Size2{4, 7}, Size2{1, 3}, Size2{1, 7}, Size2{4, 1}}) {
    for (Pass pass : passes) {
      for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
        for (bool is_padded : {true, false}) {
          ++number;
          const bool is_gradient_of_weight = pass == Pass::grad_weight;
          if (is_gradient_of_weight && !is_padded) continue;  // too few pixels
          const bool has_many_taps = std::min(kernel.height, kernel.width) >= 5 && !is_gradient_of_weight;
          const int64_t in_channels = (has_many_taps ? 16 : 32) + number % 3;
          const int64_t out_channels = pass == Pass::grad_input ? 89 : 34 - number % 2;
          const int64_t batch = is_gradient_of_weight ? 3 : 1;
          Case c = cases.start({batch, in_channels, 11, 17, out_channels, kernel.height, kernel.width}, pass,
                               floating_dtypes[number % 4]);
          ConvProblem& p = c.problem;
          c.input_layout = c.output_layout = c.weight_layout = layout;
          if (number % 5 == 0) c.weight_layout = Layout::transposed;
          if (is_padded) pad(c, kernel.height / 2, kernel.height / 2, kernel.width / 2, kernel.width / 2);
          if (number % 4 == 0) p.padding_mode = modes[number / 4 % 4];
          // Few pixels of channels_last images are summed more exactly without tiles.
          if (number % 3 == 0 || is_gradient_of_weight) p.precision = Float32Precision::high;
          // float32's other tiles do not keep integers exact.
          const bool is_exact = is_gradient_of_weight || p.precision == Float32Precision::highest;
          c.fill = c.problem.dtype == DType::float32 && !is_exact ? Fill::normal
                   : number % 7 == 0                              ? Fill::non_finite
                                                                  : Fill::small_integers;
          if (finish(c)) cases.add(c);
        }
      }
    }
  }
}

// Padding filled from the input, of the kinds of problems that have a kernel of their own: each has to find
// the gradients that such padding brings, or to refuse.
void add_filled_padding(Collector& cases) {
  int64_t number = 0;
  for (Shape shape :
       {Shape{2, 32, 6, 17, 28, 1, 1}, Shape{1, 16, 8, 8, 24, 1, 1, 2}, Shape{1, 33, 7, 8, 32, 3, 3},
        Shape{2, 9, 6, 16, 40, 2, 2}, Shape{1, 17, 7, 18, 17, 3, 3, 17}, Shape{1, 3, 9, 16, 40, 4, 4},
        Shape{1, 1, 8, 33, 20, 5, 5}, Shape{2, 20, 8, 16, 1, 5, 5}, Shape{1, 24, 6, 15, 24, 3, 3, 6},
        Shape{1, 1, 16, 34, 1, 7, 7}, Shape{1, 64, 5, 9, 2, 1, 1}, Shape{2, 24, 9, 9, 26, 5, 5},
        Shape{2, 34, 4, 5, 50, 2, 4, 2}}) {
    for (PaddingMode mode : {PaddingMode::reflect, PaddingMode::replicate, PaddingMode::circular}) {
      for (Pass pass : passes) {
        for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
          for (Size2 steps : {Size2{1, 1}, Size2{2, 1}, Size2{1, 2}, Size2{2, 3}}) {
            Case c = cases.start(shape, pass, floating_dtypes[++number % 2]);
            c.input_layout = c.weight_layout = c.output_layout = layout;
            c.problem.padding_mode = mode;
            c.problem.stride = {steps.height, steps.height};
            c.problem.dilation = {steps.width, steps.width};
            c.fill = Fill::small_integers;
            pad(c, 3, 2, 1, 3);
            cases.add(c);
          }
        }
      }
    }
  }
}

// Everything at once.
void add_random(Collector& cases, int count) {
  Random random(2024);
  for (int k = 0; k < count; ++k) {
    Shape shape{};
    shape.groups = random.pick<int64_t>({1, 1, 1, 2, 3, 8});
    const bool depthwise = random.one_in(4);
    const int64_t largest = shape.groups > 2 ? 4 : random.pick<int64_t>({3, 10, 40});
    if (depthwise) shape.groups = random.between(1, 40);
    shape.in_channels = shape.groups * (depthwise ? 1 : random.between(1, largest));
    shape.out_channels = shape.groups * random.between(1, depthwise ? 2 : largest);
    shape.batch = random.between(1, 4);
    shape.height = random.between(1, 14);
    shape.width = random.between(1, random.pick<int64_t>({8, 20, 70}));
    shape.kernel_height = random.between(1, random.pick<int64_t>({1, 3, 5}));
    shape.kernel_width = random.between(1, random.pick<int64_t>({1, 3, 7}));
    Case c = cases.start(shape, random.pick({Pass::forward, Pass::grad_input, Pass::grad_weight}),
                         floating_dtypes[random.between(0, 3)]);
    ConvProblem& p = c.problem;
    p.padding_mode = modes[random.between(0, 3)];
    p.stride = {random.pick<int64_t>({1, 1, 2, 3}), random.pick<int64_t>({1, 1, 2, 3, 7})};
    p.dilation = {random.pick<int64_t>({1, 1, 2, 3}), random.pick<int64_t>({1, 1, 2, 5})};
    pad(c, random.between(0, 4), random.between(0, 4), random.between(0, 5), random.between(0, 5));
    c.input_layout = random.one_in(3) ? layouts[random.between(0, 4)] : layouts[random.between(0, 1)];
    c.output_layout = random.one_in(3) ? layouts[random.between(0, 4)] : c.input_layout;
    c.weight_layout = random.one_in(3) ? layouts[random.between(0, 4)] : c.input_layout;
    c.fill = random.pick({Fill::small_integers, Fill::small_integers, Fill::normal, Fill::non_finite});
    if (finish(c) && multiply_adds(p) < 3e5) cases.add(c);
  }
}

}  // namespace

std::vector<Case> kernel_cases(bool quick) {
  Collector collector;
  add_size_sweeps(collector);
  add_reduction_sweeps(collector);
  add_kernel_sizes(collector);
  add_few_channels(collector);
  add_strides_and_dilations(collector);
  add_padding_modes(collector);
  add_groups(collector);
  add_tiles(collector);
  add_layouts(collector);
  add_empty(collector);
  add_extreme_values(collector);
  add_fully_connected(collector);
  add_mostly_padding(collector);
  add_random(collector, 6000);
  std::vector<Case> all = collector.take();
  add_integer_cases(all);
  Collector always;
  add_ends_of_lines(always);
  add_depthwise_windows(always);
  add_pixel_window_gradients(always);
  add_channel_sums(always);
  add_pointwise_sums(always);
  add_panels(always);
  add_filled_padding(always);
  add_tiles_of_gradients(always);
  add_tiles_of_phases(always);
  add_kernel_blocks(always);
  std::vector<Case> sample = always.take();
  add_bfloat16_cases(sample);
  if (!quick) {
    all.insert(all.end(), sample.begin(), sample.end());
    return all;
  }

  Random random(7);
  for (const Case& c : all) {
    if (multiply_adds(c.problem) < 2e5 && random.one_in(16)) sample.push_back(c);
  }
  return sample;
}

}  // namespace convext::testing
