/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of the pointwise half of the cells, forward and backward, and of the optimizers. */
#include "conform/op_cases.h"

#define PRE \
  { FILL_UNIFORM, -3, 4 }
#define GATE \
  { FILL_UNIFORM, 0, 1 }
#define STATE \
  { FILL_UNIFORM, -1, 1 }

/*
 * Roundings of a cell, all values being of the order of 1: a sigmoid is exp 3, sum and quotient 3; c two products of a gate
 * with a state or a tanh 5, so 13; h = σ(o)·tanh(c) adds the 6 of σ(o), 5 of tanh and half of the product. The
 * derivatives pass each of these on with a factor below 1 and add three products.
 */
enum { CELL_ROUNDINGS = 28 };

typedef struct edge {
  int32_t width; /* rows of [B, width·H]; 0: absent */
  op_fill fill;
} edge;

/* One cell op: inputs and outputs [B, width·H]; absent is a mask of what is left out, outputs above the inputs. */
static op_case *cell(op_case_list *list, uint32_t op, const char *name, const edge *in, uint32_t n_in,
                     const int32_t *out, uint32_t n_out, int64_t b, int64_t h, uint32_t absent) {
  op_case *c = op_case_add(list, op, NULL, 0, "%s %dx%d absent %x", name, (int)b, (int)h, (unsigned)absent);
  for (uint32_t i = 0; i < n_in; i++)
    if (absent >> i & 1)
      op_no_in(c);
    else
      op_in(c, OP_REAL, SHAPE(b, in[i].width * h), in[i].fill);
  for (uint32_t i = 0; i < n_out; i++)
    if (absent >> (n_in + i) & 1)
      op_no_out(c);
    else
      op_out(c, OP_REAL, SHAPE(b, out[i] * h));
  op_round(c, CELL_ROUNDINGS, 0);
  return c;
}

static const struct {
  uint32_t op;
  const char *name;
  uint32_t n_in, n_out;
  edge in[4];
  int32_t out[3];
  uint32_t optional[5]; /* masks for `absent`, after 0: inputs that are optional, then outputs that nobody reads */
} cells[] = {
    {UNROLL_OP_LSTM_GATES, "lstm_gates", 2, 3, {{4, PRE}, {1, STATE}}, {1, 1, 4}, {16, 4, 8, 20, 24}},
    {UNROLL_OP_LSTM_GATES_GRAD,
     "lstm_gates_grad",
     4,
     2,
     {{4, GATE}, {1, STATE}, {1, STATE}, {1, STATE}},
     {4, 1},
     {4, 8, 32, 16, 0}},
    {UNROLL_OP_GRU_AFTER_GATES, "gru_after_gates", 3, 2, {{3, PRE}, {3, STATE}, {1, STATE}}, {1, 4}, {16, 8, 0, 0, 0}},
    {UNROLL_OP_GRU_AFTER_GATES_GRAD,
     "gru_after_gates_grad",
     3,
     3,
     {{4, GATE}, {1, STATE}, {1, STATE}},
     {3, 3, 1},
     {8, 16, 32, 40, 0}},
    {UNROLL_OP_GRU_RESET, "gru_reset", 2, 2, {{2, PRE}, {1, STATE}}, {2, 1}, {4, 8, 0, 0, 0}},
    {UNROLL_OP_GRU_RESET_GRAD,
     "gru_reset_grad",
     4,
     2,
     {{2, GATE}, {1, STATE}, {2, STATE}, {1, STATE}},
     {2, 1},
     {4, 8, 16, 32, 0}},
    {UNROLL_OP_GRU_UPDATE, "gru_update", 3, 2, {{1, PRE}, {2, GATE}, {1, STATE}}, {1, 1}, {16, 8, 0, 0, 0}},
    {UNROLL_OP_GRU_UPDATE_GRAD,
     "gru_update_grad",
     4,
     3,
     {{2, GATE}, {1, STATE}, {1, STATE}, {1, STATE}},
     {1, 2, 1},
     {16, 32, 64, 48, 0}},
};

