/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin's code in child processes. A child writes into a mapping that it shares with the parent; the parent looks at it
 * now and then, at the clock, and at whether the child is still there. A child forks and doesn't exec, since a library has no
 * program of its own to run, and leaves by _exit, so that nothing of the caller's is flushed or destroyed twice.
 */
#include "conform/judge.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SLICE_MS = 20, REAP_MS = 2000, PRINTED_SHOWN = 160 };
static const int64_t printed_max = 64 << 20; /* a case that prints more is stopped: it is all in memory */

/* What parent and child share; the atomics order the plain fields. */
struct shared {
  uint32_t current; /* index of the case in flight; those before it are done. n: all are, the plugin is being closed */
  uint32_t has_ended; /* all of the child's work is done */
  int64_t started_ns; /* when current became what it is */
  struct conform_prelude prelude;
  char closing[CONFORM_MESSAGE]; /* what closing the plugin said, "" for nothing */
  struct conform_result results[];
};

struct child {
  const struct conform_job *job;
  struct shared *shared;
  uint64_t shared_bytes;
  pid_t pid;
  int alive;   /* a pipe that the child holds: at its end when the child is gone, unless a grandchild has it too */
  int printed; /* a file in memory: stdout and stderr of the child */
  bool ended, has_status;
  int wait_status;
};

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void cut_copy(char *to, size_t size, const char *from) { snprintf(to, size, "%s", from ? from : ""); }

/* ---- one case, in whichever process ---- */

/* What was printed since the last call, as one line of text; false for nothing. */
static bool take_printed(int fd, char *text, size_t size) {
  struct stat st;
  fflush(stdout);
  fflush(stderr);
  if (fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0)
    return false;
  const ssize_t got = pread(fd, text, size - 1, 0);
  text[got > 0 ? got : 0] = 0;
  for (char *c = text; *c; c++)
    if ((unsigned char)*c < ' ' || *c == 127)
      *c = ' ';
  (void)!ftruncate(fd, 0);
  return true;
}

static void run_case(const struct conform_job *job, uint32_t i, struct conform_result *result) {
  const struct conform_case *c = &job->list->cases[job->order[i]];
  char printed[PRINTED_SHOWN];
  const int64_t start = now_ns();
  result->message[0] = 0;
  job->session->left = 0;
  job->session->is_graph = false;
  result->outcome = (int32_t)c->run(job->session, c, result->message);
  result->left = job->session->left;
  result->is_graph = job->session->is_graph;
  result->seconds = (double)(now_ns() - start) * 1e-9;
  if (!take_printed(job->session->printed, printed, sizeof printed))
    return;
  const char *said = result->outcome == CONFORM_PASSED ? "" : result->message;
  char before[CONFORM_MESSAGE];
  cut_copy(before, sizeof before, said);
  snprintf(result->message, sizeof result->message, "printed: %s%s%.200s", printed, before[0] ? "; " : "", before);
  result->outcome = CONFORM_FAILED;
}

/* ---- the prelude, in whichever process ---- */
static unroll_status read_patterns(const struct conform_session *s, struct conform_prelude *p, unroll_error *err) {
  const unroll_backend_ops *ops = s->target.ops;
  const unroll_conform *declared = ops->extension ? ops->extension(s->backend, UNROLL_CONFORM_ID) : NULL;
  if (!declared)
    return UNROLL_OK;
  if (!UNROLL_HAS(unroll_conform, declared, unsupported) || (declared->n_unsupported && !declared->unsupported))
    return fail(err, UNROLL_E_PLUGIN, "its extension \"%s\" has %u bytes and no list of patterns", UNROLL_CONFORM_ID,
                declared->struct_size);
  size_t used = 0;
  for (uint32_t i = 0; i < declared->n_unsupported; i++) {
    const char *pattern = declared->unsupported[i];
    const size_t n = pattern ? strlen(pattern) + 1 : 0;
    if (n < 2 || n > sizeof p->patterns - used)
      return fail(err, UNROLL_E_PLUGIN, "pattern %u of its extension \"%s\" is %s", i, UNROLL_CONFORM_ID,
                  n < 2 ? "empty" : "one too many");
    memcpy(p->patterns + used, pattern, n);
    used += n;
    p->n_patterns++;
  }
  return UNROLL_OK;
}

