/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear ops on whole numbers of -4..4: every intermediate result is a number of f32 whatever the order of sums, so
 * device and reference must agree bit by bit, and a single product too many, too few or at the wrong place shows. What
 * moves, chooses or masks is compared so in op_cases_moves.c and op_cases_rows.c anyway.
 */
#include "conform/op_cases.h"

#define WHOLE FILL(FILL_INTEGER, -4, 4)

static const char *const transposed[] = {"", " trans_a", " trans_b", " trans_a trans_b"};
static const char *const addends[] = {"", " + c", " + row"};

/* trans: bit 0 a, bit 1 b; form: no c, c of y's shape, a row; p: the batch of rank 3, 0 for rank 2 */
static op_case *matmul(op_case_list *list, const char *name, int64_t p, int64_t m, int64_t k, int64_t n, uint32_t trans,
                       uint32_t form) {
  const unroll_matmul_attr attr = {.trans_a = (int32_t)(trans & 1), .trans_b = (int32_t)(trans >> 1)};
  const int64_t a[2] = {trans & 1 ? k : m, trans & 1 ? m : k}, b[2] = {trans >> 1 ? n : k, trans >> 1 ? k : n};
  const op_shape y = p ? SHAPE(p, m, n) : SHAPE(m, n);
  op_case *c = op_case_add(list, UNROLL_OP_MATMUL, &attr, sizeof attr, "exact %s rank %d %dx%dx%d%s%s", name, p ? 3 : 2,
                           (int)m, (int)k, (int)n, transposed[trans], addends[form]);
  op_in(c, OP_REAL, p ? SHAPE(p, a[0], a[1]) : SHAPE(a[0], a[1]), WHOLE);
  op_in(c, OP_REAL, p ? SHAPE(p, b[0], b[1]) : SHAPE(b[0], b[1]), WHOLE);
  if (form == 0)
    op_no_in(c);
  else
    op_in(c, OP_REAL, form == 1 ? y : SHAPE(n), WHOLE);
  op_out(c, OP_REAL, y);
  return c;
}

static void matmuls(op_case_list *list) {
  static const int64_t sizes[][3] = {{1, 1, 1},    {1, 257, 3},  {3, 1, 255},   {17, 3, 1},    {33, 17, 34},
                                     {34, 33, 17}, {63, 64, 65}, {64, 64, 64},  {65, 63, 64},  {64, 65, 63},
                                     {100, 34, 3}, {130, 7, 33}, {3, 130, 100}, {1, 256, 257}, {255, 5, 17},
                                     {256, 33, 4}, {257, 3, 65}, {17, 255, 66}, {3, 256, 130}, {66, 257, 130},
                                     {5, 1000, 7}, {3, 4096, 5}, {1, 5000, 1},  {583, 2, 3},   {1000, 3, 1}};
  for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (uint32_t trans = 0; trans < 4; trans++)
      matmul(list, "matmul", 0, sizes[i][0], sizes[i][1], sizes[i][2], trans, (i + trans) % 3);
  static const int64_t batched[][4] = {{1, 3, 7, 1}, {3, 17, 5, 33}, {7, 33, 17, 9}, {2, 65, 34, 64}, {130, 1, 3, 4}};
  for (uint32_t i = 0; i < sizeof batched / sizeof *batched; i++)
    for (uint32_t trans = 0; trans < 4; trans++)
      matmul(list, "matmul", batched[i][0], batched[i][1], batched[i][2], batched[i][3], trans, (i + trans) % 3);
  /* Axes in front of a are rows. */
  for (int32_t trans_b = 0; trans_b < 2; trans_b++) {
    const unroll_matmul_attr attr = {.trans_a = 0, .trans_b = trans_b};
    op_case *c = op_case_add(list, UNROLL_OP_MATMUL, &attr, sizeof attr, "exact matmul rows of rank 4%s",
                             transposed[2 * trans_b]);
    op_in(c, OP_REAL, SHAPE(2, 5, 7, 34), WHOLE);
    op_in(c, OP_REAL, trans_b ? SHAPE(65, 34) : SHAPE(34, 65), WHOLE);
    op_in(c, OP_REAL, SHAPE(65), WHOLE);
    op_out(c, OP_REAL, SHAPE(2, 5, 7, 65));
  }
  /* The rows that a run has are fewer than were planned for, and beside them stands something else. */
  static const int64_t rows[] = {1, 33, 64, 65, 100};
  for (uint32_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    op_case *c = matmul(list, i & 1 ? "run-time matmul" : "run-time matmul of many rows", 0, i & 1 ? 100 : 130, 33, 34,
                        i & 2, i % 3);
    op_dynamic(c, i & 1 ? 100 : 130, rows[i], i % 3 == 1 ? 1 | 4 | 8 : i % 3 == 0 ? 1 | 4 : 1 | 8);
  }
}

