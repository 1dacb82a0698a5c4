/* SPDX-License-Identifier: Apache-2.0 */
/* nn_checkpoint.c: stacks of recurrent layers in segments over time, of most of which only the state is kept. */
#include "graph/checkpoint_private.h"
#include "nn/nn_private.h"
#include <inttypes.h>
#include <string.h>

static uint64_t saved_blocks(int32_t cell) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < 4; i++)
    n += (uint64_t)layer_saved_blocks(cell, i);
  return n;
}

unroll_status unroll_rnn_checkpoint_sizes(const unroll_rnn_options *options, int32_t dtype, int64_t T, int64_t B,
                                          int32_t d, unroll_checkpoint_sizes *z, unroll_error *err) {
  unroll_rnn_options of = {.struct_size = 0};
  const unroll_rnn_options *o = &of;
  if (!options || !UNROLL_HAS(unroll_rnn_options, options, lengths) || !z ||
      !UNROLL_HAS(unroll_checkpoint_sizes, z, step_bytes) || unroll_gate_count(options->cell) == 0)
    return fail(err, UNROLL_E_INVALID, "checkpoints: the options or the sizes are missing, or name no cell");
  memcpy(&of, options, options->struct_size < sizeof of ? options->struct_size : sizeof of);
  const char *option = nn_scan_option(o);
  if (option || o->residual == UNROLL_RESIDUAL_STATES)
    return fail(err, UNROLL_E_UNSUPPORTED, "checkpoints: with %s a layer is a scan, whose sizes are those of its body",
                option ? option : "UNROLL_RESIDUAL_STATES");
  const uint64_t element = unroll_dtype_size(dtype);
  if (T < 1 || B < 1 || o->layers < 1 || o->hidden < 1 || element == 0)
    return fail(err, UNROLL_E_RANGE,
                "checkpoints: %d layers of %" PRId64 " over %" PRId64 " steps, batch %" PRId64 ", expected at least 1",
                o->layers, o->hidden, T, B);
  uint64_t row;
  if (!size_mul(element * (uint64_t)B, (uint64_t)o->hidden, &row) || row > UINT64_MAX / 64 / (uint64_t)o->layers)
    return fail(err, UNROLL_E_RANGE,
                "checkpoints: a state of %d layers of %" PRId64 ", batch %" PRId64 ", is too large", o->layers,
                o->hidden, B);
  const uint64_t layers = o->bidirectional ? 1 : (uint64_t)o->layers;
  uint64_t between = (o->dropout > 0 && !o->inference ? 2 : 1) * (layers - 1);
  if (o->residual == UNROLL_RESIDUAL_OUTPUTS && !o->bidirectional)
    between += layers; /* sums, and what the first layer sees without what is past a sequence's end */
  const unroll_checkpoint_sizes sizes = {.struct_size = z->struct_size,
                                         .direction = d ? UNROLL_REVERSE : UNROLL_FORWARD,
                                         .steps = T,
                                         .block = gradient_block(B),
                                         .state_bytes = row * layers * (o->cell == UNROLL_CELL_LSTM ? 2 : 1),
                                         .step_bytes =
                                             row * (saved_blocks(o->cell) * layers + between + layer_gates(o->cell))};
  *z = sizes;
  return UNROLL_OK;
}

/* What is between layers: a site of masks of each step, or one mask of all. */
typedef struct between {
  uint32_t site;
  unroll_tensor mask;
} between;

/* Layers first to first+n-1 in one direction, segment by segment. */
typedef struct stack {
  const nn_rnn *r;
  const checkpoint_schedule *schedule;
  unroll_layer_inputs *layers;   /* with the states as the next segment finds them */
  unroll_tensor x, *y, *lengths; /* y, lengths: of each segment in time */
  const between *after;          /* each layer but the last; NULL: of a single layer, what is around it is not here */
  int32_t first, n, direction;
} stack;

/* Of a mask of every step; one of all steps is the same in each segment. */
static unroll_tensor steps_of(unroll_tensor keep, int64_t start, int64_t steps) {
  if (!keep.graph || graph_failed(keep.graph) || graph_spec(keep)->rank < 3)
    return keep;
  return unroll_slice(keep, 0, start, steps);
}

static void build_segment(void *user, int64_t i) {
  stack *s = user;
  const unroll_rnn_options *o = &s->r->o;
  const int64_t start = checkpoint_start(s->schedule, i), steps = checkpoint_steps(s->schedule, i);
  const int64_t in_time = checkpoint_place(s->schedule, i);
  unroll_layer_attr attr = nn_layer_attr(s->r, s->direction);
  attr.segment = s->schedule->info.segments > 1;
  unroll_tensor x = unroll_slice(s->x, 0, start, steps);
  for (int32_t l = 0; l < s->n && x.graph && !graph_failed(x.graph); l++) {
    unroll_layer_inputs in = s->layers[l];
    in.x = x;
    in.lengths = s->lengths[in_time];
    in.keep_h = steps_of(in.keep_h, start, steps);
    in.keep_c = steps_of(in.keep_c, start, steps);
    const unroll_layer_outputs out = unroll_layer(&in, &attr, s->first + l);
    s->layers[l].h0 = out.h_last;
    s->layers[l].c0 = out.c_last;
    const bool adds = s->after && o->residual == UNROLL_RESIDUAL_OUTPUTS && graph_spec(x)->shape[2] == s->r->H;
    const unroll_tensor known = adds && l == 0 && in.lengths.graph ? unroll_length_mask(x, in.lengths) : x;
    x = adds ? unroll_add(out.y, known) : out.y;
    if (s->after && o->dropout > 0 && l + 1 < s->n)
      x = s->after[l].mask.graph ? unroll_mul(x, s->after[l].mask)
                                 : graph_dropout(x, o->dropout, s->after[l].site, start);
  }
  s->y[in_time] = x;
}

