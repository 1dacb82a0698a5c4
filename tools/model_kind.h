/* SPDX-License-Identifier: Apache-2.0 */
/* What kind of model a file holds, for commands that take several. */
#ifndef MODEL_KIND_H
#define MODEL_KIND_H
#include <stdbool.h>

#define MODEL_FORECASTER "series forecaster"

/* Does the file say so? false also where it can't be read: who loads it says why. */
bool model_is(const char *path, const char *kind);

#endif
