// The core without any kernel: sizes, padding, element conversions, instruction sets, planner.
#pragma once

namespace convext::testing {

void test_geometry();
void test_padding();
void test_element_conversions();
void test_planner();

}  // namespace convext::testing
