/* SPDX-License-Identifier: Apache-2.0 */
/* `unroll eval` of forecasters. */
#ifndef EVAL_SERIES_H
#define EVAL_SERIES_H
#include <unroll/runtime.h>

#include "series_options.h"

/* A backtest beside those of baselines, on stdout. The exit code. */
int eval_series(unroll_device *device, const char *model, const sequence_values *data, const series_values *series,
                bool json);

#endif
