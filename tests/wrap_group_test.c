/* SPDX-License-Identifier: Apache-2.0 */
/* The wrapper "check": slots, workspaces, places of tensors, and what a run is given. What the ABI allows is not found. */
#include "wrap_rig.h"

/* ---- bind ---- */
static void slots_that_do_not_fit(void **state) {
  (void)state;
  tiny g;
  tiny_simple(&g);
  unroll_backend_exec *e = tiny_compile(&g);
  unroll_backend_buffer *b = rig_buffer(3 * BYTES);
  unroll_backend_binding *binding = NULL;
  unroll_slot slots[] = {slot_at(b, 0, BYTES), slot_at(NULL, 0, 0)};
#define BIND(n) rig.ops->bind(e, slots, (n), sizeof *slots, NULL, 0, &binding, &err)
  assert_found(BIND(2), "bind: slot 1, where y stands, has no buffer");
  slots[1] = slot_at(b, BYTES, BYTES - 4);
  assert_found(BIND(2), "slot 1 has 60 bytes; y needs 64 from byte 0 on");
  slots[1] = slot_at(b, BYTES, 3 * BYTES);
  assert_found(BIND(2), "slot 1, 192 bytes from byte 64 on, leaves buffer 1 of 192 bytes");
  slots[1] = slot_at(b, BYTES + 2, BYTES);
  assert_found(BIND(2), "y, of elements of 4 bytes, is not aligned");
  assert_found(BIND(1), "1 slots, the view has 2");
  assert_found(rig.ops->bind(e, slots, 2, 8, NULL, 0, &binding, &err), "2 slots, 8 bytes apart");
  slots[1] = slot_at(b, BYTES / 2, BYTES);
  assert_found(BIND(2),
               "y and x (slots 1, 0) share bytes of buffer 1: the node that writes the first reads the second");
  slots[1] = slot_at(b, BYTES, BYTES);
  rig.ops->buffer_destroy(b);
  assert_found(BIND(2), "buffer 1 of cpu:0 was destroyed before");
  assert_null(binding);
  rig.ops->exec_destroy(e);
  rig_logged(NULL);
}

static void workspaces(void **state) {
  (void)state;
  rig_fake_groups();
  rig.info = (unroll_exec_info){.workspace_bytes = 100, .workspace_alignment = 64};
  tiny g;
  tiny_simple(&g);
  unroll_backend_exec *e = tiny_compile(&g);
  unroll_backend_buffer *b = rig_buffer(4 * BYTES), *w = rig_buffer(128);
  unroll_backend_binding *binding = NULL;
  const unroll_slot slots[] = {slot_at(b, 0, BYTES), slot_at(b, BYTES, BYTES)};
#define WORKSPACE(w, at) rig.ops->bind(e, slots, 2, sizeof *slots, (w), (at), &binding, &err)
  assert_found(WORKSPACE(NULL, 0), "no workspace, executable 1 of cpu:0 asks for 100 bytes");
  assert_found(WORKSPACE(w, 64), "a workspace of 100 bytes from byte 64 on, in buffer 2 of 128 bytes");
  assert_found(WORKSPACE(w, 4), "the workspace is at byte 4, a multiple of 64");
  assert_found(WORKSPACE(b, 64), "the workspace and slot 1, where y stands, share bytes of buffer 1");
  assert_ok(WORKSPACE(w, 0));
  rig.ops->binding_destroy(binding);
  assert_ok(WORKSPACE(b, 128));
  rig.ops->binding_destroy(binding);
  rig.ops->exec_destroy(e);
  rig.ops->buffer_destroy(b);
  rig.ops->buffer_destroy(w);
  rig_logged(NULL);
}

/* ---- run ---- */
static void run_arguments(void **state) {
  (void)state;
  tiny g;
  tiny_simple(&g);
  unroll_backend_exec *e = tiny_compile(&g);
  rig.ops->exec_destroy(e);
  g.view.n_dims = 1;
  g.dim_min[0] = 4;
  g.dim_max[0] = ROWS;
  g.tensors[0].dim[0] = g.tensors[1].dim[0] = 0;
  e = tiny_compile(&g);
  unroll_backend_buffer *b = rig_buffer(2 * BYTES);
  const unroll_slot slots[] = {slot_at(b, 0, BYTES), slot_at(b, BYTES, BYTES)};
  unroll_backend_binding *binding = NULL;
  assert_ok(rig.ops->bind(e, slots, 2, sizeof *slots, NULL, 0, &binding, &err));
  int64_t dim = 3;
  unroll_run_args args = rig_once;
#define RUN() rig.ops->run(binding, rig.queue, &args, NULL, &err)
  assert_found(RUN(), "run: 0 run-time sizes at NULL, 1 expected");
  args.n_dims = 1;
  args.dims = &dim;
  assert_found(RUN(), "run-time size 0 is 3, 4 to 16 expected");
  dim = 5;
  args.direction = 2;
  assert_found(RUN(), "the direction is 2, 0 or 1 expected");
  args.direction = 0;
  args.struct_size = 16;
  assert_found(RUN(), "unroll_run_args of 16 bytes");
  args.struct_size = sizeof args;
  assert_ok(RUN());
  rig.ops->binding_destroy(binding);
  rig.ops->exec_destroy(e);
  rig.ops->buffer_destroy(b);
  rig_logged(NULL);
}

