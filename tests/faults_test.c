/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fails, fails cleanly: every allocation once, and every function of a backend once, in the life of a training
 * graph. The status says what happened, nothing leaks, and what is left can be used again or destroyed.
 */
#include "runs.h"
#include "runtime/runtime_private.h"
#undef fail /* CMocka's */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const training lstm = {.T = 4,
                              .B = 2,
                              .I = 3,
                              .H = 3,
                              .V = 5,
                              .dtype = UNROLL_F32,
                              .cell = UNROLL_CELL_LSTM,
                              .layers = 2,
                              .lengths = true,
                              .with_state = true,
                              .optimize = true};

enum { CREATE, OPEN, COMPILE, BIND, WRITE, RUN, SNAPSHOT, KEEP, READ, PHASES };
static const char *const phase_names[PHASES] = {"create", "open",     "compile", "bind", "write",
                                                "run",    "snapshot", "keep",    "read"};

typedef struct life {
  unroll_context *ctx;
  unroll_device *device;
  unroll_executable *e;
  unroll_binding *b;
  unroll_snapshot *kept, *copy;
} life;

/* Does not assert: it goes as far as it gets, and says where it stopped. */
static unroll_status live(life *x, const unroll_allocator *a, const unroll_graph *g, void (*opened)(unroll_device *),
                          int *phase, unroll_error *err) {
  const unroll_context_options options = {.struct_size = sizeof options, .n_threads = 1, .allocator = a};
  float h[2 * 3] = {0.25F, 0.5F};
  const int32_t step = 1;
  *phase = CREATE;
  TRY(unroll_context_create(&options, &x->ctx, err));
  *phase = OPEN;
  TRY(unroll_device_open(x->ctx, "cpu", NULL, 0, &x->device, err));
  if (opened)
    opened(x->device);
  *phase = COMPILE;
  TRY(unroll_compile(g, &x->device, 1, NULL, &x->e, err));
  *phase = BIND;
  TRY(unroll_binding_create(x->e, &x->b, err));
  *phase = WRITE;
  TRY(unroll_binding_write(x->b, "h_0", h, sizeof h, err));
  TRY(unroll_binding_write(x->b, "step", &step, sizeof step, err));
  TRY(unroll_binding_clear(x->b, "c_0", err));
  *phase = RUN;
  TRY(unroll_run(x->b, NULL, err));
  TRY(unroll_binding_sync(x->b, err));
  *phase = SNAPSHOT;
  TRY(unroll_snapshot_create(x->e, NULL, &x->kept, err));
  TRY(unroll_snapshot_create(x->e, NULL, &x->copy, err));
  *phase = KEEP;
  TRY(unroll_snapshot_save(x->kept, x->b, NULL, err));
  TRY(unroll_snapshot_save_row(x->kept, 1, x->b, 0, err));
  TRY(unroll_snapshot_copy(x->copy, x->kept, err));
  TRY(unroll_snapshot_clear(x->kept, err));
  TRY(unroll_snapshot_restore(x->copy, x->b, NULL, err));
  TRY(unroll_snapshot_restore_row(x->copy, 0, x->b, 1, err));
  TRY(unroll_snapshot_write(x->copy, "h_0", h, sizeof h, err));
  TRY(unroll_snapshot_read(x->copy, "c_0", h, sizeof h, err));
  TRY(unroll_snapshot_sync(x->copy, err));
  *phase = READ;
  return unroll_binding_read(x->b, "loss", h, sizeof *h, err);
}

static void die(life *x) {
  unroll_snapshot_destroy(x->kept);
  unroll_snapshot_destroy(x->copy);
  unroll_binding_destroy(x->b);
  unroll_executable_destroy(x->e);
  unroll_device_close(x->device);
  unroll_context_destroy(x->ctx);
  *x = (life){0};
}

