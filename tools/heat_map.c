/* SPDX-License-Identifier: Apache-2.0 */
#include "heat_map.h"

#include <inttypes.h>
#include <string.h>

#include "picture.h"

#define CELL 22  /* pixels */
#define LABEL 90 /* to the left of a map, and above it */
#define GAP 20
#define HEADER 160 /* bytes of the first line, which is written again once the size is known */

/* false: it could not be written. */
static bool write_header(const heat_map_file *to) {
  char line[HEADER + 1];
  const int n = snprintf(line, sizeof line,
                         "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%" PRId64 "\" height=\"%" PRId64
                         "\" font-family=\"sans-serif\" font-size=\"13\">",
                         to->width, to->height);
  return n > 0 && n < HEADER && fprintf(to->file, "%-*s\n", HEADER, line) > 0;
}

bool heat_map_open(heat_map_file *to, const char *path) {
  const size_t n = strlen(path);
  *to = (heat_map_file){.file = fopen(path, "we"), .is_svg = n > 4 && strcmp(path + n - 4, ".svg") == 0};
  if (to->file && to->is_svg)
    write_header(to);
  return to->file;
}

static void draw(heat_map_file *to, const heat_map *m) {
  FILE *f = to->file;
  const int64_t top = to->height + LABEL;
  for (int64_t c = 0; c < m->n_columns; c++) {
    const int64_t x = LABEL + c * CELL + CELL / 2 + 4;
    fprintf(f, "<text x=\"%" PRId64 "\" y=\"%" PRId64 "\" transform=\"rotate(-90 %" PRId64 " %" PRId64 ")\">", x,
            top - 6, x, top - 6);
    write_escaped(f, m->columns[c]);
    fputs("</text>\n", f);
  }
  for (int64_t r = 0; r < m->n_rows; r++) {
    const int64_t y = top + r * CELL;
    fprintf(f, "<text x=\"%d\" y=\"%" PRId64 "\" text-anchor=\"end\">", LABEL - 6, y + CELL / 2 + 4);
    write_escaped(f, m->rows[r]);
    fputs("</text>\n", f);
    for (int64_t c = 0; c < m->n_columns; c++) {
      const int shade = 255 - (int)(255 * m->weights[r * m->n_columns + c] + 0.5f);
      fprintf(f, "<rect x=\"%" PRId64 "\" y=\"%" PRId64 "\" width=\"%d\" height=\"%d\" fill=\"rgb(%d,%d,255)\"/>\n",
              LABEL + c * CELL, y, CELL, CELL, shade, shade);
    }
  }
  const int64_t width = LABEL + m->n_columns * CELL + GAP;
  to->width = width > to->width ? width : to->width;
  to->height = top + m->n_rows * CELL + GAP;
}

static void list(heat_map_file *to, const heat_map *m) {
  FILE *f = to->file;
  if (to->height++ > 0)
    fputc('\n', f);
  for (int64_t c = 0; c < m->n_columns; c++)
    fprintf(f, "\t%s", m->columns[c]);
  fputc('\n', f);
  for (int64_t r = 0; r < m->n_rows; r++) {
    fputs(m->rows[r], f);
    for (int64_t c = 0; c < m->n_columns; c++)
      fprintf(f, "\t%.4f", (double)m->weights[r * m->n_columns + c]);
    fputc('\n', f);
  }
}

void heat_map_add(heat_map_file *to, const heat_map *m) {
  if (to->is_svg)
    draw(to, m);
  else
    list(to, m);
}

bool heat_map_close(heat_map_file *to) {
  FILE *const f = to->file;
  bool written = true;
  if (to->is_svg)
    written = fputs("</svg>\n", f) >= 0 && fseek(f, 0, SEEK_SET) == 0 && write_header(to);
  written = !ferror(f) && written;
  to->file = NULL;
  return fclose(f) == 0 && written;
}
