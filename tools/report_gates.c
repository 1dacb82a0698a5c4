/* SPDX-License-Identifier: Apache-2.0 */
/* Gates and activations: how much of them is saturated, by step; histograms; time constants of forget gates. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "report_page.h"

#define ROW 210.0
#define MOST_COLUMNS 200 /* of a histogram by step */

struct gate {
  const char *layer, *name;
  series low, high, mean, edges, counts, constants;
  series histogram_steps;  /* the first step of each column of */
  const double *histogram; /* [columns, bins], or NULL */
  double dead;
};

static void read_histogram(fields *f, const json_t *json, struct gate *g) {
  size_t rows, columns;
  g->histogram_steps = field_series(f, json, "histogram_steps", SIZE_MAX);
  for (size_t i = 1; i < g->histogram_steps.n; i++)
    if (!(g->histogram_steps.v[i] > g->histogram_steps.v[i - 1]) || isinf(g->histogram_steps.v[i]))
      fields_fail(f, "histogram_steps", "does not ascend at [%zu]", i);
  if (g->histogram_steps.n > MOST_COLUMNS)
    fields_fail(f, "histogram_steps", "has %zu values, expected at most %d", g->histogram_steps.n, MOST_COLUMNS);
  g->histogram = field_matrix(f, json, "histogram", g->histogram_steps.n, g->edges.n - 1, &rows, &columns);
}

static void read_gate(fields *f, const json_t *json, struct gate *g) {
  g->layer = field_text(f, json, "layer");
  g->name = field_text(f, json, "gate");
  g->low = field_series_or_none(f, json, "low");
  g->high = field_series_or_none(f, json, "high");
  g->mean = field_series_or_none(f, json, "mean");
  g->edges = field_series_or_none(f, json, "edges");
  g->dead = field_number_or(f, json, "dead", NAN);
  g->constants = field_series_or_none(f, json, "time_constants");
  if (g->edges.n == 1)
    fields_fail(f, "edges", "has 1 value, expected none or at least 2");
  for (size_t i = 1; i < g->edges.n; i++)
    if (!(g->edges.v[i] > g->edges.v[i - 1]) || isinf(g->edges.v[i])) {
      fields_fail(f, "edges", "does not ascend at [%zu]", i);
      break;
    }
  if (g->edges.n)
    g->counts = field_series(f, json, "counts", g->edges.n - 1);
  if (g->edges.n && field_is_there(json, "histogram"))
    read_histogram(f, json, g);
}

static bool draw_shares(report_page *pg, fields *f, picture *p, const struct gate *g, double top) {
  chart c = {.p = p, .left = 56, .top = top + 26, .right = 270, .bottom = top + ROW - 46, .title = g->name};
  c.x = axis_new("step t", false);
  c.y = axis_new(NULL, false);
  c.y.low = 0;
  c.y.high = 1;
  const series curves[] = {g->low, g->high, g->mean};
  axis_fit_value(&c.x, 1);
  bool is_thinned = false;
  for (size_t i = 0; i < 3; i++)
    axis_fit_value(&c.x, (double)curves[i].n);
  c.x.high = c.x.high > c.x.low ? c.x.high : 2;
  /* A mean of tanh is below 0 too. */
  for (size_t i = 0; i < g->mean.n; i++)
    if (g->mean.v[i] < 0)
      c.y.low = -1;
  chart_draw_axes(&c);
  for (size_t i = 0; i < 3; i++) {
    series sx, sy;
    is_thinned = series_thin(pg, f, series_steps(f, curves[i].n), curves[i], &sx, &sy) || is_thinned;
    chart_curve(&c, sx, sy, i);
  }
  return is_thinned;
}

static double sum_of(const double *v, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++)
    sum += isfinite(v[i]) && v[i] > 0 ? v[i] : 0;
  return sum;
}

/* The share of a column's values that stand in each bin, as the root of it: what is rare is seen too. */
static void draw_by_step(const chart *c, const struct gate *g, double last) {
  const size_t bins = g->counts.n, columns = g->histogram_steps.n;
  for (size_t k = 0; k < columns; k++) {
    const double *const of = g->histogram + k * bins, total = sum_of(of, bins);
    const double from = g->histogram_steps.v[k] + 1, to = k + 1 < columns ? g->histogram_steps.v[k + 1] + 1 : last;
    const double x = chart_x(c, from), width = chart_x(c, to) - x;
    for (size_t i = 0; i < bins; i++) {
      const double top = chart_y(c, g->edges.v[i + 1]);
      if (total > 0 && of[i] > 0 && isfinite(of[i]))
        picture_rect(c->p, INK_COOL, sqrt(of[i] / total), x, top, width, chart_y(c, g->edges.v[i]) - top, NULL);
    }
  }
}

