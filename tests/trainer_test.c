/* SPDX-License-Identifier: Apache-2.0 */
/* What a training can be asked for: accumulation, warm-up, skipping, patience, frozen parameters, penalties, windows. */
#include <stdbool.h>

#include "train_support.h"

/* The small model with these of the training's options, in batches of 6. */
static unroll_lm_options with(int32_t cell, unroll_training some) {
  unroll_lm_options o = small(cell);
  unroll_training *t = &o.training;
  t->batch = 6;
  t->accumulate = some.accumulate;
  t->warmup = some.warmup;
  t->nonfinite = some.nonfinite;
  t->freeze = some.freeze;
  t->l2 = some.l2;
  t->recurrent_decay = some.recurrent_decay;
  return o;
}

static unroll_stored_tensor tensor_of(unroll_safetensors *file, const char *name) {
  unroll_stored_tensor t;
  assert_ok(unroll_safetensors_find(file, name, &t, &err));
  return t;
}

static bool has_tensor(const char *path, const char *name) {
  unroll_safetensors *file;
  unroll_stored_tensor t;
  assert_ok(unroll_safetensors_open(path, NULL, &file, &err));
  const bool has = unroll_safetensors_find(file, name, &t, NULL) == UNROLL_OK;
  unroll_safetensors_close(file);
  return has;
}

static bool same_tensor(const char *a, const char *b, const char *name) {
  unroll_safetensors *file_a, *file_b;
  assert_ok(unroll_safetensors_open(a, NULL, &file_a, &err));
  assert_ok(unroll_safetensors_open(b, NULL, &file_b, &err));
  const unroll_stored_tensor x = tensor_of(file_a, name), y = tensor_of(file_b, name);
  const bool same = x.bytes == y.bytes && memcmp(x.data, y.data, x.bytes) == 0;
  unroll_safetensors_close(file_a);
  unroll_safetensors_close(file_b);
  return same;
}

/* The largest |b - (a + factor·from)| over a tensor of three files, against the largest |factor·from| unless that is 0. */
static double off_from(const char *a, const char *b, const char *from, const char *name, double factor) {
  const char *const paths[] = {a, b, from};
  unroll_safetensors *files[3];
  const float *data[3];
  uint64_t n = 0;
  for (int i = 0; i < 3; i++) {
    assert_ok(unroll_safetensors_open(paths[i], NULL, &files[i], &err));
    const unroll_stored_tensor t = tensor_of(files[i], name);
    data[i] = t.data;
    n = t.bytes / sizeof(float);
  }
  double off = 0, size = 0;
  for (uint64_t i = 0; i < n; i++) {
    off = fmax(off, fabs((double)data[1][i] - ((double)data[0][i] + factor * (double)data[2][i])));
    size = fmax(size, fabs(factor * (double)data[2][i]));
  }
  for (int i = 0; i < 3; i++)
    unroll_safetensors_close(files[i]);
  return size > 0 ? off / size : off;
}

/* ---- accumulation ---- */

static void parts_are_the_whole_batch(void **state) {
  (void)state;
  const double scales[] = {1, 1024, 1024};
  const int64_t parts[] = {2, 3, 6}, intervals[] = {0, 0, 5};
  for (int k = 0; k < 3; k++) {
    unroll_lm_options o = with(k == 1 ? UNROLL_CELL_GRU_AFTER : UNROLL_CELL_LSTM, (unroll_training){0});
    o.training.clip = 0.25; /* so that it bites */
    o.training.loss_scale = scales[k];
    o.training.loss_scale_interval = intervals[k];
    o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD, .beta1 = 0.9};
    o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0.3};
    struct record whole = {0}, cut = {0};
    unroll_lm *lm = create(&o);
    const uint64_t epoch = unroll_lm_describe(lm).updates_per_epoch, n = epoch + 6;
    train_to(lm, n, &whole);
    assert_ok(unroll_lm_save(lm, in_folder("whole"), &err));
    unroll_lm_destroy(lm);
    o.training.accumulate = parts[k];
    lm = create(&o);
    assert_int_equal(unroll_lm_describe(lm).updates_per_epoch, epoch);
    train_to(lm, n, &cut);
    assert_ok(unroll_lm_save(lm, in_folder("cut"), &err));
    unroll_lm_destroy(lm);
    bool any = false;
    /* Sums of a few dozen float32 numbers in another order, over 20 updates at a high rate. */
    for (uint64_t i = 0; i < n; i++) {
      assert_true(fabs((double)whole.losses[i] - (double)cut.losses[i]) < 1e-5 * (double)whole.losses[i]);
      assert_true(fabs((double)whole.norms[i] - (double)cut.norms[i]) < 1e-4 * (double)whole.norms[i]);
      any = any || whole.losses[i] != cut.losses[i];
    }
    assert_true(any); /* it was another computation */
    assert_true(fabs(whole.validation[n - 1] - cut.validation[n - 1]) < 1e-5);
    /* The streams' states stand where they do without parts. */
    assert_true(off_from(in_folder("whole"), in_folder("cut"), in_folder("whole"), "h.1", 0) < 1e-4);
    assert_false(has_tensor(in_folder("cut"), "linear.W.sum"));
  }
}

