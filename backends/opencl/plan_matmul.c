/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_matmul.c: which kernel multiplies. On CPU devices kernels/matmul.cl with a register tile, because CLBlast's
 * defaults are far from such a machine's peak; elsewhere CLBlast, once it has passed its test on the device; else
 * kernels/matmul_tile.cl, which the device option product=tile asks for on any device.
 */
#include "tune.h"
#include <stdio.h>

enum { CHUNK = 512 }; /* values of k in a partial sum, of all own kernels */
/* So many rows of an a that stands on its side stay in a cache until the next tile needs them. */
enum { NEAR_K = 1536 };
/* With so many rows of y at most, b as it stands, in blocks of CHUNK, is quicker than packing it: 217 of 223 GFLOP/s. */
enum { STAND_ROWS = 384 };
enum { MOST_PARTS = 64 << 20 };
enum { FEW_ROWS = 32 }; /* below: packing b for one product costs more than it saves */
enum { DOT_ROWS = 4, DOT_COLUMNS = 4, PACK_K = 16, TILE_SIDE = 8, TILE_EACH = 4, TILE_DEPTH = 16 };

typedef struct sizes { /* at their maxima */
  int64_t p, m, n, k;
} sizes;

/* What decides over the order of a sum goes by these: the same for parts of y and for parts of the sum that go by
 * blocks. */
static gemm deciding(const gemm *g) {
  gemm like = *g;
  if (g->m_block)
    like.m = (extent){g->m_block, -1};
  if (g->k_block)
    like.k = (extent){g->k_block, -1};
  return like;
}

static sizes largest(const plan *p, const gemm *g) {
  return (sizes){extent_max(p, g->p), extent_max(p, g->m), extent_max(p, g->n), extent_max(p, g->k)};
}

bool plan_steady(const plan *p, uint32_t tensor) {
  const unroll_tensor_view *t = plan_view(p, tensor);
  if (t->step != 0 || t->period != 0 || t->role == UNROLL_ROLE_TEMP || (t->rank > 0 && t->dim[0] >= 0))
    return false;
  for (uint32_t i = 0; i < p->graph->n_nodes; i++) {
    const unroll_node_view *n = graph_node(p->graph, i);
    for (uint32_t k = 0; k < n->n_out; k++)
      if (p->graph->edges[n->first_out + k] == tensor)
        return false;
  }
  return true;
}

/* The rows of a tile: of the sizes up to the largest, the one that wastes least of the last tile. */
static int64_t tile_rows(int64_t largest, int64_t m) {
  int64_t best = largest, best_waste = (m + largest - 1) / largest * largest;
  for (int64_t rows = largest - 1; rows > 0 && rows >= largest - 2; rows--) {
    const int64_t waste = (m + rows - 1) / rows * rows;
    if (waste < best_waste) {
      best = rows;
      best_waste = waste;
    }
  }
  return m < largest ? m : best;
}

/* How long a block of k is, where too few tiles would keep the device busy: a multiple of CHUNK. */
static int64_t block_of(sizes max, int64_t tiles, int64_t wanted) {
  const int64_t chunks = (max.k + CHUNK - 1) / CHUNK;
  int64_t blocks = (wanted + tiles - 1) / tiles;
  if (blocks > chunks)
    blocks = chunks;
  return blocks <= 1 ? chunks * CHUNK : (chunks + blocks - 1) / blocks * CHUNK;
}

/* Where a stands on its side: blocks of about so many, as far as their sums take no more than MOST_PARTS bytes. */
static int64_t near_block(const gemm *g, sizes max, int64_t k_block, int64_t about) {
  const int64_t bytes = max.p * max.m * max.n * (int64_t)dtype_bytes(g->dtype);
  int64_t blocks = (max.k + about / 2) / about;
  if (blocks > MOST_PARTS / bytes)
    blocks = MOST_PARTS / bytes;
  if (blocks <= 1)
    return k_block;
  const int64_t chunks = (max.k + CHUNK - 1) / CHUNK, near = (chunks + blocks - 1) / blocks * CHUNK;
  return near < k_block ? near : k_block;
}

