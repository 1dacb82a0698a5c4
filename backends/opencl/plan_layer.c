/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_layer.c: whole layers on CPU devices (kernels/layer_forward.cl), and how their work is divided. The gradient is in
 * plan_layer_grad.c.
 */
#include "tune.h"
#include <stdio.h>

enum { X, W_X, W_H, BIAS, INNER_BIAS, H0, C0, LENGTHS, MASKS }; /* inputs of a layer */
enum { MASKS_OF_GRADIENT = 17 };   /* among the inputs of a gradient: three, as of a layer */
enum { Y, H_LAST, C_LAST, SAVED }; /* its outputs */
enum { PACK_K = 16 };              /* as layer_pack.cl has it */

static const struct {
  int64_t gates;
  int64_t planes; /* values kept of a unit and step for the gradient */
  bool cell;      /* there is a c */
  int phases;
  uint32_t x_order, h_order; /* of the gates in panels: see layer_pack.cl */
} cells[UNROLL_CELL_COUNT] = {
    [UNROLL_CELL_RNN] = {1, 0, false, 1, 0x0, 0x0},
    [UNROLL_CELL_LSTM] = {4, 4, true, 1, 0x3210, 0x3210},
    [UNROLL_CELL_GRU] = {3, 4, false, 2, 0x210, 0x210},
    [UNROLL_CELL_GRU_AFTER] = {3, 4, false, 1, 0x102, 0x210},
};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* As kernels/layer_masks.cl has it. */
static int zone_kind(const plan *p, uint32_t keep) {
  return keep == UNROLL_NO_TENSOR ? 0 : plan_view(p, keep)->dtype == UNROLL_BOOL ? 1 : 2;
}

static bool is_zone(const plan *p, uint32_t keep, int32_t dtype) {
  if (keep == UNROLL_NO_TENSOR)
    return true;
  const unroll_tensor_view *v = plan_view(p, keep);
  return (v->dtype == UNROLL_BOOL || v->dtype == dtype) && (v->rank == 2 || v->rank == 3);
}

static unroll_status read_masks(plan *p, layer *l, uint32_t first) {
  l->h_mask = plan_in(p, first);
  l->keep_h = plan_in(p, first + 1);
  l->keep_c = plan_in(p, first + 2);
  if (l->h_mask == UNROLL_NO_TENSOR && l->keep_h == UNROLL_NO_TENSOR && l->keep_c == UNROLL_NO_TENSOR)
    return UNROLL_OK;
  if (!p->device->cpu) /* layer_group*.cl know none: the scan that the layer is lowered to has them */
    return plan_decline(p, "%s", "masks of a layer on a device that is no processor");
  if (!is_zone(p, l->keep_h, l->dtype) || !is_zone(p, l->keep_c, l->dtype) ||
      (l->keep_c != UNROLL_NO_TENSOR && !l->have_cell))
    return plan_decline(p, "%s", "keep_h or keep_c of a kind that is not known");
  if (l->cell == UNROLL_CELL_RNN && zone_kind(p, l->keep_h) == 2)
    l->planes = 1; /* what the state would have been */
  return UNROLL_OK;
}

