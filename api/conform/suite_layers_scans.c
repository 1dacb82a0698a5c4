/* SPDX-License-Identifier: Apache-2.0 */
/* Scans with bodies of a user's own, and their gradients. */
#include "conform/suite_layers_private.h"
#include "graph/graph_private.h"
#include <math.h>

enum { SCAN_RESULTS = 4, SCAN_WRT = 8 };

/* What a scan leaves to be read, and what its gradient is asked for. */
struct scan_net {
  struct net *n;
  const struct net_spec *s;
  struct net_result results[SCAN_RESULTS];
  unroll_tensor wrt[SCAN_WRT];
  const char *wrt_names[SCAN_WRT];
  uint32_t wrt_flags[SCAN_WRT], n_results, n_wrt;
  double K; /* the longest sum of products in a step */
};

/* An input, of whose gradient is asked for as "d" and its name. */
static unroll_tensor wanted(struct scan_net *k, unroll_tensor x, const char *name, uint32_t flags) {
  k->wrt[k->n_wrt] = x;
  k->wrt_names[k->n_wrt] = name;
  k->wrt_flags[k->n_wrt++] = flags;
  return x;
}
static unroll_tensor sequence(struct scan_net *k, int64_t width) {
  const int64_t shape[] = {k->n->T, k->s->B, width};
  return wanted(k, net_in(k->n, UNROLL_ROLE_INPUT, "x", -0.5, 1.5, NET_TIME, 3, shape), "dx", NET_TIME);
}
static unroll_tensor initial(struct scan_net *k, const char *name, const char *gradient, double lo, double hi) {
  const int64_t shape[] = {k->s->B, k->s->H};
  return wanted(k, net_in(k->n, UNROLL_ROLE_INPUT, name, lo, hi, 0, 2, shape), gradient, NET_ROWS);
}
static unroll_tensor row_of(struct scan_net *k, const char *name, const char *gradient, int64_t width, double lo,
                            double hi) {
  return wanted(k, net_in(k->n, UNROLL_ROLE_PARAM, name, lo, hi, 0, 1, &width), gradient, 0);
}
static unroll_tensor row(struct scan_net *k, const char *name, const char *gradient, double lo, double hi) {
  return row_of(k, name, gradient, k->s->H, lo, hi);
}
static unroll_tensor matrix(struct scan_net *k, const char *name, const char *gradient, int64_t rows, int64_t columns) {
  const double scale = 1 / sqrt((double)columns);
  const int64_t shape[] = {rows, columns};
  k->K = fmax(k->K, (double)(rows > columns ? rows : columns) + 1);
  return wanted(k, net_in(k->n, UNROLL_ROLE_PARAM, name, -0.35 * scale, 0.5 * scale, 0, 2, shape), gradient, 0);
}
static void result(struct scan_net *k, unroll_tensor x, const char *name, uint32_t flags) {
  k->results[k->n_results++] = (struct net_result){x, name, flags};
}
static unroll_scan *begin(struct scan_net *k) { return unroll_scan_begin(k->n->g, k->s->direction, net_lengths(k->n)); }

