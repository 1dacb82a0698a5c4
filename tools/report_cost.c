/* SPDX-License-Identifier: Apache-2.0 */
/* Values that are not finite, and what a network costs: operations, bytes, memory by the number of steps. */
#include <math.h>
#include <stdint.h>

#include "report_page.h"

/* A count; what was not counted is said to be so. */
static void write_count(report_page *pg, const char *what, double count) {
  page_print(pg, "<dt>%s</dt><dd>", what);
  if (isnan(count))
    page_print(pg, "not looked at");
  else
    page_number(pg, count);
  page_print(pg, "</dd>\n");
}

void section_nonfinite(report_page *pg, fields *f, const json_t *json) {
  fields_enter(f, "nonfinite");
  const char *text = field_text_or(f, json, "text", "");
  const double values = field_number_or(f, json, "values", NAN), gradients = field_number_or(f, json, "gradients", NAN);
  const json_t *first = field_is_there(json, "first") ? field_object(f, json, "first") : NULL;
  fields_enter(f, "nonfinite.first");
  const char *layer = first ? field_text_or(f, first, "layer", "") : "";
  const char *direction = first ? field_text_or(f, first, "direction", "") : "";
  const char *gate = first ? field_text_or(f, first, "gate", "") : "";
  const char *what = first ? field_text_or(f, first, "what", "") : "";
  const double step = first ? field_number_or(f, first, "step", NAN) : NAN;
  const double sequence = first ? field_number_or(f, first, "sequence", NAN) : NAN;
  const double unit = first ? field_number_or(f, first, "unit", NAN) : NAN;
  const char *phase = first ? field_text_or(f, first, "phase", "") : "";
  if (f->has_failed)
    return;
  page_print(pg, "<dl>\n");
  write_count(pg, "Values that are not finite", values);
  write_count(pg, "Gradients that are not finite", gradients);
  page_print(pg, "</dl>\n");
  if (!first)
    return;
  if (text[0]) {
    page_print(pg, "<p>The first: ");
    page_text(pg, text);
    page_print(pg, ".</p>\n");
  }
  page_table(pg, "Where the first one appeared", false,
             (const char *const[]){"layer", "direction", "step", "gate", "sequence", "unit", "what", "phase"}, 8);
  page_row(pg);
  page_cell(pg, layer);
  page_cell(pg, direction);
  page_cell_number(pg, step);
  page_cell(pg, gate);
  page_cell_number(pg, sequence);
  page_cell_number(pg, unit);
  page_cell(pg, what);
  page_cell(pg, phase);
  page_table_end(pg);
}

static void draw_memory(report_page *pg, series steps, const series *curves, const char *const *names, size_t n) {
  const double above = 24 + chart_legend_height(76, PAGE_WIDTH - 10, names, n);
  picture *p =
      picture_new(PAGE_WIDTH, above + 310, "memory", "Memory of training by number of steps",
                  "Bytes that training needs by number of steps T, on logarithmic axes. The table below has the "
                  "values.");
  if (p) {
    chart c = {.p = p, .left = 76, .top = above + 12, .right = PAGE_WIDTH - 22, .bottom = above + 262};
    c.x = axis_new("steps T", true);
    c.y = axis_new(NULL, true);
    c.y.unit = UNIT_BYTES;
    axis_fit(&c.x, steps);
    for (size_t i = 0; i < n; i++)
      axis_fit(&c.y, curves[i]);
    axis_round(&c.x);
    axis_round(&c.y);
    picture_text(p, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, 76, 17,
                 "Memory of training by number of steps");
    chart_legend(p, 76, PAGE_WIDTH - 10, 28, names, n);
    chart_draw_axes(&c);
    for (size_t i = 0; i < n; i++)
      chart_curve(&c, steps, curves[i], i);
  }
  page_figure(pg, p,
              "What is kept for the gradient, by the number of steps <i>T</i>: a straight line of slope 1 grows like "
              "<i>T</i>, one of slope 2 like <i>T</i>².");
  const char *headers[5] = {"T"};
  series columns[5] = {steps};
  for (size_t i = 0; i < n; i++) {
    headers[i + 1] = names[i];
    columns[i + 1] = curves[i];
  }
  page_columns(pg, "Bytes by number of steps", headers, columns, n + 1);
  page_figure_end(pg);
}

