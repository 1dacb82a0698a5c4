/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the whole Lyapunov spectrum of an LSTM takes, on the host, in double: all 2H exponents, as many steps as said
 * and a decomposition every EVERY. Weights are uniform in ±1/sqrt(H), the forget gate's bias 1. Prints one JSON object.
 *
 *     lyapunov_lstm [HIDDEN STEPS EVERY]     256 1000 10
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unroll/diagnose.h>

static double seconds(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static unroll_status measure(int64_t H, int64_t steps, int64_t every, double *room, unroll_error *err) {
  double *const W_h = room, *const b = W_h + 4 * H * H, *const state = b + 4 * H, *const exponents = state + 2 * H;
  uint64_t word = 1;
  for (int64_t i = 0; i < 4 * H * H + 4 * H + 2 * H; i++) {
    word = word * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    room[i] = (2 * ((double)(word >> 11) * 0x1p-53) - 1) / sqrt((double)H);
  }
  for (int64_t i = H; i < 2 * H; i++)
    b[i] = 1;
  const unroll_cell_weights cell = {
      .struct_size = sizeof cell, .cell = UNROLL_CELL_LSTM, .hidden = H, .W_h = W_h, .b = b};
  const unroll_lyapunov_options o = {
      .struct_size = sizeof o, .transient = 100, .steps = steps, .every = every, .count = 2 * H};
  unroll_lyapunov_info info = {.struct_size = sizeof info};
  unroll_map *map = NULL;
  unroll_status st = unroll_map_of_cell(&cell, NULL, &map, err);
  const double begin = seconds(), processor = (double)clock();
  if (st == UNROLL_OK)
    st = unroll_lyapunov(map, state, &o, exponents, NULL, &info, err);
  if (st == UNROLL_OK)
    printf("{\"hidden\":%lld,\"steps\":%lld,\"every\":%lld,\"seconds\":%.2f,\"processor_seconds\":%.2f,"
           "\"largest\":%.5f,\"condition\":%.1e}\n",
           (long long)H, (long long)steps, (long long)every, seconds() - begin,
           ((double)clock() - processor) / CLOCKS_PER_SEC, exponents[0], info.condition);
  unroll_map_destroy(map);
  return st;
}

int main(int argc, char **argv) {
  long long given[3] = {256, 1000, 10};
  unroll_error err = UNROLL_ERROR_INIT;
  for (int i = 1; i < argc && i < 4; i++)
    given[i - 1] = strtoll(argv[i], NULL, 10);
  if (argc > 4 || given[0] < 1 || given[0] > 4096 || given[1] < 1 || given[2] < 1) {
    fprintf(stderr, "usage: lyapunov_lstm [HIDDEN STEPS EVERY]     HIDDEN up to 4096\n");
    return 2;
  }
  const int64_t H = given[0];
  double *room = malloc((size_t)(4 * H * H + 8 * H) * sizeof *room);
  const unroll_status st = room ? measure(H, given[1], given[2], room, &err) : UNROLL_E_MEMORY;
  free(room);
  if (st != UNROLL_OK)
    fprintf(stderr, "lyapunov_lstm: %s\n", room ? err.message : "out of memory");
  return st == UNROLL_OK ? 0 : 1;
}
