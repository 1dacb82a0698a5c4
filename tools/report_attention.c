/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of attention over pairs of texts. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "report_page.h"

#define MOST_ROWS 48 /* tokens of an attention map, each way */
#define LABEL_LETTERS 14

/* A token as a label: what is not seen gets a sign. */
static void show_token(const char *token, char *text, size_t size) {
  size_t used = 0, letters = 0;
  for (const char *c = token; *c; c++) {
    const bool is_first = ((unsigned char)*c & 0xc0) != 0x80;
    if (is_first && letters++ == LABEL_LETTERS) {
      snprintf(text + used, size - used, "…");
      return;
    }
    const char *sign = *c == '\n' ? "↵" : *c == '\t' ? "→" : *c == ' ' ? "␣" : NULL;
    if (used + 8 >= size)
      break;
    if (sign)
      used += (size_t)snprintf(text + used, size - used, "%s", sign);
    else
      text[used++] = *c;
  }
  text[used] = '\0';
}

static double widest(const char *const *tokens, size_t n) {
  double width = 0;
  char text[96];
  for (size_t i = 0; i < n; i++) {
    show_token(tokens[i], text, sizeof text);
    width = fmax(width, picture_text_width(text, 12));
  }
  return width;
}

struct attention {
  const char *const *source, *const *target;
  size_t columns, rows;
  const double *weights;
};

static void draw_attention(report_page *pg, const struct attention *a, size_t index) {
  const size_t rows = a->rows < MOST_ROWS ? a->rows : MOST_ROWS,
               columns = a->columns < MOST_ROWS ? a->columns : MOST_ROWS;
  const double left = widest(a->target, rows) + 18, top = widest(a->source, columns) + 34;
  const double room = (PAGE_WIDTH - left - 90) / (double)columns, cell = room > 26 ? 26 : room;
  char name[48], title[64], text[96], tip[256];
  snprintf(name, sizeof name, "attention-%zu", index + 1);
  snprintf(title, sizeof title, "Weights of attention, pair %zu", index + 1);
  picture *p =
      picture_new(PAGE_WIDTH, top + cell * (double)rows + 14, name, title,
                  "A row for every token of the target, a column for every token of the source; the stronger the "
                  "colour, the larger the weight. The table below has the values.");
  if (p) {
    picture_text(p, (lettering){.colour = INK_TEXT, .size = 14, .is_bold = true}, 8, 17, title);
    const double size = cell < 13 ? cell * 0.85 : 12;
    for (size_t c = 0; c < columns; c++) {
      show_token(a->source[c], text, sizeof text);
      picture_text(p, (lettering){.colour = INK_TEXT, .size = size, .upwards = true},
                   left + cell * ((double)c + 0.5) + size * 0.35, top - 6, text);
    }
    for (size_t r = 0; r < rows; r++) {
      char row[96];
      show_token(a->target[r], row, sizeof row);
      picture_text(p, (lettering){.colour = INK_TEXT, .size = size, .anchor = ANCHOR_END}, left - 6,
                   top + cell * ((double)r + 0.5) + size * 0.35, row);
      for (size_t c = 0; c < columns; c++) {
        const double w = a->weights[r * a->columns + c];
        show_token(a->source[c], text, sizeof text);
        snprintf(tip, sizeof tip, "%s, %s: %.3f", row, text, w);
        if (isnan(w))
          picture_rect(p, INK_UNSTABLE, 1, left + cell * (double)c, top + cell * (double)r, cell, cell, tip);
        else
          picture_rect(p, INK_COOL,
                       w < 0   ? 0
                       : w > 1 ? 1
                               : w,
                       left + cell * (double)c, top + cell * (double)r, cell, cell, tip);
      }
    }
    const stroke frame = {.colour = INK_MUTED, .width = 1};
    const double right = left + cell * (double)columns, bottom = top + cell * (double)rows;
    picture_area(p, INK_NONE, 1, frame, (const double[]){left, top, right, top, right, bottom, left, bottom}, 4);
    for (int i = 0; i <= 4; i++) {
      snprintf(text, sizeof text, "%g", i / 4.0);
      picture_rect(p, INK_COOL, i / 4.0, right + 14, top + 18 * i, 16, 18, NULL);
      picture_text(p, (lettering){.colour = INK_MUTED, .size = 12}, right + 36, top + 18 * i + 13, text);
    }
    picture_area(p, INK_NONE, 1, frame,
                 (const double[]){right + 14, top, right + 30, top, right + 30, top + 90, right + 14, top + 90}, 4);
    p->height = fmax(p->height, top + 98);
    p->width = fmin(PAGE_WIDTH, fmax(right + 80, 16 + 1.15 * picture_text_width(title, 14)));
  }
  const bool is_cut = rows < a->rows || columns < a->columns;
  pg->drawn->thinned += is_cut;
  page_figure(pg, p, "What each token of the target (rows) looks at in the source (columns).%s",
              is_cut ? " Of each side the first 48 tokens are drawn." : "");
  const char **headers = malloc((columns + 1) * sizeof *headers);
  if (headers) {
    headers[0] = "target";
    for (size_t c = 0; c < columns; c++)
      headers[c + 1] = a->source[c];
    page_table(pg, "Weights", true, headers, columns + 1);
    for (size_t r = 0; r < rows; r++) {
      page_row(pg);
      page_cell(pg, a->target[r]);
      for (size_t c = 0; c < columns; c++) {
        snprintf(text, sizeof text, "%.3f", a->weights[r * a->columns + c]);
        page_cell(pg, text);
      }
    }
    page_table_end(pg);
  }
  free(headers);
  page_figure_end(pg);
}

void section_attention(report_page *pg, fields *f, const json_t *json) {
  const size_t n = page_entries(json);
  struct attention *a = fields_alloc(f, n, sizeof *a);
  for (size_t i = 0; a && i < n; i++) {
    const json_t *entry = json_array_get(json, i);
    size_t rows, columns;
    fields_enter(f, "attention[%zu]", i);
    a[i].source = field_texts(f, entry, "source", &a[i].columns);
    a[i].target = field_texts(f, entry, "target", &a[i].rows);
    a[i].weights = field_matrix(f, entry, "weights", a[i].rows, a[i].columns, &rows, &columns);
  }
  if (f->has_failed || !a)
    return;
  for (size_t i = 0; i < n; i++)
    if (a[i].rows && a[i].columns)
      draw_attention(pg, &a[i], i);
}
