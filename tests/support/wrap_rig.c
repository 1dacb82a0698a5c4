/* SPDX-License-Identifier: Apache-2.0 */
#include "wrap_rig.h"

/* ---- a backend with the check around it ---- */
struct rig rig;
char rig_log[8192];

static void keep_log(void *ctx, int32_t level, const char *message) {
  (void)ctx;
  assert_int_equal(level, UNROLL_LOG_ERROR);
  strncat(rig_log, message, sizeof rig_log - strlen(rig_log) - 2);
  strcat(rig_log, "\n");
}

static void *plain_alloc(void *ctx, uint64_t bytes, uint64_t alignment) {
  (void)ctx;
  void *p = NULL;
  return posix_memalign(&p, (size_t)alignment, (size_t)bytes) == 0 ? p : NULL;
}
static void plain_free(void *ctx, void *p) {
  (void)ctx;
  free(p);
}
const unroll_host rig_plain_host = {.struct_size = sizeof rig_plain_host,
                                    .abi_major = UNROLL_ABI_MAJOR,
                                    .abi_minor = UNROLL_ABI_MINOR,
                                    .alloc = plain_alloc,
                                    .free = plain_free};

static void rig_open_backend(struct rig *r) {
  const unroll_backend_ops *ops;
  assert_ok(unroll_plugin_v1_cpu.open(&rig_plain_host, NULL, 0, &r->backend, &ops, &err));
  if (r->inner.struct_size == 0)
    r->inner = *ops;
  r->ops = &r->inner;
  r->logger = (unroll_logger){NULL, keep_log, UNROLL_LOG_ERROR};
  r->host = (struct wrap_host){.allocator = &r->allocator, .logger = &r->logger};
  assert_ok(wrap_open(&r->host, "cpu", &r->backend, &r->ops, &r->stack, &err));
  assert_non_null(r->stack);
}

void rig_open(struct rig *r) {
  rig_open_backend(r);
  assert_ok(r->ops->device_open(r->backend, 0, NULL, 0, &r->device, &err));
  assert_ok(r->ops->queue_create(r->device, 0, &r->queue, &err));
}

unroll_status rig_close(struct rig *r, unroll_error *err) {
  const unroll_status status = wrap_close(r->stack, &r->backend, err);
  assert_non_null(r->backend);
  assert_int_equal(unroll_plugin_v1_cpu.close(r->backend, NULL), UNROLL_OK);
  wrap_host_finish(&r->host);
  *r = (struct rig){0};
  return status;
}

int rig_setup(void **state) {
  (void)state;
  setenv("UNROLL_WRAP", "check", 1);
  rig_log[0] = 0;
  rig = (struct rig){0};
  rig_open(&rig);
  return 0;
}

int rig_teardown(void **state) {
  (void)state;
  rig.ops->queue_destroy(rig.queue);
  rig.ops->device_close(rig.device);
  rig_logged(NULL);
  unroll_error err = UNROLL_ERROR_INIT;
  const unroll_status status = rig_close(&rig, &err);
  if (status != UNROLL_OK)
    print_error("%s\n", err.message);
  return status != UNROLL_OK;
}

void rig_logged(const char *words) {
  if (words ? !strstr(rig_log, words) : rig_log[0] != 0) {
    print_error("the log: '%s', not '%s'\n", rig_log, words ? words : "");
    fail();
  }
  rig_log[0] = 0;
}

unroll_backend_buffer *rig_buffer(uint64_t bytes) {
  unroll_backend_buffer *b = NULL;
  assert_ok(rig.ops->buffer_create(rig.device, bytes, 0, &b, &err));
  assert_ok(rig.ops->fill(rig.queue, b, 0, bytes, 0, NULL, &err));
  return b;
}

/* ---- views ---- */
uint32_t tiny_tensor(tiny *g, const char *name, int32_t role, uint32_t slot, uint64_t offset) {
  unroll_tensor_view *t = &g->tensors[g->view.n_tensors];
  *t = (unroll_tensor_view){
      .dtype = UNROLL_F32, .rank = 1, .role = role, .slot = slot, .alias = -1, .offset = offset, .name = name};
  for (int i = 0; i < UNROLL_MAX_RANK; i++) {
    t->shape[i] = i == 0 ? ROWS : 1;
    t->stride[i] = i == 0;
    t->dim[i] = -1;
  }
  return g->view.n_tensors++;
}

