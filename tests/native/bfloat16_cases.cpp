#include "bfloat16_cases.h"

#include "random.h"

namespace convext::testing {
namespace {

constexpr Pass passes[] = {Pass::forward, Pass::grad_input, Pass::grad_weight};

class BFloat16Cases {
 public:
  explicit BFloat16Cases(std::vector<Case>& cases) : cases_(cases) {}

  // In all passes, with the numbers of channels that are read and written, of each group, as given: a
  // vector's lanes are the output channels of forward and grad_weight, the input channels of grad_input.
  template <class Adjust>
  void add(int64_t source_channels, int64_t result_channels, const Adjust& adjust) {
    for (Pass pass : passes) {
      Case c;
      ConvProblem& p = c.problem;
      p.pass = pass;
      p.dtype = p.out_dtype = DType::bfloat16;
      c.seed = ++seed_;
      c.fill = draw_.pick({Fill::small_integers, Fill::small_integers, Fill::normal, Fill::non_finite});
      p.in_channels = pass == Pass::grad_input ? result_channels : source_channels;
      p.out_channels = pass == Pass::grad_input ? source_channels : result_channels;
      adjust(c);
      p.in_channels *= p.groups;
      p.out_channels *= p.groups;
      p.epilogue.bias = pass == Pass::forward && draw_.one_in(2);
      if (finish(c)) cases_.push_back(c);
    }
  }

  template <class Adjust>
  void add_in_both_layouts(int64_t source_channels, int64_t result_channels, const Adjust& adjust) {
    for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
      add(source_channels, result_channels, [&](Case& c) {
        c.input_layout = c.weight_layout = c.output_layout = layout;
        adjust(c);
      });
    }
  }

