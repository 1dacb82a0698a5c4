/* SPDX-License-Identifier: Apache-2.0 */
/*
 * States that are carried on, saved, rolled back, forked and begun anew, of every cell: a sequence cut up is the whole
 * one, and what a snapshot brings back goes on as if nothing had been in between.
 */
#include "devices.h"
#include "io_support.h"
#include "runs.h"
#include <math.h>
#include <pthread.h>
#include <unroll/io.h>
#include <unroll/nn.h>
#include <unroll/philox.h>
#include <unroll/snapshot.h>

enum { T = 9, B = 3, I = 3, H = 5, LAYERS = 2, ROW = B * H, STEP_X = B * I };

typedef struct net {
  const char *name;
  int32_t cell;
  bool options; /* zoneout, dropouts, layer norm: random numbers that hang on t0 */
} net;
static const net nets[] = {
    {"rnn", UNROLL_CELL_RNN, false},
    {"lstm", UNROLL_CELL_LSTM, false},
    {"gru", UNROLL_CELL_GRU, false},
    {"gru_after", UNROLL_CELL_GRU_AFTER, false},
    {"coupled_lstm", UNROLL_RNN_COUPLED_LSTM, false},
    {"min_gru", UNROLL_RNN_MIN_GRU, false},
    {"min_lstm", UNROLL_RNN_MIN_LSTM, false},
    {"lstm with options", UNROLL_CELL_LSTM, true},
    {"gru with options", UNROLL_CELL_GRU, true},
};
enum { N_NETS = sizeof nets / sizeof nets[0] };

static bool has_c(int32_t cell) { return cell == UNROLL_CELL_LSTM || cell == UNROLL_RNN_COUPLED_LSTM; }

/*
 * x [t,B,I], lengths [B] -> y; states h.0, h.1 and perhaps c.0, c.1 carried on; and one without a batch, that counts
 * the runs. most: of t.
 */
static unroll_graph *build(const net *n, int64_t most, int64_t batch) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const int64_t t = most > 1 ? unroll_graph_dim(g, "t", 1, most) : 1;
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){t, batch, I});
  unroll_rnn_options o = {.struct_size = sizeof o, .cell = n->cell, .layers = LAYERS, .hidden = H};
  o.lengths = unroll_input(g, "lengths", UNROLL_I32, 1, &batch);
  if (n->options) {
    o.input_dropout = o.dropout = 0.25;
    o.zoneout_h = 0.25;
    o.zoneout_c = has_c(n->cell) ? 0.25 : 0;
    o.layer_norm = 1;
  }
  unroll_tensor h0[LAYERS], c0[LAYERS], h[LAYERS], c[LAYERS];
  char name[8];
  for (int l = 0; l < LAYERS; l++) {
    snprintf(name, sizeof name, "h.%d", l);
    h0[l] = unroll_state(g, name, UNROLL_F32, 2, (int64_t[]){batch, H});
    snprintf(name, sizeof name, "c.%d", l);
    c0[l] = has_c(n->cell) ? unroll_state(g, name, UNROLL_F32, 2, (int64_t[]){batch, H}) : unroll_none();
  }
  const bool c_too = has_c(n->cell);
  const unroll_rnn_state initial = {h0, c_too ? c0 : NULL};
  unroll_rnn_state last = {h, c_too ? c : NULL};
  unroll_output(unroll_rnn(x, "rnn", &o, &initial, &last), "y");
  for (int l = 0; l < LAYERS; l++) {
    unroll_update(h0[l], h[l]);
    if (c_too)
      unroll_update(c0[l], c[l]);
  }
  const unroll_tensor runs = unroll_state(g, "runs", UNROLL_F32, 0, NULL);
  unroll_update(runs, unroll_binary(runs, unroll_constant(g, UNROLL_F32, 0, NULL, 1), UNROLL_ADD));
  return g;
}

/* From -0.7 to 0.7, another one for every seed. */
static float number(uint64_t seed, uint32_t i) {
  return (float)((double)unroll_philox_word(unroll_philox_site_key(seed, 0, 0), 0, 0, i) / 4294967296.0 * 1.4 - 0.7);
}

static void put_params(model *m) {
  unroll_error err = UNROLL_ERROR_INIT;
  for (uint32_t i = 0; i < unroll_graph_count(m->graph); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(m->graph, i));
    static float values[4 * H * H * 4];
    uint32_t n = 1;
    if (info.role != UNROLL_ROLE_PARAM)
      continue;
    for (int32_t a = 0; a < info.rank; a++)
      n *= (uint32_t)info.shape[a];
    for (uint32_t k = 0; k < n; k++)
      values[k] = number(1000 + i, k);
    assert_status(UNROLL_OK, unroll_binding_write(m->binding, info.name, values, n * sizeof *values, &err));
  }
}

static model make_model(const net *n, unroll_device *dev, int64_t most) {
  unroll_graph *g = build(n, most, B);
  model m = model_open(g, dev, true);
  put_params(&m);
  return m;
}
static void drop_model(model *m) {
  unroll_graph *g = m->graph;
  model_close(m);
  unroll_graph_destroy(g);
}

