/* SPDX-License-Identifier: Apache-2.0 */
/* The loss scale of a language model's training: what it leaves alone, what it skips, how it grows, where it ends. */
#include <stdbool.h>

#include "train_support.h"

static unroll_device *opencl;

static int open_devices(void **state) {
  unroll_error error = UNROLL_ERROR_INIT;
  if (begin(state) != 0)
    return 1;
  const unroll_status status = unroll_device_open(context, "opencl", NULL, 0, &opencl, &error);
  if (status != UNROLL_OK && status != UNROLL_E_NOT_FOUND)
    print_error("opencl: %s\n", error.message);
  return status != UNROLL_OK && status != UNROLL_E_NOT_FOUND;
}

static int close_devices(void **state) {
  unroll_device_close(opencl);
  return end(state);
}

static unroll_device *device_of(void **state) {
  unroll_device *d = strcmp(*state, "cpu") == 0 ? cpu : opencl;
  if (!d)
    skip();
  return d;
}

/* No dropout: a skipped update's forward pass would be all that changes. No validation: nothing of it in the file. */
static unroll_lm_options scaled(double scale, int64_t interval) {
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.rnn.dropout = o.training.validation = 0;
  o.rnn.layers = 1;
  o.training.loss_scale = scale;
  o.training.loss_scale_interval = interval;
  return o;
}

static unroll_lm *create_on(unroll_device *d, const unroll_lm_options *o) {
  unroll_lm *lm = NULL;
  assert_ok(unroll_lm_create(&d, 1, text, o, NULL, &lm, &err));
  return lm;
}

static unroll_lm *resume_on(unroll_device *d, const char *path) {
  unroll_lm *lm = NULL;
  assert_ok(unroll_lm_load(&d, 1, path, NULL, &lm, &err));
  assert_ok(unroll_lm_resume(lm, text, &err));
  return lm;
}

/* What a run said, by update counted from 0. */
struct history {
  float losses[MOST], norms[MOST], scales[MOST];
  uint64_t skipped;
};

static int keep(void *ctx, const unroll_lm_progress *p) {
  struct history *h = ctx;
  const uint64_t first = p->update - p->n_updates;
  assert_true(p->update <= MOST);
  for (uint32_t i = 0; i < p->n_updates; i++) {
    h->losses[first + i] = p->losses[i];
    h->norms[first + i] = p->grad_norms[i];
    h->scales[first + i] = p->loss_scales ? p->loss_scales[i] : 0;
  }
  h->skipped += p->skipped;
  return 0;
}

static unroll_status train_on(unroll_lm *lm, uint64_t updates, uint32_t every, struct history *h, unroll_error *error) {
  const unroll_lm_train_options run = {
      .struct_size = sizeof run, .report_every = every, .updates = updates, .progress = keep, .ctx = h};
  return unroll_lm_train(lm, &run, error);
}

/* A copy of a model's file with a tensor's values times a factor. */
static void multiply(const char *from, const char *to, const char *name, float factor) {
  unroll_safetensors *file;
  unroll_safetensors_writer *writer;
  assert_ok(unroll_safetensors_open(from, NULL, &file, &err));
  assert_ok(unroll_safetensors_writer_create(to, NULL, &writer, &err));
  for (uint64_t i = 0; i < unroll_safetensors_metadata_count(file); i++) {
    const char *key, *value;
    assert_ok(unroll_safetensors_metadata_get(file, i, &key, &value, &err));
    if (strcmp(key, UNROLL_CHECKSUM_KEY) != 0)
      assert_ok(unroll_safetensors_writer_metadata(writer, key, value, &err));
  }
  float *values = NULL;
  for (uint64_t i = 0; i < unroll_safetensors_count(file); i++) {
    unroll_stored_tensor t;
    assert_ok(unroll_safetensors_get(file, i, &t, &err));
    if (strcmp(t.name, name) == 0) {
      assert_null(values);
      values = malloc(t.bytes);
      assert_non_null(values);
      memcpy(values, t.data, t.bytes);
      for (uint64_t k = 0; k < t.bytes / sizeof *values; k++)
        values[k] *= factor;
      t.data = values;
    }
    assert_ok(unroll_safetensors_writer_add(writer, t.name, t.dtype, t.rank, t.shape, t.data, &err));
  }
  assert_non_null(values);
  assert_ok(unroll_safetensors_writer_commit(writer, &err));
  unroll_safetensors_writer_destroy(writer);
  unroll_safetensors_close(file);
  free(values);
}

