/* SPDX-License-Identifier: Apache-2.0 */
/* Executables, bindings and runs: what may be shared, kept, bound again, and what must be refused. */
#include "conform/abi_rig.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SIZE = 16, STEPS = 5, BINDINGS = 3 };

/* Work compiled and bound, and as many sets of data as a case wants; released in one place. */
struct runner {
  const struct abi_lane *lane;
  struct abi_work w;
  unroll_backend_exec *exec;
  struct abi_bound bound[BINDINGS];
  uint8_t *data[BINDINGS];
};

static enum conform_outcome runner_make(struct runner *r, const struct abi_lane *lane, uint32_t n_bound,
                                        bool is_dynamic) {
  *r = (struct runner){.lane = lane};
  const enum conform_outcome outcome = abi_work_choose(lane, &r->w, SIZE, is_dynamic);
  if (outcome != CONFORM_PASSED)
    return outcome;
  if (!abi_compile(lane, &r->w, &r->exec))
    return CONFORM_FAILED;
  for (uint32_t i = 0; i < BINDINGS; i++)
    if (!(r->data[i] = abi_work_data(lane, &r->w, lane->session->seed + i)))
      return CONFORM_FAILED;
  for (uint32_t i = 0; i < n_bound; i++)
    if (!abi_bind(lane, &r->w, r->exec, &r->bound[i]))
      return CONFORM_FAILED;
  return CONFORM_PASSED;
}