typedef struct sequence {
  float x[T * STEP_X], y[T * ROW];
  int32_t lengths[B];
} sequence;

static sequence make_sequence(uint64_t seed, const int32_t *lengths) {
  sequence s = {.y = {0}};
  for (uint32_t i = 0; i < T * STEP_X; i++)
    s.x[i] = number(seed, i);
  for (int b = 0; b < B; b++)
    s.lengths[b] = lengths ? lengths[b] : T;
  return s;
}

/* Steps [from, from + n) of the sequence in one run; options.t0 is its place. */
static void feed(model *m, const sequence *s, int from, int n) {
  unroll_error err = UNROLL_ERROR_INIT;
  int32_t left[B];
  for (int b = 0; b < B; b++)
    left[b] = s->lengths[b] < from ? 0 : s->lengths[b] - from < n ? s->lengths[b] - from : n;
  if (m->graph && unroll_tensor_describe(unroll_graph_find(m->graph, "x")).shape[0] > 1)
    model_set_dim(m, n);
  assert_status(UNROLL_OK, unroll_binding_write(m->binding, "x", s->x + from * STEP_X,
                                                (uint64_t)(n * STEP_X) * sizeof(float), &err));
  assert_status(UNROLL_OK, unroll_binding_write(m->binding, "lengths", left, sizeof left, &err));
  model_run(m);
  m->options.t0 += n;
}
static void step(model *m, sequence *s, int from, int n) {
  unroll_error err = UNROLL_ERROR_INIT;
  feed(m, s, from, n);
  assert_status(UNROLL_OK,
                unroll_binding_read(m->binding, "y", s->y + from * ROW, (uint64_t)(n * ROW) * sizeof(float), &err));
}

typedef struct states {
  float v[2 * LAYERS * ROW];
} states;
static states get_states(const model *m) {
  unroll_error err = UNROLL_ERROR_INIT;
  states s = {{0}};
  for (int i = 0; i < 2 * LAYERS; i++) {
    const char *names[] = {"h.0", "h.1", "c.0", "c.1"};
    if (unroll_graph_find(m->graph, names[i]).graph)
      assert_status(UNROLL_OK, unroll_binding_read(m->binding, names[i], s.v + i * ROW, ROW * sizeof(float), &err));
  }
  return s;
}
static float get_runs(const model *m) {
  unroll_error err = UNROLL_ERROR_INIT;
  float runs = -1;
  assert_status(UNROLL_OK, unroll_binding_read(m->binding, "runs", &runs, sizeof runs, &err));
  return runs;
}

/*
 * exact: on every device, since the same runs are made again. Else, runs that are cut in other ways: the reference's
 * sums do not hang on how many steps there are, others' do. There, what sums of at most 13 products of numbers below 1
 * may lose in f32, in values below 1: about an eps (1.2e-7) a sum and step, 9 steps of two layers, 18 of them.
 */
static void same_values(const char *what, unroll_device *dev, const float *got, const float *want, int n, bool exact) {
  if (exact || strcmp(unroll_device_id(dev), "cpu:0") == 0) {
    if (memcmp(got, want, (size_t)n * sizeof *got) != 0)
      for (int i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
          fail_msg("%s on %s: [%d] is %.9g, expected %.9g", what, unroll_device_id(dev), i, (double)got[i],
                   (double)want[i]);
    return;
  }
  for (int i = 0; i < n; i++)
    if (!(fabs((double)got[i] - (double)want[i]) <= 2.2e-6))
      fail_msg("%s on %s: [%d] is %.9g, expected %.9g", what, unroll_device_id(dev), i, (double)got[i],
               (double)want[i]);
}

static unroll_snapshot *snap(const model *m, const unroll_snapshot_options *o) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_snapshot *s = NULL;
  assert_status(UNROLL_OK, unroll_snapshot_create(m->exe, o, &s, &err));
  return s;
}
static void save(unroll_snapshot *s, model *m) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_snapshot_save(s, m->binding, &m->options, &err));
}
static void restore(unroll_snapshot *s, model *m) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_snapshot_restore(s, m->binding, &m->options, &err));
}
/* A binding of zeros, at the place 0. */
static void begin(model *m) {
  unroll_snapshot *s = snap(m, NULL);
  const uint64_t seed = m->options.seed;
  restore(s, m);
  m->options.seed = seed;
  unroll_snapshot_destroy(s);
}

/* ---- the law ---- */

