// A kernel that covers the whole image, as in a fully connected layer, or a squeeze-and-excitation block on
// pooled pixels: K = (c, i, j) numbers of an image lie side by side, and so do those of an output channel's
// weights, in the same order.
//
//     forward      output[n][o] = bias[o] + sum over k of input[n][k] * weight[o][k]
//     grad_input   input[n][k]  = sum over o of output[n][o] * weight[o][k]
//     grad_weight  weight[o][k] = sum over n of output[n][o] * input[n][k]
//
// With few images each weight is used a few times, so packing them would take longer than the products. Rows
// of the three matrices are read and written as they lie, with K in the lanes.
#include "cpu/dispatch.h"
#include "cpu/fully_connected/micro_kernels.h"
#include "cpu/kernel_list.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

int64_t row_length(const ConvProblem& p) {
  return p.in_channels * p.kernel.height * p.kernel.width;
}

// Whether strides of (channels, rows, columns) put all numbers side by side, contiguous or channels_last.
bool is_row(const ConvProblem& p, int64_t channel, int64_t row, int64_t column, bool is_channels_last) {
  const auto fits = [](int64_t size, int64_t stride, int64_t wanted) {
    return size == 1 || stride == wanted;
  };
  const int64_t area = p.kernel.height * p.kernel.width;
  return fits(p.in_channels, channel, is_channels_last ? 1 : area) &&
         fits(p.kernel.width, column, is_channels_last ? p.in_channels : 1) &&
         fits(p.kernel.height, row, p.kernel.width * (is_channels_last ? p.in_channels : 1));
}

bool have_equal_rows(const ConvProblem& p) {
  const ImageStrides& image = p.input_strides;
  const WeightStrides& weight = p.weight_strides;
  const auto are_rows = [&](bool is_channels_last) {
    return is_row(p, image.channel, image.row, image.column, is_channels_last) &&
           is_row(p, weight.in_channel, weight.row, weight.column, is_channels_last);
  };
  return are_rows(false) || are_rows(true);
}

// Of a 1x1 kernel that makes few channels of many, on channels_last images one after the other, each pixel is
// such an image: vectors of result channels would be nearly empty.
ConvProblem with_pixels_as_images(const ConvProblem& p) {
  constexpr int64_t most_outputs = 4;
  constexpr int64_t fewest_inputs = 32;
  const auto has_pixels = [&](const ImageStrides& strides, int64_t channels) {
    return (channels == 1 || strides.channel == 1) && strides.row == p.input.width * strides.column &&
           (p.batch == 1 || strides.batch == p.input.height * strides.row);
  };
  const Padding& padding = p.padding;
  const bool fits = p.pass == Pass::forward && p.groups == 1 && p.kernel.height * p.kernel.width == 1 &&
                    p.stride.height * p.stride.width == 1 &&
                    padding.top + padding.bottom + padding.left + padding.right == 0 &&
                    p.out_channels <= most_outputs && p.in_channels >= fewest_inputs &&
                    has_pixels(p.input_strides, p.in_channels) &&
                    has_pixels(p.output_strides, p.out_channels);
  ConvProblem pixels = p;
  if (!fits) return pixels;
  pixels.batch *= p.input.height * p.input.width;
  pixels.input = pixels.output = {1, 1};
  pixels.input_strides.batch = p.input_strides.column;
  pixels.output_strides.batch = p.output_strides.column;
  return pixels;
}

Reason why_not(const ConvProblem& given) {
  const ConvProblem p = with_pixels_as_images(given);
  if (p.dtype != DType::float32 && p.dtype != DType::float64) return "it is for float32 and float64";
  if (is_empty(p)) return "a tensor is empty";
  if (p.groups != 1) return "there are several groups";
  const Padding& padding = p.padding;
  if (p.kernel.height != p.input.height || p.kernel.width != p.input.width || padding.top != 0 ||
      padding.bottom != 0 || padding.left != 0 || padding.right != 0)
    return "the kernel does not cover exactly the image";
  if (!have_equal_rows(p)) return "images and weights are not vectors of numbers in the same order";
  return nullptr;
}

int64_t workspace_bytes(const ConvProblem&, int) {
  return 0;
}

// Each item has so many rows of the result, or of the weights.
constexpr int64_t rows_of_item = 32;

