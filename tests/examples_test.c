/* SPDX-License-Identifier: Apache-2.0 */
/* The examples as their readers would run them: the loss that they print falls, reverse says words backwards that it has
 * not seen, stream knows how its signal goes on, memory_tasks learns, in small, alike on every device, flip_flop finds
 * its memories, and chaos its exponents. The gradient of coupled_lstm is checked in gradcheck_test. */
#include "devices.h"
#include <math.h>
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

/* Sussillo & Barak 2013: a stable point for each of the eight memories, and saddles between them, 12, 6 and 1 or so. */
static void eight_memories(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    FILE *out = start("flip_flop", unroll_device_id(dev));
    char line[256];
    int points = 0, from = 0, of = 0, stable = -1, k, unstable;
    double q = 1;
    while (fgets(line, sizeof line, out)) {
      if (sscanf(line, "%d fixed points from %d of %d starts, q at most %lf", &k, &from, &of, &q) == 4)
        points = k;
      else if (sscanf(line, "%d with %d unstable modes", &k, &unstable) == 2 && unstable == 0)
        stable = k;
    }
    assert_int_equal(pclose(out), 0);
    assert_int_equal(stable, 8);
    assert_in_range(points, 24, 27);
    assert_in_range(from, 500, of);
    assert_true(q < 1e-20);
  }
}

/* Few steps: λ1 within four of its standard errors of what NumPy has of 180,000. */
static void lyapunov_exponents(void **state) {
  (void)state;
  const double gains[] = {0.5, 1, 1.5, 2, 3}, want[] = {-0.6882204, 0, 0.0530, 0.1463, 0.2921};
  FILE *out = start("chaos", "1500");
  char line[256];
  int n = 0;
  double g, first, second, third, deviation;
  while (fgets(line, sizeof line, out))
    if (sscanf(line, "| %lf | %lf | %lf | %lf | %lf |", &g, &first, &second, &third, &deviation) == 5) {
      assert_in_range(n, 0, 4);
      assert_true(g == gains[n] && first >= second && second >= third);
      if (!(fabs(first - want[n]) < 4 * deviation))
        fail_msg("g = %g: λ1 %g ± %g, expected %g", g, first, deviation, want[n]);
      n++;
    }
  assert_int_equal(pclose(out), 0);
  assert_int_equal(n, 5);
}

enum { MAX_BLOCKS = 32 };

/* One training of memory_tasks: the mean loss of each block of updates, how many there are, and what the table says:
 * whether the threshold was reached, and how much of a gradient is kept over all steps, before the training. */
static int memory_losses(const char *options, const char *device, double *losses, bool *reached, double *kept) {
  char arguments[256], line[512];
  int n = 0, rows = 0;
  snprintf(arguments, sizeof arguments, "%s --seeds 1 --device %s 2>&1", options, device);
  FILE *out = start("memory_tasks", arguments);
  while (fgets(line, sizeof line, out)) {
    int seed, update;
    if (n < MAX_BLOCKS && sscanf(line, "%*s seed %d update %d loss %lf", &seed, &update, &losses[n]) == 3) {
      n++;
      assert_int_equal(seed, 1);
      assert_int_equal(update, 25 * n);
    } else if (line[0] == '|' && !strstr(line, "seed") && !strstr(line, "---")) {
      *reached = !strstr(line, "over");
      assert_int_equal(sscanf(line, "|%*[^|]|%*[^|]|%*[^|]|%*[^|]| %lf,", kept), 1);
      rows++;
    }
  }
  assert_int_equal(pclose(out), 0);
  assert_int_equal(rows, 1);
  return n;
}

/* The threshold is reached within most_blocks, and the losses of the first `same` blocks are those of the reference. */
static void check_memory(const char *options, const char *device, int most_blocks, int same, double least_kept,
                         double most_kept) {
  double losses[MAX_BLOCKS], reference[MAX_BLOCKS], worst = 0, kept, reference_kept;
  bool reached = false, reference_reached = false;
  const int n = memory_losses(options, device, losses, &reached, &kept);
  const int n_reference = memory_losses(options, "cpu", reference, &reference_reached, &reference_kept);
  assert_true(kept >= least_kept && kept <= most_kept && reference_kept >= least_kept && reference_kept <= most_kept);
  assert_true(reached && reference_reached);
  assert_in_range(n, 2, most_blocks);
  assert_in_range(n_reference, 2, most_blocks);
  same = same < n_reference ? same : n_reference;
  assert_in_range(same, 1, n);
  for (int i = 0; i < same; i++)
    worst = fmax(worst, fabs(losses[i] - reference[i]));
  print_message("memory_tasks %s on %s: %d updates, the first %d with losses within %.1e of cpu's\n", options, device,
                25 * n, 25 * same, worst);
  assert_true(worst < 1e-3);
}
/* Gates keep rounding small: for lengths 14 to 20 and two seeds no loss differed by more than 3e-5. With gates half
 * open and an orthogonal W_h a step keeps 1/2 of a gradient, give or take 1/4 through n, and little through the
 * gates: of 16 steps 0.25^16 to 0.8^16. */
