/* SPDX-License-Identifier: Apache-2.0 */
/* A case of suite_layers.c: its graph built twice, its data, both runs, and the comparison. */
#include "conform/suite_layers_private.h"
#include "runtime/runtime_private.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- building ---- */

static uint32_t runs_of(const struct net_spec *s) { return s->runs ? s->runs : 1; }

/* The steps of a sequence in that run of the device, or of the reference. */
static int64_t steps_of(const struct net *n, uint32_t run) {
  const struct net_spec *s = n->spec;
  if (s->chunked && n->is_reference)
    return s->T * (int64_t)runs_of(s);
  return run > 0 && s->T_then ? s->T_then : s->T;
}

static bool has_time(const struct net_tensor *t) { return (t->flags & (NET_TIME | NET_CHUNK)) != 0; }

static struct net_tensor *add(struct net *n, struct net_tensor *list, uint32_t *count, uint32_t capacity,
                              const char *name, uint32_t flags) {
  if (*count == capacity) {
    n->failed = true;
    return NULL;
  }
  struct net_tensor *t = &list[(*count)++];
  memset(t, 0, sizeof *t);
  snprintf(t->name, sizeof t->name, "%s", name);
  t->flags = flags;
  return t;
}

/* The size as the graph has it; of a sequence, of one step. */
static void measure(const struct net *n, struct net_tensor *t) {
  const unroll_tensor_info info = unroll_tensor_describe(t->tensor);
  t->dtype = info.dtype;
  t->row = 1;
  for (int32_t i = 0; i < info.rank; i++)
    t->row *= (uint64_t)info.shape[i];
  if (has_time(t))
    t->row /= (uint64_t)(n->T < 0 ? n->spec->T_max : n->T);
}

static struct net_tensor *add_input(struct net *n, int32_t role, const char *name, int32_t dtype, uint32_t flags,
                                    int32_t rank, const int64_t *shape) {
  struct net_tensor *t = add(n, n->in, &n->n_in, NET_TENSORS, name, flags);
  if (!t)
    return NULL;
  t->tensor = role == UNROLL_ROLE_PARAM   ? unroll_param(n->g, name, dtype, rank, shape)
              : role == UNROLL_ROLE_STATE ? unroll_state(n->g, name, dtype, rank, shape)
                                          : unroll_input(n->g, name, dtype, rank, shape);
  if (t->tensor.graph)
    measure(n, t);
  return t;
}

unroll_tensor net_in(struct net *n, int32_t role, const char *name, double lo, double hi, uint32_t flags, int32_t rank,
                     const int64_t *shape) {
  struct net_tensor *t = add_input(n, role, name, n->dtype, flags, rank, shape);
  if (!t)
    return unroll_none();
  t->lo = n->spec->exact ? -4 : lo;
  t->hi = n->spec->exact ? 4 : hi;
  t->flags |= n->spec->exact ? NET_WHOLE : 0;
  return t->tensor;
}

void net_given(struct net *n, unroll_tensor x, double lo, double hi) {
  struct net_tensor *t = add(n, n->in, &n->n_in, NET_TENSORS, unroll_tensor_describe(x).name, 0);
  if (!t)
    return;
  t->tensor = x;
  t->lo = lo;
  t->hi = hi;
  measure(n, t);
}

unroll_tensor net_integers(struct net *n, const char *name, double lo, double hi, uint32_t flags, int32_t rank,
                           const int64_t *shape) {
  struct net_tensor *t = add_input(n, UNROLL_ROLE_INPUT, name, UNROLL_I32, flags | NET_WHOLE, rank, shape);
  if (!t)
    return unroll_none();
  t->lo = lo;
  t->hi = hi;
  return t->tensor;
}

unroll_tensor net_shift(struct net *n, const char *name, int64_t size) {
  struct net_tensor *t = add_input(n, UNROLL_ROLE_PARAM, name, n->dtype, 0, 2, (int64_t[]){size, size});
  if (!t)
    return unroll_none();
  t->is_shift = true;
  return t->tensor;
}

unroll_tensor net_lengths(struct net *n) {
  if (n->spec->lengths == LENGTHS_NONE)
    return unroll_none();
  struct net_tensor *t = add_input(n, UNROLL_ROLE_INPUT, "lengths", UNROLL_I32, NET_ANEW, 1, &n->spec->B);
  if (!t)
    return unroll_none();
  t->is_lengths = true;
  return t->tensor;
}

