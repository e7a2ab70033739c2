// How a kernel is cut into blocks of a tile's taps. Their products are added up where they are, before the
// last transform. Along an axis, a block is three neighbouring taps, or two: the third one then belongs to
// the neighbouring block, and the product that reads it alone is left out. For two outputs, five taps so take
// 4 + 3 multiplications instead of 10, and seven take 4 + 3 + 3 instead of 14.
#pragma once

#include "core/problem.h"
#include "cpu/blocking.h"
#include "cpu/winograd/transforms.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

// Taps [first, first + taps of the tile) of an axis of the kernel, of which [begin, end) are its own.
struct TapBlock {
  int64_t first;
  int64_t begin;
  int64_t end;

  bool owns(int64_t tap) const { return begin <= tap && tap < end; }
};

// The blocks of an axis whose taps are a multiple of the tile's, or at least four. Those of two taps come
// last.
template <class Axis>
class TapBlocks {
 public:
  explicit TapBlocks(int64_t kernel_taps)
      : taps(kernel_taps),
        count(ceil_div(kernel_taps, Axis::taps)),
        pairs(count * Axis::taps - kernel_taps) {}

  int64_t size() const { return count; }

  TapBlock at(int64_t index) const {
    if (index < count - pairs) return {index * Axis::taps, 0, Axis::taps};
    const int64_t own = taps - 2 * (count - index);
    return own == 0 ? TapBlock{0, 0, 2} : TapBlock{own - 1, 1, Axis::taps};
  }

  static bool has_product(const TapBlock& block, int64_t product) {
    return (product > 0 || block.begin == 0) && (product < Axis::inputs - 1 || block.end == Axis::taps);
  }
  // The first block that has it.
  int64_t first_with(int64_t product) const { return has_product(at(0), product) ? 0 : 1; }

  // Of all blocks.
  int64_t products() const { return count * Axis::inputs - pairs; }

 private:
  int64_t taps;
  int64_t count;
  int64_t pairs;  // blocks of two taps
};

struct KernelBlock {
  int64_t index;
  TapBlock rows;
  TapBlock columns;

  bool owns(int64_t row, int64_t column) const { return rows.owns(row) && columns.owns(column); }
};

template <class Tile>
struct KernelBlocks {
  TapBlocks<typename Tile::Rows> rows;
  TapBlocks<typename Tile::Columns> columns;

  explicit KernelBlocks(const Size2& kernel) : rows(kernel.height), columns(kernel.width) {}

  int64_t size() const { return rows.size() * columns.size(); }

  KernelBlock at(int64_t index) const {
    return {index, rows.at(index / columns.size()), columns.at(index % columns.size())};
  }

  static bool has_product(const KernelBlock& block, int64_t product) {
    return TapBlocks<typename Tile::Rows>::has_product(block.rows, product / Tile::Columns::inputs) &&
           TapBlocks<typename Tile::Columns>::has_product(block.columns, product % Tile::Columns::inputs);
  }
  bool is_first_with(const KernelBlock& block, int64_t product) const {
    return block.index == rows.first_with(product / Tile::Columns::inputs) * columns.size() +
                              columns.first_with(product % Tile::Columns::inputs);
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
