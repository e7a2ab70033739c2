// Depthwise 3 x 3 correlations of planes whose rows lie side by side in memory, with stride 1 or 2: forward
// and the gradient of the input. Vectors run along the rows. Lines of a plane are copied into scratch between
// zeros, a few ahead of the rows that are computed, which are stored where they belong.
#pragma once

#include <atomic>
#include <type_traits>

#include "cpu/direct_rows/axis.h"
#include "cpu/direct_rows/phase_kernel.h"
#include "cpu/direct_rows/row_kernel.h"
#include "cpu/dispatch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct Plane3x3Plan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t widest = 1024 / static_cast<int64_t>(sizeof(Real));

  bool is_forward;
  bool pairs;  // the gradient with stride 2, whose rows are computed in pairs
  RowsAxis rows;
  RowsAxis columns;
  int64_t planes;
  int64_t stride;  // of lines from row to row
  int64_t before_rows;
  int64_t before_columns;
  int64_t steps;  // rows, or pairs of rows, of a plane
  int64_t band;   // of them in one tile
  int64_t bands;
  int64_t tile_planes;  // small planes are dealt out several at a time
  int64_t slot_stride;  // with stride 2, odd columns lie behind the even ones
  int64_t line_stride;
  int64_t part_stride;

  int64_t part_offset;  // in a worker's part, behind the lines
  int64_t worker_bytes;

  static bool fits(const ConvProblem& p) {
    const RowsAxis rows = vertical_axis(p);
    const RowsAxis columns = horizontal_axis(p);
    const auto fits_axis = [](const RowsAxis& axis) {
      return axis.kernel == 3 && axis.dilation == 1 && axis.stride <= 2 && axis.before <= 2 &&
             axis.after <= 2;
    };
    return in_channels_per_group(p) == 1 && out_channels_per_group(p) == 1 && fits_axis(rows) &&
           fits_axis(columns) && rows.stride == columns.stride && p.padding_mode == PaddingMode::zeros &&
           p.input_strides.column == 1 && p.output_strides.column == 1 && p.input.width <= widest;
  }

  explicit Plane3x3Plan(const ConvProblem& p)
      : is_forward(p.pass == Pass::forward),
        rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        planes(p.batch * p.groups) {
    // With stride 1 the gradient of the input is a forward pass with the taps reversed.
    before_rows = is_forward ? rows.before : 2 - rows.before;
    before_columns = is_forward ? columns.before : 2 - columns.before;
    stride = is_forward ? rows.stride : 1;
    pairs = !is_forward && rows.stride == 2;
    steps = is_forward ? rows.output : rows.input;
    if (pairs) steps = (rows.before + rows.input + 1) / 2 - rows.before / 2;
    const int64_t source_columns = is_forward ? columns.input : columns.output;
    // A vector of zeros on the left, the columns, and zeros on the right.
    slot_stride = lanes + round_up(ceil_div(source_columns, stride), lanes) + 2 * lanes;
    line_stride = spread_stride<Real>(slot_stride * stride);
    part_stride = spread_stride<Real>(is_forward ? columns.output : columns.input);
    constexpr int64_t scratch_bytes = 24 * 1024;
    const int64_t lines = scratch_bytes / (line_stride * static_cast<int64_t>(sizeof(Real)));
    band = larger(row_kernel_rows, (lines - 2) / stride / row_kernel_rows * row_kernel_rows);
    bands = ceil_div(steps, band);
    band = round_up(ceil_div(steps, bands), row_kernel_rows);
    bands = ceil_div(steps, band);
    constexpr int64_t worth_dealing = 4096;  // results
    tile_planes = bands > 1 ? 1 : larger(1, worth_dealing / larger(1, part_stride * steps));
    Carver own;
    own.take((band - 1) * stride + 3, line_stride * static_cast<int64_t>(sizeof(Real)));
    part_offset = own.take(row_kernel_rows * part_stride, sizeof(Real));
    worker_bytes = own.bytes;
  }

  int64_t workspace_bytes(int workers) const { return workers * worker_bytes; }
};