static void elementwise(op_case_list *list) {
  static const struct {
    int32_t kind;
    const char *name;
  } unaries[] = {{UNROLL_COPY, "copy"}, {UNROLL_NEG, "neg"},       {UNROLL_ABS, "abs"},
                 {UNROLL_SIGN, "sign"}, {UNROLL_SQUARE, "square"}, {UNROLL_RELU, "relu"}},
    binaries[] = {
        {UNROLL_ADD, "add"}, {UNROLL_SUB, "sub"}, {UNROLL_MUL, "mul"}, {UNROLL_MAX, "max"}, {UNROLL_MIN, "min"}};
  const op_shape shapes[] = {SCALAR, SHAPE(1), SHAPE(65), SHAPE(3, 7, 34), SHAPE(257, 130)};
  for (uint32_t i = 0; i < sizeof unaries / sizeof *unaries; i++)
    for (uint32_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
      const unroll_unary_attr attr = {unaries[i].kind, 0};
      op_case *c = op_case_add(list, UNROLL_OP_UNARY, &attr, sizeof attr, "exact unary %s %d of rank %d",
                               unaries[i].name, (int)op_elements(shapes[k]), (int)shapes[k].rank);
      op_in(c, OP_REAL, shapes[k], WHOLE);
      op_out(c, OP_REAL, shapes[k]);
    }
  const struct {
    const char *name;
    op_shape a, b, y;
  } forms[] = {{"same", SHAPE(65, 34), SHAPE(65, 34), SHAPE(65, 34)},
               {"scalar", SHAPE(65, 34), SCALAR, SHAPE(65, 34)},
               {"scalar left", SCALAR, SHAPE(33), SHAPE(33)},
               {"row", SHAPE(3, 65, 34), SHAPE(34), SHAPE(3, 65, 34)},
               {"row left", SHAPE(257), SHAPE(7, 257), SHAPE(7, 257)},
               {"column", SHAPE(65, 34), SHAPE(65, 1), SHAPE(65, 34)},
               {"column left", SHAPE(100, 1), SHAPE(100, 17), SHAPE(100, 17)},
               {"outer", SHAPE(63, 1), SHAPE(1, 65), SHAPE(63, 65)},
               {"middle", SHAPE(3, 7, 17), SHAPE(3, 1, 17), SHAPE(3, 7, 17)},
               {"front", SHAPE(1, 7, 17), SHAPE(5, 7, 17), SHAPE(5, 7, 17)},
               {"ranks", SHAPE(3, 1, 17), SHAPE(7, 1), SHAPE(3, 7, 17)},
               {"rank 6", SHAPE(2, 1, 3, 1, 2, 1), SHAPE(1, 3, 1, 2, 1, 5), SHAPE(2, 3, 3, 2, 2, 5)}};
  for (uint32_t i = 0; i < sizeof binaries / sizeof *binaries; i++)
    for (uint32_t k = 0; k < sizeof forms / sizeof *forms; k++) {
      const unroll_binary_attr attr = {binaries[i].kind, 0};
      op_case *c = op_case_add(list, UNROLL_OP_BINARY, &attr, sizeof attr, "exact binary %s %s", binaries[i].name,
                               forms[k].name);
      op_in(c, OP_REAL, forms[k].a, WHOLE);
      op_in(c, OP_REAL, forms[k].b, WHOLE);
      op_out(c, OP_REAL, forms[k].y);
    }
}

