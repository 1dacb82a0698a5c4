/* SPDX-License-Identifier: Apache-2.0 */
#include "interrupt.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "console.h"

static volatile sig_atomic_t asked;
static const char *said = "";
static size_t length;

static void interrupt(int number) {
  (void)number;
  const int error = errno;
  asked = 1;
  console_stop_lines();
  if (write(STDERR_FILENO, said, length) < 0)
    asked = 1; /* nothing can be done about it */
  errno = error;
}

void interrupt_catch(const char *text) {
  struct sigaction action = {.sa_handler = interrupt, .sa_flags = SA_RESTART | (int)SA_RESETHAND}, hangup;
  said = text;
  length = strlen(text);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* nohup wants it ignored */
    sigaction(SIGHUP, &action, NULL);
}

bool interrupt_asked(void) { return asked; }
