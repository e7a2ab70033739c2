#include "cuda_cases.h"

#include "random.h"

namespace convext::testing {
namespace {

constexpr DType floating_dtypes[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};
constexpr Pass passes[] = {Pass::forward, Pass::grad_input, Pass::grad_weight};
constexpr Layout layouts[] = {Layout::contiguous, Layout::channels_last, Layout::row_gaps, Layout::transposed,
                              Layout::expanded};

class Collector {
 public:
  explicit Collector(double most_work) : most_work_(most_work) {}

  // A floating-point problem with what is drawn and what the caller sets; input, kernel, channels and groups
  // first.
  Case start(Pass pass) {
    Case c;
    // Tensors start at vector boundaries if the seed is a multiple of 27 (make_input and the like).
    c.seed = ++seed_ * (draw_.one_in(2) ? 27 : 1);
    c.problem.pass = pass;
    c.problem.dtype = c.problem.out_dtype = floating_dtypes[draw_.between(0, 3)];
    c.problem.epilogue.bias = pass == Pass::forward && draw_.one_in(2);
    c.fill = draw_.pick({Fill::small_integers, Fill::small_integers, Fill::normal, Fill::non_finite});
    c.input_layout = c.weight_layout = c.output_layout = layouts[draw_.between(0, 1)];
    if (draw_.one_in(8)) c.output_layout = layouts[draw_.between(0, 4)];
    if (draw_.one_in(8)) c.input_layout = layouts[draw_.between(0, 4)];
    if (draw_.one_in(8)) c.weight_layout = layouts[draw_.between(0, 4)];
    return c;
  }

  void add(Case c) {
    if (finish(c) && multiply_adds(c.problem) < most_work_) cases_.push_back(c);
  }

  Random& draw() { return draw_; }
  std::vector<Case> take() { return cases_; }

 private:
  double most_work_;
  std::vector<Case> cases_;
  uint64_t seed_ = 5000000;
  Random draw_{17};
};

void set_channels(Case& c, int64_t groups, int64_t in, int64_t out) {
  c.problem.groups = groups;
  c.problem.in_channels = groups * in;
  c.problem.out_channels = groups * out;
}

// Every size of kernel that has code of its own and its neighbours, either stride and dilation, channels
// around vectors and blocks of them.
void add_depthwise(Collector& cases, int count) {
  for (int k = 0; k < count; ++k) {
    for (Pass pass : passes) {
      Case c = cases.start(pass);
      ConvProblem& p = c.problem;
      Random& draw = cases.draw();
      set_channels(c, draw.pick<int64_t>({1, 2, 4, 8, 12, 20, 33, 64, 96, 132, 136}), 1, 1);
      p.batch = draw.between(1, 3);
      p.kernel.height = draw.pick<int64_t>({1, 2, 3, 3, 3, 4, 5, 5, 6, 7, 7, 9, 11});
      p.kernel.width = draw.one_in(3) ? draw.between(1, 8) : p.kernel.height;
      p.stride = {draw.pick<int64_t>({1, 1, 1, 2, 2, 3}), draw.pick<int64_t>({1, 1, 2, 3})};
      if (draw.one_in(2)) p.stride.width = p.stride.height;
      p.dilation = {draw.pick<int64_t>({1, 1, 1, 2, 3}), draw.pick<int64_t>({1, 1, 1, 2, 3})};
      p.input = {draw.between(1, draw.pick<int64_t>({9, 24, 70})), draw.between(1, 20)};
      p.padding = {draw.between(0, 4), draw.between(0, 4), draw.between(0, 4), draw.between(0, 4)};
      if (draw.one_in(2))
        p.padding = {p.kernel.height / 2, p.kernel.height / 2, p.kernel.width / 2, p.kernel.width / 2};
      cases.add(c);
    }
  }
  for (Pass pass : passes) {
    // More rounds than chunks.
    Case c = cases.start(pass);
    c.input_layout = c.output_layout = Layout::contiguous;
    set_channels(c, 2100, 1, 1);
    c.problem.input = {1, 1030};
    cases.add(c);
    for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
      // Chains of taps that must be cut.
      c = cases.start(pass);
      c.input_layout = c.output_layout = layout;
      set_channels(c, 9, 1, 1);
      c.problem.input = {33, 31};
      c.problem.kernel = {31, 29};
      c.problem.padding = {3, 2, 2, 4};
      c.fill = Fill::normal;
      cases.add(c);
      // More columns and rows than a tile in shared memory.
      c = cases.start(pass);
      c.input_layout = c.output_layout = layout;
      set_channels(c, 3, 1, 1);
      c.problem.input = {70, 90};
      c.problem.kernel = {8, 9};
      c.problem.padding = {4, 3, 4, 4};
      cases.add(c);
    }
  }
}

// Kernels that are read as streams of rows, in every form: maps whose rows are whole vectors, or not; one
// band and several; every type, with numbers that are not finite, too.
void add_depthwise_streams(Collector& cases, int count) {
  for (int k = 0; k < count; ++k) {
    for (Pass pass : passes) {
      for (int64_t stride : {1, 2}) {
        for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
          Case c = cases.start(pass);
          ConvProblem& p = c.problem;
          Random& draw = cases.draw();
          c.input_layout = c.output_layout = layout;
          if (draw.one_in(4) == 0) c.seed *= 27;  // aligned
          p.dtype = p.out_dtype = draw.pick({DType::float32, DType::bfloat16, DType::float16});
          set_channels(c, draw.pick<int64_t>({1, 2, 3, 6, 8, 34, 40}), 1, 1);
          p.batch = draw.between(1, 3);
          const int64_t side = draw.pick<int64_t>({3, 5, 7});
          p.kernel = {side, side};
          p.stride = {stride, stride};
          p.input = {draw.between(1, draw.pick<int64_t>({16, 75})), draw.pick<int64_t>({8, 16, 24, 7, 14})};
          p.padding = {side / 2, side / 2, side / 2, side / 2};
          if (draw.one_in(4)) p.padding = {draw.between(0, 4), draw.between(0, 4), draw.between(0, 4), 3};
          cases.add(c);
        }
      }
    }
  }
}

