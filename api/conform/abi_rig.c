/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin opened by a case itself, and the checks of single calls. */
#include "conform/abi_rig.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- messages ---- */
static enum conform_outcome say(char *message, enum conform_outcome outcome, const char *format, va_list list) {
  if (!message[0])
    (void)vsnprintf(message, CONFORM_MESSAGE, format, list);
  return outcome;
}

enum conform_outcome abi_fail(char *message, const char *format, ...) {
  va_list list;
  va_start(list, format);
  const enum conform_outcome outcome = say(message, CONFORM_FAILED, format, list);
  va_end(list);
  return outcome;
}

enum conform_outcome abi_skip(char *message, const char *format, ...) {
  va_list list;
  va_start(list, format);
  const enum conform_outcome outcome = say(message, CONFORM_SKIPPED, format, list);
  va_end(list);
  return outcome;
}

void abi_error_init(unroll_error *err) {
  memset(err, 0xEE, sizeof *err);
  err->struct_size = sizeof *err;
}

bool abi_ok(char *message, const char *call, unroll_status status, const unroll_error *err) {
  if (status == UNROLL_OK)
    return true;
  const bool has_text = err && memchr(err->message, 0, sizeof err->message);
  abi_fail(message, "%s gave %s (%" PRId32 "): %s", call, unroll_status_name(status), status,
           has_text ? err->message : "no message");
  return false;
}

static bool is_status(unroll_status status) {
  switch (status) {
#define STATUS(name, value, text) case name:
    UNROLL_STATUSES(STATUS)
#undef STATUS
    return true;
  default: return false;
  }
}

bool abi_refused(char *message, const char *call, unroll_status status, const unroll_error *err, unroll_status first,
                 unroll_status second) {
  if (status == UNROLL_OK)
    abi_fail(message, "%s gave UNROLL_OK, expected %s", call, first ? unroll_status_name(first) : "a failure");
  else if (!is_status(status))
    abi_fail(message, "%s gave %" PRId32 ", which is no status", call, status);
  else if (first && status != first && (!second || status != second))
    abi_fail(message, "%s gave %s, expected %s%s%s", call, unroll_status_name(status), unroll_status_name(first),
             second ? " or " : "", second ? unroll_status_name(second) : "");
  else if (err && !memchr(err->message, 0, sizeof err->message))
    abi_fail(message, "%s gave %s and left no message, or one without an end", call, unroll_status_name(status));
  else if (err && !err->message[0])
    abi_fail(message, "%s gave %s with an empty message", call, unroll_status_name(status));
  else if (err && err->code != status)
    abi_fail(message, "%s gave %s, but its error says %" PRId32, call, unroll_status_name(status), err->code);
  else
    return true;
  return false;
}

/* ---- the plugin ---- */
bool abi_rig_open(struct abi_rig *rig, const struct conform_session *s, enum abi_stage stage, char *message) {
  *rig = (struct abi_rig){.lane = {.session = s, .info = &rig->info, .message = message}};
  conform_host_init(&rig->host);
  struct abi_lane *lane = &rig->lane;
  unroll_error err;
  abi_error_init(&err);
  if (stage == ABI_CLOSED)
    return true;
  if (!abi_ok(message, "open", s->plugin->open(&rig->host.host, NULL, 0, &rig->backend, &lane->ops, &err), &err))
    return false;
  if (!rig->backend || !lane->ops) {
    abi_fail(message, "open gave UNROLL_OK, but no %s", rig->backend ? "table of functions" : "backend");
    return false;
  }
  if (stage == ABI_BACKEND)
    return true;
  rig->info.struct_size = sizeof rig->info;
  return abi_ok(message, "device_info", lane->ops->device_info(rig->backend, s->device_index, &rig->info, &err),
                &err) &&
         abi_ok(message, "device_open",
                lane->ops->device_open(rig->backend, s->device_index, s->device_options, s->n_device_options,
                                       &lane->device, &err),
                &err) &&
         abi_ok(message, "queue_create", lane->ops->queue_create(lane->device, 0, &lane->queue, &err), &err);
}

