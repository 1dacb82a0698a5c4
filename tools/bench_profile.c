/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_profile.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROFILED_RUNS 5
#define WARM_UP_RUNS 2 /* kernels are built, weights packed */
#define MAX_NAME 32    /* columns of a name in the table */
#define MAX_ROWS 24

/* ---- runs ---- */
static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

unroll_status run_timed(unroll_binding *binding, double *ms, unroll_error *err) {
  const double start = now_ms();
  unroll_status status = unroll_run(binding, NULL, err);
  if (status == UNROLL_OK)
    status = unroll_binding_sync(binding, err);
  *ms = now_ms() - start;
  return status;
}

static const char *or_empty(const char *text) { return text ? text : ""; }

static bool is_row_of(const profile_row *r, const unroll_profile_entry *e) {
  return strcmp(r->node, or_empty(e->node)) == 0 && strcmp(r->scan, or_empty(e->scan)) == 0 &&
         strcmp(r->label, e->label) == 0 && strcmp(r->device, e->device) == 0;
}

static void free_row(profile_row *r) {
  free(r->node);
  free(r->scan);
  free(r->op);
  free(r->label);
  free(r->device);
}

static profile_row *add_row(profile_table *t, const unroll_profile_entry *e) {
  if (t->n == t->room) {
    const size_t room = t->room ? 2 * t->room : 32;
    profile_row *more = realloc(t->rows, room * sizeof *more);
    if (!more)
      return NULL;
    t->rows = more;
    t->room = room;
  }
  profile_row *r = &t->rows[t->n];
  *r = (profile_row){.node = strdup(or_empty(e->node)),
                     .scan = strdup(or_empty(e->scan)),
                     .op = strdup(or_empty(e->op_name)),
                     .label = strdup(e->label),
                     .device = strdup(e->device),
                     .layer = e->layer,
                     .direction = e->direction};
  if (!r->node || !r->scan || !r->op || !r->label || !r->device) {
    free_row(r);
    return NULL;
  }
  t->n++;
  return r;
}

/* Steps repeat: the row of the next entry is most often the one after the last. */
static void add_entry(void *ctx, const unroll_profile_entry *e) {
  profile_table *t = ctx;
  profile_row *r = NULL;
  for (size_t k = 0; k < t->n && !r; k++) {
    profile_row *candidate = &t->rows[(t->next + k) % t->n];
    if (is_row_of(candidate, e))
      r = candidate;
  }
  if (!r && !(r = add_row(t, e))) {
    t->out_of_memory = true;
    return;
  }
  t->next = (size_t)(r - t->rows) + 1;
  r->calls++;
  r->ns += e->end_ns - e->begin_ns;
}

static void skip_entry(void *ctx, const unroll_profile_entry *e) {
  (void)ctx;
  (void)e;
}

static int longest_first(const void *a, const void *b) {
  const profile_row *x = a, *y = b;
  if (x->ns != y->ns)
    return x->ns < y->ns ? 1 : -1;
  return strcmp(x->label, y->label);
}

unroll_status profile_runs(unroll_binding *binding, profile_table *t, unroll_error *err) {
  double ms = 0;
  unroll_status status = unroll_binding_profile(binding, 1, err);
  for (int i = 0; i < WARM_UP_RUNS && status == UNROLL_OK; i++)
    status = run_timed(binding, &ms, err);
  if (status == UNROLL_OK)
    status = unroll_binding_profile_read(binding, skip_entry, NULL, err);
  for (int i = 0; i < PROFILED_RUNS && status == UNROLL_OK; i++) {
    status = run_timed(binding, &ms, err);
    t->wall_ms += ms;
    t->runs++;
    if (status == UNROLL_OK)
      status = unroll_binding_profile_read(binding, add_entry, t, err);
  }
  if (status == UNROLL_OK && t->out_of_memory) {
    *err = (unroll_error){.struct_size = sizeof *err, .code = UNROLL_E_MEMORY};
    return UNROLL_E_MEMORY;
  }
  if (t->n)
    qsort(t->rows, t->n, sizeof *t->rows, longest_first);
  return status;
}

void profile_free(profile_table *t) {
  for (size_t i = 0; i < t->n; i++)
    free_row(&t->rows[i]);
  free(t->rows);
  *t = (profile_table){.runs = 0};
}

/* ---- what is told ---- */
static double total_ns(const profile_table *t) {
  double sum = 0;
  for (size_t i = 0; i < t->n; i++)
    sum += (double)t->rows[i].ns;
  return sum;
}

double profile_device_ms(const profile_table *t) { return total_ns(t) / 1e6 / t->runs; }

static double share_of(const profile_table *t, const profile_row *r) {
  const double sum = total_ns(t);
  return sum > 0 ? (double)r->ns / sum : 0;
}

/* The cells of a row that are text, as they are printed. */
enum { CELL_NODE, CELL_OP, CELL_LAYER, CELL_KERNEL, CELL_DEVICE, CELLS };
static const char *const headings[CELLS] = {"node", "op", "layer", "kernel", "device"};
typedef struct cell {
  char text[160];
} cell;

