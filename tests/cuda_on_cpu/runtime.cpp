#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "context.h"
#include "random.h"
#include "schedule.h"

#if defined(CUDA_ON_CPU_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace cuda_on_cpu {
namespace {

constexpr size_t shared_bytes_without_asking = 48 * 1024;
constexpr size_t shared_bytes_at_most = 227 * 1024;
constexpr unsigned warp_size = 32;

enum class State { not_started, ready, at_block_barrier, at_warp_barrier, finished };

struct Fiber {
  std::unique_ptr<Context> context;
};

// What a thread has started and not waited for, in batches of which the last is open.
template <class Work>
class Batches {
 public:
  void clear() { batches_.assign(1, {}); }
  void start(Work work) { batches_.back().push_back(std::move(work)); }
  void commit() { batches_.emplace_back(); }

  std::vector<Work> take(int pending) {
    std::vector<Work> taken;
    for (; batches_.size() > static_cast<size_t>(pending) + 1; batches_.pop_front())
      taken.insert(taken.end(), batches_.front().begin(), batches_.front().end());
    return taken;
  }

  bool all_taken() const {
    return std::all_of(batches_.begin(), batches_.end(), [](const auto& batch) { return batch.empty(); });
  }

 private:
  std::deque<std::vector<Work>> batches_;
};

struct RunningThread {
  Thread thread;
  State state = State::not_started;
  unsigned mask = 0;      // of the warp barrier
  unsigned barriers = 0;  // of the block, that it has come to
  unsigned warp_barriers = 0;
  Fiber* fiber = nullptr;
  Batches<AsyncCopy> copies;
  Batches<Multiplication> multiplications;
  alignas(16) unsigned char slot[slot_bytes];
};

struct SharedObject {
  const void* key;
  std::unique_ptr<unsigned char[]> memory;
  size_t size;
};

[[noreturn]] void fail(const char* what) {
  const Thread& at = this_thread();
  std::fprintf(stderr, "cuda_on_cpu: %s (thread %u,%u,%u of block %u,%u,%u)\n", what, at.index.x, at.index.y,
               at.index.z, at.block_index.x, at.block_index.y, at.block_index.z);
  std::exit(3);
}

class Device {
 public:
  void set_schedule(Schedule schedule, uint64_t seed) {
    schedule_ = schedule;
    random_ = convext::testing::Random(seed);
  }

  cudaError_t run(const cudaLaunchConfig_t& config, size_t shared_limit, const std::function<void()>& body) {
    const dim3 grid = config.gridDim;
    const dim3 block = config.blockDim;
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    if (threads == 0 || threads > 1024 || grid.x == 0 || grid.x > 0x7fffffffu || grid.y == 0 ||
        grid.y > 65535 || grid.z == 0 || grid.z > 65535)
      return cudaErrorInvalidConfiguration;
    if (config.dynamicSmemBytes > shared_limit) return cudaErrorInvalidValue;
    body_ = &body;
    threads_ = std::vector<RunningThread>(threads);
    std::vector<uint64_t> blocks = in_order(uint64_t{grid.x} * grid.y * grid.z);
    for (uint64_t index : blocks) {
      const dim3 block_index(static_cast<unsigned>(index % grid.x),
                             static_cast<unsigned>(index / grid.x % grid.y),
                             static_cast<unsigned>(index / grid.x / grid.y));
      for (uint64_t t = 0; t < threads; ++t) {
        const dim3 thread_index(static_cast<unsigned>(t % block.x),
                                static_cast<unsigned>(t / block.x % block.y),
                                static_cast<unsigned>(t / block.x / block.y));
        threads_[t].thread = {thread_index, block_index, block, grid};
        threads_[t].state = State::not_started;
        threads_[t].barriers = threads_[t].warp_barriers = 0;
        threads_[t].copies.clear();
        threads_[t].multiplications.clear();
      }
      dynamic_ = SharedObject{nullptr, filled(config.dynamicSmemBytes), config.dynamicSmemBytes};
      run_block();
      shared_.clear();
    }
    return cudaSuccess;
  }

  RunningThread& running() { return *running_; }
  bool is_running() const { return running_ != nullptr; }

