/* SPDX-License-Identifier: Apache-2.0 */
#include "console.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <unroll/base.h>

#define LINES_SIZE 32768

/* There is one stderr in a process, and messages of the library come from any thread. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char bottom[LINES_SIZE];       /* the lines that are redrawn; the last has no end */
static volatile sig_atomic_t stopped; /* the lines stay as they are */
static int stdout_error;

void console_start(void) {
  /* Read-only for all three, so that a write to a closed stream still fails. */
  while (fcntl(STDIN_FILENO, F_GETFD) < 0 || fcntl(STDOUT_FILENO, F_GETFD) < 0 || fcntl(STDERR_FILENO, F_GETFD) < 0)
    if (open("/dev/null", O_RDONLY) < 0)
      break;
  /* A training outlives the pipe that its progress went to; a write that failed is seen by its result. */
  signal(SIGPIPE, SIG_IGN);
  setlocale(LC_CTYPE, "");
}

/* Rows that the lines up to the last one's beginning take in a terminal of so many columns, which may have become fewer
 * since they were drawn. Their characters have one column each. */
static int rows_above(int columns) {
  int rows = 0, width = 0;
  for (const char *p = bottom; *p; p++)
    if (*p == '\n') {
      rows += width > columns ? (width + columns - 1) / columns : 1;
      width = 0;
    } else if (*p == '\033')
      p += strcspn(p, "m");
    else
      width += ((unsigned char)*p & 0xC0) != 0x80;
  return rows;
}

/* To where the lines begin; what is there from then on is to be written over or cleared. */
static void go_back(char *text, size_t size) {
  const int rows = rows_above(console_columns());
  if (rows > 0)
    snprintf(text, size, "\r\033[%dA", rows);
  else
    snprintf(text, size, "\r");
}

static void print_line(const char *prefix, const char *format, va_list list) {
  char back[24] = "";
  pthread_mutex_lock(&lock);
  if (stopped)
    bottom[0] = '\0';
  if (bottom[0]) {
    go_back(back, sizeof back);
    fprintf(stderr, "%s%s", back, strchr(bottom, '\n') ? "\033[J" : "\033[K");
  }
  fputs(prefix, stderr);
  vfprintf(stderr, format, list);
  fprintf(stderr, "\n%s", bottom);
  fflush(stderr);
  pthread_mutex_unlock(&lock);
}

void complain(const char *format, ...) {
  va_list list;
  va_start(list, format);
  print_line("unroll: ", format, list);
  va_end(list);
}

void tell(const char *format, ...) {
  va_list list;
  va_start(list, format);
  print_line("", format, list);
  va_end(list);
}

void console_log(void *ctx, int32_t level, const char *message) {
  (void)ctx;
  static const char *const names[] = {"error", "warning", "info", "debug"};
  complain("%s: %s", level >= UNROLL_LOG_ERROR && level <= UNROLL_LOG_DEBUG ? names[level] : "log", message);
}

void console_set_line(const char *line) { console_set_lines("", line); }

/* In one piece: a signal's message must not stand in the middle of a character. */
static void write_whole(const char *text, size_t n) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (n > 0) {
    const ssize_t done = write(STDERR_FILENO, text, n);
    if (done <= 0)
      break;
    text += done;
    n -= (size_t)done;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Every line's rest is cleared as it is written, and what is below only after, so that nothing flickers. */
void console_set_lines(const char *above, const char *line) {
  static char next[LINES_SIZE], drawn[3 * LINES_SIZE];
  pthread_mutex_lock(&lock);
  snprintf(next, sizeof next, "%s%s", above, line);
  if (!stopped && strcmp(next, bottom) != 0) {
    const bool many = strchr(next, '\n') || strchr(bottom, '\n');
    go_back(drawn, sizeof drawn);
    size_t n = strlen(drawn);
    for (const char *p = next; *p && n < sizeof drawn - 16; p++) {
      const char *const piece = *p == '\n' ? "\033[K\n" : (const char[]){*p, '\0'};
      memcpy(drawn + n, piece, strlen(piece));
      n += strlen(piece);
    }
    n += (size_t)snprintf(drawn + n, 16, "\033[K%s", many ? "\033[J" : "");
    write_whole(drawn, n);
    memcpy(bottom, next, sizeof bottom);
  }
  pthread_mutex_unlock(&lock);
}

void console_keep_lines(void) {
  pthread_mutex_lock(&lock);
  bottom[0] = '\0';
  pthread_mutex_unlock(&lock);
}

void console_stop_lines(void) { stopped = 1; }

bool console_is_terminal(void) {
  const char *term = getenv("TERM");
  return isatty(STDERR_FILENO) && term && term[0] && strcmp(term, "dumb") != 0;
}

bool console_has_colour(void) {
  const char *no_color = getenv("NO_COLOR"); /* no-color.org: set to anything but "" */
  return console_is_terminal() && !(no_color && no_color[0]);
}

bool console_has_utf8(void) { return strcmp(nl_langinfo(CODESET), "UTF-8") == 0; }

bool console_has_braille(void) {
  const char *term = getenv("TERM"); /* the font of Linux's own console has none */
  return console_has_utf8() && !(term && strcmp(term, "linux") == 0);
}

int console_rows(void) {
  struct winsize size;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
}

int console_columns(void) {
  struct winsize size;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

bool console_flush(void) {
  errno = 0;
  if (fflush(stdout) == 0 && !ferror(stdout))
    return true;
  if (stdout_error == 0)
    stdout_error = errno ? errno : EIO;
  return false;
}

int console_finish(int code) {
  if (console_flush() || stdout_error == EPIPE)
    return code;
  complain("cannot write to standard output: %s", strerror(stdout_error));
  return EXIT_FAILED;
}
