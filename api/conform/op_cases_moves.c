/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of what moves, chooses, converts and makes elements: compared exactly, but for casts to a narrower real. */
#include "conform/op_cases.h"
#include <math.h>

static const struct {
  int32_t dtype;
  const char *name;
  op_fill fill;
} types[] = {{OP_REAL, "", {FILL_UNIFORM, -0.5, 1.5}},        {UNROLL_I32, " i32", {FILL_INTEGER, -90, 90}},
             {UNROLL_I64, " i64", {FILL_INTEGER, -3e9, 3e9}}, {UNROLL_I8, " i8", {FILL_INTEGER, -90, 90}},
             {UNROLL_U8, " u8", {FILL_INTEGER, 0, 200}},      {UNROLL_BOOL, " bool", {FILL_INTEGER, 0, 1}}};
enum { N_TYPES = sizeof types / sizeof *types };

/* The shape with another extent along one axis. */
static op_shape with_extent(op_shape s, int32_t axis, int64_t n) {
  s.n[axis] = n;
  return s;
}

static void slice_and_pad(op_case_list *list, op_shape x, int k) {
  for (int32_t axis = 0; axis < x.rank; axis++) {
    int64_t n = x.n[axis];
    for (int form = 0; form < 3; form++) { /* the start, the end, the middle */
      int64_t length = n > 2 ? n - 2 : 1, start = form == 0 ? 0 : form == 1 ? n - length : (n - length) / 2;
      /* Of an axis of 1 or 2 the forms are the same. */
      if (axis && (form == 0 || (start > 0 && (form == 1 || start < n - length)))) {
        unroll_slice_attr slice = {axis, 0, start};
        op_case *c = op_case_add(list, UNROLL_OP_SLICE, &slice, sizeof slice, "slice %d of rank %d axis %d from %d%s",
                                 (int)op_elements(x), (int)x.rank, (int)axis, (int)start, types[k].name);
        op_in(c, types[k].dtype, x, types[k].fill);
        op_out(c, types[k].dtype, with_extent(x, axis, length));
      }
      unroll_pad_attr pad = {axis, 0, form == 1 ? 0 : 2, form == 0 ? 0 : 3};
      op_case *c =
          op_case_add(list, UNROLL_OP_PAD, &pad, sizeof pad, "pad %d of rank %d axis %d by %d %d%s",
                      (int)op_elements(x), (int)x.rank, (int)axis, (int)pad.before, (int)pad.after, types[k].name);
      op_in(c, types[k].dtype, x, types[k].fill);
      op_out(c, types[k].dtype, with_extent(x, axis, n + pad.before + pad.after));
    }
  }
}

static void concat(op_case_list *list, op_shape x, int k) {
  for (int32_t axis = 0; axis < x.rank; axis++)
    for (int n = 1; n <= 5; n += n == 1 ? 1 : 3) {
      unroll_axis_attr attr = {axis, 0};
      op_case *c = op_case_add(list, UNROLL_OP_CONCAT, &attr, sizeof attr, "concat %d from %d of rank %d axis %d%s", n,
                               (int)op_elements(x), (int)x.rank, (int)axis, types[k].name);
      int64_t sum = 0;
      for (int i = 0; i < n; i++) {
        int64_t extent = x.n[axis] + (i * 5) % 3; /* not all alike */
        sum += extent;
        op_in(c, types[k].dtype, with_extent(x, axis, extent), types[k].fill);
      }
      op_out(c, types[k].dtype, with_extent(x, axis, sum));
    }
}

static void transpose(op_case_list *list, op_shape x, const int32_t *perm, int k) {
  unroll_transpose_attr attr = {{0}};
  op_shape y = x;
  int name = 0;
  for (int32_t i = 0; i < x.rank; i++) {
    attr.perm[i] = perm[i];
    y.n[i] = x.n[perm[i]];
    name = name * 10 + (int)perm[i];
  }
  op_case *c = op_case_add(list, UNROLL_OP_TRANSPOSE, &attr, sizeof attr, "transpose %d by %0*d%s", (int)op_elements(x),
                           (int)x.rank, name, types[k].name);
  op_in(c, types[k].dtype, x, types[k].fill);
  op_out(c, types[k].dtype, y);
}