 private:
  std::vector<Case>& cases_;
  uint64_t seed_ = 2000000;
  Random draw_{3};
};

// Odd and even numbers of channels around a vector of pairs, blocks of them and panels of results.
void add_channels(BFloat16Cases& cases) {
  for (int64_t source : {3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 47, 64, 65, 96, 130}) {
    for (int64_t kernel : {1, 3}) {
      cases.add_in_both_layouts(source, 16 + source % 5, [&](Case& c) {
        c.problem.input = {4, 5};
        c.problem.kernel = {kernel, kernel};
        c.problem.padding = {kernel / 2, kernel / 2, kernel / 2, kernel / 2};
      });
    }
  }
  for (int64_t result : {16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 97, 129, 150}) {
    cases.add_in_both_layouts(6, result, [&](Case& c) {
      c.problem.batch = 2;
      c.problem.input = {3, 6};
      c.problem.kernel = {2, 3};
      c.problem.padding = {0, 1, 1, 0};
    });
  }
}

// Rows around pairs, vectors of pixels, strips and chunks; several images of a strip, pieces of a row.
void add_pixels(BFloat16Cases& cases) {
  for (int64_t width = 1; width <= 70; ++width) {
    cases.add_in_both_layouts(3 + width % 3, 16, [&](Case& c) {
      c.problem.batch = 1 + width % 3;
      c.problem.input = {1 + width % 4, width};
      c.problem.kernel = {1, 1 + width % 4};
      c.problem.stride = {1, 1 + width % 2};
      c.problem.padding = {0, 0, width % 3, 2};
    });
  }
  for (int64_t width : {255, 384, 400, 1023, 1537, 1700, 3001}) {
    for (int64_t stride : {1, 2, 4}) {
      cases.add_in_both_layouts(4, 16, [&](Case& c) {
        c.problem.input = {2, width};
        c.problem.kernel = {1, 3};
        c.problem.stride = {1, stride};
        c.problem.padding = {0, 0, 1, 1};
      });
    }
  }
  // Images that are computed again by themselves are cut as single ones.
  for (int64_t channels : {3, 5, 7}) {
    for (int64_t size : {4, 7, 12}) {
      cases.add_in_both_layouts(channels, 16 * channels, [&](Case& c) {
        c.problem.batch = 3 * channels;
        c.problem.input = {size, size};
        c.problem.kernel = {3, 3};
        c.problem.padding = {1, 1, 1, 1};
        c.fill = Fill::non_finite;
      });
    }
  }
  // Fewer results than lanes, in groups or not: tiles of three vectors that run over the ends of rows.
  for (int64_t width = 3; width <= 60; ++width) {
    cases.add_in_both_layouts(3 + width % 7, 4 + width % 12, [&](Case& c) {
      c.problem.groups = 1 + width % 6;
      c.problem.batch = 1 + width % 2;
      c.problem.input = {1 + width % 5, width};
      c.problem.kernel = {1 + width % 3, 1 + width % 4};
      c.problem.dilation = {1, 1 + width % 2};
      c.problem.padding = {0, width % 2, width % 3, 1};
    });
  }
  // Pixels in the lanes: panels of 64, the last of them whole, half or less.
  for (int64_t width : {256, 257, 288, 289, 320, 333, 400}) {
    cases.add_in_both_layouts(3 + width % 9, 16 + width % 7, [&](Case& c) {
      c.problem.groups = 1 + width % 2;
      c.problem.batch = 1 + width % 3;
      c.problem.input = {1 + width % 2, width};
      c.problem.kernel = {1, 1};
    });
  }
  for (int64_t batch : {5, 30, 130}) {
    cases.add_in_both_layouts(4, 20, [&](Case& c) {
      c.problem.batch = batch;
      c.problem.input = {5, 3};
      c.problem.kernel = {3, 3};
      c.problem.padding = {1, 1, 1, 1};
    });
  }
}

// Sums in several blocks of source channels, and taps around the sixteen that are transposed at a time.
void add_large_kernels(BFloat16Cases& cases) {
  for (int64_t size = 2; size <= 9; ++size) {
    cases.add_in_both_layouts(3 + size, 16 + size % 3, [&](Case& c) {
      c.problem.input = {size + 1, size + 3};
      c.problem.kernel = {size, size};
      c.problem.padding = {1, 0, 1, 2};
    });
  }
  cases.add_in_both_layouts(100, 70, [](Case& c) {
    c.problem.input = {3, 4};
    c.problem.kernel = {7, 7};
    c.problem.padding = {3, 3, 3, 3};
  });
  cases.add_in_both_layouts(200, 20, [](Case& c) {
    c.problem.input = {2, 40};
    c.problem.kernel = {1, 9};
    c.problem.dilation = {1, 30};
    c.problem.padding = {0, 0, 120, 120};
  });
}

void add_random(BFloat16Cases& cases, int count) {
  Random random(2027);
  constexpr Layout layouts[] = {Layout::contiguous, Layout::channels_last, Layout::row_gaps,
                                Layout::transposed, Layout::expanded};
  constexpr PaddingMode modes[] = {PaddingMode::zeros, PaddingMode::reflect, PaddingMode::replicate,
                                   PaddingMode::circular};
  for (int k = 0; k < count; ++k) {
    const int64_t result = random.one_in(3) ? random.between(4, 15) : random.between(16, 40);
    cases.add(random.between(3, 20), result, [&](Case& c) {
      ConvProblem& p = c.problem;
      p.groups = random.pick<int64_t>({1, 1, 1, 2, 3});
      p.batch = random.between(1, 3);
      p.input = {random.between(1, 9), random.between(1, random.pick<int64_t>({8, 20, 40}))};
      p.kernel = {random.between(1, 4), random.between(1, random.pick<int64_t>({1, 3, 6}))};
      p.padding_mode = modes[random.between(0, 3)];
      p.stride = {random.pick<int64_t>({1, 1, 2, 3}), random.pick<int64_t>({1, 1, 2, 3, 4, 7})};
      p.dilation = {random.pick<int64_t>({1, 1, 2, 3}), random.pick<int64_t>({1, 1, 2, 5})};
      p.padding = {random.between(0, 3), random.between(0, 3), random.between(0, 3), random.between(0, 3)};
      c.input_layout = random.one_in(3) ? layouts[random.between(0, 4)] : layouts[random.between(0, 1)];
      c.output_layout = random.one_in(3) ? layouts[random.between(0, 4)] : c.input_layout;
      c.weight_layout = random.one_in(3) ? layouts[random.between(0, 4)] : c.input_layout;
    });
  }
}

// Numbers of pixels around a tile's 16 rows and the 32 places and 64 rows that are computed together; strips
// of a large map; channels around the 32 of a product; few channels, whose windows' rows are joined.
void add_tiles(BFloat16Cases& cases) {
  for (int64_t pixels : {15, 16, 17, 31, 33, 47, 63, 64, 65, 79, 96, 127, 128, 129, 191, 192, 200, 257}) {
    for (int64_t source : {int64_t{32}, int64_t{64}, 30 + pixels % 5}) {
      cases.add_in_both_layouts(source, 16 + pixels % 3 * 16 + pixels % 2, [&](Case& c) {
        c.problem.batch = 1 + pixels % 2;
        c.problem.input = {1, pixels};
        c.problem.kernel = {1, 1};
      });
    }
  }
  for (int64_t width : {7, 14, 15, 28, 30, 31, 62, 63, 64}) {
    for (int64_t stride : {1, 2, 3}) {
      cases.add_in_both_layouts(32 + width % 7, 33, [&](Case& c) {
        c.problem.batch = 1 + width % 3;
        c.problem.input = {5 + width % 4, width};
        c.problem.kernel = {3, 3};
        c.problem.stride = {stride, stride};
        c.problem.padding = {1, 1, 1, 1};
      });
    }
  }
  for (int64_t channels = 1; channels <= 17; ++channels) {
    for (int64_t stride : {1, 2, 4}) {
      cases.add_in_both_layouts(channels, 8 + 3 * channels, [&](Case& c) {
        c.problem.batch = 2;
        c.problem.input = {6, 20 + channels};
        c.problem.kernel = {2 + channels % 2, 4 + channels % 3};
        c.problem.stride = {1 + channels % 2, stride};
        c.problem.padding = {1, 1, 2, 1};
      });
    }
  }
  // Several strips and chunks, several panels of results.
  cases.add_in_both_layouts(40, 100, [](Case& c) {
    c.problem.batch = 3;
    c.problem.input = {40, 30};
    c.problem.kernel = {3, 3};
    c.problem.padding = {1, 1, 1, 1};
  });
  cases.add_in_both_layouts(70, 90, [](Case& c) {
    c.problem.input = {3, 2300};
    c.problem.kernel = {3, 2};
    c.problem.padding = {1, 1, 0, 1};
  });
  for (int64_t dilation : {2, 3, 6}) {
    cases.add_in_both_layouts(33, 32, [&](Case& c) {
      c.problem.input = {13, 14};
      c.problem.kernel = {3, 3};
      c.problem.dilation = {dilation, dilation};
      c.problem.stride = {1, dilation == 3 ? 2 : 1};
      c.problem.padding = {dilation, dilation, dilation, dilation};
    });
  }
}

}  // namespace

void add_bfloat16_cases(std::vector<Case>& cases) {
  BFloat16Cases collector(cases);
  add_channels(collector);
  add_pixels(collector);
  add_large_kernels(collector);
  add_tiles(collector);
  add_random(collector, 600);
}

}  // namespace convext::testing
