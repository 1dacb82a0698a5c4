/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_pack.cl: weights into the panels that layer_tile.cl reads. A block of units has GATES·UNITS columns of vectors,
 * gate by gate, VECS of them a pass: out [block][pass][k][VECS][WIDTH]. Gates stand in the order of ORDER, four bits
 * each, the first one lowest. Columns past the last unit are 0. PANEL is what values are kept as (see vectors.cl).
 *
 * The weight of gate g, unit u and k is at g·gate_step + u·unit_step + k·k_step.
 */
#include "vectors.cl"
#ifndef GATES
#define GATES 4
#endif
#ifndef UNITS
#define UNITS 1
#endif
#ifndef VECS
#define VECS 2
#endif
#ifndef ORDER
#define ORDER 0x3210
#endif
#ifndef PACK_K /* values of k that an item packs */
#define PACK_K 16
#endif

__kernel VECTORISED void pack(const __global real *weights, long weights_at, __global panel *out, long out_at, long H,
                              long K, long gate_step, long unit_step, long k_step, long items) {
  const long id = (long)get_global_id(0);
  if (id >= items)
    return;
  const long parts = (K + PACK_K - 1) / PACK_K, column = id / parts, k0 = (id - column * parts) * PACK_K;
  const long k1 = min(k0 + PACK_K, K), block = column / (GATES * UNITS);
  const int v = (int)(column - block * GATES * UNITS), gate = ORDER >> (4 * (v / UNITS)) & 15;
  const long unit = (block * UNITS + v % UNITS) * WIDTH;
  const int lanes = (int)clamp(H - unit, 0L, (long)WIDTH);
  weights += weights_at + gate * gate_step + unit * unit_step;
  out += out_at + block * GATES * UNITS * WIDTH * K + (long)(v / VECS) * VECS * WIDTH * K + v % VECS * WIDTH;
  for (long k = k0; k < k1; k++) {
    vec line;
    for (int i = 0; i < WIDTH; i++)
      ((real *)&line)[i] = i < lanes ? weights[i * unit_step + k * k_step] : 0;
    PANEL_VSTORE(line, 0, out + k * VECS * WIDTH);
  }
}
