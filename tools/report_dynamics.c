/* SPDX-License-Identifier: Apache-2.0 */
/* Fixed points on principal components, and Lyapunov spectra. */
#include <math.h>
#include <stdint.h>

#include "report_page.h"

#define MOST_PATH 4000
#define MOST_LABELS 60 /* points, beyond which their unstable modes stand in the table alone */

struct point {
  double speed, radius, unstable, starts;
  const double *place;
};
struct portrait {
  const char *layer, *input;
  struct point *points;
  size_t n;
  series axes;
  const double *path; /* n_path rows of 3 */
  size_t n_path;
  double stable, saddle, source, slow;
};

static void read_portrait(fields *f, const json_t *json, size_t index, struct portrait *p) {
  fields_enter(f, "fixed_points[%zu]", index);
  p->layer = field_text(f, json, "layer");
  p->input = field_text_or(f, json, "input", "");
  p->axes = field_is_there(json, "axes") ? field_series(f, json, "axes", 3) : (series){0};
  p->slow = field_number_or(f, json, "slow", NAN);
  size_t three;
  if (field_is_there(json, "trajectory"))
    p->path = field_matrix(f, json, "trajectory", SIZE_MAX, 3, &p->n_path, &three);
  const json_t *list = field_objects(f, json, "points");
  p->n = json_array_size(list);
  p->points = fields_alloc(f, p->n, sizeof *p->points);
  const json_t *classes = field_is_there(json, "class") ? field_object(f, json, "class") : NULL;
  fields_enter(f, "fixed_points[%zu].class", index);
  p->stable = classes ? field_number_or(f, classes, "stable", NAN) : NAN;
  p->saddle = classes ? field_number_or(f, classes, "saddle", NAN) : NAN;
  p->source = classes ? field_number_or(f, classes, "source", NAN) : NAN;
  for (size_t i = 0; p->points && i < p->n; i++) {
    const json_t *entry = json_array_get(list, i);
    fields_enter(f, "fixed_points[%zu].points[%zu]", index, i);
    p->points[i].speed = field_number_or(f, entry, "speed", NAN);
    p->points[i].radius = field_number_or(f, entry, "radius", NAN);
    p->points[i].unstable = field_number(f, entry, "unstable");
    p->points[i].starts = field_number_or(f, entry, "starts", NAN);
    p->points[i].place = field_series(f, entry, "place", 3).v;
  }
}

static void draw_path(const chart *c, const struct portrait *p, size_t across, size_t up) {
  const stroke thin = {.colour = INK_SERIES, .width = 0.8, .opacity = 0.55};
  double run[2 * 128] = {0};
  size_t k = 0;
  for (size_t i = 0; i < p->n_path && i < MOST_PATH; i++) {
    const double x = p->path[3 * i + across], y = p->path[3 * i + up];
    const bool is_there = isfinite(x) && isfinite(y);
    if (is_there) {
      run[2 * k] = chart_x(c, x);
      run[2 * k++ + 1] = chart_y(c, y);
    }
    if (k == 128 || !is_there) {
      picture_line(c->p, thin, run, k);
      run[0] = run[254];
      run[1] = run[255];
      k = is_there ? 1 : 0;
    }
  }
  picture_line(c->p, thin, run, k);
}

static void draw_panel(picture *pic, const struct portrait *p, size_t up, double left, double right, double bottom) {
  chart c = {.p = pic, .left = left, .top = 64, .right = right, .bottom = bottom};
  char x_label[64], y_label[64];
  const size_t components[] = {0, up};
  char *const labels[] = {x_label, y_label};
  for (size_t i = 0; i < 2; i++)
    if (p->axes.n)
      snprintf(labels[i], 64, "component %zu (%.3g%% of variance)", components[i] + 1, 100 * p->axes.v[components[i]]);
    else
      snprintf(labels[i], 64, "component %zu", components[i] + 1);
  c.x = axis_new(x_label, false);
  c.y = axis_new(y_label, false);
  for (size_t i = 0; i < p->n_path && i < MOST_PATH; i++) {
    axis_fit_value(&c.x, p->path[3 * i]);
    axis_fit_value(&c.y, p->path[3 * i + up]);
  }
  for (size_t i = 0; i < p->n; i++) {
    axis_fit_value(&c.x, p->points[i].place[0]);
    axis_fit_value(&c.y, p->points[i].place[up]);
  }
  axis_pad(&c.x, 0.06);
  axis_pad(&c.y, 0.06);
  chart_draw_axes(&c);
  draw_path(&c, p, 0, up);
  const stroke edge = {.colour = INK_PAPER, .width = 1};
  for (size_t i = 0; i < p->n; i++) {
    const struct point *q = &p->points[i];
    if (!isfinite(q->place[0]) || !isfinite(q->place[up]))
      continue;
    const double x = chart_x(&c, q->place[0]), y = chart_y(&c, q->place[up]);
    if (!(q->unstable > 0)) {
      picture_circle(pic, INK_STABLE, edge, x, y, 4.5);
      continue;
    }
    picture_area(pic, INK_UNSTABLE, 1, edge, (const double[]){x, y - 5.5, x + 5.5, y, x, y + 5.5, x - 5.5, y}, 4);
    if (p->n <= MOST_LABELS) {
      char text[32];
      snprintf(text, sizeof text, "%.0f", q->unstable);
      picture_text(pic, (lettering){.colour = INK_UNSTABLE, .size = 11}, x + 7, y + 4, text);
    }
  }
}

