/* SPDX-License-Identifier: Apache-2.0 */
/* R2: structs that are longer than the plugin knows them, or shorter, and arrays whose elements stand further apart. */
#include "conform/abi_rig.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { BEYOND = 64, JUNK = 0xCD };

static bool is_junk(const void *bytes, size_t n) {
  const uint8_t *p = bytes;
  for (size_t i = 0; i < n; i++)
    if (p[i] != JUNK)
      return false;
  return true;
}

/* Whether the work gives the right result on this lane. */
static enum conform_outcome work_is_right(const struct abi_lane *lane, const struct abi_work *w, const char *what) {
  unroll_backend_exec *exec = NULL;
  struct abi_bound b = {0};
  uint8_t *data = abi_work_data(lane, w, lane->session->seed);
  const bool is_right = data && abi_compile(lane, w, &exec) && abi_bind(lane, w, exec, &b) &&
                        abi_run(lane, w, &b, data, w->rows, NULL) && abi_work_right(lane, w, data, w->rows, what);
  abi_unbind(lane, &b);
  lane->ops->exec_destroy(exec);
  abi_work_free(lane, data);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

/* ---- what the host hands over once ---- */
static enum conform_outcome longer_host(struct abi_rig *rig) {
  struct abi_lane *lane = &rig->lane;
  const struct conform_session *s = lane->session;
  struct {
    unroll_host host;
    uint8_t beyond[BEYOND];
  } longer;
  memset(&longer, JUNK, sizeof longer);
  longer.host = rig->host.host;
  longer.host.struct_size = sizeof longer;
  unroll_error err;
  abi_error_init(&err);
  rig->info.struct_size = sizeof rig->info;
  enum conform_outcome outcome = CONFORM_FAILED;
  struct abi_work w;
  if (s->plugin->score(&longer.host) <= 0)
    return abi_fail(lane->message, "score of a longer host is not above 0");
  if (!abi_ok(lane->message, "open with a longer host",
              s->plugin->open(&longer.host, NULL, 0, &rig->backend, &lane->ops, &err), &err))
    return CONFORM_FAILED;
  if (abi_ok(lane->message, "device_info", lane->ops->device_info(rig->backend, s->device_index, &rig->info, &err),
             &err) &&
      abi_ok(lane->message, "device_open",
             lane->ops->device_open(rig->backend, s->device_index, s->device_options, s->n_device_options,
                                    &lane->device, &err),
             &err) &&
      abi_ok(lane->message, "queue_create", lane->ops->queue_create(lane->device, 0, &lane->queue, &err), &err)) {
    outcome = abi_work_choose(lane, &w, 12, false);
    if (outcome == CONFORM_PASSED)
      outcome = work_is_right(lane, &w, "with a longer host");
  }
  /* The host's struct lives until close, and no longer. */
  if (lane->queue)
    lane->ops->queue_destroy(lane->queue);
  if (lane->device)
    lane->ops->device_close(lane->device);
  if (!abi_ok(lane->message, "close", s->plugin->close(rig->backend, &err), &err))
    outcome = CONFORM_FAILED;
  rig->backend = NULL;
  lane->device = NULL;
  lane->queue = NULL;
  return outcome;
}

/* ---- what a plugin fills ---- */
static enum conform_outcome info_sizes(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  union {
    unroll_device_info info;
    uint8_t bytes[sizeof(unroll_device_info) + BEYOND];
  } u;
  const size_t full = sizeof u.info, sizes[] = {full + BEYOND,
                                                full,
                                                offsetof(unroll_device_info, dtypes),
                                                offsetof(unroll_device_info, mem_total),
                                                offsetof(unroll_device_info, name),
                                                sizeof(uint32_t)};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    unroll_error err;
    abi_error_init(&err);
    memset(&u, JUNK, sizeof u);
    u.info.struct_size = (uint32_t)sizes[i];
    const unroll_status status = lane->ops->device_info(rig->backend, lane->session->device_index, &u.info, &err);
    char what[64];
    (void)snprintf(what, sizeof what, "device_info of %zu bytes", sizes[i]);
    const size_t known = sizes[i] < full ? sizes[i] : full;
    if (!is_junk(u.bytes + known, sizeof u - known))
      return abi_fail(lane->message, "%s wrote beyond %zu", what, known);
    if (u.info.struct_size != sizes[i])
      return abi_fail(lane->message, "%s changed struct_size to %" PRIu32, what, u.info.struct_size);
    if (sizes[i] >= full && !abi_ok(lane->message, what, status, &err))
      return CONFORM_FAILED;
    if (status != UNROLL_OK && !abi_refused(lane->message, what, status, &err, 0, 0))
      return CONFORM_FAILED;
    if (status == UNROLL_OK && sizes[i] >= offsetof(unroll_device_info, mem_total) &&
        (!u.info.id || strcmp(u.info.id, rig->info.id) != 0))
      return abi_fail(lane->message, "%s did not fill id", what);
  }
  return CONFORM_PASSED;
}

