/* SPDX-License-Identifier: Apache-2.0 */
/* `unroll eval` of a translator. */
#ifndef EVAL_TRANSLATE_H
#define EVAL_TRANSLATE_H
#include "pair_options.h"

/* part: "all", "training", "validation", "test"; errors: a file for each source's translation, or NULL. The exit
 * code. */
int eval_translator(unroll_device *device, const char *model, const pair_values *values, const way_values *way,
                    const char *part, const char *errors, bool json);

#endif
