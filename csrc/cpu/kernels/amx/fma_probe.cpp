// As ../fma_probe.cpp, with products of tiles.
#include "cpu/fma_probe.h"

#include "cpu/bfloat16_tiles/tile_registers.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

double multiply_and_add_tiles(int64_t steps) {
  configure_tiles(most_tile_pairs);
  const int64_t products = steps / 16 + 1;  // about as long as the other probes
  for (int64_t step = 0; step < products; ++step) {
    dot<0, 4, 6>();
    dot<1, 4, 7>();
    dot<2, 5, 6>();
    dot<3, 5, 7>();
  }
  release_tiles();
  constexpr int64_t of_product = 4 * tile_height * most_tile_pairs * tile_width;
  return static_cast<double>(4 * of_product * products);
}

}  // namespace

extern const FmaProbe fma_probe;
const FmaProbe fma_probe = {nullptr, nullptr, multiply_and_add_tiles};

}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
