/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recurrences as a user's graph brings them: which cases there are, and the single layer.
 *
 * Names are an interface: the patterns of "unroll.conform/1" are matched with them. Their grammar:
 *
 *     layer CELL DIRECTION [ACTIVATION] [LENGTHS] Tn Bn In Hn [MODIFIER].. [grad], DTYPE
 *     exact layer ...                           whole numbers, compared bit by bit; else as above
 *     net WHAT CELL DIRECTION [LENGTHS] Tn Bn In Hn [grad], DTYPE
 *     scan WHAT DIRECTION [LENGTHS] Tn Bn In Hn [MODIFIER] [grad], DTYPE
 *     model WHAT [LENGTHS] Tn Bn In Hn [grad], DTYPE     what nn.h, seq2seq.h, ctc.h, ssm.h build
 *
 *     CELL        rnn lstm gru gru_after
 *     DIRECTION   forward reverse; of a net with layers of both: that of its first
 *     ACTIVATION  of rnn alone: tanh relu sigmoid
 *     LENGTHS     "lengths" (ragged, some 0), "lengths all T", "lengths all 0"; nothing where none are given
 *     MODIFIER    "reads y", "reads h_last", "reads c_last" (nobody reads the other results), "only dx", "only dW",
 *                 "only db", "only dh0" (of the gradients), "no h0", "no b", "run-time T to n", "inside" (what goes
 *                 in is computed before, and what comes out read by others, so that both lie amid other values),
 *                 "h_mask", "keep" (keep_h, of an lstm keep_c too), "keep_c", the last two with "real" or "once" (the
 *                 same for all steps) where they are not bools of every step
 *     grad        the same with its gradient, asked for all of x, W_x, W_h, b, h0, c0 where no modifier says less
 *     DTYPE       f32 f64
 *
 * Tolerances. An output's error is at most eps·budget·max|reference|, eps = 2^-23 or 2^-52, where
 *
 *     budget = sqrt(chain)·(R + 2·sqrt(K)) + 2·sqrt(terms)
 *
 * `chain` is the number of steps one after another: T, and 2·T for what has gone forward and back. Weights are scaled
 * so that a step does not enlarge the error of the one before, so errors of steps add up as independent ones do, with
 * the square root. R is the sum of a step's elementary roundings in units of eps by the counts of op_cases.h: 8 of an
 * rnn (the slowest of its activations, a sigmoid), 18 of a gated cell (a sigmoid 8, a tanh 6, the sums and products
 * that join them), 4 of a few sums and products. K is the longest sum of products in a step, and terms that of a sum
 * over all steps and rows (a weight's gradient), both by the bound of op_case_tolerance. Sums in one order after
 * another, in f32 and with the C library's functions, reach 2 to 15 hundredths of this; the rest is room for
 * functions at the limit of what OpenCL allows and for unlucky data. What no step touches (y past a sequence's end,
 * the state of a sequence of length 0) is compared exactly.
 */
#include "conform/suite_layers_private.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const cell_names[] = {
#define NAME(code, value, text) [value] = text,
    UNROLL_CELLS(NAME)};
static const char *const unary_names[] = {UNROLL_UNARIES(NAME)
#undef NAME
};
static const char *const direction_names[] = {"forward", "reverse"};
static const char *const lengths_names[] = {"", " lengths", " lengths all T", " lengths all 0"};

static int64_t gates_of(int32_t cell) { return cell == UNROLL_CELL_RNN ? 1 : cell == UNROLL_CELL_LSTM ? 4 : 3; }

double net_budget(int32_t cell, double chain, double K, double terms) {
  const double roundings = cell == UNROLL_CELL_NONE ? 4 : cell == UNROLL_CELL_RNN ? 8 : 18;
  return sqrt(chain) * (roundings + 2 * sqrt(K)) + 2 * sqrt(terms);
}

/* ---- pieces of graphs ---- */

