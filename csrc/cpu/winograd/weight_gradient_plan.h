// How the gradient of the weight is cut, and the workspace that it needs. See weight_gradient.h.
#pragma once

#include "cpu/dispatch.h"
#include "cpu/panel_gemm/micro_kernel.h"
#include "cpu/winograd/evenness.h"
#include "cpu/winograd/plan.h"

namespace convext {
namespace CONVEXT_ISA_NAMESPACE {
namespace {

template <class Tile, class Real>
struct WeightGradientPlan {
  static constexpr int64_t lanes = Vector<Real>::lanes;
  static constexpr int64_t products = Tile::products;
  // Tiles that are transformed and multiplied at a time, and channels of an item: what one of the products
  // reads and its sums stay in the L1 cache, all products in L2 or near it.
  static constexpr int64_t most_tiles_of_block = 64;
  static constexpr int64_t most_rows = 64;
  static constexpr int64_t most_vectors = 2 * most_vectors_of_tile;
  static constexpr int64_t rows_of_unit = 16;  // whole vectors, and a tile or more
  // Rounding errors grow with the length of the chains.
  static constexpr int64_t most_chain = 16;

  int64_t groups;
  KernelBlocks<Tile> kernel_blocks;
  GradientOperand<Real> output;  // rows of the products
  GradientOperand<Real> input;   // columns, in the lanes
  TileGrid grid;
  int64_t block;  // tiles of one, at most
  int64_t chain;
  int64_t chunks;  // of the tiles, each with a result of its own
  int64_t tiles_of_chunk;
  int64_t row_parts;
  int64_t vector_parts;
  int64_t row_stride;     // numbers of a tile, of the output's channels
  int64_t column_stride;  // of the input's, and of a row of sums
  int64_t output_plane;   // numbers of a product
  int64_t input_plane;
  int64_t sums_plane;

  int64_t partials_offset;
  int64_t workers_offset;
  int64_t sums_offset;  // in a worker's part
  int64_t output_offset;
  int64_t input_offset;
  int64_t lines_offset;
  int64_t worker_bytes;

  WeightGradientPlan(const ConvProblem& p, int workers)
      : groups(p.groups),
        kernel_blocks(p.kernel),
        output(GradientOperand<Real>::output_of(p)),
        input(GradientOperand<Real>::input_of(p)),
        grid(p.batch, output.rows, output.columns, Tile::Rows::outputs, Tile::Columns::outputs) {
    choose_chunks();
    const int64_t blocks = ceil_div(tiles_of_chunk, most_tiles_of_block);
    block = ceil_div(tiles_of_chunk, blocks);
    chain = ceil_div(block, ceil_div(block, most_chain));
    choose_parts(workers);
    output_plane = odd_lines<Real>(block * row_stride);
    input_plane = odd_lines<Real>(block * column_stride);
    sums_plane = odd_lines<Real>(row_stride * column_stride);

    Carver shared;
    partials_offset =
        shared.take(chunks > 1 ? chunks * groups * kernel_blocks.size() * output.channels * partial_row() : 0,
                    sizeof(Real));
    workers_offset = shared.bytes;
    Carver own;
    sums_offset = own.take(products * sums_plane, sizeof(Real));
    output_offset = own.take(products * output_plane, sizeof(Real));
    input_offset = own.take(products * input_plane, sizeof(Real));
    lines_offset = own.take(Tile::Rows::inputs * line_numbers<Real>, sizeof(Real));
    worker_bytes = own.bytes;
  }

  // The gradients of the taps of one output channel and a block of the kernel, vector by vector.
  int64_t partial_row() const { return Tile::taps * input.vectors() * lanes; }

  int64_t units() const { return ceil_div(output.channels, rows_of_unit); }
  int64_t first_row(int64_t part) const {
    return smaller(output.channels, part * units() / row_parts * rows_of_unit);
  }
  int64_t first_vector(int64_t part) const { return part * input.vectors() / vector_parts; }
  int64_t items() const { return groups * chunks * kernel_blocks.size() * row_parts * vector_parts; }
  int64_t workspace_bytes(int workers) const { return workers_offset + workers * worker_bytes; }

 private:
  // For several threads, where the channels are too few to be cut: by the shape alone, as the order of the
  // additions follows from it.
  void choose_chunks() {
    constexpr int64_t wanted_items = 16;
    constexpr int64_t fewest_tiles = 128;
    constexpr int64_t most_numbers = int64_t{1} << 22;
    const int64_t items_of_chunk = groups * kernel_blocks.size() * ceil_div(output.channels, most_rows) *
                                   ceil_div(input.vectors(), most_vectors);
    const int64_t numbers = groups * kernel_blocks.size() * output.channels * partial_row();
    chunks = 1;
    while (chunks * items_of_chunk < wanted_items && 2 * chunks * fewest_tiles <= grid.tiles &&
           2 * chunks * numbers <= most_numbers) {
      chunks *= 2;
    }
    tiles_of_chunk = ceil_div(grid.tiles, chunks);
    chunks = ceil_div(grid.tiles, tiles_of_chunk);
  }

  // Sums do not depend on each other, so this may follow the number of workers. Each part of the rows
  // transforms the input again, each part of the columns the gradient of the output.
  void choose_parts(int workers) {
    row_parts = ceil_div(output.channels, most_rows);
    vector_parts = ceil_div(input.vectors(), most_vectors);
    const int64_t wanted = workers == 1 ? 1 : int64_t{3} * workers;
    while (items() < wanted && row_parts < units()) ++row_parts;
    while (items() < wanted && vector_parts < ceil_div(input.vectors(), 2)) ++vector_parts;
    row_stride = ceil_div(units(), row_parts) * rows_of_unit;
    column_stride = ceil_div(input.vectors(), vector_parts) * lanes;
  }
};

}  // namespace
}  // namespace CONVEXT_ISA_NAMESPACE
}  // namespace convext