template <class T>
class Plane3x3 {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  Plane3x3(const Plane3x3Plan<T>& cut, const ConvProblem& problem, const ConvData& data, void* workspace)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(plan.is_forward ? data.input : data.output)),
        result(static_cast<T*>(plan.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        source_size(plan.is_forward ? p.input : p.output),
        result_size(plan.is_forward ? p.output : p.input),
        source_strides(plan.is_forward ? p.input_strides : p.output_strides),
        result_strides(plan.is_forward ? p.output_strides : p.input_strides),
        scratch(static_cast<char*>(workspace)),
        streams(is_result_streamed<T>(p)) {
    for (int64_t j = 0; j < 3; ++j) {
      const int64_t column = j - plan.before_columns + 2 * lanes;  // from two vectors before the first column
      offsets[j] = plan.stride == 1 ? column - lanes : column % 2 * plan.slot_stride + column / 2;
    }
  }

  // False if a weight is not finite and the gradient of the input is wanted, which is then to be computed in
  // another way: the zeros that stand for outputs that do not exist would turn into NaN.
  bool run(const Executor& executor) {
    std::atomic<bool> is_right{true};
    const int64_t plane_tiles = ceil_div(plan.planes, plan.tile_planes);
    for_each_tile(executor, plane_tiles * plan.bands, [&](int64_t index, int worker) {
      char* own = scratch + worker * plan.worker_bytes;
      const int64_t first = index / plan.bands * plan.tile_planes;
      const int64_t last = smaller(plan.planes, first + plan.tile_planes);
      clear_sides(reinterpret_cast<Real*>(own));
      for (int64_t plane = first; plane < last; ++plane) {
        if (!tile(plane / p.groups, plane % p.groups, index % plan.bands * plan.band, own))
          is_right.store(false, std::memory_order_relaxed);
      }
      if (streams) finish_streams();
    });
    return is_right.load(std::memory_order_relaxed);
  }

 private:
  // In the order in which the micro-kernels read them. False if one is not finite.
  bool pack(Real (&to)[9], int64_t channel) const {
    const T* taps = weight + channel * p.weight_strides.out_channel;
    const auto tap = [&](int64_t i, int64_t j) {
      return widen(taps[i * p.weight_strides.row + j * p.weight_strides.column]);
    };
    constexpr int8_t phases[9] = {8, 6, 2, 0, 7, 1, 5, 3, 4};
    Real not_finite = 0;  // 0 * w is NaN if w is infinite or NaN
    for (int64_t k = 0; k < 9; ++k) {
      const int64_t from = plan.is_forward ? k : plan.pairs ? phases[k] : 8 - k;
      to[k] = tap(from / 3, from % 3);
      not_finite += to[k] * 0;
    }
    return not_finite == 0;
  }

  bool tile(int64_t n, int64_t channel, int64_t first_step, char* own) const {
    Real weights[9];
    if (!pack(weights, channel) && !plan.is_forward) return false;
    const int64_t height = smaller(plan.band, plan.steps - first_step);
    Real* lines = reinterpret_cast<Real*>(own);
    const T* plane = source + n * source_strides.batch + channel * source_strides.channel;
    T* target = result + n * result_strides.batch + channel * result_strides.channel;
    const int64_t first_line =
        plan.pairs ? plan.rows.before / 2 + first_step - 1 : first_step * plan.stride - plan.before_rows;
    int64_t filled = 0;
    // Lines of the next block are copied before this one is computed: what was only just stored would be
    // waited for.
    const auto fill_for = [&](int64_t steps) {
      const int64_t wanted = (smaller(steps, height) - 1) * plan.stride + (plan.pairs ? 2 : 3);
      if (wanted > filled) {
        fill(lines + filled * plan.line_stride, plane, first_line + filled, wanted - filled);
        filled = wanted;
      }
    };
    fill_for(row_kernel_rows);
    Real* part = reinterpret_cast<Real*>(own + plan.part_offset);
    if (plan.pairs) {
      PhaseRows<Real> block;
      block.lines = lines + lanes + (plan.columns.before + 1) / 2 - 1;
      block.line_stride = plan.line_stride;
      block.weights = weights;
      block.columns = result_size.width;
      int64_t row = (first_line + 1) * 2 - plan.rows.before;
      for (int64_t step = 0; step < height; ++step, row += 2, block.lines += plan.line_stride) {
        if (step % row_kernel_rows == 0) fill_for(step + 2 * row_kernel_rows);
        compute_pair(block, target, row, part);
      }
    } else {
      RowBlock<Real> block{};
      block.lines = lines;
      block.line_stride = plan.line_stride;
      block.offsets = offsets;
      block.weights = weights;
      block.bias = bias == nullptr ? Real{} : widen(bias[channel]);
      target += first_step * result_strides.row;
      for (int64_t step = 0; step < height; step += row_kernel_rows) {
        fill_for(step + 2 * row_kernel_rows);
        block.valid_rows = smaller(row_kernel_rows, height - step);
        compute_rows(block, target, part);
        target += row_kernel_rows * result_strides.row;
        block.lines += row_kernel_rows * plan.stride * plan.line_stride;
      }
    }
    return true;
  }

  // The zeros beside the columns, in all lines; what is copied between them leaves them as they are.
  void clear_sides(Real* lines) const {
    const int64_t count = (plan.band - 1) * plan.stride + 3;
    for (int64_t k = 0; k < count; ++k, lines += plan.line_stride) {
      for (int64_t slot = 0; slot < plan.stride; ++slot) {
        Real* line = lines + slot * plan.slot_stride;
        store(line, zero<Real>());
        store(line + lanes + (source_size.width + plan.stride - 1 - slot) / plan.stride, zero<Real>());
      }
    }
  }

  // Copies rows first_row, first_row + 1, ... (count of them) of a plane between the zeros.
  void fill(Real* lines, const T* plane, int64_t first_row, int64_t count) const {
    const int64_t line_stride = plan.line_stride;
    const int64_t slot_stride = plan.slot_stride;
    const int64_t width = source_size.width;
    const int64_t stride = plan.stride;
    const T* from = plane + first_row * source_strides.row;
    Real* line = lines + lanes;
    for (int64_t row = first_row; row < first_row + count;
         ++row, from += source_strides.row, line += line_stride) {
      int64_t k = 0;
      if (row < 0 || row >= source_size.height) {
        for (; k * stride < width; k += lanes) {
          store(line + k, zero<Real>());
          if (stride == 2) store(line + slot_stride + k, zero<Real>());
        }
      } else if (stride == 1) {
        for (; k + lanes <= width; k += lanes) store(line + k, load_widened(from + k));
        if (k < width && width >= lanes) {
          store(line + width - lanes, load_widened(from + width - lanes));
        } else if (k < width) {
          store(line, load_widened(from, width));
        }
      } else {
        const auto split = [&](int64_t column, Vector<Real> low, Vector<Real> high) {
          store(line + column / 2, even_lanes(low, high));
          store(line + slot_stride + column / 2, odd_lanes(low, high));
        };
        for (; k + 2 * lanes <= width; k += 2 * lanes)
          split(k, load_widened(from + k), load_widened(from + k + lanes));
        if (k < width && width >= 2 * lanes) {
          k = width / 2 * 2 - 2 * lanes;
          split(k, load_widened(from + k), load_widened(from + k + lanes));
          if (width % 2 != 0) line[width / 2] = widen(from[width - 1]);
        } else if (k + lanes < width) {
          split(k, load_widened(from + k), load_widened(from + k + lanes, width - k - lanes));
        } else if (k < width) {
          split(k, load_widened(from + k, width - k), zero<Real>());
        }
      }
    }
  }

  void compute_rows(RowBlock<Real>& block, T* target, Real* part) const {
    block.target = part;
    block.target_stride = plan.part_stride;
    if constexpr (std::is_same_v<T, Real>) {
      block.target = target;
      block.target_stride = result_strides.row;
      block.streams = streams;
    }
    if (plan.stride == 1) {
      row_block_3x3<Real, 1>(block, result_size.width);
    } else {
      row_block_3x3<Real, 2>(block, result_size.width);
    }
    if constexpr (!std::is_same_v<T, Real>) {
      for (int64_t row = 0; row < block.valid_rows; ++row)
        store_row(target + row * result_strides.row, part + row * plan.part_stride);
    }
  }

  // Rows `row` and row + 1.
  void compute_pair(PhaseRows<Real>& block, T* target, int64_t row, Real* part) const {
    T* even = row >= 0 ? target + row * result_strides.row : nullptr;
    T* odd = row + 1 < result_size.height ? target + (row + 1) * result_strides.row : nullptr;
    if constexpr (std::is_same_v<T, Real>) {
      block.even_row = even;
      block.odd_row = odd;
    } else {
      block.even_row = even == nullptr ? nullptr : part;
      block.odd_row = odd == nullptr ? nullptr : part + plan.part_stride;
    }
    if (plan.columns.before % 2 != 0) {
      phase_kernel<Real, true>(block);
    } else {
      phase_kernel<Real, false>(block);
    }
    if constexpr (!std::is_same_v<T, Real>) {
      if (even != nullptr) store_row(even, block.even_row);
      if (odd != nullptr) store_row(odd, block.odd_row);
    }
  }

  void store_row(T* target, const Real* row) const {
    const int64_t width = result_size.width;
    int64_t k = 0;
    for (; k + lanes <= width; k += lanes) store_narrowed(target + k, load(row + k));
    if (k == width) return;
    if (width >= lanes) {
      store_narrowed(target + width - lanes, load(row + width - lanes));
    } else {
      store_narrowed(target, load(row), width);
    }
  }

  const Plane3x3Plan<T>& plan;
  const ConvProblem& p;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  Size2 source_size;
  Size2 result_size;
  ImageStrides source_strides;
  ImageStrides result_strides;
  char* scratch;
  bool streams;
  int64_t offsets[3];
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
