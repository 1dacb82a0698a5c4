/* SPDX-License-Identifier: Apache-2.0 */
/* The page under way: figures with their files, tables, escaped texts; and what every section of it is. */
#ifndef REPORT_PAGE_H
#define REPORT_PAGE_H
#include "picture_png.h"
#include "report_draw.h"
#include "report_fields.h"

typedef struct report_page {
  FILE *out;
  const char *dir;
  png_writer *png; /* or NULL */
  report_drawn *drawn;
  unsigned n_tables;
  bool table_is_folded;
  bool has_failed; /* a file could not be written: said on stderr */
} report_page;

/*
 * A section reads all that it shows, and writes nothing where f has failed then. `json` is of the kind that the list of
 * sections says.
 */
typedef void section_function(report_page *pg, fields *f, const json_t *json);
section_function section_gradient, section_gates, section_spectra, section_fixed_points, section_lyapunov,
    section_nonfinite, section_cost, section_attention, section_units, section_training;

/* Markup of our own, and any text. */
__attribute__((format(printf, 2, 3))) void page_print(report_page *pg, const char *format, ...);
void page_text(report_page *pg, const char *text);
/* A number as a reader wants it: 1,234,567; 0.0312; 1.2e-05; ∞. */
void page_number(report_page *pg, double value);
void number_print(double value, char *text, size_t size);

/*
 * The picture's files and the picture in the page, with a caption of markup; frees it. What belongs to it, a table of
 * its values above all, goes before page_figure_end. NULL: no memory for it, which is said.
 */
__attribute__((format(printf, 3, 4))) void page_figure(report_page *pg, picture *p, const char *caption, ...);
void page_figure_end(report_page *pg);

/* A table that opens on request, below a figure; or one that stands in the page. */
void page_table(report_page *pg, const char *summary, bool is_folded, const char *const *headers, size_t n);
void page_row(report_page *pg);
void page_cell(report_page *pg, const char *text);
void page_cell_number(report_page *pg, double value);
void page_table_end(report_page *pg);
/* The same of columns of equal length; of many rows a part, evenly, and the summary says so. */
void page_columns(report_page *pg, const char *summary, const char *const *headers, const series *columns, size_t n);

/* How many entries of a list are shown; the page says where there are more. */
size_t page_entries(const json_t *list);

#define MOST_ENTRIES 64
#define PAGE_WIDTH 680.0
#define MOST_DRAWN_POINTS 1200
#define MOST_TABLE_ROWS 120

/* 1, 2, .. n. */
series series_steps(fields *f, size_t n);
/*
 * Of a curve of many points the smallest and largest of each part, in their order: it looks the same. true: it was
 * thinned, which drawn->thinned counts.
 */
bool series_thin(report_page *pg, fields *f, series x, series y, series *thin_x, series *thin_y);
/* What captions add about marks at edges, and about thinned curves; either may be false. */
const char *note_of(bool has_marks, bool is_thinned);

#endif