void net_out(struct net *n, unroll_tensor x, const char *name, double budget, uint32_t flags) {
  struct net_tensor *t = add(n, n->out, &n->n_out, NET_OUTPUTS, name, flags);
  if (!t)
    return;
  t->tensor = unroll_output(x, name);
  t->budget = budget;
  if (t->tensor.graph)
    measure(n, t);
}

void net_out_of(struct net *n, const char *name, double budget, uint32_t flags) {
  struct net_tensor *t = add(n, n->out, &n->n_out, NET_OUTPUTS, name, flags);
  if (!t)
    return;
  t->tensor = unroll_graph_find(n->g, name);
  t->budget = budget;
  if (t->tensor.graph)
    measure(n, t);
  for (uint32_t i = 0; i < n->n_in; i++)
    if (strcmp(n->in[i].name, name) == 0)
      n->in[i].is_updated = true;
}

/* ---- data ---- */

static uint64_t next_random(uint64_t *state) { /* SplitMix64 (Steele, Lea, Flood 2014) */
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}
static double next_uniform(uint64_t *state) { return (double)(next_random(state) >> 11) * 0x1p-53; }

static int64_t length_of(const struct net *n, int64_t b, int64_t T) {
  uint64_t state = n->seed + (uint64_t)b * 0x632BE59BD9B4E019u;
  switch (n->spec->lengths) {
  case LENGTHS_ALL_0: return 0;
  case LENGTHS_RAGGED:
    if (n->spec->B == 1)
      return (T + 1) / 2;
    return b == 0 ? T : b == 1 ? 0 : (int64_t)(next_uniform(&state) * (double)(T + 1));
  default: return T;
  }
}

/* Element i of a tensor [T,B,..] stands past its sequence's end. */
static bool is_past(const struct net *n, const struct net_tensor *t, uint64_t i, int64_t T) {
  if (!(t->flags & NET_TIME) || n->spec->lengths == LENGTHS_NONE)
    return false;
  const uint64_t inner = t->row / (uint64_t)n->spec->B;
  return (int64_t)(i / t->row) >= length_of(n, (int64_t)(i / inner) % n->spec->B, T);
}

/* One run's values; past the end of a sequence NaN, or an id that nobody has. */
static void fill(const struct net *n, const struct net_tensor *t, uint32_t run, int64_t T, double *v, uint64_t count) {
  uint64_t state = hash64_string(t->name, hash64_string(n->name, HASH64_SEED ^ n->seed));
  if (t->flags & NET_ANEW || has_time(t))
    state += run;
  for (uint64_t i = 0; i < count; i++) {
    const double u = next_uniform(&state);
    if (t->is_lengths)
      v[i] = (double)length_of(n, (int64_t)i, T);
    else if (t->is_shift)
      v[i] = i % (uint64_t)n->spec->H == (i / (uint64_t)n->spec->H + 1) % (uint64_t)n->spec->H;
    else if (t->flags & NET_WHOLE)
      v[i] = floor(t->lo + u * (t->hi - t->lo + 1));
    else
      v[i] = (double)(float)(t->lo + u * (t->hi - t->lo)); /* of f32, so that both sides start from the same numbers */
    if (is_past(n, t, i, T))
      v[i] = t->dtype == UNROLL_I32 ? -1 : (double)NAN;
  }
}

static double get(const void *data, uint64_t i, int32_t dtype) {
  switch (dtype) {
  case UNROLL_F64: return ((const double *)data)[i];
  case UNROLL_F32: return (double)((const float *)data)[i];
  default: return ((const int32_t *)data)[i];
  }
}
static void put(void *data, uint64_t i, int32_t dtype, double v) {
  switch (dtype) {
  case UNROLL_F64: ((double *)data)[i] = v; return;
  case UNROLL_F32: ((float *)data)[i] = (float)v; return;
  default: ((int32_t *)data)[i] = (int32_t)v;
  }
}

/* Memory of the host with a zone of known bytes on either side. It is aligned to an element, as a user's may be, no
 * more. */