// Channels and pixels around tiles of 64 and 128, depths around slices of 8 and chains of 256, chunks of
// pixels.
void add_dense(Collector& cases, int count) {
  for (int k = 0; k < count; ++k) {
    for (Pass pass : passes) {
      Case c = cases.start(pass);
      ConvProblem& p = c.problem;
      Random& draw = cases.draw();
      const int64_t groups = draw.pick<int64_t>({1, 1, 1, 2, 3});
      const auto channels = [&] { return draw.pick<int64_t>({3, 8, 9, 16, 31, 63, 64, 65, 70, 127, 130}); };
      set_channels(c, groups, channels(), channels());
      p.batch = draw.between(1, 3);
      p.kernel = {draw.pick<int64_t>({1, 1, 2, 3}), draw.pick<int64_t>({1, 1, 2, 3})};
      p.stride = {draw.pick<int64_t>({1, 1, 2, 3}), draw.pick<int64_t>({1, 1, 2, 3})};
      p.dilation = {draw.pick<int64_t>({1, 1, 2}), draw.pick<int64_t>({1, 1, 2, 3})};
      p.input = {draw.between(1, 12), draw.between(1, 20)};
      p.padding = {draw.between(0, 2), draw.between(0, 2), draw.between(0, 2), draw.between(0, 2)};
      if (draw.one_in(4))
        p.padding_mode = draw.pick({PaddingMode::reflect, PaddingMode::replicate, PaddingMode::circular});
      cases.add(c);
    }
  }
  // More pixels than a chunk has.
  for (Layout layout : {Layout::contiguous, Layout::channels_last}) {
    Case c = cases.start(Pass::grad_weight);
    c.input_layout = c.output_layout = layout;
    set_channels(c, 1, 5, 9);
    c.problem.batch = 2;
    c.problem.input = {35, 40};
    c.problem.kernel = {3, 3};
    c.problem.padding = {1, 1, 1, 1};
    c.fill = Fill::positive;
    cases.add(c);
  }
}

// Numbers whose channels are loaded in vectors, and neighbours of such problems; results and depths around
// tiles of 128 and slices of 128 bytes.
void add_tensor_cores(Collector& cases, int count) {
  for (int k = 0; k < count; ++k) {
    for (Pass pass : passes) {
      Case c = cases.start(pass);
      ConvProblem& p = c.problem;
      Random& draw = cases.draw();
      p.dtype = p.out_dtype = draw.pick({DType::bfloat16, DType::float16, DType::float32, DType::float64});
      // As TF32: exact where numbers have few bits.
      if (p.dtype == DType::float32 && draw.one_in(2)) {
        p.precision = Float32Precision::high;
        c.fill = Fill::small_integers;
      }
      c.input_layout = c.output_layout = Layout::channels_last;
      c.weight_layout = draw.pick({Layout::channels_last, Layout::channels_last, Layout::contiguous});
      c.seed *= 27;  // aligned
      const auto channels = [&] { return draw.pick<int64_t>({3, 8, 16, 24, 32, 40, 64, 72, 128, 136}); };
      set_channels(c, draw.pick<int64_t>({1, 1, 2}), channels(), channels());
      p.batch = draw.between(1, 2);
      p.kernel = {draw.pick<int64_t>({1, 2, 3}), draw.pick<int64_t>({1, 2, 3})};
      p.stride = {draw.pick<int64_t>({1, 1, 2}), draw.pick<int64_t>({1, 1, 2})};
      p.dilation = {draw.pick<int64_t>({1, 1, 2}), draw.pick<int64_t>({1, 1, 2})};
      p.input = {draw.between(1, 8), draw.between(1, 24)};
      p.padding = {draw.between(0, 2), draw.between(0, 2), draw.between(0, 2), draw.between(0, 2)};
      if (draw.one_in(5))
        p.padding_mode = draw.pick({PaddingMode::reflect, PaddingMode::replicate, PaddingMode::circular});
      cases.add(c);
    }
  }
}

}  // namespace

std::vector<Case> cuda_cases(int thinning) {
  Collector cases(thinning == 1 ? 3e6 : 2e5);
  add_depthwise(cases, 300 / thinning);
  add_depthwise_streams(cases, 40 / thinning);
  add_dense(cases, 40 / thinning);
  add_tensor_cores(cases, 30 / thinning);
  return cases.take();
}

}  // namespace convext::testing