static void reductions(op_case_list *list) {
  static const char *const names[] = {
#define NAME(code, value, text) text,
      UNROLL_REDUCTIONS(NAME)
#undef NAME
  };
  const struct {
    op_shape x;
    uint32_t axes;
  } shapes[] = {{SHAPE(1), 1},         {SHAPE(257), 1},        {SHAPE(70001), 1},     {SHAPE(65, 34), 1},
                {SHAPE(65, 34), 2},    {SHAPE(65, 34), 3},     {SHAPE(3, 5003), 2},   {SHAPE(5003, 3), 1},
                {SHAPE(3, 7, 130), 2}, {SHAPE(3, 130, 33), 5}, {SHAPE(17, 3, 65), 3}, {SHAPE(2, 3, 4, 5), 10}};
  for (int32_t kind = 0; kind < UNROLL_REDUCTION_COUNT; kind++)
    for (uint32_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
      const op_shape x = shapes[i].x;
      const int32_t keep = (int32_t)i & 1;
      const unroll_reduce_attr attr = {.kind = kind, .axes = shapes[i].axes, .keep_dims = keep};
      op_shape y = {0, {0}};
      for (int32_t k = 0; k < x.rank; k++)
        if (keep || !(shapes[i].axes >> k & 1))
          y.n[y.rank++] = shapes[i].axes >> k & 1 ? 1 : x.n[k];
      op_case *c =
          op_case_add(list, UNROLL_OP_REDUCE, &attr, sizeof attr, "exact reduce %s %d of rank %d axes %x%s",
                      names[kind], (int)op_elements(x), (int)x.rank, (unsigned)shapes[i].axes, keep ? " keep" : "");
      op_in(c, OP_REAL, x, WHOLE);
      op_out(c, OP_REAL, y);
    }
}