/* The same objects, now that nothing fails any more: what there is goes on from the phase that failed. */
static void go_on(life *x, const unroll_graph *g, int phase) {
  unroll_error err = UNROLL_ERROR_INIT;
  float loss = -1;
  if (phase == CREATE)
    return;
  if (phase <= OPEN)
    assert_status(UNROLL_OK, unroll_device_open(x->ctx, "cpu", NULL, 0, &x->device, &err));
  if (phase <= COMPILE)
    assert_status(UNROLL_OK, unroll_compile(g, &x->device, 1, NULL, &x->e, &err));
  if (phase <= BIND)
    assert_status(UNROLL_OK, unroll_binding_create(x->e, &x->b, &err));
  const int32_t step = 1;
  assert_status(UNROLL_OK, unroll_binding_write(x->b, "step", &step, sizeof step, &err));
  assert_status(UNROLL_OK, unroll_run(x->b, NULL, &err));
  assert_status(UNROLL_OK, unroll_binding_read(x->b, "loss", &loss, sizeof loss, &err));
  assert_true(loss > 0 && loss < 4 * 2 * 3); /* about log(5) for each token */
}

/* ---- allocations ---- */

static void every_allocation_fails_once(void **state) {
  (void)state;
  run_memory memory = {0};
  const unroll_allocator a = runs_allocator(&memory);
  training w = lstm;
  w.allocator = &a;
  unroll_graph *g = runs_training(&w);
  const long graph_live = memory.live;
  int failures[PHASES] = {0};
  for (long n = 1;; n++) {
    unroll_error err = UNROLL_ERROR_INIT;
    life x = {0};
    int phase;
    memory.calls = 0;
    memory.fail_at = n;
    const unroll_status st = live(&x, &a, g, NULL, &phase, &err);
    const bool reached = memory.calls >= n;
    memory.fail_at = 0;
    if (!reached) {
      assert_status(UNROLL_OK, st);
      die(&x);
      break;
    }
    failures[phase]++;
    if (st != UNROLL_E_MEMORY && st != UNROLL_E_DEVICE_MEMORY)
      print_error("allocation %ld, %s: %s: %s\n", n, phase_names[phase], unroll_status_name(st), err.message);
    assert_true(st == UNROLL_E_MEMORY || st == UNROLL_E_DEVICE_MEMORY);
    assert_int_equal(err.code, st);
    assert_non_null(strstr(err.message, "memory"));
    assert_true((phase > CREATE) == (x.ctx != NULL));
    assert_true((phase > OPEN) == (x.device != NULL));
    assert_true((phase > COMPILE) == (x.e != NULL));
    assert_true((phase > BIND) == (x.b != NULL));
    if (n % 3 == 0)
      go_on(&x, g, phase);
    die(&x);
    if (memory.live != graph_live)
      print_error("allocation %ld, %s: %ld pieces leaked\n", n, phase_names[phase], memory.live - graph_live);
    assert_int_equal(memory.live, graph_live);
  }
  for (int p = CREATE; p <= SNAPSHOT; p++) {
    print_message("%s: %d allocations\n", phase_names[p], failures[p]);
    assert_true(failures[p] > 0);
  }
  assert_int_equal(failures[KEEP], 0);
  assert_int_equal(failures[READ], 0);
  unroll_graph_destroy(g);
  assert_int_equal(memory.live, 0);
}

