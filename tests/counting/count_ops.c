/* SPDX-License-Identifier: Apache-2.0 */
/* The ops of reals, as plugin.h has their formulas; f32 and f64 differ in bytes alone. */
#include "count.h"
#include <math.h>
#include <stdlib.h>
#include <unroll/philox.h>

static int64_t last(const cpu_operand *o) { return o->size[o->rank - 1]; }
static int64_t rows(const cpu_operand *o) { return cpu_count(o, 0, o->rank - 1); }
static num one_minus(num x) { return minus(number(1), x); }

/* ---- products ---- */

static void matmul(const cpu_call *c) {
  const unroll_matmul_attr *attr = &c->node->attr.matmul;
  const cpu_operand *a = cpu_in(c, 0), *b = cpu_in(c, 1), *y = cpu_out(c, 0);
  const bool batched = c->node->batched;
  const int64_t N = last(y), P = batched ? a->size[0] : 1, M = count_of(y) / P / N;
  const int64_t K = count_of(b) / (batched ? P : 1) / N, block = attr->k_block > 0 ? attr->k_block : K;
  const bool row = has_in(2) && cpu_in(c, 2)->rank == 1;
  for (int64_t at = 0; at < P * M * N; at++) {
    const int64_t p = at / N / M, m = at / N % M, n = at % N, blocks = (K + block - 1) / block;
    num sum = has_in(2) ? get(2, row ? n : at) : number(0);
    for (int64_t i = 0; i < blocks; i++) {
      const int64_t first = (attr->block_order == UNROLL_BLOCKS_FROM_FIRST ? i : blocks - 1 - i) * block;
      num part = number(0);
      for (int64_t k = first; k < first + block && k < K; k++)
        part = plus(part, times(get(0, p * M * K + (attr->trans_a ? k * M + m : m * K + k)),
                                get(1, p * K * N + (attr->trans_b ? n * K + k : k * N + n))));
      sum = attr->k_block > 0 || has_in(2) ? plus(sum, part) : part;
    }
    put(0, at, sum);
  }
}

/* ---- rows ---- */

static num largest(const num *x, int64_t n) {
  num best = number(-INFINITY);
  for (int64_t j = 0; j < n; j++)
    best = larger(best, x[j]);
  return best;
}

/* e = exp(x - largest), d what exp is of; their sum */
static num exponentials(const num *x, int64_t n, num *d, num *e) {
  const num most = largest(x, n);
  num sum = number(0);
  for (int64_t j = 0; j < n; j++) {
    d[j] = minus(x[j], most);
    e[j] = function(exp, d[j]);
    sum = plus(sum, e[j]);
  }
  return sum;
}

#define FOR_EACH_ROW(c, n, row) for (int64_t n = last(cpu_in(c, 0)), row = 0; row < rows(cpu_in(c, 0)); row++)

static void softmax(const cpu_call *c) {
  FOR_EACH_ROW(c, n, row) {
    num *d = zeros(n), *e = zeros(n);
    const num sum = exponentials(load(0, row * n, n), n, d, e);
    for (int64_t j = 0; j < n; j++)
      put(0, row * n + j, over(e[j], sum));
  }
}

static void log_softmax(const cpu_call *c) {
  FOR_EACH_ROW(c, n, row) {
    num *d = zeros(n), *e = zeros(n);
    const num log_sum = function(log, exponentials(load(0, row * n, n), n, d, e));
    for (int64_t j = 0; j < n; j++)
      put(0, row * n + j, minus(d[j], log_sum));
  }
}

/* Of a target that is none the row is computed as of another, and not taken. */
static int64_t some_target(int32_t target, int64_t n) { return target < 0 || target >= n ? 0 : target; }

