// Correlations whose source is contiguous along rows: neighbouring results of a row lie in the lanes of a
// vector, and a tile is some result channels times some vectors of results, with k = (c, i, j).
//
// A work item is a strip of results for a block of result channels, whose source is whichever costs less:
// - a band of lines (see band.h);
// - a matrix of patches (see patches.h), which fits any positions: borders, and strips of small maps that run
//   across rows and images.
// Weights are read where they lie, too, but for 16-bit types, which are widened once.
#pragma once

#include <atomic>

#include "cpu/implicit_gemm/micro_kernel.h"
#include "cpu/implicit_gemm/pixels_plan.h"
#include "cpu/implicit_gemm/source_ahead.h"
#include "cpu/streaming.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class PixelsInLanes {
 public:
  PixelsInLanes(const Correlation& correlation, const PixelsInLanesPlan<T>& cut, const ConvProblem& problem,
                const ConvData& data, void* workspace)
      : c(correlation),
        plan(cut),
        source(static_cast<const T*>(c.is_forward ? data.input : data.output)),
        result(static_cast<T*>(c.is_forward ? data.output : data.input)),
        weight(static_cast<const T*>(data.weight)),
        bias(problem.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr),
        scratch(static_cast<char*>(workspace)),
        is_large(is_worth_streaming<T>(c.result_numbers())),
        may_miss_terms(!c.is_forward && !is_pointwise(problem)) {}

  // False, with nothing usable written, where a weight of an input gradient is not finite. Past the edge of
  // the gradient of the output, there are zeros for terms that do not exist, and times infinity those would
  // be NaN. Every weight that counts leaves its trace in a result, so results are looked at first.
  bool run(const Executor& executor) {
    for_each_tile(executor, rows_to_clear(c), [&](int64_t index, int) { clear_row(c, result, index); });
    if (plan.packs_weights) {
      for_each_tile(executor, c.tap_sets() * c.groups * plan.tiles,
                    [&](int64_t index, int) { pack_weights(index); });
    }
    for (int64_t first = 0; first < c.classes(); first += classes_at_a_time) {
      run_classes(executor, first, smaller(classes_at_a_time, c.classes() - first));
    }
    return !has_non_finite_result.load(std::memory_order_relaxed) || all_weights_finite();
  }

 private:
  using Real = Compute<T>;
  using Plan = PixelsInLanesPlan<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  // What the items of a class have in common.
  struct ClassWork {
    Patches<T> patches;  // of group 0
    Strips strips;
    int64_t row_set;
    int64_t column_set;
    int64_t terms;
    int64_t channel_blocks;
    int64_t items;
  };
  static constexpr int64_t classes_at_a_time = 16;

  struct Item {
    const ClassWork* work;
    int64_t group;
    int64_t first_channel;  // in the group
    int64_t channels;
    int64_t image;         // but for patches
    int64_t first;         // place, or row of a band
    int64_t first_column;  // of a band
    int64_t places;
  };

  // Where a tile's results go.
  struct Target {
    T* first;  // of the tile's first channel
    int64_t channels;
    int64_t place;  // of the strip
    int64_t end;
  };

  const Correlation& c;
  const Plan& plan;
  const T* source;
  T* result;
  const T* weight;
  const T* bias;
  char* scratch;
  bool is_large;        // the result
  bool may_miss_terms;  // of the gradient of the input, beside the edge of the gradient of the output
  std::atomic<bool> has_non_finite_result{false};

  ClassWork work_of(int64_t row_class, int64_t column_class, int workers) const {
    ClassWork work;
    Patches<T>& patches = work.patches;
    patches.source = source;
    patches.strides = c.source_strides;
    patches.batch = c.batch;
    patches.channels = c.source_channels;
    patches.rows = c.rows.at(row_class);
    patches.columns = c.columns.at(column_class);
    work.strips = plan.cut(patches.rows, patches.columns);
    work.row_set = c.rows.tap_set_of(row_class);
    work.column_set = c.columns.tap_set_of(column_class);
    work.terms = patches.terms();
    work.channel_blocks = ceil_div(plan.tiles, plan.tiles_of_item);
    const int64_t items = c.groups * work.strips.total * c.classes();
    if (workers > 1 && items * work.channel_blocks < 3 * workers && items > 0) {
      // Few items: smaller blocks of channels, as long as a block is worth copying the source for.
      const int64_t wanted = ceil_div(3 * workers, items);
      work.channel_blocks = larger(work.channel_blocks, smaller(wanted, plan.tiles * plan.width / 32));
    }
    work.items = c.groups * work.strips.total * work.channel_blocks;
    return work;
  }

  // The items of a few classes, in one parallel loop.
  void run_classes(const Executor& executor, int64_t first, int64_t count) {
    ClassWork works[classes_at_a_time];
    int64_t items = 0;
    for (int64_t k = 0; k < count; ++k) {
      works[k] = work_of((first + k) / c.columns.count(), (first + k) % c.columns.count(), executor.workers);
      items += works[k].items;
    }
    for_each_tile(executor, items, [&](int64_t index, int worker) {
      const int64_t next = next_tile(index);
      const SourceAhead ahead = next < items ? first_source_of(item_at(works, next)) : SourceAhead{};
      run_item(item_at(works, index), ahead, scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
  }

  Item item_at(const ClassWork* works, int64_t index) const {
    Item item;
    item.work = works;
    while (index >= item.work->items) index -= item.work++->items;
    const ClassWork& work = *item.work;
    const int64_t strip = index % work.strips.total;
    index /= work.strips.total;
    const int64_t block = index % work.channel_blocks;
    item.group = index / work.channel_blocks;
    item.first_channel = block * plan.tiles / work.channel_blocks * plan.width;
    item.channels = smaller((block + 1) * plan.tiles / work.channel_blocks * plan.width, c.result_channels) -
                    item.first_channel;
    item.image = strip / work.strips.count;
    const int64_t of_image = strip % work.strips.count;
    item.first = of_image / work.strips.across * work.strips.size;
    item.first_column = of_image % work.strips.across * work.strips.columns;
    return item;
  }

  // What the item will copy for terms [first, first + length).
  SourceAhead source_of(const Item& item, int64_t first, int64_t length) const {
    const ClassWork& work = *item.work;
    const Axis& rows = work.patches.rows;
    const Axis& columns = work.patches.columns;
    const int64_t taps = rows.taps * columns.taps;
    int64_t image = item.image;
    int64_t row = item.first;
    int64_t row_count = smaller(work.strips.size, rows.count - row);
    int64_t column = item.first_column;
    int64_t column_count = smaller(work.strips.columns, columns.count - column);
    if (!work.strips.is_band) {
      // Pixels of one image, and whole rows unless it is a single one.
      const int64_t pixels = rows.count * columns.count;
      image = item.first / pixels;
      const int64_t begin = item.first % pixels;
      const int64_t end = smaller(pixels, begin + work.strips.size);
      row = begin / columns.count;
      row_count = (end - 1) / columns.count + 1 - row;
      column = rows.count == 1 ? begin : 0;
      column_count = rows.count == 1 ? end - begin : columns.count;
    }
    const int64_t first_channel = first / taps;
    const T* from = source + item.group * c.source_channels * c.source_strides.channel +
                    image * c.source_strides.batch + first_channel * c.source_strides.channel;
    return {from,
            c.source_strides,
            ceil_div(first + length, taps) - first_channel,
            SourceRange(rows, row, row_count),
            rows.taps == 1 ? rows.stride : 1,
            SourceRange(columns, column, column_count)};
  }
  SourceAhead first_source_of(const Item& item) const {
    return source_of(item, 0, ReductionBlocks(item.work->terms).length(0));
  }

  void run_item(Item item, const SourceAhead& next_item, char* own) {
    const ClassWork& work = *item.work;
    Real* const local = reinterpret_cast<Real*>(own + plan.source_offset);
    Real* const sums = reinterpret_cast<Real*>(own + plan.sums_offset);
    int32_t* const a_terms = reinterpret_cast<int32_t*>(own + plan.terms_offset);
    int32_t* const b_terms = a_terms + block_terms;
    Patches<T> patches = work.patches;
    patches.source += item.group * c.source_channels * c.source_strides.channel;
    const Axis& rows = patches.rows;
    const Axis& columns = patches.columns;
    const bool is_band = work.strips.is_band;
    const Band band(rows, columns, is_band ? item.first : 0,
                    is_band ? smaller(work.strips.size, rows.count - item.first) : 1, item.first_column,
                    is_band ? smaller(work.strips.columns, columns.count - item.first_column) : 1);
    item.places = is_band ? band.places() : smaller(work.strips.size, patches.pixels() - item.first);

    const int64_t taps = rows.taps * columns.taps;
    const ReductionBlocks blocks(work.terms);
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int64_t first = blocks.first(b);
      const int64_t length = blocks.length(b);
      const int64_t first_channel = first / taps;
      TileOperands<Real> operands{};
      operands.terms = length;
      operands.chain = blocks.chain;
      operands.a_terms = a_terms;
      operands.b_terms = b_terms;
      set_weights(item, first, length, a_terms, operands);
      operands.b = local;
      if (is_band) {
        const T* first_line =
            patches.source + item.image * c.source_strides.batch + first_channel * c.source_strides.channel;
        fill_band(band, first_line, c.source_strides, ceil_div(first + length, taps) - first_channel,
                  Plan::slack, local);
        fill_terms(b_terms, rows.taps, columns.taps, first, length, band.channel_stride,
                   [&](int64_t i, int64_t j) { return band.at(i, j); });
      } else {
        pack_pixels_fastest(patches, item.first, item.places, round_up(item.places, lanes), first, length,
                            local, plan.patches_stride);
        for (int64_t k = 0; k < length; ++k) b_terms[k] = static_cast<int32_t>(k * plan.patches_stride);
      }
      const SourceAhead ahead =
          b + 1 < blocks.count ? source_of(item, blocks.first(b + 1), blocks.length(b + 1)) : next_item;
      multiply(operands, patches, band, item, ahead, sums, b);
    }
    if (is_large) finish_streams();
  }

  // table[k] = where term first + k reads, counted from the first channel among them.
  template <class At>
  static void fill_terms(int32_t* table, int64_t row_taps, int64_t column_taps, int64_t first, int64_t count,
                         int64_t channel_stride, const At& at) {
    if (count <= 0) return;
    const int64_t taps = row_taps * column_taps;
    int64_t tap = first % taps;
    // The first occurrence of each tap, then the same a channel further.
    for (int64_t k = 0; k < smaller(taps, count); ++k) {
      const int64_t channel = tap < first % taps ? channel_stride : 0;
      table[k] = static_cast<int32_t>(at(tap / column_taps, tap % column_taps) + channel);
      if (++tap == taps) tap = 0;
    }
    for (int64_t k = taps; k < count; ++k) table[k] = table[k - taps] + static_cast<int32_t>(channel_stride);
  }

  void set_weights(const Item& item, int64_t first, int64_t length, int32_t* table,
                   TileOperands<Real>& operands) const {
    const ClassWork& work = *item.work;
    if (plan.packs_weights) {
      operands.a = packed_tile(work.row_set, work.column_set, work.terms, item.group,
                               item.first_channel / plan.width) +
                   first * plan.width;
      operands.a_row = 1;
      for (int64_t k = 0; k < length; ++k) table[k] = static_cast<int32_t>(k * plan.width);
      return;
    }
    if constexpr (std::is_same_v<T, Real>) {
      const int64_t row_taps = work.patches.rows.taps;
      const int64_t column_taps = work.patches.columns.taps;
      const int64_t first_channel = first / (row_taps * column_taps);
      operands.a = weight + item.group * c.weight_group_stride + item.first_channel * c.weight_result_stride +
                   first_channel * c.weight_source_stride;
      operands.a_row = c.weight_result_stride;
      fill_terms(table, row_taps, column_taps, first, length, c.weight_source_stride,
                 [&](int64_t i, int64_t j) {
                   return c.rows.tap(work.row_set, i) * c.weight_strides.row +
                          c.columns.tap(work.column_set, j) * c.weight_strides.column;
                 });
    }
  }

  // Which places the tiles of a strip begin at. Where rows are about as wide as whole vectors, every row
  // begins a tile, so that most tiles lie in one row, and in whole lines of the cache.
  struct TileCut {
    int64_t rows;
    int64_t pitch;
    int64_t vectors;  // of a row
    int64_t tiles;    // of a row

    TileCut(const Strips& strips, const Band& band, int64_t places, int64_t width) {
      const int64_t of_row = ceil_div(band.columns.count, lanes);
      const bool by_rows = strips.is_band && of_row * lanes <= band.pitch;
      pitch = band.pitch;
      rows = by_rows ? ceil_div(places, pitch) : 1;
      vectors = by_rows ? of_row : ceil_div(places, lanes);
      tiles = ceil_div(vectors, tile_vectors(width));
    }
  };

  // Where the results of a tile follow each other in memory, so that the micro-kernel can write them itself.
  T* neighbours_of(const Patches<T>& patches, const Band& band, const Item& item, const Target& target,
                   int64_t numbers) const {
    if (!std::is_same_v<T, Real> || may_miss_terms || c.result_strides.column != 1 ||
        target.end - target.place != numbers) {
      return nullptr;
    }
    T* found = nullptr;
    for_each_segment_of(patches, band, item, target, [&](const Segment& segment) {
      if (segment.length != numbers) return;
      found = line_of(patches, segment, target) + patches.columns.result_position(segment.column);
    });
    return found;
  }

  // sums[channel][place]; of a single block, only one tile of them at a time.
  void multiply(TileOperands<Real> operands, const Patches<T>& patches, const Band& band, const Item& item,
                const SourceAhead& ahead, Real* sums, int64_t block) {
    const ClassWork& work = *item.work;
    const ReductionBlocks blocks(work.terms);
    const bool is_last = block + 1 == blocks.count;
    const TileCut cut(work.strips, band, item.places, plan.width);
    const int64_t pixel_tiles = cut.rows * cut.tiles;
    const int64_t channel_tiles = ceil_div(item.channels, plan.width);
    // What is read again for each tile of the other is to be in the L1 cache: places of a small band are
    // anyway, and then long runs of results are written one after the other.
    constexpr int64_t small_band = 24 * 1024 / sizeof(Real);
    const bool is_small_band =
        work.strips.is_band && blocks.count == 1 && c.source_channels * band.channel_stride <= small_band;
    const bool channels_inside = item.places >= item.channels && !is_small_band;
    const Real* const a = operands.a;
    const Real* const b = operands.b;
    const int64_t first_channel = item.group * c.result_channels + item.first_channel;
    for (int64_t index = 0; index < pixel_tiles * channel_tiles; ++index) {
      const int64_t pixel_tile = channels_inside ? index / channel_tiles : index % pixel_tiles;
      const int64_t channel_tile = channels_inside ? index % channel_tiles : index / pixel_tiles;
      const int64_t channel = channel_tile * plan.width;
      const int64_t tile_of_row = pixel_tile % cut.tiles;
      const int64_t first = tile_of_row * cut.vectors / cut.tiles;
      const int64_t count = (tile_of_row + 1) * cut.vectors / cut.tiles - first;
      const int64_t place = pixel_tile / cut.tiles * cut.pitch + first * lanes;
      operands.a =
          a + (plan.packs_weights ? channel_tile * plan.width * work.terms : channel * operands.a_row);
      operands.b = b + place;
      operands.ahead = Ahead<Real>{};
      if (!plan.packs_weights && !channels_inside && channel_tile + 1 < channel_tiles) {
        fetch_slice(operands, pixel_tile, pixel_tiles, operands.a + plan.width * operands.a_row,
                    operands.a_terms, 8, operands.a_row,
                    smaller(plan.width, item.channels - channel - plan.width));
      }
      const int64_t channels = smaller(plan.width, item.channels - channel);
      const bool is_single = blocks.count == 1;
      Real* const to = is_single ? sums : sums + channel * plan.sums_stride + place;
      Real start[most_tile_rows];
      if (block == 0 && bias != nullptr) {
        for (int64_t m = 0; m < channels; ++m) start[m] = widen(bias[first_channel + channel + m]);
        operands.start = start;
      }
      const Target target{result + (first_channel + channel) * c.result_strides.channel, channels, place,
                          smaller(item.places, place + count * lanes)};
      T* const in_place = is_single ? neighbours_of(patches, band, item, target, count * lanes) : nullptr;
      operands.streams = in_place != nullptr && is_large && begins_line(in_place) &&
                         are_whole_lines<T>(count * lanes) && are_whole_lines<T>(c.result_strides.channel);
      if (is_last && !operands.streams) {
        for_each_segment_of(patches, band, item, target,
                            [&](const Segment& segment) { fetch_line(patches, segment, target); });
      }
      ahead.fetch(index, pixel_tiles * channel_tiles);
      const MicroKernel<Real> kernel = micro_kernel_of<Real>(channels, count);
      if constexpr (std::is_same_v<T, Real>) {
        if (in_place != nullptr) {
          kernel(operands, in_place, c.result_strides.channel, false);
          continue;
        }
      }
      kernel(operands, to, plan.sums_stride, block > 0);
      if (is_last) store_tile(patches, band, item, target, to);
    }
  }

  // Has a tile fetch the `part`-th of `parts` of another tile's operand.
  static void fetch_slice(TileOperands<Real>& operands, int64_t part, int64_t parts, const Real* base,
                          const int32_t* terms, int64_t step, int64_t stride, int64_t lines) {
    const int64_t all = ceil_div(operands.terms, step);
    const int64_t first = part * all / parts;
    operands.ahead = {base, terms + first * step, step, (part + 1) * all / parts - first, stride, lines};
  }

  // The parts of result rows that a tile covers.
  template <class Visit>
  CONVEXT_INLINE void for_each_segment_of(const Patches<T>& patches, const Band& band, const Item& item,
                                          const Target& target, const Visit& visit) const {
    if (!item.work->strips.is_band) {
      for_each_segment(patches.rows.count, patches.columns.count, item.first + target.place,
                       target.end - target.place, visit);
      return;
    }
    for (int64_t row = target.place / band.pitch; row * band.pitch < target.end; ++row) {
      const int64_t begin = larger(target.place, row * band.pitch);
      const int64_t end = smaller(target.end, row * band.pitch + band.columns.count);
      if (begin >= end) continue;
      visit({item.image, item.first + row, item.first_column + begin - row * band.pitch, end - begin,
             begin - target.place});
    }
  }

  T* line_of(const Patches<T>& patches, const Segment& segment, const Target& target) const {
    return target.first + segment.image * c.result_strides.batch +
           patches.rows.result_position(segment.row) * c.result_strides.row;
  }

  // Has the memory bring the lines of the cache that a tile will be stored to, while it is computed.
  CONVEXT_INLINE void fetch_line(const Patches<T>& patches, const Segment& segment,
                                 const Target& target) const {
    const int64_t step = c.result_strides.column * patches.columns.spacing;
    if (step > 8) return;
    const T* line = line_of(patches, segment, target) +
                    patches.columns.result_position(segment.column) * c.result_strides.column;
    const int64_t bytes = segment.length * step * static_cast<int64_t>(sizeof(T));
    for (int64_t m = 0; m < target.channels; ++m, line += c.result_strides.channel) {
      const char* const first = reinterpret_cast<const char*>(line);
      for (int64_t x = 0; x < bytes; x += 64) __builtin_prefetch(first + x, 1);
    }
  }

  void store_tile(const Patches<T>& patches, const Band& band, const Item& item, const Target& target,
                  const Real* sums) {
    // Zero as long as all results are finite: 0 * finite is 0, anything else is NaN.
    Vector<Real> trace = zero<Real>();
    for_each_segment_of(patches, band, item, target,
                        [&](const Segment& segment) { store_line(patches, segment, target, sums, trace); });
    if (may_miss_terms && !(sum(trace) == 0)) has_non_finite_result.store(true, std::memory_order_relaxed);
  }

  CONVEXT_INLINE void store_line(const Patches<T>& patches, const Segment& segment, const Target& target,
                                 const Real* sums, Vector<Real>& trace) const {
    const ImageStrides& strides = c.result_strides;
    const Axis& columns = patches.columns;
    const bool contiguous = strides.column == 1 && columns.spacing == 1 && !columns.is_border;
    T* line = line_of(patches, segment, target) + (contiguous ? columns.result_position(segment.column) : 0);
    for (int64_t m = 0; m < target.channels; ++m, line += strides.channel) {
      const Real* const values = sums + m * plan.sums_stride + segment.begin;
      int64_t x = 0;
      for (; x + lanes <= segment.length; x += lanes) {
        const Vector<Real> value = load(values + x);
        if (contiguous) store_narrowed(line + x, value);
        trace = fmadd(value, zero<Real>(), trace);
      }
      if (x < segment.length) {
        const Vector<Real> value = load(values + x, segment.length - x);
        if (contiguous) store_narrowed(line + x, value, segment.length - x);
        trace = fmadd(value, zero<Real>(), trace);
      }
      if (contiguous) continue;
      for (x = 0; x < segment.length; ++x) {
        line[columns.result_position(segment.column + x) * strides.column] = narrow<T>(values[x]);
      }
    }
  }

  // packed[term][channel of the tile], widened.
  void pack_weights(int64_t index) const {
    const int64_t tile = index % plan.tiles;
    index /= plan.tiles;
    const int64_t group = index % c.groups;
    index /= c.groups;
    const int64_t column_set = index % c.columns.tap_sets();
    const int64_t row_set = index / c.columns.tap_sets();
    const int64_t row_taps = c.rows.taps_of_set(row_set);
    const int64_t column_taps = c.columns.taps_of_set(column_set);
    Real* to = packed_tile(row_set, column_set, row_taps * column_taps * c.source_channels, group, tile);
    const int64_t first = tile * plan.width;
    const int64_t channels = smaller(plan.width, c.result_channels - first);
    const T* from = weight + group * c.weight_group_stride + first * c.weight_result_stride;
    for (int64_t k = 0; k < c.source_channels; ++k, from += c.weight_source_stride) {
      for (int64_t i = 0; i < row_taps; ++i) {
        const T* row = from + c.rows.tap(row_set, i) * c.weight_strides.row;
        for (int64_t j = 0; j < column_taps; ++j, to += plan.width) {
          const T* value = row + c.columns.tap(column_set, j) * c.weight_strides.column;
          for (int64_t m = 0; m < channels; ++m) to[m] = widen(value[m * c.weight_result_stride]);
        }
      }
    }
  }

  Real* packed_tile(int64_t row_set, int64_t column_set, int64_t terms, int64_t group, int64_t tile) const {
    return reinterpret_cast<Real*>(scratch) +
           plan.width * (c.groups * plan.tiles * c.terms_before(row_set, column_set) +
                         (group * plan.tiles + tile) * terms);
  }

  bool all_weights_finite() const {
    for (int64_t channel = 0; channel < c.groups * c.result_channels; ++channel) {
      const T* from = weight + channel / c.result_channels * c.weight_group_stride +
                      channel % c.result_channels * c.weight_result_stride;
      for (int64_t k = 0; k < c.source_channels; ++k) {
        for (int64_t i = 0; i < c.rows.p.kernel; ++i) {
          for (int64_t j = 0; j < c.columns.p.kernel; ++j) {
            const Real value = widen(
                from[k * c.weight_source_stride + i * c.weight_strides.row + j * c.weight_strides.column]);
            if (!(value * Real{0} == 0)) return false;
          }
        }
      }
    }
    return true;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
