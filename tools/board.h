/* SPDX-License-Identifier: Apache-2.0 */
/* What a training tells TensorBoard: --tensorboard DIR. */
#ifndef BOARD_H
#define BOARD_H
#include <stdbool.h>
#include <unroll/event_file.h>
#include <unroll/train.h>

#include "radii.h"

typedef struct board {
  unroll_event_file *file; /* NULL: none was asked for, or it could not be written any more */
  bool failed;             /* it was named on stderr; the training goes on without */
  float *values;           /* of the largest parameter so far */
  uint64_t capacity;
} board;

/* How a report is named. */
typedef struct board_names {
  const char *metric; /* "accuracy", or NULL */
  const char *pace;   /* "chars" */
} board_names;

/* Can there be event files in it? Otherwise the reason is named on stderr. Looks, touches nothing. */
bool board_check_folder(const char *folder);
/* A new file in the folder, with the configuration as a text at this update; what is no UTF-8 in it is changed to be.
 * false: said on stderr. */
bool board_open(board *b, const char *folder, uint64_t update, char *configuration);
/* rates [p->n_updates] the learning rates; found: the radii, where they are new, or NULL. */
void board_report(board *b, const board_names *names, const unroll_train_progress *p, const double *rates,
                  const radii *found);
void board_close(board *b);

#endif
