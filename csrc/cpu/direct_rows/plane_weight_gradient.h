// The gradient of the weight of depthwise 3 x 3 correlations of planes whose rows lie side by side in memory,
// with stride 1 or 2. Vectors run along the rows; planes are read in place, and what lies beside them is
// masked out of the loads, what lies above and below is left out. Nine vectors of sums, one for each tap,
// stay in registers.
//
// Zeros stand for lanes that a vector does not need, whatever they meet, and products with the zeros of the
// padding are left out. Where numbers are not finite that is wrong, but then it shows: each of them meets a
// number of the other tensor, so a sum is not finite either, and the channel is added up again by the
// formula.
//
// A channel's planes are cut into bands of rows, those into strips one vector wide. Rows that would leave
// vectors half empty are read in another way: with stride 1 by small_plane_gradient.h, with stride 2 two at
// a time. Lanes add up a limited number of terms before their sums go into double. Bands are dealt into
// chunks, which workers share, and the chunks' sums are added in order: all of it follows from the shape.
#pragma once

#include "cpu/direct_rows/axis.h"
#include "cpu/direct_rows/small_plane_gradient.h"
#include "cpu/dispatch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
struct PlaneWeightGradientPlan {
  static constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  static constexpr int64_t chain_terms = 64;  // that a lane adds up

  RowsAxis rows;
  RowsAxis columns;
  int64_t step;
  bool is_small;   // whole planes, vectors across their rows
  bool has_pairs;  // of rows in a vector
  int64_t band;
  int64_t bands;
  int64_t units;   // bands of all images
  int64_t chunks;  // of a channel's units
  int64_t bytes;
  int64_t worker_bytes = 0;

  static bool fits(const ConvProblem& p) {
    const RowsAxis rows = vertical_axis(p);
    const RowsAxis columns = horizontal_axis(p);
    return can_mask_loads && std::is_same_v<T, Compute<T>> && p.pass == Pass::grad_weight &&
           in_channels_per_group(p) == 1 && out_channels_per_group(p) == 1 &&
           p.padding_mode == PaddingMode::zeros && rows.kernel == 3 && columns.kernel == 3 &&
           has_source(rows) && has_source(columns) && rows.stride == columns.stride &&
           p.input_strides.column == 1 && p.output_strides.column == 1 && is_filled(p);
  }

  // Whether vectors are full enough, and a channel has enough of them to pay for adding up their lanes. The
  // limits are where this and transposing to vectors of channels were equally fast.
  static bool is_filled(const ConvProblem& p) {
    constexpr int64_t enough_vectors = 24;
    const int64_t width = p.output.width;
    if (SmallPlane<Compute<T>>::fits(p))
      return p.batch * ceil_div(p.output.height * width, lanes) >= enough_vectors;
    if (has_pairs_of_rows(p))
      return width * 8 > lanes * 3 && p.batch * ceil_div(p.output.height, 2) >= enough_vectors;
    return width * 8 >= lanes * 5 && p.batch * p.output.height * ceil_div(width, lanes) >= enough_vectors;
  }

  static bool has_pairs_of_rows(const ConvProblem& p) {
    return vertical_axis(p).stride == 2 && p.output.width < lanes / 2;
  }

  // Whether every output meets the input: none lies in the padding alone.
  static bool has_source(const RowsAxis& axis) {
    return axis.dilation == 1 && axis.stride <= 2 && axis.before <= 2 && axis.after <= 2;
  }

  explicit PlaneWeightGradientPlan(const ConvProblem& p)
      : rows(vertical_axis(p)),
        columns(horizontal_axis(p)),
        step(rows.stride),
        is_small(SmallPlane<Compute<T>>::fits(p)),
        has_pairs(has_pairs_of_rows(p)) {
    // What the strips of a band read stays in the L1 cache.
    constexpr int64_t band_bytes = 24 * 1024;
    const int64_t row_bytes =
        (p.input_strides.row * step + p.output_strides.row) * static_cast<int64_t>(sizeof(T));
    band = is_small ? rows.output : larger(8, smaller(chain_terms, band_bytes / larger(1, row_bytes)));
    bands = ceil_div(rows.output, band);
    band = ceil_div(rows.output, bands);
    bands = ceil_div(rows.output, band);
    units = p.batch * bands;
    constexpr int64_t worth_sharing = 64;
    chunks = larger(1, smaller(units, ceil_div(worth_sharing, p.groups)));
    bytes = chunks * p.groups * 9 * static_cast<int64_t>(sizeof(double));
  }

