/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_tasks.c: how long can a recurrent network remember? Two tasks that show vanishing gradients, and what helps.
 *
 *   adding  Hochreiter & Schmidhuber 1997, as in Le, Jaitly, Hinton 2015: T numbers of U(0,1), two of them marked, here
 *           one in each half. The network says the sum of the two after the last step. Who always says 1 has a mean
 *           squared error of 1/6.
 *   copy    Hochreiter & Schmidhuber 1997, as in Arjovsky, Shah, Bengio 2016: 10 symbols out of 8, T - 1 blanks, a sign
 *           to begin, 10 blanks. The network says T + 10 blanks, then the 10 symbols. Without a memory the mean
 *           cross-entropy of the T + 20 steps is 10 ln 8 / (T + 20).
 *
 * A run of the graph is an update: it makes its sequences too, from counter-based random numbers, so that updates
 * follow each other without the host, and every device sees the same sequences. None is seen twice, so the loss of an
 * update, taken before it changes anything, is that of new sequences; what is printed is the mean over BLOCK updates.
 * "Gradient kept" is the part of a gradient that is left when it has gone back through all steps, before the training
 * and after it.
 * Progress goes to stderr, a table in Markdown to stdout.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unroll/io.h>
#include <unroll/nn.h>
#include <unroll/runtime.h>

enum { BLOCK = 25, MAX_SEEDS = 16, MAX_PARAMS = 16, SYMBOLS = 8, COPIED = 10, CLASSES = SYMBOLS + 2 };
enum { BLANK = SYMBOLS, BEGIN = SYMBOLS + 1 };
enum { ORTHOGONAL, XAVIER, IDENTITY };

typedef struct cell {
  const char *name;
  int32_t kind, activation, recurrent, chrono, relu;
  const char *what;
} cell;
static const cell cells[] = {
    {"rnn", UNROLL_CELL_RNN, 0, XAVIER, 0, 0, "tanh, W_h of Glorot & Bengio 2010"},
    {"irnn", UNROLL_CELL_RNN, 0, IDENTITY, 0, 1, "ReLU, W_h = 1 (Le, Jaitly, Hinton 2015)"},
    {"orthogonal", UNROLL_CELL_RNN, UNROLL_ACTIVATION_IDENTITY, ORTHOGONAL, 0, 0,
     "no activation, W_h orthogonal at first (Saxe et al. 2014; Henaff, Szlam, LeCun 2016)"},
    {"modrelu", UNROLL_CELL_RNN, UNROLL_ACTIVATION_MODRELU, ORTHOGONAL, 0, 0,
     "modReLU, W_h orthogonal at first (Arjovsky, Shah, Bengio 2016)"},
    {"lstm", UNROLL_CELL_LSTM, 0, ORTHOGONAL, 0, 0, "forget bias 1 (Jozefowicz, Zaremba, Sutskever 2015)"},
    {"lstm-chrono", UNROLL_CELL_LSTM, 0, ORTHOGONAL, 1, 0, "chrono initialisation (Tallec & Ollivier 2018)"},
    {"gru", UNROLL_CELL_GRU, 0, ORTHOGONAL, 0, 0, "biases 0"},
    {"gru-chrono", UNROLL_CELL_GRU, 0, ORTHOGONAL, 1, 0, "chrono initialisation of z"},
};
enum { N_CELLS = sizeof cells / sizeof cells[0] };

typedef struct settings {
  const char *task, *cell_names, *device, *optimizer, *save;
  int64_t T, units, batch, updates, seeds;
  double lr, clip;
  int copy;
  int64_t steps; /* of a sequence */
  double baseline, threshold;
} settings;

/* ---- the sequences ---- */

/* Integers of 0 to n - 1, [rows,B,..] */
static unroll_tensor random_integers(unroll_graph *g, int32_t rank, const int64_t *shape, int64_t n) {
  const unroll_tensor u = unroll_random(g, UNROLL_RANDOM_UNIFORM, UNROLL_F32, rank, shape);
  return unroll_cast(unroll_scale(u, (double)n), UNROLL_I32);
}