static int64_t a_row(const gemm *g, sizes max) { return g->a_row ? g->a_row : g->trans_a ? max.m : max.k; }
static int64_t b_row(const gemm *g, sizes max) { return g->b_row ? g->b_row : g->trans_b ? max.k : max.n; }

static void arg_sizes(plan *p, const gemm *g) {
  arg_extent(p, g->m);
  arg_extent(p, g->n);
  arg_extent(p, g->k);
}

static void arg_rows(plan *p, const gemm *g, sizes max) {
  arg_long(p, a_row(g, max));
  arg_long(p, b_row(g, max));
}

/* Of c from row to row, and of a, b and c from batch to batch. */
static void arg_strides(plan *p, const gemm *g, sizes max, int64_t b_batch) {
  arg_long(p, g->row_c ? 0 : max.n);
  arg_long(p, g->batched ? max.m * max.k : 0);
  arg_long(p, b_batch);
  arg_long(p, g->row_c ? 0 : max.m * max.n);
}

/* As -DBLOCKS of the kernels has it. */
static int blocks_of(const gemm *g) { return !g->k_block ? 0 : g->from_first ? 2 : 1; }

static operand nothing(void) { return operand_of(UNROLL_NO_TENSOR); }

/* y = c and the sum of the blocks of k, if any. */
static void plan_add(plan *p, const gemm *g, operand parts, int64_t k_block) {
  const sizes max = largest(p, g);
  const uint32_t width = plan_width(p, g->dtype);
  plan_launch(p, "matmul_pack.cl", "add", "-Dreal=%s -DWIDTH=%u -DHAVE_C=%d -DBLOCKS=%d", dtype_c(g->dtype), width,
              g->have_c, k_block ? blocks_of(g) : 0);
  plan_items(p, g->p, 1);
  plan_items(p, g->m, 1);
  plan_items(p, g->n, width);
  arg_operand(p, parts, g->dtype);
  arg_operand(p, g->c, g->dtype);
  arg_operand(p, g->y, g->dtype);
  arg_extent(p, g->m);
  arg_extent(p, g->n);
  if (k_block)
    arg_blocks(p, g->k, k_block);
  else
    arg_long(p, 0);
  arg_long(p, g->row_c ? 0 : max.n);
  arg_long(p, g->row_c ? 0 : max.m * max.n);
  arg_kind_of(p, ARG_ITEMS, 0);
}

static uint64_t parts_bytes(const gemm *g, sizes max, int64_t k_block) {
  const int64_t blocks = (max.k + k_block - 1) / k_block;
  return (uint64_t)(max.p * max.m * max.n * blocks) * dtype_bytes(g->dtype);
}

/* Whether blocks are summed side by side and added up afterwards: where there is too little work without. */
static bool in_parts(const gemm *g, sizes max, bool little) {
  return little && g->k.dim < 0 && parts_bytes(g, max, g->k_block) <= MOST_PARTS;
}

static void plan_dot(plan *p, const gemm *g) {
  const sizes max = largest(p, g);
  const int64_t rows = max.m < DOT_ROWS ? max.m : DOT_ROWS;
  launch *l = plan_launch(p, "matmul_dot.cl", "dot_rows", "-Dreal=%s -DWIDTH=%u -DROWS=%d -DCOLUMNS=%d -DHAVE_C=%d",
                          dtype_c(g->dtype), plan_width(p, g->dtype), (int)rows, DOT_COLUMNS, g->have_c);
  l->group = 1;
  plan_items(p, g->p, 1);
  plan_items(p, g->m, rows);
  plan_items(p, g->n, DOT_COLUMNS);
  arg_operand(p, g->a, g->dtype);
  arg_operand(p, g->b, g->dtype);
  arg_operand(p, g->c, g->dtype);
  arg_operand(p, g->y, g->dtype);
  arg_sizes(p, g);
  arg_rows(p, g, max);
  arg_strides(p, g, max, g->batched ? max.n * max.k : 0);
}

