// How the gradient of an input of few channels is cut, and the workspace that it needs. See tap_sums.h.
#pragma once

#include "cpu/dispatch.h"
#include "cpu/image_lines/pixel_row_kernel.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct TapSumsPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t most_products = 64;
  static constexpr int64_t most_numbers = 192 * 1024 / sizeof(Real);  // of products: the L2 cache
  static constexpr int64_t most_terms = 4096;

  bool copies_lines;   // of the output's gradient
  int64_t line;        // numbers from one channel to the next in such a line
  int64_t products;    // of a pixel of the output: taps x channels of the input
  int64_t vectors;     // of them
  int64_t panels;      // that those are cut into
  int64_t block;       // neighbouring numbers of the input's gradient whose first one a window begins at
  int64_t blocks;      // of a row, from where the first window begins
  int64_t windows;     // that a block lies in, along a row
  int64_t rows;        // of the output that a row of the input's gradient adds up
  int64_t row_stride;  // of products
  int64_t height;      // rows of the input's gradient of an item
  int64_t bands;       // of that height, in an image
  int64_t chain;       // terms that are added up in one accumulator

  int64_t places_offset;
  int64_t workers_offset;
  int64_t results_offset;  // in a worker's part
  int64_t line_offset;
  int64_t worker_bytes;

  TapSumsPlan(const ConvProblem& p, int workers)
      : copies_lines(!std::is_same_v<T, Real> || !has_pixels(p.output_strides, p.out_channels)),
        line(has_pixels(p.output_strides, p.out_channels) ? 1 : spread_stride<Real>(p.output.width)),
        products(p.kernel.height * p.kernel.width * p.in_channels),
        vectors(ceil_div(products, lanes)),
        panels(ceil_div(vectors, most_vectors_of_pixel_row)),
        block(p.stride.width * p.in_channels),
        blocks((p.input.width - 1 + p.padding.left) / p.stride.width + 1),
        windows(ceil_div(p.kernel.width, p.stride.width)),
        rows(ceil_div(p.kernel.height, p.stride.height)),
        row_stride((windows - 1 + larger(blocks, p.output.width)) * vectors * lanes + lanes) {
    const int64_t wanted = larger(1, ceil_div(int64_t{4} * workers, p.batch));
    // Rows of products that two items need are made by both.
    height = larger(smaller(p.input.height, 4 * p.stride.height), ceil_div(p.input.height, wanted));
    bands = ceil_div(p.input.height, height);
    constexpr int64_t longest_chain = 32;
    chain = ceil_div(p.out_channels, ceil_div(p.out_channels, longest_chain));

    Carver shared;
    shared.take(vectors * lanes * p.out_channels, sizeof(Real));
    places_offset = shared.take(p.out_channels, sizeof(int32_t));
    workers_offset = shared.bytes;
    Carver own;
    own.take(rows * row_stride, sizeof(Real));
    results_offset = own.take(blocks * block + lanes, sizeof(Real));
    const int64_t numbers = line == 1 ? p.output.width * p.out_channels + lanes : line * p.out_channels;
    line_offset = own.take(copies_lines ? numbers : 0, sizeof(Real));
    worker_bytes = own.bytes;
  }

  int64_t first_vector(int64_t panel) const { return panel * vectors / panels; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

  static bool has_pixels(const ImageStrides& strides, int64_t channels) {
    return strides.channel == 1 && strides.column == channels;
  }

  // Each tensor may be contiguous or channels_last.
  static bool fits(const ConvProblem& p) {
    if (p.pass != Pass::grad_input || p.groups != 1 || collects_padding(p) || is_empty(p)) return false;
    if (p.dilation.height * p.dilation.width != 1) return false;
    const int64_t taps = p.kernel.height * p.kernel.width;
    if (p.in_channels > 4 || p.out_channels < 8 || p.out_channels > most_terms || taps == 1) return false;
    // Blocks of one or two numbers are added up slowly: 0.6 to 0.7 of direct_rows.
    if (p.stride.width * p.in_channels < 3) return false;
    if (taps * p.in_channels > most_products || p.stride.width * p.in_channels > lanes) return false;
    const auto is_native = [](const ImageStrides& strides, int64_t channels) {
      return strides.column == 1 || has_pixels(strides, channels);
    };
    if (!is_native(p.output_strides, p.out_channels) || !is_native(p.input_strides, p.in_channels))
      return false;
    // Taking channels apart costs as much as is gained: 0.8 to 0.9 of panel_gemm and implicit_gemm.
    const bool is_strided = p.stride.width > 1 && p.stride.width < p.kernel.width;
    if (!has_pixels(p.input_strides, p.in_channels) && std::is_same_v<T, Real> && !is_strided) return false;
    if (p.output.height * p.output.width == 0) return false;
    const TapSumsPlan plan(p, 1);
    return plan.rows * plan.row_stride <= most_numbers && plan.line <= most_numbers / p.out_channels;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
