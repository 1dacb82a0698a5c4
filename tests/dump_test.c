/* SPDX-License-Identifier: Apache-2.0 */
/* The dump of a graph: as it is, laid out over time steps, and for Graphviz. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unroll/graph.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define SHAPE(...) \
  (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) { __VA_ARGS__ }
#define HARD_NAME "a \"name\" with \\ and\na line" /* of an output */

/* Two LSTM layers, forward and reverse, over x [T,4,3], T up to 7; the last h of the first is carried on. */
static unroll_graph *lstm_graph(int gradient) {
  unroll_graph *g;
  assert_int_equal(unroll_graph_create(NULL, &g, NULL), UNROLL_OK);
  const int64_t T = unroll_graph_dim(g, "T", 1, 7);
  unroll_tensor x = unroll_input(g, "x", UNROLL_F32, SHAPE(T, 4, 3)), weights[2];
  for (int i = 0; i < 2; i++) {
    char names[2][8];
    snprintf(names[0], sizeof names[0], "W_x%d", i);
    snprintf(names[1], sizeof names[1], "W_h%d", i);
    const unroll_layer_inputs in = {
        .x = x,
        .W_x = weights[i] = unroll_param(g, names[0], UNROLL_F32, SHAPE(20, i ? 5 : 3)),
        .W_h = unroll_param(g, names[1], UNROLL_F32, SHAPE(20, 5)),
        .h0 = i ? unroll_none() : unroll_state(g, "h", UNROLL_F32, SHAPE(4, 5)),
    };
    const unroll_layer_outputs out =
        unroll_layer(&in,
                     &(unroll_layer_attr){
                         .cell = UNROLL_CELL_LSTM, .direction = i ? UNROLL_REVERSE : UNROLL_FORWARD, .activation = 0},
                     i);
    if (i == 0)
      unroll_update(in.h0, out.h_last);
    x = out.y;
  }
  if (gradient) {
    unroll_tensor d[2];
    unroll_gradient(unroll_reduce(x, UNROLL_SUM, 0, 0), weights, 2, d);
    unroll_output(d[0], "dW_x0");
  }
  unroll_output(x, HARD_NAME);
  assert_int_equal(unroll_graph_status(g, NULL), UNROLL_OK);
  return g;
}

/* h = tanh(h + x W), given out twice: a scan of the caller's own */
static unroll_graph *scan_graph(void) {
  unroll_graph *g;
  assert_int_equal(unroll_graph_create(NULL, &g, NULL), UNROLL_OK);
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, SHAPE(6, 4, 3)),
                      W = unroll_param(g, "W", UNROLL_F32, SHAPE(3, 5)),
                      h0 = unroll_state(g, "h", UNROLL_F32, SHAPE(4, 5));
  unroll_scan *s = unroll_scan_begin(g, UNROLL_REVERSE, unroll_none());
  const unroll_tensor x_t = unroll_scan_input(s, x), h = unroll_scan_carry(s, h0),
                      next = unroll_tanh(unroll_matmul_add(x_t, 0, W, 0, h)), y = unroll_scan_output(s, next),
                      before = unroll_scan_output(s, h), last = unroll_scan_last(s, h);
  unroll_scan_next(s, h, next);
  unroll_scan_end(s);
  unroll_output(unroll_add(y, before), "sum");
  unroll_output(y, "y");
  unroll_update(h0, last);
  assert_int_equal(unroll_graph_status(g, NULL), UNROLL_OK);
  return g;
}

/* Not inlined: gcc 12 then takes the string for its local pointer. */
__attribute__((noinline)) static char *dump(const unroll_graph *g, int32_t format, int64_t steps) {
  unroll_error err = UNROLL_ERROR_INIT;
  char *text = NULL;
  if (unroll_graph_dump(g, format, steps, &text, &err) != UNROLL_OK)
    fail_msg("%s", err.message);
  return text;
}

static int count(const char *text, const char *word) {
  int n = 0;
  for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
    n++;
  return n;
}

