/* The tuner's comparison kernel, its own text, run on the host; see tests/host/compare_check.cc. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/temp_folder.h"

static void equals_sums_on_the_host(void **state) {
  (void)state;
  char command[512];
  snprintf(command, sizeof command, "${CXX:-c++} -std=c++17 -O1 -w -I. tests/host/compare_check.cc -o %s", in("check"));
  assert_int_equal(system(command), 0);
  assert_int_equal(system(in("check")), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(equals_sums_on_the_host, make_folder, drop_folder)};
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