static void generations(void **state) {
  (void)state;
  tiny g;
  tiny_simple(&g);
  unroll_backend_exec *e = tiny_compile(&g);
  unroll_backend_buffer *b = rig_buffer(2 * BYTES);
  const unroll_slot slots[] = {slot_at(b, 0, BYTES), slot_at(b, BYTES, BYTES)};
  unroll_backend_binding *binding = NULL;
  const float one = 1;
  uint64_t generation[2] = {7, 7};
  unroll_run_args args = rig_once;
  args.generations = generation;
  assert_ok(rig.ops->bind(e, slots, 2, sizeof *slots, NULL, 0, &binding, &err));
  assert_ok(RUN()); /* y has other bytes afterwards: it is only written */
  assert_ok(RUN());
  assert_ok(rig.ops->write(rig.queue, b, BYTES - 4, &one, sizeof one, NULL, &err));
  assert_found(RUN(), "slot 0 has generation 7 as in the run before, but other bytes");
  generation[0] = 0;
  assert_ok(RUN());
  generation[0] = 8;
  assert_ok(RUN());
  assert_ok(rig.ops->fill(rig.queue, b, BYTES - 4, 4, 0, NULL, &err));
  args.generations = NULL;
  assert_ok(RUN());
  rig.ops->binding_destroy(binding);
  rig.ops->exec_destroy(e);
  rig.ops->buffer_destroy(b);
  rig_logged(NULL);
}

/* ---- tensors in the same place ---- */
static const unroll_run_args two_steps = {.struct_size = sizeof two_steps, .first = 0, .count = 2};

/* All in slot 0, a buffer of 16 tensors. words: what is found at bind, or of a template at a run of two steps; NULL: nothing. */
static void places(tiny *g, const char *words) {
  g->view.n_slots = 1;
  unroll_backend_exec *e = tiny_compile(g);
  unroll_backend_buffer *b = rig_buffer(16 * BYTES);
  unroll_backend_binding *binding = NULL;
  const unroll_slot slot = slot_at(b, 0, 16 * BYTES);
  if (words && !g->view.is_template) {
    assert_found(rig.ops->bind(e, &slot, 1, sizeof slot, NULL, 0, &binding, &err), words);
  } else {
    assert_ok(rig.ops->bind(e, &slot, 1, sizeof slot, NULL, 0, &binding, &err));
    if (words)
      assert_found(rig.ops->run(binding, rig.queue, &two_steps, NULL, &err), words);
    else
      assert_ok(rig.ops->run(binding, rig.queue, g->view.is_template ? &two_steps : &rig_once, NULL, &err));
  }
  rig.ops->binding_destroy(binding);
  rig.ops->exec_destroy(e);
  rig.ops->buffer_destroy(b);
  rig_logged(NULL);
}

/* x -> a -> b -> y, and c = tanh(a) after b where `late`: a is needed until then. At numbers of tensors. */
static void chain(double x_at, double a_at, double b_at, double y_at, int late, const char *words) {
  tiny g = {.view.n_slots = 1};
  const uint32_t x = tiny_tensor(&g, "x", UNROLL_ROLE_INPUT, 0, (uint64_t)(x_at * BYTES));
  const uint32_t a = tiny_tensor(&g, "a", UNROLL_ROLE_TEMP, 0, (uint64_t)(a_at * BYTES));
  const uint32_t b = tiny_tensor(&g, "b", UNROLL_ROLE_TEMP, 0, (uint64_t)(b_at * BYTES));
  const uint32_t y = tiny_tensor(&g, "y", UNROLL_ROLE_OUTPUT, 0, (uint64_t)(y_at * BYTES));
  tiny_tanh(&g, x, a);
  tiny_tanh(&g, a, b);
  tiny_tanh(&g, b, y);
  if (late)
    tiny_tanh(&g, a, tiny_tensor(&g, "c", UNROLL_ROLE_TEMP, 0, 15 * BYTES));
  tiny_end(&g, 1, &x, 1, &y);
  places(&g, words);
}

