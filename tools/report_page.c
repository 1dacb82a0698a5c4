/* SPDX-License-Identifier: Apache-2.0 */
#include "report_page.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"

void page_print(report_page *pg, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vfprintf(pg->out, format, args);
  va_end(args);
}

void page_text(report_page *pg, const char *text) { write_escaped(pg->out, text); }

void number_print(double value, char *text, size_t size) {
  if (isnan(value)) {
    snprintf(text, size, "not a number");
  } else if (isinf(value)) {
    snprintf(text, size, "%s∞", value < 0 ? "−" : "");
  } else if (fabs(value) < 1e15 && value == floor(value)) {
    char digits[32];
    const int n = snprintf(digits, sizeof digits, "%.0f", fabs(value));
    size_t used = (size_t)snprintf(text, size, "%s", value < 0 ? "−" : "");
    for (int i = 0; i < n && used + 2 < size; i++) {
      if (i && (n - i) % 3 == 0)
        text[used++] = ',';
      text[used++] = digits[i];
    }
    text[used] = '\0';
  } else {
    snprintf(text, size, "%s%.4g", value < 0 ? "−" : "", fabs(value));
  }
}

void page_number(report_page *pg, double value) {
  char text[64];
  number_print(value, text, sizeof text);
  fputs(text, pg->out);
}

static void write_file(report_page *pg, const picture *p) {
  char why[512];
  const size_t size = strlen(pg->dir) + strlen(p->name) + 16;
  char *path = malloc(size);
  if (!path) {
    complain("out of memory");
    pg->has_failed = true;
    return;
  }
  snprintf(path, size, "%s/plots/%s.svg", pg->dir, p->name);
  FILE *out = fopen(path, "we");
  bool is_written = out && picture_write_svg(p, out, true);
  is_written = is_written && !ferror(out);
  if (out)
    is_written = fclose(out) == 0 && is_written;
  if (!is_written) {
    complain("cannot write %s: %s", path, p->failed ? "out of memory" : strerror(errno));
    pg->has_failed = true;
  }
  snprintf(path, size, "%s/plots/%s.png", pg->dir, p->name);
  if (pg->png && !png_writer_write(pg->png, p, path, why, sizeof why)) {
    complain("%s", why);
    pg->has_failed = true;
  }
  free(path);
  pg->drawn->plots++;
}

void page_figure(report_page *pg, picture *p, const char *caption, ...) {
  fputs("<figure>\n", pg->out);
  if (!p) {
    complain("out of memory");
    pg->has_failed = true;
    return;
  }
  if (!pg->has_failed)
    write_file(pg, p);
  fprintf(pg->out, "<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-labelledby=\"%s-t\">\n", p->name);
  picture_write_svg(p, pg->out, false);
  fputs("</div>\n<figcaption>", pg->out);
  va_list args;
  va_start(args, caption);
  vfprintf(pg->out, caption, args);
  va_end(args);
  fputs("</figcaption>\n", pg->out);
  picture_free(p);
}

void page_figure_end(report_page *pg) { fputs("</figure>\n", pg->out); }

void page_table(report_page *pg, const char *summary, bool is_folded, const char *const *headers, size_t n) {
  pg->table_is_folded = is_folded;
  if (is_folded) {
    fputs("<details><summary>", pg->out);
    page_text(pg, summary);
    fputs("</summary>\n", pg->out);
  }
  const unsigned index = ++pg->n_tables;
  fprintf(pg->out,
          "<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-labelledby=\"table-%u\"><table><caption "
          "id=\"table-%u\"%s>",
          index, index, is_folded ? " class=\"hidden\"" : "");
  page_text(pg, summary);
  fputs("</caption>\n<thead><tr>", pg->out);
  for (size_t i = 0; i < n; i++) {
    fputs("<th scope=\"col\">", pg->out);
    page_text(pg, headers[i]);
    fputs("</th>", pg->out);
  }
  fputs("</tr></thead>\n<tbody>", pg->out);
}

void page_row(report_page *pg) { fputs("\n<tr>", pg->out); }