/* Storing and loading a snapshot; the file is the old one or the new one. */
static void every_allocation_of_a_file_fails_once(void **state) {
  (void)state;
  run_memory memory = {0};
  const unroll_allocator a = runs_allocator(&memory);
  unroll_graph *g = runs_training(&lstm);
  life x = {0};
  int phase;
  unroll_error err = UNROLL_ERROR_INIT;
  char path[] = "/tmp/unroll-test-XXXXXX";
  const int fd = mkstemp(path);
  assert_true(fd >= 0);
  close(fd);
  assert_status(UNROLL_OK, live(&x, &a, g, NULL, &phase, &err));
  const long before = memory.live;
  for (int load = 0; load < 2; load++)
    for (long n = 1;; n++) {
      memory.calls = 0;
      memory.fail_at = n;
      const unroll_status st =
          load ? unroll_snapshot_load(x.kept, path, &err) : unroll_snapshot_store(x.copy, path, &err);
      const bool reached = memory.calls >= n;
      memory.fail_at = 0;
      assert_int_equal(memory.live, before);
      if (!reached) {
        assert_status(UNROLL_OK, st);
        assert_true(n > 1);
        break;
      }
      assert_int_equal(st, UNROLL_E_MEMORY);
      assert_non_null(strstr(err.message, "memory"));
    }
  float stored[2 * 3], loaded[2 * 3];
  assert_status(UNROLL_OK, unroll_snapshot_read(x.copy, "h_0", stored, sizeof stored, &err));
  assert_status(UNROLL_OK, unroll_snapshot_read(x.kept, "h_0", loaded, sizeof loaded, &err));
  assert_memory_equal(stored, loaded, sizeof stored);
  die(&x);
  unroll_graph_destroy(g);
  assert_int_equal(memory.live, 0);
  unlink(path);
}

/* ---- a backend's functions: a table in front of the device's own ---- */

#define CALLS(X)                    \
  X(CLAIM, "claim")                 \
  X(BUFFER_CREATE, "buffer_create") \
  X(DEVICE_WRITE, "write")          \
  X(DEVICE_READ, "read")            \
  X(FILL, "fill")                   \
  X(COPY, "copy")                   \
  X(QUEUE_CREATE, "queue_create")   \
  X(FLUSH, "queue_flush")           \
  X(SYNC, "queue_sync")             \
  X(DEVICE_COMPILE, "compile")      \
  X(EXEC_INFO, "exec_info")         \
  X(DEVICE_BIND, "bind")            \
  X(DEVICE_RUN, "run")
enum {
#define CALL_CODE(code, name) code,
  CALLS(CALL_CODE) N_CALLS
#undef CALL_CODE
};
static const char *const call_names[N_CALLS] = {
#define CALL_NAME(code, name) name,
    CALLS(CALL_NAME)
#undef CALL_NAME
};

static struct {
  const unroll_backend_ops *real;
  int call;      /* which fails, */
  long fail_at;  /* at its n-th time; 0: never */
  long n, alive; /* alive: objects created and not destroyed */
  unroll_status status;
} fault;

static bool hit(int call, unroll_error *err) {
  if (call != fault.call || ++fault.n != fault.fail_at)
    return false;
  if (err) {
    err->code = fault.status;
    err->native = -4711;
    snprintf(err->message, sizeof err->message, "the %s of a broken device", call_names[call]);
  }
  return true;
}

#define FAULTY(call, name, parameters, arguments) \
  static unroll_status faulty_##name parameters { \
    if (hit(call, err))                           \
      return fault.status;                        \
    return fault.real->name arguments;            \
  }
#define MAKER(call, name, parameters, arguments)         \
  static unroll_status faulty_##name parameters {        \
    if (hit(call, err))                                  \
      return fault.status;                               \
    const unroll_status st = fault.real->name arguments; \
    fault.alive += st == UNROLL_OK;                      \
    return st;                                           \
  }
#define DESTROYER(name, type)          \
  static void faulty_##name(type *x) { \
    assert_non_null(x);                \
    fault.alive--;                     \
    fault.real->name(x);               \
  }

FAULTY(CLAIM, claim,
       (unroll_backend_device * d, const unroll_graph_view *g, unroll_claim *c, uint32_t stride, unroll_error *err),
       (d, g, c, stride, err))
MAKER(BUFFER_CREATE, buffer_create,
      (unroll_backend_device * d, uint64_t bytes, uint64_t usage, unroll_backend_buffer **b, unroll_error *err),
      (d, bytes, usage, b, err))