static void all_cells(op_case_list *list) {
  static const int64_t sizes[][2] = {{3, 7}, {1, 1}, {1, 33}, {7, 3}, {7, 17}, {3, 64}, {7, 65}, {33, 130}};
  for (size_t k = 0; k < sizeof cells / sizeof *cells; k++) {
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      cell(list, cells[k].op, cells[k].name, cells[k].in, cells[k].n_in, cells[k].out, cells[k].n_out, sizes[s][0],
           sizes[s][1], 0);
    for (uint32_t i = 0; i < 5 && cells[k].optional[i]; i++)
      for (size_t s = 0; s < 5; s += 4)
        cell(list, cells[k].op, cells[k].name, cells[k].in, cells[k].n_in, cells[k].out, cells[k].n_out, sizes[s][0],
             sizes[s][1], cells[k].optional[i]);
  }
}

static void optimizer(op_case_list *list, unroll_optimizer_attr attr, op_shape shape, int32_t step, int has_scale,
                      int has_s1, int in_place, const char *name) {
  int has_s2 = attr.kind == UNROLL_ADAM || attr.kind == UNROLL_ADAMW;
  op_case *c = op_case_add(list, UNROLL_OP_OPTIMIZER, &attr, sizeof attr, "optimizer %s %d step %d decay %g%s%s%s",
                           name, (int)op_elements(shape), (int)step, attr.weight_decay, has_scale ? " scale" : "",
                           has_s1 ? "" : " no s1", in_place ? " in place" : "");
  uint32_t param = op_in(c, OP_REAL, shape, FILL_DEFAULT);
  op_in(c, OP_REAL, shape, FILL_DEFAULT);
  op_in(c, OP_REAL, SCALAR, FILL(FILL_UNIFORM, 0.01, 0.02));
  op_in(c, UNROLL_I32, SCALAR, FILL(FILL_INTEGER, step, step));
  if (has_scale)
    op_in(c, OP_REAL, SCALAR, FILL(FILL_UNIFORM, 0.25, 0.75));
  else
    op_no_in(c);
  uint32_t state[2] = {UNROLL_NO_TENSOR, UNROLL_NO_TENSOR};
  for (int i = 0; i < 2; i++)
    if (i ? has_s2 : has_s1) /* a second moment is not negative */
      state[i] =
          op_in(c, OP_REAL, shape, i || attr.kind == UNROLL_RMSPROP ? FILL(FILL_UNIFORM, 0.01, 1) : FILL_DEFAULT);
    else
      op_no_in(c);
  if (in_place)
    op_out_over(c, param);
  else
    op_out(c, OP_REAL, shape);
  for (int i = 0; i < 2; i++)
    if (state[i] == UNROLL_NO_TENSOR)
      op_no_out(c);
    else if (in_place)
      op_out_over(c, state[i]);
    else
      op_out(c, OP_REAL, shape);
  op_round(c, 16, 0); /* square root 3, quotient 2.5, and a dozen sums and products */
}

static void optimizers(op_case_list *list) {
  static const char *const names[] = {
#define NAME(name, value, text) text,
      UNROLL_OPTIMIZERS(NAME)
#undef NAME
  };
  for (int32_t kind = 0; kind < UNROLL_OPTIMIZER_COUNT; kind++)
    for (int i = 0; i < 8; i++) {
      unroll_optimizer_attr attr = {kind, 0, 0.9, 0.99, 1e-6, i & 1 ? 0.1 : 0};
      op_shape shape = i < 4 ? SHAPE(7, 33) : i == 4 ? SHAPE(1) : i == 5 ? SHAPE(65) : SHAPE(3, 17, 5);
      optimizer(list, attr, shape, (const int32_t[]){1, 2, 10, 1000}[i & 3], i >> 1 & 1, 1, i >= 3, names[kind]);
      if (kind == UNROLL_SGD) {
        attr.beta1 = 0;
        optimizer(list, attr, shape, 3, i >> 1 & 1, 0, i >= 3, names[kind]);
      }
    }
}

void op_cases_cells(op_case_list *list) {
  all_cells(list);
  optimizers(list);
}
