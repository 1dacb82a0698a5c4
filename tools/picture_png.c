/* SPDX-License-Identifier: Apache-2.0 */
#include "picture_png.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME "libcairo.so.2"
#define SCALE 2.0
#define PI 3.14159265358979323846

/* Of cairo 1.2 and later: what cairo.h has of the functions that are called. */
typedef struct cairo cairo;
typedef struct cairo_surface cairo_surface;
typedef struct cairo_extents {
  double x_bearing, y_bearing, width, height, x_advance, y_advance;
} cairo_extents;
enum {
  CAIRO_FORMAT_RGB24 = 1,
  CAIRO_SLANT_NORMAL = 0,
  CAIRO_WEIGHT_NORMAL = 0,
  CAIRO_WEIGHT_BOLD = 1,
  CAIRO_ROUND = 1
};

struct png_writer {
  cairo_surface *(*image_surface_create)(int format, int width, int height);
  int (*surface_status)(cairo_surface *);
  int (*surface_write_to_png)(cairo_surface *, const char *path);
  void (*surface_destroy)(cairo_surface *);
  const char *(*status_to_string)(int);
  cairo *(*create)(cairo_surface *);
  int (*status)(cairo *);
  void (*destroy)(cairo *);
  void (*save)(cairo *);
  void (*restore)(cairo *);
  void (*scale)(cairo *, double x, double y);
  void (*rotate)(cairo *, double angle);
  void (*translate)(cairo *, double x, double y);
  void (*set_source_rgba)(cairo *, double r, double g, double b, double a);
  void (*paint)(cairo *);
  void (*move_to)(cairo *, double x, double y);
  void (*line_to)(cairo *, double x, double y);
  void (*close_path)(cairo *);
  void (*new_path)(cairo *);
  void (*arc)(cairo *, double x, double y, double r, double from, double to);
  void (*rectangle)(cairo *, double x, double y, double w, double h);
  void (*fill_preserve)(cairo *);
  void (*stroke)(cairo *);
  void (*set_line_width)(cairo *, double);
  void (*set_line_cap)(cairo *, int);
  void (*set_line_join)(cairo *, int);
  void (*set_dash)(cairo *, const double *lengths, int n, double offset);
  void (*select_font_face)(cairo *, const char *family, int slant, int weight);
  void (*set_font_size)(cairo *, double);
  void (*show_text)(cairo *, const char *utf8);
  void (*text_extents)(cairo *, const char *utf8, cairo_extents *);
  void *handle;
};

/* In the order of the members above. */
static const char *const names[] = {"cairo_image_surface_create",
                                    "cairo_surface_status",
                                    "cairo_surface_write_to_png",
                                    "cairo_surface_destroy",
                                    "cairo_status_to_string",
                                    "cairo_create",
                                    "cairo_status",
                                    "cairo_destroy",
                                    "cairo_save",
                                    "cairo_restore",
                                    "cairo_scale",
                                    "cairo_rotate",
                                    "cairo_translate",
                                    "cairo_set_source_rgba",
                                    "cairo_paint",
                                    "cairo_move_to",
                                    "cairo_line_to",
                                    "cairo_close_path",
                                    "cairo_new_path",
                                    "cairo_arc",
                                    "cairo_rectangle",
                                    "cairo_fill_preserve",
                                    "cairo_stroke",
                                    "cairo_set_line_width",
                                    "cairo_set_line_cap",
                                    "cairo_set_line_join",
                                    "cairo_set_dash",
                                    "cairo_select_font_face",
                                    "cairo_set_font_size",
                                    "cairo_show_text",
                                    "cairo_text_extents"};
#define N_NAMES (sizeof names / sizeof names[0])
_Static_assert(sizeof(struct png_writer) == (N_NAMES + 1) * sizeof(void *), "a name for every function");

png_writer *png_writer_open(char *why, size_t size) {
  png_writer *w = calloc(1, sizeof *w);
  if (!w) {
    snprintf(why, size, "out of memory");
    return NULL;
  }
  w->handle = dlopen(FILE_NAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!w->handle) {
    const char *const error = dlerror();
    snprintf(why, size, "cairo can't be loaded: %s", error ? error : FILE_NAME);
    free(w);
    return NULL;
  }
  for (size_t i = 0; i < N_NAMES; i++) {
    void *const found = dlsym(w->handle, names[i]);
    if (!found) {
      snprintf(why, size, "%s has no %s", FILE_NAME, names[i]);
      png_writer_close(w);
      return NULL;
    }
    /* POSIX has dlsym's pointers mean functions too, ISO C lets no cast say so. */
    memcpy((char *)w + i * sizeof found, &found, sizeof found);
  }
  return w;
}

