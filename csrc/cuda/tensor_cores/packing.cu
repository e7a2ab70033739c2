#include "core/padding.h"
#include "cuda/divisor.cuh"
#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/tensor_cores/packing.h"
#include "cuda/tiles/limits.h"

namespace convext {
namespace cuda {
namespace mma {
namespace {

constexpr int vector_bytes = 16;
constexpr int copy_threads = 256;
constexpr int tile_numbers = 4096;  // of a block at most: so many channels times pixels
constexpr int most_tile_channels = 64;
constexpr int least_tile_pixels = 16;
constexpr int64_t blocks_wanted = 512;

// An image, or the weights as one, whose "samples" are the channels of the result.
struct Copy {
  int pixels;
  Divisor by_width, by_height;
  int width, height;
  int source_width, source_height, top, left;  // of what is padded on the way
  PaddingMode mode;
  int channels;                    // of a group
  int packed_channels;             // the same in whole vectors
  int tile_channels, tile_pixels;  // powers of two
  ImageStrides from;
  int64_t from_group, to_pixel, to_group;
  bool channels_adjacent;
  bool planes_in_pieces;  // the pixels of a plane are one line, in whole pieces
  Divisor by_plane;
  int plane;
  int* not_finite;  // nullptr: nobody asks
};

template <class Bits>
struct Tile {
  alignas(8)
      Bits number[tile_numbers + 2 * most_tile_channels];  // two more for each channel, for the banks' sake
};

// In words of no more than a line's alignment.
template <class Bits>
union alignas(vector_bytes) Piece {
  using Word = std::conditional_t<sizeof(Bits) == 8, uint64_t, uint32_t>;
  static constexpr int words = vector_bytes / static_cast<int>(sizeof(Word));

