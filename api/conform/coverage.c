/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of <unroll/plugin.h> as rows: every op, and every value of the attributes that change what it computes. */
#include "conform/judge.h"
#include <stdio.h>
#include <string.h>

struct value {
  int32_t code;
  const char *text;
};
#define VALUE(name, code, text) {name, text},
static const struct value unaries[] = {UNROLL_UNARIES(VALUE)};
static const struct value binaries[] = {UNROLL_BINARIES(VALUE)};
static const struct value reductions[] = {UNROLL_REDUCTIONS(VALUE)};
static const struct value optimizers[] = {UNROLL_OPTIMIZERS(VALUE)};
static const struct value randoms[] = {UNROLL_RANDOMS(VALUE)};
static const struct value cells[] = {UNROLL_CELLS(VALUE)};
static const struct value ops[] = {UNROLL_OPS(VALUE)};
#define DTYPE_VALUE(name, code, text, bytes) {name, text},
static const struct value dtypes[] = {UNROLL_DTYPES(DTYPE_VALUE)};
static const struct value flags[] = {{0, "0"}, {1, "1"}};
static const struct value ranks[] = {{2, "2"}, {3, "3"}};
static const struct value addends[] = {{CONFORM_NO_ADDEND, "absent"}, {CONFORM_FULL, "full"}, {CONFORM_ROW, "row"}};
static const struct value time_axes[] = {{0, "0"}, {-1, "-1"}};
static const struct value given[] = {{0, "absent"}, {1, "given"}};
static const struct value keeps[] = {
    {CONFORM_NO_KEEP, "absent"}, {CONFORM_KEEP_BOOL, "bool"}, {CONFORM_KEEP_REAL, "real"}};
static const struct value kept[] = {{0, "all"}, {1, "some"}};
static const struct value directions[] = {{UNROLL_FORWARD, "forward"}, {UNROLL_REVERSE, "reverse"}};
static const struct value activations[] = {{UNROLL_TANH, "tanh"}, {UNROLL_RELU, "relu"}, {UNROLL_SIGMOID, "sigmoid"}};
static const struct value forms[] = {{CONFORM_STATIC, "static"},
                                     {CONFORM_STEP_FORWARD, "step forward"},
                                     {CONFORM_STEP_REVERSE, "step reverse"},
                                     {CONFORM_RUN_TIME_SIZE, "run-time size"},
                                     {CONFORM_IN_PLACE, "in place"}};