void tiny_node(tiny *g, uint32_t op, const void *attr, uint32_t attr_size, uint32_t n_in, const uint32_t *in,
               uint32_t out) {
  unroll_node_view *n = &g->nodes[g->view.n_nodes++];
  *n = (unroll_node_view){.op = op,
                          .op_version = 1,
                          .first_in = g->view.n_edges,
                          .n_in = n_in,
                          .first_out = g->view.n_edges + n_in,
                          .n_out = 1,
                          .layer = -1,
                          .direction = -1,
                          .body = UNROLL_NO_BODY,
                          .attr = attr,
                          .attr_size = attr_size,
                          .name = "node"};
  memcpy(g->edges + g->view.n_edges, in, n_in * sizeof *in);
  g->edges[g->view.n_edges + n_in] = out;
  g->view.n_edges += n_in + 1;
}
void tiny_tanh(tiny *g, uint32_t in, uint32_t out) {
  g->tanh.kind = UNROLL_TANH;
  tiny_node(g, UNROLL_OP_UNARY, &g->tanh, sizeof g->tanh, 1, &in, out);
}

void tiny_end(tiny *g, uint32_t n_in, const uint32_t *in, uint32_t n_out, const uint32_t *out) {
  unroll_graph_view *v = &g->view;
  v->first_in = v->n_edges;
  v->n_in = n_in;
  memcpy(g->edges + v->n_edges, in, n_in * sizeof *in);
  v->first_out = v->n_edges + n_in;
  v->n_out = n_out;
  if (n_out > 0)
    memcpy(g->edges + v->first_out, out, n_out * sizeof *out);
  v->n_edges += n_in + n_out;
  v->struct_size = sizeof *v;
  v->node_stride = sizeof *g->nodes;
  v->tensor_stride = sizeof *g->tensors;
  v->dim_min = g->dim_min;
  v->dim_max = g->dim_max;
  v->nodes = g->nodes;
  v->tensors = g->tensors;
  v->edges = g->edges;
}

unroll_backend_exec *tiny_compile(const tiny *g) {
  unroll_backend_exec *e = NULL;
  assert_ok(rig.ops->compile(rig.device, &g->view, NULL, 0, &e, &err));
  return e;
}

void tiny_simple(tiny *g) {
  *g = (tiny){.view.n_slots = 2};
  const uint32_t x = tiny_tensor(g, "x", UNROLL_ROLE_INPUT, 0, 0), y = tiny_tensor(g, "y", UNROLL_ROLE_OUTPUT, 1, 0);
  tiny_tanh(g, x, y);
  tiny_end(g, 1, &x, 1, &y);
}

unroll_slot slot_at(unroll_backend_buffer *b, uint64_t offset, uint64_t bytes) {
  return (unroll_slot){sizeof(unroll_slot), 0, b, offset, bytes};
}

/* What can't be compiled by the cpu backend is not: an executable, a binding and runs of nothing. */
static char nothing;
static unroll_status fake_compile(unroll_backend_device *d, const unroll_graph_view *v, const unroll_option *o,
                                  uint32_t n, unroll_backend_exec **out, unroll_error *err) {
  (void)d, (void)v, (void)o, (void)n, (void)err;
  *out = (unroll_backend_exec *)(void *)&nothing;
  return UNROLL_OK;
}
static unroll_status fake_info(unroll_backend_exec *e, unroll_exec_info *info, unroll_error *err) {
  (void)e, (void)err;
  info->workspace_bytes = rig.info.workspace_bytes;
  info->workspace_alignment = rig.info.workspace_alignment;
  return UNROLL_OK;
}
static unroll_status fake_bind(unroll_backend_exec *e, const unroll_slot *s, uint32_t n, uint32_t stride,
                               unroll_backend_buffer *w, uint64_t at, unroll_backend_binding **out, unroll_error *err) {
  (void)e, (void)s, (void)n, (void)stride, (void)w, (void)at, (void)err;
  *out = (unroll_backend_binding *)(void *)&nothing;
  return UNROLL_OK;
}
static unroll_status fake_run(unroll_backend_binding *b, unroll_backend_queue *q, const unroll_run_args *args,
                              unroll_backend_event **event, unroll_error *err) {
  (void)b, (void)q, (void)args, (void)event, (void)err;
  return UNROLL_OK;
}
static void fake_exec_destroy(unroll_backend_exec *e) { (void)e; }
static void fake_binding_destroy(unroll_backend_binding *b) { (void)b; }
void rig_fake_groups(void) {
  rig.inner.compile = fake_compile;
  rig.inner.exec_info = fake_info;
  rig.inner.exec_destroy = fake_exec_destroy;
  rig.inner.bind = fake_bind;
  rig.inner.binding_destroy = fake_binding_destroy;
  rig.inner.run = fake_run;
}