struct net_weights net_make_weights(struct net *n, const char *suffix, int64_t I, int64_t H, uint32_t flags) {
  const struct net_spec *s = n->spec;
  const int64_t rows = gates_of(s->cell) * H;
  const double x_scale = 1 / sqrt((double)I), h_scale = 1 / sqrt((double)H);
  struct net_weights w = {unroll_none(), unroll_none(), unroll_none(), unroll_none()};
  char name[NET_TENSOR_NAME];
  snprintf(name, sizeof name, "W_x%s", suffix);
  w.W_x = net_in(n, UNROLL_ROLE_PARAM, name, -0.8 * x_scale, 1.2 * x_scale, flags, 2, (int64_t[]){rows, I});
  snprintf(name, sizeof name, "W_h%s", suffix);
  w.W_h = s->exact ? net_shift(n, name, H)
                   : net_in(n, UNROLL_ROLE_PARAM, name, -0.35 * h_scale, 0.5 * h_scale, flags, 2, (int64_t[]){rows, H});
  snprintf(name, sizeof name, "b%s", suffix);
  if (!s->no_bias)
    w.b = net_in(n, UNROLL_ROLE_PARAM, name, -0.5, 0.9, flags, 1, (int64_t[]){rows});
  snprintf(name, sizeof name, "b_n%s", suffix);
  if (s->cell == UNROLL_CELL_GRU_AFTER)
    w.b_n = net_in(n, UNROLL_ROLE_PARAM, name, -0.9, 0.4, flags, 1, (int64_t[]){H});
  return w;
}

/* The same values in a tensor that is neither an input nor an output. */
static unroll_tensor inner(const struct net *n, unroll_tensor x) {
  return n->spec->inside && x.graph ? unroll_unary(unroll_unary(x, UNROLL_NEG), UNROLL_NEG) : x;
}

static unroll_tensor h_mask_of(struct net *n) {
  const struct net_spec *s = n->spec;
  return s->masks & MASK_H ? net_in(n, UNROLL_ROLE_INPUT, "h_mask", -0.5, 1.5, 0, 2, (int64_t[]){s->B, s->H})
                           : unroll_none();
}

static unroll_tensor keep_of(struct net *n, const char *name, uint32_t which) {
  const struct net_spec *s = n->spec;
  const bool once = (s->masks & KEEP_ONCE) != 0;
  if (!(s->masks & which))
    return unroll_none();
  const unroll_tensor keep = net_in(n, UNROLL_ROLE_INPUT, name, 0, 1, once ? 0 : NET_TIME, once ? 2 : 3,
                                    once ? (int64_t[]){s->B, s->H} : (int64_t[]){n->T, s->B, s->H});
  return s->masks & KEEP_REAL ? keep : unroll_binary(keep, unroll_constant(n->g, n->dtype, 0, NULL, 0.375), UNROLL_LT);
}

unroll_layer_outputs net_layer(struct net *n, unroll_tensor x, const struct net_weights *w, int32_t direction,
                               unroll_tensor h0, unroll_tensor c0, unroll_tensor lengths, int32_t index) {
  const struct net_spec *s = n->spec;
  const unroll_layer_inputs in = {.x = inner(n, x),
                                  .W_x = inner(n, w->W_x),
                                  .W_h = inner(n, w->W_h),
                                  .b = inner(n, w->b),
                                  .b_n = inner(n, w->b_n),
                                  .h0 = inner(n, h0),
                                  .c0 = inner(n, c0),
                                  .lengths = inner(n, lengths),
                                  .h_mask = h_mask_of(n),
                                  .keep_h = keep_of(n, "keep_h", KEEP_H),
                                  .keep_c = keep_of(n, "keep_c", KEEP_C)};
  const unroll_layer_attr attr = {.cell = s->cell, .direction = direction, .activation = s->activation};
  const unroll_layer_outputs out = unroll_layer(&in, &attr, index);
  return (unroll_layer_outputs){.y = inner(n, out.y), .h_last = inner(n, out.h_last), .c_last = inner(n, out.c_last)};
}

uint32_t net_weight_list(const struct net_weights *w, unroll_tensor *list) {
  const unroll_tensor all[] = {w->W_x, w->W_h, w->b, w->b_n};
  uint32_t n = 0;
  for (uint32_t i = 0; i < 4; i++)
    if (all[i].graph)
      list[n++] = all[i];
  return n;
}

void net_gradient(struct net *n, const struct net_result *y, uint32_t n_y, const unroll_tensor *x, uint32_t n_x,
                  unroll_tensor *dx) {
  unroll_tensor results[8], dy[8];
  for (uint32_t i = 0; i < n_y && i < 8; i++) {
    const unroll_tensor_info info = unroll_tensor_describe(y[i].tensor);
    char name[NET_TENSOR_NAME];
    int64_t shape[UNROLL_MAX_RANK];
    memcpy(shape, info.shape, sizeof shape);
    if (y[i].flags & NET_TIME)
      shape[0] = n->T;
    snprintf(name, sizeof name, "d.%.20s", y[i].name);
    results[i] = y[i].tensor;
    dy[i] = net_in(n, UNROLL_ROLE_INPUT, name, -0.5, 1.5, (y[i].flags & NET_TIME) | NET_ANEW,
                   info.rank < 0 ? 0 : info.rank, shape);
  }
  unroll_vjp(results, dy, n_y, x, n_x, dx);
}