static void cut_up_is_whole(void **state) {
  const int32_t ragged[B] = {T, 4, 7};
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (int k = 0; k < N_NETS; k++) {
      const net *n = &nets[k];
      model m = make_model(n, dev, T), one = make_model(n, dev, 1);
      m.options.seed = one.options.seed = 7;
      sequence whole = make_sequence(1, ragged), chunks = whole, steps = whole, single = whole;
      step(&m, &whole, 0, T);
      const states last = get_states(&m);
      begin(&m);
      const int sizes[] = {2, 4, 1, 2};
      for (int i = 0, t = 0; i < 4; t += sizes[i++])
        step(&m, &chunks, t, sizes[i]);
      states got = get_states(&m);
      same_values(n->name, dev, chunks.y, whole.y, T * ROW, false);
      same_values(n->name, dev, got.v, last.v, 2 * LAYERS * ROW, false);
      begin(&m);
      for (int t = 0; t < T; t++)
        step(&m, &steps, t, 1);
      got = get_states(&m);
      same_values(n->name, dev, steps.y, whole.y, T * ROW, false);
      same_values(n->name, dev, got.v, last.v, 2 * LAYERS * ROW, false);
      /* The graph of one step goes on from where the one of chunks was. */
      begin(&m);
      step(&m, &single, 0, 3);
      unroll_snapshot *s = snap(&m, NULL);
      save(s, &m);
      restore(s, &one);
      assert_int_equal(one.options.t0, 3);
      for (int t = 3; t < T; t++)
        step(&one, &single, t, 1);
      got = get_states(&one);
      same_values(n->name, dev, single.y, whole.y, T * ROW, false);
      same_values(n->name, dev, got.v, last.v, 2 * LAYERS * ROW, false);
      unroll_snapshot_destroy(s);
      drop_model(&one);
      drop_model(&m);
    }
}

/* ---- back, and on again ---- */

static void rolled_back_is_the_same(void **state) {
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (int k = 0; k < N_NETS; k++) {
      const net *n = &nets[k];
      model m = make_model(n, dev, T);
      m.options.seed = 3;
      m.options.update = 5;
      sequence first = make_sequence(1, NULL), guess = make_sequence(2, NULL), again = first;
      unroll_snapshot *s = snap(&m, NULL);
      step(&m, &first, 0, 4);
      save(s, &m);
      feed(&m, &first, 4, 2); /* what is not read is queued all the same */
      step(&m, &first, 6, 3);
      const states last = get_states(&m);
      for (int round = 0; round < 3; round++) {
        restore(s, &m);
        assert_true(m.options.t0 == 4 && m.options.seed == 3 && m.options.update == 5);
        assert_true(get_runs(&m) == 1);
        m.options.seed = 99;
        step(&m, &guess, 4, 1 + round);
        restore(s, &m);
        feed(&m, &again, 4, 2);
        step(&m, &again, 6, 3);
        const states got = get_states(&m);
        same_values(n->name, dev, again.y + 6 * ROW, first.y + 6 * ROW, 3 * ROW, true);
        same_values(n->name, dev, got.v, last.v, 2 * LAYERS * ROW, true);
        assert_true(get_runs(&m) == 3);
      }
      unroll_snapshot_destroy(s);
      drop_model(&m);
    }
}

/* ---- two ways from one place ---- */

static void forks_go_their_own_ways(void **state) {
  unroll_error err = UNROLL_ERROR_INIT;
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (int k = 0; k < N_NETS; k++) {
      const net *n = &nets[k];
      model m = make_model(n, dev, T), other = m;
      assert_status(UNROLL_OK, unroll_binding_create(m.exe, &other.binding, &err));
      put_params(&other);
      sequence a = make_sequence(1, NULL), b = make_sequence(2, NULL), want_a, want_b;
      memcpy(b.x, a.x, 4 * STEP_X * sizeof *a.x); /* they begin alike */
      want_a = a, want_b = b;
      step(&m, &want_a, 0, 4);
      step(&m, &want_a, 4, 5);
      const states last_a = get_states(&m);
      begin(&m);
      step(&m, &want_b, 0, 4);
      step(&m, &want_b, 4, 5);
      const states last_b = get_states(&m);
      begin(&m);
      unroll_snapshot *s = snap(&m, NULL), *copy = snap(&m, NULL);
      step(&m, &a, 0, 4);
      save(s, &m);
      feed(&m, &a, 4, 2);
      assert_status(UNROLL_OK, unroll_snapshot_copy(copy, s, &err));
      assert_status(UNROLL_OK, unroll_snapshot_clear(s, &err)); /* the copy is one */
      restore(copy, &other);
      assert_int_equal(other.options.t0, 4);
      feed(&other, &b, 4, 2);
      step(&m, &a, 6, 3);
      step(&other, &b, 6, 3);
      const states got_a = get_states(&m), got_b = get_states(&other);
      same_values(n->name, dev, a.y + 6 * ROW, want_a.y + 6 * ROW, 3 * ROW, false);
      same_values(n->name, dev, b.y + 6 * ROW, want_b.y + 6 * ROW, 3 * ROW, false);
      same_values(n->name, dev, got_a.v, last_a.v, 2 * LAYERS * ROW, false);
      same_values(n->name, dev, got_b.v, last_b.v, 2 * LAYERS * ROW, false);
      assert_true(memcmp(got_a.v, got_b.v, sizeof got_a.v) != 0);
      unroll_snapshot_destroy(copy);
      unroll_binding_destroy(other.binding); /* before what was used with it */
      restore(s, &m);
      const states zeros = get_states(&m), none = {{0}};
      same_values(n->name, dev, zeros.v, none.v, 2 * LAYERS * ROW, true);
      unroll_snapshot_destroy(s);
      drop_model(&m);
    }
}

typedef struct hand_over {
  model *m;
  unroll_snapshot *snapshot;
  sequence *s;
} hand_over;

