// The instructions of csrc/cuda/ptx.cuh in C++, for fibers: lanes see each other's registers through the
// slots of the warp. The fragments' layout is written out here a second time, from the same description.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "cuda/element.cuh"

namespace convext {
namespace cuda {

constexpr unsigned whole_warp = 0xffffffffu;

// What each lane of the warp publishes, until all have read what they need: read(lane) copies it.
template <class T, class Read>
void exchange_all(const T& mine, const Read& read) {
  static_assert(sizeof(T) <= cuda_on_cpu::slot_bytes, "a slot holds it");
  std::memcpy(cuda_on_cpu::warp_slot(-1), &mine, sizeof(T));
  cuda_on_cpu::wait_for_warp(whole_warp);
  read([](int lane) {
    T theirs;
    std::memcpy(&theirs, cuda_on_cpu::warp_slot(lane), sizeof(T));
    return theirs;
  });
  cuda_on_cpu::wait_for_warp(whole_warp);
}

inline void load_matrices(uint32_t (&fragment)[4], const void* row) {
  const int lane = cuda_on_cpu::lane_index();
  exchange_all(row, [&](const auto& row_of) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto* from = static_cast<const unsigned char*>(row_of(8 * matrix + lane / 4));
      std::memcpy(&fragment[matrix], from + 4 * (lane % 4), 4);
    }
  });
}

inline void load_matrices_transposed(uint32_t (&fragment)[4], const void* row) {
  const int lane = cuda_on_cpu::lane_index();
  exchange_all(row, [&](const auto& row_of) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint16_t numbers[2];
      for (int k = 0; k < 2; ++k) {
        const auto* from = static_cast<const unsigned char*>(row_of(8 * matrix + 2 * (lane % 4) + k));
        std::memcpy(&numbers[k], from + 2 * (lane / 4), 2);
      }
      std::memcpy(&fragment[matrix], numbers, 4);
    }
  });
}

inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pointer));
}

// Copies happen when they are waited for, no sooner: who reads without waiting sees what was there before.
inline void copy_async(void* to, const void* from, bool exists) {
  cuda_on_cpu::start_copy(to, exists ? from : nullptr);
}
inline void commit_copies() {
  cuda_on_cpu::commit_copies();
}
template <int pending>
void wait_for_copies() {
  static const unsigned char zeros[16] = {};
  for (const cuda_on_cpu::AsyncCopy& copy : cuda_on_cpu::take_copies(pending))
    std::memcpy(copy.to, copy.from != nullptr ? copy.from : zeros, 16);
}

inline uint32_t high_halves(uint32_t first, uint32_t second) {
  return first >> 16 | (second & 0xffff0000u);
}

inline uint32_t two_bfloat16(float first, float second) {
  return narrow<BFloat16>(first).bits | static_cast<uint32_t>(narrow<BFloat16>(second).bits) << 16;
}

// Number `k` of a register.
template <class T>
float number_of(uint32_t packed, int k) {
  return widen(T{static_cast<uint16_t>(packed >> (16 * k))});
}

struct Registers {
  uint32_t left[4], right[2];
};

// The hardware reads 19 bits of each number.
inline float tf32_of(uint32_t bits) {
  bits &= 0xffffe000u;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// The m16n8k8 of 32-bit numbers.
inline void multiply_add_32(float (&sum)[4], const Registers& mine) {
  const int lane = cuda_on_cpu::lane_index();
  float rows[2][8];
  float columns[2][8];
  exchange_all(mine, [&](const auto& registers_of) {
    for (int t = 0; t < 4; ++t) {
      const Registers of_row = registers_of(lane / 4 * 4 + t);
      for (int i = 0; i < 4; ++i) rows[i % 2][t + 4 * (i / 2)] = tf32_of(of_row.left[i]);
      for (int column = 0; column < 2; ++column) {
        const Registers of_column = registers_of(4 * (2 * (lane % 4) + column) + t);
        for (int i = 0; i < 2; ++i) columns[column][t + 4 * i] = tf32_of(of_column.right[i]);
      }
    }
  });
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 8; ++k) sum[i] += rows[i / 2][k] * columns[i % 2][k];
  }
}

// The m16n8k16 of 16-bit numbers.
template <class T>
void multiply_add_16(float (&sum)[4], const Registers& mine) {
  const int lane = cuda_on_cpu::lane_index();
  float rows[2][16];
  float columns[2][16];
  exchange_all(mine, [&](const auto& registers_of) {
    for (int t = 0; t < 4; ++t) {
      const Registers of_row = registers_of(lane / 4 * 4 + t);
      for (int i = 0; i < 4; ++i) {
        for (int k = 0; k < 2; ++k) rows[i % 2][2 * t + k + 8 * (i / 2)] = number_of<T>(of_row.left[i], k);
      }
      for (int column = 0; column < 2; ++column) {
        const Registers of_column = registers_of(4 * (2 * (lane % 4) + column) + t);
        for (int i = 0; i < 2; ++i) {
          for (int k = 0; k < 2; ++k)
            columns[column][2 * t + k + 8 * i] = number_of<T>(of_column.right[i], k);
        }
      }
    }
  });
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 16; ++k) sum[i] += rows[i / 2][k] * columns[i % 2][k];
  }
}

template <class T>
void multiply_add(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
  const Registers mine{{left[0], left[1], left[2], left[3]}, {right[0], right[1]}};
  if constexpr (std::is_same_v<T, float>) {
    multiply_add_32(sum, mine);
  } else {
    multiply_add_16<T>(sum, mine);
  }
}

// The m8n8k4 of float64.
inline void multiply_add(double (&sum)[2], double left, double right) {
  struct Pair {
    double left, right;
  };
  const int lane = cuda_on_cpu::lane_index();
  exchange_all(Pair{left, right}, [&](const auto& pair_of) {
    for (int k = 0; k < 2; ++k) {
      for (int t = 0; t < 4; ++t)
        sum[k] += pair_of(lane / 4 * 4 + t).left * pair_of(4 * (2 * (lane % 4) + k) + t).right;
    }
  });
}

}  // namespace cuda
}  // namespace convext