/* ---- one layer ---- */

/* Its results that are read, and what flows back through them. */
static uint32_t layer_results(const struct net_spec *s, const unroll_layer_outputs *out, struct net_result *list) {
  uint32_t n = 0;
  if (s->results & RESULT_Y)
    list[n++] = (struct net_result){out->y, "y", NET_TIME};
  if (s->results & RESULT_H)
    list[n++] = (struct net_result){out->h_last, "h_last", NET_ROWS};
  if (s->results & RESULT_C && out->c_last.graph)
    list[n++] = (struct net_result){out->c_last, "c_last", NET_ROWS};
  return n;
}

static void layer_gradients(struct net *n, const struct net_spec *s, const struct net_result *results, uint32_t n_y,
                            unroll_tensor x, const struct net_weights *w, unroll_tensor h0, unroll_tensor c0) {
  const double T = (double)s->T, B = (double)s->B, H = (double)s->H, GH = (double)gates_of(s->cell) * H;
  const double step = net_budget(s->cell, 2 * T, fmax(GH, (double)s->I + H + 1), 0);
  const double sum = net_budget(s->cell, 2 * T, fmax(GH, (double)s->I + H + 1), T * B);
  const struct {
    unroll_tensor x;
    uint32_t wanted, flags;
    const char *name;
    double budget;
  } all[] = {{x, WANT_X, NET_TIME, "dx", step},      {w->W_x, WANT_W, 0, "dW_x", sum},
             {w->W_h, WANT_W, 0, "dW_h", sum},       {w->b, WANT_B, 0, "db", sum},
             {w->b_n, WANT_B, 0, "db_n", sum},       {h0, WANT_STATE, NET_ROWS, "dh0", step},
             {c0, WANT_STATE, NET_ROWS, "dc0", step}};
  unroll_tensor wrt[7], d[7];
  uint32_t which[7], n_x = 0;
  for (uint32_t i = 0; i < 7; i++)
    if (all[i].x.graph && s->wanted & all[i].wanted) {
      which[n_x] = i;
      wrt[n_x++] = all[i].x;
    }
  net_gradient(n, results, n_y, wrt, n_x, d);
  for (uint32_t i = 0; i < n_x; i++)
    net_out(n, d[i], all[which[i]].name, all[which[i]].budget, all[which[i]].flags);
}

static void build_layer(struct net *n, const struct net_spec *s) {
  const int64_t state[] = {s->B, s->H};
  /* Larger than what a layer keeps, so that it comes first in memory, and it lives until the end. */
  unroll_tensor neighbour = unroll_none();
  if (s->inside)
    neighbour = unroll_unary(
        net_in(n, UNROLL_ROLE_INPUT, "neighbour", -1, 1, 0, 2, (int64_t[]){16 * (s->T + 1) * s->B, s->H}), UNROLL_NEG);
  const unroll_tensor x = net_in(n, UNROLL_ROLE_INPUT, "x", -0.5, 1.5, NET_TIME, 3, (int64_t[]){n->T, s->B, s->I});
  const struct net_weights w = net_make_weights(n, "", s->I, s->H, 0);
  unroll_tensor h0 = unroll_none(), c0 = unroll_none();
  if (!s->no_state) {
    h0 = net_in(n, UNROLL_ROLE_INPUT, "h0", -0.8, 0.6, 0, 2, state);
    if (s->cell == UNROLL_CELL_LSTM)
      c0 = net_in(n, UNROLL_ROLE_INPUT, "c0", -0.9, 1.4, 0, 2, state);
  }
  const unroll_layer_outputs out = net_layer(n, x, &w, s->direction, h0, c0, net_lengths(n), 0);
  struct net_result results[3];
  const uint32_t n_y = layer_results(s, &out, results);
  for (uint32_t i = 0; i < n_y; i++)
    net_out(n, results[i].tensor, results[i].name, net_budget(s->cell, (double)s->T, (double)(s->I + s->H + 1), 0),
            results[i].flags);
  if (s->grad)
    layer_gradients(n, s, results, n_y, x, &w, h0, c0);
  if (s->inside)
    net_out(n, unroll_unary(neighbour, UNROLL_NEG), "unchanged", 0, 0);
}

/* ---- which cases ---- */