/* ---- warm-up ---- */

static void rates_warm_up(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_RNN);
  o.training.warmup = 4;
  struct record r = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 4 + EPOCH + 1, &r);
  for (int u = 1; u <= 4; u++)
    assert_true(fabs(r.rates[u - 1] - 0.01 * u / 4) < 1e-17);
  assert_true(r.rates[4] == 0.01 && r.rates[3 + EPOCH] == 0.01 && r.rates[4 + EPOCH] == 0.005);
  unroll_lm_destroy(lm);
  /* The first step of plain gradient descent is as long as the rate. */
  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_COSINE, .base = 0.02};
  lm = create(&o);
  const unroll_lm_train_options within = {.struct_size = sizeof within, .updates = 4};
  assert_error(unroll_lm_train(lm, &within, &err), UNROLL_E_INVALID, "within its warm-up of 4 updates");
  train_to(lm, 14, &r);
  assert_true(r.rates[1] == 0.01 && r.rates[3] == 0.02 && r.rates[4] == 0.02);
  assert_true(fabs(r.rates[9] - 0.01) < 1e-15); /* half of the 10 updates that are left */
  unroll_lm_destroy(lm);
}

/* ---- numbers that are not finite ---- */

/* The file anew, with one value of a tensor, or all of them (-1), times a factor. */
static void multiply(const char *path, const char *tensor, int64_t index, float factor) {
  unroll_safetensors *file;
  unroll_safetensors_writer *writer;
  assert_ok(unroll_safetensors_open(path, NULL, &file, &err));
  assert_ok(unroll_safetensors_writer_create(path, NULL, &writer, &err));
  for (uint64_t i = 0; i < unroll_safetensors_metadata_count(file); i++) {
    const char *key, *value;
    assert_ok(unroll_safetensors_metadata_get(file, i, &key, &value, &err));
    if (strcmp(key, UNROLL_CHECKSUM_KEY) != 0)
      assert_ok(unroll_safetensors_writer_metadata(writer, key, value, &err));
  }
  float *values = NULL;
  for (uint64_t i = 0; i < unroll_safetensors_count(file); i++) {
    unroll_stored_tensor s;
    assert_ok(unroll_safetensors_get(file, i, &s, &err));
    if (strcmp(s.name, tensor) == 0) {
      values = malloc(s.bytes);
      assert_non_null(values);
      memcpy(values, s.data, s.bytes);
      for (int64_t k = 0; k < (int64_t)(s.bytes / sizeof *values); k++)
        values[k] *= index < 0 || index == k ? factor : 1;
      s.data = values;
    }
    assert_ok(unroll_safetensors_writer_add(writer, s.name, s.dtype, s.rank, s.shape, s.data, &err));
  }
  assert_non_null(values);
  assert_ok(unroll_safetensors_writer_commit(writer, &err));
  unroll_safetensors_writer_destroy(writer);
  unroll_safetensors_close(file);
  free(values);
}

