/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a translator, a task of the trainer. */
#ifndef TRANSLATE_PRIVATE_H
#define TRANSLATE_PRIVATE_H
#include <unroll/translate.h>

#include "train/trainer.h"

#define TRANSLATOR_CLASSES 5 /* at most; at most TRAINER_MAX_VARIANTS */
#define TRANSLATOR_PROGRAMS 24
#define TRANSLATOR_MOST (1 << 20)

/*
 * A source's length can't be a run-time size, since keys are [B,S,..]. So batches have the least of a few lengths that
 * holds them, and a graph of its own.
 */
struct translator_class {
  int64_t source, target; /* the longest; with </s> */
};

/* Pairs as ids. */
struct translator_data {
  unroll_sequences *sources, *targets; /* targets end with </s> */
};

/* How a translation is found. */
struct translator_way {
  int32_t beam, sampled;
  double alpha, temperature, top_p;
  int64_t top_k;
};
/* A compiled graph that translates, or that reads weights out of one that is there (`forced`). */
struct translator_program {
  struct translator_way way;
  bool forced;
  int64_t rows, source, steps;
  struct trainer_program program;
  uint64_t used; /* when */
};

struct translator_reinforce {
  int32_t baseline; /* 0: no REINFORCE */
  uint64_t seed;
  double decay, value;
  int64_t seen;
};

struct unroll_translator {
  struct trainer trainer;
  unroll_translator_options options; /* training: see the trainer's */
  unroll_tokens *sources, *targets;
  struct translator_class classes[TRANSLATOR_CLASSES]; /* ascending */
  uint32_t n_classes;
  int32_t *by_place; /* [sources' vocabulary] what most often stands at a token's place */
  int64_t n_pairs;
  uint64_t data_hash, split_hash;
  struct translator_reinforce reinforce;

  struct translator_data data;
  int64_t *order, counts[UNROLL_PARTS]; /* items, part by part */
  unroll_batches *train, *validation;
  int64_t validation_rows;
  int64_t limit; /* of lengths, that train has; INT64_MAX: none */
  uint64_t epoch;
  /* room for a batch */
  int32_t *source, *inputs, *targets_room, *lengths[2];

  struct translator_program programs[TRANSLATOR_PROGRAMS];
  uint64_t clock;
};

static inline int32_t translator_end(const unroll_translator *t) {
  return unroll_tokens_special(t->targets, UNROLL_TOKEN_END);
}
static inline uint64_t translator_order_seed(const unroll_translator *t) {
  return t->reinforce.baseline ? t->reinforce.seed : t->options.training.seed;
}
/* Steps of a free run over such a source, </s> counted. */
int64_t translator_steps(const unroll_translator *t, int64_t source);

/* ---- options ---- */
unroll_status translator_options_check(const unroll_translator_options *o, unroll_error *err);
/* Is a batch of such lengths within the bounds? */
unroll_status translator_extents_check(const unroll_translator *t, unroll_error *err);
unroll_recurrent translator_encoder_cells(const unroll_translator_options *o);
unroll_recurrent translator_decoder_cells(const unroll_translator_options *o);
bool translator_samples(const unroll_translator_options *o);
unroll_translator_options translator_options_in_use(const unroll_translator *t);

/* ---- graphs ---- */
struct trainer_loss translator_build(const void *owner, struct trainer_build *b);
/* Outputs: "log_prob" and, "ids" [T,B] or of a beam [T,B,K], "lengths"; forced: "weights" [T,B,S]. */
unroll_status translator_graph_program(const unroll_translator *t, const struct translator_program *p,
                                       unroll_graph **graph, unroll_error *err);

/* Fed with targets. Outputs: of layer l "gates l" [T,B,GH] and "norm l" [T,B]. */
unroll_status translator_graph_steps(const unroll_translator *t, int64_t S, int64_t T, int64_t B, unroll_graph **graph,
                                     unroll_error *err);

/* ---- data ---- */
unroll_status translator_vocabularies(unroll_translator *t, const unroll_pairs *pairs, unroll_error *err);
/* Ids of n pairs of texts, wherever they come from. */
unroll_status translator_encode(const unroll_translator *t, const char *const *sources, const char *const *targets,
                                int64_t n, struct translator_data *data, unroll_error *err);
void translator_data_free(struct translator_data *data);
uint64_t translator_data_hash(const unroll_pairs *pairs);
/* Split, classes and table of a new model (or else those of the file), batches, room. */
unroll_status translator_attach(unroll_translator *t, const unroll_pairs *pairs, bool is_new, unroll_error *err);
void translator_detach(unroll_translator *t);
uint32_t translator_class_of(const unroll_translator *t, int64_t source);
/* The batch of a place; its epoch is started. */
unroll_status translator_batch_of(unroll_translator *t, const struct trainer_place *place, unroll_batch *batch,
                                  unroll_error *err);
/* Sources of `rows` rows of a batch, S steps; items -1 have length 0. */
unroll_status translator_write_sources(const unroll_sequences *sources, const int64_t *items, int64_t rows, int64_t S,
                                       int32_t *ids, int32_t *lengths, unroll_binding *b, unroll_error *err);
uint32_t translator_variant(void *owner, const struct trainer_place *place, bool training);
unroll_status translator_feed(void *owner, const struct trainer_place *place, unroll_binding *b,
                              struct trainer_feed *feed, unroll_error *err);
unroll_status translator_feed_evaluation(void *owner, uint64_t index, unroll_binding *b, struct trainer_feed *feed,
                                         unroll_error *err);
uint64_t translator_epoch_updates(const void *owner, uint64_t epoch);

/* ---- decoding ---- */
/* A program for such sources, out of those that are kept. Valid until the next call. */
unroll_status translator_program(unroll_translator *t, const struct translator_way *way, bool forced, int64_t rows,
                                 int64_t source, int64_t steps, struct translator_program **program, unroll_error *err);
void translator_programs_free(unroll_translator *t);
/* Translations of n sources, item by item. */
struct translator_found {
  int64_t n;
  uint64_t *starts;         /* [n] in ids; */
  int32_t *lengths, *ended; /* [n] without </s> */
  double *log_probs;        /* [n] */
  int32_t *ids;
  uint64_t *weight_starts; /* [n] in weights; */
  float *weights;          /* both NULL: not asked for */
};
/* items NULL: all n. */
unroll_status translator_find(unroll_translator *t, const unroll_sequences *sources, const int64_t *items, int64_t n,
                              const unroll_translate_options *options, struct translator_found *found,
                              unroll_error *err);
void translator_found_free(const unroll_translator *t, struct translator_found *found);

/* ---- REINFORCE ---- */
unroll_status translator_reinforce_feed(unroll_translator *t, const struct trainer_place *place, const int64_t *items,
                                        int64_t rows, uint32_t v, unroll_binding *b, struct trainer_feed *feed,
                                        unroll_error *err);
unroll_status translator_reinforce_evaluate(void *owner, double *loss, double *metric, unroll_error *err);
unroll_status translator_reinforce_check(const struct translator_reinforce *r, unroll_error *err);

/* ---- life, file ---- */
unroll_status translator_begin(unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                               unroll_translator **out, unroll_error *err);
/* Which task it is, by its phase. */
void translator_set_task(unroll_translator *t);
unroll_status translator_metadata_write(const void *owner, unroll_safetensors_writer *writer, unroll_error *err);

#endif
