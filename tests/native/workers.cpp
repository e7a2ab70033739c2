#include "workers.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace convext::testing {
namespace {

// Each has a lock of its own: two workers that passed a common one would look synchronised to
// ThreadSanitizer, whatever the kernel does.
class Worker {
 public:
  Worker() : thread_([this] { serve(); }) {}
  ~Worker() {
    start(nullptr, nullptr, 0);
    thread_.join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void start(void (*body)(void*, int), void* context, int number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    body_ = body;
    context_ = context;
    number_ = number;
    busy_ = true;
    changed_.notify_one();
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !busy_; });
  }

 private:
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return busy_; });
      if (body_ == nullptr) return;
      lock.unlock();
      body_(context_, number_);
      lock.lock();
      busy_ = false;
      changed_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool busy_ = false;
  void (*body_)(void*, int) = nullptr;  // nullptr: the end
  void* context_ = nullptr;
  int number_ = 0;
  std::thread thread_;  // the last member, as it uses the others
};

}  // namespace

void run_workers(int workers, void (*body)(void*, int), void* context) {
  static std::vector<std::unique_ptr<Worker>> others;
  while (static_cast<int>(others.size()) < workers - 1) others.push_back(std::make_unique<Worker>());
  for (int worker = 1; worker < workers; ++worker)
    others[static_cast<size_t>(worker - 1)]->start(body, context, worker);
  body(context, 0);
  for (int worker = 1; worker < workers; ++worker) others[static_cast<size_t>(worker - 1)]->wait();
}

}  // namespace convext::testing