/* A text with one Z, and a model whose Z is no number. */
static unroll_text *make_poisoned(const unroll_lm_options *o, const char *path) {
  char *all = malloc(901);
  assert_non_null(all);
  for (int i = 0; i < 20; i++)
    strcpy(all + 45 * i, sentence);
  all[400] = 'Z';
  const char *text_path = in_folder("poisoned.txt");
  put_file(text_path, all, 900);
  free(all);
  unroll_text *t;
  unroll_lm *lm;
  assert_ok(unroll_text_load(&text_path, 1, NULL, NULL, &t, &err));
  assert_ok(unroll_lm_create(&cpu, 1, t, o, NULL, &lm, &err));
  assert_ok(unroll_lm_save(lm, path, &err));
  int32_t id;
  size_t n;
  assert_ok(unroll_vocabulary_encode(unroll_lm_describe(lm).vocabulary, "Z", 1, &id, 1, &n, &err));
  unroll_lm_destroy(lm);
  multiply(path, "embedding.weight", id * o->embedding + 1, NAN);
  return t;
}

struct skips {
  uint64_t skipped, at; /* the first */
  char where[256];
  float losses[MOST];
};

static int note(void *ctx, const unroll_lm_progress *p) {
  struct skips *s = ctx;
  if (p->skipped > 0 && s->skipped == 0) {
    s->at = p->update;
    assert_non_null(p->nonfinite);
    snprintf(s->where, sizeof s->where, "%s", p->nonfinite);
  }
  assert_int_equal(p->nonfinite == NULL, p->skipped == 0);
  for (uint32_t i = 0; i < p->n_updates; i++)
    s->losses[p->update - p->n_updates + i] = p->losses[i];
  s->skipped += p->skipped;
  return 0;
}

static int count_skipped(void *ctx, const unroll_lm_progress *p) {
  *(uint64_t *)ctx += p->skipped;
  return 0;
}

static void what_is_not_finite_is_skipped(void **state) {
  (void)state;
  const int64_t parts[] = {1, 3};
  for (int k = 0; k < 2; k++) {
    unroll_lm_options o = with(UNROLL_CELL_LSTM, (unroll_training){.nonfinite = UNROLL_NONFINITE_SKIP});
    o.training.accumulate = parts[k];
    o.training.validation = 0;
    unroll_text *t = make_poisoned(&o, in_folder("poisoned"));
    unroll_lm *lm = load(in_folder("poisoned"));
    assert_ok(unroll_lm_resume(lm, t, &err));
    struct skips s = {0};
    unroll_lm_train_options run = {
        .struct_size = sizeof run, .updates = 1, .report_every = 1, .progress = note, .ctx = &s};
    for (; s.skipped == 0; run.updates++) {
      assert_true(run.updates < 30);
      assert_ok(unroll_lm_save(lm, in_folder("before"), &err));
      assert_ok(unroll_lm_train(lm, &run, &err));
    }
    assert_true(isnan(s.losses[s.at - 1]));
    assert_non_null(strstr(s.where, "the loss and the squared gradient of embedding.weight, "));
    assert_non_null(strstr(s.where, " more"));
    assert_ok(unroll_lm_save(lm, in_folder("after"), &err));
    const char *const names[] = {"embedding.weight", "embedding.weight.s1", "rnn.W_h.1.0",
                                 "linear.W",         "linear.W.s2",         "updates.made"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
      assert_true(same_tensor(in_folder("before"), in_folder("after"), names[i]));
    if (parts[k] == 1)
      assert_true(same_tensor(in_folder("before"), in_folder("after"), "c.0"));
    /* From there on every loss is a number, and once an epoch one is none. */
    const uint64_t epoch = unroll_lm_describe(lm).updates_per_epoch;
    run.updates = 3 * epoch;
    assert_ok(unroll_lm_train(lm, &run, &err));
    assert_int_equal(s.skipped, 3);
    for (uint64_t u = 1; u <= 3 * epoch; u++)
      assert_int_equal(isnan(s.losses[u - 1]), u % epoch == s.at % epoch);
    assert_true(s.losses[3 * epoch - 1] < s.losses[0]);
    /* More than a hundred of them are no reason to stop, as long as they are not in a row. */
    uint64_t skipped = 0;
    run = (unroll_lm_train_options){
        .struct_size = sizeof run, .updates = 104 * epoch, .progress = count_skipped, .ctx = &skipped};
    if (parts[k] == 1)
      assert_ok(unroll_lm_train(lm, &run, &err));
    assert_int_equal(skipped, parts[k] == 1 ? 101 : 0);
    run = (unroll_lm_train_options){.struct_size = sizeof run, .updates = 3 * epoch, .report_every = 64};
    unroll_lm_destroy(lm);

    /* The same without leave to skip: where is said, however late it is looked at. */
    o.training.nonfinite = UNROLL_NONFINITE_STOP;
    unroll_text_destroy(t);
    t = make_poisoned(&o, in_folder("poisoned"));
    lm = load(in_folder("poisoned"));
    assert_ok(unroll_lm_resume(lm, t, &err));
    char words[96];
    snprintf(words, sizeof words, "diverged at update %u: ", (unsigned)s.at);
    unroll_error error = UNROLL_ERROR_INIT;
    assert_int_equal(unroll_lm_train(lm, &run, &error), UNROLL_E_RANGE);
    assert_non_null(strstr(error.message, words));
    assert_non_null(strstr(error.message, "not finite: the loss and the squared gradient of embedding.weight"));
    unroll_lm_destroy(lm);
    unroll_text_destroy(t);
  }
}

/* Of the first update that was not finite, whatever came after it: the last layer's own gradients were. */
static void where_it_was_at_first(void **state) {
  (void)state;
  unroll_lm_options o = with(UNROLL_CELL_LSTM, (unroll_training){0});
  o.rnn.layers = 1;
  o.training.clip = 0; /* so that the update after it begins somewhere else */
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("steep"), &err));
  unroll_lm_destroy(lm);
  multiply(in_folder("steep"), "linear.W", -1, 1e25f);
  for (uint32_t every = 1; every <= 64; every += 63) {
    lm = load(in_folder("steep"));
    assert_ok(unroll_lm_resume(lm, text, &err));
    const unroll_lm_train_options run = {.struct_size = sizeof run, .updates = 40, .report_every = every};
    assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_RANGE, "at update 1: loss");
    unroll_lm_destroy(lm);
    lm = load(in_folder("steep"));
    assert_ok(unroll_lm_resume(lm, text, &err));
    assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_RANGE,
                 "not finite: the squared gradient of embedding.weight, rnn.W_x.0.0 and 2 more");
    unroll_lm_destroy(lm);
  }
}

