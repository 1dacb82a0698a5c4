/* SPDX-License-Identifier: Apache-2.0 */
/* The activity of hidden units over a text: coloured characters, in the manner of Karpathy, Johnson & Li 2016. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "report_page.h"

#define PICTURE_UNITS 6
#define PICTURE_LINES 4
#define LETTER 7.25 /* width of a letter, at 12 pixels */
#define GAP 5.0
#define LINE 19.0
#define MOST_TOKENS 4000
#define MOST_UNITS 96
#define STRONGEST 0.5 /* opacity, at which texts stand out by 4.5 to 1 from both colours, light and dark */

struct units {
  const char *layer, *const *tokens;
  size_t n_tokens, n_units;
  const double *activity;
  series index;
  double scale;  /* the largest activity */
  bool has_gaps; /* tokens are more than characters: what is between them is shown */
  size_t *order; /* of units, those first that vary most */
};

static double activity(const struct units *u, size_t unit, size_t token) {
  const double a = u->activity[unit * u->n_tokens + token] / u->scale;
  return isnan(a) ? 0 : a < -1 ? -1 : a > 1 ? 1 : a;
}

struct ranked {
  double variance;
  size_t unit;
};

static int more_first(const void *a, const void *b) {
  const struct ranked *x = a, *y = b;
  return x->variance > y->variance ? -1 : x->variance < y->variance ? 1 : x->unit < y->unit ? -1 : 1;
}

static void rank(fields *f, struct units *u) {
  struct ranked *r = fields_alloc(f, u->n_units, sizeof *r);
  u->order = fields_alloc(f, u->n_units, sizeof *u->order);
  u->scale = 0;
  for (size_t i = 0; i < u->n_units * u->n_tokens; i++)
    if (isfinite(u->activity[i]))
      u->scale = fmax(u->scale, fabs(u->activity[i]));
  if (!(u->scale > 0))
    u->scale = 1;
  for (size_t i = 0; r && u->order && i < u->n_units; i++) {
    double sum = 0, squares = 0;
    for (size_t t = 0; t < u->n_tokens; t++) {
      const double a = activity(u, i, t);
      sum += a;
      squares += a * a;
    }
    r[i] =
        (struct ranked){squares / (double)u->n_tokens - (sum / (double)u->n_tokens) * (sum / (double)u->n_tokens), i};
  }
  if (!r || !u->order)
    return;
  qsort(r, u->n_units, sizeof *r, more_first);
  for (size_t i = 0; i < u->n_units; i++)
    u->order[i] = r[i].unit;
}

static size_t letters_of(const char *text) {
  size_t n = 0;
  for (; *text; text++)
    n += ((unsigned char)*text & 0xc0) != 0x80;
  return n;
}

/* Has the text tokens of several letters, and of some nothing that tells where they end? */
static bool needs_gaps(const struct units *u) {
  bool has_words = false;
  for (size_t t = 0; t < u->n_tokens; t++) {
    const size_t n = strlen(u->tokens[t]);
    if (n > 1 && (strchr(" \n", u->tokens[t][0]) || strchr(" \n", u->tokens[t][n - 1])))
      return false;
    has_words = has_words || letters_of(u->tokens[t]) > 1;
  }
  return has_words;
}

/* The text in the colours of one unit, from y on. */
static void draw_unit(picture *p, const struct units *u, size_t unit, double y) {
  const lettering l = {.colour = INK_TEXT, .size = 12, .is_mono = true};
  double x = 92;
  int line = 0;
  char label[48];
  snprintf(label, sizeof label, "unit %.0f", u->index.v[unit]);
  picture_text(p, (lettering){.colour = INK_TEXT, .size = 12, .is_bold = true}, 8, y + 13, label);
  for (size_t t = 0; t < u->n_tokens; t++) {
    const char *shown = strcmp(u->tokens[t], "\n") == 0 ? "↵" : u->tokens[t];
    const double width = LETTER * (double)letters_of(shown), a = activity(u, unit, t);
    if (x + width > PAGE_WIDTH - 6) {
      x = 92;
      if (++line == PICTURE_LINES)
        return;
    }
    picture_rect(p, a < 0 ? INK_WARM : INK_COOL, fabs(a) * STRONGEST, x, y + LINE * line, width, LINE - 3, NULL);
    if (strcmp(shown, " ") != 0)
      picture_text(p, l, x, y + LINE * line + 12, shown);
    x += width + (u->has_gaps ? GAP : 0);
  }
}

