/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of what works on rows: softmax, losses, embeddings, selection of an index, random numbers, lengths. */
#include "conform/op_cases.h"
#include <math.h>
#include <stdio.h>

static void softmax(op_case_list *list, uint32_t op, op_shape x, op_fill fill, const char *note) {
  op_case *c = op_case_add(list, op, NULL, 0, "%ssoftmax %d of rank %d%s", op == UNROLL_OP_SOFTMAX ? "" : "log_",
                           (int)op_elements(x), (int)x.rank, note);
  op_in(c, OP_REAL, x, fill);
  op_out(c, OP_REAL, x);
  op_round(c, 10, (double)x.n[x.rank - 1]); /* exp, log or a quotient, and the sum */
}

static void cross_entropy(op_case_list *list, op_shape targets, int64_t v) {
  op_shape logits = targets;
  logits.n[logits.rank++] = v;
  for (int grad = 0; grad < 2; grad++) {
    op_case *c = op_case_add(list, grad ? UNROLL_OP_CROSS_ENTROPY_GRAD : UNROLL_OP_CROSS_ENTROPY, NULL, 0,
                             "cross_entropy%s %d rows of %d%s", grad ? "_grad" : "", (int)op_elements(targets), (int)v,
                             targets.rank ? "" : " scalar");
    op_in(c, OP_REAL, logits, FILL(FILL_UNIFORM, -3, 6));
    /* Below 0 is ignored; the loss of V and more is NaN. The gradient there is left open. */
    op_in(c, UNROLL_I32, targets, FILL(FILL_INTEGER, -2, (double)(grad ? v - 1 : v + 1)));
    if (grad)
      op_in(c, OP_REAL, targets, FILL_DEFAULT);
    op_out(c, OP_REAL, grad ? logits : targets);
    op_round(c, 12, (double)v);
  }
}

static void embedding(op_case_list *list, op_shape ids, int64_t v, int64_t e) {
  op_shape rows = ids;
  rows.n[rows.rank++] = e;
  for (int grad = 0; grad < 2; grad++) {
    op_case *c = op_case_add(list, grad ? UNROLL_OP_EMBEDDING_GRAD : UNROLL_OP_EMBEDDING, NULL, 0,
                             "embedding%s %d of %dx%d", grad ? "_grad" : "", (int)op_elements(ids), (int)v, (int)e);
    if (!grad)
      op_in(c, OP_REAL, SHAPE(v, e), FILL_DEFAULT);
    op_in(c, UNROLL_I32, ids, FILL(FILL_INTEGER, -1, (double)v));
    if (grad)
      op_in(c, OP_REAL, rows, FILL_DEFAULT);
    op_out(c, OP_REAL, grad ? SHAPE(v, e) : rows);
    if (grad)
      op_round(c, 2, (double)op_elements(ids));
  }
}

static void argmax(op_case_list *list, op_shape x, op_fill fill, const char *note) {
  op_case *c =
      op_case_add(list, UNROLL_OP_ARGMAX, NULL, 0, "argmax %d of rank %d%s", (int)op_elements(x), (int)x.rank, note);
  op_in(c, OP_REAL, x, fill);
  x.rank--;
  op_out(c, UNROLL_I32, x);
}

/* A sample is another one where the uniform number is as near to a boundary as rounding: the cases have none. */
static void categorical(op_case_list *list, int64_t b, int64_t v, int64_t top_k, double top_p, op_fill fill,
                        const char *note) {
  unroll_categorical_attr attr = {7, 0, top_k, top_p};
  char nucleus[24] = "";
  if (top_p > 0)
    (void)snprintf(nucleus, sizeof nucleus, " p %g", top_p);
  op_case *c = op_case_add(list, UNROLL_OP_CATEGORICAL, &attr, sizeof attr, "categorical %dx%d top %d%s%s", (int)b,
                           (int)v, (int)top_k, nucleus, note);
  op_in(c, OP_REAL, SHAPE(b, v), fill);
  op_out(c, UNROLL_I32, SHAPE(b));
  c->t0 = 11;
  c->row0 = 5;
}

