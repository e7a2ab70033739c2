// Winograd's convolution for kernels of 3 x 3 and more: forward and the gradient of the input
// (winograd/correlate.h), and the gradient of the weight (winograd/weight_gradient.h). A larger kernel is cut
// into blocks of up to 3 x 3 taps (winograd/kernel_blocks.h). Kernels of one row or column, of three taps and
// more, have tiles of one row or column.
#include <type_traits>

#include "cpu/dispatch.h"
#include "cpu/winograd/correlate.h"
#include "cpu/winograd/weight_gradient.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// One axis of a pass: result positions, and the source's with the padding before and behind them.
struct AxisSizes {
  int64_t results;
  int64_t sources;
  int64_t before;
  int64_t after;
  int64_t dilation;
  int64_t taps;
  bool is_filled;  // the padding, from the input

  // Along all phases.
  template <class Axis>
  int64_t multiplications() const {
    const int64_t tiles = smaller(dilation, results) * ceil_div(ceil_div(results, dilation), Axis::outputs);
    return tiles * TapBlocks<Axis>(taps).products();
  }

  // Pairs of a result and a tap that meets the source.
  int64_t real_taps() const {
    if (is_filled) return taps * results;
    int64_t pairs = 0;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t shift = tap * dilation - before;  // from a result to its source
      pairs += larger(0, smaller(results, sources - shift) - larger(0, -shift));
    }
    return pairs;
  }

  // Taps that meet the source at the result where these are fewest.
  int64_t fewest_taps() const {
    if (is_filled) return taps;
    const int64_t padding = ceil_div(larger(before, after), dilation);
    return larger(1, smaller(smaller(taps, sources / dilation), taps - padding));
  }
};

AxisSizes axis_sizes(const ConvProblem& p, int64_t output, int64_t input, int64_t before, int64_t after,
                     int64_t dilation, int64_t taps) {
  const int64_t reach = (taps - 1) * dilation;
  if (p.pass == Pass::grad_input)
    return {input, output, reach - before, reach - after, dilation, taps, false};
  return {output, input, before, after, dilation, taps, p.padding_mode != PaddingMode::zeros};
}

AxisSizes row_sizes(const ConvProblem& p) {
  return axis_sizes(p, p.output.height, p.input.height, p.padding.top, p.padding.bottom, p.dilation.height,
                    p.kernel.height);
}

AxisSizes column_sizes(const ConvProblem& p) {
  return axis_sizes(p, p.output.width, p.input.width, p.padding.left, p.padding.right, p.dilation.width,
                    p.kernel.width);
}

// Multiplications for one pair of channels of one image.
template <class Tile>
int64_t multiplications_as(const ConvProblem& problem) {
  return row_sizes(problem).multiplications<typename Tile::Rows>() *
         column_sizes(problem).multiplications<typename Tile::Columns>();
}

// Calls visit(Tile{}) with the tiles for a kernel with three taps or more along one axis, and one tap or
// three and more along the other.
template <class Visit>
auto with_tile(const ConvProblem& problem, const Visit& visit) {
  if (problem.kernel.height == 1) return visit(TileOfRow{});
  if (problem.kernel.width == 1) return visit(TileOfColumn{});
  if (problem.precision == Float32Precision::high && problem.dtype == DType::float32 &&
      problem.pass != Pass::grad_weight &&
      multiplications_as<TileOfFour>(problem) < multiplications_as<TileOfTwo>(problem))
    return visit(TileOfFour{});
  return visit(TileOfTwo{});
}

bool has_tile(const Size2& kernel) {
  const auto has_axis = [](int64_t taps) { return taps == 1 || taps >= 3; };
  return has_axis(kernel.height) && has_axis(kernel.width) && kernel.height * kernel.width > 1;
}

int64_t multiplications(const ConvProblem& problem) {
  return with_tile(problem, [&](auto tile) { return multiplications_as<decltype(tile)>(problem); });
}

