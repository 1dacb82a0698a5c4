/* SPDX-License-Identifier: Apache-2.0 */
/* The check's rules of executables, slots and runs: what a view says, against what a binding and a run are given. */
#include "plugins/wrap_check.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- a view ---- */
static const unroll_node_view *node_at(const unroll_graph_view *v, uint32_t i) {
  return (const unroll_node_view *)(const void *)((const char *)v->nodes + (size_t)i * v->node_stride);
}

static const unroll_tensor_view *tensor_at(const unroll_graph_view *v, uint32_t i) {
  return (const unroll_tensor_view *)(const void *)((const char *)v->tensors + (size_t)i * v->tensor_stride);
}

static bool is_range(const unroll_graph_view *v, uint32_t first, uint32_t n) {
  return first <= v->n_edges && n <= v->n_edges - first;
}

/* Whether what follows may walk over it; whether it is right is the backend's to say. */
static bool is_readable(const unroll_graph_view *v) {
  if (!v || !UNROLL_HAS(unroll_graph_view, v, bodies) || v->node_stride < sizeof(unroll_node_view) ||
      v->tensor_stride < sizeof(unroll_tensor_view) || !is_range(v, v->first_in, v->n_in) ||
      !is_range(v, v->first_out, v->n_out)) {
    return false;
  }
  for (uint32_t i = 0; i < v->n_nodes; i++) {
    const unroll_node_view *n = node_at(v, i);
    if (!is_range(v, n->first_in, n->n_in) || !is_range(v, n->first_out, n->n_out)) {
      return false;
    }
  }
  for (uint32_t i = 0; i < v->n_edges; i++) {
    if (v->edges[i] != UNROLL_NO_TENSOR && v->edges[i] >= v->n_tensors) {
      return false;
    }
  }
  return true;
}

static bool read_tensor(const unroll_tensor_view *t, uint32_t n_slots, struct check_tensor *out) {
  *out = (struct check_tensor){.slot = t->slot,
                               .period = t->period,
                               .offset = t->offset,
                               .bytes = unroll_dtype_size(t->dtype),
                               .step = t->step,
                               .role = t->role,
                               .alias = t->alias,
                               .element = unroll_dtype_size(t->dtype),
                               .writer = CHECK_NOBODY,
                               .first_reader = CHECK_NOBODY,
                               .last_reader = CHECK_NOBODY,
                               .next = CHECK_NOBODY};
  (void)snprintf(out->name, sizeof out->name, "%s", t->name ? t->name : "?");
  bool fits =
      t->rank >= 0 && t->rank <= UNROLL_MAX_RANK && t->slot < n_slots && out->element > 0 && t->offset <= INT64_MAX;
  for (int32_t i = 0; fits && i < t->rank; i++) {
    fits = t->shape[i] >= 0 && size_mul(out->bytes, (uint64_t)t->shape[i], &out->bytes);
  }
  return fits && out->bytes <= INT64_MAX;
}

/* map: from tensors of the view to those of the exec. */
static bool read_nodes(struct check_exec *e, const unroll_graph_view *v, uint32_t *map) {
  for (uint32_t i = 0; i < v->n_nodes; i++) {
    const unroll_node_view *n = node_at(v, i);
    for (uint32_t k = 0; k < n->n_in + n->n_out; k++) {
      const uint32_t id = v->edges[k < n->n_in ? n->first_in + k : n->first_out + k - n->n_in];
      if (id == UNROLL_NO_TENSOR) {
        continue;
      }
      const unroll_tensor_view *from = tensor_at(v, id);
      if (from->slot == UNROLL_NO_SLOT) {
        e->is_private = true;
        continue;
      }
      if (map[id] == CHECK_NOBODY) {
        if (!read_tensor(from, v->n_slots, &e->tensors[e->n_tensors])) {
          return false;
        }
        map[id] = e->n_tensors++;
      }
      struct check_tensor *t = &e->tensors[map[id]];
      if (k >= n->n_in) {
        t->writer = i;
        t->in_optimizer = n->op == UNROLL_OP_OPTIMIZER;
      } else {
        t->first_reader = t->first_reader == CHECK_NOBODY ? i : t->first_reader;
        t->last_reader = i;
      }
    }
  }
  return true;
}

