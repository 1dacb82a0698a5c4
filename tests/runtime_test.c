/* SPDX-License-Identifier: Apache-2.0 */
/* Compile, bind, run: what is right, what is refused, sizes known only in a run, state between runs, shared memory,
 * threads. */
#include "runs.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static run_log seen;

typedef struct bound {
  unroll_context *ctx;
  unroll_device *cpu;
  unroll_graph *g;
  unroll_executable *e;
  unroll_binding *b;
} bound;

static unroll_graph *new_graph(void) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g;
  assert_status(UNROLL_OK, unroll_graph_create(NULL, &g, &err));
  return g;
}

static bound bind_graph(unroll_graph *g) {
  unroll_error err = UNROLL_ERROR_INIT;
  bound x = {.ctx = runs_context(NULL, &seen), .g = g};
  x.cpu = runs_device(x.ctx, "cpu", NULL);
  assert_status(UNROLL_OK, unroll_compile(g, &x.cpu, 1, NULL, &x.e, &err));
  assert_status(UNROLL_OK, unroll_binding_create(x.e, &x.b, &err));
  return x;
}

static void unbind(bound *x) {
  unroll_binding_destroy(x->b);
  unroll_executable_destroy(x->e);
  unroll_device_close(x->cpu);
  unroll_context_destroy(x->ctx);
  unroll_graph_destroy(x->g);
}

static void put(unroll_binding *b, const char *name, const void *data, uint64_t bytes) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_binding_write(b, name, data, bytes, &err));
}
static void get(unroll_binding *b, const char *name, void *data, uint64_t bytes) {
  unroll_error err = UNROLL_ERROR_INIT;
  memset(data, 0xFF, bytes);
  assert_status(UNROLL_OK, unroll_binding_read(b, name, data, bytes, &err));
}
static double get_one(unroll_binding *b, const char *name) {
  double x;
  get(b, name, &x, sizeof x);
  return x;
}
static void run(unroll_binding *b) {
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_run(b, NULL, &err));
}

/* ---- basics ---- */

static void product_is_computed(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = new_graph();
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, 2, (int64_t[]){2, 3});
  const unroll_tensor w = unroll_param(g, "w", UNROLL_F64, 2, (int64_t[]){3, 2});
  unroll_output(unroll_matmul(x, w), "y");
  bound m = bind_graph(g);
  assert_string_equal(unroll_device_id(m.cpu), "cpu:0");
  assert_int_equal(unroll_device_describe(m.cpu)->kind, UNROLL_KIND_CPU);
  assert_int_equal(unroll_executable_describe(m.e).n_groups, 1);
  assert_int_equal(unroll_executable_describe(m.e).n_fallbacks, 0);
  assert_int_equal(unroll_executable_describe(m.e).n_crossings, 0);
  const double xs[6] = {1, 2, 3, 4, 5, 6}, ws[6] = {1, -1, 2, 0, 0.5, 3};
  double y[4];
  run(m.b); /* parameters and inputs start as zeros */
  get(m.b, "y", y, sizeof y);
  for (int i = 0; i < 4; i++)
    assert_true(y[i] == 0);
  put(m.b, "x", xs, sizeof xs);
  put(m.b, "w", ws, sizeof ws);
  run(m.b);
  assert_status(UNROLL_OK, unroll_binding_sync(m.b, &err));
  get(m.b, "y", y, sizeof y);
  assert_true(y[0] == 6.5 && y[1] == 8 && y[2] == 17 && y[3] == 14);
  assert_status(UNROLL_OK, unroll_binding_clear(m.b, "w", &err));
  run(m.b);
  get(m.b, "y", y, sizeof y);
  for (int i = 0; i < 4; i++)
    assert_true(y[i] == 0);

  unroll_graph_destroy(m.g); /* not needed after compiling */
  m.g = NULL;
  unroll_binding *second;
  assert_status(UNROLL_OK, unroll_binding_create(m.e, &second, &err));
  put(second, "w", ws, sizeof ws); /* its own */
  double w_now[6];
  get(m.b, "w", w_now, sizeof w_now);
  assert_true(w_now[0] == 0);
  unroll_binding_destroy(second);
  unbind(&m);
}

