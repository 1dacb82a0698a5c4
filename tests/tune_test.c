/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OpenCL backend's option tune: what is measured is kept for the next process, whatever is kept gives the same bits,
 * a file that is damaged or of something else is as good as none, and with tune=off nothing is timed. Skipped where there
 * is no OpenCL device whose kernels are those of a CPU; the same device is then taken for a GPU, too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <unroll/nn.h>
#include <unroll/runtime.h>

enum { STEPS = 6, BATCH = 9, INPUT = 300, HIDDEN = 40, OUTPUTS = 64, TEXT = 16384 };

static struct {
  unroll_context *ctx;
  int measured, kept, shipped, tried, wrong_file; /* what the log said since the last open */
  char folder[256], file[512];
  bool as_gpu;
  int64_t batch;
} test = {.batch = BATCH};

static void listen(void *ctx, int32_t level, const char *message) {
  (void)ctx, (void)level;
  test.measured += strstr(message, "tuning (measured): ") != NULL;
  test.kept += strstr(message, "tuning (kept): ") != NULL;
  test.shipped += strstr(message, "tuning (shipped): ") != NULL;
  test.tried += strstr(message, "tuning (tried): ") != NULL;
  test.wrong_file += strstr(message, "is of something else") != NULL;
}

static unroll_device *open_device(const char *tune) {
  const unroll_option options[] = {
      {"cache", test.folder}, {"tune", tune}, {"kernels", "gpu"}, {"recurrence", "layer"}, {"product", "tile"}};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *device = NULL;
  test.measured = test.kept = test.shipped = test.tried = test.wrong_file = 0;
  if (unroll_device_open(test.ctx, "opencl", options, test.as_gpu ? 5 : 2, &device, &err) != UNROLL_OK)
    fail_msg("%s", err.message);
  return device;
}

/* ---- the file ---- */
static bool find_file(void) {
  DIR *d = opendir(test.folder);
  bool found = false;
  for (struct dirent *e; d && (e = readdir(d));)
    if (strncmp(e->d_name, "tune-", 5) == 0) {
      snprintf(test.file, sizeof test.file, "%s/%.255s", test.folder, e->d_name);
      found = true;
    }
  if (d)
    closedir(d);
  return found;
}

static void drop_files(void) {
  while (find_file())
    if (remove(test.file) != 0)
      return;
}

static int connect_device(void **state) {
  (void)state;
  const unroll_logger logger = {.log = listen, .level = UNROLL_LOG_DEBUG};
  const unroll_context_options options = {.struct_size = sizeof options, .logger = &logger};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *device = NULL;
  if (unroll_context_create(&options, &test.ctx, &err) != UNROLL_OK)
    return -1;
  const char *cache = getenv("XDG_CACHE_HOME"); /* kernels stay there from run to run, what was measured does not */
  snprintf(test.folder, sizeof test.folder, "%.200s/tune_test", cache && *cache ? cache : "/tmp");
  if (unroll_device_open(test.ctx, "opencl", NULL, 0, &device, &err) == UNROLL_OK) {
    const unroll_device_info *info = unroll_device_describe(device);
    if (!info || info->kind != UNROLL_KIND_CPU) {
      unroll_context_destroy(test.ctx);
      test.ctx = NULL;
    }
    unroll_device_close(device);
  } else {
    unroll_context_destroy(test.ctx);
    test.ctx = NULL;
  }
  return 0;
}

static int start(void **state) {
  const int status = connect_device(state);
  drop_files();
  return status;
}

static int finish(void **state) {
  (void)state;
  drop_files();
  unroll_context_destroy(test.ctx);
  return 0;
}

