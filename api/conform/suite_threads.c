/* SPDX-License-Identifier: Apache-2.0 */
/* R7: queues and threads at once, on one executable, on one device, on a device that is open twice. */
#include "conform/abi_rig.h"
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { THREADS = 4, RUNS = 24, REPETITIONS = 20, SMALL = 64, BIG = 160 };

/* ---- threads ---- */
struct crew;
struct worker {
  struct abi_lane lane; /* with a queue of its own, and its own message */
  char message[CONFORM_MESSAGE];
  struct crew *crew;
  pthread_t thread;
  uint32_t index;
  bool is_right;
};
typedef bool (*work_fn)(struct worker *worker);

struct crew {
  const struct abi_rig *rig;
  const struct abi_work *w; /* shared, and not written while threads run */
  unroll_backend_exec *exec;
  uint8_t *right[THREADS]; /* data with results of one thread alone: what every thread has to get again */
  bool is_same_input;
  unroll_backend_device *devices[2]; /* of those that use several */
  work_fn work;
  atomic_int start; /* 1: go, -1: leave */
  struct worker workers[THREADS];
};

static void *worker_main(void *arg) {
  struct worker *k = arg;
  int start;
  while ((start = atomic_load(&k->crew->start)) == 0)
    sched_yield();
  if (start < 0)
    return NULL;
  unroll_error err;
  abi_error_init(&err);
  k->is_right =
      abi_ok(k->message, "queue_create", k->lane.ops->queue_create(k->lane.device, 0, &k->lane.queue, &err), &err) &&
      k->crew->work(k);
  k->lane.ops->queue_destroy(k->lane.queue);
  return NULL;
}

