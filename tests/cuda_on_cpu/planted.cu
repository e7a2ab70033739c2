// Errors planted on purpose, to see that the tests without a GPU find them (planted_errors.sh).
//
//   planted NAME
//
// runs the kernel NAME with the threads in all orders; the exit status is 1 if the results differ or are
// wrong.
#include <cstdio>
#include <cstring>
#include <vector>

#include "cuda/launch.cuh"
#include "schedule.h"

namespace convext {
namespace {

constexpr int threads = 64;

struct Tile {
  int value[threads];
};

// Every thread passes its number to the one that mirrors it.
__global__ void mirror(const int* in, int* out, bool with_barrier, int shared_index_shift,
                       int global_index_shift) {
  CONVEXT_SHARED(Tile, tile);
  const int t = static_cast<int>(threadIdx.x);
  int* values = tile.value;
  values[t + shared_index_shift] = in[t + global_index_shift];
  if (with_barrier) __syncthreads();
  out[t] = values[threads - 1 - t];
}

__global__ void dynamic_mirror(const int* in, int* out, int shift) {
  CONVEXT_DYNAMIC_SHARED(bytes);
  int* values = reinterpret_cast<int*>(bytes);
  const int t = static_cast<int>(threadIdx.x);
  values[t + shift] = in[t];
  __syncthreads();
  out[t] = values[threads - 1 - t];
}

__global__ void warp_mirror(const int* in, int* out) {
  const int t = static_cast<int>(threadIdx.x);
  const int lane = t % 32;
  const int mirrored = __shfl_xor_sync(0xffffffffu, in[t], 31);
  const unsigned odd = __ballot_sync(0xffffffffu, lane % 2);
  const int half = __shfl_down_sync(0xffffffffu, mirrored, 16);
  __syncwarp();
  out[(t / 32 ^ 1) * 32 + lane] = odd == 0xaaaaaaaau && (lane >= 16 || half == mirrored - 16) ? mirrored : -1;
}

// Half of the threads never come to the barrier.
__global__ void divergent_barrier(const int* in, int* out) {
  const int t = static_cast<int>(threadIdx.x);
  if (t < threads / 2) __syncthreads();
  out[t] = in[threads - 1 - t];
}

const char* start(const char* name, const int* in, int* out) {
  const auto is = [&](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("warp")) return cuda::launch(warp_mirror, {}, threads, 0, nullptr, in, out);
  if (is("divergent_barrier")) return cuda::launch(divergent_barrier, {}, threads, 0, nullptr, in, out);
  if (is("dynamic_shared_out_of_bounds") || is("dynamic"))
    return cuda::launch(dynamic_mirror, {}, threads, int64_t{sizeof(int)} * threads, nullptr, in, out,
                        is("dynamic") ? 0 : 1);
  return cuda::launch(mirror, {}, threads, 0, nullptr, in, out, !is("missing_barrier"),
                      is("shared_out_of_bounds") ? 1 : 0, is("global_out_of_bounds") ? 1 : 0);
}

}  // namespace
}  // namespace convext

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  bool ok = true;
  for (auto schedule :
       {cuda_on_cpu::Schedule::forward, cuda_on_cpu::Schedule::reverse, cuda_on_cpu::Schedule::random}) {
    cuda_on_cpu::set_schedule(schedule, 1);
    std::vector<int> in, out(convext::threads, -1);
    for (int k = 0; k < convext::threads; ++k) in.push_back(k);
    in.shrink_to_fit();
    const char* error = convext::start(argv[1], in.data(), out.data());
    for (int k = 0; k < convext::threads; ++k)
      ok = ok && error == nullptr && out[static_cast<size_t>(k)] == convext::threads - 1 - k;
    std::printf("%s, %s: %s\n", argv[1], cuda_on_cpu::schedule_name(schedule), ok ? "right" : "wrong");
  }
  return ok ? 0 : 1;
}
