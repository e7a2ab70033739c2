// Forward and the gradient of the input. The work is cut into units, bands of rows of an image, and tiles of
// groups (see layout.h). For each pair the lines that it reads are copied into scratch, padding resolved and
// channels side by side, and correlated with the tile's weights, which were packed before.
//
// The gradient of the input is one correlation for each phase of positions (see implicit_gemm/axis.h), all of
// which read the same lines of the gradient of the output.
#pragma once

#include <atomic>
#include <type_traits>

#include "cpu/grouped/kernel.h"
#include "cpu/grouped/lines.h"
#include "cpu/grouped/weights.h"
#include "cpu/implicit_gemm/clear.h"
#include "cpu/implicit_gemm/patches.h"
#include "cpu/scratch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// One class of positions along an axis, with taps in the order in which the source lies: result position
// first + q * spacing and tap t read source position q * stride + t * step + offset, step > 0.
struct GroupAxis {
  int64_t first = 0;
  int64_t spacing = 1;
  int64_t count = 0;
  int64_t stride = 1;
  int64_t step = 1;
  int64_t taps = 0;
  int64_t offset = 0;

  GroupAxis() = default;
  explicit GroupAxis(const Axis& axis)
      : first(axis.first),
        spacing(axis.spacing),
        count(axis.count),
        stride(axis.stride),
        step(axis.step < 0 ? -axis.step : axis.step),
        taps(axis.taps),
        offset(axis.offset + smaller(0, (axis.taps - 1) * axis.step)) {}

  // The first q at or behind a result position.
  int64_t from(int64_t position) const {
    return smaller(count, position <= first ? 0 : ceil_div(position - first, spacing));
  }
  int64_t source(int64_t q) const { return q * stride + offset; }
  int64_t reach() const { return (taps - 1) * step; }
};

// All classes along an axis; a class has a tap of its own.
constexpr int64_t most_group_taps = 64;

struct GroupAxes {
  GroupAxis classes[most_group_taps];
  int64_t count;

  explicit GroupAxes(const AxisClasses& axis) : count(axis.phases) {
    for (int64_t index = 0; index < count; ++index) classes[index] = GroupAxis(axis.at(index));
  }

  // The source positions [begin, end) that result positions [first, last) read; with `in_blocks`, also those
  // that are read for the places of a last block of pixels that are dropped.
  struct Range {
    int64_t begin;
    int64_t end;
  };
  Range source(int64_t first, int64_t last, bool in_blocks = false) const {
    Range range{0, 0};
    bool is_empty = true;
    for (int64_t index = 0; index < count; ++index) {
      const GroupAxis& axis = classes[index];
      const int64_t q_begin = axis.from(first);
      const int64_t q_end = axis.from(last);
      if (q_begin >= q_end) continue;
      const int64_t begin = axis.source(q_begin);
      const int64_t results = q_end - q_begin;
      const int64_t computed = in_blocks ? round_up(results, group_pixels(results)) : results;
      const int64_t end = axis.source(q_begin + computed - 1) + axis.reach() + 1;
      range.begin = is_empty ? begin : smaller(range.begin, begin);
      range.end = is_empty ? end : larger(range.end, end);
      is_empty = false;
    }
    return range;
  }

  // How many they are for `results` positions, at most.
  static int64_t most_sources(const AxisClasses& axis, int64_t results) {
    const ProblemAxis& p = axis.p;
    const int64_t reach = (p.kernel - 1) * p.dilation;
    return axis.is_forward ? (results - 1) * p.stride + reach + 1 : (results - 1 + reach) / p.stride + 2;
  }
};

template <class T>
struct GroupCorrelationPlan {
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  Correlation c;
  GroupLayout<T> layout;
  bool writes_in_place;
  int64_t result_rows;
  int64_t result_columns;
  int64_t terms;
  int64_t band;
  int64_t bands;
  int64_t tile_columns;
  int64_t column_tiles;
  int64_t units;
  bool reads_channels;    // the source's channels are adjacent, so that tiles share its pages
  bool fetches_next;      // the next tile's channels while one is computed
  int64_t items_of_unit;  // parts of the tiles

  int64_t places_offset;  // behind the orders
  int64_t packed_offset;
  int64_t workers_offset;
  int64_t lines_offset;  // in a worker's part
  int64_t result_offset;
  int64_t parts_offset;
  int64_t worker_bytes;

