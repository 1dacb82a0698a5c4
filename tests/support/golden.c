/* SPDX-License-Identifier: Apache-2.0 */
#include "golden.h"
#include "devices.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char ending[] = ".safetensors";

/* Started by hand, without CTest's environment, the sources are looked for where this file was compiled. */
static const char *folder(void) {
  static char path[4096];
  const char *root = getenv("UNROLL_SOURCE_DIR");
  if (root)
    snprintf(path, sizeof path, "%s/tests/golden", root);
  else
    snprintf(path, sizeof path, "%.*s/../golden", (int)(strrchr(__FILE__, '/') - __FILE__), __FILE__);
  return path;
}

golden golden_open(const char *name) {
  golden g = {NULL, ""};
  unroll_error err = UNROLL_ERROR_INIT;
  char path[4300];
  snprintf(g.name, sizeof g.name, "%s", name);
  snprintf(path, sizeof path, "%s/%s%s", folder(), name, ending);
  assert_status(UNROLL_OK, unroll_safetensors_open(path, NULL, &g.file, &err));
  return g;
}

void golden_close(golden *g) {
  unroll_safetensors_close(g->file);
  g->file = NULL;
}

bool golden_has(const golden *g, const char *tensor) {
  unroll_stored_tensor t;
  return unroll_safetensors_find(g->file, tensor, &t, NULL) == UNROLL_OK;
}

unroll_stored_tensor golden_describe(const golden *g, const char *tensor) {
  unroll_stored_tensor t;
  unroll_error err = UNROLL_ERROR_INIT;
  assert_status(UNROLL_OK, unroll_safetensors_find(g->file, tensor, &t, &err));
  return t;
}

int64_t golden_count(const unroll_stored_tensor *t) { return (int64_t)(t->bytes / unroll_dtype_size(t->dtype)); }

static void *copy_of(const golden *g, const char *tensor, int32_t dtype, int64_t *n) {
  const unroll_stored_tensor t = golden_describe(g, tensor);
  assert_int_equal(t.dtype, dtype);
  void *p = malloc((size_t)t.bytes);
  assert_non_null(p);
  memcpy(p, t.data, (size_t)t.bytes);
  if (n)
    *n = golden_count(&t);
  return p;
}
double *golden_values(const golden *g, const char *tensor, int64_t *n) { return copy_of(g, tensor, UNROLL_F64, n); }
int32_t *golden_integers(const golden *g, const char *tensor, int64_t *n) { return copy_of(g, tensor, UNROLL_I32, n); }

double golden_scalar(const golden *g, const char *tensor) {
  const unroll_stored_tensor t = golden_describe(g, tensor);
  double value;
  assert_int_equal(t.dtype, UNROLL_F64);
  assert_int_equal(t.bytes, sizeof value);
  memcpy(&value, t.data, sizeof value);
  return value;
}

const char *golden_text(const golden *g, const char *key) {
  const char *value = unroll_safetensors_metadata(g->file, key);
  if (!value)
    fail_msg("%s: no metadata %s", g->name, key);
  return value;
}
int64_t golden_integer(const golden *g, const char *key) { return strtoll(golden_text(g, key), NULL, 10); }
double golden_number(const golden *g, const char *key, double otherwise) {
  const char *value = unroll_safetensors_metadata(g->file, key);
  return value ? strtod(value, NULL) : otherwise;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

char **golden_list(const char *begin, uint32_t *n) {
  char **names = NULL;
  *n = 0;
  DIR *d = opendir(folder());
  if (!d)
    fail_msg("no folder %s", folder());
  for (struct dirent *e; (e = readdir(d)) != NULL;) {
    const size_t size = strlen(e->d_name), tail = sizeof ending - 1;
    if (strncmp(e->d_name, begin, strlen(begin)) != 0 || size <= tail || strcmp(e->d_name + size - tail, ending) != 0)
      continue;
    names = realloc(names, (*n + 1) * sizeof *names);
    assert_non_null(names);
    names[*n] = strndup(e->d_name, size - tail);
    assert_non_null(names[(*n)++]);
  }
  closedir(d);
  if (*n == 0)
    fail_msg("no file %s*%s in %s", begin, ending, folder());
  qsort(names, *n, sizeof *names, by_text);
  return names;
}

void golden_list_free(char **names, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    free(names[i]);
  free(names);
}

static unroll_activation activation_of(const golden *g, const char *name) {
  char alpha[16], beta[16];
  snprintf(alpha, sizeof alpha, "%s.alpha", name);
  snprintf(beta, sizeof beta, "%s.beta", name);
  return (unroll_activation){.kind = (int32_t)golden_number(g, name, 0),
                             .alpha = golden_number(g, alpha, 0),
                             .beta = golden_number(g, beta, 0)};
}

int32_t golden_cell(const golden *g) {
  const char *text = golden_text(g, "cell");
  char *end;
  const long number = strtol(text, &end, 10);
  if (end > text)
    return (int32_t)number;
  if (strncmp(text, "rnn", 3) == 0)
    return UNROLL_CELL_RNN;
#define NAMED(code, value, name) \
  if (strcmp(text, name) == 0)   \
    return value;
  UNROLL_CELLS(NAMED)
#undef NAMED
  fail_msg("%s: unknown cell %s", g->name, text);
  return 0;
}

int32_t golden_activation(const golden *g) {
  const char *text = unroll_safetensors_metadata(g->file, "activation");
  if (!text)
    return 0;
#define NAMED(code, value, name) \
  if (strcmp(text, name) == 0)   \
    return value;
  UNROLL_UNARIES(NAMED)
#undef NAMED
  fail_msg("%s: unknown activation %s", g->name, text);
  return 0;
}

unroll_rnn_options golden_rnn_options(const golden *g) {
#define NUMBER(field) .field = golden_number(g, #field, 0)
#define INTEGER(field) .field = (int32_t)golden_number(g, #field, 0)
  const unroll_rnn_options o = {.struct_size = sizeof o,
                                INTEGER(cell),
                                INTEGER(layers),
                                INTEGER(bidirectional),
                                INTEGER(inference),
                                INTEGER(same_mask),
                                INTEGER(peepholes),
                                INTEGER(layer_norm),
                                INTEGER(residual),
                                NUMBER(dropout),
                                NUMBER(input_dropout),
                                NUMBER(output_dropout),
                                NUMBER(weight_dropout),
                                NUMBER(state_dropout),
                                NUMBER(zoneout_h),
                                NUMBER(zoneout_c),
                                NUMBER(clip),
                                NUMBER(cell_clip),
                                NUMBER(layer_norm_epsilon),
                                NUMBER(skip),
                                .hidden = golden_integer(g, "H"),
                                .projection = (int64_t)golden_number(g, "projection", 0),
                                .f = activation_of(g, "f"),
                                .g = activation_of(g, "g"),
                                .h = activation_of(g, "h")};
#undef NUMBER
#undef INTEGER
  return o;
}
