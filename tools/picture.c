/* SPDX-License-Identifier: Apache-2.0 */
#include "picture.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

picture *picture_new(double width, double height, const char *name, const char *title, const char *description) {
  picture *p = calloc(1, sizeof *p);
  if (!p)
    return NULL;
  *p = (picture){.width = width,
                 .height = height,
                 .name = strdup(name),
                 .title = strdup(title),
                 .description = strdup(description)};
  if (p->name && p->title && p->description)
    return p;
  picture_free(p);
  return NULL;
}

void picture_free(picture *p) {
  if (!p)
    return;
  free(p->name);
  free(p->title);
  free(p->description);
  free(p->shapes);
  free(p->points);
  free(p->texts);
  free(p);
}

/* Room for `more` entries behind the `n` that are there; false: the picture is marked failed. */
static bool grow(picture *p, void **array, size_t *most, size_t n, size_t more, size_t size) {
  if (p->failed)
    return false;
  if (more <= *most - n)
    return true;
  const size_t wanted = (n + more) * 2 + 64;
  void *larger = wanted > SIZE_MAX / size ? NULL : realloc(*array, wanted * size);
  if (!larger) {
    p->failed = true;
    return false;
  }
  *array = larger;
  *most = wanted;
  return true;
}

/* Of a byte that begins a character: how many bytes that has; 0: it begins none. */
static size_t bytes_of(unsigned char first) {
  return first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
}

size_t next_character(const char *text, char character[5]) {
  const unsigned char *c = (const unsigned char *)text;
  const size_t n = bytes_of(*c);
  uint32_t code = n < 2 ? *c : *c & (0x7fU >> n);
  size_t found = 1;
  for (; found < n && (c[found] & 0xc0) == 0x80; found++)
    code = code << 6 | (c[found] & 0x3fU);
  if (!*c || found < n || n == 0) {
    character[0] = '\0';
    return *c ? found : 0;
  }
  /* Embeddings and overrides of direction would turn around what stands behind them. */
  const bool turns = (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
  const bool is_none = turns || (code & 0xfffe) == 0xfffe || (code >= 0xfdd0 && code <= 0xfdef) ||
                       (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff;
  if (code < ' ' && code != '\n' && code != '\t')
    snprintf(character, 5, " ");
  else if (is_none)
    snprintf(character, 5, "\xef\xbf\xbd");
  else
    snprintf(character, 5, "%.*s", (int)n, text);
  return n;
}

/* A copy that pictures take, no longer than three bytes for each of the text's. NULL: no memory. */
static char *clean(const char *text) {
  char *copy = malloc(3 * strlen(text) + 1);
  size_t used = 0;
  char character[5];
  for (size_t n; copy && (n = next_character(text, character)) > 0; text += n)
    for (const char *c = character; *c; c++)
      copy[used++] = *c == '\n' || *c == '\t' ? ' ' : *c;
  if (copy)
    copy[used] = '\0';
  return copy;
}

static void add(picture *p, shape s, const double *numbers, size_t n_numbers, const char *text) {
  const size_t length = text ? strlen(text) + 1 : 0;
  void *shapes = p->shapes, *points = p->points, *texts = p->texts;
  const bool fits = grow(p, &shapes, &p->most_shapes, p->n_shapes, 1, sizeof *p->shapes);
  p->shapes = shapes;
  const bool points_fit = fits && grow(p, &points, &p->most_points, p->n_points, n_numbers, sizeof *p->points);
  p->points = points;
  const bool texts_fit = points_fit && grow(p, &texts, &p->most_texts, p->n_texts, length, 1);
  p->texts = texts;
  if (!texts_fit)
    return;
  s.first = p->n_points;
  s.text = text ? p->n_texts + 1 : 0;
  memcpy(p->points + p->n_points, numbers, n_numbers * sizeof *numbers);
  if (text)
    memcpy(p->texts + p->n_texts, text, length);
  p->n_points += n_numbers;
  p->n_texts += length;
  p->shapes[p->n_shapes++] = s;
}

/* The same with any text, or NULL. */
static void add_text(picture *p, shape s, const double *numbers, size_t n_numbers, const char *text) {
  char *copy = text ? clean(text) : NULL;
  if (text && !copy)
    p->failed = true;
  add(p, s, numbers, n_numbers, copy);
  free(copy);
}

void picture_line(picture *p, stroke with, const double *xy, size_t n) {
  if (n > 0)
    add(p, (shape){.kind = SHAPE_LINE, .stroke = with, .n = n}, xy, 2 * n, NULL);
}

void picture_area(picture *p, ink fill, double opacity, stroke with, const double *xy, size_t n) {
  if (n > 0)
    add(p, (shape){.kind = SHAPE_AREA, .fill = fill, .opacity = opacity, .stroke = with, .n = n}, xy, 2 * n, NULL);
}

void picture_segment(picture *p, stroke with, double x1, double y1, double x2, double y2) {
  picture_line(p, with, (const double[]){x1, y1, x2, y2}, 2);
}

void picture_circle(picture *p, ink fill, stroke with, double x, double y, double r) {
  add(p, (shape){.kind = SHAPE_CIRCLE, .fill = fill, .opacity = 1, .stroke = with}, (const double[]){x, y, r}, 3, NULL);
}

void picture_rect(picture *p, ink fill, double opacity, double x, double y, double w, double h, const char *tooltip) {
  add_text(p, (shape){.kind = SHAPE_RECT, .fill = fill, .opacity = opacity}, (const double[]){x, y, w, h}, 4, tooltip);
}

void picture_text(picture *p, lettering with, double x, double y, const char *text) {
  add_text(p, (shape){.kind = SHAPE_TEXT, .fill = with.colour, .opacity = 1, .lettering = with}, (const double[]){x, y},
           2, text);
}

double picture_text_width(const char *text, double size) {
  double width = 0;
  for (; *text; text++) {
    const unsigned char c = (unsigned char)*text;
    if ((c & 0xc0) == 0x80) /* a character counts once */
      continue;
    width += strchr("ijl.,:;|'!()[] frtI", c) ? 0.40 : strchr("mwMW@%", c) ? 0.95 : c >= 0xe3 ? 1.0 : 0.64;
  }
  return width * size;
}
