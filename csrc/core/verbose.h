// With CONVEXT_VERBOSE=1 in the environment every pass that runs a kernel prints one line on stdout, with
// CONVEXT_VERBOSE=2 also one for each kernel that the planner passed over. docs/looking_inside.md explains
// the fields.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "core/problem.h"
#include "core/rejection.h"
#include "core/request.h"

namespace convext {
namespace verbose {

// 0 (off), 1 or 2, as the environment had it when this module was loaded.
extern const int level;

// Runs from its construction; asks for the time only where somebody will read it.
class Stopwatch {
 public:
  Stopwatch() {
    if (level > 0) begin_ = std::chrono::steady_clock::now();
  }
  double milliseconds() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_;
};

// What ran a pass. Threads and milliseconds are negative where nobody knows them.
struct Execution {
  std::string device;
  std::string kernel;
  int threads = -1;
  double milliseconds = -1;
};

// The names of the fields, if the level is above 0.
void print_header();

// The lines of the rejections, if there are any, and that of the execution, in one write.
void print(const ConvProblem& problem, const Execution& execution, const std::vector<Rejection>& rejections);

// The gradient of the bias, for which there is one kernel only.
void print_bias_gradient(const TensorView& grad_output, const Execution& execution);

}  // namespace verbose
}  // namespace convext