/* b in panels of this dtype: kept with the binding where it is steady. */
static operand plan_pack(plan *p, const gemm *g, int32_t panels, uint32_t width, int vecs, int64_t packed_batch) {
  const sizes max = largest(p, g);
  const uint64_t bytes = (uint64_t)(max.p * packed_batch) * dtype_bytes(panels);
  const operand packed = g->steady ? plan_packed(p, bytes) : plan_scratch(p, bytes);
  launch *l =
      plan_launch(p, "matmul_pack.cl", "pack", "-Dreal=%s -DPANEL=%s -DWIDTH=%u -DVECS=%d -DPACK_K=%d -DTRANS_B=%d",
                  dtype_c(g->dtype), dtype_c(panels), width, vecs, PACK_K, g->trans_b);
  if (g->steady) {
    l->cached = g->b.tensor;
    l->once = p->graph->is_template;
  }
  plan_items(p, g->p, 1);
  plan_items(p, g->n, (int64_t)width * vecs);
  plan_items(p, g->k, PACK_K);
  arg_operand(p, g->b, g->dtype);
  arg_operand(p, packed, panels);
  arg_extent(p, g->n);
  arg_extent(p, g->k);
  arg_long(p, b_row(g, max));
  arg_long(p, max.n * max.k);
  arg_long(p, packed_batch);
  arg_kind_of(p, ARG_ITEMS, 0);
  return packed;
}

/* Whether k is walked down in strides that one set of a cache holds, and often enough that a copy of a pays. */
static bool stands_badly(const gemm *g, sizes max, int panel) {
  enum {
    ONE_SET = 4096,
    LEAST_PANELS = 4
  }; /* a stride that so many bytes divide meets one set of a first cache of 64 */
  return g->trans_a && !g->batched && a_row(g, max) * (int64_t)dtype_bytes(g->dtype) % ONE_SET == 0 &&
         max.n >= LEAST_PANELS * panel && max.k >= CHUNK;
}

/* a in panels of rows. */
static operand plan_sides(plan *p, const gemm *g, uint32_t width, int64_t rows) {
  enum { SIDE_K = 16, EACH_SIDES = 4 };
  const sizes max = largest(p, g);
  const int64_t tiles = (max.m + rows - 1) / rows;
  const operand out = plan_scratch(p, (uint64_t)(tiles * rows * max.k) * dtype_bytes(g->dtype));
  plan_launch(p, "matmul_pack.cl", "sides", "-Dreal=%s -DWIDTH=%u -DROWS=%d", dtype_c(g->dtype), width, (int)rows);
  plan_items(p, g->m, rows * EACH_SIDES);
  plan_items(p, g->k, SIDE_K);
  arg_operand(p, g->a, g->dtype);
  arg_operand(p, out, g->dtype);
  arg_extent(p, g->m);
  arg_extent(p, g->k);
  arg_long(p, a_row(g, max));
  arg_kind_of(p, ARG_ITEMS, 0);
  return out;
}