  int64_t workspace_bytes(int) const { return bytes; }
};

template <class Real>
struct StripMasks {
  LaneMask<Real> gradient;
  LaneMask<Real> next_gradient;  // of the next row in the same vector
  LaneMask<Real> source[3][2];   // for each tap across: of the first and, with stride 2, the second vector
};

// Output gradients of one vector of columns, and the source that they meet.
template <class Real>
struct GradientStrip {
  const Real* source;  // row 0, what the first tap of the first column meets, be it inside or not
  int64_t source_row;
  int64_t source_height;
  int64_t first_line;  // source row of the first tap of the first row
  const Real* gradient;
  int64_t gradient_row;
  int64_t rows;
  int64_t source_ahead;  // from a number to what is fetched when it is read
  int64_t gradient_ahead;
  const StripMasks<Real>* masks;
  LaneOrder<Real> following;  // lane i is lane i + 1
};

template <class Real, int step, bool is_masked>
struct GradientStripKernel {
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int depth = step == 1 ? 3 : 2;  // rows that a line belongs to, at most

  const GradientStrip<Real>& strip;

  CONVEXT_INLINE Vector<Real> read(const Real* line, int tap, int vector) const {
    const Real* from = line + tap + vector * lanes;
    return is_masked ? load(from, strip.masks->source[tap][vector]) : load(from);
  }

  // What each tap across meets in a line.
  CONVEXT_INLINE void read(Vector<Real> (&values)[3], int64_t line) const {
    const Real* from = strip.source + line * strip.source_row;
    for (int64_t k = 0; k < step; ++k) __builtin_prefetch(from + strip.source_ahead + k * lanes, 0, 2);
    if constexpr (step == 1) {
      CONVEXT_UNROLL
      for (int j = 0; j < 3; ++j) values[j] = in_register(read(from, j, 0));
    } else {
      const Vector<Real> first = read(from, 0, 0);
      const Vector<Real> second = read(from, 0, 1);
      values[0] = even_lanes(first, second);
      values[1] = odd_lanes(first, second);
      values[2] = even_lanes(read(from, 2, 0), read(from, 2, 1));
    }
  }

  // The lines that begin with row `row`: its first one, or with stride 2 its first two, which belong to rows
  // before it too. `is_edge`: some of those rows are none of the strip's.
  template <bool is_edge>
  CONVEXT_INLINE void add_lines(Vector<Real> (&sums)[9], Vector<Real> (&gradients)[depth],
                                int64_t row) const {
    CONVEXT_UNROLL
    for (int k = depth - 1; k > 0; --k) gradients[k] = gradients[k - 1];
    if (!is_edge || row < strip.rows) {
      const Real* from = strip.gradient + row * strip.gradient_row;
      __builtin_prefetch(from + strip.gradient_ahead, 0, 2);
      gradients[0] = is_masked ? load(from, strip.masks->gradient) : load(from);
    }
    CONVEXT_UNROLL
    for (int r = 0; r < step; ++r) {
      const int64_t line = strip.first_line + row * step + r;
      if (line < 0 || line >= strip.source_height) continue;
      Vector<Real> values[3];
      read(values, line);
      CONVEXT_UNROLL
      for (int k = 0; k < depth; ++k) {
        const int i = r + step * k;
        if (i >= 3 || (is_edge && (row - k < 0 || row - k >= strip.rows))) continue;
        CONVEXT_UNROLL
        for (int j = 0; j < 3; ++j) sums[i * 3 + j] = fmadd(gradients[k], values[j], sums[i * 3 + j]);
      }
    }
  }

