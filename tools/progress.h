/* SPDX-License-Identifier: Apache-2.0 */
/* How far a long work is, on stderr: a bar on the last line of a terminal, else a plain line every few seconds. */
#ifndef PROGRESS_H
#define PROGRESS_H
#include <stdbool.h>
#include <stddef.h>

#define PROGRESS_PERIOD 5.0 /* seconds between lines that stay */

typedef struct progress {
  bool terminal, colour, utf8, shown;
  double last;       /* when the last plain line was */
  const char *above; /* lines above the bar, each with its end; NULL: none */
} progress;

progress progress_start(void);
/* fraction 0 to 1; NaN: unknown. Details stand in their order; those that don't fit into the terminal are left out, the
 * last ones first. `now` counts seconds from anywhere. */
void progress_show(progress *p, double now, double fraction, const char *const *details, size_t n);
/* Takes the bar away; lines above it stay. */
void progress_end(progress *p);

/* "1:02:03", "4:05". */
void duration_text(double seconds, char *text, size_t size);
/* "950", "12.3k", "1.2M". */
void count_text(double count, char *text, size_t size);

#endif
