/* SPDX-License-Identifier: Apache-2.0 */
/* Axes with ticks and labels in a rectangle of a picture, and curves, points and bars in them. */
#ifndef CHART_H
#define CHART_H
#include <stdint.h>

#include "picture.h"

/* Of numbers that may be inf or NaN. */
typedef struct series {
  const double *v;
  size_t n;
} series;

typedef enum axis_unit { UNIT_NUMBER, UNIT_BYTES, UNIT_PERCENT } axis_unit;

typedef struct axis {
  bool is_log;
  double low, high; /* of a log axis both above 0; low > high: nothing was fitted yet */
  const char *label;
  axis_unit unit;
} axis;

typedef struct chart {
  picture *p;
  double left, top, right, bottom;
  axis x, y;
  const char *title; /* above the rectangle, or NULL */
} chart;

axis axis_new(const char *label, bool is_log);
/* Widens the axis so that it shows the finite values, on a log axis those above 0. */
void axis_fit(axis *a, series values);
void axis_fit_value(axis *a, double value);
/* Rounds the ends to ticks; an axis to which nothing was fitted shows 0 to 1, or 0.1 to 1. */
void axis_round(axis *a);
/* Widens a linear axis by a part of its length at both ends, without rounding them. */
void axis_pad(axis *a, double part);
/* 10⁻³, 0.25, 1.5 MB: as ticks have it. */
void axis_print(const axis *a, double value, char *text, size_t size);

/* Axes, grid, labels; the second of the horizontal axis alone. */
void chart_draw_axes(const chart *c);
void chart_draw_x_axis(const chart *c);
double chart_x(const chart *c, double value);
double chart_y(const chart *c, double value);

/* How the i-th curve of a chart looks: a colour, and a dash and a marker that tell it from others without one. */
stroke chart_stroke(size_t i);
/*
 * A curve through the points; gaps where a value is NaN. What can't be shown stands at the edge: a triangle that points
 * up for infinity, one that points down for 0 and below on a log axis and for minus infinity. Markers where there are
 * few points.
 */
void chart_curve(const chart *c, series x, series y, size_t look);
/* A marker of the i-th look around a point. */
void chart_marker(picture *p, size_t look, double x, double y, double r);
/* Entries in rows from (left, y) on, each with its look. Returns the height. */
double chart_legend(picture *p, double left, double right, double y, const char *const *names, size_t n);
/* The height of the same, without drawing it. */
double chart_legend_height(double left, double right, const char *const *names, size_t n);

/* Does a curve of these values have something at an edge or a gap? Then its caption says what that means. */
bool chart_has_marks(series y, bool is_log);

#endif
