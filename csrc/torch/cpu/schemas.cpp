// What torch is told of the operators; every device's implementation follows it.
#include <torch/csrc/stable/library.h>

// Arguments that are left at their defaults cost nothing, while each list that is passed costs about 1 us of
// conversions; that is why every geometry argument has one.
STABLE_TORCH_LIBRARY(convext, library) {
  library.def(
      "corr2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=1, SymInt[] padding=[0], "
      "SymInt[2] dilation=1, SymInt groups=1, str padding_mode=\"zeros\", ScalarType? out_dtype=None) -> "
      "Tensor");
  library.def(
      "corr2d_grad_input(Tensor grad_output, Tensor weight, SymInt[2] input_size, SymInt[2] stride=1, "
      "SymInt[] padding=[0], SymInt[2] dilation=1, SymInt groups=1, str padding_mode=\"zeros\", "
      "bool channels_last=False) -> Tensor");
  library.def(
      "corr2d_grad_weight(Tensor grad_output, Tensor input, SymInt[2] kernel_size, SymInt[2] stride=1, "
      "SymInt[] padding=[0], SymInt[2] dilation=1, SymInt groups=1, str padding_mode=\"zeros\", "
      "bool channels_last=False) -> Tensor");
  library.def("corr2d_grad_bias(Tensor grad_output) -> Tensor");
}