static void read_ends(struct check_exec *e, const unroll_graph_view *v, const uint32_t *map) {
  for (uint32_t i = 0; i < v->n_out; i++) {
    const uint32_t id = v->edges[v->first_out + i];
    if (id != UNROLL_NO_TENSOR && map[id] != CHECK_NOBODY) {
      e->tensors[map[id]].is_output = true;
    }
  }
  /* A body's carries are its first inputs, in the order of its first outputs. */
  for (uint32_t i = 0; i < v->n_in && i < v->n_out; i++) {
    const uint32_t in = v->edges[v->first_in + i], out = v->edges[v->first_out + i];
    if (in != UNROLL_NO_TENSOR && out != UNROLL_NO_TENSOR && map[in] != CHECK_NOBODY &&
        tensor_at(v, in)->role == UNROLL_ROLE_CARRY) {
      e->tensors[map[in]].next = map[out];
    }
  }
  for (uint32_t i = 0; i < e->n_tensors; i++) { /* from the view's numbers to these */
    const int32_t alias = e->tensors[i].alias;
    e->tensors[i].alias = alias >= 0 && (uint32_t)alias < v->n_tensors ? (int32_t)map[alias] : -1;
  }
}

bool check_exec_read(struct check_exec *e, const unroll_graph_view *v, const unroll_allocator *a) {
  if (!is_readable(v)) {
    return true;
  }
  uint32_t *map = mem_array(a, (uint64_t)v->n_tensors + 1, sizeof *map);
  e->tensors = mem_array(a, (uint64_t)v->n_tensors + 1, sizeof *e->tensors);
  e->dim_min = mem_array(a, (uint64_t)v->n_dims * 2 + 1, sizeof *e->dim_min);
  if (!map || !e->tensors || !e->dim_min) {
    mem_free(a, map);
    return false; /* the rest goes with the object */
  }
  memset(map, 0xFF, (size_t)v->n_tensors * sizeof *map);
  e->dim_max = e->dim_min + v->n_dims;
  for (uint32_t i = 0; i < v->n_dims; i++) {
    e->dim_min[i] = v->dim_min[i];
    e->dim_max[i] = v->dim_max[i];
  }
  e->is_template = v->is_template != 0;
  e->n_dims = v->n_dims;
  e->n_slots = v->n_slots;
  e->known = read_nodes(e, v, map);
  if (e->known) {
    read_ends(e, v, map);
  }
  mem_free(a, map);
  return true;
}

/* ---- places ---- */
int64_t check_place(const struct check_tensor *t, int64_t step) {
  int64_t moved = 0, at = 0;
  step = t->period ? step % (int64_t)t->period : step;
  const bool fits = extent_mul(step, t->step, &moved) && extent_add((int64_t)t->offset, moved, &at);
  return fits ? at : t->step < 0 ? INT64_MIN : INT64_MAX;
}

void check_places(const struct check_tensor *t, int64_t low, int64_t high, int64_t *first, int64_t *last) {
  if (t->period) {
    const int64_t period = t->period;
    const bool wraps = low / period != high / period;
    low = wraps ? 0 : low % period;
    high = wraps ? period - 1 : high % period;
  }
  *first = check_place(t, t->step < 0 ? high : low);
  *last = check_place(t, t->step < 0 ? low : high);
}

bool check_steps(const struct check_exec *e, const unroll_run_args *args, int64_t *low, int64_t *high) {
  *low = *high = 0;
  if (!e->is_template) {
    return true;
  }
  *low = args->direction == UNROLL_REVERSE ? args->first - args->count + 1 : args->first;
  *high = args->direction == UNROLL_REVERSE ? args->first : args->first + args->count - 1;
  return args->count > 0;
}

/* ---- tensors in the same place ---- */
struct extent { /* bytes of a buffer */
  const struct check_buffer *buffer;
  int64_t begin, end;
};

static struct extent extent_of(const struct check_binding *b, const struct check_tensor *t, int64_t step) {
  const struct check_slot *s = &b->slots[t->slot];
  const int64_t at = (int64_t)s->offset + check_place(t, step);
  return (struct extent){s->buffer, at, at + (int64_t)t->bytes};
}

static bool overlap(const struct extent *x, const struct extent *y) {
  return x->buffer == y->buffer && x->begin < y->end && y->begin < x->end;
}
static bool is_same(const struct extent *x, const struct extent *y) { return x->begin == y->begin && x->end == y->end; }
static bool is_within(const struct extent *x, const struct extent *y) {
  return x->begin >= y->begin && x->end <= y->end;
}