/* x [T,B,2] and the sums [B,1] */
static unroll_tensor adding_sequences(unroll_graph *g, const settings *s, unroll_tensor *sums) {
  const int64_t T = s->T, sequence[] = {T, s->batch, 1}, place[] = {1, s->batch, 1}, steps[] = {T, 1, 1};
  const unroll_tensor values = unroll_random(g, UNROLL_RANDOM_UNIFORM, UNROLL_F32, 3, sequence);
  const unroll_tensor first = random_integers(g, 3, place, T / 2),
                      second = unroll_add(random_integers(g, 3, place, T - T / 2),
                                          unroll_constant(g, UNROLL_I32, 0, NULL, (double)(T / 2)));
  const unroll_tensor t = unroll_input(g, "t", UNROLL_I32, 3, steps);
  const unroll_tensor marks = unroll_add(unroll_cast(unroll_binary(t, first, UNROLL_EQ), UNROLL_F32),
                                         unroll_cast(unroll_binary(t, second, UNROLL_EQ), UNROLL_F32));
  *sums = unroll_reduce(unroll_mul(values, marks), UNROLL_SUM, 1, 0);
  return unroll_concat((unroll_tensor[]){values, marks}, 2, 2);
}

/* x [T+20,B,10], one-hot, and the targets i32 [T+20,B] */
static unroll_tensor copy_sequences(unroll_graph *g, const settings *s, unroll_tensor *targets) {
  const int64_t copied[] = {COPIED, s->batch}, one[] = {1, s->batch}, delay[] = {s->T - 1, s->batch},
                wait[] = {s->T + COPIED, s->batch}, table[] = {CLASSES, CLASSES};
  const unroll_tensor symbols = random_integers(g, 2, copied, SYMBOLS);
  const unroll_tensor ids = unroll_concat((unroll_tensor[]){symbols, unroll_constant(g, UNROLL_I32, 2, delay, BLANK),
                                                            unroll_constant(g, UNROLL_I32, 2, one, BEGIN),
                                                            unroll_constant(g, UNROLL_I32, 2, copied, BLANK)},
                                          4, 0);
  *targets = unroll_concat((unroll_tensor[]){unroll_constant(g, UNROLL_I32, 2, wait, BLANK), symbols}, 2, 0);
  return unroll_embedding(unroll_input(g, "one_hot", UNROLL_F32, 2, table), ids);
}

static unroll_tensor sequences(unroll_graph *g, const settings *s, unroll_tensor *targets) {
  return s->copy ? copy_sequences(g, s, targets) : adding_sequences(g, s, targets);
}

static unroll_rnn_options network(const settings *s, const cell *c) {
  return (unroll_rnn_options){.struct_size = sizeof(unroll_rnn_options),
                              .cell = c->kind,
                              .activation = c->relu ? UNROLL_RELU : 0,
                              .layers = 1,
                              .hidden = s->units,
                              .f = unroll_activation_of(c->activation)};
}

/* ---- the training graph ---- */