/* Ids out of range on both sides, and some that come again and again. */
static void gather(op_case_list *list, op_shape x, int64_t m) {
  op_shape picked = x;
  picked.n[x.rank - 1] = m;
  const int64_t n = x.n[x.rank - 1];
  for (int grad = 0; grad < 2; grad++) {
    op_case *c =
        op_case_add(list, grad ? UNROLL_OP_GATHER_GRAD : UNROLL_OP_GATHER, NULL, 0, "gather%s %d from %d of rank %d",
                    grad ? "_grad" : "", (int)m, (int)op_elements(x), (int)x.rank);
    if (!grad)
      op_in(c, OP_REAL, x, FILL_DEFAULT);
    op_in(c, UNROLL_I32, picked, FILL(FILL_INTEGER, -1, (double)n));
    if (grad)
      op_in(c, OP_REAL, picked, FILL_DEFAULT);
    op_out(c, OP_REAL, grad ? x : picked);
    if (grad)
      op_round(c, 2, (double)m);
  }
}

static void top_k(op_case_list *list, op_shape x, int64_t k, op_fill fill, const char *note) {
  const unroll_top_k_attr attr = {k};
  op_case *c = op_case_add(list, UNROLL_OP_TOP_K, &attr, sizeof attr, "top_k %d of %d of rank %d%s", (int)k,
                           (int)op_elements(x), (int)x.rank, note);
  op_in(c, OP_REAL, x, fill);
  x.n[x.rank - 1] = k;
  op_out(c, OP_REAL, x);
  op_out(c, UNROLL_I32, x);
}

static void choices(op_case_list *list) {
  gather(list, SHAPE(7, 17), 5);
  gather(list, SHAPE(3, 7, 33), 65);
  gather(list, SHAPE(1), 1);
  gather(list, SHAPE(9), 1000);
  gather(list, SHAPE(65, 1), 3);
  gather(list, SHAPE(3, 2000), 7);
  gather(list, SHAPE(2, 1, 3, 5), 4);
  top_k(list, SHAPE(7, 17), 4, FILL_DEFAULT, "");
  top_k(list, SHAPE(3, 7, 33), 33, FILL_DEFAULT, "");
  top_k(list, SHAPE(1), 1, FILL_DEFAULT, "");
  top_k(list, SHAPE(257), 9, FILL_DEFAULT, "");
  top_k(list, SHAPE(65, 3), 2, FILL(FILL_INTEGER, 0, 2), " ties");
  top_k(list, SHAPE(3, 1000), 40, FILL(FILL_INTEGER, -9, 9), " ties");
  top_k(list, SHAPE(7, 65), 65, FILL(FILL_SPECIAL, 0.5, 4), " special");
  top_k(list, SHAPE(33, 9), 5, FILL(FILL_SPECIAL, 0.5, 4), " special");
  for (int values = 0; values < 2; values++) { /* one of the results alone */
    const unroll_top_k_attr attr = {3};
    op_case *c = op_case_add(list, UNROLL_OP_TOP_K, &attr, sizeof attr, "top_k 3 of 119 of rank 2 %s alone",
                             values ? "values" : "ids");
    op_in(c, OP_REAL, SHAPE(7, 17), FILL_DEFAULT);
    if (values) {
      op_out(c, OP_REAL, SHAPE(7, 3));
      op_no_out(c);
    } else {
      op_no_out(c);
      op_out(c, UNROLL_I32, SHAPE(7, 3));
    }
  }
}

/* Uniform numbers are the same bits everywhere. */
static void random_numbers(op_case_list *list, int32_t kind, op_shape y, int32_t time_axis) {
  const unroll_random_attr attr = {kind, time_axis, 4, 0};
  const int is_normal = kind == UNROLL_RANDOM_NORMAL, is_far = op_elements(y) % 2 == 0;
  op_case *c = op_case_add(list, UNROLL_OP_RANDOM, &attr, sizeof attr, "random %s %d of rank %d time axis %d",
                           is_normal ? "normal" : "uniform", (int)op_elements(y), (int)y.rank, (int)time_axis);
  op_out(c, OP_REAL, y);
  op_round(c, is_normal ? 4 : 0, 0);
  c->t0 = is_far ? 0x300000005 : 0;
  c->row0 = is_far ? 0 : 3;
  c->update = is_far ? 0 : 0x100000002;
}

