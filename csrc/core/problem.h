// The one description of a 2-D cross-correlation that every layer shares.
//
// A problem names three tensors by the role they play in the correlation
//
//     output[n, o, y, x] = bias[o] + sum over c, i, j of
//         weight[o, c, i, j] * padded_input[n, c, y * stride + i * dilation, x * stride + j * dilation]
//
// and the pass says which of the three is written: `forward` writes the output, `grad_input` writes the
// input's gradient (reading the output's gradient and the weight), `grad_weight` writes the weight's
// gradient (reading the output's gradient and the input). Sizes and strides always describe the role, so
// `input` in a grad_input problem is the shape of the gradient being computed.
//
// Everything here is plain data: no torch, no allocation. Functions in headers have internal linkage,
// because the same header is compiled for several instruction sets and a shared inline function could be
// resolved to a copy that an older CPU cannot execute.
#pragma once

#include <cstdint>

namespace convext {

enum class DType : int32_t { float32, float64, bfloat16, float16, uint8, int8, int16, int32, int64 };
enum class Pass : int32_t { forward, grad_input, grad_weight };
enum class PaddingMode : int32_t { zeros, reflect, replicate, circular };

// `highest`: error no worse than direct summation. `high`: faster algorithms with a bounded, documented
// error.
enum class Float32Precision : int32_t { highest, high };

struct Size2 {
  int64_t height = 1;
  int64_t width = 1;
};

struct Padding {
  int64_t top = 0;
  int64_t bottom = 0;
  int64_t left = 0;
  int64_t right = 0;
};

// Strides are counted in elements.
struct ImageStrides {
  int64_t batch = 0;
  int64_t channel = 0;
  int64_t row = 0;
  int64_t column = 0;
};

struct WeightStrides {
  int64_t out_channel = 0;
  int64_t in_channel = 0;
  int64_t row = 0;
  int64_t column = 0;
};

// What is applied to an output before it is stored. Part of the problem so that a kernel can refuse one.
struct Epilogue {
  bool bias = false;  // forward only: add bias[out_channel], a contiguous vector of the problem's dtype
};

struct ConvProblem {
  Pass pass = Pass::forward;
  DType dtype = DType::float32;      // of the tensors that are read
  DType out_dtype = DType::float32;  // of the tensor that is written
  PaddingMode padding_mode = PaddingMode::zeros;
  Float32Precision precision = Float32Precision::highest;
  Epilogue epilogue;
  bool aligned =
      true;  // the tensors that are read begin at multiples of 16 bytes; results do not depend on it

  int64_t batch = 1;
  int64_t in_channels = 1;
  int64_t out_channels = 1;
  int64_t groups = 1;
  Size2 input;
  Size2 kernel;
  Size2 output;
  Size2 stride;
  Size2 dilation;
  Padding padding;

  ImageStrides input_strides;
  WeightStrides weight_strides;
  ImageStrides output_strides;
};

// The three tensors by role, and the bias; which of them is written follows from the pass.
struct ConvData {
  void* input = nullptr;
  void* weight = nullptr;
  void* output = nullptr;
  const void* bias = nullptr;
};

[[maybe_unused]] static inline int64_t in_channels_per_group(const ConvProblem& problem) {
  return problem.in_channels / problem.groups;
}

[[maybe_unused]] static inline int64_t out_channels_per_group(const ConvProblem& problem) {
  return problem.out_channels / problem.groups;
}

// Multiply-adds of the pass; the same number for all three.
[[maybe_unused]] static inline double multiply_adds(const ConvProblem& problem) {
  return static_cast<double>(problem.batch) * static_cast<double>(problem.out_channels) *
         static_cast<double>(problem.output.height) * static_cast<double>(problem.output.width) *
         static_cast<double>(in_channels_per_group(problem)) * static_cast<double>(problem.kernel.height) *
         static_cast<double>(problem.kernel.width);
}

[[maybe_unused]] static inline int64_t element_size(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64:
      return 8;
    case DType::float32:
    case DType::int32:
      return 4;
    case DType::bfloat16:
    case DType::float16:
    case DType::int16:
      return 2;
    case DType::uint8:
    case DType::int8:
      return 1;
  }
  return 0;
}

}  // namespace convext
