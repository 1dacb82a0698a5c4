/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/translate.h: encoder and decoder with attention on pairs of texts: train, save, resume, translate, score.
 *
 *     unroll_pairs_load("cmudict.dict", &(unroll_pairs_options){.struct_size = sizeof(unroll_pairs_options),
 *                       .form = UNROLL_PAIRS_CMUDICT, .flags = UNROLL_PAIRS_NO_STRESS}, NULL, &pairs, &err);
 *     unroll_translator_options options = unroll_translator_options_default();
 *     unroll_translator *t;
 *     unroll_translator_create(&device, 1, pairs, &options, NULL, &t, &err);
 *     unroll_train_options run = {.struct_size = sizeof run, .minutes = 60, .progress = show};
 *     unroll_translator_train(t, &run, &err);
 *     unroll_translator_save(t, "phonemes.safetensors", &err);
 *     unroll_translator_translate(t, words, 3, NULL, print, NULL, &err);
 *     unroll_translator_destroy(t);
 *
 * The encoder's recurrent layers read the source's embedded tokens; the decoder begins from their last states
 * (unroll_bridge), attends to their outputs, and says the target token by token, up to and with </s> (unroll_decode,
 * seq2seq.h). Training feeds it the truth, or by chance its own choices (scheduled sampling), and minimises the cross
 * entropy of the target's tokens; from there REINFORCE goes on to the error rate itself.
 *
 * Every epoch has each training pair once, in an order that is a function of seed and epoch; batches hold pairs of like
 * length. A run that was saved and resumed gives the same losses as one that was not (the same bits on "cpu"). Statuses
 * beside those named: as in train.h.
 */
