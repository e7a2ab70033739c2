#include "oracle.h"

#include <cmath>

namespace convext::testing {
namespace {

// The source index of every position of the padded axis; -1: a zero.
std::vector<int64_t> padded_axis(int64_t size, int64_t before, int64_t after, PaddingMode mode) {
  std::vector<int64_t> source;
  for (int64_t position = -before; position < size + after; ++position) {
    int64_t index = position;
    switch (mode) {
      case PaddingMode::zeros:
        if (position < 0 || position >= size) index = -1;
        break;
      case PaddingMode::replicate:
        index = position < 0 ? 0 : position >= size ? size - 1 : position;
        break;
      case PaddingMode::circular:
        index = ((position % size) + size) % size;
        break;
      case PaddingMode::reflect:
        if (size > 1) {  // a triangle wave
          const int64_t period = 2 * (size - 1);
          const int64_t phase = ((position % period) + period) % period;
          index = phase < size ? phase : period - phase;
        }
        break;
    }
    source.push_back(index);
  }
  return source;
}

// Calls visit(output, input, weight) with the dense indices of the three factors of every term; input is -1
// where the term reads a zero of the padding.
template <class Visit>
void for_each_term(const ConvProblem& p, const Visit& visit) {
  const int64_t in_per_group = p.in_channels / p.groups;
  const int64_t out_per_group = p.out_channels / p.groups;
  const auto rows = padded_axis(p.input.height, p.padding.top, p.padding.bottom, p.padding_mode);
  const auto columns = padded_axis(p.input.width, p.padding.left, p.padding.right, p.padding_mode);
  int64_t output = 0;
  for (int64_t n = 0; n < p.batch; ++n) {
    for (int64_t o = 0; o < p.out_channels; ++o) {
      for (int64_t y = 0; y < p.output.height; ++y) {
        for (int64_t x = 0; x < p.output.width; ++x, ++output) {
          int64_t weight = o * in_per_group * p.kernel.height * p.kernel.width;
          for (int64_t c = 0; c < in_per_group; ++c) {
            const int64_t channel = n * p.in_channels + o / out_per_group * in_per_group + c;
            for (int64_t i = 0; i < p.kernel.height; ++i) {
              const int64_t row = rows[static_cast<size_t>(y * p.stride.height + i * p.dilation.height)];
              const int64_t row_start = (channel * p.input.height + row) * p.input.width;
              for (int64_t j = 0; j < p.kernel.width; ++j, ++weight) {
                const int64_t column =
                    columns[static_cast<size_t>(x * p.stride.width + j * p.dilation.width)];
                visit(output, row < 0 || column < 0 ? -1 : row_start + column, weight);
              }
            }
          }
        }
      }
    }
  }
}

size_t result_size(const ConvProblem& p) {
  switch (p.pass) {
    case Pass::forward:
      return static_cast<size_t>(p.batch * p.out_channels * p.output.height * p.output.width);
    case Pass::grad_input:
      return static_cast<size_t>(p.batch * p.in_channels * p.input.height * p.input.width);
    case Pass::grad_weight:
      return static_cast<size_t>(p.out_channels * (p.in_channels / p.groups) * p.kernel.height *
                                 p.kernel.width);
  }
  return 0;
}

// Calls add(index, a, b) for every term a * b of result element `index`.
template <class T, class Add>
void accumulate(const ConvProblem& p, const std::vector<T>& input, const std::vector<T>& weight,
                const std::vector<T>& output, const Add& add) {
  const auto at = [](int64_t index) { return static_cast<size_t>(index); };
  switch (p.pass) {
    case Pass::forward:
      return for_each_term(
          p, [&](int64_t o, int64_t i, int64_t w) { add(at(o), i < 0 ? T{} : input[at(i)], weight[at(w)]); });
    case Pass::grad_input:
      return for_each_term(p, [&](int64_t o, int64_t i, int64_t w) {
        if (i >= 0) add(at(i), output[at(o)], weight[at(w)]);
      });
    case Pass::grad_weight:
      return for_each_term(
          p, [&](int64_t o, int64_t i, int64_t w) { add(at(w), i < 0 ? T{} : input[at(i)], output[at(o)]); });
  }
}

size_t bias_index(const ConvProblem& p, size_t output) {
  return output / static_cast<size_t>(p.output.height * p.output.width) % static_cast<size_t>(p.out_channels);
}

template <class Sum>
Exact sums(const ConvProblem& problem, const std::vector<double>& input, const std::vector<double>& weight,
           const std::vector<double>& output, const std::vector<double>& bias) {
  std::vector<Sum> value(result_size(problem)), magnitude(result_size(problem));
  const auto add = [&](size_t at, Sum term) {
    value[at] += term;
    magnitude[at] += std::fabs(term);
  };
  accumulate(problem, input, weight, output,
             [&](size_t at, double a, double b) { add(at, static_cast<Sum>(a) * static_cast<Sum>(b)); });
  if (problem.epilogue.bias) {
    for (size_t at = 0; at < value.size(); ++at) add(at, static_cast<Sum>(bias[bias_index(problem, at)]));
  }
  return {{value.begin(), value.end()}, {magnitude.begin(), magnitude.end()}};
}

}  // namespace

Exact exact_result(const ConvProblem& problem, Sums in, const std::vector<double>& input,
                   const std::vector<double>& weight, const std::vector<double>& output,
                   const std::vector<double>& bias) {
  return in == Sums::in_double ? sums<double>(problem, input, weight, output, bias)
                               : sums<long double>(problem, input, weight, output, bias);
}

std::vector<uint64_t> exact_result(const ConvProblem& problem, const std::vector<uint64_t>& input,
                                   const std::vector<uint64_t>& weight, const std::vector<uint64_t>& output,
                                   const std::vector<uint64_t>& bias) {
  std::vector<uint64_t> result(result_size(problem), 0);
  accumulate(problem, input, weight, output, [&](size_t at, uint64_t a, uint64_t b) { result[at] += a * b; });
  if (problem.epilogue.bias) {
    for (size_t at = 0; at < result.size(); ++at) result[at] += bias[bias_index(problem, at)];
  }
  return result;
}

}  // namespace convext::testing
