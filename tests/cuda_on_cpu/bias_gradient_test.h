// The gradient of the bias, for every dtype and layout.
#pragma once

namespace convext::testing {

void test_bias_gradient();

}  // namespace convext::testing