/* ---- a layer and its gradients ---- */
static unroll_graph *build(int32_t cell, int64_t hidden) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *graph = NULL;
  assert_int_equal(unroll_graph_create(NULL, &graph, &err), UNROLL_OK);
  const int64_t shape[] = {STEPS, test.batch, INPUT};
  const unroll_tensor x = unroll_input(graph, "x", UNROLL_F32, 3, shape);
  const unroll_rnn_options rnn = {
      .struct_size = sizeof rnn, .cell = cell, .activation = UNROLL_TANH, .layers = 1, .hidden = hidden};
  const unroll_tensor y = unroll_rnn(x, NULL, &rnn, NULL, NULL);
  unroll_output(y, "y");
  const unroll_tensor_info info = unroll_tensor_describe(y);
  const unroll_tensor dy = unroll_input(graph, "dy", UNROLL_F32, info.rank, info.shape);
  unroll_tensor of[OUTPUTS] = {x}, gradients[OUTPUTS];
  uint32_t n = 1;
  const uint32_t count = unroll_graph_count(graph);
  for (uint32_t i = 0; i < count && n < OUTPUTS; i++)
    if (unroll_tensor_describe(unroll_graph_tensor(graph, i)).role == UNROLL_ROLE_PARAM)
      of[n++] = unroll_graph_tensor(graph, i);
  unroll_vjp(&y, &dy, 1, of, n, gradients);
  for (uint32_t i = 0; i < n; i++) {
    char name[16];
    snprintf(name, sizeof name, "d%u", i);
    unroll_output(gradients[i], name);
  }
  if (unroll_graph_status(graph, &err) != UNROLL_OK)
    fail_msg("%s", err.message);
  return graph;
}

static size_t elements(const unroll_tensor_info *info) {
  size_t n = 1;
  for (int32_t k = 0; k < info->rank; k++)
    n *= (size_t)info->shape[k];
  return n;
}

/* All outputs, one after another. The caller frees. */
static float *run(unroll_device *device, int32_t cell, int64_t hidden, size_t *n) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *graph = build(cell, hidden);
  unroll_executable *exe = NULL;
  unroll_binding *binding = NULL;
  if (unroll_compile(graph, &device, 1, NULL, &exe, &err) != UNROLL_OK ||
      unroll_binding_create(exe, &binding, &err) != UNROLL_OK)
    fail_msg("%s", err.message);
  size_t room = 1;
  for (uint32_t i = 0; i < unroll_graph_count(graph); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(graph, i));
    room += info.role == UNROLL_ROLE_OUTPUT ? elements(&info) : 0;
    if (info.role != UNROLL_ROLE_INPUT && info.role != UNROLL_ROLE_PARAM)
      continue;
    float *data = calloc(elements(&info), sizeof *data);
    assert_non_null(data);
    const double scale = info.role == UNROLL_ROLE_INPUT ? 1 : 0.2;
    if (unroll_init_normal(&info, 7, 0, scale, data, &err) != UNROLL_OK ||
        unroll_binding_write(binding, info.name, data, elements(&info) * sizeof *data, &err) != UNROLL_OK)
      fail_msg("%s", err.message);
    free(data);
  }
  float *all = calloc(room, sizeof *all);
  assert_non_null(all);
  if (unroll_run(binding, NULL, &err) != UNROLL_OK || unroll_binding_sync(binding, &err) != UNROLL_OK)
    fail_msg("%s", err.message);
  *n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(graph); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(graph, i));
    if (info.role != UNROLL_ROLE_OUTPUT)
      continue;
    if (unroll_binding_read(binding, info.name, all + *n, elements(&info) * sizeof *all, &err) != UNROLL_OK)
      fail_msg("%s", err.message);
    *n += elements(&info);
  }
  unroll_binding_destroy(binding);
  unroll_executable_destroy(exe);
  unroll_graph_destroy(graph);
  assert_true(*n > 0);
  return all;
}

/* The bits of a run with that option are those of tune=off. */
static void run_is_same(const char *tune, int32_t cell, int64_t hidden) {
  size_t n, n_expected;
  unroll_device *device = open_device("off");
  float *expected = run(device, cell, hidden, &n_expected);
  unroll_device_close(device);
  device = open_device(tune);
  float *values = run(device, cell, hidden, &n);
  unroll_device_close(device);
  assert_int_equal(n, n_expected);
  double sum = 0;
  for (size_t i = 0; i < n; i++)
    sum += (double)values[i] * (double)values[i];
  assert_true(sum > 1e-3);
  assert_memory_equal(values, expected, n * sizeof *values);
  free(values);
  free(expected);
}