  void run(Vector<Real>* totals) const {
    Vector<Real> sums[9];
    CONVEXT_UNROLL
    for (int k = 0; k < 9; ++k) sums[k] = totals[k];
    Vector<Real> gradients[depth];
    CONVEXT_UNROLL
    for (int k = 0; k < depth; ++k) gradients[k] = zero<Real>();
    int64_t row = 0;
    for (; row < depth - 1; ++row) add_lines<true>(sums, gradients, row);
    for (; row < strip.rows; ++row) add_lines<false>(sums, gradients, row);
    for (; row < strip.rows + depth - 1; ++row) add_lines<true>(sums, gradients, row);
    CONVEXT_UNROLL
    for (int k = 0; k < 9; ++k) totals[k] = sums[k];
  }

  // The lower half of a vector holds one row, the upper half the next. A row has no more results than half a
  // vector has lanes, less one, so what its last tap meets is still in the vector that the first tap reads.
  void run_pairs(Vector<Real>* totals) const {
    static_assert(step == 2, "two vectors are read for one");
    Vector<Real> sums[9];
    CONVEXT_UNROLL
    for (int k = 0; k < 9; ++k) sums[k] = totals[k];
    for (int64_t row = 0; row < strip.rows; row += 2) {
      const bool has_second = row + 1 < strip.rows;
      const Real* from = strip.gradient + row * strip.gradient_row;
      __builtin_prefetch(from + strip.gradient_ahead, 0, 2);
      Vector<Real> gradient = load(from, strip.masks->gradient);
      if (has_second)
        gradient = add(gradient, load(from + strip.gradient_row - lanes / 2, strip.masks->next_gradient));
      CONVEXT_UNROLL
      for (int i = 0; i < 3; ++i) {
        const int64_t line = strip.first_line + row * 2 + i;
        const Real* source = strip.source + line * strip.source_row;
        const Real* next = source + 2 * strip.source_row;
        const bool is_inside = line >= 0 && line < strip.source_height;
        const bool is_next_inside = has_second && line + 2 >= 0 && line + 2 < strip.source_height;
        if (i < 2) __builtin_prefetch(source + strip.source_ahead, 0, 2);
        if (i < 2) __builtin_prefetch(next + strip.source_ahead, 0, 2);
        const Vector<Real> low = is_inside ? load(source, strip.masks->source[0][0]) : zero<Real>();
        const Vector<Real> high = is_next_inside ? load(next, strip.masks->source[0][0]) : zero<Real>();
        const Vector<Real> even = even_lanes(low, high);
        sums[i * 3] = fmadd(gradient, even, sums[i * 3]);
        sums[i * 3 + 1] = fmadd(gradient, odd_lanes(low, high), sums[i * 3 + 1]);
        sums[i * 3 + 2] = fmadd(gradient, permute(even, strip.following), sums[i * 3 + 2]);
      }
    }
    CONVEXT_UNROLL
    for (int k = 0; k < 9; ++k) totals[k] = sums[k];
  }
};

template <class T>
class PlaneWeightGradient {
 public:
  using Real = Compute<T>;
  static constexpr int64_t lanes = Vector<Real>::lanes;

  PlaneWeightGradient(const PlaneWeightGradientPlan<T>& cut, const ConvProblem& problem, const ConvData& data,
                      void* workspace)
      : plan(cut),
        p(problem),
        input(static_cast<const T*>(data.input)),
        grad_output(static_cast<const T*>(data.output)),
        grad_weight(static_cast<T*>(data.weight)),
        chunk_sums(static_cast<double*>(workspace)) {
    set_masks(first_masks, -plan.columns.before, smaller(lanes, plan.columns.output));
    int32_t order[lanes];
    for (int64_t lane = 0; lane < lanes; ++lane) order[lane] = static_cast<int32_t>((lane + 1) % lanes);
    following = lane_order<Real>(order);
  }

