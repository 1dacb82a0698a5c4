/* SPDX-License-Identifier: Apache-2.0 */
/* Labels read off CTC's outputs: prefix beam search against the sum over all paths, the best path, and what is
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <unroll/ctc.h>
#include <unroll/philox.h>

enum { T = 5, V = 4, STRIDE = 7, BLANK = 1, PATHS = 1024 /* V^T */, MOST = T };

typedef struct labels {
  int64_t n;
  int32_t of[MOST];
  double p;
} labels;

/* Random log-probabilities, normalised, with a few of 0 probability; what stands between the rows is NaN. */
static void fill(float *x, uint64_t seed, bool zeros) {
  const unroll_philox_key key = unroll_philox_site_key(seed, 0, 0);
  for (int t = 0; t < T; t++) {
    double e[V], sum = 0;
    for (int v = 0; v < V; v++) {
      e[v] = exp(2.0 * unroll_normal(key, (uint64_t)t, 0, (uint32_t)v));
      if (zeros && (t + v) % 3 == 0)
        e[v] = 0;
      sum += e[v];
    }
    for (int v = 0; v < STRIDE; v++)
      x[t * STRIDE + v] = v < V ? (float)log(e[v] / sum) : NAN;
  }
}

static labels collapse(const int *path) {
  labels l = {.n = 0};
  for (int t = 0, before = BLANK; t < T; before = path[t++])
    if (path[t] != BLANK && path[t] != before)
      l.of[l.n++] = path[t];
  return l;
}

/* All label sequences with their probabilities, the most probable first. */
static int enumerate(const float *x, labels *all) {
  int n = 0;
  for (int code = 0; code < PATHS; code++) {
    int path[T], rest = code;
    double p = 0;
    for (int t = 0; t < T; t++, rest /= V) {
      path[t] = rest % V;
      p += (double)x[t * STRIDE + path[t]];
    }
    labels l = collapse(path);
    int i = 0;
    while (i < n && (all[i].n != l.n || memcmp(all[i].of, l.of, sizeof *l.of * (size_t)l.n) != 0))
      i++;
    if (i == n) {
      all[n++] = l;
      all[i].p = 0;
    }
    all[i].p += exp(p);
  }
  for (int i = 1; i < n; i++)
    for (int k = i; k > 0 && all[k].p > all[k - 1].p; k--) {
      const labels l = all[k];
      all[k] = all[k - 1];
      all[k - 1] = l;
    }
  return n;
}

static unroll_ctc_input input_of(const float *x) {
  return (unroll_ctc_input){
      .struct_size = sizeof(unroll_ctc_input), .blank = BLANK, .log_probs = x, .T = T, .V = V, .stride = STRIDE};
}

/* A beam that drops nothing finds every labelling with the sum over all of its paths: both add up the same floats in
 * double. */
static void wide_beam_sums_all_paths(void **state) {
  (void)state;
  static labels all[PATHS];
  static float x[T * STRIDE];
  static int32_t found[PATHS * T];
  static int64_t lengths[PATHS];
  static double log_probs[PATHS];
  for (uint64_t seed = 0; seed < 12; seed++) {
    fill(x, seed, seed % 3 == 2);
    const int n = enumerate(x, all);
    const unroll_ctc_input in = input_of(x);
    int64_t n_found;
    assert_int_equal(unroll_ctc_beam(&in, PATHS, PATHS, found, lengths, log_probs, &n_found, NULL), UNROLL_OK);
    int possible = 0;
    for (int i = 0; i < n; i++)
      possible += all[i].p > 0;
    assert_int_equal(n_found, possible);
    double sum = 0;
    for (int i = 0; i < n_found; i++) {
      assert_true(fabs(exp(log_probs[i]) - all[i].p) < 1e-12);
      sum += exp(log_probs[i]);
      if (i + 1 < n_found && all[i].p - all[i + 1].p < 1e-12)
        continue; /* as good as equal: either order */
      if (i > 0 && all[i - 1].p - all[i].p < 1e-12)
        continue;
      assert_int_equal(lengths[i], all[i].n);
      assert_memory_equal(found + i * T, all[i].of, sizeof(int32_t) * (size_t)all[i].n);
    }
    assert_true(fabs(sum - 1) < 1e-6); /* the floats were rounded */
  }
}

