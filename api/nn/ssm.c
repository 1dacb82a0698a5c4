/* SPDX-License-Identifier: Apache-2.0 */
/* ssm.c: state-space models, their discretisation, and neural autoregression. */
#include "nn/nn_private.h"
#include <unroll/ssm.h>

/* x, of rank n, becomes [..] with an axis of extent 1 at `axis`. */
static unroll_tensor insert_axis(unroll_tensor x, int32_t axis) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  const tensor_spec *s = graph_spec(x);
  tensor_spec to = graph_make_spec(s->dtype, s->rank + 1, (int64_t[UNROLL_MAX_RANK]){0});
  for (int32_t i = 0; i < s->rank; i++)
    to.shape[i + (i >= axis)] = s->shape[i];
  to.shape[axis] = 1;
  to.dim[0] = axis > 0 ? s->dim[0] : -1;
  return graph_reshape(x, &to);
}

/* Is x there, of that rank, with these extents? One of 0 may be anything. */
static bool check(unroll_graph *g, const char *what, unroll_tensor x, int32_t rank, const int64_t *shape,
                  const char *expected) {
  char text[GRAPH_DESCRIBE];
  if (graph_failed(g))
    return false;
  const tensor_spec *s = graph_spec(x);
  bool fits = s->rank == rank;
  for (int32_t i = 0; i < rank && fits; i++)
    fits = shape[i] == 0 || s->shape[i] == shape[i];
  if (!fits)
    graph_fail(g, UNROLL_E_SHAPE, "state-space model: %s is %s, expected %s", what, graph_describe(g, x.id, text),
               expected);
  return fits;
}
#define CHECK(g, what, x, expected, ...)                                                                           \
  check((g), (what), (x), (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__}, \
        (expected))

static unroll_tensor masked(unroll_tensor x, unroll_tensor lengths) {
  return x.graph && lengths.graph ? unroll_length_mask(x, lengths) : x;
}

static unroll_tensor plus(unroll_tensor a, unroll_tensor b) { return !a.graph ? b : !b.graph ? a : unroll_add(a, b); }

/* ---- dense ---- */

struct dense {
  int64_t S, N, M, P;
};

/* A or C: [rows,N], one for each step, or one for each step and sequence. */
static bool check_matrix(unroll_graph *g, const struct dense *d, const char *what, unroll_tensor x, int64_t rows,
                         const char *expected) {
  switch (graph_spec(x)->rank) {
  case 4: return CHECK(g, what, x, expected, 0, d->S, rows, d->N);
  case 3: return CHECK(g, what, x, expected, 0, rows, d->N);
  default: return CHECK(g, what, x, expected, rows, d->N);
  }
}

static unroll_graph *check_dense(const unroll_ssm *in, struct dense *d) {
  if (!in)
    return NULL;
  unroll_graph *g = in->A.graph ? in->A.graph : in->u.graph ? in->u.graph : in->w.graph;
  if (!g || graph_failed(g))
    return NULL;
  if (!UNROLL_HAS(unroll_ssm, in, lengths)) {
    graph_fail(g, UNROLL_E_INVALID, "state-space model: its struct_size is too small");
    return NULL;
  }
  if (!in->A.graph || !in->C.graph || (!in->u.graph && !in->w.graph) || (in->u.graph && !in->B.graph)) {
    graph_fail(g, UNROLL_E_INVALID, "state-space model: %s missing",
               !in->A.graph   ? "A is"
               : !in->C.graph ? "C is"
               : in->u.graph  ? "B is"
                              : "both u and w are");
    return NULL;
  }
  const unroll_tensor drive = in->u.graph ? in->u : in->w;
  const tensor_spec *a = graph_spec(in->A), *c = graph_spec(in->C);
  if (!CHECK(g, in->u.graph ? "u" : "w", drive, "[T,S,M]", 0, 0, 0) || a->rank < 2 || c->rank < 2) {
    graph_fail(g, UNROLL_E_SHAPE, "state-space model: A and C are matrices, or one for each step");
    return NULL;
  }
  *d = (struct dense){graph_spec(drive)->shape[1], a->shape[a->rank - 1], graph_spec(drive)->shape[2],
                      c->shape[c->rank - 2]};
  const bool fits = check_matrix(g, d, "A", in->A, d->N, "[N,N], [T,N,N] or [T,S,N,N]") &&
                    check_matrix(g, d, "C", in->C, d->P, "[P,N], [T,P,N] or [T,S,P,N]") &&
                    (!in->u.graph || CHECK(g, "B", in->B, "[N,M]", d->N, d->M)) &&
                    (!in->u.graph || !in->D.graph || CHECK(g, "D", in->D, "[P,M]", d->P, d->M)) &&
                    (!in->w.graph || CHECK(g, "w", in->w, "[T,S,N]", 0, d->S, d->N)) &&
                    (!in->v.graph || CHECK(g, "v", in->v, "[T,S,P]", 0, d->S, d->P)) &&
                    (!in->x0.graph || CHECK(g, "x0", in->x0, "[S,N]", d->S, d->N));
  return fits ? g : NULL;
}