Reason why_not_weight_gradient(const ConvProblem& problem) {
  // What the sums cost that no pixel adds to: 512 channels at 7^2 took twice implicit_gemm's time.
  constexpr int64_t fewest_pixels = 128;
  // Blocks of larger kernels share the pixels that they read, but no transforms, and implicit_gemm leaves out
  // the padding, which is much of small maps: 0.8 to 1.0 times its speed at 14^2 and 28^2, 1.1 at 35^2.
  constexpr int64_t fewest_of_image = 900;
  const bool is_three_by_three = problem.kernel.height == 3 && problem.kernel.width == 3;
  const int64_t of_image = problem.output.height * problem.output.width;
  // F.conv2d adds up few pixels more exactly in this layout: its rms error, times 1.25, is that of these
  // transforms at about 900 pixels.
  constexpr int64_t fewest_pixels_of_channels_last = 1024;
  const int64_t pixels = problem.batch * of_image;
  if (pixels < fewest_pixels || (!is_three_by_three && of_image < fewest_of_image))
    return "so few pixels do not repay the transforms";
  const bool is_channels_last = problem.input_strides.channel == 1 || problem.output_strides.channel == 1;
  const bool is_exact = problem.precision == Float32Precision::highest && element_size(problem.dtype) > 2;
  if (is_channels_last && is_exact && pixels < fewest_pixels_of_channels_last)
    return "sums of so few pixels are more exact without transforms";
  return nullptr;
}

// Transformed weights are written and read once for all images, but the choice must not follow the batch. So
// this is where one image would lose more than eight gain: 512 channels, channels_last, at 7^2 had 0.7 and
// 1.15 times implicit_gemm's speed, 64 channels with 10 x 4 taps and 17 x 8 results 0.65 and 1.1; contiguous,
// 512 at 4^2, the gradient of the input had 0.7 and 1.15.
bool repays_weights(const ConvProblem& problem) {
  const int64_t results = row_sizes(problem).results * column_sizes(problem).results;
  const int64_t numbers = with_tile(problem, [&](auto tile) {
    using Tile = decltype(tile);
    return TapBlocks<typename Tile::Rows>(problem.kernel.height).products() *
           TapBlocks<typename Tile::Columns>(problem.kernel.width).products();
  });
  if (problem.kernel.height > 3 || problem.kernel.width > 3) return 4 * results >= 7 * numbers;
  constexpr int64_t fit_caches = int64_t{1} << 19;
  if (in_channels_per_group(problem) * problem.out_channels * numbers < fit_caches) return true;
  const bool is_channels_last = problem.input_strides.channel == 1 || problem.output_strides.channel == 1;
  return results > (is_channels_last ? 49 : problem.pass == Pass::grad_input ? 25 : 0);
}