  void run(const Executor& executor) const {
    const SmallPlane<Real> small(p, plan.is_small);
    // Neighbouring channels follow each other, as in memory.
    for_each_tile(executor, plan.chunks * p.groups, [&](int64_t index, int) {
      const int64_t chunk = plan.chunks == 1 ? 0 : index / p.groups;
      const int64_t channel = index - chunk * p.groups;
      Sums sums;
      for_each_band(chunk, channel, [&](const T* source, const T* gradient, int64_t first_row) {
        if (plan.is_small) {
          sums.begin(small.vectors());
          small.add(source, gradient, sums.vectors);
        } else {
          add_band(source, gradient, first_row, sums);
        }
      });
      sums.end();
      if (!sums.are_finite()) sums = exact(chunk, channel);
      if (plan.chunks == 1) {
        write(channel, sums.totals);
      } else {
        for (int64_t k = 0; k < 9; ++k) chunk_sums[index * 9 + k] = sums.totals[k];
      }
    });
    if (plan.chunks > 1) add_chunks();
  }

 private:
  struct Sums {
    bool are_finite() const {
      double not_finite = 0;  // 0 * w is NaN if w is infinite or NaN
      for (const double total : totals) not_finite += total * 0;
      return not_finite == 0;
    }
    Vector<Real> vectors[9];
    double totals[9];
    int64_t terms;  // of a lane

    Sums() : terms(0) {
      CONVEXT_UNROLL
      for (int k = 0; k < 9; ++k) totals[k] = 0;
    }
    // Before as many more are added.
    void begin(int64_t more) {
      if (terms + more > PlaneWeightGradientPlan<T>::chain_terms) end();
      if (terms == 0) {
        CONVEXT_UNROLL
        for (int k = 0; k < 9; ++k) vectors[k] = zero<Real>();
      }
      terms += more;
    }
    void end() {
      if (terms == 0) return;
      terms = 0;
      constexpr int levels = lanes < 8 ? 2 : 3;
      constexpr int64_t left = 8 >> levels;
      Vector<Real> halves[8];
      CONVEXT_UNROLL
      for (int k = 0; k < 8; ++k) halves[k] = vectors[k];
      // Each step makes one vector of two, with the sums of both in turn, of half as many terms.
      CONVEXT_UNROLL
      for (int level = 0; level < levels; ++level) {
        const int half = 4 >> level;
        CONVEXT_UNROLL
        for (int k = 0; k < half; ++k)
          halves[k] =
              add(interleave_low(halves[k], halves[k + half]), interleave_high(halves[k], halves[k + half]));
      }
      Real terms_of_lanes[left * lanes];
      for (int64_t k = 0; k < left; ++k) store(terms_of_lanes + k * lanes, halves[k]);
      for (int64_t k = 0; k < 8; ++k) {
        const Real* term = terms_of_lanes + k % left * lanes + k / left;
        for (int64_t lane = 0; lane < lanes; lane += 1 << levels)
          totals[k] += static_cast<double>(term[lane]);
      }
      totals[8] += static_cast<double>(sum(vectors[8]));
    }
  };

  // Calls visit(source, gradient, first row) for the units of a chunk, with the planes that they are of.
  template <class Visit>
  void for_each_band(int64_t chunk, int64_t channel, const Visit& visit) const {
    const bool is_whole = plan.chunks == 1;
    const int64_t first = is_whole ? 0 : plan.units * chunk / plan.chunks;
    const int64_t last = is_whole ? plan.units : plan.units * (chunk + 1) / plan.chunks;
    int64_t n = plan.bands == 1 ? first : first / plan.bands;
    int64_t band = first - n * plan.bands;
    for (int64_t unit = first; unit < last; ++unit) {
      visit(input + n * p.input_strides.batch + channel * p.input_strides.channel,
            grad_output + n * p.output_strides.batch + channel * p.output_strides.channel, band * plan.band);
      if (++band == plan.bands) {
        band = 0;
        ++n;
      }
    }
  }