/* The states of all steps. drive [T,S,N]. */
static void run_dense(unroll_graph *g, const unroll_ssm *in, const struct dense *d, unroll_tensor drive,
                      int32_t direction, unroll_ssm_outputs *out) {
  const int32_t dtype = graph_spec(in->A)->dtype, rank = graph_spec(in->A)->rank;
  const unroll_tensor x0 = in->x0.graph ? in->x0 : unroll_constant(g, dtype, 2, (int64_t[]){d->S, d->N}, 0);
  unroll_tensor A = in->A;
  if (rank == 3) /* every sequence's own, since a step's inputs have the batch in front */
    A = unroll_add(insert_axis(A, 1), unroll_constant(g, dtype, 4, (int64_t[]){1, d->S, 1, 1}, 0));
  unroll_scan *s = unroll_scan_begin(g, direction, in->lengths);
  const unroll_tensor e = unroll_scan_input(s, drive), A_t = rank == 2 ? A : unroll_scan_input(s, A),
                      x = unroll_scan_carry(s, x0);
  unroll_tensor next;
  if (rank == 2)
    next = unroll_matmul_add(x, 0, A_t, 1, e);
  else
    next = unroll_add(
        unroll_reshape(unroll_matmul_add(insert_axis(x, 1), 0, A_t, 1, unroll_none()), 2, (int64_t[]){d->S, d->N}), e);
  unroll_scan_next(s, x, next);
  out->x = unroll_scan_output(s, next);
  out->x_last = unroll_scan_last(s, x);
  unroll_scan_end(s);
}

static unroll_tensor observe(unroll_tensor x, unroll_tensor C) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  if (graph_spec(C)->rank < 4)
    return unroll_matmul_add(x, 0, C, 1, unroll_none()); /* batched over the steps where C is [T,P,N] */
  return unroll_reduce(unroll_mul(C, insert_axis(x, 2)), UNROLL_SUM, 1u << 3, 0);
}

unroll_ssm_outputs unroll_ssm_dense(const unroll_ssm *in, int32_t direction) {
  unroll_ssm_outputs out = {unroll_none(), unroll_none(), unroll_none()};
  struct dense d;
  unroll_graph *g = check_dense(in, &d);
  if (!g)
    return out;
  /* What stands past a sequence's end must not reach the gradients of B and D. */
  const unroll_tensor u = masked(in->u, in->lengths);
  const unroll_tensor drive = plus(u.graph ? unroll_matmul_add(u, 0, in->B, 1, unroll_none()) : u, in->w);
  run_dense(g, in, &d, drive, direction, &out);
  out.y = observe(out.x, in->C);
  if (u.graph && in->D.graph)
    out.y = plus(out.y, unroll_matmul_add(u, 0, in->D, 1, unroll_none()));
  /* ... nor what flows back into y there those of C and D. */
  out.y = masked(plus(out.y, in->v), in->lengths);
  return out;
}