static void adding_task(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    check_memory("--task adding --length 16 --cells gru --batch 32 --updates 500", unroll_device_id(dev), 8, MAX_BLOCKS,
                 2e-10, 0.03);
}
/* Nothing bounds a linear recurrence: updates make a difference of rounding grow, to 5e-5 in the first 25, to 1e-2 by
 * the end. An orthogonal matrix keeps a gradient's length, to the digits printed. */
static void copy_task(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    check_memory("--task copy --length 5 --cells orthogonal --batch 32 --lr 0.003 --updates 500", unroll_device_id(dev),
                 12, 1, 1, 1);
}

/* A network too small, with too few updates to remember, learns what is best without a memory, whose loss is known:
 * 1/6, the variance of the sum of two numbers of U(0,1); 10 ln 8/(T + 20). So the sequences are those of the
 * literature. The mean over 25 batches of 64 sums errs by about 0.005. The copy task's loss comes from above: after
 * 400 updates by 0.002, when a delay of one step more or less makes 0.008. */
static void check_memoryless(const char *options, const char *device, double loss, double below, double above) {
  double losses[MAX_BLOCKS], kept;
  bool reached = true;
  const int n = memory_losses(options, device, losses, &reached, &kept);
  assert_false(reached);
  assert_in_range(n, 1, MAX_BLOCKS);
  print_message("memory_tasks %s on %s: loss %g, without memory %g\n", options, device, losses[n - 1], loss);
  assert_true(losses[n - 1] > loss - below && losses[n - 1] < loss + above);
}
static void without_memory(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    check_memoryless("--task adding --length 60 --units 16 --cells rnn --updates 250", unroll_device_id(dev), 1.0 / 6,
                     0.02, 0.02);
    check_memoryless("--task copy --length 30 --units 16 --cells rnn --lr 0.01 --updates 400", unroll_device_id(dev),
                     10 * log(8) / 50, 0.001, 0.005);
  }
}

/* What is wrong with an option is said, with the value and what was expected. */
static void memory_options(void **state) {
  (void)state;
  static const struct {
    const char *arguments, *message;
  } wrong[] = {
      {"", "--task : expected adding or copy"},
      {"--task", "--task : expected options, each with a value; see --help"},
      {"--task sort", "--task sort: expected adding or copy"},
      {"--task copy --length 1", "--length 1: expected an integer from 2 to 100000"},
      {"--task copy --seeds 3x", "--seeds 3x: expected an integer from 1 to 16"},
      {"--task adding --lr nan", "--lr nan: expected a number from 1e-08 to 10"},
      {"--task adding --updates 30", "--updates 30: expected a multiple of 25"},
      {"--task adding --cells gru,,lstm", "--cells gru,,lstm: expected names of cells"},
      {"--task adding --optimizer sgd", "--optimizer sgd: expected adam or rmsprop"},
      {"--task adding --depth 2", "--depth 2: expected an option that --help lists"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    char arguments[256], line[512] = "";
    snprintf(arguments, sizeof arguments, "%s 2>&1", wrong[i].arguments);
    FILE *out = start("memory_tasks", arguments);
    assert_non_null(fgets(line, sizeof line, out));
    const int status = pclose(out);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE);
    if (!strstr(line, wrong[i].message))
      fail_msg("'%s' says '%s', not '%s'", wrong[i].arguments, line, wrong[i].message);
  }
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
  const struct CMUnitTest tests[] = {DEVICE_TESTS(coupled_lstm),       DEVICE_TESTS(words_backwards),
                                     DEVICE_TESTS(a_signal_goes_on),   DEVICE_TESTS(adding_task),
                                     DEVICE_TESTS(eight_memories),     cmocka_unit_test(lyapunov_exponents),
                                     DEVICE_TESTS(copy_task),          DEVICE_TESTS(without_memory),
                                     cmocka_unit_test(unknown_device), cmocka_unit_test(memory_options)};
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