void png_writer_close(png_writer *w) {
  if (!w)
    return;
  dlclose(w->handle);
  free(w);
}

static void set_ink(const png_writer *w, cairo *c, ink i, double opacity) {
  const rgb k = ink_colour(i);
  w->set_source_rgba(c, k.r / 255.0, k.g / 255.0, k.b / 255.0, opacity);
}

static void paint_path(const png_writer *w, cairo *c, const shape *s) {
  static const double dashes[4][4] = {{0}, {7, 5}, {2, 5}, {10, 4, 2, 4}};
  static const int lengths[] = {0, 2, 2, 4};
  if (s->fill != INK_NONE) {
    set_ink(w, c, s->fill, s->opacity);
    w->fill_preserve(c);
  }
  if (s->stroke.colour != INK_NONE) {
    const int dash = s->stroke.dash > 0 && s->stroke.dash < 4 ? s->stroke.dash : 0;
    set_ink(w, c, s->stroke.colour, s->stroke.opacity > 0 ? s->stroke.opacity : 1);
    w->set_line_width(c, s->stroke.width);
    w->set_dash(c, dashes[dash], lengths[dash], 0);
    w->stroke(c);
  }
  w->new_path(c);
}

static void paint_text(const png_writer *w, cairo *c, const shape *s, const double *at, const char *text) {
  const lettering *l = &s->lettering;
  w->select_font_face(c, l->is_mono ? "monospace" : "sans-serif", CAIRO_SLANT_NORMAL,
                      l->is_bold ? CAIRO_WEIGHT_BOLD : CAIRO_WEIGHT_NORMAL);
  w->set_font_size(c, l->size);
  cairo_extents size = {0};
  w->text_extents(c, text, &size);
  w->save(c);
  w->translate(c, at[0], at[1]);
  if (l->upwards)
    w->rotate(c, -PI / 2);
  w->move_to(c, l->anchor == ANCHOR_START ? 0 : l->anchor == ANCHOR_MIDDLE ? -size.x_advance / 2 : -size.x_advance, 0);
  set_ink(w, c, s->fill, 1);
  w->show_text(c, text);
  w->new_path(c);
  w->restore(c);
}

static void paint(const png_writer *w, cairo *c, const picture *p, const shape *s) {
  const double *at = p->points + s->first;
  switch (s->kind) {
  case SHAPE_TEXT: paint_text(w, c, s, at, s->text ? p->texts + s->text - 1 : ""); return;
  case SHAPE_CIRCLE: w->arc(c, at[0], at[1], at[2], 0, 2 * PI); break;
  case SHAPE_RECT: w->rectangle(c, at[0], at[1], at[2], at[3]); break;
  default:
    w->move_to(c, at[0], at[1]);
    for (size_t i = 1; i < s->n; i++)
      w->line_to(c, at[2 * i], at[2 * i + 1]);
    if (s->kind == SHAPE_AREA)
      w->close_path(c);
  }
  paint_path(w, c, s);
}

bool png_writer_write(png_writer *w, const picture *p, const char *path, char *why, size_t size) {
  if (p->failed) {
    snprintf(why, size, "out of memory");
    return false;
  }
  cairo_surface *const surface =
      w->image_surface_create(CAIRO_FORMAT_RGB24, (int)(p->width * SCALE), (int)(p->height * SCALE));
  int status = w->surface_status(surface);
  if (status == 0) {
    cairo *const c = w->create(surface);
    w->scale(c, SCALE, SCALE);
    set_ink(w, c, INK_PAPER, 1);
    w->paint(c);
    w->set_line_cap(c, CAIRO_ROUND);
    w->set_line_join(c, CAIRO_ROUND);
    for (size_t i = 0; i < p->n_shapes; i++)
      paint(w, c, p, &p->shapes[i]);
    status = w->status(c);
    w->destroy(c);
  }
  if (status == 0)
    status = w->surface_write_to_png(surface, path);
  w->surface_destroy(surface);
  if (status != 0)
    snprintf(why, size, "cannot write %s: %s", path, w->status_to_string(status));
  return status == 0;
}
