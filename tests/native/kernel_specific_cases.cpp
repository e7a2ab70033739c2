#include "kernel_specific_cases.h"

#include <algorithm>
#include <initializer_list>

namespace convext::testing {
namespace {

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

// Depthwise windows with a dilation: phases of every height and width around vectors, windows and bands,
// dilations larger than the image, and one of an axis alone.
void add_dilated_windows(Collector& cases) {
  int64_t number = 0;
  for (int64_t width = 1; width <= 70; width += width < 36 ? 1 : 5) {
    for (int64_t kernel : {3, 5, 7}) {
      for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
        for (Pass pass : {Pass::forward, Pass::grad_input}) {
          ++number;
          const int64_t channels = number % 23 == 0 ? 67 : 1 + number % 37;
          const int64_t height = number % 11 == 0 ? 150 : 1 + number % 19;
          Case c = cases.start({1 + number % 2, channels, height, width, channels, kernel, kernel, channels},
                               pass, number % 3 == 0 ? DType::float32 : floating_dtypes[number % 4]);
          c.input_layout = c.weight_layout = c.output_layout = layout;
          c.problem.dilation = {1 + number % 7, number % 5 == 0 ? 1 : 2 + number % 6};
          if (number % 17 == 0) c.problem.dilation = {height + 3, 40};
          pad(c, c.problem.dilation.height, number % 4 * c.problem.dilation.height, number % 9,
              kernel * c.problem.dilation.width);
          c.fill = number % 13 == 3  ? Fill::non_finite
                   : number % 3 == 1 ? Fill::normal
                                     : Fill::small_integers;
          if (finish(c)) cases.add(c);
        }
      }
    }
  }
}

// The gradient of the weight of few input channels and enough pixels for numbers of the input to be broadcast
// to vectors of output channels.
void add_gradients_of_few_inputs(Collector& cases) {
  int64_t number = 0;
  for (int64_t inputs : {5, 7, 8, 31, 32}) {
    for (int64_t outputs : {7, 12, 28, 32, 47}) {
      ++number;
      const int64_t kernel_height = 1 + number % 5;
      Case c = cases.start({2, inputs, 38, 36, outputs, kernel_height, 9 / kernel_height + number % 2},
                           Pass::grad_weight, DType::float32);
      c.input_layout = number % 2 == 0 ? Layout::contiguous : Layout::channels_last;
      c.weight_layout = c.output_layout = number % 3 == 0 ? Layout::channels_last : c.input_layout;
      c.problem.stride = {1 + number % 7 / 6, 1 + number % 11 / 10};
      c.problem.dilation = {1 + number % 2, 1};
      c.problem.padding_mode = modes[number % 4];
      pad(c, number % 3, 1, number % 4, 2);
      c.fill = number % 13 == 3 ? Fill::non_finite : number % 3 == 1 ? Fill::normal : Fill::small_integers;
      if (finish(c)) cases.add(c);
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

// Forward of few channels: widths around those of vectors and of ends that share one, strides whose phases
// are not all read, padding wider than the image or than the kernel, lines that are cut into pieces, chains,
// and infinite weights beside padding that is left out.
void add_image_lines(Collector& cases) {
  constexpr int64_t kernels[][2] = {{3, 3}, {5, 5}, {1, 4}, {4, 1}, {7, 7}, {2, 9}, {11, 3}};
  int64_t number = 0;
  for (int64_t width = 12; width <= 84; ++width) {
    for (int64_t stride : {1 + width % 5, 1 + (width / 5 + 2) % 5}) {
      ++number;
      const auto& kernel = kernels[number % 7];
      const int64_t groups = number % 11 == 0 ? 2 : 1;
      const int64_t height = number % 3 == 0 ? 1 + number % 9 : 13 + number % 20;
      const int64_t most_channels = kernel[0] * kernel[1] < 9 || number % 5 == 0 ? 16 : 4;
      const int64_t channels = most_channels - number % 4;
      const int64_t results = groups * (number % 13 == 0 ? 6 + number % 40 : 8 + number % 3);
      Case c = cases.start({1 + number % 2, groups * channels, height, width * stride + number % 4, results,
                            kernel[0], kernel[1], groups},
                           Pass::forward, floating_dtypes[number % 3 == 0]);
      c.problem.stride = {1 + number % 4, stride};
      if (number % 4 == 1) c.problem.dilation = {1 + number % 3, 1 + number % 2};
      pad(c, number % 6, kernel[0] / 2, kernel[1] / 2, number % 5);
      if (number % 9 == 0) c.problem.padding_mode = modes[1 + number / 9 % 3];
      if (number % 8 == 0) c.output_layout = Layout::row_gaps;
      if (number % 8 == 4) c.input_layout = Layout::row_gaps;
      if (number % 8 == 6) c.weight_layout = Layout::channels_last;
      c.fill = number % 7 == 3 ? Fill::non_finite : number % 2 == 1 ? Fill::normal : Fill::small_integers;
      if (finish(c)) cases.add(c);
    }
  }
  // The same with channels side by side, or too narrow for vectors of pixels; or one of each.
  for (int64_t width = 1; width <= 40; ++width) {
    for (int64_t stride : {1 + width % 3, 1 + (width / 3 + 1) % 3}) {
      ++number;
      const auto& kernel = kernels[number % 7];
      const int64_t channels = 1 + number % (number % 5 == 0 ? 16 : 4);
      const int64_t results = number % 13 == 0 ? 130 + number % 40 : 16 + number % 50;
      Case c = cases.start({1 + number % 2, channels, 1 + number % 23, width * stride + number % 4, results,
                            kernel[0], kernel[1]},
                           Pass::forward, floating_dtypes[number % 3 == 0]);
      const Layout narrow[] = {Layout::channels_last, Layout::contiguous, Layout::row_gaps};
      c.input_layout = narrow[number % 8 == 2 ? 2 : number % 4 < 2];
      c.output_layout = narrow[number % 8 == 5 ? 2 : number % 3 == 0];
      if (number % 8 != 0) c.weight_layout = Layout::channels_last;
      c.problem.stride = {1 + number % 4, stride};
      if (number % 4 == 1) c.problem.dilation = {1 + number % 3, 1 + number % 2};
      pad(c, number % 6, kernel[0] / 2, kernel[1] / 2, number % 5);
      if (number % 9 == 0) c.problem.padding_mode = modes[1 + number / 9 % 3];
      c.fill = number % 7 == 3 ? Fill::non_finite : number % 2 == 1 ? Fill::normal : Fill::small_integers;
      if (finish(c)) cases.add(c);
    }
  }
  for (int64_t width : {700, 1500}) {
    for (int64_t stride : {1, 2, 8}) {
      Case c = cases.start({1, 3, 40, width, 9, 13, 5}, Pass::forward, DType::float32);
      c.problem.stride = {stride, stride};
      pad(c, 6, 6, 2, 1);
      cases.add_exact_and_normal(c);
      c.problem.out_channels = 35;
      c.input_layout = c.weight_layout = c.output_layout = Layout::channels_last;
      cases.add_exact_and_normal(c);
    }
  }
}

// The gradient of an input of few channels: strides below and beyond the kernel's width, uneven padding,
// widths around those of tiles, rows and columns that no window reaches.
void add_tap_sums(Collector& cases) {
  constexpr int64_t kernels[][2] = {{3, 3}, {2, 2}, {4, 4}, {5, 3}, {1, 6}, {3, 7}};
  int64_t number = 0;
  for (int64_t width = 1; width <= 40; ++width) {
    for (int64_t k = width % 2; k < 6; k += 2) {
      ++number;
      const auto& kernel = kernels[k];
      const int64_t channels = 1 + number % 3;
      const int64_t stride = channels == 3 ? 1 + number % 5 : 2 + number % 3;
      const int64_t results = number % 11 == 0 ? 70 : 8 + number % 30;
      Case c = cases.start({1 + number % 3, channels, 1 + number % 17, width, results, kernel[0], kernel[1]},
                           Pass::grad_input, floating_dtypes[number / 2 % 4]);
      c.input_layout = number % 4 < 2 ? Layout::channels_last : Layout::contiguous;
      c.output_layout = number % 3 > 0 ? Layout::channels_last : Layout::contiguous;
      c.weight_layout = number % 6 > 2 ? Layout::channels_last : Layout::contiguous;
      if (number % 13 == 0) c.output_layout = Layout::row_gaps;
      if (number % 13 == 1) c.input_layout = Layout::row_gaps;
      c.problem.stride = {1 + number % 4, stride};
      pad(c, number % kernel[0], number % 4, number % kernel[1], number % 3);
      c.fill = number % 7 == 3 ? Fill::non_finite : number % 2 == 1 ? Fill::normal : Fill::small_integers;
      if (finish(c)) cases.add(c);
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
    add({1, 5 + width % 3, 7, width, 130, 3, 2}, Pass::forward, Layout::contiguous, 2, width % 3);
    add({2, 3, 9, 2 * width, 50, 4, 4}, Pass::forward, Layout::contiguous, width % 3 == 0 ? 2 : 4, width % 2);
  }
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

// Sources that exceed the L2 cache, so that `grouped` fetches ahead for its next tile.
void add_large_groups(Collector& cases) {
  for (Pass pass : {Pass::forward, Pass::grad_input}) {
    Case c = cases.start({1, 64, 91, 93, 64, 1, 1, 8}, pass, DType::float32);
    c.input_layout = c.output_layout = Layout::channels_last;
    c.fill = Fill::small_integers;
    cases.add(c);
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

}  // namespace

void add_kernel_specific_cases(Collector& cases) {
  add_ends_of_lines(cases);
  add_depthwise_windows(cases);
  add_dilated_windows(cases);
  add_gradients_of_few_inputs(cases);
  add_pixel_window_gradients(cases);
  add_channel_sums(cases);
  add_pointwise_sums(cases);
  add_image_lines(cases);
  add_tap_sums(cases);
  add_panels(cases);
  add_tiles_of_gradients(cases);
  add_tiles_of_phases(cases);
  add_kernel_blocks(cases);
  add_large_groups(cases);
  add_filled_padding(cases);
}

}  // namespace convext::testing
