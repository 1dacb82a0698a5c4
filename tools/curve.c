/* SPDX-License-Identifier: Apache-2.0 */
#include "curve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From so large a ratio on a scale of ratios shows more. */
#define LOGARITHMIC_FROM 20
#define DIM "2"

/* ---- text ---- */

void curve_append(curve_text *to, const char *text) {
  const size_t n = strlen(text);
  if (n >= to->size - to->length)
    return;
  memcpy(to->text + to->length, text, n + 1);
  to->length += n;
}

void curve_append_in(curve_text *to, const char *colours, const char *text) {
  char begin[24] = "";
  if (colours)
    snprintf(begin, sizeof begin, "\033[%sm", colours);
  curve_append(to, begin);
  curve_append(to, text);
  curve_append(to, colours ? "\033[0m" : "");
}

/* ---- dots ---- */

/* Dots of a character. */
static int dots_across(const curve_picture *p) { return p->style.braille ? 2 : 1; }
static int dots_down(const curve_picture *p) { return p->style.braille ? 4 : 2; }

static void set_dot(curve_picture *p, int x, int y) {
  static const unsigned char braille[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
  const int across = dots_across(p), down = dots_down(p);
  if (x < 0 || y < 0 || x >= p->columns * across || y >= p->rows * down)
    return;
  const unsigned dot = p->style.braille ? braille[y % 4][x % 2] : 1u << y % 2;
  p->dots[y / down][x / across] = (unsigned char)(p->dots[y / down][x / across] | dot);
}

/* Bresenham's line. */
static void draw_line(curve_picture *p, int x0, int y0, int x1, int y1) {
  const int dx = abs(x1 - x0), dy = -abs(y1 - y0), sx = x0 < x1 ? 1 : -1, sy = y0 < y1 ? 1 : -1;
  int error = dx + dy;
  for (;;) {
    set_dot(p, x0, y0);
    if (x0 == x1 && y0 == y1)
      return;
    const int twice = 2 * error;
    if (twice >= dy) {
      error += dy;
      x0 += sx;
    }
    if (twice <= dx) {
      error += dx;
      y0 += sy;
    }
  }
}

/* ---- from values to dots ---- */

/* The i-th of m points: where there are more values, the mean of its share of them. NaN: none. */
static double point(const double *values, size_t n, size_t m, size_t i) {
  double sum = 0;
  int count = 0;
  for (size_t k = i * n / m; k < (i + 1) * n / m; k++)
    if (isfinite(values[k])) {
      sum += values[k];
      count++;
    }
  return count ? sum / count : (double)NAN;
}

static void find_range(curve_picture *p, const double *values, size_t n, size_t m) {
  for (size_t i = 0; i < m; i++) {
    const double x = point(values, n, m, i);
    if (isnan(x))
      continue;
    p->least = p->empty ? x : fmin(p->least, x);
    p->greatest = p->empty ? x : fmax(p->greatest, x);
    p->empty = false;
  }
}

/* From 0, the greatest, to 1, the least. */
static double depth(const curve_picture *p, double x) {
  if (p->greatest <= p->least)
    return 0.5;
  if (p->logarithmic)
    return log(p->greatest / x) / log(p->greatest / p->least);
  return (p->greatest - x) / (p->greatest - p->least);
}

static int row_of_dots(const curve_picture *p, double x) {
  return (int)lround(depth(p, x) * (p->rows * dots_down(p) - 1));
}

static void draw_values(curve_picture *p, const curve_data *c, size_t m) {
  const int width = p->columns * dots_across(p);
  int x0 = -1, y0 = 0;
  for (size_t i = 0; i < m; i++) {
    const double value = point(c->values, c->n, m, i);
    if (isnan(value))
      continue;
    const int x = m > 1 ? (int)lround((double)i * (width - 1) / (double)(m - 1)) : 0;
    const int y = row_of_dots(p, value);
    draw_line(p, x0 < 0 ? x : x0, x0 < 0 ? y : y0, x, y);
    x0 = x;
    y0 = y;
  }
}

static void draw_marks(curve_picture *p, const curve_data *c, size_t m) {
  for (size_t i = 0; i < m; i++) {
    const double value = point(c->marks, c->n, m, i);
    if (isnan(value))
      continue;
    const int x = m > 1 ? (int)lround((double)i * (p->columns - 1) / (double)(m - 1)) : 0;
    p->marks[row_of_dots(p, value) / dots_down(p)][x] = 1;
  }
}

static int at_most(int value, int most) { return value < most ? value : most; }

curve_picture curve_draw(const curve_data *c, curve_style style) {
  curve_picture p = {.columns = at_most(c->columns - CURVE_LABEL, CURVE_MOST_COLUMNS),
                     .rows = at_most(c->rows, CURVE_MOST_ROWS),
                     .line = -1,
                     .empty = true,
                     .style = style,
                     .colour = style.colour ? c->colour : NULL};
  if (p.columns < 1 || p.rows < 1 || c->n == 0)
    return p;
  const size_t width = (size_t)(p.columns * dots_across(&p)), m = c->n < width ? c->n : width;
  const size_t marks = c->n < (size_t)p.columns ? c->n : (size_t)p.columns;
  find_range(&p, c->values, c->n, m);
  if (c->marks)
    find_range(&p, c->marks, c->n, marks);
  if (p.empty)
    return p;
  const double reach = p.greatest - p.least + 0.1 * fabs(c->line);
  if (c->shows_line && c->line > p.greatest - reach - reach && c->line < p.least + reach + reach) {
    p.least = fmin(p.least, c->line);
    p.greatest = fmax(p.greatest, c->line);
  }
  p.logarithmic = p.least > 0 && p.greatest / p.least > LOGARITHMIC_FROM;
  if (c->line >= p.least && c->line <= p.greatest && p.greatest > p.least)
    p.line = row_of_dots(&p, c->line) / dots_down(&p);
  draw_values(&p, c, m);
  if (c->marks)
    draw_marks(&p, c, marks);
  return p;
}

/* ---- rows ---- */

/* As exactly as it fits in front of the axis. */
static void print_number(char *text, size_t size, double x) {
  int digits = 3;
  do
    snprintf(text, size, "%.*g", digits, x);
  while (strlen(text) > CURVE_LABEL - 2 && digits-- > 1);
}

static void append_label(curve_text *to, const curve_picture *p, int row) {
  char number[32] = "", label[48];
  const bool ends = row == 0 || row == p->rows - 1;
  if (!p->empty && ends && (row == 0 || p->greatest > p->least))
    print_number(number, sizeof number, row == 0 ? p->greatest : p->least);
  else if (p->logarithmic && row == p->rows / 2)
    strcpy(number, "log");
  const char *const axis = p->style.braille ? (ends ? "┤" : "│") : "|";
  snprintf(label, sizeof label, "%*.*s %s", CURVE_LABEL - 2, CURVE_LABEL - 2, number, axis);
  curve_append_in(to, p->style.colour ? DIM : NULL, label);
}

static void append_cell(curve_text *to, const curve_picture *p, int row, int column) {
  const unsigned char dots = p->dots[row][column];
  if (p->style.braille) {
    const char utf8[] = {(char)0xE2, (char)(0xA0 | dots >> 6), (char)(0x80 | (dots & 0x3F)), '\0'};
    curve_append(to, utf8);
  } else
    curve_append(to, (const char *[]){" ", "'", ".", ":"}[dots]);
}

/* What a character shows: runs of the same kind share their colour. */
enum kind { KIND_EMPTY, KIND_LINE, KIND_DOTS, KIND_MARK };

static enum kind kind_of(const curve_picture *p, int row, int column) {
  return p->marks[row][column] ? KIND_MARK : p->dots[row][column] ? KIND_DOTS : row == p->line ? KIND_LINE : KIND_EMPTY;
}

void curve_append_row(curve_text *to, const curve_picture *p, int row) {
  append_label(to, p, row);
  enum kind before = KIND_EMPTY;
  for (int i = 0; i < p->columns; i++) {
    const enum kind kind = kind_of(p, row, i);
    if (kind != before && p->style.colour) {
      curve_append(to, before == KIND_EMPTY ? "" : "\033[0m");
      curve_append(to, kind == KIND_MARK ? "\033[1m" : kind == KIND_LINE ? "\033[2m" : "");
      if (kind == KIND_DOTS) {
        char colour[24];
        snprintf(colour, sizeof colour, "\033[%sm", p->colour);
        curve_append(to, colour);
      }
    }
    before = kind;
    if (kind == KIND_MARK)
      curve_append(to, "o");
    else if (kind == KIND_LINE)
      curve_append(to, p->style.braille ? "┄" : "-");
    else if (kind == KIND_EMPTY)
      curve_append(to, " ");
    else
      append_cell(to, p, row, i);
  }
  if (before != KIND_EMPTY && p->style.colour)
    curve_append(to, "\033[0m");
}
