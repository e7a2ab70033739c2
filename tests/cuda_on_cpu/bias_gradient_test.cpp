#include "bias_gradient_test.h"

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/bias_gradient.h"
#include "random.h"
#include "schedule.h"
#include "tensor.h"

namespace convext::testing {
namespace {

using cuda::BiasGradientSizes;

constexpr DType dtypes[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16, DType::uint8,
                            DType::int8,    DType::int16,   DType::int32,    DType::int64};
constexpr Layout layouts[] = {Layout::contiguous, Layout::channels_last, Layout::row_gaps, Layout::transposed,
                              Layout::expanded};

struct Sums {
  std::vector<long double> value, magnitude;
  std::vector<uint64_t> integer;
};

Sums exact_sums(const BiasGradientSizes& sizes, const Tensor& grad_output) {
  const auto channels = static_cast<size_t>(sizes.channels);
  Sums sums{std::vector<long double>(channels), std::vector<long double>(channels),
            std::vector<uint64_t>(channels)};
  const bool floating = is_floating_point(grad_output.dtype());
  const std::vector<double> numbers = floating ? grad_output.numbers() : std::vector<double>{};
  const std::vector<uint64_t> integers = floating ? std::vector<uint64_t>{} : grad_output.integers();
  const int64_t plane = sizes.plane.height * sizes.plane.width;
  for (int64_t k = 0; k < grad_output.elements(); ++k) {
    const auto at = static_cast<size_t>(k);
    const auto channel = static_cast<size_t>(k / plane % sizes.channels);
    if (floating) {
      sums.value[channel] += static_cast<long double>(numbers[at]);
      sums.magnitude[channel] += std::fabs(static_cast<long double>(numbers[at]));
    } else {
      sums.integer[channel] += integers[at];
    }
  }
  return sums;
}

bool matches(const Sums& sums, const Tensor& result, Fill fill) {
  const DType dtype = result.dtype();
  bool ok = true;
  for (size_t channel = 0; channel < sums.value.size(); ++channel) {
    if (!is_floating_point(dtype)) {
      const uint64_t mask = ~uint64_t{0} >> (64 - 8 * element_size(dtype));
      ok = ok && ((sums.integer[channel] ^ result.integers()[channel]) & mask) == 0;
      continue;
    }
    const double got = result.numbers()[channel];
    const double rounded = round_to(dtype, static_cast<double>(sums.value[channel]));
    if (fill == Fill::small_integers) {
      ok = ok && got == rounded;
    } else {
      const long double epsilon = dtype == DType::float64 ? 0x1p-52L : 0x1p-23L;
      const long double rounding = element_size(dtype) != 2  ? 0
                                   : dtype == DType::float16 ? 0x1p-11L * std::fabs(sums.value[channel])
                                                             : 0x1p-8L * std::fabs(sums.value[channel]);
      ok = ok && std::fabs(static_cast<long double>(got) - sums.value[channel]) <=
                     4 * epsilon * sums.magnitude[channel] + rounding;
    }
  }
  return ok;
}

void test_one(const BiasGradientSizes& sizes, DType dtype, Layout layout, Fill fill, uint64_t seed) {
  const ImageStrides s = image_strides(layout, sizes.batch, sizes.channels, sizes.plane, false);
  Tensor grad_output(dtype, {sizes.batch, sizes.channels, sizes.plane.height, sizes.plane.width},
                     {s.batch, s.channel, s.row, s.column}, static_cast<int64_t>(seed % 3));
  grad_output.fill(fill, seed);
  const Sums sums = exact_sums(sizes, grad_output);
  const std::string what = std::string("bias_gradient ") + dtype_name(dtype) + " layout " +
                           std::to_string(static_cast<int>(layout)) + " of " + std::to_string(sizes.batch) +
                           'x' + std::to_string(sizes.channels) + 'x' + std::to_string(sizes.plane.height) +
                           'x' + std::to_string(sizes.plane.width);
  std::vector<unsigned char> first;
  for (auto schedule :
       {cuda_on_cpu::Schedule::forward, cuda_on_cpu::Schedule::reverse, cuda_on_cpu::Schedule::random}) {
    cuda_on_cpu::set_schedule(schedule, seed);
    Tensor result(dtype, {1, 1, 1, sizes.channels}, {0, 0, 0, 1}, static_cast<int64_t>(seed % 2));
    const int64_t bytes = cuda::bias_gradient_workspace_bytes(dtype, sizes);
    GuardedBuffer workspace(bytes, 0);
    const char* error = cuda::bias_gradient(dtype, sizes, s, grad_output.data(), result.data(),
                                            bytes == 0 ? nullptr : workspace.data(), nullptr);
    check(error == nullptr, what + ": did not start: " + (error == nullptr ? "" : error));
    check(workspace.guards_intact() && result.surroundings_intact() && grad_output.surroundings_intact(),
          what + ": wrote outside its memory");
    check(matches(sums, result, fill), what + ": wrong result");
    if (first.empty()) first = result.bytes();
    check(first == result.bytes(), what + ": depends on the order of threads");
  }
}

}  // namespace

void test_bias_gradient() {
  uint64_t seed = 0;
  for (const BiasGradientSizes& sizes :
       {BiasGradientSizes{1, 1, {1, 1}}, BiasGradientSizes{2, 3, {5, 7}}, BiasGradientSizes{3, 40, {4, 9}},
        BiasGradientSizes{1, 2, {70, 65}}, BiasGradientSizes{2, 33, {17, 40}},
        BiasGradientSizes{5, 300, {1, 1}}, BiasGradientSizes{0, 4, {3, 3}}, BiasGradientSizes{2, 0, {3, 3}},
        BiasGradientSizes{300, 2, {1, 3}}, BiasGradientSizes{1, 1, {3, 9000}}}) {
    for (DType dtype : dtypes) {
      for (Layout layout : layouts) {
        test_one(sizes, dtype, layout, is_floating_point(dtype) ? Fill::small_integers : Fill::any_bits,
                 ++seed);
        if (is_floating_point(dtype)) test_one(sizes, dtype, layout, Fill::normal, ++seed);
      }
    }
  }
  std::printf("bias_gradient: %llu cases\n", static_cast<unsigned long long>(seed));
}

}  // namespace convext::testing