/* h = h + x */
static void scan_add(struct scan_net *k) {
  const unroll_tensor x = sequence(k, k->s->H), h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0), next = unroll_add(h, x_t);
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* h = a⊙h + x */
static void scan_linear(struct scan_net *k) {
  const unroll_tensor x = sequence(k, k->s->H), h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  const unroll_tensor a = row(k, "a", "da", 0.3, 0.95);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor next = unroll_add(unroll_mul(a, h), x_t);
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* h = tanh(x·W_xᵀ + h·W_hᵀ + b), both products in the step */
static void scan_tanh(struct scan_net *k) {
  const unroll_tensor x = sequence(k, k->s->I), h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  const unroll_tensor W_x = matrix(k, "W_x", "dW_x", k->s->H, k->s->I),
                      W_h = matrix(k, "W_h", "dW_h", k->s->H, k->s->H);
  const unroll_tensor b = row(k, "b", "db", -0.5, 0.9);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor next = unroll_tanh(unroll_matmul_add(h, 0, W_h, 1, unroll_matmul_add(x_t, 0, W_x, 1, b)));
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* An LSTM whose gates see the cell state (Gers & Schmidhuber 2000), of elementwise ops; the output gate sees the new
 * one. */
static void scan_peephole(struct scan_net *k) {
  const int64_t H = k->s->H;
  const unroll_tensor x = sequence(k, k->s->I), h0 = initial(k, "h0", "dh0", -0.8, 0.6),
                      c0 = initial(k, "c0", "dc0", -0.9, 1.4);
  const unroll_tensor W_x = matrix(k, "W_x", "dW_x", 4 * H, k->s->I), W_h = matrix(k, "W_h", "dW_h", 4 * H, H);
  const unroll_tensor p_i = row(k, "p_i", "dp_i", -0.4, 0.9), p_f = row(k, "p_f", "dp_f", -0.9, 0.5),
                      p_o = row(k, "p_o", "dp_o", -0.3, 0.7);
  const unroll_tensor lengths = net_lengths(k->n);
  /* A weight's gradient outside of the scan has a product with all of x: what is NaN past the end has to go first. */
  const unroll_tensor known = lengths.graph ? unroll_length_mask(x, lengths) : x;
  unroll_scan *s = unroll_scan_begin(k->n->g, k->s->direction, lengths);
  const unroll_tensor x_t = unroll_scan_input(s, unroll_matmul_add(known, 0, W_x, 1, unroll_none()));
  const unroll_tensor h = unroll_scan_carry(s, h0), c = unroll_scan_carry(s, c0);
  const unroll_tensor pre = unroll_matmul_add(h, 0, W_h, 1, x_t);
  unroll_tensor block[4];
  for (int g = 0; g < 4; g++)
    block[g] = unroll_slice(pre, 1, g * H, H);
  const unroll_tensor i = unroll_sigmoid(unroll_add(block[0], unroll_mul(p_i, c))),
                      f = unroll_sigmoid(unroll_add(block[1], unroll_mul(p_f, c)));
  const unroll_tensor next_c = unroll_add(unroll_mul(f, c), unroll_mul(i, unroll_tanh(block[2])));
  const unroll_tensor o = unroll_sigmoid(unroll_add(block[3], unroll_mul(p_o, next_c)));
  const unroll_tensor next_h = unroll_mul(o, unroll_tanh(next_c));
  unroll_scan_next(s, h, next_h);
  unroll_scan_next(s, c, next_c);
  result(k, unroll_scan_output(s, next_h), "y", NET_TIME);
  result(k, unroll_scan_output(s, i), "gate", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  result(k, unroll_scan_last(s, c), "c_last", NET_ROWS);
  unroll_scan_end(s);
}

/* Two carries that change places: neither may be overwritten before the other has read it. */
static void scan_swap(struct scan_net *k) {
  const unroll_tensor x = sequence(k, k->s->H), a0 = initial(k, "a0", "da0", -0.8, 0.6),
                      b0 = initial(k, "b0", "db0", 0.2, 1.4);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), a = unroll_scan_carry(s, a0), b = unroll_scan_carry(s, b0);
  unroll_scan_next(s, a, b);
  unroll_scan_next(s, b, unroll_add(unroll_scale(a, 0.5), x_t));
  result(k, unroll_scan_output(s, unroll_mul(a, b)), "y", NET_TIME);
  result(k, unroll_scan_last(s, a), "a_last", NET_ROWS);
  result(k, unroll_scan_last(s, b), "b_last", NET_ROWS);
  unroll_scan_end(s);
}

/* A carry that nothing changes, one given out as the step finds it, and an input given out as it is. */
static void scan_unchanged(struct scan_net *k) {
  const unroll_tensor x = sequence(k, k->s->H), k0 = initial(k, "k0", "dk0", -0.8, 0.6),
                      h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), kept = unroll_scan_carry(s, k0), h = unroll_scan_carry(s, h0);
  unroll_scan_next(s, kept, kept);
  unroll_scan_next(s, h, unroll_mul(kept, x_t));
  result(k, unroll_scan_output(s, h), "before", NET_TIME);
  result(k, unroll_scan_output(s, unroll_scale(x_t, 2)), "twice", NET_TIME);
  result(k, unroll_scan_last(s, kept), "k_last", NET_ROWS);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* No input at all, and a product of what is captured, which needs to be computed once. */
static void scan_free(struct scan_net *k) {
  const unroll_tensor h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  const unroll_tensor U = matrix(k, "U", "dU", k->s->H, k->s->H), V = matrix(k, "V", "dV", k->s->H, k->s->H);
  unroll_scan *s = begin(k);
  unroll_scan_steps(s, k->n->T);
  const unroll_tensor h = unroll_scan_carry(s, h0);
  const unroll_tensor next = unroll_sigmoid(unroll_add(unroll_matmul(h, unroll_matmul(U, V)), h));
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* The largest so far, and how often it changed: comparison, choice and conversion in a step. */
static void scan_largest(struct scan_net *k) {
  const unroll_tensor x = sequence(k, k->s->H), m0 = initial(k, "m0", "dm0", -0.4, 0.9);
  const unroll_tensor zero = unroll_constant(k->n->g, k->n->dtype, 2, (int64_t[]){k->s->B, k->s->H}, 0);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), m = unroll_scan_carry(s, m0), n = unroll_scan_carry(s, zero);
  const unroll_tensor more = unroll_binary(x_t, m, UNROLL_GT), next = unroll_select(more, x_t, m);
  unroll_scan_next(s, m, next);
  unroll_scan_next(s, n, unroll_add(n, unroll_cast(more, k->n->dtype)));
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_last(s, m), "m_last", NET_ROWS);
  result(k, unroll_scan_last(s, n), "n_last", NET_ROWS);
  unroll_scan_end(s);
}

/* A step that looks its input up. */
static void scan_ids(struct scan_net *k) {
  const unroll_tensor ids =
      net_integers(k->n, "ids", 0, (double)k->s->I - 1, NET_TIME, 2, (int64_t[]){k->n->T, k->s->B});
  const unroll_tensor table = matrix(k, "table", "dtable", k->s->I, k->s->H), h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  unroll_scan *s = begin(k);
  const unroll_tensor h = unroll_scan_carry(s, h0), found = unroll_embedding(table, unroll_scan_input(s, ids));
  const unroll_tensor next = unroll_tanh(unroll_add(unroll_scale(h, 0.5), found));
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* Rows within a step: softmax, a sum that keeps its axis, concatenation. */
static void scan_softmax(struct scan_net *k) {
  const unroll_tensor x = sequence(k, k->s->H), h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor p = unroll_softmax(unroll_add(h, x_t));
  const unroll_tensor mean = unroll_reduce(unroll_mul(p, x_t), UNROLL_SUM, 2, 1);
  const unroll_tensor next = unroll_add(unroll_scale(h, 0.5), unroll_mul(mean, x_t));
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, unroll_concat((unroll_tensor[]){p, mean}, 2, 1)), "y", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
  k->K = (double)k->s->H;
}

/* A mask of its own at each step, the same in the gradient. */
static void scan_dropout(struct scan_net *k) {
  const unroll_tensor x = sequence(k, k->s->H), h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor next = unroll_add(unroll_scale(h, 0.5), unroll_dropout(x_t, 0.3));
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* Noise of its own at each step, the same in the gradient; of what it makes, the largest, and what stands at their places. */
static void scan_random(struct scan_net *k) {
  const int64_t shape[] = {k->s->B, k->s->H}, largest = (k->s->H + 2) / 3;
  const unroll_tensor x = sequence(k, k->s->H), h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor noise = unroll_random(unroll_scan_body(s), UNROLL_RANDOM_NORMAL, k->n->dtype, 2, shape);
  const unroll_tensor next = unroll_tanh(unroll_add(unroll_scale(h, 0.5), unroll_mul(x_t, noise)));
  unroll_tensor values, ids;
  unroll_top_k(next, largest, &values, &ids);
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, values), "y", NET_TIME);
  result(k, unroll_scan_output(s, unroll_gather(x_t, ids)), "chosen", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* A scan that reads another one's outputs the other way, and begins where it ended. */
static void scan_two(struct scan_net *k) {
  const unroll_tensor x = sequence(k, k->s->H), h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  const unroll_tensor a = row(k, "a", "da", 0.3, 0.95), lengths = net_lengths(k->n);
  unroll_tensor y = x, last = h0;
  for (int i = 0; i < 2; i++) {
    unroll_scan *s = unroll_scan_begin(k->n->g, i ? !k->s->direction : k->s->direction, lengths);
    const unroll_tensor x_t = unroll_scan_input(s, y), h = unroll_scan_carry(s, last);
    const unroll_tensor next = unroll_tanh(unroll_add(unroll_mul(a, h), x_t));
    unroll_scan_next(s, h, next);
    y = unroll_scan_output(s, next);
    last = unroll_scan_last(s, h);
    unroll_scan_end(s);
  }
  result(k, y, "y", NET_TIME);
  result(k, last, "h_last", NET_ROWS);
}

/* Units that keep their old values where a mask of bool says so, one for all steps made beforehand; and a mask [B,H] of h
 * in its product, the same at every step. */
static void scan_zoneout(struct scan_net *k) {
  const int64_t B = k->s->B, H = k->s->H;
  const unroll_tensor x = sequence(k, H), h0 = initial(k, "h0", "dh0", -0.8, 0.6), W = matrix(k, "W", "dW", H, H);
  const unroll_tensor ones = unroll_constant(k->n->g, k->n->dtype, 3, (int64_t[]){k->n->T, B, H}, 1),
                      once = unroll_constant(k->n->g, k->n->dtype, 3, (int64_t[]){1, B, H}, 1);
  const unroll_tensor moves = unroll_cast(unroll_dropout(ones, 0.3), UNROLL_BOOL);
  const unroll_tensor mask = unroll_reshape(unroll_dropout(once, 0.25), 2, (int64_t[]){B, H});
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor made = unroll_tanh(unroll_matmul_add(unroll_mul(h, mask), 0, W, 1, x_t));
  const unroll_tensor next = unroll_select(unroll_scan_input(s, moves), made, h);
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* Rows brought to mean 0 and variance 1 in each step, and a gain (Ba, Kiros, Hinton 2016). */
static void scan_normalised(struct scan_net *k) {
  const int64_t H = k->s->H;
  const unroll_tensor x = sequence(k, H), h0 = initial(k, "h0", "dh0", -0.8, 0.6), W = matrix(k, "W", "dW", H, H),
                      gain = row(k, "gain", "dgain", 0.3, 0.9);
  const unroll_tensor epsilon = unroll_constant(k->n->g, k->n->dtype, 0, NULL, 1e-5);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor a = unroll_matmul_add(h, 0, W, 1, x_t);
  const unroll_tensor d = unroll_sub(a, unroll_scale(unroll_reduce(a, UNROLL_SUM, 2, 1), 1 / (double)H));
  const unroll_tensor variance = unroll_scale(unroll_reduce(d, UNROLL_SUM_SQUARES, 2, 1), 1 / (double)H);
  const unroll_tensor unit = unroll_div(d, unroll_unary(unroll_add(variance, epsilon), UNROLL_SQRT));
  const unroll_tensor next = unroll_tanh(unroll_mul(unit, gain));
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* The same by ops of their own, of what x gives and of what h gives, and in the gates of an lstm; gains and shifts captured. */
static void scan_layer_norm(struct scan_net *k) {
  const int64_t H = k->s->H;
  const unroll_tensor x = sequence(k, 4 * H), h0 = initial(k, "h0", "dh0", -0.8, 0.6),
                      c0 = initial(k, "c0", "dc0", -0.9, 1.4), W = matrix(k, "W", "dW", 4 * H, H);
  const unroll_tensor gain = row_of(k, "gain", "dgain", 4 * H, 0.3, 0.9),
                      gain_c = row(k, "gain_c", "dgain_c", 0.5, 1.4),
                      shift_c = row(k, "shift_c", "dshift_c", -0.4, 0.7);
  const op_attr attr = {.layer_norm = {.epsilon = 1e-2}};
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0), c = unroll_scan_carry(s, c0);
  const unroll_tensor a = unroll_layer_norm(unroll_matmul_add(h, 0, W, 1, unroll_none()), gain, x_t, 1e-2);
  unroll_tensor out[3];
  graph_add_node(unroll_scan_body(s), UNROLL_OP_LSTM_GATES, &attr, (unroll_tensor[]){a, c, gain_c, shift_c}, 4, NULL,
                 out, 3);
  const unroll_tensor y = unroll_layer_norm(out[0], gain_c, shift_c, 1e-2); /* that row once more */
  unroll_scan_next(s, h, out[0]);
  unroll_scan_next(s, c, out[1]);
  result(k, unroll_scan_output(s, y), "y", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  result(k, unroll_scan_last(s, c), "c_last", NET_ROWS);
  unroll_scan_end(s);
  k->K = (double)H;
}

/* A state that is a projection of what the gates gave (Sak et al. 2014), a bounded cell state, a part of the state of before
 * added, and gates that are no sigmoids. */
static void scan_projected(struct scan_net *k) {
  const int64_t H = k->s->H, P = H;
  const unroll_tensor x = sequence(k, 3 * H), h0 = initial(k, "h0", "dh0", -0.8, 0.6),
                      c0 = initial(k, "c0", "dc0", -0.9, 1.4);
  const unroll_tensor W = matrix(k, "W", "dW", 3 * H, P), V = matrix(k, "V", "dV", P, H);
  const unroll_tensor zero = unroll_constant(k->n->g, k->n->dtype, 0, NULL, 0),
                      one = unroll_constant(k->n->g, k->n->dtype, 0, NULL, 1);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0), c = unroll_scan_carry(s, c0);
  const unroll_tensor a = unroll_matmul_add(h, 0, W, 1, x_t);
  const unroll_tensor line = unroll_add(unroll_scale(unroll_slice(a, 1, 0, H), 0.3), unroll_scale(one, 0.4));
  const unroll_tensor i = unroll_binary(unroll_binary(line, zero, UNROLL_MAX), one, UNROLL_MIN);
  const unroll_tensor low = unroll_unary(unroll_binary(unroll_slice(a, 1, H, H), zero, UNROLL_MIN), UNROLL_EXPM1);
  const unroll_tensor g =
      unroll_select(unroll_binary(unroll_slice(a, 1, H, H), zero, UNROLL_LT), low, unroll_slice(a, 1, H, H));
  const unroll_tensor o = unroll_unary(unroll_unary(unroll_slice(a, 1, 2 * H, H), UNROLL_EXP), UNROLL_LOG1P);
  const unroll_tensor sum = unroll_add(unroll_mul(unroll_sub(one, i), c), unroll_mul(i, g));
  const unroll_tensor next_c =
      unroll_binary(unroll_binary(sum, unroll_scale(one, -0.7), UNROLL_MAX), unroll_scale(one, 0.7), UNROLL_MIN);
  const unroll_tensor made = unroll_matmul_add(unroll_mul(o, unroll_tanh(next_c)), 0, V, 1, unroll_none());
  const unroll_tensor next_h = unroll_add(made, unroll_scale(h, 0.3));
  unroll_scan_next(s, h, next_h);
  unroll_scan_next(s, c, next_c);
  result(k, unroll_scan_output(s, next_h), "y", NET_TIME);
  result(k, unroll_scan_output(s, next_c), "c", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  result(k, unroll_scan_last(s, c), "c_last", NET_ROWS);
  unroll_scan_end(s);
}

/* What is kept of a source is asked at every step: products of each row with a matrix of its own, captured, and a
 * softmax. */
static void scan_attend(struct scan_net *k) {
  const int64_t B = k->s->B, S = k->s->I, H = k->s->H, shape[] = {B, S, H};
  const unroll_tensor x = sequence(k, H), h0 = initial(k, "h0", "dh0", -0.8, 0.6);
  const unroll_tensor kept = wanted(k, net_in(k->n, UNROLL_ROLE_INPUT, "m", -0.9, 1.2, 0, 3, shape), "dm", NET_ROWS);
  const unroll_tensor v = matrix(k, "v", "dv", 1, H);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0);
  const unroll_tensor sum = unroll_add(unroll_reshape(h, 3, (int64_t[]){B, 1, H}), kept);
  const unroll_tensor e = unroll_matmul_add(unroll_tanh(sum), 0, v, 1, unroll_none());
  const unroll_tensor p = unroll_softmax(unroll_reshape(e, 3, (int64_t[]){B, 1, S}));
  const unroll_tensor context = unroll_reshape(unroll_matmul(p, kept), 2, (int64_t[]){B, H});
  const unroll_tensor next = unroll_tanh(unroll_add(unroll_add(unroll_scale(h, 0.5), x_t), context));
  unroll_scan_next(s, h, next);
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_output(s, unroll_reshape(p, 2, (int64_t[]){B, S})), "weights", NET_TIME);
  result(k, unroll_scan_last(s, h), "h_last", NET_ROWS);
  unroll_scan_end(s);
}

/* Logarithms of sums of paths: each place goes on or hands to the next one, and says one of the step's symbols. */
static void scan_paths(struct scan_net *k) {
  const int64_t B = k->s->B, H = k->s->H;
  const unroll_tensor x = sequence(k, k->s->I), a0 = initial(k, "a0", "da0", -0.8, 0.6);
  const unroll_tensor ids = net_integers(k->n, "ids", 0, (double)k->s->I - 1, 0, 2, (int64_t[]){B, H});
  const unroll_tensor least = unroll_constant(k->n->g, k->n->dtype, 2, (int64_t[]){B, 1}, -1e30);
  unroll_scan *s = begin(k);
  const unroll_tensor x_t = unroll_scan_input(s, x), a = unroll_scan_carry(s, a0);
  const unroll_tensor shifted = H > 1 ? unroll_concat((unroll_tensor[]){least, unroll_slice(a, 1, 0, H - 1)}, 2, 1) : a;
  const unroll_tensor ways =
      unroll_reshape(unroll_concat((unroll_tensor[]){a, shifted}, 2, 1), 3, (int64_t[]){B, 2, H});
  const unroll_tensor most = unroll_reduce(ways, UNROLL_REDUCE_MAX, 2, 1);
  const unroll_tensor sum = unroll_reduce(unroll_unary(unroll_sub(ways, most), UNROLL_EXP), UNROLL_SUM, 2, 1);
  const unroll_tensor both = unroll_add(most, unroll_unary(sum, UNROLL_LOG));
  const unroll_tensor said = unroll_gather(unroll_log_softmax(x_t), ids);
  const unroll_tensor next = unroll_add(unroll_reshape(both, 2, (int64_t[]){B, H}), said);
  unroll_scan_next(s, a, next);
  result(k, unroll_scan_output(s, next), "y", NET_TIME);
  result(k, unroll_scan_last(s, a), "a_last", NET_ROWS);
  unroll_scan_end(s);
  k->K = (double)k->s->I;
}

static const struct {
  const char *what;
  void (*build)(struct scan_net *k);
  int32_t cell;    /* of whose roundings a step has about as many */
  bool everywhere; /* in every form and size */
} scans[] = {{"add", scan_add, UNROLL_CELL_NONE, true},
             {"linear", scan_linear, UNROLL_CELL_NONE, true},
             {"tanh", scan_tanh, UNROLL_CELL_RNN, true},
             {"peephole", scan_peephole, UNROLL_CELL_LSTM, true},
             {"swap", scan_swap, UNROLL_CELL_NONE, false},
             {"unchanged", scan_unchanged, UNROLL_CELL_NONE, false},
             {"free", scan_free, UNROLL_CELL_RNN, false},
             {"largest", scan_largest, UNROLL_CELL_NONE, false},
             {"ids", scan_ids, UNROLL_CELL_RNN, false},
             {"softmax", scan_softmax, UNROLL_CELL_LSTM, false},
             {"dropout", scan_dropout, UNROLL_CELL_NONE, false},
             {"two", scan_two, UNROLL_CELL_RNN, false},
             {"random", scan_random, UNROLL_CELL_RNN, false},
             {"zoneout", scan_zoneout, UNROLL_CELL_RNN, false},
             {"normalised", scan_normalised, UNROLL_CELL_LSTM, false},
             {"layer_norm", scan_layer_norm, UNROLL_CELL_LSTM, false},
             {"projected", scan_projected, UNROLL_CELL_LSTM, false},
             {"attend", scan_attend, UNROLL_CELL_LSTM, false},
             {"paths", scan_paths, UNROLL_CELL_LSTM, false}};

static void build_scan(struct net *n, const struct net_spec *s) {
  struct scan_net k = {.n = n, .s = s, .K = 1};
  scans[s->form].build(&k);
  const double T = (double)s->T * (scans[s->form].build == scan_two ? 2 : 1);
  const int32_t cell = scans[s->form].cell;
  for (uint32_t i = 0; i < k.n_results; i++)
    net_out(n, k.results[i].tensor, k.results[i].name, net_budget(cell, T, k.K, 0), k.results[i].flags);
  if (!s->grad)
    return;
  unroll_tensor d[SCAN_WRT];
  net_gradient(n, k.results, k.n_results, k.wrt, k.n_wrt, d);
  for (uint32_t i = 0; i < k.n_wrt; i++)
    net_out(n, d[i], k.wrt_names[i], net_budget(cell, 2 * T, k.K, k.wrt_flags[i] ? 0 : (double)(s->T * s->B)),
            k.wrt_flags[i]);
}

void net_list_scans(struct net_maker *m) {
  for (uint32_t i = 0; i < sizeof scans / sizeof *scans; i++) {
    struct net_spec s = {.build = build_scan, .what = scans[i].what, .form = i, .T = 5, .B = 3, .I = 7, .H = 17};
    for (uint32_t form = 0; form < 8; form++) {
      s.direction = form & 1;
      s.lengths = form >> 1 & 1;
      s.grad = form >> 2;
      /* With lengths forward or back, without them the other way. */
      if (scans[i].everywhere || (s.direction ^ (int32_t)s.lengths ^ s.grad) == (int32_t)(i & 1))
        net_add(m, &s, "");
    }
    for (uint32_t form = 0; scans[i].everywhere && form < 2; form++) {
      struct net_spec t = s;
      t.direction = form & 1;
      t.lengths = !form;
      t.grad = true;
      t.T = 7;
      t.T_max = 9;
      t.T_then = 3;
      t.runs = 2;
      net_add(m, &t, " run-time T to 9");
      t = s;
      t.direction = form & 1;
      t.lengths = form;
      t.grad = true;
      t.T = 17;
      t.B = form ? 1 : 100;
      t.H = form ? 257 : 33;
      net_add(m, &t, "");
      t.T = t.B = t.I = t.H = 1;
      net_add(m, &t, "");
    }
  }
}