unroll_status layer_read(plan *p, layer *l, uint32_t lengths) {
  const unroll_layer_attr *attr = p->node->attr;
  const unroll_tensor_view *x = plan_view(p, plan_in(p, X)), *w = plan_view(p, plan_in(p, W_H));
  if (attr->cell <= UNROLL_CELL_NONE || attr->cell >= UNROLL_CELL_COUNT || !plan_real(p, x->dtype) || x->rank != 3 ||
      w->rank != 2)
    return plan_decline(p, "cell %d, dtype %d, ranks %d and %d", attr->cell, x->dtype, x->rank, w->rank);
  if (attr->cell == UNROLL_CELL_RNN && attr->activation != UNROLL_TANH && attr->activation != UNROLL_SIGMOID &&
      attr->activation != UNROLL_RELU)
    return plan_decline(p, "activation %d", attr->activation);
  if (p->graph->is_template || p->device->recurrence == RECURRENCE_SCAN)
    return plan_decline(p, "%s", "no kernel for the whole layer");
  *l = (layer){.cell = attr->cell,
               .activation = attr->activation,
               .reverse = attr->direction == UNROLL_REVERSE,
               .dtype = x->dtype,
               .panels = plan_panels(p, x->dtype),
               .lengths = plan_in(p, lengths),
               .t = plan_axis(p, plan_in(p, X), 0),
               .B = x->shape[1],
               .I = x->shape[2],
               .H = w->shape[1],
               .gates = cells[attr->cell].gates,
               .planes = cells[attr->cell].planes,
               .phases = cells[attr->cell].phases,
               .have_cell = cells[attr->cell].cell,
               .width = plan_width(p, x->dtype),
               .cores = p->device->cores};
  if (p->node->attr_size >= UNROLL_SIZE_TO(unroll_layer_attr, segment)) {
    l->block = attr->block > 0 ? attr->block * l->B : 0;
    l->segment = attr->segment != 0;
  }
  l->rows_all = (extent){l->t.per * l->B, l->t.dim};
  l->max_t = extent_max(p, l->t);
  l->padded = ceil_div(l->H, l->width) * l->width;
  l->d_row = l->gates * l->H + 16;
  TRY(read_masks(p, l, lengths == LENGTHS ? MASKS : MASKS_OF_GRADIENT));
  l->reserve_bytes = (uint64_t)((l->max_t + 1) * (l->have_cell ? 2 : 1) + l->planes * l->max_t) *
                     (uint64_t)(l->B * l->padded) * dtype_bytes(l->dtype);
  if (!p->device->cpu && !layer_has_groups(p, l))
    return plan_decline(p, "%s", "products and gates of its own are quicker");
  return UNROLL_OK;
}

/* states [T+1][B][padded], cells likewise, kept [T][B][planes][padded]. */
void layer_lay_out(layer *l, uint32_t reserve) {
  const uint64_t history = (uint64_t)((l->max_t + 1) * l->B * l->padded) * dtype_bytes(l->dtype);
  l->states = operand_of(reserve);
  l->cells = operand_after(l->states, history);
  l->kept = l->have_cell ? operand_after(l->cells, history) : l->cells;
}

/* ---- how the work is divided ---- */
/* Whether there are 32 registers for sums: with AVX-512, else they are taken as 16. */
static bool wide_tiles(const layer *l) { return l->width * (int64_t)dtype_bytes(l->dtype) >= 64; }

/*
 * Cycles of a step for the busiest core, roughly: two multiply-adds and two loads a cycle, four cycles until a sum can be
 * added to again, and panels that come from L2 for the first tile of an item's rows. Only the order of results matters.
 */
double layer_cycles(const layer *l, const layer_split *s, int64_t gates, int64_t k) {
  const double tiles = (double)ceil_div(s->item_rows, s->rows), vecs = (double)s->vecs, rows = (double)s->rows;
  const double sums = rows * vecs / 2, loads = (rows + vecs) / 2, wait = 4;
  const double stream = vecs * 1.6 * (double)dtype_bytes(l->panels) / (double)dtype_bytes(l->dtype);
  double step = sums > loads ? sums : loads;
  step = (step > wait ? step : wait) + loads / 16; /* they get in each other's way a little */
  /* Where registers allow both, four rows by four vectors: each row has its address in a register, of which there are 16. */
  if (wide_tiles(l) && rows > 4)
    step += (rows - 4) / 8;
  const double first = step > stream ? step : stream;
  const double passes = (double)(gates * s->units * ceil_div(l->H, l->width * s->units)) / vecs;
  const double rounds = (double)ceil_div(ceil_div(l->B, s->item_rows), l->cores);
  const double edges = tiles * rows * vecs * (double)ceil_div(k, 512);
  return rounds * passes * ((double)k * (first + (tiles - 1) * step) + edges);
}

