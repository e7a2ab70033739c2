// The gradient of the weight. Pixels are cut into units (some rows of one image) and units into chunks, both
// by the shape alone. For one tile of groups (see layout.h) a unit's input and gradient are copied into
// scratch, and every pair of taps and source channel is summed over the unit's pixels; sums of a few units
// are added to the chunk's totals, in double, and the chunks' totals in their order.
#pragma once

#include "cpu/direct_rows/axis.h"
#include "cpu/grouped/lines.h"
#include "cpu/grouped/tap_kernel.h"
#include "cpu/grouped/weights.h"
#include "cpu/implicit_gemm/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct GroupWeightGradientPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  GroupLayout<T> layout;
  RowsAxis rows;
  RowsAxis columns;
  int64_t terms;
  int64_t tile_columns;
  int64_t column_tiles;
  int64_t band;
  int64_t bands;
  int64_t chain_lines;
  int64_t units;
  int64_t units_of_sum;
  int64_t chunks;
  int64_t line_pixels;

  int64_t workers_offset;  // the chunks' totals come first
  int64_t orders_offset;   // in a worker's part
  int64_t sums_offset;
  int64_t lines_offset;
  int64_t gradient_offset;
  int64_t worker_bytes;

  explicit GroupWeightGradientPlan(const ConvProblem& p)
      : layout(p.groups, in_channels_per_group(p), out_channels_per_group(p)),
        rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        terms(layout.source_channels * rows.kernel * columns.kernel) {
    // A chain of additions is one line or several whole ones, hence no line much longer than a chain.
    const int64_t chain = sum_shape(p.batch * rows.output * columns.output, Pass::grad_weight).chain;
    column_tiles = ceil_div(columns.output, chain + chain / 4);
    tile_columns = ceil_div(columns.output, column_tiles);
    line_pixels = extent(columns, tile_columns);
    constexpr int64_t scratch_bytes = 128 * 1024;
    constexpr int64_t highest = 32;
    band = smaller(rows.output, highest);
    while (band > 4 && (lines_size() + gradient_size()) * static_cast<int64_t>(sizeof(Real)) > scratch_bytes)
      --band;
    band = ceil_div(rows.output, ceil_div(rows.output, band));
    bands = ceil_div(rows.output, band);
    units = p.batch * bands * column_tiles;
    chain_lines = larger(1, chain / tile_columns);
    constexpr int64_t pixels_of_sum = 512;
    units_of_sum = larger(1, pixels_of_sum / (band * tile_columns));
    constexpr int64_t wanted_items = 32;
    chunks = smaller(ceil_div(wanted_items, layout.tiles), ceil_div(units, units_of_sum));

    Carver shared;
    shared.take(has_totals() ? layout.tiles * chunks * sums_of_tile() : 0, sizeof(double));
    workers_offset = shared.bytes;
    Carver own;
    orders_offset = own.take(layout.source_channels * lanes + terms, sizeof(int32_t));
    sums_offset = own.take(sums_of_tile(), sizeof(Real));
    lines_offset = own.take(lines_size(), sizeof(Real));
    gradient_offset = own.take(gradient_size(), sizeof(Real));
    worker_bytes = own.bytes;
  }

  static int64_t extent(const RowsAxis& axis, int64_t count) {
    return (count - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
  }
  int64_t sums_of_tile() const { return layout.tile_vectors() * terms * lanes; }
  // Operands are whole vectors, also of the last groups.
  int64_t lines_size() const {
    return extent(rows, band) * line_pixels * layout.source_pieces(layout.tile_groups).pixel_stride() + lanes;
  }
  int64_t gradient_size() const { return band * tile_columns * layout.tile_vectors() * lanes; }
  bool has_totals() const { return units > units_of_sum; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

template <class T>
class GroupWeightGradient {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  GroupWeightGradient(const GroupWeightGradientPlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                      void* workspace)
      : plan(cut),
        p(problem),
        weights(plan.layout, problem, true),
        input(static_cast<const T*>(data.input)),
        grad_output(static_cast<const T*>(data.output)),
        grad_weight(static_cast<T*>(data.weight)),
        all_totals(static_cast<double*>(workspace)),
        scratch(static_cast<char*>(workspace) + plan.workers_offset) {}

  void run(const Executor& executor) const {
    const int64_t tiles = plan.layout.tiles;
    for_each_tile(executor, tiles * plan.chunks, [&](int64_t index, int worker) {
      const int64_t tile = index / plan.chunks;
      const int64_t chunk = index % plan.chunks;
      char* own = scratch + worker * plan.worker_bytes;
      add_chunk(tile, chunk, own);
      if (plan.chunks == 1) finish(tile, own);
    });
    if (plan.chunks == 1) return;
    constexpr int64_t worth_sharing = 1 << 16;
    const bool share = plan.chunks * tiles * plan.sums_of_tile() > worth_sharing;
    for_each_tile(share ? executor : Executor{}, tiles,
                  [&](int64_t tile, int worker) { finish(tile, scratch + worker * plan.worker_bytes); });
  }

 private:
  double* totals_of(int64_t tile, int64_t chunk) const {
    return all_totals + (tile * plan.chunks + chunk) * plan.sums_of_tile();
  }
  Real* sums_of(char* own) const { return reinterpret_cast<Real*>(own + plan.sums_offset); }

  void add_chunk(int64_t tile, int64_t chunk, char* own) const {
    plan.layout.fill_orders(reinterpret_cast<int32_t*>(own + plan.orders_offset));
    const int64_t size =
        plan.layout.result_pieces(plan.layout.groups_of_tile(tile)).count() * plan.terms * lanes;
    Real* sums = sums_of(own);
    const int64_t begin = plan.units * chunk / plan.chunks;
    const int64_t end = plan.units * (chunk + 1) / plan.chunks;
    for (int64_t unit = begin; unit < end; ++unit) {
      if ((unit - begin) % plan.units_of_sum == 0) fill_zero_vectors(sums, size);
      add_unit(unit, tile, own);
      const bool is_sum = unit + 1 == end || (unit + 1 - begin) % plan.units_of_sum == 0;
      if (!plan.has_totals() || !is_sum) continue;
      double* totals = totals_of(tile, chunk);
      const bool is_first = unit - begin < plan.units_of_sum;
      for (int64_t k = 0; k < size; ++k)
        totals[k] = (is_first ? 0 : totals[k]) + static_cast<double>(sums[k]);
    }
  }

  void add_unit(int64_t unit, int64_t tile, char* own) const {
    const GroupLayout<T>& layout = plan.layout;
    const RowsAxis& rows = plan.rows;
    const RowsAxis& columns = plan.columns;
    const int64_t first_column = unit % plan.column_tiles * plan.tile_columns;
    const int64_t first_row = unit / plan.column_tiles % plan.bands * plan.band;
    const int64_t n = unit / plan.column_tiles / plan.bands;
    const int64_t height = smaller(plan.band, rows.output - first_row);
    const int64_t width = smaller(plan.tile_columns, columns.output - first_column);
    if (height <= 0 || width <= 0) return;

    Real* lines = reinterpret_cast<Real*>(own + plan.lines_offset);
    Real* gradient = reinterpret_cast<Real*>(own + plan.gradient_offset);
    const int64_t groups = layout.groups_of_tile(tile);
    const int64_t first_group = tile * layout.tile_groups;
    const GroupImage<T> input_image(p.input_strides, layout.source_pieces(groups));
    const int64_t line_pixels = plan.extent(columns, width);
    input_image.read(
        input + n * p.input_strides.batch + first_group * layout.source_channels * p.input_strides.channel,
        lines, line_pixels, {rows.input, rows.before, rows.after, rows.mode},
        {columns.input, columns.before, columns.after, columns.mode}, first_row * rows.stride - rows.before,
        plan.extent(rows, height), first_column * columns.stride - columns.before);
    const GroupImage<T> output_image(p.output_strides, layout.result_pieces(groups));
    output_image.read(grad_output + n * p.output_strides.batch +
                          first_group * layout.result_channels * p.output_strides.channel +
                          first_row * p.output_strides.row + first_column * p.output_strides.column,
                      gradient, width, {height, 0, 0, PaddingMode::zeros}, {width, 0, 0, PaddingMode::zeros},
                      0, height, 0);

    TapBlock<Real> block;
    const int64_t line_stride = line_pixels * input_image.pixel_stride;
    block.line_stride = rows.stride * line_stride;
    block.pixel_stride = columns.stride * input_image.pixel_stride;
    block.gradient_pixel = output_image.pixel_stride;
    block.gradient_row = width * block.gradient_pixel;
    block.rows = height;
    block.columns = width;
    block.spread_down = rows.spread;
    block.spread_across = columns.spread;
    block.chain_lines = plan.chain_lines;
    block.orders = reinterpret_cast<const int32_t*>(own + plan.orders_offset);
    block.sums_down = rows.period * layout.source_channels * columns.kernel * lanes;
    block.sums_across = columns.period * lanes;
    block.sums_channel = columns.kernel * lanes;
    for (int64_t vector = 0; vector < output_image.pieces.count(); ++vector) {
      block.gradient = gradient + vector * lanes;
      for_each_tap_block(rows, height, [&](int64_t i, int64_t down) {
        for_each_tap_block(columns, width, [&](int64_t j, int64_t across) {
          const int64_t together = channels_together(static_cast<int>(down * across));
          const Real* first = lines + layout.source_of_vector(vector) + i * rows.dilation * line_stride +
                              j * columns.dilation * input_image.pixel_stride;
          for (int64_t k = 0; k < layout.source_channels;) {
            const bool all = k + together <= layout.source_channels;
            block.lines = first;
            block.channel = k;
            block.sums = sums_of(own) + (vector * plan.terms + place(k, i, j)) * lanes;
            (layout.broadcasts ? tap_block_kernel_of<Real, true>(down, across, all)
                               : tap_block_kernel_of<Real, false>(down, across, all))(block);
            k += all ? together : 1;
          }
        });
      });
    }
  }

  // Calls visit(tap, count) for blocks of taps of one run: tap, tap + period, ..., which are not further
  // apart than the rows or columns of the unit are.
  template <class Visit>
  static void for_each_tap_block(const RowsAxis& axis, int64_t extent, const Visit& visit) {
    const bool has_blocks = (taps_of_block - 1) * axis.spread <= extent;
    for (int64_t u = 0; u < axis.runs(); ++u) {
      const int64_t taps = axis.run_taps(u);
      int64_t first = 0;
      for (; has_blocks && first + taps_of_block <= taps; first += taps_of_block) {
        visit(u + first * axis.period, int64_t{taps_of_block});
      }
      for (; first < taps; ++first) visit(u + first * axis.period, int64_t{1});
    }
  }

  int64_t place(int64_t k, int64_t i, int64_t j) const {
    return (i * plan.layout.source_channels + k) * plan.columns.kernel + j;
  }

  // Adds up the chunks of a tile, in order, and stores the result.
  void finish(int64_t tile, char* own) const {
    int32_t* places =
        reinterpret_cast<int32_t*>(own + plan.orders_offset) + plan.layout.source_channels * lanes;
    weights.fill_places(places,
                        [&](int64_t i, int64_t j) { return TermPlace{place(0, i, j), plan.columns.kernel}; });
    const Pieces pieces = plan.layout.result_pieces(plan.layout.groups_of_tile(tile));
    Real* sums = sums_of(own);
    if (plan.has_totals()) {
      const int64_t size = pieces.count() * plan.terms * lanes;
      double* totals = totals_of(tile, 0);
      for (int64_t chunk = 1; chunk < plan.chunks; ++chunk) {
        const double* part = totals_of(tile, chunk);
        for (int64_t k = 0; k < size; ++k) totals[k] += part[k];
      }
      for (int64_t k = 0; k < size; ++k) sums[k] = static_cast<Real>(totals[k]);
    }
    for (int64_t vector = 0; vector < pieces.count(); ++vector)
      weights.unpack(sums + vector * plan.terms * lanes, grad_weight, tile, vector, pieces.size(vector),
                     places);
  }

  const GroupWeightGradientPlan<T>& plan;
  const ConvProblem& p;
  GroupWeights<T> weights;
  const T* input;
  const T* grad_output;
  T* grad_weight;
  double* all_totals;
  char* scratch;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
