/* SPDX-License-Identifier: Apache-2.0 */
/* Spectral radii of a model's recurrent matrices while it is trained, as often as they cost little. */
#ifndef RADII_H
#define RADII_H
#include <stdbool.h>
#include <unroll/train.h>

/* Computing them takes at most this part of the time, or less than so many seconds at each validation. */
#define RADII_SHARE 0.05
#define RADII_SECONDS 0.02
/* No matrix more at one time after so many seconds: the others are looked at later, and all are shown then. */
#define RADII_PIECE 1.0

/* Of one gate's W_h [H,H]; with a projection of W_r·W_h [P,P], by which h comes back to h. */
typedef struct radius {
  const char *name; /* "rnn.W_h.0.0" */
  const char *gate; /* "f"; "" where a cell has one matrix */
  double value;     /* NaN: the matrix has numbers that are not finite */
} radius;

typedef struct radii {
  radius *all; /* the latest, in the order of the model's parameters */
  uint32_t n, capacity;
  int32_t cell;      /* the model's, UNROLL_CELL_* or UNROLL_RNN_* */
  uint32_t at;       /* the matrix at which the next piece of a round begins */
  double cost, next; /* what they took, and the second of the run from which on they may be computed again */
  bool started;
  bool failed; /* said on stderr; there are none from then on */
} radii;

/* In a progress callback: computes them where it is time to. true: they are new. */
bool radii_look(radii *r, const unroll_train_progress *p);
/* The largest; NULL: none is known. */
const radius *radii_largest(const radii *r);
void radii_free(radii *r);

#endif
