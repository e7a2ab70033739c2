// The gradient of an input of few channels: each pixel of the output's gradient is multiplied by all taps at
// once, (i, j, c) in the lanes, which fills them where the channels alone would not; then those products are
// added up where they fall (col2im), a row of the result at a time.
//
// With a stride s, windows begin every s-th pixel, at a block of s pixels, whose channels are neighbours. A
// block adds up, for each row of windows that it lies in, what is left of the last few windows along it, and
// is written over what the one before left behind its end. Products of a few rows wait in scratch. Planes are
// copied on both sides: many of them at once would fall into a few sets of the cache, and blocks have their
// channels side by side.
//
// Every product belongs to a tap that exists, so nothing has to be known of non-finite numbers.
#pragma once

#include "cpu/image_lines/tap_sums_plan.h"
#include "cpu/scratch.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class TapSums {
  using Plan = TapSumsPlan<T>;
  using Real = Compute<T>;

 public:
  TapSums(const Plan& cut, const ConvProblem& problem, const ConvData& data, void* workspace)
      : plan(cut),
        p(problem),
        source(static_cast<const T*>(data.output)),
        weight(static_cast<const T*>(data.weight)),
        result(static_cast<T*>(data.input)),
        scratch(static_cast<char*>(workspace)) {}

  void run(const Executor& executor) {
    pack_weights();
    for_each_tile(executor, p.batch * plan.bands, [&](int64_t index, int worker) {
      run_item(index / plan.bands, index % plan.bands * plan.height,
               scratch + plan.workers_offset + worker * plan.worker_bytes);
    });
  }

 private:
  static constexpr int64_t lanes = Vector<Real>::lanes;

  const Plan& plan;
  const ConvProblem& p;
  const T* source;
  const T* weight;
  T* result;
  char* scratch;

  int64_t pixel() const { return plan.vectors * lanes; }  // products of one

  // packed[panel][output channel][product of the panel], in whole vectors.
  Real* packed_weights(int64_t panel) const {
    return reinterpret_cast<Real*>(scratch) + plan.first_vector(panel) * lanes * p.out_channels;
  }
  int32_t* places() const { return reinterpret_cast<int32_t*>(scratch + plan.places_offset); }

  void pack_weights() const {
    const WeightStrides& strides = p.weight_strides;
    int64_t taps[Plan::most_products];  // where products lie, from an output channel's first weight on
    int64_t count = 0;
    for (int64_t i = 0; i < p.kernel.height; ++i) {
      for (int64_t j = 0; j < p.kernel.width; ++j) {
        for (int64_t k = 0; k < p.in_channels; ++k)
          taps[count++] = i * strides.row + j * strides.column + k * strides.in_channel;
      }
    }
    for (int64_t panel = 0; panel < plan.panels; ++panel) {
      const int64_t first = plan.first_vector(panel) * lanes;
      const int64_t end = plan.first_vector(panel + 1) * lanes;
      Real* to = packed_weights(panel);
      for (int64_t o = 0; o < p.out_channels; ++o) {
        const T* const from = weight + o * strides.out_channel;
        for (int64_t k = first; k < end; ++k) *to++ = k < count ? widen(from[taps[k]]) : Real{0};
      }
    }
    for (int64_t o = 0; o < p.out_channels; ++o) places()[o] = static_cast<int32_t>(o * plan.line);
  }

  void run_item(int64_t image, int64_t first_row, char* own) const {
    Real* const products = reinterpret_cast<Real*>(own);
    Real* const sums = reinterpret_cast<Real*>(own + plan.results_offset);
    Real* const line = reinterpret_cast<Real*>(own + plan.line_offset);
    for (int64_t row = 0; row < plan.rows; ++row) clear_edges(products + row * plan.row_stride);
    const int64_t end = smaller(p.input.height, first_row + plan.height);
    int64_t next = 0;  // row of products to be made
    for (int64_t y = first_row; y < end; ++y) {
      const int64_t last = (y + p.padding.top) / p.stride.height;
      next = larger(next, last + 1 - plan.rows);
      for (; next <= smaller(last, p.output.height - 1); ++next)
        multiply_row(image, next, line, products + next % plan.rows * plan.row_stride);
      add_up(y, products, sums);
      write_row(sums + p.padding.left * p.in_channels,
                result + image * p.input_strides.batch + y * p.input_strides.row);
    }
  }

  void write_row(const Real* sums, T* row) const {
    const int64_t channels = p.in_channels;
    if (p.input_strides.column == channels) {
      const int64_t numbers = p.input.width * channels;
      int64_t x = 0;
      for (; x + lanes <= numbers; x += lanes) store_narrowed(row + x, load(sums + x));
      if (x < numbers) store_narrowed(row + x, load(sums + x, numbers - x), numbers - x);
      return;
    }
    for (int64_t k = 0; k < channels; ++k) {
      T* const to = row + k * p.input_strides.channel;
      for (int64_t x = 0; x < p.input.width; ++x) to[x] = narrow<T>(sums[x * channels + k]);
    }
  }

  // Zeros for the windows before the first and after the last one.
  void clear_edges(Real* row) const {
    const int64_t before = (plan.windows - 1) * pixel();
    fill_zero_vectors(row, before);
    Real* const after = row + before + p.output.width * pixel();
    fill_zero_vectors(after, row + plan.row_stride - lanes - after);
  }

  // What the products read: the row itself, or a copy of it in scratch.
  const Real* line_of(const T* row, Real* line) const {
    if constexpr (std::is_same_v<T, Real>) {
      if (!plan.copies_lines) return row;
    }
    if (plan.line == 1) {
      copy_widened(line, row, 1, p.output.width * p.out_channels);
    } else {
      for (int64_t o = 0; o < p.out_channels; ++o)
        copy_widened(line + o * plan.line, row + o * p.output_strides.channel, 1, p.output.width);
    }
    return line;
  }

  void multiply_row(int64_t image, int64_t y, Real* line, Real* products) const {
    const T* const row = source + image * p.output_strides.batch + y * p.output_strides.row;
    PixelRowTile<Real> tile;
    const Real* const numbers = line_of(row, line);
    tile.places = places();
    tile.pixel_step = plan.line == 1 ? p.out_channels : 1;
    tile.start = nullptr;
    tile.terms = p.out_channels;
    tile.chain = plan.chain;
    tile.result_pixel = pixel();
    tile.last_count = lanes;
    tile.streams = false;
    Real* const to = products + (plan.windows - 1) * pixel();
    const int64_t tiles = ceil_div(p.output.width, pixels_of_row_tile(ceil_div(plan.vectors, plan.panels)));
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = t * p.output.width / tiles;
      const int64_t pixels = (t + 1) * p.output.width / tiles - first;
      tile.lines = numbers + first * tile.pixel_step;
      for (int64_t panel = 0; panel < plan.panels; ++panel) {
        const int64_t first_vector = plan.first_vector(panel);
        tile.weights = packed_weights(panel);
        tile.result = to + first * pixel() + first_vector * lanes;
        pixel_row_kernel_of<Real>(pixels, plan.first_vector(panel + 1) - first_vector)(tile);
      }
    }
  }

  // sums[block][number of the block] of row y of the result.
  void add_up(int64_t y, const Real* products, Real* sums) const {
    const int64_t of_row = p.kernel.width * p.in_channels;
    const Real* rows[Plan::most_products];  // at the row of taps that meets this one
    int64_t count = 0;
    const int64_t position = y + p.padding.top;
    for (int64_t i = position % p.stride.height; i < p.kernel.height && i <= position; i += p.stride.height) {
      const int64_t of_output = (position - i) / p.stride.height;
      if (of_output < p.output.height)
        rows[count++] = products + of_output % plan.rows * plan.row_stride + i * of_row;
    }
    const int64_t last = plan.windows - 1;
    const int64_t last_count = smaller(plan.block, of_row - last * plan.block);
    for (int64_t b = 0; b < plan.blocks; ++b) {
      Vector<Real> sum = zero<Real>();
      for (int64_t k = 0; k < count; ++k) {
        // The window that begins here, then those before; of the farthest one, less than a block may be left.
        const Real* from = rows[k] + (last + b) * pixel();
        for (int64_t w = 0; w < last; ++w, from += plan.block - pixel()) sum = add(sum, load(from));
        sum = add(sum, load(from, last_count));
      }
      store(sums + b * plan.block, sum);
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
