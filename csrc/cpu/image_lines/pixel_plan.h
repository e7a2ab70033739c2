// How a correlation of few source channels with result channels in the lanes is cut, and the workspace that
// it needs. See pixel_correlation.h.
#pragma once

#include "cpu/image_lines/pixel_row_kernel.h"
#include "cpu/implicit_gemm/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct ImagePixelsPlan {
  static constexpr int64_t lanes = Vector<T>::lanes;
  static constexpr int64_t most_numbers = 256 * 1024 / sizeof(T);  // of lines: the L2 cache
  static constexpr int64_t few_numbers = 24 * 1024 / sizeof(T);    // the L1 cache
  static constexpr int64_t most_results = 64 * 1024 / sizeof(T);   // in scratch
  static constexpr int64_t fewest_pixels = 32;                     // of a piece of a row
  static constexpr int64_t most_terms = 1024;

  Correlation c;
  Axis rows;
  Axis columns;
  bool writes_in_place;  // channels of the result are neighbours
  int64_t terms;
  int64_t vectors;  // of result channels
  int64_t panels;   // that those are cut into
  int64_t pieces;   // that a row of results is cut into
  int64_t height;   // rows of results of an item
  int64_t bands;    // of that height, in an image
  int64_t lines;    // that a row of results reads, and those between them
  // From one number in scratch to another.
  int64_t pixel_stride;
  int64_t channel_stride;
  int64_t line_stride;

  int64_t bias_offset;
  int64_t workers_offset;
  int64_t places_offset;  // in a worker's part
  int64_t results_offset;
  int64_t worker_bytes;

  ImagePixelsPlan(const ConvProblem& p, int workers)
      : c(p),
        rows(c.rows.at(0)),
        columns(c.columns.at(0)),
        writes_in_place(c.result_strides.channel == 1),
        terms(c.source_channels * rows.taps * columns.taps),
        vectors(ceil_div(c.result_channels, lanes)),
        panels(ceil_div(vectors, most_vectors_of_pixel_row)),
        lines((rows.taps - 1) * rows.step + 1) {
    const int64_t most_pieces = larger(1, columns.count / fewest_pixels);
    // Planes of the source stay planes. In a view of overlapping windows, channels are one apart in these,
    // too.
    const bool has_pixels = c.source_strides.channel == 1 && c.source_strides.column == c.source_channels;
    pixel_stride = has_pixels ? c.source_channels : 1;
    for (pieces = 1;; ++pieces) {
      const int64_t pixels = line_pixels(ceil_div(columns.count, pieces));
      channel_stride = has_pixels ? 1 : pixels + lanes;
      line_stride =
          round_up(pixels * c.source_channels + lanes * (has_pixels ? 1 : c.source_channels), lanes);
      if (pieces >= most_pieces || lines * line_stride <= few_numbers) break;
    }
    // Lines that two items read are copied by both.
    const int64_t wanted = larger(1, ceil_div(int64_t{4} * workers, larger(1, c.batch * pieces)));
    height = larger(1, ceil_div(rows.count, wanted));
    const int64_t row_results = ceil_div(columns.count, pieces) * vectors * lanes;
    if (!writes_in_place) height = larger(1, smaller(height, most_results / row_results));
    bands = ceil_div(rows.count, height);

    Carver shared;
    shared.take(vectors * lanes * terms, sizeof(T));
    bias_offset = shared.take(vectors * lanes, sizeof(T));
    workers_offset = shared.bytes;
    Carver own;
    own.take(lines * line_stride, sizeof(T));
    places_offset = own.take(terms, sizeof(int32_t));
    results_offset =
        own.take(writes_in_place ? 0 : height * row_results + lanes * vectors * lanes, sizeof(T));
    worker_bytes = own.bytes;
  }

  int64_t first_vector(int64_t panel) const { return panel * vectors / panels; }
  int64_t line_pixels(int64_t results) const {
    return (results - 1) * columns.stride + (columns.taps - 1) * columns.step + 1;
  }
  int64_t first_column(int64_t piece) const { return piece * columns.count / pieces; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

  // As long as F.conv2d's error allows in this layout: it adds up one chain of any length, but few terms, or
  // few results, in parts.
  int64_t chain_of(int64_t number) const {
    const int64_t most = number <= 16             ? 8
                         : c.result_channels < 32 ? (number <= 64 ? 16 : 32)
                         : number <= 64           ? (c.source_channels <= 4 ? 32 : 16)
                         : number <= 256          ? 64
                                                  : 128;
    return larger(1, ceil_div(number, larger(1, ceil_div(number, most))));
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
