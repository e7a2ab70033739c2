// Along one axis, rows or columns: which positions of the tensor that is read (the source) feed which
// positions of the result. Forward and both gradients, strides, dilation and padding modes all become an
// Axis, so that packing and the loops around it are written once.
//
// Forward. Result position q and tap t read source position q * stride + t * dilation - before, resolved by
// the padding mode where that lies outside.
//
// Gradient of the input. Input position r receives from output position y through tap i where
// y * stride + i * dilation = r + before. For one r only the taps of one residue qualify, so positions are
// split into *phases*: phase u has the taps u, u + period, u + 2 * period, ... (period = stride / gcd(stride,
// dilation)) and the positions that those reach, and is itself a correlation with stride 1: no scattered
// writes, no multiplications by the zeros between strided positions. Positions that no tap reaches are in no
// phase; the caller zeroes them.
//
// Where the padding was filled from the input (reflect, replicate, circular), a position r near the edge also
// receives what the padding positions that were read from it would receive. Being linear, that is the
// correlation with the *sum* of the patches of those positions: they are added up while packing (in the type
// that products are added in), and neither a padded gradient nor a second pass over it is needed. Such
// positions are in one further class, the *border*; it has all taps, because the positions that are summed
// belong to different phases.
#pragma once

#include "core/padding.h"
#include "cpu/implicit_gemm/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// One axis of the problem itself.
struct ProblemAxis {
  int64_t input;
  int64_t output;
  int64_t kernel;
  int64_t stride;
  int64_t dilation;
  int64_t before;
  int64_t after;
  PaddingMode mode;
};

inline ProblemAxis problem_rows(const ConvProblem& p) {
  return {p.input.height,    p.output.height, p.kernel.height,  p.stride.height,
          p.dilation.height, p.padding.top,   p.padding.bottom, p.padding_mode};
}
inline ProblemAxis problem_columns(const ConvProblem& p) {
  return {p.input.width,    p.output.width, p.kernel.width,  p.stride.width,
          p.dilation.width, p.padding.left, p.padding.right, p.padding_mode};
}

struct Axis {
  int64_t count = 0;  // result positions q in [0, count)
  int64_t taps = 0;   // taps t in [0, taps)

  // Not in the border: q and t read source position q * stride + t * step + offset, and q stands for result
  // position first + q * spacing.
  int64_t stride = 1;
  int64_t step = 1;
  int64_t offset = 0;
  int64_t first = 0;
  int64_t spacing = 1;

  int64_t source_size = 0;
  PaddingMode mode = PaddingMode::zeros;

  // In the border: t is the tap itself, and q stands for the input positions outside [inside_begin,
  // inside_end).
  bool is_border = false;
  int64_t inside_begin = 0;
  int64_t inside_end = 0;
  ProblemAxis problem{};

  int64_t result_position(int64_t q) const {
    if (is_border) return q < inside_begin ? q : q - inside_begin + inside_end;
    return first + q * spacing;
  }

  // Not in the border: where q and t read, or -1 for a zero.
  int64_t source(int64_t q, int64_t t) const { return resolve(q * stride + t * step + offset); }
  int64_t resolve(int64_t position) const { return padded_source(position, source_size, mode); }
};

// The classes of result positions along one axis. Forward has one. The gradient of the input has the phases
// and then, if there is one, the border.
struct AxisClasses {
  ProblemAxis p;
  bool is_forward;
  int64_t divisor = 1;   // gcd(stride, dilation)
  int64_t period = 1;    // between the taps of a phase
  int64_t phases = 1;    // that have taps
  int64_t inside_begin;  // positions in [inside_begin, inside_end) are in the phases
  int64_t inside_end;
  bool has_border = false;

  AxisClasses(const ProblemAxis& axis, bool forward) : p(axis), is_forward(forward) {
    inside_begin = 0;
    inside_end = is_forward ? p.output : p.input;
    if (is_forward) return;
    // A single output is never stepped over, so any stride describes it. This one puts every tap into a phase
    // of its own, where a small one would have each position try all taps, though only one reaches it.
    if (p.output == 1 && p.kernel > 1) p.stride = p.kernel * p.dilation;
    divisor = greatest_common_divisor(p.stride, p.dilation);
    period = p.stride / divisor;
    phases = smaller(p.kernel, period);
    switch (p.mode) {
      case PaddingMode::zeros:
        break;
      case PaddingMode::reflect:
        if (p.before > 0) inside_begin = p.before + 1;
        if (p.after > 0) inside_end = p.input - p.after - 1;
        break;
      case PaddingMode::replicate:
        if (p.before > 0) inside_begin = 1;
        if (p.after > 0) inside_end = p.input - 1;
        break;
      case PaddingMode::circular:
        inside_begin = p.after;
        inside_end = p.input - p.before;
        break;
    }
    if (inside_end <= inside_begin) inside_begin = inside_end = 0;
    has_border = inside_end - inside_begin < p.input;
  }

