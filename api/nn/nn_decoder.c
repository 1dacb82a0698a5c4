/* SPDX-License-Identifier: Apache-2.0 */
/* nn_decoder.c: one step of a decoder with its states and weights, and what an encoder hands it. */
#include "nn/nn_decoder.h"
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

void unroll_bridge(const unroll_rnn_state *last, int32_t layers, int32_t D, const char *prefix, int64_t hidden,
                   unroll_rnn_state *initial) {
  const unroll_tensor *any = !last ? NULL : last->h ? last->h : last->c;
  unroll_graph *g = any ? any[0].graph : NULL;
  if (!g || graph_failed(g))
    return;
  if (layers < 1 || (D != 1 && D != 2) || hidden < 1 || !initial || (last->h && !initial->h)) {
    graph_fail(g, UNROLL_E_INVALID,
               "bridge: %d layers, %d directions, hidden size %" PRId64 ", expected at least 1, 1 or 2, at least 1%s",
               layers, D, hidden, initial && initial->h ? "" : ", and room for the states");
    return;
  }
  for (int32_t k = 0; k < 2; k++) {
    const unroll_tensor *from = k ? last->c : last->h;
    unroll_tensor *to = k ? initial->c : initial->h;
    for (int32_t l = 0; from && to && l < layers && !graph_failed(g); l++) {
      const unroll_tensor x = D == 2 ? unroll_concat(from + l * 2, 2, 1) : from[l];
      to[l] = x;
      if (graph_failed(g) || !x.graph || graph_spec(x)->shape[1] == hidden)
        continue;
      char weight[32], bias[32];
      snprintf(weight, sizeof weight, "%c.%d.W", k ? 'c' : 'h', l);
      snprintf(bias, sizeof bias, "%c.%d.b", k ? 'c' : 'h', l);
      const int32_t dtype = graph_spec(x)->dtype;
      const int64_t shape[2] = {hidden, graph_spec(x)->shape[1]};
      to[l] = unroll_matmul_add(x, 0, nn_param(g, prefix, weight, dtype, 2, shape), 1,
                                nn_param(g, prefix, bias, dtype, 1, shape));
      if (k == 0)
        to[l] = unroll_tanh(to[l]);
    }
  }
}

static bool has_initial(const unroll_decoder_options *o) { return o->initial.h && o->initial.h[0].graph; }
/* What element type and batch are taken from. */
static unroll_tensor known(const unroll_decoder_options *o) { return has_initial(o) ? o->initial.h[0] : o->source; }

static bool check_state(const nn_decoder *d, const char *who, unroll_tensor state, const char *what, int32_t layer) {
  char text[GRAPH_DESCRIBE];
  if (graph_failed(d->g) || !state.graph)
    return !graph_failed(d->g);
  const int64_t N = *what == 'h' ? d->r.P : d->r.H;
  const tensor_spec want = graph_make_spec(d->dtype, 2, (int64_t[]){d->B, N});
  if (graph_spec(state)->dtype != d->dtype || !graph_same_shape(graph_spec(state), &want))
    graph_fail(d->g, UNROLL_E_SHAPE, "%s: initial %s of layer %d is %s, expected %s [%" PRId64 ",%" PRId64 "]", who,
               what, layer, graph_describe(state.graph, state.id, text), unroll_dtype_name(d->dtype), d->B, N);
  return !graph_failed(d->g);
}

/* The cells: those of the options `rnn`, or else plain ones. */
static bool choose_cells(nn_decoder *d, const char *who, bool inference) {
  const unroll_decoder_options *o = d->o;
  unroll_graph *g = d->g;
  const unroll_rnn_options *rnn = UNROLL_HAS(unroll_decoder_options, o, rnn) ? o->rnn : NULL;
  unroll_rnn_options cells = {.struct_size = sizeof cells,
                              .cell = o->cell,
                              .activation = o->activation,
                              .layers = o->layers,
                              .hidden = o->hidden,
                              .dropout = o->dropout,
                              .input_dropout = o->dropout,
                              .output_dropout = o->dropout};
  if (rnn) {
    const char *twice = o->cell           ? "cell"
                        : o->activation   ? "activation"
                        : o->layers       ? "layers"
                        : o->hidden       ? "hidden"
                        : o->dropout != 0 ? "dropout"
                                          : NULL;
    if (twice) {
      graph_fail(g, UNROLL_E_INVALID, "%s: %s beside rnn, expected 0, since rnn has it", who, twice);
      return false;
    }
    cells = (unroll_rnn_options){.struct_size = 0};
    memcpy(&cells, rnn, rnn->struct_size < sizeof cells ? rnn->struct_size : sizeof cells);
  }
  if (inference && cells.struct_size > offsetof(unroll_rnn_options, inference))
    cells.inference = 1;
  if (!nn_rnn_check(g, who, &cells, &d->r))
    return false;
  if (d->r.o.layers > UNROLL_DECODER_LAYERS)
    graph_fail(g, UNROLL_E_RANGE, "%s: %d layers, expected 1 to %d", who, d->r.o.layers, UNROLL_DECODER_LAYERS);
  else if (d->r.o.bidirectional)
    graph_fail(g, UNROLL_E_INVALID, "%s: bidirectional is no option of a decoder, which knows no later symbols", who);
  else if (d->r.o.lengths.graph)
    graph_fail(g, UNROLL_E_INVALID, "%s: lengths are no option of a decoder's cells: its feed has them", who);
  return !graph_failed(g);
}