static void transposes(op_case_list *list, int k) {
  static const int32_t three[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  static const int32_t two[] = {1, 0}, four[] = {0, 2, 1, 3}, four_back[] = {3, 1, 0, 2};
  static const int32_t five[] = {0, 3, 2, 1, 4}, six[] = {5, 3, 0, 4, 1, 2};
  for (size_t i = 0; i < 6; i++)
    transpose(list, SHAPE(3, 7, 5), three[i], k);
  transpose(list, SHAPE(65, 33), two, k);
  transpose(list, SHAPE(1, 17), two, k);
  transpose(list, SHAPE(130, 258), two, k);
  transpose(list, SHAPE(2, 3, 5, 7), four, k);
  transpose(list, SHAPE(2, 3, 5, 7), four_back, k);
  transpose(list, SHAPE(6, 3, 5, 7), four, k);
  transpose(list, SHAPE(6, 2, 3, 5, 7), five, k);
  transpose(list, SHAPE(2, 3, 1, 4, 5, 3), six, k);
}

static void select(op_case_list *list, op_shape condition, op_shape a, op_shape b, op_shape y, int k) {
  op_case *c = op_case_add(list, UNROLL_OP_SELECT, NULL, 0, "select %d %d %d%s", (int)op_elements(condition),
                           (int)op_elements(a), (int)op_elements(b), types[k].name);
  op_in(c, UNROLL_BOOL, condition, FILL(FILL_INTEGER, 0, 1));
  op_in(c, types[k].dtype, a, types[k].fill);
  op_in(c, types[k].dtype, b, types[k].fill);
  op_out(c, types[k].dtype, y);
}

static const char *dtype_name(int32_t dtype) { return dtype == OP_REAL ? "real" : unroll_dtype_name(dtype); }

static void cast(op_case_list *list, int32_t from, int32_t to, op_fill fill) {
  op_case *c = op_case_add(list, UNROLL_OP_CAST, NULL, 0, "cast %s to %s", dtype_name(from), dtype_name(to));
  op_in(c, from, SHAPE(7, 33), fill);
  op_out(c, to, SHAPE(7, 33));
  if (to == UNROLL_F32)
    op_round(c, 1, 0);
}

static void casts(op_case_list *list) {
  static const int32_t all[] = {UNROLL_F64, UNROLL_F32, UNROLL_I64, UNROLL_I32, UNROLL_I8, UNROLL_U8, UNROLL_BOOL};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    for (size_t j = 0; j < sizeof all / sizeof *all; j++) {
      int is_unsigned = all[i] == UNROLL_U8 || all[j] == UNROLL_U8, is_real = all[i] <= UNROLL_F32;
      if (i == j)
        continue;
      if (all[i] == UNROLL_BOOL)
        cast(list, all[i], all[j], FILL(FILL_INTEGER, 0, 1));
      else if (all[j] == UNROLL_BOOL)
        cast(list, all[i], all[j], FILL(FILL_INTEGER, is_unsigned ? 0 : -1, 1));
      else
        cast(list, all[i], all[j], FILL(is_real ? FILL_UNIFORM : FILL_INTEGER, is_unsigned ? 0 : -100, 100));
    }
}

static void constants(op_case_list *list) {
  const op_shape shapes[] = {SHAPE(7, 17), SCALAR, SHAPE(1), SHAPE(3, 65, 33)};
  const double values[] = {2.75, 0, 1, NAN, -INFINITY, 0.1};
  for (int k = 0; k < N_TYPES; k++)
    for (int i = 0; i < (types[k].dtype == OP_REAL ? 6 : 3); i++) {
      unroll_constant_attr attr = {types[k].dtype == UNROLL_BOOL && i == 0 ? 1 : values[i]};
      op_shape shape = shapes[i & 3];
      op_case *c = op_case_add(list, UNROLL_OP_CONSTANT, &attr, sizeof attr, "constant %g %d of rank %d%s", attr.value,
                               (int)op_elements(shape), (int)shape.rank, types[k].name);
      op_out(c, types[k].dtype, shape);
      op_round(c, 1, 0);
    }
}

void op_cases_moves(op_case_list *list) {
  for (int k = 0; k < N_TYPES; k++) {
    slice_and_pad(list, SHAPE(3, 7, 17), k);
    concat(list, SHAPE(3, 7, 5), k);
    transposes(list, k);
    select(list, SHAPE(7, 17), SHAPE(7, 17), SHAPE(7, 17), SHAPE(7, 17), k);
    select(list, SHAPE(7, 1), SHAPE(17), SCALAR, SHAPE(7, 17), k);
    select(list, SHAPE(17), SHAPE(3, 1, 17), SHAPE(3, 7, 1), SHAPE(3, 7, 17), k);
    select(list, SCALAR, SHAPE(1), SHAPE(33, 65), SHAPE(33, 65), k);
  }
  slice_and_pad(list, SHAPE(3, 5, 64), 0); /* rows of whole vectors */
  select(list, SHAPE(64), SHAPE(3, 64), SHAPE(3, 1), SHAPE(3, 64), 0);
  slice_and_pad(list, SHAPE(7, 65), 0);
  slice_and_pad(list, SHAPE(17), 0);
  slice_and_pad(list, SHAPE(2, 3, 2, 5, 3, 2), 0);
  slice_and_pad(list, SHAPE(7, 1), 0);
  concat(list, SHAPE(7, 1), 0);
  concat(list, SHAPE(64), 0);
  concat(list, SHAPE(33, 65), 0);
  casts(list);
  constants(list);
}