static void *go_on_elsewhere(void *ctx) {
  const hand_over *o = ctx;
  restore(o->snapshot, o->m);
  for (int t = 4; t < T; t++)
    step(o->m, o->s, t, 1);
  return NULL;
}

/* After a sync the snapshot is nobody's: another thread goes on from it while this one does too. */
static void a_thread_takes_over(void **state) {
  unroll_error err = UNROLL_ERROR_INIT;
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    model m = make_model(&nets[1], dev, T), other = m;
    assert_status(UNROLL_OK, unroll_binding_create(m.exe, &other.binding, &err));
    put_params(&other);
    sequence a = make_sequence(1, NULL), b = a;
    unroll_snapshot *s = snap(&m, NULL);
    step(&m, &a, 0, 4);
    save(s, &m);
    assert_status(UNROLL_OK, unroll_snapshot_sync(s, &err));
    hand_over o = {&other, s, &b};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, go_on_elsewhere, &o), 0);
    for (int t = 4; t < T; t++)
      step(&m, &a, t, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    const states last = get_states(&m), got = get_states(&other);
    same_values("lstm", dev, b.y + 4 * ROW, a.y + 4 * ROW, (T - 4) * ROW, true);
    same_values("lstm", dev, got.v, last.v, 2 * LAYERS * ROW, true);
    unroll_snapshot_destroy(s);
    unroll_binding_destroy(other.binding);
    drop_model(&m);
  }
}

/* States of one graph that stand on two devices come back together. */
static void states_of_two_devices(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, NULL);
  unroll_device *products = runs_device(ctx, "patchwork", "take=matmul", NULL), *rest = runs_device(ctx, "cpu", NULL);
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const int64_t shape[] = {B, H}, square[] = {H, H};
  const unroll_tensor a = unroll_state(g, "a", UNROLL_F32, 2, shape), b = unroll_state(g, "b", UNROLL_F32, 2, shape);
  const unroll_tensor product = unroll_matmul(a, unroll_param(g, "W", UNROLL_F32, 2, square));
  unroll_update(a, unroll_unary(product, UNROLL_TANH));
  unroll_update(b, unroll_binary(b, product, UNROLL_ADD));
  unroll_executable *exe;
  unroll_binding *binding;
  assert_status(UNROLL_OK, unroll_compile(g, (unroll_device *[]){products, rest}, 2, NULL, &exe, &err));
  assert_status(UNROLL_OK, unroll_binding_create(exe, &binding, &err));
  assert_status(UNROLL_E_STATE, unroll_binding_share(binding, "a", binding, "b", &err));
  assert_non_null(strstr(err.message, "a stands on patchwork:0, b on cpu:0"));
  float W[H * H], x[2][ROW], got[2][ROW], zeros[ROW] = {0};
  for (uint32_t i = 0; i < H * H; i++)
    W[i] = number(1, i);
  for (uint32_t i = 0; i < ROW; i++)
    x[0][i] = number(2, i), x[1][i] = number(3, i);
  assert_status(UNROLL_OK, unroll_binding_write(binding, "W", W, sizeof W, &err));
  assert_status(UNROLL_OK, unroll_binding_write(binding, "a", x[0], sizeof x[0], &err));
  assert_status(UNROLL_OK, unroll_binding_write(binding, "b", x[1], sizeof x[1], &err));
  unroll_snapshot *s;
  assert_status(UNROLL_OK, unroll_snapshot_create(exe, NULL, &s, &err));
  assert_status(UNROLL_OK, unroll_snapshot_save(s, binding, NULL, &err));
  for (int i = 0; i < 2; i++) {
    const char *const name = i ? "b" : "a";
    assert_status(UNROLL_OK, unroll_run(binding, NULL, &err));
    assert_status(UNROLL_OK, unroll_binding_read(binding, name, got[i], sizeof got[i], &err));
    assert_memory_not_equal(got[i], x[i], sizeof got[i]);
    assert_status(UNROLL_OK, unroll_snapshot_restore(s, binding, NULL, &err));
    assert_status(UNROLL_OK, unroll_binding_read(binding, "a", got[0], sizeof got[0], &err));
    assert_status(UNROLL_OK, unroll_binding_read(binding, "b", got[1], sizeof got[1], &err));
    assert_memory_equal(got, x, sizeof x);
  }
  assert_status(UNROLL_OK, unroll_snapshot_sync(s, &err));
  assert_status(UNROLL_OK, unroll_snapshot_clear(s, &err));
  assert_status(UNROLL_OK, unroll_snapshot_restore_row(s, 2, binding, 0, &err));
  for (int i = 0; i < 2; i++) {
    assert_status(UNROLL_OK, unroll_binding_read(binding, i ? "b" : "a", got[i], sizeof got[i], &err));
    assert_memory_equal(got[i], zeros, H * sizeof(float));
    assert_memory_equal(got[i] + H, x[i] + H, (ROW - H) * sizeof(float));
  }
  unroll_snapshot_destroy(s);
  unroll_binding_destroy(binding);
  unroll_executable_destroy(exe);
  unroll_graph_destroy(g);
  unroll_device_close(products);
  unroll_device_close(rest);
  unroll_context_destroy(ctx);
}

