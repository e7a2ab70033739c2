#include "cases.h"

#include <initializer_list>

#include "bfloat16_cases.h"
#include "case_collector.h"
#include "integer_cases.h"
#include "kernel_specific_cases.h"
#include "random.h"

namespace convext::testing {
namespace {

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
  add_kernel_specific_cases(always);
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
