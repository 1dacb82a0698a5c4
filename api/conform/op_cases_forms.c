/* SPDX-License-Identifier: Apache-2.0 */
/* Templates, recurrences over a range of t, run-time sizes, and two nodes. */
#include "conform/op_cases.h"
#include <string.h>

#define ALL 0xFFFFFFFFu

/* Random positions and masks count t themselves, a template over their time axis has no meaning: those stand by themselves. */
static int has_own_time(const op_case *c) {
  uint32_t op = c->nodes[0].op;
  return (op == UNROLL_OP_DROPOUT && c->nodes[0].attr.dropout.time_axis == 0) ||
         (op == UNROLL_OP_RANDOM && c->nodes[0].attr.random.time_axis == 0) || op == UNROLL_OP_LENGTH_MASK;
}

/* The first few cases of each op as steps: all tensors stepped, or every second input the same at all steps. */
static void derive_templates(op_case_list *list) {
  uint32_t n = list->n, seen[UNROLL_OP_END] = {0};
  for (uint32_t i = 0; i < n; i++) {
    op_case from = list->cases[i];
    uint32_t op = from.nodes[0].op;
    if (has_own_time(&from) || from.n_tensors > from.n_storages || seen[op] == 4)
      continue;
    uint32_t form = seen[op]++, stepped = 0;
    op_case *c = op_case_add(list, op, NULL, 0, "template %u %.80s", (unsigned)form, from.name);
    memcpy(from.name, c->name, sizeof from.name);
    *c = from;
    if (form == 0)
      op_template(c, 5, 0, 5, UNROLL_FORWARD);
    else if (form == 1)
      op_template(c, 5, 4, 5, UNROLL_REVERSE);
    else if (form == 2)
      op_template(c, 5, 1, 3, UNROLL_FORWARD);
    else
      op_template(c, 5, 3, 2, UNROLL_REVERSE);
    for (uint32_t t = 0; t < c->n_tensors; t++)
      if (!c->tensors[t].is_input || form < 2 || t % 2 == 0)
        stepped |= 1u << t;
    op_stepped(c, stepped);
  }
}

static void whole_steps(op_case_list *list) {
  for (int32_t direction = UNROLL_FORWARD; direction <= UNROLL_REVERSE; direction++)
    for (int form = 0; form < 4; form++) {
      unroll_length_mask_attr mask = {-1, form >> 1};
      op_case *c = op_case_add(list, UNROLL_OP_LENGTH_MASK, &mask, sizeof mask, "template length_mask%s%s%s",
                               form & 1 ? " other" : "", form >> 1 ? " invert" : "", direction ? " reverse" : "");
      op_in(c, OP_REAL, SHAPE(7, 17), FILL_DEFAULT);
      if (form & 1)
        op_in(c, OP_REAL, SHAPE(7, 17), FILL_DEFAULT);
      else
        op_no_in(c);
      uint32_t lengths = op_in(c, UNROLL_I32, SHAPE(7), FILL(FILL_LENGTHS, 0, 6));
      op_out(c, OP_REAL, SHAPE(7, 17));
      op_template(c, 6, direction ? 4 : 1, 4, direction);
      op_stepped(c, ALL & ~(1u << lengths));
      c->whole = 1;
      unroll_dropout_attr dropout = {.p = 0.4, .site = 9, .time_axis = -1};
      c = op_case_add(list, UNROLL_OP_DROPOUT, &dropout, sizeof dropout, "template dropout whole %d%s", form,
                      direction ? " reverse" : "");
      op_shape x = form & 1 ? SHAPE(7, 17) : SHAPE(3, 5, 2);
      op_in(c, OP_REAL, x, FILL(FILL_NONZERO, 0.5, 2));
      op_out(c, OP_REAL, x);
      op_template(c, 6, direction ? 5 : 0, form < 2 ? 6 : 3, direction);
      op_stepped(c, ALL);
      op_round(c, 3, 0);
      c->whole = 1;
      c->t0 = form < 2 ? 0 : 40;
      c->row0 = form;
      unroll_random_attr random = {form & 1 ? UNROLL_RANDOM_NORMAL : UNROLL_RANDOM_UNIFORM, -1, 9, 0};
      c = op_case_add(list, UNROLL_OP_RANDOM, &random, sizeof random, "template random whole %d%s", form,
                      direction ? " reverse" : "");
      op_out(c, OP_REAL, x);
      op_template(c, 6, direction ? 5 : 0, form < 2 ? 6 : 3, direction);
      op_stepped(c, ALL);
      op_round(c, 4, 0);
      c->whole = 1;
      c->t0 = form < 2 ? 0 : 40;
      c->row0 = form;
    }
}

