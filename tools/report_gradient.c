/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient flow: the gradient's norm by step, products of Jacobians by lag; and norms over training. */
#include <math.h>
#include <stdint.h>

#include "report_page.h"

struct layer {
  const char *name;
  series norm, lags, product, sigma_lags, sigma;
  double rho, rate, memory, condition;
  bool has_memory; /* it was looked for; without a number: it is not within the lags */
  const char *why; /* the condition differs from what was measured, or "" */
};

static void read_layer(fields *f, const json_t *json, struct layer *l) {
  l->name = field_text(f, json, "layer");
  l->norm = field_series_or_none(f, json, "norm");
  l->lags = field_series_or_none(f, json, "lags");
  l->product = field_is_there(json, "product") ? field_series(f, json, "product", l->lags.n) : (series){0};
  l->sigma_lags = field_series_or_none(f, json, "sigma_lags");
  l->sigma = field_is_there(json, "sigma") ? field_series(f, json, "sigma", l->sigma_lags.n) : (series){0};
  l->rho = field_number_or(f, json, "rho", NAN);
  l->rate = field_number_or(f, json, "rate", NAN);
  l->why = field_text_or(f, json, "why", "");
  l->memory = field_number_or(f, json, "memory", NAN);
  l->has_memory = json_object_get(json, "memory") != NULL;
  l->condition = field_number_or(f, json, "condition", NAN);
}

static void draw_norms(report_page *pg, fields *f, const struct layer *layers, size_t n) {
  const char **names = fields_alloc(f, n, sizeof *names);
  size_t with_norm = 0;
  bool has_marks = false, is_thinned = false;
  axis x = axis_new("step t", false), y = axis_new("‖∂L/∂hₜ‖", true);
  for (size_t i = 0; names && i < n; i++) {
    names[i] = layers[i].name;
    with_norm += layers[i].norm.n > 0;
    axis_fit(&y, layers[i].norm);
    axis_fit_value(&x, 1);
    axis_fit_value(&x, (double)layers[i].norm.n);
    has_marks = has_marks || chart_has_marks(layers[i].norm, true);
  }
  if (with_norm == 0)
    return;
  const double above = 24 + chart_legend_height(70, PAGE_WIDTH - 10, names, n);
  picture *p =
      picture_new(PAGE_WIDTH, above + 330, "gradient-norm", "Norm of the gradient by step",
                  "For every layer the norm of the loss's gradient with respect to its state, by time step, on "
                  "a logarithmic axis. The table below has the values.");
  if (p) {
    chart c = {.p = p, .left = 70, .top = above + 14, .right = PAGE_WIDTH - 22, .bottom = above + 284, .x = x, .y = y};
    axis_round(&c.y);
    c.x.high = c.x.high > c.x.low ? c.x.high : c.x.low + 1;
    picture_text(p, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, 70, 17,
                 "Norm of the gradient by step");
    chart_legend(p, 70, PAGE_WIDTH - 10, 28, names, n);
    chart_draw_axes(&c);
    for (size_t i = 0; i < n; i++) {
      series sx, sy;
      is_thinned = series_thin(pg, f, series_steps(f, layers[i].norm.n), layers[i].norm, &sx, &sy) || is_thinned;
      chart_curve(&c, sx, sy, i);
    }
  }
  page_figure(
      pg, p,
      "How much the loss depends on the state at step <i>t</i>. A line that falls towards the left is a gradient "
      "that vanishes on its way back through time; one that rises explodes.%s",
      note_of(has_marks, is_thinned));
  for (size_t i = 0; i < n; i++) {
    char summary[160];
    const series columns[] = {series_steps(f, layers[i].norm.n), layers[i].norm};
    snprintf(summary, sizeof summary, "Gradient norms of layer %.80s", layers[i].name);
    if (columns[1].n > 0)
      page_columns(pg, summary, (const char *const[]){"step", "‖∂L/∂h‖"}, columns, 2);
  }
  page_figure_end(pg);
}

/*
 * ρ^k at the lags. It may be hundreds of decades off what was measured, and then leaves the chart: it ends where it is
 * three decades beyond the measured norms.
 */
static void make_powers(fields *f, const struct layer *l, series at, series *to_x, series *to_y) {
  axis measured = axis_new(NULL, true);
  axis_fit_value(&measured, 1);
  axis_fit(&measured, l->product);
  axis_fit(&measured, l->sigma);
  const double least = fmax(measured.low, 1e-300) * 1e-3, most = fmin(measured.high, 1e300) * 1e3;
  double *x = fields_alloc(f, at.n, sizeof *x), *y = fields_alloc(f, at.n, sizeof *y);
  size_t n = 0;
  for (size_t i = 0; x && y && i < at.n && isfinite(l->rho); i++) {
    x[n] = at.v[i];
    y[n] = pow(l->rho, at.v[i]);
    if (y[n] >= least && y[n] <= most) {
      n++;
      continue;
    }
    y[n] = y[n] < least ? least : most;
    x[n] = log(y[n]) / log(l->rho); /* -inf of ρ = 0, where no line leads to */
    n += isfinite(x[n]) && x[n] >= (n ? x[n - 1] : 0);
    break;
  }
  *to_x = (series){x, n};
  *to_y = (series){y, n};
}