static void build(unroll_graph *g, const settings *s, const cell *c) {
  const unroll_rnn_options rnn = network(s, c);
  unroll_tensor targets, h;
  unroll_rnn_state last = {&h, NULL};
  const unroll_tensor x = sequences(g, s, &targets), y = unroll_rnn(x, "rnn", &rnn, NULL, &last);
  const unroll_tensor loss =
      s->copy ? unroll_cross_entropy(unroll_linear(y, "head", SYMBOLS + 1, 1), targets, UNROLL_LOSS_MEAN)
              : unroll_mse(unroll_linear(h, "head", 1, 1), targets, UNROLL_LOSS_MEAN);
  unroll_tensor params[MAX_PARAMS], grads[MAX_PARAMS], scale = unroll_none();
  uint32_t n = 0;
  for (uint32_t i = 0; i < unroll_graph_count(g) && n < MAX_PARAMS; i++)
    if (unroll_tensor_describe(unroll_graph_tensor(g, i)).role == UNROLL_ROLE_PARAM)
      params[n++] = unroll_graph_tensor(g, i);
  unroll_gradient(loss, params, n, grads);
  if (s->clip > 0)
    scale = unroll_clip_global_norm(grads, n, s->clip, NULL);

  /* the number of the update and the sum of the losses stay on the device */
  const unroll_tensor done = unroll_state(g, "done", UNROLL_I32, 0, NULL);
  const unroll_tensor step = unroll_add(done, unroll_constant(g, UNROLL_I32, 0, NULL, 1));
  const unroll_tensor total = unroll_state(g, "total", UNROLL_F32, 0, NULL);
  const unroll_tensor lr = unroll_constant(g, UNROLL_F32, 0, NULL, s->lr);
  const unroll_optimizer_attr adam = {.kind = UNROLL_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
                              rmsprop = {.kind = UNROLL_RMSPROP, .beta2 = 0.9, .epsilon = 1e-8};
  for (uint32_t i = 0; i < n; i++)
    unroll_optimize(params[i], grads[i], lr, step, scale, strcmp(s->optimizer, "adam") == 0 ? &adam : &rmsprop);
  unroll_update(done, step);
  unroll_update(total, unroll_add(total, loss));
}

/* The gradient of v·h after the last step to the state before the first, v normal: outputs v, dh and, of an lstm, dc,
 * [B,H]; and x [steps,B,I]. */
static void build_probe(unroll_graph *g, const settings *s, const cell *c) {
  const int64_t state[] = {s->batch, s->units};
  const unroll_rnn_options rnn = network(s, c);
  const int is_lstm = c->kind == UNROLL_CELL_LSTM;
  unroll_tensor targets, h, d[2];
  unroll_tensor first[] = {unroll_state(g, "h0", UNROLL_F32, 2, state),
                           is_lstm ? unroll_state(g, "c0", UNROLL_F32, 2, state) : unroll_none()};
  const unroll_rnn_state initial = {&first[0], is_lstm ? &first[1] : NULL};
  unroll_rnn_state last = {&h, NULL};
  const unroll_tensor x = sequences(g, s, &targets);
  unroll_rnn(x, "rnn", &rnn, &initial, &last);
  unroll_output(x, "x");
  const unroll_tensor v = unroll_random_step(g, UNROLL_RANDOM_NORMAL, UNROLL_F32, 2, state);
  unroll_gradient(unroll_reduce(unroll_mul(v, h), UNROLL_SUM, 0, 0), first, is_lstm ? 2 : 1, d);
  unroll_output(v, "v");
  unroll_output(d[0], "dh");
  if (is_lstm)
    unroll_output(d[1], "dc");
}

static unroll_status first_values(const unroll_tensor_info *info, const settings *s, const cell *c, uint64_t seed,
                                  void *data, unroll_error *err) {
  const int recurrent = strncmp(info->name, "rnn.W_h.", 8) == 0, bias = strncmp(info->name, "rnn.b.", 6) == 0;
  if (recurrent && c->recurrent == XAVIER)
    return unroll_init_glorot(info, seed, 1, data, err);
  if (recurrent && c->recurrent == IDENTITY)
    return unroll_init_identity(info, 1, 1.0, data, err);
  if (bias && c->chrono && c->kind == UNROLL_CELL_LSTM)
    return unroll_init_chrono(info, seed, (double)s->steps, 4, 1, 0, data, err);
  if (bias && c->chrono)
    return unroll_init_chrono(info, seed, (double)s->steps, 3, 1, -1, data, err);
  return unroll_init_default(info, c->kind, seed, data, err);
}

/* As before the first update: parameters of this seed, states of zeros, and what the sequences are made with. */
static unroll_status begin(unroll_graph *g, unroll_binding *binding, const settings *s, const cell *c, uint64_t seed,
                           unroll_error *err) {
  unroll_status st = UNROLL_OK;
  for (uint32_t i = 0; i < unroll_graph_count(g) && st == UNROLL_OK; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(g, i));
    uint64_t bytes = sizeof(float);
    for (int32_t axis = 0; axis < info.rank; axis++)
      bytes *= (uint64_t)info.shape[axis];
    void *data = malloc(bytes);
    if (!data) {
      snprintf(err->message, sizeof err->message, "no memory for %s, %llu bytes", info.name, (unsigned long long)bytes);
      return UNROLL_E_MEMORY;
    }
    if (info.role == UNROLL_ROLE_PARAM) {
      st = first_values(&info, s, c, seed, data, err);
    } else if (info.role == UNROLL_ROLE_INPUT && s->copy) {
      st = unroll_init_identity(&info, 1, 1.0, data, err);
    } else if (info.role == UNROLL_ROLE_INPUT) {
      int32_t *t = data;
      for (int32_t i_t = 0; i_t < s->T; i_t++)
        t[i_t] = i_t;
    } else {
      memset(data, 0, bytes);
    }
    if (st == UNROLL_OK && info.role != UNROLL_ROLE_OUTPUT)
      st = unroll_binding_write(binding, info.name, data, bytes, err);
    free(data);
  }
  return st;
}