/* Their time axis is that of the feed, which the scan checks. */
static bool check_tap(const nn_decoder *d, const char *who, unroll_tensor tap, const char *what, int32_t layer) {
  char text[GRAPH_DESCRIBE];
  if (!tap.graph || graph_failed(d->g))
    return !graph_failed(d->g);
  const tensor_spec *s = graph_spec(tap);
  const int64_t N = *what == 'h' ? d->r.P : d->r.H;
  if (s->dtype != d->dtype || s->rank != 3 || s->shape[1] != d->B || s->shape[2] != N)
    graph_fail(d->g, UNROLL_E_SHAPE, "%s: the tap of %s of layer %d is %s, expected %s [T,%" PRId64 ",%" PRId64 "]",
               who, what, layer, graph_describe(d->g, tap.id, text), unroll_dtype_name(d->dtype), d->B, N);
  return !graph_failed(d->g);
}

static bool check(nn_decoder *d, const char *who, bool inference) {
  const unroll_decoder_options *o = d->o;
  unroll_graph *g = d->g;
  char text[GRAPH_DESCRIBE];
  const unroll_tensor x = known(o);
  const bool attends = o->attention != UNROLL_ATTENTION_NONE;
  if (g->parent)
    graph_fail(g, UNROLL_E_UNSUPPORTED, "%s: the body of a scan cannot hold a decoder", who);
  else if (!choose_cells(d, who, inference))
    return false;
  else if (o->vocabulary < 1 || o->vocabulary > INT32_MAX || o->embedding < 1)
    graph_fail(g, UNROLL_E_RANGE, "%s: vocabulary %" PRId64 ", embedding %" PRId64 ", expected at least 1 each", who,
               o->vocabulary, o->embedding);
  else if (o->context < UNROLL_CONTEXT_BEFORE || o->context > UNROLL_CONTEXT_FEEDING)
    graph_fail(g, UNROLL_E_INVALID, "%s: context %d, expected UNROLL_CONTEXT_*", who, o->context);
  else if (attends && !o->source.graph)
    graph_fail(g, UNROLL_E_INVALID, "%s: there is no source to attend to", who);
  else if (graph_spec(x)->rank != (has_initial(o) ? 2 : 3))
    graph_fail(g, UNROLL_E_SHAPE, "%s: %s, expected the source [S,B,E] or a state [B,%c]", who,
               graph_describe(g, x.id, text), d->r.o.projection ? 'P' : 'H');
  if (graph_failed(g))
    return false;
  d->B = graph_spec(x)->shape[graph_spec(x)->rank - 2];
  d->dtype = graph_spec(x)->dtype;
  for (int32_t l = 0; l < d->r.o.layers; l++)
    if ((o->initial.h && !check_state(d, who, o->initial.h[l], "h", l)) ||
        (o->initial.c && !check_state(d, who, o->initial.c[l], "c", l)))
      return false;
  const unroll_rnn_state *taps = d->r.o.taps;
  for (int32_t l = 0; taps && l < d->r.o.layers; l++)
    if ((taps->h && !check_tap(d, who, taps->h[l], "h", l)) || (taps->c && !check_tap(d, who, taps->c[l], "c", l)))
      return false;
  return true;
}