static void cross_entropy(const cpu_call *c) {
  FOR_EACH_ROW(c, n, row) {
    const int32_t target = get_i32(1, row);
    num *x = load(0, row * n, n), *d = zeros(n), *e = zeros(n);
    const num sum = exponentials(x, n, d, e), most = number(x[0].v - d[0].v);
    const num at = minus(x[some_target(target, n)], most), loss = minus(function(log, sum), at);
    put(0, row, target < 0 ? number(0) : target >= n ? number(NAN) : number(isnan(most.v) ? NAN : loss.v));
  }
}

static void cross_entropy_grad(const cpu_call *c) {
  FOR_EACH_ROW(c, n, row) {
    const int32_t target = get_i32(1, row);
    const num dloss = get(2, row);
    num *d = zeros(n), *e = zeros(n);
    const num sum = exponentials(load(0, row * n, n), n, d, e);
    for (int64_t j = 0; j < n; j++)
      e[j] = over(e[j], sum);
    e[some_target(target, n)] = minus(e[some_target(target, n)], number(1));
    for (int64_t j = 0; j < n; j++) {
      const num dx = times(e[j], dloss);
      put(0, row * n + j, target < 0 ? number(0) : target >= n ? number(NAN) : dx);
    }
  }
}

static bool goes_before(num a, num b) { return more(a, b) || (isnan(a.v) && !isnan(b.v)); }

static void argmax(const cpu_call *c) {
  FOR_EACH_ROW(c, n, row) {
    num *x = load(0, row * n, n), best = number(-INFINITY);
    int64_t at = 0;
    for (int64_t j = 0; j < n; j++)
      if (goes_before(x[j], best)) {
        best = x[j];
        at = j;
      }
    put_i32(0, row, (int32_t)at);
  }
}

/* k times the largest of what is left. */
static void top_k(const cpu_call *c) {
  const int64_t k = c->node->attr.top_k.k;
  FOR_EACH_ROW(c, n, row) {
    num *x = load(0, row * n, n), *taken = zeros(n);
    for (int64_t i = 0; i < k; i++) {
      int64_t best = -1;
      for (int64_t j = 0; j < n; j++) {
        const bool before = goes_before(x[j], best < 0 ? number(-INFINITY) : x[best]);
        if (taken[j].v == 0 && (best < 0 || before))
          best = j;
      }
      taken[best].v = 1;
      put(0, row * k + i, x[best]);
      if (has_out(1))
        put_i32(1, row * k + i, (int32_t)best);
    }
  }
}

/* Weights of what top_k and top_p leave; choosing that is not counted. */
static void leave_out(const cpu_call *c, const num *x, num *e, int64_t n) {
  const unroll_categorical_attr *attr = &c->node->attr.categorical;
  const int64_t k = attr->top_k > 0 && attr->top_k < n ? attr->top_k : n;
  num *order = zeros(n), *kept = zeros(n);
  for (int64_t i = 0; i < n; i++) {
    int64_t best = -1;
    for (int64_t j = 0; j < n; j++)
      if (order[j].v == 0 && (best < 0 || x[j].v > x[best].v || (isnan(x[j].v) && !isnan(x[best].v))))
        best = j;
    order[best].v = (double)(i + 1);
  }
  double all = 0, before = 0;
  for (int64_t j = 0; j < n; j++)
    all += order[j].v <= (double)k ? e[j].v : 0;
  for (int64_t i = 1; i <= k; i++)
    for (int64_t j = 0; j < n; j++)
      if (order[j].v == (double)i) {
        kept[j].v = !(attr->top_p > 0) || isnan(all) || before < attr->top_p * all;
        before += e[j].v;
      }
  for (int64_t j = 0; j < n; j++)
    e[j].v = kept[j].v != 0 ? e[j].v : 0;
}