/* ---- one row of the batch ---- */

static const char *const h_and_c[] = {"c.1", "h.0", "h.1", "c.0"};

/* Without "runs", which has no batch. */
static unroll_snapshot *snap_rows(const model *m, const net *n) {
  const char *const h_only[] = {"h.1", "h.0"};
  const bool c = has_c(n->cell);
  const unroll_snapshot_options o = {.struct_size = sizeof o, .names = c ? h_and_c : h_only, .n_names = c ? 4 : 2};
  return snap(m, &o);
}

static void a_row_begins_anew(void **state) {
  unroll_error err = UNROLL_ERROR_INIT;
  enum { ANEW = 1 };
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (int k = 0; k < N_NETS; k++) {
      const net *n = &nets[k];
      if (n->options) /* the row's random numbers are those of its new place */
        continue;
      model m = make_model(n, dev, T);
      sequence s = make_sequence(1, NULL), want = s, fresh = s;
      step(&m, &want, 0, 4);
      step(&m, &want, 4, 5);
      begin(&m);
      for (int t = 0; t < 5; t++)
        memcpy(fresh.x + t * STEP_X, s.x + (t + 4) * STEP_X, STEP_X * sizeof *s.x);
      step(&m, &fresh, 0, 5);
      begin(&m);
      unroll_snapshot *zeros = snap_rows(&m, n);
      step(&m, &s, 0, 4);
      assert_status(UNROLL_OK, unroll_snapshot_restore_row(zeros, 0, m.binding, ANEW, &err));
      assert_true(get_runs(&m) == 1);
      step(&m, &s, 4, 5);
      for (int t = 4; t < T; t++)
        for (int b = 0; b < B; b++) {
          const float *from = b == ANEW ? fresh.y + (t - 4) * ROW : want.y + t * ROW;
          same_values(n->name, dev, s.y + t * ROW + b * H, from + b * H, H, true);
        }
      assert_true(memcmp(s.y + 4 * ROW + ANEW * H, want.y + 4 * ROW + ANEW * H, H * sizeof *s.y) != 0);
      /* A fork within the batch: row 2 becomes row 0, through row 1 of the snapshot. */
      const states before = get_states(&m);
      assert_status(UNROLL_OK, unroll_snapshot_save_row(zeros, 1, m.binding, 2, &err));
      assert_status(UNROLL_OK, unroll_snapshot_restore_row(zeros, 1, m.binding, 0, &err));
      const states after = get_states(&m);
      for (int i = 0; i < 2 * LAYERS; i++)
        for (int b = 0; b < B; b++)
          same_values(n->name, dev, after.v + i * ROW + b * H, before.v + i * ROW + (b == 0 ? 2 : b) * H, H, true);
      unroll_snapshot_destroy(zeros);
      drop_model(&m);
    }
}

/* A state [2,B,H]: the batch on axis 1. */
static void rows_of_another_axis(void **state) {
  unroll_error err = UNROLL_ERROR_INIT;
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    unroll_graph *g;
    assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
    const unroll_tensor z = unroll_state(g, "z", UNROLL_F32, 3, (int64_t[]){2, B, H});
    unroll_output(unroll_unary(z, UNROLL_TANH), "y");
    model m = model_open(g, dev, true);
    float values[2 * ROW], got[2 * ROW];
    for (uint32_t i = 0; i < 2 * ROW; i++)
      values[i] = number(4, i);
    assert_status(UNROLL_OK, unroll_binding_write(m.binding, "z", values, sizeof values, &err));
    const char *names[] = {"z"};
    const int32_t axes[] = {1};
    const unroll_snapshot_options o = {.struct_size = sizeof o, .names = names, .n_names = 1, .row_axes = axes};
    unroll_snapshot *s = snap(&m, &o);
    assert_status(UNROLL_OK, unroll_snapshot_save_row(s, 0, m.binding, 2, &err));
    assert_status(UNROLL_OK, unroll_snapshot_restore_row(s, 0, m.binding, 1, &err));
    assert_status(UNROLL_OK, unroll_binding_read(m.binding, "z", got, sizeof got, &err));
    for (int l = 0; l < 2; l++)
      for (int b = 0; b < B; b++)
        same_values("z", dev, got + l * ROW + b * H, values + l * ROW + (b == 1 ? 2 : b) * H, H, true);
    unroll_snapshot_destroy(s);
    drop_model(&m);
  }
}

/* ---- parameters: packed copies of them are thrown away ---- */

static void parameters_come_back(void **state) {
  unroll_error err = UNROLL_ERROR_INIT;
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32) {
    model m = make_model(&nets[1], dev, T);
    const unroll_snapshot_options o = {.struct_size = sizeof o,
                                       .what = UNROLL_SNAPSHOT_PARAMS | UNROLL_SNAPSHOT_SEQUENCE};
    unroll_snapshot *s = snap(&m, &o);
    assert_int_equal(unroll_snapshot_count(s), 6 + 5); /* W_x, W_h, b of two layers; h, c of two, runs */
    sequence first = make_sequence(1, NULL), other = first, again = first;
    save(s, &m);
    step(&m, &first, 0, T);
    float w[4 * H * H];
    for (uint32_t i = 0; i < 4 * H * H; i++)
      w[i] = number(77, i);
    begin(&m);
    assert_status(UNROLL_OK, unroll_binding_write(m.binding, "rnn.W_h.0.0", w, sizeof w, &err));
    step(&m, &other, 0, T);
    assert_true(memcmp(other.y, first.y, sizeof first.y) != 0);
    restore(s, &m);
    step(&m, &again, 0, T);
    same_values("lstm", dev, again.y, first.y, T * ROW, true);
    unroll_snapshot_destroy(s);
    drop_model(&m);
  }
}

