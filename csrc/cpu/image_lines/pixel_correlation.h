// Forward of few channels with channels of the result in the lanes: numbers of the image are read one at a
// time, as they lie. For results in channels_last, and for contiguous ones too narrow for vectors of pixels,
// which are transposed.
//
// An item is a band of rows of results, or a piece of their columns. The lines that a row reads stay in the
// L1 cache, copied once, with their padding; those of the next row take the places of those that it no longer
// reads.
//
// Terms are in the order (i, j, c), and rows of taps that read zero padding are left out, unless a weight is
// not finite: see plane_correlation.h.
#pragma once

#include <atomic>

#include "cpu/image_lines/pixel_plan.h"
#include "cpu/implicit_gemm/band.h"
#include "cpu/implicit_gemm/transposed_results.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class ImagePixels {
  using Plan = ImagePixelsPlan<T>;

 public:
  ImagePixels(const Plan& cut, const ConvProblem& p, const ConvData& data, void* workspace)
      : plan(cut),
        c(plan.c),
        rows(plan.rows),
        columns(plan.columns),
        source(static_cast<const T*>(data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        result(static_cast<T*>(data.output)),
        scratch(static_cast<char*>(workspace)),
        streams(plan.writes_in_place && is_result_streamed<T>(p) &&
                are_pixels_whole_lines(result, c.result_strides)) {}

  void run(const Executor& executor) {
    pack_weights(executor);
    for_each_tile(executor, c.batch * plan.bands * plan.pieces, [&](int64_t index, int worker) {
      run_item(index, scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
  }

  // Whether input and result lie as this reads and writes them.
  static bool fits(const ConvProblem& p) {
    const bool has_pixels =
        (p.input_strides.channel == 1 || p.in_channels == 1) && p.input_strides.column == p.in_channels;
    return p.groups == 1 && (has_pixels || p.input_strides.column == 1) &&
           (p.output_strides.channel == 1 || p.output_strides.column == 1);
  }

 private:
  static constexpr int64_t lanes = Vector<T>::lanes;

  const Plan& plan;
  const Correlation& c;
  const Axis& rows;
  const Axis& columns;
  const T* source;
  const T* weight;
  const T* bias;
  T* result;
  char* scratch;
  bool streams;
  bool leaves_out_padding = true;

  // packed[panel][term][channel of the panel], in whole vectors.
  T* packed_weights(int64_t panel) const {
    return reinterpret_cast<T*>(scratch) + plan.first_vector(panel) * lanes * plan.terms;
  }
  T* packed_bias() const { return reinterpret_cast<T*>(scratch + plan.bias_offset); }

  void pack_weights(const Executor& executor) {
    std::atomic<bool> are_finite{true};
    for_each_tile(executor, plan.panels, [&](int64_t panel, int) {
      if (!pack_panel(panel)) are_finite.store(false, std::memory_order_relaxed);
    });
    leaves_out_padding = rows.mode == PaddingMode::zeros && are_finite.load(std::memory_order_relaxed);
    if (bias == nullptr) return;
    for (int64_t m = 0; m < plan.vectors * lanes; ++m)
      packed_bias()[m] = m < c.result_channels ? bias[m] : T{0};
  }

  // False if a weight is not finite.
  bool pack_panel(int64_t panel) const {
    const int64_t first = plan.first_vector(panel) * lanes;
    const int64_t width = plan.first_vector(panel + 1) * lanes - first;
    const int64_t channels = smaller(width, c.result_channels - first);
    const T* const of_panel = weight + first * c.weight_result_stride;
    T* const packed = packed_weights(panel);
    T* to = packed;
    for (int64_t i = 0; i < rows.taps; ++i) {
      for (int64_t j = 0; j < columns.taps; ++j) {
        for (int64_t k = 0; k < c.source_channels; ++k, to += width) {
          const T* const from =
              of_panel + k * c.weight_source_stride + i * c.weight_strides.row + j * c.weight_strides.column;
          for (int64_t m = 0; m < channels; ++m) to[m] = from[m * c.weight_result_stride];
          for (int64_t m = channels; m < width; ++m) to[m] = 0;
        }
      }
    }
    return all_finite(packed, to - packed);
  }

  void run_item(int64_t index, char* own) const {
    const int64_t piece = index % plan.pieces;
    index /= plan.pieces;
    const int64_t begin = index % plan.bands * plan.height;
    const int64_t image = index / plan.bands;
    const int64_t first_column = plan.first_column(piece);
    const int64_t count = plan.first_column(piece + 1) - first_column;
    T* const lines = reinterpret_cast<T*>(own);
    int32_t* const places = reinterpret_cast<int32_t*>(own + plan.places_offset);
    const T* const from = source + image * c.source_strides.batch;
    T* const results = result + image * c.result_strides.batch + first_column * c.result_strides.column;
    T* const own_results = reinterpret_cast<T*>(own + plan.results_offset);
    const int64_t pixel = plan.writes_in_place ? c.result_strides.column : plan.vectors * lanes;
    const int64_t end = smaller(rows.count, begin + plan.height);
    int64_t copied = begin * rows.stride + rows.offset;
    for (int64_t y = begin; y < end; ++y) {
      const int64_t first = y * rows.stride + rows.offset;
      for (int64_t position = larger(first, copied); position < first + plan.lines; ++position)
        copy_line(from, position, first_column, count, lines + slot(position));
      copied = first + plan.lines;
      T* const row = plan.writes_in_place ? results + y * c.result_strides.row
                                          : own_results + (y - begin) * count * pixel;
      multiply_row(lines, places, y, count, row, pixel);
    }
    if (!plan.writes_in_place) write_planes(own_results, begin, end, count, results);
    if (streams) finish_streams();
  }

  // Rows [begin, end) of `count` results.
  void write_planes(const T* from, int64_t begin, int64_t end, int64_t count, T* results) const {
    const int64_t row = c.result_strides.row;
    const int64_t pixel = plan.vectors * lanes;
    const bool is_one_run = row == count;
    for (int64_t y = begin; y < end; y += is_one_run ? end - begin : 1) {
      transpose_out(from + (y - begin) * count * pixel, pixel, is_one_run ? (end - begin) * count : count,
                    c.result_channels, results + y * row, c.result_strides.channel, 1, false);
    }
  }

  int64_t slot(int64_t position) const { return (position - rows.offset) % plan.lines * plan.line_stride; }

  void copy_line(const T* image, int64_t position, int64_t first_column, int64_t results, T* line) const {
    const int64_t row = rows.resolve(position);
    if (row < 0) {
      if (!leaves_out_padding) fill_zero_vectors(line, plan.line_stride);
      return;
    }
    image += row * c.source_strides.row;
    const int64_t pixels = plan.line_pixels(results);
    const int64_t first = first_column * columns.stride + columns.offset;
    const int64_t begin = smaller(pixels, larger(0, -first));
    const int64_t end = larger(begin, smaller(pixels, columns.source_size - first));
    // Pixels are copied with all their channels, planes one after the other.
    const int64_t together = plan.pixel_stride;
    for (int64_t k = 0; k < c.source_channels; k += together) {
      const T* const from = image + k * c.source_strides.channel;
      T* const to = line + k * plan.channel_stride;
      copy_padding(from, first, 0, begin, to);
      copy_widened(to + begin * together, from + (first + begin) * together, 1, (end - begin) * together);
      copy_padding(from, first, end, pixels, to);
    }
  }

  void copy_padding(const T* from, int64_t first, int64_t begin, int64_t end, T* to) const {
    const int64_t together = plan.pixel_stride;
    if (columns.mode == PaddingMode::zeros)
      return fill_zero_vectors(to + begin * together, (end - begin) * together);
    for (int64_t x = begin; x < end; ++x) {
      const int64_t column = band_source(columns, first + x);
      for (int64_t k = 0; k < together; ++k)
        to[x * together + k] = column < 0 ? T{0} : from[column * together + k];
    }
  }

  void multiply_row(const T* lines, int32_t* places, int64_t y, int64_t count, T* results,
                    int64_t result_pixel) const {
    const int64_t top = y * rows.stride + rows.offset;
    int64_t first_tap = 0;
    int64_t last_tap = rows.taps;
    if (leaves_out_padding) {
      first_tap = Inside::first_at_least(rows.step, -top, rows.taps);
      last_tap = larger(first_tap, Inside::first_at_least(rows.step, rows.source_size - top, rows.taps));
    }
    PixelRowTile<T> tile;
    tile.terms = 0;
    for (int64_t i = first_tap; i < last_tap; ++i) {
      const int64_t line = slot(top + i * rows.step);
      for (int64_t j = 0; j < columns.taps; ++j) {
        for (int64_t k = 0; k < c.source_channels; ++k)
          places[tile.terms++] =
              static_cast<int32_t>(line + j * columns.step * plan.pixel_stride + k * plan.channel_stride);
      }
    }
    tile.places = places;
    tile.pixel_step = columns.stride * plan.pixel_stride;
    tile.chain = plan.chain_of(tile.terms);
    tile.result_pixel = result_pixel;
    tile.streams = streams;
    const int64_t terms_before = first_tap * columns.taps * c.source_channels;
    const int64_t tiles = ceil_div(count, pixels_of_row_tile(ceil_div(plan.vectors, plan.panels)));
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = t * count / tiles;
      const int64_t pixels = (t + 1) * count / tiles - first;
      tile.lines = lines + first * tile.pixel_step;
      for (int64_t panel = 0; panel < plan.panels; ++panel) {
        const int64_t channel = plan.first_vector(panel) * lanes;
        const int64_t vectors = plan.first_vector(panel + 1) - plan.first_vector(panel);
        tile.weights = packed_weights(panel) + terms_before * vectors * lanes;
        tile.start = bias == nullptr ? nullptr : packed_bias() + channel;
        tile.result = results + first * tile.result_pixel + channel;
        const int64_t last_count = smaller(lanes, c.result_channels - channel - (vectors - 1) * lanes);
        tile.last_count = plan.writes_in_place ? last_count : lanes;
        pixel_row_kernel_of<T>(pixels, vectors)(tile);
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
