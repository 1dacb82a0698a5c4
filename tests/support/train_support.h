/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of training: the reference device, a text, small language models, callbacks that remember. */
#ifndef TRAIN_SUPPORT_H
#define TRAIN_SUPPORT_H
#include <math.h>
#include <unroll/io.h>
#include <unroll/train.h>

#include "io_support.h"

static unroll_context *context;
static unroll_device *cpu;
static unroll_text *text; /* the fixture's: one sentence, over and over */

static const char sentence[] = "the quick brown fox jumps over the lazy dog;\n";

static inline unroll_text *load_text(const char *line, int times) {
  const size_t bytes = strlen(line) * (size_t)times;
  char *all = malloc(bytes + 1);
  assert_non_null(all);
  for (int i = 0; i < times; i++)
    strcpy(all + strlen(line) * (size_t)i, line);
  const char *path = in_folder("text.txt");
  put_file(path, all, bytes);
  free(all);
  unroll_text *t;
  assert_ok(unroll_text_load(&path, 1, NULL, NULL, &t, &err));
  return t;
}

static inline int begin(void **state) {
  if (make_folder(state) != 0)
    return 1;
  assert_ok(unroll_context_create(NULL, &context, &err));
  assert_ok(unroll_device_open(context, "cpu", NULL, 0, &cpu, &err));
  text = load_text(sentence, 20); /* 900 characters */
  return 0;
}

static inline int end(void **state) {
  unroll_text_destroy(text);
  unroll_device_close(cpu);
  unroll_context_destroy(context);
  return remove_folder(state);
}

/* 2 layers, dropout and a validation part: all that has a state of its own. An epoch has 15 updates: floor(843/7)/8. */
static inline unroll_lm_options small(int32_t cell) {
  unroll_lm_options o = unroll_lm_options_default();
  o.rnn.cell = cell;
  o.rnn.layers = 2;
  o.rnn.hidden = 12;
  o.embedding = 6;
  o.steps = 8;
  o.training.batch = 7;
  o.rnn.dropout = 0.1;
  o.training.validation = 0.0625;
  o.training.seed = 7;
  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_EXPONENTIAL, .base = 0.01, .decay = 0.5};
  return o;
}
#define EPOCH 15

static inline unroll_lm *create(const unroll_lm_options *o) {
  unroll_lm *lm = NULL;
  assert_ok(unroll_lm_create(&cpu, 1, text, o, NULL, &lm, &err));
  return lm;
}

static inline unroll_lm *load(const char *path) {
  unroll_lm *lm = NULL;
  assert_ok(unroll_lm_load(&cpu, 1, path, NULL, &lm, &err));
  return lm;
}

/* ---- a callback that remembers ---- */

#define MOST 512
struct record {
  float losses[MOST], norms[MOST];
  double rates[MOST], validation[MOST]; /* by update, counted from 0 */
  int improved[MOST];
  uint64_t first, updates, stop_at; /* stop_at 0: never */
  int reports, finals;
  unroll_lm *lm;
};

static inline int remember(void *ctx, const unroll_lm_progress *p) {
  struct record *r = ctx;
  assert_int_equal(p->struct_size, sizeof *p);
  assert_true(p->n_updates >= 1 && p->update <= MOST);
  if (r->reports == 0)
    r->first = p->update - p->n_updates;
  else
    assert_int_equal(p->update - p->n_updates, r->updates);
  for (uint32_t i = 0; i < p->n_updates; i++) {
    r->losses[p->update - p->n_updates + i] = p->losses[i];
    r->norms[p->update - p->n_updates + i] = p->grad_norms[i];
  }
  assert_true(p->grad_norm == (double)p->grad_norms[p->n_updates - 1]);
  assert_true(p->characters_per_second > 0 && p->seconds >= 0 && p->seconds_left >= 0);
  r->rates[p->update - 1] = p->learning_rate;
  r->validation[p->update - 1] = p->validation_loss;
  r->improved[p->update - 1] = p->improved;
  r->updates = p->update;
  r->reports++;
  r->finals += p->final;
  return p->update == r->stop_at;
}

static inline void train_to(unroll_lm *lm, uint64_t updates, struct record *r) {
  const unroll_lm_train_options run = {
      .struct_size = sizeof run, .report_every = 1, .updates = updates, .progress = remember, .ctx = r};
  r->reports = r->finals = 0;
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_int_equal(r->finals, 1);
  assert_int_equal(r->updates, updates);
  assert_int_equal(unroll_lm_describe(lm).update, updates);
}

