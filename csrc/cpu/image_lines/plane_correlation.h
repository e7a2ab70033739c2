// Forward on contiguous images of few channels, the first layers of networks: too few terms to repay copying
// patches, and too few channels to fill lanes.
//
// An item is a band of rows of results, or a piece of their columns, with all channels. The lines that a row
// reads stay in the L1 cache, copied once, with their padding, each phase of the stride a line of its own
// (BandAxis in implicit_gemm/band.h), so that for every tap neighbouring results read neighbouring numbers.
// The lines of the next row take the places of those that it no longer reads. Results are cut into vectors
// row by row, and the micro-kernel writes them where they belong. Where that leaves less than half a vector,
// the ends of some neighbouring rows share one, for which patches are copied.
//
// Terms are in the order (i, c, j), and rows of taps that read zero padding are left out: they are the first
// or the last ones. A weight that is not finite makes NaN of those zeros, so then none is left out. None is
// where rows share a vector.
#pragma once

#include <atomic>

#include "cpu/image_lines/plane_plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class ImagePlanes {
  using Plan = ImagePlanesPlan<T>;

 public:
  ImagePlanes(const Plan& cut, const ConvProblem& p, const ConvData& data, void* workspace)
      : plan(cut),
        c(plan.c),
        rows(plan.rows),
        columns(plan.columns),
        source(static_cast<const T*>(data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        result(static_cast<T*>(data.output)),
        scratch(static_cast<char*>(workspace)),
        streams(is_result_streamed<T>(p) && begins_line(result) && are_whole_lines<T>(c.result_strides.row) &&
                are_whole_lines<T>(c.result_strides.channel) && are_whole_lines<T>(c.result_strides.batch)) {}

  void run(const Executor& executor) {
    for_each_tile(executor, c.groups * plan.tiles,
                  [&](int64_t index, int) { pack_weights(index / plan.tiles, index % plan.tiles); });
    leaves_out_padding =
        rows.mode == PaddingMode::zeros && are_weights_finite.load(std::memory_order_relaxed);
    const int64_t items = c.groups * c.batch * plan.bands * plan.pieces;
    for_each_tile(executor, items, [&](int64_t index, int worker) {
      run_item(index, scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
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
  std::atomic<bool> are_weights_finite{true};

  // packed[tile][term][channel of the tile]
  T* packed_weights(int64_t group, int64_t tile) const {
    return reinterpret_cast<T*>(scratch) +
           (group * c.result_channels + plan.first_channel(tile)) * plan.terms;
  }

  void pack_weights(int64_t group, int64_t tile) {
    const int64_t first = plan.first_channel(tile);
    const int64_t count = plan.first_channel(tile + 1) - first;
    const T* const of_tile = weight + group * c.weight_group_stride + first * c.weight_result_stride;
    T* const packed = packed_weights(group, tile);
    T* to = packed;
    for (int64_t i = 0; i < rows.taps; ++i) {
      for (int64_t channel = 0; channel < c.source_channels; ++channel) {
        for (int64_t j = 0; j < columns.taps; ++j, to += count) {
          const T* const from = of_tile + channel * c.weight_source_stride + i * c.weight_strides.row +
                                j * c.weight_strides.column;
          for (int64_t r = 0; r < count; ++r) to[r] = from[r * c.weight_result_stride];
        }
      }
    }
    if (!all_finite(packed, to - packed)) are_weights_finite.store(false, std::memory_order_relaxed);
  }

  // line[channel][slot][phase][column], where the line at `position` is in slot position % lines.
  struct Lines {
    struct Phase {
      int64_t first;  // column of the source
      int64_t begin;  // of what is not padding
      int64_t end;
    };

    BandAxis axis;
    int64_t width;  // of axis.count results, those that are computed by themselves
    T* numbers;
    T* panel;         // patches[term][result] of rows that share a vector
    T* tile;          // of results for them
    int32_t* along;   // where taps read, in the phases of a line
    int32_t* places;  // where terms read
    Phase phases[Plan::most_phases];

    Lines(const Plan& plan, int64_t first, int64_t own_width, int64_t rest, char* own)
        : axis(plan.columns, first, own_width + rest),
          width(own_width),
          numbers(reinterpret_cast<T*>(own)),
          panel(reinterpret_cast<T*>(own + plan.panel_offset)),
          tile(reinterpret_cast<T*>(own + plan.tile_offset)),
          along(reinterpret_cast<int32_t*>(own + plan.taps_offset)),
          places(reinterpret_cast<int32_t*>(own + plan.places_offset)) {
      for (int64_t phase = 0; phase < axis.phases; ++phase)
        phases[phase] = {axis.position(phase), axis.inside_begin(phase), axis.inside_end(phase)};
      for (int64_t tap = 0; tap < plan.columns.taps; ++tap)
        along[tap] = static_cast<int32_t>(axis.phase_of(tap) * plan.pitch + axis.element(tap));
    }
  };

  void run_item(int64_t index, char* own) const {
    const int64_t piece = index % plan.pieces;
    index /= plan.pieces;
    const int64_t begin = index % plan.bands * plan.height;
    index /= plan.bands;
    const int64_t image = index % c.batch;
    const int64_t group = index / c.batch;
    const int64_t first_column = plan.first_column(piece);
    const Lines lines(plan, first_column, plan.first_column(piece + 1) - first_column,
                      piece + 1 == plan.pieces ? plan.rest : 0, own);
    const T* const planes =
        source + image * c.source_strides.batch + group * c.source_channels * c.source_strides.channel;
    T* const results = result + image * c.result_strides.batch +
                       group * c.result_channels * c.result_strides.channel + first_column;
    const bool has_rest = lines.axis.count > lines.width;
    const int64_t end = smaller(rows.count, begin + plan.height);
    const int64_t reach = (rows.taps - 1) * rows.step + 1;
    int64_t copied = begin * rows.stride + rows.offset;
    for (int64_t y = begin; y < end; y += plan.shared) {
      const int64_t count = smaller(plan.shared, end - y);
      const int64_t first = y * rows.stride + rows.offset;
      const int64_t last = first + (count - 1) * rows.stride + reach;
      copy_lines(lines, planes, larger(first, copied), last, has_rest);
      copied = last;
      if (y + count < end) fetch_lines(lines, planes, last, smaller(count * rows.stride, 2 * reach));
      for (int64_t row = y; row < y + count; ++row)
        multiply_row(lines, row, group, results + row * c.result_strides.row);
      if (has_rest) multiply_rest(lines, y, count, group, results + y * c.result_strides.row + lines.width);
    }
    if (streams) finish_streams();
  }

  // Those at the positions [first, last).
  void copy_lines(const Lines& lines, const T* planes, int64_t first, int64_t last, bool with_padding) const {
    for (int64_t position = first; position < last; ++position) {
      const int64_t row = rows.resolve(position);
      if (row < 0 && leaves_out_padding && !with_padding) continue;
      T* to = lines.numbers + slot(position);
      for (int64_t channel = 0; channel < c.source_channels; ++channel, to += plan.channel_stride) {
        if (row < 0) {
          fill_zero_vectors(to, plan.row_stride);
          continue;
        }
        const T* const from = planes + channel * c.source_strides.channel + row * c.source_strides.row;
        for (int64_t phase = 0; phase < lines.axis.phases; ++phase)
          copy_phase(lines, phase, from, to + phase * plan.pitch);
      }
    }
  }

  int64_t slot(int64_t position) const { return (position - rows.offset) % plan.lines * plan.row_stride; }
  int64_t slot_of(int64_t y, int64_t tap) const {
    return slot(y * rows.stride + rows.offset + tap * rows.step);
  }

  void copy_phase(const Lines& lines, int64_t phase, const T* row, T* to) const {
    const auto [first, begin, end] = lines.phases[phase];
    copy_padding(first, row, to, 0, begin);
    copy_widened(to + begin, row + first + begin * columns.stride, columns.stride, end - begin);
    copy_padding(first, row, to, end, lines.axis.length);
  }

  void copy_padding(int64_t first, const T* row, T* to, int64_t begin, int64_t end) const {
    if (columns.mode == PaddingMode::zeros) return fill_zero_vectors(to + begin, end - begin);
    for (int64_t x = begin; x < end; ++x) {
      const int64_t column = band_source(columns, first + x * columns.stride);
      to[x] = column < 0 ? T{0} : row[column];
    }
  }

  // Has the memory bring the `count` rows from the position `first` on, which will be copied next.
  void fetch_lines(const Lines& lines, const T* planes, int64_t first, int64_t count) const {
    constexpr int64_t of_line = line_bytes / static_cast<int64_t>(sizeof(T));
    const int64_t begin = larger(0, lines.axis.first * columns.stride + columns.offset);
    const int64_t end = smaller(columns.source_size, begin + lines.axis.length * columns.stride);
    for (int64_t row = larger(0, first); row < smaller(rows.source_size, first + count); ++row) {
      const T* from = planes + row * c.source_strides.row;
      for (int64_t channel = 0; channel < c.source_channels; ++channel, from += c.source_strides.channel) {
        for (int64_t x = begin; x < end; x += of_line) __builtin_prefetch(from + x);
      }
    }
  }

  void point_to_weights(PlaneTile<T>& tile, int64_t group, int64_t index, int64_t first_term) const {
    const int64_t channel = plan.first_channel(index);
    const int64_t channels = plan.first_channel(index + 1) - channel;
    tile.weights = packed_weights(group, index) + first_term * channels;
    tile.start = bias == nullptr ? nullptr : bias + group * c.result_channels + channel;
  }

  // What row y computes by itself.
  void multiply_row(const Lines& lines, int64_t y, int64_t group, T* results) const {
    int64_t first_tap = 0;
    int64_t last_tap = rows.taps;
    if (leaves_out_padding) {
      const int64_t at = y * rows.stride + rows.offset;
      first_tap = Inside::first_at_least(rows.step, -at, rows.taps);
      last_tap = larger(first_tap, Inside::first_at_least(rows.step, rows.source_size - at, rows.taps));
    }
    int32_t* place = lines.places;
    for (int64_t i = first_tap; i < last_tap; ++i) {
      int64_t start = slot_of(y, i);
      for (int64_t channel = 0; channel < c.source_channels; ++channel, start += plan.channel_stride) {
        for (int64_t j = 0; j < columns.taps; ++j) *place++ = static_cast<int32_t>(start + lines.along[j]);
      }
    }

    PlaneTile<T> tile;
    tile.places = lines.places;
    tile.terms = place - lines.places;
    tile.chain = plan.chain_of(tile.terms);
    tile.result_channel = c.result_strides.channel;
    tile.streams = streams;
    const int64_t vectors = ceil_div(lines.width, lanes);
    const int64_t pixel_tiles = ceil_div(vectors, most_vectors_of_plane_tile);
    for (int64_t index = 0; index < plan.tiles; ++index) {
      const int64_t channel = plan.first_channel(index);
      point_to_weights(tile, group, index, first_tap * c.source_channels * columns.taps);
      for (int64_t t = 0; t < pixel_tiles; ++t) {
        const int64_t first = t * vectors / pixel_tiles;
        const int64_t count = (t + 1) * vectors / pixel_tiles - first;
        tile.lines = lines.numbers + first * lanes;
        tile.result = results + channel * tile.result_channel + first * lanes;
        tile.last_count = smaller(lanes, lines.width - (first + count - 1) * lanes);
        plane_kernel_of<T>(plan.first_channel(index + 1) - channel, count)(tile);
      }
    }
  }

  // The ends of the `count` rows from y on, which share a vector.
  void multiply_rest(const Lines& lines, int64_t y, int64_t count, int64_t group, T* results) const {
    pack_rest(lines, y, count);
    PlaneTile<T> tile;
    tile.lines = lines.panel;
    tile.places = lines.places;
    tile.terms = plan.terms;
    tile.chain = plan.chain_of(tile.terms);
    tile.result = lines.tile;
    tile.result_channel = lanes;
    tile.last_count = lanes;
    tile.streams = false;
    for (int64_t index = 0; index < plan.tiles; ++index) {
      const int64_t first = plan.first_channel(index);
      const int64_t channels = plan.first_channel(index + 1) - first;
      point_to_weights(tile, group, index, 0);
      plane_kernel_of<T>(channels, 1)(tile);
      for (int64_t channel = 0; channel < channels; ++channel) {
        T* to = results + (first + channel) * c.result_strides.channel;
        const T* from = lines.tile + channel * lanes;
        for (int64_t row = 0; row < count; ++row, to += c.result_strides.row, from += plan.rest)
          store(to, load(from), plan.rest);
      }
    }
  }

  // Whole vectors are copied, each to where the one before it ends to count.
  void pack_rest(const Lines& lines, int64_t y, int64_t count) const {
    T* to = lines.panel;
    int32_t* place = lines.places;
    int64_t starts[lanes];
    for (int64_t i = 0; i < rows.taps; ++i) {
      for (int64_t row = 0; row < count; ++row) starts[row] = slot_of(y + row, i) + lines.width;
      for (int64_t channel = 0; channel < c.source_channels; ++channel) {
        for (int64_t j = 0; j < columns.taps; ++j, to += lanes) {
          const T* const from = lines.numbers + channel * plan.channel_stride + lines.along[j];
          for (int64_t row = 0; row < count; ++row) store(to + row * plan.rest, load(from + starts[row]));
          *place++ = static_cast<int32_t>(to - lines.panel);
        }
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