static bool is_of_stream(const char *name) { return strcmp(name, "h.0") == 0 || strcmp(name, "c.0") == 0; }

/* Do the tensors of file a have the same bits in file b? `streams`: the states of the streams count too. */
static bool same_tensors(const char *a, const char *b, bool streams, bool scale) {
  unroll_safetensors *file_a, *file_b;
  bool same = true;
  assert_ok(unroll_safetensors_open(a, NULL, &file_a, &err));
  assert_ok(unroll_safetensors_open(b, NULL, &file_b, &err));
  for (uint64_t i = 0; i < unroll_safetensors_count(file_a); i++) {
    unroll_stored_tensor x, y;
    assert_ok(unroll_safetensors_get(file_a, i, &x, &err));
    if ((!streams && is_of_stream(x.name)) || (!scale && strncmp(x.name, "loss_scale", 10) == 0))
      continue;
    assert_ok(unroll_safetensors_find(file_b, x.name, &y, &err));
    same = same && x.bytes == y.bytes && memcmp(x.data, y.data, x.bytes) == 0;
  }
  unroll_safetensors_close(file_a);
  unroll_safetensors_close(file_b);
  return same;
}

static int32_t integer_of(const char *path, const char *name) {
  unroll_safetensors *file;
  unroll_stored_tensor t;
  int32_t value;
  assert_ok(unroll_safetensors_open(path, NULL, &file, &err));
  assert_ok(unroll_safetensors_find(file, name, &t, &err));
  assert_int_equal(t.bytes, sizeof value);
  memcpy(&value, t.data, sizeof value);
  unroll_safetensors_close(file);
  return value;
}

/* ---- nothing overflows ---- */

static void a_power_of_two_changes_no_bit(void **state) {
  unroll_device *d = device_of(state);
  const double scales[] = {1, 1024, 65536};
  const int64_t intervals[] = {0, 0, 3};
  const char *const names[] = {"off", "fixed", "dynamic"};
  struct history all[3] = {0};
  for (int i = 0; i < 3; i++) {
    const unroll_lm_options o = scaled(scales[i], intervals[i]);
    unroll_lm *lm = create_on(d, &o);
    assert_ok(train_on(lm, 12, 5, &all[i], &err));
    assert_ok(unroll_lm_save(lm, in_folder(names[i]), &err));
    unroll_lm_destroy(lm);
    assert_memory_equal(all[i].losses, all[0].losses, sizeof all[0].losses);
    assert_memory_equal(all[i].norms, all[0].norms, sizeof all[0].norms);
    assert_int_equal(all[i].skipped, 0);
  }
  assert_true(same_tensors(in_folder("off"), in_folder("fixed"), true, true));
  assert_true(same_tensors(in_folder("off"), in_folder("dynamic"), true, true));
  for (int i = 0; i < 12; i++)
    assert_true(all[1].scales[i] == 0 && all[2].scales[i] == ldexpf(65536, i / 3));
  assert_int_equal(integer_of(in_folder("dynamic"), "loss_scale.step"), 12);
  /* One that is no power of two rounds: once each way, and in the sums between. */
  const unroll_lm_options o = scaled(1000, 0);
  struct history rounded = {0};
  unroll_lm *lm = create_on(d, &o);
  assert_ok(train_on(lm, 12, 1, &rounded, &err));
  assert_ok(unroll_lm_save(lm, in_folder("rounded"), &err));
  unroll_lm_destroy(lm);
  for (int i = 0; i < 3; i++)
    assert_true(fabsf(rounded.norms[i] - all[0].norms[i]) < 1e-4f * all[0].norms[i]);
  assert_false(same_tensors(in_folder("off"), in_folder("rounded"), true, true));
}

static void it_does_not_grow_past_its_end(void **state) {
  unroll_device *d = device_of(state);
  const unroll_lm_options o = scaled(0x1p124, 1);
  struct history h = {0};
  unroll_lm *lm = create_on(d, &o);
  assert_ok(train_on(lm, 5, 5, &h, &err));
  unroll_lm_destroy(lm);
  assert_int_equal(h.skipped, 0);
  const float expected[] = {0x1p124f, 0x1p125f, 0x1p126f, 0x1p126f, 0x1p126f};
  assert_memory_equal(h.scales, expected, sizeof expected);
}