static void categorical(const cpu_call *c) {
  const unroll_philox_key key = unroll_philox_site_key(c->at->seed, c->at->update, c->node->attr.categorical.site);
  FOR_EACH_ROW(c, n, row) {
    num *x = load(0, row * n, n), *d = zeros(n), *e = zeros(n), passed = number(0), sum = number(0);
    const num most = largest(x, n);
    for (int64_t j = 0; j < n; j++) {
      d[j] = minus(x[j], most);
      e[j] = function(exp, d[j]);
    }
    leave_out(c, x, e, n);
    for (int64_t j = 0; j < n; j++)
      sum = plus(sum, e[j]);
    const uint32_t word = unroll_philox_word(key, (uint64_t)(c->at->t0 + c->at->t), (uint32_t)(c->at->row0 + row), 0);
    const num mark = times(number((double)unroll_uniform(word)), sum);
    int64_t chosen = -1, possible = 0;
    for (int64_t j = 0; j < n; j++) {
      passed = plus(passed, e[j]);
      const bool beyond = more(passed, mark);
      possible = e[j].v != 0 ? j : possible;
      if (chosen < 0 && beyond && e[j].v != 0)
        chosen = j;
    }
    put_i32(0, row, (int32_t)(isnan(sum.v) ? n - 1 : chosen < 0 ? possible : chosen));
  }
}

/* ---- tables ---- */

static void embedding(const cpu_call *c) {
  const int64_t E = last(cpu_in(c, 0)), V = cpu_in(c, 0)->size[0];
  for (int64_t i = 0; i < count_of(cpu_in(c, 1)); i++) {
    const int32_t id = get_i32(1, i);
    for (int64_t j = 0; j < E; j++)
      put(0, i * E + j, look_up(0, id >= 0 && id < V ? id * E + j : -1));
  }
}

/* What has an id out of range goes to a place that nobody reads. */
static void scatter(int64_t places, int64_t ids, int64_t width, int64_t id_at, int64_t dy_at, int64_t y_at) {
  num *sum = zeros((places + 1) * width);
  for (int64_t i = 0; i < ids; i++) {
    const int32_t id = get_i32(0, id_at + i);
    const int64_t to = id >= 0 && id < places ? id : places;
    for (int64_t j = 0; j < width; j++)
      sum[to * width + j] = plus(sum[to * width + j], get(1, dy_at + i * width + j));
  }
  for (int64_t i = 0; i < places * width; i++)
    put(0, y_at + i, sum[i]);
}

static void embedding_grad(const cpu_call *c) {
  scatter(cpu_out(c, 0)->size[0], count_of(cpu_in(c, 0)), last(cpu_out(c, 0)), 0, 0, 0);
}

static void gather(const cpu_call *c) {
  const int64_t M = last(cpu_in(c, 1));
  FOR_EACH_ROW(c, n, row) {
    for (int64_t m = 0; m < M; m++) {
      const int32_t id = get_i32(1, row * M + m);
      put(0, row * M + m, look_up(0, id >= 0 && id < n ? row * n + id : -1));
    }
  }
}

static void gather_grad(const cpu_call *c) {
  const int64_t N = last(cpu_out(c, 0));
  FOR_EACH_ROW(c, m, row) { scatter(N, m, 1, row * m, row * m, row * N); }
}

/* ---- linear recurrences ---- */

typedef struct lanes {
  int64_t T, n, per_row; /* n: numbers of a step */
  bool reverse;
} lanes;
static lanes lanes_of(const cpu_call *c) {
  const cpu_operand *a = cpu_in(c, 0);
  return (lanes){a->size[0], cpu_count(a, 1, a->rank), cpu_count(a, 2, a->rank),
                 c->node->attr.linear_scan.direction == UNROLL_REVERSE};
}
static int64_t steps_of(const lanes *l, uint32_t lengths, int64_t lane) {
  const int64_t n = has_in(lengths) ? get_i32(lengths, lane / l->per_row) : l->T;
  return n < 0 ? 0 : n > l->T ? l->T : n;
}

static void linear_scan(const cpu_call *c) {
  const lanes l = lanes_of(c);
  num *h = load(2, 0, l.n);
  for (int64_t step = 0; step < l.T; step++)
    for (int64_t i = 0; i < l.n; i++) {
      const int64_t t = l.reverse ? l.T - 1 - step : step;
      const bool inside = t < steps_of(&l, 3, i);
      const num next = plus(times(get(0, t * l.n + i), h[i]), get(1, t * l.n + i));
      h[i] = inside ? next : h[i];
      put(0, t * l.n + i, inside ? next : number(0));
    }
  for (int64_t i = 0; i < l.n; i++)
    put(1, i, h[i]);
}