static void scratch_may_be_used_again(void **state) {
  (void)state;
  rig_fake_groups();
  chain(0, 1, 2, 3, 0, NULL);
  chain(0, 1, 0, 1, 0, NULL); /* in turns */
  chain(0, 1, 0.5, 2, 0,
        "b and a (slots 0, 0) share bytes of buffer 3: the node that writes the first reads the second");
  chain(0, 1, 2, 1, 1,
        "y and a (slots 0, 0) share bytes of buffer 4: a node reads the second after the first was written");
  chain(0, 0, 2, 3, 0, "a and x");
  chain(0, 1, 2, 15, 1, "c and y (slots 0, 0) share bytes of buffer 6: the second is an output, and is written first");

  /* What no node writes and is read later: of a role, a tensor; TEMP, perhaps a view of what was written. */
  for (int way = 0; way < 4; way++) {
    tiny g = {.view.n_slots = 1};
    const uint32_t x = tiny_tensor(&g, "x", UNROLL_ROLE_INPUT, 0, 0);
    const uint32_t p =
        tiny_tensor(&g, "p", way == 0 ? UNROLL_ROLE_PARAM : UNROLL_ROLE_TEMP, 0, way >= 2 ? 3 * BYTES / 2 : BYTES);
    const uint32_t a = tiny_tensor(&g, "a", UNROLL_ROLE_TEMP, 0, BYTES);
    const uint32_t z = tiny_tensor(&g, "z", UNROLL_ROLE_TEMP, 0, 4 * BYTES);
    const uint32_t y = tiny_tensor(&g, "y", UNROLL_ROLE_OUTPUT, 0, 6 * BYTES);
    if (way == 3) {
      g.tensors[z].offset = g.tensors[p].offset; /* the scratch of a, and p is a view of it */
    }
    tiny_tanh(&g, x, a);
    tiny_tanh(&g, x, z);
    tiny_tanh(&g, p, y);
    tiny_end(&g, 2, (uint32_t[]){x, p}, 1, &y);
    places(&g, way == 0 || way == 2 ? "a and p" : NULL);
  }
}

static void updates_in_place(void **state) {
  (void)state;
  rig_fake_groups();
  for (int way = 0; way < 4; way++) {
    tiny g = {.view.n_slots = 1};
    const uint32_t p = tiny_tensor(&g, "p", UNROLL_ROLE_PARAM, 0, 0),
                   d = tiny_tensor(&g, "d", UNROLL_ROLE_INPUT, 0, BYTES);
    const uint32_t v = tiny_tensor(&g, "v", UNROLL_ROLE_TEMP, 0, way == 1 ? BYTES / 2 : 0);
    if (way < 2) {
      tiny_node(&g, UNROLL_OP_OPTIMIZER, &g.sgd, sizeof g.sgd, 2, (uint32_t[]){p, d}, v);
    } else {
      g.tensors[v].alias = way == 2 ? (int32_t)p : -1;
      tiny_tanh(&g, p, v);
    }
    tiny_end(&g, 2, (uint32_t[]){p, d}, 0, NULL);
    places(&g, way == 1 ? "v and " : way == 3 ? "v and p" : NULL);
  }
}

static void private_groups_run_as_one(void **state) {
  (void)state;
  rig_fake_groups();
  for (int apart = 0; apart < 2; apart++) {
    tiny g = {.view.n_slots = 1};
    const uint32_t x = tiny_tensor(&g, "x", UNROLL_ROLE_INPUT, 0, 0);
    const uint32_t a = tiny_tensor(&g, "a", UNROLL_ROLE_TEMP, UNROLL_NO_SLOT, 0);
    const uint32_t y = tiny_tensor(&g, "y", UNROLL_ROLE_OUTPUT, 0, apart ? BYTES : 0);
    tiny_tanh(&g, x, a);
    tiny_tanh(&g, a, y);
    tiny_end(&g, 1, &x, 1, &y);
    places(&g, apart ? NULL : "y and x (slots 0, 0) share bytes of buffer 1: they are of one private group");
  }
}

