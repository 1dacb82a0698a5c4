/* SPDX-License-Identifier: Apache-2.0 */
/* layer.h: what planning a whole layer and planning its gradient share (plan_layer.c, plan_layer_grad.c). */
#ifndef UNROLL_OPENCL_LAYER_H
#define UNROLL_OPENCL_LAYER_H
#include "opencl.h"

enum { LAYER_ITEM_ROWS = 64 }; /* rows of the batch that a work-item owns at most: its sums are its own */

typedef struct layer {
  int32_t cell, activation, dtype;
  int32_t panels; /* the dtype that weights are packed as */
  bool reverse, have_cell;
  uint32_t lengths;   /* UNROLL_NO_TENSOR: all rows have T steps */
  extent t, rows_all; /* T, and T·B */
  int64_t max_t, B, I, H;
  int64_t padded; /* H up to whole vectors: the row of a state */
  int64_t d_row;  /* the row of the gates' gradients: not a power of two, for the caches' sake */
  int64_t gates, planes, width, cores;
  int phases;
  operand states, cells, kept; /* for the gradient */
  uint64_t reserve_bytes;
  int64_t block;                   /* rows of a block of the sums over time; 0: no blocks */
  bool segment;                    /* a part of a sequence: the same bits whether its values are saved or not */
  uint32_t h_mask, keep_h, keep_c; /* UNROLL_NO_TENSOR: none */
} layer;

/* How the work of a step is divided among work-items, and a work-item's among tiles of registers. */
typedef struct layer_split {
  int64_t item_rows, row_pieces; /* rows of the batch that an item owns; items that the batch makes */
  int64_t item_blocks;           /* blocks of units that an item owns */
  int64_t rows, vecs;            /* of a tile */
  int64_t units;                 /* vectors of units in a block */
  bool step_at_a_time;           /* units are divided: a launch is one step of one phase */
  /* Where work-groups share the work (plan_layer_gpu.c); see kernels/layer_group.cl. */
  int64_t items; /* of a work-group; 0 on CPU devices */
  int64_t splits, block_teams, depth, a_row, buffers;
  bool sums_are_long, backward, save;
  bool even;       /* each split's part of k is as if depth were full */
  bool persistent; /* a launch is many steps, and groups wait for each other; a launch a step is planned beside it */
  int64_t held[2]; /* by phase: of how many depths of k an item keeps the weights */
} layer_split;

typedef struct layer_panels { /* the weight of gate g, unit u and k is at from + g·gate_step + u·unit_step + k·k_step */
  uint32_t weights;
  int64_t from;
  int64_t to; /* where in the area: after panels of so many vectors a unit */
  int64_t gates, k, gate_step, unit_step, k_step;
  uint32_t order; /* of the gates, see layer_pack.cl */
} layer_panels;

/* UNROLL_E_UNSUPPORTED where the layer has to be lowered. lengths: which input they are. */
unroll_status layer_read(plan *p, layer *l, uint32_t lengths);
/* Where in the reserve, a tensor of bytes, the parts lie. */
void layer_lay_out(layer *l, uint32_t reserve);
/* For products over k of gates columns a unit. */
layer_split layer_divide(const plan *p, const layer *l, int64_t gates, int phases, int64_t k);
/* In a flight, which s knows nothing of, the split for half of the cores; else s. (concurrent.c) */
layer_split layer_share(const plan *p, layer *l, layer_split s, int64_t gates, int64_t k);
/* What it goes by: about how many cycles a step takes; vectors of units in a block; rows of a tile at most. */
double layer_cycles(const layer *l, const layer_split *s, int64_t gates, int64_t k);
int64_t layer_units(int64_t gates, int phases, int64_t vecs);
int64_t layer_most_rows(const layer *l, int64_t vecs);
/* Steps of one launch. */
int64_t layer_chunk(const layer *l, const layer_split *s, int64_t k);
/* Where the panels of gates columns a unit over k go: kept with the binding where the weights are steady. */
operand layer_panel_area(plan *p, const layer *l, const layer_split *s, uint32_t weights, int64_t gates, int64_t k);
void layer_pack(plan *p, const layer *l, const layer_split *s, operand area, const layer_panels *from);
/* A launch in the loop; the kernel's own arguments follow, then layer_end adds those that both kernels have. */
void layer_begin(plan *p, const layer *l, const layer_split *s, const char *source, const char *kernel,
                 const char *more, int phases);
void layer_end(plan *p, const layer *l, const layer_split *s, int phases);
/* The kernel's arguments of keep_h and keep_c, where they are given. */
void layer_arg_zones(plan *p, const layer *l);
/* The same on devices that are no CPU (plan_layer_gpu.c). */
bool layer_has_groups(const plan *p, const layer *l);
layer_split layer_divide_groups(const plan *p, const layer *l, bool backward, bool save);
typedef struct group_choice {
  bool step;
  int64_t lanes, rows, teams; /* units of a block, rows of the batch, and blocks at a time of a group */
} group_choice;
/* The model's sums in their order, divided so; false where that can't be. */
bool layer_regroup(const plan *p, const layer *l, const layer_split *model, const group_choice *c, layer_split *s);
/* Whether the device takes groups of so many items, once the kernels are built. */
bool layer_takes(const plan *p, const layer *l, const layer_split *s);
int64_t layer_chunk_groups(const layer *l, const layer_split *s);
void layer_begin_groups(plan *p, const layer *l, const layer_split *s, int phases);
void layer_end_groups(plan *p, const layer *l, const layer_split *s);
#endif
