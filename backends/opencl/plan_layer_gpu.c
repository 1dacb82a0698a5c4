/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_layer_gpu.c: whole layers on devices with local memory and many work-items (kernels/layer_group.cl): which kind of
 * launch, and how its work is divided.
 *
 * Sizes come from arithmetic. A tile of 8 rows x 4 gates is 32 sums, 32 values of the rows and 16 weights on their way: some
 * 120 registers, so that two groups of 256 fit where a core has 64 K of them. It wants a byte of weights for 4 operations
 * where L2 gives a core 64 a cycle, which the 16 KB that a group has on their way can use. Local memory: 16 KB of what is
 * staged and 8 KB for the splits' sums, of the 32 KB that every device has.
 */
#include "layer.h"
#include <stdio.h>
#include <string.h>

enum { MOST_ITEMS = 256, MOST_LANES = 32, LEAST_LANES = 8, STEP_ROWS = 8, WHOLE_ROWS = 4, PART = 512 };
enum { PERSISTENT_ROWS = 16, LEAST_PIECES_HELD = 3, LEAST_DEPTH_HELD = 128 };
enum { STAGE_BYTES = 16384, LEAST_DEPTH = 32, MOST_DEPTH = 1024 };

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t power_of_two(int64_t n, int64_t most) {
  int64_t power = 1;
  while (power < n && power < most)
    power *= 2;
  return power;
}

/* What a product goes over: h to its gates, or the gates back to h. */
static int64_t product_depth(const layer *l, bool backward) {
  return !backward ? l->H : l->phases == 2 ? 2 * l->H : l->gates * l->H;
}

/* A row in local memory, in fours, where all of it stands there. */
static int64_t whole_row(const layer *l, bool backward) {
  return (ceil_div(product_depth(l, backward), 4) + (backward && l->phases == 2 ? ceil_div(l->H, 4) : 0)) | 1;
}

static uint64_t local_bytes(const layer *l, const layer_split *s) {
  const int64_t shared = s->splits > 1 ? s->rows * s->items : 1;
  return (uint64_t)(s->buffers * s->rows * s->a_row * 4 + shared) * dtype_bytes(l->dtype);
}

/* Few lanes where the units are few, or where more groups are wanted than they make. */
static int64_t choose_lanes(const layer *l, int64_t rows, int64_t wanted, int64_t most) {
  int64_t lanes = smaller(MOST_LANES, most);
  while (lanes > LEAST_LANES && (lanes / 2 >= l->H || ceil_div(l->H, lanes) * ceil_div(l->B, rows) < wanted))
    lanes /= 2;
  return lanes;
}

static void choose_splits(layer_split *s, int64_t lanes, int64_t k, int64_t most) {
  s->splits = 1;
  while (2 * s->splits * s->block_teams * lanes <= most && 2 * s->splits * 16 <= k)
    s->splits *= 2;
  s->items = lanes * s->block_teams * s->splits;
  s->sums_are_long = k > PART * s->splits;
}

/* A launch a step: groups have a block each, and staged in local memory what they multiply. */
static bool divide_step(const layer *l, bool backward, int64_t most, uint64_t local, layer_split *s) {
  const int64_t k = product_depth(l, backward), bytes = (int64_t)dtype_bytes(l->dtype);
  s->step_at_a_time = true;
  s->rows = power_of_two(l->B, STEP_ROWS);
  s->block_teams = s->item_blocks = s->buffers = 1;
  const int64_t lanes = choose_lanes(l, s->rows, l->cores, most);
  s->units = lanes / l->width;
  choose_splits(s, lanes, k, most);
  s->depth = power_of_two(k, smaller(smaller(MOST_DEPTH, STAGE_BYTES / (s->rows * bytes)), PART * s->splits));
  s->depth = s->depth < LEAST_DEPTH ? LEAST_DEPTH : s->depth;
  s->a_row = s->depth / 4 + 1;
  return local_bytes(l, s) <= local;
}