/* Sums over axis 0 in blocks, which go on from c or begin anew; the last block is smaller. */
static void blocks(op_case_list *list) {
  static const int64_t sizes[][4] = {{33, 1000, 17, 96}, {66, 1030, 130, 512}, {400, 2060, 40, 512},
                                     {5, 700, 600, 600}, {3, 64, 7, 100},      {128, 1030, 130, 512}};
  for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (uint32_t form = 0; form < 4; form++) {
      const int64_t m = sizes[i][0], k = sizes[i][1], n = sizes[i][2];
      const uint32_t trans = i == 4 ? form : 1;
      op_case *c = matmul(list, form & 2 ? "matmul blocks from the first" : "matmul blocks from the last", 0, m, k, n,
                          trans, form & 1);
      c->nodes[0].attr.matmul.k_block = sizes[i][3];
      c->nodes[0].attr.matmul.m_block = 16;
      c->nodes[0].attr.matmul.block_order = form & 2 ? UNROLL_BLOCKS_FROM_FIRST : UNROLL_BLOCKS_FROM_LAST;
    }
  const struct {
    op_shape x;
    uint32_t axes;
    int64_t block;
  } shapes[] = {{SHAPE(65, 34), 1, 8}, {SHAPE(1030, 3), 1, 512}, {SHAPE(50, 64, 130), 3, 8}, {SHAPE(17, 3, 5), 5, 4},
                {SHAPE(70, 9), 3, 14}, {SHAPE(1, 34), 1, 8},     {SHAPE(61, 37, 19), 3, 14}};
  for (uint32_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (uint32_t form = 0; form < 4; form++) {
      const op_shape x = shapes[i].x;
      const unroll_reduce_attr attr = {.kind = UNROLL_SUM,
                                       .axes = shapes[i].axes,
                                       .keep_dims = (int32_t)form & 1,
                                       .block = shapes[i].block,
                                       .block_order = form & 2 ? UNROLL_BLOCKS_FROM_FIRST : UNROLL_BLOCKS_FROM_LAST};
      op_shape y = {0, {0}};
      for (int32_t k = 0; k < x.rank; k++)
        if (attr.keep_dims || !(attr.axes >> k & 1))
          y.n[y.rank++] = attr.axes >> k & 1 ? 1 : x.n[k];
      op_case *c = op_case_add(list, UNROLL_OP_REDUCE, &attr, sizeof attr,
                               "exact reduce blocks of %d from the %s %d of rank %d%s", (int)attr.block,
                               form & 2 ? "first" : "last", (int)op_elements(x), (int)x.rank, form & 1 ? " + c" : "");
      op_in(c, OP_REAL, x, WHOLE);
      if (form & 1)
        op_in(c, OP_REAL, y, WHOLE);
      op_out(c, OP_REAL, y);
    }
}

/* Ids that come again and again, and some that are out of range. */
static void embeddings(op_case_list *list) {
  const struct {
    op_shape ids;
    int64_t v, e;
  } sizes[] = {
      {SHAPE(1), 1, 1}, {SHAPE(33, 7), 3, 65}, {SHAPE(100), 257, 34}, {SHAPE(3000), 2, 17}, {SHAPE(5, 130), 65, 3}};
  for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    op_shape rows = sizes[i].ids;
    rows.n[rows.rank++] = sizes[i].e;
    op_case *c = op_case_add(list, UNROLL_OP_EMBEDDING_GRAD, NULL, 0, "exact embedding_grad %d of %dx%d",
                             (int)op_elements(sizes[i].ids), (int)sizes[i].v, (int)sizes[i].e);
    op_in(c, UNROLL_I32, sizes[i].ids, FILL(FILL_INTEGER, -1, (double)sizes[i].v));
    op_in(c, OP_REAL, rows, WHOLE);
    op_out(c, OP_REAL, SHAPE(sizes[i].v, sizes[i].e));
  }
}

/* What is kept is doubled. */
static void dropouts(op_case_list *list) {
  const struct {
    op_shape x;
    int32_t time_axis;
  } forms[] = {
      {SHAPE(7, 34), -1}, {SHAPE(130, 5), -1}, {SHAPE(5, 7, 34), 0}, {SHAPE(17, 3, 2, 5), 0}, {SHAPE(3, 100, 65), 0}};
  for (uint32_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    const int64_t t0 = i == 3 ? 40 : 0;
    const unroll_dropout_attr attr = {.p = 0.5, .site = 2, .time_axis = forms[i].time_axis, .t0 = t0};
    op_case *c = op_case_add(list, UNROLL_OP_DROPOUT, &attr, sizeof attr, "exact dropout %d of rank %d time axis %d%s",
                             (int)op_elements(forms[i].x), (int)forms[i].x.rank, (int)forms[i].time_axis,
                             t0 ? " of later steps" : "");
    op_in(c, OP_REAL, forms[i].x, WHOLE);
    op_out(c, OP_REAL, forms[i].x);
    c->row0 = (int64_t)i;
    c->t0 = 3;
  }
}

/* Rate, momentum, decay and scale are powers of two. */
static void optimizers(op_case_list *list) {
  const op_shape shapes[] = {SHAPE(1), SHAPE(65, 34), SHAPE(257)};
  for (uint32_t i = 0; i < 12; i++) {
    const int32_t has_s1 = i & 1, has_decay = i >> 1 & 1;
    const op_shape shape = shapes[i / 4];
    const unroll_optimizer_attr attr = {UNROLL_SGD, 0, has_s1 ? 0.5 : 0, 0, 0, has_decay ? 0.25 : 0};
    op_case *c = op_case_add(list, UNROLL_OP_OPTIMIZER, &attr, sizeof attr, "exact optimizer sgd %d%s%s",
                             (int)op_elements(shape), has_s1 ? " momentum" : "", has_decay ? " decay" : "");
    const uint32_t param = op_in(c, OP_REAL, shape, WHOLE);
    uint32_t s1 = UNROLL_NO_TENSOR;
    op_in(c, OP_REAL, shape, WHOLE);
    op_in(c, OP_REAL, SCALAR, FILL(FILL_UNIFORM, 0.125, 0.125));
    op_in(c, UNROLL_I32, SCALAR, FILL(FILL_INTEGER, 2, 2));
    op_in(c, OP_REAL, SCALAR, FILL(FILL_UNIFORM, 0.5, 0.5));
    if (has_s1)
      s1 = op_in(c, OP_REAL, shape, WHOLE);
    else
      op_no_in(c);
    op_no_in(c);
    op_out_over(c, param);
    if (has_s1)
      op_out_over(c, s1);
    else
      op_no_out(c);
    op_no_out(c);
  }
}

