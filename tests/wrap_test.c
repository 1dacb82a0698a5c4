/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wrapper "check" on the cpu backend's table: misuse of handles, lives, threads and bytes is found and named. Groups and
 * their runs: wrap_group_test.c.
 */
#include "plugins/registry.h"
#include "wrap_rig.h"
#include <pthread.h>
#include <stdatomic.h>

/* ---- the words ---- */
static void words_are_checked(void **state) {
  (void)state;
  struct rig r = {0};
  const unroll_backend_ops *ops = &rig.inner;
  unroll_backend *backend = NULL;
  r.logger = rig.logger;
  r.host = (struct wrap_host){.allocator = &r.allocator, .logger = &r.logger};
  setenv("UNROLL_WRAP", "check,chek", 1);
  assert_error(wrap_open(&r.host, "cpu", &backend, &ops, &r.stack, &err), UNROLL_E_INVALID, "\"chek\" is no wrapper");
  assert_error(wrap_open(&r.host, "cpu", &backend, &ops, &r.stack, &err), UNROLL_E_INVALID, "check, trace");
  setenv("UNROLL_WRAP", "check,,check", 1);
  assert_error(wrap_open(&r.host, "cpu", &backend, &ops, &r.stack, &err), UNROLL_E_INVALID, "twice");
  setenv("UNROLL_WRAP", "", 1);
  assert_ok(wrap_open(&r.host, "cpu", &backend, &ops, &r.stack, &err));
  assert_null(r.stack);
  assert_ptr_equal(ops, &rig.inner);
  assert_ok(wrap_close(NULL, &backend, &err));

  setenv("UNROLL_WRAP", "tracing", 1);
  struct plugin_registry *plugins;
  struct plugin_backend cpu;
  assert_ok(plugin_registry_create(&(struct plugin_registry_options){0}, &plugins, &err));
  assert_error(plugin_registry_open(plugins, "cpu", NULL, 0, &cpu, &err), UNROLL_E_INVALID, "\"tracing\"");
  unsetenv("UNROLL_WRAP");
  assert_ok(plugin_registry_open(plugins, "cpu", NULL, 0, &cpu, &err));
  assert_ok(plugin_registry_close(plugins, &cpu, &err));
  plugin_registry_destroy(plugins);
}

static void table_is_that_of_the_backend(void **state) {
  (void)state;
  struct rig r = {.inner = rig.inner};
  r.inner.map = NULL;
  r.inner.queue_wait = NULL;
  r.inner.extension = NULL;
  r.inner.struct_size = offsetof(unroll_backend_ops, event_wait);
  rig_open(&r);
  assert_int_equal(r.ops->struct_size, r.inner.struct_size);
  assert_null(r.ops->map);
  assert_null(r.ops->queue_wait);
  assert_null(r.ops->extension);
  assert_null(r.ops->event_wait);
  assert_non_null(r.ops->buffer_from_host);
  r.ops->queue_destroy(r.queue);
  r.ops->device_close(r.device);
  r.ops->buffer_destroy(NULL);
  assert_ok(rig_close(&r, &err));
  assert_null(rig.ops->extension(rig.backend, "org.acme.nothing/1"));
  rig_logged(NULL);
}

/* ---- handles ---- */
static void stale_handles_are_known(void **state) {
  (void)state;
  char byte = 1;
  unroll_backend_buffer *b = rig_buffer(8);
  rig.ops->buffer_destroy(b);
  rig_logged(NULL);
  assert_found(rig.ops->write(rig.queue, b, 0, &byte, 1, NULL, &err), "write: buffer 1 of cpu:0 was destroyed before");
  rig.ops->buffer_destroy(b);
  rig_logged("buffer_destroy: buffer 1 of cpu:0 was destroyed before");

  tiny g;
  tiny_simple(&g);
  unroll_backend_exec *e = tiny_compile(&g);
  rig.ops->exec_destroy(e);
  unroll_exec_info info = {.struct_size = sizeof info};
  assert_found(rig.ops->exec_info(e, &info, &err), "exec_info: executable 1 of cpu:0 was destroyed before");
  unroll_backend_queue *q = NULL;
  assert_ok(rig.ops->queue_create(rig.device, 0, &q, &err));
  rig.ops->queue_destroy(q);
  assert_found(rig.ops->queue_sync(q, &err), "queue_sync: queue 2 of cpu:0 was destroyed before");
}

