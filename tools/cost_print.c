/* SPDX-License-Identifier: Apache-2.0 */
/* Costs as a table for people. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "cost_report.h"

typedef struct short_text {
  char text[32];
} short_text;

/* "1.23 M": three digits and a decimal prefix. */
static short_text scaled(int64_t n) {
  static const char prefixes[] = " kMGTPE";
  short_text s;
  double x = (double)n;
  size_t k = 0;
  for (; x >= 999.5 && k + 1 < sizeof prefixes - 1; k++)
    x /= 1000;
  if (k == 0)
    snprintf(s.text, sizeof s.text, "%" PRId64 "  ", n);
  else
    snprintf(s.text, sizeof s.text, "%.*f %c", x < 9.995 ? 2 : x < 99.95 ? 1 : 0, x, prefixes[k]);
  return s;
}

/* "1.23 MB", "27 B " */
static short_text bytes(int64_t n) {
  short_text s = scaled(n);
  const size_t end = strlen(s.text) - 1;
  if (s.text[end] == ' ') {
    s.text[end - 1] = ' ';
    s.text[end] = 'B';
    memcpy(s.text + end + 1, " ", 2);
  } else
    memcpy(s.text + end + 1, "B", 2);
  return s;
}

/* "98,816" */
static short_text grouped(int64_t n) {
  char digits[24];
  short_text s = {""};
  const int length = snprintf(digits, sizeof digits, "%" PRId64, n);
  size_t at = 0;
  for (int i = 0; i < length; i++) {
    if (i > 0 && (length - i) % 3 == 0 && digits[i - 1] != '-')
      s.text[at++] = ',';
    s.text[at++] = digits[i];
  }
  s.text[at] = 0;
  return s;
}

/* Without the blanks at the end that an aligned number without a prefix leaves. */
__attribute__((format(printf, 1, 2))) static void print_line(const char *format, ...) {
  char line[256];
  va_list list;
  va_start(list, format);
  const int n = vsnprintf(line, sizeof line, format, list);
  va_end(list);
  size_t end = n < 0 ? 0 : n < (int)sizeof line ? (size_t)n : sizeof line - 1;
  while (end > 0 && line[end - 1] == ' ')
    end--;
  printf("%.*s\n", (int)end, line);
}

static void print_row(const char *what, int64_t forward, int64_t update) {
  print_line("  %-34s%10s  %10s  %10s", what, scaled(forward).text, scaled(update - forward).text, scaled(update).text);
}

static void print_arithmetic(const cost_report *r) {
  const unroll_cost_count *f = &r->forward.total, *u = &r->update.total;
  const int64_t steps = r->layers.steps, each = steps * r->layers.batch;
  printf("\n%-36s%10s  %10s  %10s\n", "one batch", "forward", r->has_optimizer ? "back, update" : "backward", "both");
  print_row("FLOPs", f->flops, u->flops);
  print_row("  a step of the batch", f->flops / steps, u->flops / steps);
  print_row("  a step of one sequence", f->flops / each, u->flops / each);
  print_row("exp, log, tanh, sigmoid, sqrt", f->transcendental, u->transcendental);
  print_row("bytes read", f->read, u->read);
  print_row("bytes written", f->written, u->written);
  printf("  %-34s%8.3g    %8.3g    %8.3g\n", "FLOPs a byte, op by op",
         (double)f->flops / (double)(f->read + f->written),
         (double)(u->flops - f->flops) / (double)(u->read + u->written - f->read - f->written),
         (double)u->flops / (double)(u->read + u->written));
}

static int by_bytes_and_flops(const void *a, const void *b) {
  const unroll_cost_count *x = *(const unroll_cost_count *const *)a, *y = *(const unroll_cost_count *const *)b;
  if (x->flops != y->flops)
    return x->flops < y->flops ? 1 : -1;
  const int64_t p = x->read + x->written, q = y->read + y->written;
  return p < q ? 1 : p > q ? -1 : 0;
}

