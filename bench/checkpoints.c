/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a long sequence costs in memory: an LSTM of 256 units, T 1000, B 16, forward and gradient, with all steps kept,
 * and within a tenth of the bytes of that by checkpoints, in turns in the same run; and truncated backpropagation in
 * windows of 100 steps beside whole sequences of 1000, 2000 and 4000. Prints one JSON object per device.
 *
 *     checkpoints [--text] [SECONDS] DEVICE...     of each device, 3 unless said
 *
 * Bytes are those that are planned for a run, with every tensor that the caller sees; of windows also what the process
 * has grown by between the sequence's first thousand steps and its last.
 */
#include "rig.h"
#include <inttypes.h>
#include <unistd.h>

enum { T = 1000, B = 16, H = 256, WINDOW = 100, PART = 10, MIN_TURNS = 3, N_LENGTHS = 3, N_TABLE = 5 };
static const int64_t lengths[N_LENGTHS] = {1000, 2000, 4000};

/* Forward steps of 1000 with so many states kept, segments of one step: Gruslys et al. 2016 count them. */
static const int64_t table_states[N_TABLE] = {2, 5, 10, 20, 50};

typedef struct found {
  unroll_checkpoint_plan_info plan;
  double all_ms, ms;
  uint64_t all_bytes, bytes; /* of a run in all */
  bool same_bits;
  uint64_t whole[N_LENGTHS], window;
  int64_t grown, steps[N_TABLE];
} found;

static unroll_rnn_options layer(const unroll_checkpoint_policy *checkpoint) {
  return (unroll_rnn_options){.struct_size = sizeof(unroll_rnn_options),
                              .cell = UNROLL_CELL_LSTM,
                              .layers = 1,
                              .hidden = H,
                              .checkpoint = checkpoint};
}

static unroll_status whole_sequence(side *s, int64_t steps, const unroll_checkpoint_policy *checkpoint,
                                    unroll_error *err) {
  const unroll_status status = unroll_graph_create(NULL, &s->graph, err);
  if (status != UNROLL_OK)
    return status;
  const unroll_tensor x = unroll_input(s->graph, "x", UNROLL_F32, 3, (int64_t[]){steps, B, H});
  const unroll_rnn_options o = layer(checkpoint);
  side_gradients(s, x, unroll_rnn(x, "", &o, NULL, NULL));
  return UNROLL_OK;
}

/* ---- checkpoints ---- */
static unroll_status plan(found *f, unroll_checkpoint_policy *p, unroll_error *err) {
  const unroll_rnn_options o = layer(NULL);
  unroll_checkpoint_sizes sizes = {.struct_size = sizeof sizes};
  f->plan.struct_size = sizeof f->plan;
  *p = (unroll_checkpoint_policy){.struct_size = sizeof *p, .kind = UNROLL_CHECKPOINT_ALL};
  unroll_status status = unroll_rnn_checkpoint_sizes(&o, UNROLL_F32, T, B, 0, &sizes, err);
  if (status == UNROLL_OK)
    status = unroll_checkpoint_plan(p, &sizes, &f->plan, err);
  p->kind = UNROLL_CHECKPOINT_BYTES;
  p->bytes = f->plan.bytes_all / PART;
  if (status == UNROLL_OK)
    status = unroll_checkpoint_plan(p, &sizes, &f->plan, err);
  /* A step of so many bytes leaves a segment no second one, and the rest of the budget is states of one byte. */
  const uint64_t step = UINT64_C(1) << 40;
  sizes = (unroll_checkpoint_sizes){
      .struct_size = sizeof sizes, .steps = T, .block = 1, .state_bytes = 1, .step_bytes = step};
  for (int i = 0; i < N_TABLE && status == UNROLL_OK; i++) {
    const unroll_checkpoint_policy of_states = {.struct_size = sizeof of_states,
                                                .kind = UNROLL_CHECKPOINT_BYTES,
                                                .bytes = step + 1 + (uint64_t)table_states[i]};
    unroll_checkpoint_plan_info info = {.struct_size = sizeof info};
    status = unroll_checkpoint_plan(&of_states, &sizes, &info, err);
    f->steps[i] = info.forward_steps;
  }
  return status;
}