static void cover_as(struct conform_list *list, const struct net_spec *s, uint32_t op, int32_t attribute,
                     int32_t value) {
  conform_cover(list, op, attribute, value);
  conform_cover(list, op, COVER_FORM, s->T_max ? CONFORM_RUN_TIME_SIZE : CONFORM_STATIC);
}

static void cover_masks(struct conform_list *list, const struct net_spec *s, uint32_t op) {
  const int32_t kind = s->masks & KEEP_REAL ? CONFORM_KEEP_REAL : CONFORM_KEEP_BOOL, none = CONFORM_NO_KEEP;
  conform_cover(list, op, COVER_H_MASK, (s->masks & MASK_H) != 0);
  conform_cover(list, op, COVER_KEEP_H, s->masks & KEEP_H ? kind : none);
  conform_cover(list, op, COVER_KEEP_C, s->masks & KEEP_C ? kind : none);
}

/* Covers what the case's own layer, or scan, is; a scan's gradient is one that runs the other way. */
static void cover(struct conform_list *list, const struct net_spec *s) {
  if (s->is_model) /* of many ops */
    return;
  if (s->cell != UNROLL_CELL_NONE) {
    const int32_t value = CONFORM_LAYER(s->cell, s->direction, s->lengths != LENGTHS_NONE, s->activation);
    cover_as(list, s, UNROLL_OP_LAYER, COVER_LAYER, value);
    cover_masks(list, s, UNROLL_OP_LAYER);
    if (s->grad) {
      cover_as(list, s, UNROLL_OP_LAYER_GRAD, COVER_LAYER, value);
      cover_masks(list, s, UNROLL_OP_LAYER_GRAD);
    }
  } else {
    cover_as(list, s, UNROLL_OP_SCAN, COVER_DIRECTION, s->direction);
    if (s->grad)
      cover_as(list, s, UNROLL_OP_SCAN, COVER_DIRECTION, !s->direction);
  }
  if (s->reshapes)
    conform_cover(list, UNROLL_OP_RESHAPE, COVER_OP, 0);
}

static void name_of(const struct net_spec *s, const char *modifiers, char *name, size_t size) {
  char sizes[64];
  snprintf(sizes, sizeof sizes, "T%d B%d I%d H%d", (int)s->T, (int)s->B, (int)s->I, (int)s->H);
  const char *lengths = lengths_names[s->lengths], *direction = direction_names[s->direction];
  const char *cell = cell_names[s->cell], *grad = s->grad ? " grad" : "";
  const bool has_activation = s->cell == UNROLL_CELL_RNN;
  if (s->is_model)
    snprintf(name, size, "model %s%s %s%s", s->what, lengths, sizes, grad);
  else if (s->cell == UNROLL_CELL_NONE)
    snprintf(name, size, "scan %s %s%s %s%s%s", s->what, direction, lengths, sizes, modifiers, grad);
  else if (s->what)
    snprintf(name, size, "net %s %s %s%s %s%s%s", s->what, cell, direction, lengths, sizes, modifiers, grad);
  else
    snprintf(name, size, "%slayer %s %s%s%s%s %s%s%s", s->exact ? "exact " : "", cell, direction,
             has_activation ? " " : "", has_activation ? unary_names[s->activation] : "", lengths, sizes, modifiers,
             grad);
}

void net_add(struct net_maker *m, const struct net_spec *spec, const char *modifiers) {
  const uint32_t i = m->n++;
  if (!m->specs)
    return;
  char name[CONFORM_NAME - 8];
  name_of(spec, modifiers, name, sizeof name);
  m->specs[i] = *spec;
  struct conform_case *c = conform_list_add(m->list, "%s, %s", name, unroll_dtype_name(m->dtype));
  if (!c)
    return;
  c->run = net_run;
  c->data = &m->specs[i];
  c->index = i;
  c->dtype = m->dtype;
  cover(m->list, spec);
}

static const struct {
  int32_t cell, activation;
} kinds[] = {{UNROLL_CELL_RNN, UNROLL_TANH}, {UNROLL_CELL_LSTM, 0},          {UNROLL_CELL_GRU, 0},
             {UNROLL_CELL_GRU_AFTER, 0},     {UNROLL_CELL_RNN, UNROLL_RELU}, {UNROLL_CELL_RNN, UNROLL_SIGMOID}};
enum { N_KINDS = 6, N_CELLS = 4 /* of them: one of each cell */ };