static void meet_plugin(const struct conform_job *job, struct conform_prelude *p) {
  struct conform_session *s = job->session;
  unroll_error err = UNROLL_ERROR_INIT;
  const op_target *target = NULL;
  unroll_status status = session_load(s, &err);
  if (status == UNROLL_OK) {
    cut_copy(p->version, sizeof p->version, s->plugin->version);
    cut_copy(p->vendor, sizeof p->vendor, s->plugin->vendor);
    status = session_target(s, &target, &err);
  }
  if (status == UNROLL_OK) {
    cut_copy(p->device, sizeof p->device, s->info.name);
    cut_copy(p->driver, sizeof p->driver, s->info.driver);
    cut_copy(p->device_id, sizeof p->device_id, s->device_id);
    status = read_patterns(s, p, &err);
  }
  if (s->plugin) {
    unroll_error closing = UNROLL_ERROR_INIT;
    const unroll_status closed = session_close(s, &closing);
    if (status == UNROLL_OK && closed != UNROLL_OK) {
      status = closed;
      err = closing;
    }
  }
  p->native = err.native;
  cut_copy(p->message, sizeof p->message, err.message);
  p->status = status < 0 || status == UNROLL_OK ? status : UNROLL_E_PLUGIN;
}

/* ---- the child ---- */
static void settle(const struct child *child, pid_t parent) {
  /* No orphan behind a plugin that hangs; the parent may be gone before that holds. */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent)
    _exit(1);
  /* The program's handlers are meant for its own crashes; and this one's leave no core files. */
  for (int i = 1; i < NSIG; i++)
    signal(i, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
  /* What the caller has not written yet is the caller's. */
  __fpurge(stdout);
  __fpurge(stderr);
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (nothing >= 0)
    dup2(nothing, STDIN_FILENO);
  dup2(child->printed, STDOUT_FILENO);
  dup2(child->printed, STDERR_FILENO);
}

static _Noreturn void child_prelude(const struct child *child, pid_t parent) {
  settle(child, parent);
  meet_plugin(child->job, &child->shared->prelude);
  __atomic_store_n(&child->shared->has_ended, 1, __ATOMIC_RELEASE);
  _exit(0);
}

/* started_ns and current belong together only roughly: the parent reads the time again before it kills. */
static void begin(struct shared *shared, uint32_t current) {
  __atomic_store_n(&shared->started_ns, now_ns(), __ATOMIC_RELEASE);
  __atomic_store_n(&shared->current, current, __ATOMIC_RELEASE);
}

static _Noreturn void child_cases(const struct child *child, uint32_t first, pid_t parent) {
  const struct conform_job *job = child->job;
  struct shared *shared = child->shared;
  settle(child, parent);
  unroll_error err = UNROLL_ERROR_INIT;
  job->session->printed = child->printed;
  unroll_status status = session_load(job->session, &err);
  for (uint32_t i = first; i < job->n; i++) {
    begin(shared, i);
    if (status == UNROLL_OK)
      run_case(job, i, &shared->results[i]);
    else {
      shared->results[i].outcome = CONFORM_FAILED;
      cut_copy(shared->results[i].message, CONFORM_MESSAGE, err.message);
    }
  }
  begin(shared, job->n);
  if (status == UNROLL_OK && session_close(job->session, &err) != UNROLL_OK)
    cut_copy(shared->closing, sizeof shared->closing, err.message);
  __atomic_store_n(&shared->has_ended, 1, __ATOMIC_RELEASE);
  _exit(0);
}

