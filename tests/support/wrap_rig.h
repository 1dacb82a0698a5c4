/* SPDX-License-Identifier: Apache-2.0 */
/* The cpu backend's own table with the wrapper "check" around it, for the tests that misuse it, and small graphs for it. */
#ifndef WRAP_RIG_H
#define WRAP_RIG_H
#include "io_support.h"
#include "plugins/wrap.h"

extern const unroll_plugin unroll_plugin_v1_cpu;

struct rig {
  unroll_backend *backend;
  const unroll_backend_ops *ops; /* the wrapped one */
  unroll_backend_ops inner;      /* what stands behind it: the cpu backend's, but for what a test replaces */
  unroll_allocator allocator;
  unroll_logger logger;
  struct wrap_host host;
  struct wrap_stack *stack;
  unroll_backend_device *device;
  unroll_backend_queue *queue;
  unroll_exec_info info; /* of rig_fake_groups */
};
extern struct rig rig;
extern char rig_log[8192];
extern const unroll_host rig_plain_host; /* malloc, and no log */

/* A test's, with `rig` open between them; at the end the test has destroyed all that it made. */
int rig_setup(void **state);
int rig_teardown(void **state);
#define RIGGED(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)

/* Another one; inner may have been filled. */
void rig_open(struct rig *r);
unroll_status rig_close(struct rig *r, unroll_error *err);
/* What was logged since the last call has these words, and with NULL nothing was. */
void rig_logged(const char *words);
/* The check finds it, every time, and says so in the error and in the log. */
#define assert_found(expr, words)                  \
  do {                                             \
    assert_error(expr, UNROLL_E_STATE, words);     \
    assert_error(expr, UNROLL_E_STATE, "check: "); \
    rig_logged(words);                             \
  } while (0)

/* Of zeros. */
unroll_backend_buffer *rig_buffer(uint64_t bytes);

/* ---- groups of tensors [16] f32 ---- */
enum { ROWS = 16, BYTES = ROWS * 4 };
typedef struct tiny {
  unroll_graph_view view;
  unroll_node_view nodes[4];
  unroll_tensor_view tensors[8];
  uint32_t edges[40];
  int64_t dim_min[1], dim_max[1];
  unroll_unary_attr tanh;
  unroll_optimizer_attr sgd;
} tiny;
uint32_t tiny_tensor(tiny *g, const char *name, int32_t role, uint32_t slot, uint64_t offset);
void tiny_node(tiny *g, uint32_t op, const void *attr, uint32_t attr_size, uint32_t n_in, const uint32_t *in,
               uint32_t out);
void tiny_tanh(tiny *g, uint32_t in, uint32_t out);
/* After the nodes: what goes in and comes out. */
void tiny_end(tiny *g, uint32_t n_in, const uint32_t *in, uint32_t n_out, const uint32_t *out);
unroll_backend_exec *tiny_compile(const tiny *g);
/* x in slot 0, y = tanh(x) in slot 1 */
void tiny_simple(tiny *g);

unroll_slot slot_at(unroll_backend_buffer *b, uint64_t offset, uint64_t bytes);
static const unroll_run_args rig_once = {.struct_size = sizeof rig_once, .count = 1};

/* From now on `rig` compiles, binds and runs anything, to no effect; exec_info gives rig.info. */
void rig_fake_groups(void);
#endif
