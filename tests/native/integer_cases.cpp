#include "integer_cases.h"

#include <initializer_list>
#include <iterator>

#include "random.h"

namespace convext::testing {
namespace {

struct Types {
  DType source;
  DType result;
};

constexpr Types all_types[] = {{DType::uint8, DType::uint8}, {DType::uint8, DType::int32},
                               {DType::int8, DType::int8},   {DType::int8, DType::int32},
                               {DType::int16, DType::int16}, {DType::int32, DType::int32},
                               {DType::int64, DType::int64}};
constexpr PaddingMode modes[] = {PaddingMode::zeros, PaddingMode::reflect, PaddingMode::replicate,
                                 PaddingMode::circular};
constexpr Layout layouts[] = {Layout::contiguous, Layout::channels_last, Layout::row_gaps, Layout::transposed,
                              Layout::expanded};

struct Shape {
  int64_t batch, in_channels, height, width, out_channels, kernel_height, kernel_width;
  int64_t groups = 1;
};

class IntegerCases {
 public:
  explicit IntegerCases(std::vector<Case>& cases) : cases_(cases) {}

  // Every dtype and native layout. Sums of either fill wrap around.
  template <class Adjust>
  void add_everywhere(const Shape& shape, const Adjust& adjust) {
    for (const Types& types : all_types) {
      for (Layout layout : {Layout::contiguous, Layout::channels_last}) add(shape, types, layout, adjust);
    }
  }

  // Every dtype, with a native layout drawn for each.
  template <class Adjust>
  void add_drawn(const Shape& shape, const Adjust& adjust) {
    for (const Types& types : all_types) add(shape, types, layouts[draw_.between(0, 1)], adjust);
  }

  // A dtype drawn, layouts to be set by `adjust`.
  template <class Adjust>
  void add_one(const Shape& shape, const Adjust& adjust) {
    const auto types = static_cast<int64_t>(std::size(all_types));
    add(shape, all_types[draw_.between(0, types - 1)], Layout::contiguous, adjust);
  }

 private:
  std::vector<Case>& cases_;
  uint64_t seed_ = 1000000;
  Random draw_{2};

