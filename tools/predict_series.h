/* SPDX-License-Identifier: Apache-2.0 */
/* `unroll predict` of forecasters. */
#ifndef PREDICT_SERIES_H
#define PREDICT_SERIES_H
#include <unroll/runtime.h>

#include "series_options.h"

/* The values after a series' last one, CSV on stdout. The exit code. */
int predict_series(unroll_device *device, const char *model, const sequence_values *data, const series_values *series);

#endif
