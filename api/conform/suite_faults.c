/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's memory ends: at the n-th allocation, for every n, of a sequence from open to close. Where one allocation failed,
 * the call that it belonged to is made once more and has to succeed; where all fail from there on, everything is released.
 */
#include "conform/abi_rig.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Beyond so many failing points only some are tried, evenly. */
enum { ALL_UP_TO = 300, SIZE = 12 };

struct trial {
  struct abi_rig rig;
  struct abi_work *w;
  struct abi_bound bound;
  uint8_t *data;
  uint32_t failures; /* of calls */
  bool is_hopeless;  /* all allocations fail from the first on */
};

static bool was_hit(const struct trial *t) {
  const struct conform_host *h = &t->rig.host;
  return h->fail_at && __atomic_load_n(&h->allocations, __ATOMIC_RELAXED) >= h->fail_at;
}

/* After a failure: whether the call is to be made once more. */
static bool goes_on(struct trial *t, const char *call, unroll_status status, const unroll_error *err) {
  char *message = t->rig.lane.message;
  char what[96];
  if (!was_hit(t)) {
    (void)abi_ok(message, call, status, err);
    return false;
  }
  (void)snprintf(what, sizeof what, "%s, with %s %" PRIu64 " failing,", call,
                 t->is_hopeless ? "all allocations from" : "allocation", t->rig.host.fail_at);
  if (!abi_refused(message, what, status, err, UNROLL_E_MEMORY, UNROLL_E_DEVICE_MEMORY))
    return false;
  t->failures++;
  if (t->is_hopeless)
    return false;
  if (t->failures > 1)
    abi_fail(message, "%s failed again when there was memory: %s", what, err->message);
  return t->failures == 1;
}

#define CALL(t, call, expression)                   \
  for (;;) {                                        \
    unroll_error err;                               \
    abi_error_init(&err);                           \
    const unroll_status call_status = (expression); \
    if (call_status == UNROLL_OK)                   \
      break;                                        \
    if (!goes_on((t), (call), call_status, &err))   \
      return;                                       \
  }

static void run_work(struct trial *t) {
  const struct abi_lane *lane = &t->rig.lane;
  const unroll_backend_ops *ops = lane->ops;
  const struct abi_work *w = t->w;
  struct abi_bound *b = &t->bound;
  unroll_slot slots[ABI_TENSORS];
  for (uint32_t i = 0; i < w->n_tensors; i++) {
    CALL(t, "buffer_create", ops->buffer_create(lane->device, w->bytes[i], 0, &b->buffers[i], &err))
    CALL(t, "write", ops->write(lane->queue, b->buffers[i], 0, t->data + w->at[i], w->bytes[i], NULL, &err))
  }
  CALL(t, "compile", ops->compile(lane->device, &w->view, NULL, 0, &b->exec, &err))
  unroll_exec_info info = {.struct_size = sizeof info};
  CALL(t, "exec_info", ops->exec_info(b->exec, &info, &err))
  if (info.workspace_bytes) {
    CALL(t, "buffer_create", ops->buffer_create(lane->device, info.workspace_bytes, 0, &b->workspace, &err))
    CALL(t, "fill", ops->fill(lane->queue, b->workspace, 0, info.workspace_bytes, 0xFF, NULL, &err))
  }
  abi_slots(w, b, slots);
  CALL(t, "bind", ops->bind(b->exec, slots, w->n_tensors, sizeof *slots, b->workspace, 0, &b->binding, &err))
  const unroll_run_args args = abi_args(w, &w->rows, NULL);
  CALL(t, "run", ops->run(b->binding, lane->queue, &args, NULL, &err))
  if (ops->event_wait && ops->event_destroy) {
    unroll_backend_event *event = NULL;
    CALL(t, "run with an event", ops->run(b->binding, lane->queue, &args, &event, &err))
    const unroll_status status = ops->event_wait(event, NULL);
    ops->event_destroy(event);
    if (!abi_ok(lane->message, "event_wait", status, NULL))
      return;
  }
  CALL(t, "queue_flush", ops->queue_flush(lane->queue, &err))
  CALL(t, "queue_sync", ops->queue_sync(lane->queue, &err))
  for (uint32_t i = w->n_in; i < w->n_tensors; i++)
    CALL(t, "read", ops->read(lane->queue, b->buffers[i], 0, t->data + w->at[i], w->bytes[i], NULL, &err))
  (void)abi_work_right(lane, w, t->data, w->rows, "after an allocation failed");
}