static bool exec_info_sizes(const struct abi_lane *lane, unroll_backend_exec *exec) {
  union {
    unroll_exec_info info;
    uint8_t bytes[sizeof(unroll_exec_info) + BEYOND];
  } u;
  unroll_exec_info whole = {.struct_size = sizeof whole};
  unroll_error err;
  abi_error_init(&err);
  if (!abi_ok(lane->message, "exec_info", lane->ops->exec_info(exec, &whole, &err), &err))
    return false;
  const size_t full = sizeof u.info, sizes[] = {full + BEYOND, full, offsetof(unroll_exec_info, persistent_bytes),
                                                offsetof(unroll_exec_info, workspace_bytes)};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    abi_error_init(&err);
    memset(&u, JUNK, sizeof u);
    u.info.struct_size = (uint32_t)sizes[i];
    const unroll_status status = lane->ops->exec_info(exec, &u.info, &err);
    char what[64];
    (void)snprintf(what, sizeof what, "exec_info of %zu bytes", sizes[i]);
    const size_t known = sizes[i] < full ? sizes[i] : full;
    if (!is_junk(u.bytes + known, sizeof u - known) || u.info.struct_size != sizes[i])
      abi_fail(lane->message, "%s wrote beyond %zu, or into struct_size", what, known);
    else if (sizes[i] >= full)
      (void)abi_ok(lane->message, what, status, &err);
    else if (status != UNROLL_OK)
      (void)abi_refused(lane->message, what, status, &err, 0, 0);
    if (!lane->message[0] && status == UNROLL_OK && sizes[i] > offsetof(unroll_exec_info, workspace_bytes) &&
        (u.info.workspace_bytes != whole.workspace_bytes || u.info.workspace_alignment != whole.workspace_alignment))
      abi_fail(lane->message, "%s gave another workspace than one of %zu", what, full);
    if (lane->message[0])
      return false;
  }
  if (whole.workspace_bytes && whole.workspace_alignment & (whole.workspace_alignment - 1))
    abi_fail(lane->message, "workspace_alignment is %" PRIu64 ", expected a power of two", whole.workspace_alignment);
  if (whole.workspace_bytes && whole.workspace_alignment > lane->info->alignment)
    abi_fail(lane->message, "workspace_alignment is %" PRIu64 ", more than the device's alignment, %" PRIu64,
             whole.workspace_alignment, lane->info->alignment);
  return !lane->message[0];
}

static enum conform_outcome sizes_of_exec_info(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  struct abi_work w;
  const enum conform_outcome outcome = abi_work_choose(lane, &w, 12, false);
  if (outcome != CONFORM_PASSED)
    return outcome;
  unroll_backend_exec *exec = NULL;
  const bool is_right = abi_compile(lane, &w, &exec) && exec_info_sizes(lane, exec);
  lane->ops->exec_destroy(exec);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

/* Failing calls, each with a struct of that size at err. */
static unroll_status failing_call(const struct abi_rig *rig, int call, unroll_backend_buffer *b, unroll_error *err) {
  const struct abi_lane *lane = &rig->lane;
  static const unroll_option option = {"conform-no-such-option", "1"};
  unroll_device_info info = {.struct_size = sizeof info};
  unroll_backend_device *device = NULL;
  unroll_backend_buffer *other = NULL;
  uint8_t byte;
  switch (call) {
  case 0: return lane->ops->device_info(rig->backend, UINT32_MAX, &info, err);
  case 1: return lane->ops->device_open(rig->backend, lane->session->device_index, &option, 1, &device, err);
  case 2: return lane->ops->buffer_create(lane->device, UINT64_MAX, 0, &other, err);
  case 3: return lane->ops->read(lane->queue, b, 9, &byte, 1, NULL, err);
  default: return lane->ops->copy(lane->queue, b, 9, b, 0, 1, NULL, err);
  }
}

static enum conform_outcome error_sizes(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const size_t message = offsetof(unroll_error, message);
  const size_t sizes[] = {
      sizeof(unroll_error) + BEYOND,  sizeof(unroll_error),        message + 16, message + 1, message,
      offsetof(unroll_error, native), offsetof(unroll_error, code)};
  unroll_backend_buffer *b = abi_buffer(lane, "12345678", 8);
  if (!b)
    return CONFORM_FAILED;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int call = 0; call < 5; call++) {
      static const char *const names[] = {"device_info", "device_open", "buffer_create", "read", "copy"};
      union {
        unroll_error err;
        uint8_t bytes[sizeof(unroll_error) + BEYOND];
      } u;
      memset(&u, JUNK, sizeof u);
      u.err.struct_size = (uint32_t)sizes[i];
      const unroll_status status = failing_call(rig, call, b, &u.err);
      const size_t known = sizes[i] < sizeof u.err ? sizes[i] : sizeof u.err;
      if (status == UNROLL_OK)
        abi_fail(lane->message, "%s gave UNROLL_OK, expected a failure", names[call]);
      else if (!is_junk(u.bytes + known, sizeof u - known) || u.err.struct_size != sizes[i])
        abi_fail(lane->message, "%s failed and wrote beyond the %zu bytes of its error, or into struct_size",
                 names[call], sizes[i]);
      else if (known == sizeof u.err)
        (void)abi_refused(lane->message, names[call], status, &u.err, 0, 0);
      if (lane->message[0])
        break;
    }
  lane->ops->buffer_destroy(b);
  return lane->message[0] ? CONFORM_FAILED : CONFORM_PASSED;
}

