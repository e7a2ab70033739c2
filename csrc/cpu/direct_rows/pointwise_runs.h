// The pixels of a 1x1 kernel that steps over nothing, cut into runs that are adjacent in memory: of rows, or
// of whole images where rows follow each other.
#pragma once

#include <type_traits>

#include "core/problem.h"
#include "cpu/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Calls visit with a number of channels, four at most, that the compiler knows.
template <class Visit>
void with_few_channels(int64_t channels, const Visit& visit) {
  switch (channels) {
    case 1:
      return visit(std::integral_constant<int, 1>{});
    case 2:
      return visit(std::integral_constant<int, 2>{});
    case 3:
      return visit(std::integral_constant<int, 3>{});
    default:
      return visit(std::integral_constant<int, 4>{});
  }
}

struct PointwiseRuns {
  int64_t batch;
  int64_t runs;    // of an image
  int64_t length;  // of a run
  int64_t piece;   // pixels of a part of a run at most
  int64_t pieces;

  static bool fits(const ConvProblem& p) {
    const Padding& padding = p.padding;
    return p.groups == 1 && p.kernel.height == 1 && p.kernel.width == 1 && p.stride.height == 1 &&
           p.stride.width == 1 && padding.top == 0 && padding.bottom == 0 && padding.left == 0 &&
           padding.right == 0;
  }

  PointwiseRuns(const ConvProblem& p, int64_t longest_piece) : batch(p.batch) {
    const auto has_joined_rows = [&](const ImageStrides& strides) {
      return strides.row == p.input.width * strides.column;
    };
    const bool is_joined = has_joined_rows(p.input_strides) && has_joined_rows(p.output_strides);
    runs = is_joined ? 1 : p.input.height;
    length = p.input.width * (is_joined ? p.input.height : 1);
    pieces = ceil_div(length, longest_piece);
    piece = smaller(length, longest_piece);
  }

  // Of a gradient of the weight: F.conv2d splits sums of few terms into several.
  static int64_t chain_vectors(const ConvProblem& p) {
    const int64_t pixels = p.batch * p.input.height * p.input.width;
    return pixels <= 1024 ? 16 : pixels <= 4096 ? 64 : 256;
  }

  int64_t count() const { return batch * runs * pieces; }

  struct Run {
    int64_t n;
    int64_t row;
    int64_t first;
    int64_t pixels;

    int64_t offset(const ImageStrides& strides) const {
      return n * strides.batch + row * strides.row + first * strides.column;
    }
  };

  Run run_of(int64_t index) const {
    const int64_t first = index % pieces * piece;
    const int64_t run = index / pieces;
    return {run / runs, run % runs, first, smaller(piece, length - first)};
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