/* May x, which no node writes, be a view that the host made of something that a node writes after y? */
static bool is_view_of_later(const struct check_binding *b, const struct check_exec *e, const struct check_tensor *y,
                             const struct extent *at_x, int64_t t) {
  for (uint32_t i = 0; i < e->n_tensors; i++) {
    const struct check_tensor *z = &e->tensors[i];
    if (z->writer == CHECK_NOBODY || (z->writer <= y->writer && !e->is_private)) {
      continue;
    }
    const struct extent at_z = extent_of(b, z, t);
    if (z != y && at_z.buffer == at_x->buffer && is_within(at_x, &at_z)) {
      return true;
    }
  }
  return false;
}

/* Why y, which a node writes, may not stand where x does in the same step; NULL where it may. */
static const char *conflict(const struct check_binding *b, const struct check_exec *e, const struct check_tensor *y,
                            const struct extent *at_y, const struct check_tensor *x, const struct extent *at_x,
                            int64_t t) {
  const uint32_t j = y->writer;
  const bool is_alias = y->alias >= 0 && x == &e->tensors[y->alias];
  const bool over_input = y->in_optimizer && is_same(at_x, at_y) && x->first_reader != CHECK_NOBODY &&
                          x->first_reader <= j && x->last_reader >= j;
  const bool made_here = x->writer != CHECK_NOBODY;
  if (x->writer == j) {
    return "one node writes both";
  }
  if (!made_here && x->role == UNROLL_ROLE_TEMP &&
      (is_within(at_x, at_y) || is_within(at_y, at_x) || is_view_of_later(b, e, y, at_x, t))) {
    return NULL;
  }
  if (e->is_private) {
    return is_alias || over_input ? NULL : "they are of one private group";
  }
  if (made_here && x->writer > j) {
    return NULL; /* x is written over y: the pair comes the other way round too */
  }
  if (x->last_reader != CHECK_NOBODY && x->last_reader > j) {
    return "a node reads the second after the first was written";
  }
  if (x->last_reader == j && !is_alias && !over_input) {
    return "the node that writes the first reads the second";
  }
  return made_here && x->is_output ? "the second is an output, and is written first" : NULL;
}

/* The tensor that a carry's next value is: what is written to its place of the next step, else what the view says. */
static const struct check_tensor *next_of(const struct check_binding *b, const struct check_exec *e,
                                          const struct check_tensor *x, const struct extent *at_x, int64_t t) {
  const struct check_tensor *next = NULL;
  for (uint32_t i = 0; i < e->n_tensors; i++) {
    const struct check_tensor *z = &e->tensors[i];
    const struct extent at_z = extent_of(b, z, t);
    if (z->writer != CHECK_NOBODY && at_z.buffer == at_x->buffer && is_same(&at_z, at_x) &&
        (!next || z->writer > next->writer)) {
      next = z;
    }
  }
  if (!next && x->next != CHECK_NOBODY && e->tensors[x->next].writer != CHECK_NOBODY) {
    next = &e->tensors[x->next];
  }
  return next;
}

/* Likewise where x is read a step later, and y is written at t. */
static const char *conflict_later(const struct check_binding *b, const struct check_exec *e,
                                  const struct check_tensor *y, const struct extent *at_y, const struct check_tensor *x,
                                  const struct extent *at_x, int64_t t) {
  if (x->writer != CHECK_NOBODY || x->role == UNROLL_ROLE_TEMP) {
    return NULL;
  }
  if (x->role == UNROLL_ROLE_CARRY) {
    const struct check_tensor *next = next_of(b, e, x, at_x, t);
    /* Where another group writes it: before or after this one. */
    if (!next || (y == next ? is_same(at_x, at_y) : y->writer <= next->writer)) {
      return NULL;
    }
  }
  return "the next step reads the second";
}

static unroll_status compare(struct wrap_call *c, struct check_binding *b, const struct check_exec *e, int64_t t,
                             int64_t t_read, unroll_error *err) {
  for (uint32_t i = 0; i < e->n_tensors; i++) {
    const struct check_tensor *y = &e->tensors[i];
    if (y->writer == CHECK_NOBODY) {
      continue;
    }
    const struct extent at_y = extent_of(b, y, t);
    for (uint32_t k = 0; k < e->n_tensors; k++) {
      const struct check_tensor *x = &e->tensors[k];
      const struct extent at_x = extent_of(b, x, t_read);
      if (k == i || !overlap(&at_y, &at_x)) {
        continue;
      }
      const char *why =
          t == t_read ? conflict(b, e, y, &at_y, x, &at_x, t) : conflict_later(b, e, y, &at_y, x, &at_x, t);
      if (why) {
        return check_found(c, err, "%s and %s (slots %u, %u) share bytes of buffer %u: %s", y->name, x->name, y->slot,
                           x->slot, at_x.buffer->base.serial, why);
      }
    }
  }
  return UNROLL_OK;
}