static void run_all(struct trial *t) {
  struct abi_lane *lane = &t->rig.lane;
  const struct conform_session *s = lane->session;
  CALL(t, "open", s->plugin->open(&t->rig.host.host, NULL, 0, &t->rig.backend, &lane->ops, &err))
  uint32_t n;
  CALL(t, "device_count", lane->ops->device_count(t->rig.backend, &n, &err))
  t->rig.info.struct_size = sizeof t->rig.info;
  CALL(t, "device_info", lane->ops->device_info(t->rig.backend, s->device_index, &t->rig.info, &err))
  CALL(t, "device_open",
       lane->ops->device_open(t->rig.backend, s->device_index, s->device_options, s->n_device_options, &lane->device,
                              &err))
  CALL(t, "queue_create", lane->ops->queue_create(lane->device, 0, &lane->queue, &err))
  /* Two answers only: the claim of a moment with memory, or a failure. */
  unroll_claim claim = {0};
  CALL(t, "claim", lane->ops->claim(lane->device, &t->w->view, &claim, sizeof claim, &err))
  if (!claim.group) {
    abi_fail(lane->message, "claim, with allocation %" PRIu64 " failing, left what it claims else, and gave UNROLL_OK",
             t->rig.host.fail_at);
    return;
  }
  run_work(t);
}

/* One sequence with the n-th allocation failing; 0: none. *allocations: how many there were. */
static bool try_one(const struct abi_lane *lane, struct abi_work *w, uint64_t n, bool is_hopeless,
                    uint64_t *allocations) {
  struct trial t = {.w = w, .is_hopeless = is_hopeless};
  if (!abi_rig_open(&t.rig, lane->session, ABI_CLOSED, lane->message))
    return false;
  t.rig.host.fail_at = n;
  t.rig.host.fail_all_after = is_hopeless;
  t.data = abi_work_data(lane, w, lane->session->seed);
  if (t.data)
    run_all(&t);
  *allocations = __atomic_load_n(&t.rig.host.allocations, __ATOMIC_RELAXED);
  if (t.rig.lane.ops)
    abi_unbind(&t.rig.lane, &t.bound);
  abi_work_free(lane, t.data);
  const enum conform_outcome outcome = abi_rig_close(&t.rig, lane->message[0] ? CONFORM_FAILED : CONFORM_PASSED);
  if (outcome != CONFORM_PASSED && n && strstr(lane->message, "after close")) {
    lane->message[0] = 0;
    abi_fail(lane->message,
             "allocations of the host are not given back after close, with %s %" PRIu64 " failing: %" PRIu64,
             is_hopeless ? "all allocations from" : "allocation", n, t.rig.host.live);
  }
  return outcome == CONFORM_PASSED;
}

static enum conform_outcome sweep(struct abi_rig *rig, bool is_hopeless) {
  struct abi_work w;
  struct abi_rig open;
  char *message = rig->lane.message;
  enum conform_outcome outcome = CONFORM_FAILED;
  if (abi_rig_open(&open, rig->lane.session, ABI_DEVICE, message))
    outcome = abi_work_choose(&open.lane, &w, SIZE, false);
  outcome = abi_rig_close(&open, outcome);
  if (outcome != CONFORM_PASSED)
    return outcome;
  uint64_t total = 0, ignored;
  if (!try_one(&rig->lane, &w, 0, false, &total))
    return CONFORM_FAILED;
  const uint64_t step = total > ALL_UP_TO ? total / ALL_UP_TO + 1 : 1;
  for (uint64_t n = 1; n <= total; n += step)
    if (!try_one(&rig->lane, &w, n, is_hopeless, &ignored))
      return CONFORM_FAILED;
  return try_one(&rig->lane, &w, 0, false, &total) ? CONFORM_PASSED : CONFORM_FAILED;
}

static enum conform_outcome one_allocation(struct abi_rig *rig) { return sweep(rig, false); }
static enum conform_outcome all_allocations(struct abi_rig *rig) { return sweep(rig, true); }

static const struct abi_case cases[] = {
    {"fault one allocation", ABI_CLOSED, one_allocation},
    {"fault all allocations", ABI_CLOSED, all_allocations},
};

void suite_faults_add(struct conform_list *list) { ABI_CASES_ADD(list, cases); }
