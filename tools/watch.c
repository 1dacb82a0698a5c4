/* SPDX-License-Identifier: Apache-2.0 */
#include "watch.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "console.h"
#include "curve.h"
#include "progress.h"

#define PANELS 4
#define LEAST_COLUMNS 30 /* of a panel */
#define GAP 3
#define MOST_ROWS 6
#define LEAST_ROWS 2

watch watch_start(double clip, const char *pace_name) {
  watch w = {.span = 1, .clip = clip, .pace_name = pace_name};
  for (int i = 0; i < WATCH_CURVES; i++)
    w.latest[i] = NAN;
  return w;
}

/* ---- points ---- */

static void add_value(watch *w, int curve, double value) {
  watch_point *const p = &w->points[w->n - 1];
  w->latest[curve] = value;
  if (!isfinite(value))
    return;
  p->sum[curve] += value;
  p->count[curve]++;
}

/* Neighbours become one point. */
static void halve(watch *w) {
  for (uint32_t i = 0; i < WATCH_POINTS / 2; i++)
    for (int k = 0; k < WATCH_CURVES; k++) {
      const watch_point *const a = &w->points[2 * i], *const b = &w->points[2 * i + 1];
      const double sum = a->sum[k] + b->sum[k];
      const uint32_t count = a->count[k] + b->count[k];
      w->points[i].sum[k] = sum;
      w->points[i].count[k] = count;
    }
  w->n = WATCH_POINTS / 2;
  w->span *= 2;
}

/* The point that the next update goes to. */
static void next_point(watch *w) {
  if (w->n > 0 && w->in_last < w->span) {
    w->in_last++;
    return;
  }
  if (w->n == WATCH_POINTS)
    halve(w);
  w->points[w->n++] = (watch_point){{0}, {0}};
  w->in_last = 1;
}

void watch_add(watch *w, const unroll_train_progress *p, const radii *found) {
  const radius *const largest = found ? radii_largest(found) : NULL;
  if (w->first == 0)
    w->first = p->update - p->n_updates + 1;
  for (uint32_t i = 0; i < p->n_updates; i++) {
    next_point(w);
    add_value(w, WATCH_LOSS, (double)p->losses[i]);
    add_value(w, WATCH_NORM, (double)p->grad_norms[i]);
    add_value(w, WATCH_SECONDS, p->update_seconds);
    w->nonfinite += !isfinite(p->losses[i]) || !isfinite(p->grad_norms[i]);
  }
  if (largest) {
    add_value(w, WATCH_RADIUS, largest->value);
    snprintf(w->radius_of, sizeof w->radius_of, "%s%s%s", largest->name, largest->gate[0] ? " " : "", largest->gate);
  }
  if (!isnan(p->validation_loss))
    add_value(w, WATCH_VALIDATION, p->validation_loss);
  w->last = p->update;
  w->pace = p->steps_per_second;
}

static void values_of(const watch *w, int curve, double values[WATCH_POINTS]) {
  for (uint32_t i = 0; i < w->n; i++) {
    const watch_point *const p = &w->points[i];
    values[i] = p->count[curve] ? p->sum[curve] / p->count[curve] : (double)NAN;
  }
}

/* ---- panels ---- */

typedef struct panel {
  int curve, marks; /* marks -1: none */
  const char *name, *colour;
  char value[32], detail[128];
  double line;
  bool shows_line;
  double factor; /* of what is drawn */
} panel;

static void make_panels(const watch *w, panel panels[PANELS]) {
  char pace[24];
  panels[0] = (panel){WATCH_LOSS, WATCH_VALIDATION, "loss", "36", "", "", NAN, false, 1};
  panels[1] = (panel){WATCH_NORM, -1, "gradient norm", "33", "", "", NAN, false, 1};
  panels[2] = (panel){WATCH_RADIUS, -1, "spectral radius", "35", "unknown", "", 1, true, 1};
  panels[3] = (panel){WATCH_SECONDS, -1, "time", "32", "", "", NAN, false, 1e3};
  snprintf(panels[0].value, sizeof panels[0].value, "%.4f", w->latest[WATCH_LOSS]);
  if (!isnan(w->latest[WATCH_VALIDATION]))
    snprintf(panels[0].detail, sizeof panels[0].detail, "o validation %.4f", w->latest[WATCH_VALIDATION]);
  snprintf(panels[1].value, sizeof panels[1].value, "%.3g", w->latest[WATCH_NORM]);
  if (w->nonfinite > 0)
    snprintf(panels[1].detail, sizeof panels[1].detail, "%" PRIu64 " not finite", w->nonfinite);
  else if (w->clip > 0) {
    panels[1].line = w->clip;
    snprintf(panels[1].detail, sizeof panels[1].detail, "clipped to %g", w->clip);
  }
  if (w->radius_of[0]) {
    snprintf(panels[2].value, sizeof panels[2].value, "%.3f", w->latest[WATCH_RADIUS]);
    snprintf(panels[2].detail, sizeof panels[2].detail, "%s", w->radius_of);
  }
  count_text(w->pace, pace, sizeof pace);
  snprintf(panels[3].value, sizeof panels[3].value, "%.3g ms", 1e3 * w->latest[WATCH_SECONDS]);
  snprintf(panels[3].detail, sizeof panels[3].detail, "an update, %s %s/s", pace, w->pace_name);
}