/* The first steps of a run, unless steps like them were compared before. */
static unroll_status compare_steps(struct wrap_call *c, struct check_binding *b, const struct check_exec *e,
                                   unroll_error *err) {
  const unroll_run_args *args = c->args;
  const int64_t way = args->direction == UNROLL_REVERSE ? -1 : 1;
  for (int64_t i = 0; i < 2 && i < args->count; i++) {
    const int64_t t = args->first + way * i;
    const uint32_t alone = 1u << (t & 1), followed = alone << 2;
    if (!(b->seen & alone)) {
      TRY(compare(c, b, e, t, t, err));
      b->seen |= alone;
    }
    if (i + 1 < args->count && !(b->seen & followed)) {
      TRY(compare(c, b, e, t, t + way, err));
      b->seen |= followed;
    }
  }
  return UNROLL_OK;
}

/* ---- bind ---- */
static unroll_status check_slot(struct wrap_call *c, const struct check_binding *b, const struct check_tensor *t,
                                unroll_error *err) {
  const struct check_slot *s = &b->slots[t->slot];
  if (!s->buffer) {
    return check_found(c, err, "slot %u, where %s stands, has no buffer", t->slot, t->name);
  }
  if (s->offset > s->buffer->bytes || s->bytes > s->buffer->bytes - s->offset) {
    return check_found(c, err,
                       "slot %u, %" PRIu64 " bytes from byte %" PRIu64 " on, leaves buffer %u of %" PRIu64 " bytes",
                       t->slot, s->bytes, s->offset, s->buffer->base.serial, s->buffer->bytes);
  }
  if (t->offset > s->bytes || t->bytes > s->bytes - t->offset) {
    return check_found(c, err,
                       "slot %u has %" PRIu64 " bytes; %s needs %" PRIu64 " from byte %" PRIu64 " on at its largest",
                       t->slot, s->bytes, t->name, t->bytes, t->offset);
  }
  if ((s->offset + t->offset) % t->element != 0 || t->step % (int64_t)t->element != 0) {
    return check_found(c, err, "%s, of elements of %u bytes, is not aligned to them in slot %u", t->name, t->element,
                       t->slot);
  }
  return UNROLL_OK;
}

static unroll_status check_workspace(struct wrap_call *c, const struct check_binding *b, const struct check_exec *e,
                                     unroll_error *err) {
  unroll_exec_info info = {.struct_size = sizeof info};
  const struct wrap_object *exec = c->object[0];
  if (c->layer->inner_ops->exec_info(exec->inner, &info, NULL) != UNROLL_OK || info.workspace_bytes == 0) {
    return UNROLL_OK;
  }
  const uint64_t begin = c->workspace_offset, bytes = info.workspace_bytes;
  if (!b->workspace) {
    return check_found(c, err, "no workspace, %s asks for %" PRIu64 " bytes", wrap_name_of(exec).text, bytes);
  }
  if (begin > b->workspace->bytes || bytes > b->workspace->bytes - begin) {
    return check_found(c, err,
                       "a workspace of %" PRIu64 " bytes from byte %" PRIu64 " on, in buffer %u of %" PRIu64 " bytes",
                       bytes, begin, b->workspace->base.serial, b->workspace->bytes);
  }
  if (info.workspace_alignment > 1 && begin % info.workspace_alignment != 0) {
    return check_found(c, err, "the workspace is at byte %" PRIu64 ", a multiple of %" PRIu64 " is asked for", begin,
                       info.workspace_alignment);
  }
  for (uint32_t i = 0; i < e->n_tensors; i++) {
    const struct check_slot *s = &b->slots[e->tensors[i].slot];
    if (s->buffer == b->workspace && s->offset < begin + bytes && begin < s->offset + s->bytes) {
      return check_found(c, err, "the workspace and slot %u, where %s stands, share bytes of buffer %u",
                         e->tensors[i].slot, e->tensors[i].name, s->buffer->base.serial);
    }
  }
  return UNROLL_OK;
}