  explicit GroupCorrelationPlan(const ConvProblem& p)
      : c(p),
        layout(p.groups, c.source_channels, c.result_channels),
        writes_in_place(std::is_same_v<T, Real> && has_channels_innermost(c.result_strides)),
        result_rows(c.is_forward ? p.output.height : p.input.height),
        result_columns(c.is_forward ? p.output.width : p.input.width),
        terms(c.source_channels * p.kernel.height * p.kernel.width) {
    constexpr int64_t widest = 64;
    column_tiles = ceil_div(result_columns, widest);
    tile_columns = ceil_div(result_columns, column_tiles);
    if (column_tiles > 1) tile_columns = round_up(tile_columns, most_group_pixels * c.columns.p.stride);
    column_tiles = ceil_div(result_columns, tile_columns);
    // All the channels of a band stay in the L2 cache until the last tile has read them.
    reads_channels = has_channels_innermost(c.source_strides);
    constexpr int64_t scratch_bytes = 96 * 1024;
    constexpr int64_t source_bytes = 256 * 1024;
    constexpr int64_t highest = 32;
    const int64_t pixel_bytes = p.groups * c.source_channels * static_cast<int64_t>(sizeof(T));
    const auto fits = [&] {
      const int64_t source = GroupAxes::most_sources(c.rows, band) *
                             GroupAxes::most_sources(c.columns, tile_columns) * pixel_bytes;
      return (lines_size() + result_size()) * static_cast<int64_t>(sizeof(Real)) <= scratch_bytes &&
             (!reads_channels || source <= source_bytes);
    };
    band = smaller(result_rows, highest);
    while (band > rows_together() && !fits()) --band;
    bands = ceil_div(result_rows, band);
    band = smaller(result_rows, round_up(ceil_div(result_rows, bands), rows_together()));
    bands = ceil_div(result_rows, band);
    units = p.batch * bands * column_tiles;
    constexpr int64_t wanted_items = 32;  // enough for the threads of a large machine
    // A smaller source is in the L2 cache already.
    constexpr int64_t most_cached = 2 * 1024 * 1024 / sizeof(T);
    fetches_next = reads_channels && p.batch * c.source_strides.batch > most_cached;
    items_of_unit = reads_channels ? smaller(layout.tiles, ceil_div(wanted_items, units)) : layout.tiles;

    Carver shared;
    shared.take(layout.source_channels * lanes, sizeof(int32_t));
    places_offset = shared.take(terms, sizeof(int32_t));
    packed_offset = shared.take(layout.tiles * packed_size(), sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    lines_offset = own.take(lines_size(), sizeof(Real));
    result_offset = own.take(result_size(), sizeof(Real));
    parts_offset = own.take(group_parts<Real>, sizeof(Real));
    worker_bytes = own.bytes;
  }

  int64_t packed_size() const { return layout.tile_vectors() * terms * lanes; }  // of a tile
  // Rows of results for which lines are copied and correlated at a time.
  int64_t rows_together() const { return most_group_rows * (c.is_forward ? 1 : c.rows.p.stride); }
  int64_t source_stride() const { return layout.source_pieces(layout.tile_groups).pixel_stride(); }
  int64_t result_stride() const { return layout.tile_vectors() * lanes; }
  // With the pixels that the kernel computes and drops at the end of a line.
  int64_t line_pixels(int64_t columns) const {
    return GroupAxes::most_sources(c.columns, columns) +
           (most_group_pixels - 1) * (c.is_forward ? c.columns.p.stride : int64_t{1});
  }
  // Operands are whole vectors, also of the last groups.
  int64_t lines_size() const {
    return GroupAxes::most_sources(c.rows, band) * line_pixels(tile_columns) * source_stride() + lanes;
  }
  int64_t result_size() const { return writes_in_place ? 0 : band * tile_columns * result_stride(); }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }
};

