/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_cell.cl: the cell of a layer, CELL, as layer_*.cl want it: its pointwise part (cell_*.cl), the vectors that it
 * works on, and how its sums and phases are numbered.
 */
#include "activations.cl"
#include "vectors.cl"
#ifndef UNITS /* vectors of units in a block */
#define UNITS 1
#endif
#ifndef HAVE_LENGTHS
#define HAVE_LENGTHS 0
#endif
#ifndef CELL
#define CELL 2
#endif
#ifndef H_MASK /* see layer_masks.cl; CPU devices alone */
#define H_MASK 0
#endif
#ifndef ZONE_H
#define ZONE_H 0
#endif
#ifndef ZONE_C
#define ZONE_C 0
#endif
#if CELL == 1
#include "cell_rnn.cl"
#elif CELL == 2
#include "cell_lstm.cl"
#elif CELL == 3
#include "cell_gru.cl"
#else
#include "cell_gru_after.cl"
#endif
#ifndef SUMS /* of a unit: x's gates are added to those from X_SUM on, h's to those from H_SUM on */
#define SUMS GATES
#define X_SUM 0
#define H_SUM 0
#endif
#ifndef X_GATE /* the gate, as the weights have it, of the i-th of x's sums */
#define X_GATE(i) (i)
#endif
#define KEPT (KEEP ? KEEP : 1)

/* Gates of a phase, and those of the phases before it. */
#if PHASES == 2
#define PHASE_GATES(phase) ((phase) == 0 ? 2 : 1)
#define GATES_BEFORE(phase) ((phase) == 0 ? 0 : 2)
#else
#define PHASE_GATES(phase) GATES
#define GATES_BEFORE(phase) 0
#endif
