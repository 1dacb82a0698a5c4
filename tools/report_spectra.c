/* SPDX-License-Identifier: Apache-2.0 */
/* Eigenvalues of recurrent matrices in the complex plane. */
#include <math.h>
#include <stdint.h>

#include "report_page.h"

#define COLUMNS 3
#define PANELS 12 /* of a picture; further matrices stand in further pictures */
#define MOST_POINTS 4000

struct spectrum {
  const char *layer, *matrix;
  double radius, norm, departure, rows;
  bool leading; /* eigenvalues are the n largest ones of `rows` */
  const double *eigenvalues;
  size_t n;
};

static void draw_panel(picture *p, const struct spectrum *s, double left, double top, double size) {
  double reach = 1.08;
  for (size_t i = 0; i < 2 * s->n; i++)
    if (isfinite(s->eigenvalues[i]))
      reach = fmax(reach, 1.08 * fabs(s->eigenvalues[i]));
  char title[96], below[96];
  snprintf(title, sizeof title, "%.40s", s->layer);
  snprintf(below, sizeof below, "%.60s", s->matrix);
  picture_text(p, (lettering){.colour = INK_TEXT, .size = 13, .is_bold = true}, left, top - 22, title);
  picture_text(p, (lettering){.colour = INK_MUTED, .size = 12}, left, top - 7, below);
  const double x0 = left + size / 2, y0 = top + size / 2, scale = size / 2 / reach;
  const stroke grid = {.colour = INK_GRID, .width = 1};
  picture_segment(p, grid, left, y0, left + size, y0);
  picture_segment(p, grid, x0, top, x0, top + size);
  picture_circle(p, INK_NONE, (stroke){.colour = INK_MUTED, .width = 1.3}, x0, y0, scale);
  const stroke none = {.colour = INK_NONE};
  for (size_t i = 0; i < s->n && i < MOST_POINTS; i++) {
    const double re = s->eigenvalues[2 * i], im = s->eigenvalues[2 * i + 1];
    if (!isfinite(re) || !isfinite(im))
      continue;
    const double x = x0 + scale * re, y = y0 - scale * im;
    if (hypot(re, im) > 1)
      picture_area(p, INK_UNSTABLE, 1, none, (const double[]){x, y - 4.2, x + 4.2, y, x, y + 4.2, x - 4.2, y}, 4);
    else
      picture_circle(p, INK_SERIES, none, x, y, 2.6);
  }
  const lettering l = {.colour = INK_MUTED, .size = 11};
  picture_text(p, l, x0 + scale + 3 > left + size - 8 ? x0 + scale - 10 : x0 + scale + 3, y0 - 4, "1");
  if (s->leading)
    snprintf(below, sizeof below, "ρ = %.4g; the %zu leading of %.0f", s->radius, s->n, s->rows);
  else
    snprintf(below, sizeof below, "ρ = %.4g", s->radius);
  picture_text(p, (lettering){.colour = INK_TEXT, .size = 12, .anchor = ANCHOR_MIDDLE}, x0, top + size + 16, below);
}

void section_spectra(report_page *pg, fields *f, const json_t *json) {
  const size_t n = page_entries(json);
  struct spectrum *s = fields_alloc(f, n, sizeof *s);
  size_t hidden = 0;
  bool leading = false;
  for (size_t i = 0; s && i < n; i++) {
    const json_t *entry = json_array_get(json, i);
    size_t two;
    fields_enter(f, "spectra[%zu]", i);
    s[i].layer = field_text(f, entry, "layer");
    s[i].matrix = field_text(f, entry, "matrix");
    s[i].radius = field_number(f, entry, "radius");
    s[i].norm = field_number_or(f, entry, "norm", NAN);
    s[i].departure = field_number_or(f, entry, "departure", NAN);
    s[i].eigenvalues = field_matrix(f, entry, "eigenvalues", SIZE_MAX, 2, &s[i].n, &two);
    s[i].rows = field_number_or(f, entry, "rows", (double)s[i].n);
    s[i].leading = (double)s[i].n < s[i].rows;
    leading = leading || s[i].leading;
    hidden += s[i].n > MOST_POINTS ? s[i].n - MOST_POINTS : 0;
  }
  if (f->has_failed || !s)
    return;
  pg->drawn->thinned += hidden > 0;
  page_table(pg, "Spectra of the recurrent matrices", false,
             (const char *const[]){"layer", "matrix", "spectral radius ρ", "norm ‖W‖₂", "departure from normality"}, 5);
  for (size_t i = 0; i < n; i++) {
    page_row(pg);
    page_cell(pg, s[i].layer);
    page_cell(pg, s[i].matrix);
    page_cell_number(pg, s[i].radius);
    page_cell_number(pg, s[i].norm);
    page_cell_number(pg, s[i].departure);
  }
  page_table_end(pg);
  for (size_t from = 0; from < n; from += PANELS) {
    const size_t count = n - from < PANELS ? n - from : PANELS, rows = (count + COLUMNS - 1) / COLUMNS;
    const size_t columns = count < COLUMNS ? count : COLUMNS;
    const double size = columns == 1 ? 320 : columns == 2 ? 290 : 196, row = size + 74;
    char name[48];
    snprintf(name, sizeof name, "eigenvalues-%zu", from / PANELS + 1);
    picture *p =
        picture_new(PAGE_WIDTH, row * (double)rows + 8, name, "Eigenvalues in the complex plane",
                    "For every recurrent matrix its eigenvalues, with the unit circle. Those outside of it are "
                    "red diamonds. The tables have the values.");
    const double across = PAGE_WIDTH / (double)columns;
    for (size_t i = 0; p && i < count; i++) {
      const size_t line = i / columns;
      draw_panel(p, &s[from + i], (double)(i % columns) * across + (across - size) / 2, (double)line * row + 42, size);
    }
    page_figure(
        pg, p,
        "Eigenvalues of W<sub>h</sub>: real part to the right, imaginary part upwards, with the unit circle. Those "
        "outside of it are red diamonds.%s%s",
        hidden ? " Of a large matrix the 4,000 largest are shown." : "",
        leading ? " Of a matrix whose line says so only the leading ones were computed." : "");
    for (size_t i = from; i < from + count; i++) {
      char summary[200];
      if (s[i].leading)
        snprintf(summary, sizeof summary, "The %zu leading of %.0f eigenvalues of %.60s, layer %.60s", s[i].n,
                 s[i].rows, s[i].matrix, s[i].layer);
      else
        snprintf(summary, sizeof summary, "Eigenvalues of %.60s, layer %.60s", s[i].matrix, s[i].layer);
      double *re = fields_alloc(f, s[i].n, sizeof *re), *im = fields_alloc(f, s[i].n, sizeof *im);
      for (size_t k = 0; re && im && k < s[i].n; k++) {
        re[k] = s[i].eigenvalues[2 * k];
        im[k] = s[i].eigenvalues[2 * k + 1];
      }
      if (re && im)
        page_columns(pg, summary, (const char *const[]){"real", "imaginary"},
                     (const series[]){{re, s[i].n}, {im, s[i].n}}, 2);
    }
    page_figure_end(pg);
  }
}