enum { ZONE = MEM_ALIGNMENT, ZONE_BYTE = 0xA5 };
struct host_data {
  unsigned char *base, *bytes;
  uint64_t n;
};
static bool data_make(const unroll_allocator *a, struct host_data *d, uint64_t n) {
  const uint64_t before = ZONE + sizeof(double);
  d->base = mem_alloc(a, before + n + ZONE);
  if (!d->base)
    return false;
  d->bytes = d->base + before;
  d->n = n;
  memset(d->base, ZONE_BYTE, before + n + ZONE);
  memset(d->bytes, 0xFF, n);
  return true;
}
static void data_free(const unroll_allocator *a, struct host_data *d) {
  mem_free(a, d->base);
  memset(d, 0, sizeof *d);
}
static bool zones_stand(const struct host_data *d) {
  bool stand = true;
  for (const unsigned char *p = d->base; p < d->bytes; p++)
    stand = stand && *p == ZONE_BYTE;
  for (uint64_t i = 0; i < ZONE; i++)
    stand = stand && d->bytes[d->n + i] == ZONE_BYTE;
  return stand;
}

/* ---- running ---- */

struct results {
  struct host_data at[NET_RUNS][NET_OUTPUTS];
};
static void results_free(const unroll_allocator *a, struct results *r) {
  for (uint32_t k = 0; k < NET_RUNS; k++)
    for (uint32_t o = 0; o < NET_OUTPUTS; o++)
      data_free(a, &r->at[k][o]);
}

static unroll_status make_values(const unroll_allocator *a, const struct net *n, const struct net_tensor *t,
                                 uint32_t run, struct host_data *d, unroll_error *err) {
  const int64_t T = steps_of(n, run);
  const uint64_t count = t->row * (has_time(t) ? (uint64_t)T : 1);
  double *v = mem_array(a, count + 1, sizeof *v);
  if (!v || !data_make(a, d, count * unroll_dtype_size(t->dtype))) {
    mem_free(a, v);
    return fail(err, UNROLL_E_MEMORY, "the judge is out of memory for %s", t->name);
  }
  if (t->flags & NET_CHUNK && n->spec->chunked && n->is_reference) {
    const uint64_t part = count / runs_of(n->spec);
    for (uint32_t k = 0; k < runs_of(n->spec); k++)
      fill(n, t, k, n->spec->T, v + k * part, part);
  } else
    fill(n, t, run, T, v, count);
  for (uint64_t i = 0; i < count; i++)
    put(d->bytes, i, t->dtype, v[i]);
  mem_free(a, v);
  return UNROLL_OK;
}

static unroll_status write_input(const unroll_allocator *a, const struct net *n, const struct net_tensor *t,
                                 uint32_t run, unroll_binding *b, unroll_error *err) {
  struct host_data d = {NULL, NULL, 0};
  unroll_status st = make_values(a, n, t, run, &d, err);
  if (st == UNROLL_OK)
    st = unroll_binding_write(b, t->name, d.bytes, d.n, err);
  data_free(a, &d);
  return st;
}

/* After a run the inputs hold what was written, bit by bit. */
static unroll_status check_input(const unroll_allocator *a, const struct net *n, const struct net_tensor *t,
                                 uint32_t run, unroll_binding *b, unroll_error *err) {
  struct host_data want = {NULL, NULL, 0}, got = want;
  unroll_status st = make_values(a, n, t, run, &want, err);
  if (st == UNROLL_OK && !data_make(a, &got, want.n))
    st = fail(err, UNROLL_E_MEMORY, "the judge is out of memory for %s", t->name);
  if (st == UNROLL_OK)
    st = unroll_binding_read(b, t->name, got.bytes, got.n, err);
  if (st == UNROLL_OK && memcmp(got.bytes, want.bytes, got.n) != 0)
    st = fail(err, UNROLL_E_INTERNAL, "%s, which no op writes, is changed after the run", t->name);
  data_free(a, &want);
  data_free(a, &got);
  return st;
}

static unroll_status read_output(const unroll_allocator *a, const struct net *n, const struct net_tensor *t,
                                 uint32_t run, unroll_binding *b, struct host_data *d, unroll_error *err) {
  const uint64_t count = t->row * (has_time(t) ? (uint64_t)steps_of(n, run) : 1);
  if (!data_make(a, d, count * unroll_dtype_size(t->dtype)))
    return fail(err, UNROLL_E_MEMORY, "the judge is out of memory for %s", t->name);
  TRY(unroll_binding_read(b, t->name, d->bytes, d->n, err));
  if (!zones_stand(d))
    return fail(err, UNROLL_E_INTERNAL, "reading %s wrote outside of the host's memory", t->name);
  return UNROLL_OK;
}

