// Winograd's convolution for 3 x 3 kernels: forward and the gradient of the input (winograd/correlate.h), and
// the gradient of the weight (winograd/weight_gradient.h).
#include "cpu/dispatch.h"
#include "cpu/winograd/correlate.h"
#include "cpu/winograd/weight_gradient.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

Size2 result_size(const ConvProblem& problem) {
  return problem.pass == Pass::grad_input ? problem.input : problem.output;
}

// Multiplications for one pair of channels of one image.
template <class Tile>
int64_t multiplications(const ConvProblem& problem) {
  const Size2 size = result_size(problem);
  return ceil_div(size.height, Tile::outputs) * ceil_div(size.width, Tile::outputs) * Tile::inputs *
         Tile::inputs;
}

bool takes_large_tiles(const ConvProblem& problem) {
  return problem.precision == Float32Precision::high && problem.dtype == DType::float32 &&
         multiplications<TileOfFour>(problem) < multiplications<TileOfTwo>(problem);
}

// Taps that meet the source along an axis at the result where these are fewest.
int64_t fewest_taps(const ConvProblem& problem, int64_t source, int64_t before, int64_t after) {
  if (problem.pass == Pass::grad_input) return smaller(smaller(source, 3), 1 + smaller(before, after));
  if (problem.padding_mode != PaddingMode::zeros) return 3;
  return larger(1, smaller(smaller(source, 3), 3 - larger(before, after)));
}

Reason why_not_weight_gradient(const ConvProblem& problem) {
  // What the sums cost that no pixel adds to: 512 channels at 7^2 took twice implicit_gemm's time.
  constexpr int64_t fewest_pixels = 128;
  // F.conv2d adds up few pixels more exactly in this layout: its rms error, times 1.25, is that of these
  // transforms at about 900 pixels.
  constexpr int64_t fewest_pixels_of_channels_last = 1024;
  const int64_t pixels = problem.batch * problem.output.height * problem.output.width;
  if (pixels < fewest_pixels) return "so few pixels do not repay the transforms";
  const bool is_channels_last = problem.input_strides.channel == 1 || problem.output_strides.channel == 1;
  const bool is_exact = problem.precision == Float32Precision::highest && element_size(problem.dtype) > 2;
  if (is_channels_last && is_exact && pixels < fewest_pixels_of_channels_last)
    return "sums of so few pixels are more exact without transforms";
  return nullptr;
}

Reason why_not(const ConvProblem& problem) {
  if (!is_floating(problem.dtype)) return "it is for floating-point numbers";
  if (problem.kernel.height != 3 || problem.kernel.width != 3) return "the kernel is not 3 x 3";
  if (problem.stride.height != 1 || problem.stride.width != 1) return "the stride is not 1";
  if (problem.dilation.height != 1 || problem.dilation.width != 1) return "the dilation is not 1";
  // With 32 channels the transforms already pay (1.2 to 2 times implicit_gemm for all maps from 2 x 2 on,
  // whatever the batch, AVX2 and AVX-512). Fewer are left to rounding, not to speed, as are corners with few
  // terms: rounding errors are those of a whole tile, the error bound counts a result's own terms.
  if (in_channels_per_group(problem) < 32 || out_channels_per_group(problem) < 32) {
    return "there are fewer than 32 channels to transform";
  }
  if (problem.pass == Pass::grad_weight) return why_not_weight_gradient(problem);
  const Size2 source = problem.pass == Pass::forward ? problem.input : problem.output;
  const Padding& padding = problem.padding;
  const int64_t source_channels =
      problem.pass == Pass::forward ? in_channels_per_group(problem) : out_channels_per_group(problem);
  if (source_channels * fewest_taps(problem, source.height, padding.top, padding.bottom) *
          fewest_taps(problem, source.width, padding.left, padding.right) <
      64) {
    return "results at the corners add up fewer than 64 terms";
  }
  if (collects_padding(problem)) return "the padding is filled from the input";
  // 16 against 36 for a pair of channels on a 2 x 2 map, but 8 against 9 on one row of pixels.
  const Size2 size = result_size(problem);
  if (8 * multiplications<TileOfTwo>(problem) > 7 * 9 * size.height * size.width) {
    return "the map is too small to save multiplications";
  }
  return nullptr;
}