/* Vectors of units in a block, so that each phase's columns are whole passes of vecs; 0 where that can't be. */
int64_t layer_units(int64_t gates, int phases, int64_t vecs) {
  if (phases == 2 || gates == 1)
    return vecs;
  if (gates == 3)
    return vecs == 3 ? 1 : vecs;
  return vecs == 3 ? 0 : 1;
}

/* Rows of a tile of vecs vectors at most: what stays in the registers; tried on PoCL. */
int64_t layer_most_rows(const layer *l, int64_t vecs) {
  static const int64_t wide[5] = {0, 16, 11, 8, 4}, narrow[5] = {0, 8, 6, 3, 2};
  return (wide_tiles(l) ? wide : narrow)[vecs];
}

static layer_split best_tiles(const layer *l, int64_t gates, int phases, int64_t k) {
  layer_split best = {.units = 1, .item_rows = 1}; /* rows of 0: none yet */
  double least = 0;
  for (int64_t pieces = ceil_div(l->B, LAYER_ITEM_ROWS); pieces <= l->B; pieces++) {
    layer_split s = {.item_rows = ceil_div(l->B, pieces)};
    if (best.rows && pieces > 4 * l->cores)
      break;
    for (s.vecs = 1; s.vecs <= 4; s.vecs++) {
      s.units = layer_units(gates, phases, s.vecs);
      if (s.units == 0 || (s.units > 1 && (s.units - 1) * l->width >= l->H))
        continue;
      for (s.rows = 1; s.rows <= smaller(layer_most_rows(l, s.vecs), s.item_rows); s.rows++) {
        const double now = layer_cycles(l, &s, gates, k);
        if (best.rows == 0 || now < least) {
          least = now;
          best = s;
        }
      }
    }
  }
  return best;
}

/*
 * Where the rows are too few to keep the cores busy, units are divided among them too. That takes a launch for every step,
 * and is worth it where a core would need longer to read all weights.
 */
static bool divide_units(const plan *p, const layer *l, int64_t gates, int64_t k, int64_t idle) {
  const double alone = (double)(gates * l->H * k) * (double)dtype_bytes(l->panels) / 80; /* ns, at 80 GB/s */
  const double launches = 8000.0 * l->phases; /* ns, of PoCL, with the threads that have to wake up */
  if (p->device->recurrence != RECURRENCE_AUTO && p->device->recurrence != RECURRENCE_LAYER)
    return p->device->recurrence == RECURRENCE_STEP;
  return idle > 1 && alone - alone / (double)idle > launches;
}

layer_split layer_divide(const plan *p, const layer *l, int64_t gates, int phases, int64_t k) {
  layer_split s = best_tiles(l, gates, phases, k);
  s.item_blocks = ceil_div(l->H, l->width * s.units);
  s.row_pieces = ceil_div(l->B, s.item_rows);
  const int64_t idle = l->cores / s.row_pieces;
  s.step_at_a_time = divide_units(p, l, gates, k, idle);
  if (s.step_at_a_time && idle > 1) /* some pieces a core: one of them begins later than the other */
    s.item_blocks = ceil_div(s.item_blocks, smaller(s.item_blocks, 4 * idle));
  return s;
}

int64_t layer_chunk(const layer *l, const layer_split *s, int64_t k) {
  if (s->items)
    return layer_chunk_groups(l, s);
  if (s->step_at_a_time)
    return 1;
  /* So many that a launch takes some 20 ms at a rate that is rather too low. */
  const double flops = 2.0 * (double)(l->B * l->gates * l->H) * (double)k, rate = 40e9 * (double)l->cores;
  const double steps = 0.02 * rate / (flops + 1);
  return steps < 1 ? 1 : steps > 1e9 ? 1000000000 : (int64_t)steps;
}

/* ---- panels ---- */
static int64_t blocks_of(const layer *l, const layer_split *s) { return ceil_div(l->H, l->width * s->units); }

