/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products. A transposed operand is a matter of strides; c is a bias where it is a row, else y starts as c and the product is
 * added. A primitive is for one size: where sizes come at run time it is made again when they change.
 */
#include "onednn.h"
#include <string.h>

struct onednn_state {
  onednn_product product; /* that the primitive is for */
  dnnl_primitive_t primitive;
  onednn_call call;
  dnnl_memory_t a, b, bias, y;
  char *scratch; /* within the workspace */
  void *more;    /* where a size needs more than the largest one did */
};

static int64_t first_size(const onednn_tensor *t, const int64_t *dims) {
  return t->dim >= 0 && dims ? t->per_size * dims[t->dim] : t->size[0];
}

/* Of the sizes at their maxima where dims is NULL. */
static onednn_product read_product(const onednn_matmul *m, const onednn_tensor *a, const onednn_tensor *b,
                                   const int64_t *dims) {
  onednn_product p = {.P = m->batched ? first_size(a, dims) : 1};
  int64_t a_rest = m->batched ? 1 : first_size(a, dims), b_rest = m->batched ? 1 : first_size(b, dims);
  for (int32_t i = 1; i < a->rank - 1; i++)
    a_rest *= a->size[i];
  for (int32_t i = 1; i < b->rank - 1; i++)
    b_rest *= b->size[i];
  const int64_t a_last = a->size[a->rank - 1], b_last = b->size[b->rank - 1];
  p.M = m->trans_a ? a_last : a_rest;
  p.K = m->trans_a ? a_rest : a_last;
  p.N = m->trans_b ? b_rest : b_last;
  p.a_row = m->trans_a ? 1 : a_last;
  p.a_col = m->trans_a ? a_last : 1;
  p.b_row = m->trans_b ? 1 : b_last;
  p.b_col = m->trans_b ? b_last : 1;
  p.a_batch = a_rest * a_last;
  p.b_batch = b_rest * b_last;
  return p;
}

/* [P,rows,columns], or [rows,columns]. */
static unroll_status describe(const onednn_matmul *m, int64_t P, int64_t rows, int64_t columns, int64_t batch,
                              int64_t row, int64_t column, dnnl_memory_desc_t *md, unroll_error *err) {
  const dnnl_dims_t three = {P, rows, columns}, two = {rows, columns};
  const dnnl_dims_t three_strides = {batch, row, column}, two_strides = {row, column};
  return onednn_check(err,
                      m->batched ? dnnl_memory_desc_init_by_strides(md, 3, three, dnnl_f32, three_strides)
                                 : dnnl_memory_desc_init_by_strides(md, 2, two, dnnl_f32, two_strides),
                      "dnnl_memory_desc_init_by_strides", NULL);
}

/* The primitive's descriptor; its attribute, where it has one of its own, is copied into it. */
static unroll_status make_desc(unroll_backend_device *device, const onednn_matmul *m, bool row, const onednn_product *p,
                               dnnl_primitive_desc_t *out, unroll_error *err) {
  dnnl_memory_desc_t a, b, c, y;
  TRY(describe(m, p->P, p->M, p->K, p->a_batch, p->a_row, p->a_col, &a, err));
  TRY(describe(m, p->P, p->K, p->N, p->b_batch, p->b_row, p->b_col, &b, err));
  TRY(describe(m, 1, 1, p->N, p->N, p->N, 1, &c, err));
  TRY(describe(m, p->P, p->M, p->N, p->M * p->N, p->N, 1, &y, err));
  dnnl_matmul_desc_t desc;
  TRY(onednn_check(err, dnnl_matmul_desc_init(&desc, &a, &b, row ? &c : NULL, &y), "dnnl_matmul_desc_init", NULL));
  if (!m->full_c)
    return onednn_check(err, dnnl_primitive_desc_create(out, &desc, device->attr, device->engine, NULL),
                        "dnnl_primitive_desc_create", "matmul");
  dnnl_primitive_attr_t attr = NULL;
  dnnl_post_ops_t sum = NULL;
  unroll_status status =
      onednn_check(err, dnnl_primitive_attr_clone(&attr, device->attr), "dnnl_primitive_attr_clone", NULL);
  if (status == UNROLL_OK)
    status = onednn_check(err, dnnl_post_ops_create(&sum), "dnnl_post_ops_create", NULL);
  if (status == UNROLL_OK)
    status = onednn_check(err, dnnl_post_ops_append_sum(sum, 1.0f), "dnnl_post_ops_append_sum", NULL);
  if (status == UNROLL_OK)
    status = onednn_check(err, dnnl_primitive_attr_set_post_ops(attr, sum), "dnnl_primitive_attr_set_post_ops", NULL);
  if (status == UNROLL_OK)
    status = onednn_check(err, dnnl_primitive_desc_create(out, &desc, attr, device->engine, NULL),
                          "dnnl_primitive_desc_create", "matmul");
  if (sum)
    (void)dnnl_post_ops_destroy(sum);
  if (attr)
    (void)dnnl_primitive_attr_destroy(attr);
  return status;
}