void page_cell(report_page *pg, const char *text) {
  fputs("<td>", pg->out);
  page_text(pg, text);
}

void page_cell_number(report_page *pg, double value) {
  fputs("<td class=\"num\">", pg->out);
  page_number(pg, value);
}

void page_table_end(report_page *pg) {
  fputs("\n</tbody></table></div>\n", pg->out);
  if (pg->table_is_folded)
    fputs("</details>\n", pg->out);
}

void page_columns(report_page *pg, const char *summary, const char *const *headers, const series *columns, size_t n) {
  size_t rows = columns[0].n;
  for (size_t i = 1; i < n; i++)
    rows = columns[i].n < rows ? columns[i].n : rows;
  const size_t shown = rows < MOST_TABLE_ROWS ? rows : MOST_TABLE_ROWS;
  char text[256];
  snprintf(text, sizeof text, "%s", summary);
  if (shown < rows) {
    snprintf(text, sizeof text, "%s (%zu of %zu rows, evenly spaced; all are in report.json)", summary, shown, rows);
    pg->drawn->thinned++;
  }
  page_table(pg, text, true, headers, n);
  for (size_t i = 0; i < shown; i++) {
    const size_t at = shown < rows ? (size_t)((double)i * (double)(rows - 1) / (double)(shown - 1)) : i;
    page_row(pg);
    for (size_t k = 0; k < n; k++)
      page_cell_number(pg, columns[k].v[at]);
  }
  page_table_end(pg);
}

size_t page_entries(const json_t *list) {
  const size_t n = json_array_size(list);
  return n < MOST_ENTRIES ? n : MOST_ENTRIES;
}

series series_steps(fields *f, size_t n) {
  double *v = fields_alloc(f, n, sizeof *v);
  for (size_t i = 0; v && i < n; i++)
    v[i] = (double)(i + 1);
  return (series){v, v ? n : 0};
}

static bool is_lower(double a, double b) { return isnan(b) ? !isnan(a) : a < b; }

static bool is_higher(double a, double b) { return isnan(b) ? !isnan(a) : a > b; }

bool series_thin(report_page *pg, fields *f, series x, series y, series *thin_x, series *thin_y) {
  const size_t n = x.n < y.n ? x.n : y.n, parts = MOST_DRAWN_POINTS / 2;
  *thin_x = (series){x.v, n};
  *thin_y = (series){y.v, n};
  if (n <= MOST_DRAWN_POINTS)
    return false;
  double *to_x = fields_alloc(f, 2 * parts, sizeof *to_x), *to_y = fields_alloc(f, 2 * parts, sizeof *to_y);
  if (!to_x || !to_y)
    return false;
  for (size_t i = 0; i < parts; i++) {
    const size_t from = (size_t)((double)i * (double)n / (double)parts);
    const size_t to = i + 1 == parts ? n : (size_t)((double)(i + 1) * (double)n / (double)parts);
    size_t least = from, most = from;
    for (size_t k = from; k < to; k++) {
      least = is_lower(y.v[k], y.v[least]) ? k : least;
      most = is_higher(y.v[k], y.v[most]) ? k : most;
    }
    const size_t first = least < most ? least : most, second = least < most ? most : least;
    to_x[2 * i] = x.v[first];
    to_y[2 * i] = y.v[first];
    to_x[2 * i + 1] = x.v[second];
    to_y[2 * i + 1] = y.v[second];
  }
  *thin_x = (series){to_x, 2 * parts};
  *thin_y = (series){to_y, 2 * parts};
  pg->drawn->thinned++;
  return true;
}

const char *note_of(bool has_marks, bool is_thinned) {
  if (has_marks && is_thinned)
    return " ▽ at the lower edge: 0; △ at the upper edge: infinite; a gap: not a number. Of many values the smallest "
           "and "
           "the largest of each part are drawn.";
  return has_marks    ? " ▽ at the lower edge: 0; △ at the upper edge: infinite; a gap: not a number."
         : is_thinned ? " Of many values the smallest and the largest of each part are drawn."
                      : "";
}