operand layer_panel_area(plan *p, const layer *l, const layer_split *s, uint32_t weights, int64_t gates, int64_t k) {
  const uint64_t bytes = (uint64_t)(blocks_of(l, s) * gates * s->units * l->width * k) * dtype_bytes(l->panels);
  return plan_steady(p, weights) ? plan_packed(p, bytes) : plan_scratch(p, bytes);
}

void layer_pack(plan *p, const layer *l, const layer_split *s, operand area, const layer_panels *from) {
  const uint64_t bytes = dtype_bytes(l->dtype), panel_bytes = dtype_bytes(l->panels);
  const int64_t vecs = s->items ? from->gates * s->units : s->vecs;
  launch *pack = plan_launch(p, "layer_pack.cl", "pack",
                             "-Dreal=%s -DPANEL=%s -DWIDTH=%d -DUNITS=%d -DVECS=%d -DGATES=%d -DORDER=0x%x -DPACK_K=%d",
                             dtype_c(l->dtype), dtype_c(l->panels), (int)l->width, (int)s->units, (int)vecs,
                             (int)from->gates, from->order, PACK_K);
  if (area.mem == ARG_PACKED)
    pack->cached = from->weights;
  plan_items(p, (extent){blocks_of(l, s) * from->gates * s->units, -1}, 1);
  plan_items(p, (extent){from->k, -1}, PACK_K);
  arg_operand(p, operand_after(operand_of(from->weights), (uint64_t)from->from * bytes), l->dtype);
  arg_operand(p, operand_after(area, (uint64_t)(from->to * blocks_of(l, s) * s->units * l->width) * panel_bytes),
              l->panels);
  arg_long(p, l->H);
  arg_long(p, from->k);
  arg_long(p, from->gate_step);
  arg_long(p, from->unit_step);
  arg_long(p, from->k_step);
  arg_kind_of(p, ARG_ITEMS, 0);
}

/* Panels of W [GATES·H][K]; those of a second phase after those of the first. */
static operand pack_gates(plan *p, const layer *l, const layer_split *s, uint32_t weights, int64_t k, uint32_t order) {
  const operand area = layer_panel_area(p, l, s, weights, l->gates, k);
  const int64_t first = l->phases == 2 ? 2 : l->gates;
  layer_panels from = {
      .weights = weights, .gates = first, .k = k, .gate_step = l->H * k, .unit_step = k, .k_step = 1, .order = order};
  layer_pack(p, l, s, area, &from);
  if (first < l->gates) {
    from.from = first * l->H * k;
    from.to = first * k;
    from.gates = l->gates - first;
    from.order = 0;
    layer_pack(p, l, s, area, &from);
  }
  return area;
}

/* ---- launches ---- */
static void write_masks(const plan *p, const layer *l, char *text, size_t size) {
  const int zone_h = zone_kind(p, l->keep_h), zone_c = zone_kind(p, l->keep_c);
  text[0] = 0;
  if (l->h_mask != UNROLL_NO_TENSOR || zone_h || zone_c)
    snprintf(text, size, " -DH_MASK=%d -DZONE_H=%d -DZONE_C=%d", l->h_mask != UNROLL_NO_TENSOR, zone_h, zone_c);
}

void layer_arg_zones(plan *p, const layer *l) {
  const uint32_t keep[2] = {l->keep_h, l->keep_c};
  for (int i = 0; i < 2; i++)
    if (keep[i] != UNROLL_NO_TENSOR) {
      arg_tensor(p, keep[i]);
      arg_long(p, plan_view(p, keep[i])->rank == 3 ? l->B * l->H : 0);
    }
}

