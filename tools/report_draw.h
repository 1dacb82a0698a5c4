/* SPDX-License-Identifier: Apache-2.0 */
/* A diagnosis as pictures and as a page: docs/report.md has every field of what is drawn. */
#ifndef REPORT_DRAW_H
#define REPORT_DRAW_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* What was drawn, for a line on the terminal. */
typedef struct report_drawn {
  size_t plots;       /* each as an SVG, and as a PNG where `has_png` */
  size_t thinned;     /* plots and tables of which fewer values are shown than there are; the page says so at each */
  size_t faults;      /* sections that were left out */
  bool has_png;       /* cairo was there to draw them */
  char png_note[256]; /* why not, else "" */
} report_drawn;

/* Bytes of a report's text beyond which it is refused: report_read and report_draw, which judges by `bytes`. */
#define REPORT_MOST_BYTES ((size_t)32 << 20)

/*
 * Reads and parses a report. NULL: said on stderr, naming the file and what was expected. *bytes is its size. The
 * caller gives it back with json_decref.
 */
json_t *report_read(const char *path, size_t *bytes);

/*
 * Draws `report`, whose text has `bytes` bytes, into the folder `dir`, which exists: report.html, and plots/NAME.svg
 * and plots/NAME.png. Files of these names are replaced. A section of wrong types or lengths is left out: the page and
 * stderr say which field it was; the others are drawn. false: nothing or not all could be written, or it is no report,
 * or it is too large; said on stderr. `report` is only read; `drawn` is filled also where false comes back. From one
 * thread at a time.
 */
bool report_draw(const json_t *report, size_t bytes, const char *dir, report_drawn *drawn);

#endif
