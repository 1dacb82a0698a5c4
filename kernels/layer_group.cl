/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_group.cl: what layer_group_forward.cl and layer_group_backward.cl share: the product inside of a recurrence, for
 * devices with local memory and many work-items.
 *
 * A block is LANES units, and a lane is one of them. An item has the columns (the gates) of its unit for ROWS rows of the
 * batch, over one of SPLITS parts of k: so few rows still keep many loads of weights in flight, which is what such a
 * device waits for. A work-group has those rows and BLOCK_TEAMS blocks at a time.
 *
 *   WHOLE       the group has all blocks of its rows: a launch is many steps, and what the product multiplies stays in
 *               local memory. There is one barrier a phase
 *   PERSISTENT  it has one block: a launch is many steps, between which groups wait for each other (layer_persistent.cl)
 *   else        it has some blocks: a launch is one phase of one step
 *
 * Unless WHOLE, DEPTH values of k at a time are staged in local memory.
 *
 * The weights come from panels of layer_pack.cl, [block][k][column][LANES], so that lanes read neighbours. The other side
 * lies in local memory in rows of A_ROW vectors of four: all lanes read the same four values of k with one load; A_ROW is
 * odd, so that rows start in different banks. Products of more than 512 values of k are added up in parts.
 *
 * Every item reaches every barrier: control flow around them depends on nothing but a kernel's arguments and the lengths
 * of the group's rows, and stores are predicated.
 */
#define WIDTH 1
#include "layer_cell.cl"
#ifndef WHOLE
#define WHOLE 0
#endif
#ifndef LANES
#define LANES 32
#endif
#ifndef ROWS
#define ROWS 4
#endif
#ifndef SPLITS /* 1 where a group takes its blocks in more than one round */
#define SPLITS 8
#endif
#ifndef BLOCK_TEAMS
#define BLOCK_TEAMS 1
#endif
#ifndef DEPTH /* a multiple of 4, at most 512 SPLITS */
#define DEPTH 256
#endif
#ifndef A_ROW /* WHOLE: room for every k; else for DEPTH */
#define A_ROW (DEPTH / 4 + 1)
#endif
#ifndef LONG /* K is more than 512 SPLITS */
#define LONG 0
#endif
#ifndef PHASE /* of a launch that is one phase */
#define PHASE 0
#endif
#ifndef EVEN /* a split's part of k is that of a whole DEPTH, a multiple of 4, also where fewer are left */
#define EVEN 0
#endif
#ifndef PERSISTENT
#define PERSISTENT 0
#endif
#define ITEMS (LANES * SPLITS * BLOCK_TEAMS)
#define OWN ((ROWS + SPLITS - 1) / SPLITS) /* rows that an item finishes: every SPLITS-th of its tile */
#define SHARED (SPLITS > 1 ? ROWS * ITEMS : 1)
#define real4 CAT(real, 4)
#define QUADS (COLUMNS >= 3 ? 1 : COLUMNS == 2 ? 2 : 4) /* times four: values of k whose loads are in flight */
#ifdef cl_intel_subgroups /* Intel's GPUs, where a thread has 128 registers of 8 values, or 16 */
#define FEW_REGISTERS 1
#define AT_ONCE 1 /* of QUADS, which tell the splits' parts of k too */
#else
#define FEW_REGISTERS 0
#define AT_ONCE QUADS
#endif

typedef struct item {
  int id, lane, split, block;
} item;

static item this_item(void) {
  const int id = (int)get_local_id(0), team = id / LANES;
  return (item){.id = id, .lane = id % LANES, .split = team % SPLITS, .block = team / SPLITS};
}

/* The o-th row that an item finishes; ROWS or more where it has no more. */
static int own_row(const item *me, int o) { return me->split + o * SPLITS; }

/* n values of each of the group's rows, of which so many exist; the others are 0. */
static void stage(__local real *to, const __global real *from, long from_row, int rows, int n) {
  for (int i = (int)get_local_id(0); i < ROWS * A_ROW * 4; i += ITEMS) {
    const int row = i / (A_ROW * 4), k = i - row * (A_ROW * 4);
    if (k < n)
      to[i] = row < rows ? from[row * from_row + k] : (real)0;
  }
}

#define INLINE static inline __attribute__((always_inline)) /* so that columns and phase are constants */
#define LANE_OF(v, i) ((i) == 0 ? (v).s0 : (i) == 1 ? (v).s1 : (i) == 2 ? (v).s2 : (v).s3)

/* Four values of k: part [ROWS][columns] += a·b. */
INLINE void quad(const int columns, real *part, const __local real4 *a, const __global panel *b) {
  real4 x[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++)
    x[r] = a[r * A_ROW];
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int c = 0; c < columns; c++) {
      const real w = PANEL_AT(b, (i * columns + c) * LANES);
#pragma unroll
      for (int r = 0; r < ROWS; r++)
        part[r * columns + c] = fma(LANE_OF(x[r], i), w, part[r * columns + c]);
    }
}