  void add_band(const T* source, const T* gradient, int64_t first_row, Sums& sums) const {
    GradientStrip<Real> strip;
    strip.following = following;
    strip.source_row = p.input_strides.row;
    strip.source_height = p.input.height;
    strip.first_line = first_row * plan.step - plan.rows.before;
    strip.gradient_row = p.output_strides.row;
    strip.rows = smaller(plan.band, plan.rows.output - first_row);
    strip.source_ahead =
        plan.bands == 1 ? p.input_strides.channel : plan.band * plan.step * p.input_strides.row;
    strip.gradient_ahead = plan.bands == 1 ? p.output_strides.channel : plan.band * p.output_strides.row;
    gradient += first_row * p.output_strides.row;
    const int64_t terms = plan.has_pairs ? ceil_div(strip.rows, 2) : strip.rows;
    for (int64_t x = 0; x < plan.columns.output; x += lanes) {
      const int64_t column = x * plan.step - plan.columns.before;
      const int64_t count = smaller(lanes, plan.columns.output - x);
      strip.source = source + column;
      strip.gradient = gradient + x;
      sums.begin(terms);
      if (column >= 0 && column + lanes * plan.step + 2 <= plan.columns.input && count == lanes) {
        run_strip<false>(strip, sums.vectors);
      } else {
        StripMasks<Real> masks;
        if (x > 0) set_masks(masks, column, count);
        strip.masks = x > 0 ? &masks : &first_masks;
        run_strip<true>(strip, sums.vectors);
      }
    }
  }

  void set_masks(StripMasks<Real>& masks, int64_t column, int64_t count) const {
    const auto lane = [](int64_t position) { return smaller(lanes, larger(0, position)); };
    masks.gradient = lanes_between<Real>(0, count);
    if (plan.has_pairs) masks.next_gradient = lanes_between<Real>(lanes / 2, lanes / 2 + count);
    for (int64_t j = 0; j < 3; ++j) {
      for (int64_t k = 0; k < plan.step; ++k) {
        const int64_t first = column + j + k * lanes;
        masks.source[j][k] = lanes_between<Real>(lane(-first), lane(plan.columns.input - first));
      }
    }
  }

  template <bool is_masked>
  void run_strip(const GradientStrip<Real>& strip, Vector<Real>* sums) const {
    if (plan.step == 1) {
      GradientStripKernel<Real, 1, is_masked>{strip}.run(sums);
    } else if (is_masked && plan.has_pairs) {
      GradientStripKernel<Real, 2, true>{strip}.run_pairs(sums);
    } else {
      GradientStripKernel<Real, 2, is_masked>{strip}.run(sums);
    }
  }

  // A chunk of a channel by the formula, with the zeros of the padding.
  Sums exact(int64_t chunk, int64_t channel) const {
    Sums sums;
    for_each_band(chunk, channel, [&](const T* source, const T* gradient, int64_t first_row) {
      for (int64_t y = first_row; y < smaller(first_row + plan.band, plan.rows.output); ++y) {
        for (int64_t x = 0; x < plan.columns.output; ++x) {
          for (int64_t k = 0; k < 9; ++k) {
            const int64_t line = y * plan.step + k / 3 - plan.rows.before;
            const int64_t column = x * plan.step + k % 3 - plan.columns.before;
            const bool is_inside =
                line >= 0 && line < plan.rows.input && column >= 0 && column < plan.columns.input;
            const double value = is_inside ? source[line * p.input_strides.row + column] : 0;
            sums.totals[k] += gradient[y * p.output_strides.row + x] * value;
          }
        }
      }
    });
    return sums;
  }

  void add_chunks() const {
    for (int64_t channel = 0; channel < p.groups; ++channel) {
      double totals[9] = {};
      for (int64_t chunk = 0; chunk < plan.chunks; ++chunk)
        for (int64_t k = 0; k < 9; ++k) totals[k] += chunk_sums[(chunk * p.groups + channel) * 9 + k];
      write(channel, totals);
    }
  }

  void write(int64_t channel, const double (&totals)[9]) const {
    const WeightStrides& strides = p.weight_strides;
    T* to = grad_weight + channel * strides.out_channel;
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 3; ++j)
        to[i * strides.row + j * strides.column] = static_cast<T>(totals[i * 3 + j]);
  }

  const PlaneWeightGradientPlan<T>& plan;
  const ConvProblem& p;
  const T* input;
  const T* grad_output;
  T* grad_weight;
  double* chunk_sums;
  StripMasks<Real> first_masks;
  LaneOrder<Real> following;
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