/* ---- files ---- */
static void read_file(char *text) {
  FILE *f = fopen(test.file, "r");
  assert_non_null(f);
  text[fread(text, 1, TEXT - 1, f)] = 0;
  fclose(f);
}

static void write_file(const char *text, size_t n) {
  FILE *f = fopen(test.file, "w");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}

/* The file's head; what follows is the caller's. */
static char *end_of_head(char *text) {
  char *empty = strstr(text, "\n\n");
  assert_non_null(empty);
  return empty + 2;
}

/* ---- tests ---- */
/* Few trials: a rnn of one vector of units. */
enum { SMALL = 8 };

static void what_is_measured_is_kept(void **state) {
  (void)state;
  if (!test.ctx)
    skip();
  assert_false(find_file());
  run_is_same("thorough", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.measured, 2); /* forward and backward */
  assert_true(test.tried >= 4);
  assert_true(find_file());
  run_is_same("thorough", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.measured + test.tried, 0);
  assert_int_equal(test.kept, 2);
  run_is_same("quick", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.measured + test.tried, 0);
  assert_int_equal(test.kept, 2);
  run_is_same("again", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.measured, 2);
}

static void off_measures_nothing(void **state) {
  (void)state;
  if (!test.ctx)
    skip();
  run_is_same("off", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.measured + test.tried + test.kept, 0);
}

static void quick_leaves_little_work_alone(void **state) {
  (void)state;
  if (!test.ctx)
    skip();
  run_is_same("quick", UNROLL_CELL_RNN, SMALL + 1);
  assert_int_equal(test.measured + test.tried + test.kept, 0);
}

static void every_split_gives_the_same_bits(void **state) {
  static const struct {
    int32_t cell;
    const char *name;
  } cells[] = {{UNROLL_CELL_LSTM, "lstm"}, {UNROLL_CELL_GRU, "gru"}};
  static const char *const splits[] = {
      "sequence pieces=1 rows=6 vecs=1 parts=1", "sequence pieces=9 rows=1 vecs=2 parts=1",
      "sequence pieces=4 rows=3 vecs=2 parts=1", "step pieces=1 rows=5 vecs=1 parts=2",
      "step pieces=2 rows=4 vecs=2 parts=9",     "sequence pieces=2 rows=4 vecs=1 parts=3",
  };
  char text[TEXT];
  (void)state;
  if (!test.ctx)
    skip();
  read_file(text);
  char *lines = end_of_head(text);
  for (size_t c = 0; c < sizeof cells / sizeof *cells; c++)
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
      const char *name = cells[c].name, *split = splits[i];
      snprintf(lines, sizeof text - (size_t)(lines - text),
               "layer forward %s f32 hoisted=0 h=%d i=%d b=%d -> %s us=1 model=1 thorough\n"
               "layer forward %s f32 hoisted=1 h=%d i=0 b=%d -> %s us=1 model=1 thorough\n"
               "layer backward %s f32 hoisted=0 h=%d i=0 b=%d -> %s us=1 model=1 thorough\n",
               name, HIDDEN, INPUT, BATCH, split, name, HIDDEN, BATCH, split, name, HIDDEN, BATCH, split);
      write_file(text, strlen(text));
      run_is_same("thorough", cells[c].cell, HIDDEN);
      assert_int_equal(test.kept, 2);
      assert_int_equal(test.measured, 0);
    }
}