static void draw_key(picture *p, double y) {
  const lettering l = {.colour = INK_TEXT, .size = 12};
  const stroke none = {.colour = INK_NONE};
  picture_circle(p, INK_STABLE, none, 76, y - 4, 4.5);
  picture_text(p, l, 86, y, "stable");
  const double x = 150;
  picture_area(p, INK_UNSTABLE, 1, none, (const double[]){x, y - 9.5, x + 5.5, y - 4, x, y + 1.5, x - 5.5, y - 4}, 4);
  picture_text(p, l, x + 10, y, "unstable, with the number of its unstable modes");
  picture_segment(p, (stroke){.colour = INK_SERIES, .width = 0.8, .opacity = 0.55}, 478, y - 4, 504, y - 4);
  picture_text(p, l, 511, y, "states of the data");
}

static void draw_portrait(report_page *pg, const struct portrait *p, size_t index) {
  char name[48], title[200];
  snprintf(name, sizeof name, "fixed-points-%zu", index + 1);
  snprintf(title, sizeof title, "Fixed points of layer %.60s%s%.60s", p->layer, p->input[0] ? ", input: " : "",
           p->input);
  picture *pic =
      picture_new(PAGE_WIDTH, 400, name, title,
                  "Fixed points on principal components of the visited states, the first against the second to "
                  "the left and against the third to the right, with a trajectory. The table below has them.");
  if (pic) {
    picture_text(pic, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, 70, 17, title);
    draw_key(pic, 42);
    draw_panel(pic, p, 1, 70, 332, 350);
    draw_panel(pic, p, 2, 410, PAGE_WIDTH - 22, 350);
  }
  pg->drawn->thinned += p->n_path > MOST_PATH;
  page_figure(
      pg, pic,
      "Where the state stands still if its input stays the same, on principal components of the states that the "
      "data visits.%s",
      p->n_path > MOST_PATH ? " Of the trajectory the first 4,000 steps are drawn." : "");
  const size_t shown = p->n < 500 ? p->n : 500;
  char summary[128];
  snprintf(summary, sizeof summary, shown < p->n ? "Fixed points (the first %zu of %zu)" : "Fixed points", shown, p->n);
  pg->drawn->thinned += shown < p->n;
  page_table(pg, summary, true,
             (const char *const[]){"component 1", "component 2", "component 3", "speed q", "radius", "unstable modes",
                                   "starts that end here"},
             7);
  for (size_t i = 0; i < shown; i++) {
    const struct point *q = &p->points[i];
    const double cells[] = {q->place[0], q->place[1], q->place[2], q->speed, q->radius, q->unstable, q->starts};
    page_row(pg);
    for (size_t k = 0; k < 7; k++)
      page_cell_number(pg, cells[k]);
  }
  page_table_end(pg);
  page_figure_end(pg);
}

void section_fixed_points(report_page *pg, fields *f, const json_t *json) {
  const size_t n = page_entries(json);
  struct portrait *p = fields_alloc(f, n, sizeof *p);
  for (size_t i = 0; p && i < n; i++)
    read_portrait(f, json_array_get(json, i), i, &p[i]);
  if (f->has_failed || !p)
    return;
  page_table(pg, "Fixed points by layer", false,
             (const char *const[]){"layer", "input", "points", "stable", "saddles", "sources", "slow"}, 7);
  for (size_t i = 0; i < n; i++) {
    const double cells[] = {(double)p[i].n, p[i].stable, p[i].saddle, p[i].source, p[i].slow};
    page_row(pg);
    page_cell(pg, p[i].layer);
    page_cell(pg, p[i].input);
    for (size_t k = 0; k < 5; k++)
      if (isnan(cells[k]))
        page_cell(pg, "–");
      else
        page_cell_number(pg, cells[k]);
  }
  page_table_end(pg);
  for (size_t i = 0; i < n; i++)
    draw_portrait(pg, &p[i], i);
}

struct spectrum {
  const char *layer;
  series exponents, errors;
  double entropy, dimension, steps, transient, every;
};