void layer_begin(plan *p, const layer *l, const layer_split *s, const char *source, const char *kernel,
                 const char *more, int phases) {
  if (s->items) {
    layer_begin_groups(p, l, s, phases);
    return;
  }
  int item_rows = 1; /* few sizes, so that few kernels are built */
  while (item_rows < s->item_rows)
    item_rows *= 2;
  char masks[64];
  write_masks(p, l, masks, sizeof masks);
  launch *step =
      plan_launch(p, source, kernel,
                  "-Dreal=%s -DPANEL=%s -DWIDTH=%d -DCELL=%d -DACTIVATION=%d -DUNITS=%d -DROWS=%d -DVECS=%d "
                  "-DITEM_ROWS=%d -DHAVE_LENGTHS=%d %s%s",
                  dtype_c(l->dtype), dtype_c(l->panels), (int)l->width, l->cell, l->activation, (int)s->units,
                  (int)s->rows, (int)s->vecs, item_rows, l->lengths != UNROLL_NO_TENSOR, more, masks);
  step->group = 1;
  plan_in_loop(p);
}

void layer_end(plan *p, const layer *l, const layer_split *s, int phases) {
  if (s->items) {
    layer_end_groups(p, l, s);
    return;
  }
  const int64_t pieces = s->row_pieces * ceil_div(blocks_of(l, s), s->item_blocks);
  /* Some more work-items than pieces: the first thread takes one more than its share of them, and finds no work left. */
  plan_items(p, (extent){pieces > 1 ? 4 * smaller(pieces, l->cores) : 1, -1}, 1);
  arg_claims(p);
  arg_extent(p, l->t);
  arg_long(p, l->B);
  arg_long(p, l->I);
  arg_long(p, l->H);
  arg_long(p, l->padded);
  arg_long(p, l->reverse);
  arg_long(p, s->item_rows);
  arg_long(p, s->item_blocks);
  arg_long(p, pieces);
  arg_long(p, phases);
  arg_kind_of(p, ARG_FIRST, 0);
  arg_kind_of(p, ARG_COUNT, 0);
}

typedef struct forward {
  operand x, w, r, fed;
  bool hoisted, save;
} forward;

static void launch_forward(plan *p, const layer *l, const layer_split *s, const forward *f, int phases) {
  char more[64];
  snprintf(more, sizeof more, "-DSAVE=%d -DHOISTED=%d", f->save, f->hoisted);
  layer_begin(p, l, s, "layer_forward.cl", "forward", more, phases);
  arg_operand(p, f->x, l->dtype);
  arg_operand(p, f->w, l->panels);
  arg_operand(p, f->r, l->panels);
  arg_tensor(p, plan_in(p, BIAS));
  arg_tensor(p, plan_in(p, INNER_BIAS));
  arg_tensor(p, plan_in(p, H0));
  arg_tensor(p, plan_in(p, C0));
  arg_tensor(p, l->lengths);
  arg_tensor(p, plan_out(p, Y));
  arg_tensor(p, plan_out(p, H_LAST));
  arg_tensor(p, plan_out(p, C_LAST));
  arg_operand(p, l->states, l->dtype);
  arg_operand(p, l->cells, l->dtype);
  arg_operand(p, l->kept, l->dtype);
  if (l->h_mask != UNROLL_NO_TENSOR) {
    arg_tensor(p, l->h_mask);
    arg_operand(p, f->fed, l->dtype);
  }
  layer_arg_zones(p, l);
  layer_end(p, l, s, phases);
}

/* x·W_xᵀ + b for all steps at once. */
static unroll_status plan_inputs(plan *p, const layer *l, operand y) {
  const gemm g = {.a = operand_of(plan_in(p, X)),
                  .b = operand_of(plan_in(p, W_X)),
                  .c = operand_of(plan_in(p, BIAS)),
                  .y = y,
                  .dtype = l->dtype,
                  .trans_b = true,
                  .have_c = true,
                  .row_c = true,
                  .steady = plan_steady(p, plan_in(p, W_X)),
                  .p = {1, -1},
                  .m = l->rows_all,
                  .m_block = l->block,
                  .n = {l->gates * l->H, -1},
                  .k = {l->I, -1}};
  return plan_gemm(p, &g);
}

