/* SPDX-License-Identifier: Apache-2.0 */
/* examples/coupled_lstm.c as its reader would run it: the loss that it prints falls to a tenth of what it was. Its gradient is
 * checked in gradcheck_test (coupled_lstm). */
#include "devices.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The program that stands in BUILD/examples; this one is in BUILD/tests. */
static FILE *start(const char *device) {
  char command[4400], self[4096];
  const char *build = getenv("UNROLL_BUILD_DIR");
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  assert_in_range(n, 1, sizeof self - 1);
  self[n] = 0;
  *strrchr(self, '/') = 0;
  if (build)
    snprintf(command, sizeof command, "'%s/examples/coupled_lstm' %s", build, device);
  else
    snprintf(command, sizeof command, "'%s/../examples/coupled_lstm' %s", self, device);
  FILE *out = popen(command, "r");
  assert_non_null(out);
  return out;
}

static void check(const char *device) {
  FILE *out = start(device);
  char line[256];
  double first = 0, last = 0;
  int n = 0;
  while (fgets(line, sizeof line, out)) {
    int step;
    double loss;
    if (sscanf(line, "step %d loss %lf", &step, &loss) != 2)
      fail_msg("not a line of the example: %s", line);
    first = n++ ? first : loss;
    last = loss;
  }
  assert_int_equal(pclose(out), 0);
  assert_in_range(n, 10, 1000);
  print_message("%s: loss %g -> %g\n", device, first, last);
  assert_true(first > 0.1 && last < 0.1 * first);
}

static void loss_falls(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    check(unroll_device_id(dev));
}

/* A wrong device is an error, said on stderr, with a code of failure and nothing printed. */
static void unknown_device(void **state) {
  (void)state;
  FILE *out = start("nonsense 2>&1");
  char line[512] = "";
  assert_non_null(fgets(line, sizeof line, out));
  const int status = pclose(out);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE);
  assert_non_null(strstr(line, "coupled_lstm: UNROLL_E_"));
  assert_non_null(strstr(line, "nonsense"));
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(loss_falls), cmocka_unit_test(unknown_device)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
