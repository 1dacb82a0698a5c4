/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of the products, the elementwise ops and the reductions. */
#include "conform/op_cases.h"
#include <math.h>

typedef enum { NO_C, FULL_C, ROW_C } c_form;
static const char *const c_names[] = {"", " + c", " + row"};

static void add_c(op_case *k, c_form form, op_shape y, op_fill fill) {
  if (form == NO_C)
    op_no_in(k);
  else if (form == FULL_C)
    op_in(k, OP_REAL, y, fill);
  else
    op_in(k, OP_REAL, SHAPE(y.n[y.rank - 1]), fill);
}

static void matmul(op_case_list *list, op_shape a, op_shape b, op_shape y, int32_t trans_a, int32_t trans_b,
                   c_form form) {
  unroll_matmul_attr attr = {.trans_a = trans_a, .trans_b = trans_b};
  int64_t n = y.n[y.rank - 1], k = op_elements(a) / (op_elements(y) / n);
  if (b.rank == 3)
    k = b.n[trans_b ? 2 : 1];
  op_case *c = op_case_add(list, UNROLL_OP_MATMUL, &attr, sizeof attr, "matmul rank %d y %dx%d k %d%s%s%s", (int)a.rank,
                           (int)(op_elements(y) / n), (int)n, (int)k, trans_a ? " trans_a" : "",
                           trans_b ? " trans_b" : "", c_names[form]);
  /* A single element that happens to cancel has no other beside it to be measured by. */
  op_fill fill = op_elements(y) == 1 ? FILL(FILL_UNIFORM, 0.5, 1.5) : FILL_DEFAULT;
  op_in(c, OP_REAL, a, fill);
  op_in(c, OP_REAL, b, fill);
  add_c(c, form, y, fill);
  op_out(c, OP_REAL, y);
  op_round(c, 2, (double)k + 1);
}