/* ---- the search as its paper writes it, with sets of prefixes looked up by their labels ---- */
enum { LONG = 12, WIDTH = 3, SOME = WIDTH * (V + 1) };
typedef struct prefixes {
  struct {
    int n, of[LONG];
    double blank, other; /* probabilities */
  } of[SOME];
  int n;
} prefixes;

static int place_of(prefixes *p, int n, const int *of) {
  for (int i = 0; i < p->n; i++)
    if (p->of[i].n == n && memcmp(p->of[i].of, of, sizeof *of * (size_t)n) == 0)
      return i;
  assert_in_range(p->n, 0, SOME - 1);
  p->of[p->n].n = n;
  memcpy(p->of[p->n].of, of, sizeof *of * (size_t)n);
  p->of[p->n].blank = p->of[p->n].other = 0;
  return p->n++;
}

static void search(const float *x, prefixes *now) {
  *now = (prefixes){.n = 1};
  now->of[0].blank = 1;
  for (int t = 0; t < LONG; t++) {
    prefixes next = {.n = 0};
    for (int i = 0; i < now->n; i++) {
      const int n = now->of[i].n, last = n ? now->of[i].of[n - 1] : -1;
      const double blank = now->of[i].blank, other = now->of[i].other;
      for (int v = 0; v < V; v++) {
        const double p = exp((double)x[t * STRIDE + v]);
        int longer[LONG + 1];
        memcpy(longer, now->of[i].of, sizeof *longer * LONG);
        longer[n] = v;
        if (v == BLANK)
          next.of[place_of(&next, n, longer)].blank += p * (blank + other);
        else if (v == last) {
          next.of[place_of(&next, n, longer)].other += p * other;
          next.of[place_of(&next, n + 1, longer)].other += p * blank;
        } else
          next.of[place_of(&next, n + 1, longer)].other += p * (blank + other);
      }
    }
    for (int i = 0; i < next.n; i++) /* the likeliest first */
      for (int k = i; k > 0 && next.of[k].blank + next.of[k].other > next.of[k - 1].blank + next.of[k - 1].other; k--) {
        prefixes one = {.n = 1};
        one.of[0] = next.of[k];
        next.of[k] = next.of[k - 1];
        next.of[k - 1] = one.of[0];
      }
    next.n = next.n < WIDTH ? next.n : WIDTH;
    *now = next;
  }
}

/* Long and narrow, so that prefixes are dropped and come back while what followed them is still there. */
static void narrow_beam_is_the_papers(void **state) {
  (void)state;
  static float x[LONG * STRIDE];
  for (uint64_t seed = 0; seed < 300; seed++) {
    const unroll_philox_key key = unroll_philox_site_key(seed, 1, 0);
    for (int t = 0; t < LONG; t++) {
      double e[V], sum = 0;
      for (int v = 0; v < V; v++)
        sum += e[v] = exp((seed % 3 ? 0.7 : 2.0) * unroll_normal(key, (uint64_t)t, 0, (uint32_t)v));
      for (int v = 0; v < V; v++)
        x[t * STRIDE + v] = (float)log(e[v] / sum);
    }
    prefixes want;
    search(x, &want);
    unroll_ctc_input in = input_of(x);
    in.T = LONG;
    int32_t found[WIDTH * LONG];
    int64_t lengths[WIDTH], n_found;
    double log_probs[WIDTH];
    assert_int_equal(unroll_ctc_beam(&in, WIDTH, WIDTH, found, lengths, log_probs, &n_found, NULL), UNROLL_OK);
    assert_int_equal(n_found, WIDTH);
    for (int i = 0; i < WIDTH; i++) {
      assert_true(fabs(log_probs[i] - log(want.of[i].blank + want.of[i].other)) < 1e-10);
      assert_int_equal(lengths[i], want.of[i].n);
      for (int k = 0; k < want.of[i].n; k++)
        assert_int_equal(found[i * LONG + k], want.of[i].of[k]);
    }
  }
}