/* Whether x's product is worth a launch of its own: its panels would be read for few rows, or push W_h's out of a cache. */
static bool hoist(const layer *l, const layer_split *s) {
  const double bytes = (double)(l->gates * l->H * (l->I + l->H)) * (double)dtype_bytes(l->panels);
  return s->items || s->step_at_a_time || s->item_rows < 4 || bytes > 8e6;
}

/* The first of what is saved: the reserve, once it is granted. Before that any of the standard values may be wanted. */
static uint32_t layer_saved(const plan *p) {
  for (uint32_t i = SAVED; i < SAVED + 4; i++)
    if (plan_out(p, i) != UNROLL_NO_TENSOR)
      return plan_out(p, i);
  return UNROLL_NO_TENSOR;
}

unroll_status plan_layer(plan *p) {
  layer l = {0};
  TRY(layer_read(p, &l, LENGTHS));
  const uint32_t reserve = layer_saved(p);
  if (reserve != UNROLL_NO_TENSOR)
    p->reserve = l.reserve_bytes;
  if (p->dry)
    return UNROLL_OK;
  if (reserve != UNROLL_NO_TENSOR && plan_view(p, reserve)->dtype != UNROLL_U8)
    return plan_decline(p, "%s", "the reserve was not granted");
  const uint64_t bytes = dtype_bytes(l.dtype), state = (uint64_t)(l.B * l.padded) * bytes;
  layer_split s = p->device->cpu ? layer_divide(p, &l, l.gates, l.phases, l.H)
                                 : layer_divide_groups(p, &l, false, reserve != UNROLL_NO_TENSOR || l.segment);
  s.save = reserve != UNROLL_NO_TENSOR;
  forward f = {.hoisted = hoist(&l, &s), .save = reserve != UNROLL_NO_TENSOR};
  s = layer_share(p, &l, s, l.gates, l.H);
  s = tune_layer(p, &l, s, &(tune_task){.gates = l.gates, .k = l.H, .phases = l.phases, .hoisted = f.hoisted});
  if (f.save)
    layer_lay_out(&l, reserve);
  else {
    l.states = plan_scratch(p, 2 * state);
    l.cells = l.have_cell ? plan_scratch(p, state) : l.states;
    l.kept = l.phases == 2 ? plan_scratch(p, (uint64_t)l.planes * state) : l.states;
  }
  f.r = pack_gates(p, &l, &s, plan_in(p, W_H), l.H, cells[l.cell].h_order);
  f.w = f.r;
  f.x = operand_of(plan_in(p, X));
  if (f.hoisted) {
    f.x = plan_scratch(p, (uint64_t)(extent_max(p, l.rows_all) * l.gates * l.H) * bytes);
    if (!p->trial) /* which is of the recurrence alone */
      TRY(plan_inputs(p, &l, f.x));
  } else
    f.w = pack_gates(p, &l, &s, plan_in(p, W_X), l.I, cells[l.cell].x_order);
  if (l.h_mask != UNROLL_NO_TENSOR) {
    f.fed = plan_scratch(p, 2 * state + (uint64_t)(l.B * l.H) * bytes);
    plan_multiply(p, l.dtype, plan_in(p, H0), l.h_mask, operand_after(f.fed, 2 * state), l.B * l.H);
  }
  if (s.persistent) {
    plan_persistent_loop(p, l.t, 0, layer_chunk_groups(&l, &s));
    launch_forward(p, &l, &s, &f, (1 << l.phases) - 1);
    s.persistent = false;
  }
  plan_loop(p, l.t, 0, layer_chunk(&l, &s, l.H + (f.hoisted ? 0 : l.I)));
  if (!s.step_at_a_time)
    launch_forward(p, &l, &s, &f, (1 << l.phases) - 1);
  else
    for (int phase = 0; phase < l.phases; phase++)
      launch_forward(p, &l, &s, &f, 1 << phase);
  return UNROLL_OK;
}