/* The same of any other task's model: each update, and run_to. */
struct seen {
  float losses[MOST], norms[MOST];
  double metrics[MOST], validation[MOST], validation_metrics[MOST];
};
static inline int see(void *ctx, const unroll_train_progress *p) {
  struct seen *s = ctx;
  assert_int_equal(p->n_updates, 1);
  s->losses[p->update - 1] = p->losses[0];
  s->norms[p->update - 1] = p->grad_norms[0];
  s->metrics[p->update - 1] = p->metric;
  s->validation[p->update - 1] = p->validation_loss;
  s->validation_metrics[p->update - 1] = p->validation_metric;
  return 0;
}
#define RUN_TO(Model)                                                                               \
  static inline void run_to(Model *model, uint64_t updates, struct seen *s) {                       \
    const unroll_train_options o = {                                                                \
        .struct_size = sizeof o, .report_every = 1, .updates = updates, .progress = see, .ctx = s}; \
    assert_ok(Model##_train(model, &o, &err));                                                      \
    assert_int_equal(Model##_describe(model).update, updates);                                      \
  }

/*
 * `attempt`, which frees what it has made, until it succeeds: each of the first `dense` allocations fails once, then every
 * step-th: those below the task's own are seconds of compiling each.
 */
static inline void memory_runs_out_of(unroll_status (*attempt)(void *ctx, const unroll_allocator *allocator), void *ctx,
                                      long dense, long step) {
  struct counting k = {0, 0, 0};
  unroll_status status = UNROLL_E_MEMORY;
  for (long fail_at = 1; status != UNROLL_OK; fail_at += fail_at < dense ? 1 : step) {
    k = (struct counting){0, 0, fail_at};
    const unroll_allocator allocator = counting_allocator(&k);
    status = attempt(ctx, &allocator);
    assert_int_equal(k.live, 0);
    assert_true(status == UNROLL_OK || status == UNROLL_E_MEMORY);
  }
  assert_true(k.calls > dense);
}

static inline void assert_same_losses(const struct record *a, const struct record *b, uint64_t first, uint64_t n) {
  for (uint64_t i = first; i < n; i++) {
    if (memcmp(&a->losses[i], &b->losses[i], sizeof a->losses[0]) != 0)
      print_error("update %d: %.9g and %.9g\n", (int)i + 1, (double)a->losses[i], (double)b->losses[i]);
    assert_memory_equal(&a->losses[i], &b->losses[i], sizeof a->losses[0]);
    assert_memory_equal(&a->norms[i], &b->norms[i], sizeof a->norms[0]);
  }
}

static inline void assert_same_files(const char *a, const char *b) {
  size_t size_a, size_b;
  char *bytes_a = get_file(a, &size_a), *bytes_b = get_file(b, &size_b);
  assert_int_equal(size_a, size_b);
  assert_memory_equal(bytes_a, bytes_b, size_a);
  free(bytes_a);
  free(bytes_b);
}

/* The file "m" with one piece of its metadata changed, as "changed"; its tensors stay. keys: all that it has. */
static inline void change_metadata(const char *const *keys, size_t n, const char *key, const char *from,
                                   const char *to) {
  unroll_safetensors *file;
  unroll_safetensors_writer *writer;
  assert_ok(unroll_safetensors_open(in_folder("m"), NULL, &file, &err));
  assert_ok(unroll_safetensors_writer_create(in_folder("changed"), NULL, &writer, &err));
  for (size_t i = 0; i < n; i++) {
    const char *value = unroll_safetensors_metadata(file, keys[i]);
    char changed[4096];
    assert_non_null(value);
    snprintf(changed, sizeof changed, "%s", value);
    if (strcmp(keys[i], key) == 0) {
      const char *at = strstr(value, from);
      assert_non_null(at);
      snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - value), value, to, at + strlen(from));
    }
    assert_ok(unroll_safetensors_writer_metadata(writer, keys[i], changed, &err));
  }
  for (uint64_t i = 0; i < unroll_safetensors_count(file); i++) {
    unroll_stored_tensor t;
    assert_ok(unroll_safetensors_get(file, i, &t, &err));
    assert_ok(unroll_safetensors_writer_add(writer, t.name, t.dtype, t.rank, t.shape, t.data, &err));
  }
  assert_ok(unroll_safetensors_writer_commit(writer, &err));
  unroll_safetensors_writer_destroy(writer);
  unroll_safetensors_close(file);
}

#endif
