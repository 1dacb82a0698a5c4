/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing a backend's devices from a child process. The child answers through one pipe, whatever it prints goes through
 * another; it leaves by _exit, so that nothing of the program's own is flushed or destroyed twice.
 */
#include "base/base_private.h"
#include "plugins/registry_private.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MAGIC 0x50524F42u
enum { SLICE_MS = 20, REAP_MS = 2000, PRINTED_MAX = 512 };

struct answer_head {
  uint32_t magic;
  int32_t status;
  int64_t native;
  uint32_t n_devices;
  uint32_t size; /* of what follows: the devices, or an error message */
  int32_t score;
  uint32_t padding;
  char version[64], vendor[64]; /* of the plugin, which the parent has not loaded */
};

struct child {
  pid_t pid;
  int answer, printed; /* ends to read from; -1 when at their end */
  struct text bytes;
  char tail[PRINTED_MAX + 1]; /* the last that it printed */
  size_t tail_size;
  bool ended;      /* reaped, or somebody else did that */
  bool has_status; /* wait_status is known */
  int wait_status;
};

/* ---- the child ---- */
static void cut_copy(char *to, size_t size, const char *from) {
  const size_t n = from ? strnlen(from, size - 1) : 0;
  if (n > 0) {
    memcpy(to, from, n);
  }
  to[n] = 0;
}

static void send_bytes(int fd, const void *bytes, size_t n) {
  const char *p = bytes;
  while (n > 0) {
    const ssize_t put = write(fd, p, n);
    if (put < 0 && errno != EINTR) {
      return;
    }
    if (put > 0) {
      p += put;
      n -= (size_t)put;
    }
  }
}

static void child_settle(int printed, pid_t parent) {
  /* No orphan behind a driver that hangs; the parent may be gone before that holds. */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) {
    _exit(1);
  }
  /* The program's handlers are meant for the program's own crashes; and looking at devices leaves no core files. */
  static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGTRAP, SIGTERM, SIGINT, SIGALRM};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
    signal(signals[i], SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
  const int nothing = open("/dev/null", O_RDONLY);
  if (nothing >= 0) {
    dup2(nothing, 0);
  }
  dup2(printed, 1);
  dup2(printed, 2);
}

static _Noreturn void child_run(struct plugin_registry *reg, struct candidate *c, int answer, int printed,
                                pid_t parent) {
  child_settle(printed, parent);
  /* The program's own callbacks may wait for locks that a thread held which doesn't exist here. */
  reg->is_child = true;
  reg->logger = (unroll_logger){0};
  reg->allocator = (unroll_allocator){0};
  struct text bytes;
  text_init(&bytes, NULL);
  unroll_error err = UNROLL_ERROR_INIT;
  uint32_t n = 0;
  unroll_status status = candidate_open(reg, c, NULL, 0, &err);
  if (status == UNROLL_OK) {
    status = devices_write(c->backend, c->ops, &bytes, &n, &err);
  } else if (c->reason[0]) {
    /* Without the name, which the parent puts before it. */
    memcpy(err.message, c->reason, sizeof err.message);
  }
  struct answer_head head = {
      .magic = ANSWER_MAGIC, .status = status, .native = err.native, .n_devices = n, .score = c->score};
  cut_copy(head.version, sizeof head.version, c->version);
  cut_copy(head.vendor, sizeof head.vendor, c->vendor);
  err.message[sizeof err.message - 1] = 0;
  head.size = status == UNROLL_OK ? (uint32_t)bytes.size : (uint32_t)strlen(err.message);
  send_bytes(answer, &head, sizeof head);
  send_bytes(answer, status == UNROLL_OK ? text_peek(&bytes) : err.message, head.size);
  _exit(0);
}

/* ---- the parent ---- */
static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void close_end(int *fd) {
  if (*fd >= 0) {
    close(*fd);
    *fd = -1;
  }
}