static void plan_cpu(plan *p, const gemm *g) {
  const sizes max = largest(p, g);
  const uint32_t width = plan_width(p, g->dtype);
  const int vecs = 2, panel = (int)width * vecs;
  const bool stands = g->trans_a && !g->trans_b && max.m <= STAND_ROWS;
  const bool many = (g->m_block ? g->m_block : max.m) >= FEW_ROWS;
  const bool pack = (many && !stands) || (g->steady && !g->trans_a) || (g->trans_b && (g->trans_a || g->k_block));
  if (g->trans_b && !pack) {
    plan_dot(p, g);
    return;
  }
  const int64_t panels = (max.n + panel - 1) / panel, packed_batch = panels * panel * max.k;
  /* Only weights are rounded, and so they are always packed: no x in the gradient of weights. */
  const int32_t stored = g->steady && !g->trans_a ? plan_panels(p, g->dtype) : g->dtype;
  const operand b = pack ? plan_pack(p, g, stored, width, vecs, packed_batch) : g->b;
  const int64_t rows = tile_rows(width >= 16 ? 8 : 6, max.m);
  const int64_t tiles = (max.m + rows - 1) / rows * panels * max.p;
  const gemm like = deciding(g);
  int64_t k_block =
      block_of(largest(p, &like), g->m_block ? (g->m_block + rows - 1) / rows * panels * max.p : tiles, 16);
  if (g->k_block)
    k_block = in_parts(g, max, stands || tiles < 16) ? g->k_block : max.k;
  else if (g->trans_a)
    k_block = near_block(g, max, k_block, stands ? CHUNK : NEAR_K);
  const bool split = k_block < max.k;
  const operand y = split ? plan_scratch(p, parts_bytes(g, max, k_block)) : g->y;
  const bool sides = stands_badly(g, max, panel);
  const operand a = sides ? plan_sides(p, g, width, rows) : g->a;
  launch *l = plan_launch(p, "matmul.cl", "product",
                          "-Dreal=%s -DPANEL=%s -DWIDTH=%u -DVECS=%d -DROWS=%d -DPACKED=%d -DTRANS_A=%d%s -DHAVE_C=%d "
                          "-DCHUNK=%d -DBLOCKS=%d",
                          dtype_c(g->dtype), dtype_c(stored), width, vecs, (int)rows, pack, g->trans_a,
                          sides ? " -DSIDES=1" : "", g->have_c && !split, (int)(g->k_block ? g->k_block : CHUNK),
                          split ? 0 : blocks_of(g));
  l->group = 1;
  plan_items(p, g->p, 1);
  plan_items(p, g->m, rows);
  plan_items(p, g->n, panel);
  plan_items(p, g->k, k_block);
  arg_operand(p, a, g->dtype);
  arg_operand(p, b, stored);
  arg_operand(p, split ? nothing() : g->c, g->dtype);
  arg_operand(p, y, g->dtype);
  arg_sizes(p, g);
  arg_long(p, k_block);
  arg_rows(p, g, max);
  arg_strides(p, g, max, pack ? packed_batch : g->batched ? max.n * max.k : 0);
  if (split)
    plan_add(p, g, y, k_block);
}

/* b as halves, rows of k: kept with the binding. The kernel stands beside the product's. */
static operand plan_halves(plan *p, const gemm *g, const char *options, int64_t packed_batch) {
  const sizes max = largest(p, g);
  const operand packed = plan_packed(p, (uint64_t)(max.p * packed_batch) * sizeof(cl_uint));
  launch *l = plan_launch(p, "matmul_matrix.cl", "pack", "%s", options);
  l->cached = g->b.tensor;
  l->once = p->graph->is_template;
  l->times = MATRIX_DEPTH / 2;
  plan_items(p, g->p, 1);
  plan_items(p, g->n, 1);
  plan_items(p, g->k, MATRIX_DEPTH);
  arg_operand(p, g->b, g->dtype);
  arg_operand(p, packed, UNROLL_I32);
  arg_extent(p, g->n);
  arg_extent(p, g->k);
  arg_long(p, b_row(g, max));
  arg_long(p, g->batched ? max.n * max.k : 0);
  arg_long(p, packed_batch);
  arg_kind_of(p, ARG_ITEMS, 0);
  return packed;
}