static struct net_spec layer_of(uint32_t kind, int32_t direction, uint32_t lengths, bool grad) {
  return (struct net_spec){.build = build_layer,
                           .cell = kinds[kind].cell,
                           .activation = kinds[kind].activation,
                           .direction = direction,
                           .lengths = lengths,
                           .grad = grad,
                           .T = 5,
                           .B = 3,
                           .I = 7,
                           .H = 17,
                           .results = RESULT_Y | RESULT_H | RESULT_C,
                           .wanted = WANT_ALL};
}

/* Every kind, direction, with lengths or not, with its gradient or not. */
static void basic_layers(struct net_maker *m) {
  for (uint32_t form = 0; form < 8; form++)
    for (uint32_t kind = 0; kind < N_KINDS; kind++) {
      const struct net_spec s = layer_of(kind, form & 1, form >> 1 & 1, form >> 2);
      net_add(m, &s, "");
    }
}

static void exact_layers(struct net_maker *m) {
  for (uint32_t form = 0; form < 8; form++) {
    struct net_spec s = layer_of(4, form & 1, form >> 1 & 1, form >> 2);
    s.exact = true;
    net_add(m, &s, "");
    s.T = 3;
    s.B = 33;
    s.I = 65;
    s.H = 130;
    net_add(m, &s, "");
  }
}

/* Every kind at every size, forward and with its gradient; directions and lengths in turns, so that a kind meets all
 * four. */
static void sized_layers(struct net_maker *m) {
  static const int64_t sizes[][4] = {/* T B I H */
                                     {1, 1, 1, 1},    {2, 3, 7, 3},    {1, 7, 3, 33},   {3, 7, 17, 34},
                                     {17, 3, 5, 17},  {3, 3, 33, 63},  {2, 100, 5, 64}, {5, 3, 9, 65},
                                     {2, 130, 7, 33}, {2, 3, 17, 255}, {3, 1, 5, 256},  {2, 7, 4, 257},
                                     {2, 583, 3, 17}, {2, 1000, 2, 3}, {17, 2, 33, 64}};
  for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (uint32_t kind = 0; kind < N_KINDS; kind++)
      for (uint32_t grad = 0; grad < 2; grad++) {
        const uint32_t form = i + kind + 2 * grad;
        struct net_spec s = layer_of(kind, form & 1, form >> 1 & 1, grad);
        s.T = sizes[i][0];
        s.B = sizes[i][1];
        s.I = sizes[i][2];
        s.H = sizes[i][3];
        net_add(m, &s, "");
      }
  /* Both many steps and many units, many steps, and T·B past 65,536 either way. */
  static const int64_t large[][4] = {{17, 7, 33, 257}, {1000, 2, 3, 3}, {257, 256, 2, 3}, {2, 33000, 1, 2}};
  for (uint32_t i = 0; i < sizeof large / sizeof *large; i++)
    for (uint32_t kind = 0; kind < N_CELLS; kind++) {
      struct net_spec s = layer_of(kind, (i + kind) & 1, (i + kind) >> 1 & 1, true);
      s.T = large[i][0];
      s.B = large[i][1];
      s.I = large[i][2];
      s.H = large[i][3];
      net_add(m, &s, "");
    }
}

static void lengths_and_run_time(struct net_maker *m) {
  for (uint32_t kind = 0; kind < N_CELLS; kind++)
    for (int32_t direction = UNROLL_FORWARD; direction <= UNROLL_REVERSE; direction++) {
      struct net_spec s = layer_of(kind, direction, LENGTHS_ALL_T, true);
      net_add(m, &s, "");
      s.lengths = LENGTHS_ALL_0;
      net_add(m, &s, "");
      s.grad = false;
      net_add(m, &s, "");
      for (int grad = 0; grad < 2; grad++) {
        struct net_spec t = layer_of(kind, direction, (kind + (uint32_t)direction) & 1, grad);
        t.T = 7;
        t.T_max = 9;
        t.T_then = 2;
        t.runs = 2;
        net_add(m, &t, " run-time T to 9");
      }
    }
}

static void inner_layers(struct net_maker *m) {
  for (uint32_t kind = 0; kind < N_CELLS; kind++)
    for (uint32_t form = 0; form < 4; form++) {
      struct net_spec s = layer_of(kind, form & 1, (form + kind) & 1, form >> 1);
      s.inside = true;
      net_add(m, &s, " inside");
      /* With more rows a device may multiply x within the recurrence, which then reads the bias itself. */
      s.T = 3;
      s.B = 33;
      net_add(m, &s, " inside");
    }
}