/* Above the standard streams, which the child overwrites, even in a program that closed its own. */
static bool make_pipe(int ends[2]) {
  int raw[2];
  ends[0] = ends[1] = -1;
  if (pipe2(raw, O_CLOEXEC) != 0) {
    return false;
  }
  for (int i = 0; i < 2; i++) {
    ends[i] = fcntl(raw[i], F_DUPFD_CLOEXEC, 3);
  }
  const int code = errno;
  close(raw[0]);
  close(raw[1]);
  if (ends[0] < 0 || ends[1] < 0) {
    close_end(&ends[0]);
    close_end(&ends[1]);
    errno = code;
    return false;
  }
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return true;
}

static unroll_status child_start(struct plugin_registry *reg, struct candidate *c, struct child *child,
                                 unroll_error *err) {
  int answer[2], printed[2];
  if (!make_pipe(answer)) {
    return fail_native(err, UNROLL_E_IO, errno, "no pipe to look at plugin \"%s\": %s", c->id, strerror(errno));
  }
  if (!make_pipe(printed)) {
    const int code = errno;
    close_end(&answer[0]);
    close_end(&answer[1]);
    return fail_native(err, UNROLL_E_IO, code, "no pipe to look at plugin \"%s\": %s", c->id, strerror(code));
  }
  const pid_t parent = getpid();
  child->pid = fork();
  if (child->pid == 0) {
    child_run(reg, c, answer[1], printed[1], parent);
  }
  const int code = errno;
  close_end(&answer[1]);
  close_end(&printed[1]);
  if (child->pid < 0) {
    close_end(&answer[0]);
    close_end(&printed[0]);
    return fail_native(err, UNROLL_E_IO, code, "no child process to look at plugin \"%s\": %s", c->id, strerror(code));
  }
  child->answer = answer[0];
  child->printed = printed[0];
  return UNROLL_OK;
}

