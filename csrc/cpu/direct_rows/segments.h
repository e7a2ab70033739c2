// Lines cut into as many segments as a block has lanes, side by side: number k of every segment lies next to
// number k of the others. Each repeats the first `reach` numbers of the next one, so that a tap one further
// across reads one block further on. A vector of the line then begins a line of the cache whatever the tap;
// of a whole line nearly every vector of 64 bytes lies across two, which takes more than two cycles to load.
#pragma once

#include "cpu/direct_rows/pixel_lines.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Real>
struct Segments {
  static constexpr int64_t count = channel_block<Real>;

  int64_t length = 0;  // 0: lines are whole
  int64_t reach = 0;

  bool are_used() const { return length != 0; }
  int64_t step() const { return are_used() ? count : 1; }  // from number to number of a line
  int64_t cut_numbers() const { return (length + reach) * count; }
  int64_t whole_numbers() const { return length * count + reach; }

  void cut(Real* line, const Real* whole) const {
    transpose_in<Real>(line, 0, whole, length, count, length + reach, length + reach);
  }
  // Of results, which have no reach.
  void join(Real* whole, const Real* line) const { transpose_out<Real>(whole, length, count, line, length); }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
