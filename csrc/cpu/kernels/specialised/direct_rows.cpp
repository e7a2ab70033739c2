// Depthwise problems and images of few channels, where a matrix product would spend its time on copying
// patches: lines are read in place or copied once in bands, and correlated with several rows or vectors of
// results in registers.
#include "cpu/direct_rows/broadcast_weight_gradient.h"
#include "cpu/direct_rows/interleaved_correlation.h"
#include "cpu/direct_rows/pixel_correlation.h"
#include "cpu/direct_rows/pixel_stride2.h"
#include "cpu/direct_rows/pixel_sum.h"
#include "cpu/direct_rows/pixel_weight_gradient.h"
#include "cpu/direct_rows/pixel_window.h"
#include "cpu/direct_rows/pixel_window_gradient.h"
#include "cpu/direct_rows/plane_3x3.h"
#include "cpu/direct_rows/plane_correlation.h"
#include "cpu/direct_rows/plane_stride2.h"
#include "cpu/direct_rows/plane_sum.h"
#include "cpu/direct_rows/plane_weight_gradient.h"
#include "cpu/direct_rows/plane_window.h"
#include "cpu/direct_rows/pointwise.h"
#include "cpu/direct_rows/pointwise_sum.h"
#include "cpu/direct_rows/weight_gradient.h"
#include "cpu/dispatch.h"
#include "cpu/image_lines/tap_sums_plan.h"
#include "cpu/kernel_list.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Of planes whose rows lie side by side: whether vectors along the rows are faster than transposing to
// vectors of channels. The limits are where the two were equally fast, with AVX2 and with AVX-512.
template <class T>
bool rows_are_wide(const ConvProblem& p) {
  if (p.groups <= channel_block<T> / 2) return true;
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  return p.pass != Pass::grad_weight && p.stride.width == 1 && p.input.width >= 4 * (lanes + p.kernel.width);
}

// Vectors run along the channels of depthwise problems with channels to fill them, else along the rows, whose
// elements are gathered if they are not adjacent. The gradient of padding that repeats the input is only
// added up along rows.
template <class T>
bool runs_along_channels(const ConvProblem& p) {
  constexpr int64_t enough_channels = 6;
  const auto has_pixels = [](const ImageStrides& strides) {
    return has_channels_innermost(strides) || strides.column == 1;
  };
  return in_channels_per_group(p) == 1 && out_channels_per_group(p) == 1 && p.groups >= enough_channels &&
         has_pixels(p.input_strides) && has_pixels(p.output_strides) &&
         (p.pass != Pass::grad_input || p.padding_mode == PaddingMode::zeros) &&
         !(p.input_strides.column == 1 && p.output_strides.column == 1 && rows_are_wide<T>(p));
}

// Whether a 3 x 3 kernel's rows are wide enough for vectors along them. The limits are where the two ways
// were equally fast: transposing costs less, and short rows fill vectors worse, with more lanes.
template <class T>
bool runs_along_rows_3x3(const ConvProblem& p) {
  if (p.pass == Pass::grad_weight || !Plane3x3Plan<T>::fits(p)) return false;
  constexpr int64_t lanes = Vector<Compute<T>>::lanes;
  const bool steps = p.stride.width == 2;
  int64_t narrowest = larger(20, lanes * 7 / 4);
  if (steps && p.pass == Pass::grad_input) narrowest = 12;
  if (!std::is_same_v<T, Compute<T>> || (steps && p.pass == Pass::forward && lanes > 8))
    narrowest = lanes * 7;
  return p.input.width >= narrowest || !runs_along_channels<T>(p);
}

// Calls visit(plan) with the plan of the pass and layout.
template <class T, class Visit>
auto with_plan(const ConvProblem& p, const Visit& visit) {
  const bool is_weight = p.pass == Pass::grad_weight;
  if (PointwisePlan<T>::fits(p)) return visit(PointwisePlan<T>(p));
  if constexpr (std::is_same_v<T, Compute<T>>) {
    if (PointwiseSumPlan<T>::fits(p)) return visit(PointwiseSumPlan<T>(p));
  }
  if constexpr (std::is_same_v<T, float>) {
    if (BroadcastWeightGradientPlan<T>::fits(p)) return visit(BroadcastWeightGradientPlan<T>(p));
  }
  if (InterleavedPlan<T>::fits(p)) return visit(InterleavedPlan<T>(p));
  if constexpr (PlaneWindowPlan<T>::can_read) {
    if (PlaneWindowPlan<T>::fits(p)) return visit(PlaneWindowPlan<T>(p));
  }
  if constexpr (std::is_same_v<T, Compute<T>>) {
    if (PlaneWeightGradientPlan<T>::fits(p)) return visit(PlaneWeightGradientPlan<T>(p));
    if (PixelWindowGradientPlan<T>::fits(p)) return visit(PixelWindowGradientPlan<T>(p));
    if (PlaneStride2Plan<T>::fits(p)) return visit(PlaneStride2Plan<T>(p));
    if (PlaneSumPlan<T>::fits(p)) return visit(PlaneSumPlan<T>(p));
    if (PixelSumPlan<T>::fits(p)) return visit(PixelSumPlan<T>(p));
  }
  if (runs_along_rows_3x3<T>(p)) return visit(Plane3x3Plan<T>(p));
  if (PixelWindowPlan<T>::fits(p)) return visit(PixelWindowPlan<T>(p));
  if (PixelStride2Plan<T>::fits(p)) return visit(PixelStride2Plan<T>(p));
  if (runs_along_channels<T>(p))
    return is_weight ? visit(PixelWeightGradientPlan<T>(p)) : visit(PixelCorrelationPlan<T>(p));
  return is_weight ? visit(WeightGradientPlan<T>(p)) : visit(PlaneCorrelationPlan<T>(p));
}