static void best_path(void **state) {
  (void)state;
  /* 0 0 blank 0 3: the repeat is merged, that over the blank is not */
  static const int path[T] = {0, 0, BLANK, 0, 3};
  float x[T * STRIDE];
  double want = 0;
  for (int t = 0; t < T; t++)
    for (int v = 0; v < STRIDE; v++)
      x[t * STRIDE + v] = v >= V ? NAN : v == path[t] ? -0.125f * (float)(t + 1) : -3.0f;
  for (int t = 0; t < T; t++)
    want -= 0.125 * (t + 1);
  const unroll_ctc_input in = input_of(x);
  int32_t found[T];
  int64_t n;
  double p;
  assert_int_equal(unroll_ctc_greedy(&in, found, &n, &p, NULL), UNROLL_OK);
  assert_int_equal(n, 3);
  assert_memory_equal(found, ((const int32_t[]){0, 0, 3}), 3 * sizeof *found);
  assert_true(fabs(p - want) < 1e-12);
}

static void no_steps(void **state) {
  (void)state;
  unroll_ctc_input in = input_of(NULL);
  in.T = 0;
  int64_t n = 5, length = 5, n_found = 5;
  double p = 5;
  assert_int_equal(unroll_ctc_greedy(&in, NULL, &n, &p, NULL), UNROLL_OK);
  assert_int_equal(n, 0);
  assert_true(p == 0);
  assert_int_equal(unroll_ctc_beam(&in, 2, 1, NULL, &length, &p, &n_found, NULL), UNROLL_OK);
  assert_int_equal(n_found, 1);
  assert_int_equal(length, 0);
}

#define assert_refused(code, words, expr)                          \
  do {                                                             \
    unroll_error err = UNROLL_ERROR_INIT;                          \
    assert_int_equal((expr), (code));                              \
    if (!strstr(err.message, words))                               \
      fail_msg("message \"%s\" lacks \"%s\"", err.message, words); \
  } while (0)

static void wrong_input(void **state) {
  (void)state;
  float x[T * STRIDE];
  int32_t l[T * 2];
  int64_t n, lengths[2];
  double p[2];
  fill(x, 1, false);
  unroll_ctc_input in = input_of(x);
  assert_refused(UNROLL_E_INVALID, "missing", unroll_ctc_greedy(NULL, l, &n, p, &err));
  assert_refused(UNROLL_E_INVALID, "no room", unroll_ctc_greedy(&in, NULL, &n, p, &err));
  assert_refused(UNROLL_E_RANGE, "beam 0", unroll_ctc_beam(&in, 0, 1, l, lengths, p, &n, &err));
  assert_refused(UNROLL_E_RANGE, "the best 3", unroll_ctc_beam(&in, 2, 3, l, lengths, p, &n, &err));
  assert_refused(UNROLL_E_RANGE, "2^31", unroll_ctc_beam(&in, INT64_C(1) << 40, 1, l, lengths, p, &n, &err));
  assert_refused(UNROLL_E_INVALID, "no room", unroll_ctc_beam(&in, 2, 1, l, NULL, p, &n, &err));
  in.blank = V;
  assert_refused(UNROLL_E_RANGE, "blank 4, expected 0 to 3", unroll_ctc_greedy(&in, l, &n, p, &err));
  in = input_of(x);
  in.stride = V - 1;
  assert_refused(UNROLL_E_RANGE, "stride 3", unroll_ctc_greedy(&in, l, &n, p, &err));
  in = input_of(x);
  x[2 * STRIDE + 3] = NAN;
  assert_refused(UNROLL_E_RANGE, "symbol 3 at step 2", unroll_ctc_beam(&in, 2, 1, l, lengths, p, &n, &err));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(wide_beam_sums_all_paths),
                                     cmocka_unit_test(narrow_beam_is_the_papers), cmocka_unit_test(best_path),
                                     cmocka_unit_test(no_steps), cmocka_unit_test(wrong_input)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