static void a_hundred_skipped_in_a_row_are_enough(void **state) {
  (void)state;
  unroll_lm_options o = with(UNROLL_CELL_RNN, (unroll_training){.nonfinite = UNROLL_NONFINITE_SKIP});
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  o.rnn.dropout = 0;
  struct skips s = {0};
  unroll_lm *lm = create(&o);
  const unroll_schedule wild = {.kind = UNROLL_SCHEDULE_CONSTANT, .base = 1e38};
  assert_ok(unroll_lm_set_schedule(lm, &wild, &err));
  const unroll_lm_train_options run = {
      .struct_size = sizeof run, .updates = 400, .evaluate_every = 1000, .progress = note, .ctx = &s};
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_RANGE, "100 updates in a row were skipped");
  assert_ok(unroll_lm_save(lm, in_folder("whole"), &err));
  unroll_lm_destroy(lm);
}

/* ---- early stopping ---- */

struct ended {
  int evaluations, by_patience;
  uint64_t update, stop_at;
};
static int watch(void *ctx, const unroll_lm_progress *p) {
  struct ended *e = ctx;
  e->evaluations += !isnan(p->validation_loss);
  e->by_patience += p->patience_ended;
  assert_true(!p->patience_ended || p->final);
  e->update = p->update;
  return p->update == e->stop_at;
}

