/* SPDX-License-Identifier: Apache-2.0 */
#include "chart.h"

#include <math.h>
#include <string.h>

#define TEXT_SIZE 12.0
#define LEGEND_ROW 20.0
#define LEGEND_LINE 26.0
#define FARTHEST 1e300  /* either way: the length of an axis stays finite */
#define DENSE 400       /* points of a curve, beyond which its line is thin */
#define MOST_MARKERS 40 /* points of a curve, beyond which it has none */

axis axis_new(const char *label, bool is_log) {
  return (axis){.is_log = is_log, .low = INFINITY, .high = -INFINITY, .label = label};
}

void axis_fit_value(axis *a, double value) {
  if (!isfinite(value) || (a->is_log && value <= 0))
    return;
  value = value < -FARTHEST ? -FARTHEST : value > FARTHEST ? FARTHEST : value;
  if (a->is_log && value < 1 / FARTHEST) /* nor its logarithm: the power of ten below the least number is 0 */
    value = 1 / FARTHEST;
  a->low = fmin(a->low, value);
  a->high = fmax(a->high, value);
}

void axis_fit(axis *a, series values) {
  for (size_t i = 0; i < values.n; i++)
    axis_fit_value(a, values.v[i]);
}

/* 1, 2 or 5 times a power of ten, so that about `ticks` of them fill the range. */
static double step_of(double range, int ticks) {
  const double rough = range / ticks, power = pow(10, floor(log10(rough))), part = rough / power;
  return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

static void widen_empty(axis *a) {
  if (a->low > a->high) {
    a->low = a->is_log ? 0.1 : 0;
    a->high = 1;
  }
  if (!a->is_log && !(a->high - a->low > 1e-12 * fmax(fabs(a->high), fabs(a->low)))) {
    const double half = a->high == 0 ? 0.5 : fabs(a->high) / 2;
    a->low -= half;
    a->high += half;
  }
}

#define SHORT_RANGE 100.0 /* of a log axis: one that is shorter has ticks at 1, 2 and 5 times a power of ten */

/* The next of them below, or above. */
static double round_log(double value, bool is_up) {
  static const double parts[] = {1, 2, 5, 10};
  const double power = pow(10, floor(log10(value) + 1e-9)), part = value / power;
  int i = is_up ? 0 : 3;
  while (is_up ? i < 3 && parts[i] < part * (1 - 1e-9) : i > 0 && parts[i] > part * (1 + 1e-9))
    i += is_up ? 1 : -1;
  return parts[i] * power;
}

void axis_pad(axis *a, double part) {
  widen_empty(a);
  const double more = part * (a->high - a->low);
  a->low -= more;
  a->high += more;
}

void axis_round(axis *a) {
  widen_empty(a);
  if (a->is_log && a->high / a->low < SHORT_RANGE) {
    a->low = round_log(a->low, false);
    a->high = round_log(a->high, true);
    if (a->high < a->low * 5)
      a->high = a->low * 10;
    return;
  }
  if (a->is_log) {
    a->low = fmax(pow(10, floor(log10(a->low) + 1e-9)), 1e-307);
    a->high = fmin(pow(10, ceil(log10(a->high) - 1e-9)), 1e308);
    return;
  }
  const double step = step_of(a->high - a->low, 5);
  a->low = floor(a->low / step + 1e-9) * step;
  a->high = ceil(a->high / step - 1e-9) * step;
}

static void print_power(int power, char *text, size_t size) {
  static const char *const digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  char number[16];
  snprintf(number, sizeof number, "%d", power);
  size_t used = (size_t)snprintf(text, size, "10");
  for (const char *c = number; *c && used < size; c++)
    used += (size_t)snprintf(text + used, size - used, "%s", *c == '-' ? "⁻" : digits[*c - '0']);
}

void axis_print(const axis *a, double value, char *text, size_t size) {
  if (a->unit == UNIT_BYTES) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    size_t i = 0;
    while (fabs(value) >= 999.5 && i + 1 < sizeof units / sizeof units[0]) {
      value /= 1000;
      i++;
    }
    snprintf(text, size, "%.3g %s", value, units[i]);
  } else if (a->unit == UNIT_PERCENT) {
    snprintf(text, size, "%.3g%%", 100 * value);
  } else if (a->is_log && (value < 0.01 || value > 9999)) {
    const int power = (int)floor(log10(value) + 1e-9);
    const int part = (int)lround(value / pow(10, power));
    const int used = part > 1 ? snprintf(text, size, "%d·", part) : 0;
    print_power(power, text + used, size - (size_t)used);
  } else if (fabs(value) >= 10000 && fabs(value) < 1e7 && value == floor(value)) {
    const int64_t n = (int64_t)fabs(value);
    if (n >= 1000000)
      snprintf(text, size, "%s%d,%03d,%03d", value < 0 ? "−" : "", (int)(n / 1000000), (int)(n / 1000 % 1000),
               (int)(n % 1000));
    else
      snprintf(text, size, "%s%d,%03d", value < 0 ? "−" : "", (int)(n / 1000), (int)(n % 1000));
  } else {
    snprintf(text, size, "%s%.6g", value < 0 ? "−" : "", fabs(value));
  }
}

