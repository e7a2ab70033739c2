// The two innermost loops of fully_connected.cpp, for a tile of some rows of either operand. Nothing is
// packed: all that is read is read in the order of memory.
#pragma once

#include "cpu/blocking.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Accumulators of a tile, beside its operands, fit the registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int tile_outputs = 4;
constexpr int tile_vectors = 4;
#else
constexpr int tile_outputs = 2;
constexpr int tile_vectors = 2;
#endif
constexpr int tile_rows = 4;
// Outputs that are computed together for one image, as loads of weights wait for memory.
constexpr int outputs_of_image = 8;

template <class T>
struct Rows {
  T* first;
  int64_t stride;  // from row to row

  T* row(int64_t index) const { return first + index * stride; }
};

template <class T>
struct DotProducts {
  Rows<const T> input;
  Rows<const T> weight;
  int64_t terms;
  const T* bias;  // of the first row of weights, or nullptr
  T* output;
  int64_t image_stride;
  int64_t channel_stride;
};

// output[n][o] = bias[o] + sum over k of input[n][k] * weight[o][k]. Each lane adds up a part of a block's
// terms, in a chain of at most 64.
template <class T, int images, int outputs>
void dot_products(const DotProducts<T>& tile) {
  constexpr int64_t lanes = Vector<T>::lanes;
  constexpr int64_t block = 64 * lanes;
  for (int64_t begin = 0; begin < tile.terms; begin += block) {
    const int64_t end = smaller(tile.terms, begin + block);
    Vector<T> sums[images][outputs];
    CONVEXT_UNROLL
    for (int n = 0; n < images; ++n) {
      CONVEXT_UNROLL
      for (int o = 0; o < outputs; ++o) sums[n][o] = zero<T>();
    }
    const auto add_products = [&](const auto& load_row) {
      Vector<T> pixels[images];
      CONVEXT_UNROLL
      for (int n = 0; n < images; ++n) pixels[n] = load_row(tile.input.row(n));
      CONVEXT_UNROLL
      for (int o = 0; o < outputs; ++o) {
        const Vector<T> weights = load_row(tile.weight.row(o));
        CONVEXT_UNROLL
        for (int n = 0; n < images; ++n) sums[n][o] = fmadd(pixels[n], weights, sums[n][o]);
      }
    };
    int64_t k = begin;
    for (; k + lanes <= end; k += lanes) add_products([k](const T* row) { return load(row + k); });
    if (k < end) add_products([k, end](const T* row) { return load(row + k, end - k); });
    CONVEXT_UNROLL
    for (int o = 0; o < outputs; ++o) {
      CONVEXT_UNROLL
      for (int n = 0; n < images; ++n) {
        T* const to = tile.output + n * tile.image_stride + o * tile.channel_stride;
        const T total = sum(sums[n][o]);
        *to = begin > 0 ? *to + total : tile.bias != nullptr ? tile.bias[o] + total : total;
      }
    }
  }
}

template <class T>
struct SumsOfRows {
  const T* factor;
  int64_t factor_row;
  int64_t factor_term;
  Rows<const T> terms;
  int64_t count;  // of terms
  int64_t chain;
  Rows<T> result;
};

// result[r][k] = sum over t of factor[r][t] * terms[t][k], for `vectors` vectors of k, or the first `length`
// lanes of one.
template <class T, int rows, int vectors, bool is_whole>
void sums_of_rows(const SumsOfRows<T>& tile, int64_t length) {
  constexpr int64_t lanes = Vector<T>::lanes;
  const auto load_part = [&](const T* from) { return is_whole ? load(from) : load(from, length); };
  for (int64_t begin = 0; begin < tile.count; begin += tile.chain) {
    const int64_t end = smaller(tile.count, begin + tile.chain);
    Vector<T> sums[rows][vectors];
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) sums[r][v] = zero<T>();
    }
    for (int64_t t = begin; t < end; ++t) {
      const T* const from = tile.terms.row(t);
      const T* const factors = tile.factor + t * tile.factor_term;
      Vector<T> term[vectors];
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) term[v] = load_part(from + v * lanes);
      CONVEXT_UNROLL
      for (int r = 0; r < rows; ++r) {
        const Vector<T> factor = broadcast(factors[r * tile.factor_row]);
        CONVEXT_UNROLL
        for (int v = 0; v < vectors; ++v) sums[r][v] = fmadd(factor, term[v], sums[r][v]);
      }
    }
    CONVEXT_UNROLL
    for (int r = 0; r < rows; ++r) {
      T* const to = tile.result.row(r);
      CONVEXT_UNROLL
      for (int v = 0; v < vectors; ++v) {
        const Vector<T> total = begin > 0 ? add(load_part(to + v * lanes), sums[r][v]) : sums[r][v];
        if constexpr (is_whole) {
          store(to + v * lanes, total);
        } else {
          store(to + v * lanes, total, length);
        }
      }
    }
  }
}

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
