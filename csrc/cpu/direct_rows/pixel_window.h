// Depthwise 3 x 3 and 5 x 5 correlations (window.h) where channels lie innermost in memory. Vectors run along
// the channels; all is read and written in place. Eight neighbouring pixels of one or two rows are summed in
// registers; each pixel of the source is loaded once for all the taps that meet it. With a dilation,
// neighbours are as far apart as taps are. What lies in the padding is left out: zeros change no bit of a
// sum, unless a weight is not finite, and then another kernel is called.
#pragma once

#include <atomic>

#include "cpu/direct_rows/pixel_kernel.h"
#include "cpu/direct_rows/window.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PixelWindowPlan : Window {
  static constexpr int64_t lanes = Vector<Compute<T>>::lanes;

  int64_t channels;
  int64_t whole_vectors;
  int64_t packed_vector;  // numbers: the taps and the bias of a vector of channels
  int64_t phase_steps;    // that compute every so many-th row of the result, from one of the first on
  int64_t band;           // steps of a tile
  int64_t bands;
  int64_t part_vectors;  // vectors of channels in a tile
  int64_t parts;
  int64_t worker_bytes = 0;

  static bool fits(const ConvProblem& p) {
    return Window::fits_dilated(p) && out_channels_per_group(p) == 1 && p.in_channels >= lanes &&
           (p.kernel.height == 3 || p.kernel.height == 5) && has_channels_innermost(p.input_strides) &&
           has_channels_innermost(p.output_strides);
  }

  explicit PixelWindowPlan(const ConvProblem& p)
      : Window(p),
        channels(p.in_channels),
        whole_vectors(channels / lanes),
        packed_vector((taps * taps + 1) * lanes) {
    // All channels in one tile, so that memory is read and written in its own order, unless that leaves too
    // few.
    constexpr int64_t enough_tiles = 32;
    phase_steps = ceil_div(ceil_div(result.height, dilation.height), rows_of_kernel);
    const int64_t row_steps = steps();
    parts = smaller(whole_vectors, ceil_div(enough_tiles, p.batch * row_steps));
    part_vectors = ceil_div(whole_vectors, parts);
    parts = ceil_div(whole_vectors, part_vectors);
    bands = smaller(row_steps, ceil_div(enough_tiles, p.batch * parts));
    band = ceil_div(row_steps, bands);
    bands = ceil_div(row_steps, band);
  }

  int64_t steps() const { return smaller(dilation.height, result.height) * phase_steps; }
  int64_t vectors() const { return ceil_div(channels, lanes); }
  // The last vector is moved back where channels do not fill it.
  int64_t channel_of(int64_t vector) const { return smaller(vector * lanes, channels - lanes); }
  int64_t workspace_bytes(int) const {
    return vectors() * packed_vector * static_cast<int64_t>(sizeof(Compute<T>));
  }
};

// A block of results, as many vectors of channels as there are.
template <class T>
struct PixelWindow {
  const T* source;  // what the first tap of the first result meets, be it inside or not
  int64_t row_stride;
  int64_t column_stride;
  Extent lines;               // those of the window that are inside the source
  Extent columns;             // likewise
  const Compute<T>* weights;  // [vector][tap, then the bias][lane]
  T* target;
  int64_t target_row;
  int64_t target_column;
  int64_t pixels;  // at most pixels_of_kernel
  int64_t vectors;
  int64_t last_step;  // from the last vector but one to the last, which may be moved back
  bool streams;
};

