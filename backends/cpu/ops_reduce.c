/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reductions. Neighbouring axes that are both kept or both reduced count as one. An element of y is always the fold of
 * its elements of x in their own order, reals in double; COLUMNS neighbouring ones are folded side by side, so that x is
 * read along its rows.
 */
#include "cpu_ops.h"
#include "realmath.h"

enum { COLUMNS = 64 };

typedef struct axes {
  int32_t n;
  int64_t size[UNROLL_MAX_RANK], stride[UNROLL_MAX_RANK];
} axes;

typedef struct reduction {
  const char *x;
  char *y;
  int32_t kind;
  axes kept, reduced;
  int64_t inner; /* neighbouring elements of y that are neighbours in x */
  int64_t n_y, n_folded, piece;
  const char *start; /* what the sums of blocks are added to; NULL: 0 */
  int64_t block;     /* indices of the reduced axes that a block has; 0: no blocks */
  bool from_first;
} reduction;

static int64_t axes_count(const axes *a) {
  int64_t n = 1;
  for (int32_t i = 0; i < a->n; i++)
    n *= a->size[i];
  return n;
}

static int64_t axes_offset(const axes *a, int64_t index) {
  int64_t offset = 0;
  for (int32_t i = a->n - 1; i >= 0; i--) {
    offset += index % a->size[i] * a->stride[i];
    index /= a->size[i];
  }
  return offset;
}

/* Laid down from the last axis, so turned round at the end. */
static void axes_turn(axes *a) {
  for (int32_t i = 0; i < a->n / 2; i++) {
    const int64_t size = a->size[i], stride = a->stride[i];
    a->size[i] = a->size[a->n - 1 - i];
    a->stride[i] = a->stride[a->n - 1 - i];
    a->size[a->n - 1 - i] = size;
    a->stride[a->n - 1 - i] = stride;
  }
}

static void reduction_read(const cpu_call *c, reduction *q) {
  const cpu_operand *x = cpu_in(c, 0);
  const uint32_t mask = c->node->attr.reduce.axes;
  *q = (reduction){.x = x->data, .y = cpu_out_data(c, 0), .kind = c->node->attr.reduce.kind};
  int64_t stride = 1;
  bool last_reduced = false, any = false;
  for (int32_t i = x->rank - 1; i >= 0; i--) {
    const bool is_reduced = mask >> i & 1;
    axes *a = is_reduced ? &q->reduced : &q->kept;
    if (x->size[i] == 1)
      continue;
    if (any && is_reduced == last_reduced) {
      a->size[a->n - 1] *= x->size[i];
    } else {
      a->size[a->n] = x->size[i];
      a->stride[a->n++] = stride;
    }
    stride *= x->size[i];
    last_reduced = is_reduced;
    any = true;
  }
  axes_turn(&q->kept);
  axes_turn(&q->reduced);
  q->inner = q->kept.n > 0 && q->kept.stride[q->kept.n - 1] == 1 ? q->kept.size[q->kept.n - 1] : 1;
  q->n_y = axes_count(&q->kept);
  q->n_folded = axes_count(&q->reduced);
  q->piece = COLUMNS * (1 + 512 / (q->n_folded + 1));
  const unroll_reduce_attr *attr = &c->node->attr.reduce;
  q->start = cpu_in_data(c, 1);
  q->block = attr->block > 0 ? attr->block * (q->n_folded / x->size[0]) : 0; /* axis 0 is the outermost reduced one */
  q->from_first = attr->block_order == UNROLL_BLOCKS_FROM_FIRST;
}

static void reduction_run(const cpu_call *c, const reduction *q, cpu_piece_fn fn) {
  const int64_t pieces = (q->n_y + q->piece - 1) / q->piece;
  if (q->n_y > CPU_PARALLEL_COST / (q->n_folded + 1))
    cpu_pool_pieces(c->pool, pieces, fn, q);
  else
    for (int64_t i = 0; i < pieces; i++)
      fn(q, i);
}

#define ACC_PLUS(a, b) ((a) + (b))
#define ACC_TIMES(a, b) ((a) * (b))
#define IS_NAN(a) isnan(a)
#define LOWEST (-INFINITY)
#define HIGHEST INFINITY
#define ACC double
#define ELEM float
#define E(name) name##_f32
#include "ops_reduce.inc"
#undef ELEM
#undef E
#define ELEM double
#define E(name) name##_f64
#include "ops_reduce.inc"
#undef ELEM
#undef E
#undef ACC
#undef ACC_PLUS
#undef ACC_TIMES
#undef IS_NAN
#undef LOWEST
#undef HIGHEST

/* Integers wrap around. */
#define ACC_PLUS(a, b) ((int64_t)((uint64_t)(a) + (uint64_t)(b)))
#define ACC_TIMES(a, b) ((int64_t)((uint64_t)(a) * (uint64_t)(b)))
#define IS_NAN(a) false
#define LOWEST INT64_MIN
#define HIGHEST INT64_MAX
#define ACC int64_t
#define ELEM int64_t
#define E(name) name##_i64
#include "ops_reduce.inc"
#undef ELEM
#undef E
#define ELEM int32_t
#define E(name) name##_i32
#include "ops_reduce.inc"

cpu_run_fn cpu_reduce_run(int32_t dtype) {
  switch (dtype) {
  case UNROLL_F32: return reduce_f32;
  case UNROLL_F64: return reduce_f64;
  case UNROLL_I64: return reduce_i64;
  case UNROLL_I32: return reduce_i32;
  default: return NULL;
  }
}