/* ---- training ---- */

typedef struct result {
  int64_t reached; /* the update after which the mean loss of a block was below the threshold; updates + 1: none */
  int64_t updates; /* done */
  double loss;     /* of the last block */
} result;

static double now(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static unroll_status train(unroll_binding *binding, const settings *s, const cell *c, uint64_t seed, result *r,
                           unroll_error *err) {
  unroll_run_options run = {.struct_size = sizeof run, .seed = seed};
  unroll_status st = UNROLL_OK;
  float total;
  *r = (result){.reached = s->updates + 1, .loss = NAN};
  for (int64_t update = 1; update <= s->updates && st == UNROLL_OK && r->reached > s->updates; update++) {
    run.update = (uint64_t)update;
    r->updates = update;
    if ((st = unroll_run(binding, &run, err)) != UNROLL_OK || update % BLOCK != 0 ||
        (st = unroll_binding_read(binding, "total", &total, sizeof total, err)) != UNROLL_OK ||
        (st = unroll_binding_clear(binding, "total", err)) != UNROLL_OK)
      continue;
    r->loss = (double)total / BLOCK;
    fprintf(stderr, "%s seed %d update %d loss %.6f\n", c->name, (int)seed, (int)update, r->loss);
    if (r->loss < s->threshold)
      r->reached = update;
    else if (!isfinite(r->loss))
      break;
  }
  return st;
}

static int by_updates(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void print_updates(const settings *s, int64_t reached) {
  if (reached > s->updates)
    printf("over %lld", (long long)s->updates);
  else
    printf("%lld", (long long)reached);
}

static void print_row(const settings *s, const cell *c, const result *r, const double *kept, double ms) {
  int64_t reached[MAX_SEEDS];
  printf("| %s |", c->name);
  for (int64_t i = 0; i < s->seeds; i++) {
    reached[i] = r[i].reached;
    printf(i ? ", " : " ");
    print_updates(s, reached[i]);
  }
  qsort(reached, (size_t)s->seeds, sizeof reached[0], by_updates);
  printf(" | ");
  print_updates(s, reached[(s->seeds - 1) / 2]);
  printf(" |");
  for (int64_t i = 0; i < s->seeds; i++)
    printf("%s %.4f", i ? "," : "", r[i].loss);
  printf(" | %.1e, %.1e | %.1f |\n", kept[0], kept[1], ms);
  fflush(stdout);
}

/* Adds the squares of an output [B,H] to sum. */
static unroll_status add_squares(unroll_binding *binding, const settings *s, const char *name, double *sum,
                                 unroll_error *err) {
  const size_t n = (size_t)(s->batch * s->units);
  float *x = malloc(n * sizeof *x);
  if (!x) {
    snprintf(err->message, sizeof err->message, "no memory for %s, %zu bytes", name, n * sizeof *x);
    return UNROLL_E_MEMORY;
  }
  const unroll_status st = unroll_binding_read(binding, name, x, n * sizeof *x, err);
  for (size_t i = 0; i < n && st == UNROLL_OK; i++)
    *sum += (double)x[i] * (double)x[i];
  free(x);
  return st;
}

/* A graph, compiled and bound. */
typedef struct machine {
  unroll_graph *graph;
  unroll_executable *exe;
  unroll_binding *binding;
} machine;

static unroll_status machine_open(machine *m, void (*describe)(unroll_graph *, const settings *, const cell *),
                                  const settings *s, const cell *c, unroll_device *device, unroll_error *err) {
  unroll_status st = unroll_graph_create(NULL, &m->graph, err);
  if (st == UNROLL_OK)
    describe(m->graph, s, c); /* an error in it is kept by the graph; unroll_compile reports it */
  if (st == UNROLL_OK && (st = unroll_compile(m->graph, &device, 1, NULL, &m->exe, err)) == UNROLL_OK)
    st = unroll_binding_create(m->exe, &m->binding, err);
  return st;
}

static void machine_close(machine *m) {
  unroll_binding_destroy(m->binding);
  unroll_executable_destroy(m->exe);
  unroll_graph_destroy(m->graph);
}

/* The probe works with the parameters that are trained. */
static unroll_status share_parameters(const machine *probe, const machine *training, unroll_error *err) {
  unroll_status st = UNROLL_OK;
  for (uint32_t i = 0; i < unroll_graph_count(probe->graph) && st == UNROLL_OK; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(probe->graph, i));
    if (info.role == UNROLL_ROLE_PARAM)
      st = unroll_binding_share(probe->binding, info.name, training->binding, info.name, err);
  }
  return st;
}

/* How much of a gradient is left where it has gone back through all steps: |(dh, dc)| / |v|. */
static unroll_status measure(const machine *probe, const settings *s, const cell *c, double *kept, unroll_error *err) {
  const unroll_run_options run = {.struct_size = sizeof run, .seed = 1};
  double before = 0, after = 0;
  unroll_status st = unroll_run(probe->binding, &run, err);
  if (st == UNROLL_OK && (st = add_squares(probe->binding, s, "v", &after, err)) == UNROLL_OK &&
      (st = add_squares(probe->binding, s, "dh", &before, err)) == UNROLL_OK && c->kind == UNROLL_CELL_LSTM)
    st = add_squares(probe->binding, s, "dc", &before, err);
  *kept = sqrt(before / after);
  return st;
}

/* ---- files for `unroll diagnose` ---- */

static unroll_status add_tensor(unroll_safetensors_writer *w, const machine *training, const unroll_tensor_info *info,
                                float **kept, unroll_error *err) {
  uint64_t bytes = sizeof(float);
  for (int32_t axis = 0; axis < info->rank; axis++)
    bytes *= (uint64_t)info->shape[axis];
  *kept = malloc(bytes);
  if (!*kept) {
    snprintf(err->message, sizeof err->message, "no memory for %s", info->name);
    return UNROLL_E_MEMORY;
  }
  const unroll_status st = unroll_binding_read(training->binding, info->name, *kept, bytes, err);
  return st == UNROLL_OK
             ? unroll_safetensors_writer_add(w, info->name, info->dtype, info->rank, info->shape, *kept, err)
             : st;
}

static unroll_status save_model(const settings *s, const cell *c, const machine *training, unroll_error *err) {
  char path[1024], model[128];
  float *kept[MAX_PARAMS] = {NULL};
  uint32_t n = 0;
  unroll_safetensors_writer *w = NULL;
  const char *activation = c->relu                                       ? "relu"
                           : c->activation == UNROLL_ACTIVATION_IDENTITY ? "identity"
                           : c->activation == UNROLL_ACTIVATION_MODRELU  ? "modrelu"
                                                                         : "tanh";
  static const char *const kinds[] = {
      [UNROLL_CELL_RNN] = "rnn", [UNROLL_CELL_LSTM] = "lstm", [UNROLL_CELL_GRU] = "gru"};
  snprintf(path, sizeof path, "%s/%s.safetensors", s->save, c->name);
  if (c->kind == UNROLL_CELL_RNN) /* the other cells have their own */
    snprintf(model, sizeof model, "{\"cell\":\"%s\",\"activation\":\"%s\"}", kinds[c->kind], activation);
  else
    snprintf(model, sizeof model, "{\"cell\":\"%s\"}", kinds[c->kind]);
  unroll_status st = unroll_safetensors_writer_create(path, NULL, &w, err);
  if (st == UNROLL_OK)
    st = unroll_safetensors_writer_metadata(w, "unroll.model", model, err);
  for (uint32_t i = 0; i < unroll_graph_count(training->graph) && st == UNROLL_OK && n < MAX_PARAMS; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(training->graph, i));
    if (info.role == UNROLL_ROLE_PARAM)
      st = add_tensor(w, training, &info, &kept[n++], err);
  }
  if (st == UNROLL_OK)
    st = unroll_safetensors_writer_commit(w, err);
  unroll_safetensors_writer_destroy(w);
  for (uint32_t i = 0; i < n; i++)
    free(kept[i]);
  return st;
}