/* What a host unrolls: acc_t = acc_{t-1} + x_t, lstm_gates with its cell state, and a whole step of two nodes. */
static void recurrences(op_case_list *list, int32_t direction, int is_kept, int64_t b, int64_t h) {
  const char *way = direction ? "reverse" : "forward", *place = is_kept ? "kept" : "in turns";
  int64_t steps = 7, first = direction ? 5 : 1, count = 5;
  uint32_t all_but[] = {0, 0};
  unroll_binary_attr add = {UNROLL_ADD, 0};
  op_case *c =
      op_case_add(list, UNROLL_OP_BINARY, &add, sizeof add, "recurrence add %dx%d %s %s", (int)b, (int)h, way, place);
  uint32_t state = op_in(c, OP_REAL, SHAPE(b, h), FILL_DEFAULT);
  op_in(c, OP_REAL, SHAPE(b, h), FILL_DEFAULT);
  uint32_t next = op_out(c, OP_REAL, SHAPE(b, h));
  op_template(c, steps, first, count, direction);
  op_stepped(c, ALL & ~(1u << state) & ~(1u << next));
  op_carry(c, state, next, is_kept);
  op_round(c, (double)steps, 0);

  c = op_case_add(list, UNROLL_OP_LSTM_GATES, NULL, 0, "recurrence lstm_gates %dx%d %s %s", (int)b, (int)h, way, place);
  op_in(c, OP_REAL, SHAPE(b, 4 * h), FILL(FILL_UNIFORM, -3, 4));
  state = op_in(c, OP_REAL, SHAPE(b, h), FILL(FILL_UNIFORM, -1, 1));
  op_out(c, OP_REAL, SHAPE(b, h));
  next = op_out(c, OP_REAL, SHAPE(b, h));
  op_out(c, OP_REAL, SHAPE(b, 4 * h));
  op_template(c, steps, first, count, direction);
  op_stepped(c, ALL & ~(1u << state) & ~(1u << next));
  op_carry(c, state, next, is_kept);
  op_round(c, 28 * (double)steps, 0);

  const unroll_layer_norm_attr norm = {.epsilon = 1e-2};
  c = op_case_add(list, UNROLL_OP_LSTM_GATES, &norm, sizeof norm, "recurrence lstm_gates normalised %dx%d %s %s",
                  (int)b, (int)h, way, place);
  op_in(c, OP_REAL, SHAPE(b, 4 * h), FILL(FILL_UNIFORM, -3, 4));
  state = op_in(c, OP_REAL, SHAPE(b, h), FILL(FILL_UNIFORM, -1, 1));
  const uint32_t gain = op_in(c, OP_REAL, SHAPE(h), FILL(FILL_UNIFORM, 0.3, 1.2));
  const uint32_t shift = op_in(c, OP_REAL, SHAPE(h), FILL_DEFAULT);
  op_out(c, OP_REAL, SHAPE(b, h));
  next = op_out(c, OP_REAL, SHAPE(b, h));
  op_no_out(c);
  op_template(c, steps, first, count, direction);
  op_stepped(c, ALL & ~(1u << state | 1u << next | 1u << gain | 1u << shift));
  op_carry(c, state, next, is_kept);
  op_round(c, 56 * (double)steps, (double)h);

  unroll_matmul_attr product = {.trans_a = 0, .trans_b = 1};
  c = op_case_add(list, UNROLL_OP_MATMUL, &product, sizeof product, "recurrence lstm step %dx%d %s %s", (int)b, (int)h,
                  way, place);
  uint32_t h_prev = op_in(c, OP_REAL, SHAPE(b, h), FILL(FILL_UNIFORM, -1, 1));
  all_but[0] = op_in(c, OP_REAL, SHAPE(4 * h, h), FILL(FILL_UNIFORM, -0.1, 0.2));
  op_in(c, OP_REAL, SHAPE(b, 4 * h), FILL(FILL_UNIFORM, -1, 1));
  all_but[1] = op_out(c, OP_REAL, SHAPE(b, 4 * h));
  op_case_node(c, UNROLL_OP_LSTM_GATES, NULL, 0);
  op_in_of(c, all_but[1]);
  state = op_in(c, OP_REAL, SHAPE(b, h), FILL(FILL_UNIFORM, -1, 1));
  uint32_t h_next = op_out(c, OP_REAL, SHAPE(b, h));
  next = op_out(c, OP_REAL, SHAPE(b, h));
  op_no_out(c);
  op_template(c, steps, first, count, direction);
  op_stepped(c, 1u << 2);
  op_carry(c, h_prev, h_next, is_kept);
  op_carry(c, state, next, is_kept);
  op_round(c, 30 * (double)steps, (double)(steps * h));
}