/* What a user leaves out of what goes in, and does not ask for of what comes out. */
static void partial_layers(struct net_maker *m) {
  static const struct {
    uint32_t wanted;
    const char *name;
  } gradients[] = {{WANT_X, " only dx"}, {WANT_W, " only dW"}, {WANT_B, " only db"}, {WANT_STATE, " only dh0"}};
  static const struct {
    uint32_t results;
    const char *name;
  } results[] = {{RESULT_Y, " reads y"}, {RESULT_H, " reads h_last"}, {RESULT_C, " reads c_last"}};
  for (uint32_t kind = 0; kind < N_CELLS; kind++)
    for (uint32_t form = 0; form < 4; form++) {
      const int32_t direction = form & 1;
      for (uint32_t i = 0; form < 2 && i < 4; i++) {
        struct net_spec s = layer_of(kind, direction, (form + kind) & 1, true);
        s.wanted = gradients[i].wanted;
        net_add(m, &s, gradients[i].name);
      }
      for (uint32_t i = 0; i < 3; i++) {
        if (results[i].results == RESULT_C && kinds[kind].cell != UNROLL_CELL_LSTM)
          continue;
        struct net_spec s = layer_of(kind, direction, (form + kind) & 1, form >> 1);
        s.results = results[i].results;
        net_add(m, &s, results[i].name);
      }
      struct net_spec s = layer_of(kind, direction, (form + kind) & 1, form >> 1);
      s.no_state = true;
      net_add(m, &s, " no h0");
      s.no_state = false;
      s.no_bias = true;
      net_add(m, &s, " no b");
    }
}

/* Forms: with its gradient forward, and in reverse with lengths, in f64 only so; without it, where nothing is saved. */
static void masked_layers(struct net_maker *m) {
  static const struct {
    uint32_t masks;
    bool lstm;
    const char *name;
  } masks[] = {{MASK_H, false, " h_mask"},
               {KEEP_H | KEEP_C, false, " keep"},
               {KEEP_H | KEEP_C | KEEP_REAL, false, " keep real"},
               {MASK_H | KEEP_H | KEEP_C | KEEP_REAL | KEEP_ONCE, false, " h_mask keep real once"},
               {KEEP_C | KEEP_ONCE, true, " keep_c once"}};
  for (uint32_t kind = 0; kind < N_CELLS; kind++)
    for (uint32_t i = 0; i < sizeof masks / sizeof *masks; i++)
      for (uint32_t form = 0; form < 3; form++) {
        const bool lstm = kinds[kind].cell == UNROLL_CELL_LSTM;
        struct net_spec s = layer_of(kind, form == 1, form == 1, form < 2);
        if ((masks[i].lstm && !lstm) || (m->dtype == UNROLL_F64 && form != 1))
          continue;
        s.masks = lstm ? masks[i].masks : masks[i].masks & ~(uint32_t)KEEP_C;
        net_add(m, &s, masks[i].name);
      }
  for (uint32_t kind = 0; kind < N_CELLS; kind++) { /* more rows and units than a work-item or a tile has */
    struct net_spec s = layer_of(kind, kind & 1, kind < 2, true);
    s.masks = MASK_H | KEEP_H | (kinds[kind].cell == UNROLL_CELL_LSTM ? KEEP_C : 0);
    s.T = 4;
    s.B = 70;
    s.I = 33;
    s.H = 130;
    net_add(m, &s, " h_mask keep");
    struct net_spec t = layer_of(kind, !(kind & 1), kind >= 2, true);
    t.masks = s.masks;
    t.T = 7;
    t.T_max = 9;
    t.T_then = 2;
    t.runs = 2;
    net_add(m, &t, " h_mask keep run-time T to 9");
  }
}

static void all_cases(struct net_maker *m) {
  for (m->dtype = UNROLL_F32;; m->dtype = UNROLL_F64) {
    basic_layers(m);
    exact_layers(m);
    partial_layers(m);
    inner_layers(m);
    lengths_and_run_time(m);
    masked_layers(m);
    net_list_scans(m);
    net_list_nets(m);
    net_list_models(m);
    net_list_sequences(m);
    sized_layers(m);
    if (m->dtype == UNROLL_F64)
      return;
  }
}

void suite_layers_list(struct conform_list *list) {
  struct net_maker m = {.list = list};
  all_cases(&m);
  list->layers = m.specs = mem_array(list->allocator, m.n, sizeof *m.specs);
  if (!m.specs) {
    list->failed = true;
    return;
  }
  m.n = 0;
  all_cases(&m);
}
