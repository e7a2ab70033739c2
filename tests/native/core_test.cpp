#include "core_test.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "check.h"
#include "core/geometry.h"
#include "core/padding.h"
#include "core/settings.h"
#include "cpu/element.h"
#include "cpu/kernel_list.h"
#include "cpu/planner.h"
#include "random.h"
#include "tensor.h"

namespace convext::testing {
namespace {

ConvProblem square_problem(int64_t size, int64_t kernel) {
  ConvProblem p;
  p.input = {size, size};
  p.kernel = {kernel, kernel};
  return p;
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// Counts the positions at which the dilated kernel fits, one by one.
int64_t counted_positions(int64_t padded, int64_t kernel, int64_t stride, int64_t dilation) {
  int64_t count = 0;
  for (int64_t start = 0; start + dilation * (kernel - 1) < padded; start += stride) ++count;
  return count;
}

void expect_rejected(ConvProblem problem, const char* mentions, const char* what) {
  const std::string error = check_geometry(problem);
  check(!error.empty(), std::string("geometry accepted ") + what);
  check(contains(error, mentions),
        std::string("geometry's message for ") + what + " does not mention '" + mentions + "': " + error);
}

void test_output_sizes() {
  for (int64_t size = 0; size <= 12; ++size)
    for (int64_t padding = 0; padding <= 4; ++padding)
      for (int64_t kernel = 1; kernel <= 5; ++kernel)
        for (int64_t stride = 1; stride <= 4; ++stride)
          for (int64_t dilation = 1; dilation <= 3; ++dilation) {
            ConvProblem p = square_problem(size, kernel);
            p.stride = {stride, 1};
            p.dilation = {dilation, 1};
            p.padding = {padding, padding / 2, 4, 4};
            const int64_t padded = size + padding + padding / 2;
            const int64_t expected = counted_positions(padded, kernel, stride, dilation);
            const std::string error = check_geometry(p);
            // An empty image is refused, however much padding surrounds it, as torch refuses it.
            const bool valid = size > 0 && expected > 0;
            check(error.empty() == valid, [&] {
              return "geometry: a wrong verdict on size " + std::to_string(size) + ", kernel " +
                     std::to_string(kernel) + ": " + error;
            });
            if (error.empty()) check(p.output.height == expected, "geometry: wrong output height");
            check(output_size(size, padding + padding / 2, kernel, stride, dilation) == expected,
                  "output_size is wrong");
          }
}

void test_rejected_arguments() {
  ConvProblem p = square_problem(5, 3);
  p.groups = 0;
  expect_rejected(p, "groups", "groups = 0");
  p.groups = -1;
  expect_rejected(p, "groups", "groups = -1");
  p = square_problem(5, 3);
  p.stride.width = 0;
  expect_rejected(p, "stride", "stride = 0");
  p = square_problem(5, 3);
  p.dilation.height = -2;
  expect_rejected(p, "dilation", "a negative dilation");
  p = square_problem(5, 3);
  p.padding.left = -1;
  expect_rejected(p, "padding", "a negative padding");
  p = square_problem(5, 0);
  expect_rejected(p, "kernel", "an empty kernel");
  p = square_problem(5, 6);
  expect_rejected(p, "kernel", "a kernel larger than the input");

  p = square_problem(5, 3);
  p.padding_mode = PaddingMode::reflect;
  p.padding = {4, 4, 4, 4};
  check(check_geometry(p).empty(), "geometry rejected the largest padding that reflect allows");
  p.padding.bottom = 5;
  expect_rejected(p, "reflect", "padding = size for reflect");
  p.padding_mode = PaddingMode::circular;
  check(check_geometry(p).empty(), "geometry rejected the largest padding that circular allows");
  p.padding.right = 6;
  expect_rejected(p, "circular", "padding > size for circular");
  p.padding_mode = PaddingMode::replicate;
  check(check_geometry(p).empty(), "geometry rejected a large padding for replicate");
  p.input.height = 0;
  for (PaddingMode mode : {PaddingMode::zeros, PaddingMode::reflect, PaddingMode::replicate}) {
    p.padding_mode = mode;
    expect_rejected(p, "empty", "an empty input, however much padding there is");
  }
}

// Every argument at values whose sums and products leave 64 bits; UBSan watches the arithmetic.
void test_huge_arguments() {
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  const std::initializer_list<int64_t> values = {
      1, 3, int64_t{1} << 31, int64_t{1} << 60, int64_t{1} << 61, int64_t{1} << 62, most};
  for (int64_t size : values)
    for (int64_t kernel : values)
      for (int64_t dilation : values)
        for (int64_t before : {int64_t{0}, int64_t{1} << 31, int64_t{1} << 61, int64_t{1} << 62, most})
          for (int64_t after : {int64_t{0}, int64_t{1} << 62, most})
            for (int64_t stride : {int64_t{1}, int64_t{1} << 61, most}) {
              ConvProblem p = square_problem(3, 1);
              p.input.width = size;
              p.kernel.width = kernel;
              p.dilation.width = dilation;
              p.stride.width = stride;
              p.padding.left = before;
              p.padding.right = after;
              const std::string error = check_geometry(p);
              using Wide = __int128;
              const Wide padded = static_cast<Wide>(size) + before + after;
              const Wide extent = static_cast<Wide>(dilation) * (kernel - 1) + 1;
              if (extent > padded) check(!error.empty(), "geometry accepted a huge kernel that does not fit");
              if (!error.empty()) continue;
              const Wide expected = (padded - extent) / stride + 1;
              check(static_cast<Wide>(p.output.width) == expected, "geometry: wrong width of a huge output");
              check(padded < (Wide{1} << 61), "geometry accepted positions of 2^61 and more");
            }
  ConvProblem p = square_problem(int64_t{1} << 40, 1);
  check(check_geometry(p).empty() && p.output.width == int64_t{1} << 40,
        "geometry rejected an image of 2^40 x 2^40");
}

// The bits of the nearest 16-bit number to `value`, by rounding in double and searching all of them.
template <class T>
class NearestBySearch {
 public:
  explicit NearestBySearch(DType dtype) : dtype_(dtype) {
    for (uint32_t bits = 0; bits < 0x8000u; ++bits) {
      const double value = to_double(T{static_cast<uint16_t>(bits)});
      if (std::isnan(value)) break;
      magnitudes_.push_back(value);
    }
  }

  uint16_t operator()(double value) const {
    const double rounded = std::fabs(round_to(dtype_, value));
    const auto at = std::lower_bound(magnitudes_.begin(), magnitudes_.end(), rounded);
    const uint16_t sign = std::signbit(value) ? 0x8000u : 0u;
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(at - magnitudes_.begin()));
  }

 private:
  DType dtype_;
  std::vector<double> magnitudes_;  // increasing with the bits, infinity last
};

// The value of a 16-bit number, from the definition of the formats.
double decoded(uint16_t bits, int exponent_bits, int fraction_bits) {
  const int exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  double value;
  if (exponent == (1 << exponent_bits) - 1) {
    value =
        fraction == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == 0) {
    value = std::ldexp(fraction, 1 - bias - fraction_bits);
  } else {
    value = std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
  }
  return (bits & 0x8000u) != 0 ? -value : value;
}

BFloat16 narrowed(float value, BFloat16) {
  return to_bfloat16(value);
}
Float16 narrowed(float value, Float16) {
  return to_float16(value);
}

template <class T>
void test_16_bit_type(DType dtype, int exponent_bits, int fraction_bits) {
  const std::string name = dtype_name(dtype);
  for (uint32_t k = 0; k < 0x10000u; ++k) {
    const T number{static_cast<uint16_t>(k)};
    const float value = to_float(number);
    const double expected = decoded(number.bits, exponent_bits, fraction_bits);
    const T back = narrowed(value, T{});
    if (std::isnan(expected)) {
      check(std::isnan(value) && std::isnan(to_float(back)), name + ": NaN does not stay NaN");
    } else {
      const bool same =
          static_cast<double>(value) == expected && std::signbit(value) == std::signbit(expected);
      check(same, [&] { return name + ": wrong value of bits " + std::to_string(k); });
      check(back.bits == number.bits,
            [&] { return name + ": bits " + std::to_string(k) + " do not round-trip"; });
    }
  }

  const NearestBySearch<T> nearest(dtype);
  const auto check_rounding = [&](float value) {
    if (std::isnan(value)) return;
    check(narrowed(value, T{}).bits == nearest(static_cast<double>(value)),
          [&] { return name + ": wrong rounding of " + std::to_string(value); });
  };
  // Each number, the middle to its neighbour, and the floats right beside both.
  for (uint32_t k = 0; k < 0x10000u; ++k) {
    const float value = to_float(T{static_cast<uint16_t>(k)});
    const float next = to_float(T{static_cast<uint16_t>(k + 1)});
    if (!std::isfinite(value) || !std::isfinite(next)) continue;
    const float middle = value + (next - value) / 2;
    for (float at : {value, middle}) {
      check_rounding(at);
      check_rounding(std::nextafter(at, INFINITY));
      check_rounding(std::nextafter(at, -INFINITY));
    }
  }
  for (float value : {65504.0f, 65519.99f, 65520.0f, 65536.0f, 3.3895314e38f, 3.4028235e38f, 0.0f, -0.0f,
                      1.4e-45f, 2.98e-8f, 2.9802322e-8f, 1.1754944e-38f, INFINITY}) {
    check_rounding(value);
    check_rounding(-value);
  }
  Random random(11);
  for (int k = 0; k < 300000; ++k) check_rounding(float_of(static_cast<uint32_t>(random.bits())));
  for (uint32_t bits : {0x7f800001u, 0x7fc00000u, 0xff800001u, 0xffffffffu, 0x7fffffffu})
    check(std::isnan(to_float(narrowed(float_of(bits), T{}))), name + ": a NaN does not stay NaN");
}

}  // namespace

void test_geometry() {
  test_output_sizes();
  test_rejected_arguments();
  test_huge_arguments();
}

void test_padding() {
  // One axis written out: the size, the padding, and what each position of the padded axis reads.
  struct Example {
    PaddingMode mode;
    int64_t size, padding;
    std::vector<int64_t> sources;
  };
  const std::vector<Example> examples = {
      {PaddingMode::zeros, 3, 2, {-1, -1, 0, 1, 2, -1, -1}},
      {PaddingMode::reflect, 4, 3, {3, 2, 1, 0, 1, 2, 3, 2, 1, 0}},
      {PaddingMode::reflect, 1, 0, {0}},
      {PaddingMode::replicate, 2, 3, {0, 0, 0, 0, 1, 1, 1, 1}},
      {PaddingMode::circular, 3, 3, {0, 1, 2, 0, 1, 2, 0, 1, 2}},
      {PaddingMode::circular, 1, 1, {0, 0, 0}},
  };
  for (const Example& example : examples) {
    for (size_t k = 0; k < example.sources.size(); ++k) {
      const int64_t position = static_cast<int64_t>(k) - example.padding;
      check(padded_source(position, example.size, example.mode) == example.sources[k],
            "padded_source: wrong source of position " + std::to_string(position));
    }
  }
}

void test_element_conversions() {
  test_16_bit_type<BFloat16>(DType::bfloat16, 8, 7);
  test_16_bit_type<Float16>(DType::float16, 5, 10);
}

void test_planner() {
  const std::vector<const Kernel*>& kernels = all_kernels();
  check(!kernels.empty() && kernels.back() == &reference_kernel, "the reference kernel is not the last");
  std::set<std::string> names;
  for (const Kernel* kernel : kernels) {
    const std::string name = qualified_name(*kernel);
    check(names.insert(name).second, "two kernels are named " + name);
    check(name == std::string(kernel->name) + "/" + isa_name(kernel->isa), "wrong qualified name " + name);
    check(std::strlen(kernel->description) > 0, name + " has no description");
  }

  check(isa_available(Isa::baseline), "the baseline is not available");
  check(isa_available(best_isa()), "the best instruction set is not available");
  check(!isa_available(Isa::avx512) || isa_available(Isa::avx2), "AVX-512 without AVX2");
  const char* cap = std::getenv("CONVEXT_MAX_ISA");
  if (cap != nullptr && std::strcmp(cap, "baseline") == 0)
    check(best_isa() == Isa::baseline, "CONVEXT_MAX_ISA=baseline caps nothing");

  ConvProblem problem = square_problem(8, 3);
  check_geometry(problem);
  problem.input_strides = image_strides(Layout::contiguous, 1, 1, problem.input, false);
  problem.weight_strides = weight_strides(Layout::contiguous, 1, 1, problem.kernel, false);
  problem.output_strides = image_strides(Layout::contiguous, 1, 1, problem.output, true);
  std::string error;
  const Kernel* first = plan(problem, &error);
  check(first != nullptr && why_not(*first, problem) == nullptr, "the plan is a kernel that refuses");
  for (const Kernel* kernel : kernels) {
    if (kernel == first) break;
    check(why_not(*kernel, problem) != nullptr,
          qualified_name(*kernel) + " was passed over without a reason");
  }

  check(forced_kernel().empty(), "a kernel is forced from the start");
  set_forced_kernel("generic/cuda");
  check(plan(problem, &error) == nullptr && contains(error, "it is no CPU kernel"),
        "a kernel of another device was forced, and this is not said: " + error);
  for (const Kernel* kernel : kernels) {
    const std::string name = qualified_name(*kernel);
    set_forced_kernel(name);
    check(forced_kernel() == name, "could not force " + name);
    error.clear();
    const Kernel* planned = plan(problem, &error);
    const Reason reason = why_not(*kernel, problem);
    if (reason == nullptr) {
      check(planned == kernel && error.empty(), "forcing " + name + " planned something else");
    } else {
      check(planned == nullptr && contains(error, reason) && contains(error, name.c_str()),
            "forcing " + name + " does not say why it cannot run: " + error);
    }
  }
  set_forced_kernel("reference");
  check(plan(problem, &error) == &reference_kernel,
        "the reference was forced by its plain name, but something else was planned");
  set_forced_kernel("");
  check(plan(problem, &error) == first, "lifting the restriction has no effect");

  set_float32_precision(Float32Precision::high);
  check(float32_precision() == Float32Precision::high, "the precision setting is not kept");
  set_float32_precision(Float32Precision::highest);

  check(useful_workers(problem, 8) == 1, "threads are woken for a tiny problem");
  problem.batch = 100000;
  check(useful_workers(problem, 8) == 8 && useful_workers(problem, 1) == 1,
        "a large problem is not spread over all threads");
}

}  // namespace convext::testing
