#include "cpu/planner.h"

#include <algorithm>
#include <cstring>

#include "core/settings.h"
#include "cpu/kernel_list.h"

namespace convext {

const char narrower_vectors_fit[] = "half of its lanes would be empty, and narrower vectors would be full";

namespace {

// A kernel's builds stand together, the most capable instruction set first.
std::vector<const Kernel*> make_list() {
  std::vector<const Kernel*> list;
#define CONVEXT_ADD(isa, name) list.push_back(&isa##_isa::name);
#if defined(CONVEXT_BUILD_AMXBF16)
#define CONVEXT_ADD_TILES(name) CONVEXT_ADD(amxbf16, name)
#else
#define CONVEXT_ADD_TILES(name)
#endif
#if defined(CONVEXT_BUILD_AVX512BF16)
#define CONVEXT_ADD_BFLOAT16(name) CONVEXT_ADD(avx512bf16, name)
#else
#define CONVEXT_ADD_BFLOAT16(name)
#endif
#if defined(CONVEXT_BUILD_AVX512)
#define CONVEXT_ADD_AVX512(name) CONVEXT_ADD(avx512, name)
#else
#define CONVEXT_ADD_AVX512(name)
#endif
#if defined(CONVEXT_BUILD_AVX2)
#define CONVEXT_ADD_AVX2(name) CONVEXT_ADD(avx2, name)
#else
#define CONVEXT_ADD_AVX2(name)
#endif
#if defined(CONVEXT_BUILD_NEON)
#define CONVEXT_ADD_NEON(name) CONVEXT_ADD(neon, name)
#else
#define CONVEXT_ADD_NEON(name)
#endif
#define CONVEXT_ADD_SPECIALISED(name) \
  CONVEXT_ADD_AVX512(name)            \
  CONVEXT_ADD_AVX2(name)              \
  CONVEXT_ADD_NEON(name)
#define CONVEXT_ADD_GENERAL(name) \
  CONVEXT_ADD_SPECIALISED(name)   \
  CONVEXT_ADD(baseline, name)
  CONVEXT_TILE_KERNELS(CONVEXT_ADD_TILES)
  CONVEXT_BFLOAT16_KERNELS(CONVEXT_ADD_BFLOAT16)
  CONVEXT_SPECIALISED_KERNELS(CONVEXT_ADD_SPECIALISED)
  CONVEXT_GENERAL_KERNELS(CONVEXT_ADD_GENERAL)
#undef CONVEXT_ADD_GENERAL
#undef CONVEXT_ADD_SPECIALISED
#undef CONVEXT_ADD_NEON
#undef CONVEXT_ADD_AVX2
#undef CONVEXT_ADD_AVX512
#undef CONVEXT_ADD_BFLOAT16
#undef CONVEXT_ADD_TILES
#undef CONVEXT_ADD
  list.push_back(&reference_kernel);
  return list;
}

std::vector<const Kernel*> make_widest_builds() {
  std::vector<const Kernel*> list;
  for (const Kernel* kernel : make_list()) {
    const bool is_first = list.empty() || std::strcmp(list.back()->name, kernel->name) != 0;
    if (is_first && isa_available(kernel->isa)) list.push_back(kernel);
  }
  return list;
}

const std::vector<const Kernel*>& widest_builds() {
  static const std::vector<const Kernel*> list = make_widest_builds();
  return list;
}

// The build of the same kernel for the next narrower vectors, or nullptr.
const Kernel* next_build(const Kernel& kernel) {
  const auto& list = all_kernels();
  const auto next = std::find(list.begin(), list.end(), &kernel) + 1;
  return next != list.end() && std::strcmp((*next)->name, kernel.name) == 0 ? *next : nullptr;
}

Reason isa_missing(Isa isa) {
  switch (isa) {
    case Isa::baseline:
      return "this CPU cannot run the baseline build";
    case Isa::neon:
      return "this CPU has no NEON, or CONVEXT_MAX_ISA excludes it";
    case Isa::avx2:
      return "this CPU has no AVX2 + FMA + F16C, or CONVEXT_MAX_ISA excludes it";
    case Isa::avx512:
      return "this CPU has no AVX-512 (F, BW, DQ, VL), or CONVEXT_MAX_ISA excludes it";
    case Isa::avx512bf16:
      return "this CPU has no dot products of bfloat16 (AVX512_BF16), or CONVEXT_MAX_ISA excludes it";
    case Isa::amxbf16:
      return "this CPU has no tiles of bfloat16 (AMX_BF16), or CONVEXT_MAX_ISA excludes it";
  }
  return "unknown instruction set";
}

bool matches(const Kernel& kernel, const std::string& name) {
  return name == kernel.name || name == qualified_name(kernel);
}

}  // namespace

const std::vector<const Kernel*>& all_kernels() {
  static const std::vector<const Kernel*> list = make_list();
  return list;
}

std::string qualified_name(const Kernel& kernel) {
  return std::string(kernel.name) + "/" + isa_name(kernel.isa);
}

Reason why_not(const Kernel& kernel, const ConvProblem& problem) {
  if (!isa_available(kernel.isa)) return isa_missing(kernel.isa);
  return kernel.why_not(problem);
}

bool is_widest_build(const Kernel& kernel) {
  const auto& list = widest_builds();
  return std::find(list.begin(), list.end(), &kernel) != list.end();
}

const Kernel* plan(const ConvProblem& problem, std::string* error) {
  if (!kernel_is_forced()) {
    for (const Kernel* kernel : widest_builds()) {
      const Reason reason = kernel->why_not(problem);
      if (reason == nullptr) return kernel;
      if (reason != narrower_vectors_fit) continue;
      const Kernel* const narrower = next_build(*kernel);
      if (narrower != nullptr && narrower->why_not(problem) == nullptr) return narrower;
    }
    *error = "no kernel can run this problem";
    return nullptr;
  }
  const std::string name = forced_kernel();
  std::string reasons;
  for (const Kernel* kernel : all_kernels()) {
    if (!name.empty() && !matches(*kernel, name)) continue;
    const Reason reason = why_not(*kernel, problem);
    if (reason == nullptr) return kernel;
    reasons += (reasons.empty() ? "" : "; ") + qualified_name(*kernel) + ": " + reason;
  }
  if (reasons.empty()) reasons = "it is no CPU kernel, and the tensors are on the CPU";
  *error = forced_kernel_cannot_run(name, reasons);
  return nullptr;
}

std::vector<Rejection> rejections(const ConvProblem& problem, const Kernel& chosen) {
  std::vector<Rejection> list;
  for (const Kernel* kernel : all_kernels()) {
    if (kernel == &chosen) break;
    Reason reason = why_not(*kernel, problem);
    if (reason == nullptr)
      reason = is_widest_build(*kernel) ? "another kernel is forced" : "there is a build with wider vectors";
    list.push_back({qualified_name(*kernel), reason});
  }
  return list;
}

int useful_workers(const ConvProblem& problem, int threads) {
  // Waking a thread costs some 5 to 10 us: the time of about 0.5 M multiply-adds on one core, or of reading
  // or writing an eighth as many numbers.
  constexpr double serial_multiply_adds = 5e5;
  const double pixels =
      static_cast<double>(problem.in_channels * problem.input.height * problem.input.width +
                          problem.out_channels * problem.output.height * problem.output.width);
  const double work = multiply_adds(problem) + 8 * static_cast<double>(problem.batch) * pixels;
  return threads <= 1 || work < serial_multiply_adds ? 1 : threads;
}

}  // namespace convext
