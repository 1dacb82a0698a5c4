/* SPDX-License-Identifier: Apache-2.0 */
/*
 * suite_layers*.c: graphs of a user, whole: layers, scans and their gradients through the runtime.
 *
 * A case is a struct net_spec, whose function builds the graph twice: in the case's dtype for the device, which must
 * take all of it, and in f64 for the reference, which has no layers of its own: there they are lowered to scans of
 * elementary ops. The device's graph may have a run-time number of steps or carry its state over several runs; that of
 * the reference then has the static number, or the whole sequence at once. Inputs, their order and their values are
 * the same in both.
 */
#ifndef SUITE_LAYERS_PRIVATE_H
#define SUITE_LAYERS_PRIVATE_H
#include "conform/conform_private.h"

enum { NET_TENSORS = 72, NET_OUTPUTS = 72, NET_RUNS = 3, NET_TENSOR_NAME = 32 };

/* What fills a sequence's length: row 0 is full and row 1 empty where they are ragged, the others anything of 0..T. */
enum net_lengths { LENGTHS_NONE, LENGTHS_RAGGED, LENGTHS_ALL_T, LENGTHS_ALL_0 };

enum net_flags {
  NET_ANEW = 1,  /* an input: other values before every run */
  NET_TIME = 2,  /* [T,B,..]: an input is NaN past a sequence's length, an output exactly 0 */
  NET_ROWS = 4,  /* an output [B,..]: exact in the rows of length 0, which no step has changed */
  NET_CHUNK = 8, /* [T,..]: the device's runs are parts of the reference's one run */
  NET_LAST = 16, /* an output that is compared after the last run alone: in between the reference has none */
  NET_WHOLE = 32 /* an input of whole numbers lo..hi */
};

enum net_results { RESULT_Y = 1, RESULT_H = 2, RESULT_C = 4 };
/* Of a layer: which it has, and of which kind its keeps are: bool and of every step where nothing else is said. */
enum net_masks { MASK_H = 1, KEEP_H = 2, KEEP_C = 4, KEEP_REAL = 8, KEEP_ONCE = 16 };
enum net_wanted { WANT_X = 1, WANT_W = 2, WANT_B = 4, WANT_STATE = 8, WANT_ALL = 15 };

struct net;
struct net_spec {
  void (*build)(struct net *n, const struct net_spec *s);
  const char *what; /* of a net or a scan */
  int32_t cell, direction, activation;
  int64_t T, B, I, H;
  int64_t T_max, T_then; /* a run-time size: its maximum, and T of the second run */
  uint32_t lengths;
  uint32_t results, wanted; /* masks: what is read, and what gradients are asked for, none without grad */
  uint32_t form;            /* a net's or a scan's own */
  uint32_t runs;
  uint32_t masks; /* of enum net_masks */
  bool grad, no_bias, no_state, chunked, exact, reshapes, inside, is_model;
};

struct net_tensor {
  char name[NET_TENSOR_NAME];
  unroll_tensor tensor;
  int32_t dtype;
  uint32_t flags;
  bool is_lengths, is_shift, is_updated;
  double lo, hi, budget;
  uint64_t row; /* elements, of a sequence those of one step */
};

/* A graph being built, and run. */
struct net {
  const struct net_spec *spec;
  const char *name; /* of the case */
  uint64_t seed;
  unroll_graph *g;
  int32_t dtype; /* of its reals */
  int64_t T;     /* what stands on axis 0 of a sequence: may be a run-time size */
  bool is_reference, failed;
  uint32_t n_in, n_out;
  struct net_tensor in[NET_TENSORS], out[NET_OUTPUTS];
};

/*
 * A tensor that the caller writes: role INPUT, PARAM or STATE; real, uniform in lo..hi. The budget of an output is its
 * allowed error in units of eps·max|reference|.
 */
unroll_tensor net_in(struct net *n, int32_t role, const char *name, double lo, double hi, uint32_t flags, int32_t rank,
                     const int64_t *shape);
/* Likewise of a parameter that is there already. */
void net_given(struct net *n, unroll_tensor x, double lo, double hi);
unroll_tensor net_integers(struct net *n, const char *name, double lo, double hi, uint32_t flags, int32_t rank,
                           const int64_t *shape);
/* A square matrix with a single 1 in each row and column, which leaves whole numbers small. */
unroll_tensor net_shift(struct net *n, const char *name, int64_t size);
/* Those of the spec for the batch, or none. */
unroll_tensor net_lengths(struct net *n);
void net_out(struct net *n, unroll_tensor x, const char *name, double budget, uint32_t flags);
/* What a run leaves in a parameter or a state. */
void net_out_of(struct net *n, const char *name, double budget, uint32_t flags);

/*
 * The gradients of the sum over i of y[i]·dy[i] with respect to x, where dy[i] is an input of its own, "d." and y's
 * name. flags: NET_TIME of a sequence.
 */
struct net_result {
  unroll_tensor tensor;
  const char *name;
  uint32_t flags;
};
void net_gradient(struct net *n, const struct net_result *y, uint32_t n_y, const unroll_tensor *x, uint32_t n_x,
                  unroll_tensor *dx);

/* Parameters of the spec's cell, named W_x, W_h, b, b_n and the suffix. */
struct net_weights {
  unroll_tensor W_x, W_h, b, b_n;
};
struct net_weights net_make_weights(struct net *n, const char *suffix, int64_t I, int64_t H, uint32_t flags);
/* One layer of the spec's cell. h0, c0: none for zeros. */
unroll_layer_outputs net_layer(struct net *n, unroll_tensor x, const struct net_weights *w, int32_t direction,
                               unroll_tensor h0, unroll_tensor c0, unroll_tensor lengths, int32_t index);
/* Those that the cell has. Returns their number, at most 4. */
uint32_t net_weight_list(const struct net_weights *w, unroll_tensor *list);

/*
 * A network of the library's own layers, which make their parameters: these become inputs, W_* and weights of rank 2
 * scaled by their columns, gains (ln_*) around 1, others around 0. Then the results, and with grad the gradients of all
 * of them with respect to x and the parameters.
 */
enum { NET_WANTED = 64 };
struct net_model {
  struct net_result y[8];
  unroll_tensor x[NET_WANTED];
  char x_names[NET_WANTED][NET_TENSOR_NAME]; /* of the gradients */
  uint32_t x_flags[NET_WANTED], n_y, n_x;
  double chain, K; /* of net_budget, forward */
};
/* x as one whose gradient is asked for, named "d" and that name; y as a result, if there is such a one. */
void net_want(struct net *n, struct net_model *m, unroll_tensor x, const char *name, uint32_t flags);
void net_read(struct net_model *m, unroll_tensor y, const char *name, uint32_t flags);
void net_finish_model(struct net *n, struct net_model *m);

/* Budgets, see suite_layers.c. chain: steps one after another; K: the longest sum in a step; terms: in the last sum. */
double net_budget(int32_t cell, double chain, double K, double terms);

enum conform_outcome net_run(struct conform_session *session, const struct conform_case *c, char *message);

/* Whoever makes a list of specs: first counts, then fills. */
struct net_maker {
  struct conform_list *list;
  struct net_spec *specs; /* NULL: only counted */
  uint32_t n;
  int32_t dtype;
};
/* Adds a case, named by the grammar of suite_layers.c; modifiers: "" or with a space before each. */
void net_add(struct net_maker *m, const struct net_spec *spec, const char *modifiers);
void net_list_nets(struct net_maker *m);
void net_list_scans(struct net_maker *m);
void net_list_models(struct net_maker *m);
void net_list_sequences(struct net_maker *m);

#endif