/* Many steps a launch: a group has all units of its rows, few rows where the batch has few for each core. */
static bool divide_whole(const layer *l, bool backward, int64_t most, uint64_t local, layer_split *s) {
  const int64_t k = product_depth(l, backward), lanes = choose_lanes(l, 1, 0, most), blocks = ceil_div(l->H, lanes);
  s->step_at_a_time = false;
  s->rows = power_of_two(ceil_div(l->B, l->cores), WHOLE_ROWS);
  s->item_blocks = blocks;
  s->block_teams = smaller(blocks, most / lanes);
  s->units = lanes / l->width;
  choose_splits(s, lanes, k, most);
  s->depth = PART * s->splits;
  s->a_row = whole_row(l, backward);
  for (; s->rows > 0; s->rows /= 2)
    /* With one buffer a group overwrites what it multiplied, so it needs to have all its blocks at once. */
    for (s->buffers = 2; s->buffers > (backward && s->block_teams == blocks ? 0 : 1); s->buffers--)
      if (local_bytes(l, s) <= local)
        return true;
  return false;
}

/* Columns of a phase's product, a unit; and the registers that a value takes. */
static int64_t phase_columns(const layer *l, bool backward, int phase) {
  return backward || phase ? 1 : l->phases == 2 ? 2 : l->gates;
}

static double registers_of(int32_t dtype) { return (double)dtype_bytes(dtype) / 4; }

/*
 * DEPTH and how much of k is held, with so many registers for sums and weights: as few pieces as local memory allows, but so
 * small that most of the registers are used.
 */
static bool choose_held(const layer *l, layer_split *s, uint64_t local, int64_t registers) {
  const int64_t step = 4 * s->splits, columns = phase_columns(l, s->backward, 0);
  const int phases = l->phases == 2 ? 2 : 1;
  const int64_t k[2] = {product_depth(l, s->backward), phases == 2 ? l->H : 0};
  const double room =
      (double)registers - (double)(s->rows * columns) * registers_of(l->dtype) * (s->sums_are_long ? 2 : 1);
  for (int64_t pieces = 1;; pieces++) {
    s->depth = ceil_div(ceil_div(k[0], pieces), step) * step;
    s->a_row = s->depth / 4 | 1;
    const int64_t part = s->depth / s->splits; /* whole: depth is in steps */
    const double piece = (double)(part * columns) * registers_of(l->panels);
    double left = room, wanted = 0;
    for (int phase = 0; phase < phases; phase++) {
      const double each = (double)(part * phase_columns(l, s->backward, phase)) * registers_of(l->panels);
      const int64_t all = ceil_div(k[phase], s->depth), fit = left > 0 ? (int64_t)(left / each) : 0;
      s->held[phase] = smaller(all, fit);
      left -= (double)s->held[phase] * each;
      wanted += (double)all * each;
    }
    const bool fits = s->depth <= PART * s->splits && local_bytes(l, s) <= local;
    if (s->depth <= step || s->depth <= LEAST_DEPTH_HELD ||
        (fits && (wanted <= room || piece * LEAST_PIECES_HELD <= room)))
      return fits;
  }
}

/* Many steps a launch, in groups with a block each, no more than the device has cores, so that all of them are resident. */
static bool divide_persistent(const plan *p, const layer *l, int64_t most, int64_t registers, layer_split *s) {
  const int64_t cores = p->device->cores;
  s->step_at_a_time = s->even = s->persistent = true;
  s->block_teams = s->item_blocks = s->buffers = 1;
  for (s->rows = power_of_two(l->B, PERSISTENT_ROWS); s->rows > 0; s->rows /= 2) {
    const int64_t pieces = ceil_div(l->B, s->rows);
    int64_t lanes = LEAST_LANES;
    while (lanes < most && ceil_div(l->H, lanes) * pieces > cores)
      lanes *= 2;
    if (ceil_div(l->H, lanes) * pieces > cores)
      return false;
    s->units = lanes / l->width;
    choose_splits(s, lanes, product_depth(l, s->backward), most);
    if (choose_held(l, s, p->device->local_bytes, registers))
      return true;
  }
  return false;
}

static int64_t most_items(const plan *p) {
  size_t largest = 0;
  if (clGetDeviceInfo(p->device->entry->device, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof largest, &largest, NULL) !=
      CL_SUCCESS)
    largest = 0;
  int64_t most = MOST_ITEMS;
  while ((size_t)most > largest)
    most /= 2;
  return most;
}