/* part += a·b over the split's part of n values of k. */
INLINE void multiply(const int columns, real *part, const __local real4 *a, const __global panel *b, int split, int n) {
  const int quads = ((n + 4 * QUADS - 1) / (4 * QUADS) + SPLITS - 1) / SPLITS * QUADS;
  const int each = EVEN ? DEPTH / SPLITS : 4 * quads, last = min((split + 1) * each, n);
  int k = split * each;
  b += (long)k * columns * LANES;
  for (; k + 4 * AT_ONCE <= last; k += 4 * AT_ONCE, b += 4 * AT_ONCE * columns * LANES)
#pragma unroll
    for (int q = 0; q < AT_ONCE; q++)
      quad(columns, part, a + k / 4 + q, b + 4 * q * columns * LANES);
#if AT_ONCE > 1
  for (; k + 4 <= last; k += 4, b += 4 * columns * LANES)
    quad(columns, part, a + k / 4, b);
#endif
  for (; k < last; k++, b += columns * LANES)
#pragma unroll
    for (int c = 0; c < columns; c++) {
      const real w = PANEL_AT(b, c * LANES);
#pragma unroll
      for (int r = 0; r < ROWS; r++)
        part[r * columns + c] = fma(((const __local real *)(a + r * A_ROW))[k], w, part[r * columns + c]);
    }
}

/* After DEPTH values of k their sums go to those of all. */
INLINE void add_up(const int columns, real *to, const int to_row, real *part) {
#pragma unroll
  for (int r = 0; r < ROWS; r++)
#pragma unroll
    for (int c = 0; c < columns; c++) {
      to[r * to_row + c] += part[r * columns + c];
      part[r * columns + c] = 0;
    }
}
#if SPLITS == 1
#define NEXT_DEPTH(columns) add_up(columns, sum, sum_row, part);
#elif LONG
#define NEXT_DEPTH(columns) add_up(columns, total, columns, part);
#else
#define NEXT_DEPTH(columns)
#endif

#if PERSISTENT
#include "layer_persistent.cl"
#else
typedef panel held; /* nothing is */
#define HELD(phase) 0
#define MEETING_ARGS
#endif

/*
 * sum[o][c] += a·b over all K, of the rows that this item finishes and its unit; a row of sum has sum_row values. a is the
 * group's rows in local memory; unless WHOLE, it is where from, whose rows are from_row apart, passes through. The first
 * `whole` times DEPTH values of b are the item's own already.
 */
INLINE void product(const item *me, const int columns, real *sum, const int sum_row, __local real4 *a,
                    const __global real *from, long from_row, int rows, const __global panel *b, int K, const int whole,
                    const held *own, __local real *shared) {
  real part[ROWS * COLUMNS];
#pragma unroll
  for (int i = 0; i < ROWS * COLUMNS; i++)
    part[i] = 0;
#if LONG && SPLITS > 1
  real total[ROWS * COLUMNS];
#pragma unroll
  for (int i = 0; i < ROWS * COLUMNS; i++)
    total[i] = 0;
#endif
#if PERSISTENT
  if (K > 0) /* the plan holds no more than there is */
#pragma unroll
    for (int n = 0; n < whole; n++) {
      barrier(CLK_LOCAL_MEM_FENCE);
      stage_fresh((__local real *)a, from + n * DEPTH, from_row, rows, min(DEPTH, K - n * DEPTH));
      barrier(CLK_LOCAL_MEM_FENCE);
      multiply_held(columns, part, a + me->split * (PART / 4), own + HELD_SIZE(n * PART * columns));
      NEXT_DEPTH(columns)
    }
#endif
  for (int k = whole * DEPTH; k < K; k += DEPTH) {
    const int n = min(DEPTH, K - k);
#if WHOLE
    const __local real4 *tile = a + k / 4;
#else
    const __local real4 *tile = a;
    barrier(CLK_LOCAL_MEM_FENCE);
#if PERSISTENT
    stage_fresh((__local real *)a, from + k, from_row, rows, n);
#else
    stage((__local real *)a, from + k, from_row, rows, n);
#endif
    barrier(CLK_LOCAL_MEM_FENCE);
#endif
    multiply(columns, part, tile, b + (long)k * columns * LANES, me->split, n);
    NEXT_DEPTH(columns)
  }
#if SPLITS > 1
#if LONG
#define OF_SPLIT total
#else
#define OF_SPLIT part
#endif
#pragma unroll
  for (int c = 0; c < columns; c++) {
    if (c > 0)
      barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
      shared[r * ITEMS + me->id] = OF_SPLIT[r * columns + c];
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int o = 0; o < OWN; o++) {
      const int r = min(me->split + o * SPLITS, ROWS - 1);
      for (int s = 0; s < SPLITS; s++)
        sum[o * sum_row + c] += shared[r * ITEMS + me->id + (s - me->split) * LANES];
    }
  }
#endif
}

#if HAVE_LENGTHS
/* Steps of the group's longest row. */
static int longest(const __global int *lengths, int rows) {
  int most = 0;
  for (int r = 0; r < rows; r++)
    most = max(most, lengths[r]);
  return most;
}
#endif
