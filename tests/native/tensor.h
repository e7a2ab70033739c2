// Memory for tests: exactly as large as it must be, with guard zones on both sides, filled with NaN.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "case.h"

namespace convext::testing {

// `size` bytes whose surroundings show both stray writes (they are compared) and stray reads (0xff bytes are
// NaN in every floating-point type; AddressSanitizer, where built in, reports any access).
class GuardedBuffer {
 public:
  // `offset` bytes past a 64-byte boundary.
  GuardedBuffer(int64_t size, int64_t offset);
  // The same bytes at the same offset.
  GuardedBuffer(const GuardedBuffer& other);
  ~GuardedBuffer();
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  unsigned char* data() const { return data_; }
  int64_t size() const { return size_; }
  bool guards_intact();

 private:
  void set_poisoned(bool poisoned);

  std::vector<unsigned char> memory_;
  unsigned char* data_ = nullptr;
  int64_t size_;
  int64_t offset_;
};

// A strided 4-D tensor over a guarded buffer. Everything that is not an element stays 0xff.
class Tensor {
 public:
  Tensor(DType dtype, const std::array<int64_t, 4>& sizes, const std::array<int64_t, 4>& strides,
         int64_t misalignment);

  // A null pointer if there are no elements, as a tensor library may pass.
  void* data() const { return elements_ == 0 ? nullptr : buffer_.data(); }
  int64_t elements() const { return elements_; }
  DType dtype() const { return dtype_; }

  void fill(Fill fill, uint64_t seed);

  // The elements in logical order, as numbers...
  std::vector<double> numbers() const;     // floating-point types
  std::vector<uint64_t> integers() const;  // integer types, sign-extended, modulo 2^64
  // ... and as stored.
  std::vector<unsigned char> bytes() const;
  // The same with one representation of NaN: where two NaNs meet, the sum is the one that the compiler put
  // first, and it may put them differently in two inlined copies of the same loop.
  std::vector<unsigned char> comparable_bytes() const;
  // Elements and gaps as they lie in memory.
  std::vector<unsigned char> memory() const;

  // True if nothing but the elements was written.
  bool surroundings_intact();

 private:
  template <class Visit>
  void for_each_offset(const Visit& visit) const;
  template <class T, class Value, class Convert>
  std::vector<Value> converted(const Convert& convert) const;
  bool has_gaps() const;

  DType dtype_;
  std::array<int64_t, 4> sizes_;
  std::array<int64_t, 4> strides_;
  int64_t elements_;
  GuardedBuffer buffer_;
};

Tensor make_input(const Case& test_case);
Tensor make_weight(const Case& test_case);
Tensor make_output(const Case& test_case);
Tensor make_bias(const Case& test_case);

// `value` rounded to the nearest number of a floating-point dtype, ties to even.
double round_to(DType dtype, double value);

}  // namespace convext::testing
