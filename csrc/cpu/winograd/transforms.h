// The transforms of Winograd's convolution F(m x m, 3 x 3): m outputs and 3 taps along an axis with m + 2
// multiplications instead of 3 m,
//
//     y = A^T [(G g) * (B^T d)],     d: m + 2 inputs, g: 3 taps, y: m outputs,
//
// along the rows and along the columns. They are polynomial products evaluated at points (Toom, Cook), where
// every factor of a row of B^T and the row of G that it meets may be exchanged. The first product belongs to
// point 0 and reads the first tap alone, the last one to infinity and reads the last tap alone.
#pragma once

#include "cpu/simd.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
CONVEXT_INLINE Vector<T> times(double factor, Vector<T> v) {
  return mul(broadcast(static_cast<T>(factor)), v);
}
// factor * v + w
template <class T>
CONVEXT_INLINE Vector<T> fmadd_by(double factor, Vector<T> v, Vector<T> w) {
  return fmadd(broadcast(static_cast<T>(factor)), v, w);
}

// Points 0, 1, -1 and infinity. G is twice the usual one, all integers, so that nothing is rounded but sums,
// subnormal weights included; the outputs are twice too large, and exactly so.
//
// No output depends on an input outside its own window: y0 is made of products 0 to 2, which read d0 to d2,
// and y1 of products 1 to 3, which read d1 to d3.
struct TwoOutputs {
  static constexpr int outputs = 2;
  static constexpr int inputs = 4;
  static constexpr int taps = 3;
  static constexpr double scale = 0.5;
  static constexpr bool windows_are_separate = true;
  static constexpr bool has_weight_gradient = true;

  template <class V>
  CONVEXT_INLINE static void transform_input(const V (&d)[4], V (&v)[4]) {
    v[0] = sub(d[0], d[2]);
    v[1] = add(d[1], d[2]);
    v[2] = sub(d[2], d[1]);
    v[3] = sub(d[1], d[3]);
  }
  template <class V>
  CONVEXT_INLINE static void transform_weight(const V (&g)[3], V (&u)[4]) {
    const V ends = add(g[0], g[2]);
    u[0] = add(g[0], g[0]);
    u[1] = add(ends, g[1]);
    u[2] = sub(ends, g[1]);
    u[3] = add(g[2], g[2]);
  }
  template <class V>
  CONVEXT_INLINE static void transform_output(const V (&m)[4], V (&y)[2]) {
    y[0] = add(add(m[0], m[1]), m[2]);
    y[1] = sub(sub(m[1], m[2]), m[3]);
  }
  // The gradients of the taps are F(3, 2): the same products of inputs, A in the place of G and G^T in that
  // of A^T, where the signs of the last row of A and of the last product are left out together.
  template <class V>
  CONVEXT_INLINE static void transform_output_gradient(const V (&y)[2], V (&u)[4]) {
    u[0] = y[0];
    u[1] = add(y[0], y[1]);
    u[2] = sub(y[0], y[1]);
    u[3] = y[1];
  }
  template <class V>
  CONVEXT_INLINE static void transform_weight_gradient(const V (&m)[4], V (&g)[3]) {
    const V ends = add(m[1], m[2]);
    g[0] = add(add(m[0], m[0]), ends);
    g[1] = sub(m[1], m[2]);
    g[2] = sub(ends, add(m[3], m[3]));
  }
};

// Points 0, 1, -1, 1/2, -2 and infinity. Every output depends on every input of its tile, and rounding errors
// are two to three times those of direct summation.
struct FourOutputs {
  static constexpr int outputs = 4;
  static constexpr int inputs = 6;
  static constexpr int taps = 3;
  static constexpr double scale = 1;
  static constexpr bool windows_are_separate = false;
  static constexpr bool has_weight_gradient = false;

  template <class V>
  CONVEXT_INLINE static void transform_input(const V (&d)[6], V (&v)[6]) {
    const V difference = sub(d[3], d[1]);
    const V even = sub(d[4], d[2]);
    v[0] = add(fmadd_by(-2, d[2], add(d[0], d[4])), times(1.5, difference));
    v[1] = add(sub(d[4], d[1]), fmadd_by(2.5, d[3], times(0.5, d[2])));
    v[2] = add(add(d[4], d[1]), fmadd_by(-2.5, d[2], times(0.5, d[3])));
    v[3] = fmadd_by(2, difference, even);
    v[4] = fmadd_by(-0.5, difference, even);
    v[5] = add(fmadd_by(-2, d[3], add(d[1], d[5])), times(1.5, even));
  }
  template <class V>
  CONVEXT_INLINE static void transform_weight(const V (&g)[3], V (&u)[6]) {
    const V ends = add(g[0], g[2]);
    u[0] = g[0];
    u[1] = times(1.0 / 3, add(ends, g[1]));
    u[2] = times(-1.0 / 3, sub(ends, g[1]));
    u[3] = times(-16.0 / 15, fmadd_by(0.25, g[2], fmadd_by(0.5, g[1], g[0])));
    u[4] = times(1.0 / 15, fmadd_by(4, g[2], fmadd_by(-2, g[1], g[0])));
    u[5] = g[2];
  }
  template <class V>
  CONVEXT_INLINE static void transform_output(const V (&m)[6], V (&y)[4]) {
    const V plus = add(m[1], m[2]);
    const V minus = sub(m[1], m[2]);
    y[0] = add(add(m[0], plus), add(m[3], m[4]));
    y[1] = add(minus, fmadd_by(-2, m[4], times(0.5, m[3])));
    y[2] = add(plus, fmadd_by(4, m[4], times(0.25, m[3])));
    y[3] = add(add(minus, m[5]), fmadd_by(-8, m[4], times(0.125, m[3])));
  }
};

