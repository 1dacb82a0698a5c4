/* SPDX-License-Identifier: Apache-2.0 */
#include "series_plot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chart.h"
#include "console.h"

enum { WIDTH = 900, HEIGHT = 390, LEFT = 70, RIGHT = 24, TOP = 56, BOTTOM = 50 };
#define LEAST_BEFORE 60 /* values that are shown before the first forecast, where there are so many */

/* Records first.., counted from 1, and their values. `x` has room for n. */
static void draw_values(const chart *c, const double *values, int64_t first, int64_t n, double *x, size_t look) {
  for (int64_t i = 0; i < n; i++)
    x[i] = (double)(first + i + 1);
  chart_curve(c, (series){x, (size_t)n}, (series){values, (size_t)n}, look);
}

static picture *draw(const series_plot *p) {
  const int64_t before = p->n_forecasts > LEAST_BEFORE ? p->n_forecasts : LEAST_BEFORE;
  const int64_t from = p->first > before ? p->first - before : 0, last = p->first + p->n_forecasts - 1;
  const int64_t shown = p->n > from ? p->n - from : 0, to = last > p->n - 1 ? last : p->n - 1;
  double *x = calloc((size_t)(shown > p->n_forecasts ? shown : p->n_forecasts) + 1, sizeof *x);
  picture *pic = x ? picture_new(WIDTH, HEIGHT, "series", p->title,
                                 "The last values of a series, and forecasts of the same records.")
                   : NULL;
  if (pic) {
    static const char *const names[] = {"series", "forecast"};
    chart c = {.p = pic, .left = LEFT, .top = TOP, .right = WIDTH - RIGHT, .bottom = HEIGHT - BOTTOM};
    c.x = axis_new("record", false);
    c.x.low = (double)(from + 1);
    c.x.high = (double)(to > from ? to + 1 : from + 2);
    c.y = axis_new(NULL, false);
    axis_fit(&c.y, (series){p->y + from, (size_t)shown});
    axis_fit(&c.y, (series){p->forecasts, (size_t)p->n_forecasts});
    axis_round(&c.y);
    picture_text(pic, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, LEFT, 20, p->title);
    chart_legend(pic, LEFT, WIDTH - RIGHT, 28, names, 2);
    chart_draw_axes(&c);
    const double start = chart_x(&c, (double)(p->first + 1));
    picture_segment(pic, (stroke){.colour = INK_MUTED, .width = 1, .dash = 2}, start, c.top, start, c.bottom);
    draw_values(&c, p->y + from, from, shown, x, 0);
    draw_values(&c, p->forecasts, p->first, p->n_forecasts, x, 1);
  }
  free(x);
  return pic;
}

bool series_plot_write(const series_plot *p, const char *path) {
  picture *pic = draw(p);
  if (!pic) {
    complain("out of memory");
    return false;
  }
  FILE *out = fopen(path, "we");
  bool is_written = out && picture_write_svg(pic, out, true);
  is_written = is_written && !ferror(out);
  if (out)
    is_written = fclose(out) == 0 && is_written;
  if (!is_written)
    complain("--plot: cannot write %s: %s", path, pic->failed ? "out of memory" : strerror(errno));
  picture_free(pic);
  return is_written;
}
