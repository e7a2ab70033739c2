#include "cuda/bias_gradient.h"
#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/row_reduction.cuh"

namespace convext {
namespace cuda {
namespace {

// Rows that follow each other without a gap are one long row.
Size2 joined_plane(const BiasGradientSizes& sizes, const ImageStrides& strides) {
  if (strides.row != sizes.plane.width * strides.column) return sizes.plane;
  return {1, sizes.plane.height * sizes.plane.width};
}

RowReduction plan_bias_gradient(const BiasGradientSizes& sizes, Size2 plane, bool channels_adjacent) {
  return plan_row_reduction(sizes.channels, sizes.batch * plane.height, plane.width, channels_adjacent);
}

template <class T>
__global__ void __launch_bounds__(reduction_threads)
    sum_channels(RowReduction plan, Destination to, int64_t height, ImageStrides strides,
                 const T* grad_output, T* result, Total<T>* chunk_sums) {
  reduce_rows(plan, result, to, chunk_sums,
              [&](Sum<T>& sum, int64_t channel, int64_t row, int64_t first_column, int64_t step) {
                const int64_t n = quotient(row, height);
                const T* source = grad_output + n * strides.batch + channel * strides.channel +
                                  (row - n * height) * strides.row;
                for (int64_t x = first_column; x < plan.columns; x += step)
                  sum.add(widen(source[x * strides.column]));
              });
}

}  // namespace

int64_t bias_gradient_workspace_bytes(DType, const BiasGradientSizes& sizes) {
  // The strides, which decide how the rows are cut, are not known here: this covers all of them.
  int64_t bytes = 0;
  for (const Size2 plane : {sizes.plane, Size2{1, sizes.plane.height * sizes.plane.width}}) {
    for (const bool channels_adjacent : {false, true}) {
      const RowReduction plan = plan_bias_gradient(sizes, plane, channels_adjacent);
      const int64_t needed = reduction_workspace_bytes(plan, static_cast<int64_t>(sizeof(double)));
      bytes = needed > bytes ? needed : bytes;
    }
  }
  return bytes;
}

const char* bias_gradient(DType dtype, const BiasGradientSizes& sizes, const ImageStrides& strides,
                          const void* grad_output, void* grad_bias, void* workspace, void* stream) {
  if (sizes.channels == 0) return nullptr;
  const Size2 plane = joined_plane(sizes, strides);
  const RowReduction plan = plan_bias_gradient(sizes, plane, strides.channel == 1 && sizes.channels > 1);
  const Destination to{memory_order({sizes.channels, 1, 1, 1}, {1, 0, 0, 0}), {1, 0, 0, 0}};
  // The walk over the elements serves any grid; so many blocks are more than any device runs at a time.
  CudaDevice device;
  device.multiprocessors = 1024;
  const Grid grid{grid_size(reduction_blocks(plan), device), plan.chunks};
  return with_type(dtype, [&](auto element) {
    using T = decltype(element);
    const char* error = launch(sum_channels<T>, grid, reduction_threads, 0, stream, plan, to, plane.height,
                               strides, static_cast<const T*>(grad_output), static_cast<T*>(grad_bias),
                               static_cast<Total<T>*>(workspace));
    if (error != nullptr || plan.chunks == 1) return error;
    return launch_add_chunks<T>(plan.chunks, plan.elements, workspace, grad_bias, to, device, stream);
  });
}

}  // namespace cuda
}  // namespace convext