template <class T, int taps, int step, int rows, bool has_edges>
void correlate_window(const PixelWindow<T>& window) {
  using Real = Compute<T>;
  constexpr int lanes = Vector<Real>::lanes;
  constexpr int pixels = pixels_of_kernel;
  const T* source = window.source;
  const Real* weights = window.weights;
  T* target = window.target;
  for (int64_t vector = 0; vector < window.vectors; ++vector) {
    Vector<Real> sum[rows][pixels];
    CONVEXT_UNROLL
    for (int q = 0; q < rows; ++q) {
      CONVEXT_UNROLL
      for (int x = 0; x < pixels; ++x) sum[q][x] = zero<Real>();
    }
    CONVEXT_UNROLL
    for (int i = 0; i < (rows - 1) * step + taps; ++i) {
      if (has_edges && (i < window.lines.begin || i >= window.lines.end)) continue;
      const T* line = source + i * window.row_stride;
      Vector<Real> weight[rows][taps];
      CONVEXT_UNROLL
      for (int q = 0; q < rows; ++q) {
        if (i < q * step || i >= q * step + taps) continue;
        CONVEXT_UNROLL
        for (int j = 0; j < taps; ++j) weight[q][j] = load(weights + ((i - q * step) * taps + j) * lanes);
      }
      CONVEXT_UNROLL
      for (int block = 0; block < pixels + (taps - 1) / step; ++block) {
        CONVEXT_UNROLL
        for (int r = 0; r < step; ++r, line += window.column_stride) {
          const int k = block * step + r;
          if (k >= (pixels - 1) * step + taps) continue;
          if (has_edges && (k < window.columns.begin || k >= window.columns.end)) continue;
          const Vector<Real> value = load_widened(line);
          CONVEXT_UNROLL
          for (int j = r; j < taps; j += step) {
            const int x = block - j / step;
            if (x < 0 || x >= pixels) continue;
            CONVEXT_UNROLL
            for (int q = 0; q < rows; ++q) {
              if (i < q * step || i >= q * step + taps) continue;
              sum[q][x] = fmadd(weight[q][j], value, sum[q][x]);
            }
          }
        }
      }
    }
    const Vector<Real> bias = load(weights + taps * taps * lanes);
    CONVEXT_UNROLL
    for (int q = 0; q < rows; ++q) {
      T* to = target + q * window.target_row;
      CONVEXT_UNROLL
      for (int x = 0; x < pixels; ++x, to += window.target_column) {
        if (has_edges && x >= window.pixels) continue;
        store_result(to, add(sum[q][x], bias), window.streams);
      }
    }
    const int64_t next = vector + 2 == window.vectors ? window.last_step : lanes;
    source += next;
    target += next;
    weights += (taps * taps + 1) * lanes;
  }
}