/* The sequences of the probe's last run. */
static unroll_status save_sequences(const settings *s, const cell *c, const machine *probe, unroll_error *err) {
  char path[1024];
  const int64_t shape[] = {s->steps, s->batch, s->copy ? CLASSES : 2};
  const uint64_t bytes = (uint64_t)(shape[0] * shape[1] * shape[2]) * sizeof(float);
  float *x = malloc(bytes);
  snprintf(path, sizeof path, "%s/%s.npy", s->save, c->name);
  if (!x) {
    snprintf(err->message, sizeof err->message, "no memory for %llu bytes of sequences", (unsigned long long)bytes);
    return UNROLL_E_MEMORY;
  }
  unroll_status st = unroll_binding_read(probe->binding, "x", x, bytes, err);
  if (st == UNROLL_OK)
    st = unroll_npy_write(path, UNROLL_F32, 3, shape, x, NULL, err);
  free(x);
  return st;
}

/* One cell, every seed, a row of the table. */
static unroll_status run_cell(const settings *s, const cell *c, unroll_device *device, unroll_error *err) {
  machine training = {NULL, NULL, NULL}, probe = {NULL, NULL, NULL};
  result results[MAX_SEEDS];
  double seconds = 0, kept[2] = {0, 0};
  int64_t updates = 0;
  unroll_status st = machine_open(&training, build, s, c, device, err);
  if (st == UNROLL_OK && (st = machine_open(&probe, build_probe, s, c, device, err)) == UNROLL_OK &&
      (st = share_parameters(&probe, &training, err)) == UNROLL_OK)
    st = begin(probe.graph, probe.binding, s, c, 1, err);
  for (int64_t i = 0; i < s->seeds && st == UNROLL_OK; i++) {
    const uint64_t seed = (uint64_t)i + 1;
    if ((st = begin(training.graph, training.binding, s, c, seed, err)) != UNROLL_OK ||
        (i == 0 && (st = measure(&probe, s, c, &kept[0], err)) != UNROLL_OK))
      break;
    const double start = now();
    st = train(training.binding, s, c, seed, &results[i], err);
    seconds += now() - start;
    updates += results[i].updates;
    if (i == 0 && st == UNROLL_OK)
      st = measure(&probe, s, c, &kept[1], err);
    if (i == 0 && st == UNROLL_OK && s->save && (st = save_model(s, c, &training, err)) == UNROLL_OK)
      st = save_sequences(s, c, &probe, err);
  }
  if (st == UNROLL_OK)
    print_row(s, c, results, kept, 1e3 * seconds / (double)updates);
  machine_close(&probe);
  machine_close(&training);
  return st;
}