  int64_t count() const { return phases + (has_border ? 1 : 0); }
  Axis at(int64_t index) const {
    if (is_forward) return forward();
    return index < phases ? phase(index) : border();
  }

  // False where some positions are in no class, because no tap reaches them.
  bool cover_all() const { return divisor == 1 && phases == period; }

  // At least the positions of every class.
  int64_t most_positions() const {
    const int64_t inside = inside_end - inside_begin;
    return is_forward ? inside : larger(ceil_div(inside, p.stride), p.input - inside);
  }

  // The taps of a class. With one phase, the border's are the same set.
  int64_t tap_sets() const { return phases + (has_border && phases > 1 ? 1 : 0); }
  int64_t tap_set_of(int64_t index) const { return smaller(index, tap_sets() - 1); }
  int64_t taps_of_set(int64_t set) const {
    return set < phases ? ceil_div(p.kernel - set, period) : p.kernel;
  }
  // Where a tap is in a set, or -1.
  int64_t index_of(int64_t set, int64_t tap_of_kernel) const {
    if (set >= phases || period == 1) return tap_of_kernel;
    const int64_t ahead = tap_of_kernel - set;
    return ahead < 0 || ahead % period != 0 ? -1 : ahead / period;
  }
  // The set that a tap is in, where each is in one.
  int64_t set_of_tap(int64_t tap_of_kernel) const { return tap_of_kernel % period; }
  bool has_each_tap_once() const { return taps_before(tap_sets()) == p.kernel; }
  int64_t tap(int64_t set, int64_t t) const { return set < phases ? set + t * period : t; }
  // Taps of all the sets before this one; of all sets for set == tap_sets().
  int64_t taps_before(int64_t set) const {
    if (set > phases) return 2 * p.kernel;
    return set * (p.kernel / period) + smaller(set, p.kernel % period);
  }
  int64_t most_taps() const { return has_border ? p.kernel : taps_of_set(0); }

 private:
  static int64_t greatest_common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
      const int64_t remainder = a % b;
      a = b;
      b = remainder;
    }
    return a;
  }

  Axis forward() const {
    Axis axis;
    axis.count = p.output;
    axis.taps = p.kernel;
    axis.stride = p.stride;
    axis.step = p.dilation;
    axis.offset = -p.before;
    axis.source_size = p.input;
    axis.mode = p.mode;
    return axis;
  }

  Axis phase(int64_t u) const {
    // Taps u, u + period, ... reach the positions r with r + before = u * dilation (mod stride).
    const int64_t residue = (u * p.dilation % p.stride - p.before % p.stride + p.stride) % p.stride;
    const int64_t ahead = (residue - inside_begin % p.stride + p.stride) % p.stride;
    Axis axis;
    axis.first = inside_begin + ahead;
    axis.spacing = p.stride;
    axis.count = axis.first < inside_end ? ceil_div(inside_end - axis.first, p.stride) : 0;
    axis.taps = taps_of_set(u);
    axis.step = -(p.dilation / divisor);
    axis.offset = (axis.first + p.before - u * p.dilation) / p.stride;  // exact
    axis.source_size = p.output;
    return axis;
  }

  Axis border() const {
    Axis axis;
    axis.is_border = true;
    axis.inside_begin = inside_begin;
    axis.inside_end = inside_end;
    axis.count = p.input - (inside_end - inside_begin);
    axis.taps = p.kernel;
    axis.source_size = p.output;
    axis.problem = p;
    return axis;
  }
};

// Calls visit(source) for every source position whose value counts at q and t, in a fixed order.
template <class Visit>
CONVEXT_INLINE void for_each_source(const Axis& axis, int64_t q, int64_t t, const Visit& visit) {
  if (!axis.is_border) {
    const int64_t source = axis.source(q, t);
    if (source >= 0) visit(source);
    return;
  }
  const ProblemAxis& p = axis.problem;
  const auto visit_padded = [&](int64_t position) {
    const int64_t scaled = position + p.before - t * p.dilation;
    if (scaled >= 0 && scaled % p.stride == 0 && scaled / p.stride < p.output) visit(scaled / p.stride);
  };
  const int64_t at = axis.result_position(q);
  const int64_t last = p.input - 1;
  visit_padded(at);
  switch (p.mode) {
    case PaddingMode::zeros:
      break;
    case PaddingMode::reflect:
      if (at >= 1 && at <= p.before) visit_padded(-at);
      if (at < last && at >= last - p.after) visit_padded(2 * last - at);
      break;
    case PaddingMode::replicate:
      if (at == 0) {
        for (int64_t position = -p.before; position < 0; ++position) visit_padded(position);
      }
      if (at == last) {
        for (int64_t position = p.input; position < p.input + p.after; ++position) visit_padded(position);
      }
      break;
    case PaddingMode::circular:
      if (at >= p.input - p.before) visit_padded(at - p.input);
      if (at < p.after) visit_padded(at + p.input);
      break;
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
