/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_matmul.c: which kernel multiplies. On CPU devices kernels/matmul.cl with a register tile, because CLBlast's
 * defaults are far from such a machine's peak; elsewhere CLBlast, once it has passed its test on the device; else
 * kernels/matmul_tile.cl, which the device option product=tile asks for on any device.
 */
#include "opencl.h"

enum { CHUNK = 512 };   /* values of k in a partial sum, of all own kernels */
enum { FEW_ROWS = 32 }; /* below: packing b for one product costs more than it saves */
enum { DOT_ROWS = 4, DOT_COLUMNS = 4, PACK_K = 16, TILE_SIDE = 8, TILE_EACH = 4 };

typedef struct shape { /* y [P,M,N] = op(a) · op(b) */
  uint32_t a, b, c, y;
  int32_t dtype;
  bool trans_a, trans_b, batched;
  extent p, m, n, k;
  int64_t max_p, max_m, max_n, max_k;
  bool row_c; /* c is a row */
} shape;

static unroll_status read_shape(plan *p, shape *s) {
  const unroll_matmul_attr *attr = p->node->attr;
  s->a = plan_in(p, 0);
  s->b = plan_in(p, 1);
  s->c = plan_in(p, 2);
  s->y = plan_out(p, 0);
  s->trans_a = attr->trans_a != 0;
  s->trans_b = attr->trans_b != 0;
  const unroll_tensor_view *a = plan_view(p, s->a), *b = plan_view(p, s->b), *y = plan_view(p, s->y);
  s->dtype = a->dtype;
  if (!plan_real(p, s->dtype) || a->rank < 2 || b->rank < 2 || y->rank < 2)
    return plan_decline(p, "dtype %d, ranks %d, %d, %d", a->dtype, a->rank, b->rank, y->rank);
  s->batched = y->rank == 3 && b->rank == 3 && a->rank == 3;
  s->p = (extent){1, -1};
  if (s->batched) {
    s->p = plan_axis(p, s->y, 0);
    s->m = plan_axis(p, s->y, 1);
    s->k = plan_axis(p, s->a, s->trans_a ? 1 : 2);
  } else if (s->trans_a) {
    s->m = plan_axis(p, s->a, a->rank - 1);
    s->k = plan_axes(p, s->a, 0, a->rank - 1);
  } else {
    s->m = plan_axes(p, s->a, 0, a->rank - 1);
    s->k = plan_axis(p, s->a, a->rank - 1);
  }
  s->n = plan_axis(p, s->y, y->rank - 1);
  s->max_p = extent_max(p, s->p);
  s->max_m = extent_max(p, s->m);
  s->max_n = extent_max(p, s->n);
  s->max_k = extent_max(p, s->k);
  s->row_c = s->c != UNROLL_NO_TENSOR && plan_view(p, s->c)->rank < y->rank;
  return UNROLL_OK;
}