  Word word[words];
  Bits lane[vector_bytes / sizeof(Bits)];
};

// exponent: the bits of Bits that are all set in what is not finite.
template <class Bits>
__global__ void __launch_bounds__(copy_threads) pack(Copy p, Bits exponent, const Bits* from, Bits* to) {
  constexpr int lanes = vector_bytes / static_cast<int>(sizeof(Bits));
  using Word = typename Piece<Bits>::Word;
  constexpr int words = Piece<Bits>::words;
  CONVEXT_SHARED(Tile<Bits>, tile);
  const int tile_pixels = p.tile_pixels;
  const int line = tile_pixels + 2;
  const int channel_tiles = (p.packed_channels + p.tile_channels - 1) / p.tile_channels;
  const int group = static_cast<int>(blockIdx.y) / channel_tiles;
  const int first_channel = (static_cast<int>(blockIdx.y) - group * channel_tiles) * p.tile_channels;
  const int first_pixel = static_cast<int>(blockIdx.x) * tile_pixels;
  from += group * p.from_group;
  to += group * p.to_group;

  const auto address = [&](int pixel) {
    const int row = quotient(pixel, p.by_width);
    const int n = quotient(row, p.by_height);
    const auto y = padded_source(row - n * p.height - p.top, p.source_height, p.mode);
    const auto x = padded_source(pixel - row * p.width - p.left, p.source_width, p.mode);
    return from + n * p.from.batch + y * p.from.row + x * p.from.column + first_channel * p.from.channel;
  };
  bool finite = true;
  const auto copy = [&](bool exists, const Bits* source, int channel, int at) {
    const Bits bits = exists ? *source : Bits{};
    finite = finite && (bits & exponent) != exponent;
    tile.number[channel * line + at] = bits;
  };
  const int thread = static_cast<int>(threadIdx.x);
  const int pixels = p.pixels - first_pixel;
  const int channels = p.channels - first_channel;
  if (p.planes_in_pieces) {
    const int pieces = tile_pixels / lanes;
#pragma unroll 2
    for (int k = thread; k < p.tile_channels * pieces; k += copy_threads) {
      const int channel = k / pieces;
      const int at = (k - channel * pieces) * lanes;
      Piece<Bits> piece{};
      if (at < pixels && channel < channels) {
        const int n = quotient(first_pixel + at, p.by_plane);
        piece =
            *reinterpret_cast<const Piece<Bits>*>(from + n * p.from.batch + (first_pixel + at - n * p.plane) +
                                                  (first_channel + channel) * p.from.channel);
      }
      auto* to_tile = reinterpret_cast<Word*>(&tile.number[channel * line + at]);
#pragma unroll
      for (int v = 0; v < words; ++v) to_tile[v] = piece.word[v];
    }
  } else if (p.channels_adjacent) {
    const int channel = thread % p.tile_channels;
#pragma unroll 4
    for (int at = thread / p.tile_channels; at < tile_pixels; at += copy_threads / p.tile_channels)
      copy(at < pixels && channel < channels, address(first_pixel + at) + channel * p.from.channel, channel,
           at);
  } else {
    const int pixel_lanes = tile_pixels < copy_threads ? tile_pixels : copy_threads;
    for (int at = thread % pixel_lanes; at < tile_pixels; at += pixel_lanes) {
      const Bits* source = address(first_pixel + at);
#pragma unroll 8
      for (int channel = thread / pixel_lanes; channel < p.tile_channels;
           channel += copy_threads / pixel_lanes)
        copy(at < pixels && channel < channels, source + channel * p.from.channel, channel, at);
    }
  }
  // Whoever finds one stores the same number.
  if (__syncthreads_or(finite ? 0 : 1) != 0 && p.not_finite != nullptr && threadIdx.x == 0) *p.not_finite = 1;

  const int vectors = p.tile_channels / lanes;
  for (int k = static_cast<int>(threadIdx.x); k < tile_pixels * vectors; k += copy_threads) {
    const int at = k / vectors;
    const int channel = (k - at * vectors) * lanes;
    if (first_pixel + at >= p.pixels || first_channel + channel >= p.packed_channels) continue;
    Piece<Bits> vector;
#pragma unroll
    for (int v = 0; v < lanes; ++v) vector.lane[v] = tile.number[(channel + v) * line + at];
    const int64_t first = (first_pixel + at) * p.to_pixel + first_channel + channel;
    *reinterpret_cast<Piece<Bits>*>(to + first) = vector;
  }
}

__global__ void clear(int* number) {
  *number = 0;
}

template <class Bits>
const char* launch_copy(const Copy& plan, int64_t groups, Bits exponent, const void* from, void* to,
                        void* stream) {
  const int64_t channel_tiles = (plan.packed_channels + plan.tile_channels - 1) / plan.tile_channels;
  return launch(
      pack<Bits>,
      Grid{(int64_t{plan.pixels} + plan.tile_pixels - 1) / plan.tile_pixels, channel_tiles * groups},
      copy_threads, 0, stream, plan, exponent, static_cast<const Bits*>(from), static_cast<Bits*>(to));
}

const char* launch_copy(const Copy& plan, int64_t groups, DType dtype, const void* from, void* to,
                        void* stream) {
  switch (dtype) {
    case DType::bfloat16:
      return launch_copy<uint16_t>(plan, groups, 0x7f80, from, to, stream);
    case DType::float16:
      return launch_copy<uint16_t>(plan, groups, 0x7c00, from, to, stream);
    case DType::float64:
      return launch_copy<uint64_t>(plan, groups, uint64_t{0x7ff} << 52, from, to, stream);
    default:
      return launch_copy<uint32_t>(plan, groups, 0x7f800000u, from, to, stream);
  }
}

int64_t vector_lanes(DType dtype) {
  return vector_bytes / element_size(dtype);
}

Copy copy_of(int64_t samples, Size2 size, int64_t channels, int64_t groups, DType dtype) {
  Copy copy{};
  copy.pixels = static_cast<int>(samples * size.height * size.width);
  copy.by_width = divisor_of(size.width);
  copy.by_height = divisor_of(size.height);
  copy.width = copy.source_width = static_cast<int>(size.width);
  copy.height = copy.source_height = static_cast<int>(size.height);
  copy.mode = PaddingMode::zeros;
  copy.channels = static_cast<int>(channels);
  copy.packed_channels = static_cast<int>(round_up(channels, vector_lanes(dtype)));
  copy.tile_channels = 8;
  while (copy.tile_channels < copy.packed_channels && copy.tile_channels < most_tile_channels)
    copy.tile_channels *= 2;
  copy.tile_pixels = tile_numbers / copy.tile_channels;
  const int64_t channel_tiles = (copy.packed_channels + copy.tile_channels - 1) / copy.tile_channels;
  while (copy.tile_pixels > least_tile_pixels &&
         copy.pixels / copy.tile_pixels * channel_tiles * groups < blocks_wanted)
    copy.tile_pixels /= 2;
  return copy;
}

Copy image_copy(const ConvProblem& p, int64_t channels, Size2 size, const ImageStrides& strides) {
  Copy copy = copy_of(p.batch, size, channels, p.groups, p.dtype);
  copy.from = strides;
  copy.from_group = channels * strides.channel;
  copy.to_pixel = p.groups * copy.packed_channels;
  copy.to_group = copy.packed_channels;
  copy.channels_adjacent = strides.channel == 1 && channels > 1;
  const int64_t lanes = vector_lanes(p.dtype);
  const int64_t plane = size.height * size.width;
  copy.plane = static_cast<int>(plane);
  copy.by_plane = divisor_of(plane);
  copy.planes_in_pieces = p.aligned && strides.column == 1 &&
                          (size.height == 1 || strides.row == size.width) && plane % lanes == 0 &&
                          strides.channel % lanes == 0 && strides.batch % lanes == 0;
  return copy;
}

// Rows: the channels of the result; the channels are those that are summed over.
Copy weight_copy(const ConvProblem& p) {
  const bool gradient = p.pass == Pass::grad_input;
  const WeightStrides& s = p.weight_strides;
  const int64_t in = in_channels_per_group(p);
  const int64_t out = out_channels_per_group(p);
  Copy copy = copy_of(gradient ? in : out, p.kernel, gradient ? out : in, p.groups, p.dtype);
  copy.from = gradient ? ImageStrides{s.in_channel, s.out_channel, s.row, s.column}
                       : ImageStrides{s.out_channel, s.in_channel, s.row, s.column};
  copy.from_group = out * s.out_channel;
  copy.to_pixel = copy.packed_channels;
  copy.to_group = int64_t{copy.pixels} * copy.packed_channels;
  copy.channels_adjacent = copy.from.channel == 1 && copy.channels > 1;
  return copy;
}

// Whether the channels of a group lie side by side, in whole vectors.
bool are_vectors(int64_t channels, int64_t batch, Size2 size, const ImageStrides& s, int64_t lanes) {
  return (s.channel == 1 || channels == 1) && channels % lanes == 0 && (batch == 1 || s.batch % lanes == 0) &&
         (size.height == 1 || s.row % lanes == 0) && (size.width == 1 || s.column % lanes == 0);
}

bool pixels_adjacent(int64_t channels, int64_t batch, Size2 size, const ImageStrides& s) {
  return s.column == channels && (size.height == 1 || s.row == size.width * s.column) &&
         (batch == 1 || s.batch == size.height * size.width * s.column);
}

ImageStrides packed_strides(int64_t channels, Size2 size) {
  return {size.height * size.width * channels, 1, size.width * channels, channels};
}

int64_t image_bytes(const ConvProblem& p, int64_t channels, Size2 size) {
  return round_up(p.batch * size.height * size.width * channels * element_size(p.dtype), 256);
}

Size2 padded_size(const ConvProblem& p) {
  return {p.input.height + p.padding.top + p.padding.bottom,
          p.input.width + p.padding.left + p.padding.right};
}

bool is_padded(const ConvProblem& p) {
  return p.padding.top != 0 || p.padding.bottom != 0 || p.padding.left != 0 || p.padding.right != 0;
}

}  // namespace

Reason why_no_packing(const ConvProblem& p) {
  const int64_t in = round_up(in_channels_per_group(p), most_tile_channels);
  const int64_t out = round_up(out_channels_per_group(p), most_tile_channels);
  const Size2 size = padded_size(p);
  if (!tiles::product_fits({p.batch, size.height, size.width}) ||
      !tiles::product_fits({in, p.kernel.height, p.kernel.width}) ||
      !tiles::product_fits({out, p.kernel.height, p.kernel.width}))
    return "a sum or a batch of images has more than 2^29 elements, padding included";
  if (p.groups * (in / most_tile_channels) > 65535 || p.groups * (out / most_tile_channels) > 65535)
    return "there are more than 65535 blocks of channels";
  return nullptr;
}

Packing packing_of(const ConvProblem& p) {
  const int64_t lanes = vector_lanes(p.dtype);
  const int64_t in = in_channels_per_group(p);
  const int64_t out = out_channels_per_group(p);
  Packing packing{};
  ConvProblem& packed = packing.problem;
  packed = p;
  const bool fills_padding = is_padded(p) && p.padding_mode != PaddingMode::zeros;
  if (p.pass != Pass::grad_input &&
      (fills_padding || !p.aligned || !are_vectors(in, p.batch, p.input, p.input_strides, lanes))) {
    packing.copies_input = true;
    packed.in_channels = p.groups * round_up(in, lanes);
    if (fills_padding) {
      packed.input = padded_size(p);
      packed.padding = Padding{};
    }
    packed.input_strides = packed_strides(packed.in_channels, packed.input);
    packing.input_bytes = image_bytes(p, packed.in_channels, packed.input);
  }
  packed.padding_mode = PaddingMode::zeros;
  if (p.pass != Pass::forward) {
    // The gradient of the weight walks over all pixels of this one as if they were one line.
    const bool fits =
        p.aligned && are_vectors(out, p.batch, p.output, p.output_strides, lanes) &&
        (p.pass == Pass::grad_input || pixels_adjacent(p.out_channels, p.batch, p.output, p.output_strides));
    if (!fits) {
      packing.copies_output = true;
      packed.out_channels = p.groups * round_up(out, lanes);
      packed.output_strides = packed_strides(packed.out_channels, p.output);
      packing.output_bytes = image_bytes(p, packed.out_channels, p.output);
    }
  }
  if (p.pass == Pass::grad_weight) return packing;
  const WeightStrides& s = p.weight_strides;
  packing.weight_group = out * s.out_channel;
  const bool fits =
      p.pass == Pass::forward && packed.in_channels == p.in_channels && p.aligned &&
      are_vectors(in, out * p.groups, p.kernel, {s.out_channel, s.in_channel, s.row, s.column}, lanes);
  if (fits) return packing;
  const Copy copy = weight_copy(p);
  const int64_t channels = copy.packed_channels;
  const int64_t of_row = p.kernel.height * p.kernel.width * channels;
  packing.copies_weight = true;
  packing.weight_bytes = round_up(p.groups * copy.to_group * element_size(p.dtype), 256);
  packing.weight_group = copy.to_group;
  packed.weight_strides = p.pass == Pass::forward
                              ? WeightStrides{of_row, 1, p.kernel.width * channels, channels}
                              : WeightStrides{1, of_row, p.kernel.width * channels, channels};
  return packing;
}

const char* launch_packing(const ConvProblem& p, const Packing& packing, void* workspace, ConvData* data,
                           void* stream) {
  auto* free = static_cast<unsigned char*>(workspace);
  auto* flag = reinterpret_cast<int*>(free);
  free += Packing::flag_bytes;
  const char* error = nullptr;
  const auto make = [&](const Copy& copy, int64_t bytes, void*& tensor) {
    error = launch_copy(copy, p.groups, p.dtype, tensor, free, stream);
    tensor = free;
    free += bytes;
    return error == nullptr;
  };
  if (packing.copies_input) {
    Copy copy = image_copy(p, in_channels_per_group(p), packing.problem.input, p.input_strides);
    copy.source_height = static_cast<int>(p.input.height);
    copy.source_width = static_cast<int>(p.input.width);
    if (packing.problem.input.height != p.input.height || packing.problem.input.width != p.input.width) {
      copy.planes_in_pieces = false;
      copy.top = static_cast<int>(p.padding.top);
      copy.left = static_cast<int>(p.padding.left);
      copy.mode = p.padding_mode;
    }
    if (!make(copy, packing.input_bytes, data->input)) return error;
  }
  if (packing.copies_output) {
    const Copy copy = image_copy(p, out_channels_per_group(p), p.output, p.output_strides);
    if (!make(copy, packing.output_bytes, data->output)) return error;
  }
  if (!packing.copies_weight) return nullptr;
  Copy copy = weight_copy(p);
  if (p.pass == Pass::grad_input) {
    copy.not_finite = flag;
    error = launch(clear, Grid{}, 1, 0, stream, flag);
    if (error != nullptr) return error;
  }
  make(copy, packing.weight_bytes, data->weight);
  return error;
}

}  // namespace mma
}  // namespace cuda
}  // namespace convext