/* ---- resolve ---- */
static unroll_status shapes_differ(const onednn_resolver *r, const onednn_tensor *a, const onednn_tensor *b) {
  return onednn_fail(r->err, UNROLL_E_SHAPE, "onednn: matmul \"%.60s\": \"%s\" does not go with \"%s\"",
                     r->node_view->name, a->name, b->name);
}

static bool has_size(const onednn_tensor *t, int32_t dim, int32_t rank, const int64_t *size) {
  return t->rank == rank && t->dim == dim && memcmp(t->size, size, (size_t)rank * sizeof *size) == 0;
}

static unroll_status check_shapes(const onednn_resolver *r, onednn_matmul *m, const onednn_tensor *a,
                                  const onednn_tensor *b, const onednn_tensor *c, const onednn_tensor *y) {
  if (b->rank < 2 || b->rank > 3 || a->rank < 2 || (b->rank == 3 && a->rank != 3) || (m->trans_a && a->rank > b->rank))
    return shapes_differ(r, a, b);
  m->batched = b->rank == 3;
  if (m->batched && (a->size[0] != b->size[0] || a->dim != b->dim))
    return shapes_differ(r, a, b);
  const int32_t a_k = m->trans_a ? a->rank - 2 : a->rank - 1, b_k = m->trans_b ? b->rank - 1 : b->rank - 2;
  const int32_t a_k_dim = a_k == 0 ? a->dim : -1, b_k_dim = b_k == 0 ? b->dim : -1;
  if (a->size[a_k] != b->size[b_k] || a_k_dim != b_k_dim || (!m->batched && m->trans_b && b->dim >= 0))
    return shapes_differ(r, a, b);
  int64_t want[UNROLL_MAX_RANK];
  memcpy(want, a->size, sizeof want);
  if (m->trans_a)
    want[a->rank - 2] = a->size[a->rank - 1];
  want[a->rank - 1] = b->size[m->trans_b ? b->rank - 2 : b->rank - 1];
  const int32_t dim = a_k == 0 ? -1 : a->dim;
  m->full_c = c && c->rank > 1;
  if (y && !has_size(y, dim, a->rank, want))
    return shapes_differ(r, a, y);
  if (c && !(m->full_c ? has_size(c, dim, a->rank, want) : has_size(c, -1, 1, &want[a->rank - 1])))
    return shapes_differ(r, a, c);
  for (int32_t i = 0; i < 2; i++)
    if ((i ? b : a)->dim >= 0 && r->view->dim_min[(i ? b : a)->dim] < 1)
      return onednn_fail(r->err, UNROLL_E_UNSUPPORTED, "onednn: matmul \"%.60s\": a run-time size that may be 0",
                         r->node_view->name);
  return UNROLL_OK;
}

static unroll_status matmul_resolve(const onednn_resolver *r, onednn_node *n) {
  const onednn_tensor *t[4];
  for (uint32_t i = 0; i < 4; i++) {
    t[i] = i < 3 ? onednn_in(r, n, i) : onednn_out(r, n, 0);
    if (!t[i] && i < 2)
      return onednn_fail(r->err, UNROLL_E_GRAPH, "onednn: matmul \"%.60s\": input %u is absent", r->node_view->name, i);
    if (t[i] && t[i]->dtype != UNROLL_F32)
      return onednn_fail(r->err, UNROLL_E_DTYPE, "onednn: matmul \"%.60s\": \"%s\" is not f32", r->node_view->name,
                         t[i]->name);
  }
  if (!r->node_view->attr || r->node_view->attr_size < UNROLL_SIZE_TO(unroll_matmul_attr, trans_b))
    return onednn_fail(r->err, UNROLL_E_ABI, "onednn: matmul \"%.60s\": attributes of %u bytes, %zu expected",
                       r->node_view->name, r->node_view->attr_size, UNROLL_SIZE_TO(unroll_matmul_attr, trans_b));
  unroll_matmul_attr attr;
  memcpy(&attr, r->node_view->attr, UNROLL_SIZE_TO(unroll_matmul_attr, trans_b));
  onednn_matmul *m = &n->as.matmul;
  m->trans_a = attr.trans_a != 0;
  m->trans_b = attr.trans_b != 0;
  TRY(check_shapes(r, m, t[0], t[1], t[2], t[3]));
  m->largest = read_product(m, t[0], t[1], NULL);
  dnnl_primitive_desc_t desc;
  TRY(make_desc(r->device, m, t[2] && !m->full_c, &m->largest, &desc, r->err));
  (void)onednn_take(&n->workspace, onednn_desc_bytes(dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0)));
  (void)dnnl_primitive_desc_destroy(desc);
  if (r->claim)
    r->claim->group = UNROLL_GROUP_HOST;
  else if (!t[3])
    n->op = NULL;
  return UNROLL_OK;
}