template <class T>
void run_forward(const ConvProblem& p, const ConvData& data, const Executor& executor) {
  const int64_t image_items = ceil_div(p.batch, rows_of_item);
  constexpr int64_t outputs_of_item = 16;
  const int64_t output_items = ceil_div(p.out_channels, outputs_of_item);
  for_each_tile(executor, image_items * output_items, [&](int64_t index, int) {
    const int64_t first_output = index / image_items * outputs_of_item;
    const int64_t last_output = smaller(p.out_channels, first_output + outputs_of_item);
    const int64_t first_image = index % image_items * rows_of_item;
    const int64_t last_image = smaller(p.batch, first_image + rows_of_item);
    const auto multiply = [&](auto kernel, int64_t n, int64_t o) {
      const T* const bias = p.epilogue.bias ? static_cast<const T*>(data.bias) + o : nullptr;
      kernel({{static_cast<const T*>(data.input) + n * p.input_strides.batch, p.input_strides.batch},
              {static_cast<const T*>(data.weight) + o * p.weight_strides.out_channel,
               p.weight_strides.out_channel},
              row_length(p),
              bias,
              static_cast<T*>(data.output) + n * p.output_strides.batch + o * p.output_strides.channel,
              p.output_strides.batch,
              p.output_strides.channel});
    };
    int64_t n = first_image;
    for (; n + tile_rows <= last_image; n += tile_rows) {
      int64_t o = first_output;
      for (; o + tile_outputs <= last_output; o += tile_outputs)
        multiply(dot_products<T, tile_rows, tile_outputs>, n, o);
      for (; o < last_output; ++o) multiply(dot_products<T, tile_rows, 1>, n, o);
    }
    for (; n < last_image; ++n) {
      int64_t o = first_output;
      for (; o + outputs_of_image <= last_output; o += outputs_of_image)
        multiply(dot_products<T, 1, outputs_of_image>, n, o);
      for (; o < last_output; ++o) multiply(dot_products<T, 1, 1>, n, o);
    }
  });
}

// Chains are as long as in implicit_gemm's blocks of that many terms, so that errors are no larger.
int64_t chain_of(int64_t terms) {
  return terms <= 64 ? 16 : terms <= 1024 ? 32 : 64;
}

template <class T>
void run_gradient(const ConvProblem& p, const ConvData& data, const Executor& executor) {
  constexpr int64_t lanes = Vector<T>::lanes;
  const T* const grad_output = static_cast<const T*>(data.output);
  T* const image = static_cast<T*>(data.input);
  T* const weight = static_cast<T*>(data.weight);
  const Rows<T> images{image, p.input_strides.batch};
  const Rows<T> weights{weight, p.weight_strides.out_channel};
  const bool is_input = p.pass == Pass::grad_input;
  const int64_t rows = is_input ? p.batch : p.out_channels;
  const Rows<T>& result = is_input ? images : weights;
  const Rows<T>& source = is_input ? weights : images;
  const int64_t row_items = ceil_div(rows, rows_of_item);
  const int64_t length = row_length(p);
  const int64_t length_of_item = larger(tile_vectors * lanes, 256);
  SumsOfRows<T> all{};
  all.factor_row = is_input ? p.output_strides.batch : p.output_strides.channel;
  all.factor_term = is_input ? p.output_strides.channel : p.output_strides.batch;
  all.count = is_input ? p.out_channels : p.batch;
  all.chain = chain_of(all.count);
  for_each_tile(executor, row_items * ceil_div(length, length_of_item), [&](int64_t index, int) {
    const int64_t first_row = index % row_items * rows_of_item;
    const int64_t last_row = smaller(rows, first_row + rows_of_item);
    const int64_t first = index / row_items * length_of_item;
    const int64_t last = smaller(length, first + length_of_item);
    const auto add_up = [&](auto kernel, int64_t row, int64_t k, int64_t count) {
      SumsOfRows<T> tile = all;
      tile.factor = grad_output + row * all.factor_row;
      tile.terms = {source.first + k, source.stride};
      tile.result = {result.row(row) + k, result.stride};
      kernel(tile, count);
    };
    for (int64_t k = first; k < last;) {
      const bool is_whole = k + tile_vectors * lanes <= last;
      const int64_t count = is_whole ? tile_vectors * lanes : smaller(lanes, last - k);
      int64_t row = first_row;
      for (; row + tile_rows <= last_row; row += tile_rows) {
        add_up(
            is_whole ? sums_of_rows<T, tile_rows, tile_vectors, true> : sums_of_rows<T, tile_rows, 1, false>,
            row, k, count);
      }
      for (; row < last_row; ++row) {
        add_up(is_whole ? sums_of_rows<T, 1, tile_vectors, true> : sums_of_rows<T, 1, 1, false>, row, k,
               count);
      }
      k += count;
    }
  });
}

void run(const ConvProblem& given, const ConvData& data, void*, const Executor& executor) {
  const ConvProblem p = with_pixels_as_images(given);
  const auto run_as = [&](auto zero) {
    using T = decltype(zero);
    p.pass == Pass::forward ? run_forward<T>(p, data, executor) : run_gradient<T>(p, data, executor);
  };
  p.dtype == DType::float64 ? run_as(double{}) : run_as(float{});
}

}  // namespace

extern const Kernel fully_connected{
    "fully_connected",
    CONVEXT_ISA_ENUMERATOR,
    "kernels as large as the image, a product of matrices as they lie; forward and both gradients",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
