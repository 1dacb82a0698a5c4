/* SPDX-License-Identifier: Apache-2.0 */
/* cost_memory.c: parameters of recurrent layers, and the memory of their training as a function of the time steps. */
#include <inttypes.h>
#include <string.h>

#include "diagnose/cost_private.h"

/* As far as the caller's struct goes, and without what belongs to a graph of the caller's. */
static unroll_status take_options(const char *what, const unroll_rnn_options *from, unroll_rnn_options *to,
                                  unroll_error *err) {
  if (!from || !UNROLL_HAS(unroll_rnn_options, from, lengths))
    return fail(err, UNROLL_E_INVALID, "%s: %s", what, from ? "rnn.struct_size is too small" : "rnn is NULL");
  memcpy(to, from, from->struct_size < sizeof *to ? from->struct_size : sizeof *to);
  to->struct_size = sizeof *to;
  to->lengths = unroll_none();
  to->cells = NULL;
  to->checkpoint = NULL;
  return UNROLL_OK;
}

/* ---- parameters ---- */

static void write_formula(const unroll_rnn_options *o, struct text *t) {
  const bool minimal = o->cell == UNROLL_RNN_MIN_GRU || o->cell == UNROLL_RNN_MIN_LSTM;
  const bool lstm = o->cell == UNROLL_CELL_LSTM || o->cell == UNROLL_RNN_COUPLED_LSTM;
  const int gates = o->cell == UNROLL_CELL_LSTM     ? 4
                    : o->cell == UNROLL_CELL_RNN    ? 1
                    : o->cell == UNROLL_RNN_MIN_GRU ? 2
                                                    : 3;
  if (gates > 1)
    text_add(t, "%d·", gates);
  text_add(t, minimal ? "(n_x + 1)·n_h" : o->projection > 0 ? "(n_p + n_x + 1)·n_h" : "(n_h + n_x + 1)·n_h");
  if (o->projection > 0)
    text_add(t, " + n_p·n_h");
  if (o->cell == UNROLL_CELL_GRU_AFTER)
    text_add(t, " + n_h");
  if (o->peepholes)
    text_add(t, " + %d·n_h", o->cell == UNROLL_CELL_LSTM ? 3 : 2);
  if (o->layer_norm)
    text_add(t, " + %d·n_h", 2 * gates + (lstm ? 2 : 0));
  if (o->f.kind == UNROLL_ACTIVATION_MODRELU)
    text_add(t, " + n_h");
}

unroll_status unroll_cost_of_rnn_parameters(const unroll_rnn_options *rnn, int64_t input, int64_t *parameters,
                                            char *formula, uint32_t room, unroll_error *err) {
  unroll_rnn_options o = {.struct_size = 0};
  if (!parameters)
    return fail(err, UNROLL_E_INVALID, "unroll_cost_of_rnn_parameters: parameters is NULL");
  TRY(take_options("unroll_cost_of_rnn_parameters", rnn, &o, err));
  if (input < 1)
    return fail(err, UNROLL_E_RANGE, "cost: inputs of %" PRId64 " numbers, expected at least 1", input);
  unroll_graph *g;
  TRY(unroll_graph_create(NULL, &g, err));
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){1, 1, input});
  unroll_output(unroll_rnn(x, NULL, &o, NULL, NULL), "y");
  unroll_cost cost = {.struct_size = sizeof cost};
  const unroll_status st = unroll_cost_of_graph(g, NULL, 0, &cost, err);
  unroll_graph_destroy(g);
  if (st != UNROLL_OK)
    return st;
  if (formula && room > 0) {
    struct text t;
    text_init(&t, NULL);
    write_formula(&o, &t);
    const char *text = text_peek(&t);
    size_t n = strlen(text);
    if (n >= room)
      for (n = room - 1; n > 0 && ((unsigned char)text[n] & 0xC0u) == 0x80u; n--) { /* no half of a character */
      }
    memcpy(formula, text, n);
    formula[n] = 0;
    const bool failed = t.failed;
    text_free(&t);
    if (failed)
      return fail(err, UNROLL_E_MEMORY, "cost: no memory for a formula");
  }
  *parameters = cost.parameters;
  return UNROLL_OK;
}

/* ---- memory ---- */

typedef struct memory_walk {
  cost_walk sum; /* for its overflow */
  const unroll_cost_memory_options *o;
  unroll_rnn_options rnn;
  int64_t width, heads; /* of the Transformer */
} memory_walk;

static void add_bytes(memory_walk *w, int64_t *to, uint64_t bytes, int64_t times) {
  w->sum.overflow = w->sum.overflow || bytes > INT64_MAX;
  cost_add(&w->sum, to, (int64_t)(bytes & INT64_MAX), times);
}

/* Plans of all layers and directions, over so many steps. */
static unroll_status add_plans(memory_walk *w, int64_t steps, const unroll_checkpoint_policy *policy, int64_t *all,
                               int64_t *planned, unroll_cost_memory *m, unroll_error *err) {
  const bool both = w->rnn.bidirectional;
  for (int32_t d = 0; d < (both ? 2 : 1); d++) {
    unroll_checkpoint_sizes z = {.struct_size = sizeof z};
    unroll_checkpoint_plan_info plan = {.struct_size = sizeof plan};
    TRY(unroll_rnn_checkpoint_sizes(&w->rnn, w->o->dtype, steps, w->o->batch, d, &z, err));
    unroll_checkpoint_policy own = *policy;
    if (both)
      own.bytes /= 2 * (uint64_t)w->rnn.layers;
    TRY(unroll_checkpoint_plan(&own, &z, &plan, err));
    add_bytes(w, all, plan.bytes_all, both ? w->rnn.layers : 1);
    if (!planned)
      continue;
    add_bytes(w, planned, plan.bytes, both ? w->rnn.layers : 1);
    m->checkpoint_interval = plan.segment < steps ? plan.segment : steps;
    m->checkpointed_steps = plan.forward_steps > m->checkpointed_steps ? plan.forward_steps : m->checkpointed_steps;
  }
  return UNROLL_OK;
}