  void* shared_object(const void* key, size_t size) {
    size_t used = dynamic_.size;
    for (const SharedObject& object : shared_) {
      if (object.key == key) {
        acquire(*reinterpret_cast<char*>(object.memory.get()));
        return object.memory.get();
      }
      used += object.size;
    }
    if (used + size > std::max(shared_bytes_without_asking, dynamic_.size)) fail("too much shared memory");
    shared_.push_back({key, filled(size), size});
    release(*reinterpret_cast<char*>(shared_.back().memory.get()));  // whoever uses it, it was there before
    return shared_.back().memory.get();
  }

  void* dynamic_memory() { return dynamic_.memory.get(); }

  void wait_for_block() {
    RunningThread& thread = *running_;
    thread.state = State::at_block_barrier;
    any_[(thread.barriers + 1) % 3] = false;  // for the next barrier; the last one's may still be read
    wait(thread, block_order_[thread.barriers++ % 2]);
  }

  bool any_of_block(bool predicate) {
    bool& any = any_[running_->barriers % 3];
    any = any || predicate;
    wait_for_block();
    return any;
  }

  void wait_for_warp(unsigned mask) {
    RunningThread& thread = *running_;
    thread.state = State::at_warp_barrier;
    thread.mask = mask;
    const size_t warp = static_cast<size_t>(running_ - threads_.data()) / warp_size;
    wait(thread, warp_order_[warp][thread.warp_barriers++ % 2]);
  }

  // The life of a fiber: it runs one thread after the other.
  static void live();

  void* slot(int lane) {
    const auto own = static_cast<size_t>(running_ - threads_.data());
    const size_t at = lane < 0 ? own : own / warp_size * warp_size + static_cast<size_t>(lane);
    return threads_[at < threads_.size() ? at : own].slot;
  }

  int lane() { return static_cast<int>(static_cast<size_t>(running_ - threads_.data()) % warp_size); }

 private:
  static std::unique_ptr<unsigned char[]> filled(size_t size) {
    std::unique_ptr<unsigned char[]> memory(new unsigned char[size]);
    std::memset(memory.get(), 0xff, size);
    return memory;
  }

  // What the sanitizer for data races must know: a barrier orders what was before it and what comes after.
  // Two objects take turns for the barriers of a block, since all have left one before anyone comes to the
  // next but one.
  static void release([[maybe_unused]] char& order) {
#if defined(CUDA_ON_CPU_TSAN)
    __tsan_release(&order);
#endif
  }
  static void acquire([[maybe_unused]] char& order) {
#if defined(CUDA_ON_CPU_TSAN)
    __tsan_acquire(&order);
#endif
  }

  void wait(RunningThread& thread, char& order) {
    release(order);
    thread.fiber->context->switch_to(scheduler_);
    acquire(order);
  }

  std::vector<uint64_t> in_order(uint64_t count) {
    std::vector<uint64_t> order(count);
    std::iota(order.begin(), order.end(), uint64_t{0});
    if (schedule_ == Schedule::reverse) std::reverse(order.begin(), order.end());
    if (schedule_ == Schedule::random) {
      for (uint64_t k = count; k > 1; --k) std::swap(order[k - 1], order[random_.bits() % k]);
    }
    return order;
  }

  Fiber* free_fiber() {
    if (free_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>());
      fibers_.back()->context = std::make_unique<Context>(live);
      return fibers_.back().get();
    }
    Fiber* fiber = free_.back();
    free_.pop_back();
    return fiber;
  }

  void run_block() {
    const std::vector<uint64_t> order = in_order(threads_.size());
    std::fill(std::begin(any_), std::end(any_), false);
    release(begin_);
    for (size_t finished = 0; finished < threads_.size();) {
      bool progress = false;
      for (uint64_t t : order) {
        RunningThread& thread = threads_[t];
        if (thread.state == State::not_started) {
          thread.fiber = free_fiber();
        } else if (thread.state != State::ready) {
          continue;
        }
        progress = true;
        running_ = &thread;
        scheduler_.switch_to(*thread.fiber->context);
        if (thread.state != State::finished) continue;
        if (!thread.copies.all_taken() || !thread.multiplications.all_taken())
          fail("a thread ends that has not waited for what it started");
        ++finished;
        (thread_per_fiber() ? left_ : free_).push_back(thread.fiber);
      }
      if (!progress && !open_barriers()) fail("threads wait for others that never come");
    }
    free_.insert(free_.end(), left_.begin(), left_.end());
    left_.clear();
    acquire(end_);
    running_ = nullptr;
  }