/* ---- gradients overflow ---- */

/* A model whose last layer is so steep that gradients overflow at the scale it begins with. */
static void make_steep(unroll_device *d, double scale, int64_t interval, float factor) {
  unroll_lm_options o = scaled(scale, interval);
  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 1e-3};
  unroll_lm *lm = create_on(d, &o);
  assert_ok(unroll_lm_save(lm, in_folder("gentle"), &err));
  unroll_lm_destroy(lm);
  multiply(in_folder("gentle"), in_folder("steep"), "linear.W", factor);
}

static void skips_and_halves_until_it_fits(void **state) {
  unroll_device *d = device_of(state);
  make_steep(d, 0x1p126, 2000, 0x1p10f);
  struct history h = {0};
  unroll_lm *lm = resume_on(d, in_folder("steep"));
  uint64_t n = 0;
  do {
    assert_true(n < 40);
    assert_ok(train_on(lm, ++n, 1, &h, &err));
    assert_true(h.scales[n - 1] == ldexpf(1, 126 - (int)(n - 1)));
    assert_ok(unroll_lm_save(lm, in_folder("now"), &err));
    const bool made = isfinite(h.norms[n - 1]);
    assert_int_equal(same_tensors(in_folder("steep"), in_folder("now"), false, false), !made);
    assert_false(same_tensors(in_folder("steep"), in_folder("now"), true, false)); /* what was read is read */
    assert_int_equal(integer_of(in_folder("now"), "loss_scale.step"), made);
    assert_int_equal(h.skipped, made ? n - 1 : n);
  } while (h.skipped == n);
  assert_true(n > 2);
  /* The same bits when the host looks at none of them in between. */
  assert_ok(train_on(lm, 40, 1, &h, &err));
  assert_ok(unroll_lm_save(lm, in_folder("now"), &err));
  unroll_lm_destroy(lm);
  struct history blind = {0};
  lm = resume_on(d, in_folder("steep"));
  assert_ok(train_on(lm, 40, 40, &blind, &err));
  assert_ok(unroll_lm_save(lm, in_folder("blind"), &err));
  unroll_lm_destroy(lm);
  assert_int_equal(blind.skipped, h.skipped);
  assert_memory_equal(blind.scales, h.scales, sizeof h.scales);
  assert_true(same_tensors(in_folder("now"), in_folder("blind"), true, true));
}

static void grows_after_its_interval(void **state) {
  unroll_device *d = device_of(state);
  enum { UPDATES = 60, INTERVAL = 3 };
  make_steep(d, 0x1p126, INTERVAL, 0x1p10f);
  struct history h = {0};
  unroll_lm *lm = resume_on(d, in_folder("steep"));
  assert_ok(train_on(lm, UPDATES, 0, &h, &err));
  assert_ok(unroll_lm_save(lm, in_folder("whole"), &err));
  unroll_lm_destroy(lm);
  int grown = 0, skipped = 0, streak = 0;
  float scale = 0x1p126f;
  for (int i = 0; i < UPDATES; i++) {
    assert_true(h.scales[i] == scale);
    const bool made = isfinite(h.norms[i]);
    streak = made ? streak + 1 : 0;
    skipped += !made;
    if (!made)
      scale /= 2;
    if (streak == INTERVAL) {
      scale *= 2;
      streak = 0;
      grown++;
    }
  }
  assert_true(grown > 5 && skipped > 5);
  assert_int_equal(h.skipped, skipped);
  assert_int_equal(integer_of(in_folder("whole"), "loss_scale.streak"), streak);
  assert_int_equal(integer_of(in_folder("whole"), "loss_scale.step"), UPDATES - skipped);

  /* In parts it is the same, wherever it is cut. */
  struct history parts = {0};
  for (uint64_t cut = 1; cut < UPDATES; cut += 13) {
    lm = resume_on(d, cut == 1 ? in_folder("steep") : in_folder("part"));
    assert_ok(train_on(lm, cut, 0, &parts, &err));
    assert_ok(unroll_lm_save(lm, in_folder("part"), &err));
    unroll_lm_destroy(lm);
  }
  lm = resume_on(d, in_folder("part"));
  assert_ok(train_on(lm, UPDATES, 0, &parts, &err));
  assert_ok(unroll_lm_save(lm, in_folder("part"), &err));
  unroll_lm_destroy(lm);
  assert_memory_equal(parts.losses, h.losses, sizeof h.losses);
  assert_memory_equal(parts.scales, h.scales, sizeof h.scales);
  assert_same_files(in_folder("whole"), in_folder("part"));
}