static void damaged_files_are_harmless(void **state) {
  static const char *const lines[] = {
      "layer forward rnn f32 hoisted=0 h=8 i=300 b=9 -> sequence pieces=0 rows=1 vecs=1 parts=1 us=1 model=1 "
      "thorough\n",
      "layer forward rnn f32 hoisted=0 h=8 i=300 b=9 -> sequence pieces=0 rows=0 vecs=0 parts=0 us=1 model=1 "
      "thorough\n",
      "layer forward rnn f32 hoisted=0 h=8 i=300 b=9 -> step pieces=99999 rows=99999 vecs=9 parts=99999 us=1 model=1 "
      "thorough\n",
      "layer forward rnn f32 hoisted=0 h=8 i=300 b=9 -> sequence pieces=-3 rows=-1 vecs=-1 parts=-1 us=x model=\n",
      "layer forward rnn f32 hoisted=0 h=8 i=0 b=0 -> \nlayer forward rnn f32 hoisted=1 h=8 i= b= -> sequence\n",
      " -> \n -> -> ->\n\n\n\x01\xff\xfe -> \x80\n",
      "layer forward rnn f32 hoisted=0 h=8 i=300 b=9 -> sequence pieces=999999999999999999999 rows=1 vecs=1 parts=1",
  };
  char whole[TEXT], text[TEXT];
  (void)state;
  if (!test.ctx)
    skip();
  unlink(test.file);
  run_is_same("thorough", UNROLL_CELL_RNN, SMALL);
  assert_true(find_file());
  read_file(whole);
  const size_t size = strlen(whole);
  for (size_t n = 0; n < size; n += size / 12) { /* cut off; "quick" takes what is left and measures nothing */
    write_file(whole, n);
    run_is_same("quick", UNROLL_CELL_RNN, SMALL);
    assert_true(test.kept < 2);
    assert_int_equal(test.measured, 0);
  }
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    memcpy(text, whole, sizeof text);
    strcpy(end_of_head(text), lines[i]);
    write_file(text, strlen(text));
    run_is_same("quick", UNROLL_CELL_RNN, SMALL);
    assert_int_equal(test.kept + test.measured, 0);
  }
  memcpy(text, whole, sizeof text);
  text[strlen("unroll tuning 1\n")] ^= 1; /* another device's */
  write_file(text, size);
  run_is_same("quick", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.kept, 0);
  assert_true(test.wrong_file > 0);
  run_is_same("thorough", UNROLL_CELL_RNN, SMALL); /* and is replaced */
  assert_int_equal(test.measured, 2);
  run_is_same("quick", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.kept, 2);
  unlink(test.file);
  assert_int_equal(mkdir(test.file, 0700), 0);
  run_is_same("thorough", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.measured, 2);
  rmdir(test.file);
}

static void two_processes_may_write_at_once(void **state) {
  char self[256] = "", command[640], text[TEXT];
  (void)state;
  if (!test.ctx)
    skip();
  drop_files();
  assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  snprintf(command, sizeof command, "'%s' measure %d & other=$!; '%s' measure %d && wait $other", self, SMALL, self,
           SMALL + 1);
  assert_int_equal(system(command), 0);
  assert_true(find_file());
  read_file(text);
  char *line = end_of_head(text);
  assert_true(*line != 0);
  for (char *end; *line; line = end + 1) {
    end = strchr(line, '\n');
    assert_non_null(end);
    *end = 0;
    assert_int_equal(strncmp(line, "layer ", 6), 0);
    assert_non_null(strstr(line, " thorough"));
  }
  run_is_same("thorough", UNROLL_CELL_RNN, SMALL);
  run_is_same("thorough", UNROLL_CELL_RNN, SMALL + 1);
}

/* ---- the same device, as a GPU: a file of its own, work-groups. Kernels take long to build: few of them ---- */
static void take_for_gpu(int64_t batch) {
  drop_files();
  test.as_gpu = true;
  test.batch = batch;
}

static void what_is_measured_of_groups_is_kept(void **state) {
  char text[TEXT];
  (void)state;
  if (!test.ctx)
    skip();
  take_for_gpu(1); /* one row, one block: all that is left to try is a launch a step */
  run_is_same("thorough", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.measured, 2);
  assert_int_equal(test.tried, 4);
  assert_true(find_file());
  read_file(text);
  assert_non_null(strstr(end_of_head(text), "layer forward rnn f32 hoisted=1 h=8 i=0 b=1 -> "));
  assert_non_null(strstr(end_of_head(text), " lanes=8 rows=1 teams=1 us="));
  assert_non_null(strstr(end_of_head(text), "layer backward rnn f32 hoisted=0 h=8 i=0 b=1 -> "));
  run_is_same("quick", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.measured + test.tried, 0);
  assert_int_equal(test.kept, 2);
  run_is_same("off", UNROLL_CELL_RNN, SMALL);
  assert_int_equal(test.measured + test.tried + test.kept, 0);
}

