/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers, queues and events: bytes come and go, in order, and nothing outside of a range is touched. */
#include "conform/abi_rig.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL = 1021, LARGE = 1 << 20 };

static void pattern(uint8_t *bytes, uint64_t n, uint32_t seed) {
  for (uint64_t i = 0; i < n; i++)
    bytes[i] = (uint8_t)((i * 2654435761u + seed * 40503u) >> 7);
}

/* What is written into a buffer's copy here has to be what the device has. */
struct pair {
  unroll_backend_buffer *a, *b;
  uint8_t want_a[SMALL], want_b[SMALL];
};

static bool make_pair(const struct abi_lane *lane, struct pair *p) {
  *p = (struct pair){0};
  pattern(p->want_a, SMALL, 1);
  pattern(p->want_b, SMALL, 2);
  p->a = abi_buffer(lane, p->want_a, SMALL);
  p->b = p->a ? abi_buffer(lane, p->want_b, SMALL) : NULL;
  return p->b;
}

static bool pair_is(const struct abi_lane *lane, const struct pair *p, const char *what) {
  return abi_buffer_is(lane, p->a, 0, p->want_a, SMALL, what) && abi_buffer_is(lane, p->b, 0, p->want_b, SMALL, what);
}

static enum conform_outcome free_pair(const struct abi_lane *lane, const struct pair *p, bool is_right) {
  lane->ops->buffer_destroy(p->a);
  lane->ops->buffer_destroy(p->b);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

/* ---- sizes ---- */
static enum conform_outcome keeps_bytes(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  static const uint64_t sizes[] = {1, 3, 64, 4095, 4097, LARGE};
  uint8_t *bytes = mem_alloc(lane->session->allocator, LARGE);
  if (!bytes)
    return abi_fail(lane->message, "the judge has no memory for %d bytes", LARGE);
  bool is_right = true;
  for (size_t i = 0; is_right && i < sizeof sizes / sizeof *sizes; i++) {
    const uint64_t n = rig->info.max_buffer < sizes[i] ? rig->info.max_buffer : sizes[i];
    pattern(bytes, n, (uint32_t)i);
    unroll_backend_buffer *b = abi_buffer(lane, bytes, n);
    is_right = b && abi_buffer_is(lane, b, 0, bytes, n, "after a write of all of it") &&
               abi_buffer_is(lane, b, n / 3, bytes + n / 3, n - n / 3, "from a third on");
    lane->ops->buffer_destroy(b);
  }
  mem_free(lane->session->allocator, bytes);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

static enum conform_outcome keeps_many(struct abi_rig *rig) {
  enum { BUFFERS = 64, EACH = 257 };
  const struct abi_lane *lane = &rig->lane;
  unroll_backend_buffer *b[BUFFERS] = {NULL};
  uint8_t bytes[EACH];
  bool is_right = true;
  for (uint32_t i = 0; is_right && i < BUFFERS; i++) {
    pattern(bytes, EACH, i);
    b[i] = abi_buffer(lane, bytes, EACH);
    is_right = b[i] != NULL;
  }
  for (uint32_t i = 0; i < BUFFERS; i += 2) {
    lane->ops->buffer_destroy(b[i]);
    b[i] = NULL;
  }
  for (uint32_t i = 1; is_right && i < BUFFERS; i += 2) {
    pattern(bytes, EACH, i);
    is_right = abi_buffer_is(lane, b[i], 0, bytes, EACH, "one of many, after every other was destroyed");
  }
  for (uint32_t i = 0; i < BUFFERS; i++)
    lane->ops->buffer_destroy(b[i]);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

static enum conform_outcome refuses_too_large(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const uint64_t most = rig->info.max_buffer, memory = rig->info.mem_total;
  const uint64_t sizes[] = {most < UINT64_MAX ? most + 1 : most, memory < UINT64_MAX / 4 ? memory * 2 : UINT64_MAX / 2,
                            UINT64_MAX / 2, UINT64_MAX - 63, UINT64_MAX};
  unroll_backend_buffer *const untouched = (unroll_backend_buffer *)(void *)rig;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    if (sizes[i] <= most)
      continue;
    char what[64];
    (void)snprintf(what, sizeof what, "buffer_create of %" PRIu64 " bytes", sizes[i]);
    for (int has_error = 0; has_error < 2; has_error++) {
      unroll_backend_buffer *b = untouched;
      unroll_error err;
      abi_error_init(&err);
      const unroll_status status = lane->ops->buffer_create(lane->device, sizes[i], 0, &b, has_error ? &err : NULL);
      if (status == UNROLL_OK)
        lane->ops->buffer_destroy(b);
      if (!abi_refused(lane->message, what, status, has_error ? &err : NULL, UNROLL_E_DEVICE_MEMORY, UNROLL_E_MEMORY))
        return CONFORM_FAILED;
      if (b != untouched)
        return abi_fail(lane->message, "%s failed and wrote its out-parameter", what);
    }
  }
  return keeps_bytes(rig);
}

/* ---- ranges ---- */
static enum conform_outcome moves_at_offsets(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  struct pair p;
  unroll_error err;
  abi_error_init(&err);
  bool is_right = make_pair(lane, &p);
  static const struct {
    uint32_t to, from, n;
  } moves[] = {{0, 1, 1}, {1, 0, 7}, {3, 200, 64}, {500, 17, 129}, {SMALL - 5, 0, 5}, {640, 64, 256}};
  for (size_t i = 0; is_right && i < sizeof moves / sizeof *moves; i++) {
    const uint32_t to = moves[i].to, from = moves[i].from, n = moves[i].n;
    uint8_t bytes[SMALL];
    pattern(bytes, n, (uint32_t)i + 7);
    memcpy(p.want_a + to, bytes, n);
    is_right = abi_ok(lane->message, "write", lane->ops->write(lane->queue, p.a, to, bytes, n, NULL, &err), &err) &&
               pair_is(lane, &p, "after a write at an offset");
    memcpy(p.want_b + to, p.want_a + from, n);
    is_right = is_right &&
               abi_ok(lane->message, "copy", lane->ops->copy(lane->queue, p.b, to, p.a, from, n, NULL, &err), &err) &&
               pair_is(lane, &p, "after a copy at an offset");
  }
  return free_pair(lane, &p, is_right);
}

static enum conform_outcome fills(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  struct pair p;
  unroll_error err;
  abi_error_init(&err);
  bool is_right = make_pair(lane, &p);
  static const struct {
    uint32_t at, n;
    uint8_t value;
  } fills_[] = {{0, SMALL, 0x5A}, {1, 1, 0xFF}, {3, 61, 0}, {64, 64, 0x80}, {129, 700, 1}, {SMALL - 1, 1, 0x7F}};
  for (size_t i = 0; is_right && i < sizeof fills_ / sizeof *fills_; i++) {
    memset(p.want_a + fills_[i].at, fills_[i].value, fills_[i].n);
    is_right =
        abi_ok(lane->message, "fill",
               lane->ops->fill(lane->queue, p.a, fills_[i].at, fills_[i].n, fills_[i].value, NULL, &err), &err) &&
        pair_is(lane, &p, "after a fill");
  }
  return free_pair(lane, &p, is_right);
}

static enum conform_outcome copies_within(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  struct pair p;
  unroll_error err;
  abi_error_init(&err);
  bool is_right = make_pair(lane, &p);
  static const struct { uint32_t to, from, n; } moves[] = {{0, 512, 509}, {300, 0, 300}, {700, 1, 1}, {9, 900, 121}};
  for (size_t i = 0; is_right && i < sizeof moves / sizeof *moves; i++) {
    const uint32_t to = moves[i].to, from = moves[i].from, n = moves[i].n;
    memcpy(p.want_a + to, p.want_a + from, n);
    is_right = abi_ok(lane->message, "copy within one buffer",
                      lane->ops->copy(lane->queue, p.a, to, p.a, from, n, NULL, &err), &err) &&
               pair_is(lane, &p, "after a copy within one buffer");
  }
  return free_pair(lane, &p, is_right);
}

static enum conform_outcome moves_nothing(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const unroll_backend_ops *ops = lane->ops;
  struct pair p;
  unroll_error err;
  abi_error_init(&err);
  uint8_t byte = 0xEE;
  unroll_backend_buffer *empty = abi_buffer(lane, NULL, 0);
  bool is_right = make_pair(lane, &p) && empty;
  static const uint64_t at[] = {0, 5, SMALL};
  for (int i = 0; is_right && i < 3; i++)
    is_right =
        abi_ok(lane->message, "write of 0 bytes", ops->write(lane->queue, p.a, at[i], &byte, 0, NULL, &err), &err) &&
        abi_ok(lane->message, "read of 0 bytes", ops->read(lane->queue, p.a, at[i], &byte, 0, NULL, &err), &err) &&
        abi_ok(lane->message, "fill of 0 bytes", ops->fill(lane->queue, p.a, at[i], 0, 9, NULL, &err), &err) &&
        abi_ok(lane->message, "copy of 0 bytes", ops->copy(lane->queue, p.a, at[i], p.b, at[2 - i], 0, NULL, &err),
               &err) &&
        abi_ok(lane->message, "write of 0 bytes without an error struct",
               ops->write(lane->queue, p.a, at[i], &byte, 0, NULL, NULL), NULL) &&
        pair_is(lane, &p, "after calls of 0 bytes");
  is_right =
      is_right &&
      abi_ok(lane->message, "write into a buffer of 0 bytes", ops->write(lane->queue, empty, 0, &byte, 0, NULL, &err),
             &err) &&
      abi_ok(lane->message, "read of a buffer of 0 bytes", ops->read(lane->queue, empty, 0, &byte, 0, NULL, &err),
             &err) &&
      abi_ok(lane->message, "fill of a buffer of 0 bytes", ops->fill(lane->queue, empty, 0, 0, 1, NULL, &err), &err) &&
      abi_ok(lane->message, "copy of a buffer of 0 bytes", ops->copy(lane->queue, empty, 0, p.a, 0, 0, NULL, &err),
             &err);
  if (is_right && byte != 0xEE)
    is_right = abi_fail(lane->message, "a read of 0 bytes wrote into the host's memory") == CONFORM_PASSED;
  ops->buffer_destroy(empty);
  return free_pair(lane, &p, is_right);
}

static enum conform_outcome refuses_outside(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const unroll_backend_ops *ops = lane->ops;
  struct pair p;
  bool is_right = make_pair(lane, &p);
  static const struct {
    uint64_t at, n;
  } ranges[] = {{0, SMALL + 1},      {1, SMALL},      {SMALL, 1},          {SMALL + 1, 0},      {UINT64_MAX, 1},
                {UINT64_MAX - 3, 8}, {4, UINT64_MAX}, {4, UINT64_MAX - 3}, {UINT64_MAX / 2, 16}};
  uint8_t bytes[SMALL + 8], before[SMALL + 8];
  memset(bytes, 0xEE, sizeof bytes);
  memcpy(before, bytes, sizeof bytes);
  for (size_t i = 0; is_right && i < sizeof ranges / sizeof *ranges; i++) {
    const uint64_t at = ranges[i].at, n = ranges[i].n;
    for (int call = 0; is_right && call < 5; call++)
      for (int has_error = 0; is_right && has_error < 2; has_error++) {
        static const char *const names[] = {"write", "read", "fill", "copy to", "copy from"};
        char what[96];
        (void)snprintf(what, sizeof what, "%s bytes %" PRIu64 " + %" PRIu64 " of a buffer of %d", names[call], at, n,
                       SMALL);
        unroll_error own, *err = has_error ? &own : NULL;
        abi_error_init(&own);
        const unroll_status status = call == 0   ? ops->write(lane->queue, p.a, at, bytes, n, NULL, err)
                                     : call == 1 ? ops->read(lane->queue, p.a, at, bytes, n, NULL, err)
                                     : call == 2 ? ops->fill(lane->queue, p.a, at, n, 0x11, NULL, err)
                                     : call == 3 ? ops->copy(lane->queue, p.a, at, p.b, 0, n, NULL, err)
                                                 : ops->copy(lane->queue, p.b, 0, p.a, at, n, NULL, err);
        is_right = abi_refused(lane->message, what, status, err, UNROLL_E_RANGE, 0) && pair_is(lane, &p, what);
        if (is_right && memcmp(bytes, before, sizeof bytes) != 0)
          is_right = abi_fail(lane->message, "%s wrote into the host's memory", what) == CONFORM_PASSED;
      }
  }
  return free_pair(lane, &p, is_right);
}

/* ---- queues ---- */
static enum conform_outcome makes_queues(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const unroll_backend_ops *ops = lane->ops;
  static const uint64_t flags[] = {0, UNROLL_QUEUE_PROFILE, UINT64_C(1) << 40, UINT64_C(0xFFFFFFFFFFFFFFFE)};
  unroll_error err;
  abi_error_init(&err);
  for (int i = 0; i < 4; i++) {
    struct abi_lane own = *lane;
    own.queue = NULL;
    if (!abi_ok(lane->message, flags[i] > 1 ? "queue_create with flags that are not known" : "queue_create",
                ops->queue_create(lane->device, flags[i], &own.queue, &err), &err))
      return CONFORM_FAILED;
    bool is_right = abi_ok(lane->message, "queue_flush of an empty queue", ops->queue_flush(own.queue, &err), &err) &&
                    abi_ok(lane->message, "queue_sync of an empty queue", ops->queue_sync(own.queue, &err), &err) &&
                    abi_ok(lane->message, "queue_sync once more", ops->queue_sync(own.queue, NULL), NULL);
    unroll_backend_buffer *b = is_right ? abi_buffer(&own, "queued", 7) : NULL;
    is_right = b && abi_ok(lane->message, "queue_flush", ops->queue_flush(own.queue, &err), &err) &&
               abi_buffer_is(&own, b, 0, "queued", 7, "through a queue of its own") &&
               abi_ok(lane->message, "queue_sync", ops->queue_sync(own.queue, &err), &err);
    ops->queue_destroy(own.queue);
    is_right = is_right && abi_buffer_is(lane, b, 0, "queued", 7, "through another queue");
    ops->buffer_destroy(b);
    if (!is_right)
      return CONFORM_FAILED;
  }
  return CONFORM_PASSED;
}

/* ---- events ---- */
static bool has_events(const struct abi_lane *lane) { return lane->ops->event_wait && lane->ops->event_destroy; }

/* Waits where is_waited, and destroys; an event that wasn't made is a failure. */
static bool end_event(const struct abi_lane *lane, unroll_backend_event *event, bool is_waited) {
  unroll_error err;
  abi_error_init(&err);
  if (!event) {
    abi_fail(lane->message, "an event was asked for, and not made");
    return false;
  }
  const bool is_done = !is_waited || abi_ok(lane->message, "event_wait", lane->ops->event_wait(event, &err), &err);
  lane->ops->event_destroy(event);
  return is_done;
}

/* Each step of a chain depends on the one before; only the order in the queue sees to that. */
static bool chain(const struct abi_lane *lane, const struct pair *p, uint8_t *got, bool is_waited) {
  const unroll_backend_ops *ops = lane->ops;
  unroll_backend_event *events[6] = {NULL};
  unroll_error err;
  abi_error_init(&err);
  bool is_right =
      abi_ok(lane->message, "write", ops->write(lane->queue, p->a, 0, p->want_b, SMALL, &events[0], &err), &err) &&
      abi_ok(lane->message, "write", ops->write(lane->queue, p->a, 0, p->want_a, SMALL, &events[1], &err), &err) &&
      abi_ok(lane->message, "fill", ops->fill(lane->queue, p->a, 100, 200, 0x33, &events[2], &err), &err) &&
      abi_ok(lane->message, "copy", ops->copy(lane->queue, p->b, 0, p->a, 0, SMALL, &events[3], &err), &err) &&
      abi_ok(lane->message, "fill", ops->fill(lane->queue, p->a, 0, SMALL, 0x44, &events[4], &err), &err) &&
      abi_ok(lane->message, "read", ops->read(lane->queue, p->b, 0, got, SMALL, &events[5], &err), &err);
  for (int i = 0; is_right && i < 6; i++) {
    is_right = end_event(lane, events[i], is_waited);
    events[i] = NULL;
  }
  for (int i = 0; i < 6; i++)
    ops->event_destroy(events[i]);
  /* The memory of the host stands until the queue is done, whatever happened. */
  return abi_ok(lane->message, "queue_sync", ops->queue_sync(lane->queue, &err), &err) && is_right;
}

static enum conform_outcome makes_events(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  if (!has_events(lane))
    return abi_skip(lane->message, "makes no events");
  bool is_right = true;
  for (int i = 0; is_right && i < 8; i++) {
    struct pair p;
    uint8_t *got = mem_zalloc(lane->session->allocator, SMALL);
    is_right = got && make_pair(lane, &p);
    if (!got) {
      abi_fail(lane->message, "the judge has no memory for %d bytes", SMALL);
      break;
    }
    /* In turns with events that are waited for, and with such that are only destroyed. */
    is_right = is_right && chain(lane, &p, got, i % 2 == 0);
    memcpy(p.want_b, p.want_a, SMALL);
    memset(p.want_b + 100, 0x33, 200);
    memset(p.want_a, 0x44, SMALL);
    if (is_right && memcmp(got, p.want_b, SMALL) != 0)
      is_right = abi_fail(lane->message, "a read with an event is not what was queued before it") == CONFORM_PASSED;
    is_right = is_right && pair_is(lane, &p, "after six calls with events");
    is_right = free_pair(lane, &p, is_right) == CONFORM_PASSED;
    mem_free(lane->session->allocator, got);
  }
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

static enum conform_outcome waits_across_queues(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const unroll_backend_ops *ops = lane->ops;
  if (!has_events(lane) || !ops->queue_wait)
    return abi_skip(lane->message, "has no events, or no queue_wait");
  struct abi_lane other = *lane;
  other.queue = NULL;
  unroll_error err;
  abi_error_init(&err);
  if (!abi_ok(lane->message, "queue_create", ops->queue_create(lane->device, 0, &other.queue, &err), &err))
    return CONFORM_FAILED;
  uint8_t *bytes = mem_zalloc(lane->session->allocator, LARGE);
  unroll_backend_buffer *a = bytes ? abi_buffer(lane, NULL, LARGE) : NULL,
                        *b = a ? abi_buffer(lane, NULL, LARGE) : NULL;
  bool is_right = b;
  for (uint32_t i = 0; is_right && i < 8; i++) {
    unroll_backend_event *written = NULL, *copied = NULL;
    pattern(bytes, LARGE, i);
    is_right = abi_ok(lane->message, "write", ops->write(lane->queue, a, 0, bytes, LARGE, &written, &err), &err) &&
               written && abi_ok(lane->message, "queue_wait", ops->queue_wait(other.queue, written, &err), &err) &&
               abi_ok(lane->message, "copy", ops->copy(other.queue, b, 0, a, 0, LARGE, &copied, &err), &err) &&
               copied && abi_ok(lane->message, "queue_wait", ops->queue_wait(lane->queue, copied, &err), &err) &&
               abi_buffer_is(lane, b, 0, bytes, LARGE, "behind an event of another queue");
    ops->event_destroy(written);
    ops->event_destroy(copied);
    is_right = abi_ok(lane->message, "queue_sync", ops->queue_sync(lane->queue, &err), &err) && is_right;
  }
  if (!is_right)
    abi_fail(lane->message, "an event was asked for, and not made");
  ops->queue_destroy(other.queue);
  ops->buffer_destroy(a);
  ops->buffer_destroy(b);
  mem_free(lane->session->allocator, bytes);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

/* What is queued is done before a buffer, or the queue, goes. */
static enum conform_outcome finishes_before_destroy(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const unroll_backend_ops *ops = lane->ops;
  if (!has_events(lane))
    return abi_skip(lane->message, "makes no events: nothing stays queued");
  uint8_t *bytes = mem_alloc(lane->session->allocator, LARGE);
  if (!bytes)
    return abi_fail(lane->message, "the judge has no memory for %d bytes", LARGE);
  bool is_right = true;
  for (uint32_t i = 0; is_right && i < 4; i++) {
    struct abi_lane own = *lane;
    own.queue = NULL;
    unroll_error err;
    abi_error_init(&err);
    unroll_backend_event *event = NULL;
    pattern(bytes, LARGE, i);
    unroll_backend_buffer *a = abi_buffer(lane, bytes, LARGE), *b = abi_buffer(lane, NULL, LARGE);
    is_right = a && b &&
               abi_ok(lane->message, "queue_create", ops->queue_create(lane->device, 0, &own.queue, &err), &err) &&
               abi_ok(lane->message, "copy", ops->copy(own.queue, b, 0, a, 0, LARGE, &event, &err), &err);
    ops->event_destroy(event);
    ops->buffer_destroy(a);
    ops->queue_destroy(own.queue);
    is_right = is_right && abi_buffer_is(lane, b, 0, bytes, LARGE, "copied, then the source and the queue destroyed");
    ops->buffer_destroy(b);
  }
  mem_free(lane->session->allocator, bytes);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

/* ---- where provided ---- */
static enum conform_outcome maps(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const unroll_backend_ops *ops = lane->ops;
  if (!ops->map && !ops->unmap)
    return abi_skip(lane->message, "has no map");
  if (!ops->map || !ops->unmap)
    return abi_fail(lane->message, "has %s without %s", ops->map ? "map" : "unmap", ops->map ? "unmap" : "map");
  struct pair p;
  unroll_error err;
  abi_error_init(&err);
  bool is_right = make_pair(lane, &p);
  for (uint64_t at = 0; is_right && at < 200; at += 199) {
    const uint64_t n = 300;
    void *memory = NULL;
    is_right = abi_ok(lane->message, "map", ops->map(lane->queue, p.a, at, n, 0, &memory, &err), &err);
    if (is_right && (!memory || memcmp(memory, p.want_a + at, n) != 0))
      is_right = abi_fail(lane->message, "mapped memory is not what the buffer has") == CONFORM_PASSED;
    if (is_right) {
      pattern(memory, n, 77);
      pattern(p.want_a + at, n, 77);
    }
    is_right = is_right && abi_ok(lane->message, "unmap", ops->unmap(lane->queue, p.a, memory, &err), &err) &&
               pair_is(lane, &p, "after map and unmap");
  }
  static const uint64_t outside[][2] = {{0, SMALL + 1}, {SMALL, 1}, {UINT64_MAX - 3, 8}, {4, UINT64_MAX - 3}};
  for (int i = 0; is_right && i < 4; i++) {
    void *const untouched = &p, *memory = untouched;
    abi_error_init(&err);
    const unroll_status status = ops->map(lane->queue, p.a, outside[i][0], outside[i][1], 0, &memory, &err);
    is_right = abi_refused(lane->message, "map of a range outside of its buffer", status, &err, UNROLL_E_RANGE, 0);
    if (is_right && memory != untouched)
      is_right = abi_fail(lane->message, "map failed and wrote its out-parameter") == CONFORM_PASSED;
  }
  return free_pair(lane, &p, is_right);
}

static enum conform_outcome wraps_memory(struct abi_rig *rig) {
  enum { PAGE = 4096, BYTES = 2 * PAGE };
  const struct abi_lane *lane = &rig->lane;
  const unroll_backend_ops *ops = lane->ops;
  if (!ops->buffer_from_host)
    return abi_skip(lane->message, "has no buffer_from_host");
  unroll_error err;
  abi_error_init(&err);
  unroll_backend_buffer *const untouched = (unroll_backend_buffer *)(void *)rig, *b = untouched;
  unroll_status status = ops->buffer_from_host(lane->device, NULL, BYTES, 0, &b, &err);
  if (status == UNROLL_OK)
    ops->buffer_destroy(b);
  if (!abi_refused(lane->message, "buffer_from_host of NULL", status, &err, UNROLL_E_INVALID, 0))
    return CONFORM_FAILED;
  if (b != untouched)
    return abi_fail(lane->message, "buffer_from_host failed and wrote its out-parameter");
  uint8_t *memory = mem_alloc(lane->session->allocator, BYTES + PAGE), want[BYTES];
  if (!memory)
    return abi_fail(lane->message, "the judge has no memory for %d bytes", BYTES);
  uint8_t *page = memory + (PAGE - (uintptr_t)memory % PAGE) % PAGE;
  pattern(page, BYTES, 3);
  pattern(want, BYTES, 3);
  b = NULL;
  bool is_right =
      abi_ok(lane->message, "buffer_from_host", ops->buffer_from_host(lane->device, page, BYTES, 0, &b, &err), &err) &&
      abi_buffer_is(lane, b, 0, want, BYTES, "over the host's memory");
  if (is_right) {
    memset(want + 100, 0x66, 1000);
    is_right = abi_ok(lane->message, "fill", ops->fill(lane->queue, b, 100, 1000, 0x66, NULL, &err), &err) &&
               abi_buffer_is(lane, b, 0, want, BYTES, "over the host's memory, after a fill");
  }
  if (b && b != untouched)
    ops->buffer_destroy(b);
  /* The memory is the host's again, and still there. */
  pattern(page, BYTES, 4);
  mem_free(lane->session->allocator, memory);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

static const struct abi_case cases[] = {
    {"abi buffer bytes", ABI_DEVICE, keeps_bytes},
    {"abi buffer offsets", ABI_DEVICE, moves_at_offsets},
    {"abi buffer fill", ABI_DEVICE, fills},
    {"abi buffer copy within", ABI_DEVICE, copies_within},
    {"abi buffer 0 bytes", ABI_DEVICE, moves_nothing},
    {"abi buffer outside", ABI_DEVICE, refuses_outside},
    {"abi buffer too large", ABI_DEVICE, refuses_too_large},
    {"abi buffer many", ABI_DEVICE, keeps_many},
    {"abi buffer map", ABI_DEVICE, maps},
    {"abi buffer from host", ABI_DEVICE, wraps_memory},
    {"abi queue", ABI_DEVICE, makes_queues},
    {"abi queue events", ABI_DEVICE, makes_events},
    {"abi queue wait", ABI_DEVICE, waits_across_queues},
    {"abi queue destroy", ABI_DEVICE, finishes_before_destroy},
};

void suite_buffers_add(struct conform_list *list) { ABI_CASES_ADD(list, cases); }