static void draw(report_page *pg, const struct units *u) {
  const size_t n = u->n_units < PICTURE_UNITS ? u->n_units : PICTURE_UNITS;
  const double block = LINE * PICTURE_LINES + 12;
  picture *p =
      picture_new(PAGE_WIDTH, 58 + block * (double)n, "units", "Hidden units over text",
                  "The beginning of the text once for each of the units that vary most, every token on a colour: "
                  "blue above 0, orange below, the stronger the more active.");
  if (p) {
    const lettering l = {.colour = INK_TEXT, .size = 12};
    char title[128];
    snprintf(title, sizeof title, "Hidden units over text, layer %.60s", u->layer);
    picture_text(p, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, 8, 17, title);
    for (int i = -4; i <= 4; i++)
      picture_rect(p, i < 0 ? INK_WARM : INK_COOL, abs(i) / 4.0 * STRONGEST, 128 + 22 * (i + 4), 28, 22, 14, NULL);
    snprintf(title, sizeof title, "−%.3g", u->scale);
    picture_text(p, (lettering){.colour = INK_TEXT, .size = 12, .anchor = ANCHOR_END}, 122, 40, title);
    snprintf(title, sizeof title, "+%.3g", u->scale);
    picture_text(p, l, 332, 40, title);
    for (size_t i = 0; i < n; i++)
      draw_unit(p, u, u->order[i], 56 + block * (double)i);
  }
  page_figure(pg, p, "The units that vary most, over the beginning of the text: blue above 0, orange below.");
  page_figure_end(pg);
}

static void write_script_text(FILE *out, const char *text) {
  fputc('"', out);
  for (const unsigned char *c = (const unsigned char *)text; *c; c++)
    if (*c < ' ' || strchr("\"\\<>&", *c))
      fprintf(out, "\\u%04x", *c);
    else
      fputc(*c, out);
  fputc('"', out);
}

static void write_data(report_page *pg, const struct units *u, size_t tokens, size_t units) {
  fprintf(pg->out, "<script type=\"application/json\" id=\"unit-data\">{\"scale\":%.6g,\"gaps\":%s,\"tokens\":[",
          u->scale, u->has_gaps ? "true" : "false");
  for (size_t t = 0; t < tokens; t++) {
    fputs(t ? "," : "", pg->out);
    write_script_text(pg->out, u->tokens[t]);
  }
  fputs("],\"unit\":[", pg->out);
  for (size_t i = 0; i < units; i++)
    fprintf(pg->out, "%s%.0f", i ? "," : "", u->index.v[u->order[i]]);
  fputs("],\"activity\":[", pg->out);
  for (size_t i = 0; i < units; i++) {
    fputs(i ? ",\n[" : "\n[", pg->out);
    for (size_t t = 0; t < tokens; t++)
      fprintf(pg->out, "%s%d", t ? "," : "", (int)lround(100 * activity(u, u->order[i], t)));
    fputc(']', pg->out);
  }
  fputs("]}</script>\n", pg->out);
}

void section_units(report_page *pg, fields *f, const json_t *json) {
  struct units u = {0};
  size_t rows, columns;
  fields_enter(f, "units");
  u.layer = field_text(f, json, "layer");
  u.tokens = field_texts(f, json, "tokens", &u.n_tokens);
  u.activity = field_matrix(f, json, "activity", SIZE_MAX, u.n_tokens, &rows, &columns);
  u.n_units = rows;
  u.index = field_series(f, json, "unit", rows);
  for (size_t i = 0; i < u.index.n; i++)
    if (!(fabs(u.index.v[i]) < 1e9))
      fields_fail(f, "unit", "has no index of a unit at [%zu]", i);
  if (!f->has_failed && u.n_tokens && u.n_units)
    rank(f, &u);
  if (f->has_failed)
    return;
  if (!u.n_tokens || !u.n_units) {
    page_print(pg, "<p>The report has no tokens or no units.</p>\n");
    return;
  }
  const size_t tokens = u.n_tokens < MOST_TOKENS ? u.n_tokens : MOST_TOKENS;
  const size_t units = u.n_units < MOST_UNITS ? u.n_units : MOST_UNITS;
  u.has_gaps = needs_gaps(&u);
  draw(pg, &u);
  page_print(pg,
             "<div id=\"unit-view\" hidden>\n<h3>Select a span of the text</h3>\n"
             "<p id=\"unit-help\">Select with the mouse; or focus the text and move with the arrow keys, with Shift to "
             "select; or write the first and last token's numbers. The units most active in the span are "
             "listed.</p>\n");
  if (tokens < u.n_tokens || units < u.n_units) {
    pg->drawn->thinned++;
    page_print(pg,
               "<p class=\"note\">Here are the first %zu of %zu tokens and the %zu of %zu units that vary most.</p>\n",
               tokens, u.n_tokens, units, u.n_units);
  }
  page_print(pg,
             "<div class=\"controls\"><label>Colours of unit <select id=\"unit-shown\"></select></label>\n"
             "<label>From token <input id=\"unit-from\" type=\"number\" min=\"1\" max=\"%zu\" value=\"1\"></label>\n"
             "<label>to <input id=\"unit-to\" type=\"number\" min=\"1\" max=\"%zu\" value=\"1\"></label></div>\n"
             "<div id=\"unit-text\" tabindex=\"0\" role=\"group\" aria-label=\"The text\" "
             "aria-describedby=\"unit-help\"></div>\n"
             "<p id=\"unit-span\" aria-live=\"polite\"></p>\n"
             "<table id=\"unit-most\"><caption>Units most active in the span</caption><thead><tr><th "
             "scope=\"col\">unit</th><th scope=\"col\">mean in the span</th><th scope=\"col\">mean of the "
             "text</th></tr></thead><tbody></tbody></table>\n</div>\n",
             tokens, tokens);
  write_data(pg, &u, tokens, units);
}