/* ---- claims ---- */
static enum conform_outcome claim_stride(struct abi_rig *rig) {
  enum { NODES = 3 };
  const struct abi_lane *lane = &rig->lane;
  struct abi_work w;
  const enum conform_outcome outcome = abi_work_choose(lane, &w, 12, false);
  if (outcome != CONFORM_PASSED)
    return outcome;
  for (uint32_t i = 0; i < w.n_tensors; i++)
    w.tensors[i].slot = UNROLL_NO_SLOT;
  w.view.n_slots = 0;
  unroll_node_view nodes[NODES] = {w.node, w.node, w.node};
  nodes[0].op = nodes[2].op = UNROLL_OP_END;
  nodes[0].n_in = nodes[0].n_out = nodes[2].n_in = nodes[2].n_out = 0;
  w.view.nodes = nodes;
  w.view.n_nodes = NODES;
  struct {
    unroll_claim claim;
    uint8_t beyond[24];
  } claims[NODES + 1];
  memset(claims, JUNK, sizeof claims);
  for (int i = 0; i < NODES; i++)
    claims[i].claim = (unroll_claim){0};
  unroll_error err;
  abi_error_init(&err);
  const unroll_status status = lane->ops->claim(lane->device, &w.view, &claims[0].claim, sizeof *claims, &err);
  if (!abi_ok(lane->message, "claim of three nodes", status, &err))
    return CONFORM_FAILED;
  for (int i = 0; i < NODES; i++)
    if (!is_junk(claims[i].beyond, sizeof claims[i].beyond))
      return abi_fail(lane->message, "claim wrote between claims that are %zu bytes apart", sizeof *claims);
  if (!is_junk(&claims[NODES], sizeof *claims))
    return abi_fail(lane->message, "claim wrote behind the last claim");
  if (claims[0].claim.group || claims[2].claim.group)
    return abi_fail(lane->message, "a node that is no op was claimed, beside %s", w.name);
  if (!claims[1].claim.group)
    return abi_fail(lane->message, "%s is claimed alone, but not beside nodes that are no ops, claims %zu bytes apart",
                    w.name, sizeof *claims);
  return CONFORM_PASSED;
}

/* ---- what a plugin reads ---- */
enum { LONG_VIEW = 1, LONG_NODE = 2, LONG_TENSOR = 4, LONG_SLOT = 8, LONG_ARGS = 16, LONG_ATTR = 32 };

/* The same work through structs with more behind what is known; kinds: LONG_*. */
struct longer {
  struct {
    unroll_graph_view view;
    uint8_t beyond[BEYOND];
  } view;
  struct {
    unroll_node_view node;
    uint8_t beyond[BEYOND];
  } node;
  struct {
    unroll_tensor_view tensor;
    uint8_t beyond[BEYOND];
  } tensors[ABI_TENSORS];
  struct {
    unroll_slot slot;
    uint8_t beyond[BEYOND];
  } slots[ABI_TENSORS];
  struct {
    unroll_run_args args;
    uint8_t beyond[BEYOND];
  } args;
};

static void make_longer(struct longer *l, const struct abi_work *w, uint32_t kinds) {
  memset(l, JUNK, sizeof *l);
  l->view.view = w->view;
  l->node.node = w->node;
  for (uint32_t i = 0; i < w->n_tensors; i++)
    l->tensors[i].tensor = w->tensors[i];
  if (kinds & LONG_NODE) {
    l->view.view.nodes = &l->node;
    l->view.view.node_stride = sizeof l->node;
  }
  if (kinds & LONG_TENSOR) {
    l->view.view.tensors = l->tensors;
    l->view.view.tensor_stride = sizeof *l->tensors;
  }
  if (kinds & LONG_VIEW)
    l->view.view.struct_size = sizeof l->view;
}