  // Lets those go on who wait for nobody any more. A barrier of the block that a thread has left without is
  // an error: what hardware makes of it depends on its age.
  bool open_barriers() {
    bool opened = false;
    for (size_t first = 0; first < threads_.size(); first += warp_size) {
      const size_t end = std::min(first + warp_size, threads_.size());
      for (size_t t = first; t < end; ++t) {
        if (threads_[t].state != State::at_warp_barrier) continue;
        const unsigned mask = threads_[t].mask;
        bool complete = (mask >> (t - first) & 1u) != 0;
        for (size_t other = first; other < end && complete; ++other) {
          if ((mask >> (other - first) & 1u) == 0) continue;
          complete = threads_[other].state == State::at_warp_barrier && threads_[other].mask == mask;
        }
        if (!complete) continue;
        for (size_t other = first; other < end; ++other) {
          if ((mask >> (other - first) & 1u) != 0) threads_[other].state = State::ready;
        }
        opened = true;
      }
    }
    if (opened) return true;
    for (const RunningThread& thread : threads_) {
      if (thread.state != State::at_block_barrier) return false;
    }
    for (RunningThread& thread : threads_) thread.state = State::ready;
    return true;
  }

  static constexpr bool thread_per_fiber() {
#if defined(CUDA_ON_CPU_TSAN)
    return true;  // what runs on one fiber is in order, for the sanitizer
#else
    return false;
#endif
  }

  Schedule schedule_ = Schedule::forward;
  convext::testing::Random random_{1};
  Context scheduler_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> free_;
  std::vector<Fiber*> left_;  // by threads of this block, and not to be taken by others of it
  const std::function<void()>* body_ = nullptr;
  std::vector<RunningThread> threads_;
  RunningThread* running_ = nullptr;
  std::vector<SharedObject> shared_;
  SharedObject dynamic_{nullptr, nullptr, 0};
  bool any_[3] = {false, false, false};
  char begin_ = 0;
  char end_ = 0;
  char block_order_[2] = {};
  char warp_order_[1024 / warp_size][2] = {};
};

Device device;
std::map<const void*, size_t> shared_limits;

void Device::live() {
  Context* own = device.running_->fiber->context.get();
  own->arrived();
  for (;;) {
    acquire(device.begin_);
    (*device.body_)();
    device.running_->state = State::finished;
    release(device.end_);
    own->switch_to(device.scheduler_);
  }
}

}  // namespace

const Thread& this_thread() {
  static const Thread none{};
  return device.is_running() ? device.running().thread : none;
}

void* shared_object(const void* key, size_t size) {
  return device.shared_object(key, size);
}

void* dynamic_shared_memory() {
  return device.dynamic_memory();
}

void wait_for_block() {
  device.wait_for_block();
}

bool any_of_block(bool predicate) {
  return device.any_of_block(predicate);
}

void wait_for_warp(unsigned mask) {
  device.wait_for_warp(mask);
}

void* warp_slot(int lane) {
  return device.slot(lane);
}

int lane_index() {
  return device.lane();
}

void start_copy(void* to, const void* from) {
  device.running().copies.start({to, from});
}

void commit_copies() {
  device.running().copies.commit();
}

std::vector<AsyncCopy> take_copies(int pending_batches) {
  return device.running().copies.take(pending_batches);
}

void start_multiplication(Multiplication multiplication) {
  device.running().multiplications.start(std::move(multiplication));
}

void commit_multiplications() {
  device.running().multiplications.commit();
}

std::vector<Multiplication> take_multiplications(int pending_batches) {
  return device.running().multiplications.take(pending_batches);
}

cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& body) {
  const auto limit = shared_limits.find(kernel);
  return device.run(config, limit == shared_limits.end() ? shared_bytes_without_asking : limit->second, body);
}

void set_schedule(Schedule schedule, uint64_t seed) {
  device.set_schedule(schedule, seed);
}

const char* schedule_name(Schedule schedule) {
  return schedule == Schedule::forward ? "forward" : schedule == Schedule::reverse ? "reverse" : "random";
}

}  // namespace cuda_on_cpu

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidValue:
      return "invalid argument";
  }
  return "?";
}

cudaError_t cudaGetLastError() {
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || static_cast<size_t>(value) > cuda_on_cpu::shared_bytes_at_most)
    return cudaErrorInvalidValue;
  cuda_on_cpu::shared_limits[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}