/* ---- the command line ---- */

static void usage(FILE *out) {
  fprintf(out, "usage: memory_tasks --task adding|copy [options]\n"
               "  --cells A,B,..   of those below; all\n"
               "  --length T       adding: steps, 100; copy: delay, 50\n"
               "  --units H        32; copy: 64\n"
               "  --batch B        64\n"
               "  --optimizer O    adam or rmsprop (smoothing 0.9); adam\n"
               "  --lr R           0.01; copy: 0.001\n"
               "  --clip C         global norm of the gradients, 0: none; 1\n"
               "  --updates N      at most, a multiple of 25; 1500; copy: 3000\n"
               "  --seeds N        1 to N; 3\n"
               "  --device D       cpu, opencl, opencl:0.1, ..; auto\n"
               "  --save DIR       DIR/CELL.safetensors and DIR/CELL.npy of seed 1, for 'unroll diagnose'\n"
               "cells:\n");
  for (int i = 0; i < N_CELLS; i++)
    fprintf(out, "  %-12s %s\n", cells[i].name, cells[i].what);
}

static int bad(const char *name, const char *value, const char *expected) {
  fprintf(stderr, "memory_tasks: %s %s: expected %s\n", name, value, expected);
  return 0;
}

static int parse_integer(const char *name, const char *text, int64_t lo, int64_t hi, int64_t *value) {
  char *end, range[64];
  const long long n = strtoll(text, &end, 10);
  snprintf(range, sizeof range, "an integer from %lld to %lld", (long long)lo, (long long)hi);
  *value = n;
  return (*text && !*end && n >= lo && n <= hi) || bad(name, text, range);
}