/* Neighbours in a step that a backend may run as one: a sum and what reads it, a norm and its activation. */
static void joined(op_case_list *list, int32_t direction, op_shape x) {
  const char *way = direction ? "reverse" : "forward";
  const unroll_binary_attr add = {UNROLL_ADD, 0};
  const int64_t steps = 6, first = direction ? 4 : 1, count = 4, H = x.n[1];
  for (int32_t kind = UNROLL_TANH_GRAD; kind <= UNROLL_RELU_GRAD; kind++) {
    const unroll_binary_attr slope = {kind, 0};
    op_case *c = op_case_add(list, UNROLL_OP_BINARY, &add, sizeof add, "joined add and slope %d %d %s", (int)kind,
                             (int)op_elements(x), way);
    op_in(c, OP_REAL, x, FILL_DEFAULT);
    op_in(c, OP_REAL, x, FILL_DEFAULT);
    const uint32_t sum = op_out(c, OP_REAL, x);
    op_case_node(c, UNROLL_OP_BINARY, &slope, sizeof slope);
    op_in_of(c, sum);
    op_in(c, OP_REAL, x, FILL(FILL_UNIFORM, -0.9, 0.9));
    op_out(c, OP_REAL, x);
    op_template(c, steps, first, count, direction);
    op_stepped(c, ALL & ~(1u << sum));
    op_round(c, 6, 0);
  }
  const struct {
    uint32_t op, n_in, n_out, dh;
    int32_t in[4], out[3];
  } gates[] = {{UNROLL_OP_LSTM_GATES_GRAD, 4, 2, 2, {4, 1, 1, 1}, {4, 1}},
               {UNROLL_OP_GRU_AFTER_GATES_GRAD, 3, 3, 2, {4, 1, 1}, {3, 3, 1}},
               {UNROLL_OP_GRU_UPDATE_GRAD, 4, 3, 3, {2, 1, 1, 1}, {1, 2, 1}}};
  for (int k = 0; k < 3; k++) {
    op_case *c = op_case_add(list, UNROLL_OP_BINARY, &add, sizeof add, "joined add and gates %d %d %s", k,
                             (int)op_elements(x), way);
    op_in(c, OP_REAL, x, FILL(FILL_UNIFORM, -1, 1));
    op_in(c, OP_REAL, x, FILL(FILL_UNIFORM, -0.5, 1));
    const uint32_t sum = op_out(c, OP_REAL, x);
    op_case_node(c, gates[k].op, NULL, 0);
    for (uint32_t i = 0; i < gates[k].n_in; i++)
      if (i == gates[k].dh)
        op_in_of(c, sum);
      else
        op_in(c, OP_REAL, SHAPE(x.n[0], gates[k].in[i] * H), FILL(FILL_UNIFORM, i ? -1 : 0, 1));
    for (uint32_t i = 0; i < gates[k].n_out; i++)
      op_out(c, OP_REAL, SHAPE(x.n[0], gates[k].out[i] * H));
    op_template(c, steps, first, count, direction);
    op_stepped(c, ALL & ~(1u << sum));
    op_round(c, 30, 0);
  }
  const int32_t activations[] = {UNROLL_TANH, UNROLL_SIGMOID, UNROLL_RELU};
  for (int k = 0; k < 3; k++) {
    const unroll_layer_norm_attr norm = {.epsilon = 1e-3};
    const unroll_unary_attr after = {activations[k], 0};
    op_case *c =
        op_case_add(list, UNROLL_OP_LAYER_NORM, &norm, sizeof norm, "joined layer_norm and activation %d %d %s",
                    (int)activations[k], (int)op_elements(x), way);
    op_in(c, OP_REAL, x, FILL(FILL_UNIFORM, -3, 4));
    const uint32_t gain = op_in(c, OP_REAL, SHAPE(H), FILL(FILL_UNIFORM, 0.3, 1.2));
    op_in(c, OP_REAL, x, FILL_DEFAULT);
    const uint32_t y = op_out(c, OP_REAL, x);
    op_case_node(c, UNROLL_OP_UNARY, &after, sizeof after);
    op_in_of(c, y);
    op_out(c, OP_REAL, x);
    op_template(c, steps, first, count, direction);
    op_stepped(c, ALL & ~(1u << gain | 1u << y));
    op_round(c, 24, (double)H);
  }
}