/* By the device's matrix instruction. */
static void plan_matrix(plan *p, const gemm *g, const matrix_tile *t) {
  const sizes max = largest(p, g);
  const bool packed = g->steady && !g->trans_a;
  const int64_t words = (max.k + MATRIX_DEPTH - 1) / MATRIX_DEPTH * (MATRIX_DEPTH / 2);
  const gemm like = deciding(g);
  const sizes of = largest(p, &like);
  const int64_t like_tiles = of.p * ((of.m + t->m - 1) / t->m) * ((of.n + t->n - 1) / t->n);
  const int64_t k_block = block_of(max, like_tiles, 2 * p->device->cores);
  const bool split = k_block < max.k;
  char options[256];
  snprintf(options, sizeof options, "%s -DTRANS_A=%d -DTRANS_B=%d -DHAVE_C=%d -DPACKED=%d -DCHUNK=%d", t->options,
           g->trans_a, g->trans_b, g->have_c && !split, packed, CHUNK);
  const operand b = packed ? plan_halves(p, g, options, max.n * words) : g->b;
  const operand y = split ? plan_scratch(p, parts_bytes(g, max, k_block)) : g->y;
  launch *l = plan_launch(p, "matmul_matrix.cl", "product", "%s", options);
  l->group = t->items;
  l->times = (int64_t)t->items;
  plan_items(p, g->p, 1);
  plan_items(p, g->m, t->m);
  plan_items(p, g->n, t->n);
  plan_items(p, g->k, k_block);
  arg_operand(p, g->a, g->dtype);
  arg_operand(p, b, packed ? UNROLL_I32 : g->dtype);
  arg_operand(p, split ? nothing() : g->c, g->dtype);
  arg_operand(p, y, g->dtype);
  arg_sizes(p, g);
  arg_long(p, k_block);
  arg_rows(p, g, max);
  arg_strides(p, g, max, packed ? max.n * words : g->batched ? max.n * max.k : 0);
  if (split)
    plan_add(p, g, y, k_block);
}

static void plan_tiles(plan *p, const gemm *g) {
  const sizes max = largest(p, g);
  const int64_t tile = TILE_SIDE * TILE_EACH;
  const int64_t tiles = max.p * ((max.m + tile - 1) / tile) * ((max.n + tile - 1) / tile);
  const int64_t like_m = g->m_block ? g->m_block : max.m;
  int64_t k_block = block_of(max, max.p * ((like_m + tile - 1) / tile) * ((max.n + tile - 1) / tile), 256);
  if (g->k_block)
    k_block = in_parts(g, max, tiles < 256) ? g->k_block : max.k;
  const bool split = k_block < max.k;
  const int64_t whole = (g->k_block + TILE_DEPTH - 1) / TILE_DEPTH * TILE_DEPTH; /* a block is one partial sum */
  const int64_t chunk = !g->k_block ? CHUNK : split ? whole : g->k_block;
  const operand y = split ? plan_scratch(p, parts_bytes(g, max, k_block)) : g->y;
  launch *l = plan_launch(p, "matmul_tile.cl", "product",
                          "-Dreal=%s -DSIDE=%d -DEACH=%d -DTRANS_A=%d -DTRANS_B=%d -DHAVE_C=%d -DCHUNK=%d -DBLOCKS=%d",
                          dtype_c(g->dtype), TILE_SIDE, TILE_EACH, g->trans_a, g->trans_b, g->have_c && !split,
                          (int)chunk, split ? 0 : blocks_of(g));
  l->group = TILE_SIDE * TILE_SIDE;
  l->times = TILE_SIDE * TILE_SIDE;
  plan_items(p, g->p, 1);
  plan_items(p, g->m, tile);
  plan_items(p, g->n, tile);
  plan_items(p, g->k, k_block);
  arg_operand(p, g->a, g->dtype);
  arg_operand(p, g->b, g->dtype);
  arg_operand(p, split ? nothing() : g->c, g->dtype);
  arg_operand(p, y, g->dtype);
  arg_sizes(p, g);
  arg_long(p, k_block);
  arg_rows(p, g, max);
  arg_strides(p, g, max, g->batched ? max.n * max.k : 0);
  if (split)
    plan_add(p, g, y, k_block);
}

static bool same_place(const plan *p, operand a, operand b) {
  if (a.mem != b.mem || a.at != b.at)
    return false;
  if (a.mem != ARG_MEM || a.tensor == b.tensor)
    return true;
  const unroll_tensor_view *v = plan_view(p, a.tensor), *w = plan_view(p, b.tensor);
  return v->slot != UNROLL_NO_SLOT && v->slot == w->slot && v->offset == w->offset && v->step == w->step &&
         v->period == w->period;
}

