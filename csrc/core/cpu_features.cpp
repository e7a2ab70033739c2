#include "core/cpu_features.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace convext {
namespace {

constexpr Isa all_isas[] = {Isa::baseline, Isa::neon, Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::amxbf16};

#if defined(__x86_64__)
// Not __builtin_cpu_supports("f16c"): clang 14 refuses the name.
bool has_f16c() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

#if defined(CONVEXT_BUILD_AVX512BF16)
// Nor this one, which clang 14 does not know either.
bool has_bfloat16_products() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned bit = 1u << 5;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & bit) != 0;
}
#endif

#if defined(CONVEXT_BUILD_AMXBF16)
// Linux gives a process the tiles' 8 KB of registers when it asks for them.
bool has_tiles_of_bfloat16() {
#if defined(CONVEXT_EMULATE_TILES)
  return true;
#else
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned tiles = 1u << 24;
  constexpr unsigned products = 1u << 22;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & tiles) == 0 || (edx & products) == 0) return false;
  constexpr long ask_for_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, ask_for_permission, tile_data) == 0;
#endif
}
#endif
#endif

bool cpu_executes(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::baseline:
      return true;
    case Isa::neon:
      return false;
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case Isa::avx512:
      return cpu_executes(Isa::avx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
    case Isa::avx512bf16:
#if defined(CONVEXT_BUILD_AVX512BF16)
      return cpu_executes(Isa::avx512) && has_bfloat16_products();
#else
      return false;  // the compiler did not know it
#endif
    case Isa::amxbf16:
#if defined(CONVEXT_BUILD_AMXBF16)
      return cpu_executes(Isa::avx512bf16) && __builtin_cpu_supports("avx512vbmi2") &&
             has_tiles_of_bfloat16();
#else
      return false;
#endif
  }
  return false;
#elif defined(__aarch64__)
  return isa == Isa::baseline || isa == Isa::neon;  // NEON is part of the architecture
#else
  return isa == Isa::baseline;
#endif
}

// An unknown value caps nothing: a typo must not make a program slower in silence, and `build_info` shows it.
Isa highest_allowed() {
  const char* value = std::getenv("CONVEXT_MAX_ISA");
  if (value == nullptr) return Isa::amxbf16;
  for (Isa isa : all_isas) {
    if (std::strcmp(value, isa_name(isa)) == 0) return isa;
  }
  return Isa::amxbf16;
}

struct Availability {
  bool isa[sizeof(all_isas) / sizeof(all_isas[0])];
};

Availability probe() {
  Availability result{};
  const Isa cap = highest_allowed();
  for (Isa isa : all_isas) {
    result.isa[static_cast<int>(isa)] = isa <= cap && cpu_executes(isa);
  }
  return result;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::baseline:
      return "baseline";
    case Isa::neon:
      return "neon";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512bf16:
      return "avx512bf16";
    case Isa::amxbf16:
      return "amxbf16";
  }
  return "unknown";
}

bool isa_available(Isa isa) {
  static const Availability availability = probe();
  return availability.isa[static_cast<int>(isa)];
}

Isa best_isa() {
  for (Isa isa : {Isa::amxbf16, Isa::avx512bf16, Isa::avx512, Isa::avx2, Isa::neon}) {
    if (isa_available(isa)) return isa;
  }
  return Isa::baseline;
}

}  // namespace convext