DESTROYER(buffer_destroy, unroll_backend_buffer)
FAULTY(DEVICE_WRITE, write,
       (unroll_backend_queue * q, unroll_backend_buffer *b, uint64_t at, const void *p, uint64_t n,
        unroll_backend_event **e, unroll_error *err),
       (q, b, at, p, n, e, err))
FAULTY(DEVICE_READ, read,
       (unroll_backend_queue * q, unroll_backend_buffer *b, uint64_t at, void *p, uint64_t n, unroll_backend_event **e,
        unroll_error *err),
       (q, b, at, p, n, e, err))
FAULTY(FILL, fill,
       (unroll_backend_queue * q, unroll_backend_buffer *b, uint64_t at, uint64_t n, uint8_t value,
        unroll_backend_event **e, unroll_error *err),
       (q, b, at, n, value, e, err))
FAULTY(COPY, copy,
       (unroll_backend_queue * q, unroll_backend_buffer *to, uint64_t to_at, unroll_backend_buffer *from,
        uint64_t from_at, uint64_t n, unroll_backend_event **e, unroll_error *err),
       (q, to, to_at, from, from_at, n, e, err))
MAKER(QUEUE_CREATE, queue_create,
      (unroll_backend_device * d, uint64_t flags, unroll_backend_queue **q, unroll_error *err), (d, flags, q, err))
DESTROYER(queue_destroy, unroll_backend_queue)
FAULTY(FLUSH, queue_flush, (unroll_backend_queue * q, unroll_error *err), (q, err))
FAULTY(SYNC, queue_sync, (unroll_backend_queue * q, unroll_error *err), (q, err))
MAKER(DEVICE_COMPILE, compile,
      (unroll_backend_device * d, const unroll_graph_view *g, const unroll_option *o, uint32_t n,
       unroll_backend_exec **x, unroll_error *err),
      (d, g, o, n, x, err))
FAULTY(EXEC_INFO, exec_info, (unroll_backend_exec * x, unroll_exec_info *i, unroll_error *err), (x, i, err))
DESTROYER(exec_destroy, unroll_backend_exec)
MAKER(DEVICE_BIND, bind,
      (unroll_backend_exec * x, const unroll_slot *s, uint32_t n, uint32_t stride, unroll_backend_buffer *w,
       uint64_t at, unroll_backend_binding **b, unroll_error *err),
      (x, s, n, stride, w, at, b, err))
DESTROYER(binding_destroy, unroll_backend_binding)
FAULTY(DEVICE_RUN, run,
       (unroll_backend_binding * b, unroll_backend_queue *q, const unroll_run_args *a, unroll_backend_event **e,
        unroll_error *err),
       (b, q, a, e, err))

static unroll_backend_ops faulty;
static void put_faults_before(unroll_device *d) {
  fault.real = d->ops;
  faulty = *d->ops;
  faulty.claim = faulty_claim;
  faulty.buffer_create = faulty_buffer_create;
  faulty.buffer_destroy = faulty_buffer_destroy;
  faulty.write = faulty_write;
  faulty.read = faulty_read;
  faulty.fill = faulty_fill;
  faulty.copy = faulty_copy;
  faulty.queue_create = faulty_queue_create;
  faulty.queue_destroy = faulty_queue_destroy;
  faulty.queue_flush = faulty_queue_flush;
  faulty.queue_sync = faulty_queue_sync;
  faulty.compile = faulty_compile;
  faulty.exec_info = faulty_exec_info;
  faulty.exec_destroy = faulty_exec_destroy;
  faulty.bind = faulty_bind;
  faulty.binding_destroy = faulty_binding_destroy;
  faulty.run = faulty_run;
  d->ops = &faulty;
}