static void handles_of_other_kinds_and_places(void **state) {
  (void)state;
  char byte = 1;
  assert_found(rig.ops->write(rig.queue, (unroll_backend_buffer *)(void *)rig.device, 0, &byte, 1, NULL, &err),
               "write: device 1 (cpu:0) where a buffer is expected");
  assert_error(rig.ops->write(rig.queue, NULL, 0, &byte, 1, NULL, &err), UNROLL_E_STATE, "handle 1 is NULL");
  rig_logged("handle 1 is NULL");
  uint64_t garbage[16] = {0};
  assert_error(rig.ops->write(rig.queue, (unroll_backend_buffer *)(void *)garbage, 0, &byte, 1, NULL, &err),
               UNROLL_E_STATE, "handle 1 is none of this backend");

  unroll_backend_device *second = NULL;
  unroll_backend_buffer *b = NULL;
  assert_ok(rig.ops->device_open(rig.backend, 0, NULL, 0, &second, &err));
  assert_ok(rig.ops->buffer_create(second, 8, 0, &b, &err));
  rig_logged("");
  assert_found(rig.ops->write(rig.queue, b, 0, &byte, 1, NULL, &err),
               "buffer 1 of cpu:0 is of another device than queue 1");
  struct rig r = {0};
  rig_open(&r);
  assert_found(r.ops->write(r.queue, b, 0, &byte, 1, NULL, &err), "buffer 1 of cpu:0 belongs to another backend");
  r.ops->queue_destroy(r.queue);
  r.ops->device_close(r.device);
  assert_ok(rig_close(&r, &err));
  rig.ops->buffer_destroy(b);
  rig.ops->device_close(second);
  rig_logged(NULL);
}

/* ---- lives ---- */
/* What reaches the backend. */
static uint32_t gone;
static void (*real_exec_destroy)(unroll_backend_exec *);
static void (*real_buffer_destroy)(unroll_backend_buffer *);
static void count_exec_destroy(unroll_backend_exec *e) {
  gone++;
  real_exec_destroy(e);
}
static void count_buffer_destroy(unroll_backend_buffer *b) {
  gone++;
  real_buffer_destroy(b);
}

static void parents_outlive_children(void **state) {
  (void)state;
  gone = 0;
  real_exec_destroy = rig.inner.exec_destroy;
  real_buffer_destroy = rig.inner.buffer_destroy;
  rig.inner.exec_destroy = count_exec_destroy;
  rig.inner.buffer_destroy = count_buffer_destroy;
  tiny g;
  tiny_simple(&g);
  unroll_backend_exec *e = tiny_compile(&g);
  unroll_backend_buffer *b = rig_buffer(2 * BYTES);
  const unroll_slot slots[] = {slot_at(b, 0, BYTES), slot_at(b, BYTES, BYTES)};
  unroll_backend_binding *binding = NULL;
  assert_ok(rig.ops->bind(e, slots, 2, sizeof *slots, NULL, 0, &binding, &err));
  rig.ops->exec_destroy(e);
  rig_logged("exec_destroy: executable 1 of cpu:0 is destroyed before what was made from it: binding 1");
  rig.ops->buffer_destroy(b);
  rig_logged("buffer_destroy: buffer 1 of cpu:0 is destroyed while 2 bindings have it");
  assert_found(rig.ops->run(binding, rig.queue, &rig_once, NULL, &err),
               "buffer 1 of cpu:0, which the binding has, was destroyed");
  assert_found(rig.ops->fill(rig.queue, b, 0, 1, 0, NULL, &err), "buffer 1 of cpu:0 was destroyed before");
  assert_int_equal(gone, 0);
  rig.ops->binding_destroy(binding);
  assert_int_equal(gone, 2); /* the two that it held */
  rig_logged(NULL);

  unroll_backend_device *d = NULL;
  assert_ok(rig.ops->device_open(rig.backend, 0, NULL, 0, &d, &err));
  assert_ok(rig.ops->buffer_create(d, 8, 0, &b, &err));
  rig.ops->device_close(d);
  rig_logged("device_close: device 2 (cpu:0) is destroyed before what was made from it: buffer 2");
  rig.ops->buffer_destroy(b);
  rig_logged(NULL);
}

