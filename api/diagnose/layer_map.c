/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_map.c: a layer as a map of its state, by graphs of one step: the step alone, with the tangents along all
 * directions, or along a few that are given. Each is compiled when it is first asked for, and has its binding for good; the
 * weights are the first one's.
 */
#include <math.h>
#include <string.h>

#include "diagnose/map.h"
#include "diagnose/net_layers.h"
#include "nn/nn_private.h"

enum { STEP, JACOBIAN, PRODUCTS, KINDS };

typedef struct layer_map {
  unroll_allocator allocator;
  net_layers net; /* its weights are the caller's, and are not looked at once the map is made */
  net_device device;
  int32_t layer, direction;
  int64_t n, I, steps;
  double *x;          /* [steps,I], or NULL */
  net_run run[KINDS]; /* without a binding: not made yet */
  int64_t count;      /* directions of PRODUCTS */
} layer_map;

typedef struct step {
  unroll_tensor before[2], after[2]; /* h and, where there is one, c: [1,P], [1,H] */
} step;

static const char *const identity[2] = {"identity of h", "identity of c"};
static const char *const columns[2] = {"columns of h", "columns of c"}; /* of the Jacobian */

static uint32_t parts_of(const layer_map *m) { return m->net.has_c ? 2 : 1; }
static int64_t width_of(const layer_map *m, uint32_t part) { return part ? m->net.H : m->net.P; }

/* ---- graphs ---- */

static unroll_tensor block(unroll_tensor x, int64_t first, int64_t width, int64_t all) {
  return width == all ? x : unroll_slice(x, 1, first, width);
}

/* What the gates have of the step's input, and of it what is added to the state. Inputs of zeros leave the biases. */
static void read_input(const layer_map *m, const nn_cell_at *k, unroll_tensor in[2], unroll_tensor *residual) {
  unroll_graph *g = k->g;
  const int64_t P = m->net.P, GH = m->net.G * m->net.H, gates = nn_apart(k->r) ? 2 * m->net.H : GH;
  in[0] = in[1] = *residual = unroll_none();
  if (!m->x) {
    const unroll_tensor b = nn_layer_param(g, k->prefix, "b", 0, m->direction, UNROLL_F64, 1, &GH);
    const unroll_tensor row = nn_reshape(b, 2, (int64_t[]){1, GH});
    in[0] = block(row, 0, gates, GH);
    if (gates < GH)
      in[1] = block(row, gates, GH - gates, GH);
    return;
  }
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F64, 2, (int64_t[]){1, m->I});
  in[0] = nn_cell_inputs_of(k, x, 0, gates);
  if (gates < GH)
    in[1] = nn_cell_inputs_of(k, x, gates, GH - gates);
  if (m->net.rnn.residual == UNROLL_RESIDUAL_STATES && m->I == m->net.D * P)
    *residual = block(x, m->direction * P, P, m->I);
}

static unroll_status build_step(const layer_map *m, unroll_graph *g, step *s, unroll_error *err) {
  nn_rnn r;
  char prefix[NET_NAME];
  net_layer_prefix(prefix, m->layer);
  if (!nn_rnn_check(g, m->net.who, &m->net.rnn, &r))
    return unroll_graph_status(g, err);
  const nn_cell_at k = nn_cell_open(&r, g, prefix, 0, m->direction, UNROLL_F64);
  const unroll_tensor state = unroll_input(g, "state", UNROLL_F64, 2, (int64_t[]){1, m->n});
  unroll_tensor in[2], residual;
  read_input(m, &k, in, &residual);
  s->before[0] = block(state, 0, m->net.P, m->n);
  s->before[1] = m->net.has_c ? block(state, m->net.P, m->net.H, m->n) : unroll_none();
  const unroll_cell_state next =
      nn_cell_step(&k, NULL, in, (unroll_cell_state){s->before[0], s->before[1]}, residual, NULL);
  s->after[0] = next.h;
  s->after[1] = next.c;
  TRY(unroll_graph_status(g, err));
  unroll_output(m->net.has_c ? unroll_concat(s->after, 2, 1) : next.h, "next");
  return unroll_graph_status(g, err);
}