static void patience_ends(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_GRU);
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  o.training.schedule =
      (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 1e-30}; /* never better than at first */
  struct ended e = {0};
  unroll_lm_train_options run = {
      .struct_size = sizeof run, .report_every = 1, .evaluate_every = 2, .patience = 3, .progress = watch, .ctx = &e};
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_train(lm, &run, &err)); /* no other limit is needed */
  assert_int_equal(e.update, 8);
  assert_int_equal(e.evaluations, 4);
  assert_int_equal(e.by_patience, 1);
  assert_int_equal(unroll_lm_describe(lm).best_update, 2);
  unroll_lm_destroy(lm);
  /* Counted over a file, and an evaluation that a run's end brought is not. */
  e = (struct ended){.stop_at = 7};
  lm = create(&o);
  run.updates = 5;
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_int_equal(e.evaluations, 3);
  run.updates = 100;
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_CANCELLED, "after update 7");
  assert_ok(unroll_lm_save(lm, in_folder("waiting"), &err));
  unroll_lm_destroy(lm);
  lm = load(in_folder("waiting"));
  assert_ok(unroll_lm_resume(lm, text, &err));
  e.stop_at = 0;
  assert_ok(unroll_lm_train(lm, &run, &err));
  assert_int_equal(e.update, 8);
  assert_int_equal(e.by_patience, 1);
  unroll_lm_destroy(lm);
  o.training.validation = 0;
  lm = create(&o);
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_INVALID, "patience 3, but nothing is kept for validation");
  unroll_lm_destroy(lm);
}

/* ---- parameters apart ---- */

static void frozen_parameters_keep_every_bit(void **state) {
  (void)state;
  unroll_lm_options o =
      with(UNROLL_CELL_GRU_AFTER, (unroll_training){.freeze = "embedding.*,rnn.?*.0.0", .recurrent_decay = 0.01});
  struct record r = {0};
  unroll_lm *lm = create(&o);
  o.training.freeze = "overwritten";
  assert_string_equal(unroll_lm_describe(lm).options.training.freeze, "embedding.*,rnn.?*.0.0");
  assert_int_equal(unroll_lm_describe(lm).n_parameters, 912 + 377);
  assert_ok(unroll_lm_save(lm, in_folder("before"), &err));
  train_to(lm, 5, &r);
  assert_ok(unroll_lm_save(lm, in_folder("after"), &err));
  unroll_lm_destroy(lm);
  const struct {
    const char *name;
    bool frozen;
  } all[] = {{"embedding.weight", true}, {"rnn.W_x.0.0", true},  {"rnn.W_h.0.0", true},  {"rnn.b.0.0", true},
             {"rnn.b_n.0.0", true},      {"rnn.W_x.1.0", false}, {"rnn.W_h.1.0", false}, {"rnn.b_n.1.0", false},
             {"linear.W", false},        {"linear.b", false}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    char states[64];
    snprintf(states, sizeof states, "%s.s1", all[i].name);
    assert_int_equal(same_tensor(in_folder("before"), in_folder("after"), all[i].name), all[i].frozen);
    assert_int_equal(has_tensor(in_folder("after"), states), !all[i].frozen);
  }
}

/* In a callback: what the file would have, and of the first update Adam's m = 0.1·g, g as long as the clip allows. */
struct looked {
  unroll_lm *lm;
  uint32_t recurrent, n;
  double squares;
};

static int look_at_parameters(void *ctx, const unroll_lm_progress *p) {
  struct looked *s = ctx;
  unroll_safetensors *file;
  s->n = unroll_train_parameters_count(p->parameters);
  assert_ok(unroll_lm_save(s->lm, in_folder("now"), &err));
  assert_ok(unroll_safetensors_open(in_folder("now"), NULL, &file, &err));
  for (uint32_t i = 0; i < s->n; i++) {
    unroll_train_parameter found = {.struct_size = sizeof found};
    assert_ok(unroll_train_parameters_get(p->parameters, i, &found, &err));
    const unroll_stored_tensor x = tensor_of(file, found.name);
    assert_int_equal(found.rank, x.rank);
    assert_memory_equal(found.shape, x.shape, sizeof found.shape);
    assert_int_equal(found.count * sizeof(float), x.bytes);
    assert_int_equal(found.frozen, strcmp(found.name, "linear.b") == 0);
    assert_int_equal(found.recurrent, strncmp(found.name, "rnn.W_h.", 8) == 0);
    s->recurrent += (uint32_t)found.recurrent;
    float *values = malloc(x.bytes);
    assert_ok(unroll_train_parameters_read(p->parameters, i, values, &err));
    assert_memory_equal(values, x.data, x.bytes);
    if (found.frozen)
      assert_error(unroll_train_parameters_read_mean_gradient(p->parameters, i, values, &err), UNROLL_E_NOT_FOUND,
                   "linear.b: it is frozen");
    else
      assert_ok(unroll_train_parameters_read_mean_gradient(p->parameters, i, values, &err));
    for (uint64_t k = 0; k < found.count && !found.frozen; k++)
      s->squares += (double)values[k] * (double)values[k];
    free(values);
  }
  assert_error(unroll_train_parameters_read(p->parameters, s->n, NULL, &err), UNROLL_E_RANGE, "parameter ");
  unroll_safetensors_close(file);
  assert_true(p->update_seconds > 0);
  assert_true(p->grad_norm > 0.01);
  return 0;
}

