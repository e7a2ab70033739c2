#include "core/geometry.h"

#include <limits>

namespace convext {
namespace {

std::string pair(int64_t first, int64_t second) {
  return "(" + std::to_string(first) + ", " + std::to_string(second) + ")";
}

std::string sides(const Padding& padding) {
  return "((" + std::to_string(padding.top) + ", " + std::to_string(padding.bottom) + "), (" +
         std::to_string(padding.left) + ", " + std::to_string(padding.right) + "))";
}

// True where a * b + c is at most `limit`; all are >= 0.
bool fits(int64_t a, int64_t b, int64_t c, int64_t limit) {
  int64_t product = 0;
  int64_t sum = 0;
  return !__builtin_mul_overflow(a, b, &product) && !__builtin_add_overflow(product, c, &sum) && sum <= limit;
}

std::string check_axis(const char* axis, int64_t size, int64_t kernel, int64_t stride, int64_t dilation,
                       int64_t before, int64_t after, PaddingMode mode) {
  // Positions in the padded input are computed as y * stride + i * dilation; a quarter of the range keeps
  // every such sum, and the sum of two, free of overflow.
  constexpr int64_t limit = std::numeric_limits<int64_t>::max() / 4;
  if (!fits(1, before, after, limit) || !fits(1, size, before + after, limit) || stride > limit ||
      !fits(dilation, kernel, 1, limit)) {
    return std::string(
               "stride, dilation and padding must keep every position of the padded input below 2^61, "
               "but along the ") +
           axis + " they are " + std::to_string(stride) + ", " + std::to_string(dilation) + " and " +
           pair(before, after);
  }
  if (size <= 0) {
    return "the input must not be empty along the " + std::string(axis) + ", but its size is " +
           std::to_string(size);
  }
  const int64_t largest = before > after ? before : after;
  if (mode == PaddingMode::reflect && largest >= size && largest > 0) {
    return "padding must be smaller than the input size for padding_mode='reflect', but along the " +
           std::string(axis) + " it is " + pair(before, after) + " and the size is " + std::to_string(size);
  }
  if (mode == PaddingMode::circular && largest > size) {
    return "padding must not exceed the input size for padding_mode='circular', but along the " +
           std::string(axis) + " it is " + pair(before, after) + " and the size is " + std::to_string(size);
  }
  const int64_t padded = size + before + after;
  const int64_t extent = dilation * (kernel - 1) + 1;
  if (extent > padded) {
    return "kernel size must not exceed the padded input size, but along the " + std::string(axis) +
           " the dilated kernel covers " + std::to_string(extent) + " and the padded input has " +
           std::to_string(padded);
  }
  return "";
}

}  // namespace

int64_t output_size(int64_t size, int64_t total_padding, int64_t kernel, int64_t stride, int64_t dilation) {
  const int64_t room = size + total_padding - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

std::string check_geometry(ConvProblem& problem) {
  const Padding& padding = problem.padding;
  if (problem.groups <= 0)
    return "groups must be a positive integer, but it is " + std::to_string(problem.groups);
  if (problem.stride.height <= 0 || problem.stride.width <= 0) {
    return "stride must be positive, but it is " + pair(problem.stride.height, problem.stride.width);
  }
  if (problem.dilation.height <= 0 || problem.dilation.width <= 0) {
    return "dilation must be positive, but it is " + pair(problem.dilation.height, problem.dilation.width);
  }
  if (padding.top < 0 || padding.bottom < 0 || padding.left < 0 || padding.right < 0) {
    return "padding must not be negative, but it is " + sides(padding);
  }
  if (problem.kernel.height <= 0 || problem.kernel.width <= 0) {
    return "kernel size must be positive, but it is " + pair(problem.kernel.height, problem.kernel.width);
  }
  std::string error = check_axis("height", problem.input.height, problem.kernel.height, problem.stride.height,
                                 problem.dilation.height, padding.top, padding.bottom, problem.padding_mode);
  if (error.empty()) {
    error = check_axis("width", problem.input.width, problem.kernel.width, problem.stride.width,
                       problem.dilation.width, padding.left, padding.right, problem.padding_mode);
  }
  if (!error.empty()) return error;
  problem.output.height = output_size(problem.input.height, padding.top + padding.bottom,
                                      problem.kernel.height, problem.stride.height, problem.dilation.height);
  problem.output.width = output_size(problem.input.width, padding.left + padding.right, problem.kernel.width,
                                     problem.stride.width, problem.dilation.width);
  return "";
}

}  // namespace convext
