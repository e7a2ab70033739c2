// One test case: a problem with the layouts of its tensors and what to fill them with.
#pragma once

#include <cstdint>
#include <string>

#include "core/problem.h"

namespace convext::testing {

enum class Layout {
  contiguous,
  channels_last,
  row_gaps,    // contiguous but for unused elements behind each row, plane and sample
  transposed,  // columns of a plane adjacent in memory, batch innermost of all
  expanded,    // stride 0 over the batch (or over out_channels of a weight); only for tensors that are read
};

enum class Fill {
  small_integers,  // every sum is exact, so results must be equal
  large_integers,  // 0 and +-512: exact in float32, but sums overflow float16 to infinity
  normal,          // results must be within the error bound
  positive,        // uniform in [0, 1], like an image: rounding errors do not average out as well
  any_bits,        // integers over their whole range: sums wrap around
  limits,          // the lowest and the highest integer, and -1
  non_finite,      // small integers with infinities and NaN among them
};

struct Case {
  ConvProblem problem;  // strides and output size are filled in by `finish`
  Layout input_layout = Layout::contiguous;
  Layout weight_layout = Layout::contiguous;
  Layout output_layout = Layout::contiguous;
  Fill fill = Fill::small_integers;
  uint64_t seed = 0;
};

// Computes the output size and all strides. False where the geometry is impossible.
bool finish(Case& test_case);

// Everything that is needed to write the case down again.
std::string describe(const Case& test_case);

const char* dtype_name(DType dtype);
const char* pass_name(Pass pass);
bool is_floating_point(DType dtype);

ImageStrides image_strides(Layout layout, int64_t batch, int64_t channels, Size2 size, bool is_written);
WeightStrides weight_strides(Layout layout, int64_t out_channels, int64_t in_channels, Size2 size,
                             bool is_written);

}  // namespace convext::testing
