/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recurrent layers of a model's file, of whatever task, their weights as double on the host. Also those of any other
 * safetensors file whose tensors are named as unroll_rnn (nn.h) names them.
 */
#ifndef LAYER_VIEW_H
#define LAYER_VIEW_H
#include <jansson.h>
#include <stdbool.h>
#include <unroll/io.h>
#include <unroll/network.h>

#define LAYER_TENSORS 13 /* at most */
typedef struct layer_tensor {
  const char *what; /* "W_h" */
  const double *data;
  int64_t rows, columns; /* columns 0: a vector */
} layer_tensor;

typedef struct layer_view { /* of one direction */
  char name[96];            /* "0 forward"; where a file has several stacks "encoder 0 forward" */
  char stack[64];           /* the parameters' prefix: "rnn", "encoder", "decoder", .. */
  int32_t layer, direction; /* direction 1: reverse */
  int64_t input;            /* I */
  /* Of its stack, as unroll_rnn has them for inference; layers and bidirectional are filled once all layers are read. */
  unroll_rnn_options options;
  /* All that unroll_rnn wants; a bias that the file lacks is 0. Of a decoder W_x is of the token read, the context's part
   * is not here. */
  layer_tensor tensors[LAYER_TENSORS];
  size_t n_tensors;
} layer_view;

typedef struct model_view {
  unroll_safetensors *file;
  const char *path;
  const char *kind;         /* unroll.kind; "" where the file says none */
  const char *task;         /* "lm", "classify", "series", "seq2seq", or "layers" */
  json_t *model, *training; /* its metadata unroll.model and unroll.training, objects, empty where there is none */
  layer_view *layers;       /* forward before reverse, encoders before decoders */
  size_t n;
  int64_t parameters; /* numbers, without an optimizer's */
} model_view;

/* false: said on stderr; a file without recurrence is one reason. model_view_close is due all the same. */
bool model_view_open(const char *path, model_view *view);
void model_view_close(model_view *view);
/* Number i of a tensor of f32 or f64. */
double stored_number(const unroll_stored_tensor *t, uint64_t i);
/* Is a tensor of a file one? What belongs to an optimizer or a sequence is none; files of this library list them by name. */
bool model_is_parameter(const char *name);

/* A stack as network.h has it; the view stays open, and `network` points into this struct, which stays where it is. */
typedef struct network_view {
  unroll_network network;
  unroll_rnn_options options;
  unroll_network_weight *weights;
  char *names;
} network_view;
/* stack: as in layer_view. false: said on stderr. network_view_close is due all the same. */
bool model_view_network(const model_view *view, const char *stack, network_view *out);
void network_view_close(network_view *network);

bool layer_is_lstm(const layer_view *layer);        /* with c, coupled gates or not */
bool layer_is_minimal(const layer_view *layer);     /* without W_h */
int64_t layer_gates(const layer_view *layer);       /* G: row blocks of W_x */
int64_t layer_output_size(const layer_view *layer); /* P: of h; H without a projection */
int64_t layer_state_size(const layer_view *layer);  /* P, with c P + H */
/* Gate number `gate` of G. */
unroll_gate layer_gate(const layer_view *layer, int64_t gate);
/* The gate that makes the new state, whose block of W_h the words spectral radius are meant of: the candidate, an rnn's own. */
bool layer_gate_is_main(const layer_view *layer, int64_t gate);
const double *layer_data(const layer_view *layer, const char *what); /* of the tensor "W_h"; NULL: there is none */

#endif