static int has_no_mean(void *ctx, const unroll_lm_progress *p) {
  float *const values = ctx;
  assert_error(unroll_train_parameters_read_mean_gradient(p->parameters, 0, values, &err), UNROLL_E_NOT_FOUND,
               "rmsprop keeps none");
  return 0;
}

static void parameters_at_a_report(void **state) {
  (void)state;
  unroll_lm_options o = with(UNROLL_CELL_LSTM, (unroll_training){.freeze = "linear.b"});
  o.training.clip = 0.01;
  struct looked s = {.lm = create(&o)};
  unroll_lm_train_options run = {.struct_size = sizeof run, .updates = 1, .progress = look_at_parameters, .ctx = &s};
  assert_ok(unroll_lm_train(s.lm, &run, &err));
  unroll_lm_destroy(s.lm);
  assert_int_equal(s.n, 9);
  assert_int_equal(s.recurrent, 2);
  assert_true(fabs(sqrt(s.squares) - 0.001) < 1e-6);
  o.training.optimizer.kind = UNROLL_RMSPROP;
  float values[4096];
  run.progress = has_no_mean;
  run.ctx = values;
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_train(lm, &run, &err));
  unroll_lm_destroy(lm);
}

static void one_update(const unroll_lm_options *o, const char *before, const char *after, struct record *r) {
  unroll_lm *lm = create(o);
  if (before)
    assert_ok(unroll_lm_save(lm, before, &err));
  train_to(lm, 1, r);
  assert_ok(unroll_lm_save(lm, after, &err));
  unroll_lm_destroy(lm);
}

static void penalties_and_decay(void **state) {
  (void)state;
  unroll_lm_options o = with(UNROLL_CELL_LSTM, (unroll_training){0});
  o.training.clip = 0;
  o.training.optimizer = (unroll_optimizer_attr){.kind = UNROLL_SGD};
  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0.5};
  struct record plain = {0}, r = {0};
  one_update(&o, in_folder("start"), in_folder("plain"), &plain);
  /* The first pattern that fits counts: W_h of layer 1 has 0.03, that of layer 0 0.01. */
  o.training.l2 = "rnn.W_h.1.*=0.03,rnn.W_h.*=1e-2,linear.W=.2";
  unroll_lm *lm = NULL;
  assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_INVALID, "l2: 'linear.W=.2'");
  o.training.l2 = "rnn.W_h.1.*=0.03,rnn.W_h.*=1e-2,linear.W=0.2";
  one_update(&o, NULL, in_folder("l2"), &r);
  assert_true(r.losses[0] == plain.losses[0]); /* which is without it */
  assert_true(r.norms[0] > plain.norms[0]);
  const double eta = 0.5;
  /* W' - W'_plain = -η·2λ·W, to float32's rounding of numbers about 1. */
  assert_true(off_from(in_folder("plain"), in_folder("l2"), in_folder("start"), "rnn.W_h.1.0", -eta * 0.06) < 1e-5);
  assert_true(off_from(in_folder("plain"), in_folder("l2"), in_folder("start"), "rnn.W_h.0.0", -eta * 0.02) < 2e-5);
  assert_true(off_from(in_folder("plain"), in_folder("l2"), in_folder("start"), "linear.W", -eta * 0.4) < 1e-5);
  assert_true(same_tensor(in_folder("plain"), in_folder("l2"), "rnn.W_x.0.0"));
  o.training.l2 = NULL;
  o.training.recurrent_decay = 0.125;
  one_update(&o, NULL, in_folder("decayed"), &r);
  assert_true(r.norms[0] == plain.norms[0]);
  for (int l = 0; l < 2; l++) {
    char name[32];
    snprintf(name, sizeof name, "rnn.W_h.%d.0", l);
    assert_true(off_from(in_folder("plain"), in_folder("decayed"), in_folder("start"), name, -0.125) < 1e-5);
  }
  assert_true(same_tensor(in_folder("plain"), in_folder("decayed"), "linear.W"));
  assert_true(same_tensor(in_folder("plain"), in_folder("decayed"), "rnn.b.1.0"));
}