/* ---- files ---- */

static void a_file_brings_it_back(void **state) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(make_folder(NULL), 0);
  const char *path = in_folder("s.safetensors");
  FOR_EACH_DEVICE(dev, *state, UNROLL_F32)
    for (int k = 0; k < N_NETS; k++) {
      const net *n = &nets[k];
      model m = make_model(n, dev, T), later = make_model(n, dev, T);
      m.options.seed = UINT64_MAX;
      m.options.update = 5;
      m.options.row0 = INT64_MIN; /* any number goes into a file and comes out of it */
      sequence want = make_sequence(1, NULL), got = want;
      unroll_snapshot *s = snap(&m, NULL), *read = snap(&later, NULL);
      step(&m, &want, 0, 4);
      save(s, &m);
      assert_status(UNROLL_OK, unroll_snapshot_store(s, path, &err));
      assert_status(UNROLL_OK, unroll_snapshot_load(read, path, &err));
      restore(read, &later);
      assert_true(later.options.seed == UINT64_MAX && later.options.update == 5 && later.options.t0 == 4 &&
                  later.options.row0 == INT64_MIN);
      m.options.row0 = later.options.row0 = 0;
      step(&m, &want, 4, 5);
      step(&later, &got, 4, 5);
      same_values(n->name, dev, got.y + 4 * ROW, want.y + 4 * ROW, 5 * ROW, true);
      float runs = 0;
      assert_status(UNROLL_OK, unroll_snapshot_read(read, "runs", &runs, sizeof runs, &err));
      assert_true(runs == 1);
      unroll_snapshot_destroy(s);
      unroll_snapshot_destroy(read);
      drop_model(&later);
      drop_model(&m);
    }
  assert_int_equal(remove_folder(NULL), 0);
}

static void wrong_files(void **state) {
  assert_int_equal(make_folder(state), 0);
  const char *path = in_folder("s.safetensors"), *bad = in_folder("bad.safetensors");
  unroll_device *dev = devices_next("cpu", UNROLL_F32, NULL);
  model lstm = make_model(&nets[1], dev, T), gru = make_model(&nets[2], dev, T);
  unroll_graph *wide_graph = build(&nets[1], T, B + 1);
  model wide = model_open(wide_graph, dev, true);
  unroll_snapshot *a = snap(&lstm, NULL), *b = snap(&gru, NULL), *c = snap(&wide, NULL);
  const float seven = 7;
  assert_ok(unroll_snapshot_write(b, "runs", &seven, sizeof seven, &err));
  assert_ok(unroll_snapshot_store(a, path, &err));
  assert_error(unroll_snapshot_load(b, path, &err), UNROLL_E_FORMAT, "tensor c.0 is none that the snapshot keeps");
  assert_error(unroll_snapshot_load(c, path, &err), UNROLL_E_FORMAT,
               "tensor h.0 is f32 [3,5], the snapshot keeps f32 [4,5]");
  float runs = 0;
  assert_ok(unroll_snapshot_read(b, "runs", &runs, sizeof runs, &err)); /* nothing has changed */
  assert_true(runs == 7);
  assert_ok(unroll_snapshot_store(b, path, &err));
  assert_error(unroll_snapshot_load(a, path, &err), UNROLL_E_FORMAT, "tensor c.0 is missing");
  assert_error(unroll_snapshot_load(a, in_folder("nowhere"), &err), UNROLL_E_IO, "nowhere");
  assert_error(unroll_snapshot_store(a, in_folder("no/where"), &err), UNROLL_E_IO, "no/where");
  size_t size;
  char *data = get_file(path, &size);
  data[size - 1] ^= 1;
  put_file(bad, data, size);
  assert_error(unroll_snapshot_load(b, bad, &err), UNROLL_E_FORMAT, "bad.safetensors: ");
  free(data);
  /* Files that are no snapshots, or whose place is none. */
  const struct {
    const char *key, *value, *words;
  } marks[] = {{NULL, NULL, "no snapshot"},
               {"unroll.snapshot", "2", "revision 2, expected 1"},
               {"unroll.snapshot.seed", "-1", "unroll.snapshot.seed is -1"},
               {"unroll.snapshot.update", "18446744073709551616", "a whole number"},
               {"unroll.snapshot.t0", "9223372036854775808", "a whole number"},
               {"unroll.snapshot.row0", "3x", "unroll.snapshot.row0 is 3x"},
               {"unroll.snapshot.row0", "", "a whole number"}};
  for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
    unroll_safetensors_writer *w;
    assert_ok(unroll_safetensors_writer_create(bad, NULL, &w, &err));
    const char *keys[] = {"unroll.snapshot", "unroll.snapshot.seed", "unroll.snapshot.update", "unroll.snapshot.t0",
                          "unroll.snapshot.row0"};
    for (int k = 0; k < 5 && marks[i].key; k++)
      assert_ok(unroll_safetensors_writer_metadata(w, keys[k], k ? "0" : "1", &err));
    if (marks[i].key)
      assert_ok(unroll_safetensors_writer_metadata(w, marks[i].key, marks[i].value, &err));
    assert_ok(unroll_safetensors_writer_commit(w, &err));
    unroll_safetensors_writer_destroy(w);
    assert_error(unroll_snapshot_load(b, bad, &err), UNROLL_E_FORMAT, marks[i].words);
  }
  unroll_snapshot_destroy(a);
  unroll_snapshot_destroy(b);
  unroll_snapshot_destroy(c);
  drop_model(&lstm);
  drop_model(&gru);
  drop_model(&wide);
  assert_int_equal(remove_folder(state), 0);
}