/* All threads do the work at once. The first that fails gives the case its message. */
static enum conform_outcome work_at_once(struct crew *crew, work_fn work) {
  char *message = crew->rig->lane.message;
  uint32_t n = 0;
  crew->work = work;
  atomic_store(&crew->start, 0);
  for (; n < THREADS; n++) {
    struct worker *k = &crew->workers[n];
    *k = (struct worker){.lane = crew->rig->lane, .crew = crew, .index = n};
    k->lane.message = k->message;
    k->lane.queue = NULL;
    if (crew->devices[n % 2])
      k->lane.device = crew->devices[n % 2];
    if (pthread_create(&k->thread, NULL, worker_main, k) != 0)
      break;
  }
  atomic_store(&crew->start, n == THREADS ? 1 : -1);
  bool is_right = true;
  for (uint32_t i = 0; i < n; i++) {
    pthread_join(crew->workers[i].thread, NULL);
    if (n == THREADS && !crew->workers[i].is_right) {
      abi_fail(message, "thread %" PRIu32 " of %d: %s", i, THREADS, crew->workers[i].message);
      is_right = false;
    }
  }
  if (n < THREADS)
    return abi_skip(message, "the judge can't start %d threads", THREADS);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

/* ---- work ---- */
static bool is_deterministic(const struct abi_lane *lane) { return lane->info->caps & UNROLL_CAP_DETERMINISTIC; }

/* The same as one thread alone got, to the bit where that is promised. */
static bool is_as_before(const struct abi_lane *lane, const struct abi_work *w, const uint8_t *data,
                         const uint8_t *right, const char *what) {
  if (!is_deterministic(lane))
    return abi_work_right(lane, w, data, w->rows, what);
  for (uint32_t t = w->n_in; t < w->n_tensors; t++)
    if (memcmp(data + w->at[t], right + w->at[t], w->bytes[t]) != 0) {
      if (abi_work_right(lane, w, data, w->rows, what))
        abi_fail(lane->message, "%s: says that it is deterministic, but %s of %s has other bits", what,
                 w->tensors[t].name, w->name);
      return false;
    }
  return true;
}

/* Results of one thread, which have to be right: for each thread's own input. */
static bool run_alone(struct crew *crew) {
  const struct abi_lane *lane = &crew->rig->lane;
  const struct abi_work *w = crew->w;
  struct abi_bound b = {0};
  bool is_right = abi_bind(lane, w, crew->exec, &b);
  for (uint32_t i = 0; is_right && i < THREADS; i++) {
    crew->right[i] = abi_work_data(lane, w, lane->session->seed + i);
    is_right = crew->right[i] && abi_run(lane, w, &b, crew->right[i], w->rows, NULL) &&
               abi_work_right(lane, w, crew->right[i], w->rows, "one thread alone");
  }
  abi_unbind(lane, &b);
  return is_right;
}

/* Opens what the threads share, lets them work, and releases it. */
static enum conform_outcome share_executable(struct abi_rig *rig, int64_t size, bool is_same_input, work_fn work) {
  struct abi_work w;
  struct crew crew = {.rig = rig, .w = &w, .is_same_input = is_same_input};
  enum conform_outcome outcome = abi_work_choose(&rig->lane, &w, size, false);
  if (outcome != CONFORM_PASSED)
    return outcome;
  outcome = CONFORM_FAILED;
  if (abi_compile(&rig->lane, &w, &crew.exec) && run_alone(&crew))
    outcome = work_at_once(&crew, work);
  rig->lane.ops->exec_destroy(crew.exec);
  for (uint32_t i = 0; i < THREADS; i++)
    abi_work_free(&rig->lane, crew.right[i]);
  return outcome;
}

static bool run_bound(struct worker *k) {
  const struct crew *crew = k->crew;
  const uint32_t input = crew->is_same_input ? 0 : k->index;
  struct abi_bound b = {0};
  uint8_t *data = abi_work_data(&k->lane, crew->w, k->lane.session->seed + input);
  bool is_right = data && abi_bind(&k->lane, crew->w, crew->exec, &b);
  for (int i = 0; is_right && i < RUNS; i++)
    is_right = abi_run(&k->lane, crew->w, &b, data, crew->w->rows, NULL) &&
               is_as_before(&k->lane, crew->w, data, crew->right[input], "beside other threads");
  abi_unbind(&k->lane, &b);
  abi_work_free(&k->lane, data);
  return is_right;
}

static enum conform_outcome same_input(struct abi_rig *rig) { return share_executable(rig, SMALL, true, run_bound); }
static enum conform_outcome own_input(struct abi_rig *rig) { return share_executable(rig, SMALL, false, run_bound); }
static enum conform_outcome big_input(struct abi_rig *rig) { return share_executable(rig, BIG, false, run_bound); }

/* bind is [any]: of one executable, again and again. */
static bool bind_again(struct worker *k) {
  const struct crew *crew = k->crew;
  uint8_t *data = abi_work_data(&k->lane, crew->w, k->lane.session->seed + k->index);
  bool is_right = data;
  for (int i = 0; is_right && i < RUNS / 2; i++) {
    struct abi_bound b = {0};
    is_right = abi_bind(&k->lane, crew->w, crew->exec, &b) &&
               abi_run(&k->lane, crew->w, &b, data, crew->w->rows, NULL) &&
               is_as_before(&k->lane, crew->w, data, crew->right[k->index], "bound while others bind");
    abi_unbind(&k->lane, &b);
  }
  abi_work_free(&k->lane, data);
  return is_right;
}

static enum conform_outcome bindings(struct abi_rig *rig) { return share_executable(rig, SMALL, false, bind_again); }

/* Threads in pairs compile the same, and beside them something else. */
static bool compile_own(struct worker *k) {
  bool is_right = true;
  for (int64_t i = 0; is_right && i < 4; i++) {
    struct abi_work w;
    if (abi_work_choose(&k->lane, &w, 8 + 8 * i + (k->index % 2), false) != CONFORM_PASSED)
      return false;
    unroll_backend_exec *exec = NULL;
    struct abi_bound b = {0};
    uint8_t *data = abi_work_data(&k->lane, &w, k->lane.session->seed + k->index);
    is_right = data && abi_compile(&k->lane, &w, &exec) && abi_bind(&k->lane, &w, exec, &b) &&
               abi_run(&k->lane, &w, &b, data, w.rows, NULL) &&
               abi_work_right(&k->lane, &w, data, w.rows, "compiled while others compile");
    abi_unbind(&k->lane, &b);
    k->lane.ops->exec_destroy(exec);
    abi_work_free(&k->lane, data);
  }
  return is_right;
}

static enum conform_outcome compile_at_once(struct abi_rig *rig, unroll_backend_device *second) {
  struct abi_work w;
  struct crew crew = {.rig = rig, .devices = {rig->lane.device, second ? second : rig->lane.device}};
  const enum conform_outcome outcome = abi_work_choose(&rig->lane, &w, 8, false);
  return outcome == CONFORM_PASSED ? work_at_once(&crew, compile_own) : outcome;
}

static enum conform_outcome compiles(struct abi_rig *rig) { return compile_at_once(rig, NULL); }

static enum conform_outcome two_devices(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const struct conform_session *s = lane->session;
  unroll_backend_device *second = NULL;
  unroll_error err;
  abi_error_init(&err);
  if (!abi_ok(
          lane->message, "device_open of a device that is open",
          lane->ops->device_open(rig->backend, s->device_index, s->device_options, s->n_device_options, &second, &err),
          &err))
    return CONFORM_FAILED;
  const enum conform_outcome outcome = compile_at_once(rig, second);
  lane->ops->device_close(second);
  return outcome;
}

/* ---- what is [any] without work ---- */
static bool use_buffers(struct worker *k) {
  enum { BUFFERS = 8, BYTES = 4099 };
  uint8_t bytes[BYTES];
  bool is_right = true;
  for (int i = 0; is_right && i < RUNS; i++) {
    unroll_backend_buffer *b[BUFFERS] = {NULL};
    for (int j = 0; is_right && j < BUFFERS; j++) {
      memset(bytes, (int)(k->index * 64) + i + j, BYTES);
      b[j] = abi_buffer(&k->lane, bytes, BYTES);
      is_right = b[j];
    }
    for (int j = 0; is_right && j < BUFFERS; j++) {
      memset(bytes, (int)(k->index * 64) + i + j, BYTES);
      is_right = abi_buffer_is(&k->lane, b[j], 0, bytes, BYTES, "a thread's own buffer");
    }
    for (int j = 0; j < BUFFERS; j++)
      k->lane.ops->buffer_destroy(b[j]);
  }
  return is_right;
}

static enum conform_outcome buffers(struct abi_rig *rig) {
  struct crew crew = {.rig = rig};
  return work_at_once(&crew, use_buffers);
}

static bool ask_around(struct worker *k) {
  const struct abi_rig *rig = k->crew->rig;
  const struct conform_session *s = k->lane.session;
  unroll_error err;
  abi_error_init(&err);
  for (int i = 0; i < RUNS; i++) {
    uint32_t n = 0;
    unroll_device_info info = {.struct_size = sizeof info};
    unroll_backend_device *device = NULL;
    struct abi_work w;
    if (!abi_ok(k->message, "device_count", k->lane.ops->device_count(rig->backend, &n, &err), &err) ||
        !abi_ok(k->message, "device_info", k->lane.ops->device_info(rig->backend, s->device_index, &info, &err), &err))
      return false;
    if (n <= s->device_index || !info.id || strcmp(info.id, rig->info.id) != 0) {
      abi_fail(k->message, "device_info beside other threads gave another device");
      return false;
    }
    for (int kind = 0; kind < ABI_KINDS; kind++) {
      abi_work_make(&w, (enum abi_kind)kind, rig->info.dtypes >> UNROLL_F32 & 1 ? UNROLL_F32 : UNROLL_F64, 16, false);
      (void)abi_work_claimed(&k->lane, &w);
      if (k->message[0])
        return false;
    }
    if (k->lane.ops->extension && k->lane.ops->extension(rig->backend, "unroll.conform-none/1")) {
      abi_fail(k->message, "an extension that nobody knows is there");
      return false;
    }
    if (i % 8 != 0)
      continue;
    if (!abi_ok(k->message, "device_open",
                k->lane.ops->device_open(rig->backend, s->device_index, s->device_options, s->n_device_options, &device,
                                         &err),
                &err))
      return false;
    k->lane.ops->device_close(device);
  }
  return true;
}

static enum conform_outcome questions(struct abi_rig *rig) {
  struct crew crew = {.rig = rig};
  return work_at_once(&crew, ask_around);
}

/* ---- one thread ---- */
static enum conform_outcome queues_in_turns(struct abi_rig *rig) {
  struct abi_work w;
  const struct abi_lane *lane = &rig->lane;
  const unroll_backend_ops *ops = lane->ops;
  enum conform_outcome outcome = abi_work_choose(lane, &w, SMALL, false);
  if (outcome != CONFORM_PASSED)
    return outcome;
  struct abi_lane lanes[2] = {*lane, *lane};
  lanes[1].queue = NULL;
  struct crew crew = {.rig = rig, .w = &w};
  struct abi_bound b[2] = {{0}, {0}};
  unroll_error err;
  abi_error_init(&err);
  const unroll_run_args args = abi_args(&w, &w.rows, NULL);
  bool is_right =
      abi_ok(lane->message, "queue_create", ops->queue_create(lane->device, 0, &lanes[1].queue, &err), &err) &&
      abi_compile(lane, &w, &crew.exec) && run_alone(&crew) && abi_bind(&lanes[0], &w, crew.exec, &b[0]) &&
      abi_bind(&lanes[1], &w, crew.exec, &b[1]);
  uint8_t *data[2] = {NULL, NULL};
  for (uint32_t i = 0; is_right && i < 2; i++) {
    data[i] = abi_work_data(lane, &w, lane->session->seed + i);
    is_right = data[i];
  }
  for (int round = 0; is_right && round < RUNS; round++) {
    for (uint32_t i = 0; is_right && i < 2; i++)
      is_right = abi_write(&lanes[i], &w, &b[i], data[i]) &&
                 abi_ok(lane->message, "run", ops->run(b[i].binding, lanes[i].queue, &args, NULL, &err), &err);
    for (uint32_t i = 0; is_right && i < 2; i++)
      is_right = abi_read(&lanes[i], &w, &b[i], data[i]) &&
                 is_as_before(lane, &w, data[i], crew.right[i], "two queues in turns");
  }
  for (uint32_t i = 0; i < 2; i++) {
    abi_unbind(&lanes[i], &b[i]);
    abi_work_free(lane, data[i]);
  }
  for (uint32_t i = 0; i < THREADS; i++)
    abi_work_free(lane, crew.right[i]);
  ops->exec_destroy(crew.exec);
  ops->queue_destroy(lanes[1].queue);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

static enum conform_outcome repeats(struct abi_rig *rig) {
  struct abi_work w;
  const struct abi_lane *lane = &rig->lane;
  enum conform_outcome outcome = abi_work_choose(lane, &w, BIG, false);
  if (outcome != CONFORM_PASSED)
    return outcome;
  struct crew crew = {.rig = rig, .w = &w};
  struct abi_bound b = {0};
  uint8_t *data = abi_work_data(lane, &w, lane->session->seed);
  bool is_right = data && abi_compile(lane, &w, &crew.exec) && run_alone(&crew) && abi_bind(lane, &w, crew.exec, &b);
  for (int i = 0; is_right && i < REPETITIONS; i++)
    is_right = abi_run(lane, &w, &b, data, w.rows, NULL) &&
               is_as_before(lane, &w, data, crew.right[0], "one of many repetitions");
  abi_unbind(lane, &b);
  abi_work_free(lane, data);
  for (uint32_t i = 0; i < THREADS; i++)
    abi_work_free(lane, crew.right[i]);
  lane->ops->exec_destroy(crew.exec);
  return is_right ? CONFORM_PASSED : CONFORM_FAILED;
}

static const struct abi_case cases[] = {
    {"threads none, 20 repetitions", ABI_DEVICE, repeats},
    {"threads none, two queues in turns", ABI_DEVICE, queues_in_turns},
    {"threads on one backend ask and open", ABI_DEVICE, questions},
    {"threads with buffers of their own", ABI_DEVICE, buffers},
    {"threads on one executable, same input", ABI_DEVICE, same_input},
    {"threads on one executable, own inputs", ABI_DEVICE, own_input},
    {"threads on one executable, larger inputs", ABI_DEVICE, big_input},
    {"threads that bind", ABI_DEVICE, bindings},
    {"threads that compile", ABI_DEVICE, compiles},
    {"threads on a device opened twice", ABI_DEVICE, two_devices},
};

void suite_threads_list(struct conform_list *list) { ABI_CASES_ADD(list, cases); }