/* Reads what is there; at the end of the pipe *fd becomes -1. */
static void drain_answer(struct child *child) {
  char buffer[4096];
  while (child->answer >= 0 && child->bytes.size <= DEVICES_BYTES_MAX + sizeof(struct answer_head)) {
    const ssize_t n = read(child->answer, buffer, sizeof buffer);
    if (n > 0) {
      text_add_bytes(&child->bytes, buffer, (uint64_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
      close_end(&child->answer);
    } else if (errno == EAGAIN) {
      return;
    }
  }
}

static void drain_printed(struct child *child) {
  char buffer[4096];
  /* Bounded: a child that prints without end must not hold us here. */
  for (int i = 0; i < 64 && child->printed >= 0; i++) {
    const ssize_t got = read(child->printed, buffer, sizeof buffer);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
      close_end(&child->printed);
    }
    if (got <= 0) {
      return;
    }
    const size_t n = (size_t)got < PRINTED_MAX ? (size_t)got : PRINTED_MAX;
    const size_t kept = child->tail_size < PRINTED_MAX - n ? child->tail_size : PRINTED_MAX - n;
    memmove(child->tail, child->tail + child->tail_size - kept, kept);
    memcpy(child->tail + kept, buffer + got - n, n);
    child->tail_size = kept + n;
  }
}

enum outcome { WAITING, ANSWERED, ENDED, LATE, DAMAGED };

static enum outcome judge_answer(const struct child *child, struct answer_head *head) {
  if (child->bytes.failed || child->bytes.size < sizeof *head) {
    return WAITING;
  }
  memcpy(head, text_peek(&child->bytes), sizeof *head);
  if (head->magic != ANSWER_MAGIC || head->size > DEVICES_BYTES_MAX) {
    return DAMAGED;
  }
  return child->bytes.size - sizeof *head >= head->size ? ANSWERED : WAITING;
}

static void child_check(struct child *child) {
  if (child->ended) {
    return;
  }
  const pid_t got = waitpid(child->pid, &child->wait_status, WNOHANG);
  child->has_status = got == child->pid;
  /* ECHILD: the program ignores SIGCHLD or waits for all its children itself. */
  child->ended = child->has_status || (got < 0 && errno == ECHILD);
}

static enum outcome child_listen(struct child *child, int64_t deadline, struct answer_head *head) {
  for (;;) {
    drain_answer(child);
    drain_printed(child);
    const enum outcome outcome = judge_answer(child, head);
    if (outcome != WAITING) {
      return outcome;
    }
    if (child->ended) {
      return ENDED;
    }
    const int64_t left = deadline - now_ms();
    if (left <= 0) {
      return LATE;
    }
    child_check(child);
    if (child->ended) {
      continue; /* once more, for what it wrote last */
    }
    /* In slices: a grandchild may hold the pipes open when the child is gone. Negative descriptors are skipped. */
    struct pollfd fds[] = {{child->answer, POLLIN, 0}, {child->printed, POLLIN, 0}};
    poll(fds, 2, (int)(left < SLICE_MS ? left : SLICE_MS));
  }
}

/* It has nothing left to do. One that even SIGKILL doesn't end (a driver stuck in the kernel) is left behind. */
static void child_stop(struct child *child) {
  const int64_t deadline = now_ms() + REAP_MS;
  if (!child->ended) {
    kill(child->pid, SIGKILL);
  }
  while (!child->ended && now_ms() < deadline) {
    child_check(child);
    if (!child->ended) {
      nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
  }
  close_end(&child->answer);
  close_end(&child->printed);
}

/* The last line with anything in it. */
static const char *last_line(struct child *child) {
  char *tail = child->tail;
  size_t n = child->tail_size;
  while (n > 0 && (unsigned char)tail[n - 1] <= ' ') {
    n--;
  }
  tail[n] = 0;
  size_t start = n;
  while (start > 0 && tail[start - 1] != '\n') {
    start--;
  }
  return tail + start;
}

static void crash_reason(struct child *child, enum outcome outcome, uint32_t timeout_ms, unroll_error *reason) {
  const char *said = last_line(child), *colon = said[0] ? ": " : "";
  const int status = child->wait_status;
  if (outcome == DAMAGED) {
    (void)fail(reason, UNROLL_E_PLUGIN, "its driver damaged the list of devices%s%s", colon, said);
  } else if (outcome == LATE) {
    (void)fail(reason, UNROLL_E_PLUGIN, "its driver did not answer within %u ms%s%s", timeout_ms, colon, said);
  } else if (child->has_status && WIFSIGNALED(status)) {
    const char *name = sigdescr_np(WTERMSIG(status));
    (void)fail(reason, UNROLL_E_PLUGIN, "its driver aborted: signal %d (%s)%s%s", WTERMSIG(status),
               name ? name : "unknown", colon, said);
  } else if (child->has_status && WIFEXITED(status)) {
    (void)fail(reason, UNROLL_E_PLUGIN, "its driver ended the process with exit code %d%s%s", WEXITSTATUS(status),
               colon, said);
  } else {
    (void)fail(reason, UNROLL_E_PLUGIN, "its driver ended the process%s%s", colon, said);
  }
}

static unroll_status reject(struct plugin_registry *reg, struct candidate *c, bool crashed, const unroll_error *reason,
                            unroll_error *err) {
  pthread_mutex_lock(&reg->mutex);
  unroll_status status;
  if (c->references > 0) {
    /* Opened here meanwhile, by another thread: it works, so its state stands. */
    status = fail(err, reason->code, "plugin \"%s\": %s", c->id, reason->message);
  } else {
    c->crashed = crashed;
    status = candidate_reject(reg, c, reason, err);
  }
  pthread_mutex_unlock(&reg->mutex);
  return status;
}

/* What the child learnt by loading the plugin; fresh: its whole answer, where it is of this process, else NULL. */
static unroll_status keep_facts(struct plugin_registry *reg, struct candidate *c, struct answer_head *head,
                                const char *fresh, unroll_error *err) {
  head->version[sizeof head->version - 1] = 0;
  head->vendor[sizeof head->vendor - 1] = 0;
  text_clean(head->version);
  text_clean(head->vendor);
  pthread_mutex_lock(&reg->mutex);
  c->score = head->score;
  if (!c->version) {
    c->version = mem_strdup(&reg->allocator, head->version);
  }
  if (!c->vendor) {
    c->vendor = mem_strdup(&reg->allocator, head->vendor);
  }
  bool kept = c->version && c->vendor;
  if (kept && fresh) {
    kept = candidate_keep_answer(reg, c, fresh, sizeof *head + head->size, (int64_t)time(NULL));
    c->vouched = kept;
  }
  pthread_mutex_unlock(&reg->mutex);
  return kept ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "out of memory for what plugin \"%s\" says", c->id);
}

/* A child's answer, known to be whole, of this process (fresh) or remembered: rejects the candidate or keeps what it says. */
static unroll_status accept_answer(struct plugin_registry *reg, struct candidate *c, const char *bytes, bool fresh,
                                   struct plugin_device **devices, uint32_t *n, unroll_error *err) {
  struct answer_head head;
  unroll_error reason = UNROLL_ERROR_INIT;
  memcpy(&head, bytes, sizeof head);
  const char *payload = bytes + sizeof head;
  if (head.status != UNROLL_OK) {
    (void)fail_native(&reason, head.status < 0 ? head.status : UNROLL_E_PLUGIN, head.native, "%.*s", (int)head.size,
                      payload);
    return reject(reg, c, false, &reason, err);
  }
  const unroll_status status =
      devices_read(&reg->allocator, c->id, payload, head.size, head.n_devices, devices, &reason);
  if (status == UNROLL_E_MEMORY) {
    return fail(err, status, "plugin \"%s\": %s", c->id, reason.message);
  }
  if (status != UNROLL_OK) {
    return reject(reg, c, false, &reason, err);
  }
  *n = head.n_devices;
  const unroll_status kept = keep_facts(reg, c, &head, fresh ? bytes : NULL, err);
  if (kept != UNROLL_OK) {
    plugin_devices_free(reg, *devices);
    *devices = NULL;
    *n = 0;
  }
  return kept;
}

static unroll_status probe_child(struct plugin_registry *reg, struct candidate *c, struct child *child,
                                 uint32_t timeout_ms, struct plugin_device **devices, uint32_t *n, unroll_error *err) {
  struct answer_head head = {0};
  unroll_error reason = UNROLL_ERROR_INIT;
  const enum outcome outcome = child_listen(child, now_ms() + timeout_ms, &head);
  child_stop(child);
  if (child->bytes.failed) {
    return fail(err, UNROLL_E_MEMORY, "out of memory for the devices of plugin \"%s\"", c->id);
  }
  if (outcome != ANSWERED) {
    crash_reason(child, outcome, timeout_ms, &reason);
    return reject(reg, c, outcome != LATE, &reason, err);
  }
  return accept_answer(reg, c, text_peek(&child->bytes), true, devices, n, err);
}

static unroll_status list_here(struct plugin_registry *reg, const struct candidate *c, struct plugin_device **devices,
                               uint32_t *n, unroll_error *err) {
  struct text bytes;
  text_init(&bytes, &reg->allocator);
  unroll_error said = UNROLL_ERROR_INIT;
  uint32_t count = 0;
  unroll_status status = devices_write(c->backend, c->ops, &bytes, &count, &said);
  if (status == UNROLL_OK) {
    status = devices_read(&reg->allocator, c->id, text_peek(&bytes), bytes.size, count, devices, &said);
  }
  text_free(&bytes);
  if (status != UNROLL_OK) {
    return fail_native(err, status, said.native, "plugin \"%s\": %s", c->id, said.message);
  }
  *n = count;
  return UNROLL_OK;
}

/* With the mutex: asks here or starts a child, which the caller then listens to without it. */
static unroll_status probe_start(struct plugin_registry *reg, struct candidate *c, struct child *child,
                                 struct plugin_device **devices, uint32_t *n, unroll_error *err) {
  TRY(candidate_usable(c, err));
  if (c->references > 0) {
    return list_here(reg, c, devices, n, err);
  }
  c->vouched = false;
  (void)memory_forget(c);
  return child_start(reg, c, child, err);
}

static unroll_status probe_finish(struct plugin_registry *reg, struct candidate *c, struct child *child,
                                  uint32_t timeout_ms, struct plugin_device **devices, uint32_t *n, unroll_error *err) {
  if (child->answer < 0) {
    return UNROLL_OK;
  }
  text_init(&child->bytes, &reg->allocator);
  const unroll_status status = probe_child(reg, c, child, timeout_ms, devices, n, err);
  text_free(&child->bytes);
  return status;
}

unroll_status plugin_registry_probe(struct plugin_registry *reg, const char *id, uint32_t timeout_ms,
                                    struct plugin_device **devices, uint32_t *n, unroll_error *err) {
  *devices = NULL;
  *n = 0;
  struct candidate *c = NULL;
  struct child child = {.answer = -1, .printed = -1};
  /* Held across fork: the child finds the registry in one piece. */
  pthread_mutex_lock(&reg->mutex);
  unroll_status status = candidate_find(reg, id, &c, err);
  if (status == UNROLL_OK) {
    status = probe_start(reg, c, &child, devices, n, err);
  }
  pthread_mutex_unlock(&reg->mutex);
  TRY(status);
  return probe_finish(reg, c, &child, timeout_ms, devices, n, err);
}

/* A remembered answer is one that was accepted, in the layout of this build; its sum was checked. */
static bool is_answer(const struct candidate *c) {
  struct answer_head head;
  if (c->answer_size < sizeof head) {
    return false;
  }
  memcpy(&head, c->answer, sizeof head);
  return head.magic == ANSWER_MAGIC && head.size == c->answer_size - sizeof head && head.status == UNROLL_OK;
}

unroll_status plugin_registry_recall(struct plugin_registry *reg, const char *id, uint32_t timeout_ms,
                                     struct plugin_device **devices, uint32_t *n, unroll_error *err) {
  *devices = NULL;
  *n = 0;
  struct candidate *c = NULL;
  char *answer = NULL;
  size_t size = 0;
  pthread_mutex_lock(&reg->mutex);
  unroll_status status = candidate_find(reg, id, &c, err);
  if (status == UNROLL_OK) {
    status = candidate_usable(c, err);
  }
  if (status == UNROLL_OK && c->references == 0 && memory_recall(reg, c) && is_answer(c)) {
    size = c->answer_size;
    answer = mem_alloc(&reg->allocator, size); /* another thread may replace the candidate's */
    if (answer) {
      memcpy(answer, c->answer, size);
    }
  }
  pthread_mutex_unlock(&reg->mutex);
  TRY(status);
  if (answer) {
    status = accept_answer(reg, c, answer, false, devices, n, NULL);
    mem_free(&reg->allocator, answer);
    if (status == UNROLL_OK) {
      return status;
    }
  }
  TRY(plugin_registry_probe(reg, id, timeout_ms, devices, n, err));
  plugin_registry_settle(reg, id);
  return UNROLL_OK;
}

unroll_status plugin_registry_ensure(struct plugin_registry *reg, const char *id, uint32_t timeout_ms,
                                     unroll_error *err) {
  struct candidate *c = NULL;
  struct plugin_device *devices = NULL;
  uint32_t n = 0;
  pthread_mutex_lock(&reg->mutex);
  unroll_status status = candidate_find(reg, id, &c, err);
  if (status == UNROLL_OK) {
    status = candidate_usable(c, err);
  }
  bool known = false;
  if (status == UNROLL_OK) {
    /* Taken in any case: a process that dies now must leave none behind. */
    const bool taken = memory_take(reg, c) && is_answer(c);
    known = taken || c->vouched || c->references > 0;
    c->vouched = false;
  }
  pthread_mutex_unlock(&reg->mutex);
  if (status != UNROLL_OK || known) {
    return status;
  }
  TRY(plugin_registry_probe(reg, id, timeout_ms, &devices, &n, err));
  plugin_devices_free(reg, devices);
  pthread_mutex_lock(&reg->mutex);
  c->vouched = false;
  pthread_mutex_unlock(&reg->mutex);
  return UNROLL_OK;
}

void plugin_registry_settle(struct plugin_registry *reg, const char *id) {
  struct candidate *c = NULL;
  pthread_mutex_lock(&reg->mutex);
  if (candidate_find(reg, id, &c, NULL) == UNROLL_OK) {
    memory_store(reg, c);
  }
  pthread_mutex_unlock(&reg->mutex);
}

void plugin_devices_free(struct plugin_registry *reg, struct plugin_device *devices) {
  mem_free(&reg->allocator, devices);
}
