/* SPDX-License-Identifier: Apache-2.0 */
/* A series and its forecasts as a picture. */
#ifndef SERIES_PLOT_H
#define SERIES_PLOT_H
#include <stdbool.h>
#include <stdint.h>

typedef struct series_plot {
  const char *title;
  const double *y; /* [n] */
  int64_t n;
  const double *forecasts; /* [n_forecasts], of the values from `first` on, which may lie behind y */
  int64_t first, n_forecasts;
} series_plot;
/* SVG that needs nothing else: the forecasts and of the series as much before them. false: said on stderr. */
bool series_plot_write(const series_plot *plot, const char *path);

#endif
