/* SPDX-License-Identifier: Apache-2.0 */
#include "conform/op_cases.h"
#include "base/base_private.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

op_shape op_shape_of(size_t rank, const int64_t *n) {
  op_shape s = {(int32_t)rank, {0}};
  for (size_t i = 0; i < rank; i++)
    s.n[i] = n[i];
  return s;
}

int64_t op_elements(op_shape shape) {
  int64_t n = 1;
  for (int32_t i = 0; i < shape.rank; i++)
    n *= shape.n[i];
  return n;
}

op_case *op_case_add(op_case_list *list, uint32_t op, const void *attr, size_t attr_size, const char *format, ...) {
  op_case *c = &list->spare;
  if (mem_grow(list->allocator, &list->cases, &list->capacity, list->n + 1, sizeof *list->cases))
    c = &list->cases[list->n++];
  else
    list->failed = 1;
  memset(c, 0, sizeof *c);
  va_list args;
  va_start(args, format);
  vsnprintf(c->name, sizeof c->name, format, args);
  va_end(args);
  c->seed = 0x9E3779B97F4A7C15u;
  c->update = 3;
  op_case_node(c, op, attr, attr_size);
  return c;
}

op_node *op_case_node(op_case *c, uint32_t op, const void *attr, size_t attr_size) {
  op_node *node = &c->nodes[c->n_nodes++];
  node->op = op;
  node->attr_size = (uint32_t)attr_size;
  if (attr_size)
    memcpy(&node->attr, attr, attr_size);
  return node;
}

static op_node *last_node(op_case *c) { return &c->nodes[c->n_nodes - 1]; }

static uint32_t add_tensor(op_case *c, int32_t dtype, op_shape shape, op_fill fill) {
  uint32_t t = c->n_tensors++, s = c->n_storages++;
  int64_t n = op_elements(shape);
  c->tensors[t] = (op_tensor){.shape = shape, .dtype = dtype, .storage = (int32_t)s, .alias = -1};
  c->storages[s] = (op_storage){.fill = fill, .dtype = dtype, .unit = n, .units = 1};
  return t;
}

uint32_t op_in(op_case *c, int32_t dtype, op_shape shape, op_fill fill) {
  uint32_t t = add_tensor(c, dtype, shape, fill);
  c->tensors[t].is_input = 1;
  op_in_of(c, t);
  return t;
}

uint32_t op_out(op_case *c, int32_t dtype, op_shape shape) {
  uint32_t t = add_tensor(c, dtype, shape, FILL(FILL_NAN, 0, 0));
  op_node *node = last_node(c);
  node->out[node->n_out++] = t;
  return t;
}

void op_in_of(op_case *c, uint32_t tensor) {
  op_node *node = last_node(c);
  node->in[node->n_in++] = tensor;
  if (!c->tensors[tensor].is_input)
    c->storages[c->tensors[tensor].storage].is_internal = 1;
}

void op_no_in(op_case *c) { last_node(c)->in[last_node(c)->n_in++] = UNROLL_NO_TENSOR; }
void op_no_out(op_case *c) { last_node(c)->out[last_node(c)->n_out++] = UNROLL_NO_TENSOR; }

uint32_t op_out_over(op_case *c, uint32_t input) {
  uint32_t t = c->n_tensors++;
  c->tensors[t] = c->tensors[input];
  c->tensors[t].is_input = 0;
  c->tensors[t].alias = (int32_t)input;
  op_node *node = last_node(c);
  node->out[node->n_out++] = t;
  return t;
}

void op_round(op_case *c, double roundings, double terms) {
  c->roundings = roundings;
  c->terms = terms;
}

void op_dynamic(op_case *c, int64_t max, int64_t now, uint32_t tensors) {
  c->dim_max = max;
  c->dim = now;
  for (uint32_t t = 0; t < c->n_tensors; t++)
    c->tensors[t].is_dynamic = tensors >> t & 1;
}

void op_template(op_case *c, int64_t steps, int64_t first, int64_t count, int32_t direction) {
  c->is_template = 1;
  c->steps = steps;
  c->first = first;
  c->count = count;
  c->direction = direction;
}

void op_stepped(op_case *c, uint32_t tensors) {
  for (uint32_t t = 0; t < c->n_tensors; t++)
    if (tensors >> t & 1) {
      c->tensors[t].step = 1;
      c->storages[c->tensors[t].storage].units = c->steps;
    }
}

void op_carry(op_case *c, uint32_t in, uint32_t out, int is_kept) {
  op_tensor *x = &c->tensors[in], *y = &c->tensors[out];
  op_storage *s = &c->storages[x->storage];
  /* The storage of the output is not used any more: it stays as one place that nobody writes. */
  y->storage = x->storage;
  if (is_kept) { /* h_prev at t and h at t+1, or the other way round in time */
    s->units = c->steps + 1;
    x->step = y->step = 1;
    x->at = c->direction == UNROLL_REVERSE;
    y->at = c->direction != UNROLL_REVERSE;
  } else { /* even t: from place 0 to place 1; odd t: from 1 to 0 */
    s->units = 2;
    s->unit = (s->unit + 15) / 16 * 16;
    x->period = y->period = 2;
    x->step = 1;
    y->at = 1;
    y->step = -1;
  }
}

int op_case_list_make(op_case_list *list, const unroll_allocator *allocator) {
  memset(list, 0, sizeof *list);
  list->allocator = allocator;
  op_cases_dense(list);
  op_cases_rows(list);
  op_cases_moves(list);
  op_cases_cells(list);
  op_cases_scan(list);
  op_cases_norm(list);
  op_cases_forms(list);
  op_cases_exact(list);
  if (!list->failed)
    return 1;
  op_case_list_free(list);
  return 0;
}

void op_case_list_free(op_case_list *list) {
  mem_free(list->allocator, list->cases);
  memset(list, 0, sizeof *list);
}

int op_case_is_real(const op_case *c) {
  for (uint32_t s = 0; s < c->n_storages; s++)
    if (c->storages[s].dtype == OP_REAL)
      return 1;
  return 0;
}

double op_case_tolerance(const op_case *c, int32_t dtype) {
  double eps = dtype == UNROLL_F64 ? 0x1p-52 : 0x1p-23;
  return eps * (c->roundings + 2 * sqrt(c->terms));
}