static void misuse_is_refused(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = new_graph();
  const int64_t T = unroll_graph_dim(g, "T", 2, 4);
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, 2, (int64_t[]){T, 3});
  const unroll_tensor w = unroll_param(g, "w", UNROLL_F64, 1, (int64_t[]){3});
  unroll_output(unroll_mul(x, w), "y");
  bound m = bind_graph(g);
  double data[12] = {0};

  assert_status(UNROLL_E_NOT_FOUND, unroll_binding_write(m.b, "nobody", data, 8, &err));
  assert_non_null(strstr(err.message, "nobody"));
  assert_status(UNROLL_E_NOT_FOUND, unroll_binding_read(m.b, "", data, 8, &err));
  assert_status(UNROLL_E_NOT_FOUND, unroll_binding_clear(m.b, "nobody", &err));
  assert_status(UNROLL_E_SHAPE, unroll_binding_write(m.b, "w", data, 16, &err));
  assert_non_null(strstr(err.message, "w"));
  assert_non_null(strstr(err.message, "16"));
  assert_non_null(strstr(err.message, "24"));
  const uint64_t wrong[] = {0, 8, 25, 23, 100, 24 * 5, UINT64_MAX};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    assert_status(UNROLL_E_SHAPE, unroll_binding_write(m.b, "x", data, wrong[i], &err));
  for (uint64_t n = 1; n <= 4; n++)
    put(m.b, "x", data, 24 * n);
  assert_status(UNROLL_E_SHAPE, unroll_binding_read(m.b, "y", data, 0, &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_write(m.b, "w", NULL, 24, &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_read(m.b, "w", NULL, 24, &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_write(m.b, NULL, data, 24, &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_write(NULL, "w", data, 24, &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_read(NULL, "w", data, 24, &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_clear(NULL, "w", &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_share(m.b, "w", NULL, "w", &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_share(NULL, "w", m.b, "w", &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_sync(NULL, &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_sync(NULL, NULL));
  assert_status(UNROLL_E_INVALID, unroll_run(NULL, NULL, &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_create(NULL, &m.b, &err));
  assert_status(UNROLL_E_INVALID, unroll_binding_create(m.e, NULL, &err));

  unroll_run_options o = {.struct_size = sizeof o, .n_dims = 1, .dims = (int64_t[]){1}};
  assert_status(UNROLL_E_RANGE, unroll_run(m.b, &o, &err));
  assert_non_null(strstr(err.message, "T is 1"));
  assert_non_null(strstr(err.message, "2 to 4"));
  o.dims = (int64_t[]){5};
  assert_status(UNROLL_E_RANGE, unroll_run(m.b, &o, &err));
  o.dims = (int64_t[]){INT64_MIN};
  assert_status(UNROLL_E_RANGE, unroll_run(m.b, &o, &err));
  o.dims = (int64_t[]){3};
  assert_status(UNROLL_OK, unroll_run(m.b, &o, &err));
  o.dims = NULL;
  assert_status(UNROLL_E_INVALID, unroll_run(m.b, &o, &err));
  o.dims = (int64_t[]){3, 3};
  o.n_dims = 2;
  assert_status(UNROLL_E_INVALID, unroll_run(m.b, &o, &err));
  o.struct_size = 8;
  assert_status(UNROLL_E_INVALID, unroll_run(m.b, &o, &err));
  assert_non_null(strstr(err.message, "struct_size is 8"));
  o = (unroll_run_options){.struct_size = sizeof o};
  assert_status(UNROLL_OK, unroll_run(m.b, &o, &err));

  unroll_executable *e;
  const unroll_compile_options few = {.struct_size = 8};
  assert_status(UNROLL_E_INVALID, unroll_compile(g, &m.cpu, 1, &few, &e, &err));
  assert_non_null(strstr(err.message, "struct_size is 8"));
  assert_status(UNROLL_E_INVALID, unroll_compile(NULL, &m.cpu, 1, NULL, &e, &err));
  assert_status(UNROLL_E_INVALID, unroll_compile(g, NULL, 1, NULL, &e, &err));
  assert_status(UNROLL_E_INVALID, unroll_compile(g, &m.cpu, 0, NULL, &e, &err));
  assert_status(UNROLL_E_INVALID, unroll_compile(g, &m.cpu, 32, NULL, &e, &err));
  assert_status(UNROLL_E_INVALID, unroll_compile(g, &m.cpu, 1, NULL, NULL, &err));
  assert_status(UNROLL_E_INVALID, unroll_compile(g, (unroll_device *[]){NULL}, 1, NULL, &e, &err));
  assert_status(UNROLL_E_INVALID, unroll_compile(g, (unroll_device *[]){m.cpu, NULL}, 2, NULL, &e, &err));
  assert_non_null(strstr(err.message, "device 1 of 2"));

  unroll_context *other = runs_context(NULL, NULL);
  unroll_device *theirs = runs_device(other, "patchwork", NULL);
  assert_status(UNROLL_E_INVALID, unroll_compile(g, (unroll_device *[]){m.cpu, theirs}, 2, NULL, &e, &err));
  assert_non_null(strstr(err.message, "patchwork:0"));
  assert_null(e);
  unroll_device_close(theirs);
  unroll_context_destroy(other);

  unroll_graph *wrong_graph = new_graph();
  const unroll_tensor a = unroll_input(wrong_graph, "a", UNROLL_F32, 2, (int64_t[]){2, 3});
  unroll_output(unroll_matmul(a, a), "y");
  assert_status(UNROLL_E_SHAPE, unroll_compile(wrong_graph, &m.cpu, 1, NULL, &e, &err));
  assert_non_null(strstr(err.message, "matmul"));
  assert_status(UNROLL_E_SHAPE, unroll_compile(wrong_graph, &m.cpu, 1, NULL, &e, NULL));
  unroll_graph_destroy(wrong_graph);

  /* Nothing of that left a trace. */
  const double xs[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, ws[3] = {1, 2, 3};
  put(m.b, "x", xs, sizeof xs);
  put(m.b, "w", ws, sizeof ws);
  run(m.b);
  get(m.b, "y", data, sizeof data);
  assert_true(data[0] == 1 && data[11] == 36);
  unroll_binding_destroy(NULL);
  unroll_executable_destroy(NULL);
  unroll_device_close(NULL);
  unroll_context_destroy(NULL);
  unbind(&m);
}

static void devices_are_named(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = runs_context(NULL, &seen);
  unroll_device *d;
  assert_status(UNROLL_E_NOT_FOUND, unroll_device_open(ctx, "abacus", NULL, 0, &d, &err));
  assert_null(d);
  assert_non_null(strstr(err.message, "abacus"));
  assert_non_null(strstr(err.message, "cpu:0"));
  assert_non_null(strstr(err.message, "patchwork:small"));
  assert_status(UNROLL_E_NOT_FOUND, unroll_device_open(ctx, "cpu:7", NULL, 0, &d, &err));
  assert_non_null(strstr(err.message, "cpu:7"));
  assert_status(UNROLL_E_NOT_FOUND, unroll_device_open(ctx, "", NULL, 0, &d, &err));
  const unroll_option none = {"flavour", "sweet"};
  assert_status(UNROLL_E_UNSUPPORTED, unroll_device_open(ctx, "cpu", &none, 1, &d, &err));
  assert_non_null(strstr(err.message, "flavour"));
  assert_status(UNROLL_E_INVALID, unroll_device_open(NULL, "cpu", NULL, 0, &d, &err));
  assert_status(UNROLL_E_INVALID, unroll_device_open(ctx, NULL, NULL, 0, &d, &err));
  assert_status(UNROLL_E_INVALID, unroll_device_open(ctx, "cpu", NULL, 0, NULL, &err));
  unroll_plugin_list *list;
  assert_status(UNROLL_E_INVALID, unroll_context_list(NULL, &list, &err));
  assert_status(UNROLL_E_INVALID, unroll_context_list(ctx, NULL, &err));
  assert_status(UNROLL_OK, unroll_device_open(ctx, "patchwork:small", NULL, 0, &d, &err));
  assert_string_equal(unroll_device_id(d), "patchwork:small");
  unroll_device_close(d);
  unroll_context_destroy(ctx);

  const unroll_context_options few = {.struct_size = 8};
  assert_status(UNROLL_E_INVALID, unroll_context_create(&few, &ctx, &err));
  assert_null(ctx);
  assert_status(UNROLL_E_INVALID, unroll_context_create(NULL, NULL, &err));
}

/* ---- sizes known only in a run ---- */

static uint64_t prefix_bytes(const struct result *r, int64_t t, int64_t T) {
  const bool sequence = strcmp(r->name, "y") == 0;
  return sequence ? r->bytes / (uint64_t)T * (uint64_t)t : r->bytes;
}

/* Every T from 1 on: the plan for T_max gives what the plan for T gives. */
static void every_number_of_steps(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  enum { MAX = 6 };
  for (int kind = 0; kind < 6; kind++) {
    training w = {.T = MAX, .B = 3, .I = 4, .H = 5, .V = 7, .dtype = UNROLL_F64, .layers = 2, .lengths = kind & 1};
    w.cell = (int32_t[]){UNROLL_CELL_RNN,       UNROLL_CELL_LSTM, UNROLL_CELL_GRU,
                         UNROLL_CELL_GRU_AFTER, UNROLL_CELL_LSTM, UNROLL_CELL_GRU}[kind];
    w.direction = kind >= 2 && kind < 5 ? UNROLL_REVERSE : UNROLL_FORWARD;
    w.with_state = true;
    w.runtime_T = true;
    bound m = bind_graph(runs_training(&w));
    for (int64_t t = MAX; t >= 1; t--) {
      training fixed = w;
      fixed.T = t;
      fixed.runtime_T = false;
      bound s = bind_graph(runs_training(&fixed));
      runs_fill(s.g, s.b, &fixed);
      runs_fill(m.g, m.b, &w); /* states too; ids and targets are longer, and begin alike */
      if (w.lengths) {
        const int32_t lengths[3] = {(int32_t)t, 0, (int32_t)(t + 1) / 2};
        put(m.b, "lengths", lengths, sizeof lengths);
        put(s.b, "lengths", lengths, sizeof lengths);
      }
      for (int again = 0; again < 2; again++) {
        const unroll_run_options o = {.struct_size = sizeof o, .n_dims = 1, .dims = &t};
        assert_status(UNROLL_OK, unroll_run(m.b, &o, &err));
        run(s.b);
      }
      results got = runs_read(m.g, m.b), want = runs_read(s.g, s.b);
      assert_int_equal(got.n, want.n);
      for (uint32_t i = 0; i < got.n; i++) {
        assert_string_equal(got.of[i].name, want.of[i].name);
        assert_memory_equal(got.of[i].data, want.of[i].data, prefix_bytes(&got.of[i], t, MAX));
      }
      results_free(&got);
      results_free(&want);
      unbind(&s);
    }
    unbind(&m);
  }
}

/* ---- state ---- */

/* A sequence in one piece, in pieces of n steps, with h and c handed on inside of the binding: the same bits. */
static void chunks_are_the_whole(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  enum { T = 12, B = 2, I = 3, H = 4 };
  for (int cell = UNROLL_CELL_RNN; cell <= UNROLL_CELL_GRU_AFTER; cell++) {
    const int64_t G = cell == UNROLL_CELL_RNN ? 1 : cell == UNROLL_CELL_LSTM ? 4 : 3;
    unroll_graph *g = new_graph();
    const int64_t dim = unroll_graph_dim(g, "T", 1, T);
    unroll_layer_inputs in = {.x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){dim, B, I}),
                              .W_x = unroll_param(g, "W_x", UNROLL_F32, 2, (int64_t[]){G * H, I}),
                              .W_h = unroll_param(g, "W_h", UNROLL_F32, 2, (int64_t[]){G * H, H}),
                              .b = unroll_param(g, "b", UNROLL_F32, 1, (int64_t[]){G * H}),
                              .h0 = unroll_state(g, "h", UNROLL_F32, 2, (int64_t[]){B, H})};
    if (cell == UNROLL_CELL_GRU_AFTER)
      in.b_n = unroll_param(g, "b_n", UNROLL_F32, 1, (int64_t[]){H});
    if (cell == UNROLL_CELL_LSTM)
      in.c0 = unroll_state(g, "c", UNROLL_F32, 2, (int64_t[]){B, H});
    const unroll_layer_attr attr = {.cell = cell, .direction = UNROLL_FORWARD, .activation = UNROLL_TANH};
    const unroll_layer_outputs out = unroll_layer(&in, &attr, 0);
    unroll_update(in.h0, out.h_last);
    if (cell == UNROLL_CELL_LSTM)
      unroll_update(in.c0, out.c_last);
    unroll_output(out.y, "y");
    bound m = bind_graph(g);
    const training w = {.T = T, .V = 1};
    float xs[T * B * I], y[T * B * H], h[B * H], c[B * H], piece_y[T * B * H], piece_h[B * H], piece_c[B * H];
    runs_fill(m.g, m.b, &w);
    get(m.b, "x", xs, sizeof xs);
    run(m.b);
    get(m.b, "y", y, sizeof y);
    get(m.b, "h", h, sizeof h);
    if (cell == UNROLL_CELL_LSTM)
      get(m.b, "c", c, sizeof c);
    for (int64_t n = 1; n < T; n++) {
      runs_fill(m.g, m.b, &w);
      for (int64_t t = 0; t < T; t += n) {
        const int64_t steps = t + n > T ? T - t : n;
        put(m.b, "x", xs + t * B * I, (uint64_t)(steps * B * I) * sizeof *xs);
        const unroll_run_options o = {.struct_size = sizeof o, .n_dims = 1, .dims = &steps, .t0 = t};
        assert_status(UNROLL_OK, unroll_run(m.b, &o, &err));
        get(m.b, "y", piece_y + t * B * H, (uint64_t)(steps * B * H) * sizeof *y);
      }
      get(m.b, "h", piece_h, sizeof h);
      assert_memory_equal(piece_y, y, sizeof y);
      assert_memory_equal(piece_h, h, sizeof h);
      if (cell == UNROLL_CELL_LSTM) {
        get(m.b, "c", piece_c, sizeof c);
        assert_memory_equal(piece_c, c, sizeof c);
      }
    }
    unbind(&m);
  }
}

/* ---- updates: within a run every op reads the old value ---- */

static unroll_tensor scalar_state(unroll_graph *g, const char *name) {
  return unroll_state(g, name, UNROLL_F64, 1, (int64_t[]){1});
}
static unroll_tensor plus(unroll_tensor x, double add) {
  return unroll_add(x, unroll_constant(x.graph, UNROLL_F64, 1, (int64_t[]){1}, add));
}
static void put_one(unroll_binding *b, const char *name, double x) { put(b, name, &x, sizeof x); }

static void states_swap(void **state) {
  (void)state;
  unroll_graph *g = new_graph();
  const unroll_tensor a = scalar_state(g, "a"), b = scalar_state(g, "b"), c = scalar_state(g, "c");
  unroll_update(a, b);
  unroll_update(b, c);
  unroll_update(c, a);
  bound m = bind_graph(g);
  put_one(m.b, "a", 1);
  put_one(m.b, "b", 2);
  put_one(m.b, "c", 3);
  for (int i = 0; i < 4; i++) {
    run(m.b);
    assert_true(get_one(m.b, "a") == 1 + (i + 1) % 3);
    assert_true(get_one(m.b, "b") == 1 + (i + 2) % 3);
    assert_true(get_one(m.b, "c") == 1 + i % 3);
  }
  unbind(&m);
}

/* The old value is read before, by and after the node that makes the new one, through a view too. */
static void old_value_is_read_later(void **state) {
  (void)state;
  unroll_graph *g = new_graph();
  const unroll_tensor x = unroll_state(g, "x", UNROLL_F64, 1, (int64_t[]){4});
  const unroll_tensor before = unroll_scale(x, 10), next = unroll_scale(x, 2);
  unroll_update(x, next);
  unroll_output(unroll_add(unroll_add(before, next), x), "sum"); /* 13 x */
  unroll_output(unroll_scale(unroll_slice(unroll_reshape(x, 2, (int64_t[]){2, 2}), 0, 1, 1), 3), "view");
  unroll_output(next, "next");
  bound m = bind_graph(g);
  const double first[4] = {1, 2, 3, 4};
  put(m.b, "x", first, sizeof first);
  for (int i = 0; i < 3; i++) {
    double sum[4], view[2], next_x[4], now[4];
    run(m.b);
    get(m.b, "sum", sum, sizeof sum);
    get(m.b, "view", view, sizeof view);
    get(m.b, "next", next_x, sizeof next_x);
    get(m.b, "x", now, sizeof now);
    for (int k = 0; k < 4; k++) {
      const double old = ldexp(first[k], i);
      assert_true(sum[k] == 13 * old && next_x[k] == 2 * old && now[k] == 2 * old);
      if (k >= 2)
        assert_true(view[k - 2] == 3 * old);
    }
  }
  unbind(&m);
}

/* An update by a view, by an input, by a value that two states take, and by one that is an output under two names. */
static void updates_of_every_kind(void **state) {
  (void)state;
  unroll_graph *g = new_graph();
  const unroll_tensor in = unroll_input(g, "in", UNROLL_F64, 1, (int64_t[]){2});
  const unroll_tensor s = scalar_state(g, "by_view"), p = scalar_state(g, "one"), q = scalar_state(g, "two");
  const unroll_tensor r = unroll_state(g, "by_input", UNROLL_F64, 1, (int64_t[]){2}), v = scalar_state(g, "given_out");
  const unroll_tensor value = plus(p, 5), out = plus(v, 1);
  unroll_update(s, unroll_slice(in, 0, 1, 1));
  unroll_update(p, value);
  unroll_update(q, value);
  unroll_update(r, in);
  unroll_output(out, "out");
  unroll_output(out, "again");
  unroll_output(in, "in_again");
  unroll_update(v, out);
  bound m = bind_graph(g);
  for (int i = 1; i < 4; i++) {
    const double x[2] = {i, 10 * i};
    double y[2];
    put(m.b, "in", x, sizeof x);
    run(m.b);
    assert_true(get_one(m.b, "by_view") == 10 * i);
    assert_true(get_one(m.b, "one") == 5 * i && get_one(m.b, "two") == 5 * i);
    assert_true(get_one(m.b, "out") == i && get_one(m.b, "again") == i && get_one(m.b, "given_out") == i);
    get(m.b, "by_input", y, sizeof y);
    assert_memory_equal(y, x, sizeof x);
    get(m.b, "in_again", y, sizeof y);
    assert_memory_equal(y, x, sizeof x);
  }
  unbind(&m);
}

/* ---- memory that bindings share ---- */

static void evaluation_sees_what_training_learns(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  training w = {.T = 5, .B = 2, .I = 3, .H = 4, .V = 6, .dtype = UNROLL_F32, .cell = UNROLL_CELL_LSTM, .layers = 1};
  training tw = w;
  tw.optimize = true;
  bound t = bind_graph(runs_training(&tw));
  unroll_graph *eval = runs_training(&w);
  unroll_executable *e;
  unroll_binding *b, *third;
  assert_status(UNROLL_OK, unroll_compile(eval, &t.cpu, 1, NULL, &e, &err));
  assert_status(UNROLL_OK, unroll_binding_create(e, &b, &err));
  assert_status(UNROLL_OK, unroll_binding_create(e, &third, &err));
  runs_fill(eval, b, &w);
  runs_fill(t.g, t.b, &tw);
  float first, second, trained, shared;
  run(b); /* it has buffers of its own by now, and a backend's binding on them */
  get(b, "loss", &first, sizeof first);
  static const char *const params[] = {"table", "W_x_0", "W_h_0", "b_0", "W_out"};
  for (int i = 0; i < 5; i++) {
    assert_status(UNROLL_OK, unroll_binding_share(b, params[i], t.b, params[i], &err));
    assert_status(UNROLL_OK, unroll_binding_share(b, params[i], t.b, params[i], &err)); /* twice is once */
  }
  run(b);
  get(b, "loss", &second, sizeof second);
  assert_true(first == second);
  for (int i = 0; i < 20; i++) {
    run(t.b);
    run(b);
  }
  get(b, "loss", &second, sizeof second);
  assert_true(second < first - 0.1F);
  run(t.b); /* its loss is that of the weights before this update */
  get(t.b, "loss", &trained, sizeof trained);
  assert_true(trained == second);

  /* Chains of sharing; and the memory outlives the binding that it came from. */
  runs_fill(eval, third, &w);
  for (int i = 0; i < 5; i++)
    assert_status(UNROLL_OK, unroll_binding_share(third, params[i], b, params[i], &err));
  run(third);
  get(third, "loss", &shared, sizeof shared);
  unroll_binding_destroy(t.b);
  t.b = NULL;
  run(b);
  get(b, "loss", &second, sizeof second);
  assert_true(second == shared && second < trained);
  unroll_binding_destroy(b);
  run(third);
  get(third, "loss", &second, sizeof second);
  assert_true(second == shared);
  unroll_binding_destroy(third);

  /* Refused: another shape, another device, no such name. */
  assert_status(UNROLL_OK, unroll_binding_create(t.e, &t.b, &err));
  unroll_binding *other;
  unroll_executable *oe;
  unroll_device *patch = runs_device(t.ctx, "patchwork", NULL);
  assert_status(UNROLL_OK, unroll_compile(eval, &patch, 1, NULL, &oe, &err));
  assert_status(UNROLL_OK, unroll_binding_create(oe, &other, &err));
  assert_status(UNROLL_E_SHAPE, unroll_binding_share(other, "W_x_0", t.b, "W_h_0", &err));
  assert_status(UNROLL_E_STATE, unroll_binding_share(other, "W_x_0", t.b, "W_x_0", &err));
  assert_non_null(strstr(err.message, "patchwork:0"));
  assert_status(UNROLL_E_NOT_FOUND, unroll_binding_share(other, "W_x_0", t.b, "W_y_0", &err));
  assert_status(UNROLL_E_NOT_FOUND, unroll_binding_share(other, "W_y_0", t.b, "W_x_0", &err));
  assert_status(UNROLL_E_SHAPE, unroll_binding_share(other, "ids", t.b, "b_0", &err));
  unroll_binding_destroy(other);
  unroll_executable_destroy(oe);
  unroll_device_close(patch);
  unroll_executable_destroy(e);
  unroll_graph_destroy(eval);
  unbind(&t);
}

/* Groups of bindings that share are joined from either side: the last one still runs. */
static void groups_of_bindings_join(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = new_graph();
  const unroll_tensor p = scalar_state(g, "p"), q = scalar_state(g, "q");
  unroll_update(p, plus(p, 1));
  unroll_update(q, plus(q, 10));
  bound m = bind_graph(g);
  unroll_binding *b[5] = {m.b};
  for (int i = 1; i < 5; i++)
    assert_status(UNROLL_OK, unroll_binding_create(m.e, &b[i], &err));
  for (int i = 0; i < 5; i++)
    run(b[i]);
  assert_status(UNROLL_OK, unroll_binding_share(b[0], "p", b[1], "p", &err));
  assert_status(UNROLL_OK, unroll_binding_share(b[2], "p", b[3], "p", &err));
  assert_status(UNROLL_OK, unroll_binding_share(b[0], "q", b[2], "q", &err)); /* both groups are one */
  assert_status(UNROLL_OK, unroll_binding_share(b[3], "q", b[1], "q", &err)); /* and are already */
  assert_status(UNROLL_OK, unroll_binding_share(b[1], "q", b[4], "q", &err));
  assert_status(UNROLL_OK, unroll_binding_share(b[4], "q", b[4], "q", &err));
  assert_status(UNROLL_OK, unroll_binding_share(b[4], "p", b[4], "q", &err));
  for (int i = 0; i < 4; i++)
    run(b[i]);
  assert_true(get_one(b[0], "p") == 3 && get_one(b[1], "p") == 3);
  assert_true(get_one(b[2], "p") == 3 && get_one(b[3], "p") == 3);
  assert_true(get_one(b[0], "q") == 30 && get_one(b[2], "q") == 30);
  assert_true(get_one(b[1], "q") == 20 && get_one(b[4], "q") == 20);
  for (int i = 0; i < 5; i++) {
    unroll_binding_destroy(b[i]);
    if (i < 4)
      run(b[4]);
  }
  m.b = NULL;
  unbind(&m);
}

/* ---- threads ---- */

typedef struct job {
  unroll_executable *e;
  unroll_graph *g;
  const training *w;
  results got;
  unroll_status status;
} job;

static void *work(void *arg) {
  job *j = arg;
  unroll_binding *b;
  j->status = unroll_binding_create(j->e, &b, NULL);
  if (j->status != UNROLL_OK)
    return NULL;
  runs_fill(j->g, b, j->w);
  for (int i = 0; i < 5 && j->status == UNROLL_OK; i++)
    j->status = unroll_run(b, NULL, NULL);
  j->got = runs_read(j->g, b);
  unroll_binding_destroy(b);
  return NULL;
}

/* H of 96 makes the products large enough for the backend's own threads. */
static void two_bindings_run_at_once(void **state) {
  (void)state;
  training w = {.T = 6, .B = 8, .I = 32, .H = 96, .V = 20, .dtype = UNROLL_F32, .cell = UNROLL_CELL_LSTM, .layers = 1};
  w.optimize = true;
  bound m = bind_graph(runs_training(&w));
  results want = runs_all(m.g, &m.cpu, 1, NULL, &w, 5);
  job jobs[3];
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) {
    jobs[i] = (job){m.e, m.g, &w, {0}, UNROLL_OK};
    assert_int_equal(pthread_create(&threads[i], NULL, work, &jobs[i]), 0);
  }
  for (int i = 0; i < 3; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(jobs[i].status, UNROLL_OK);
    assert_same(&jobs[i].got, &want);
    results_free(&jobs[i].got);
  }
  results_free(&want);
  unbind(&m);
}

/* ---- memory ---- */

static void a_run_allocates_nothing(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  run_memory memory = {0};
  const unroll_allocator a = runs_allocator(&memory);
  unroll_context *ctx = runs_context(&a, NULL);
  unroll_device *cpu = runs_device(ctx, "cpu", NULL);
  training w = {.T = 9, .B = 3, .I = 4, .H = 5, .V = 6, .dtype = UNROLL_F32, .cell = UNROLL_CELL_LSTM, .layers = 2};
  w.optimize = w.with_state = w.runtime_T = true;
  w.allocator = &a;
  unroll_graph *g = runs_training(&w);
  unroll_executable *e;
  unroll_binding *b;
  assert_status(UNROLL_OK, unroll_compile(g, &cpu, 1, NULL, &e, &err));
  const long before = memory.calls;
  assert_status(UNROLL_OK, unroll_binding_create(e, &b, &err));
  assert_true(memory.calls > before);
  runs_fill(g, b, &w);
  run(b);
  const long calls = memory.calls, live = memory.live;
  for (int64_t t = 1; t <= 9; t++) {
    const unroll_run_options o = {.struct_size = sizeof o, .n_dims = 1, .dims = &t};
    assert_status(UNROLL_OK, unroll_run(b, &o, &err));
  }
  assert_status(UNROLL_OK, unroll_binding_clear(b, "h_0", &err));
  assert_int_equal(memory.calls, calls);
  assert_int_equal(memory.live, live);
  unroll_binding_destroy(b);
  unroll_executable_destroy(e);
  unroll_device_close(cpu);
  unroll_graph_destroy(g);
  unroll_context_destroy(ctx);
  assert_int_equal(memory.live, 0);
  assert_int_equal(memory.bytes, 0);
}

/* Forty tensors one after another need the room of two. */
static void scratch_is_used_again(void **state) {
  (void)state;
  enum { DEPTH = 40, N = 1000 };
  unroll_graph *g = new_graph();
  unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 1, (int64_t[]){N});
  for (int i = 0; i < DEPTH; i++)
    x = unroll_tanh(x);
  unroll_output(x, "y");
  bound m = bind_graph(g);
  const uint64_t one = (N * sizeof(float) + 63) / 64 * 64;
  assert_in_range(unroll_executable_describe(m.e).scratch_bytes, one, 2 * one);
  static float xs[N], y[N];
  for (int i = 0; i < N; i++)
    xs[i] = (float)(i - N / 2) / 100;
  put(m.b, "x", xs, sizeof xs);
  run(m.b);
  get(m.b, "y", y, sizeof y);
  for (int i = 0; i < N; i++) {
    double want = (double)xs[i];
    for (int k = 0; k < DEPTH; k++)
      want = tanh(want);
    assert_true(fabs((double)y[i] - want) < DEPTH * 6e-8);
  }
  unbind(&m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(product_is_computed),
      cmocka_unit_test(misuse_is_refused),
      cmocka_unit_test(devices_are_named),
      cmocka_unit_test(every_number_of_steps),
      cmocka_unit_test(chunks_are_the_whole),
      cmocka_unit_test(states_swap),
      cmocka_unit_test(old_value_is_read_later),
      cmocka_unit_test(updates_of_every_kind),
      cmocka_unit_test(evaluation_sees_what_training_learns),
      cmocka_unit_test(groups_of_bindings_join),
      cmocka_unit_test(two_bindings_run_at_once),
      cmocka_unit_test(a_run_allocates_nothing),
      cmocka_unit_test(scratch_is_used_again),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