unroll_status check_bind(struct wrap_call *c, struct check_binding *b, unroll_error *err) {
  const struct check_exec *e = (const struct check_exec *)(const void *)c->object[0];
  if (!e->known) {
    return UNROLL_OK;
  }
  if (c->n_slots < e->n_slots) {
    return check_found(c, err, "%u slots, the view has %u", c->n_slots, e->n_slots);
  }
  for (uint32_t i = 0; i < e->n_tensors; i++) {
    const struct check_tensor *t = &e->tensors[i];
    TRY(check_slot(c, b, t, err));
    if (t->writer == CHECK_NOBODY) {
      b->slots[t->slot].is_read = true;
    }
  }
  TRY(check_workspace(c, b, e, err));
  return e->is_template ? UNROLL_OK : compare(c, b, e, 0, 0, err);
}

/* ---- run ---- */
static unroll_status check_args(struct wrap_call *c, const struct check_exec *e, unroll_error *err) {
  const unroll_run_args *args = c->args;
  if (!args || !UNROLL_HAS(unroll_run_args, args, direction)) {
    return check_found(c, err, "unroll_run_args of %u bytes, %zu expected", args ? args->struct_size : 0, sizeof *args);
  }
  if (args->direction != UNROLL_FORWARD && args->direction != UNROLL_REVERSE) {
    return check_found(c, err, "the direction is %d, 0 or 1 expected", args->direction);
  }
  if (!e->known) {
    return UNROLL_OK;
  }
  if (args->n_dims < e->n_dims || (e->n_dims && !args->dims)) {
    return check_found(c, err, "%u run-time sizes%s, %u expected", args->n_dims, args->dims ? "" : " at NULL",
                       e->n_dims);
  }
  for (uint32_t i = 0; i < e->n_dims; i++) {
    if (args->dims[i] < e->dim_min[i] || args->dims[i] > e->dim_max[i]) {
      return check_found(c, err, "run-time size %u is %" PRId64 ", %" PRId64 " to %" PRId64 " expected", i,
                         args->dims[i], e->dim_min[i], e->dim_max[i]);
    }
  }
  const bool reverse = args->direction == UNROLL_REVERSE;
  if (e->is_template && (args->count < 0 || args->first < 0 || args->first == INT64_MAX ||
                         args->count > (reverse ? args->first + 1 : INT64_MAX - args->first))) {
    return check_found(c, err, "%" PRId64 " steps from t = %" PRId64 " on%s", args->count, args->first,
                       reverse ? ", in reverse" : "");
  }
  return UNROLL_OK;
}

/* Each tensor within its slot, at its largest. */
static unroll_status check_range(struct wrap_call *c, const struct check_binding *b, const struct check_exec *e,
                                 int64_t low, int64_t high, unroll_error *err) {
  for (uint32_t i = 0; i < e->n_tensors; i++) {
    const struct check_tensor *t = &e->tensors[i];
    const uint64_t room = b->slots[t->slot].bytes;
    int64_t first, last;
    check_places(t, low, high, &first, &last);
    if (first < 0 || (uint64_t)last > room || t->bytes > room - (uint64_t)last) {
      return check_found(c, err, "%s leaves its slot %u, of %" PRIu64 " bytes, at t = %" PRId64 "..%" PRId64, t->name,
                         t->slot, room, low, high);
    }
  }
  return UNROLL_OK;
}

unroll_status check_run(struct wrap_call *c, struct check_binding *b, unroll_error *err) {
  const struct check_exec *e = (const struct check_exec *)(const void *)b->base.parent;
  int64_t low, high;
  TRY(check_args(c, e, err));
  pthread_mutex_lock(&c->layer->mutex);
  unroll_status status = UNROLL_OK;
  for (uint32_t i = 0; i <= b->n_slots && status == UNROLL_OK; i++) {
    const struct check_buffer *buffer = i < b->n_slots ? b->slots[i].buffer : b->workspace;
    if (buffer && buffer->base.dead) {
      status = check_found(c, err, "%s, which the binding has, was destroyed before", wrap_name_of(&buffer->base).text);
    }
    for (uint32_t k = 0; buffer && k < buffer->n_mapped && status == UNROLL_OK && i < b->n_slots; k++) {
      const struct check_slot *s = &b->slots[i];
      if (buffer->mapped[k].begin < s->offset + s->bytes && s->offset < buffer->mapped[k].end) {
        status = check_found(c, err, "%s, in slot %u, is mapped", wrap_name_of(&buffer->base).text, i);
      }
    }
  }
  pthread_mutex_unlock(&c->layer->mutex);
  if (status != UNROLL_OK || !e->known || !e->is_template || !check_steps(e, c->args, &low, &high)) {
    return status;
  }
  TRY(check_range(c, b, e, low, high, err));
  return compare_steps(c, b, e, err);
}