static void every_call_fails_once(void **state) {
  (void)state;
  const unroll_status statuses[] = {UNROLL_E_DEVICE_LOST, UNROLL_E_DEVICE_MEMORY, UNROLL_E_MEMORY, UNROLL_E_DEVICE};
  run_memory memory = {0};
  const unroll_allocator a = runs_allocator(&memory);
  unroll_graph *g = runs_training(&lstm);
  for (int call = 0; call < N_CALLS; call++)
    for (int s = 0; s < 4; s++)
      for (long n = 1;; n++) {
        unroll_error err = UNROLL_ERROR_INIT;
        life x = {0};
        int phase;
        fault.call = call;
        fault.fail_at = n;
        fault.status = statuses[s];
        fault.n = 0;
        const unroll_status st = live(&x, &a, g, put_faults_before, &phase, &err);
        const bool reached = fault.n >= n;
        fault.fail_at = 0;
        if (reached) {
          if (st != statuses[s])
            print_error("%s, time %ld: %s\n", call_names[call], n, unroll_status_name(st));
          assert_int_equal(st, statuses[s]);
          assert_int_equal(err.code, st);
          assert_int_equal(err.native, -4711);
          assert_non_null(strstr(err.message, "of a broken device"));
          assert_non_null(strstr(err.message, call_names[call]));
          go_on(&x, g, phase);
        } else
          assert_status(UNROLL_OK, st);
        die(&x);
        if (fault.alive != 0 || memory.live != 0)
          print_error("%s, time %ld: %ld objects, %ld pieces of memory leaked\n", call_names[call], n, fault.alive,
                      memory.live);
        assert_int_equal(fault.alive, 0);
        assert_int_equal(memory.live, 0);
        if (!reached) {
          assert_true(n > 1); /* each function is called at all */
          break;
        }
      }
  unroll_graph_destroy(g);
}

/* A run that broke off may have written anything: nobody may go on with what was packed before. */
static unroll_status (*real_run)(unroll_backend_binding *, unroll_backend_queue *, const unroll_run_args *,
                                 unroll_backend_event **, unroll_error *);
static uint64_t generations[64];
static unroll_status noting_run(unroll_backend_binding *b, unroll_backend_queue *q, const unroll_run_args *args,
                                unroll_backend_event **e, unroll_error *err) {
  memcpy(generations, args->generations, sizeof generations[0] * 8);
  return real_run(b, q, args, e, err);
}

static void generations_rise_when_a_run_breaks_off(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = runs_training(&lstm);
  life x = {0};
  int phase;
  fault.fail_at = 0;
  assert_status(UNROLL_OK, live(&x, NULL, g, put_faults_before, &phase, &err));
  real_run = faulty.run;
  faulty.run = noting_run;
  /* The graph's first outside tensors: ids, targets, lengths, then the table, which the optimizer updates. */
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  const uint64_t ids = generations[0], table = generations[3];
  assert_true(ids > 0 && table > 0);
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  assert_true(generations[0] == ids && generations[3] > table);
  const uint64_t later = generations[3];
  fault.call = DEVICE_RUN;
  fault.n = 0;
  fault.fail_at = 2;
  fault.status = UNROLL_E_DEVICE;
  assert_status(UNROLL_E_DEVICE, unroll_run(x.b, NULL, &err));
  const uint64_t broken = generations[3];
  assert_true(broken > later);
  fault.fail_at = 0;
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  assert_true(generations[0] == ids && generations[3] > broken);
  die(&x);
  unroll_graph_destroy(g);
}

