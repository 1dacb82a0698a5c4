/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chaos.c: Lyapunov exponents of random networks h' = tanh(g·J·h), as in Sompolinsky, Crisanti & Sommers 1988: what is
 * near comes together below g = 1 and apart above it. J is 100 by 100, of normal numbers of variance 1/100 that every
 * language can make (SplitMix64, Box-Muller), so that others can check the figures.
 *
 *     chaos [STEPS]     counted, after a third as many; 60000
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unroll/diagnose.h>

enum { N = 100, SHOWN = 3, EVERY = 5 };

static uint64_t splitmix(uint64_t *s) {
  uint64_t z = *s += UINT64_C(0x9E3779B97F4A7C15);
  z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
  return z ^ z >> 31;
}

static void normal_pair(uint64_t *s, double *a, double *b) {
  const double turn = 2 * acos(-1);
  const double u = ((double)(splitmix(s) >> 11) + 0.5) * 0x1p-53, v = ((double)(splitmix(s) >> 11) + 0.5) * 0x1p-53;
  const double r = sqrt(-2 * log(u));
  *a = r * cos(turn * v);
  *b = r * sin(turn * v);
}

static unroll_status row(const double *J, const double *first, double g, int64_t steps, unroll_error *err) {
  static double W[N * N];
  static const double b[N];
  double h[N], exponents[N], errors[N];
  for (int i = 0; i < N * N; i++)
    W[i] = g * J[i];
  for (int i = 0; i < N; i++)
    h[i] = first[i];
  const unroll_rnn_options rnn = {.struct_size = sizeof rnn, .cell = UNROLL_CELL_RNN, .layers = 1, .hidden = N};
  const unroll_network_weight weights[] = {{"W_h.0.0", W, N * N}, {"b.0.0", b, N}};
  const unroll_network net = {.struct_size = sizeof net, .options = &rnn, .n_weights = 2, .weights = weights};
  const unroll_lyapunov_options o = {.struct_size = sizeof o, .transient = steps / 3, .steps = steps, .every = EVERY};
  unroll_lyapunov_info info = {.struct_size = sizeof info};
  unroll_map *map = NULL;
  unroll_status st = unroll_map_of_layer(&net, 0, 0, NULL, 0, NULL, NULL, &map, err);
  if (st == UNROLL_OK && (st = unroll_lyapunov(map, h, &o, exponents, errors, &info, err)) == UNROLL_OK) {
    int positive = 0;
    while (positive < N && exponents[positive] > 3 * errors[positive])
      positive++;
    printf("| %g |", g);
    for (int i = 0; i < SHOWN; i++)
      printf(" %.6f |", exponents[i]);
    printf(" %.0e | %d | %.3f | %.2f |\n", errors[0], positive, info.entropy, info.dimension);
    fflush(stdout);
  }
  unroll_map_destroy(map);
  return st;
}

int main(int argc, char **argv) {
  static double J[N * N], first[N];
  const double gains[] = {0.5, 1, 1.5, 2, 3};
  const long long steps = argc > 1 ? strtoll(argv[1], NULL, 10) : 60000;
  uint64_t s = 20240607;
  unroll_error err = UNROLL_ERROR_INIT;
  if (argc > 2 || steps < 100) {
    fprintf(stderr, "usage: chaos [STEPS]     100 or more\n");
    return 2;
  }
  for (int i = 0; i < N * N; i += 2)
    normal_pair(&s, &J[i], &J[i + 1]);
  for (int i = 0; i < N; i += 2)
    normal_pair(&s, &first[i], &first[i + 1]);
  for (int i = 0; i < N * N; i++)
    J[i] /= 10;
  for (int i = 0; i < N; i++)
    first[i] /= 2;
  printf("Nats a step; ±: the standard error of λ1; entropy: the sum of the positive ones.\n\n"
         "| g | λ1 | λ2 | λ3 | ± | positive | entropy | Kaplan-Yorke dimension |\n"
         "| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (size_t i = 0; i < sizeof gains / sizeof *gains; i++)
    if (row(J, first, gains[i], steps, &err) != UNROLL_OK) {
      fprintf(stderr, "chaos: %s\n", err.message);
      return 1;
    }
  return 0;
}