static unroll_status no_buffer(unroll_backend_device *d, uint64_t bytes, uint64_t usage, unroll_backend_buffer **out,
                               unroll_error *err) {
  (void)d, (void)bytes, (void)usage, (void)out;
  err->code = UNROLL_E_DEVICE_MEMORY;
  return UNROLL_E_DEVICE_MEMORY;
}

/* The device has no child of it when it is closed. */
static void what_was_not_made_is_no_child(void **state) {
  (void)state;
  unroll_backend_buffer *b = (unroll_backend_buffer *)(void *)&gone;
  rig.inner.buffer_create = no_buffer;
  assert_error(rig.ops->buffer_create(rig.device, 8, 0, &b, &err), UNROLL_E_DEVICE_MEMORY, "");
  assert_ptr_equal(b, &gone);
}

static void leaks_are_listed(void **state) {
  (void)state;
  struct rig r = {0};
  unroll_backend_buffer *b = NULL;
  rig_open(&r);
  assert_ok(r.ops->buffer_create(r.device, 8, 0, &b, &err));
  unroll_error err = UNROLL_ERROR_INIT;
  assert_int_equal(rig_close(&r, &err), UNROLL_E_STATE);
  assert_non_null(strstr(err.message, "check: close: 3 objects are still alive: buffer 1"));
  assert_non_null(strstr(rig_log, "buffer 1 of cpu:0 is still alive"));
  assert_non_null(strstr(rig_log, "queue 1 of cpu:0 is still alive"));
  rig_logged("device 1 (cpu:0) is still alive");
}

/* ---- threads ---- */
static atomic_int inside, let_out;
static unroll_status slow_sync(unroll_backend_queue *q, unroll_error *err) {
  (void)q, (void)err;
  atomic_store(&inside, 1);
  while (!atomic_load(&let_out))
    sched_yield();
  return UNROLL_OK;
}
static void *sync_thread(void *arg) {
  (void)arg;
  assert_int_equal(rig.ops->queue_sync(rig.queue, NULL), UNROLL_OK);
  return NULL;
}

static void two_threads_in_one_object(void **state) {
  (void)state;
  tiny g;
  tiny_simple(&g);
  unroll_backend_exec *e = tiny_compile(&g);
  unroll_backend_buffer *b = rig_buffer(2 * BYTES);
  const unroll_slot slots[] = {slot_at(b, 0, BYTES), slot_at(b, BYTES, BYTES)};
  unroll_backend_binding *binding = NULL;
  assert_ok(rig.ops->bind(e, slots, 2, sizeof *slots, NULL, 0, &binding, &err));
  rig.inner.queue_sync = slow_sync;
  atomic_store(&inside, 0);
  atomic_store(&let_out, 0);
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, sync_thread, NULL), 0);
  while (!atomic_load(&inside))
    sched_yield();
  char byte;
  const char *words = "queue 1 of cpu:0 is in queue_sync already";
  assert_found(rig.ops->read(rig.queue, b, 0, &byte, 1, NULL, &err), words);
  assert_found(rig.ops->run(binding, rig.queue, &rig_once, NULL, &err), words);
  rig.ops->queue_destroy(rig.queue); /* the thread is still in it */
  rig_logged("queue_destroy: queue 1 of cpu:0 is in queue_sync already");
  unroll_backend *backend = rig.backend;
  assert_error(wrap_close(rig.stack, &backend, &err), UNROLL_E_STATE, "1 calls have not returned");
  assert_null(backend);
  rig_logged("close: 1 calls have not returned; the backend stays open");
  unroll_backend_queue *other = NULL; /* [any]: no harm */
  assert_ok(rig.ops->queue_create(rig.device, 0, &other, &err));
  rig.ops->queue_destroy(other);
  atomic_store(&let_out, 1);
  assert_int_equal(pthread_join(thread, NULL), 0);
  rig.host.stays = false;
  assert_ok(rig.ops->run(binding, rig.queue, &rig_once, NULL, &err));
  rig.ops->binding_destroy(binding);
  rig.ops->exec_destroy(e);
  rig.ops->buffer_destroy(b);
  rig_logged(NULL);
}