/* Attributes whose values stand in a list; those of casts, layers and forms are made below. */
static const struct {
  uint32_t op;
  int32_t attribute;
  const char *name;
  const struct value *values;
  size_t n;
} attributes[] = {
#define LISTED(op, attribute, name, values) \
  { op, attribute, name, values, sizeof(values) / sizeof *(values) }
    LISTED(UNROLL_OP_MATMUL, COVER_TRANS_A, "trans_a", flags),
    LISTED(UNROLL_OP_MATMUL, COVER_TRANS_B, "trans_b", flags),
    LISTED(UNROLL_OP_MATMUL, COVER_RANK, "rank", ranks),
    LISTED(UNROLL_OP_MATMUL, COVER_ADDEND, "c", addends),
    LISTED(UNROLL_OP_UNARY, COVER_KIND, "kind", unaries),
    LISTED(UNROLL_OP_BINARY, COVER_KIND, "kind", binaries),
    LISTED(UNROLL_OP_REDUCE, COVER_KIND, "kind", reductions),
    LISTED(UNROLL_OP_REDUCE, COVER_KEEP_DIMS, "keep_dims", flags),
    LISTED(UNROLL_OP_OPTIMIZER, COVER_KIND, "kind", optimizers),
    LISTED(UNROLL_OP_DROPOUT, COVER_TIME_AXIS, "time_axis", time_axes),
    LISTED(UNROLL_OP_LENGTH_MASK, COVER_TIME_AXIS, "time_axis", time_axes),
    LISTED(UNROLL_OP_LENGTH_MASK, COVER_INVERT, "invert", flags),
    LISTED(UNROLL_OP_LENGTH_MASK, COVER_OTHER, "other", given),
    LISTED(UNROLL_OP_CATEGORICAL, COVER_TOP_K, "top_k", kept),
    LISTED(UNROLL_OP_CATEGORICAL, COVER_TOP_P, "top_p", kept),
    LISTED(UNROLL_OP_RANDOM, COVER_KIND, "kind", randoms),
    LISTED(UNROLL_OP_RANDOM, COVER_TIME_AXIS, "time_axis", time_axes),
    LISTED(UNROLL_OP_LAYER, COVER_H_MASK, "h_mask", given),
    LISTED(UNROLL_OP_LAYER, COVER_KEEP_H, "keep_h", keeps),
    LISTED(UNROLL_OP_LAYER, COVER_KEEP_C, "keep_c", keeps),
    LISTED(UNROLL_OP_LAYER_GRAD, COVER_H_MASK, "h_mask", given),
    LISTED(UNROLL_OP_LAYER_GRAD, COVER_KEEP_H, "keep_h", keeps),
    LISTED(UNROLL_OP_LAYER_GRAD, COVER_KEEP_C, "keep_c", keeps),
    LISTED(UNROLL_OP_SCAN, COVER_DIRECTION, "direction", directions),
    LISTED(UNROLL_OP_LINEAR_SCAN, COVER_DIRECTION, "direction", directions),
    LISTED(UNROLL_OP_LINEAR_SCAN, COVER_LENGTHS, "lengths", given),
    LISTED(UNROLL_OP_LINEAR_SCAN_GRAD, COVER_DIRECTION, "direction", directions),
    LISTED(UNROLL_OP_LINEAR_SCAN_GRAD, COVER_LENGTHS, "lengths", given),
};

/* Can this op stand in a graph of that form? */
static bool has_form(uint32_t op, int32_t form) {
  switch (op) {
  case UNROLL_OP_RESHAPE: return false; /* a view that the host makes: nobody compiles it */
  case UNROLL_OP_OPTIMIZER: return form != CONFORM_RUN_TIME_SIZE;
  case UNROLL_OP_LAYER: /* these have the steps in themselves */
  case UNROLL_OP_LAYER_GRAD:
  case UNROLL_OP_SCAN: return form == CONFORM_STATIC || form == CONFORM_RUN_TIME_SIZE;
  default: return form != CONFORM_IN_PLACE;
  }
}

static struct coverage_row *add(struct unroll_conform_report *r, const struct value *op, int32_t attribute,
                                const char *name, int32_t code) {
  if (!mem_grow(&r->allocator, &r->rows, &r->row_capacity, r->n_rows + 1, sizeof *r->rows))
    return NULL;
  struct coverage_row *row = &r->rows[r->n_rows++];
  *row = (struct coverage_row){
      .op = (uint32_t)op->code, .attribute = attribute, .code = code, .op_name = op->text, .attribute_name = name};
  return row;
}

static bool add_value(struct unroll_conform_report *r, const struct value *op, int32_t attribute, const char *name,
                      int32_t code, const char *text) {
  struct coverage_row *row = add(r, op, attribute, name, code);
  if (row)
    snprintf(row->value, sizeof row->value, "%s", text);
  return row != NULL;
}

/* No op computes with f16 or bf16 in this version. */
static bool is_cast(int32_t from, int32_t to) {
  return from != to && from != UNROLL_F16 && from != UNROLL_BF16 && to != UNROLL_F16 && to != UNROLL_BF16;
}

static bool add_casts(struct unroll_conform_report *r, const struct value *op) {
  for (size_t i = 0; i < UNROLL_DTYPE_COUNT; i++)
    for (size_t j = 0; j < UNROLL_DTYPE_COUNT; j++) {
      if (!is_cast(dtypes[i].code, dtypes[j].code))
        continue;
      struct coverage_row *row = add(r, op, COVER_CAST, "cast", CONFORM_CAST(dtypes[i].code, dtypes[j].code));
      if (!row)
        return false;
      snprintf(row->value, sizeof row->value, "%s to %s", dtypes[i].text, dtypes[j].text);
    }
  return true;
}

