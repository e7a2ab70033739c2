#include "case.h"

#include <array>
#include <sstream>

#include "core/geometry.h"

namespace convext::testing {
namespace {

// Strides for axes given from the outermost to the innermost, with `gaps[k]` unused elements behind axis k.
std::array<int64_t, 4> nested_strides(const std::array<int64_t, 4>& sizes, const std::array<int, 4>& order,
                                      const std::array<int64_t, 4>& gaps) {
  std::array<int64_t, 4> strides{};
  int64_t step = 1;
  for (int k = 3; k >= 0; --k) {
    const int axis = order[static_cast<size_t>(k)];
    strides[static_cast<size_t>(axis)] = step;
    const int64_t size = sizes[static_cast<size_t>(axis)];
    step = step * (size > 0 ? size : 1) + gaps[static_cast<size_t>(k)];
  }
  return strides;
}

std::array<int64_t, 4> strides_of(Layout layout, const std::array<int64_t, 4>& sizes, bool is_written) {
  if (layout == Layout::expanded && is_written) layout = Layout::row_gaps;
  switch (layout) {
    case Layout::contiguous:
      return nested_strides(sizes, {0, 1, 2, 3}, {0, 0, 0, 0});
    case Layout::channels_last:
      return nested_strides(sizes, {0, 2, 3, 1}, {0, 0, 0, 0});
    case Layout::row_gaps:
      return nested_strides(sizes, {0, 1, 2, 3}, {0, 5, 2, 3});
    case Layout::transposed: {
      std::array<int64_t, 4> strides = nested_strides(sizes, {1, 3, 2, 0}, {0, 1, 0, 0});
      // An axis of one element is never stepped along, so its stride may be anything.
      for (size_t axis = 0; axis < 4; ++axis) {
        if (sizes[axis] == 1) strides[axis] = 7777;
      }
      return strides;
    }
    case Layout::expanded: {
      std::array<int64_t, 4> strides = nested_strides(sizes, {0, 1, 2, 3}, {0, 0, 0, 0});
      strides[0] = 0;
      return strides;
    }
  }
  return {};
}

const char* layout_name(Layout layout) {
  switch (layout) {
    case Layout::contiguous:
      return "contiguous";
    case Layout::channels_last:
      return "channels_last";
    case Layout::row_gaps:
      return "row_gaps";
    case Layout::transposed:
      return "transposed";
    case Layout::expanded:
      return "expanded";
  }
  return "?";
}

const char* mode_name(PaddingMode mode) {
  switch (mode) {
    case PaddingMode::zeros:
      return "zeros";
    case PaddingMode::reflect:
      return "reflect";
    case PaddingMode::replicate:
      return "replicate";
    case PaddingMode::circular:
      return "circular";
  }
  return "?";
}

const char* fill_name(Fill fill) {
  switch (fill) {
    case Fill::small_integers:
      return "small integers";
    case Fill::large_integers:
      return "large integers";
    case Fill::normal:
      return "normal";
    case Fill::positive:
      return "positive";
    case Fill::any_bits:
      return "any bits";
    case Fill::limits:
      return "limits";
    case Fill::non_finite:
      return "non-finite";
  }
  return "?";
}

}  // namespace

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::bfloat16:
      return "bfloat16";
    case DType::float16:
      return "float16";
    case DType::uint8:
      return "uint8";
    case DType::int8:
      return "int8";
    case DType::int16:
      return "int16";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
  }
  return "?";
}

const char* pass_name(Pass pass) {
  switch (pass) {
    case Pass::forward:
      return "forward";
    case Pass::grad_input:
      return "grad_input";
    case Pass::grad_weight:
      return "grad_weight";
  }
  return "?";
}

bool is_floating_point(DType dtype) {
  return dtype == DType::float32 || dtype == DType::float64 || dtype == DType::bfloat16 ||
         dtype == DType::float16;
}

ImageStrides image_strides(Layout layout, int64_t batch, int64_t channels, Size2 size, bool is_written) {
  const auto strides = strides_of(layout, {batch, channels, size.height, size.width}, is_written);
  return {strides[0], strides[1], strides[2], strides[3]};
}

WeightStrides weight_strides(Layout layout, int64_t out_channels, int64_t in_channels, Size2 size,
                             bool is_written) {
  const auto strides = strides_of(layout, {out_channels, in_channels, size.height, size.width}, is_written);
  return {strides[0], strides[1], strides[2], strides[3]};
}

bool finish(Case& test_case) {
  ConvProblem& p = test_case.problem;
  if (!check_geometry(p).empty()) return false;
  p.input_strides =
      image_strides(test_case.input_layout, p.batch, p.in_channels, p.input, p.pass == Pass::grad_input);
  p.weight_strides = weight_strides(test_case.weight_layout, p.out_channels, in_channels_per_group(p),
                                    p.kernel, p.pass == Pass::grad_weight);
  p.output_strides =
      image_strides(test_case.output_layout, p.batch, p.out_channels, p.output, p.pass == Pass::forward);
  return true;
}

std::string describe(const Case& test_case) {
  const ConvProblem& p = test_case.problem;
  std::ostringstream text;
  text << pass_name(p.pass) << ' ' << dtype_name(p.dtype);
  if (p.out_dtype != p.dtype) text << "->" << dtype_name(p.out_dtype);
  text << " input " << p.batch << 'x' << p.in_channels << 'x' << p.input.height << 'x' << p.input.width
       << " weight " << p.out_channels << 'x' << in_channels_per_group(p) << 'x' << p.kernel.height << 'x'
       << p.kernel.width << " groups " << p.groups << " stride " << p.stride.height << ',' << p.stride.width
       << " dilation " << p.dilation.height << ',' << p.dilation.width << " padding " << p.padding.top << ','
       << p.padding.bottom << ',' << p.padding.left << ',' << p.padding.right << ' '
       << mode_name(p.padding_mode) << (p.epilogue.bias ? " bias" : "")
       << (p.precision == Float32Precision::high ? " high" : "") << " layouts "
       << layout_name(test_case.input_layout) << ',' << layout_name(test_case.weight_layout) << ','
       << layout_name(test_case.output_layout) << " fill " << fill_name(test_case.fill) << " seed "
       << test_case.seed;
  return text.str();
}

}  // namespace convext::testing