/* Whether local memory is what it says, and not a part of the device's memory. */
static bool local_is_near(const plan *p) {
  cl_device_local_mem_type type = CL_NONE;
  return clGetDeviceInfo(p->device->entry->device, CL_DEVICE_LOCAL_MEM_TYPE, sizeof type, &type, NULL) == CL_SUCCESS &&
         type == CL_LOCAL;
}

/*
 * Which way a layer, or its gradient, goes: many steps a launch where the rows of the batch make groups for most cores or
 * the weights are so few that a core has them near; else a launch a step where the rows are few; else, with much work in a
 * step, the products of the lowered graph. A layer is lowered for both or for neither.
 */
static int32_t choose_path(const plan *p, const layer *l, bool backward, int64_t most) {
  enum { SEQUENCE_UNITS = 256, STEP_BATCH = 32, NEAR_BYTES = 131072 };
  layer_split s = {0};
  const int32_t option = p->device->recurrence;
  const int32_t asked = option == RECURRENCE_PERSISTENT ? RECURRENCE_LAYER : option; /* where it can't be that */
  if (asked == RECURRENCE_SCAN || most < LEAST_LANES || !divide_step(l, backward, most, p->device->local_bytes, &s) ||
      (asked == RECURRENCE_AUTO && !local_is_near(p)))
    return RECURRENCE_SCAN;
  const bool fits = divide_whole(l, backward, most, p->device->local_bytes, &s);
  if (asked != RECURRENCE_AUTO && asked != RECURRENCE_LAYER)
    return asked == RECURRENCE_SEQUENCE && fits ? RECURRENCE_SEQUENCE : RECURRENCE_STEP;
  const int64_t weights = l->gates * l->H * l->H * (int64_t)dtype_bytes(l->dtype);
  const bool sequence = l->H <= SEQUENCE_UNITS && (2 * l->B >= l->cores || weights <= NEAR_BYTES);
  if (sequence && fits)
    return RECURRENCE_SEQUENCE;
  return sequence || l->B <= STEP_BATCH || asked == RECURRENCE_LAYER ? RECURRENCE_STEP : RECURRENCE_SCAN;
}

bool layer_has_groups(const plan *p, const layer *l) {
  return choose_path(p, l, false, most_items(p)) != RECURRENCE_SCAN &&
         choose_path(p, l, true, most_items(p)) != RECURRENCE_SCAN;
}

/* ---- launches ---- */
static const char *source_of(const layer_split *s) {
  return s->backward ? "layer_group_backward.cl" : "layer_group_forward.cl";
}

static const char *kernel_of(const layer_split *s) { return s->backward ? "backward" : "forward"; }

static void write_options(const layer *l, const layer_split *s, int phase, char *text, size_t size) {
  const int n = snprintf(
      text, size,
      "-Dreal=%s -DPANEL=%s -DCELL=%d -DACTIVATION=%d -DHAVE_LENGTHS=%d -DWHOLE=%d -DLANES=%d -DROWS=%d -DSPLITS=%d "
      "-DBLOCK_TEAMS=%d -DDEPTH=%d -DA_ROW=%d -DLONG=%d -D%s=%d -DPHASE=%d",
      dtype_c(l->dtype), dtype_c(l->panels), l->cell, l->activation, l->lengths != UNROLL_NO_TENSOR, !s->step_at_a_time,
      (int)(s->units * l->width), (int)s->rows, (int)s->splits, (int)s->block_teams, (int)s->depth, (int)s->a_row,
      s->sums_are_long, s->backward ? "BUFFERS" : "SAVE", s->backward ? (int)s->buffers : s->save, phase);
  if (s->persistent)
    snprintf(text + n, size - (size_t)n, " -DEVEN=1 -DPERSISTENT=1 -DHELD_DEPTHS=%d -DHELD_NEXT=%d", (int)s->held[0],
             (int)s->held[1]);
  else if (s->even)
    snprintf(text + n, size - (size_t)n, " -DEVEN=1");
}

/* What the device says of a kernel, whose registers it knows now. */
typedef struct kernel_needs {
  cl_program program;
  size_t most; /* work-items of a work-group */
  cl_ulong local, private, spilled;
} kernel_needs;