static void write_number(report_page *pg, const char *label, double value, const char *unit) {
  if (isnan(value))
    return;
  page_print(pg, "<dt>%s</dt><dd>", label);
  page_number(pg, value);
  page_print(pg, "%s</dd>\n", unit);
}

struct op {
  const char *name;
  double counts[5];
};
static const char *const op_counts[] = {"runs", "flops", "transcendental", "read", "written"};

static void write_ops(report_page *pg, const struct op *ops, size_t n) {
  page_table(pg, "One update, op by op", true,
             (const char *const[]){"op", "runs", "floating-point operations", "transcendental functions", "bytes read",
                                   "bytes written"},
             6);
  for (size_t i = 0; i < n; i++) {
    page_row(pg);
    page_cell(pg, ops[i].name);
    for (size_t k = 0; k < 5; k++)
      page_cell_number(pg, ops[i].counts[k]);
  }
  page_table_end(pg);
}

void section_cost(report_page *pg, fields *f, const json_t *json) {
  fields_enter(f, "cost");
  const double parameters = field_number_or(f, json, "parameters", NAN);
  const char *formula = field_text_or(f, json, "formula", "");
  const json_t *flops = field_is_there(json, "flops") ? field_object(f, json, "flops") : NULL;
  const json_t *bytes = field_is_there(json, "bytes") ? field_object(f, json, "bytes") : NULL;
  const json_t *memory = field_is_there(json, "memory") ? field_object(f, json, "memory") : NULL;
  const json_t *list = field_is_there(json, "ops") ? field_objects(f, json, "ops") : NULL;
  const size_t n_ops = page_entries(list);
  struct op *ops = fields_alloc(f, n_ops, sizeof *ops);
  for (size_t i = 0; ops && i < n_ops; i++) {
    fields_enter(f, "cost.ops[%zu]", i);
    ops[i].name = field_text(f, json_array_get(list, i), "op");
    for (size_t k = 0; k < 5; k++)
      ops[i].counts[k] = field_number_or(f, json_array_get(list, i), op_counts[k], 0);
  }
  fields_enter(f, "cost.flops");
  const double forward = flops ? field_number_or(f, flops, "forward", NAN) : NAN;
  const double backward = flops ? field_number_or(f, flops, "backward", NAN) : NAN;
  fields_enter(f, "cost.bytes");
  const double read = bytes ? field_number_or(f, bytes, "read", NAN) : NAN;
  const double written = bytes ? field_number_or(f, bytes, "written", NAN) : NAN;
  fields_enter(f, "cost.memory");
  static const char *const keys[] = {"bptt", "truncated", "checkpointed", "transformer"};
  static const char *const labels[] = {"BPTT", "truncated BPTT", "with checkpoints", "Transformer of this width"};
  const series steps = memory ? field_series(f, memory, "T", SIZE_MAX) : (series){0};
  series curves[4];
  const char *names[4];
  size_t n = 0;
  for (size_t i = 0; memory && i < 4; i++)
    if (field_is_there(memory, keys[i])) {
      names[n] = labels[i];
      curves[n++] = field_series(f, memory, keys[i], steps.n);
    }
  if (f->has_failed || !ops)
    return;
  page_print(pg, "<dl>\n");
  write_number(pg, "Parameters", parameters, "");
  if (formula[0]) {
    page_print(pg, "<dt>Their formula</dt><dd>");
    page_text(pg, formula);
    page_print(pg, "</dd>\n");
  }
  write_number(pg, "Forward", forward, " floating-point operations");
  write_number(pg, "Backward", backward, " floating-point operations");
  write_number(pg, "Read", read, " bytes");
  write_number(pg, "Written", written, " bytes");
  page_print(pg, "</dl>\n");
  if (n_ops)
    write_ops(pg, ops, n_ops);
  if (n > 0 && steps.n > 0)
    draw_memory(pg, steps, curves, names, n);
}