static void every_group_gives_the_same_bits(void **state) {
  static const struct {
    int32_t cell;
    const char *name, *groups;
    int kept;
  } cases[] = {
      {UNROLL_CELL_RNN, "rnn", "sequence lanes=16 rows=2 teams=3", 2},
      {UNROLL_CELL_RNN, "rnn", "step lanes=8 rows=8 teams=1", 2},
      {UNROLL_CELL_GRU, "gru", "step lanes=16 rows=4 teams=1", 2},
      {UNROLL_CELL_RNN, "rnn", "sequence lanes=16 rows=2 teams=2", 0}, /* splits want all blocks at once */
      {UNROLL_CELL_RNN, "rnn", "sequence lanes=128 rows=2 teams=1", 0},
      {UNROLL_CELL_RNN, "rnn", "sequence lanes=64 rows=2 teams=4", 0},
      {UNROLL_CELL_RNN, "rnn", "step lanes=8 rows=8 teams=2", 0},
      {UNROLL_CELL_RNN, "rnn", "step lanes=24 rows=8 teams=1", 0},
      {UNROLL_CELL_RNN, "rnn", "step lanes=8 rows=99999 teams=1", 0},
      {UNROLL_CELL_RNN, "rnn", "step lanes=8 rows=3 teams=1", 0},
      {UNROLL_CELL_RNN, "rnn", "step lanes=0 rows=0 teams=0", 0},
      {UNROLL_CELL_RNN, "rnn", "walk lanes=16 rows=2 teams=3", 0},
      {UNROLL_CELL_RNN, "rnn", "step pieces=1 rows=8 vecs=1 parts=1", 0}, /* of a CPU */
  };
  char text[TEXT];
  (void)state;
  if (!test.ctx)
    skip();
  take_for_gpu(1);
  run_is_same("thorough", UNROLL_CELL_RNN, SMALL);
  assert_true(find_file());
  read_file(text);
  char *lines = end_of_head(text);
  test.batch = BATCH;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    snprintf(lines, sizeof text - (size_t)(lines - text),
             "layer forward %s f32 hoisted=1 h=%d i=0 b=%d -> %s us=1 model=1 thorough\n"
             "layer backward %s f32 hoisted=0 h=%d i=0 b=%d -> %s us=1 model=1 thorough\n",
             cases[i].name, HIDDEN, BATCH, cases[i].groups, cases[i].name, HIDDEN, BATCH, cases[i].groups);
    write_file(text, strlen(text));
    run_is_same("quick", cases[i].cell, HIDDEN); /* which measures nothing of so little */
    assert_int_equal(test.kept, cases[i].kept);
    assert_int_equal(test.measured, 0);
  }
}

static void unknown_values_are_refused(void **state) {
  (void)state;
  if (!test.ctx)
    skip();
  const unroll_option option = {"tune", "slow"};
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *device = NULL;
  assert_int_equal(unroll_device_open(test.ctx, "opencl", &option, 1, &device, &err), UNROLL_E_INVALID);
  assert_non_null(strstr(err.message, "slow"));
  assert_null(device);
}

/* tune_test measure H: what another process does meanwhile. */
static int measure(const char *hidden) {
  void *state = NULL;
  if (connect_device(&state) != 0 || !test.ctx)
    return 1;
  for (int i = 0; i < 8; i++)
    run_is_same("again", UNROLL_CELL_RNN, strtol(hidden, NULL, 10));
  unroll_context_destroy(test.ctx);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3)
    return measure(argv[2]);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_measured_is_kept),        cmocka_unit_test(off_measures_nothing),
      cmocka_unit_test(quick_leaves_little_work_alone),  cmocka_unit_test(every_split_gives_the_same_bits),
      cmocka_unit_test(damaged_files_are_harmless),      cmocka_unit_test(two_processes_may_write_at_once),
      cmocka_unit_test(unknown_values_are_refused),      cmocka_unit_test(what_is_measured_of_groups_is_kept),
      cmocka_unit_test(every_group_gives_the_same_bits),
  };
  return cmocka_run_group_tests(tests, start, finish);
}