static bool add_layers(struct unroll_conform_report *r, const struct value *op) {
  for (size_t k = 0; k < sizeof cells / sizeof *cells; k++)
    for (size_t a = 0; a < (cells[k].code == UNROLL_CELL_RNN ? sizeof activations / sizeof *activations : 1); a++)
      for (int32_t form = 0; form < 4; form++) {
        const struct value *direction = &directions[form & 1];
        const bool has_lengths = form >> 1;
        struct coverage_row *row = add(r, op, COVER_LAYER, "cell",
                                       CONFORM_LAYER(cells[k].code, direction->code, has_lengths, activations[a].code));
        if (!row)
          return false;
        snprintf(row->value, sizeof row->value, "%s%s%s %s%s", cells[k].text,
                 cells[k].code == UNROLL_CELL_RNN ? " " : "",
                 cells[k].code == UNROLL_CELL_RNN ? activations[a].text : "", direction->text,
                 has_lengths ? " lengths" : "");
      }
  return true;
}

static bool add_op(struct unroll_conform_report *r, const struct value *op) {
  bool ok = add(r, op, COVER_OP, "", 0) != NULL;
  for (size_t i = 0; i < sizeof attributes / sizeof *attributes && ok; i++)
    for (size_t k = 0; k < attributes[i].n && ok && attributes[i].op == (uint32_t)op->code; k++)
      ok = add_value(r, op, attributes[i].attribute, attributes[i].name, attributes[i].values[k].code,
                     attributes[i].values[k].text);
  if (op->code == UNROLL_OP_CAST)
    ok = ok && add_casts(r, op);
  if (op->code == UNROLL_OP_LAYER || op->code == UNROLL_OP_LAYER_GRAD)
    ok = ok && add_layers(r, op);
  for (int32_t i = 0; i < CONFORM_FORMS && ok; i++)
    if (has_form((uint32_t)op->code, forms[i].code))
      ok = add_value(r, op, COVER_FORM, "form", forms[i].code, forms[i].text);
  return ok;
}

bool coverage_rows(struct unroll_conform_report *r) {
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    if (!add_op(r, &ops[i]))
      return false;
  return true;
}

struct coverage_row *coverage_find(struct unroll_conform_report *r, const struct conform_mark *mark) {
  for (uint32_t i = 0; i < r->n_rows; i++) {
    struct coverage_row *row = &r->rows[i];
    if (row->op == mark->op && row->attribute == mark->attribute && row->code == mark->value)
      return row;
  }
  return NULL;
}

static bool is_repeated(const struct conform_mark *marks, uint32_t i) {
  for (uint32_t k = 0; k < i; k++)
    if (marks[k].op == marks[i].op && marks[k].attribute == marks[i].attribute && marks[k].value == marks[i].value)
      return true;
  return false;
}

static bool is_op_repeated(const struct conform_mark *marks, uint32_t i) {
  for (uint32_t k = 0; k < i; k++)
    if (marks[k].op == marks[i].op)
      return true;
  return false;
}

static void count(struct coverage_row *row, int32_t verdict) {
  if (!row)
    return;
  row->cases++;
  row->passed += verdict == UNROLL_PASSED;
  row->unsupported += verdict == UNROLL_NOT_SUPPORTED;
}

bool coverage_count(struct unroll_conform_report *r) {
  if (!coverage_rows(r))
    return false;
  for (uint32_t i = 0; i < r->n; i++) {
    const struct conform_case *c = &r->list.cases[r->records[i].index];
    const struct conform_mark *marks = r->list.marks + c->first_mark;
    for (uint32_t k = 0; k < c->n_marks; k++) {
      if (!is_op_repeated(marks, k))
        count(coverage_find(r, &(struct conform_mark){marks[k].op, COVER_OP, 0}), r->records[i].verdict);
      if (marks[k].attribute != COVER_OP && !is_repeated(marks, k))
        count(coverage_find(r, &marks[k]), r->records[i].verdict);
    }
  }
  return true;
}