bool nn_decoder_open(nn_decoder *d, const char *who, const char *prefix, const unroll_decoder_options *o,
                     bool inference) {
  *d = (nn_decoder){0};
  if (!o || !UNROLL_HAS(unroll_decoder_options, o, initial)) {
    if (o && UNROLL_HAS(unroll_decoder_options, o, source) && o->source.graph)
      graph_fail(o->source.graph, UNROLL_E_INVALID, "%s: struct_size of the decoder's options is too small", who);
    return false;
  }
  *d = (nn_decoder){.g = known(o).graph, .prefix = prefix, .o = o};
  if (!d->g || graph_failed(d->g) || !check(d, who, inference))
    return false;
  for (int32_t l = 0; l < d->r.o.layers; l++)
    d->layer[l] = nn_cell_open(&d->r, d->g, prefix, l, UNROLL_FORWARD, d->dtype);
  if (o->attention == UNROLL_ATTENTION_NONE)
    return true;
  char *name = mem_printf(&d->g->allocator, "%s%sattention", prefix ? prefix : "", prefix && *prefix ? "." : "");
  if (!name) {
    graph_fail(d->g, UNROLL_E_MEMORY, "out of memory for the name of a parameter");
    return false;
  }
  d->attention = unroll_attention_prepare(o->source, o->source_lengths, name, o->attention, d->r.P, o->attention_units);
  mem_free(&d->g->allocator, name);
  return !graph_failed(d->g);
}

static void drop_at(const nn_decoder *d, nn_decoder_drop *at, int64_t N, double p) {
  at->p = p;
  at->mask = unroll_none();
  if (p == 0 || graph_failed(d->g))
    return;
  if (d->r.o.same_mask)
    at->mask = nn_mask(d->g, d->dtype, d->B, N, p);
  else
    at->site = graph_next_site(d->g);
}

void nn_decoder_masks(nn_decoder *d, int64_t T) {
  const unroll_rnn_options *o = &d->r.o;
  drop_at(d, &d->input, d->o->embedding, o->input_dropout);
  for (int32_t l = 0; l < o->layers; l++) {
    if (l > 0)
      drop_at(d, &d->between[l], d->r.P, o->dropout);
    nn_cell_masks(&d->layer[l], T, d->B);
  }
  drop_at(d, &d->output, d->r.P, o->output_dropout);
}

static unroll_tensor repeat_rows(unroll_tensor x, int64_t times) {
  if (times == 1 || nn_lost(x))
    return x;
  const tensor_spec s = *graph_spec(x);
  const int64_t B = s.shape[0], H = s.shape[1];
  const unroll_tensor zeros = nn_filled(x.graph, s.dtype, 3, (int64_t[]){B, times, H}, 0.0);
  return nn_reshape(unroll_add(nn_reshape(x, 3, (int64_t[]){B, 1, H}), zeros), 2, (int64_t[]){B * times, H});
}

nn_decoder_state nn_decoder_first(const nn_decoder *d, int64_t times) {
  const unroll_decoder_options *o = d->o;
  nn_decoder_state s = {.fed = unroll_none()};
  const unroll_tensor zeros = nn_filled(d->g, d->dtype, 2, (int64_t[]){d->B * times, d->r.P}, 0.0);
  const unroll_tensor wide =
      d->r.P == d->r.H ? zeros : nn_filled(d->g, d->dtype, 2, (int64_t[]){d->B * times, d->r.H}, 0.0);
  for (int32_t l = 0; l < d->r.o.layers; l++) {
    s.layer[l].h = o->initial.h && o->initial.h[l].graph ? repeat_rows(o->initial.h[l], times) : zeros;
    if (d->r.family == UNROLL_CELL_LSTM)
      s.layer[l].c = o->initial.c && o->initial.c[l].graph ? repeat_rows(o->initial.c[l], times) : wide;
  }
  if (o->attention != UNROLL_ATTENTION_NONE && o->context == UNROLL_CONTEXT_FEEDING)
    s.fed = zeros;
  return s;
}

nn_decoder_state nn_decoder_carry(const nn_decoder *d, unroll_scan *scan, const nn_decoder_state *first) {
  nn_decoder_state s = {.fed = unroll_none()};
  for (int32_t l = 0; l < d->r.o.layers; l++) {
    s.layer[l].h = unroll_scan_carry(scan, first->layer[l].h);
    if (first->layer[l].c.graph)
      s.layer[l].c = unroll_scan_carry(scan, first->layer[l].c);
  }
  if (first->fed.graph)
    s.fed = unroll_scan_carry(scan, first->fed);
  return s;
}

void nn_decoder_next(const nn_decoder *d, unroll_scan *scan, const nn_decoder_state *carry,
                     const nn_decoder_state *next) {
  for (int32_t l = 0; l < d->r.o.layers; l++) {
    unroll_scan_next(scan, carry->layer[l].h, next->layer[l].h);
    if (carry->layer[l].c.graph)
      unroll_scan_next(scan, carry->layer[l].c, next->layer[l].c);
  }
  if (carry->fed.graph)
    unroll_scan_next(scan, carry->fed, next->fed);
}