static void assert_lines(const char *text, const char *const *lines, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (!strstr(text, lines[i]))
      print_error("no '%s' in\n%s", lines[i], text);
    assert_non_null(strstr(text, lines[i]));
  }
}

static void a_graph_as_it_is(void **state) {
  (void)state;
  static const char *const lines[] = {
      "size T 1 to 7\n",
      "input x f32 [T,4,3]\n",
      "param W_x0 f32 [20,3]\n",
      "state h f32 [4,5]\n",
      "constant_0 = constant() value=0 -> constant_0 f32 [20]\n",
      "layer_2 = layer(x, W_x0, W_h0, constant_0, -, h, constant_1, -) lstm layer=0 forward -> layer_2.0 f32 [T,4,5], "
      "layer_2.1 f32 [4,5], layer_2.2 f32 [4,5], layer_2.3 f32 [T,4,5], layer_2.4 f32 [T,4,20]",
      "layer_6 = layer(layer_2.0, W_x1, W_h1, ",
      " lstm layer=1 reverse -> " HARD_NAME " f32 [T,4,5]",
      "update h <- layer_2.1\n",
  };
  unroll_graph *g = lstm_graph(0);
  char *text = dump(g, UNROLL_DUMP_TEXT, 0);
  assert_lines(text, lines, COUNT(lines));
  assert_int_equal(count(text, " = layer("), 2);
  assert_int_equal(count(text, "t="), 0);
  unroll_string_free(text);
  unroll_graph_destroy(g);
}

static void a_scan_has_its_body_below(void **state) {
  (void)state;
  static const char *const whole = "input x f32 [6,4,3]\n"
                                   "param W f32 [3,5]\n"
                                   "state h f32 [4,5]\n"
                                   "scan_0 = scan(h, x, W) steps=6 reverse -> h.last f32 [4,5], y f32 [6,4,5], "
                                   "carry_0.all f32 [6,4,5]\n"
                                   "  carry carry_0 f32 [4,5] <- h\n"
                                   "  input x[t] f32 [4,3] <- x\n"
                                   "  capture W f32 [3,5] <- W\n"
                                   "  matmul_0 = matmul(x[t], W, carry_0) reverse -> matmul_0 f32 [4,5]\n"
                                   "  unary_1 = unary(matmul_0) tanh reverse -> unary_1 f32 [4,5]\n"
                                   "  next carry_0 <- unary_1\n"
                                   "  output y <- unary_1\n"
                                   "  output carry_0.all <- carry_0\n"
                                   "  last h.last <- unary_1\n"
                                   "binary_1 = binary(y, carry_0.all) add -> sum f32 [6,4,5]\n"
                                   "output y f32 [6,4,5]\n"
                                   "output sum f32 [6,4,5]\n"
                                   "update h <- h.last\n";
  unroll_graph *g = scan_graph();
  char *text = dump(g, UNROLL_DUMP_TEXT, 0);
  assert_string_equal(text, whole);
  unroll_string_free(text);
  unroll_graph_destroy(g);
}

static void steps_follow_the_carry(void **state) {
  (void)state;
  static const char *const lines[] = {
      "  scan_0/matmul_0@1 = matmul(x[1], W, h) t=1 reverse -> scan_0/matmul_0@1 f32 [4,5]\n"
      "  scan_0/unary_1@1 = unary(scan_0/matmul_0@1) tanh t=1 reverse -> scan_0/unary_1@1 f32 [4,5]\n"
      "  output y#4[1] <- scan_0/unary_1@1\n"
      "  output carry_0.all[1] <- h\n"
      "  scan_0/matmul_0@0 = matmul(x[0], W, scan_0/unary_1@1) t=0 reverse -> scan_0/matmul_0@0 f32 [4,5]\n",
      "  output carry_0.all[0] <- scan_0/unary_1@1\n"
      "  last h.last <- scan_0/unary_1@0\n",
  };
  unroll_graph *g = scan_graph();
  char *text = dump(g, UNROLL_DUMP_TEXT, 2);
  assert_lines(text, lines, COUNT(lines));
  unroll_string_free(text);
  text = dump(g, UNROLL_DUMP_TEXT, 1000); /* there are no more than 6 */
  assert_int_equal(count(text, " = unary(scan_0/"), 6);
  assert_non_null(strstr(text, " t=5 reverse"));
  assert_null(strstr(text, " t=6 "));
  unroll_string_free(text);
  unroll_graph_destroy(g);
}