static int parse_number(const char *name, const char *text, double lo, double hi, double *value) {
  char *end, range[64];
  *value = strtod(text, &end);
  snprintf(range, sizeof range, "a number from %g to %g", lo, hi);
  return (*text && !*end && *value >= lo && *value <= hi) || bad(name, text, range);
}

static const cell *find_cell(const char *name, size_t length) {
  for (int i = 0; i < N_CELLS; i++)
    if (strlen(cells[i].name) == length && strncmp(cells[i].name, name, length) == 0)
      return &cells[i];
  return NULL;
}

static int parse_cells(const char *text) {
  for (const char *name = text;; name++) {
    const size_t length = strcspn(name, ",");
    if (!find_cell(name, length))
      return bad("--cells", text, "names of cells with commas between; --help lists them");
    name += length;
    if (!*name)
      return 1;
  }
}

static int parse_option(settings *s, const char *name, const char *value) {
  if (strcmp(name, "--task") == 0)
    return 1; /* looked at before the others */
  if (strcmp(name, "--cells") == 0)
    return s->cell_names = value, parse_cells(value);
  if (strcmp(name, "--length") == 0)
    return parse_integer(name, value, 2, 100000, &s->T);
  if (strcmp(name, "--units") == 0)
    return parse_integer(name, value, 1, 4096, &s->units);
  if (strcmp(name, "--batch") == 0)
    return parse_integer(name, value, 1, 4096, &s->batch);
  if (strcmp(name, "--optimizer") == 0)
    return s->optimizer = value,
           strcmp(value, "adam") == 0 || strcmp(value, "rmsprop") == 0 || bad(name, value, "adam or rmsprop");
  if (strcmp(name, "--lr") == 0)
    return parse_number(name, value, 1e-8, 10, &s->lr);
  if (strcmp(name, "--clip") == 0)
    return parse_number(name, value, 0, 1e6, &s->clip);
  if (strcmp(name, "--updates") == 0)
    return parse_integer(name, value, BLOCK, 10000000, &s->updates) &&
           (s->updates % BLOCK == 0 || bad(name, value, "a multiple of 25"));
  if (strcmp(name, "--seeds") == 0)
    return parse_integer(name, value, 1, MAX_SEEDS, &s->seeds);
  if (strcmp(name, "--device") == 0)
    return s->device = value, 1;
  if (strcmp(name, "--save") == 0)
    return s->save = value, 1;
  return bad(name, value, "an option that --help lists");
}