/* CLBlast adds to what y holds, so c goes there first. */
static unroll_status plan_clblast(plan *p, const gemm *g) {
  const sizes max = largest(p, g);
  product *c = opencl_alloc(p->device->host, 1, sizeof *c);
  if (!c)
    return opencl_fail(&p->error, UNROLL_E_MEMORY, 0, "opencl: %s: no memory to plan it", p->node->name);
  *c = (product){.dtype = g->dtype,
                 .trans_a = g->trans_a,
                 .trans_b = g->trans_b,
                 .has_c = g->have_c,
                 .a = g->a,
                 .b = g->b,
                 .y = g->y,
                 .m = g->m,
                 .n = g->n,
                 .k = g->k,
                 .a_row = g->a_row,
                 .b_row = g->b_row,
                 .k_block = g->k_block,
                 .from_first = g->from_first};
  /* Rows in calls that go by one kernel of CLBlast, where all of them at once would go by the other. */
  if (g->m_block && g->m_block < max.m && product_is_direct(p->device, c, g->m_block - 1, max.n, max.k) &&
      !product_is_direct(p->device, c, max.m, max.n, max.k))
    c->m_block = g->m_block;
  const unroll_status status = product_temp_bytes(p->device, c, max.m, max.n, max.k, &c->temp_bytes, &p->error);
  if (status != UNROLL_OK) {
    opencl_free(p->device->host, c);
    return status;
  }
  if (g->have_c && !same_place(p, g->c, g->y))
    plan_add(p, g, nothing(), 0);
  if (p->temp < c->temp_bytes)
    p->temp = c->temp_bytes;
  launch *l = plan_launch(p, NULL, "CLBlast", "%s", "");
  if (p->status != UNROLL_OK)
    opencl_free(p->device->host, c);
  else
    l->product = c;
  return UNROLL_OK;
}

static unroll_status plan_whole(plan *p, const gemm *g);

/* Blocks of k in groups of so many, a product each, which goes on from the one before. */
static unroll_status plan_groups(plan *p, const gemm *g, int64_t group, bool one_sum) {
  const sizes max = largest(p, g);
  const int64_t step = group * g->k_block, groups = (max.k + step - 1) / step;
  const uint64_t bytes = dtype_bytes(g->dtype), before = p->node_workspace;
  uint64_t most = before;
  for (int64_t i = 0; i < groups; i++) {
    const int64_t first = (g->from_first ? i : groups - 1 - i) * step;
    gemm part = *g;
    part.a_row = a_row(g, max);
    part.b_row = b_row(g, max);
    part.a = operand_after(g->a, (uint64_t)(first * (g->trans_a ? part.a_row : 1)) * bytes);
    part.b = operand_after(g->b, (uint64_t)(first * (g->trans_b ? 1 : part.b_row)) * bytes);
    part.k = (extent){max.k - first < step ? max.k - first : step, -1};
    part.steady = false;
    if (i > 0) {
      part.c = g->y;
      part.have_c = true;
      part.row_c = false;
    }
    if (one_sum)
      part.k_block = 0;
    p->node_workspace = before; /* one group's scratch is the next one's */
    TRY(plan_whole(p, &part));
    most = most > p->node_workspace ? most : p->node_workspace;
  }
  p->node_workspace = most;
  return UNROLL_OK;
}

/* By what a product is made. */
enum { BY_MATRIX = 1, BY_CLBLAST, BY_CPU, BY_TILES };

static int maker_of(plan *p, const gemm *g, matrix_tile *matrix) {
  const unroll_backend_device *d = p->device;
  const int32_t asked = p->trial && p->trial->product ? p->trial->product : d->product;
  const gemm like = deciding(g);
  const sizes of = largest(p, &like), max = largest(p, g);
  const int64_t row = a_row(g, max) > b_row(g, max) ? a_row(g, max) : b_row(g, max);
  const bool fits = !g->k_block || (g->k.dim < 0 && !g->batched);
  if (g->dtype == UNROLL_F32 && asked == PRODUCT_AUTO && fits &&
      matrix_choose(p->device, of.p, of.m, of.n, of.k, row, matrix))
    return BY_MATRIX;
  const bool clblast = asked == PRODUCT_CLBLAST || (asked == PRODUCT_AUTO && !d->cpu);
  if (clblast && !g->batched) {
    if (!p->trial)
      tune_clblast(p->device, g->dtype);
    if (product_clblast_works(p->device, g->dtype) && !(asked == PRODUCT_AUTO && tune_prefers_tiles(p, &like)))
      return BY_CLBLAST;
  }
  return d->cpu && asked != PRODUCT_TILE ? BY_CPU : BY_TILES;
}