static void draw_bars(const chart *c, const struct gate *g, double total) {
  for (size_t i = 0; i < g->counts.n && total > 0; i++) {
    const double top = chart_y(c, g->edges.v[i + 1]), height = chart_y(c, g->edges.v[i]) - top;
    const double right = isfinite(g->counts.v[i]) ? chart_x(c, g->counts.v[i] / total) : c->left;
    const double gap = height > 4 ? 1 : 0;
    if (right > c->left)
      picture_rect(c->p, INK_SERIES, 0.85, c->left, top + gap / 2, right - c->left, height - gap, NULL);
  }
}

/* Values upwards: by step, where that is known, and beside it over all steps. */
static void draw_histograms(picture *p, const struct gate *g, double top) {
  chart by_step = {
      .p = p, .left = 320, .top = top + 26, .right = 530, .bottom = top + ROW - 46, .title = "values by step"};
  chart all = by_step;
  if (g->edges.n < 2)
    return;
  all.left = g->histogram_steps.n ? 560 : 320;
  all.right = PAGE_WIDTH - 22;
  all.title = "all steps";
  by_step.y = axis_new(NULL, false);
  by_step.y.low = g->edges.v[0];
  by_step.y.high = g->edges.v[g->edges.n - 1];
  all.y = by_step.y;
  if (g->histogram_steps.n) {
    /* Steps are counted from 1, as those of the shares. */
    const double latest = g->histogram_steps.v[g->histogram_steps.n - 1] + 2,
                 last = fmax((double)g->mean.n + 1, latest);
    by_step.x = axis_new("step t", false);
    by_step.x.low = g->histogram_steps.v[0] + 1;
    by_step.x.high = last;
    chart_draw_axes(&by_step);
    draw_by_step(&by_step, g, last);
  }
  const double total = sum_of(g->counts.v, g->counts.n);
  double most = 0;
  for (size_t i = 0; i < g->counts.n; i++)
    most = isfinite(g->counts.v[i]) ? fmax(most, g->counts.v[i]) : most;
  all.x = axis_new("share", false);
  all.x.low = 0;
  axis_fit_value(&all.x, total > 0 ? most / total : 1);
  axis_round(&all.x);
  all.x.unit = UNIT_PERCENT;
  if (g->histogram_steps.n)
    chart_draw_x_axis(&all);
  else
    chart_draw_axes(&all);
  draw_bars(&all, g, total);
}

static void write_tables(report_page *pg, fields *f, const struct gate *g) {
  char summary[200];
  const size_t n = g->low.n ? g->low.n : g->high.n ? g->high.n : g->mean.n;
  const char *headers[4] = {"step"};
  series columns[4] = {series_steps(f, n)};
  size_t k = 1;
  const series all[] = {g->low, g->high, g->mean};
  static const char *const labels[] = {"saturated low", "saturated high", "mean"};
  for (size_t i = 0; i < 3; i++)
    if (all[i].n) {
      headers[k] = labels[i];
      columns[k++] = all[i];
    }
  snprintf(summary, sizeof summary, "Shares of gate %.60s by step", g->name);
  if (k > 1)
    page_columns(pg, summary, headers, columns, k);
  if (g->edges.n > 1) {
    snprintf(summary, sizeof summary, "Histogram of gate %.60s", g->name);
    page_columns(pg, summary, (const char *const[]){"from", "to", "values"},
                 (const series[]){{g->edges.v, g->edges.n - 1}, {g->edges.v + 1, g->edges.n - 1}, g->counts}, 3);
  }
}

/* The gates from..to-1, which are of one layer. */
static void draw_layer(report_page *pg, fields *f, const struct gate *g, size_t from, size_t to, size_t index) {
  static const char *const names[] = {"saturated low", "saturated high", "mean"};
  char name[48], title[160];
  snprintf(name, sizeof name, "gates-%zu", index);
  snprintf(title, sizeof title, "Gates of layer %.80s", g[from].layer);
  picture *p = picture_new(PAGE_WIDTH, 58 + ROW * (double)(to - from), name, title,
                           "For every gate, to the left the shares of saturated values and their mean by "
                           "step, in the middle a histogram of its values for each step, to the right one of all "
                           "values. The tables below have the values.");
  bool is_thinned = false;
  if (p) {
    picture_text(p, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, 56, 17, title);
    chart_legend(p, 56, PAGE_WIDTH - 10, 28, names, 3);
    for (size_t i = from; i < to; i++) {
      const double top = 54 + ROW * (double)(i - from);
      is_thinned = draw_shares(pg, f, p, &g[i], top) || is_thinned;
      draw_histograms(p, &g[i], top);
    }
  }
  page_figure(
      pg, p,
      "Saturated gates pass no gradient to their inputs: values below 0.1 or above 0.9, of a tanh below −0.9 or above "
      "0.9. Left: their shares, and the mean, by step; middle: how the values of a step are spread, the stronger the "
      "colour, the more of them; right: how all are.%s",
      note_of(false, is_thinned));
  for (size_t i = from; i < to; i++)
    write_tables(pg, f, &g[i]);
  page_figure_end(pg);
}