static bool ask_needs(const plan *p, const layer *l, const layer_split *s, int phase, kernel_needs *k) {
  enum { SPILL_BYTES = 0x4109 }; /* CL_KERNEL_SPILL_MEM_SIZE_INTEL: arrays are private there, spilled registers this */
  char options[512];
  unroll_error error = {.struct_size = sizeof error};
  cl_int code;
  cl_device_id device = p->device->entry->device;
  write_options(l, s, phase, options, sizeof options);
  if (program_get(p->device, source_of(s), options, &k->program, &error) != UNROLL_OK)
    return false;
  cl_kernel kernel = clCreateKernel(k->program, kernel_of(s), &code);
  if (code != CL_SUCCESS)
    return false;
  const bool known = clGetKernelWorkGroupInfo(kernel, device, CL_KERNEL_WORK_GROUP_SIZE, sizeof k->most, &k->most,
                                              NULL) == CL_SUCCESS &&
                     clGetKernelWorkGroupInfo(kernel, device, CL_KERNEL_LOCAL_MEM_SIZE, sizeof k->local, &k->local,
                                              NULL) == CL_SUCCESS &&
                     clGetKernelWorkGroupInfo(kernel, device, CL_KERNEL_PRIVATE_MEM_SIZE, sizeof k->private,
                                              &k->private, NULL) == CL_SUCCESS;
  /* Others don't know the question, and count all of it as private. */
  if (!strstr(p->device->entry->vendor, "Intel") ||
      clGetKernelWorkGroupInfo(kernel, device, SPILL_BYTES, sizeof k->spilled, &k->spilled, NULL) != CL_SUCCESS)
    k->spilled = 0;
  clReleaseKernel(kernel);
  return known;
}

/* Whether the device takes groups of so many items. */
static bool takes(const plan *p, const layer *l, const layer_split *s, int phase) {
  kernel_needs k = {0};
  return ask_needs(p, l, s, phase, &k) && k.most >= (size_t)s->items && k.local <= p->device->local_bytes;
}

bool layer_takes(const plan *p, const layer *l, const layer_split *s) {
  return takes(p, l, s, 0) && (!s->step_at_a_time || l->phases == 1 || takes(p, l, s, 1));
}

/* Where a sum of k begins anew follows splits and depth alone; a depth of k is as good as one that is more. */
bool layer_regroup(const plan *p, const layer *l, const layer_split *model, const group_choice *c, layer_split *s) {
  enum { MOST_LANES_TRIED = 64 };
  const int64_t k = product_depth(l, model->backward), all = ceil_div(k, 4) * 4, most = most_items(p);
  if (c->lanes < LEAST_LANES || c->lanes > MOST_LANES_TRIED || c->lanes != power_of_two(c->lanes, MOST_LANES_TRIED) ||
      (c->lanes > LEAST_LANES && c->lanes / 2 >= l->H) || c->lanes % l->width || c->rows < 1 || c->rows > STEP_ROWS ||
      c->rows != power_of_two(c->rows, STEP_ROWS) || c->teams < 1 || c->teams > most)
    return false;
  const int64_t blocks = ceil_div(l->H, c->lanes);
  *s = *model;
  s->step_at_a_time = c->step;
  s->rows = s->item_rows = c->rows;
  s->row_pieces = ceil_div(l->B, c->rows);
  s->units = c->lanes / l->width;
  s->block_teams = c->teams;
  s->items = c->lanes * c->teams * s->splits;
  if (c->step != model->step_at_a_time && s->depth > all)
    s->depth = all;
  s->item_blocks = c->step ? 1 : blocks;
  s->a_row = c->step ? s->depth / 4 + 1 : whole_row(l, s->backward);
  if (s->items > most || c->teams > (c->step ? 1 : blocks) || (!c->step && s->splits > 1 && c->teams < blocks))
    return false;
  for (s->buffers = c->step ? 1 : 2; s->buffers > 0; s->buffers--)
    if (local_bytes(l, s) <= p->device->local_bytes)
      return c->step || s->buffers == 2 || (s->backward && c->teams == blocks);
  return false;
}