static void dropout(op_case_list *list, op_shape x, double p, int32_t time_axis) {
  unroll_dropout_attr attr = {.p = p, .site = 3, .time_axis = time_axis};
  op_case *c = op_case_add(list, UNROLL_OP_DROPOUT, &attr, sizeof attr, "dropout %d of rank %d p %g time axis %d",
                           (int)op_elements(x), (int)x.rank, p, (int)time_axis);
  op_in(c, OP_REAL, x, FILL(FILL_NONZERO, 0.5, 2));
  op_out(c, OP_REAL, x);
  op_round(c, 3, 0);
  c->t0 = p < 0.5 ? 0 : 0x300000005;
  c->row0 = p < 0.5 ? 3 : 0;
  c->update = p < 0.5 ? 0x100000002 : 0;
}

static void length_mask(op_case_list *list, op_shape x, int has_other, int32_t invert) {
  unroll_length_mask_attr attr = {0, invert};
  op_case *c = op_case_add(list, UNROLL_OP_LENGTH_MASK, &attr, sizeof attr, "length_mask %d of rank %d%s%s",
                           (int)op_elements(x), (int)x.rank, has_other ? " other" : "", invert ? " invert" : "");
  op_in(c, OP_REAL, x, FILL_DEFAULT);
  if (has_other)
    op_in(c, OP_REAL, x, FILL_DEFAULT);
  else
    op_no_in(c);
  op_in(c, UNROLL_I32, SHAPE(x.n[1]), FILL(FILL_LENGTHS, 0, (double)x.n[0]));
  op_out(c, OP_REAL, x);
}

static void reverse(op_case_list *list, int32_t dtype, op_shape x, const char *note) {
  op_case *c =
      op_case_add(list, UNROLL_OP_REVERSE, NULL, 0, "reverse %d of rank %d%s", (int)op_elements(x), (int)x.rank, note);
  op_in(c, dtype, x, dtype == OP_REAL ? FILL_DEFAULT : FILL(FILL_INTEGER, 0, 1));
  op_in(c, UNROLL_I32, SHAPE(x.n[1]), FILL(FILL_LENGTHS, 0, (double)x.n[0]));
  op_out(c, dtype, x);
}

static void lengths(op_case_list *list) {
  const op_shape shapes[] = {SHAPE(5, 7, 17),   SHAPE(1, 1, 1),  SHAPE(7, 3),
                             SHAPE(3, 7, 2, 5), SHAPE(3, 5, 64), SHAPE(17, 3, 33)};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    for (int form = 0; form < 4; form++)
      length_mask(list, shapes[i], form & 1, form >> 1);
    reverse(list, OP_REAL, shapes[i], "");
    reverse(list, UNROLL_I32, shapes[i], " i32");
    reverse(list, UNROLL_BOOL, shapes[i], " bool");
  }
}