/* ---- transfers ---- */
static void bytes_that_nobody_wrote(void **state) {
  (void)state;
  char bytes[64] = {0};
  unroll_backend_buffer *b = NULL, *to = rig_buffer(64);
  assert_ok(rig.ops->buffer_create(rig.device, 64, 0, &b, &err));
  assert_found(rig.ops->read(rig.queue, b, 0, bytes, 1, NULL, &err), "read: byte 0 of buffer 2 of cpu:0");
  assert_ok(rig.ops->write(rig.queue, b, 0, bytes, 10, NULL, &err));
  assert_ok(rig.ops->fill(rig.queue, b, 20, 10, 0, NULL, &err));
  assert_ok(rig.ops->read(rig.queue, b, 2, bytes, 8, NULL, &err));
  assert_found(rig.ops->read(rig.queue, b, 2, bytes, 20, NULL, &err), "byte 10 of buffer 2");
  assert_found(rig.ops->copy(rig.queue, to, 0, b, 15, 15, NULL, &err), "copy: byte 15 of buffer 2");
  assert_ok(rig.ops->copy(rig.queue, b, 8, to, 0, 14, NULL, &err));
  assert_ok(rig.ops->read(rig.queue, b, 0, bytes, 30, NULL, &err));
  assert_found(rig.ops->copy(rig.queue, b, 4, b, 0, 8, NULL, &err),
               "bytes 4 and 0 of buffer 2 of cpu:0: two ranges of 8");
  assert_found(rig.ops->write(rig.queue, b, 0, NULL, 8, NULL, &err), "8 bytes of the host's memory at NULL");
  assert_error(rig.ops->read(rig.queue, b, 60, bytes, 8, NULL, &err), UNROLL_E_RANGE, "");
  for (uint32_t i = 0; i < 32; i += 2) /* pieces, in no order */
    assert_ok(rig.ops->fill(rig.queue, b, 63 - (i * 7) % 32, 1, 0, NULL, &err));
  rig.ops->buffer_destroy(b);
  rig.ops->buffer_destroy(to);
  rig_logged(NULL);
}

/* More pieces than are kept apart: some count as written, what was written always does. */
static void many_pieces_of_a_buffer(void **state) {
  (void)state;
  char byte;
  unroll_backend_buffer *b = NULL;
  assert_ok(rig.ops->buffer_create(rig.device, 4096, 0, &b, &err));
  for (uint32_t i = 0; i < 1024; i++)
    assert_ok(rig.ops->fill(rig.queue, b, (i * 389) % 1024 * 4, 2, 0, NULL, &err));
  uint32_t unwritten = 0;
  for (uint32_t i = 0; i < 4096; i++) {
    unroll_error err = UNROLL_ERROR_INIT;
    const unroll_status status = rig.ops->read(rig.queue, b, i, &byte, 1, NULL, &err);
    assert_true(status == UNROLL_OK || (i % 4 >= 2 && status == UNROLL_E_STATE));
    unwritten += status != UNROLL_OK;
    rig_log[0] = 0;
  }
  assert_int_equal(unwritten, 2 * 256); /* 256 pieces have 255 gaps between them, and one at the end */
  rig.ops->buffer_destroy(b);

  /* What is written again and again is one piece. */
  assert_ok(rig.ops->buffer_create(rig.device, 4096, 0, &b, &err));
  for (uint32_t i = 0; i < 1024; i++)
    assert_ok(rig.ops->fill(rig.queue, b, i % 2 ? 0 : 100, 8, 0, NULL, &err));
  assert_found(rig.ops->read(rig.queue, b, 50, &byte, 1, NULL, &err), "read: byte 50 of buffer 2");
  rig.ops->buffer_destroy(b);
}

