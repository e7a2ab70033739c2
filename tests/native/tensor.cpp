#include "tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/element.h"
#include "random.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CONVEXT_TEST_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define CONVEXT_TEST_ASAN 1
#endif
#if defined(CONVEXT_TEST_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace convext::testing {
namespace {

constexpr int64_t guard = 128;
constexpr unsigned char poison = 0xff;

int64_t span(const std::array<int64_t, 4>& sizes, const std::array<int64_t, 4>& strides) {
  int64_t last = 0;
  for (size_t axis = 0; axis < 4; ++axis) {
    if (sizes[axis] == 0) return 0;
    last += (sizes[axis] - 1) * strides[axis];
  }
  return last + 1;
}

int64_t product(const std::array<int64_t, 4>& sizes) {
  return sizes[0] * sizes[1] * sizes[2] * sizes[3];
}

template <class T>
void store(unsigned char* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

template <class T>
T load(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

void store_number(DType dtype, unsigned char* to, double value) {
  switch (dtype) {
    case DType::float32:
      return store(to, static_cast<float>(value));
    case DType::float64:
      return store(to, value);
    case DType::bfloat16:
      return store(to, to_bfloat16(static_cast<float>(value)));
    case DType::float16:
      return store(to, to_float16(static_cast<float>(value)));
    case DType::uint8:
      return store(to, static_cast<uint8_t>(value < 0 ? -value : value));
    case DType::int8:
      return store(to, static_cast<int8_t>(value));
    case DType::int16:
      return store(to, static_cast<int16_t>(value));
    case DType::int32:
      return store(to, static_cast<int32_t>(value));
    case DType::int64:
      return store(to, static_cast<int64_t>(value));
  }
}

double random_number(Fill fill, Random& random) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  switch (fill) {
    case Fill::small_integers:
    case Fill::any_bits:
    case Fill::limits:
      return static_cast<double>(random.between(-3, 3));
    case Fill::large_integers:
      return static_cast<double>(512 * random.between(-1, 1));
    case Fill::normal:
      return random.normal();
    case Fill::positive:
      return static_cast<double>(random.bits() >> 11) * 0x1p-53;
    case Fill::non_finite:
      // Rare enough that most sums stay finite.
      if (random.one_in(60))
        return random.pick({infinity, -infinity, std::numeric_limits<double>::quiet_NaN()});
      return static_cast<double>(random.between(-3, 3));
  }
  return 0;
}

// All ones, or the top bit alone, or all but that one: whichever of these the dtype calls its limits. In the
// low bits of the result.
uint64_t limit(DType dtype, Random& random) {
  const uint64_t top = uint64_t{1} << (8 * element_size(dtype) - 1);
  return random.pick({top, top - 1, ~uint64_t{0}});
}

}  // namespace

GuardedBuffer::GuardedBuffer(int64_t size, int64_t offset)
    : memory_(static_cast<size_t>(size + offset + 2 * guard + 64), poison), size_(size), offset_(offset) {
  const auto address = reinterpret_cast<uintptr_t>(memory_.data());
  data_ = memory_.data() + (64 - address % 64) % 64 + guard + offset;
  set_poisoned(true);
}

GuardedBuffer::GuardedBuffer(const GuardedBuffer& other) : GuardedBuffer(other.size_, other.offset_) {
  std::copy(other.data_, other.data_ + size_, data_);
}

GuardedBuffer::~GuardedBuffer() {
  set_poisoned(false);
}

void GuardedBuffer::set_poisoned([[maybe_unused]] bool poisoned) {
#if defined(CONVEXT_TEST_ASAN)
  unsigned char* end = memory_.data() + memory_.size();
  if (poisoned) {
    ASAN_POISON_MEMORY_REGION(memory_.data(), static_cast<size_t>(data_ - memory_.data()));
    ASAN_POISON_MEMORY_REGION(data_ + size_, static_cast<size_t>(end - data_ - size_));
  } else {
    ASAN_UNPOISON_MEMORY_REGION(memory_.data(), memory_.size());
  }
#endif
}

bool GuardedBuffer::guards_intact() {
  set_poisoned(false);
  const auto is_poison = [](unsigned char byte) { return byte == poison; };
  const unsigned char* end = memory_.data() + memory_.size();
  const bool intact = std::all_of<const unsigned char*>(memory_.data(), data_, is_poison) &&
                      std::all_of<const unsigned char*>(data_ + size_, end, is_poison);
  set_poisoned(true);
  return intact;
}

Tensor::Tensor(DType dtype, const std::array<int64_t, 4>& sizes, const std::array<int64_t, 4>& strides,
               int64_t misalignment)
    : dtype_(dtype),
      sizes_(sizes),
      strides_(strides),
      elements_(product(sizes)),
      buffer_(span(sizes, strides) * element_size(dtype), misalignment * element_size(dtype)) {}

template <class Visit>
void Tensor::for_each_offset(const Visit& visit) const {
  const int64_t bytes = element_size(dtype_);
  for (int64_t a = 0; a < sizes_[0]; ++a)
    for (int64_t b = 0; b < sizes_[1]; ++b)
      for (int64_t c = 0; c < sizes_[2]; ++c)
        for (int64_t d = 0; d < sizes_[3]; ++d)
          visit((a * strides_[0] + b * strides_[1] + c * strides_[2] + d * strides_[3]) * bytes);
}

void Tensor::fill(Fill fill, uint64_t seed) {
  Random random(seed);
  for_each_offset([&](int64_t offset) {
    unsigned char* element = buffer_.data() + offset;
    if ((fill == Fill::any_bits || fill == Fill::limits) && !is_floating_point(dtype_)) {
      const uint64_t bits = fill == Fill::limits ? limit(dtype_, random) : random.bits();
      std::memcpy(element, &bits, static_cast<size_t>(element_size(dtype_)));
    } else {
      store_number(dtype_, element, random_number(fill, random));
    }
  });
}

// The elements, stored as T, in logical order.
template <class T, class Value, class Convert>
std::vector<Value> Tensor::converted(const Convert& convert) const {
  std::vector<Value> result(static_cast<size_t>(elements_));
  Value* next = result.data();
  for_each_offset([&](int64_t offset) { *next++ = convert(load<T>(buffer_.data() + offset)); });
  return result;
}

std::vector<double> Tensor::numbers() const {
  const auto widen = [](auto value) { return to_double(value); };
  switch (dtype_) {
    case DType::float32:
      return converted<float, double>([](float value) { return static_cast<double>(value); });
    case DType::float64:
      return converted<double, double>([](double value) { return value; });
    case DType::bfloat16:
      return converted<BFloat16, double>(widen);
    case DType::float16:
      return converted<Float16, double>(widen);
    default:
      return {};
  }
}

std::vector<uint64_t> Tensor::integers() const {
  const auto extend = [](auto value) { return static_cast<uint64_t>(static_cast<int64_t>(value)); };
  switch (dtype_) {
    case DType::uint8:
      return converted<uint8_t, uint64_t>(extend);
    case DType::int8:
      return converted<int8_t, uint64_t>(extend);
    case DType::int16:
      return converted<int16_t, uint64_t>(extend);
    case DType::int32:
      return converted<int32_t, uint64_t>(extend);
    default:
      return converted<int64_t, uint64_t>(extend);
  }
}

std::vector<unsigned char> Tensor::bytes() const {
  std::vector<unsigned char> result(static_cast<size_t>(elements_ * element_size(dtype_)));
  unsigned char* next = result.data();
  const auto append = [&](auto element) {
    for_each_offset([&](int64_t offset) {
      std::memcpy(next, buffer_.data() + offset, sizeof(element));
      next += sizeof(element);
    });
  };
  switch (element_size(dtype_)) {
    case 1:
      append(uint8_t{});
      break;
    case 2:
      append(uint16_t{});
      break;
    case 4:
      append(uint32_t{});
      break;
    default:
      append(uint64_t{});
  }
  return result;
}

std::vector<unsigned char> Tensor::memory() const {
  return {buffer_.data(), buffer_.data() + buffer_.size()};
}

std::vector<unsigned char> Tensor::comparable_bytes() const {
  std::vector<unsigned char> result = bytes();
  if (!is_floating_point(dtype_)) return result;
  const std::vector<double> values = numbers();
  const int64_t size = element_size(dtype_);
  for (size_t k = 0; k < values.size(); ++k) {
    if (std::isnan(values[k]))
      std::memset(result.data() + static_cast<int64_t>(k) * size, poison, static_cast<size_t>(size));
  }
  return result;
}

bool Tensor::has_gaps() const {
  int64_t distinct = element_size(dtype_);
  for (size_t axis = 0; axis < 4; ++axis) {
    if (strides_[axis] != 0 || sizes_[axis] == 0) distinct *= sizes_[axis];
  }
  return buffer_.size() != distinct;
}

bool Tensor::surroundings_intact() {
  if (!has_gaps()) return buffer_.guards_intact();
  std::vector<unsigned char> rest = memory();
  const auto size = static_cast<size_t>(element_size(dtype_));
  for_each_offset([&](int64_t offset) { std::memset(rest.data() + offset, poison, size); });
  for (unsigned char byte : rest) {
    if (byte != poison) return false;
  }
  return buffer_.guards_intact();
}

// Tensors start at odd multiples of their element size, as slices do, in two cases of three.
Tensor make_input(const Case& test_case) {
  const ConvProblem& p = test_case.problem;
  const ImageStrides& s = p.input_strides;
  return Tensor(p.dtype, {p.batch, p.in_channels, p.input.height, p.input.width},
                {s.batch, s.channel, s.row, s.column}, static_cast<int64_t>(test_case.seed % 3));
}

Tensor make_weight(const Case& test_case) {
  const ConvProblem& p = test_case.problem;
  const WeightStrides& s = p.weight_strides;
  return Tensor(p.dtype, {p.out_channels, in_channels_per_group(p), p.kernel.height, p.kernel.width},
                {s.out_channel, s.in_channel, s.row, s.column}, static_cast<int64_t>(test_case.seed / 3 % 3));
}

Tensor make_output(const Case& test_case) {
  const ConvProblem& p = test_case.problem;
  const ImageStrides& s = p.output_strides;
  return Tensor(p.pass == Pass::forward ? p.out_dtype : p.dtype,
                {p.batch, p.out_channels, p.output.height, p.output.width},
                {s.batch, s.channel, s.row, s.column}, static_cast<int64_t>(test_case.seed / 9 % 3));
}

Tensor make_bias(const Case& test_case) {
  const ConvProblem& p = test_case.problem;
  return Tensor(p.dtype, {1, 1, 1, p.out_channels}, {0, 0, 0, 1}, static_cast<int64_t>(test_case.seed % 2));
}

double round_to(DType dtype, double value) {
  if (dtype == DType::float64 || std::isnan(value) || std::isinf(value) || value == 0) return value;
  const bool is_half = dtype == DType::float16;
  const int digits = dtype == DType::float32 ? 24 : is_half ? 11 : 8;
  const int smallest_exponent = is_half ? -14 : -126;
  const double largest = is_half ? 65504.0 : std::ldexp(2.0 - std::ldexp(1.0, 1 - digits), 127);
  int exponent = std::ilogb(value);
  if (exponent < smallest_exponent) exponent = smallest_exponent;
  const double spacing = std::ldexp(1.0, exponent - digits + 1);
  const double rounded = std::nearbyint(value / spacing) * spacing;
  if (std::fabs(rounded) > largest) return std::copysign(std::numeric_limits<double>::infinity(), value);
  return rounded;
}

}  // namespace convext::testing