#ifndef UNROLL_TRANSLATE_H
#define UNROLL_TRANSLATE_H
#include <unroll/datasets.h>
#include <unroll/seq2seq.h>
#include <unroll/train.h>
#ifdef __cplusplus
extern "C" {
#endif

/* "additive"; NULL for a number that is no attention. "before": no context. "linear": no schedule. Static. [any] */
UNROLL_API const char *unroll_attention_name(int32_t attention);
UNROLL_API const char *unroll_context_name(int32_t context);
UNROLL_API const char *unroll_sampling_name(int32_t schedule);

/*
 * The least number of insertions, deletions and substitutions that make b of a (Levenshtein 1966). Negative: there was
 * no memory for a row of m + 1 numbers. [any]
 */
UNROLL_API int64_t unroll_edit_distance(const int32_t *a, int64_t n, const int32_t *b, int64_t m);

/* What decides a training run's numbers, kept in the model's file. */
typedef struct unroll_translator_options {
  uint32_t struct_size;
  int32_t bidirectional; /* not 0: the encoder reads both ways */
  /* Of encoder and decoder; hidden is the decoder's. dropout also of what the last product reads and, unless there is
   * an input_dropout, of the target's embedded tokens. What holds for all steps holds for a whole target: under
   * scheduled sampling too. checkpoint is the encoder's alone, since targets have a run-time number of steps. */
  unroll_recurrent rnn;
  /* Units of a direction. 0: as the decoder's. Where the attention is a dot product, which wants the source's vectors as
   * wide as the query, and the encoder reads both ways, each direction has half of the projection or, without one, of the
   * units. */
  int64_t encoder_hidden;
  int64_t embedding;                 /* numbers per token of either side, 1 to 16384 */
  int32_t attention, context;        /* UNROLL_ATTENTION_*, also NONE; UNROLL_CONTEXT_* */
  int64_t attention_units;           /* ADDITIVE; 0: as many as a state h has */
  int32_t source_unit, target_unit;  /* UNROLL_UNIT_CHARACTER, UNROLL_UNIT_WORD */
  double testing;                    /* the part of the data, beside the validation's, that is never looked at */
  unroll_sampling_schedule sampling; /* of update u, counted from 0; start 1, rate 0: the truth is fed */
  int32_t sampling_pick;             /* UNROLL_PICK_*: what else is fed */
  /* 1: the decoder has cell, layers, hidden and dropout alone; all other options of cells are the encoder's, as in files
   * from before the decoder took them. */
  int32_t plain_decoder;
  /* Curriculum over lengths: epoch e, counted from 0, has the pairs whose sides are both of at most steps_start +
   * e·steps_increment tokens. steps_start 0: no curriculum; steps_increment at least 1 with one. */
  int64_t steps_start, steps_increment;
  unroll_training training; /* About its validation's share, and testing's, are not trained on: unroll_split by seed */
} unroll_translator_options;
/* gru, 1 layer of 256, a bidirectional encoder, embedding 64, additive attention before the cell, characters to words,
 * testing 0.05, and of unroll_training_default() all but batch, 128, and validation, 0.05. [any] */
UNROLL_API unroll_translator_options unroll_translator_options_default(void);

/* A model with its device side. All of its functions are [obj]. */
typedef struct unroll_translator unroll_translator;

/*
 * A new model with its initial parameters, ready to train. What it needs of the pairs is copied. The devices are those
 * of unroll_compile, in that order, and outlive the model.
 *   UNROLL_E_RANGE   a part has no pair, or no pair is short enough for steps_start
 *   UNROLL_E_FORMAT  a text without tokens, or a word that is spelled like a special token
 */
UNROLL_API unroll_status unroll_translator_create(unroll_device *const *devices, uint32_t n_devices,
                                                  const unroll_pairs *pairs, const unroll_translator_options *options,
                                                  const unroll_allocator *allocator, unroll_translator **translator,
                                                  unroll_error *err);
/* A model from its file, ready to translate and score; unroll_translator_resume makes it ready to train. Errors as
 * those of unroll_lm_load; a file of another kind of model is UNROLL_E_FORMAT. */
UNROLL_API unroll_status unroll_translator_load(unroll_device *const *devices, uint32_t n_devices, const char *path,
                                                const unroll_allocator *allocator, unroll_translator **translator,
                                                unroll_error *err);

enum { UNROLL_BASELINE_MEAN = 1, UNROLL_BASELINE_GREEDY = 2 };
/*
 * REINFORCE (Williams 1992): an update samples a translation of each source, its reward R is minus the edit distance to
 * the target by the target's length, and the loss is unroll_reinforce_loss. The baseline is the mean reward of the
 * updates so far, or, of each source, the reward of the greedy translation (Rennie et al. 2017). Without dropout, and
 * with zoneout's expectation: what is sampled and what learns have the same probabilities. The
 * loss that is reported is then that surrogate's, the metric the mean R, and the validation's loss minus the mean R of
 * greedy translations.
 */
typedef struct unroll_translator_reinforce_options {
  uint32_t struct_size;
  int32_t baseline; /* UNROLL_BASELINE_* */
  double decay;     /* MEAN: b <- decay·b + (1 - decay)·mean R, 0 <= decay < 1 */
  uint64_t seed;    /* of what is sampled, and of the orders from now on */
} unroll_translator_reinforce_options;
/*
 * From now on, for good, the model is trained so. Of a loaded model, before it is resumed; the best validation so far
 * is forgotten, being of another loss. UNROLL_E_STATE: it was resumed already, or trains so already.
 */
UNROLL_API unroll_status unroll_translator_reinforce(unroll_translator *translator,
                                                     const unroll_translator_reinforce_options *options,
                                                     unroll_error *err);
/* Makes a loaded model ready to go on training where it was saved. UNROLL_E_STATE: other pairs than it was trained on,
 * or it has them already. */
UNROLL_API unroll_status unroll_translator_resume(unroll_translator *translator, const unroll_pairs *pairs,
                                                  unroll_error *err);
/* As unroll_lm_save. */
UNROLL_API unroll_status unroll_translator_save(unroll_translator *translator, const char *path, unroll_error *err);
UNROLL_API void unroll_translator_destroy(unroll_translator *translator); /* NULL does nothing */

typedef struct unroll_translator_info {
  uint32_t struct_size;
  int32_t baseline;                       /* UNROLL_BASELINE_* where it trains by REINFORCE; 0: it does not */
  unroll_translator_options options;      /* as they are in use; texts live as long as the model */
  const unroll_tokens *sources, *targets; /* vocabularies; live as long as the model */
  int64_t longest_source, longest_target; /* tokens, </s> not counted, of the pairs that it was made of */
  int64_t counts[UNROLL_PARTS];           /* pairs of each part; 0 in a loaded model that was not resumed */
  uint64_t split_hash;                    /* equal hashes, equal sources and parts: unroll_split */
  unroll_padding padding;                 /* of the first epoch, or the one that it is in; likewise */
  uint64_t update;                        /* updates done so far, over all runs */
  uint64_t n_parameters;                  /* numbers that are trained */
  uint64_t updates_per_epoch;             /* of the longest epochs; 0 in a loaded model that was not resumed */
  double best_validation_loss;            /* nats a token, or minus the mean R; NaN: not evaluated yet */
  uint64_t best_update;                   /* when that was */
} unroll_translator_info;
UNROLL_API unroll_translator_info unroll_translator_describe(const unroll_translator *translator);

/* As unroll_lm_train, unroll_lm_set_schedule and unroll_lm_learning_rate. Losses are nats a token; the metric is the
 * share of tokens that are the likeliest, with the truth before them. With REINFORCE see there. */
UNROLL_API unroll_status unroll_translator_train(unroll_translator *translator, const unroll_train_options *options,
                                                 unroll_error *err);
UNROLL_API unroll_status unroll_translator_set_schedule(unroll_translator *translator, const unroll_schedule *schedule,
                                                        unroll_error *err);
UNROLL_API double unroll_translator_learning_rate(const unroll_translator *translator, uint64_t update);
/* Loss and metric of the validation part, without dropout. UNROLL_E_STATE: there is none, or not ready to train. */
UNROLL_API unroll_status unroll_translator_evaluate(unroll_translator *translator, double *loss, double *metric,
                                                    unroll_error *err);

/* ---- translating ---- */
typedef struct unroll_translate_options { /* all zero but struct_size: greedy */
  uint32_t struct_size;
  int32_t beam;       /* K: 0: no search; at least 1, at most the target's vocabulary */
  double alpha;       /* of the beam's length penalty: unroll_beam_options */
  double temperature; /* above 0: tokens are drawn from softmax(logits/temperature), without a beam; 0: the likeliest */
  int64_t top_k;      /* of the top_k likeliest alone; 0: of all; temperature above 0 */
  double top_p;       /* of the smallest set whose probabilities reach top_p; 0 stands for 1; likewise */
  uint64_t seed;      /* of what is drawn */
  int64_t most;       /* tokens at most, with </s>; 0: a quarter and two more than the pairs have for such a source */
  int32_t attention;  /* not 0: the weights are wanted */
  int32_t reserved;
} unroll_translate_options;

typedef struct unroll_translation { /* valid during the call */
  uint32_t struct_size;
  int32_t ended; /* not 0: it came to </s>; else it was cut */
  const char *text;
  const int32_t *source, *ids; /* [n_source], [n], without </s>; */
  int64_t n_source, n;
  double log_prob; /* log P(y|x), with </s> where it is there */
  /* attention's, [n + ended, n_source]: where was looked for each token, and for </s>; NULL where not asked for */
  const float *weights;
} unroll_translation;
/* Not 0 ends the translating with UNROLL_E_CANCELLED. The model must not be used. */
typedef int (*unroll_translation_fn)(void *ctx, int64_t i, const unroll_translation *translation);

/*
 * Translates n texts and gives them to each in their order. Also of a model that was not resumed; training is not
 * disturbed. Tokens that the model lacks are read as <unk>.
 *   UNROLL_E_FORMAT  a text without tokens, or not UTF-8: its number is named
 *   UNROLL_E_STATE   weights are asked of a model without attention
 */
UNROLL_API unroll_status unroll_translator_translate(unroll_translator *translator, const char *const *sources,
                                                     int64_t n, const unroll_translate_options *options,
                                                     unroll_translation_fn each, void *ctx, unroll_error *err);

/* ---- a decoder's steps, under a teacher ---- */

/* What a decoder does when it is given the targets, step by step. */
typedef struct unroll_translator_steps {
  uint32_t struct_size;
  int32_t layers;         /* of the decoder */
  int64_t steps, batch;   /* T, the longest target with </s>, and B */
  int64_t gates, hidden;  /* G and H */
  const int32_t *lengths; /* [B], of the targets with </s> */
  const float *norms;  /* [layers,T,B]: ‖∂L/∂h_t‖₂, L the mean cross entropy of the tokens of all targets */
  const float *values; /* [layers,T,B,G,H]: the gates, as unroll_rnn_options.gates has them (nn.h) */
} unroll_translator_steps;
/*
 * Of n pairs of texts, without dropout, in one batch. Freed with unroll_translator_steps_free. Also of a model that was not
 * resumed; training is not disturbed.
 *   UNROLL_E_FORMAT  a text without tokens, or not UTF-8: its number is named
 */
UNROLL_API unroll_status unroll_translator_follow(unroll_translator *translator, const char *const *sources,
                                                  const char *const *targets, int64_t n,
                                                  unroll_translator_steps **steps, unroll_error *err);
UNROLL_API void unroll_translator_steps_free(unroll_translator_steps *steps); /* NULL does nothing */

/* ---- scoring ---- */
typedef struct unroll_translator_score_info {
  uint32_t struct_size, reserved;
  int64_t count;     /* sources: one whose pairs follow each other counts once, with the nearest of the targets */
  int64_t tokens;    /* of those targets */
  double error_rate; /* Σ edit distance by Σ length of the target */
  double accuracy;   /* share of sources whose translation is one of their targets */
  /* The same of a translation that says, for each token of the source, what most often stood at its place in the
   * training part's targets. */
  double baseline_error_rate, baseline_accuracy;
} unroll_translator_score_info;
typedef struct unroll_translator_scored { /* valid during the call */
  uint32_t struct_size, reserved;
  const char *source, *translation, *target; /* the nearest target */
  int64_t errors, length;                    /* the edit distance, the target's tokens */
} unroll_translator_scored;
/*
 * How good translations of the pairs' sources are. part: UNROLL_TRAINING, _VALIDATION or _TESTING: of those alone that
 * fall into it by the model's seed and shares, whichever pairs it was trained on; -1: of all. options NULL: greedy.
 * each, which may be NULL, gets every source with its translation; not 0: UNROLL_E_CANCELLED. UNROLL_E_RANGE: no such
 * part, or nothing is in it.
 */
UNROLL_API unroll_status unroll_translator_score(unroll_translator *translator, const unroll_pairs *pairs, int32_t part,
                                                 const unroll_translate_options *options,
                                                 int (*each)(void *ctx, const unroll_translator_scored *scored),
                                                 void *ctx, unroll_translator_score_info *info, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