static enum conform_outcome runner_free(struct runner *r, enum conform_outcome outcome, bool is_right) {
  for (uint32_t i = 0; i < BINDINGS; i++) {
    abi_unbind(r->lane, &r->bound[i]);
    abi_work_free(r->lane, r->data[i]);
  }
  r->lane->ops->exec_destroy(r->exec);
  return outcome != CONFORM_PASSED ? outcome : is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

static bool run_right(const struct runner *r, uint32_t bound, uint32_t data, int64_t rows, const uint64_t *generations,
                      const char *what) {
  return abi_run(r->lane, &r->w, &r->bound[bound], r->data[data], rows, generations) &&
         abi_work_right(r->lane, &r->w, r->data[data], rows, what);
}

/* ---- what may be done ---- */
static enum conform_outcome runs_again(struct abi_rig *rig) {
  struct runner r;
  const enum conform_outcome outcome = runner_make(&r, &rig->lane, 1, false);
  bool is_right = outcome == CONFORM_PASSED;
  for (uint32_t i = 0; is_right && i < 2 * BINDINGS; i++)
    is_right = run_right(&r, 0, i % BINDINGS, r.w.rows, NULL, i ? "a later run" : "the first run");
  return runner_free(&r, outcome, is_right);
}

/* Equal generations mean equal bytes; others mean nothing, and 0 or no array at all that nothing may be kept. */
static enum conform_outcome heeds_generations(struct abi_rig *rig) {
  struct runner r;
  const struct abi_lane *lane = &rig->lane;
  const enum conform_outcome outcome = runner_make(&r, lane, 1, false);
  uint64_t g[ABI_TENSORS] = {0}, changed[ABI_TENSORS] = {0}, none[ABI_TENSORS] = {0}, first_only[ABI_TENSORS] = {0};
  for (uint32_t i = 0; outcome == CONFORM_PASSED && i < r.w.n_in; i++) {
    g[i] = first_only[i] = 10 + i;
    changed[i] = 20 + i;
  }
  first_only[0] = 30;
  bool is_right = outcome == CONFORM_PASSED && run_right(&r, 0, 0, r.w.rows, g, "the first run");
  uint8_t *again = is_right ? abi_work_data(lane, &r.w, lane->session->seed) : NULL;
  is_right = again && abi_run(lane, &r.w, &r.bound[0], again, r.w.rows, g) &&
             abi_work_right(lane, &r.w, again, r.w.rows, "the same generations and bytes");
  if (is_right && rig->info.caps & UNROLL_CAP_DETERMINISTIC && memcmp(again, r.data[0], r.w.total) != 0)
    is_right = abi_fail(lane->message, "deterministic, but another run with the same generations gave other bits") ==
               CONFORM_PASSED;
  if (is_right) { /* the first input is new, the others stay */
    memcpy(again, r.data[1], r.w.bytes[0]);
    is_right = abi_run(lane, &r.w, &r.bound[0], again, r.w.rows, first_only) &&
               abi_work_right(lane, &r.w, again, r.w.rows, "a new generation of the first input alone");
  }
  abi_work_free(lane, again);
  is_right = is_right && run_right(&r, 0, 1, r.w.rows, changed, "new generations of all inputs") &&
             run_right(&r, 0, 2, r.w.rows, NULL, "no generations") &&
             run_right(&r, 0, 0, r.w.rows, g, "the first generations and bytes again") &&
             run_right(&r, 0, 1, r.w.rows, none, "generations of 0") &&
             run_right(&r, 0, 2, r.w.rows, none, "generations of 0 and other bytes");
  return runner_free(&r, outcome, is_right);
}

static enum conform_outcome shares_executables(struct abi_rig *rig) {
  struct runner r;
  const struct abi_lane *lane = &rig->lane;
  const enum conform_outcome outcome = runner_make(&r, lane, 2, false);
  unroll_error err;
  abi_error_init(&err);
  bool is_right = outcome == CONFORM_PASSED;
  for (int round = 0; is_right && round < 3; round++) {
    const unroll_run_args args = abi_args(&r.w, &r.w.rows, NULL);
    is_right = abi_write(lane, &r.w, &r.bound[0], r.data[0]) && abi_write(lane, &r.w, &r.bound[1], r.data[1]);
    for (int i = 0; is_right && i < 3; i++)
      is_right =
          abi_ok(lane->message, "run", lane->ops->run(r.bound[i % 2].binding, lane->queue, &args, NULL, &err), &err);
    is_right = is_right && abi_read(lane, &r.w, &r.bound[1], r.data[1]) &&
               abi_read(lane, &r.w, &r.bound[0], r.data[0]) &&
               abi_work_right(lane, &r.w, r.data[0], r.w.rows, "the first of two bindings, in turns") &&
               abi_work_right(lane, &r.w, r.data[1], r.w.rows, "the second of two bindings, in turns");
  }
  if (is_right) {
    abi_unbind(lane, &r.bound[0]);
    is_right = run_right(&r, 1, 2, r.w.rows, NULL, "the second binding after the first was destroyed") &&
               abi_bind(lane, &r.w, r.exec, &r.bound[0]) &&
               run_right(&r, 0, 0, r.w.rows, NULL, "bound again to other buffers") &&
               run_right(&r, 1, 1, r.w.rows, NULL, "the binding that stood meanwhile");
  }
  return runner_free(&r, outcome, is_right);
}

/* Nothing but the queue's order keeps these apart. */
static enum conform_outcome keeps_order(struct abi_rig *rig) {
  struct runner r;
  const struct abi_lane *lane = &rig->lane;
  const unroll_backend_ops *ops = lane->ops;
  const enum conform_outcome outcome = runner_make(&r, lane, 1, false);
  unroll_error err;
  abi_error_init(&err);
  bool is_right = outcome == CONFORM_PASSED;
  unroll_backend_buffer *kept = NULL;
  if (is_right) {
    const unroll_run_args args = abi_args(&r.w, &r.w.rows, NULL);
    const uint32_t y = r.w.n_in;
    const uint64_t n = r.w.bytes[y];
    kept = abi_buffer(lane, NULL, n);
    is_right = kept && abi_write(lane, &r.w, &r.bound[0], r.data[0]);
    for (int i = 0; is_right && i < 20; i++)
      is_right = abi_ok(lane->message, "run", ops->run(r.bound[0].binding, lane->queue, &args, NULL, &err), &err);
    is_right =
        is_right &&
        abi_ok(lane->message, "copy", ops->copy(lane->queue, kept, 0, r.bound[0].buffers[y], 0, n, NULL, &err), &err) &&
        abi_write(lane, &r.w, &r.bound[0], r.data[1]) &&
        abi_ok(lane->message, "run", ops->run(r.bound[0].binding, lane->queue, &args, NULL, &err), &err) &&
        abi_read(lane, &r.w, &r.bound[0], r.data[1]) &&
        abi_ok(lane->message, "read", ops->read(lane->queue, kept, 0, r.data[0] + r.w.at[y], n, NULL, &err), &err) &&
        abi_work_right(lane, &r.w, r.data[1], r.w.rows, "a run between a write and a read");
    /* Of the run before, only the first output was kept. */
    struct abi_work first = r.w;
    first.n_tensors = y + 1;
    is_right = is_right && abi_work_right(lane, &first, r.data[0], r.w.rows, "a result copied before the next write");
  }
  ops->buffer_destroy(kept);
  return runner_free(&r, outcome, is_right);
}

static enum conform_outcome makes_events(struct abi_rig *rig) {
  struct runner r;
  const struct abi_lane *lane = &rig->lane;
  const unroll_backend_ops *ops = lane->ops;
  if (!ops->event_wait || !ops->event_destroy)
    return abi_skip(lane->message, "makes no events");
  const enum conform_outcome outcome = runner_make(&r, lane, 1, false);
  struct abi_lane other = *lane;
  other.queue = NULL;
  unroll_error err;
  abi_error_init(&err);
  bool is_right = outcome == CONFORM_PASSED &&
                  abi_ok(lane->message, "queue_create", ops->queue_create(lane->device, 0, &other.queue, &err), &err);
  for (uint32_t i = 0; is_right && i < 2 * BINDINGS; i++) {
    const unroll_run_args args = abi_args(&r.w, &r.w.rows, NULL);
    unroll_backend_event *event = NULL;
    uint8_t *data = r.data[i % BINDINGS];
    is_right = abi_write(lane, &r.w, &r.bound[0], data) &&
               abi_ok(lane->message, "run", ops->run(r.bound[0].binding, lane->queue, &args, &event, &err), &err);
    if (is_right && !event)
      is_right = abi_fail(lane->message, "run was asked for an event and made none") == CONFORM_PASSED;
    /* Read through another queue: only the event tells that the run is done. */
    is_right = is_right && abi_ok(lane->message, "event_wait", ops->event_wait(event, &err), &err) &&
               abi_read(&other, &r.w, &r.bound[0], data) &&
               abi_work_right(lane, &r.w, data, r.w.rows, "after the event of a run");
    ops->event_destroy(event);
  }
  ops->queue_destroy(other.queue);
  return runner_free(&r, outcome, is_right);
}

static enum conform_outcome takes_sizes(struct abi_rig *rig) {
  struct runner r;
  const enum conform_outcome outcome = runner_make(&r, &rig->lane, 1, true);
  bool is_right = outcome == CONFORM_PASSED;
  const int64_t max = r.w.dim_max, rows[] = {max, 1, max / 2, max - 1, 1, max};
  for (uint32_t i = 0; is_right && i < sizeof rows / sizeof *rows; i++)
    if (rows[i] >= r.w.dim_min) {
      char what[96];
      (void)snprintf(what, sizeof what, "run-time size %" PRId64 " of up to %" PRId64, rows[i], max);
      is_right = run_right(&r, 0, i % BINDINGS, rows[i], NULL, what);
    }
  return runner_free(&r, outcome, is_right);
}

/* ---- what must be refused ---- */
static bool refuses_run(const struct runner *r, const unroll_run_args *args, unroll_status first, const char *what) {
  const struct abi_lane *lane = r->lane;
  for (int has_error = 0; has_error < 2; has_error++) {
    unroll_error own, *err = has_error ? &own : NULL;
    abi_error_init(&own);
    const unroll_status status = lane->ops->run(r->bound[0].binding, lane->queue, args, NULL, err);
    if (!abi_refused(lane->message, what, status, err, first, 0))
      return false;
  }
  return abi_ok(lane->message, "queue_sync after a run that was refused", lane->ops->queue_sync(lane->queue, NULL),
                NULL);
}

static enum conform_outcome refuses_sizes(struct abi_rig *rig) {
  struct runner r;
  const struct abi_lane *lane = &rig->lane;
  const enum conform_outcome outcome = runner_make(&r, lane, 1, true);
  bool is_right = outcome == CONFORM_PASSED && abi_write(lane, &r.w, &r.bound[0], r.data[0]);
  const int64_t wrong[] = {r.w.dim_max + 1, r.w.dim_max * 1000, INT64_MAX, r.w.dim_min - 1, -1, INT64_MIN};
  for (uint32_t i = 0; is_right && i < sizeof wrong / sizeof *wrong; i++) {
    char what[128];
    (void)snprintf(what, sizeof what, "run with size %" PRId64 ", compiled for %" PRId64 " to %" PRId64, wrong[i],
                   r.w.dim_min, r.w.dim_max);
    const unroll_run_args args = abi_args(&r.w, &wrong[i], NULL);
    is_right = refuses_run(&r, &args, UNROLL_E_RANGE, what);
  }
  if (is_right) {
    unroll_run_args args = abi_args(&r.w, &r.w.rows, NULL);
    args.n_dims = 0;
    is_right = refuses_run(&r, &args, 0, "run without its run-time size");
  }
  for (uint32_t t = r.w.n_in; is_right && t < r.w.n_tensors; t++)
    is_right = abi_buffer_is(lane, r.bound[0].buffers[t], 0, r.data[0] + r.w.at[t], r.w.bytes[t],
                             "an output after runs that were refused");
  is_right = is_right && run_right(&r, 0, 1, r.w.rows, NULL, "after runs that were refused");
  return runner_free(&r, outcome, is_right);
}

static bool refuses_bind(const struct runner *r, const unroll_slot *slots, uint32_t n_slots,
                         unroll_backend_buffer *workspace, uint64_t workspace_offset, const char *what) {
  const struct abi_lane *lane = r->lane;
  unroll_backend_binding *const untouched = (unroll_backend_binding *)(uintptr_t)r;
  for (int has_error = 0; has_error < 2; has_error++) {
    unroll_backend_binding *binding = untouched;
    unroll_error own, *err = has_error ? &own : NULL;
    abi_error_init(&own);
    const unroll_status status =
        lane->ops->bind(r->exec, slots, n_slots, sizeof *slots, workspace, workspace_offset, &binding, err);
    if (status == UNROLL_OK)
      lane->ops->binding_destroy(binding);
    if (!abi_refused(lane->message, what, status, err, UNROLL_E_INVALID, UNROLL_E_RANGE))
      return false;
    if (binding != untouched) {
      abi_fail(lane->message, "%s failed and wrote its out-parameter", what);
      return false;
    }
  }
  return true;
}

static bool refuses_bad_slots(const struct runner *r, const struct abi_bound *b) {
  const struct abi_work *w = &r->w;
  unroll_slot good[ABI_TENSORS], slots[ABI_TENSORS];
  char what[96];
  abi_slots(w, b, good);
  if (!refuses_bind(r, good, w->n_tensors - 1, b->workspace, 0, "bind with a slot too few") ||
      !refuses_bind(r, NULL, 0, b->workspace, 0, "bind without slots"))
    return false;
  for (uint32_t i = 0; i < w->n_tensors; i++)
    for (int fault = 0; fault < 4; fault++) {
      static const char *const names[] = {"no buffer", "a byte too few", "an end behind its buffer's",
                                          "a beginning behind its buffer's end"};
      memcpy(slots, good, sizeof slots);
      if (fault == 0)
        slots[i].buffer = NULL;
      else if (fault == 1)
        slots[i].bytes--;
      else if (fault == 2)
        slots[i].offset = r->lane->info->alignment;
      else
        slots[i].offset = UINT64_MAX - (r->lane->info->alignment - 1);
      (void)snprintf(what, sizeof what, "bind with %s in slot %" PRIu32, names[fault], i);
      if (!refuses_bind(r, slots, w->n_tensors, b->workspace, 0, what))
        return false;
    }
  if (!b->workspace)
    return true;
  unroll_exec_info info = {.struct_size = sizeof info};
  unroll_error err;
  abi_error_init(&err);
  return abi_ok(r->lane->message, "exec_info", r->lane->ops->exec_info(r->exec, &info, &err), &err) &&
         refuses_bind(r, good, w->n_tensors, NULL, 0, "bind without the workspace that is asked for") &&
         refuses_bind(r, good, w->n_tensors, b->workspace, info.workspace_bytes, "bind with a workspace too small");
}

static enum conform_outcome refuses_slots(struct abi_rig *rig) {
  struct runner r;
  const struct abi_lane *lane = &rig->lane;
  const enum conform_outcome outcome = runner_make(&r, lane, 1, false);
  const bool is_right = outcome == CONFORM_PASSED && refuses_bad_slots(&r, &r.bound[0]) &&
                        run_right(&r, 0, 0, r.w.rows, NULL, "a binding from before binds that were refused");
  return runner_free(&r, outcome, is_right);
}

/* ---- templates ---- */
/* Every tensor has a place for each of STEPS steps. */
static bool make_template(const struct abi_lane *lane, struct abi_work *w, bool *is_claimed) {
  *is_claimed = false;
  for (int kind = ABI_MATMUL; kind <= ABI_TANH && !*is_claimed && !lane->message[0]; kind++) {
    abi_work_make(w, (enum abi_kind)kind, lane->info->dtypes >> UNROLL_F32 & 1 ? UNROLL_F32 : UNROLL_F64, SIZE, false);
    w->view.is_template = 1;
    w->node.layer = 0;
    w->node.direction = UNROLL_FORWARD;
    for (uint32_t i = 0; i < w->n_tensors; i++) {
      w->tensors[i].step = (int64_t)w->bytes[i];
      w->tensors[i].role = i < w->n_in ? UNROLL_ROLE_STEP : UNROLL_ROLE_OUTPUT;
    }
    *is_claimed = abi_work_claimed(lane, w);
  }
  return !lane->message[0];
}

static bool template_outputs(const struct runner *r, uint32_t first, uint32_t n, const char *what) {
  const struct abi_lane *lane = r->lane;
  const uint32_t y = r->w.n_in;
  const uint64_t n_bytes = r->w.bytes[y];
  unroll_error err;
  abi_error_init(&err);
  bool is_right = true;
  for (uint32_t t = 0; is_right && t < STEPS; t++) {
    uint8_t *fresh = abi_work_data(lane, &r->w, lane->session->seed + t);
    is_right = fresh;
    if (is_right && (t < first || t >= first + n))
      is_right = abi_buffer_is(lane, r->bound[0].buffers[y], t * n_bytes, fresh + r->w.at[y], n_bytes, what);
    else if (is_right)
      is_right = abi_ok(lane->message, "read",
                        lane->ops->read(lane->queue, r->bound[0].buffers[y], t * n_bytes, fresh + r->w.at[y], n_bytes,
                                        NULL, &err),
                        &err) &&
                 abi_work_right(lane, &r->w, fresh, r->w.rows, what);
    abi_work_free(lane, fresh);
  }
  return is_right;
}

static bool bind_template(struct runner *r) {
  const struct abi_lane *lane = r->lane;
  struct abi_bound *b = &r->bound[0];
  unroll_slot slots[ABI_TENSORS];
  unroll_error err;
  abi_error_init(&err);
  for (uint32_t i = 0; i < r->w.n_tensors; i++) {
    const uint64_t n = STEPS * r->w.bytes[i];
    b->buffers[i] = abi_buffer(lane, NULL, n);
    if (!b->buffers[i])
      return false;
    slots[i] = (unroll_slot){.struct_size = sizeof *slots, .buffer = b->buffers[i], .bytes = n};
  }
  return abi_make_workspace(lane, r->exec, b) &&
         abi_ok(lane->message, "bind of a template",
                lane->ops->bind(r->exec, slots, r->w.n_tensors, sizeof *slots, b->workspace, 0, &b->binding, &err),
                &err);
}

static bool write_template(const struct runner *r) {
  const struct abi_lane *lane = r->lane;
  unroll_error err;
  abi_error_init(&err);
  bool is_right = true;
  for (uint32_t t = 0; is_right && t < STEPS; t++) {
    uint8_t *data = abi_work_data(lane, &r->w, lane->session->seed + t);
    is_right = data;
    for (uint32_t i = 0; is_right && i < r->w.n_tensors; i++)
      is_right = abi_ok(lane->message, "write",
                        lane->ops->write(lane->queue, r->bound[0].buffers[i], t * r->w.bytes[i], data + r->w.at[i],
                                         r->w.bytes[i], NULL, &err),
                        &err);
    abi_work_free(lane, data);
  }
  return is_right;
}

static bool run_steps(const struct runner *r, int64_t first, int64_t count, int32_t direction) {
  unroll_run_args args = abi_args(&r->w, NULL, NULL);
  args.first = first;
  args.count = count;
  args.direction = direction;
  if (first >= 0 && count >= 0 && first < STEPS &&
      (direction == UNROLL_REVERSE ? count <= first + 1 : count <= STEPS - first)) {
    const struct abi_lane *lane = r->lane;
    unroll_error err;
    abi_error_init(&err);
    const int64_t low = direction == UNROLL_REVERSE ? first - count + 1 : first;
    return write_template(r) &&
           abi_ok(lane->message, "run of a template",
                  lane->ops->run(r->bound[0].binding, lane->queue, &args, NULL, &err), &err) &&
           abi_ok(lane->message, "queue_sync", lane->ops->queue_sync(lane->queue, &err), &err) &&
           template_outputs(r, (uint32_t)low, (uint32_t)count, "a range of steps");
  }
  char what[112];
  (void)snprintf(what, sizeof what, "run of %" PRId64 " steps from %" PRId64 " on, %s, in slots of %d", count, first,
                 direction == UNROLL_REVERSE ? "backwards" : "forwards", STEPS);
  return refuses_run(r, &args, UNROLL_E_RANGE, what);
}

static enum conform_outcome keeps_to_its_steps(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  struct runner r = {.lane = lane};
  bool is_claimed;
  if (!make_template(lane, &r.w, &is_claimed))
    return CONFORM_FAILED;
  if (!is_claimed)
    return abi_skip(lane->message, "claims none of matmul, binary add and unary tanh as a template");
  static const struct {
    int64_t first, count;
    int32_t direction;
  } runs[] = {{0, STEPS, UNROLL_FORWARD},     {STEPS - 1, STEPS, UNROLL_REVERSE},
              {2, 2, UNROLL_FORWARD},         {3, 2, UNROLL_REVERSE},
              {1, 0, UNROLL_FORWARD},         {0, STEPS + 1, UNROLL_FORWARD},
              {STEPS, 1, UNROLL_FORWARD},     {STEPS, 1, UNROLL_REVERSE},
              {1, 3, UNROLL_REVERSE},         {INT64_MAX / 2, 1, UNROLL_FORWARD},
              {INT64_MAX, 2, UNROLL_FORWARD}, {-1, 1, UNROLL_FORWARD},
              {0, -1, UNROLL_FORWARD},        {1, 2, UNROLL_REVERSE}};
  bool is_right = abi_compile(lane, &r.w, &r.exec) && bind_template(&r) && write_template(&r);
  for (size_t i = 0; is_right && i < sizeof runs / sizeof *runs; i++)
    is_right = run_steps(&r, runs[i].first, runs[i].count, runs[i].direction);
  return runner_free(&r, CONFORM_PASSED, is_right);
}

static const struct abi_case cases[] = {
    {"abi run again", ABI_DEVICE, runs_again},
    {"abi run generations", ABI_DEVICE, heeds_generations},
    {"abi run two bindings", ABI_DEVICE, shares_executables},
    {"abi run order", ABI_DEVICE, keeps_order},
    {"abi run event", ABI_DEVICE, makes_events},
    {"abi run sizes", ABI_DEVICE, takes_sizes},
    {"abi run sizes outside", ABI_DEVICE, refuses_sizes},
    {"abi run steps", ABI_DEVICE, keeps_to_its_steps},
    {"abi bind slots", ABI_DEVICE, refuses_slots},
};

void suite_runs_add(struct conform_list *list) { ABI_CASES_ADD(list, cases); }
