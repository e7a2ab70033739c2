// Where the pixels of a block lie, in both operands of the gradient of the weight: tables of all of them, and
// of those that read the source by a tap, and not padding. A smaller block's pixels are the first ones.
#pragma once

#include "cpu/implicit_gemm/micro_kernel.h"
#include "cpu/implicit_gemm/weight_gradient_plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class T>
class PixelTables {
 public:
  using Operands = TileOperands<Compute<T>>;
  using Block = PixelBlocks::Block;

  PixelTables(const WeightGradientPlan<T>& cut, int32_t* numbers)
      : plan(cut),
        most(cut.blocks.most_pixels()),
        a_terms(numbers),
        b_terms(a_terms + cut.tables() * most),
        lines(b_terms + cut.tables() * most) {}

  void fill() const {
    const PositionRange all_rows{0, plan.blocks.rows};
    const PositionRange all_columns{0, plan.blocks.columns};
    fill_table(0, all_rows, all_columns);
    if (plan.skips_padding) {
      for (int64_t i = 0; i < plan.row_tables(); ++i) {
        for (int64_t j = 0; j < plan.column_tables(); ++j) {
          fill_table(table_of(i, j), plan.has_row_tables ? rows_of(i) : all_rows,
                     plan.has_column_tables ? columns_of(j) : all_columns);
        }
      }
    }
    constexpr int64_t lanes = Vector<Compute<T>>::lanes;
    for (int64_t v = 0; v < plan.tile_vectors; ++v) lines[v] = static_cast<int32_t>(v * lanes);
  }

  // The vectors of a row of results.
  const int32_t* result_lines() const { return lines; }

  void point_to_all(Operands& operands, const Block& block) const { point(operands, 0, block.pixels()); }

  // To none, if all that the tap reads is padding.
  void point_to_tap(Operands& operands, const Block& block, int64_t tap) const {
    const int64_t i = tap / plan.columns.taps;
    const int64_t j = tap % plan.columns.taps;
    const PositionRange rows = rows_of(i);
    const int64_t first_row = smaller(block.rows, larger(rows.begin, block.row) - block.row);
    const int64_t row_count = larger(0, smaller(rows.end, block.row + block.rows) - block.row - first_row);
    const int64_t width = plan.has_column_tables ? columns_of(j).count() : block.columns;
    const int64_t skipped = plan.has_row_tables ? 0 : first_row * width;
    point(operands, table_of(i, j) * most + skipped, block.images * row_count * width);
  }

 private:
  const WeightGradientPlan<T>& plan;
  int64_t most;  // pixels of a block
  int32_t* a_terms;
  int32_t* b_terms;
  int32_t* lines;

  PositionRange rows_of(int64_t row_tap) const { return PositionRange::of(plan.rows, row_tap); }
  PositionRange columns_of(int64_t column_tap) const { return PositionRange::of(plan.columns, column_tap); }

  int64_t table_of(int64_t row_tap, int64_t column_tap) const {
    return 1 + (plan.has_row_tables ? row_tap * plan.column_tables() : 0) +
           (plan.has_column_tables ? column_tap : 0);
  }

  void point(Operands& operands, int64_t first, int64_t count) const {
    operands.a_terms = a_terms + first;
    operands.b_terms = b_terms + first;
    operands.terms = count;
    operands.chain = ceil_div(count, larger(1, ceil_div(count, plan.chain)));
  }

  void fill_table(int64_t table, const PositionRange& rows, const PositionRange& columns) const {
    const ImageStrides& strides = plan.problem.output_strides;
    const PixelBlocks& blocks = plan.blocks;
    const bool has_gaps = plan.source == PanelSource::lines || plan.source == PanelSource::channels;
    const int64_t pitch =
        has_gaps ? Band(plan.rows, plan.columns, 0, blocks.rows, 0, blocks.columns).pitch : blocks.columns;
    int64_t k = table * most;
    for (int64_t image = 0; image < blocks.images; ++image) {
      for (int64_t y = rows.begin; y < rows.end; ++y) {
        for (int64_t x = columns.begin; x < columns.end; ++x, ++k) {
          const int64_t place = image * plan.panel_places + y * pitch + x;
          const int64_t pixel = (image * blocks.rows + y) * blocks.columns + x;
          b_terms[k] = static_cast<int32_t>(place * plan.panel_stride);
          a_terms[k] = static_cast<int32_t>(plan.outputs_in_place
                                                ? image * strides.batch + y * strides.row + x * strides.column
                                            : plan.outputs_by_rows ? pixel
                                                                   : pixel * plan.outputs_group);
        }
      }
    }
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