/* ---- all of it, and files ---- */

static void resumed_is_bit_equal(void **state) {
  (void)state;
  for (int k = 0; k < 2; k++) {
    unroll_lm_options o =
        with(k ? UNROLL_CELL_LSTM : UNROLL_CELL_GRU_AFTER, (unroll_training){.accumulate = 3,
                                                                             .warmup = 7,
                                                                             .nonfinite = UNROLL_NONFINITE_SKIP,
                                                                             .freeze = "rnn.b.*",
                                                                             .l2 = "rnn.W_?.*=1e-3,linear.W=1e-4",
                                                                             .recurrent_decay = 1e-3});
    o.training.loss_scale = k ? 256 : 1;
    o.training.loss_scale_interval = k ? 5 : 0;
    if (k)
      o.update_steps = 3;
    else {
      o.steps_start = 3;
      o.steps_increment = 2;
    }
    const uint64_t cuts[] = {0, 3, 29, 61}, all = 70;
    struct record whole = {0};
    unroll_lm *lm = create(&o);
    train_to(lm, all, &whole);
    assert_ok(unroll_lm_save(lm, in_folder("whole"), &err));
    unroll_lm_destroy(lm);
    for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++) {
      struct record parts = {0};
      lm = create(&o);
      if (cuts[c] > 0)
        train_to(lm, cuts[c], &parts);
      assert_ok(unroll_lm_save(lm, in_folder("part"), &err));
      unroll_lm_destroy(lm);
      lm = load(in_folder("part"));
      assert_ok(unroll_lm_save(lm, in_folder("again"), &err));
      assert_same_files(in_folder("part"), in_folder("again"));
      const unroll_lm_options back = unroll_lm_describe(lm).options;
      assert_string_equal(back.training.l2, o.training.l2);
      assert_true(back.training.warmup == 7 && back.training.accumulate == 3 && back.update_steps == o.update_steps &&
                  back.steps_start == o.steps_start && back.training.recurrent_decay == 1e-3);
      assert_ok(unroll_lm_resume(lm, text, &err));
      train_to(lm, all, &parts);
      assert_same_losses(&whole, &parts, 0, all);
      assert_true(whole.validation[all - 1] == parts.validation[all - 1]);
      assert_ok(unroll_lm_save(lm, in_folder("parts"), &err));
      unroll_lm_destroy(lm);
      if (cuts[c] == 0)
        assert_same_files(in_folder("whole"), in_folder("parts"));
    }
  }
}

static void memory_runs_out(void **state) {
  (void)state;
  unroll_lm_options o = with(UNROLL_CELL_RNN, (unroll_training){.accumulate = 2,
                                                                .nonfinite = UNROLL_NONFINITE_SKIP,
                                                                .freeze = "rnn.b.*",
                                                                .l2 = "linear.W=0.1",
                                                                .recurrent_decay = 0.1});
  o.rnn.layers = 1;
  o.steps_start = o.steps_increment = 2;
  struct counting c = {0, 0, 0};
  const unroll_allocator allocator = counting_allocator(&c);
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  unroll_lm_destroy(lm);
  unroll_status status = UNROLL_E_MEMORY;
  for (long n = 1; status != UNROLL_OK; n++) {
    unroll_lm_score_info info;
    c = (struct counting){0, 0, n};
    lm = NULL;
    status = unroll_lm_load(&cpu, 1, in_folder("m"), &allocator, &lm, NULL);
    if (status == UNROLL_OK)
      status = unroll_lm_score(lm, text, &info, NULL);
    if (status == UNROLL_OK)
      status = unroll_lm_resume(lm, text, NULL);
    assert_true(status == UNROLL_OK || status == UNROLL_E_MEMORY);
    unroll_lm_destroy(lm);
    assert_int_equal(c.live, 0);
  }
  status = UNROLL_E_MEMORY;
  for (long n = 1; status != UNROLL_OK; n++) {
    c = (struct counting){0, 0, n};
    lm = NULL;
    status = unroll_lm_create(&cpu, 1, text, &o, &allocator, &lm, NULL);
    assert_true(status == UNROLL_OK || status == UNROLL_E_MEMORY);
    unroll_lm_destroy(lm);
    assert_int_equal(c.live, 0);
  }
}