  template <class Adjust>
  void add(const Shape& shape, const Types& types, Layout layout, const Adjust& adjust) {
    Case c;
    ConvProblem& p = c.problem;
    p.dtype = types.source;
    p.out_dtype = types.result;
    p.batch = shape.batch;
    p.in_channels = shape.in_channels;
    p.out_channels = shape.out_channels;
    p.groups = shape.groups;
    p.input = {shape.height, shape.width};
    p.kernel = {shape.kernel_height, shape.kernel_width};
    c.seed = ++seed_;
    p.epilogue.bias = draw_.one_in(2);
    c.input_layout = c.weight_layout = c.output_layout = layout;
    c.fill = draw_.one_in(3) ? Fill::limits : Fill::any_bits;
    adjust(c);
    if (p.pass != Pass::forward) {
      if (types.source != types.result) return;
      p.epilogue.bias = false;
    }
    if (finish(c)) cases_.push_back(c);
  }
};

void pad(Case& c, int64_t top, int64_t bottom, int64_t left, int64_t right) {
  c.problem.padding = {top, bottom, left, right};
}

void add_geometry(IntegerCases& cases) {
  const Shape shapes[] = {{2, 3, 9, 13, 5, 3, 3},
                          {1, 4, 8, 11, 4, 2, 3, 4},
                          {1, 6, 7, 12, 9, 3, 2, 3},
                          {1, 1, 11, 40, 1, 4, 5},
                          {1, 1, 10, 9, 6, 1, 4}};
  for (const Shape& shape : shapes) {
    for (PaddingMode mode : modes) {
      for (int64_t stride : {1, 2, 3}) {
        for (int64_t dilation : {1, 2, 4}) {
          const auto adjust = [&](Case& c) {
            c.problem.padding_mode = mode;
            c.problem.stride = {stride, 4 - stride};
            c.problem.dilation = {dilation == 4 ? 1 : dilation, dilation};
            pad(c, 2, 1, 4, 3);
          };
          cases.add_everywhere(shape, adjust);
        }
      }
      cases.add_everywhere(shape, [&](Case& c) {
        c.problem.padding_mode = mode;
        c.problem.stride = {2, 2};
        pad(c, 0, 1, 1, 0);
      });
    }
  }
}

// Widths and numbers of channels around blocks and vectors of any type, and heights around bands.
void add_sizes(IntegerCases& cases) {
  for (int64_t width = 1; width <= 140; width += width < 70 ? 1 : 7) {
    const auto same = [](Case& c) { pad(c, 1, 1, 1, 1); };
    cases.add_drawn({1, 1, 4, width, 1, 3, 3}, same);
    cases.add_drawn({2, 3, 3, width, 3, 3, 3, 3}, same);
    cases.add_drawn({1, 2, 5, width, 5, 2, 3}, [](Case& c) {
      pad(c, 1, 0, 0, 1);
      c.problem.stride = {1, 2};
    });
  }
  for (int64_t channels = 1; channels <= 70; ++channels) {
    cases.add_drawn({1, channels, 4, 9, 7, 2, 3}, [](Case&) {});
    cases.add_drawn({2, 5, 4, 9, channels, 3, 2}, [](Case&) {});
    cases.add_drawn({1, channels, 5, 7, channels, 3, 3, channels}, [](Case& c) { pad(c, 1, 1, 1, 1); });
    cases.add_drawn({1, channels, 5, 7, channels, 3, 3, channels}, [](Case& c) {
      pad(c, 1, 2, 0, 1);
      c.problem.stride = {2, 2};
      c.problem.dilation = {1, 3};
      c.output_layout = Layout::channels_last;
    });
  }
  for (int64_t height : {30, 31, 64, 65, 130}) {
    cases.add_drawn({1, 1, height, 20, 1, 3, 3}, [](Case& c) { pad(c, 1, 1, 1, 1); });
    cases.add_drawn({1, 3, height, 20, 3, 5, 3, 3}, [](Case& c) { c.problem.dilation = {3, 2}; });
  }
  for (Shape shape :
       {Shape{1, 1, 5, 1100, 1, 3, 3}, Shape{1, 2, 4, 2100, 2, 3, 3, 2}, Shape{1, 70, 3, 40, 70, 3, 3, 70},
        Shape{1, 1, 20, 23, 1, 17, 19}, Shape{2, 300, 3, 5, 9, 1, 1}, Shape{1, 80, 9, 9, 80, 3, 3},
        Shape{1, 1, 1, 1, 1, 1, 1}, Shape{2, 3, 5, 7, 4, 5, 7}, Shape{0, 3, 5, 6, 4, 3, 3},
        Shape{2, 0, 5, 6, 4, 3, 3}, Shape{2, 3, 5, 6, 0, 3, 3}})
    cases.add_everywhere(shape, [](Case&) {});
  cases.add_everywhere({1, 1, 2, 3, 2, 3, 3}, [](Case& c) { pad(c, 5, 7, 6, 9); });
}

void add_layouts(IntegerCases& cases) {
  for (Layout input : layouts) {
    for (Layout weight : layouts) {
      for (Layout output : layouts) {
        for (Shape shape : {Shape{2, 4, 6, 9, 6, 3, 3, 2}, Shape{3, 5, 5, 19, 5, 3, 3, 5},
                            Shape{2, 1, 7, 18, 1, 3, 5}, Shape{2, 19, 1, 5, 3, 1, 1}}) {
          for (int round = 0; round < 2; ++round) {
            cases.add_one(shape, [&](Case& c) {
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
}

// No kernel but the reference has them.
void add_gradients(IntegerCases& cases) {
  for (Pass pass : {Pass::grad_input, Pass::grad_weight}) {
    for (PaddingMode mode : modes) {
      for (Shape shape : {Shape{2, 3, 6, 7, 4, 3, 3}, Shape{1, 4, 5, 6, 4, 2, 3, 4}}) {
        cases.add_everywhere(shape, [&](Case& c) {
          c.problem.pass = pass;
          c.problem.padding_mode = mode;
          pad(c, 1, 2, 0, 3);
        });
      }
    }
  }
}

void add_random(IntegerCases& cases, int count) {
  Random random(2025);
  for (int k = 0; k < count; ++k) {
    Shape shape{};
    const bool depthwise = random.one_in(3);
    shape.groups = depthwise ? random.between(1, 40) : random.pick<int64_t>({1, 1, 2, 3});
    shape.in_channels = shape.groups * (depthwise ? 1 : random.between(1, 8));
    shape.out_channels = shape.groups * (depthwise && random.one_in(2) ? 1 : random.between(1, 9));
    shape.batch = random.between(1, 3);
    shape.height = random.between(1, 14);
    shape.width = random.between(1, random.pick<int64_t>({8, 20, 70}));
    shape.kernel_height = random.between(1, 5);
    shape.kernel_width = random.between(1, 6);
    cases.add_one(shape, [&](Case& c) {
      ConvProblem& p = c.problem;
      p.padding_mode = modes[random.between(0, 3)];
      p.stride = {random.pick<int64_t>({1, 1, 2, 3}), random.pick<int64_t>({1, 1, 2, 3, 7})};
      p.dilation = {random.pick<int64_t>({1, 1, 2, 3}), random.pick<int64_t>({1, 1, 2, 5})};
      pad(c, random.between(0, 4), random.between(0, 4), random.between(0, 5), random.between(0, 5));
      c.input_layout = random.one_in(4) ? layouts[random.between(0, 4)] : layouts[random.between(0, 1)];
      c.output_layout = random.one_in(4) ? layouts[random.between(0, 4)] : c.input_layout;
      c.weight_layout = random.one_in(4) ? layouts[random.between(0, 4)] : c.input_layout;
    });
  }
}

}  // namespace

void add_integer_cases(std::vector<Case>& cases) {
  IntegerCases collector(cases);
  add_geometry(collector);
  add_sizes(collector);
  add_layouts(collector);
  add_gradients(collector);
  add_random(collector, 3000);
}

}  // namespace convext::testing