static void matmuls(op_case_list *list) {
  static const int64_t sizes[][3] = {/* M K N */
                                     {1, 1, 1},    {1, 7, 3},    {3, 1, 17},   {7, 17, 1},   {3, 7, 33},
                                     {17, 33, 7},  {33, 3, 64},  {64, 64, 64}, {65, 65, 65}, {7, 65, 33},
                                     {1, 64, 257}, {130, 17, 4}, {3, 66, 132}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (c_form form = NO_C; form <= ROW_C; form++) {
      int64_t m = sizes[i][0], k = sizes[i][1], n = sizes[i][2];
      matmul(list, SHAPE(m, k), SHAPE(k, n), SHAPE(m, n), 0, 0, form);
      matmul(list, SHAPE(m, k), SHAPE(n, k), SHAPE(m, n), 0, 1, form);
      matmul(list, SHAPE(k, m), SHAPE(k, n), SHAPE(m, n), 1, 0, form);
      if (i % 3 == 0)
        matmul(list, SHAPE(k, m), SHAPE(n, k), SHAPE(m, n), 1, 1, form);
    }
  for (c_form form = NO_C; form <= ROW_C; form++) {
    matmul(list, SHAPE(66, 258), SHAPE(258, 130), SHAPE(66, 130), 0, 0, form);
    matmul(list, SHAPE(66, 258), SHAPE(130, 258), SHAPE(66, 130), 0, 1, form);
    matmul(list, SHAPE(258, 66), SHAPE(258, 130), SHAPE(66, 130), 1, 0, form);
    /* Leading axes are rows. */
    matmul(list, SHAPE(5, 3, 17), SHAPE(17, 7), SHAPE(5, 3, 7), 0, 0, form);
    matmul(list, SHAPE(2, 5, 3, 17), SHAPE(7, 17), SHAPE(2, 5, 3, 7), 0, 1, form);
    for (int32_t t = 0; t < 4; t++) {
      int32_t ta = t & 1, tb = t >> 1;
      for (int i = 0; i < 3; i++) {
        int64_t p = (int64_t[]){1, 3, 7}[i], m = (int64_t[]){3, 17, 33}[i], k = (int64_t[]){7, 5, 17}[i],
                n = (int64_t[]){1, 33, 9}[i];
        matmul(list, ta ? SHAPE(p, k, m) : SHAPE(p, m, k), tb ? SHAPE(p, n, k) : SHAPE(p, k, n), SHAPE(p, m, n), ta, tb,
               form);
      }
    }
  }
  matmul(list, SHAPE(300000, 8), SHAPE(300000, 8), SHAPE(8, 8), 1, 0, NO_C);
  /* Rows of whole pages, whose columns meet in few sets of a processor's first cache. */
  matmul(list, SHAPE(514, 1024), SHAPE(514, 130), SHAPE(1024, 130), 1, 0, NO_C);
  /* Few results of long sums, which a backend cuts into blocks: many columns, batches, ends odd and even. */
  for (c_form form = NO_C; form <= ROW_C; form++) {
    matmul(list, SHAPE(7, 1601), SHAPE(1601, 70), SHAPE(7, 70), 0, 0, form);
    matmul(list, SHAPE(3, 5, 1101), SHAPE(3, 1101, 37), SHAPE(3, 5, 37), 0, 0, form);
    matmul(list, SHAPE(3, 32, 1024), SHAPE(3, 1024, 37), SHAPE(3, 32, 37), 0, 0, form);
    matmul(list, SHAPE(2, 17001), SHAPE(5, 17001), SHAPE(2, 5), 0, 1, form);
  }
}

static const char *const unary_names[] = {
#define NAME(name, value, text) text,
    UNROLL_UNARIES(NAME)};
static const char *const binary_names[] = {UNROLL_BINARIES(NAME)};
static const char *const reduction_names[] = {UNROLL_REDUCTIONS(NAME)
#undef NAME
};

static double unary_roundings(int32_t kind) {
  switch (kind) {
  case UNROLL_EXP:
  case UNROLL_LOG:
  case UNROLL_EXPM1:
  case UNROLL_LOG1P:
  case UNROLL_SQRT: return 4;
  case UNROLL_RECIPROCAL:
  case UNROLL_SQUARE: return 3;
  case UNROLL_TANH: return 6;
  case UNROLL_SIGMOID: return 8; /* exp, a sum, a quotient */
  default: return 0;
  }
}

static op_fill unary_fill(int32_t kind) {
  switch (kind) {
  case UNROLL_LOG:
  case UNROLL_SQRT: return FILL(FILL_UNIFORM, 0.01, 9);
  case UNROLL_RECIPROCAL: return FILL(FILL_NONZERO, 0.25, 4);
  case UNROLL_EXP:
  case UNROLL_EXPM1: return FILL(FILL_UNIFORM, -3, 5);
  case UNROLL_LOG1P: return FILL(FILL_UNIFORM, -0.99, 9);
  default: return FILL(FILL_UNIFORM, -3, 4);
  }
}

static void unary(op_case_list *list, int32_t kind, int32_t dtype, op_shape x, op_fill fill, const char *note) {
  unroll_unary_attr attr = {kind, 0};
  op_case *c = op_case_add(list, UNROLL_OP_UNARY, &attr, sizeof attr, "unary %s %d of rank %d%s", unary_names[kind],
                           (int)op_elements(x), (int)x.rank, note);
  op_in(c, dtype, x, fill);
  op_out(c, dtype, x);
  op_round(c, dtype == OP_REAL ? unary_roundings(kind) : 0, 0);
}

static void unaries(op_case_list *list) {
  const op_shape shapes[] = {SCALAR,     SHAPE(1), SHAPE(17), SHAPE(7, 65), SHAPE(3, 7, 33), SHAPE(2, 1, 3, 1, 5, 7),
                             SHAPE(5000)};
  for (int32_t kind = 0; kind < UNROLL_UNARY_COUNT; kind++) {
    int is_bool = kind == UNROLL_LOGICAL_NOT;
    op_fill fill = is_bool ? FILL(FILL_INTEGER, 0, 1) : unary_fill(kind);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
      unary(list, kind, is_bool ? UNROLL_BOOL : OP_REAL, shapes[i], fill, "");
    /* Past 88 exp is infinite in f32: tanh and sigmoid have to stand that, exp and expm1 themselves are left out. */
    if (!is_bool)
      unary(list, kind, OP_REAL, SHAPE(257),
            FILL(FILL_SPECIAL, 0.5, kind == UNROLL_EXP || kind == UNROLL_EXPM1 ? 20 : 100), " special");
  }
  /* Where e^x - 1 and log(1 + x) themselves would have lost all digits. */
  unary(list, UNROLL_EXPM1, OP_REAL, SHAPE(257), FILL(FILL_NONZERO, 1e-9, 1e-7), " small");
  unary(list, UNROLL_LOG1P, OP_REAL, SHAPE(257), FILL(FILL_NONZERO, 1e-9, 1e-7), " small");
  static const struct {
    int32_t dtype;
    const char *note;
    double lo, hi;
  } numbers[] = {{UNROLL_I64, " i64", -3e9, 3e9},
                 {UNROLL_I32, " i32", -40000, 40000},
                 {UNROLL_I8, " i8", -11, 11},
                 {UNROLL_U8, " u8", 0, 15}};
  static const int32_t kinds[] = {UNROLL_COPY, UNROLL_NEG, UNROLL_ABS, UNROLL_SIGN, UNROLL_SQUARE};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    for (size_t j = 0; j < sizeof kinds / sizeof *kinds; j++) {
      if (numbers[i].dtype == UNROLL_U8 && kinds[j] == UNROLL_NEG)
        continue;
      double hi = kinds[j] == UNROLL_SQUARE && numbers[i].dtype == UNROLL_I64 ? 1e6 : numbers[i].hi;
      unary(list, kinds[j], numbers[i].dtype, SHAPE(7, 33), FILL(FILL_INTEGER, numbers[i].lo < 0 ? -hi : 0, hi),
            numbers[i].note);
    }
}

static int is_comparison(int32_t kind) { return kind >= UNROLL_EQ && kind <= UNROLL_GE; }

static double binary_roundings(int32_t kind) {
  switch (kind) {
  case UNROLL_ADD:
  case UNROLL_SUB:
  case UNROLL_MUL: return 1;
  case UNROLL_DIV:
  case UNROLL_SIGMOID_GRAD: return 3;
  case UNROLL_TANH_GRAD: return 4; /* |y| <= 0.9: half an eps of y² is 2.1 of 1 - y²; a difference, a product */
  default: return 0;
  }
}

static void binary(op_case_list *list, int32_t kind, int32_t dtype, op_shape a, op_shape b, op_shape y, op_fill fill_a,
                   op_fill fill_b, const char *note) {
  unroll_binary_attr attr = {kind, 0};
  op_case *c = op_case_add(list, UNROLL_OP_BINARY, &attr, sizeof attr, "binary %s %s", binary_names[kind], note);
  op_in(c, dtype, a, fill_a);
  op_in(c, dtype, b, fill_b);
  op_out(c, is_comparison(kind) ? UNROLL_BOOL : dtype, y);
  op_round(c, dtype == OP_REAL ? binary_roundings(kind) : 0, 0);
}

static void binaries(op_case_list *list) {
  const struct {
    const char *name;
    op_shape a, b, y;
  } forms[] = {
      {"same", SHAPE(7, 17), SHAPE(7, 17), SHAPE(7, 17)},
      {"one", SHAPE(1), SHAPE(1), SHAPE(1)},
      {"large", SHAPE(3, 65, 33), SHAPE(3, 65, 33), SHAPE(3, 65, 33)},
      {"scalar right", SHAPE(7, 17), SCALAR, SHAPE(7, 17)},
      {"scalar left", SCALAR, SHAPE(7, 17), SHAPE(7, 17)},
      {"row", SHAPE(7, 17), SHAPE(17), SHAPE(7, 17)},
      {"row left", SHAPE(17), SHAPE(3, 7, 17), SHAPE(3, 7, 17)},
      {"column", SHAPE(7, 17), SHAPE(7, 1), SHAPE(7, 17)},
      {"outer", SHAPE(33, 1), SHAPE(1, 65), SHAPE(33, 65)},
      {"whole vectors", SHAPE(3, 64), SHAPE(64), SHAPE(3, 64)},
      {"middle", SHAPE(3, 7, 17), SHAPE(3, 1, 17), SHAPE(3, 7, 17)},
      {"mixed ranks", SHAPE(3, 1, 17), SHAPE(7, 1), SHAPE(3, 7, 17)},
      {"rank 6", SHAPE(2, 1, 3, 1, 2, 1), SHAPE(1, 3, 1, 2, 1, 5), SHAPE(2, 3, 3, 2, 2, 5)},
  };
  op_fill ties = FILL(FILL_INTEGER, -3, 4);
  for (int32_t kind = 0; kind < UNROLL_BINARY_COUNT; kind++) {
    op_fill a = is_comparison(kind) || kind == UNROLL_MAX || kind == UNROLL_MIN ? ties : FILL_DEFAULT, b = a;
    if (kind == UNROLL_DIV)
      b = FILL(FILL_NONZERO, 0.25, 4);
    if (kind == UNROLL_TANH_GRAD)
      b = FILL(FILL_UNIFORM, -0.9, 0.8);
    if (kind == UNROLL_SIGMOID_GRAD)
      b = FILL(FILL_UNIFORM, 0, 1);
    if (kind == UNROLL_RELU_GRAD)
      b = ties;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
      binary(list, kind, OP_REAL, forms[i].a, forms[i].b, forms[i].y, a, b, forms[i].name);
    binary(list, kind, OP_REAL, SHAPE(19, 23), SHAPE(19, 23), SHAPE(19, 23), FILL(FILL_SPECIAL, 0.5, 4),
           FILL(FILL_SPECIAL, 0.5, 4), "special");
    if (kind < UNROLL_TANH_GRAD) {
      op_fill divisor = FILL(FILL_NONZERO, 1, 4); /* whole once it is converted, never 0 */
      op_fill small = FILL(FILL_INTEGER, -9, 9), large = FILL(FILL_INTEGER, -3e9, 3e9);
      binary(list, kind, UNROLL_I32, SHAPE(7, 33), SHAPE(33), SHAPE(7, 33), small, kind == UNROLL_DIV ? divisor : small,
             "i32");
      binary(list, kind, UNROLL_I64, SHAPE(7, 33), SHAPE(7, 1), SHAPE(7, 33), large,
             kind == UNROLL_DIV ? divisor : small, "i64");
    }
  }
}

static void reduction(op_case_list *list, int32_t kind, op_shape x, uint32_t axes, int32_t keep, op_fill fill,
                      const char *note) {
  unroll_reduce_attr attr = {.kind = kind, .axes = axes, .keep_dims = keep};
  op_shape y = {0, {0}};
  double terms = 1;
  for (int32_t i = 0; i < x.rank; i++) {
    int reduced = axes >> i & 1;
    if (reduced)
      terms *= (double)x.n[i];
    if (!reduced || keep)
      y.n[y.rank++] = reduced ? 1 : x.n[i];
  }
  op_case *c =
      op_case_add(list, UNROLL_OP_REDUCE, &attr, sizeof attr, "reduce %s %d of rank %d axes %x%s%s",
                  reduction_names[kind], (int)op_elements(x), (int)x.rank, (unsigned)axes, keep ? " keep" : "", note);
  op_in(c, OP_REAL, x, fill);
  op_out(c, OP_REAL, y);
  if (kind == UNROLL_SUM || kind == UNROLL_SUM_SQUARES)
    op_round(c, 2, terms);
}

static void reductions(op_case_list *list) {
  const struct {
    op_shape x;
    uint32_t axes;
  } shapes[] = {{SHAPE(65, 33), 1},     {SHAPE(65, 33), 2},   {SHAPE(65, 33), 3},
                {SHAPE(1), 1},          {SHAPE(17), 1},       {SHAPE(20011), 1},
                {SHAPE(3, 5003), 2},    {SHAPE(5003, 3), 1},  {SHAPE(7, 64), 2},
                {SHAPE(2, 3, 4, 5), 5}, {SHAPE(3, 5, 64), 2}, {SHAPE(2, 3, 4, 5), 10},
                {SHAPE(2, 3, 4, 5), 9}, {SHAPE(1, 7, 1), 5},  {SHAPE(2, 3, 1, 2, 5, 3), 0x2A}};
  for (int32_t kind = 0; kind < UNROLL_REDUCTION_COUNT; kind++) {
    for (int32_t keep = 0; keep < 2; keep++) {
      for (uint32_t axes = 1; axes < 8; axes++)
        reduction(list, kind, SHAPE(3, 7, 5), axes, keep, FILL_DEFAULT, "");
      for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        reduction(list, kind, shapes[i].x, shapes[i].axes, keep, FILL_DEFAULT, "");
    }
    reduction(list, kind, SHAPE(65, 3), 2, 0, FILL(FILL_SPECIAL, 0.5, 4), " special");
    reduction(list, kind, SHAPE(3, 65), 1, 1, FILL(FILL_SPECIAL, 0.5, 4), " special");
  }
}

void op_cases_dense(op_case_list *list) {
  matmuls(list);
  unaries(list);
  binaries(list);
  reductions(list);
}
