#include "far_apart_test.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "case.h"
#include "check.h"
#include "random.h"

namespace convext::testing {
namespace {

constexpr int64_t batch = 2;
constexpr int64_t far_elements = (int64_t{1} << 32) + 48;

// Address space that gets memory where it is touched.
class Reserved {
 public:
  Reserved() {
    void* memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    memory_ = memory == MAP_FAILED ? nullptr : static_cast<float*>(memory);
  }
  ~Reserved() {
    if (memory_ != nullptr) munmap(memory_, bytes);
  }
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;

  float* data() const { return memory_; }

 private:
  static constexpr size_t bytes = sizeof(float) * static_cast<size_t>(batch * far_elements);
  float* memory_ = nullptr;
};

void spread(const std::vector<float>& dense, float* far) {
  const size_t half = dense.size() / 2;
  std::memcpy(far, dense.data(), half * sizeof(float));
  std::memcpy(far + far_elements, dense.data() + half, half * sizeof(float));
}

std::vector<float> gather(const float* far, size_t elements) {
  std::vector<float> dense(far, far + elements / 2);
  dense.insert(dense.end(), far + far_elements, far + far_elements + elements / 2);
  return dense;
}

void test_pass(const CudaKernel& kernel, const CudaDevice& device, Pass pass, bool depthwise,
               float* far_input, float* far_output) {
  Case c;
  ConvProblem& p = c.problem;
  p.pass = pass;
  p.batch = batch;
  p.in_channels = p.out_channels = 9;
  p.groups = depthwise ? 9 : 1;
  p.input = {5, 6};
  p.kernel = {3, 3};
  p.padding = {1, 1, 1, 1};
  finish(c);
  if (kernel.why_not(p, device) != nullptr) return;

  Random random(3);
  const auto numbers = [&](int64_t count) {
    std::vector<float> values;
    for (int64_t k = 0; k < count; ++k) values.push_back(static_cast<float>(random.normal()));
    return values;
  };
  std::vector<float> input = numbers(batch * 9 * 30), output = numbers(batch * 9 * 30),
                     weight = numbers(81 * 9);
  spread(input, far_input);
  spread(output, far_output);
  std::vector<float> far_weight = weight;
  const auto run = [&](const ConvData& data) {
    std::vector<double> workspace(static_cast<size_t>(kernel.workspace_bytes(p, device) / 8 + 1));
    return kernel.launch(p, data, workspace.data(), device, nullptr) == nullptr;
  };
  bool ok = run({input.data(), weight.data(), output.data(), nullptr});
  p.input_strides.batch = p.output_strides.batch = far_elements;
  ok = ok && run({far_input, far_weight.data(), far_output, nullptr});
  ok = ok && gather(far_input, input.size()) == input && gather(far_output, output.size()) == output &&
       far_weight == weight;
  check(ok, std::string(kernel.name) + ": samples 2^32 elements apart: " + describe(c));
}

}  // namespace

void test_far_apart(const CudaKernel& kernel, const CudaDevice& device) {
  const Reserved input, output;
  if (input.data() == nullptr || output.data() == nullptr) {
    std::printf("no address space for samples 2^32 elements apart, not tested\n");
    return;
  }
  for (const bool depthwise : {false, true}) {
    for (Pass pass : {Pass::forward, Pass::grad_input, Pass::grad_weight})
      test_pass(kernel, device, pass, depthwise, input.data(), output.data());
  }
}

}  // namespace convext::testing