unroll_tensor unroll_noise(unroll_tensor L, int64_t T, int64_t S) {
  unroll_graph *g = L.graph;
  if (!g || graph_failed(g))
    return unroll_none();
  const tensor_spec *s = graph_spec(L);
  const int64_t N = s->rank == 2 ? s->shape[0] : 0;
  char text[GRAPH_DESCRIBE];
  if (s->rank != 2 || s->shape[1] != N)
    return graph_fail(g, UNROLL_E_SHAPE, "noise: its factor is %s, expected [N,N]", graph_describe(g, L.id, text));
  const unroll_tensor normal = unroll_random(g, UNROLL_RANDOM_NORMAL, s->dtype, 3, (int64_t[]){T, S, N});
  return unroll_matmul_add(normal, 0, L, 1, unroll_none());
}

/* ---- diagonal ---- */

struct diagonal {
  int64_t S, M, N;
};

static bool check_coefficient(unroll_graph *g, const struct diagonal *d, const char *what, unroll_tensor x) {
  static const char expected[] = "[M,N] or [T,S,M,N]";
  return graph_spec(x)->rank == 4 ? CHECK(g, what, x, expected, 0, d->S, d->M, d->N)
                                  : CHECK(g, what, x, expected, d->M, d->N);
}

static unroll_graph *check_diagonal(const unroll_diagonal_ssm *in, struct diagonal *d) {
  unroll_graph *g = in ? in->u.graph : NULL;
  if (!g || graph_failed(g))
    return NULL;
  if (!UNROLL_HAS(unroll_diagonal_ssm, in, lengths) || !in->a.graph || !in->b.graph || !in->c.graph) {
    graph_fail(g, UNROLL_E_INVALID,
               "diagonal state-space model: a, b or c is missing, or its struct_size is too small");
    return NULL;
  }
  if (!CHECK(g, "u", in->u, "[T,S,M]", 0, 0, 0))
    return NULL;
  const tensor_spec *u = graph_spec(in->u), *a = graph_spec(in->a);
  *d = (struct diagonal){u->shape[1], u->shape[2], a->rank ? a->shape[a->rank - 1] : 0};
  const bool fits = check_coefficient(g, d, "a", in->a) && check_coefficient(g, d, "b", in->b) &&
                    check_coefficient(g, d, "c", in->c) && (!in->d.graph || CHECK(g, "d", in->d, "[M]", d->M)) &&
                    (!in->x0.graph || CHECK(g, "x0", in->x0, "[S,M,N]", d->S, d->M, d->N));
  return fits ? g : NULL;
}

unroll_ssm_outputs unroll_ssm_diagonal(const unroll_diagonal_ssm *in, int32_t direction) {
  unroll_ssm_outputs out = {unroll_none(), unroll_none(), unroll_none()};
  struct diagonal d;
  unroll_graph *g = check_diagonal(in, &d);
  if (!g)
    return out;
  const unroll_tensor u = masked(in->u, in->lengths), drive = unroll_mul(insert_axis(u, 3), in->b);
  if (graph_failed(g))
    return out;
  unroll_tensor a = in->a;
  if (graph_spec(a)->rank == 2)
    a = unroll_add(a, graph_zeros_like(g, graph_spec(drive), 0));
  out.x = unroll_linear_scan(a, drive, in->x0, in->lengths, direction, &out.x_last);
  out.y = unroll_reduce(unroll_mul(out.x, in->c), UNROLL_SUM, 1u << 3, 0);
  if (in->d.graph)
    out.y = unroll_add(out.y, unroll_mul(u, in->d));
  /* What c holds past a sequence's end must not reach y, nor what flows back into y there the gradients. */
  out.y = masked(out.y, in->lengths);
  return out;
}

