/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lstm_norm_gates.cl: the pointwise half of an LSTM step whose cell state is normalised where h sees it, and the gradient
 * of that. Shapes as in lstm_gates.cl; LANES work-items own a row, in the gradient `each` rows, as in layer_norm.cl.
 *
 *   c = f c_prev + i g, h = o tanh(gain chat + shift), chat = (c - mean)/sqrt(variance + epsilon)
 */
#include "activations.cl"
#include "norm_row.cl"
#ifndef HAVE /* of the outputs: bits 0 to 2 are h, c, gates; of the gradient dpre, dc_prev, dgain, dshift, then dh, dc */
#define HAVE 63
#endif
#define HAS(i) ((HAVE >> (i)) & 1)

__kernel VECTORISED void lstm_norm_gates(const __global real *pre, long pre_at, const __global real *c_prev,
                                         long c_prev_at, const __global real *gain, long gain_at,
                                         const __global real *shift, long shift_at, __global real *h, long h_at,
                                         __global real *c, long c_at, __global real *gates, long gates_at, long H,
                                         real epsilon, long items) {
#if LANES > 1
  __local real shared[LANES];
#else
  __local real *shared = 0;
#endif
  const long row = (long)get_global_id(0) / LANES;
  if (row * LANES >= items)
    return;
  pre += pre_at + row * 4 * H;
  c_prev += c_prev_at + row * H;
  c += c_at + row * H;
#if HAS(2)
  gates += gates_at + row * 4 * H;
#endif
  for (long j = LANE * WIDTH; j < H; j += LANES * WIDTH) {
    const long n = H - j;
    const vec i = sigmoid(load(pre + j, n)), f = sigmoid(load(pre + H + j, n));
    const vec g = hyperbolic_tangent(load(pre + 2 * H + j, n));
    store(fma(f, load(c_prev + j, n), i * g), c + j, n);
#if HAS(2)
    store(i, gates + j, n);
    store(f, gates + H + j, n);
    store(g, gates + 2 * H + j, n);
    store(sigmoid(load(pre + 3 * H + j, n)), gates + 3 * H + j, n);
#endif
  }
  ROW_WRITTEN;
#if HAS(0)
  h += h_at + row * H;
  const real mean = mean_of(c, H, shared), rate = rate_of(c, H, mean, epsilon, shared);
  for (long j = LANE * WIDTH; j < H; j += LANES * WIDTH) {
    const long n = H - j;
    const vec chat = (load(c + j, n) - (vec)(mean)) * (vec)(rate);
#if HAS(2)
    const vec o = load(gates + 3 * H + j, n);
#else
    const vec o = sigmoid(load(pre + 3 * H + j, n));
#endif
    store(o * hyperbolic_tangent(fma(chat, load(gain + gain_at + j, n), load(shift + shift_at + j, n))), h + j, n);
  }
#endif
}

/* kept: two rows for each part, of c and of what flows into the norm. */
__kernel VECTORISED void lstm_norm_gates_grad(const __global real *gates, long gates_at, const __global real *c_prev,
                                              long c_prev_at, const __global real *dh, long dh_at,
                                              const __global real *dc, long dc_at, const __global real *gain,
                                              long gain_at, const __global real *shift, long shift_at,
                                              __global real *dpre, long dpre_at, __global real *dc_prev,
                                              long dc_prev_at, __global real *dgain, long dgain_at,
                                              __global real *dshift, long dshift_at, __global real *kept, long kept_at,
                                              long H, long rows, long each, real epsilon, long items) {
#if LANES > 1
  __local real shared[LANES];
#else
  __local real *shared = 0;
#endif
  const long part = (long)get_global_id(0) / LANES;
  if (part * LANES >= items)
    return;
  const long first = part * each, last = min(first + each, rows);
  __global real *c = kept + kept_at + part * 2 * H, *back = c + H;
  gain += gain_at;
  shift += shift_at;
#if HAS(2)
  dgain += dgain_at + part * H;
#endif
#if HAS(3)
  dshift += dshift_at + part * H;
#endif
  for (long row = first; row < last; row++) {
    const __global real *of = gates + gates_at + row * 4 * H, *before = c_prev + c_prev_at + row * H;
    for (long j = LANE * WIDTH; j < H; j += LANES * WIDTH) {
      const long n = H - j;
      store(fma(load(of + H + j, n), load(before + j, n), load(of + j, n) * load(of + 2 * H + j, n)), c + j, n);
    }
    ROW_WRITTEN;
    const real mean = mean_of(c, H, shared), rate = rate_of(c, H, mean, epsilon, shared);
    vec sum = (vec)(0), along = (vec)(0);
    for (long j = LANE * WIDTH; j < H; j += LANES * WIDTH) {
      const long n = H - j;
      const vec o = load(of + 3 * H + j, n), scale = load(gain + j, n);
      const vec chat = (load(c + j, n) - (vec)(mean)) * (vec)(rate);
      const vec y = hyperbolic_tangent(fma(chat, scale, load(shift + j, n)));
#if HAS(4)
      const vec d_h = load(dh + dh_at + row * H + j, n);
#else
      const vec d_h = (vec)(0);
#endif
      const vec d = d_h * o * fma(-y, y, (vec)(1)); /* 0 past the row's end, where gates are 0 */
#if HAS(0)
      store(d_h * y * o * ((vec)(1) - o), dpre + dpre_at + row * 4 * H + 3 * H + j, n);
#endif
#if HAS(2)
      store(row == first ? d * chat : fma(d, chat, load(dgain + j, n)), dgain + j, n);
#endif
#if HAS(3)
      store(row == first ? d : d + load(dshift + j, n), dshift + j, n);
#endif
      store(d * scale, back + j, n);
      sum = fma(d, scale, sum);
      along = fma(d * scale, chat, along);
    }
#if HAS(0) || HAS(1)
    const vec even = (vec)(all_lanes(lanes_of(sum), shared) / H);
    const vec slope = (vec)(all_lanes(lanes_of(along), shared) / H);
    for (long j = LANE * WIDTH; j < H; j += LANES * WIDTH) {
      const long n = H - j;
      const vec i = load(of + j, n), f = load(of + H + j, n), g = load(of + 2 * H + j, n);
      const vec chat = (load(c + j, n) - (vec)(mean)) * (vec)(rate);
      vec s = (vec)(rate)*fma(-chat, slope, load(back + j, n) - even);
#if HAS(5)
      s += load(dc + dc_at + row * H + j, n);
#endif
#if HAS(0)
      __global real *to = dpre + dpre_at + row * 4 * H + j;
      store(s * g * i * ((vec)(1) - i), to, n);
      store(s * load(before + j, n) * f * ((vec)(1) - f), to + H, n);
      store(s * i * fma(-g, g, (vec)(1)), to + 2 * H, n);
#endif
#if HAS(1)
      store(s * f, dc_prev + dc_prev_at + row * H + j, n);
#endif
    }
#endif
    ROW_WRITTEN;
  }
}