/*
 * Groups that wait for each other: with as many weights in registers as the compiler finds room for, else fewer. What does
 * not fit goes to private memory, which on a processor means nothing.
 */
static bool divide_resident(const plan *p, const layer *l, layer_split *s) {
  static const int64_t registers[] = {208, 144, 96, 0};
  const bool spills_tell = (p->device->entry->type & CL_DEVICE_TYPE_CPU) == 0;
  layer_split t = *s;
  for (uint32_t i = 0; i < sizeof registers / sizeof *registers; i++) {
    kernel_needs k = {0};
    if (!divide_persistent(p, l, most_items(p), registers[i], &t) || !ask_needs(p, l, &t, 0, &k))
      return false;
    if (registers[i] && spills_tell && (k.private || k.spilled))
      continue;
    layer_split steps = t;
    steps.persistent = false;
    *s = t;
    return k.most >= (size_t)t.items && k.local <= p->device->local_bytes && layer_takes(p, l, &steps) &&
           persistent_works(p->device, k.program, kernel_of(&t), (size_t)t.items,
                            ceil_div(l->H, t.units * l->width) * ceil_div(l->B, t.rows));
  }
  return false;
}

static layer_split divide_groups(const plan *p, const layer *l, bool backward, bool save) {
  layer_split s = {.backward = backward, .save = save, .rows = 1};
  if (p->device->recurrence == RECURRENCE_PERSISTENT) {
    if (divide_resident(p, l, &s))
      return s;
    s = (layer_split){.backward = backward, .save = save, .rows = 1};
  }
  for (int64_t most = most_items(p); most >= LEAST_LANES; most /= 2) {
    if (choose_path(p, l, backward, most) != RECURRENCE_SEQUENCE ||
        !divide_whole(l, backward, most, p->device->local_bytes, &s))
      divide_step(l, backward, most, p->device->local_bytes, &s);
    if (layer_takes(p, l, &s))
      break;
  }
  return s;
}

layer_split layer_divide_groups(const plan *p, const layer *l, bool backward, bool save) {
  layer_split s = divide_groups(p, l, backward, save);
  s.item_rows = s.rows;
  s.row_pieces = ceil_div(l->B, s.rows);
  return s;
}

int64_t layer_chunk_groups(const layer *l, const layer_split *s) {
  if (s->persistent) {
    /* Likewise: most of a step is waiting for memory and for each other, and what a group multiplies. */
    const double wait = 10e-6 * l->phases, rate = 20e9;
    const double flops = 2.0 * (double)(s->rows * s->units * l->width * l->gates * l->H);
    return 1 + (int64_t)(0.02 / (wait + flops / rate));
  }
  if (s->step_at_a_time)
    return 1;
  /* So many that a launch takes some 20 ms on a small device, where it must stay under 50 so as not to stop its display. */
  const double flops = 2.0 * (double)(s->rows * l->gates * l->H * l->H), rate = 10e9;
  const double steps = 0.02 * rate / ((flops + 1e4) * (double)ceil_div(s->row_pieces, l->cores));
  return steps < 1 ? 1 : (int64_t)steps;
}

void layer_begin_groups(plan *p, const layer *l, const layer_split *s, int phases) {
  char options[512];
  write_options(l, s, phases == 2, options, sizeof options);
  launch *step = plan_launch(p, source_of(s), kernel_of(s), "%s", options);
  step->group = (size_t)s->items;
  step->times = s->items;
  plan_in_loop(p);
}

void layer_end_groups(plan *p, const layer *l, const layer_split *s) {
  const int64_t blocks = ceil_div(l->H, s->units * l->width);
  plan_items(p, (extent){s->row_pieces * ceil_div(blocks, s->item_blocks), -1}, 1);
  arg_extent(p, l->t);
  arg_long(p, l->B);
  arg_long(p, l->I);
  arg_long(p, l->H);
  arg_long(p, l->padded);
  arg_long(p, l->reverse);
  arg_long(p, s->item_blocks);
  arg_kind_of(p, ARG_FIRST, 0);
  arg_kind_of(p, ARG_COUNT, 0);
  if (s->persistent)
    arg_meeting(p);
}