static void give_rows(const layer_map *m, unroll_tensor *dy, const char *name) {
  unroll_output(m->net.has_c ? unroll_concat(dy, 2, 1) : dy[0], name);
}

static unroll_status build(const layer_map *m, int kind, unroll_graph *g, unroll_error *err) {
  const uint32_t parts = parts_of(m);
  unroll_tensor dx[2], dy[2];
  step s;
  TRY(build_step(m, g, &s, err));
  /* Of the directions of c no product is made, and of those of h it is W_h itself: so each part goes on its own. */
  for (uint32_t i = 0; i < parts && kind == JACOBIAN; i++) {
    const int64_t n = width_of(m, i);
    dx[0] = unroll_param(g, identity[i], UNROLL_F64, 2, (int64_t[]){n, n});
    tangent_rows(&s.before[i], dx, 1, s.after, parts, dy, n, dx[0]);
    TRY(unroll_graph_status(g, err));
    give_rows(m, dy, columns[i]);
  }
  if (kind == PRODUCTS) {
    const unroll_tensor V = unroll_input(g, "V", UNROLL_F64, 2, (int64_t[]){m->count, m->n});
    for (uint32_t i = 0; i < parts; i++)
      dx[i] = block(V, i ? m->net.P : 0, width_of(m, i), m->n);
    tangent_rows(s.before, dx, parts, s.after, parts, dy, m->count, unroll_none());
    TRY(unroll_graph_status(g, err));
    give_rows(m, dy, "products");
  }
  return unroll_graph_status(g, err);
}

/* ---- bindings ---- */

static unroll_status put_identity(const layer_map *m, net_run *run, uint32_t part, unroll_error *err) {
  const int64_t n = width_of(m, part);
  double *const one = mem_array(&m->allocator, (uint64_t)(n * n), sizeof *one);
  if (!one)
    return fail(err, UNROLL_E_MEMORY, "map: no memory for %lld directions", (long long)n);
  for (int64_t i = 0; i < n; i++)
    one[i * n + i] = 1;
  const unroll_status status = net_run_put(run, identity[part], one, n * n, err);
  mem_free(&m->allocator, one);
  return status;
}

static unroll_status fill(const layer_map *m, int kind, net_run *run, unroll_error *err) {
  if (kind == STEP)
    return net_layers_put_weights(&m->net, run, true, err);
  for (uint32_t i = 0; i < unroll_graph_count(run->graph); i++) {
    const unroll_tensor_info info = unroll_tensor_describe(unroll_graph_tensor(run->graph, i));
    if (info.role == UNROLL_ROLE_PARAM && strcmp(info.name, identity[0]) != 0 && strcmp(info.name, identity[1]) != 0)
      TRY(unroll_binding_share(run->binding, info.name, m->run[STEP].binding, info.name, err));
  }
  for (uint32_t i = 0; i < parts_of(m) && kind == JACOBIAN; i++)
    TRY(put_identity(m, run, i, err));
  return UNROLL_OK;
}

static unroll_status make(layer_map *m, int kind, unroll_error *err) {
  net_run *run = &m->run[kind];
  unroll_status status = net_run_begin(run, &m->allocator, UNROLL_F64, err);
  if (status == UNROLL_OK)
    status = build(m, kind, run->graph, err);
  if (status == UNROLL_OK)
    status = net_run_open(run, m->device.device, err);
  if (status == UNROLL_OK)
    status = fill(m, kind, run, err);
  if (status != UNROLL_OK)
    net_run_close(run);
  return status;
}

/* ---- as a map ---- */

static unroll_status go(layer_map *m, int kind, int64_t t, const double *state, double *next, unroll_error *err) {
  net_run *run = &m->run[kind];
  if (!run->binding)
    TRY(make(m, kind, err));
  if (m->x)
    TRY(net_run_put(run, "x", m->x + t % m->steps * m->I, m->I, err));
  TRY(net_run_put(run, "state", state, m->n, err));
  TRY(unroll_run(run->binding, NULL, err));
  return net_run_get(run, "next", next, m->n, err);
}

