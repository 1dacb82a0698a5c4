/* SPDX-License-Identifier: Apache-2.0 */
/* nn_checkpoint.c: stacks of recurrent layers in segments over time, of most of which only the state is kept. */
#include "graph/checkpoint_private.h"
#include "nn/nn_private.h"
#include <inttypes.h>

static uint64_t saved_blocks(int32_t cell) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < 4; i++)
    n += (uint64_t)layer_saved_blocks(cell, i);
  return n;
}

unroll_status unroll_rnn_checkpoint_sizes(const unroll_rnn_options *o, int32_t dtype, int64_t T, int64_t B, int32_t d,
                                          unroll_checkpoint_sizes *z, unroll_error *err) {
  if (!o || !UNROLL_HAS(unroll_rnn_options, o, lengths) || !z || !UNROLL_HAS(unroll_checkpoint_sizes, z, step_bytes) ||
      o->cell <= UNROLL_CELL_NONE || o->cell >= UNROLL_CELL_COUNT)
    return fail(err, UNROLL_E_INVALID, "checkpoints: the options or the sizes are missing, or name no cell");
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
  const uint64_t between = layers > 1 ? (o->dropout > 0 ? 2 : 1) * (layers - 1) : 0;
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

/* Layers first to first+n-1 in one direction, segment by segment. */
typedef struct stack {
  unroll_graph *g;
  const checkpoint_schedule *schedule;
  const unroll_rnn_options *options;
  unroll_layer_inputs *layers;   /* with the states as the next segment finds them */
  unroll_tensor x, *y, *lengths; /* y, lengths: of each segment in time */
  uint32_t *sites;
  int32_t first, n, direction;
} stack;

static void build_segment(void *user, int64_t i) {
  stack *s = user;
  const unroll_rnn_options *o = s->options;
  const int64_t start = checkpoint_start(s->schedule, i), steps = checkpoint_steps(s->schedule, i);
  const int64_t in_time = checkpoint_place(s->schedule, i);
  unroll_tensor x = unroll_slice(s->x, 0, start, steps);
  for (int32_t l = 0; l < s->n; l++) {
    const unroll_layer_attr attr = {.cell = o->cell,
                                    .direction = s->direction,
                                    .activation = o->activation ? o->activation : UNROLL_TANH,
                                    .segment = s->schedule->info.segments > 1};
    unroll_layer_inputs in = s->layers[l];
    in.x = x;
    in.lengths = s->lengths[in_time];
    const unroll_layer_outputs out = unroll_layer(&in, &attr, s->first + l);
    s->layers[l].h0 = out.h_last;
    s->layers[l].c0 = out.c_last;
    x = out.y;
    if (o->dropout > 0 && l + 1 < s->n)
      x = graph_dropout(x, o->dropout, s->sites[l], start);
  }
  s->y[in_time] = x;
}

/* y of the last layer; layers' h0 and c0 become the last states. */
static unroll_tensor run_stack(stack *s, const unroll_checkpoint_policy *policy) {
  unroll_graph *g = s->g;
  const tensor_spec x = *graph_spec(s->x);
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_checkpoint_sizes z = {.struct_size = sizeof z};
  checkpoint_schedule schedule = {.allocator = &g->allocator};
  unroll_tensor y = unroll_none();
  if (x.dim[0] >= 0)
    return graph_fail(g, UNROLL_E_UNSUPPORTED, "rnn with checkpoints: its number of steps is the run-time size %s",
                      g->dims[x.dim[0]].name);
  unroll_status st = unroll_rnn_checkpoint_sizes(s->options, x.dtype, x.shape[0], x.shape[1],
                                                 s->direction == UNROLL_REVERSE, &z, &err);
  if (st == UNROLL_OK)
    st = checkpoint_plan(&g->allocator, policy, &z, &schedule, &err);
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
    for (int64_t i = 0; i < n && s->options->lengths.graph; i++)
      s->lengths[checkpoint_place(&schedule, i)] =
          n == 1
              ? s->options->lengths
              : checkpoint_lengths(s->options->lengths, checkpoint_start(&schedule, i), checkpoint_steps(&schedule, i));
    checkpoint_build(g, &schedule, build_segment, s);
    y = n == 1 ? s->y[0] : unroll_concat(s->y, (uint32_t)n, 0);
  }
  mem_free(&g->allocator, s->y);
  checkpoint_free(&schedule);
  return y;
}