static cell cell_of(const profile_row *r, int which) {
  cell c = {"-"};
  switch (which) {
  case CELL_NODE:
    if (*r->node)
      (void)snprintf(c.text, sizeof c.text, "%s%s%s", r->scan, *r->scan ? "/" : "", r->node);
    break;
  case CELL_OP:
    if (*r->op)
      (void)snprintf(c.text, sizeof c.text, "%s", r->op);
    break;
  case CELL_LAYER:
    if (r->layer >= 0)
      (void)snprintf(c.text, sizeof c.text, "%d%s", (int)r->layer, r->direction == UNROLL_REVERSE ? " reverse" : "");
    break;
  case CELL_KERNEL: (void)snprintf(c.text, sizeof c.text, "%s", r->label); break;
  default: (void)snprintf(c.text, sizeof c.text, "%s", r->device); break;
  }
  return c;
}

static int column(const profile_table *t, size_t n, int which) {
  size_t width = strlen(headings[which]);
  for (size_t i = 0; i < n; i++) {
    const cell c = cell_of(&t->rows[i], which);
    width = strlen(c.text) > width ? strlen(c.text) : width;
  }
  return width < MAX_NAME ? (int)width : MAX_NAME;
}

/* Names differ at their ends: it is the middle that goes. */
static void print_cell(const char *text, int width) {
  const int n = (int)strlen(text), tail = (width - 2) / 2;
  if (n <= width)
    printf("%-*s  ", width, text);
  else
    printf("%.*s..%s  ", width - 2 - tail, text, text + n - tail);
}

static bool on_several_devices(const profile_table *t) {
  for (size_t i = 1; i < t->n; i++)
    if (strcmp(t->rows[i].device, t->rows[0].device) != 0)
      return true;
  return false;
}

/* cells: a bit for each that is printed */
static void print_rows(const profile_table *t, size_t n, unsigned cells) {
  int width[CELLS];
  if (on_several_devices(t))
    cells |= 1u << CELL_DEVICE;
  for (int k = 0; k < CELLS; k++)
    if (cells >> k & 1u) {
      width[k] = column(t, n, k);
      print_cell(headings[k], width[k]);
    }
  printf("%8s  %10s  %9s  %6s\n", "calls", "µs/call", "ms/run", "share"); /* µ: two bytes, one column */
  for (size_t i = 0; i < n; i++) {
    const profile_row *r = &t->rows[i];
    for (int k = 0; k < CELLS; k++)
      if (cells >> k & 1u) {
        const cell c = cell_of(r, k);
        print_cell(c.text, width[k]);
      }
    printf("%8" PRIu64 "  %9.2f  %9.3f  %5.1f%%\n", r->calls / (uint64_t)t->runs,
           (double)r->ns / 1e3 / (double)r->calls, (double)r->ns / 1e6 / t->runs, share_of(t, r) * 100);
  }
}

/* The same by op and kernel, in place: nodes are forgotten. */
static void merge_rows(profile_table *t) {
  size_t n = 0;
  for (size_t i = 0; i < t->n; i++) {
    profile_row *r = &t->rows[i];
    size_t k = 0;
    while (k < n && (strcmp(t->rows[k].op, r->op) != 0 || strcmp(t->rows[k].label, r->label) != 0 ||
                     strcmp(t->rows[k].device, r->device) != 0))
      k++;
    if (k < n) {
      t->rows[k].calls += r->calls;
      t->rows[k].ns += r->ns;
      free_row(r);
    } else
      t->rows[n++] = *r;
  }
  t->n = n;
  qsort(t->rows, t->n, sizeof *t->rows, longest_first);
}

void profile_print(profile_table *t) {
  const double device_ms = profile_device_ms(t), wall_ms = t->wall_ms / t->runs;
  const double idle = wall_ms > device_ms ? 1 - device_ms / wall_ms : 0;
  printf("profile   on the device%s %.3f ms, wall %.3f ms: %.0f%% of the time nothing ran (launching, waiting); the "
         "mean of "
         "%d timed runs\n\n",
         on_several_devices(t) ? "s" : "", device_ms, wall_ms, idle * 100, t->runs);
  const size_t shown = t->n < MAX_ROWS ? t->n : MAX_ROWS;
  print_rows(t, shown, 1u << CELL_NODE | 1u << CELL_OP | 1u << CELL_LAYER | 1u << CELL_KERNEL);
  if (shown == t->n)
    return;
  double rest = 0;
  for (size_t i = shown; i < t->n; i++)
    rest += (double)t->rows[i].ns;
  printf("and %zu more with %.1f%%; --json has them all\n\nby op and kernel:\n", t->n - shown,
         rest / total_ns(t) * 100);
  merge_rows(t);
  print_rows(t, t->n, 1u << CELL_OP | 1u << CELL_KERNEL);
}

json_t *profile_json(const profile_table *t) {
  json_t *rows = json_array();
  for (size_t i = 0; rows && i < t->n; i++) {
    const profile_row *r = &t->rows[i];
    json_t *row =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:f, s:f, s:f}", "node", r->node, "scan", r->scan, "op",
                  r->op, "kernel", r->label, "device", r->device, "layer", (int)r->layer, "direction",
                  (int)r->direction, "calls", (json_int_t)(r->calls / (uint64_t)t->runs), "us_per_call",
                  (double)r->ns / 1e3 / (double)r->calls, "ms", (double)r->ns / 1e6 / t->runs, "share", share_of(t, r));
    if (!row || json_array_append_new(rows, row) != 0) {
      json_decref(rows);
      return NULL;
    }
  }
  return rows;
}