static unroll_status compare(side *all, side *few, bool *same, unroll_error *err) {
  const size_t n = sizeof(float) * 4 * H * H;
  unsigned char *a = malloc(n), *b = malloc(n);
  unroll_status status = a && b ? UNROLL_OK : UNROLL_E_MEMORY;
  if (status == UNROLL_OK)
    status = unroll_binding_read(all->binding, "d.W_h.0.0", a, n, err);
  if (status == UNROLL_OK)
    status = unroll_binding_read(few->binding, "d.W_h.0.0", b, n, err);
  *same = status == UNROLL_OK && memcmp(a, b, n) == 0;
  free(a);
  free(b);
  return status;
}

static unroll_status measure_checkpoints(found *f, unroll_device *device, double seconds, unroll_error *err) {
  side all = {.graph = NULL}, few = {.graph = NULL};
  unroll_checkpoint_policy policy;
  unroll_status status = plan(f, &policy, err);
  if (status == UNROLL_OK)
    status = whole_sequence(&all, T, NULL, err);
  if (status == UNROLL_OK)
    status = side_bind(&all, device, UNROLL_CELL_LSTM, err);
  if (status == UNROLL_OK)
    status = whole_sequence(&few, T, &policy, err);
  if (status == UNROLL_OK)
    status = side_bind(&few, device, UNROLL_CELL_LSTM, err);
  const double begin = now();
  for (uint64_t turn = 0; status == UNROLL_OK && (turn <= MIN_TURNS || now() - begin < seconds); turn++) {
    status = side_time(&all, turn, err);
    if (status == UNROLL_OK)
      status = side_time(&few, turn, err);
  }
  if (status == UNROLL_OK)
    status = compare(&all, &few, &f->same_bits, err);
  if (status == UNROLL_OK) {
    f->all_ms = all.best * 1e3;
    f->ms = few.best * 1e3;
    f->all_bytes = side_bytes(&all);
    f->bytes = side_bytes(&few);
  }
  side_close(&few);
  side_close(&all);
  return status;
}

/* ---- windows ---- */
static int64_t resident_bytes(void) {
  char line[256], *end = line; /* the size, then what of it is resident, in pages */
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file)
    return 0;
  const bool read = fgets(line, sizeof line, file) != NULL;
  (void)fclose(file);
  if (!read || strtol(line, &end, 10) <= 0)
    return 0;
  return (int64_t)strtol(end, NULL, 10) * sysconf(_SC_PAGESIZE);
}

/* A window whose state goes on from run to run. */
static unroll_status window(side *s, unroll_error *err) {
  const unroll_status status = unroll_graph_create(NULL, &s->graph, err);
  if (status != UNROLL_OK)
    return status;
  const int64_t shape[] = {B, H};
  unroll_tensor h0 = unroll_state(s->graph, "h", UNROLL_F32, 2, shape),
                c0 = unroll_state(s->graph, "c", UNROLL_F32, 2, shape), h, c;
  const unroll_tensor x = unroll_input(s->graph, "x", UNROLL_F32, 3, (int64_t[]){WINDOW, B, H});
  const unroll_rnn_options o = layer(NULL);
  const unroll_rnn_state initial = {&h0, &c0};
  unroll_rnn_state last = {&h, &c};
  const unroll_tensor y = unroll_rnn(x, "", &o, &initial, &last);
  unroll_update(h0, h);
  unroll_update(c0, c);
  side_gradients(s, x, y);
  return UNROLL_OK;
}