static unroll_status plan_whole(plan *p, const gemm *g) {
  matrix_tile matrix;
  switch (maker_of(p, g, &matrix)) {
  case BY_MATRIX: plan_matrix(p, g, &matrix); break;
  case BY_CLBLAST: return plan_clblast(p, g);
  case BY_CPU: plan_cpu(p, g); break;
  default: plan_tiles(p, g);
  }
  return UNROLL_OK;
}

unroll_status plan_gemm(plan *p, const gemm *g) {
  matrix_tile matrix;
  const sizes max = largest(p, g);
  const int maker = g->k_block ? maker_of(p, g, &matrix) : 0;
  if (maker == BY_MATRIX)
    return plan_groups(p, g, 1, true);
  const bool little = g->trans_a && !g->trans_b && max.m <= STAND_ROWS;
  if (maker == BY_CPU && g->trans_a && !g->batched && g->k.dim < 0 && max.k > NEAR_K && !in_parts(g, max, little))
    return plan_groups(p, g, g->k_block < NEAR_K ? NEAR_K / g->k_block : 1, false);
  return plan_whole(p, g);
}

unroll_status plan_matmul(plan *p) {
  const unroll_matmul_attr *attr = p->node->attr;
  const uint32_t ta = plan_in(p, 0), tb = plan_in(p, 1), tc = plan_in(p, 2), ty = plan_out(p, 0);
  const unroll_tensor_view *a = plan_view(p, ta), *b = plan_view(p, tb), *y = plan_view(p, ty);
  if (!plan_real(p, a->dtype) || a->rank < 2 || b->rank < 2 || y->rank < 2)
    return plan_decline(p, "dtype %d, ranks %d, %d, %d", a->dtype, a->rank, b->rank, y->rank);
  gemm g = {.a = operand_of(ta),
            .b = operand_of(tb),
            .c = operand_of(tc),
            .y = operand_of(ty),
            .dtype = a->dtype,
            .trans_a = attr->trans_a != 0,
            .trans_b = attr->trans_b != 0,
            .batched = y->rank == 3 && b->rank == 3 && a->rank == 3,
            .have_c = tc != UNROLL_NO_TENSOR,
            .row_c = tc != UNROLL_NO_TENSOR && plan_view(p, tc)->rank < y->rank,
            .steady = plan_steady(p, tb),
            .p = {1, -1},
            .n = plan_axis(p, ty, y->rank - 1)};
  if (p->node->attr_size >= UNROLL_SIZE_TO(unroll_matmul_attr, block_order)) {
    if (attr->k_block < 0 || attr->m_block < 0 || attr->k_block > INT32_MAX || (attr->k_block && g.row_c))
      return plan_decline(p, "blocks of %lld and %lld", (long long)attr->k_block, (long long)attr->m_block);
    g.k_block = attr->k_block;
    g.m_block = attr->m_block;
    g.from_first = attr->block_order == UNROLL_BLOCKS_FROM_FIRST;
  }
  if (p->dry)
    return UNROLL_OK;
  if (g.batched) {
    g.p = plan_axis(p, ty, 0);
    g.m = plan_axis(p, ty, 1);
    g.k = plan_axis(p, ta, g.trans_a ? 1 : 2);
  } else if (g.trans_a) {
    g.m = plan_axis(p, ta, a->rank - 1);
    g.k = plan_axes(p, ta, 0, a->rank - 1);
  } else {
    g.m = plan_axes(p, ta, 0, a->rank - 1);
    g.k = plan_axis(p, ta, a->rank - 1);
  }
  return plan_gemm(p, &g);
}