/* ---- where it ends ---- */

static void refuses(unroll_device *d, const char *words, unsigned update) {
  struct history h = {0};
  unroll_error found = UNROLL_ERROR_INIT;
  unsigned at = 0;
  unroll_lm *lm = resume_on(d, in_folder("steep"));
  assert_int_equal(train_on(lm, 20, 7, &h, &found), UNROLL_E_RANGE);
  if (!strstr(found.message, words))
    print_error("'%s', not '%s'\n", found.message, words);
  assert_non_null(strstr(found.message, words));
  assert_int_equal(sscanf(found.message, "the training diverged at update %u", &at), 1);
  assert_int_equal(at, update);
  assert_error(unroll_lm_save(lm, in_folder("lost"), &err), UNROLL_E_STATE, "diverged");
  unroll_lm_destroy(lm);
}

static void ends_where_halving_does_not_help(void **state) {
  unroll_device *d = device_of(state);
  make_steep(d, 4, 1000, 1e25f); /* the norm's squares overflow at every scale, the loss does not */
  refuses(d, "dynamic loss scale at 1;", 3);
  make_steep(d, 8, 0, 1e25f);
  refuses(d, "loss scale 8; a lower learning rate, loss scale or clip", 1);
  make_steep(d, 4096, 1000, INFINITY); /* and here the loss is no number */
  refuses(d, "dynamic loss scale at 4096;", 1);
}

/* ---- options and files ---- */

static void options_and_files(void **state) {
  (void)state;
  const struct {
    double scale;
    int64_t interval;
    const char *words;
  } wrong[] = {
      {0, 0, "loss scale 0, it must be from 1 to 2^126"},
      {0.5, 9, "loss scale 0.5"},
      {0x1p127, 0, "loss scale 1.7"},
      {(double)NAN, 0, "loss scale nan"},
      {2, -1, "interval -1, it must be from 0"},
      {2, INT64_C(1) << 31, "interval 2147483648"},
  };
  unroll_lm *lm = NULL;
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    const unroll_lm_options o = scaled(wrong[i].scale, wrong[i].interval);
    assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_INVALID, wrong[i].words);
  }
  const double scales[] = {1, 512, 4096};
  const int64_t intervals[] = {0, 0, 17};
  for (int i = 0; i < 3; i++) {
    const unroll_lm_options o = scaled(scales[i], intervals[i]);
    lm = create(&o);
    assert_ok(unroll_lm_save(lm, in_folder("a"), &err));
    unroll_lm_destroy(lm);
    unroll_safetensors *file;
    assert_ok(unroll_safetensors_open(in_folder("a"), NULL, &file, &err));
    /* A model without a scale has the file that it had before there were any. */
    assert_int_equal(strstr(unroll_safetensors_metadata(file, "unroll.training"), "loss_scale") != NULL, i > 0);
    unroll_safetensors_close(file);
    lm = load(in_folder("a"));
    const unroll_lm_options back = unroll_lm_describe(lm).options;
    assert_true(back.training.loss_scale == scales[i] && back.training.loss_scale_interval == intervals[i]);
    assert_ok(unroll_lm_save(lm, in_folder("b"), &err));
    unroll_lm_destroy(lm);
    assert_same_files(in_folder("a"), in_folder("b"));
  }
}

#define ON_BOTH(test) \
  {#test "_cpu", test, NULL, NULL, "cpu"}, { #test "_opencl", test, NULL, NULL, "opencl" }

int main(void) {
  const struct CMUnitTest tests[] = {
      ON_BOTH(a_power_of_two_changes_no_bit),    ON_BOTH(it_does_not_grow_past_its_end),
      ON_BOTH(skips_and_halves_until_it_fits),   ON_BOTH(grows_after_its_interval),
      ON_BOTH(ends_where_halving_does_not_help), cmocka_unit_test(options_and_files),
  };
  return cmocka_run_group_tests(tests, open_devices, close_devices);
}
