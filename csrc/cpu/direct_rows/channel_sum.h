// What plane_sum.h and pixel_sum.h have in common: many source channels to few result channels with stride 1,
// forward or the gradient of the input, which is a correlation with the kernel turned round.
#pragma once

#include "cpu/direct_rows/axis.h"
#include "cpu/dispatch.h"
#include "cpu/scratch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

struct ChannelSum {
  bool is_forward;
  int64_t taps;             // down and across
  int64_t source_channels;  // of a group
  int64_t result_channels;
  Size2 source;
  Size2 result;
  int64_t before_rows;  // rows of padding before the source's first
  int64_t before_columns;
  ImageStrides source_strides;
  ImageStrides result_strides;
  int64_t band;  // rows of the result in a tile
  int64_t bands;
  int64_t worker_bytes = 0;

  static bool fits(const ConvProblem& p) {
    const RowsAxis rows = vertical_axis(p);
    const RowsAxis columns = horizontal_axis(p);
    return can_mask_loads && p.pass != Pass::grad_weight && p.padding_mode == PaddingMode::zeros &&
           rows.kernel == columns.kernel && rows.kernel > 1 && rows.stride == 1 && columns.stride == 1 &&
           rows.dilation == 1 && columns.dilation == 1;
  }

  ChannelSum(const ConvProblem& p, int64_t rows_together)
      : is_forward(p.pass == Pass::forward),
        taps(p.kernel.height),
        source_channels(is_forward ? in_channels_per_group(p) : out_channels_per_group(p)),
        result_channels(is_forward ? out_channels_per_group(p) : in_channels_per_group(p)),
        source(is_forward ? p.input : p.output),
        result(is_forward ? p.output : p.input),
        before_rows(is_forward ? p.padding.top : taps - 1 - p.padding.top),
        before_columns(is_forward ? p.padding.left : taps - 1 - p.padding.left),
        source_strides(is_forward ? p.input_strides : p.output_strides),
        result_strides(is_forward ? p.output_strides : p.input_strides) {
    constexpr int64_t worth_dealing = 1 << 16;  // multiply-adds
    const int64_t row_products = larger(1, result.width * source_channels * taps * taps);
    band = round_up(ceil_div(worth_dealing, row_products), rows_together);
    bands = ceil_div(result.height, band);
  }

  // Of the first tap that the first source row and column meet, and the steps from tap to tap.
  template <class T>
  struct Weights {
    const T* first;
    int64_t row;
    int64_t column;
    int64_t channel;  // of the source
  };

  template <class T>
  Weights<T> weights_of(const ConvProblem& p, const T* weight, int64_t group, int64_t result_channel) const {
    const WeightStrides& strides = p.weight_strides;
    if (is_forward) {
      return {weight + (group * result_channels + result_channel) * strides.out_channel, strides.row,
              strides.column, strides.in_channel};
    }
    return {weight + group * source_channels * strides.out_channel + result_channel * strides.in_channel +
                (taps - 1) * (strides.row + strides.column),
            -strides.row, -strides.column, strides.out_channel};
  }

  template <class T>
  bool are_finite(const ConvProblem& p, const T* weight) const {
    const WeightStrides& strides = p.weight_strides;
    const int64_t of_out = in_channels_per_group(p) * taps * taps;
    const bool follow = strides.column == 1 && strides.row == taps && strides.out_channel == of_out &&
                        (strides.in_channel == taps * taps || of_out == taps * taps);
    if (follow) return all_finite(weight, p.out_channels * of_out);
    T not_finite = 0;  // 0 * w is NaN if w is infinite or NaN
    for (int64_t o = 0; o < p.out_channels; ++o) {
      for (int64_t c = 0; c < in_channels_per_group(p); ++c) {
        for (int64_t i = 0; i < taps; ++i) {
          for (int64_t j = 0; j < taps; ++j) {
            not_finite += 0 * weight[o * strides.out_channel + c * strides.in_channel + i * strides.row +
                                     j * strides.column];
          }
        }
      }
    }
    return not_finite == 0;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