// The whole call, or single samples, may be left to this kernel.
ConvProblem one_sample(const ConvProblem& problem) {
  ConvProblem single = problem;
  single.batch = 1;
  return single;
}

// The other kernel's scratch lies over this one's, but for the flags at the beginning.
int64_t flags_bytes(const ConvProblem& problem) {
  return round_up(problem.batch * static_cast<int64_t>(sizeof(double)), 64);
}

template <class Tile, class T>
int64_t workspace_bytes_as(const ConvProblem& problem, int workers) {
  const Correlation correlation(problem);
  const int64_t whole = implicit_gemm.workspace_bytes(problem, workers);
  const int64_t single = implicit_gemm.workspace_bytes(one_sample(problem), workers);
  return larger(Plan<Tile, Compute<T>>(correlation).workspace_bytes(workers),
                flags_bytes(problem) + larger(whole, single));
}

template <class Tile, class T>
void run_as(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  const Correlation correlation(problem);
  const Plan<Tile, Compute<T>> plan(correlation);
  void* other_workspace = static_cast<char*>(workspace) + flags_bytes(problem);
  WinogradRun<Tile, T> winograd(correlation, plan, problem, data, workspace);
  if (!winograd.run(executor)) return implicit_gemm.run(problem, data, other_workspace, executor);
  for (int64_t sample = 0; sample < problem.batch; ++sample) {
    if (!winograd.is_flagged(sample)) continue;
    ConvData of_sample = data;
    of_sample.input = static_cast<T*>(data.input) + sample * problem.input_strides.batch;
    of_sample.output = static_cast<T*>(data.output) + sample * problem.output_strides.batch;
    implicit_gemm.run(one_sample(problem), of_sample, other_workspace, executor);
  }
}

template <class T>
int64_t gradient_workspace_bytes_as(const ConvProblem& problem, int workers) {
  return larger(WinogradWeightGradient<T>::workspace_bytes(problem, workers),
                implicit_gemm.workspace_bytes(problem, workers));
}

template <class T>
void run_gradient_as(const ConvProblem& problem, const ConvData& data, void* workspace,
                     const Executor& executor) {
  const WeightGradientPlan<Compute<T>> plan(problem, executor.workers);
  WinogradWeightGradient<T> winograd(plan, problem, data, workspace);
  if (!winograd.run(executor)) implicit_gemm.run(problem, data, workspace, executor);
}

int64_t workspace_bytes(const ConvProblem& problem, int workers) {
  if (problem.pass == Pass::grad_weight) {
    return with_type(problem.dtype, [&](auto zero) {
      return gradient_workspace_bytes_as<decltype(zero)>(problem, workers);
    });
  }
  if (takes_large_tiles(problem)) return workspace_bytes_as<TileOfFour, float>(problem, workers);
  switch (problem.dtype) {
    case DType::float64:
      return workspace_bytes_as<TileOfTwo, double>(problem, workers);
    default:
      return workspace_bytes_as<TileOfTwo, float>(problem, workers);
  }
}

void run(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  if (problem.pass == Pass::grad_weight) {
    return with_type(problem.dtype,
                     [&](auto zero) { run_gradient_as<decltype(zero)>(problem, data, workspace, executor); });
  }
  if (takes_large_tiles(problem)) return run_as<TileOfFour, float>(problem, data, workspace, executor);
  switch (problem.dtype) {
    case DType::float64:
      return run_as<TileOfTwo, double>(problem, data, workspace, executor);
    case DType::bfloat16:
      return run_as<TileOfTwo, BFloat16>(problem, data, workspace, executor);
    case DType::float16:
      return run_as<TileOfTwo, Float16>(problem, data, workspace, executor);
    default:
      return run_as<TileOfTwo, float>(problem, data, workspace, executor);
  }
}

}  // namespace

extern const Kernel winograd{
    "winograd",
    CONVEXT_ISA_ENUMERATOR,
    "fewer multiplications for 3 x 3 kernels, stride 1 and many channels: F(2 x 2, 3 x 3), or F(4 x 4, 3 x "
    "3) for precision \"high\"",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