/* ---- bind ---- */
static void forget(onednn_state *s, const unroll_backend *backend) {
  onednn_call_release(&s->call);
  if (s->primitive)
    (void)dnnl_primitive_destroy(s->primitive);
  onednn_free(backend, s->more);
  s->primitive = NULL;
  s->more = NULL;
  s->product.P = 0;
}

static unroll_status add(onednn_state *s, unroll_backend_device *device, const_dnnl_primitive_desc_t desc, int arg,
                         dnnl_memory_t *memory, unroll_error *err) {
  TRY(onednn_call_add(&s->call, device->engine, arg, onednn_arg(desc, arg), DNNL_MEMORY_NONE, err));
  *memory = s->call.args[s->call.n_args - 1].memory;
  return UNROLL_OK;
}

static unroll_status make_call(onednn_state *s, unroll_backend_device *device, const onednn_node *n,
                               dnnl_primitive_desc_t desc, unroll_error *err) {
  const bool row = n->in[2] != UNROLL_NO_TENSOR && !n->as.matmul.full_c;
  const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
  const uint64_t bytes = onednn_desc_bytes(scratch);
  TRY(onednn_check(err, dnnl_primitive_create(&s->primitive, desc), "dnnl_primitive_create", "matmul"));
  s->call.primitive = s->primitive;
  if (bytes > n->workspace && !(s->more = onednn_alloc(device->backend, bytes)))
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for %llu bytes of scratch", (unsigned long long)bytes);
  TRY(add(s, device, desc, DNNL_ARG_SRC, &s->a, err));
  TRY(add(s, device, desc, DNNL_ARG_WEIGHTS, &s->b, err));
  TRY(add(s, device, desc, DNNL_ARG_DST, &s->y, err));
  if (row)
    TRY(add(s, device, desc, DNNL_ARG_BIAS, &s->bias, err));
  return onednn_call_add(&s->call, device->engine, DNNL_ARG_SCRATCHPAD, scratch, s->more ? s->more : s->scratch, err);
}

static unroll_status prepare(onednn_state *s, unroll_backend_device *device, const onednn_node *n,
                             const onednn_product *p, unroll_error *err) {
  dnnl_primitive_desc_t desc = NULL;
  forget(s, device->backend);
  TRY(make_desc(device, &n->as.matmul, n->in[2] != UNROLL_NO_TENSOR && !n->as.matmul.full_c, p, &desc, err));
  const unroll_status status = make_call(s, device, n, desc, err);
  (void)dnnl_primitive_desc_destroy(desc);
  if (status < 0)
    forget(s, device->backend);
  else
    s->product = *p;
  return status;
}

static void matmul_unbind(unroll_backend_exec *e, onednn_state *s) {
  if (!s)
    return;
  forget(s, e->device->backend);
  onednn_free(e->device->backend, s);
}

static unroll_status matmul_bind(unroll_backend_exec *e, const onednn_node *n, char *const *data, char *workspace,
                                 onednn_state **out, unroll_error *err) {
  (void)data;
  onednn_state *s = onednn_alloc(e->device->backend, sizeof *s);
  if (!s)
    return onednn_fail(err, UNROLL_E_MEMORY, "onednn: no memory for a product");
  s->scratch = workspace;
  const unroll_status status = prepare(s, e->device, n, &n->as.matmul.largest, err);
  if (status < 0) {
    matmul_unbind(e, s);
    return status;
  }
  *out = s;
  return UNROLL_OK;
}

/* ---- run ---- */
static unroll_status place(dnnl_memory_t memory, void *data, unroll_error *err) {
  return onednn_check(err, dnnl_memory_set_data_handle(memory, data), "dnnl_memory_set_data_handle", NULL);
}

static unroll_status matmul_run(const unroll_backend_exec *e, const onednn_node *n, onednn_state *s,
                                const onednn_step *step) {
  const onednn_matmul *m = &n->as.matmul;
  const onednn_product p = read_product(m, &e->tensors[n->in[0]], &e->tensors[n->in[1]], step->args->dims);
  if (p.P != s->product.P || p.M != s->product.M || p.K != s->product.K)
    TRY(prepare(s, e->device, n, &p, step->err));
  char *c = onednn_data(step->data, n->in[2]), *y = step->data[n->out[0]];
  TRY(place(s->a, step->data[n->in[0]], step->err));
  TRY(place(s->b, step->data[n->in[1]], step->err));
  TRY(place(s->y, y, step->err));
  if (m->full_c && c != y)
    memcpy(y, c, (uint64_t)(p.P * p.M * p.N) * sizeof(float));
  else if (c && !m->full_c)
    TRY(place(s->bias, c, step->err));
  return onednn_call_run(&s->call, step->stream, step->err);
}

const onednn_op onednn_matmul_op = {"matmul", matmul_resolve, NULL, matmul_bind, matmul_unbind, matmul_run};