static void print_ops(const unroll_cost *cost) {
  const unroll_cost_count *order[UNROLL_COST_OPS];
  size_t n = 0;
  for (uint32_t op = 1; op < UNROLL_COST_OPS; op++)
    if (cost->of[op].runs && unroll_cost_op_name(op))
      order[n++] = &cost->of[op];
  qsort(order, n, sizeof *order, by_bytes_and_flops);
  printf("\n%-24s%10s  %10s  %8s  %10s  %10s\n", "op, forward and back", "runs", "FLOPs", "of all", "read", "written");
  for (size_t i = 0; i < n; i++)
    print_line("  %-22s%10s  %10s  %6.1f %%  %10s  %10s", unroll_cost_op_name((uint32_t)(order[i] - cost->of)),
               scaled(order[i]->runs).text, scaled(order[i]->flops).text,
               cost->total.flops ? 100 * (double)order[i]->flops / (double)cost->total.flops : 0,
               scaled(order[i]->read).text, scaled(order[i]->written).text);
}

static void print_parameters(const cost_report *r) {
  const unroll_rnn_options *rnn = &r->layers.rnn;
  printf("\nparameters  %s, %s\n", grouped(r->update.parameters).text, bytes(r->update.parameter_bytes).text);
  printf("  of the recurrent layers%s  %s\n", strcmp(r->task, "translator") == 0 ? " of the encoder" : "",
         grouped(r->layer_parameters).text);
  printf("  %s  %s = %s  with n_h = %" PRId64 ", n_x = %" PRId64,
         rnn->layers > 1 || rnn->bidirectional ? "layer 0, one direction" : "that is", r->formula,
         grouped(r->first_parameters).text, rnn->hidden, r->layers.input);
  if (rnn->projection > 0)
    printf(", n_p = %" PRId64, rnn->projection);
  putchar('\n');
  if (rnn->cell == UNROLL_CELL_GRU_AFTER)
    printf("  the last n_h: a second bias, inside of the reset gate's product; the textbook's gru has none\n");
}

static void print_memory(const cost_report *r) {
  if (!r->n_memory) {
    printf("\nmemory kept for the gradient: not known (%s)\n", r->no_memory.message);
    return;
  }
  char truncated[48];
  snprintf(truncated, sizeof truncated, "k1 %" PRId64 ", k2 %" PRId64, r->k1, r->k2);
  printf("\nmemory kept for the gradient%s, by the number of steps T, of a batch of %" PRId64 "\n",
         strcmp(r->task, "translator") == 0 ? " of the encoder" : "", r->layers.batch);
  printf("%10s  %10s  %16s  %28s  %12s  %10s\n", "", "", "truncated", "checkpointed", "Transformer", "of it T²");
  printf("%10s  %10s  %16s  %28s  %6" PRId64 " head%c  %9s\n", "T", "BPTT", truncated, "segments, steps made", r->heads,
         r->heads == 1 ? ' ' : 's', "scores");
  for (uint32_t i = 0; i < r->n_memory; i++) {
    const unroll_cost_memory *m = &r->memory[i];
    char plan[48];
    snprintf(plan, sizeof plan, "(%" PRId64 " steps, %.2f·T)", m->checkpoint_interval,
             (double)m->checkpointed_steps / (double)m->steps);
    print_line("%10" PRId64 "  %10s  %16s  %10s %-18s  %12s  %9s", m->steps, bytes(m->bptt).text,
               bytes(m->truncated).text, bytes(m->checkpointed).text, plan, bytes(m->transformer).text,
               bytes(m->attention).text);
  }
}

void cost_print(const cost_report *r, const char *name) {
  const unroll_rnn_options *rnn = &r->layers.rnn;
  printf("%s: %s, %s, %d layer%s of %" PRId64 "%s\n", name, r->task, unroll_rnn_cell_name(rnn->cell), rnn->layers,
         rnn->layers == 1 ? "" : "s", rnn->hidden, rnn->bidirectional ? ", both ways" : "");
  printf("a batch of %" PRId64 " sequence%s of %" PRId64 " step%s\n", r->layers.batch, r->layers.batch == 1 ? "" : "s",
         r->layers.steps, r->layers.steps == 1 ? "" : "s");
  print_parameters(r);
  print_arithmetic(r);
  print_ops(&r->update);
  print_memory(r);
}
