/* SPDX-License-Identifier: Apache-2.0 */
/* `unroll predict` of forecasters. */
#include "predict_series.h"

#include <inttypes.h>
#include <stdlib.h>

#include "commands.h"
#include "console.h"
#include "series_plot.h"

static int print(const series_models *m, const double *next, int64_t steps, const char *path) {
  printf("step,forecast\n");
  for (int64_t i = 0; i < steps; i++)
    printf("%" PRId64 ",%.9g\n", i + 1, next[i]);
  if (!path)
    return EXIT_OK;
  char title[160];
  snprintf(title, sizeof title, "%s and its next %" PRId64 " values", m->name, steps);
  const series_plot p = {
      .title = title, .y = m->y, .n = m->count, .forecasts = next, .first = m->count, .n_forecasts = steps};
  return series_plot_write(&p, path) ? EXIT_OK : EXIT_FAILED;
}

int predict_series(unroll_device *device, const char *model, const sequence_values *data, const series_values *series) {
  series_models m;
  unroll_error err = UNROLL_ERROR_INIT;
  int code = EXIT_FAILED;
  if (series_open(device, model, data, series, &m)) {
    const unroll_ensemble all = {m.members, m.n};
    double *next = calloc((size_t)series->steps, sizeof *next);
    if (!next)
      complain("out of memory");
    else if (unroll_ensemble_forecast(&all, m.y, m.count, series->steps, next, &err) != UNROLL_OK)
      complain_of(&err);
    else
      code = print(&m, next, series->steps, series->plot);
    free(next);
  }
  series_close(&m);
  return code;
}
