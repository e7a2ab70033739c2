#include "core/verbose.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iomanip>
#include <locale>
#include <mutex>
#include <sstream>

namespace convext {
namespace verbose {
namespace {

// Nothing, "" and "0" are off. What is no level still asks for lines.
int level_of(const char* value) {
  if (value == nullptr || std::strcmp(value, "") == 0 || std::strcmp(value, "0") == 0) return 0;
  return std::strcmp(value, "2") == 0 ? 2 : 1;
}

const char* pass_name(Pass pass) {
  switch (pass) {
    case Pass::forward:
      return "forward";
    case Pass::grad_input:
      return "grad_input";
    case Pass::grad_weight:
      return "grad_weight";
  }
  return "unknown";
}

const char* mode_name(PaddingMode mode) {
  switch (mode) {
    case PaddingMode::zeros:
      return "zeros";
    case PaddingMode::reflect:
      return "reflect";
    case PaddingMode::replicate:
      return "replicate";
    case PaddingMode::circular:
      return "circular";
  }
  return "unknown";
}

struct Layout {
  bool contiguous;
  bool channels_last;
};

// Whether the tensor is dense with the axes in this order, the innermost first. The stride of an axis of size
// 1 means nothing.
bool is_dense(const int64_t (&sizes)[4], const int64_t (&strides)[4], const int (&order)[4]) {
  int64_t expected = 1;
  for (int axis : order) {
    if (sizes[axis] == 1) continue;
    if (strides[axis] != expected) return false;
    expected *= sizes[axis];
  }
  return true;
}

Layout layout_of(const int64_t (&sizes)[4], const int64_t (&strides)[4]) {
  return {is_dense(sizes, strides, {3, 2, 1, 0}), is_dense(sizes, strides, {1, 3, 2, 0})};
}

Layout layout_of(int64_t batch, int64_t channels, Size2 plane, const ImageStrides& strides) {
  return layout_of({batch, channels, plane.height, plane.width},
                   {strides.batch, strides.channel, strides.row, strides.column});
}

const char* layout_name(Layout layout) {
  return layout.contiguous ? "contiguous" : layout.channels_last ? "channels_last" : "strided";
}

// One word where it fits all three tensors, else input/weight/output.
std::string layout_of(const ConvProblem& p) {
  const Layout input = layout_of(p.batch, p.in_channels, p.input, p.input_strides);
  const Layout weight = layout_of({p.out_channels, in_channels_per_group(p), p.kernel.height, p.kernel.width},
                                  {p.weight_strides.out_channel, p.weight_strides.in_channel,
                                   p.weight_strides.row, p.weight_strides.column});
  const Layout output = layout_of(p.batch, p.out_channels, p.output, p.output_strides);
  if (input.contiguous && weight.contiguous && output.contiguous) return "contiguous";
  if (input.channels_last && weight.channels_last && output.channels_last) return "channels_last";
  return std::string(layout_name(input)) + "/" + layout_name(weight) + "/" + layout_name(output);
}

std::string dtype_of(const ConvProblem& p) {
  return p.dtype == p.out_dtype ? dtype_name(p.dtype)
                                : std::string(dtype_name(p.dtype)) + ">" + dtype_name(p.out_dtype);
}

// Numbers as in the C locale, whatever that of the process is.
class Text {
 public:
  Text() { stream_.imbue(std::locale::classic()); }
  template <class... Parts>
  Text& add(const Parts&... parts) {
    (stream_ << ... << parts);
    return *this;
  }
  std::string get() const { return stream_.str(); }

 private:
  std::ostringstream stream_;
};

std::string shape_of(const ConvProblem& p) {
  Text text;
  text.add("n", p.batch, " c", p.in_channels, " h", p.input.height, " w", p.input.width);
  text.add(" o", p.out_channels, " oh", p.output.height, " ow", p.output.width);
  text.add(" k", p.kernel.height, "x", p.kernel.width, " s", p.stride.height, "x", p.stride.width);
  text.add(" d", p.dilation.height, "x", p.dilation.width);
  text.add(" p", p.padding.top, ":", p.padding.bottom, ":", p.padding.left, ":", p.padding.right);
  text.add(" g", p.groups, " ", mode_name(p.padding_mode), p.epilogue.bias ? " bias" : "");
  return text.get();
}

// What the pass, the dtype, the layout and the sizes say is the same in all lines of a call.
std::string line(const char* event, const std::string& device, const char* pass, const std::string& kernel,
                 const std::string& problem, const std::string& threads, const std::string& result) {
  return std::string("convext,") + event + "," + device + "," + pass + "," + kernel + "," + problem + "," +
         threads + "," + result + "\n";
}

std::string execution_line(const Execution& execution, const char* pass, const std::string& problem) {
  Text milliseconds;
  if (execution.milliseconds < 0) {
    milliseconds.add("-");
  } else {
    milliseconds.add(std::fixed, std::setprecision(4), execution.milliseconds, " ms");
  }
  const std::string threads = execution.threads < 0 ? "-" : std::to_string(execution.threads);
  return line("exec", execution.device, pass, execution.kernel, problem, threads, milliseconds.get());
}

std::string without_commas(std::string text) {
  for (char& letter : text) {
    if (letter == ',') letter = ';';
  }
  return text;
}

// Past the buffers of stdio, so that lines come whole and at once, also where the process ends in a crash.
void write(const std::string& text) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = ::write(STDOUT_FILENO, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;  // nobody reads any more
    done += static_cast<size_t>(count);
  }
}

}  // namespace

const int level = level_of(std::getenv("CONVEXT_VERBOSE"));

void print_header() {
  if (level > 0) write("convext,event,device,pass,kernel,dtype,layout,problem,threads,result\n");
}

void print(const ConvProblem& p, const Execution& execution, const std::vector<Rejection>& rejections) {
  const std::string problem = dtype_of(p) + "," + layout_of(p) + "," + shape_of(p);
  std::string lines;
  for (const Rejection& rejection : rejections) {
    lines += line("rejected", execution.device, pass_name(p.pass), rejection.kernel, problem, "-",
                  without_commas(rejection.reason));
  }
  write(lines + execution_line(execution, pass_name(p.pass), problem));
}

void print_bias_gradient(const TensorView& grad_output, const Execution& execution) {
  const int64_t* sizes = grad_output.sizes;
  Text problem;
  problem.add(dtype_name(grad_output.dtype), ",",
              layout_name(layout_of(grad_output.sizes, grad_output.strides)));
  problem.add(",n", sizes[0], " o", sizes[1], " oh", sizes[2], " ow", sizes[3]);
  write(execution_line(execution, "grad_bias", problem.get()));
}

}  // namespace verbose
}  // namespace convext
