// Forward and the gradient of the input: one correlation of a source with weights,
//
//     result[n, m, pixel] = bias[m] + sum over k of weights[m, k] * patch[n, pixel, k]
//
// for each group and each class of positions (see axis.h; forward has one class). Described here by roles:
// what is read, what is written.
//
// Either result channels or result pixels are spread over the lanes of a vector. Channels, where the channels
// of the source are neighbours or where copying it so pays (channels_in_lanes.h); else pixels, where those of
// a row are neighbours (pixels_in_lanes.h). Either way the order in which the terms of an element are added
// follows from the shape and the layout, not from how the work is cut, nor from the batch or the number of
// workers.
#pragma once

#include "cpu/implicit_gemm/axis.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// A 1x1 kernel that steps over nothing and meets no padding: every result has the terms of its own pixel, all
// of them.
inline bool is_pointwise(const ConvProblem& p) {
  const Padding& padding = p.padding;
  return p.kernel.height == 1 && p.kernel.width == 1 && p.stride.height == 1 && p.stride.width == 1 &&
         padding.top + padding.bottom + padding.left + padding.right == 0;
}

// A 1x1 kernel that steps over nothing sees each image as one long row, if it lies so.
inline ConvProblem with_rows_joined(const ConvProblem& problem) {
  const auto has_no_gaps = [&](const ImageStrides& strides) {
    return strides.row == problem.input.width * strides.column;
  };
  const bool fits =
      is_pointwise(problem) && has_no_gaps(problem.input_strides) && has_no_gaps(problem.output_strides);
  ConvProblem joined = problem;
  if (!fits) return joined;
  joined.input = joined.output = {1, problem.input.height * problem.input.width};
  return joined;
}

struct Correlation {
  bool is_forward;
  int64_t batch;
  int64_t groups;
  int64_t source_channels;  // of one group
  int64_t result_channels;  // of one group
  ImageStrides source_strides;
  ImageStrides result_strides;
  WeightStrides weight_strides;
  int64_t weight_group_stride;
  int64_t weight_source_stride;  // from one source channel to the next
  int64_t weight_result_stride;
  AxisClasses rows;
  AxisClasses columns;

  explicit Correlation(const ConvProblem& p)
      : is_forward(p.pass == Pass::forward),
        batch(p.batch),
        groups(p.groups),
        source_channels(is_forward ? in_channels_per_group(p) : out_channels_per_group(p)),
        result_channels(is_forward ? out_channels_per_group(p) : in_channels_per_group(p)),
        source_strides(is_forward ? p.input_strides : p.output_strides),
        result_strides(is_forward ? p.output_strides : p.input_strides),
        weight_strides(p.weight_strides),
        weight_group_stride(out_channels_per_group(p) * p.weight_strides.out_channel),
        weight_source_stride(is_forward ? p.weight_strides.in_channel : p.weight_strides.out_channel),
        weight_result_stride(is_forward ? p.weight_strides.out_channel : p.weight_strides.in_channel),
        rows(problem_rows(p), is_forward),
        columns(problem_columns(p), is_forward) {
    // Of a single channel, a tensor's stride means nothing.
    if (groups * source_channels == 1) source_strides.channel = 1;
  }

  // Whether vectors of channels are loaded and stored, or vectors of pixels. Maps of a single pixel have no
  // vectors of pixels, and if it is the source's, its channels are neighbours in either layout; so are those
  // of a source with a single channel, and the layout of the results decides.
  bool prefers_channels_in_lanes() const {
    const bool source_is_pixel =
        is_forward ? rows.p.input * columns.p.input == 1 : rows.p.output * columns.p.output == 1;
    const bool result_is_pixel =
        is_forward ? rows.p.output * columns.p.output == 1 : rows.p.input * columns.p.input == 1;
    if (groups * source_channels == 1) return result_is_pixel || result_strides.column != 1;
    return source_strides.channel == 1 ? source_strides.column != 1 || source_is_pixel : result_is_pixel;
  }

  int64_t result_numbers() const {
    return batch * groups * result_channels *
           (is_forward ? rows.p.output * columns.p.output : rows.p.input * columns.p.input);
  }

  int64_t classes() const { return rows.count() * columns.count(); }
  int64_t most_pixels() const { return batch * rows.most_positions() * columns.most_positions(); }
  int64_t most_terms() const { return source_channels * rows.most_taps() * columns.most_taps(); }

  bool has_each_tap_once() const { return rows.has_each_tap_once() && columns.has_each_tap_once(); }
  int64_t tap_sets() const { return rows.tap_sets() * columns.tap_sets(); }
  // Terms of all the pairs of tap sets before this pair.
  int64_t terms_before(int64_t row_set, int64_t column_set) const {
    const int64_t all_column_taps = columns.taps_before(columns.tap_sets());
    const int64_t row_taps = row_set < rows.tap_sets() ? rows.taps_of_set(row_set) : 0;
    return source_channels *
           (rows.taps_before(row_set) * all_column_taps + row_taps * columns.taps_before(column_set));
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