/* Name, value and detail, as many columns as the panel has; the detail only where it fits. */
static void append_title(curve_text *to, const panel *p, int columns, bool colour) {
  char bold[16], space[CURVE_MOST_COLUMNS + CURVE_LABEL + 1], name[48];
  snprintf(bold, sizeof bold, "1;%s", p->colour);
  snprintf(name, sizeof name, "%*s%s", 2, "", p->name);
  int used = (int)(strlen(name) + 2 + strlen(p->value));
  const bool fits = p->detail[0] && used + 2 + (int)strlen(p->detail) <= columns;
  curve_append_in(to, colour ? bold : NULL, name);
  curve_append(to, "  ");
  curve_append_in(to, colour ? "1" : NULL, p->value);
  if (fits) {
    curve_append(to, "  ");
    curve_append_in(to, colour ? "2" : NULL, p->detail);
    used += 2 + (int)strlen(p->detail);
  }
  snprintf(space, sizeof space, "%*s", used < columns ? columns - used : 0, "");
  curve_append(to, space);
}

static curve_picture picture_of(const watch *w, const panel *p, int columns, int rows, curve_style style) {
  double values[WATCH_POINTS], marks[WATCH_POINTS];
  values_of(w, p->curve, values);
  for (uint32_t i = 0; i < w->n; i++)
    values[i] *= p->factor;
  if (p->marks >= 0)
    values_of(w, p->marks, marks);
  const curve_data c = {.values = values,
                        .marks = p->marks >= 0 ? marks : NULL,
                        .n = w->n,
                        .line = p->line,
                        .shows_line = p->shows_line,
                        .colour = p->colour,
                        .columns = columns,
                        .rows = rows};
  return curve_draw(&c, style);
}

/* Panels first to first + n - 1, side by side. */
static void append_panels(curve_text *to, const watch *w, const panel *panels, int n, int columns, int rows,
                          curve_style style) {
  char gap[GAP + 1];
  snprintf(gap, sizeof gap, "%*s", GAP, "");
  curve_picture pictures[2];
  for (int i = 0; i < n; i++) {
    pictures[i] = picture_of(w, &panels[i], columns, rows, style);
    curve_append(to, i ? gap : "");
    append_title(to, &panels[i], columns, style.colour);
  }
  curve_append(to, "\n");
  for (int row = 0; row < rows; row++) {
    for (int i = 0; i < n; i++) {
      curve_append(to, i ? gap : "");
      curve_append_row(to, &pictures[i], row);
    }
    curve_append(to, "\n");
  }
}

static int between(int value, int least, int most) { return value < least ? least : value > most ? most : value; }

void watch_draw(const watch *w, char *text, size_t size) {
  const curve_style style = {.colour = console_has_colour(), .braille = console_has_braille()};
  curve_text to = {text, 0, size};
  text[0] = '\0';
  const int width = console_columns() - 1, most = CURVE_MOST_COLUMNS + CURVE_LABEL;
  const int side = width >= 2 * LEAST_COLUMNS + GAP ? 2 : 1;
  const int columns = between((width - GAP * (side - 1)) / side, 0, most);
  const int floors = PANELS / side;
  /* With each floor its title and a gap; below them the line of updates, the bar, and one row that scrolls in. */
  const int rows = between((console_rows() - 3 - 2 * floors) / floors, 0, MOST_ROWS);
  if (columns < LEAST_COLUMNS || rows < LEAST_ROWS || w->n == 0)
    return;
  panel panels[PANELS];
  make_panels(w, panels);
  for (int i = 0; i < PANELS; i += side) {
    curve_append(&to, "\n");
    append_panels(&to, w, panels + i, side, columns, rows, style);
  }
  char line[96];
  snprintf(line, sizeof line, "%*supdates %" PRIu64 " to %" PRIu64, CURVE_LABEL, "", w->first, w->last);
  curve_append_in(&to, style.colour ? "2" : NULL, line);
  curve_append(&to, "\n");
}