static void draw_lags(report_page *pg, fields *f, const struct layer *l, size_t index) {
  const series at = l->lags.n ? l->lags : l->sigma_lags;
  series powers_at, powers;
  make_powers(f, l, at, &powers_at, &powers);
  if (f->has_failed || at.n == 0)
    return;
  const series curves[] = {l->product, l->sigma, powers};
  const series lags[] = {l->lags, l->sigma_lags, powers_at};
  char rho[64], name[48], title[200];
  snprintf(rho, sizeof rho, "ρᵏ, ρ = %.4g of Wₕ", l->rho);
  const char *const names[] = {"mean norm of the Jacobian product", "its largest singular value σ₁", rho};
  snprintf(name, sizeof name, "gradient-lag-%zu", index + 1);
  snprintf(title, sizeof title, "Jacobian products by lag, layer %.80s", l->name);
  const double above = 24 + chart_legend_height(70, PAGE_WIDTH - 10, names, 3);
  picture *p =
      picture_new(PAGE_WIDTH, above + 300, name, title,
                  "The mean norm of products of k Jacobians, their largest singular value, and the k-th power of "
                  "the spectral radius, by lag k on a logarithmic axis. The table below has the values.");
  bool has_marks = false;
  if (p) {
    chart c = {.p = p, .left = 70, .top = above + 12, .right = PAGE_WIDTH - 22, .bottom = above + 252};
    c.x = axis_new("lag k, steps", false);
    c.y = axis_new("norm", true);
    axis_fit_value(&c.x, 0);
    axis_fit_value(&c.y, 1);
    for (size_t i = 0; i < 3; i++) {
      axis_fit(&c.x, lags[i]);
      has_marks = has_marks || chart_has_marks(curves[i], true);
    }
    axis_fit(&c.y, curves[0]);
    axis_fit(&c.y, curves[1]);
    axis_fit(&c.y, powers);
    axis_round(&c.y);
    axis_round(&c.x);
    picture_text(p, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, 70, 17, title);
    chart_legend(p, 70, PAGE_WIDTH - 10, 28, names, 3);
    chart_draw_axes(&c);
    picture_segment(p, (stroke){.colour = INK_MUTED, .width = 1, .dash = 1}, c.left, chart_y(&c, 1), c.right,
                    chart_y(&c, 1));
    for (size_t i = 0; i < 3; i++) {
      series sx, sy;
      has_marks = series_thin(pg, f, lags[i], curves[i], &sx, &sy) || has_marks;
      chart_curve(&c, sx, sy, i);
    }
    if (isfinite(l->memory) && l->memory >= c.x.low && l->memory <= c.x.high) {
      const double x = chart_x(&c, l->memory);
      const bool is_right = x > c.right - 150;
      picture_segment(p, (stroke){.colour = INK_TEXT, .width = 1, .dash = 2}, x, c.top, x, c.bottom);
      char text[64];
      snprintf(text, sizeof text, "memory: %.0f steps", l->memory);
      picture_text(p, (lettering){.colour = INK_TEXT, .size = 12, .anchor = is_right ? ANCHOR_END : ANCHOR_START},
                   is_right ? x - 5 : x + 5, l->rho > 1 ? c.bottom - 8 : c.top + 14, text);
    }
  }
  page_figure(pg, p,
              "How much of a change of the state is left <i>k</i> steps later. The dashed line at 1 is a change "
              "that neither grows nor fades.%s",
              note_of(has_marks, false));
  page_columns(pg, "Jacobian products by lag", (const char *const[]){"lag k", "mean norm"},
               (const series[]){l->lags, l->product}, 2);
  page_columns(pg, "Largest singular values by lag", (const char *const[]){"lag k", "σ₁"},
               (const series[]){l->sigma_lags, l->sigma}, 2);
  page_figure_end(pg);
}

static void write_known(report_page *pg, double value, const char *otherwise) {
  if (isnan(value))
    page_cell(pg, otherwise);
  else
    page_cell_number(pg, value);
}

void section_gradient(report_page *pg, fields *f, const json_t *json) {
  fields_enter(f, "gradient");
  const json_t *list = field_objects(f, json, "layers");
  const char *loss = field_text_or(f, json, "loss", "");
  const size_t n = page_entries(list);
  struct layer *layers = fields_alloc(f, n, sizeof *layers);
  for (size_t i = 0; layers && i < n; i++) {
    fields_enter(f, "gradient.layers[%zu]", i);
    read_layer(f, json_array_get(list, i), &layers[i]);
  }
  if (f->has_failed || !layers)
    return;
  page_table(pg, "Gradient flow by layer", false,
             (const char *const[]){"layer", "spectral radius ρ of Wₕ", "λ_max · max|f′|", "measured rate per step",
                                   "memory, steps"},
             5);
  for (size_t i = 0; i < n; i++) {
    page_row(pg);
    page_cell(pg, layers[i].name);
    write_known(pg, layers[i].rho, "–");
    write_known(pg, layers[i].condition, "–");
    write_known(pg, layers[i].rate, "–");
    write_known(pg, layers[i].memory, layers[i].has_memory ? "longer than was looked at" : "–");
  }
  page_table_end(pg);
  for (size_t i = 0; i < n; i++)
    if (layers[i].why[0]) {
      page_print(pg, "<p class=\"note\">");
      page_text(pg, layers[i].name);
      page_print(pg, ": ");
      page_text(pg, layers[i].why);
      page_print(pg, "</p>\n");
    }
  if (loss[0]) {
    page_print(pg, "<p class=\"note\">The loss that is differentiated: ");
    page_text(pg, loss);
    page_print(pg, ".</p>\n");
  }
  draw_norms(pg, f, layers, n);
  for (size_t i = 0; i < n; i++)
    draw_lags(pg, f, &layers[i], i);
}