// An axis along which the kernel has one tap: there is nothing to save.
struct OneOutput {
  static constexpr int outputs = 1;
  static constexpr int inputs = 1;
  static constexpr int taps = 1;
  static constexpr double scale = 1;
  static constexpr bool windows_are_separate = true;
  static constexpr bool has_weight_gradient = false;

  template <class V>
  CONVEXT_INLINE static void transform_input(const V (&d)[1], V (&v)[1]) {
    v[0] = d[0];
  }
  template <class V>
  CONVEXT_INLINE static void transform_weight(const V (&g)[1], V (&u)[1]) {
    u[0] = g[0];
  }
  template <class V>
  CONVEXT_INLINE static void transform_output(const V (&m)[1], V (&y)[1]) {
    y[0] = m[0];
  }
};

// The outputs of an axis alone, of tiles that lie side by side.
template <class Axis>
struct OutputsOf {
  static constexpr int outputs = Axis::outputs;
  static constexpr int inputs = Axis::outputs;
};

template <class OfRows, class OfColumns>
struct TileOf {
  using Rows = OfRows;
  using Columns = OfColumns;
  static constexpr int products = Rows::inputs * Columns::inputs;
  static constexpr int taps = Rows::taps * Columns::taps;
  static constexpr double scale = Rows::scale * Columns::scale;
  static constexpr bool windows_are_separate = Rows::windows_are_separate && Columns::windows_are_separate;
  static constexpr bool has_weight_gradient = Rows::has_weight_gradient && Columns::has_weight_gradient;
};

using TileOfTwo = TileOf<TwoOutputs, TwoOutputs>;
using TileOfFour = TileOf<FourOutputs, FourOutputs>;
using TileOfRow = TileOf<OneOutput, TwoOutputs>;
using TileOfColumn = TileOf<TwoOutputs, OneOutput>;

// Along the columns of each row, then along the rows: the first index is the row.
template <int rows, int columns, int rows_out, int columns_out, class V, class OfRows, class OfColumns>
CONVEXT_INLINE void transform_both_axes(const V (&in)[rows][columns], V (&out)[rows_out][columns_out],
                                        const OfRows& transform_rows, const OfColumns& transform_columns) {
  V half[columns][rows_out];  // transposed
  CONVEXT_UNROLL
  for (int column = 0; column < columns; ++column) {
    V of_column[rows];
    CONVEXT_UNROLL
    for (int row = 0; row < rows; ++row) of_column[row] = in[row][column];
    transform_rows(of_column, half[column]);
  }
  CONVEXT_UNROLL
  for (int row = 0; row < rows_out; ++row) {
    V of_row[columns];
    CONVEXT_UNROLL
    for (int column = 0; column < columns; ++column) of_row[column] = half[column][row];
    transform_columns(of_row, out[row]);
  }
}

template <class Tile, class V>
CONVEXT_INLINE void transform_inputs(const V (&d)[Tile::Rows::inputs][Tile::Columns::inputs],
                                     V (&v)[Tile::Rows::inputs][Tile::Columns::inputs]) {
  transform_both_axes(
      d, v, [](const auto& in, auto& out) { Tile::Rows::transform_input(in, out); },
      [](const auto& in, auto& out) { Tile::Columns::transform_input(in, out); });
}

template <class Tile, class V>
CONVEXT_INLINE void transform_weights(const V (&g)[Tile::Rows::taps][Tile::Columns::taps],
                                      V (&u)[Tile::Rows::inputs][Tile::Columns::inputs]) {
  transform_both_axes(
      g, u, [](const auto& in, auto& out) { Tile::Rows::transform_weight(in, out); },
      [](const auto& in, auto& out) { Tile::Columns::transform_weight(in, out); });
}

template <class Tile, class V>
CONVEXT_INLINE void transform_outputs(const V (&m)[Tile::Rows::inputs][Tile::Columns::inputs],
                                      V (&y)[Tile::Rows::outputs][Tile::Columns::outputs]) {
  transform_both_axes(
      m, y, [](const auto& in, auto& out) { Tile::Rows::transform_output(in, out); },
      [](const auto& in, auto& out) { Tile::Columns::transform_output(in, out); });
}

template <class Tile, class V>
CONVEXT_INLINE void transform_output_gradients(const V (&y)[Tile::Rows::outputs][Tile::Columns::outputs],
                                               V (&u)[Tile::Rows::inputs][Tile::Columns::inputs]) {
  transform_both_axes(
      y, u, [](const auto& in, auto& out) { Tile::Rows::transform_output_gradient(in, out); },
      [](const auto& in, auto& out) { Tile::Columns::transform_output_gradient(in, out); });
}

template <class Tile, class V>
CONVEXT_INLINE void transform_weight_gradients(const V (&m)[Tile::Rows::inputs][Tile::Columns::inputs],
                                               V (&g)[Tile::Rows::taps][Tile::Columns::taps]) {
  transform_both_axes(
      m, g, [](const auto& in, auto& out) { Tile::Rows::transform_weight_gradient(in, out); },
      [](const auto& in, auto& out) { Tile::Columns::transform_weight_gradient(in, out); });
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