Reason why_not(const ConvProblem& problem) {
  if (!is_floating(problem.dtype)) return "it is for floating-point numbers";
  if (!has_tile(problem.kernel))
    return "the kernel has two taps or fewer along an axis, and is not a line of three or more";
  const bool is_three_by_three = problem.kernel.height == 3 && problem.kernel.width == 3;
  const bool is_line = problem.kernel.height == 1 || problem.kernel.width == 1;
  // 0.8 to 1.05 times implicit_gemm's speed.
  if (is_line && problem.pass == Pass::grad_weight) return "the kernel has one row or column";
  if (problem.stride.height != 1 || problem.stride.width != 1) return "the stride is not 1";
  // With 32 channels the transforms already pay, if they do at all (repays_weights). Fewer are left to
  // rounding, not to speed, as are corners with few terms: rounding errors are those of a whole tile, the
  // error bound counts a result's own terms. Of 5 x 5 taps, 16 channels are enough for both; but the gradient
  // of the weight adds up pixels, not taps.
  const bool has_many_taps = problem.kernel.height >= 5 && problem.kernel.width >= 5;
  const int64_t fewest_channels = has_many_taps && problem.pass != Pass::grad_weight ? 16 : 32;
  if (smaller(in_channels_per_group(problem), out_channels_per_group(problem)) < fewest_channels)
    return "there are too few channels to transform, fewer than 32, or 16 for kernels of 5 x 5 and more";
  const int64_t source_channels =
      problem.pass == Pass::forward ? in_channels_per_group(problem) : out_channels_per_group(problem);
  // 16 against 36 for a pair of channels on a 2 x 2 map, but 8 against 9 on one row of pixels.
  const AxisSizes rows = row_sizes(problem);
  const AxisSizes columns = column_sizes(problem);
  if (is_three_by_three && rows.dilation * columns.dilation == 1) {
    if (8 * multiplications(problem) > 7 * 9 * rows.results * columns.results)
      return "the map is too small to save multiplications";
  } else {
    // Of a dilated or large kernel, implicit_gemm leaves out the taps that meet padding.
    const double share = static_cast<double>(multiplications(problem)) /
                         static_cast<double>(rows.real_taps() * columns.real_taps());
    // Saving a third, 1024 source channels and more had 0.8 to 0.95 of implicit_gemm's speed, 256 had 1.3
    // times.
    const bool has_large_tiles = source_channels >= 1024 && problem.pass != Pass::grad_weight;
    // implicit_gemm is slower where it leaves out taps of a row, and source pixels are copied besides.
    const bool is_row = problem.kernel.height == 1 && problem.input_strides.channel != 1 &&
                        problem.output_strides.channel != 1;
    if (share > (has_large_tiles ? 0.6 : is_row ? 0.85 : 0.8)) return "tiles save too few multiplications";
  }
  if (problem.pass == Pass::grad_weight) return why_not_weight_gradient(problem);
  if (!repays_weights(problem)) return "so few pixels do not repay transforming the weights";
  if (source_channels * rows.fewest_taps() * columns.fewest_taps() < 64)
    return "results at the corners add up fewer than 64 terms";
  if (collects_padding(problem)) return "the padding is filled from the input";
  // F.conv2d adds up each tap for itself where the input is a single small image, and few channels so more
  // exactly than the sums of tiles, whose rms error was 1.7 times as large with 32 channels and 1.2 with 80.
  // Of 5 x 5 taps and more it has larger errors, and tiles of a kernel with one row or column have smaller
  // ones.
  constexpr int64_t small_image = 20480;
  const int64_t few_channels = is_line ? 48 : 88;
  if (problem.pass == Pass::grad_input && source_channels < few_channels &&
      smaller(rows.taps, columns.taps) < 5 && problem.precision == Float32Precision::highest &&
      problem.in_channels * problem.input.height * problem.input.width <= small_image)
    return "few channels of a small image are added up more exactly without transforms";
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
  WinogradRun<Tile, T> winograd(correlation, plan, problem, data, workspace);
  void* other_workspace = static_cast<char*>(workspace) + flags_bytes(problem);
  if (!winograd.run(executor)) return implicit_gemm.run(problem, data, other_workspace, executor);
  for (int64_t sample = 0; sample < problem.batch; ++sample) {
    if (!winograd.is_flagged(sample)) continue;
    ConvData of_sample = data;
    of_sample.input = static_cast<T*>(data.input) + sample * problem.input_strides.batch;
    of_sample.output = static_cast<T*>(data.output) + sample * problem.output_strides.batch;
    implicit_gemm.run(one_sample(problem), of_sample, other_workspace, executor);
  }
}

template <class Tile, class T>
int64_t gradient_workspace_bytes_as(const ConvProblem& problem, int workers) {
  return larger(WinogradWeightGradient<Tile, T>::workspace_bytes(problem, workers),
                implicit_gemm.workspace_bytes(problem, workers));
}

template <class Tile, class T>
void run_gradient_as(const ConvProblem& problem, const ConvData& data, void* workspace,
                     const Executor& executor) {
  const WeightGradientPlan<Tile, Compute<T>> plan(problem, executor.workers);
  WinogradWeightGradient<Tile, T> winograd(plan, problem, data, workspace);
  if (!winograd.run(executor)) implicit_gemm.run(problem, data, workspace, executor);
}

int64_t workspace_bytes(const ConvProblem& problem, int workers) {
  return with_tile(problem, [&](auto tile) {
    using Tile = decltype(tile);
    return with_type(problem.dtype, [&](auto zero) {
      using T = decltype(zero);
      if constexpr (Tile::has_weight_gradient) {
        if (problem.pass == Pass::grad_weight) return gradient_workspace_bytes_as<Tile, T>(problem, workers);
      }
      return workspace_bytes_as<Tile, T>(problem, workers);
    });
  });
}

void run(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  with_tile(problem, [&](auto tile) {
    using Tile = decltype(tile);
    with_type(problem.dtype, [&](auto zero) {
      using T = decltype(zero);
      if constexpr (Tile::has_weight_gradient) {
        if (problem.pass == Pass::grad_weight)
          return run_gradient_as<Tile, T>(problem, data, workspace, executor);
      }
      if constexpr (std::is_same_v<T, float> || !std::is_same_v<Tile, TileOfFour>)
        run_as<Tile, T>(problem, data, workspace, executor);
    });
  });
}

}  // namespace

extern const Kernel winograd{
    "winograd",
    CONVEXT_ISA_ENUMERATOR,
    "fewer multiplications for kernels of three taps and more along an axis, stride 1 and many channels: "
    "F(2 x 2, 3 x 3), F(4 x 4, 3 x 3) for precision \"high\", F(2, 3) for one row or column",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