/* x of one step or of all of them */
static unroll_tensor drop(const nn_decoder_drop *at, unroll_tensor x) {
  if (at->p == 0)
    return x;
  return at->mask.graph ? unroll_mul(x, at->mask) : graph_dropout(x, at->p, at->site, 0);
}

unroll_tensor nn_decoder_inputs(const nn_decoder *d, unroll_tensor ids) {
  if (nn_lost(ids))
    return unroll_none();
  const unroll_tensor table =
      nn_param(ids.graph, d->prefix, "embed.weight", d->dtype, 2, (int64_t[]){d->o->vocabulary, d->o->embedding});
  return nn_cell_product(&d->layer[0], "W_x", drop(&d->input, unroll_embedding(table, ids)), unroll_none());
}

static void add_taps(const unroll_rnn_options *o, unroll_scan *scan, int32_t l, unroll_cell_state *after) {
  if (o->taps && o->taps->h && o->taps->h[l].graph)
    after->h = unroll_add(after->h, unroll_scan_input(scan, o->taps->h[l]));
  if (o->taps && o->taps->c && o->taps->c[l].graph)
    after->c = unroll_add(after->c, unroll_scan_input(scan, o->taps->c[l]));
}

unroll_tensor nn_decoder_step(const nn_decoder *d, unroll_scan *scan, unroll_tensor xw, const nn_decoder_state *before,
                              nn_decoder_state *after, unroll_tensor *weights) {
  const unroll_decoder_options *o = d->o;
  const int32_t layers = d->r.o.layers, residual = d->r.o.residual;
  const bool attends = o->attention != UNROLL_ATTENTION_NONE;
  *after = (nn_decoder_state){.fed = unroll_none()};
  if (weights)
    *weights = unroll_none();
  if (attends && o->context == UNROLL_CONTEXT_BEFORE) {
    const unroll_tensor context = unroll_attend(&d->attention, before->layer[layers - 1].h, weights);
    xw = nn_cell_product(&d->layer[0], "W_c", context, xw);
  } else if (attends && o->context == UNROLL_CONTEXT_FEEDING)
    xw = nn_cell_product(&d->layer[0], "W_f", before->fed, xw);
  unroll_tensor y = unroll_none(); /* of layer l */
  for (int32_t l = 0; l < layers; l++) {
    unroll_tensor in[2], x = unroll_none();
    if (l > 0) {
      x = drop(&d->between[l], y);
      xw = nn_cell_product(&d->layer[l], "W_x", x, unroll_none());
    }
    nn_cell_split(&d->layer[l], xw, in);
    after->layer[l] =
        nn_cell_step(&d->layer[l], scan, in, before->layer[l], residual == UNROLL_RESIDUAL_STATES ? x : unroll_none(),
                     d->r.o.gates ? &after->gates[l] : NULL);
    add_taps(&d->r.o, scan, l, &after->layer[l]);
    y = after->layer[l].h;
    if (x.graph && residual == UNROLL_RESIDUAL_OUTPUTS)
      y = unroll_add(y, x);
  }
  if (!attends || o->context == UNROLL_CONTEXT_BEFORE || nn_lost(y))
    return y;
  const unroll_tensor context = unroll_attend(&d->attention, y, weights);
  const unroll_tensor both = unroll_concat((unroll_tensor[]){context, y}, 2, 1);
  if (graph_failed(y.graph))
    return unroll_none();
  const unroll_tensor W =
      nn_param(d->g, d->prefix, "combine.W", d->dtype, 2, (int64_t[]){d->r.P, graph_spec(both)->shape[1]});
  const unroll_tensor combined = unroll_tanh(unroll_matmul_add(both, 0, W, 1, unroll_none()));
  if (before->fed.graph)
    after->fed = combined;
  return combined;
}

unroll_tensor nn_decoder_logits(const nn_decoder *d, unroll_tensor hidden) {
  const int64_t shape[2] = {d->o->vocabulary, d->r.P};
  if (nn_lost(hidden))
    return unroll_none();
  const unroll_tensor W = nn_param(d->g, d->prefix, "out.W", d->dtype, 2, shape);
  return unroll_matmul_add(drop(&d->output, hidden), 0, W, 1, nn_param(d->g, d->prefix, "out.b", d->dtype, 1, shape));
}