static void two_nodes(op_case_list *list) {
  for (int i = 0; i < 4; i++) {
    op_shape x = (const op_shape[]){SHAPE(7, 17), SHAPE(1), SHAPE(3, 7, 65), SHAPE(33, 64)}[i];
    unroll_unary_attr unary = {i & 1 ? UNROLL_TANH : UNROLL_SQUARE, 0};
    unroll_binary_attr binary = {i & 1 ? UNROLL_SUB : UNROLL_MUL, 0};
    op_case *c = op_case_add(list, UNROLL_OP_UNARY, &unary, sizeof unary, "unary then binary %d", (int)op_elements(x));
    op_in(c, OP_REAL, x, FILL_DEFAULT);
    uint32_t y = op_out(c, OP_REAL, x);
    op_case_node(c, UNROLL_OP_BINARY, &binary, sizeof binary);
    op_in_of(c, y);
    op_in(c, OP_REAL, x, FILL_DEFAULT);
    op_out(c, OP_REAL, x);
    op_round(c, 8, 0);
  }
}

/*
 * Cases of the list again with a run-time size of axis 0: which of the tensors have it, and the maximum for which the extent
 * of axis 0 is a multiple.
 */
static void derive_dynamic(op_case_list *list) {
  static const struct {
    uint32_t op, tensors;
    const char *name; /* of the case */
    int64_t max, now[2];
  } forms[] = {
      {UNROLL_OP_MATMUL, 1 | 4, "matmul rank 2 y 65x65 k 65", 65, {1, 33}},
      {UNROLL_OP_MATMUL, 1 | 4 | 8, "matmul rank 2 y 3x33 k 7 + c", 3, {1, 2}},
      {UNROLL_OP_MATMUL, 1 | 8, "matmul rank 3 y 15x7 k 17 + row", 5, {1, 3}},
      {UNROLL_OP_MATMUL, 1 | 2, "matmul rank 2 y 66x130 k 258 trans_a", 129, {1, 77}},
      {UNROLL_OP_MATMUL, 1 | 2 | 4, "matmul rank 3 y 231x9 k 17", 7, {1, 5}},
      {UNROLL_OP_MATMUL, 1 | 2 | 4, "matmul rank 3 y 51x33 k 5", 3, {1, 2}},
      {UNROLL_OP_UNARY, ALL, "unary tanh 455 of rank 2", 7, {1, 5}},
      {UNROLL_OP_BINARY, 1 | 4, "binary sub row", 7, {1, 5}},
      {UNROLL_OP_BINARY, ALL, "binary div column", 7, {1, 5}},
      {UNROLL_OP_BINARY, 2 | 4, "binary mul row left", 3, {1, 2}},
      {UNROLL_OP_BINARY, 1 | 4, "binary lt mixed ranks", 3, {1, 2}},
      {UNROLL_OP_REDUCE, 1, "reduce sum 105 of rank 3 axes 1", 3, {1, 2}},
      {UNROLL_OP_REDUCE, 1, "reduce sum_squares 105 of rank 3 axes 7", 3, {1, 2}},
      {UNROLL_OP_REDUCE, 1, "reduce max 105 of rank 3 axes 5 keep", 3, {1, 2}},
      {UNROLL_OP_REDUCE, 1 | 2, "reduce sum 105 of rank 3 axes 6", 3, {1, 2}},
      {UNROLL_OP_REDUCE, 1, "reduce sum 20011 of rank 1 axes 1", 20011, {1, 12345}},
      {UNROLL_OP_SOFTMAX, ALL, "softmax 455 of rank 2", 7, {1, 5}},
      {UNROLL_OP_LOG_SOFTMAX, ALL, "log_softmax 357 of rank 3", 3, {1, 2}},
      {UNROLL_OP_CROSS_ENTROPY, ALL, "cross_entropy 15 rows of 65", 5, {1, 3}},
      {UNROLL_OP_CROSS_ENTROPY_GRAD, ALL, "cross_entropy_grad 15 rows of 65", 5, {1, 3}},
      {UNROLL_OP_EMBEDDING, 2 | 4, "embedding 15 of 17x33", 5, {1, 3}},
      {UNROLL_OP_EMBEDDING_GRAD, 1 | 2, "embedding_grad 231 of 3x65", 33, {1, 17}},
      {UNROLL_OP_SLICE, ALL, "slice 357 of rank 3 axis 2 from 1", 3, {1, 2}},
      {UNROLL_OP_PAD, ALL, "pad 357 of rank 3 axis 1 by 2 3", 3, {1, 2}},
      {UNROLL_OP_CONCAT, ALL, "concat 2 from 105 of rank 3 axis 1", 3, {1, 2}},
      {UNROLL_OP_TRANSPOSE, ALL, "transpose 105 by 021", 3, {1, 2}},
      {UNROLL_OP_TRANSPOSE, ALL, "transpose 630 by 0213", 3, {1, 2}},
      {UNROLL_OP_TRANSPOSE, ALL, "transpose 1260 by 03214", 3, {1, 2}},
      {UNROLL_OP_REVERSE, 1 | 4, "reverse 595 of rank 3", 5, {1, 3}},
      {UNROLL_OP_SELECT, ALL, "select 119 119 119", 7, {1, 5}},
      {UNROLL_OP_CAST, ALL, "cast f32 to i32", 7, {1, 5}},
      {UNROLL_OP_CONSTANT, ALL, "constant 2.75 119 of rank 2", 7, {1, 5}},
      {UNROLL_OP_DROPOUT, ALL, "dropout 693 of rank 3 p 0.3 time axis 0", 3, {1, 2}},
      {UNROLL_OP_RANDOM, ALL, "random uniform 693 of rank 3 time axis 0", 3, {1, 2}},
      {UNROLL_OP_RANDOM, ALL, "random normal 51 of rank 2 time axis -1", 3, {1, 2}},
      {UNROLL_OP_GATHER, ALL, "gather 65 from 693 of rank 3", 3, {1, 2}},
      {UNROLL_OP_GATHER_GRAD, ALL, "gather_grad 5 from 119 of rank 2", 7, {1, 5}},
      {UNROLL_OP_TOP_K, ALL, "top_k 4 of 119 of rank 2", 7, {1, 5}},
      {UNROLL_OP_ARGMAX, ALL, "argmax 455 of rank 2", 7, {1, 5}},
      {UNROLL_OP_CATEGORICAL, ALL, "categorical 7x17 top 3", 7, {1, 5}},
      {UNROLL_OP_CATEGORICAL, ALL, "categorical 7x17 top 3 p 0.9", 7, {1, 5}},
      {UNROLL_OP_LINEAR_SCAN, 1 | 2 | 8, "linear_scan 5x119 of rank 3", 5, {1, 3}},
      {UNROLL_OP_LINEAR_SCAN, 1 | 2 | 16, "linear_scan 257x6 of rank 3 reverse lengths", 257, {1, 130}},
      {UNROLL_OP_LINEAR_SCAN, 1 | 2 | 8, "linear_scan 300x1 of rank 2", 300, {1, 129}},
      {UNROLL_OP_LINEAR_SCAN_GRAD,
       1 | 2 | 8 | 64 | 128,
       "linear_scan_grad 257x6 of rank 3 reverse lengths",
       257,
       {1, 130}},
      {UNROLL_OP_LINEAR_SCAN_GRAD, 1 | 2 | 8 | 32 | 64, "linear_scan_grad 300x1 of rank 2", 300, {1, 129}},
      {UNROLL_OP_LAYER_NORM, 1 | 8, "layer_norm 357 of rank 3 row", 3, {1, 2}},
      {UNROLL_OP_LAYER_NORM, 1 | 4 | 8, "layer_norm 231 of rank 2 full", 7, {1, 5}},
      {UNROLL_OP_LAYER_NORM_GRAD, 1 | 4 | 8, "layer_norm_grad 231 of rank 2 all", 7, {1, 5}},
      {UNROLL_OP_LAYER_NORM_GRAD,
       1 | 4 | 32,
       "layer_norm_grad 4420 of rank 3 dgain dshift blocks of 8 from first",
       65,
       {1, 33}},
      {UNROLL_OP_LSTM_GATES, 1 | 2 | 16 | 32 | 64, "lstm_gates 7x17 normalised absent 0", 7, {1, 5}},
      {UNROLL_OP_LSTM_GATES_GRAD,
       1 | 2 | 4 | 8 | 64 | 128,
       "lstm_gates_grad 7x17 normalised dgain dshift absent 0",
       7,
       {1, 5}},
      {UNROLL_OP_LENGTH_MASK, 1 | 2 | 8, "length_mask 595 of rank 3 other", 5, {1, 3}},
      {UNROLL_OP_LSTM_GATES, ALL, "lstm_gates 7x17 absent 0", 7, {1, 5}},
      {UNROLL_OP_LSTM_GATES_GRAD, ALL, "lstm_gates_grad 7x17 absent 0", 7, {1, 5}},
      {UNROLL_OP_GRU_AFTER_GATES, ALL, "gru_after_gates 7x17 absent 0", 7, {1, 5}},
      {UNROLL_OP_GRU_AFTER_GATES_GRAD, ALL, "gru_after_gates_grad 7x17 absent 0", 7, {1, 5}},
      {UNROLL_OP_GRU_RESET, ALL, "gru_reset 7x17 absent 0", 7, {1, 5}},
      {UNROLL_OP_GRU_RESET_GRAD, ALL, "gru_reset_grad 7x17 absent 0", 7, {1, 5}},
      {UNROLL_OP_GRU_UPDATE, ALL, "gru_update 7x17 absent 0", 7, {1, 5}},
      {UNROLL_OP_GRU_UPDATE_GRAD, ALL, "gru_update_grad 7x17 absent 0", 7, {1, 5}},
  };
  for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
    uint32_t i = 0;
    while (i < list->n && strcmp(list->cases[i].name, forms[f].name) != 0)
      i++;
    op_case from = {.n_nodes = 0}; /* a name that is not there: the case fails, having no node */
    if (i < list->n)
      from = list->cases[i];
    for (int now = 0; now < 3; now++) {
      op_case *c = op_case_add(list, forms[f].op, NULL, 0, "run-time size %d %.90s",
                               (int)(now < 2 ? forms[f].now[now] : forms[f].max), forms[f].name);
      memcpy(from.name, c->name, sizeof from.name);
      *c = from;
      op_dynamic(c, forms[f].max, now < 2 ? forms[f].now[now] : forms[f].max, forms[f].tensors);
      for (uint32_t s = 0; s < c->n_storages; s++)
        if (c->storages[s].fill.kind == FILL_LENGTHS)
          c->storages[s].fill.hi = (double)c->dim;
    }
  }
}

void op_cases_forms(op_case_list *list) {
  derive_dynamic(list);
  derive_templates(list);
  whole_steps(list);
  for (int form = 0; form < 4; form++) {
    recurrences(list, form & 1, form >> 1, 3, 7);
    recurrences(list, form & 1, form >> 1, 7, 33);
  }
  for (int32_t direction = UNROLL_FORWARD; direction <= UNROLL_REVERSE; direction++) {
    joined(list, direction, SHAPE(7, 17));
    joined(list, direction, SHAPE(3, 64));
  }
  two_nodes(list);
}