int64_t workspace_bytes(const ConvProblem& p, int workers) {
  return with_type(p.dtype, [&](auto zero) {
    return with_plan<decltype(zero)>(p, [&](const auto& plan) { return plan.workspace_bytes(workers); });
  });
}

template <class T>
void run_as(const ConvProblem& p, const ConvData& data, void* workspace, const Executor& executor) {
  bool done = true;
  if (PointwisePlan<T>::fits(p)) {
    const PointwisePlan<T> plan(p);
    const Pointwise<T> pointwise(plan, p, data, workspace);
    const auto* bias = p.epilogue.bias ? static_cast<const T*>(data.bias) : nullptr;
    if (p.pass == Pass::grad_weight)
      return pointwise.add_gradients(static_cast<const T*>(data.output), static_cast<T*>(data.weight),
                                     executor);
    return pointwise.correlate(static_cast<T*>(plan.is_forward ? data.output : data.input),
                               static_cast<const T*>(data.weight), bias, executor);
  }
  if constexpr (std::is_same_v<T, Compute<T>>) {
    if (PointwiseSumPlan<T>::fits(p)) {
      const PointwiseSumPlan<T> plan(p);
      return PointwiseSum<T>(plan, p, data, workspace).run(executor);
    }
  }
  if (p.pass == Pass::grad_weight) {
    if constexpr (std::is_same_v<T, float>) {
      if (BroadcastWeightGradientPlan<T>::fits(p)) {
        const BroadcastWeightGradientPlan<T> plan(p);
        return BroadcastWeightGradient<T>(plan, p, data, workspace).run(executor);
      }
    }
    if constexpr (std::is_same_v<T, Compute<T>>) {
      if (PlaneWeightGradientPlan<T>::fits(p)) {
        const PlaneWeightGradientPlan<T> plan(p);
        return PlaneWeightGradient<T>(plan, p, data, workspace).run(executor);
      }
      if (PixelWindowGradientPlan<T>::fits(p)) {
        const PixelWindowGradientPlan<T> plan(p);
        return PixelWindowGradient<T>(plan, p, data, workspace).run(executor);
      }
    }
    if (runs_along_channels<T>(p)) {
      const PixelWeightGradientPlan<T> plan(p);
      PixelWeightGradient<T>(plan, p, data, workspace).run(executor);
    } else {
      const WeightGradientPlan<T> plan(p);
      WeightGradient<T>(plan, p, data, workspace).run(executor);
    }
  } else if (InterleavedPlan<T>::fits(p)) {
    const InterleavedPlan<T> plan(p);
    done = InterleavedCorrelation<T>(plan, p, data, workspace).run(executor);
  } else if (PlaneWindowPlan<T>::fits(p)) {
    if constexpr (PlaneWindowPlan<T>::can_read) {
      const PlaneWindowPlan<T> plan(p);
      done = PlaneWindowCorrelation<T>(plan, p, data, workspace).run(executor);
    }
  } else if (PlaneStride2Plan<T>::fits(p)) {
    if constexpr (std::is_same_v<T, Compute<T>>) {
      const PlaneStride2Plan<T> plan(p);
      done = PlaneStride2<T>(plan, p, data, workspace).run(executor);
    }
  } else if (PlaneSumPlan<T>::fits(p)) {
    if constexpr (std::is_same_v<T, Compute<T>>) {
      const PlaneSumPlan<T> plan(p);
      done = PlaneSum<T>(plan, p, data, workspace).run(executor);
    }
  } else if (PixelSumPlan<T>::fits(p)) {
    if constexpr (std::is_same_v<T, Compute<T>>) {
      const PixelSumPlan<T> plan(p);
      done = PixelSum<T>(plan, p, data, workspace).run(executor);
    }
  } else if (runs_along_rows_3x3<T>(p)) {
    const Plane3x3Plan<T> plan(p);
    done = Plane3x3<T>(plan, p, data, workspace).run(executor);
  } else if (PixelWindowPlan<T>::fits(p)) {
    const PixelWindowPlan<T> plan(p);
    done = PixelWindowCorrelation<T>(plan, p, data, workspace).run(executor);
  } else if (PixelStride2Plan<T>::fits(p)) {
    const PixelStride2Plan<T> plan(p);
    done = PixelStride2<T>(plan, p, data, workspace).run(executor);
  } else if (runs_along_channels<T>(p)) {
    const PixelCorrelationPlan<T> plan(p);
    done = PixelCorrelation<T>(plan, p, data, workspace).run(executor);
  } else {
    const PlaneCorrelationPlan<T> plan(p);
    done = PlaneCorrelation<T>(plan, p, data, workspace).run(executor);
  }
  if (!done) reference_kernel.run(p, data, nullptr, executor);
}

