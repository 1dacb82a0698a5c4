/* SPDX-License-Identifier: Apache-2.0 */
/*
 * optimizer.cl: one update of a parameter; KIND numbers the rules as unroll/plugin.h does, which has their formulas.
 * One work-item owns BLOCKS·WIDTH neighbouring elements. 1 - beta^step is -expm1(step log(beta)), with log(beta) made
 * by the host in double: near 1 the difference of the two would keep three digits in f32.
 */
#include "vectors.cl"
#ifndef KIND
#define KIND 2
#endif
#ifndef BLOCKS
#define BLOCKS 4
#endif
#ifndef HAVE /* bit i: input i is there: 4 scale, 5 s1, 6 s2; and bit 8 + i: output i is needed */
#define HAVE 0xFFFFFFFFu
#endif
#define HAS(i) ((HAVE >> (i)) & 1u)

__kernel VECTORISED void optimizer(const __global real *param, long param_at, const __global real *grad, long grad_at,
                                   const __global real *lr, long lr_at, const __global int *step, long step_at,
                                   const __global real *scale, long scale_at, const __global real *s1, long s1_at,
                                   const __global real *s2, long s2_at, __global real *param_out, long param_out_at,
                                   __global real *s1_out, long s1_out_at, __global real *s2_out, long s2_out_at, long n,
                                   real beta1, real rest1, real log_beta1, real beta2, real rest2, real log_beta2,
                                   real epsilon, real decay) {
  const long first = (long)get_global_id(0) * (BLOCKS * WIDTH), last = min(first + BLOCKS * WIDTH, n);
  if (first >= n)
    return;
  const real rate = lr[lr_at];
#if HAS(4)
  const vec factor = (vec)(scale[scale_at]);
#else
  const vec factor = (vec)(1);
#endif
#if KIND >= 2
  const real count = (real)step[step_at];
  const vec rate1 = (vec)(rate / -expm1(count * log_beta1)), correct2 = (vec)(1 / -expm1(count * log_beta2));
#endif
  for (long i = first; i < last; i += WIDTH) {
    const long left = last - i;
    vec p = load(param + param_at + i, left), g = load(grad + grad_at + i, left) * factor;
#if KIND == 3
    p -= (vec)(rate * decay) * p;
#else
    g = fma((vec)(decay), p, g);
#endif
#if KIND == 0 && HAS(5)
    const vec m = fma((vec)(beta1), load(s1 + s1_at + i, left), g);
    p -= (vec)(rate)*m;
#elif KIND == 0
    p -= (vec)(rate)*g;
#elif KIND == 1
    const vec m = (vec)(beta2)*load(s1 + s1_at + i, left) + (vec)(rest2)*g * g;
    p -= (vec)(rate)*g / (sqrt(m) + (vec)(epsilon));
#else
    const vec m = (vec)(beta1)*load(s1 + s1_at + i, left) + (vec)(rest1)*g;
    const vec v = (vec)(beta2)*load(s2 + s2_at + i, left) + (vec)(rest2)*g * g;
    p -= rate1 * m / (sqrt(v * correct2) + (vec)(epsilon));
#if HAS(10)
    store(v, s2_out + s2_out_at + i, left);
#endif
#endif
#if HAS(9)
    store(m, s1_out + s1_out_at + i, left);
#endif
#if HAS(8)
    store(p, param_out + param_out_at + i, left);
#endif
  }
}