static void maps(void **state) {
  (void)state;
  tiny g;
  tiny_simple(&g);
  unroll_backend_exec *e = tiny_compile(&g);
  unroll_backend_buffer *b = rig_buffer(2 * BYTES);
  const unroll_slot slots[] = {slot_at(b, 0, BYTES), slot_at(b, BYTES, BYTES)};
  unroll_backend_binding *binding = NULL;
  assert_ok(rig.ops->bind(e, slots, 2, sizeof *slots, NULL, 0, &binding, &err));
  void *p = NULL;
  assert_ok(rig.ops->map(rig.queue, b, 0, 8, 0, &p, &err));
  assert_found(rig.ops->run(binding, rig.queue, &rig_once, NULL, &err), "run: buffer 1 of cpu:0, in slot 0, is mapped");
  assert_found(rig.ops->unmap(rig.queue, b, (char *)p + 1, &err), "buffer 1 of cpu:0 is not mapped at");
  assert_ok(rig.ops->unmap(rig.queue, b, p, &err));
  assert_ok(rig.ops->run(binding, rig.queue, &rig_once, NULL, &err));
  assert_found(rig.ops->unmap(rig.queue, b, p, &err), "is not mapped at");
  rig.ops->binding_destroy(binding);
  rig.ops->exec_destroy(e);
  assert_ok(rig.ops->map(rig.queue, b, 0, 8, 0, &p, &err));
  rig.ops->buffer_destroy(b);
  rig_logged("buffer_destroy: buffer 1 of cpu:0 is destroyed while it is mapped");
}

static void events_are_objects_too(void **state) {
  (void)state;
  char byte = 1;
  unroll_backend_buffer *b = rig_buffer(8);
  unroll_backend_event *event = NULL;
  unroll_backend_queue *q = NULL;
  assert_ok(rig.ops->queue_create(rig.device, 0, &q, &err));
  assert_ok(rig.ops->write(q, b, 0, &byte, 1, &event, &err));
  assert_non_null(event);
  assert_ok(rig.ops->queue_wait(rig.queue, event, &err));
  assert_ok(rig.ops->event_wait(event, &err));
  rig.ops->queue_destroy(q);
  rig_logged("queue_destroy: queue 2 of cpu:0 is destroyed before what was made from it: event 1");
  rig.ops->event_destroy(event);
  assert_found(rig.ops->event_wait(event, &err), "event_wait: event 1 of cpu:0 was destroyed before");
  rig.ops->buffer_destroy(b);
  rig_logged(NULL);
}