/* y of the last layer; layers' h0 and c0 become the last states. */
static unroll_tensor run_stack(stack *s) {
  unroll_graph *g = s->x.graph;
  const tensor_spec x = *graph_spec(s->x);
  const unroll_tensor lengths = s->r->o.lengths;
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_checkpoint_sizes z = {.struct_size = sizeof z};
  checkpoint_schedule schedule = {.allocator = &g->allocator};
  unroll_tensor y = unroll_none();
  if (x.dim[0] >= 0)
    return graph_fail(g, UNROLL_E_UNSUPPORTED, "rnn with checkpoints: its number of steps is the run-time size %s",
                      g->dims[x.dim[0]].name);
  unroll_rnn_options one = s->r->o; /* as the plan of a single layer has it, whatever the others are */
  if (!s->after) {
    one.bidirectional = true;
    one.residual = UNROLL_RESIDUAL_NONE;
  }
  unroll_status st =
      unroll_rnn_checkpoint_sizes(&one, x.dtype, x.shape[0], x.shape[1], s->direction == UNROLL_REVERSE, &z, &err);
  if (st == UNROLL_OK)
    st = checkpoint_plan(&g->allocator, &s->r->policy, &z, &schedule, &err);
  if (st != UNROLL_OK) {
    checkpoint_free(&schedule);
    return graph_fail(g, err.code, "rnn: %s", err.message);
  }
  const int64_t n = schedule.info.segments;
  s->schedule = &schedule;
  s->y = mem_array(&g->allocator, 2 * (uint64_t)n, sizeof *s->y);
  s->lengths = s->y ? s->y + n : NULL;
  if (!s->y)
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for the segments of a stack of layers");
  else {
    for (int64_t i = 0; i < n && lengths.graph; i++)
      s->lengths[checkpoint_place(&schedule, i)] =
          n == 1 ? lengths
                 : checkpoint_lengths(lengths, checkpoint_start(&schedule, i), checkpoint_steps(&schedule, i));
    checkpoint_build(g, &schedule, build_segment, s);
    y = n == 1 ? s->y[0] : unroll_concat(s->y, (uint32_t)n, 0);
  }
  mem_free(&g->allocator, s->y);
  checkpoint_free(&schedule);
  return y;
}

nn_cell_outputs nn_layer_in_segments(const nn_rnn *r, const nn_cell_inputs *in) {
  const unroll_tensor none = unroll_none();
  nn_cell_outputs out = {none, none, none, none, none};
  unroll_graph *g = in->x.graph;
  unroll_layer_inputs layer = nn_layer_inputs(r, in, graph_spec(in->x)->shape[2]);
  stack s = {.r = r, .layers = &layer, .x = in->x, .first = in->layer, .n = 1, .direction = in->direction};
  if (!graph_failed(g))
    out.y = run_stack(&s);
  if (!graph_failed(g)) {
    out.h_last = layer.h0;
    out.c_last = layer.c0;
  }
  return out;
}

static between between_layers(const nn_rnn *r, unroll_tensor x) {
  const tensor_spec *s = graph_spec(x);
  between b = {.mask = unroll_none()};
  if (r->o.dropout > 0 && r->o.same_mask)
    b.mask = nn_mask(x.graph, s->dtype, s->shape[1], r->H, r->o.dropout);
  else if (r->o.dropout > 0)
    b.site = graph_next_site(x.graph);
  return b;
}

unroll_tensor nn_stack_in_segments(const nn_rnn *r, unroll_tensor x, const char *prefix,
                                   const unroll_rnn_state *initial, unroll_rnn_state *last) {
  unroll_graph *g = x.graph;
  if (!g || graph_failed(g))
    return unroll_none();
  const unroll_allocator *a = &g->allocator;
  const int32_t n = r->o.layers;
  unroll_layer_inputs *layers = mem_array(a, (uint64_t)n, sizeof *layers);
  between *after = mem_array(a, (uint64_t)n, sizeof *after);
  if (!layers || !after)
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a stack of layers");
  for (int32_t l = 0; l < n && !graph_failed(g); l++) {
    const nn_cell_inputs in = {.prefix = prefix,
                               .layer = l,
                               .direction = UNROLL_FORWARD,
                               .x = x,
                               .h0 = initial && initial->h ? initial->h[l] : unroll_none(),
                               .c0 = initial && initial->c ? initial->c[l] : unroll_none()};
    layers[l] = nn_layer_inputs(r, &in, l ? r->H : graph_spec(x)->shape[2]);
    if (l + 1 < n && !graph_failed(g))
      after[l] = between_layers(r, x);
  }
  stack s = {.r = r, .layers = layers, .x = x, .after = after, .n = n, .direction = UNROLL_FORWARD};
  const unroll_tensor y = graph_failed(g) ? unroll_none() : run_stack(&s);
  for (int32_t l = 0; l < n && !graph_failed(g); l++) {
    if (last && last->h)
      last->h[l] = layers[l].h0;
    if (last && last->c)
      last->c[l] = layers[l].c0;
  }
  mem_free(a, layers);
  mem_free(a, after);
  return graph_failed(g) ? unroll_none() : y;
}