template <class T>
class PixelWindowCorrelation {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  PixelWindowCorrelation(const PixelWindowPlan<T>& cut, const ConvProblem& p, const ConvData& data,
                         void* workspace)
      : plan(cut),
        batch(p.batch),
        source(static_cast<const T*>(plan.is_forward ? data.input : data.output)),
        result(static_cast<T*>(plan.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        source_strides(plan.is_forward ? p.input_strides : p.output_strides),
        result_strides(plan.is_forward ? p.output_strides : p.input_strides),
        weight_strides(p.weight_strides),
        packed(static_cast<Real*>(workspace)),
        streams(is_result_streamed<T>(p) && are_pixels_whole_lines(result, result_strides) &&
                plan.channels % lanes == 0) {}

  // False, with nothing written, if a weight is not finite: the zeros of the padding would turn into NaN.
  bool run(const Executor& executor) {
    constexpr int64_t worth_sharing = 1 << 15;
    std::atomic<bool> all_finite{true};
    for_each_tile(plan.channels * plan.taps * plan.taps > worth_sharing ? executor : Executor{},
                  plan.vectors(), [&](int64_t vector, int) {
                    if (!pack(vector)) all_finite.store(false, std::memory_order_relaxed);
                  });
    if (!all_finite.load(std::memory_order_relaxed)) return false;
    for_each_tile(executor, batch * plan.bands * plan.parts, [&](int64_t index, int) {
      const int64_t n = index / plan.parts / plan.bands;
      const int64_t first_step = index / plan.parts % plan.bands * plan.band;
      const int64_t part = index % plan.parts;
      if (plan.taps == 3) {
        plan.step == 1 ? tile<3, 1>(n, first_step, part) : tile<3, 2>(n, first_step, part);
      } else {
        plan.step == 1 ? tile<5, 1>(n, first_step, part) : tile<5, 2>(n, first_step, part);
      }
      if (streams) finish_streams();
    });
    return true;
  }

 private:
  // [tap][lane] in the order in which the source is read, then the bias. False if one is not finite.
  bool pack(int64_t vector) const {
    const int64_t first = plan.channel_of(vector);
    const int64_t area = plan.taps * plan.taps;
    Real* to = packed + vector * plan.packed_vector;
    const T* from = weight + first * weight_strides.out_channel;
    constexpr int64_t block = channel_block<T>;
    Real raw[25 * block];
    if (weight_strides.column == 1 && weight_strides.row == plan.taps) {
      transpose_in<T>(raw, 0, from, weight_strides.out_channel, lanes, area, area);
    } else {
      for (int64_t tap = 0; tap < area; ++tap) {
        const T* numbers =
            from + tap / plan.taps * weight_strides.row + tap % plan.taps * weight_strides.column;
        for (int64_t c = 0; c < lanes; ++c)
          raw[tap * block + c] = widen(numbers[c * weight_strides.out_channel]);
      }
    }
    Vector<Real> not_finite = zero<Real>();  // 0 * w is NaN if w is infinite or NaN
    for (int64_t tap = 0; tap < area; ++tap) {
      const Vector<Real> numbers = load(raw + tap * block);
      store(to + (plan.is_forward ? tap : area - 1 - tap) * lanes, numbers);
      not_finite = fmadd(numbers, zero<Real>(), not_finite);
    }
    Real check[lanes];
    store(check, not_finite);
    Real total = 0;
    for (int64_t c = 0; c < lanes; ++c) total += check[c];
    for (int64_t c = 0; c < lanes; ++c)
      to[area * lanes + c] = bias == nullptr ? Real{} : widen(bias[first + c]);
    return total == 0;
  }

  template <int taps, int step>
  void tile(int64_t n, int64_t first_step, int64_t part) const {
    const Size2& dilation = plan.dilation;
    const int64_t first_vector = part * plan.part_vectors;
    const bool is_last = part + 1 == plan.parts;
    PixelWindow<T> window;
    window.vectors = (is_last ? plan.vectors() : first_vector + plan.part_vectors) - first_vector;
    window.last_step =
        is_last ? plan.channel_of(plan.vectors() - 1) - plan.channel_of(plan.vectors() - 2) : lanes;
    window.weights = packed + first_vector * plan.packed_vector;
    window.row_stride = source_strides.row * dilation.height;
    window.column_stride = source_strides.column * dilation.width;
    window.target_row = result_strides.row * dilation.height;
    window.target_column = result_strides.column * dilation.width;
    window.streams = streams;
    const T* image = source + n * source_strides.batch + first_vector * lanes;
    T* target = result + n * result_strides.batch + first_vector * lanes;
    // Of `count` positions from `first` on, those inside the source.
    const auto inside = [](int64_t first, int64_t count, int64_t apart, int64_t size) {
      return Extent{smaller(count, ceil_div(larger(0, -first), apart)),
                    smaller(count, ceil_div(larger(0, size - first), apart))};
    };
    const int64_t end_step = smaller(first_step + plan.band, plan.steps());
    for (int64_t index = first_step; index < end_step; ++index) {
      const int64_t y =
          index / plan.phase_steps + index % plan.phase_steps * rows_of_kernel * dilation.height;
      if (y >= plan.result.height) continue;
      const int64_t rows = smaller(rows_of_kernel, ceil_div(plan.result.height - y, dilation.height));
      const int64_t line = y * step - plan.before_rows;
      const int64_t height = (rows - 1) * step + taps;
      window.lines = inside(line, height, dilation.height, plan.source.height);
      const int64_t phases = smaller(dilation.width, plan.result.width);
      const int64_t phase_blocks =
          ceil_div(ceil_div(plan.result.width, dilation.width), int64_t{pixels_of_kernel});
      for (int64_t block = 0; block < phases * phase_blocks; ++block) {
        const int64_t x = block / phase_blocks + block % phase_blocks * pixels_of_kernel * dilation.width;
        if (x >= plan.result.width) continue;
        const int64_t column = x * step - plan.before_columns;
        constexpr int64_t width = (pixels_of_kernel - 1) * step + taps;
        window.columns = inside(column, width, dilation.width, plan.source.width);
        window.pixels = smaller(pixels_of_kernel, ceil_div(plan.result.width - x, dilation.width));
        window.source = image + line * source_strides.row + column * source_strides.column;
        window.target = target + y * result_strides.row + x * result_strides.column;
        const bool is_inside = window.lines.end - window.lines.begin == height &&
                               window.columns.end - window.columns.begin == width &&
                               window.pixels == pixels_of_kernel;
        if (rows < rows_of_kernel) {
          correlate_window<T, taps, step, 1, true>(window);
        } else if (is_inside) {
          correlate_window<T, taps, step, rows_of_kernel, false>(window);
        } else {
          correlate_window<T, taps, step, rows_of_kernel, true>(window);
        }
      }
    }
  }

  const PixelWindowPlan<T>& plan;
  int64_t batch;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  ImageStrides source_strides;
  ImageStrides result_strides;
  WeightStrides weight_strides;
  Real* packed;
  bool streams;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