static void layers_are_laid_out_both_ways(void **state) {
  (void)state;
  unroll_graph *g = lstm_graph(0);
  char *text = dump(g, UNROLL_DUMP_TEXT, 3);
  assert_int_equal(count(text, "= lstm_gates("), 2 * 3);
  assert_int_equal(count(text, "= layer("), 0);
  for (int t = 0; t < 3; t++) { /* a product and the gates */
    char tag[64];
    snprintf(tag, sizeof tag, " t=%d layer=0 forward -> ", t);
    assert_int_equal(count(text, tag), 2);
    snprintf(tag, sizeof tag, " t=%d layer=1 reverse -> ", t);
    assert_int_equal(count(text, tag), 2);
  }
  assert_int_equal(count(text, " t="), 2 * 3 * 2);
  assert_true(strstr(text, "t=0 layer=0") < strstr(text, "t=2 layer=0"));
  assert_true(strstr(text, "t=2 layer=1") < strstr(text, "t=0 layer=1"));
  unroll_string_free(text);
  unroll_graph_destroy(g);
  /* The gradient of a layer runs the other way. */
  g = lstm_graph(1);
  text = dump(g, UNROLL_DUMP_TEXT, 3);
  assert_int_equal(count(text, "= lstm_gates_grad("), 2 * 3);
  const char *second = strstr(text, "= lstm_gates_grad("), *first = second;
  for (const char *at = second; at; at = strstr(at + 1, "= lstm_gates_grad("))
    first = at; /* the last one of the text is the first layer's */
  assert_non_null(strstr(second, " t=0 layer=1 forward"));
  assert_non_null(strstr(first, " t=0 layer=0 reverse"));
  unroll_string_free(text);
  unroll_graph_destroy(g);
}

/* ---- DOT ---- */

/* The identifier at `at`, or an empty string. */
static size_t identifier(const char *at, char *id, size_t size) {
  size_t n = 0;
  while (n + 1 < size && (isalnum((unsigned char)at[n]) || at[n] == '_')) {
    id[n] = at[n];
    n++;
  }
  id[n] = '\0';
  return n;
}

/* Braces outside of strings balance, strings end on their line, a line declares or connects, and what is connected has
 * been declared once. */
static void assert_dot(const char *text) {
  int depth = 0, edges = 0;
  assert_int_equal(strncmp(text, "digraph unroll {\n", 17), 0);
  char *declared = calloc(strlen(text) + 2, 1);
  assert_non_null(declared);
  strcat(declared, ";");
  for (const char *line = text, *end; *line; line = end + 1) {
    bool quoted = false;
    end = strchr(line, '\n');
    assert_non_null(end);
    for (const char *c = line; c < end; c++) {
      if (quoted && *c == '\\')
        c++;
      else if (*c == '"')
        quoted = !quoted;
      else if (!quoted)
        depth += (*c == '{') - (*c == '}');
    }
    assert_false(quoted);
    assert_true(depth >= 0);
    char id[64], to[64], key[70];
    const char *at = line + strspn(line, " ");
    const size_t n = identifier(at, id, sizeof id);
    if (strncmp(at + n, " [", 2) == 0 && strcmp(id, "node") != 0) {
      snprintf(key, sizeof key, ";%s;", id);
      if (strstr(declared, key))
        print_error("%s is declared twice\n", id);
      assert_null(strstr(declared, key));
      strcat(declared, key + 1);
    } else if (strncmp(at + n, " -> ", 4) == 0) {
      identifier(at + n + 4, to, sizeof to);
      snprintf(key, sizeof key, ";%s;", id);
      const char *from = strstr(declared, key);
      snprintf(key, sizeof key, ";%s;", to);
      if (!from || !strstr(declared, key))
        print_error("%s or %s is not declared in\n%s\n", id, to, text);
      assert_non_null(from);
      assert_non_null(strstr(declared, key));
      edges++;
    }
  }
  free(declared);
  assert_int_equal(depth, 0);
  assert_true(edges > 5);
}