static void linear_scan_grad(const cpu_call *c) {
  const lanes l = lanes_of(c);
  num *back = load(4, 0, l.n), *h0 = has_out(0) ? load(2, 0, l.n) : zeros(l.n);
  for (int64_t step = l.T - 1; step >= 0; step--)
    for (int64_t i = 0; i < l.n; i++) {
      const int64_t t = l.reverse ? l.T - 1 - step : step, n = steps_of(&l, 5, i), at = t * l.n + i;
      const int64_t before = l.reverse ? t + 1 : t - 1;
      const num sum = has_in(3) ? plus(get(3, at), back[i]) : back[i], g = t < n ? sum : number(0);
      const num further = times(get(0, at), g);
      back[i] = t < n ? further : back[i];
      put(1, at, g);
      if (!has_out(0))
        continue;
      const num y = before >= 0 && before < l.T ? get(1, before * l.n + i) : number(0);
      const bool is_first = l.reverse ? t == n - 1 : t == 0;
      const num da = times(g, is_first ? h0[i] : y);
      put(0, at, t < n ? da : number(0));
    }
  for (int64_t i = 0; i < l.n; i++)
    put(2, i, back[i]);
}

/* ---- layer norm ---- */

/* d = x - mean; 1/sqrt(variance + epsilon) */
static num rate_of(const cpu_call *c, const num *x, int64_t n, num *d) {
  num sum = number(0), squares = number(0);
  for (int64_t j = 0; j < n; j++)
    sum = plus(sum, x[j]);
  const num mean = over(sum, number((double)n));
  for (int64_t j = 0; j < n; j++) {
    d[j] = minus(x[j], mean);
    squares = plus(squares, times(d[j], d[j]));
  }
  const num variance = over(squares, number((double)n));
  return over(number(1), function(sqrt, plus(variance, number(c->node->attr.layer_norm.epsilon))));
}

/* (d - mean(d) - x̂⊙mean(d⊙x̂))·rate, d = dy⊙gain */
static num *norm_back(const num *dy, const num *gain, const num *hat, num rate, int64_t n) {
  num *d = zeros(n), sum = number(0), along = number(0);
  for (int64_t j = 0; j < n; j++) {
    d[j] = times(dy[j], gain[j]);
    sum = plus(sum, d[j]);
    along = plus(along, times(d[j], hat[j]));
  }
  const num mean = over(sum, number((double)n)), mean_along = over(along, number((double)n));
  for (int64_t j = 0; j < n; j++)
    d[j] = times(minus(minus(d[j], mean), times(hat[j], mean_along)), rate);
  return d;
}

/* Σ dy⊙x̂ and Σ dy over rows, in blocks: rows of hat and dy. */
static void norm_sums(const cpu_call *c, uint32_t first_in, uint32_t first_out, const cpu_operand *x, const num *hat,
                      const num *dy) {
  const unroll_layer_norm_attr *attr = &c->node->attr.layer_norm;
  const int64_t n = last(x), all = rows(x), per_index = x->rank > 1 ? all / x->size[0] : 1;
  const int64_t block = attr->block > 0 ? attr->block * per_index : all, blocks = all ? (all + block - 1) / block : 0;
  for (uint32_t k = 0; k < 2; k++) {
    if (!has_out(first_out + k))
      continue;
    num *sum = load(first_in + k, 0, n);
    for (int64_t i = 0; i < blocks; i++) {
      const int64_t begin = (attr->block_order == UNROLL_BLOCKS_FROM_FIRST ? i : blocks - 1 - i) * block;
      num *part = zeros(n);
      for (int64_t row = begin; row < all && row < begin + block; row++)
        for (int64_t j = 0; j < n; j++) {
          const int64_t at = row * n + j;
          part[j] = plus(part[j], k == 0 ? times(dy[at], hat[at]) : dy[at]);
        }
      for (int64_t j = 0; j < n; j++)
        sum[j] = attr->block > 0 ? plus(sum[j], part[j]) : part[j];
    }
    for (int64_t j = 0; j < n; j++)
      put(first_out + k, j, sum[j]);
  }
}