static unroll_status take_step(void *ctx, int64_t t, const double *state, double *next, double *J, unroll_error *err) {
  layer_map *m = ctx;
  TRY(go(m, J ? JACOBIAN : STEP, t, state, next, err));
  for (uint32_t i = 0; i < parts_of(m) && J; i++)
    TRY(net_run_get(&m->run[JACOBIAN], columns[i], J + (i ? m->net.P * m->n : 0), width_of(m, i) * m->n, err));
  return UNROLL_OK;
}

static unroll_status multiply(void *ctx, int64_t t, const double *state, double *next, int64_t count, const double *V,
                              double *w, unroll_error *err) {
  layer_map *m = ctx;
  net_run *run = &m->run[PRODUCTS];
  if (m->count != count)
    net_run_close(run);
  m->count = count;
  if (!run->binding)
    TRY(make(m, PRODUCTS, err));
  TRY(net_run_put(run, "V", V, count * m->n, err));
  TRY(go(m, PRODUCTS, t, state, next, err));
  return net_run_get(run, "products", w, count * m->n, err);
}

static void release(void *ctx) {
  layer_map *m = ctx;
  const unroll_allocator a = m->allocator;
  for (int i = KINDS; i-- > 0;) /* the first one's weights last */
    net_run_close(&m->run[i]);
  net_device_close(&m->device);
  mem_free(&a, m->x);
  mem_free(&a, m);
}

static unroll_status copy_input(layer_map *m, const double *x, int64_t steps, unroll_error *err) {
  uint64_t n;
  if (!x)
    return UNROLL_OK;
  if (steps < 1 || m->I < 1 || !size_mul((uint64_t)steps, (uint64_t)m->I, &n))
    return fail(err, UNROLL_E_RANGE, "map: an input of %lld steps of %lld numbers, expected at least 1",
                (long long)steps, (long long)m->I);
  for (uint64_t i = 0; i < n; i++)
    if (!isfinite(x[i]))
      return fail(err, UNROLL_E_RANGE, "map: x of step %lld is %g, expected finite numbers",
                  (long long)(i / (uint64_t)m->I), x[i]);
  m->steps = steps;
  m->x = mem_array(&m->allocator, n, sizeof *m->x);
  if (!m->x)
    return fail(err, UNROLL_E_MEMORY, "map: no memory for an input of %lld steps", (long long)steps);
  memcpy(m->x, x, n * sizeof *x);
  return UNROLL_OK;
}

unroll_status unroll_map_of_layer(const unroll_network *network, int32_t layer, int32_t direction, const double *x,
                                  int64_t steps, unroll_device *device, const unroll_allocator *allocator,
                                  unroll_map **map, unroll_error *err) {
  net_layers net;
  if (!map)
    return fail(err, UNROLL_E_INVALID, "unroll_map_of_layer: map is NULL");
  *map = NULL;
  TRY(net_layers_open(&net, "map", network, err));
  if (layer < 0 || layer >= net.n / net.D || direction < 0 || direction >= net.D)
    return fail(err, UNROLL_E_RANGE, "map: layer %d, direction %d of %d layers, %d directions", layer, direction,
                net.n / net.D, net.D);
  layer_map *m = mem_zalloc(allocator, sizeof *m);
  if (!m)
    return fail(err, UNROLL_E_MEMORY, "map: no memory");
  if (allocator)
    m->allocator = *allocator;
  m->net = net;
  m->layer = layer;
  m->direction = direction;
  m->n = net.P + (net.has_c ? net.H : 0);
  m->I = net_layers_width(&net, layer);
  unroll_status status = unroll_map_create(m->n, take_step, m, allocator, map, err);
  if (status == UNROLL_OK)
    status = copy_input(m, x, steps, err);
  if (status == UNROLL_OK)
    status = net_device_open(&m->device, device, allocator, err);
  if (status == UNROLL_OK)
    status = make(m, STEP, err);
  if (status != UNROLL_OK) {
    unroll_map_destroy(*map);
    *map = NULL;
    release(m);
    return status;
  }
  (*map)->columns = true;
  (*map)->product = multiply;
  (*map)->release = release;
  return UNROLL_OK;
}
