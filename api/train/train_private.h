/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a language model. The parameters and states have one home at a time: the training program's binding where
 * there is one, else the `stored` copies that came out of a file. The programs that evaluate and sample share the
 * training binding's parameters, and are made when they are first needed.
 */
#ifndef TRAIN_PRIVATE_H
#define TRAIN_PRIVATE_H
#include <unroll/io.h>
#include <unroll/nn.h>
#include <unroll/train.h>

#include "base/base_private.h"

#define LM_MAX_LAYERS 16
#define LM_MAX_PARAMS (LM_MAX_LAYERS * 4 + 3) /* W_x, W_h, b, b_n; embedding, linear weight and bias */
/* How many losses, or sampled ids, the device keeps until the host reads them. */
#define LM_HISTORY 64
/* A dynamic loss scale's bounds. The inverse of the upper one is the least number that no device takes for zero. */
#define LM_LOSS_SCALE_LEAST 1.0
#define LM_LOSS_SCALE_MOST 0x1p126
/* States that a dynamic loss scale adds: the scale and its inverse, f32; the updates in a row that were made, and all
 * of them, i32. */
#define LM_LOSS_SCALE "loss_scale"
#define LM_LOSS_SCALE_INVERSE "loss_scale.inverse"
#define LM_LOSS_SCALE_STREAK "loss_scale.streak"
#define LM_LOSS_SCALE_STEP "loss_scale.step"
#define LM_LOSS_SCALES "loss_scales" /* the scale's history */

/* A tensor that a model's file has: a parameter or a state. */
struct lm_tensor {
  char *name;
  int32_t dtype, rank, role; /* UNROLL_ROLE_PARAM or UNROLL_ROLE_STATE */
  int64_t shape[UNROLL_MAX_RANK];
  uint64_t bytes;
  void *stored; /* NULL where the training binding has it */
};

/* A compiled graph and its buffers; both NULL, or both there. */
struct lm_program {
  unroll_executable *exe;
  unroll_binding *binding;
};

struct unroll_lm {
  unroll_allocator allocator;
  unroll_device **devices;
  uint32_t n_devices;
  unroll_lm_options options;
  unroll_vocabulary *vocabulary;
  struct lm_tensor *tensors;
  uint32_t n_tensors;

  uint64_t update, best_update;
  double best_loss;  /* NaN: not evaluated yet */
  uint64_t diverged; /* the update, counted from 1, that found no finite number; 0: none did */
  bool busy;         /* a callback runs */

  uint64_t text_hash; /* of the text it is trained on, as its size: known without the text too */
  int64_t text_characters;
  const unroll_text *text;
  unroll_text_stream stream, validation; /* validation.ids NULL: there is no such part */
  int32_t *x, *targets;                  /* [T,B] */

  struct lm_program train, evaluate, sample;
  int64_t sample_top_k; /* what the sampling program was made for */
  bool sample_greedy;
};

/* ---- options ---- */
static inline bool lm_scale_is_dynamic(const unroll_lm_options *o) { return o->loss_scale_interval > 0; }
/* 0 for a number that is no cell. */
int64_t lm_gates(int32_t cell);
const char *lm_cell_name(int32_t cell);
const char *lm_optimizer_name(int32_t kind);
/* V: the size of the vocabulary. */
unroll_status lm_options_check(const unroll_lm_options *o, int64_t V, unroll_error *err);

/* ---- graphs ---- */
unroll_status lm_graph_train(const unroll_lm *lm, unroll_graph **graph, unroll_error *err);
unroll_status lm_graph_evaluate(const unroll_lm *lm, unroll_graph **graph, unroll_error *err);
unroll_status lm_graph_sample(const unroll_lm *lm, bool greedy, int64_t top_k, unroll_graph **graph, unroll_error *err);
/* The parameters and states of a graph that a file keeps, which is all but the histories, as lm->tensors. */
unroll_status lm_list_tensors(unroll_lm *lm, unroll_graph *graph, unroll_error *err);
/* Compiles and binds. Destroys the graph, whatever happens. */
unroll_status lm_program_make(unroll_lm *lm, unroll_graph *graph, struct lm_program *program, unroll_error *err);
void lm_program_free(struct lm_program *program);
/* Gives a program that trains nothing its parameters: those of the training binding, or the stored ones. */
unroll_status lm_program_parameters(unroll_lm *lm, struct lm_program *program, unroll_error *err);
/* The states h.l and c.l, to zero. */
unroll_status lm_program_reset(const unroll_lm *lm, const struct lm_program *program, unroll_error *err);

/* A clock that only goes forward. */
double lm_seconds(void);

/* ---- life ---- */
/* Devices and allocator; all else as zeros. */
unroll_status lm_begin(unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                       unroll_lm **out, unroll_error *err);
/* The streams over the text. Leaves lm as it was on failure. */
unroll_status lm_attach_text(unroll_lm *lm, const unroll_text *text, unroll_error *err);
unroll_status lm_not_busy(const unroll_lm *lm, const char *what, unroll_error *err);
/* Ready to train and no callback running. */
unroll_status lm_ready(const unroll_lm *lm, const char *what, unroll_error *err);

/* ---- file: metadata ---- */
/* The values of a model's metadata, written as JSON and read back. Numbers keep their exact value in every locale. */
struct lm_metadata {
  unroll_lm_options options;
  uint64_t vocabulary, update, best_update, text_hash;
  int64_t text_characters;
  double best_loss;
};
unroll_status lm_metadata_write(const unroll_lm *lm, unroll_safetensors_writer *writer, unroll_error *err);
unroll_status lm_metadata_read(const unroll_safetensors *file, const unroll_allocator *allocator,
                               struct lm_metadata *metadata, unroll_error *err);

#endif