static unroll_layer_inputs layer_inputs(unroll_graph *g, const char *prefix, const unroll_rnn_options *o,
                                        const unroll_rnn_state *initial, int32_t l, int32_t d, int32_t dtype,
                                        int64_t I) {
  const int64_t H = o->hidden, GH = (int64_t)layer_gates(o->cell) * H;
  const int32_t at = o->bidirectional ? 2 * l + d : l;
  return (unroll_layer_inputs){
      .W_x = nn_layer_param(g, prefix, "W_x", l, d, dtype, 2, (int64_t[]){GH, I}),
      .W_h = nn_layer_param(g, prefix, "W_h", l, d, dtype, 2, (int64_t[]){GH, H}),
      .b = nn_layer_param(g, prefix, "b", l, d, dtype, 1, &GH),
      .b_n = o->cell == UNROLL_CELL_GRU_AFTER ? nn_layer_param(g, prefix, "b_n", l, d, dtype, 1, &H) : unroll_none(),
      .h0 = initial && initial->h ? initial->h[at] : unroll_none(),
      .c0 = o->cell == UNROLL_CELL_LSTM && initial && initial->c ? initial->c[at] : unroll_none()};
}

static void keep_last(const unroll_layer_inputs *in, int32_t at, unroll_rnn_state *last) {
  if (last && last->h)
    last->h[at] = in->h0;
  if (last && last->c)
    last->c[at] = in->c0;
}

unroll_tensor nn_rnn_in_segments(unroll_tensor x, const char *prefix, const unroll_rnn_options *o,
                                 const unroll_rnn_state *initial, unroll_rnn_state *last) {
  unroll_graph *g = x.graph;
  const int32_t dtype = graph_spec(x)->dtype;
  const unroll_allocator *a = &g->allocator;
  if (!UNROLL_HAS(unroll_checkpoint_policy, o->checkpoint, bytes))
    return graph_fail(g, UNROLL_E_INVALID, "rnn: its policy of checkpoints has too small a struct_size");
  unroll_checkpoint_policy policy = *o->checkpoint;
  unroll_layer_inputs *layers = mem_array(a, (uint64_t)o->layers, sizeof *layers);
  uint32_t *sites = mem_array(a, (uint64_t)o->layers, sizeof *sites);
  if (!layers || !sites)
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a stack of layers");
  else if (!o->bidirectional) {
    for (int32_t l = 0; l < o->layers && !graph_failed(g); l++) {
      layers[l] = layer_inputs(g, prefix, o, initial, l, 0, dtype, l ? o->hidden : graph_spec(x)->shape[2]);
      sites[l] = o->dropout > 0 && l + 1 < o->layers ? graph_next_site(g) : 0;
    }
    stack s = {.g = g, .options = o, .layers = layers, .x = x, .sites = sites, .n = o->layers};
    if (!graph_failed(g))
      x = run_stack(&s, &policy);
    for (int32_t l = 0; l < o->layers; l++)
      keep_last(&layers[l], l, last);
  } else {
    policy.bytes /= 2 * (uint64_t)o->layers;
    for (int32_t l = 0; l < o->layers && !graph_failed(g); l++) {
      unroll_tensor y[2] = {unroll_none(), unroll_none()};
      for (int32_t d = 0; d < 2 && !graph_failed(g); d++) {
        layers[0] = layer_inputs(g, prefix, o, initial, l, d, dtype, graph_spec(x)->shape[2]);
        stack s = {.g = g, .options = o, .layers = layers, .x = x, .first = l, .n = 1};
        s.direction = d ? UNROLL_REVERSE : UNROLL_FORWARD;
        if (!graph_failed(g))
          y[d] = run_stack(&s, &policy);
        keep_last(&layers[0], 2 * l + d, last);
      }
      x = unroll_concat(y, 2, 2);
      if (o->dropout > 0 && l + 1 < o->layers)
        x = unroll_dropout(x, o->dropout);
    }
  }
  mem_free(a, layers);
  mem_free(a, sites);
  return graph_failed(g) ? unroll_none() : x;
}
