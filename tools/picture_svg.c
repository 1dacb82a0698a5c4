/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "picture.h"

/*
 * Okabe and Ito's colours, which readers who confuse red and green tell apart, made darker on white and lighter on
 * black until lines stand out by 3 to 1 and texts by 4.5 to 1 (WCAG 2.1, 1.4.3 and 1.4.11).
 */
static const struct palette_row {
  rgb light, dark;
} palette[N_INKS] = {
    [INK_PAPER] = {{255, 255, 255}, {22, 25, 29}},        [INK_TEXT] = {{27, 31, 36}, {230, 232, 235}},
    [INK_MUTED] = {{86, 94, 103}, {170, 178, 188}},       [INK_GRID] = {{225, 228, 232}, {52, 58, 66}},
    [INK_STABLE] = {{0, 0, 0}, {244, 245, 246}},          [INK_UNSTABLE] = {{200, 32, 32}, {255, 107, 97}},
    [INK_COOL] = {{0, 98, 168}, {72, 166, 226}},          [INK_WARM] = {{202, 84, 0}, {255, 140, 66}},
    [INK_SERIES + 0] = {{0, 98, 168}, {86, 180, 233}},    [INK_SERIES + 1] = {{202, 84, 0}, {255, 145, 77}},
    [INK_SERIES + 2] = {{0, 128, 96}, {47, 201, 154}},    [INK_SERIES + 3] = {{184, 86, 140}, {232, 156, 198}},
    [INK_SERIES + 4] = {{158, 110, 0}, {240, 190, 70}},   [INK_SERIES + 5] = {{84, 90, 98}, {196, 202, 209}},
    [INK_SERIES + 6] = {{122, 70, 170}, {190, 146, 232}}, [INK_SERIES + 7] = {{98, 104, 0}, {200, 204, 84}},
};

rgb ink_colour(ink i) { return palette[i].light; }

void write_escaped(FILE *out, const char *text) {
  char character[5];
  for (size_t n; (n = next_character(text, character)) > 0; text += n)
    switch (character[0]) {
    case '&': fputs("&amp;", out); break;
    case '<': fputs("&lt;", out); break;
    case '>': fputs("&gt;", out); break;
    case '"': fputs("&quot;", out); break;
    case '\'': fputs("&#39;", out); break;
    default: fputs(character, out);
    }
}

static void write_rules(FILE *out, bool is_dark) {
  for (int i = INK_PAPER; i < N_INKS; i++) {
    const rgb c = is_dark ? palette[i].dark : palette[i].light;
    fprintf(out, ".f%d{fill:#%02x%02x%02x}.s%d{stroke:#%02x%02x%02x}", i, c.r, c.g, c.b, i, c.r, c.g, c.b);
  }
  fputc('\n', out);
}

void picture_write_style(FILE *out) {
  fputs("svg.p{font-family:system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",sans-serif}svg.p .m{font-family:"
        "ui-monospace,\"DejaVu Sans Mono\",monospace;white-space:pre}svg.p .n{fill:none}svg.p .b{font-weight:600}"
        "svg.p *{stroke-linejoin:round;stroke-linecap:round}\n",
        out);
  write_rules(out, false);
  fputs("@media screen and (prefers-color-scheme:dark){\n", out);
  write_rules(out, true);
  fputs("}\n", out);
}

static void write_stroke(FILE *out, const stroke *s) {
  static const char *const dashes[] = {NULL, "7 5", "2 5", "10 4 2 4"};
  if (s->colour == INK_NONE)
    return;
  fprintf(out, " stroke-width=\"%g\"", s->width);
  if (s->dash > 0 && s->dash < 4)
    fprintf(out, " stroke-dasharray=\"%s\"", dashes[s->dash]);
  if (s->opacity > 0 && s->opacity < 1)
    fprintf(out, " stroke-opacity=\"%.2f\"", s->opacity);
}

static void write_class(FILE *out, const shape *s) {
  if (s->fill == INK_NONE)
    fputs(" class=\"n", out);
  else
    fprintf(out, " class=\"f%d", (int)s->fill);
  if (s->stroke.colour != INK_NONE)
    fprintf(out, " s%d", (int)s->stroke.colour);
  if (s->lettering.is_bold)
    fputs(" b", out);
  if (s->lettering.is_mono)
    fputs(" m", out);
  fputc('"', out);
  if (s->fill != INK_NONE && s->opacity < 1)
    fprintf(out, " fill-opacity=\"%.3f\"", s->opacity);
  write_stroke(out, &s->stroke);
}

static void write_points(FILE *out, const double *xy, size_t n, bool is_closed) {
  fputs(" d=\"", out);
  for (size_t i = 0; i < n; i++)
    fprintf(out, "%c%.1f %.1f", i ? 'L' : 'M', xy[2 * i], xy[2 * i + 1]);
  fputs(is_closed ? "Z\"/>\n" : "\"/>\n", out);
}

static void write_text(FILE *out, const shape *s, const double *at, const char *text) {
  static const char *const anchors[] = {"start", "middle", "end"};
  fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%g\" text-anchor=\"%s\"", at[0], at[1], s->lettering.size,
          anchors[s->lettering.anchor]);
  if (s->lettering.upwards)
    fprintf(out, " transform=\"rotate(-90 %.1f %.1f)\"", at[0], at[1]);
  write_class(out, s);
  fputc('>', out);
  write_escaped(out, text);
  fputs("</text>\n", out);
}

static void write_shape(FILE *out, const picture *p, const shape *s) {
  const double *at = p->points + s->first;
  const char *text = s->text ? p->texts + s->text - 1 : NULL;
  switch (s->kind) {
  case SHAPE_LINE:
  case SHAPE_AREA:
    fputs("<path", out);
    write_class(out, s);
    write_points(out, at, s->n, s->kind == SHAPE_AREA);
    break;
  case SHAPE_CIRCLE:
    fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%g\"", at[0], at[1], at[2]);
    write_class(out, s);
    fputs("/>\n", out);
    break;
  case SHAPE_RECT:
    fprintf(out, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"", at[0], at[1], at[2], at[3]);
    write_class(out, s);
    if (text) {
      fputs("><title>", out);
      write_escaped(out, text);
      fputs("</title></rect>\n", out);
    } else {
      fputs("/>\n", out);
    }
    break;
  default: write_text(out, s, at, text ? text : "");
  }
}

bool picture_write_svg(const picture *p, FILE *out, bool is_alone) {
  fprintf(out,
          "<svg%s class=\"p\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" style=\"max-width:%gpx\" "
          "role=\"img\" "
          "aria-labelledby=\"%s-t %s-d\">\n<title id=\"%s-t\">",
          is_alone ? " xmlns=\"http://www.w3.org/2000/svg\"" : "", p->width, p->height, p->width, p->height, p->width,
          p->name, p->name, p->name);
  write_escaped(out, p->title);
  fprintf(out, "</title>\n<desc id=\"%s-d\">", p->name);
  write_escaped(out, p->description);
  fputs("</desc>\n", out);
  if (is_alone) {
    fputs("<style>", out);
    picture_write_style(out);
    fprintf(out, "</style>\n<rect class=\"f%d\" width=\"%g\" height=\"%g\"/>\n", (int)INK_PAPER, p->width, p->height);
  }
  for (size_t i = 0; i < p->n_shapes; i++)
    write_shape(out, p, &p->shapes[i]);
  fputs("</svg>\n", out);
  return !p->failed;
}
