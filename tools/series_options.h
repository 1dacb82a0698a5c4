/* SPDX-License-Identifier: Apache-2.0 */
/* The options by which commands read a time series from CSV and use its forecasters. */
#ifndef SERIES_OPTIONS_H
#define SERIES_OPTIONS_H
#include <unroll/forecast.h>

#include "sequence_options.h"

/* A member `series` of a command's values, beside `data`, whose csv, header and separator are the file's. */
typedef struct series_values {
  const char *column, *holes, *plot;
  option_files with;
  int64_t test, ahead, season, steps;
} series_values;

#define OPTIONS_SERIES(T, column_)                                                                                   \
  TEXT("column", "C", offsetof(T, series.column), column_),                                                          \
      CHOICE(                                                                                                        \
          "holes", "H", offsetof(T, series.holes), "error", "error interpolate forward",                             \
          "of a series: what becomes of a record without a number (empty, NA, NaN, null): an error, a value on the " \
          "line between its neighbours, or the one before")
#define OPTIONS_FORECASTERS(T, plot_)                                                            \
  OPTIONS_SERIES(T, "of a series: its column (default: that which the model was trained on)"),   \
      {.type = OPTION_FILES,                                                                     \
       .name = "with",                                                                           \
       .argument = "MODEL...",                                                                   \
       .offset = offsetof(T, series.with),                                                       \
       .help = "further forecasters, such as those of other seeds: their mean is the forecast"}, \
      TEXT("plot", "F.svg", offsetof(T, series.plot), plot_)

/* The column as a table of one column. standard: which one where none was named. */
unroll_status series_load(const sequence_values *data, const series_values *series, const char *standard,
                          unroll_table **table, unroll_error *err);

/* Forecasters, and what they are to go on from. */
typedef struct series_models {
  unroll_forecaster **members;
  uint32_t n;
  unroll_table *table;
  const double *y; /* [count] */
  int64_t count;
  const char *name; /* of the series */
} series_models;
/* `first` and those of --with, and the series. A failure has been named on stderr; series_close is due all the same. */
bool series_open(unroll_device *device, const char *first, const sequence_values *data, const series_values *series,
                 series_models *models);
void series_close(series_models *models);

/* Was one of these options given, which are for another kind of model? Said on stderr. what: "a classifier". */
bool series_excludes(const command_spec *command, const void *values, const char *const *names, size_t n,
                     const char *what);

#endif