static void layer_norm(const cpu_call *c) {
  const num *gain = load(1, 0, last(cpu_in(c, 0)));
  const bool full = has_in(2) && count_of(cpu_in(c, 2)) == count_of(cpu_in(c, 0)) && cpu_in(c, 2)->rank > 1;
  FOR_EACH_ROW(c, n, row) {
    num *d = zeros(n);
    const num *x = load(0, row * n, n), rate = rate_of(c, x, n, d);
    for (int64_t j = 0; j < n; j++) {
      const num y = times(times(d[j], rate), gain[j]);
      put(0, row * n + j, has_in(2) ? plus(y, get(2, full ? row * n + j : j)) : y);
    }
  }
}

static void layer_norm_grad(const cpu_call *c) {
  const cpu_operand *x = cpu_in(c, 0);
  const int64_t n = last(x), all = count_of(x);
  const num *dy = load(2, 0, all), *gain = has_out(0) ? load(1, 0, n) : NULL;
  num *hat = zeros(all);
  for (int64_t row = 0; row < rows(x); row++) {
    const num rate = rate_of(c, load(0, row * n, n), n, hat + row * n);
    for (int64_t j = 0; j < n; j++)
      hat[row * n + j] = times(hat[row * n + j], rate);
    const num *dx = has_out(0) ? norm_back(dy + row * n, gain, hat + row * n, rate, n) : NULL;
    for (int64_t j = 0; dx && j < n; j++)
      put(0, row * n + j, dx[j]);
  }
  norm_sums(c, 3, 1, x, hat, dy);
}

/* ---- gates; with the norm of c, rows at a time ---- */

static void lstm(const cpu_call *c, bool norm) {
  const cpu_operand *state = cpu_in(c, 1);
  const int64_t H = last(state);
  const num *gain = norm ? load(2, 0, H) : NULL, *shift = norm ? load(3, 0, H) : NULL;
  for (int64_t row = 0; row < rows(state); row++) {
    const num *pre = load(0, row * 4 * H, 4 * H), *before = load(1, row * H, H);
    num *next = zeros(H), *out = zeros(H), *d = zeros(H), rate = number(1);
    for (int64_t j = 0; j < H; j++) {
      const num i = function(logistic, pre[j]), f = function(logistic, pre[H + j]), g = function(tanh, pre[2 * H + j]);
      out[j] = function(logistic, pre[3 * H + j]);
      next[j] = plus(times(f, before[j]), times(i, g));
      const num gates[] = {i, f, g, out[j]};
      for (int64_t k = 0; k < 4; k++)
        put(2, row * 4 * H + k * H + j, gates[k]);
      put(1, row * H + j, next[j]);
    }
    if (norm)
      rate = rate_of(c, next, H, d);
    for (int64_t j = 0; j < H; j++) {
      const num seen = norm ? plus(times(times(d[j], rate), gain[j]), shift[j]) : next[j];
      put(0, row * H + j, times(out[j], function(tanh, seen)));
    }
  }
}
static void lstm_gates(const cpu_call *c) { lstm(c, false); }
static void lstm_norm_gates(const cpu_call *c) { lstm(c, true); }

