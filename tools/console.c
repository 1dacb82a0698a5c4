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

#define LINE_SIZE 1024

/* There is one stderr in a process, and messages of the library come from any thread. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char bottom_line[LINE_SIZE];
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

static void print_line(const char *prefix, const char *format, va_list list) {
  pthread_mutex_lock(&lock);
  if (bottom_line[0])
    fputs("\r\033[K", stderr);
  fputs(prefix, stderr);
  vfprintf(stderr, format, list);
  fprintf(stderr, "\n%s", bottom_line);
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

void console_set_line(const char *line) {
  pthread_mutex_lock(&lock);
  if (strcmp(line, bottom_line) != 0) {
    snprintf(bottom_line, sizeof bottom_line, "%s", line);
    fprintf(stderr, "\r%s\033[K", bottom_line);
    fflush(stderr);
  }
  pthread_mutex_unlock(&lock);
}

bool console_is_terminal(void) {
  const char *term = getenv("TERM");
  return isatty(STDERR_FILENO) && term && term[0] && strcmp(term, "dumb") != 0;
}

bool console_has_colour(void) {
  const char *no_color = getenv("NO_COLOR"); /* no-color.org: set to anything but "" */
  return console_is_terminal() && !(no_color && no_color[0]);
}

bool console_has_utf8(void) { return strcmp(nl_langinfo(CODESET), "UTF-8") == 0; }

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