/* T·B·n·(16e + 2) + a·T²·B·(2e + 1) bytes a layer */
static void transformer(memory_walk *w, unroll_cost_memory *m) {
  const int64_t e = unroll_dtype_size(w->o->dtype), layers = w->rnn.layers;
  const int64_t rows = cost_times(&w->sum, m->steps, w->o->batch);
  const int64_t scores = cost_times(&w->sum, cost_times(&w->sum, rows, m->steps), w->heads);
  cost_add(&w->sum, &m->attention, cost_times(&w->sum, scores, 2 * e + 1), layers);
  cost_add(&w->sum, &m->transformer, cost_times(&w->sum, cost_times(&w->sum, rows, w->width), 16 * e + 2), layers);
  cost_add(&w->sum, &m->transformer, m->attention, 1);
}

static unroll_status memory_of(memory_walk *w, unroll_cost_memory *m, unroll_error *err) {
  static const unroll_checkpoint_policy all = {.struct_size = sizeof all, .kind = UNROLL_CHECKPOINT_ALL},
                                        by_root = {.struct_size = sizeof by_root, .kind = UNROLL_CHECKPOINT_SQRT};
  const int64_t T = m->steps, k2 = w->o->k2 ? w->o->k2 : w->o->k1 > T ? w->o->k1 : T, k1 = w->o->k1 ? w->o->k1 : k2;
  if (T < 1)
    return fail(err, UNROLL_E_RANGE, "cost: T = %" PRId64 ", expected at least 1", T);
  if (k1 < 1 || k1 > k2)
    return fail(err, UNROLL_E_RANGE,
                "cost: truncated BPTT with k1 = %" PRId64 " and k2 = %" PRId64 ", expected 1 <= k1 <= k2", k1, k2);
  const int64_t window = k2 < T ? k2 : T;
  TRY(add_plans(w, T, w->o->checkpoint ? w->o->checkpoint : &by_root, &m->bptt, &m->checkpointed, m, err));
  TRY(add_plans(w, window, &all, &m->truncated, NULL, m, err));
  m->truncated_steps = window;
  if (window < T) /* one window more for each k1 steps, the last of them for what is left */
    cost_add(&w->sum, &m->truncated_steps, (T - window + k1 - 1) / k1, window);
  transformer(w, m);
  if (w->sum.overflow)
    return fail(err, UNROLL_E_RANGE, "cost: the bytes of %" PRId64 " steps don't fit into 64 bits", T);
  return UNROLL_OK;
}

unroll_status unroll_cost_of_memory(const unroll_cost_memory_options *options, const int64_t *steps, uint32_t n,
                                    unroll_cost_memory *memory, unroll_error *err) {
  memory_walk w = {.o = options};
  if (!options || !UNROLL_HAS(unroll_cost_memory_options, options, heads) || (n && (!steps || !memory)))
    return fail(err, UNROLL_E_INVALID, "unroll_cost_of_memory: %s",
                !options                                                 ? "options is NULL"
                : UNROLL_HAS(unroll_cost_memory_options, options, heads) ? "steps or memory is NULL"
                                                                         : "options.struct_size is too small");
  TRY(take_options("unroll_cost_of_memory", options->rnn, &w.rnn, err));
  if (n && memory->struct_size < UNROLL_SIZE_TO(unroll_cost_memory, checkpoint_interval))
    return fail(err, UNROLL_E_INVALID, "unroll_cost_of_memory: memory[0].struct_size is %u, expected at least %zu",
                memory->struct_size, UNROLL_SIZE_TO(unroll_cost_memory, checkpoint_interval));
  if (options->dtype != UNROLL_F32 && options->dtype != UNROLL_F64)
    return fail(err, UNROLL_E_INVALID, "cost: numbers of %s, expected f32 or f64", unroll_dtype_name(options->dtype));
  if (w.rnn.hidden < 1 || w.rnn.layers < 1 || w.rnn.hidden > INT64_MAX / 2)
    return fail(err, UNROLL_E_RANGE, "cost: %d layers of %" PRId64 " units, expected at least 1", w.rnn.layers,
                w.rnn.hidden);
  w.width = w.rnn.hidden * (w.rnn.bidirectional ? 2 : 1);
  w.heads = options->heads ? options->heads : w.width % 64 ? 1 : w.width / 64;
  if (w.heads < 1 || w.width % w.heads)
    return fail(err, UNROLL_E_RANGE, "cost: %" PRId64 " heads do not divide a width of %" PRId64, w.heads, w.width);
  const uint32_t stride = n ? memory->struct_size : 0;
  for (uint32_t i = 0; i < n; i++) {
    unroll_cost_memory m = {.struct_size = stride, .steps = steps[i]};
    TRY(memory_of(&w, &m, err));
    memcpy((char *)memory + (size_t)i * stride, &m, stride < sizeof m ? stride : sizeof m);
  }
  return UNROLL_OK;
}
