/* SPDX-License-Identifier: Apache-2.0 */
/* The examples as their readers would run them: the loss that they print falls, reverse says words backwards that it has
 * not seen, and stream knows how its signal goes on. The gradient of coupled_lstm is checked in gradcheck_test. */
#include "devices.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The program that stands in BUILD/examples; this one is in BUILD/tests. */
static FILE *start(const char *example, const char *device) {
  char command[4400], self[4096];
  const char *build = getenv("UNROLL_BUILD_DIR");
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  assert_in_range(n, 1, sizeof self - 1);
  self[n] = 0;
  *strrchr(self, '/') = 0;
  if (build)
    snprintf(command, sizeof command, "'%s/examples/%s' %s", build, example, device);
  else
    snprintf(command, sizeof command, "'%s/../examples/%s' %s", self, example, device);
  FILE *out = popen(command, "r");
  assert_non_null(out);
  return out;
}

static void check(const char *example, const char *device, int n_lines) {
  FILE *out = start(example, device);
  char line[256];
  double first = 0, last = 0;
  int n = 0, right = -1, of = 0;
  while (fgets(line, sizeof line, out)) {
    int step;
    double loss;
    if (sscanf(line, "step %d loss %lf", &step, &loss) == 2) {
      first = n++ ? first : loss;
      last = loss;
    } else if (right < 0 && strncmp(line, "after ", 6) != 0 && sscanf(line, "%d of %d ", &right, &of) != 2)
      fail_msg("not a line of the example: %s", line);
  }
  assert_int_equal(pclose(out), 0);
  assert_int_equal(n, n_lines);
  print_message("%s on %s: loss %g -> %g\n", example, device, first, last);
  assert_true(first > 0.1 && last < 0.1 * first);
  if (of > 0)
    assert_in_range(right, of * 7 / 8, of); /* 30 to 32 of 32 words, all 36 guesses, on the devices tried */
}

static void coupled_lstm(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    check("coupled_lstm", unroll_device_id(dev), 11);
}
static void words_backwards(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    check("reverse", unroll_device_id(dev), 9);
}
static void a_signal_goes_on(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    check("stream", unroll_device_id(dev), 9);
}

/* A wrong device is an error, said on stderr, with a code of failure and nothing printed. */
static void unknown_device(void **state) {
  (void)state;
  FILE *out = start("coupled_lstm", "nonsense 2>&1");
  char line[512] = "";
  assert_non_null(fgets(line, sizeof line, out));
  const int status = pclose(out);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE);
  assert_non_null(strstr(line, "coupled_lstm: UNROLL_E_"));
  assert_non_null(strstr(line, "nonsense"));
}

int main(void) {
  const struct CMUnitTest tests[] = {DEVICE_TESTS(coupled_lstm), DEVICE_TESTS(words_backwards),
                                     DEVICE_TESTS(a_signal_goes_on), cmocka_unit_test(unknown_device)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
