/* SPDX-License-Identifier: Apache-2.0 */
/* A curve drawn with characters: braille dots, eight to a character, or plain ASCII. */
#ifndef CURVE_H
#define CURVE_H
#include <stdbool.h>
#include <stddef.h>

#define CURVE_LABEL 8 /* columns in front of the curve: "  4.18 ┤" */
#define CURVE_MOST_COLUMNS 100
#define CURVE_MOST_ROWS 8

typedef struct curve_data {
  const double *values, *marks; /* [n], NaN: none there; marks, points beside the curve, may be NULL */
  size_t n;
  double line;        /* a value that is drawn as a line, where it is in the picture; NaN: none */
  bool shows_line;    /* the picture reaches to it where it is near */
  const char *colour; /* of SGR: "36" */
  int columns, rows;  /* with the label */
} curve_data;

typedef struct curve_style {
  bool colour, braille;
} curve_style;

/* A text that grows up to its size; what does not fit is left out. */
typedef struct curve_text {
  char *text;
  size_t length, size;
} curve_text;
void curve_append(curve_text *to, const char *text);
/* The text under SGR's numbers, or as it is where they are NULL. */
void curve_append_in(curve_text *to, const char *colours, const char *text);

/* A picture of `rows` rows, to be written one at a time. */
typedef struct curve_picture {
  int columns, rows; /* of the curve itself */
  unsigned char dots[CURVE_MOST_ROWS][CURVE_MOST_COLUMNS], marks[CURVE_MOST_ROWS][CURVE_MOST_COLUMNS];
  double least, greatest;
  int line; /* the row of the line, or -1 */
  bool empty, logarithmic;
  curve_style style;
  const char *colour;
} curve_picture;
curve_picture curve_draw(const curve_data *c, curve_style style);
/* Exactly as many columns as the curve was asked for. */
void curve_append_row(curve_text *to, const curve_picture *p, int row);

#endif