static void draw_spectrum(report_page *pg, fields *f, const struct spectrum *s, size_t index) {
  char name[48], title[160];
  snprintf(name, sizeof name, "lyapunov-%zu", index + 1);
  snprintf(title, sizeof title, "Lyapunov spectrum of layer %.80s", s->layer);
  picture *p =
      picture_new(PAGE_WIDTH, 330, name, title,
                  "The Lyapunov exponents, the largest first, with bars of one standard error. The table below has "
                  "the values.");
  const series at = series_steps(f, s->exponents.n);
  bool is_thinned = false;
  if (p) {
    chart c = {.p = p, .left = 70, .top = 34, .right = PAGE_WIDTH - 22, .bottom = 282};
    c.x = axis_new("index i", false);
    c.y = axis_new("λᵢ, nats per step", false);
    c.x.low = 0;
    c.x.high = (double)s->exponents.n + 1;
    axis_fit_value(&c.y, 0);
    axis_fit(&c.y, s->exponents);
    for (size_t i = 0; i < s->errors.n; i++) {
      axis_fit_value(&c.y, s->exponents.v[i] - s->errors.v[i]);
      axis_fit_value(&c.y, s->exponents.v[i] + s->errors.v[i]);
    }
    axis_round(&c.y);
    picture_text(p, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, 70, 17, title);
    chart_draw_axes(&c);
    const stroke bar = {.colour = INK_SERIES, .width = 1.2};
    picture_segment(p, (stroke){.colour = INK_MUTED, .width = 1.2}, c.left, chart_y(&c, 0), c.right, chart_y(&c, 0));
    for (size_t i = 0; i < s->errors.n && s->errors.n <= MOST_DRAWN_POINTS; i++) {
      const double l = s->exponents.v[i], e = s->errors.v[i], x = chart_x(&c, (double)i + 1);
      if (!isfinite(l) || !isfinite(e))
        continue;
      picture_segment(p, bar, x, chart_y(&c, l - e), x, chart_y(&c, l + e));
      picture_segment(p, bar, x - 3, chart_y(&c, l - e), x + 3, chart_y(&c, l - e));
      picture_segment(p, bar, x - 3, chart_y(&c, l + e), x + 3, chart_y(&c, l + e));
    }
    series sx, sy;
    is_thinned = series_thin(pg, f, at, s->exponents, &sx, &sy);
    chart_curve(&c, sx, sy, 0);
  }
  page_figure(pg, p,
              "How fast nearby states part (above 0) or meet (below 0), in nats per step. Bars: one standard error.%s",
              note_of(chart_has_marks(s->exponents, false), is_thinned));
  page_columns(pg, "Lyapunov exponents", (const char *const[]){"i", "λ", "standard error"},
               (const series[]){at, s->exponents, s->errors}, s->errors.n ? 3 : 2);
  page_figure_end(pg);
}

void section_lyapunov(report_page *pg, fields *f, const json_t *json) {
  const size_t n = page_entries(json);
  struct spectrum *s = fields_alloc(f, n, sizeof *s);
  for (size_t i = 0; s && i < n; i++) {
    const json_t *entry = json_array_get(json, i);
    fields_enter(f, "lyapunov[%zu]", i);
    s[i].layer = field_text(f, entry, "layer");
    s[i].exponents = field_series(f, entry, "exponents", SIZE_MAX);
    if (field_is_there(entry, "errors"))
      s[i].errors = field_series(f, entry, "errors", s[i].exponents.n);
    s[i].entropy = field_number_or(f, entry, "entropy", NAN);
    s[i].dimension = field_number_or(f, entry, "dimension", NAN);
    s[i].steps = field_number_or(f, entry, "steps", NAN);
    s[i].transient = field_number_or(f, entry, "transient", NAN);
    s[i].every = field_number_or(f, entry, "every", NAN);
  }
  if (f->has_failed || !s)
    return;
  page_table(pg, "Lyapunov spectra by layer", false,
             (const char *const[]){"layer", "λ₁, nats per step", "entropy, nats per step", "Kaplan-Yorke dimension",
                                   "steps", "transient", "QR every"},
             7);
  for (size_t i = 0; i < n; i++) {
    const double cells[] = {s[i].exponents.n ? s[i].exponents.v[0] : NAN,
                            s[i].entropy,
                            s[i].dimension,
                            s[i].steps,
                            s[i].transient,
                            s[i].every};
    page_row(pg);
    page_cell(pg, s[i].layer);
    for (size_t k = 0; k < 6; k++)
      page_cell_number(pg, cells[k]);
  }
  page_table_end(pg);
  for (size_t i = 0; i < n; i++)
    if (s[i].exponents.n)
      draw_spectrum(pg, f, &s[i], i);
}