/* ---- what is chosen, and wrong arguments ---- */

/* A parameter with two moments, and a state. */
static unroll_graph *build_training(void) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  const int64_t shape[] = {B, H};
  const unroll_tensor w = unroll_param(g, "w", UNROLL_F32, 2, shape), h = unroll_state(g, "h", UNROLL_F32, 2, shape);
  const unroll_tensor lr = unroll_input(g, "lr", UNROLL_F32, 0, NULL), n = unroll_input(g, "step", UNROLL_I32, 0, NULL);
  const unroll_optimizer_attr adam = {.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
  unroll_update(h, unroll_output(unroll_binary(w, h, UNROLL_ADD), "y"));
  unroll_optimize(w, unroll_unary(w, UNROLL_TANH), lr, n, unroll_none(), &adam);
  return g;
}

static void what_is_kept(void **state) {
  (void)state;
  unroll_graph *g = build_training();
  model m = model_open(g, devices_next("cpu", UNROLL_F32, NULL), true);
  const struct {
    uint32_t what, n;
    const char *names[4];
  } sets[] = {
      {0, 1, {"h"}},
      {UNROLL_SNAPSHOT_SEQUENCE, 1, {"h"}},
      {UNROLL_SNAPSHOT_OPTIMIZER, 2, {"w.s1", "w.s2"}},
      {UNROLL_SNAPSHOT_PARAMS, 1, {"w"}},
      {UNROLL_SNAPSHOT_PARAMS | UNROLL_SNAPSHOT_OPTIMIZER | UNROLL_SNAPSHOT_SEQUENCE, 4, {"w", "h", "w.s1", "w.s2"}}};
  for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
    const unroll_snapshot_options o = {.struct_size = sizeof o, .what = sets[i].what};
    unroll_snapshot *s = snap(&m, &o);
    assert_int_equal(unroll_snapshot_count(s), sets[i].n);
    for (uint32_t k = 0; k < sets[i].n; k++)
      assert_string_equal(unroll_snapshot_describe(s, k).name, sets[i].names[k]);
    assert_int_equal(unroll_snapshot_describe(s, sets[i].n).rank, -1);
    unroll_snapshot_destroy(s);
  }
  unroll_snapshot_destroy(NULL);
  drop_model(&m);
}

static void create_refuses(model *m, unroll_snapshot_options o, unroll_status status, const char *words) {
  unroll_snapshot *s = (unroll_snapshot *)m;
  o.struct_size = o.struct_size ? o.struct_size : (uint32_t)sizeof o;
  assert_error(unroll_snapshot_create(m->exe, &o, &s, &err), status, words);
  assert_null(s);
}

#define NAMES(...) \
  .names = (const char *[]){__VA_ARGS__}, .n_names = sizeof(const char *[]){__VA_ARGS__} / sizeof(char *)