static void steps_of_a_template(void **state) {
  (void)state;
  rig_fake_groups();
  for (int way = 0; way < 5; way++) {
    tiny g = {.view = {.n_slots = 1, .is_template = 1}};
    const uint32_t h = tiny_tensor(&g, "h", UNROLL_ROLE_CARRY, 0, 0),
                   c = tiny_tensor(&g, "c", UNROLL_ROLE_CAPTURE, 0, 8 * BYTES);
    const uint32_t x = tiny_tensor(&g, "x", UNROLL_ROLE_STEP, 0, 4 * BYTES),
                   a = tiny_tensor(&g, "a", UNROLL_ROLE_TEMP, 0, 9 * BYTES);
    const uint32_t next = tiny_tensor(&g, "next", UNROLL_ROLE_TEMP, 0, BYTES);
    g.tensors[x].step = BYTES;
    g.tensors[h].step = BYTES; /* in turns: h, next; next, h */
    g.tensors[next].step = -BYTES;
    g.tensors[h].period = g.tensors[next].period = 2;
    if (way == 1) { /* a history instead */
      g.tensors[h].period = g.tensors[next].period = 0;
      g.tensors[next].step = BYTES;
    } else if (way == 2)
      g.tensors[a].offset = 5 * BYTES; /* x of the next step */
    else if (way == 3)
      g.tensors[next].offset += BYTES / 2, g.tensors[next].step = 0; /* not where the next step looks */
    else if (way == 4)
      g.tensors[x].step = 12 * BYTES; /* out of the slot at t = 1 */
    tiny_node(&g, UNROLL_OP_BINARY, &g.tanh, sizeof g.tanh, 2, (uint32_t[]){h, c}, a);
    tiny_node(&g, UNROLL_OP_BINARY, &g.tanh, sizeof g.tanh, 2, (uint32_t[]){x, a}, next);
    tiny_end(&g, 3, (uint32_t[]){h, x, c}, 1, &next);
    places(&g, way == 2   ? "a and x (slots 0, 0) share bytes of buffer 3: the next step reads the second"
               : way == 3 ? "next and h"
               : way == 4 ? "x leaves its slot 0, of 1024 bytes, at t = 0..1"
                          : NULL);
  }
  tiny g = {.view = {.n_slots = 1, .is_template = 1}};
  const uint32_t x = tiny_tensor(&g, "x", UNROLL_ROLE_CAPTURE, 0, 0),
                 y = tiny_tensor(&g, "y", UNROLL_ROLE_TEMP, 0, BYTES);
  tiny_tanh(&g, x, y);
  tiny_end(&g, 1, &x, 1, &y);
  unroll_backend_exec *e = tiny_compile(&g);
  unroll_backend_buffer *b = rig_buffer(2 * BYTES);
  unroll_backend_binding *binding = NULL;
  const unroll_slot slot = slot_at(b, 0, 2 * BYTES);
  unroll_run_args args = {.struct_size = sizeof args, .first = 1, .count = 3, .direction = UNROLL_REVERSE};
  assert_ok(rig.ops->bind(e, &slot, 1, sizeof slot, NULL, 0, &binding, &err));
  assert_found(RUN(), "3 steps from t = 1 on, in reverse");
  args.count = -1;
  assert_found(RUN(), "-1 steps from t = 1 on");
  args.count = 2;
  assert_ok(RUN());
  rig.ops->binding_destroy(binding);
  rig.ops->exec_destroy(e);
  rig.ops->buffer_destroy(b);
  rig_logged(NULL);
}

/* What the steps of a shorter run leave out may be copied with the rest; what no run writes may not. */
static void steps_that_were_left_out(void **state) {
  (void)state;
  rig_fake_groups();
  char bytes[4 * BYTES];
  tiny g = {.view = {.n_slots = 2, .is_template = 1}};
  const uint32_t x = tiny_tensor(&g, "x", UNROLL_ROLE_CAPTURE, 0, 0), y = tiny_tensor(&g, "y", UNROLL_ROLE_TEMP, 1, 0);
  g.tensors[y].step = BYTES;
  tiny_tanh(&g, x, y);
  tiny_end(&g, 1, &x, 1, &y);
  unroll_backend_exec *e = tiny_compile(&g);
  unroll_backend_buffer *b = NULL;
  unroll_backend_binding *binding = NULL;
  assert_ok(rig.ops->buffer_create(rig.device, 5 * BYTES, 0, &b, &err));
  const unroll_slot slots[] = {slot_at(b, 0, BYTES), slot_at(b, BYTES, 4 * BYTES)};
  assert_ok(rig.ops->bind(e, slots, 2, sizeof *slots, NULL, 0, &binding, &err));
  assert_found(rig.ops->read(rig.queue, b, BYTES, bytes, sizeof bytes, NULL, &err), "byte 64 of buffer 1");
  const unroll_run_args args = {.struct_size = sizeof args, .first = 0, .count = 2};
  assert_ok(rig.ops->run(binding, rig.queue, &args, NULL, &err));
  assert_ok(rig.ops->read(rig.queue, b, BYTES, bytes, sizeof bytes, NULL, &err));
  assert_found(rig.ops->read(rig.queue, b, BYTES - 1, bytes, 2, NULL, &err), "byte 63 of buffer 1");
  rig.ops->binding_destroy(binding);
  rig.ops->exec_destroy(e);
  rig.ops->buffer_destroy(b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      RIGGED(slots_that_do_not_fit),
      RIGGED(workspaces),
      RIGGED(run_arguments),
      RIGGED(generations),
      RIGGED(scratch_may_be_used_again),
      RIGGED(updates_in_place),
      RIGGED(private_groups_run_as_one),
      RIGGED(steps_of_a_template),
      RIGGED(steps_that_were_left_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