static void options_out_of_range(void **state) {
  (void)state;
  const unroll_lm_options good = with(UNROLL_CELL_LSTM, (unroll_training){0});
  unroll_lm *lm = NULL;
#define REFUSED(change, words)                                                                     \
  do {                                                                                             \
    unroll_lm_options o = good;                                                                    \
    o.change;                                                                                      \
    assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_INVALID, (words)); \
    assert_null(lm);                                                                               \
  } while (0)
  REFUSED(training.accumulate = 4, "accumulate 4, it must divide the batch, 6");
  REFUSED(training.accumulate = 12, "accumulate 12, it must divide the batch, 6");
  REFUSED(training.accumulate = -1, "accumulate -1");
  REFUSED(training.warmup = -1, "warm-up -1, it must be from 0 to 2^31-1");
  REFUSED(training.nonfinite = 2, "nonfinite 2");
  REFUSED(training.recurrent_decay = 1, "recurrent decay 1, it must be at least 0 and below 1");
  REFUSED(training.recurrent_decay = (double)NAN, "recurrent decay nan");
  REFUSED(training.freeze = "rnn.W_y.*", "freeze: no parameter's name fits 'rnn.W_y.*'; the first ones are embedding");
  REFUSED(training.freeze = "*", "freeze: '*' leaves no parameter to train");
  REFUSED(training.freeze = "linear.b,", "freeze: an empty pattern");
  REFUSED(training.freeze = "linear.b=1", "freeze: 'linear.b=1', a pattern without a number");
  REFUSED(training.l2 = "linear.b", "l2: 'linear.b', PATTERN=NUMBER was expected");
  REFUSED(training.l2 = "linear.b=-1", "l2: 'linear.b=-1'");
  REFUSED(training.l2 = "linear.b=0x1", "l2: 'linear.b=0x1'");
  REFUSED(training.l2 = "linear.b=nan", "l2: 'linear.b=nan'");
  REFUSED(training.l2 = "linear.X=1", "l2: no parameter's name fits 'linear.X'");
  REFUSED(update_steps = 9, "update_steps 9, it must be from 1 to steps, 8, or 0");
  REFUSED(update_steps = -1, "update_steps -1");
  REFUSED(steps_start = 9, "steps_start 9, it must be from 1 to steps, 8, or 0");
  REFUSED(steps_increment = 1, "steps_increment 1 without steps_start");
  REFUSED(steps_start = 1, "steps_increment 0, it must be from 1 to steps, 8");
  unroll_lm_options o = good;
  o.steps_start = o.steps_increment = o.update_steps = 2;
  assert_error(unroll_lm_create(&cpu, 1, text, &o, NULL, &lm, &err), UNROLL_E_INVALID, "side by side");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(parts_are_the_whole_batch),
      cmocka_unit_test(rates_warm_up),
      cmocka_unit_test(what_is_not_finite_is_skipped),
      cmocka_unit_test(where_it_was_at_first),
      cmocka_unit_test(a_hundred_skipped_in_a_row_are_enough),
      cmocka_unit_test(patience_ends),
      cmocka_unit_test(frozen_parameters_keep_every_bit),
      cmocka_unit_test(parameters_at_a_report),
      cmocka_unit_test(penalties_and_decay),
      cmocka_unit_test(resumed_is_bit_equal),
      cmocka_unit_test(memory_runs_out),
      cmocka_unit_test(options_out_of_range),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
