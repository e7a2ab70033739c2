// How a correlation of few source channels is cut, and the workspace that it needs. See plane_correlation.h.
#pragma once

#include "cpu/image_lines/plane_kernel.h"
#include "cpu/implicit_gemm/band.h"
#include "cpu/implicit_gemm/correlation.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct ImagePlanesPlan {
  static constexpr int64_t lanes = Vector<T>::lanes;
  static constexpr int64_t most_numbers = 256 * 1024 / sizeof(T);            // of lines: the L2 cache
  static constexpr int64_t few_numbers = 24 * 1024 / sizeof(T);              // the L1 cache
  static constexpr int64_t fewest_vectors = 2 * most_vectors_of_plane_tile;  // of a piece of a row
  static constexpr int64_t most_terms = 1024;
  static constexpr int64_t most_phases = 8;

  Correlation c;
  Axis rows;
  Axis columns;
  int64_t terms;
  int64_t tiles;   // that the result channels of a group are cut into
  int64_t width;   // of the part of a row of results that is computed by itself
  int64_t rest;    // of the part that neighbouring rows share a vector for
  int64_t shared;  // rows that do, or 1
  int64_t pieces;  // that the width is cut into
  int64_t height;  // rows of results of an item
  int64_t bands;   // of that height, in an image
  int64_t lines;   // that those that share a vector read, and those between them
  // From one number in scratch to another.
  int64_t pitch;  // lines of neighbouring phases
  int64_t row_stride;
  int64_t channel_stride;

  int64_t workers_offset;
  int64_t panel_offset;  // in a worker's part
  int64_t tile_offset;
  int64_t taps_offset;
  int64_t places_offset;
  int64_t worker_bytes;

  ImagePlanesPlan(const ConvProblem& p, int workers)
      : c(p),
        rows(c.rows.at(0)),
        columns(c.columns.at(0)),
        terms(c.source_channels * rows.taps * columns.taps),
        tiles(ceil_div(c.result_channels, most_channels_of_plane_tile)),
        width(columns.count),
        rest(columns.count % lanes),
        shared(rest == 0 ? 1 : larger(1, smaller(rows.count, lanes / rest))) {
    if (shared > 1) {
      width -= rest;
    } else {
      rest = 0;
    }
    lines = (shared - 1) * rows.stride + (rows.taps - 1) * rows.step + 1;
    const int64_t most_pieces = larger(1, vectors() / fewest_vectors);
    for (pieces = 1;; ++pieces) {
      // A row's rest goes with its last piece.
      const BandAxis line(columns, 0, ceil_div(vectors(), pieces) * lanes + rest);
      pitch = spread_stride<T>(line.length);
      row_stride = line.phases * pitch;
      channel_stride = lines * row_stride;
      if (pieces >= most_pieces || numbers() <= few_numbers) break;
    }
    // Lines that two items read are copied by both.
    const int64_t wanted = larger(1, ceil_div(int64_t{4} * workers, larger(1, c.groups * c.batch * pieces)));
    height = round_up(larger(1, ceil_div(rows.count, wanted)), shared);
    bands = ceil_div(rows.count, height);

    Carver together;
    together.take(c.groups * c.result_channels * terms, sizeof(T));
    workers_offset = together.bytes;
    Carver own;
    own.take(numbers() + (most_vectors_of_plane_tile + 1) * lanes, sizeof(T));
    panel_offset = own.take(shared > 1 ? terms * lanes + lanes : 0, sizeof(T));
    tile_offset = own.take(shared > 1 ? (most_channels_of_plane_tile + 1) * lanes : 0, sizeof(T));
    taps_offset = own.take(columns.taps, sizeof(int32_t));
    places_offset = own.take(terms, sizeof(int32_t));
    worker_bytes = own.bytes;
  }

  int64_t vectors() const { return ceil_div(width, lanes); }
  int64_t numbers() const { return c.source_channels * channel_stride; }
  int64_t first_column(int64_t piece) const { return smaller(width, piece * vectors() / pieces * lanes); }
  int64_t first_channel(int64_t tile) const { return tile * c.result_channels / tiles; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

  // F.conv2d adds up one chain here, of any length, unless it has few results.
  int64_t chain_of(int64_t number) const {
    const int64_t most = c.result_channels < 16 ? 32 : number <= 256 ? 64 : 128;
    return larger(1, ceil_div(number, larger(1, ceil_div(number, most))));
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
