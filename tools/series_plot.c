/* SPDX-License-Identifier: Apache-2.0 */
#include "series_plot.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "console.h"

enum { WIDTH = 900, HEIGHT = 380, LEFT = 70, RIGHT = 20, TOP = 46, BOTTOM = 34 };
#define SERIES_COLOUR "#5b6570"
#define FORECAST_COLOUR "#d1495b"
#define LEAST_BEFORE 60 /* values that are shown before the first forecast, where there are so many */
#define TICKS 6

/* From numbers to places in the picture. */
struct frame {
  int64_t from, to; /* records, both shown */
  double low, high;
};

static double place_x(const struct frame *f, int64_t t) {
  return LEFT + (double)(t - f->from) / (double)(f->to - f->from) * (WIDTH - LEFT - RIGHT);
}
static double place_y(const struct frame *f, double y) {
  return HEIGHT - BOTTOM - (y - f->low) / (f->high - f->low) * (HEIGHT - TOP - BOTTOM);
}

/* 1, 2 or 5 times a power of ten, so that about TICKS of them fill the range. */
static double step_of(double range) {
  const double rough = range / TICKS, power = pow(10, floor(log10(rough))), part = rough / power;
  return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

static struct frame frame_of(const series_plot *p) {
  const int64_t before = p->n_forecasts > LEAST_BEFORE ? p->n_forecasts : LEAST_BEFORE;
  const int64_t last = p->first + p->n_forecasts - 1;
  struct frame f = {.from = p->first > before ? p->first - before : 0,
                    .to = last > p->n - 1 ? last : p->n - 1,
                    .low = p->forecasts[0],
                    .high = p->forecasts[0]};
  if (f.to == f.from)
    f.to++;
  for (int64_t i = 0; i < p->n_forecasts; i++) {
    f.low = fmin(f.low, p->forecasts[i]);
    f.high = fmax(f.high, p->forecasts[i]);
  }
  for (int64_t t = f.from; t < p->n; t++) {
    f.low = fmin(f.low, p->y[t]);
    f.high = fmax(f.high, p->y[t]);
  }
  if (!(f.high > f.low))
    f.high = f.low + 1;
  const double step = step_of(f.high - f.low);
  f.low = floor(f.low / step) * step;
  f.high = ceil(f.high / step) * step;
  return f;
}

static void write_text(FILE *out, const char *text) {
  for (; *text; text++)
    switch (*text) {
    case '&': fputs("&amp;", out); break;
    case '<': fputs("&lt;", out); break;
    case '>': fputs("&gt;", out); break;
    default: fputc((unsigned char)*text < ' ' ? ' ' : *text, out);
    }
}

static void write_axes(FILE *out, const struct frame *f) {
  const double step = step_of(f->high - f->low);
  for (int i = 0; f->low + i * step <= f->high + step / 2; i++) {
    const double y = f->low + i * step, at = place_y(f, y);
    fprintf(out, "<path d=\"M%d %.1fH%d\" stroke=\"#e3e6e9\"/>\n", LEFT, at, WIDTH - RIGHT);
    fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n", LEFT - 8, at + 4,
            fabs(y) < step / 2 ? 0.0 : y);
  }
  const int64_t every = (int64_t)fmax(1, step_of((double)(f->to - f->from)));
  for (int64_t t = (f->from + every) / every * every - 1; t <= f->to; t += every) /* counted from 1 */
    fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%" PRId64 "</text>\n", place_x(f, t),
            HEIGHT - BOTTOM + 20, t + 1);
  fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">record</text>\n", LEFT - 8, HEIGHT - BOTTOM + 20);
}

static void write_line(FILE *out, const struct frame *f, const double *values, int64_t first, int64_t n,
                       const char *colour) {
  fprintf(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.6\" stroke-linejoin=\"round\" points=\"",
          colour);
  for (int64_t i = 0; i < n; i++)
    fprintf(out, "%s%.1f,%.1f", i ? " " : "", place_x(f, first + i), place_y(f, values[i]));
  fputs("\"/>\n", out);
  if (n == 1)
    fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", place_x(f, first), place_y(f, values[0]),
            colour);
}

static void write_legend(FILE *out, int x, const char *name, const char *colour) {
  fprintf(out, "<path d=\"M%d 22h22\" stroke=\"%s\" stroke-width=\"2.5\"/><text x=\"%d\" y=\"26\">%s</text>\n", x,
          colour, x + 28, name);
}

bool series_plot_write(const series_plot *p, const char *path) {
  FILE *out = fopen(path, "we");
  if (!out) {
    complain("--plot: cannot write %s: %s", path, strerror(errno));
    return false;
  }
  const struct frame f = frame_of(p);
  fprintf(out,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
          "font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">\n<rect width=\"%d\" height=\"%d\" "
          "fill=\"#fff\"/>\n<text x=\"%d\" y=\"26\" font-size=\"14\">",
          WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT);
  write_text(out, p->title);
  fputs("</text>\n", out);
  write_legend(out, WIDTH - 190, "series", SERIES_COLOUR);
  write_legend(out, WIDTH - 105, "forecast", FORECAST_COLOUR);
  write_axes(out, &f);
  fprintf(out, "<path d=\"M%.1f %dV%d\" stroke=\"#b8bfc6\" stroke-dasharray=\"4 4\"/>\n", place_x(&f, p->first), TOP,
          HEIGHT - BOTTOM);
  write_line(out, &f, p->y + f.from, f.from, p->n - f.from, SERIES_COLOUR);
  write_line(out, &f, p->forecasts, p->first, p->n_forecasts, FORECAST_COLOUR);
  fputs("</svg>\n", out);
  const bool failed = ferror(out) != 0;
  if (fclose(out) != 0 || failed) {
    complain("--plot: cannot write %s: %s", path, strerror(errno));
    return false;
  }
  return true;
}
