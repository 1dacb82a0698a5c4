/* SPDX-License-Identifier: Apache-2.0 */
/* `unroll eval` of a classifier. */
#ifndef EVAL_CLASSIFY_H
#define EVAL_CLASSIFY_H
#include <unroll/runtime.h>

#include "sequence_options.h"

/* How good a model's predictions are, on stdout. The exit code. */
int eval_classifier(unroll_device *device, const char *model, const sequence_values *data, bool json);

#endif