static void wrong_arguments(void **state) {
  (void)state;
  unroll_device *dev = devices_next("cpu", UNROLL_F32, NULL);
  unroll_graph *g = build_training();
  model m = model_open(g, dev, true), lstm = make_model(&nets[1], dev, T);
  create_refuses(&m, (unroll_snapshot_options){.struct_size = 8}, UNROLL_E_INVALID, "struct_size is 8");
  create_refuses(&m, (unroll_snapshot_options){.what = 8}, UNROLL_E_INVALID, "what is 8");
  create_refuses(&m, (unroll_snapshot_options){.n_names = 1}, UNROLL_E_INVALID, "names is NULL");
  create_refuses(&m, (unroll_snapshot_options){NAMES("h", NULL)}, UNROLL_E_INVALID, "names[1] is NULL");
  create_refuses(&m, (unroll_snapshot_options){NAMES("c")}, UNROLL_E_NOT_FOUND, "no state or parameter is called c");
  create_refuses(&m, (unroll_snapshot_options){NAMES("lr")}, UNROLL_E_INVALID, "lr is an input or an output");
  create_refuses(&m, (unroll_snapshot_options){NAMES("y")}, UNROLL_E_INVALID, "y is an input or an output");
  create_refuses(&m, (unroll_snapshot_options){NAMES("h", "w", "h")}, UNROLL_E_INVALID, "h is named twice");
  create_refuses(&m, (unroll_snapshot_options){NAMES("h"), .row_axes = (int32_t[]){2}}, UNROLL_E_RANGE,
                 "h f32 [3,5] has no axis 2");
  create_refuses(&m, (unroll_snapshot_options){NAMES("h"), .row_axes = (int32_t[]){-1}}, UNROLL_E_RANGE, "axis -1");
  create_refuses(&lstm, (unroll_snapshot_options){.what = UNROLL_SNAPSHOT_OPTIMIZER}, UNROLL_E_NOT_FOUND,
                 "none of the");

  unroll_snapshot *s = snap(&m, NULL), *l = snap(&lstm, NULL);
  assert_error(unroll_snapshot_create(NULL, NULL, &s, &err), UNROLL_E_INVALID, "an argument is NULL");
  assert_error(unroll_snapshot_save(NULL, m.binding, NULL, &err), UNROLL_E_INVALID, "unroll_snapshot_save");
  assert_error(unroll_snapshot_restore(s, NULL, NULL, &err), UNROLL_E_INVALID, "unroll_snapshot_restore");
  assert_error(unroll_snapshot_save(s, m.binding, &(unroll_run_options){.struct_size = 8}, &err), UNROLL_E_INVALID,
               "struct_size is 8");
  assert_error(unroll_snapshot_save(s, lstm.binding, NULL, &err), UNROLL_E_NOT_FOUND, "the snapshot has h: no state");
  assert_error(unroll_snapshot_copy(l, s, &err), UNROLL_E_NOT_FOUND, "does not keep h.0");
  assert_error(unroll_snapshot_copy(s, NULL, &err), UNROLL_E_INVALID, "an argument is NULL");
  assert_ok(unroll_snapshot_copy(s, s, &err));
  assert_error(unroll_snapshot_clear(NULL, &err), UNROLL_E_INVALID, "the snapshot is NULL");
  assert_error(unroll_snapshot_sync(NULL, &err), UNROLL_E_INVALID, "the snapshot is NULL");
  assert_error(unroll_snapshot_restore_row(s, 3, m.binding, 0, &err), UNROLL_E_RANGE,
               "row 3 of h f32 [3,5], expected 0 to 2");
  assert_error(unroll_snapshot_restore_row(s, 0, m.binding, -1, &err), UNROLL_E_RANGE, "row -1 of h");
  assert_error(unroll_snapshot_save_row(l, 0, lstm.binding, 0, &err), UNROLL_E_SHAPE, "runs f32 [] has no axis 0");
  float x[ROW];
  assert_error(unroll_snapshot_read(s, "w", x, sizeof x, &err), UNROLL_E_NOT_FOUND, "nothing called w");
  assert_error(unroll_snapshot_write(s, "h", x, 4, &err), UNROLL_E_SHAPE, "h f32 [3,5]: 4 bytes, expected 60");
  assert_error(unroll_snapshot_write(s, "h", NULL, sizeof x, &err), UNROLL_E_INVALID, "data is NULL");
  assert_error(unroll_snapshot_store(s, NULL, &err), UNROLL_E_INVALID, "an argument is NULL");
  assert_error(unroll_snapshot_load(NULL, "x", &err), UNROLL_E_INVALID, "an argument is NULL");
  unroll_snapshot_destroy(s);
  unroll_snapshot_destroy(l);

  /* Other shapes, and other devices. */
  unroll_graph *wide_graph = build(&nets[1], T, B + 1);
  model wide = model_open(wide_graph, dev, true);
  s = snap(&wide, NULL);
  assert_error(unroll_snapshot_restore(s, lstm.binding, NULL, &err), UNROLL_E_SHAPE,
               "the snapshot has h.0 f32 [4,5], the other side h.0 f32 [3,5]");
  unroll_snapshot_destroy(s);
  drop_model(&wide);
  unroll_context *ctx;
  unroll_device *second;
  assert_ok(unroll_context_create(NULL, &ctx, &err));
  assert_ok(unroll_device_open(ctx, "cpu", NULL, 0, &second, &err));
  model there = make_model(&nets[1], second, T);
  s = snap(&there, NULL);
  assert_error(unroll_snapshot_restore(s, lstm.binding, NULL, &err), UNROLL_E_STATE, "stands on cpu:0");
  unroll_snapshot_destroy(s);
  drop_model(&there);
  drop_model(&lstm);
  drop_model(&m);
  unroll_device_close(second);
  unroll_context_destroy(ctx);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      DEVICE_TESTS(cut_up_is_whole),           DEVICE_TESTS(rolled_back_is_the_same),
      DEVICE_TESTS(forks_go_their_own_ways),   DEVICE_TESTS(a_thread_takes_over),
      cmocka_unit_test(states_of_two_devices), DEVICE_TESTS(a_row_begins_anew),
      DEVICE_TESTS(rows_of_another_axis),      DEVICE_TESTS(parameters_come_back),
      DEVICE_TESTS(a_file_brings_it_back),     cmocka_unit_test(wrong_files),
      cmocka_unit_test(what_is_kept),          cmocka_unit_test(wrong_arguments),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