static void randoms(op_case_list *list) {
  for (int i = 0; i < 3; i++) {
    double p = (const double[]){0, 0.3, 0.9}[i];
    dropout(list, SHAPE(3, 17), p, -1);
    dropout(list, SHAPE(7, 1), p, -1);
    dropout(list, SHAPE(3, 2, 5), p, -1);
    dropout(list, SHAPE(3, 7, 33), p, 0);
    dropout(list, SHAPE(3, 7, 2, 3), p, 0);
    dropout(list, SHAPE(3, 2, 64), p, 0);
  }
  static const int64_t sizes[][3] = {{3, 7, 0},   {1, 1, 0},    {7, 17, 1},    {7, 17, 3}, {3, 65, 64},
                                     {33, 65, 0}, {3, 1000, 0}, {3, 1000, 40}, {1, 33, 33}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    categorical(list, sizes[i][0], sizes[i][1], sizes[i][2], 0, FILL(FILL_UNIFORM, -3, 2), "");
    categorical(list, sizes[i][0], sizes[i][1], sizes[i][2], 0, FILL(FILL_INTEGER, -1, 2), " ties");
    categorical(list, sizes[i][0], sizes[i][1], sizes[i][2], 0.9, FILL(FILL_UNIFORM, -3, 2), "");
    categorical(list, sizes[i][0], sizes[i][1], sizes[i][2], 0.3, FILL(FILL_INTEGER, -1, 2), " ties");
  }
  /* Enough rows that one tie too many is drawn; all alike: half of the mass is half of the ids, exactly. */
  categorical(list, 260, 9, 4, 0, FILL(FILL_INTEGER, -1, 2), " ties");
  categorical(list, 260, 9, 4, 0.6, FILL(FILL_INTEGER, -1, 2), " ties");
  categorical(list, 260, 8, 0, 0.5, FILL(FILL_INTEGER, 2, 2), " alike");
  categorical(list, 260, 9, 6, 0.5, FILL(FILL_INTEGER, 2, 2), " alike");
  categorical(list, 260, 17, 0, 0.7, FILL(FILL_MASKED, -3, 4), " masked");
  for (int32_t kind = 0; kind < UNROLL_RANDOM_COUNT; kind++) {
    random_numbers(list, kind, SHAPE(3, 17), -1);
    random_numbers(list, kind, SHAPE(7, 1), -1);
    random_numbers(list, kind, SHAPE(5), -1);
    random_numbers(list, kind, SHAPE(3, 2, 5), -1);
    random_numbers(list, kind, SHAPE(3, 7, 33), 0);
    random_numbers(list, kind, SHAPE(3, 7, 2, 3), 0);
    random_numbers(list, kind, SHAPE(5, 3), 0);
    random_numbers(list, kind, SHAPE(3, 2, 64), 0);
    random_numbers(list, kind, SHAPE(2, 3, 5000), 0);
  }
}

void op_cases_rows(op_case_list *list) {
  const op_shape shapes[] = {SHAPE(3, 7),  SHAPE(1),       SHAPE(17),    SHAPE(7, 33),   SHAPE(3, 64),
                             SHAPE(7, 65), SHAPE(3, 1000), SHAPE(65, 3), SHAPE(3, 7, 17)};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    for (uint32_t op = UNROLL_OP_SOFTMAX; op <= UNROLL_OP_LOG_SOFTMAX; op++) {
      softmax(list, op, shapes[i], FILL(FILL_UNIFORM, -4, 4), "");
      softmax(list, op, shapes[i], FILL(FILL_UNIFORM, 900, 1000), " large");
    }
    argmax(list, shapes[i], FILL_DEFAULT, "");
    argmax(list, shapes[i], FILL(FILL_INTEGER, 0, 2), " ties");
    argmax(list, shapes[i], FILL(FILL_SPECIAL, 0.5, 4), " special");
  }
  softmax(list, UNROLL_OP_SOFTMAX, SHAPE(7, 65), FILL(FILL_MASKED, -3, 4), " masked");
  softmax(list, UNROLL_OP_LOG_SOFTMAX, SHAPE(7, 65), FILL(FILL_MASKED, -3, 4), " masked");
  /* So far apart that the largest value of a row does not do for its neighbour, nor the largest but one for itself. */
  softmax(list, UNROLL_OP_SOFTMAX, SHAPE(130, 17), FILL(FILL_UNIFORM, -1e4, 1e4), " wide");
  softmax(list, UNROLL_OP_LOG_SOFTMAX, SHAPE(130, 17), FILL(FILL_UNIFORM, -1e4, 1e4), " wide");
  categorical(list, 130, 17, 0, 0, FILL(FILL_UNIFORM, -1e4, 1e4), " wide");
  const op_shape rows[] = {SHAPE(7), SHAPE(1), SHAPE(5, 3), SHAPE(65), SCALAR};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    for (int j = 0; j < 4; j++)
      cross_entropy(list, rows[i], (const int64_t[]){7, 1, 65, 300}[j]);
  embedding(list, SHAPE(7), 5, 3);
  embedding(list, SHAPE(1), 1, 1);
  embedding(list, SHAPE(5, 3), 17, 33);
  embedding(list, SHAPE(33, 7), 3, 65);
  embedding(list, SHAPE(3000), 65, 4);
  embedding(list, SHAPE(9), 5, 32); /* rows of whole vectors */
  embedding(list, SCALAR, 7, 17);
  randoms(list);
  choices(list);
  lengths(list);
}