static bool run_longer(const struct abi_lane *lane, const struct abi_work *w, struct longer *l, uint32_t kinds,
                       struct abi_bound *b, uint8_t *data, const char *what) {
  const unroll_backend_ops *ops = lane->ops;
  unroll_error err;
  abi_error_init(&err);
  if (!abi_ok(lane->message, "compile", ops->compile(lane->device, &l->view.view, NULL, 0, &b->exec, &err), &err) ||
      !abi_make_buffers(lane, w, b) || !abi_make_workspace(lane, b->exec, b))
    return false;
  unroll_slot slots[ABI_TENSORS];
  abi_slots(w, b, slots);
  for (uint32_t i = 0; i < w->n_tensors; i++) {
    l->slots[i].slot = slots[i];
    l->slots[i].slot.struct_size = sizeof *l->slots;
  }
  const bool is_long = kinds & LONG_SLOT;
  if (!abi_ok(lane->message, "bind",
              ops->bind(b->exec, is_long ? &l->slots[0].slot : slots, w->n_tensors,
                        is_long ? sizeof *l->slots : sizeof *slots, b->workspace, 0, &b->binding, &err),
              &err))
    return false;
  const int64_t rows = w->rows;
  l->args.args = abi_args(w, &rows, NULL);
  if (kinds & LONG_ARGS)
    l->args.args.struct_size = sizeof l->args;
  return abi_write(lane, w, b, data) &&
         abi_ok(lane->message, "run", ops->run(b->binding, lane->queue, &l->args.args, NULL, &err), &err) &&
         abi_ok(lane->message, "queue_sync", ops->queue_sync(lane->queue, &err), &err) && abi_read(lane, w, b, data) &&
         abi_work_right(lane, w, data, w->rows, what);
}

static enum conform_outcome longer_views(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  static const uint32_t modes[] = {
      0,         LONG_VIEW, LONG_NODE, LONG_TENSOR,
      LONG_SLOT, LONG_ARGS, LONG_ATTR, LONG_VIEW | LONG_NODE | LONG_TENSOR | LONG_SLOT | LONG_ARGS};
  static const char *const names[] = {"as it is",     "a longer view",        "longer nodes",      "longer tensors",
                                      "longer slots", "longer run arguments", "longer attributes", "all of it longer"};
  struct abi_work w;
  const enum conform_outcome outcome = abi_work_choose(lane, &w, 12, true);
  if (outcome != CONFORM_PASSED)
    return outcome;
  memset(w.attr.bytes + w.node.attr_size, JUNK, sizeof w.attr.bytes - w.node.attr_size);
  const uint32_t attr_size = w.node.attr_size;
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    struct longer l;
    w.node.attr_size = modes[i] & LONG_ATTR ? (uint32_t)sizeof w.attr : attr_size;
    make_longer(&l, &w, modes[i]);
    unroll_claim claim = {0};
    unroll_error err;
    abi_error_init(&err);
    const unroll_status status = lane->ops->claim(lane->device, &l.view.view, &claim, sizeof claim, &err);
    if (!abi_ok(lane->message, "claim", status, &err))
      return CONFORM_FAILED;
    if (!claim.group && modes[i] & LONG_ATTR)
      continue; /* what an appended attribute says may matter: both answers are right */
    if (!claim.group)
      return abi_fail(lane->message, "%s is not claimed with %s", w.name, names[i]);
    struct abi_bound b = {0};
    uint8_t *data = abi_work_data(lane, &w, lane->session->seed);
    const bool is_right = data && run_longer(lane, &w, &l, modes[i], &b, data, names[i]);
    abi_unbind(lane, &b);
    abi_work_free(lane, data);
    if (!is_right)
      return CONFORM_FAILED;
  }
  return CONFORM_PASSED;
}

static const struct abi_case cases[] = {
    {"abi sizes host", ABI_CLOSED, longer_host},
    {"abi sizes device info", ABI_DEVICE, info_sizes},
    {"abi sizes exec info", ABI_DEVICE, sizes_of_exec_info},
    {"abi sizes error", ABI_DEVICE, error_sizes},
    {"abi sizes claims", ABI_DEVICE, claim_stride},
    {"abi sizes views", ABI_DEVICE, longer_views},
};

void suite_sizes_add(struct conform_list *list) { ABI_CASES_ADD(list, cases); }
