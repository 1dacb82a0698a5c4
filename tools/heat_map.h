/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of attention as a picture, one below the other, or as text. */
#ifndef HEAT_MAP_H
#define HEAT_MAP_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Rows are what was said, columns what was read: weights [n_rows, n_columns], 0 to 1. */
typedef struct heat_map {
  const char *const *rows, *const *columns; /* their labels */
  int64_t n_rows, n_columns;
  const float *weights;
} heat_map;

typedef struct heat_map_file {
  FILE *file;
  bool is_svg;           /* else text, tab-separated */
  int64_t width, height; /* so far */
} heat_map_file;

/* A picture where the name ends with .svg. false: errno says why. */
bool heat_map_open(heat_map_file *to, const char *path);
void heat_map_add(heat_map_file *to, const heat_map *map);
/* false: something could not be written. */
bool heat_map_close(heat_map_file *to);

#endif