static unroll_status measure_windows(found *f, unroll_device *device, unroll_error *err) {
  unroll_status status = UNROLL_OK;
  for (int i = 0; i < N_LENGTHS && status == UNROLL_OK; i++) {
    side s = {.graph = NULL};
    status = whole_sequence(&s, lengths[i], NULL, err);
    if (status == UNROLL_OK)
      status = unroll_compile(s.graph, &device, 1, NULL, &s.exe, err);
    if (status == UNROLL_OK)
      f->whole[i] = side_bytes(&s);
    side_close(&s);
  }
  side s = {.graph = NULL};
  if (status == UNROLL_OK)
    status = window(&s, err);
  if (status == UNROLL_OK)
    status = side_bind(&s, device, UNROLL_CELL_LSTM, err);
  for (int64_t t = 0; t < lengths[N_LENGTHS - 1] && status == UNROLL_OK; t += WINDOW) {
    status = side_time(&s, (uint64_t)(t / WINDOW), err);
    if (t + WINDOW == lengths[0])
      f->grown = -resident_bytes();
  }
  if (status == UNROLL_OK) {
    f->grown += resident_bytes();
    f->window = side_bytes(&s);
  }
  side_close(&s);
  return status;
}

static void print(bool text, const char *id, const found *f) {
  const double mb = 1e-6;
  if (text) {
    printf("%s: all steps %.1f ms, %.1f MB of saved values, %.1f MB in all; a tenth: %.1f ms, %.1f MB, %.1f MB in all, "
           "%" PRId64 " forward steps in segments of %" PRId64 "; windows of %d steps %.1f MB, whole",
           id, f->all_ms, (double)f->plan.bytes_all * mb, (double)f->all_bytes * mb, f->ms, (double)f->plan.bytes * mb,
           (double)f->bytes * mb, f->plan.forward_steps, f->plan.segment, WINDOW, (double)f->window * mb);
    for (int i = 0; i < N_LENGTHS; i++)
      printf(" %.1f", (double)f->whole[i] * mb);
    printf(" MB\n");
    return;
  }
  printf("{\"device\":\"%s\",\"all_ms\":%.3f,\"ms\":%.3f,\"saved_bytes\":%" PRIu64 ",\"bytes\":%" PRIu64
         ",\"all_peak\":%" PRIu64 ",\"peak\":%" PRIu64 ",\"forward_steps\":%" PRId64 ",\"segment\":%" PRId64
         ",\"states\":%" PRId64 ",\"same_bits\":%s,\"window_bytes\":%" PRIu64 ",\"window_grown\":%" PRId64
         ",\"whole\":{",
         id, f->all_ms, f->ms, f->plan.bytes_all, f->plan.bytes, f->all_bytes, f->bytes, f->plan.forward_steps,
         f->plan.segment, f->plan.states, f->same_bits ? "true" : "false", f->window, f->grown);
  for (int i = 0; i < N_LENGTHS; i++)
    printf("%s\"%" PRId64 "\":%" PRIu64, i ? "," : "", lengths[i], f->whole[i]);
  printf("},\"table\":{");
  for (int i = 0; i < N_TABLE; i++)
    printf("%s\"%" PRId64 "\":%" PRId64, i ? "," : "", table_states[i], f->steps[i]);
  printf("}}\n");
}

int main(int argc, char **argv) {
  bool text = false;
  double seconds = 3;
  const int first = rig_arguments(argc, argv, NULL, NULL, &seconds, &text);
  if (!first) {
    fprintf(stderr, "usage: checkpoints [--text] [SECONDS] DEVICE...\n");
    return 2;
  }
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_context *ctx = NULL;
  unroll_status status = unroll_context_create(NULL, &ctx, &err);
  for (int i = first; i < argc && status == UNROLL_OK; i++) {
    unroll_device *device = NULL;
    found f = {.grown = 0};
    status = unroll_device_open(ctx, argv[i], NULL, 0, &device, &err);
    if (status == UNROLL_OK)
      status = measure_windows(&f, device, &err);
    if (status == UNROLL_OK)
      status = measure_checkpoints(&f, device, seconds, &err);
    if (status == UNROLL_OK)
      print(text, unroll_device_id(device), &f);
    unroll_device_close(device);
  }
  unroll_context_destroy(ctx);
  if (status != UNROLL_OK)
    fprintf(stderr, "checkpoints: %s\n", err.message[0] ? err.message : "out of memory");
  return status == UNROLL_OK ? 0 : 1;
}
