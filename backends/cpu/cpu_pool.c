/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu.h"
#include <pthread.h>
#include <sched.h>

#define MAX_THREADS 256u
#define SPINS \
  2000 /* looks at the next job before a thread goes to sleep: steps of a recurrence follow each other closely */

struct cpu_pool {
  const unroll_host *host;
  uint32_t n_threads; /* the caller's own included */
  uint32_t n_started;
  bool tried;
  pthread_mutex_t busy; /* held by whoever uses the threads */
  pthread_mutex_t lock; /* with wake, guards going to sleep */
  pthread_cond_t wake;
  pthread_t threads[MAX_THREADS];
  /* A job: its fields are written while left is 0 and read by who has taken a piece, so never while they change. */
  cpu_piece_fn fn;
  const void *work;
  int64_t n_pieces;
  _Atomic int64_t left; /* pieces that nobody has taken */
  _Atomic int64_t done;
  atomic_bool quit;
};

unroll_status cpu_pool_create(const unroll_host *host, uint32_t n_threads, cpu_pool **out, unroll_error *err) {
  cpu_pool *p = cpu_alloc(host, sizeof *p);
  if (!p)
    return cpu_fail(err, UNROLL_E_MEMORY, "cpu: no memory for the thread pool");
  p->host = host;
  p->n_threads = n_threads < 1 ? 1 : n_threads > MAX_THREADS ? MAX_THREADS : n_threads;
  pthread_mutex_init(&p->busy, NULL);
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->wake, NULL);
  *out = p;
  return UNROLL_OK;
}

static void take_pieces(cpu_pool *p) {
  for (int64_t left; (left = atomic_load(&p->left)) > 0;)
    if (atomic_compare_exchange_weak(&p->left, &left, left - 1)) {
      p->fn(p->work, p->n_pieces - left);
      atomic_fetch_add(&p->done, 1);
    }
}

static bool idle(cpu_pool *p) { return atomic_load(&p->left) == 0 && !atomic_load(&p->quit); }

static void *worker(void *arg) {
  cpu_pool *p = arg;
  while (!atomic_load(&p->quit)) {
    for (int spin = 0; spin < SPINS && idle(p); spin++)
      ;
    if (idle(p)) {
      pthread_mutex_lock(&p->lock);
      while (idle(p))
        pthread_cond_wait(&p->wake, &p->lock);
      pthread_mutex_unlock(&p->lock);
    }
    take_pieces(p);
  }
  return NULL;
}

static void wake_all(cpu_pool *p) {
  pthread_mutex_lock(&p->lock);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
}

/* Threads that the system does not give are done without. */
static void start(cpu_pool *p) {
  p->tried = true;
  while (p->n_started + 1 < p->n_threads && pthread_create(&p->threads[p->n_started], NULL, worker, p) == 0)
    p->n_started++;
}

void cpu_pool_destroy(cpu_pool *p) {
  if (!p)
    return;
  atomic_store(&p->quit, true);
  wake_all(p);
  for (uint32_t i = 0; i < p->n_started; i++)
    pthread_join(p->threads[i], NULL);
  pthread_cond_destroy(&p->wake);
  pthread_mutex_destroy(&p->lock);
  pthread_mutex_destroy(&p->busy);
  p->host->free(p->host->ctx, p);
}

void cpu_pool_pieces(cpu_pool *p, int64_t n_pieces, cpu_piece_fn fn, const void *work) {
  if (n_pieces < 2 || p->n_threads < 2 || pthread_mutex_trylock(&p->busy) != 0) {
    for (int64_t i = 0; i < n_pieces; i++)
      fn(work, i);
    return;
  }
  if (!p->tried)
    start(p);
  p->fn = fn;
  p->work = work;
  p->n_pieces = n_pieces;
  atomic_store(&p->done, 0);
  atomic_store(&p->left, n_pieces);
  wake_all(p);
  take_pieces(p);
  for (int spin = 0; atomic_load(&p->done) != n_pieces; spin++)
    if (spin > SPINS)
      sched_yield();
  pthread_mutex_unlock(&p->busy);
}

typedef struct ranges {
  cpu_range_fn fn;
  const void *work;
  int64_t n, step;
} ranges;

static void range_piece(const void *work, int64_t piece) {
  const ranges *r = work;
  const int64_t begin = piece * r->step, left = r->n - begin;
  r->fn(r->work, begin, begin + (left < r->step ? left : r->step));
}

void cpu_pool_ranges(cpu_pool *pool, int64_t n, int64_t cost, cpu_range_fn fn, const void *work) {
  if (n < 2 || n < CPU_PARALLEL_COST / cost) {
    fn(work, 0, n);
    return;
  }
  const int64_t step = CPU_PARALLEL_COST / 4 / cost;
  const ranges r = {fn, work, n, step < 1 ? 1 : step};
  cpu_pool_pieces(pool, (n + r.step - 1) / r.step, range_piece, &r);
}