static unroll_status play_run(const unroll_allocator *a, const struct net *n, uint32_t run, bool anew,
                              unroll_binding *b, struct host_data *out, unroll_error *err) {
  for (uint32_t i = 0; i < n->n_in; i++)
    if (anew || (run > 0 && (n->in[i].flags & NET_ANEW || has_time(&n->in[i]))))
      TRY(write_input(a, n, &n->in[i], run, b, err));
  const int64_t dim = steps_of(n, run);
  const unroll_run_options options = {
      .struct_size = sizeof options, .n_dims = n->T < 0, .dims = &dim, .seed = n->seed, .update = run + 1};
  TRY(unroll_run(b, &options, err));
  for (uint32_t o = 0; o < n->n_out; o++)
    TRY(read_output(a, n, &n->out[o], run, b, &out[o], err));
  for (uint32_t i = 0; i < n->n_in; i++)
    if (!n->in[i].is_updated && !n->is_reference)
      TRY(check_input(a, n, &n->in[i], run, b, err));
  return UNROLL_OK;
}

static unroll_status play(const unroll_allocator *a, const struct net *n, uint32_t n_runs, bool write,
                          unroll_binding *b, struct results *out, unroll_error *err) {
  for (uint32_t r = 0; r < n_runs; r++)
    TRY(play_run(a, n, r, write && r == 0, b, out->at[r], err));
  return UNROLL_OK;
}

static unroll_status net_open(struct net *n, const struct conform_session *session, const struct conform_case *c,
                              int32_t dtype, bool is_reference, uint32_t run, unroll_error *err) {
  const struct net_spec *s = c->data;
  memset(n, 0, sizeof *n);
  n->spec = s;
  n->name = c->name;
  n->seed = session->seed;
  n->dtype = dtype;
  n->is_reference = is_reference;
  TRY(unroll_graph_create(session->allocator, &n->g, err));
  n->T = !is_reference && s->T_max ? unroll_graph_dim(n->g, "T", 1, s->T_max) : steps_of(n, run);
  s->build(n, s);
  TRY(unroll_graph_status(n->g, err));
  return n->failed ? fail(err, UNROLL_E_INTERNAL, "a case of the judge has too many tensors") : UNROLL_OK;
}

/* ---- the reference ---- */

static unroll_status reference_part(struct conform_session *session, const struct conform_case *c, uint32_t run,
                                    uint32_t n_runs, struct results *want, unroll_error *err) {
  struct net n;
  unroll_device *cpu;
  unroll_executable *exe = NULL;
  unroll_binding *b = NULL;
  unroll_status st = net_open(&n, session, c, UNROLL_F64, true, run, err);
  if (st == UNROLL_OK)
    st = session_cpu(session, &cpu, err);
  if (st == UNROLL_OK)
    st = unroll_compile(n.g, &cpu, 1, NULL, &exe, err);
  if (st == UNROLL_OK)
    st = unroll_binding_create(exe, &b, err);
  if (st == UNROLL_OK)
    st = n_runs == 1 ? play_run(session->allocator, &n, run, true, b, want->at[run], err)
                     : play(session->allocator, &n, n_runs, true, b, want, err);
  unroll_binding_destroy(b);
  unroll_executable_destroy(exe);
  unroll_graph_destroy(n.g);
  return st;
}

/* A run-time size is another graph for each run; parts of a sequence are one run of the whole. */
static unroll_status reference(struct conform_session *session, const struct conform_case *c, struct results *want,
                               unroll_error *err) {
  const struct net_spec *s = c->data;
  if (s->chunked)
    return reference_part(session, c, 0, 1, want, err);
  if (!s->T_max)
    return reference_part(session, c, 0, runs_of(s), want, err);
  for (uint32_t r = 0; r < runs_of(s); r++)
    TRY(reference_part(session, c, r, 1, want, err));
  return UNROLL_OK;
}

/* ---- comparing ---- */

/* An element that no step has touched has no rounding either. */
static bool is_exact(const struct net *n, const struct net_tensor *t, uint64_t i, int64_t T) {
  if (is_past(n, t, i, T))
    return true;
  return t->flags & NET_ROWS && n->spec->lengths != LENGTHS_NONE &&
         length_of(n, (int64_t)(i / (t->row / (uint64_t)n->spec->B)), T) == 0;
}