/* ---- every allocation fails once ---- */
static unroll_status life(struct rig *r, const unroll_backend_ops *inner, unroll_error *err) {
  unroll_backend_device *d = NULL;
  unroll_backend_queue *q = NULL;
  unroll_backend_buffer *b = NULL;
  unroll_backend_exec *e = NULL;
  unroll_backend_binding *binding = NULL;
  unroll_backend_event *event = NULL;
  tiny g = {.view.n_slots = 2};
  const uint32_t x = tiny_tensor(&g, "x", UNROLL_ROLE_INPUT, 0, 0), y = tiny_tensor(&g, "y", UNROLL_ROLE_OUTPUT, 1, 0);
  tiny_tanh(&g, x, y);
  tiny_end(&g, 1, &x, 1, &y);
  char bytes[2 * BYTES] = {0};
  r->ops = inner;
  unroll_status st = wrap_open(&r->host, "cpu", &r->backend, &r->ops, &r->stack, err);
  if (st != UNROLL_OK)
    return st;
  if ((st = r->ops->device_open(r->backend, 0, NULL, 0, &d, err)) == UNROLL_OK &&
      (st = r->ops->queue_create(d, 0, &q, err)) == UNROLL_OK &&
      (st = r->ops->buffer_create(d, sizeof bytes, 0, &b, err)) == UNROLL_OK &&
      (st = r->ops->write(q, b, 0, bytes, sizeof bytes, &event, err)) == UNROLL_OK &&
      (st = r->ops->compile(d, &g.view, NULL, 0, &e, err)) == UNROLL_OK) {
    const unroll_slot slots[] = {slot_at(b, 0, BYTES), slot_at(b, BYTES, BYTES)};
    if ((st = r->ops->bind(e, slots, 2, sizeof *slots, NULL, 0, &binding, err)) == UNROLL_OK)
      st = r->ops->run(binding, q, &rig_once, NULL, err);
  }
  if (r->ops->event_destroy)
    r->ops->event_destroy(event);
  r->ops->binding_destroy(binding);
  r->ops->exec_destroy(e);
  r->ops->buffer_destroy(b);
  r->ops->queue_destroy(q);
  r->ops->device_close(d);
  unroll_error closed = UNROLL_ERROR_INIT;
  if (wrap_close(r->stack, &r->backend, &closed) != UNROLL_OK) {
    print_error("close: %s\n", closed.message);
    return UNROLL_E_INTERNAL;
  }
  return st;
}

static void allocations_fail(void **state) {
  (void)state;
  struct counting memory = {0};
  struct rig r = {0};
  const unroll_backend_ops *ops;
  r.allocator = counting_allocator(&memory);
  r.host = (struct wrap_host){.allocator = &r.allocator, .logger = &r.logger};
  setenv("UNROLL_WRAP", "check,trace", 1);
  setenv("UNROLL_TRACE", in_folder("trace.json"), 1);
  assert_ok(unroll_plugin_v1_cpu.open(&rig_plain_host, NULL, 0, &r.backend, &ops, &err));
  long failures = 0;
  for (memory.fail_at = 1;; memory.fail_at++, failures++) {
    unroll_error err = UNROLL_ERROR_INIT;
    memory.calls = 0;
    const unroll_status status = life(&r, ops, &err);
    const bool reached = memory.calls >= memory.fail_at;
    wrap_host_finish(&r.host);
    assert_int_equal(memory.live, 0);
    if (!reached) {
      assert_int_equal(status, UNROLL_OK);
      break;
    }
    if (status != UNROLL_E_MEMORY)
      print_error("allocation %ld: %s: %s\n", memory.fail_at, unroll_status_name(status), err.message);
    assert_int_equal(status, UNROLL_E_MEMORY);
    assert_non_null(strstr(err.message, "memory"));
  }
  assert_true(failures > 20);
  assert_ok(unroll_plugin_v1_cpu.close(r.backend, &err));
  unsetenv("UNROLL_TRACE");
  unsetenv("UNROLL_WRAP");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      /* clang-format off */
      RIGGED(words_are_checked),
      RIGGED(table_is_that_of_the_backend),
      RIGGED(stale_handles_are_known),
      RIGGED(handles_of_other_kinds_and_places),
      RIGGED(parents_outlive_children),
      RIGGED(what_was_not_made_is_no_child),
      RIGGED(leaks_are_listed),
      RIGGED(two_threads_in_one_object),
      RIGGED(bytes_that_nobody_wrote),
      RIGGED(many_pieces_of_a_buffer),
      RIGGED(maps),
      RIGGED(events_are_objects_too),
      cmocka_unit_test_setup_teardown(allocations_fail, make_folder, remove_folder),
      /* clang-format on */
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
