/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A picture as a list of shapes, written as SVG or as PNG. Colours are named by what they are for, so that an SVG
 * follows the reader's choice of light or dark. Places and sizes are pixels from the upper left corner. Where memory
 * ends the picture is marked failed, later shapes are dropped, and writing it fails.
 */
#ifndef PICTURE_H
#define PICTURE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef enum ink {
  INK_NONE,
  INK_PAPER,
  INK_TEXT,
  INK_MUTED, /* of axes and their labels */
  INK_GRID,
  INK_STABLE,
  INK_UNSTABLE,
  INK_COOL, /* values above 0, by opacity */
  INK_WARM, /* values below 0, by opacity */
  INK_SERIES,
  N_SERIES_INKS = 8,
  N_INKS = INK_SERIES + N_SERIES_INKS
} ink;

typedef enum anchor { ANCHOR_START, ANCHOR_MIDDLE, ANCHOR_END } anchor;

typedef struct stroke {
  ink colour;
  double width;
  int dash; /* 0: none; 1 to 3: patterns, told apart without colours */
  double opacity;
} stroke;

typedef struct lettering {
  ink colour;
  double size;
  anchor anchor;
  bool upwards, is_bold, is_mono; /* upwards: turned to be read from below */
} lettering;

enum { SHAPE_LINE, SHAPE_AREA, SHAPE_CIRCLE, SHAPE_RECT, SHAPE_TEXT };
typedef struct shape {
  int kind;
  ink fill;
  double opacity; /* of the fill */
  stroke stroke;
  lettering lettering;
  size_t first, n; /* of points: x and y each; of a circle centre and radius, of a rectangle corner and size */
  size_t text;     /* 1 + where a text or a tooltip begins, or 0 */
} shape;

typedef struct picture {
  double width, height;
  char *name, *title; /* a name fit for a file and for an id; what the picture is of */
  char *description;  /* for who does not see it */
  shape *shapes;
  size_t n_shapes, most_shapes;
  double *points;
  size_t n_points, most_points;
  char *texts;
  size_t n_texts, most_texts;
  bool failed;
} picture;

/* NULL: no memory. name, title and description are copied. */
picture *picture_new(double width, double height, const char *name, const char *title, const char *description);
void picture_free(picture *p);

/* n points x, y. */
void picture_line(picture *p, stroke with, const double *xy, size_t n);
void picture_area(picture *p, ink fill, double opacity, stroke with, const double *xy, size_t n);
void picture_segment(picture *p, stroke with, double x1, double y1, double x2, double y2);
void picture_circle(picture *p, ink fill, stroke with, double x, double y, double r);
/* tooltip may be NULL. */
void picture_rect(picture *p, ink fill, double opacity, double x, double y, double w, double h, const char *tooltip);
void picture_text(picture *p, lettering with, double x, double y, const char *text);

/* About how wide a text is, no narrower than in the fonts that are common. */
double picture_text_width(const char *text, double size);

/*
 * The next character of `text` as UTF-8 that XML, HTML and cairo take: a control character as a space, what is no
 * character as U+FFFD. What is left of a character that was cut off gives "". How many bytes it took, 0 at the end.
 */
size_t next_character(const char *text, char character[5]);
/* `text` as it stands inside elements and quoted attributes of XML and HTML. */
void write_escaped(FILE *out, const char *text);

/* The rules of light and dark, which an SVG of its own carries and a page has once. */
void picture_write_style(FILE *out);
/* is_alone: with its own style, else as a part of a page. false: no memory was there for the whole picture. */
bool picture_write_svg(const picture *p, FILE *out, bool is_alone);

/* Red, green and blue, 0 to 255, on a light page. */
typedef struct rgb {
  unsigned char r, g, b;
} rgb;
rgb ink_colour(ink i);

#endif