template <class T>
class GroupCorrelation {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  GroupCorrelation(const GroupCorrelationPlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                   void* workspace)
      : plan(cut),
        c(plan.c),
        p(problem),
        weights(plan.layout, problem, c.is_forward),
        source(static_cast<const T*>(c.is_forward ? data.input : data.output)),
        result(static_cast<T*>(c.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        row_axes(c.rows),
        column_axes(c.columns),
        source_rows(source_axis(c.rows)),
        source_columns(source_axis(c.columns)),
        orders(static_cast<int32_t*>(workspace)),
        places(reinterpret_cast<int32_t*>(static_cast<char*>(workspace) + plan.places_offset)),
        packed_weights(reinterpret_cast<Real*>(static_cast<char*>(workspace) + plan.packed_offset)),
        scratch(static_cast<char*>(workspace) + plan.workers_offset),
        streams(is_result_streamed<T>(p) && plan.writes_in_place &&
                are_whole_lines<T>(c.result_strides.column)) {}

  // False if a weight is not finite and the gradient of the input is wanted, which is then to be computed in
  // another way: the zeros that stand for outputs that do not exist would turn into NaN.
  bool run(const Executor& executor) {
    for_each_tile(executor, rows_to_clear(c), [&](int64_t row, int) { clear_row(c, result, row); });
    plan.layout.fill_orders(orders);
    weights.fill_places(places, [&](int64_t i, int64_t j) { return place(i, j); });
    std::atomic<bool> all_are_finite{true};
    constexpr int64_t worth_sharing = 1 << 15;
    const bool share = plan.layout.tiles * plan.packed_size() > worth_sharing;
    for_each_tile(share ? executor : Executor{}, plan.layout.tiles, [&](int64_t tile, int) {
      if (!pack(tile)) all_are_finite.store(false, std::memory_order_relaxed);
    });
    has_non_finite_weight = !all_are_finite.load(std::memory_order_relaxed);
    if (has_non_finite_weight && !c.is_forward) return false;
    const int64_t tiles = plan.layout.tiles;
    const int64_t parts = plan.items_of_unit;
    for_each_tile(executor, plan.units * parts, [&](int64_t index, int worker) {
      // Two workers are seldom in the same rows, whose pages may be new to both.
      const int64_t unit = index % plan.units;
      const int64_t part = index / plan.units;
      for (int64_t tile = tiles * part / parts; tile < tiles * (part + 1) / parts; ++tile)
        run_unit(unit, tile, scratch + worker * plan.worker_bytes);
      if (streams) finish_streams();
    });
    return true;
  }

 private:
  // Some pixels of one image for one tile of groups.
  struct Unit {
    int64_t tile;
    int64_t groups;
    int64_t row;
    int64_t column;
    int64_t height;
    int64_t width;
    const Real* lines;
    int64_t first_line;   // its source row
    int64_t first_pixel;  // its source column
    int64_t pixel_stride;
    int64_t line_stride;
    Real* target;
    int64_t target_row;
    int64_t target_column;
  };

  SourceAxis source_axis(const AxisClasses& axis) const {
    if (!c.is_forward) return {axis.p.output, 0, 0, PaddingMode::zeros};
    return {axis.p.input, axis.p.before, axis.p.after, axis.p.mode};
  }

  // Where the weights of taps i and j are packed: by classes of positions, and in each [tap
  // down][channel][tap across], taps in the order in which they meet the source.
  TermPlace place(int64_t i, int64_t j) const {
    const int64_t channels = c.source_channels;
    const int64_t kernel_columns = c.columns.p.kernel;
    if (c.is_forward) return {i * channels * kernel_columns + j, kernel_columns};
    const int64_t row_set = i % c.rows.period;
    const int64_t column_set = j % c.columns.period;
    const int64_t row_tap = c.rows.taps_of_set(row_set) - 1 - i / c.rows.period;
    const int64_t column_taps = c.columns.taps_of_set(column_set);
    const int64_t column_tap = column_taps - 1 - j / c.columns.period;
    return {terms_before(row_set, column_set) + row_tap * channels * column_taps + column_tap, column_taps};
  }
  int64_t terms_before(int64_t row_set, int64_t column_set) const {
    return c.is_forward ? 0 : c.terms_before(row_set, column_set);
  }

  Real* packed_tile(int64_t tile) const { return packed_weights + tile * plan.packed_size(); }

  // False if a weight is not finite.
  bool pack(int64_t tile) const {
    const int64_t vectors = plan.layout.result_pieces(plan.layout.groups_of_tile(tile)).count();
    for (int64_t vector = 0; vector < vectors; ++vector)
      weights.pack(packed_tile(tile) + vector * plan.terms * lanes, weight, tile, vector, places);
    return all_finite(packed_tile(tile), vectors * plan.terms * lanes);
  }

  void run_unit(int64_t index, int64_t tile, char* own) const {
    Unit unit;
    unit.tile = tile;
    unit.groups = plan.layout.groups_of_tile(tile);
    unit.column = index % plan.column_tiles * plan.tile_columns;
    unit.row = index / plan.column_tiles % plan.bands * plan.band;
    unit.height = smaller(plan.band, plan.result_rows - unit.row);
    unit.width = smaller(plan.tile_columns, plan.result_columns - unit.column);
    if (unit.height > 0 && unit.width > 0) compute(index / plan.column_tiles / plan.bands, unit, own);
  }

  void compute(int64_t n, Unit& unit, char* own) const {
    const GroupLayout<T>& layout = plan.layout;
    const int64_t first_group = unit.tile * layout.tile_groups;
    const int64_t last_row = unit.row + unit.height;
    Real* lines = reinterpret_cast<Real*>(own + plan.lines_offset);
    const GroupAxes::Range columns = column_axes.source(unit.column, unit.column + unit.width, true);
    const GroupAxes::Range all_rows = row_axes.source(unit.row, last_row);
    const int64_t line_pixels = columns.end - columns.begin;
    const GroupImage<T> from(c.source_strides, layout.source_pieces(unit.groups));
    const T* image =
        source + n * c.source_strides.batch + first_group * layout.source_channels * c.source_strides.channel;
    const bool has_next = plan.fetches_next && unit.tile + 1 < layout.tiles;
    const int64_t ahead = has_next ? unit.groups * layout.source_channels * c.source_strides.channel : 0;
    unit.lines = lines;
    unit.first_line = all_rows.begin;
    unit.first_pixel = columns.begin;
    unit.pixel_stride = from.pixel_stride;
    unit.line_stride = line_pixels * from.pixel_stride;

    const GroupImage<T> to(c.result_strides, layout.result_pieces(unit.groups));
    T* target = result + n * c.result_strides.batch +
                first_group * layout.result_channels * c.result_strides.channel +
                unit.row * c.result_strides.row + unit.column * c.result_strides.column;
    Real* place = reinterpret_cast<Real*>(own + plan.result_offset);
    unit.target = place;
    unit.target_row = unit.width * to.pixel_stride;
    unit.target_column = to.pixel_stride;
    if constexpr (std::is_same_v<T, Real>) {
      if (plan.writes_in_place) {
        unit.target = target;
        unit.target_row = c.result_strides.row;
        unit.target_column = c.result_strides.column;
      }
    }
    const bool clears = !plan.writes_in_place && rows_to_clear(c) > 0;
    if (clears) fill_zero_vectors(place, unit.height * unit.width * to.pixel_stride);

    // Pixels are copied just before they are needed, while they are in the L1 cache. Planes are transposed as
    // a whole: their rows are no multiples of vectors.
    int64_t next_row = all_rows.begin;
    for (int64_t row = unit.row; row < last_row; row += plan.rows_together()) {
      const int64_t end_row = smaller(last_row, row + plan.rows_together());
      const int64_t end_source =
          plan.reads_channels ? larger(next_row, row_axes.source(row, end_row).end) : all_rows.end;
      from.read(image, lines + (next_row - all_rows.begin) * unit.line_stride, line_pixels, source_rows,
                source_columns, next_row, end_source - next_row, columns.begin, ahead);
      next_row = end_source;
      for (int64_t vector = 0; vector < to.pieces.count(); ++vector)
        correlate_rows(unit, row, end_row, vector, to.pieces, own);
    }
    if (!plan.writes_in_place) to.write(target, place, unit.height, unit.width);
  }

  // Result rows [first_row, last_row) of one vector.
  void correlate_rows(const Unit& unit, int64_t first_row, int64_t last_row, int64_t vector,
                      const Pieces& pieces, char* own) const {
    const GroupLayout<T>& layout = plan.layout;
    GroupRows<Real> rows;
    rows.channels = layout.source_channels;
    rows.orders = orders;
    rows.parts = reinterpret_cast<Real*>(own + plan.parts_offset);
    rows.size = plan.writes_in_place ? pieces.size(vector) : lanes;
    rows.streams = streams;
    rows.bias = zero<Real>();
    if (bias != nullptr) {
      rows.bias =
          load_widened(bias + unit.tile * layout.tile_groups * layout.result_channels + pieces.first(vector),
                       pieces.size(vector));
    }
    const Real* packed = packed_tile(unit.tile) + vector * plan.terms * lanes;
    const Real* lines = unit.lines + layout.source_of_vector(vector);
    Real* target = unit.target + (plan.writes_in_place ? pieces.first(vector) : vector * lanes);
    for (int64_t a = 0; a < row_axes.count; ++a) {
      const GroupAxis& down = row_axes.classes[a];
      const int64_t y_begin = down.from(first_row);
      const int64_t y_end = down.from(last_row);
      if (y_begin >= y_end) continue;
      rows.taps_down = down.taps;
      rows.line_stride = (down.taps == 1 ? down.stride : down.step) * unit.line_stride;
      rows.target_stride = down.spacing * unit.target_row;
      const int64_t rows_together = down.stride == down.step || down.taps == 1 ? most_group_rows : 1;
      for (int64_t b = 0; b < column_axes.count; ++b) {
        const GroupAxis& across = column_axes.classes[b];
        const int64_t x_begin = across.from(unit.column);
        rows.pixels = across.from(unit.column + unit.width) - x_begin;
        if (rows.pixels <= 0) continue;
        rows.weights = packed + terms_before(a, b) * lanes;
        rows.taps_across = across.taps;
        rows.tap_step = across.step * unit.pixel_stride;
        rows.pixel_step = across.stride * unit.pixel_stride;
        rows.target_step = across.spacing * unit.target_column;
        set_chain(rows);
        const Real* line = lines + (across.source(x_begin) - unit.first_pixel) * unit.pixel_stride;
        Real* target_line =
            target + (across.first + x_begin * across.spacing - unit.column) * unit.target_column;
        for (int64_t y = y_begin; y < y_end;) {
          const bool together = rows_together > 1 && y + rows_together <= y_end;
          rows.lines = line + (down.source(y) - unit.first_line) * unit.line_stride;
          set_lines(rows, down, y);
          rows.target = target_line + (down.first + y * down.spacing - unit.row) * unit.target_row;
          (together ? kernel_of<most_group_rows>(rows) : kernel_of<1>(rows))(rows);
          y += together ? rows_together : 1;
        }
      }
    }
  }

  // Of the lines that row y and the one behind it read, those that are no padding. Zeros times a weight that
  // is not finite are NaN, so then all count.
  void set_lines(GroupRows<Real>& rows, const GroupAxis& down, int64_t y) const {
    rows.first_line = 0;
    rows.end_line = down.taps + most_group_rows - 1;
    if (source_rows.mode != PaddingMode::zeros || has_non_finite_weight) return;
    const int64_t first = down.source(y);
    const int64_t step = down.taps == 1 ? down.stride : down.step;
    rows.first_line = Inside::first_at_least(step, -first, rows.end_line);
    rows.end_line =
        larger(rows.first_line, Inside::first_at_least(step, source_rows.size - first, rows.end_line));
  }

  template <int row_count>
  GroupKernel<Real> kernel_of(const GroupRows<Real>& rows) const {
    return plan.layout.broadcasts ? group_kernel_of<Real, true, row_count>(rows)
                                  : group_kernel_of<Real, false, row_count>(rows);
  }

  // Chains of additions: whole taps down, or some channels of one. They follow from the shape alone.
  static void set_chain(GroupRows<Real>& rows) {
    const int64_t terms_of_tap = rows.channels * rows.taps_across;
    const int64_t longest = sum_shape(terms_of_tap * rows.taps_down, Pass::forward).chain;
    if (terms_of_tap <= longest) {
      const int64_t chains = ceil_div(rows.taps_down, longest / terms_of_tap);
      rows.chain_taps = ceil_div(rows.taps_down, chains);
      rows.chain_channels = rows.channels;
    } else {
      const int64_t chains = ceil_div(rows.channels, larger(1, longest / rows.taps_across));
      rows.chain_taps = 1;
      rows.chain_channels = ceil_div(rows.channels, chains);
    }
  }

  const GroupCorrelationPlan<T>& plan;
  const Correlation& c;
  const ConvProblem& p;
  GroupWeights<T> weights;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  GroupAxes row_axes;
  GroupAxes column_axes;
  SourceAxis source_rows;
  SourceAxis source_columns;
  int32_t* orders;
  int32_t* places;
  Real* packed_weights;
  char* scratch;
  bool streams;
  bool has_non_finite_weight = false;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