static int parse(int argc, char **argv, settings *s) {
  const char *task = "";
  if (argc % 2 == 0)
    return bad(argv[argc - 1], "", "options, each with a value; see --help");
  for (int i = 1; i < argc; i += 2)
    if (strcmp(argv[i], "--task") == 0)
      task = argv[i + 1];
  if (strcmp(task, "adding") == 0)
    *s = (settings){.T = 100, .units = 32, .updates = 1500, .lr = 0.01};
  else if (strcmp(task, "copy") == 0)
    *s = (settings){.T = 50, .units = 64, .updates = 3000, .lr = 0.001, .copy = 1};
  else
    return bad("--task", task, "adding or copy");
  s->task = task;
  s->device = "auto";
  s->optimizer = "adam";
  s->batch = 64;
  s->seeds = 3;
  s->clip = 1;
  for (int i = 1; i < argc; i += 2)
    if (!parse_option(s, argv[i], argv[i + 1]))
      return 0;
  s->steps = s->copy ? s->T + 2 * COPIED : s->T;
  s->baseline = s->copy ? COPIED * log(SYMBOLS) / (double)s->steps : 1.0 / 6.0;
  s->threshold = s->copy ? s->baseline / 10 : 0.01;
  return 1;
}

static unroll_status run_cells(const settings *s, unroll_device *device, unroll_error *err) {
  unroll_status st = UNROLL_OK;
  printf("%s, %s %lld: %lld units, batch %lld, %s, learning rate %g, clip %g, on %s. Without memory %.4f, threshold "
         "%.4f.\n\n"
         "| cell | updates to the threshold, each seed | median | loss at the end, each seed | gradient kept, seed 1 | "
         "ms an "
         "update |\n"
         "| --- | --- | --- | --- | --- | --- |\n",
         s->task, s->copy ? "delay" : "T =", (long long)s->T, (long long)s->units, (long long)s->batch, s->optimizer,
         s->lr, s->clip, unroll_device_describe(device)->name, s->baseline, s->threshold);
  fflush(stdout);
  if (!s->cell_names)
    for (int i = 0; i < N_CELLS && st == UNROLL_OK; i++)
      st = run_cell(s, &cells[i], device, err);
  for (const char *name = s->cell_names; name && st == UNROLL_OK;) {
    const size_t length = strcspn(name, ",");
    st = run_cell(s, find_cell(name, length), device, err);
    name = name[length] ? name + length + 1 : NULL;
  }
  printf("\n");
  return st;
}

int main(int argc, char **argv) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  unroll_device *device = NULL;
  settings s;
  if (argc == 2 && strcmp(argv[1], "--help") == 0)
    return usage(stdout), EXIT_SUCCESS;
  if (!parse(argc, argv, &s))
    return EXIT_FAILURE;
  unroll_status st = unroll_context_create(NULL, &ctx, &err);
  if (st == UNROLL_OK && (st = unroll_device_open(ctx, s.device, NULL, 0, &device, &err)) == UNROLL_OK)
    st = run_cells(&s, device, &err);
  if (st != UNROLL_OK)
    fprintf(stderr, "memory_tasks: %s: %s\n", unroll_status_name(st), err.message);
  if (device)
    unroll_device_close(device);
  if (ctx)
    unroll_context_destroy(ctx);
  return st == UNROLL_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
