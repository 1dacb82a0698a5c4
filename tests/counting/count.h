/* SPDX-License-Identifier: Apache-2.0 */
/*
 * count.h: the cpu backend with other loops: each op as plugin.h writes it down, in double, on numbers that count what is done
 * with them, and on tensors that remember which of their bytes were read and written. Nothing in here knows a formula of a
 * cost: what stands in the counts was executed.
 *
 * The plugin of tests/plugins/counting.c; its symbol counting_of_ops is what tests look at.
 */
#ifndef COUNT_H
#define COUNT_H
#include "counts.h"
#include "cpu_ops.h"

/* ---- numbers ---- */
typedef struct num {
  double v;
} num;
static inline num number(double v) { return (num){v}; }
num plus(num a, num b);
num minus(num a, num b);
num times(num a, num b);
num over(num a, num b);
num larger(num a, num b); /* NaN where either is */
num smaller(num a, num b);
bool more(num a, num b);
num one_step(double result); /* of what takes one operation: a sign, a magnitude */
num function(double (*f)(double), num x);
num power(num x, num y);
double logistic(double x);

/* ---- one node's run ---- */
/* Between the two everything below is of that call. real_bytes: of its real tensors. */
void counting_begin(const cpu_call *c, uint32_t real_bytes);
void counting_end(void);

bool has_in(uint32_t i);
bool has_out(uint32_t i);
int64_t count_of(const cpu_operand *o); /* elements; of NULL 0 */
num get(uint32_t in, int64_t at);
void put(uint32_t out, int64_t at, num x); /* an output that nobody reads: nothing */
/* Read again where it was read before; at below 0: NaN, as of an id that is none. */
num look_up(uint32_t in, int64_t at);
/* n numbers from `first` on; absent ones are zeros. They last until the run ends. */
num *load(uint32_t in, int64_t first, int64_t n);
num *zeros(int64_t n);
int32_t get_i32(uint32_t in, int64_t at);
void put_i32(uint32_t out, int64_t at, int32_t x);
/* bytes of elements; in UINT32_MAX: zeros */
void move(uint32_t out, int64_t to, uint32_t in, int64_t from, uint32_t bytes);
/* Marks it as read. */
void look_at(uint32_t in, int64_t at, uint32_t bytes);
void *raw_in(uint32_t in, int64_t at, uint32_t bytes);
void *raw_out(uint32_t out, int64_t at, uint32_t bytes);
#endif