// Where a matrix product is faster: it reuses a source channel for all the result channels, which pays for
// copying patches if there are enough of them. The limits were measured against implicit_gemm.
Reason too_many_channels(const ConvProblem& p) {
  if (with_type(p.dtype, [&](auto zero) {
        using T = decltype(zero);
        return PointwisePlan<T>::fits(p) || PointwiseSumPlan<T>::fits(p);
      }))
    return nullptr;
  if (with_type(p.dtype, [&](auto zero) {
        using T = decltype(zero);
        return PlaneWindowPlan<T>::fits(p) || PlaneSumPlan<T>::fits(p) || PixelSumPlan<T>::fits(p);
      }))
    return nullptr;
  if (with_type(p.dtype, [&](auto zero) { return TapSumsPlan<decltype(zero)>::fits(p); }))
    return "a product of matrices for all taps at once is faster for so few channels";
  const int64_t in = in_channels_per_group(p);
  const int64_t out = out_channels_per_group(p);
  if (p.pass == Pass::grad_weight) {
    if (p.dtype == DType::float32 && BroadcastWeightGradientPlan<float>::fits(p)) return nullptr;
    constexpr int64_t wide_enough = 32;
    const bool is_single_tap = p.kernel.height * p.kernel.width == 1;
    if (in * out > (p.output.width >= wide_enough && !is_single_tap ? 36 : 16))
      return "a group has too many pairs of channels, so a matrix product is faster";
    if (in == 1 && out > 8 && p.output_strides.column != 1)
      return "gathering the output gradient of so many channels costs more than a matrix product";
    return nullptr;
  }
  if (in * out > 16 && p.kernel.height == 1 && p.kernel.width == 1)
    return "a 1x1 kernel of that many channels is a plain matrix product";
  const int64_t source = p.pass == Pass::forward ? in : out;
  const int64_t result = p.pass == Pass::forward ? out : in;
  if (source > 64) return "a group reads more than 64 channels";
  const bool has_planes = p.input_strides.column == 1 && p.output_strides.column == 1;
  if (p.groups == 1 && has_planes && source >= 16 && result >= 3)
    return "a group reads so many channels that a matrix product is faster";
  if (p.pass == Pass::forward && (p.dtype == DType::float32 || p.dtype == DType::float64) && has_planes &&
      source <= 2 && result >= 8 && p.output.width >= 32 &&
      (p.stride.width > 1 || p.kernel.height * p.kernel.width >= 49))
    return "lines whose phases are taken apart once serve so many results better";
  if (result > (source <= 2 ? 16 : 4))
    return "a group writes so many channels that a matrix product is faster";
  return nullptr;
}

Reason why_not(const ConvProblem& p) {
  if (!is_floating(p.dtype)) return "it is for floating-point numbers";
  if (is_empty(p)) return "a tensor is empty";
  if (const Reason reason = too_many_channels(p)) return reason;
  constexpr int64_t longest = 1 << 20;
  if (p.stride.height > longest || p.stride.width > longest || p.dilation.height > longest ||
      p.dilation.width > longest)
    return "a stride or dilation is larger than 2^20";
  if (p.kernel.width > block_terms) return "the kernel is wider than 256";
  if (p.pass == Pass::grad_input && (p.stride.height > most_residues || p.stride.width > most_residues))
    return "a stride larger than 16 leaves its phases too short for vectors";
  if (p.kernel.height > 4096) return "the kernel is higher than 4096";
  constexpr int64_t most_scratch = 4 << 20;
  const int64_t scratch = with_type(p.dtype, [&](auto zero) {
    return with_plan<decltype(zero)>(p, [](const auto& plan) { return plan.worker_bytes; });
  });
  if (scratch > most_scratch) return "a worker would need more than 4 MiB of scratch";
  return nullptr;
}

void run(const ConvProblem& problem, const ConvData& data, void* workspace, const Executor& executor) {
  with_type(problem.dtype, [&](auto zero) { run_as<decltype(zero)>(problem, data, workspace, executor); });
}

}  // namespace

extern const Kernel direct_rows{
    "direct_rows",
    CONVEXT_ISA_ENUMERATOR,
    "bands of image lines, correlated in place; depthwise and few channels, forward and both gradients",
    why_not,
    workspace_bytes,
    run,
};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