static void lstm_back(const cpu_call *c, bool norm) {
  const cpu_operand *state = cpu_in(c, 1);
  const int64_t H = last(state), all = count_of(state);
  const bool has_dh = has_in(2), has_dc = has_in(3);
  const num *gain = norm ? load(4, 0, H) : NULL, *shift = norm ? load(5, 0, H) : NULL;
  num *hat = zeros(all), *dn = zeros(all);
  for (int64_t row = 0; row < rows(state); row++) {
    const num *i = load(0, row * 4 * H, 4 * H), *f = i + H, *g = f + H, *o = g + H, *before = load(1, row * H, H);
    const num *dh = load(2, row * H, H);
    num *s = load(3, row * H, H), *c_now = zeros(H), *d_out = zeros(H), *hats = hat + row * H, *d = dn + row * H;
    num rate = number(1);
    for (int64_t j = 0; has_dh && j < H; j++)
      c_now[j] = plus(times(f[j], before[j]), times(i[j], g[j]));
    if (has_dh && norm)
      rate = rate_of(c, c_now, H, hats);
    for (int64_t j = 0; has_dh && j < H; j++) {
      if (norm)
        hats[j] = times(hats[j], rate);
      const num y = function(tanh, norm ? plus(times(hats[j], gain[j]), shift[j]) : c_now[j]);
      d[j] = times(times(dh[j], o[j]), one_minus(times(y, y)));
      d_out[j] = times(times(times(dh[j], y), o[j]), one_minus(o[j]));
    }
    const num *back = has_dh && norm ? norm_back(d, gain, hats, rate, H) : d;
    for (int64_t j = 0; j < H; j++) {
      s[j] = !has_dh ? s[j] : has_dc ? plus(s[j], back[j]) : back[j];
      put(0, row * 4 * H + j, times(times(times(s[j], g[j]), i[j]), one_minus(i[j])));
      put(0, row * 4 * H + H + j, times(times(times(s[j], before[j]), f[j]), one_minus(f[j])));
      put(0, row * 4 * H + 2 * H + j, times(times(s[j], i[j]), one_minus(times(g[j], g[j]))));
      put(0, row * 4 * H + 3 * H + j, d_out[j]);
      put(1, row * H + j, times(s[j], f[j]));
    }
  }
  if (norm && has_dh)
    norm_sums(c, 6, 2, state, hat, dn);
  for (uint32_t k = 0; norm && !has_dh && k < 2; k++) /* nothing flows into the norm */
    for (int64_t j = 0; j < H; j++)
      put(2 + k, j, has_in(6 + k) ? get(6 + k, j) : number(0));
  for (uint32_t k = 0; norm && k < 2; k++)
    (void)load(6 + k, 0, H);
}
static void lstm_gates_grad(const cpu_call *c) { lstm_back(c, false); }
static void lstm_norm_gates_grad(const cpu_call *c) { lstm_back(c, true); }

/* Of each unit j of each row, with H units: at = row·H + j; block k of a row of b blocks of `of`. */
#define FOR_EACH_UNIT(c, state, H, row, j)                                               \
  for (int64_t H = last(cpu_in(c, state)), row = 0; row < rows(cpu_in(c, state)); row++) \
    for (int64_t j = 0; j < H; j++)
#define AT(b, k) ((row * (b) + (k)) * H + j)

static num blend(num z, num n, num before) { return plus(times(one_minus(z), n), times(z, before)); }

static void gru_after_gates(const cpu_call *c) {
  FOR_EACH_UNIT(c, 2, H, row, j) {
    const num r = function(logistic, plus(get(0, AT(3, 0)), get(1, AT(3, 0))));
    const num z = function(logistic, plus(get(0, AT(3, 1)), get(1, AT(3, 1))));
    const num hn = get(1, AT(3, 2)), n = function(tanh, plus(get(0, AT(3, 2)), times(r, hn)));
    const num h = blend(z, n, get(2, AT(1, 0)));
    put(1, AT(4, 0), r);
    put(1, AT(4, 1), z);
    put(1, AT(4, 2), n);
    put(1, AT(4, 3), hn);
    put(0, AT(1, 0), h);
  }
}

static num slope(num d, num y) { return times(times(d, y), one_minus(y)); } /* of the logistic function */