void unroll_discretize(unroll_tensor A, unroll_tensor B, unroll_tensor dt, int32_t method, unroll_tensor *a,
                       unroll_tensor *b) {
  *a = *b = unroll_none();
  unroll_graph *g = A.graph;
  if (!g || graph_failed(g))
    return;
  if (!B.graph || !dt.graph || (method != UNROLL_ZERO_ORDER_HOLD && method != UNROLL_BILINEAR)) {
    graph_fail(g, UNROLL_E_INVALID,
               "discretize: B or dt is missing, or method %d is not UNROLL_ZERO_ORDER_HOLD or _BILINEAR", method);
    return;
  }
  if (!CHECK(g, "A", A, "[M,N]", 0, 0) ||
      !CHECK(g, "B", B, "A's shape", graph_spec(A)->shape[0], graph_spec(A)->shape[1]) ||
      !CHECK(g, "dt", dt, "[M]", graph_spec(A)->shape[0]))
    return;
  const unroll_tensor one = unroll_constant(g, graph_spec(A)->dtype, 0, NULL, 1), step = insert_axis(dt, 1),
                      half = unroll_scale(unroll_mul(step, A), 0.5);
  if (method == UNROLL_BILINEAR) {
    const unroll_tensor below = unroll_sub(one, half);
    *a = unroll_div(unroll_add(one, half), below);
    *b = unroll_mul(unroll_div(step, below), B);
    return;
  }
  /* with t = tanh(x/2), e^x - 1 is 2t/(1 - t) without cancellation */
  const unroll_tensor t = unroll_tanh(half), below = unroll_sub(one, t);
  *a = unroll_unary(unroll_mul(step, A), UNROLL_EXP);
  *b = unroll_mul(unroll_div(unroll_scale(t, 2), unroll_mul(below, A)), B);
}

/* ---- neural autoregression ---- */

/* "PREFIX.what", to be freed. */
static char *name_of(unroll_graph *g, const char *prefix, const char *what) {
  char *name = mem_printf(&g->allocator, "%s%s%s", prefix ? prefix : "", prefix && *prefix ? "." : "", what);
  if (!name)
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for the name of a parameter");
  return name;
}

static unroll_tensor linear(unroll_tensor x, const char *prefix, const char *what, int64_t out_features) {
  if (!x.graph || graph_failed(x.graph))
    return unroll_none();
  char *name = name_of(x.graph, prefix, what);
  const unroll_tensor y = name ? unroll_linear(x, name, out_features, 1) : unroll_none();
  mem_free(&x.graph->allocator, name);
  return y;
}

static unroll_tensor last_state(unroll_tensor x, const char *prefix, int32_t cell, int64_t hidden) {
  const unroll_rnn_options o = {.struct_size = sizeof o, .cell = cell, .layers = 1, .hidden = hidden};
  unroll_tensor h = unroll_none();
  unroll_rnn_state last = {.h = &h};
  char *name = name_of(x.graph, prefix, "rnn");
  if (name)
    unroll_rnn(x, name, &o, NULL, &last);
  mem_free(&x.graph->allocator, name);
  return h;
}

unroll_tensor unroll_neural_ar(unroll_tensor x, const char *prefix, int32_t cell, int64_t hidden) {
  unroll_graph *g = x.graph;
  char text[GRAPH_DESCRIBE];
  if (!g || graph_failed(g))
    return unroll_none();
  const tensor_spec s = *graph_spec(x);
  if (s.rank != 3 || s.shape[2] != 1 || s.dim[0] >= 0)
    return graph_fail(g, UNROLL_E_SHAPE, "neural autoregression: x is %s, expected [p,S,1] with a p that is fixed",
                      graph_describe(g, x.id, text));
  if (cell != UNROLL_CELL_NONE)
    return linear(last_state(x, prefix, cell, hidden), prefix, "out", 1);
  const unroll_tensor window = unroll_transpose(unroll_reshape(x, 2, s.shape), (int32_t[]){1, 0});
  return linear(unroll_tanh(linear(window, prefix, "hidden", hidden)), prefix, "out", 1);
}