/* Between the quantiles that are there, which are evenly spaced from 0 to 1. */
static double quantile(const series *q, double part) {
  const double at = part * (double)(q->n - 1), below = floor(at);
  const double low = q->v[(size_t)below];
  return at > below ? low + (at - below) * (q->v[(size_t)below + 1] - low) : low;
}

static void draw_box(const chart *c, const series *q, double y, size_t look) {
  const double at[] = {q->v[0], quantile(q, 0.25), quantile(q, 0.5), quantile(q, 0.75), q->v[q->n - 1]};
  double x[5];
  for (size_t i = 0; i < 5; i++)
    x[i] = isfinite(at[i]) && at[i] > 0 ? chart_x(c, at[i]) : at[i] > 0 ? c->right : c->left;
  stroke line = chart_stroke(look);
  line.dash = 0;
  picture_segment(c->p, line, x[0], y, x[4], y);
  picture_rect(c->p, line.colour, 0.35, x[1], y - 8, x[3] - x[1] > 2 ? x[3] - x[1] : 2, 16, NULL);
  line.width = 3;
  picture_segment(c->p, line, x[2], y - 8, x[2], y + 8);
}

static void draw_constants(report_page *pg, const struct gate *g, size_t n) {
  size_t rows = 0;
  axis x = axis_new("time constant, steps", true);
  for (size_t i = 0; i < n; i++) {
    rows += g[i].constants.n >= 3;
    axis_fit(&x, g[i].constants);
  }
  if (rows == 0)
    return;
  picture *p =
      picture_new(PAGE_WIDTH, 84 + 30 * (double)rows, "time-constants", "Time constants of gates",
                  "For every gate that forgets how its units' time constants are spread: a line from the smallest "
                  "to the largest, a box over the middle half, a bar at the median.");
  if (p) {
    chart c = {.p = p, .left = 190, .top = 26, .right = PAGE_WIDTH - 20, .bottom = 30 + 30 * (double)rows, .x = x};
    axis_round(&c.x);
    c.y = (axis){.low = 0, .high = 1};
    picture_text(p, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, 10, 17, "Time constants");
    chart_draw_x_axis(&c);
    size_t row = 0;
    for (size_t i = 0; i < n; i++)
      if (g[i].constants.n >= 3) {
        char text[96];
        const double y = c.top + 18 + 30 * (double)row;
        snprintf(text, sizeof text, "%.24s, %.24s", g[i].layer, g[i].name);
        picture_text(p, (lettering){.colour = INK_TEXT, .size = 12, .anchor = ANCHOR_END}, c.left - 10, y + 4, text);
        draw_box(&c, &g[i].constants, y, row++);
      }
  }
  page_figure(pg, p,
              "How many steps a unit keeps what it holds: τ = −1/ln f of a forget gate's mean f. Line: smallest to "
              "largest; box: the middle half of the units; bar: the median.");
  page_table(pg, "Quantiles of time constants", true,
             (const char *const[]){"layer", "gate", "least", "median", "largest"}, 5);
  for (size_t i = 0; i < n; i++)
    if (g[i].constants.n >= 3) {
      page_row(pg);
      page_cell(pg, g[i].layer);
      page_cell(pg, g[i].name);
      page_cell_number(pg, g[i].constants.v[0]);
      page_cell_number(pg, quantile(&g[i].constants, 0.5));
      page_cell_number(pg, g[i].constants.v[g[i].constants.n - 1]);
    }
  page_table_end(pg);
  page_figure_end(pg);
}

static double mean_of(series s) {
  double sum = 0;
  for (size_t i = 0; i < s.n; i++)
    sum += s.v[i];
  return s.n ? sum / (double)s.n : NAN;
}

void section_gates(report_page *pg, fields *f, const json_t *json) {
  const size_t n = page_entries(json);
  struct gate *g = fields_alloc(f, n, sizeof *g);
  for (size_t i = 0; g && i < n; i++) {
    fields_enter(f, "gates[%zu]", i);
    read_gate(f, json_array_get(json, i), &g[i]);
  }
  if (f->has_failed || !g)
    return;
  page_table(pg, "Gates, mean over all steps", false,
             (const char *const[]){"layer", "gate", "saturated low", "saturated high", "mean", "units never active"},
             6);
  for (size_t i = 0; i < n; i++) {
    const double values[] = {mean_of(g[i].low), mean_of(g[i].high), mean_of(g[i].mean), g[i].dead};
    page_row(pg);
    page_cell(pg, g[i].layer);
    page_cell(pg, g[i].name);
    for (size_t k = 0; k < 4; k++)
      if (isnan(values[k]))
        page_cell(pg, "–");
      else
        page_cell_number(pg, values[k]);
  }
  page_table_end(pg);
  for (size_t from = 0, to, index = 1; from < n; from = to, index++) {
    for (to = from + 1; to < n && strcmp(g[to].layer, g[from].layer) == 0; to++)
      ;
    draw_layer(pg, f, g, from, to, index);
  }
  draw_constants(pg, g, n);
}