static void gru_after_gates_grad(const cpu_call *c) {
  FOR_EACH_UNIT(c, 1, H, row, j) {
    const num r = get(0, AT(4, 0)), z = get(0, AT(4, 1)), n = get(0, AT(4, 2)), hn = get(0, AT(4, 3));
    const num before = get(1, AT(1, 0)), dh = get(2, AT(1, 0));
    const num s = times(times(dh, one_minus(z)), one_minus(times(n, n)));
    const num dr = slope(times(s, hn), r), dz = slope(times(dh, minus(before, n)), z), dhn = times(s, r);
    put(0, AT(3, 0), dr);
    put(0, AT(3, 1), dz);
    put(0, AT(3, 2), s);
    put(1, AT(3, 0), dr);
    put(1, AT(3, 1), dz);
    put(1, AT(3, 2), dhn);
    put(2, AT(1, 0), times(dh, z));
  }
}

static void gru_reset(const cpu_call *c) {
  FOR_EACH_UNIT(c, 1, H, row, j) {
    const num r = function(logistic, get(0, AT(2, 0))), z = function(logistic, get(0, AT(2, 1)));
    const num rh = times(r, get(1, AT(1, 0)));
    put(0, AT(2, 0), r);
    put(0, AT(2, 1), z);
    put(1, AT(1, 0), rh);
  }
}

static void gru_reset_grad(const cpu_call *c) {
  const bool has_drz = has_in(2), has_drh = has_in(3);
  FOR_EACH_UNIT(c, 1, H, row, j) {
    const num r = get(0, AT(2, 0)), z = get(0, AT(2, 1)), before = get(1, AT(1, 0));
    const num drh = has_drh ? get(3, AT(1, 0)) : number(0);
    num dr = has_drz ? get(2, AT(2, 0)) : number(0), dz = has_drz ? slope(get(2, AT(2, 1)), z) : number(0);
    if (has_drh)
      dr = has_drz ? plus(dr, times(drh, before)) : times(drh, before);
    dr = slope(dr, r);
    put(0, AT(2, 0), dr);
    put(0, AT(2, 1), dz);
    put(1, AT(1, 0), has_drh ? times(drh, r) : number(0));
  }
}

static void gru_update(const cpu_call *c) {
  FOR_EACH_UNIT(c, 2, H, row, j) {
    const num n = function(tanh, get(0, AT(1, 0))), z = get(1, AT(2, 1));
    (void)get(1, AT(2, 0)); /* an operand is read whole */
    const num h = blend(z, n, get(2, AT(1, 0)));
    put(1, AT(1, 0), n);
    put(0, AT(1, 0), h);
  }
}

static void gru_update_grad(const cpu_call *c) {
  FOR_EACH_UNIT(c, 1, H, row, j) {
    const num z = get(0, AT(2, 1)), n = get(1, AT(1, 0)), before = get(2, AT(1, 0)), dh = get(3, AT(1, 0));
    (void)get(0, AT(2, 0));
    const num dz = times(dh, minus(before, n)), dn = times(times(dh, one_minus(z)), one_minus(times(n, n)));
    put(0, AT(1, 0), dn);
    put(1, AT(2, 0), number(0));
    put(1, AT(2, 1), dz);
    put(2, AT(1, 0), times(dh, z));
  }
}

/* ---- random numbers, training ---- */

static void dropout(const cpu_call *c) {
  const cpu_operand *x = cpu_in(c, 0);
  const unroll_dropout_attr *attr = &c->node->attr.dropout;
  const bool whole = attr->time_axis == 0;
  const int64_t B = x->size[whole ? 1 : 0], n = cpu_count(x, whole ? 2 : 1, x->rank);
  const unroll_philox_key key = unroll_philox_site_key(c->at->seed, c->at->update, attr->site);
  for (int64_t at = 0; at < count_of(x); at++) {
    const uint64_t t = (uint64_t)(c->at->t0 + attr->t0 + (whole ? at / n / B : c->at->t));
    const uint32_t word = unroll_philox_word(key, t, (uint32_t)(c->at->row0 + at / n % B), (uint32_t)(at % n));
    put(0, at, times(get(0, at), number((double)unroll_uniform(word) >= attr->p ? 1 / (1 - attr->p) : 0)));
  }
}