/* 1 where Graphviz is not installed. */
static int graphviz_accepts(const char *text) {
  if (system("command -v dot >/dev/null 2>&1") != 0)
    return 1;
  FILE *pipe = popen("dot -Tdot -o /dev/null", "w");
  assert_non_null(pipe);
  assert_true(fputs(text, pipe) >= 0);
  assert_int_equal(pclose(pipe), 0);
  return 0;
}

static void dot_is_well_formed(void **state) {
  (void)state;
  for (int i = 0; i < 6; i++) {
    unroll_graph *g = i < 4 ? lstm_graph(i & 1) : scan_graph();
    const int64_t steps = i == 2 || i == 3 || i == 5 ? 3 : 0;
    char *text = dump(g, UNROLL_DUMP_DOT, steps);
    assert_dot(text);
    graphviz_accepts(text);
    const int scans = i == 2 ? 2 : i == 3 ? 4 : i >= 4;
    assert_int_equal(count(text, "subgraph cluster_"), scans * (1 + (int)steps));
    assert_int_equal(count(text, "label=\"t=1\""), steps ? scans : 0);
    if (i < 4)
      assert_non_null(strstr(text, "label=\"a \\\"name\\\" with \\\\ and\\na line\\nf32 [T,4,5]\""));
    else
      assert_non_null(
          strstr(text, steps ? "t0 -> b0_s2_n0 [label=\"[2] f32 [4,3]\"]" : "t0 -> b0_t0 [label=\"f32 [6,4,3]\"]"));
    unroll_string_free(text);
    unroll_graph_destroy(g);
  }
}

static void misuse_is_refused(void **state) {
  (void)state;
  unroll_error err = UNROLL_ERROR_INIT;
  char *text = "";
  unroll_graph *g = lstm_graph(0);
  assert_int_equal(unroll_graph_dump(NULL, UNROLL_DUMP_TEXT, 0, &text, &err), UNROLL_E_INVALID);
  assert_null(text);
  assert_int_equal(unroll_graph_dump(g, UNROLL_DUMP_TEXT, 0, NULL, &err), UNROLL_E_INVALID);
  assert_int_equal(unroll_graph_dump(g, 2, 0, &text, &err), UNROLL_E_INVALID);
  assert_non_null(strstr(err.message, "format 2"));
  assert_int_equal(unroll_graph_dump(g, UNROLL_DUMP_DOT, -1, &text, &err), UNROLL_E_INVALID);
  assert_non_null(strstr(err.message, "-1 steps"));
  /* A scan that is open; then the error that the graph keeps. */
  unroll_scan *s = unroll_scan_begin(g, UNROLL_FORWARD, unroll_none());
  assert_int_equal(unroll_graph_dump(g, UNROLL_DUMP_TEXT, 0, &text, &err), UNROLL_E_GRAPH);
  assert_int_equal(unroll_graph_dump(unroll_scan_body(s), UNROLL_DUMP_TEXT, 0, &text, &err), UNROLL_E_GRAPH);
  unroll_slice(unroll_graph_find(g, "h"), 0, 3, 2);
  assert_int_equal(unroll_graph_dump(g, UNROLL_DUMP_TEXT, 3, &text, &err), UNROLL_E_SHAPE);
  assert_non_null(strstr(err.message, "h f32 [4,5]"));
  assert_null(text);
  unroll_string_free(NULL);
  unroll_graph_destroy(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_graph_as_it_is),       cmocka_unit_test(a_scan_has_its_body_below),
      cmocka_unit_test(steps_follow_the_carry), cmocka_unit_test(layers_are_laid_out_both_ways),
      cmocka_unit_test(dot_is_well_formed),     cmocka_unit_test(misuse_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
