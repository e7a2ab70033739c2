// The gradient of the weight of depthwise 3 x 3 correlations of channels_last images, read in place. A vector
// of channels has nine sums, which stay in registers along the pixels of some rows; all channels of those
// rows are next, as memory is laid out. Padding is a vector of zeros that is read instead.
//
// A chain of a limited number of pixels is added up in vectors, chains in double; they are dealt into chunks,
// whose sums are added in order.
#pragma once

#include "cpu/direct_rows/axis.h"
#include "cpu/dispatch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PixelWindowGradientPlan {
  static constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  static constexpr int64_t part_channels = 16 * lanes;  // of a tile

  RowsAxis rows;
  RowsAxis columns;
  int64_t channels;
  int64_t parts;
  int64_t band;  // rows that follow each other with the same sums in registers
  int64_t bands;
  int64_t units;  // bands of images
  int64_t chunks;
  int64_t workers_offset;
  int64_t worker_bytes;

  static bool fits(const ConvProblem& p) {
    // With stride 1 copied lines are read nine times; the limits are where the two ways were equally fast.
    constexpr bool has_registers = sizeof(Vector<float>) == 64;  // 32 of them
    const int64_t narrowest = p.stride.width > 1 ? (has_registers ? 1 : 10)
                              : sizeof(T) == 8   ? 10
                              : has_registers    ? 20
                                                 : 56;
    const bool is_worth_it = p.in_channels * 2 >= lanes && p.output.width >= narrowest;
    return std::is_same_v<T, Compute<T>> && can_mask_loads && p.pass == Pass::grad_weight &&
           in_channels_per_group(p) == 1 && out_channels_per_group(p) == 1 && is_worth_it &&
           p.kernel.height == 3 && p.kernel.width == 3 && p.padding_mode == PaddingMode::zeros &&
           p.input_strides.channel == 1 && p.output_strides.channel == 1 && p.input_strides.column != 1 &&
           p.output_strides.column != 1 && p.output.width <= block_terms;
  }

  explicit PixelWindowGradientPlan(const ConvProblem& p)
      : rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        channels(p.in_channels),
        parts(ceil_div(channels, part_channels)) {
    constexpr int64_t worth_registers = 56;  // pixels
    band = smaller(rows.output, ceil_div(worth_registers, columns.output));
    bands = ceil_div(rows.output, band);
    units = p.batch * bands;
    constexpr int64_t worth_sharing = 64;
    chunks = smaller(units, ceil_div(worth_sharing, ceil_div(channels, lanes)));
    Carver shared;
    shared.take(chunks * sums(), sizeof(double));
    workers_offset = shared.bytes;
    Carver own;
    own.take(9 * part_channels, sizeof(T));
    worker_bytes = own.bytes;
  }

  int64_t sums() const { return 9 * round_up(channels, lanes); }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

// Some rows of one vector of channels.
template <class Real>
struct PixelWindowRows {
  const Real* source;  // row 0 of the source, column 0
  int64_t source_row;
  int64_t source_column;
  const Real* gradient;  // of the first row
  int64_t gradient_row;
  int64_t gradient_column;
  int64_t first_row;
  int64_t rows;
  int64_t source_ahead;  // from what is read to what is fetched meanwhile
  int64_t gradient_ahead;
  Real* sums;  // nine vectors
  LaneMask<Real> mask;
};

template <class Real, bool is_masked>
void add_pixel_window(const PixelWindowRows<Real>& window, const RowsAxis& rows, const RowsAxis& columns) {
  constexpr int64_t lanes = Vector<Real>::lanes;
  static const Real zeros[lanes] = {};
  const auto read = [&](const Real* from) {
    if constexpr (is_masked) return load(from, window.mask);
    return load(from);
  };
  Vector<Real> sums[9];
  CONVEXT_UNROLL
  for (int k = 0; k < 9; ++k) sums[k] = load(window.sums + k * lanes);
  const int64_t step = columns.stride * window.source_column;
  const int64_t tap = columns.dilation * window.source_column;
  // From the first to the last column of the output of which all taps lie inside.
  const int64_t first_inside = smaller(columns.output, ceil_div(columns.before, columns.stride));
  const int64_t room = columns.input + columns.before - 2 * columns.dilation;  // for the first tap
  const int64_t last_inside =
      larger(first_inside, smaller(columns.output, room <= 0 ? 0 : ceil_div(room, columns.stride)));
  for (int64_t row = 0; row < window.rows; ++row) {
    const Real* gradient = window.gradient + row * window.gradient_row;
    bool has_line[3];
    const Real* lines[3];
    int64_t steps[3];  // of a line of padding: none, every pixel is the same zeros
    int64_t taps[3];
    CONVEXT_UNROLL
    for (int i = 0; i < 3; ++i) {
      const int64_t line = (window.first_row + row) * rows.stride - rows.before + i * rows.dilation;
      const bool is_inside = line >= 0 && line < rows.input;
      has_line[i] = is_inside;
      lines[i] = is_inside ? window.source + line * window.source_row : zeros;
      steps[i] = is_inside ? step : 0;
      taps[i] = is_inside ? tap : 0;
    }
    const auto add_edge = [&](int64_t x) {
      const Vector<Real> factor = read(gradient + x * window.gradient_column);
      CONVEXT_UNROLL
      for (int j = 0; j < 3; ++j) {
        const int64_t column = x * columns.stride - columns.before + j * columns.dilation;
        const bool is_inside = column >= 0 && column < columns.input;
        CONVEXT_UNROLL
        for (int i = 0; i < 3; ++i) {
          const Real* from = is_inside && has_line[i] ? lines[i] + column * window.source_column : zeros;
          sums[i * 3 + j] = fmadd(factor, read(from), sums[i * 3 + j]);
        }
      }
    };
    for (int64_t x = 0; x < first_inside; ++x) add_edge(x);
    const Real* from[3];
    CONVEXT_UNROLL
    for (int i = 0; i < 3; ++i) {
      const int64_t column = first_inside * columns.stride - columns.before;
      from[i] = has_line[i] ? lines[i] + column * window.source_column : zeros;
    }
    const Real* factors = gradient + first_inside * window.gradient_column;
    for (int64_t x = first_inside; x < last_inside; ++x) {
      __builtin_prefetch(factors + window.gradient_ahead, 0, 2);
      const Vector<Real> factor = read(factors);
      factors += window.gradient_column;
      CONVEXT_UNROLL
      for (int i = 0; i < 3; ++i) {
        if (i < rows.stride) {
          __builtin_prefetch(from[2 - i] + window.source_ahead, 0, 2);
          if (columns.stride > 1)
            __builtin_prefetch(from[2 - i] + window.source_column + window.source_ahead, 0, 2);
        }
        CONVEXT_UNROLL
        for (int j = 0; j < 3; ++j)
          sums[i * 3 + j] = fmadd(factor, read(from[i] + j * taps[i]), sums[i * 3 + j]);
        from[i] += steps[i];
      }
    }
    for (int64_t x = last_inside; x < columns.output; ++x) add_edge(x);
  }
  CONVEXT_UNROLL
  for (int k = 0; k < 9; ++k) store(window.sums + k * lanes, sums[k]);
}

