/* SPDX-License-Identifier: Apache-2.0 */
/* The command's own voice: messages on stderr, results on stdout, and what a terminal can do. */
#ifndef CONSOLE_H
#define CONSOLE_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Call first: a standard stream that the parent closed must not become the number of the next file that is opened. */
void console_start(void);

/* "unroll: ..." on stderr, one line, above a progress bar where there is one. From any thread. */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);
/* One line on stderr as it is, likewise above a progress bar. */
__attribute__((format(printf, 1, 2))) void tell(const char *format, ...);

/* The log callback of unroll_logger. */
void console_log(void *ctx, int32_t level, const char *message);

/* What stands on the terminal's last line, redrawn in one write; "" takes it away. Only for a terminal. */
void console_set_line(const char *line);
/* The same with lines above it, each with its end. They must fit into the terminal. */
void console_set_lines(const char *above, const char *line);
/* What stands there stays, and what follows comes from the cursor on. */
void console_keep_lines(void);
/* The same, and none are drawn any more: for a handler of signals, before it writes. */
void console_stop_lines(void);

/* stderr is a terminal that moves its cursor, has colours that the user wants, shows UTF-8, and braille; its size now. */
bool console_is_terminal(void);
bool console_has_colour(void);
bool console_has_utf8(void);
bool console_has_braille(void);
int console_columns(void);
int console_rows(void);

/*
 * Flushes stdout and gives the exit code: `code`, or EXIT_FAILED and a message where something could not be written. A
 * reader that closed the pipe has what it wanted: no message, and `code`.
 */
int console_finish(int code);
/* Flushes stdout; false once a write has failed. */
bool console_flush(void);

#endif