static double place(const axis *a, double value, double from, double to) {
  double part = a->is_log ? (log10(value) - log10(a->low)) / (log10(a->high) - log10(a->low))
                          : (value - a->low) / (a->high - a->low);
  part = part < 0 ? 0 : part > 1 ? 1 : part;
  return from + part * (to - from);
}

double chart_x(const chart *c, double value) { return place(&c->x, value, c->left, c->right); }

double chart_y(const chart *c, double value) { return place(&c->y, value, c->bottom, c->top); }

static const lettering tick_letters = {.colour = INK_MUTED, .size = TEXT_SIZE};
static const stroke grid_stroke = {.colour = INK_GRID, .width = 1};

static void draw_x_tick(const chart *c, double value) {
  char text[48];
  lettering l = tick_letters;
  l.anchor = ANCHOR_MIDDLE;
  const double at = chart_x(c, value);
  axis_print(&c->x, value, text, sizeof text);
  picture_segment(c->p, grid_stroke, at, c->top, at, c->bottom);
  picture_text(c->p, l, at, c->bottom + TEXT_SIZE + 5, text);
}

static void draw_y_tick(const chart *c, double value) {
  char text[48];
  lettering l = tick_letters;
  l.anchor = ANCHOR_END;
  const double at = chart_y(c, value);
  axis_print(&c->y, value, text, sizeof text);
  picture_segment(c->p, grid_stroke, c->left, at, c->right, at);
  picture_text(c->p, l, c->left - 6, at + TEXT_SIZE * 0.35, text);
}

static void draw_ticks(const chart *c, const axis *a, int ticks, void (*draw)(const chart *, double)) {
  if (a->is_log && a->high / a->low <= SHORT_RANGE * (1 + 1e-9)) {
    double at = a->low;
    while (at <= a->high * (1 + 1e-9)) {
      draw(c, at);
      at = round_log(at * 1.01, true);
    }
    return;
  }
  if (a->is_log) {
    const int from = (int)ceil(log10(a->low) - 1e-9), to = (int)floor(log10(a->high) + 1e-9);
    static const int steps[] = {1, 2, 3, 5, 10, 20, 50, 100};
    size_t i = 0;
    while (i + 1 < sizeof steps / sizeof steps[0] && (to - from) / steps[i] > ticks)
      i++;
    for (int power = (int)ceil((double)from / steps[i]) * steps[i]; power <= to; power += steps[i])
      draw(c, pow(10, power));
    return;
  }
  const double step = step_of(a->high - a->low, ticks);
  const double first = ceil(a->low / step - 1e-9);
  for (int i = 0; (first + i) * step <= a->high + 1e-6 * step; i++)
    draw(c, fabs(first + i) < 0.5 ? 0 : (first + i) * step);
}

static const lettering label_letters = {.colour = INK_MUTED, .size = TEXT_SIZE, .anchor = ANCHOR_MIDDLE};

void chart_draw_x_axis(const chart *c) {
  const double width = c->right - c->left;
  draw_ticks(c, &c->x, width < 120 ? 2 : width < 220 ? 3 : width < 330 ? 4 : 7, draw_x_tick);
  picture_segment(c->p, (stroke){.colour = INK_MUTED, .width = 1}, c->left, c->bottom, c->right, c->bottom);
  if (c->x.label)
    picture_text(c->p, label_letters, (c->left + c->right) / 2, c->bottom + 2 * TEXT_SIZE + 10, c->x.label);
}

void chart_draw_axes(const chart *c) {
  const double height = c->bottom - c->top;
  draw_ticks(c, &c->y, height < 140 ? 3 : height < 240 ? 5 : 7, draw_y_tick);
  chart_draw_x_axis(c);
  if (c->y.label) {
    lettering l = label_letters;
    l.upwards = true;
    picture_text(c->p, l, c->left - 50, (c->top + c->bottom) / 2, c->y.label);
  }
  if (c->title)
    picture_text(c->p, (lettering){.colour = INK_TEXT, .size = 13, .is_bold = true}, c->left, c->top - 8, c->title);
}

stroke chart_stroke(size_t i) {
  return (stroke){.colour = (ink)(INK_SERIES + i % N_SERIES_INKS), .width = 1.8, .dash = (int)(i % 4)};
}

