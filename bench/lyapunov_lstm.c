/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the Lyapunov spectrum of an LSTM takes, on the cpu, in double: all 2H exponents or COUNT, as many steps as said
 * and a decomposition every EVERY. Weights are uniform in ±1/sqrt(H), the forget gate's bias 1. Prints one JSON object.
 *
 *     lyapunov_lstm [HIDDEN STEPS EVERY COUNT]     256 1000 10 512
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

static unroll_status measure(int64_t H, int64_t steps, int64_t every, int64_t count, double *room, unroll_error *err) {
  double *const W_h = room, *const b = W_h + 4 * H * H, *const state = b + 4 * H, *const exponents = state + 2 * H;
  uint64_t word = 1;
  for (int64_t i = 0; i < 4 * H * H + 4 * H + 2 * H; i++) {
    word = word * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    room[i] = (2 * ((double)(word >> 11) * 0x1p-53) - 1) / sqrt((double)H);
  }
  for (int64_t i = H; i < 2 * H; i++)
    b[i] = 1;
  const unroll_rnn_options rnn = {.struct_size = sizeof rnn, .cell = UNROLL_CELL_LSTM, .layers = 1, .hidden = H};
  const unroll_network_weight weights[] = {{"W_h.0.0", W_h, (uint64_t)(4 * H * H)}, {"b.0.0", b, (uint64_t)(4 * H)}};
  const unroll_network net = {.struct_size = sizeof net, .options = &rnn, .n_weights = 2, .weights = weights};
  const unroll_lyapunov_options o = {
      .struct_size = sizeof o, .transient = 100, .steps = steps, .every = every, .count = count};
  unroll_lyapunov_info info = {.struct_size = sizeof info};
  unroll_map *map = NULL;
  unroll_status st = unroll_map_of_layer(&net, 0, 0, NULL, 0, NULL, NULL, &map, err);
  const double begin = seconds(), processor = (double)clock();
  if (st == UNROLL_OK)
    st = unroll_lyapunov(map, state, &o, exponents, NULL, &info, err);
  if (st == UNROLL_OK)
    printf("{\"hidden\":%lld,\"steps\":%lld,\"every\":%lld,\"count\":%lld,\"seconds\":%.2f,\"processor_seconds\":%.2f,"
           "\"largest\":%.5f,\"condition\":%.1e}\n",
           (long long)H, (long long)steps, (long long)every, (long long)count, seconds() - begin,
           ((double)clock() - processor) / CLOCKS_PER_SEC, exponents[0], info.condition);
  unroll_map_destroy(map);
  return st;
}

int main(int argc, char **argv) {
  long long given[4] = {256, 1000, 10, 0};
  unroll_error err = UNROLL_ERROR_INIT;
  for (int i = 1; i < argc && i < 5; i++)
    given[i - 1] = strtoll(argv[i], NULL, 10);
  if (argc > 5 || given[0] < 1 || given[0] > 4096 || given[1] < 1 || given[2] < 1 || given[3] < 0 ||
      given[3] > 2 * given[0]) {
    fprintf(stderr, "usage: lyapunov_lstm [HIDDEN STEPS EVERY COUNT]     HIDDEN up to 4096, COUNT to twice as many\n");
    return 2;
  }
  const int64_t H = given[0];
  double *room = malloc((size_t)(4 * H * H + 8 * H) * sizeof *room);
  const unroll_status st =
      room ? measure(H, given[1], given[2], given[3] ? given[3] : 2 * H, room, &err) : UNROLL_E_MEMORY;
  free(room);
  if (st != UNROLL_OK)
    fprintf(stderr, "lyapunov_lstm: %s\n", room ? err.message : "out of memory");
  return st == UNROLL_OK ? 0 : 1;
}
