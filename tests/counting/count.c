/* SPDX-License-Identifier: Apache-2.0 */
#include "count.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

counting_counts counting_of_ops;

/* ---- numbers ---- */

static counting_count done; /* of the node that runs */

static num counted(double v) {
  done.flops++;
  return (num){v};
}
num plus(num a, num b) { return counted(a.v + b.v); }
num minus(num a, num b) { return counted(a.v - b.v); }
num times(num a, num b) { return counted(a.v * b.v); }
num over(num a, num b) { return counted(a.v / b.v); }
num larger(num a, num b) { return counted(a.v > b.v || isnan(a.v) ? a.v : b.v); }
num smaller(num a, num b) { return counted(a.v < b.v || isnan(a.v) ? a.v : b.v); }
bool more(num a, num b) {
  done.flops++;
  return a.v > b.v;
}
num one_step(double result) { return counted(result); }
num function(double (*f)(double), num x) {
  done.transcendental++;
  return (num){f(x.v)};
}
num power(num x, num y) {
  done.transcendental++;
  return (num){pow(x.v, y.v)};
}
double logistic(double x) {
  const double e = exp(-fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

/* ---- one node's run ---- */

typedef struct used {
  uint8_t *bytes; /* one each: was it touched? */
  int64_t n;
} used;
typedef struct block {
  struct block *next;
  num of[];
} block;

static struct {
  const cpu_call *call;
  uint32_t real_bytes;
  used *edges;
  block *blocks;
} now;

static void *memory(size_t n, size_t size) {
  void *p = calloc(n + 1, size);
  if (!p)
    abort(); /* a test without memory has nothing to say */
  return p;
}

static const cpu_operand *operand(uint32_t edge) { return cpu_edge(now.call, edge); }

int64_t count_of(const cpu_operand *o) { return o ? cpu_count(o, 0, o->rank) : 0; }

void counting_begin(const cpu_call *c, uint32_t real_bytes) {
  now.call = c;
  now.real_bytes = real_bytes;
  done = (counting_count){.runs = 1};
  now.edges = memory(c->node->n_in + c->node->n_out, sizeof *now.edges);
  for (uint32_t i = 0; i < c->node->n_in + c->node->n_out; i++) {
    now.edges[i].n = 8 * count_of(operand(i));
    now.edges[i].bytes = memory((size_t)now.edges[i].n, 1);
  }
}

void counting_end(void) {
  const cpu_node *node = now.call->node;
  for (uint32_t i = 0; i < node->n_in + node->n_out; i++) {
    for (int64_t k = 0; k < now.edges[i].n; k++)
      *(i < node->n_in ? &done.read : &done.written) += now.edges[i].bytes[k];
    free(now.edges[i].bytes);
  }
  free(now.edges);
  while (now.blocks) {
    block *next = now.blocks->next;
    free(now.blocks);
    now.blocks = next;
  }
  counting_count *sum = &counting_of_ops.of[node->op];
  sum->runs += done.runs;
  sum->flops += done.flops;
  sum->transcendental += done.transcendental;
  sum->read += done.read;
  sum->written += done.written;
}

bool has_in(uint32_t i) { return i < now.call->node->n_in && operand(i); }
bool has_out(uint32_t i) { return i < now.call->node->n_out && operand(now.call->node->n_in + i); }

static char *touch(uint32_t edge, int64_t at, uint32_t bytes) {
  if (at < 0 || at >= now.edges[edge].n / 8)
    abort();
  memset(now.edges[edge].bytes + at * bytes, 1, bytes);
  return operand(edge)->data + at * bytes;
}

void *raw_in(uint32_t in, int64_t at, uint32_t bytes) { return touch(in, at, bytes); }
void *raw_out(uint32_t out, int64_t at, uint32_t bytes) { return touch(now.call->node->n_in + out, at, bytes); }
void look_at(uint32_t in, int64_t at, uint32_t bytes) { (void)touch(in, at, bytes); }

num get(uint32_t in, int64_t at) {
  const void *p = raw_in(in, at, now.real_bytes);
  return number(now.real_bytes == 8 ? *(const double *)p : (double)*(const float *)p);
}

num look_up(uint32_t in, int64_t at) {
  const void *p = operand(in)->data + (at < 0 ? 0 : at) * now.real_bytes;
  done.read += now.real_bytes;
  return number(at < 0 ? NAN : now.real_bytes == 8 ? *(const double *)p : (double)*(const float *)p);
}

void put(uint32_t out, int64_t at, num x) {
  if (!has_out(out))
    return;
  void *p = raw_out(out, at, now.real_bytes);
  if (now.real_bytes == 8)
    *(double *)p = x.v;
  else
    *(float *)p = (float)x.v;
}

num *zeros(int64_t n) {
  block *b = memory(1, sizeof *b + (size_t)n * sizeof *b->of);
  b->next = now.blocks;
  now.blocks = b;
  return b->of;
}

num *load(uint32_t in, int64_t first, int64_t n) {
  num *x = zeros(n);
  for (int64_t i = 0; has_in(in) && i < n; i++)
    x[i] = get(in, first + i);
  return x;
}

int32_t get_i32(uint32_t in, int64_t at) { return *(const int32_t *)raw_in(in, at, 4); }
void put_i32(uint32_t out, int64_t at, int32_t x) { *(int32_t *)raw_out(out, at, 4) = x; }

void move(uint32_t out, int64_t to, uint32_t in, int64_t from, uint32_t bytes) {
  uint64_t element = 0;
  if (in != UINT32_MAX)
    memcpy(&element, raw_in(in, from, bytes), bytes);
  memcpy(raw_out(out, to, bytes), &element, bytes);
}
