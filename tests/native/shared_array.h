// Zeroed memory that processes forked later share with this one.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <type_traits>

namespace convext::testing {

template <class T>
class SharedArray {
  static_assert(std::is_trivially_destructible_v<T>, "nobody ends the life of what several processes see");

 public:
  explicit SharedArray(size_t size) : bytes_((size + 1) * sizeof(T)) {
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    first_ = static_cast<T*>(memory);
    for (size_t k = 0; k < size; ++k) new (first_ + k) T();
  }
  ~SharedArray() { munmap(first_, bytes_); }
  SharedArray(const SharedArray&) = delete;
  SharedArray& operator=(const SharedArray&) = delete;

  T& operator[](size_t index) const { return first_[index]; }

 private:
  size_t bytes_;
  T* first_;
};

}  // namespace convext::testing