template <class T>
class PixelWindowGradient {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  PixelWindowGradient(const PixelWindowGradientPlan<T>& cut, const ConvProblem& problem,
                      const ConvData& tensors, void* workspace)
      : plan(cut),
        p(problem),
        data(tensors),
        totals(static_cast<double*>(workspace)),
        scratch(static_cast<char*>(workspace) + plan.workers_offset) {}

  void run(const Executor& executor) const {
    for_each_tile(executor, plan.chunks * plan.parts, [&](int64_t index, int worker) {
      const int64_t chunk = index / plan.parts;
      const int64_t first = index % plan.parts * PixelWindowGradientPlan<T>::part_channels;
      const int64_t last = smaller(plan.channels, first + PixelWindowGradientPlan<T>::part_channels);
      add_units(chunk, first, last, reinterpret_cast<Real*>(scratch + worker * plan.worker_bytes));
    });
    const WeightStrides& strides = p.weight_strides;
    for (int64_t channel = 0; channel < plan.channels; ++channel) {
      for (int64_t k = 0; k < 9; ++k) {
        const double* sum = totals + channel / lanes * 9 * lanes + k * lanes + channel % lanes;
        double total = 0;
        for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) total += sum[chunk * plan.sums()];
        static_cast<Real*>(
            data.weight)[channel * strides.out_channel + k / 3 * strides.row + k % 3 * strides.column] =
            static_cast<Real>(total);
      }
    }
  }

 private:
  // The units of a chunk, of channels first..last - 1.
  void add_units(int64_t chunk, int64_t first, int64_t last, Real* sums) const {
    const int64_t count = round_up(last - first, lanes) * 9;
    double* chunk_totals = totals + chunk * plan.sums() + first * 9;
    for (int64_t k = 0; k < count; ++k) chunk_totals[k] = 0;
    PixelWindowRows<Real> window;
    window.source_row = p.input_strides.row;
    window.source_column = p.input_strides.column;
    window.gradient_row = p.output_strides.row;
    window.gradient_column = p.output_strides.column;
    window.source_ahead = plan.band * plan.rows.stride * p.input_strides.row;
    window.gradient_ahead = plan.band * p.output_strides.row;
    int64_t terms = block_terms;  // of the chain; its sums begin anew
    const auto end_chain = [&] {
      for (int64_t k = 0; k < count; ++k) chunk_totals[k] += static_cast<double>(sums[k]);
    };
    bool has_chain = false;
    for (int64_t unit = plan.units * chunk / plan.chunks; unit < plan.units * (chunk + 1) / plan.chunks;
         ++unit) {
      const int64_t n = unit / plan.bands;
      window.first_row = unit % plan.bands * plan.band;
      window.rows = smaller(plan.band, plan.rows.output - window.first_row);
      const int64_t more = window.rows * plan.columns.output;
      if (terms + more > block_terms) {
        if (has_chain) end_chain();
        for (int64_t k = 0; k < count; ++k) sums[k] = 0;
        has_chain = true;
        terms = 0;
      }
      terms += more;
      const Real* source = static_cast<const Real*>(data.input) + n * p.input_strides.batch;
      const Real* gradient = static_cast<const Real*>(data.output) + n * p.output_strides.batch +
                             window.first_row * p.output_strides.row;
      for (int64_t c = first; c < last; c += lanes) {
        window.source = source + c;
        window.gradient = gradient + c;
        window.sums = sums + (c - first) * 9;
        if (last - c >= lanes) {
          add_pixel_window<Real, false>(window, plan.rows, plan.columns);
        } else {
          window.mask = lanes_between<Real>(0, last - c);
          add_pixel_window<Real, true>(window, plan.rows, plan.columns);
        }
      }
    }
    if (has_chain) end_chain();
  }

  const PixelWindowGradientPlan<T>& plan;
  const ConvProblem& p;
  const ConvData& data;
  double* totals;
  char* scratch;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