/* What a snapshot put somewhere has other bytes than before; what was only read has the same. */
static void generations_rise_when_states_come_back(void **state) {
  (void)state;
  enum { TABLE = 3 };
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = runs_training(&(training){.T = 4,
                                              .B = 2,
                                              .I = 3,
                                              .H = 3,
                                              .V = 5,
                                              .dtype = UNROLL_F32,
                                              .cell = UNROLL_CELL_LSTM,
                                              .layers = 1,
                                              .lengths = true});
  life x = {0};
  fault.fail_at = 0;
  assert_status(UNROLL_OK, unroll_context_create(NULL, &x.ctx, &err));
  assert_status(UNROLL_OK, unroll_device_open(x.ctx, "cpu", NULL, 0, &x.device, &err));
  put_faults_before(x.device);
  real_run = faulty.run;
  faulty.run = noting_run;
  assert_status(UNROLL_OK, unroll_compile(g, &x.device, 1, NULL, &x.e, &err));
  assert_status(UNROLL_OK, unroll_binding_create(x.e, &x.b, &err));
  const unroll_snapshot_options params = {.struct_size = sizeof params, .what = UNROLL_SNAPSHOT_PARAMS};
  assert_status(UNROLL_OK, unroll_snapshot_create(x.e, &params, &x.kept, &err));
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  const uint64_t ids = generations[0], first = generations[TABLE];
  assert_string_equal(x.e->graph->tensors[x.e->outsides[TABLE].tensor].name, unroll_snapshot_describe(x.kept, 0).name);
  assert_status(UNROLL_OK, unroll_snapshot_save(x.kept, x.b, NULL, &err));
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  assert_true(generations[0] == ids && generations[TABLE] == first);
  assert_status(UNROLL_OK, unroll_snapshot_restore(x.kept, x.b, NULL, &err));
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  const uint64_t restored = generations[TABLE];
  assert_true(generations[0] == ids && restored > first);
  unroll_snapshot_destroy(x.kept);
  const char *names[] = {x.e->graph->tensors[x.e->outsides[TABLE].tensor].name};
  const unroll_snapshot_options table = {.struct_size = sizeof table, .names = names, .n_names = 1};
  assert_status(UNROLL_OK, unroll_snapshot_create(x.e, &table, &x.kept, &err));
  assert_status(UNROLL_OK, unroll_snapshot_restore_row(x.kept, 1, x.b, 0, &err));
  assert_status(UNROLL_OK, unroll_run(x.b, NULL, &err));
  assert_true(generations[0] == ids && generations[TABLE] > restored);
  die(&x);
  unroll_graph_destroy(g);
}

/* Queues of two bindings know nothing of each other: whoever comes second waits for the first, once. */
static void another_binding_waits(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = runs_training(&lstm);
  life x = {0};
  int phase;
  unroll_binding *other;
  fault.call = SYNC;
  fault.fail_at = 0;
  assert_status(UNROLL_OK, live(&x, NULL, g, put_faults_before, &phase, &err));
  assert_status(UNROLL_OK, unroll_binding_create(x.e, &other, &err));
  const struct {
    unroll_binding *binding;
    long waits;
  } turns[] = {{x.b, 1}, {x.b, 0}, {other, 1}, {other, 0}, {x.b, 1}};
  for (size_t i = 0; i < sizeof turns / sizeof turns[0]; i++) {
    const long before = fault.n;
    if (i % 2)
      assert_status(UNROLL_OK, unroll_snapshot_restore(x.copy, turns[i].binding, NULL, &err));
    else
      assert_status(UNROLL_OK, unroll_snapshot_save(x.copy, turns[i].binding, NULL, &err));
    assert_int_equal(fault.n - before, turns[i].waits);
  }
  /* Bindings that share memory share a queue. */
  assert_status(UNROLL_OK, unroll_binding_share(other, "step", x.b, "step", &err));
  const long before = fault.n;
  assert_status(UNROLL_OK, unroll_snapshot_restore(x.copy, other, NULL, &err));
  assert_int_equal(fault.n, before);
  unroll_binding_destroy(other);
  die(&x);
  unroll_graph_destroy(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_allocation_fails_once),
      cmocka_unit_test(every_allocation_of_a_file_fails_once),
      cmocka_unit_test(every_call_fails_once),
      cmocka_unit_test(generations_rise_when_a_run_breaks_off),
      cmocka_unit_test(generations_rise_when_states_come_back),
      cmocka_unit_test(another_binding_waits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