enum { FEW = 8 };
static bool matches(const struct net *n, const struct net_tensor *t, uint32_t run, const struct host_data *got,
                    const void *want, int32_t want_dtype, char *message) {
  const uint64_t count = got->n / unroll_dtype_size(t->dtype);
  const int64_t T = steps_of(n, run);
  const double eps = t->dtype == UNROLL_F64 ? 0x1p-52 : t->dtype == UNROLL_F32 ? 0x1p-23 : 0;
  double largest = 0, squares = 0, errors = 0, worst = 0;
  uint64_t at = 0;
  for (uint64_t i = 0; i < count; i++)
    largest = fmax(largest, fabs(get(want, i, want_dtype)));
  if (count < FEW) /* that may all happen to cancel: what they were summed from is of the order of 1 */
    largest = fmax(largest, 0.25);
  const double allowed = n->spec->exact ? 0 : t->budget * eps * largest;
  for (uint64_t i = 0; i < count; i++) {
    const double a = get(got->bytes, i, t->dtype), b = get(want, i, want_dtype), e = fabs(a - b);
    squares += b * b;
    errors += e * e;
    if (e <= (is_exact(n, t, i, T) ? 0 : allowed) || isinf(worst))
      continue;
    const double size = isfinite(e) ? e : (double)INFINITY;
    if (size > worst) {
      worst = size;
      at = i;
    }
  }
  if (worst == 0)
    return true;
  char of_run[32] = "";
  if (runs_of(n->spec) > 1)
    snprintf(of_run, sizeof of_run, " of run %u", run + 1);
  snprintf(message, CONFORM_MESSAGE,
           "%s[%" PRIu64 "] of %" PRIu64
           "%s is %.9g, expected %.9g: error %.3g, allowed %.3g where the largest is %.3g; "
           "normalized mean squared error %.3g",
           t->name, at, count, of_run, get(got->bytes, at, t->dtype), get(want, at, want_dtype), worst,
           is_exact(n, t, at, T) ? 0 : allowed, largest, squares > 0 ? errors / squares : errors);
  return false;
}

static bool all_match(const struct net *n, const struct results *got, const struct results *want, char *message) {
  const uint32_t runs = runs_of(n->spec);
  for (uint32_t r = 0; r < runs; r++)
    for (uint32_t o = 0; o < n->n_out; o++) {
      const struct net_tensor *t = &n->out[o];
      if (n->spec->chunked && t->flags & NET_LAST && r + 1 < runs)
        continue;
      const int32_t dtype = t->dtype == UNROLL_F32 ? UNROLL_F64 : t->dtype;
      const struct host_data *w = &want->at[n->spec->chunked ? 0 : r][o];
      const uint64_t count = got->at[r][o].n / unroll_dtype_size(t->dtype);
      const uint64_t from = n->spec->chunked && t->flags & NET_CHUNK ? r * count : 0;
      if (!matches(n, t, r, &got->at[r][o], w->bytes + from * unroll_dtype_size(dtype), dtype, message))
        return false;
    }
  return true;
}

static bool same_bits(const struct net *n, const struct results *a, const struct results *b, char *message) {
  for (uint32_t r = 0; r < runs_of(n->spec); r++)
    for (uint32_t o = 0; o < n->n_out; o++)
      if (memcmp(a->at[r][o].bytes, b->at[r][o].bytes, a->at[r][o].n) != 0) {
        snprintf(message, CONFORM_MESSAGE, "%s has other bits the second time, on a device that says DETERMINISTIC",
                 n->out[o].name);
        return false;
      }
  return true;
}

/* ---- a case ---- */

/* Runs the graph again with the same inputs: as they stand, or, where runs leave something behind, in a new binding. */
static unroll_status play_again(const unroll_allocator *a, const struct net *n, unroll_executable *exe,
                                unroll_binding *b, struct results *out, unroll_error *err) {
  if (runs_of(n->spec) == 1)
    return play(a, n, 1, false, b, out, err);
  unroll_binding *other = NULL;
  TRY(unroll_binding_create(exe, &other, err));
  const unroll_status st = play(a, n, runs_of(n->spec), true, other, out, err);
  unroll_binding_destroy(other);
  return st;
}

static enum conform_outcome broken(const char *doing, const unroll_error *err, char *message) {
  snprintf(message, CONFORM_MESSAGE, "%s: %s: %s", doing, unroll_status_name(err->code), err->message);
  return CONFORM_FAILED;
}