/*
 * h = h·S + x with S of 0 and 1 stays below 2^24 for these sizes and steps; h = sign(h·W + x) does for any. The carry
 * is kept at every step or in turns in two places.
 */
static void recurrences(op_case_list *list, uint32_t form) {
  const int32_t direction = form & 1, is_kept = form >> 1 & 1;
  const char *way = direction ? "reverse" : "forward", *place = is_kept ? "kept" : "in turns";
  static const int64_t sizes[][2] = {{1, 1}, {3, 7}, {7, 17}, {65, 5}};
  const int64_t steps = 7, first = direction ? 5 : 1, count = 5;
  for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const int64_t b = sizes[i][0], h = sizes[i][1];
    const unroll_matmul_attr attr = {.trans_a = 0, .trans_b = (int32_t)(i & 1)};
    op_case *c = op_case_add(list, UNROLL_OP_MATMUL, &attr, sizeof attr, "exact recurrence matmul %dx%d %s %s", (int)b,
                             (int)h, way, place);
    const uint32_t state = op_in(c, OP_REAL, SHAPE(b, h), WHOLE);
    op_in(c, OP_REAL, SHAPE(h, h), FILL(FILL_INTEGER, 0, 1));
    const uint32_t x = op_in(c, OP_REAL, SHAPE(b, h), WHOLE), next = op_out(c, OP_REAL, SHAPE(b, h));
    op_template(c, steps, first, count, direction);
    op_stepped(c, 1u << x);
    op_carry(c, state, next, is_kept);
  }
  static const int64_t large[][2] = {{3, 33}, {34, 130}, {100, 64}, {1, 257}};
  for (uint32_t i = 0; i < sizeof large / sizeof *large; i++) {
    const int64_t b = large[i][0], h = large[i][1];
    const unroll_matmul_attr attr = {.trans_a = 0, .trans_b = (int32_t)(i & 1)};
    const unroll_unary_attr sign = {UNROLL_SIGN, 0};
    op_case *c = op_case_add(list, UNROLL_OP_MATMUL, &attr, sizeof attr, "exact recurrence sign %dx%d %s %s", (int)b,
                             (int)h, way, place);
    const uint32_t state = op_in(c, OP_REAL, SHAPE(b, h), FILL(FILL_INTEGER, -1, 1));
    op_in(c, OP_REAL, SHAPE(h, h), WHOLE);
    const uint32_t x = op_in(c, OP_REAL, SHAPE(b, h), WHOLE), sum = op_out(c, OP_REAL, SHAPE(b, h));
    op_case_node(c, UNROLL_OP_UNARY, &sign, sizeof sign);
    op_in_of(c, sum);
    const uint32_t next = op_out(c, OP_REAL, SHAPE(b, h));
    op_template(c, steps, first, count, direction);
    op_stepped(c, 1u << x);
    op_carry(c, state, next, is_kept);
  }
}

void op_cases_exact(op_case_list *list) {
  elementwise(list);
  matmuls(list);
  reductions(list);
  blocks(list);
  embeddings(list);
  dropouts(list);
  optimizers(list);
  for (uint32_t form = 0; form < 4; form++)
    recurrences(list, form);
}