static void random_numbers(const cpu_call *c) {
  const cpu_operand *y = cpu_out(c, 0);
  const unroll_random_attr *attr = &c->node->attr.random;
  const bool whole = attr->time_axis == 0, normal = attr->kind == UNROLL_RANDOM_NORMAL;
  const int64_t B = y->size[whole ? 1 : 0], n = cpu_count(y, whole ? 2 : 1, y->rank);
  const unroll_philox_key key = unroll_philox_site_key(c->at->seed, c->at->update, attr->site);
  for (int64_t at = 0; at < count_of(y); at++) {
    const uint64_t t = (uint64_t)(c->at->t0 + (whole ? at / n / B : c->at->t));
    const uint32_t row = (uint32_t)(c->at->row0 + at / n % B), unit = (uint32_t)(at % n);
    put(0, at,
        number(normal ? unroll_normal(key, t, row, unit)
                      : (double)unroll_uniform(unroll_philox_word(key, t, row, unit))));
  }
}

static void optimizer(const cpu_call *c) {
  const unroll_optimizer_attr *attr = &c->node->attr.optimizer;
  const num lr = get(2, 0), step = number((double)get_i32(3, 0)), scale = has_in(4) ? get(4, 0) : number(1);
  const num beta1 = number(attr->beta1), beta2 = number(attr->beta2), epsilon = number(attr->epsilon);
  const num rest1 = number(1 - attr->beta1), rest2 = number(1 - attr->beta2), decay = number(attr->weight_decay);
  const bool adam = attr->kind == UNROLL_ADAM || attr->kind == UNROLL_ADAMW, decays = attr->weight_decay != 0;
  const num correct1 = adam ? one_minus(power(beta1, step)) : number(1);
  const num correct2 = adam ? one_minus(power(beta2, step)) : number(1);
  const num lr_decay = decays && attr->kind == UNROLL_ADAMW ? times(lr, decay) : number(0);
  for (int64_t i = 0; i < count_of(cpu_in(c, 0)); i++) {
    num p = get(0, i), g = has_in(4) ? times(get(1, i), scale) : get(1, i);
    num s1 = has_in(5) ? get(5, i) : number(0), s2 = has_in(6) ? get(6, i) : number(0);
    if (decays && attr->kind == UNROLL_ADAMW)
      p = minus(p, times(lr_decay, p));
    else if (decays)
      g = plus(g, times(decay, p));
    if (adam) {
      s1 = plus(times(beta1, s1), times(rest1, g));
      s2 = plus(times(beta2, s2), times(times(rest2, g), g));
      const num root = function(sqrt, over(s2, correct2));
      p = minus(p, over(times(lr, over(s1, correct1)), plus(root, epsilon)));
    } else if (attr->kind == UNROLL_RMSPROP) {
      s1 = plus(times(beta2, s1), times(times(rest2, g), g));
      p = minus(p, over(times(lr, g), plus(function(sqrt, s1), epsilon)));
    } else {
      s1 = has_in(5) ? plus(times(beta1, s1), g) : g;
      p = minus(p, times(lr, s1));
    }
    put(0, i, p);
    put(1, i, s1);
    put(2, i, s2);
  }
}

/* ---- as the backend calls them ---- */
#define random random_numbers
static void run(const cpu_call *c, uint32_t real_bytes, void (*op)(const cpu_call *)) {
  counting_begin(c, real_bytes);
  op(c);
  counting_end();
}
#define OP(name)                                                    \
  void cpu_run_##name##_f32(const cpu_call *c) { run(c, 4, name); } \
  void cpu_run_##name##_f64(const cpu_call *c) { run(c, 8, name); }
CPU_REAL_OPS(OP)