/* ---- the parent ---- */
static unroll_status children_open(struct child *child, const struct conform_job *job, uint32_t n, unroll_error *err) {
  *child = (struct child){.job = job, .alive = -1, .printed = -1, .shared = MAP_FAILED};
  child->shared_bytes = sizeof(struct shared) + (uint64_t)n * sizeof(struct conform_result);
  child->shared = mmap(NULL, child->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (child->shared == MAP_FAILED)
    return fail_native(err, UNROLL_E_MEMORY, errno, "no memory to share with a child process: %s", strerror(errno));
  const int raw = memfd_create("unroll-conform", MFD_CLOEXEC);
  /* Above the standard streams, which the child overwrites, even in a program that closed its own. */
  child->printed = raw < 0 ? -1 : fcntl(raw, F_DUPFD_CLOEXEC, 3);
  const int code = errno;
  if (raw >= 0)
    close(raw);
  if (child->printed < 0 || fcntl(child->printed, F_SETFL, O_APPEND) != 0)
    return fail_native(err, UNROLL_E_IO, code, "no file for what a child process prints: %s", strerror(code));
  return UNROLL_OK;
}

static void close_end(int *fd) {
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

static void children_close(struct child *child) {
  close_end(&child->printed);
  if (child->shared != MAP_FAILED)
    munmap(child->shared, child->shared_bytes);
}

/* first: the case to begin with; UINT32_MAX: the prelude. */
static unroll_status start(struct child *child, uint32_t first, unroll_error *err) {
  int raw[2], hold;
  if (pipe2(raw, O_CLOEXEC) != 0)
    return fail_native(err, UNROLL_E_IO, errno, "no pipe for a child process: %s", strerror(errno));
  child->alive = raw[0];
  hold = fcntl(raw[1], F_DUPFD_CLOEXEC, 3);
  close(raw[1]);
  (void)!ftruncate(child->printed, 0);
  child->ended = child->has_status = false;
  child->shared->has_ended = 0;
  child->shared->current = first;
  child->shared->started_ns = now_ns();
  child->shared->closing[0] = 0;
  const pid_t parent = getpid();
  child->pid = fork();
  if (child->pid == 0) {
    if (first == UINT32_MAX)
      child_prelude(child, parent);
    child_cases(child, first, parent);
  }
  const int code = errno;
  close_end(&hold);
  if (child->pid < 0) {
    close_end(&child->alive);
    return fail_native(err, UNROLL_E_IO, code, "no child process: %s", strerror(code));
  }
  return UNROLL_OK;
}

static void check(struct child *child) {
  if (child->ended)
    return;
  const pid_t got = waitpid(child->pid, &child->wait_status, WNOHANG);
  child->has_status = got == child->pid;
  /* ECHILD: the program ignores SIGCHLD or waits for all its children itself. */
  child->ended = child->has_status || (got < 0 && errno == ECHILD);
}

/* It has nothing left to do. One that even SIGKILL doesn't end (a driver stuck in the kernel) is left behind. */
static void stop(struct child *child) {
  const int64_t deadline = now_ns() + (int64_t)REAP_MS * 1000000;
  if (!child->ended)
    kill(child->pid, SIGKILL);
  while (!child->ended && now_ns() < deadline) {
    check(child);
    if (!child->ended)
      nanosleep(&(struct timespec){0, 1000000}, NULL);
  }
  close_end(&child->alive);
}

enum wait { MOVED, LATE, ENDED, WORDY };

/* Until the child has got beyond case `seen`, has ended, or had its time. */
static enum wait wait_for(struct child *child, uint32_t seen) {
  const int64_t limit = (int64_t)child->job->timeout_ms * 1000000;
  struct shared *shared = child->shared;
  for (;;) {
    const uint32_t current = __atomic_load_n(&shared->current, __ATOMIC_ACQUIRE);
    if (current != seen)
      return MOVED;
    if (child->ended)
      return ENDED;
    check(child);
    if (child->ended)
      continue; /* once more, for what it did last */
    const int64_t started = __atomic_load_n(&shared->started_ns, __ATOMIC_ACQUIRE);
    if (now_ns() - started > limit && __atomic_load_n(&shared->current, __ATOMIC_ACQUIRE) == seen)
      return LATE;
    struct stat st;
    if (fstat(child->printed, &st) == 0 && st.st_size > printed_max)
      return WORDY;
    struct pollfd fd = {child->alive, POLLIN, 0};
    /* In slices: a case that is done doesn't wake us, and a grandchild may hold the pipe open. */
    if (poll(&fd, 1, SLICE_MS) > 0)
      nanosleep(&(struct timespec){0, 1000000}, NULL);
  }
}

/* The last line with anything in it that the child printed, behind ": ", or "". */
static void last_words(int fd, char *text, size_t size) {
  struct stat st;
  char tail[512];
  text[0] = 0;
  if (fstat(fd, &st) != 0)
    return;
  const off_t from = st.st_size > (off_t)sizeof tail ? st.st_size - (off_t)sizeof tail : 0;
  const ssize_t got = pread(fd, tail, sizeof tail, from);
  size_t n = got > 0 ? (size_t)got : 0, begin_at;
  while (n > 0 && (unsigned char)tail[n - 1] <= ' ')
    n--;
  for (begin_at = n; begin_at > 0 && tail[begin_at - 1] != '\n'; begin_at--)
    if ((unsigned char)tail[begin_at - 1] < ' ')
      tail[begin_at - 1] = ' ';
  if (n > begin_at)
    snprintf(text, size, ": %.*s", (int)(n - begin_at), tail + begin_at);
}

/* Why the child is gone, and what it last said. cause: the first part alone, which is the same for the same crash. */
static void describe_end(const struct child *child, enum wait how, char *cause, size_t cause_size, char *text,
                         size_t size) {
  const int status = child->wait_status;
  char said[PRINTED_SHOWN];
  last_words(child->printed, said, sizeof said);
  if (how == LATE)
    snprintf(cause, cause_size, "no answer within %u ms", child->job->timeout_ms);
  else if (how == WORDY)
    snprintf(cause, cause_size, "it prints without end");
  else if (child->has_status && WIFSIGNALED(status)) {
    const char *name = sigdescr_np(WTERMSIG(status));
    snprintf(cause, cause_size, "signal %d (%s)", WTERMSIG(status), name ? name : "unknown");
  } else if (child->has_status && WIFEXITED(status))
    snprintf(cause, cause_size, "the process ended with exit code %d", WEXITSTATUS(status));
  else
    snprintf(cause, cause_size, "the process ended");
  snprintf(text, size, "%s%s", cause, said);
}

unroll_status children_prelude(const struct conform_job *job, struct conform_prelude *prelude, unroll_error *err) {
  memset(prelude, 0, sizeof *prelude);
  if (job->in_process) {
    meet_plugin(job, prelude);
    return UNROLL_OK;
  }
  struct child child;
  unroll_status status = children_open(&child, job, 0, err);
  if (status == UNROLL_OK)
    status = start(&child, UINT32_MAX, err);
  if (status == UNROLL_OK) {
    char cause[80], text[240];
    const enum wait how = wait_for(&child, UINT32_MAX);
    stop(&child);
    if (__atomic_load_n(&child.shared->has_ended, __ATOMIC_ACQUIRE)) {
      *prelude = child.shared->prelude;
    } else {
      describe_end(&child, how, cause, sizeof cause, text, sizeof text);
      prelude->status = UNROLL_E_PLUGIN;
      snprintf(prelude->message, sizeof prelude->message, "while it was opened: %.180s", text);
    }
  }
  children_close(&child);
  return status;
}

/* What went wrong in a row, so that a plugin that always crashes comes to an end. */
struct streak {
  char cause[80];
  uint32_t crashes, hangs, all_hangs;
};

/* The end of a child that was not asked to end, charged to case i. */
static void charge(struct child *child, enum wait how, uint32_t i, bool is_closing, struct streak *streak) {
  struct conform_result *result = &child->shared->results[i];
  char cause[80], text[240];
  describe_end(child, how, cause, sizeof cause, text, sizeof text);
  if (how == ENDED) {
    streak->crashes = strcmp(cause, streak->cause) == 0 ? streak->crashes + 1 : 1;
    cut_copy(streak->cause, sizeof streak->cause, cause);
    result->outcome = CHILD_CRASHED;
  } else {
    streak->hangs++;
    streak->all_hangs++;
    result->outcome = CONFORM_FAILED;
  }
  if (!is_closing)
    result->seconds = (double)(now_ns() - child->shared->started_ns) * 1e-9;
  snprintf(result->message, sizeof result->message, "%s%s", is_closing ? "closing the plugin after it: " : "", text);
}

/* Is it of no use to go on? Then the result of all that are left. */
static bool is_hopeless(const struct streak *streak, uint32_t timeout_ms, struct conform_result *rest) {
  memset(rest, 0, sizeof *rest);
  if (streak->crashes >= CRASHES_MAX) {
    rest->outcome = CHILD_CRASHED;
    snprintf(rest->message, sizeof rest->message, "not tried: %u cases in a row ended with %s", streak->crashes,
             streak->cause);
    return true;
  }
  if (streak->hangs >= HANGS_MAX || streak->all_hangs >= HANGS_ALL) {
    rest->outcome = CONFORM_FAILED;
    snprintf(rest->message, sizeof rest->message, "not tried: %u cases%s had no answer within %u ms",
             streak->hangs >= HANGS_MAX ? streak->hangs : streak->all_hangs,
             streak->hangs >= HANGS_MAX ? " in a row" : "", timeout_ms);
    return true;
  }
  return false;
}

/* Hands over results of `from`..`to`-1. */
static int hand_over(const struct child *child, uint32_t from, uint32_t to, struct streak *streak) {
  const struct conform_job *job = child->job;
  int stopped = 0;
  for (uint32_t i = from; i < to && !stopped; i++) {
    const struct conform_result *result = &child->shared->results[i];
    if (result->outcome == CONFORM_PASSED || result->outcome == CONFORM_DECLINED)
      streak->crashes = streak->hangs = 0;
    stopped = job->done(job->ctx, i, result);
  }
  return stopped;
}

/* One child from case *next on; *next: the first case that has no result yet. */
static int follow(struct child *child, uint32_t *next, struct streak *streak) {
  const uint32_t n = child->job->n;
  uint32_t seen = *next;
  int stopped = 0;
  enum wait how = MOVED;
  while (how == MOVED && !stopped) {
    how = wait_for(child, seen);
    const uint32_t current = __atomic_load_n(&child->shared->current, __ATOMIC_ACQUIRE);
    if (how != ENDED && current != seen)
      how = MOVED; /* it was done in time after all */
    /* The last case waits for what closing the plugin says. */
    const uint32_t done = current == n ? n - 1 : current;
    stopped = hand_over(child, *next, done, streak);
    *next = done > *next ? done : *next;
    seen = current;
  }
  stop(child);
  if (stopped)
    return stopped;
  const bool is_closing = seen == n;
  struct conform_result *last = &child->shared->results[*next];
  if (!is_closing || !__atomic_load_n(&child->shared->has_ended, __ATOMIC_ACQUIRE)) {
    charge(child, how, *next, is_closing, streak);
  } else if (child->shared->closing[0] && last->outcome != CONFORM_FAILED) {
    last->outcome = CONFORM_FAILED;
    snprintf(last->message, sizeof last->message, "closing the plugin after it: %.300s", child->shared->closing);
  }
  stopped = hand_over(child, *next, *next + 1, streak);
  ++*next;
  return stopped;
}

static unroll_status run_in_process(const struct conform_job *job, int *stopped, unroll_error *err) {
  struct conform_result result;
  for (uint32_t i = 0; i < job->n && !*stopped; i++) {
    memset(&result, 0, sizeof result);
    run_case(job, i, &result);
    if (i + 1 == job->n) {
      unroll_error said = UNROLL_ERROR_INIT;
      if (session_close(job->session, &said) != UNROLL_OK && result.outcome != CONFORM_FAILED) {
        result.outcome = CONFORM_FAILED;
        snprintf(result.message, sizeof result.message, "closing the plugin after it: %s", said.message);
      }
    }
    *stopped = job->done(job->ctx, i, &result);
  }
  (void)session_close(job->session, NULL);
  (void)err;
  return UNROLL_OK;
}

unroll_status children_run(const struct conform_job *job, int *stopped, unroll_error *err) {
  *stopped = 0;
  if (job->in_process)
    return run_in_process(job, stopped, err);
  struct child child;
  struct streak streak = {.crashes = 0};
  struct conform_result rest;
  unroll_status status = children_open(&child, job, job->n, err);
  uint32_t next = 0;
  while (status == UNROLL_OK && next < job->n && !*stopped) {
    if (is_hopeless(&streak, job->timeout_ms, &rest)) {
      *stopped = job->done(job->ctx, next++, &rest);
      continue;
    }
    status = start(&child, next, err);
    if (status == UNROLL_OK)
      *stopped = follow(&child, &next, &streak);
  }
  children_close(&child);
  return status;
}