/* With the graph compiled for the device. */
static enum conform_outcome judge(struct conform_session *session, const struct conform_case *c, const struct net *n,
                                  unroll_executable *exe, bool twice, char *message) {
  const unroll_allocator *a = session->allocator;
  unroll_error err = UNROLL_ERROR_INIT;
  struct results got, again, want;
  memset(&got, 0, sizeof got);
  memset(&again, 0, sizeof again);
  memset(&want, 0, sizeof want);
  unroll_binding *b = NULL;
  enum conform_outcome outcome = CONFORM_PASSED;
  if (unroll_binding_create(exe, &b, &err) != UNROLL_OK)
    outcome = broken("binding", &err, message);
  else if (play(a, n, runs_of(n->spec), true, b, &got, &err) != UNROLL_OK)
    outcome = broken("running", &err, message);
  else if (twice && play_again(a, n, exe, b, &again, &err) != UNROLL_OK)
    outcome = broken("running again", &err, message);
  else if (twice && !same_bits(n, &got, &again, message))
    outcome = CONFORM_FAILED;
  else if (reference(session, c, &want, &err) != UNROLL_OK)
    outcome = broken("the reference", &err, message);
  else if (!all_match(n, &got, &want, message))
    outcome = CONFORM_FAILED;
  unroll_binding_destroy(b);
  results_free(a, &got);
  results_free(a, &again);
  results_free(a, &want);
  return outcome;
}

static bool has_dtypes(const unroll_graph *g, const node *n, uint64_t dtypes) {
  for (uint32_t k = 0; k < n->n_in + n->n_out; k++) {
    const uint32_t t = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
    if (t != GRAPH_NONE && !(dtypes >> g->tensors[t].spec.dtype & 1u))
      return false;
  }
  return true;
}

/* Which ops of the graph went to another device: compiled once more, with all that may fall back. */
static void find_left(struct conform_session *session, const struct net *n, unroll_device *dev) {
  const unroll_compile_options options = {.struct_size = sizeof options, .allow_step_crossing = 1};
  unroll_executable *exe;
  if (unroll_compile(n->g, &dev, 1, &options, &exe, NULL) != UNROLL_OK)
    return;
  for (uint32_t i = 0; i < exe->n_groups; i++) {
    const group *g = &exe->groups[i];
    for (uint32_t k = 0; g->device != 0 && k < g->n_nodes; k++) {
      const node *left = &g->graph->nodes[g->nodes[k]];
      if (has_dtypes(g->graph, left, dev->info.dtypes))
        session->left |= UINT64_C(1) << left->op;
      session->is_graph = true;
    }
  }
  unroll_executable_destroy(exe);
}

static enum conform_outcome compile_and_judge(struct conform_session *session, const struct conform_case *c,
                                              const struct net *n, unroll_device *dev, char *message) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_executable *exe = NULL;
  const unroll_compile_options options = {.struct_size = sizeof options, .strict = 1};
  const unroll_status st = unroll_compile(n->g, &dev, 1, &options, &exe, &err);
  if (st == UNROLL_E_UNSUPPORTED) {
    snprintf(message, CONFORM_MESSAGE, "%s", err.message);
    find_left(session, n, dev);
    return CONFORM_DECLINED;
  }
  if (st != UNROLL_OK)
    return broken("compiling", &err, message);
  enum conform_outcome outcome;
  const uint32_t fallbacks = unroll_executable_describe(exe).n_fallbacks;
  if (fallbacks) {
    snprintf(message, CONFORM_MESSAGE, "%u nodes fell back, though the graph was compiled strictly", fallbacks);
    outcome = CONFORM_FAILED;
  } else
    outcome = judge(session, c, n, exe, (unroll_device_describe(dev)->caps & UNROLL_CAP_DETERMINISTIC) != 0, message);
  unroll_executable_destroy(exe);
  return outcome;
}

enum conform_outcome net_run(struct conform_session *session, const struct conform_case *c, char *message) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_device *dev;
  if (session_device(session, &dev, &err) != UNROLL_OK)
    return broken("opening the device", &err, message);
  if (!(unroll_device_describe(dev)->dtypes >> c->dtype & 1u))
    return CONFORM_NO_DTYPE;
  struct net n;
  enum conform_outcome outcome;
  if (net_open(&n, session, c, c->dtype, false, 0, &err) != UNROLL_OK)
    outcome = broken("building the graph", &err, message);
  else
    outcome = compile_and_judge(session, c, &n, dev, message);
  unroll_graph_destroy(n.g);
  return outcome;
}