/* Whether b has the same bytes for every step, and for every run while its slot's generation stands. */
static bool steady(const plan *p, uint32_t tensor) {
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
static int64_t block_of(const shape *s, int64_t tiles, int64_t wanted) {
  const int64_t chunks = (s->max_k + CHUNK - 1) / CHUNK;
  int64_t blocks = (wanted + tiles - 1) / tiles;
  if (blocks > chunks)
    blocks = chunks;
  return blocks <= 1 ? chunks * CHUNK : (chunks + blocks - 1) / blocks * CHUNK;
}

static void arg_strides(plan *p, const shape *s, int64_t b_batch) {
  arg_long(p, s->row_c ? 0 : s->max_n);
  arg_long(p, s->batched ? s->max_m * s->max_k : 0);
  arg_long(p, b_batch);
  arg_long(p, s->row_c ? 0 : s->max_m * s->max_n);
}

static void arg_sizes(plan *p, const shape *s) {
  arg_extent(p, s->m);
  arg_extent(p, s->n);
  arg_extent(p, s->k);
}

/* Adds the blocks of k, which lie in scratch, and c. */
static void plan_add(plan *p, const shape *s, uint64_t parts, int64_t k_block) {
  const uint32_t width = plan_width(p, s->dtype);
  plan_launch(p, "matmul_pack.cl", "add", "-Dreal=%s -DWIDTH=%u -DHAVE_C=%d", dtype_c(s->dtype), width,
              s->c != UNROLL_NO_TENSOR);
  plan_items(p, s->p, 1);
  plan_items(p, s->m, 1);
  plan_items(p, s->n, width);
  arg_scratch(p, parts, s->dtype);
  arg_tensor(p, s->c);
  arg_tensor(p, s->y);
  arg_extent(p, s->m);
  arg_extent(p, s->n);
  arg_blocks(p, s->k, k_block);
  arg_long(p, s->row_c ? 0 : s->max_n);
  arg_long(p, s->row_c ? 0 : s->max_m * s->max_n);
  arg_kind_of(p, ARG_ITEMS, 0);
}

static uint64_t parts_bytes(const shape *s, int64_t k_block) {
  const int64_t blocks = (s->max_k + k_block - 1) / k_block;
  return (uint64_t)(s->max_p * s->max_m * s->max_n * blocks) * dtype_bytes(s->dtype);
}

static void plan_dot(plan *p, const shape *s) {
  const int64_t rows = s->max_m < DOT_ROWS ? s->max_m : DOT_ROWS;
  launch *l = plan_launch(p, "matmul_dot.cl", "dot_rows", "-Dreal=%s -DWIDTH=%u -DROWS=%d -DCOLUMNS=%d -DHAVE_C=%d",
                          dtype_c(s->dtype), plan_width(p, s->dtype), (int)rows, DOT_COLUMNS, s->c != UNROLL_NO_TENSOR);
  l->group = 1;
  plan_items(p, s->p, 1);
  plan_items(p, s->m, rows);
  plan_items(p, s->n, DOT_COLUMNS);
  arg_tensor(p, s->a);
  arg_tensor(p, s->b);
  arg_tensor(p, s->c);
  arg_tensor(p, s->y);
  arg_sizes(p, s);
  arg_strides(p, s, s->batched ? s->max_n * s->max_k : 0);
}

static void plan_cpu(plan *p, const shape *s) {
  const bool has_c = s->c != UNROLL_NO_TENSOR, keep = steady(p, s->b);
  const uint32_t width = plan_width(p, s->dtype);
  const int vecs = 2, panel = (int)width * vecs;
  const bool pack =
      s->max_m >= FEW_ROWS || (keep && p->graph->is_template && !s->trans_a) || (s->trans_a && s->trans_b);
  if (s->trans_b && !pack) {
    plan_dot(p, s);
    return;
  }
  const int64_t panels = (s->max_n + panel - 1) / panel, packed_batch = panels * panel * s->max_k;
  uint64_t packed = 0;
  if (pack) {
    const uint64_t bytes = (uint64_t)(s->max_p * packed_batch) * dtype_bytes(s->dtype);
    if (keep) {
      packed = p->packed;
      p->packed += (bytes + OPENCL_ALIGNMENT - 1) / OPENCL_ALIGNMENT * OPENCL_ALIGNMENT;
    } else
      packed = plan_scratch(p, bytes);
    launch *l = plan_launch(p, "matmul_pack.cl", "pack", "-Dreal=%s -DWIDTH=%u -DVECS=%d -DPACK_K=%d -DTRANS_B=%d",
                            dtype_c(s->dtype), width, vecs, PACK_K, s->trans_b);
    if (keep) {
      l->cached = s->b;
      l->once = p->graph->is_template;
    }
    plan_items(p, s->p, 1);
    plan_items(p, s->n, panel);
    plan_items(p, s->k, PACK_K);
    arg_tensor(p, s->b);
    if (keep)
      arg_packed(p, packed, s->dtype);
    else
      arg_scratch(p, packed, s->dtype);
    arg_extent(p, s->n);
    arg_extent(p, s->k);
    arg_long(p, s->max_n * s->max_k);
    arg_long(p, packed_batch);
    arg_kind_of(p, ARG_ITEMS, 0);
  }
  const int64_t rows = tile_rows(width >= 16 ? 8 : 6, s->max_m);
  const int64_t tiles = (s->max_m + rows - 1) / rows * panels * s->max_p, k_block = block_of(s, tiles, 16);
  const bool split = k_block < s->max_k;
  const uint64_t parts = split ? plan_scratch(p, parts_bytes(s, k_block)) : 0;
  launch *l = plan_launch(p, "matmul.cl", "product",
                          "-Dreal=%s -DWIDTH=%u -DVECS=%d -DROWS=%d -DPACKED=%d -DTRANS_A=%d -DHAVE_C=%d -DCHUNK=%d",
                          dtype_c(s->dtype), width, vecs, (int)rows, pack, s->trans_a, has_c && !split, CHUNK);
  l->group = 1;
  plan_items(p, s->p, 1);
  plan_items(p, s->m, rows);
  plan_items(p, s->n, panel);
  plan_items(p, s->k, k_block);
  arg_tensor(p, s->a);
  if (pack && keep)
    arg_packed(p, packed, s->dtype);
  else if (pack)
    arg_scratch(p, packed, s->dtype);
  else
    arg_tensor(p, s->b);
  arg_tensor(p, split ? UNROLL_NO_TENSOR : s->c);
  if (split)
    arg_scratch(p, parts, s->dtype);
  else
    arg_tensor(p, s->y);
  arg_sizes(p, s);
  arg_long(p, k_block);
  arg_strides(p, s, pack ? packed_batch : s->batched ? s->max_n * s->max_k : 0);
  if (split)
    plan_add(p, s, parts, k_block);
}

static void plan_tiles(plan *p, const shape *s) {
  const int64_t tile = TILE_SIDE * TILE_EACH;
  const int64_t tiles = s->max_p * ((s->max_m + tile - 1) / tile) * ((s->max_n + tile - 1) / tile);
  const int64_t k_block = block_of(s, tiles, 256);
  const bool split = k_block < s->max_k;
  const uint64_t parts = split ? plan_scratch(p, parts_bytes(s, k_block)) : 0;
  launch *l = plan_launch(
      p, "matmul_tile.cl", "product", "-Dreal=%s -DSIDE=%d -DEACH=%d -DTRANS_A=%d -DTRANS_B=%d -DHAVE_C=%d -DCHUNK=%d",
      dtype_c(s->dtype), TILE_SIDE, TILE_EACH, s->trans_a, s->trans_b, s->c != UNROLL_NO_TENSOR && !split, CHUNK);
  l->group = TILE_SIDE * TILE_SIDE;
  l->times = TILE_SIDE * TILE_SIDE;
  plan_items(p, s->p, 1);
  plan_items(p, s->m, tile);
  plan_items(p, s->n, tile);
  plan_items(p, s->k, k_block);
  arg_tensor(p, s->a);
  arg_tensor(p, s->b);
  arg_tensor(p, split ? UNROLL_NO_TENSOR : s->c);
  if (split)
    arg_scratch(p, parts, s->dtype);
  else
    arg_tensor(p, s->y);
  arg_sizes(p, s);
  arg_long(p, k_block);
  arg_strides(p, s, s->batched ? s->max_n * s->max_k : 0);
  if (split)
    plan_add(p, s, parts, k_block);
}

static bool same_place(const plan *p, uint32_t a, uint32_t b) {
  const unroll_tensor_view *v = plan_view(p, a), *w = plan_view(p, b);
  return v->slot != UNROLL_NO_SLOT && v->slot == w->slot && v->offset == w->offset && v->step == w->step &&
         v->period == w->period;
}

/* CLBlast adds to what y holds, so c goes there first. */
static unroll_status plan_clblast(plan *p, const shape *s) {
  product *g = opencl_alloc(p->device->host, 1, sizeof *g);
  if (!g)
    return opencl_fail(&p->error, UNROLL_E_MEMORY, 0, "opencl: %s: no memory to plan it", p->node->name);
  *g = (product){.dtype = s->dtype,
                 .trans_a = s->trans_a,
                 .trans_b = s->trans_b,
                 .has_c = s->c != UNROLL_NO_TENSOR,
                 .a = s->a,
                 .b = s->b,
                 .y = s->y,
                 .m = s->m,
                 .n = s->n,
                 .k = s->k};
  const unroll_status status =
      product_temp_bytes(p->device, g, s->max_m, s->max_n, s->max_k, &g->temp_bytes, &p->error);
  if (status != UNROLL_OK) {
    opencl_free(p->device->host, g);
    return status;
  }
  if (g->has_c && !same_place(p, s->c, s->y))
    plan_broadcast(p, s->c, s->y);
  if (p->temp < g->temp_bytes)
    p->temp = g->temp_bytes;
  launch *l = plan_launch(p, NULL, "CLBlast", "%s", "");
  if (p->status != UNROLL_OK)
    opencl_free(p->device->host, g);
  else
    l->product = g;
  return UNROLL_OK;
}

unroll_status plan_matmul(plan *p) {
  shape s = {0};
  TRY(read_shape(p, &s));
  const unroll_backend_device *d = p->device;
  const bool clblast = d->product == PRODUCT_CLBLAST || (d->product == PRODUCT_AUTO && !d->cpu);
  if (p->dry)
    return UNROLL_OK;
  if (clblast && !s.batched && product_clblast_works(p->device, s.dtype))
    return plan_clblast(p, &s);
  if (d->cpu && d->product != PRODUCT_TILE)
    plan_cpu(p, &s);
  else
    plan_tiles(p, &s);
  return UNROLL_OK;
}