void chart_marker(picture *p, size_t look, double x, double y, double r) {
  const ink colour = (ink)(INK_SERIES + look % N_SERIES_INKS);
  const stroke line = {.colour = colour, .width = 1.6};
  const stroke none = {.colour = INK_NONE};
  switch (look % 5) {
  case 0: picture_circle(p, colour, none, x, y, r); break;
  case 1: picture_rect(p, colour, 1, x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8, NULL); break;
  case 2:
    picture_area(p, colour, 1, none, (const double[]){x, y - 1.3 * r, x + 1.2 * r, y + r, x - 1.2 * r, y + r}, 3);
    break;
  case 3:
    picture_area(p, INK_PAPER, 1, line,
                 (const double[]){x, y - 1.3 * r, x + 1.3 * r, y, x, y + 1.3 * r, x - 1.3 * r, y}, 4);
    break;
  default: picture_circle(p, INK_PAPER, line, x, y, r);
  }
}

/* At an edge of the chart: a value that it can't show. */
static void draw_arrow(const chart *c, double x, bool is_up, size_t look) {
  const double y = is_up ? c->top + 1 : c->bottom - 1, to = is_up ? 8 : -8;
  const stroke line = {.colour = (ink)(INK_SERIES + look % N_SERIES_INKS), .width = 1.5};
  picture_area(c->p, INK_PAPER, 1, line, (const double[]){x, y, x + 5, y + to, x - 5, y + to}, 3);
}

static bool is_below(double y, bool is_log) { return y == -INFINITY || (is_log && y <= 0); }

bool chart_has_marks(series y, bool is_log) {
  for (size_t i = 0; i < y.n; i++)
    if (!isfinite(y.v[i]) || is_below(y.v[i], is_log))
      return true;
  return false;
}

void chart_curve(const chart *c, series x, series y, size_t look) {
  const size_t n = x.n < y.n ? x.n : y.n;
  double run[2 * 256] = {0}; /* points of a piece; a longer curve is several pieces that share their ends */
  size_t k = 0;
  stroke with = chart_stroke(look);
  if (n > DENSE)
    with.width = 1;
  double arrow = -1e9; /* where the last one stands: they don't cover each other */
  for (size_t i = 0; i < n; i++) {
    const bool on_axis = isfinite(x.v[i]) && (!c->x.is_log || x.v[i] > 0);
    const bool is_low = is_below(y.v[i], c->y.is_log);
    if (on_axis && isfinite(y.v[i]) && !is_low) {
      if (k == 256) {
        picture_line(c->p, with, run, k);
        run[0] = run[510];
        run[1] = run[511];
        k = 1;
      }
      run[2 * k] = chart_x(c, x.v[i]);
      run[2 * k++ + 1] = chart_y(c, y.v[i]);
      continue;
    }
    picture_line(c->p, with, run, k);
    k = 0;
    if (on_axis && !isnan(y.v[i]) && chart_x(c, x.v[i]) - arrow >= 9) {
      arrow = chart_x(c, x.v[i]);
      draw_arrow(c, arrow, !is_low, look);
    }
  }
  picture_line(c->p, with, run, k);
  for (size_t i = 0; i < n && n <= MOST_MARKERS; i++)
    if (isfinite(x.v[i]) && isfinite(y.v[i]) && !is_below(y.v[i], c->y.is_log) && (!c->x.is_log || x.v[i] > 0))
      chart_marker(c->p, look, chart_x(c, x.v[i]), chart_y(c, y.v[i]), 3);
}

static double legend(picture *p, double left, double right, double y, const char *const *names, size_t n) {
  double x = left, row = y;
  for (size_t i = 0; i < n; i++) {
    const double width = LEGEND_LINE + 8 + picture_text_width(names[i], TEXT_SIZE) + 16;
    if (x > left && x + width > right) {
      x = left;
      row += LEGEND_ROW;
    }
    if (p) {
      picture_segment(p, chart_stroke(i), x, row + 8, x + LEGEND_LINE, row + 8);
      chart_marker(p, i, x + LEGEND_LINE / 2, row + 8, 3);
      picture_text(p, (lettering){.colour = INK_TEXT, .size = TEXT_SIZE}, x + LEGEND_LINE + 7, row + 12, names[i]);
    }
    x += width;
  }
  return n ? row + LEGEND_ROW - y : 0;
}

double chart_legend(picture *p, double left, double right, double y, const char *const *names, size_t n) {
  return legend(p, left, right, y, names, n);
}

double chart_legend_height(double left, double right, const char *const *names, size_t n) {
  return legend(NULL, left, right, 0, names, n);
}