enum conform_outcome abi_rig_close(struct abi_rig *rig, enum conform_outcome outcome) {
  struct abi_lane *lane = &rig->lane;
  unroll_error err;
  abi_error_init(&err);
  if (lane->queue)
    lane->ops->queue_destroy(lane->queue);
  if (lane->device)
    lane->ops->device_close(lane->device);
  if (rig->backend && !abi_ok(lane->message, "close", lane->session->plugin->close(rig->backend, &err), &err))
    outcome = CONFORM_FAILED;
  const uint64_t live = __atomic_load_n(&rig->host.live, __ATOMIC_RELAXED);
  if (live != 0 && (outcome == CONFORM_PASSED || outcome == CONFORM_SKIPPED)) {
    lane->message[0] = 0;
    outcome = abi_fail(lane->message, "after close %" PRIu64 " allocations of the host are not given back", live);
  }
  return outcome;
}

/* ---- cases ---- */
static enum conform_outcome run_case(struct conform_session *s, const struct conform_case *c, char *message) {
  const struct abi_case *one = c->data;
  unroll_error err = UNROLL_ERROR_INIT;
  if (!abi_ok(message, "closing the plugin as it was open before", session_close_plugin(s, &err), &err))
    return CONFORM_FAILED;
  struct abi_rig rig;
  const bool is_open = abi_rig_open(&rig, s, one->stage, message);
  return abi_rig_close(&rig, is_open ? one->check(&rig) : CONFORM_FAILED);
}

void abi_cases_add(struct conform_list *list, const struct abi_case *cases, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    struct conform_case *c = conform_list_add(list, "%s", cases[i].name);
    if (!c)
      return;
    c->run = run_case;
    c->data = &cases[i];
    c->index = i;
    c->dtype = -1;
  }
}

/* ---- buffers ---- */
unroll_backend_buffer *abi_buffer(const struct abi_lane *lane, const void *bytes, uint64_t n) {
  unroll_backend_buffer *b = NULL;
  unroll_error err;
  abi_error_init(&err);
  if (!abi_ok(lane->message, "buffer_create", lane->ops->buffer_create(lane->device, n, 0, &b, &err), &err))
    return NULL;
  if (!b)
    abi_fail(lane->message, "buffer_create gave UNROLL_OK, but no buffer");
  if (b && bytes && !abi_ok(lane->message, "write", lane->ops->write(lane->queue, b, 0, bytes, n, NULL, &err), &err)) {
    lane->ops->buffer_destroy(b);
    return NULL;
  }
  return b;
}

bool abi_buffer_is(const struct abi_lane *lane, unroll_backend_buffer *b, uint64_t offset, const void *bytes,
                   uint64_t n, const char *what) {
  unroll_error err;
  abi_error_init(&err);
  uint8_t *got = mem_alloc(lane->session->allocator, n + 1);
  if (!got) {
    abi_fail(lane->message, "the judge has no memory for %" PRIu64 " bytes", n);
    return false;
  }
  memset(got, 0xEE, n + 1);
  bool is_same = abi_ok(lane->message, "read", lane->ops->read(lane->queue, b, offset, got, n, NULL, &err), &err);
  if (is_same && got[n] != 0xEE) {
    abi_fail(lane->message, "%s: a read of %" PRIu64 " bytes wrote more", what, n);
    is_same = false;
  }
  const uint8_t *want = bytes;
  for (uint64_t i = 0; is_same && i < n; i++)
    if (got[i] != want[i]) {
      abi_fail(lane->message, "%s: byte %" PRIu64 " is 0x%02x, expected 0x%02x", what, offset + i, got[i], want[i]);
      is_same = false;
    }
  mem_free(lane->session->allocator, got);
  return is_same;
}
