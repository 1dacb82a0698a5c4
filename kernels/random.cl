/* SPDX-License-Identifier: Apache-2.0 */
/*
 * random.cl: random numbers for y [T][B][R], or one step [B][R]. Four neighbouring units share a block of the generator
 * where they are uniform, two where they are normal; one work-item owns LANES blocks of one (t, b).
 *
 * A normal number of f32 is made of f32 alone, on every device the same way, and is within 3 ulp of the exact one: the
 * error of each step that would cost more than a fraction of an ulp is carried along in a second number. f64 relies on
 * the device's log, sin and cos.
 */
#include "random_words.cl"
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#endif
#pragma OPENCL FP_CONTRACT OFF
#ifndef real
#define real float
#define DOUBLES 0
#endif

#if DOUBLES

/* sqrt(-2 ln((w + 1) 2^-32)) */
static double length_of(uint w) { return sqrt(-2.0 * log(((double)w + 1.0) * 0x1p-32)); }

/* cos(rest 2 pi 2^-32), or the sine, for |rest| <= 2^29 */
static double side_of(int rest, bool is_sine) {
  const double angle = (double)rest * (6.283185307179586 * 0x1p-32);
  return is_sine ? sin(angle) : cos(angle);
}

#else

/*
 * u = m 2^e with m of 0.7..1.4; ln u = e ln 2 + ln(1 + f) for f = m - 1, which is an integer over 2^32 or 2^33. The
 * polynomial is minimax in the relative error of f^3 P(f).
 */
static float length_of(uint w) {
  const ulong x = (ulong)w + 1;
  const int top = 63 - (int)clz(x);
  const ulong scaled = x << (32 - top); /* 2^32..2^33 */
  const bool halved = scaled >= 6074001000;
  const long f = (long)scaled - ((long)1 << (halved ? 33 : 32));
  const float unit = halved ? 0x1p-33f : 0x1p-32f, e = (float)(top - 32 + halved);
  const float high = (float)f * unit, low = (float)(f - (long)(float)f) * unit;
  float p = -0x1.41eep-4f;
  p = fma(p, high, 0x1.07d0eep-3f);
  p = fma(p, high, -0x1.0ce07cp-3f);
  p = fma(p, high, 0x1.226e4ap-3f);
  p = fma(p, high, -0x1.54788ap-3f);
  p = fma(p, high, 0x1.99a596p-3f);
  p = fma(p, high, -0x1.00022p-2f);
  p = fma(p, high, 0x1.55554ap-2f);
  /* ln u = a + high + quadratic + rest: two sums that keep what they round off */
  const float square = high * high, square_low = fma(high, high, -square), quadratic = -0.5f * square;
  const float a = e * 0x1.62e4p-1f,
              rest = fma(e, 0x1.7f7d1cp-20f, fma(square * high, p, fma(-0.5f, square_low, fma(-low, high, low))));
  const float sum = a + high, b = sum - a, lost = (a - (sum - b)) + (high - b);
  const float sum2 = sum + quadratic, b2 = sum2 - sum, lost2 = (sum - (sum2 - b2)) + (quadratic - b2);
  const float s = -2 * (sum2 + (lost + lost2 + rest));
  const float root = sqrt(s); /* a device's may be off by 3 ulp: once more by Newton's rule */
  return s > 0 ? fma(fma(-root, root, s), 0.5f / root, root) : 0;
}

/* Polynomials that are minimax in the relative error of the sine, the absolute one of the cosine. */
static float side_of(int rest, bool is_sine) {
  const float r = (float)rest, c = 0x1.921fb6p-30f, c_low = -0x1.777a5cp-55f;
  const float angle = r * c, low = fma(r, c, -angle) + (r * c_low + (float)(rest - (int)r) * c), z = angle * angle;
  if (is_sine)
    return angle + fma(z * angle, fma(fma(-0x1.994e88p-13f, z, 0x1.11076p-7f), z, -0x1.555546p-3f), low);
  const float p = fma(fma(0x1.9a0232p-16f, z, -0x1.6c0c8cp-10f), z, 0x1.55554ap-5f);
  return 1 - (0.5f * z - fma(z * z, p, -angle * low));
}

#endif

/* unroll_normal_of of unroll/philox.h */
static real normal_of(uint w0, uint w1) {
  const uint quarters = (w1 + 0x20000000u) >> 30;
  const real side = side_of(as_int(w1 - (quarters << 30)), quarters & 1u), length = length_of(w0);
  return quarters == 1 || quarters == 2 ? -length * side : length * side;
}

__kernel void uniform_numbers(__global real *y, long y_at, long B, long R, uint key0, uint key1, long t_first,
                              long row_first, long items) {
  const long id = (long)get_global_id(0), strips = (R + LANES * 4 - 1) / (LANES * 4);
  if (id >= items)
    return;
  const long row = id / strips, first = (id - row * strips) * (LANES * 4), n = min((long)LANES * 4, R - first);
  const long t = row / B, b = row - t * B;
  words word[4];
  random_blocks((uint)(first >> 2), (uint)(row_first + b), (ulong)(t_first + t), key0, key1, word);
  y += y_at + row * R + first;
  if (n == LANES * 4) {
    uint16 all[SIXTEENS];
    in_order(word, all);
#pragma unroll
    for (int i = 0; i < SIXTEENS; i++) /* unroll_uniform */
      vstore16(CAT(CAT(convert_, real), 16)(convert_float16(as_int16(all[i] >> 8)) * 0x1p-24f), i, y);
    return;
  }
#pragma unroll /* and no loop to n: an index that is not known would need the words in memory */
  for (int j = 0; j < LANES * 4; j++)
    if (j < n)
      y[j] = (real)unroll_uniform(((uint *)&word[j & 3])[j >> 2]);
}

__kernel void normal_numbers(__global real *y, long y_at, long B, long R, uint key0, uint key1, long t_first,
                             long row_first, long items) {
  const long id = (long)get_global_id(0), strips = (R + LANES * 2 - 1) / (LANES * 2);
  if (id >= items)
    return;
  const long row = id / strips, first = (id - row * strips) * (LANES * 2), n = min((long)LANES * 2, R - first);
  const long t = row / B, b = row - t * B;
  words word[4];
  random_blocks((uint)(first >> 1), (uint)(row_first + b), (ulong)(t_first + t), key0, key1, word);
  y += y_at + row * R + first;
#pragma unroll
  for (int j = 0; j < LANES * 2; j++)
    if (j < n)
      y[j] = normal_of(((uint *)&word[(j & 1) * 2])[j >> 1], ((uint *)&word[(j & 1) * 2 + 1])[j >> 1]);
}
