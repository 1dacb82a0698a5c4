/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/train.h: learning-rate schedules, what a training can be asked for, and language models of characters or
 * words: train, save, resume, score, sample.
 *
 *     unroll_lm_options options = unroll_lm_options_default();
 *     unroll_lm *lm;
 *     unroll_lm_create(&device, 1, text, &options, NULL, &lm, &err);
 *     unroll_lm_train_options run = {.struct_size = sizeof run, .epochs = 10, .progress = show};
 *     unroll_lm_train(lm, &run, &err);
 *     unroll_lm_save(lm, "model.safetensors", &err);
 *     unroll_lm_destroy(lm);
 *
 *     unroll_lm_load(&device, 1, "model.safetensors", NULL, &lm, &err);
 *     unroll_lm_sample_options s = {.struct_size = sizeof s, .prompt = "ROMEO:", .length = 500, .temperature = 0.8};
 *     unroll_lm_sample(lm, &s, print_piece, NULL, &err);
 *
 * What is said of characters holds for words where the text was loaded as such (data.h).
 *
 * The model is embedding -> recurrent layers -> linear -> softmax over the vocabulary. A training step is one run of
 * one executable: truncated backpropagation through time over T characters of B streams, whose states are carried on
 * from update to update on the device, gradients clipped by their global norm, the optimizer's update. The update's
 * number is the whole position: a run that was saved and resumed gives the same losses as one that was not (the same
 * bits on "cpu"). What all trainings share, such as schedules, accumulation and reports, stands first; it is the same for
 * every task.
 *
 * Statuses beside those named: UNROLL_E_MEMORY, UNROLL_E_INVALID (an option out of its range; the message says which
 * and the range), and what graph, runtime, data and files return.
 */
#ifndef UNROLL_TRAIN_H
#define UNROLL_TRAIN_H
#include <unroll/data.h>
#include <unroll/nn.h>
#include <unroll/runtime.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- learning-rate schedules ---- */
#define UNROLL_SCHEDULES(X)                        \
  X(UNROLL_SCHEDULE_CONSTANT, 0, "constant")       \
  X(UNROLL_SCHEDULE_TIME, 1, "time")               \
  X(UNROLL_SCHEDULE_EXPONENTIAL, 2, "exponential") \
  X(UNROLL_SCHEDULE_COSINE, 3, "cosine")
enum {
#define UNROLL_SCHEDULE_CODE(name, value, text) name = (value),
  UNROLL_SCHEDULES(UNROLL_SCHEDULE_CODE)
#undef UNROLL_SCHEDULE_CODE
      UNROLL_SCHEDULE_COUNT = 4
};
/* "cosine"; NULL for a number that is no schedule. Static. [any] */
UNROLL_API const char *unroll_schedule_name(int32_t kind);

/*
 * The learning rate after e epochs, from base > 0:
 *   CONSTANT     base
 *   TIME         base / (1 + decay·e)                                time-based decay, decay >= 0
 *   EXPONENTIAL  base · decay^e                                      0 < decay <= 1
 *   COSINE       minimum + (base - minimum)·(1 + cos(π·e/total))/2   0 <= minimum <= base, total > 0; for e > total
 *                                                                    minimum (Loshchilov & Hutter 2017, eq. 5)
 * Fields that a kind does not name are not looked at.
 */
typedef struct unroll_schedule {
  int32_t kind, reserved;
  double base;
  double decay;
  double minimum;
  double total; /* epochs */
} unroll_schedule;
/* e >= 0, fractions allowed. NaN where the schedule or e is out of range. [any] */
UNROLL_API double unroll_schedule_rate(const unroll_schedule *schedule, double e);
/* UNROLL_OK, or UNROLL_E_INVALID naming the field. [any] */
UNROLL_API unroll_status unroll_schedule_check(const unroll_schedule *schedule, unroll_error *err);

/* ---- training and layers, of every task ---- */
enum {
  UNROLL_NONFINITE_STOP = 0, /* the training ends, and its error says where */
  UNROLL_NONFINITE_SKIP = 1  /* parameters, optimizer's states and streams stay as they are; reports say where */
};
#define UNROLL_NONFINITE_COUNT 2

/*
 * How any model is trained; kept in its file. Begin with unroll_training_default().
 * Patterns are of parameters' names ("rnn.W_h.0.0", "linear.b"), as fnmatch(3) has them, in a list between commas; one
 * that fits no name is an error. Texts are copied.
 */
typedef struct unroll_training {
  int64_t batch;     /* B, the sequences or streams of an update, 1 to 65536 */
  uint64_t seed;     /* of initial values, dropout, and what else is drawn */
  double clip;       /* global norm of the gradients (Pascanu et al. 2013); 0: none */
  double validation; /* the part of the data that is not trained on, 0 <= fraction < 1 */
  unroll_optimizer_attr optimizer;
  /* base is the learning rate. TIME and EXPONENTIAL step at whole epochs, COSINE at every update. A COSINE with a total
   * of 0 gets it from the limits of the first run. */
  unroll_schedule schedule;
  /*
   * The loss's gradient times this goes back through the network, and the parameters' gradients are divided by it
   * before their norm is taken: small ones then outlive a device's half precision (Micikevicius et al. 2018). 1 to
   * 2^126; 1: none. Powers of two change no bit of float32 arithmetic, as long as nothing is out of its range.
   */
  double loss_scale;
  /*
   * Above 0 the scale is dynamic and begins as loss_scale: an update whose gradients are not finite leaves parameters,
   * optimizer's states and its count of steps as they are and halves the scale, down to 1; after this many updates in
   * a row that were made it doubles, up to 2^126. 0: it stays. At most 2^31-1.
   */
  int64_t loss_scale_interval;
  /*
   * An update's batch is worked through in so many parts, one after the other, which takes that part of the memory for
   * activations. Gradients are summed up to those of the whole batch, so that the update is the same but for rounding:
   * a part's mean counts as much as it has targets, clipping comes after the sum, and dropout masks belong to a
   * sequence, not to its part. Streams stay those of the whole batch: each has its state, which is carried on from its
   * part of one update to its part of the next. Must divide the batch; 0 and 1: whole.
   */
  int64_t accumulate;
  /* Update u of the first `warmup` ones, u from 1 on, has the learning rate base·u/warmup; the schedule's epochs are
   * counted from there on. */
  int64_t warmup;
  /*
   * An update whose loss or gradient's norm is not finite: UNROLL_NONFINITE_*. What is skipped does not count as one of
   * the optimizer's steps; 100 in a row end the training. A dynamic loss scale above 1 skips what overflowed under
   * either.
   */
  int32_t nonfinite;
  int32_t reserved;
  const char *freeze; /* patterns: these parameters are not trained and keep every bit; NULL: none */
  /*
   * "PATTERN=λ,...": λ‖W‖² of every parameter that fits is added to what is minimised, by the first pattern that fits
   * it: "rnn.W_h.*=1e-4,rnn.W_x.*=1e-4,linear.W=1e-4". Its gradient 2λW is part of the gradient's norm. Reported losses
   * are without it, so that they compare with those of the validation. NULL: none.
   */
  const char *l2;
  /* λ_r of W_h ← (1 - λ_r)·W_h - update, for each recurrent matrix W_h: not scaled by the learning rate, and no part of
   * the gradient. 0 <= λ_r < 1. */
  double recurrent_decay;
} unroll_training;
/* batch 32, seed 1, clip 1, validation 0.1, adam (0.9, 0.999, 1e-8, no weight decay), constant 2e-3, no loss scale, and
 * nothing more. [any] */
UNROLL_API unroll_training unroll_training_default(void);

/*
 * The recurrent layers of any model; kept in its file. Equations and sources stand at unroll_rnn_options (nn.h), whose
 * fields have the same names. All zero but cell, layers and hidden: plain layers. What drops or keeps values does so in
 * training alone. What a cell does not have is UNROLL_E_INVALID, and the message names both.
 */
typedef struct unroll_recurrent {
  int32_t cell;                  /* UNROLL_CELL_* or UNROLL_RNN_* */
  int32_t same_mask;             /* 1: input_dropout and dropout have one mask for all steps */
  int64_t layers;                /* 1 to 16 */
  int64_t hidden;                /* units of a layer and direction, 1 to 16384 */
  double dropout;                /* of each layer's output, also of the last (Zaremba et al. 2014); 0 <= p < 1 */
  double input_dropout;          /* of what the first layer reads */
  double weight_dropout;         /* of each W_h: one mask an update */
  double state_dropout;          /* of h in its product with W_h: one mask for all steps of an update */
  double zoneout_h, zoneout_c;   /* zoneout_c: lstm and coupled lstm */
  int32_t layer_norm, peepholes; /* 1: with; peepholes: lstm and coupled lstm */
  /* What of a sequence is kept for the gradient and what is made again: changes memory and time, no number on devices that
   * are deterministic. Zero: all is kept. With a run-time number of steps (a curriculum) it can't be another. */
  unroll_checkpoint_policy checkpoint;
  unroll_activation f, g, h; /* zero: the cell's own */
  double clip;               /* of what goes into the gates' activations; unroll_training's is the gradients' */
  double cell_clip;          /* lstm and coupled lstm */
  int64_t projection;        /* P, numbers that a layer and direction gives, 1 to 16384; 0: none, P = hidden */
  double layer_norm_epsilon; /* 0: 1e-5 */
  double skip;
  /* UNROLL_RESIDUAL_*, of every layer that gives as many numbers as it reads: one at least must. What is classified or
   * foretold from is the last layer's last state, with _OUTPUTS what it gives there. */
  int32_t residual;
  int32_t reserved;
} unroll_recurrent;

/* The model's parameters as they stand at a report. */
typedef struct unroll_train_parameters unroll_train_parameters;
typedef struct unroll_train_parameter {
  uint32_t struct_size;
  int32_t rank;
  const char *name; /* "rnn.W_h.0.0"; lives as long as the model */
  int64_t shape[UNROLL_MAX_RANK];
  uint64_t count;    /* numbers */
  int32_t recurrent; /* 1: a recurrent matrix, the gates' W_h one above the other: [GH,P] (nn.h) */
  int32_t frozen;    /* 1: not trained */
} unroll_train_parameter;
/* These three in the progress callback alone, on its thread. */
UNROLL_API uint32_t unroll_train_parameters_count(const unroll_train_parameters *parameters);
/* UNROLL_E_RANGE: no i-th one. */
UNROLL_API unroll_status unroll_train_parameters_get(const unroll_train_parameters *parameters, uint32_t i,
                                                     unroll_train_parameter *parameter, unroll_error *err);
/*
 * values [count]: the i-th parameter's, or of the optimizer its running mean of this parameter's clipped gradients, as
 * adam and adamw have it (Kingma & Ba 2015, the m of algorithm 1). Waits for the device.
 *   UNROLL_E_RANGE      no i-th one
 *   UNROLL_E_NOT_FOUND  of the mean: another optimizer, or the parameter is frozen
 */
UNROLL_API unroll_status unroll_train_parameters_read(const unroll_train_parameters *parameters, uint32_t i,
                                                      float *values, unroll_error *err);
UNROLL_API unroll_status unroll_train_parameters_read_mean_gradient(const unroll_train_parameters *parameters,
                                                                    uint32_t i, float *values, unroll_error *err);

typedef struct unroll_train_progress {
  uint32_t struct_size;
  uint32_t n_updates;        /* updates since the last report, at least 1 */
  const float *losses;       /* [n_updates] the mean of each, before it, oldest first; lm: nats per token */
  const float *grad_norms;   /* [n_updates] before clipping; of an update that was skipped, infinite or NaN */
  uint64_t update;           /* updates done so far, over all runs: the last of these had this number, counted from 1 */
  uint64_t last_update;      /* where this run ends if nothing else ends it; UINT64_MAX: only a time limit was given */
  double epoch;              /* epochs done so far */
  double loss;               /* mean of the losses that are finite */
  double grad_norm;          /* the last one */
  double learning_rate;      /* the last one */
  union {                    /* since the last report, without evaluation: */
    double steps_per_second; /* time steps of all sequences; */
    double characters_per_second; /* lm: the same, by the name of what a step is */
  };
  double seconds;           /* in this run so far */
  double seconds_left;      /* an estimate, from the limits and the pace so far; NaN: unknown yet */
  double validation_loss;   /* as losses, after the last update; NaN: none, or not evaluated at this report */
  int32_t improved;         /* it is the lowest so far: the moment to keep the best model */
  int32_t final;            /* a limit is reached: this is the run's last report */
  const float *loss_scales; /* [n_updates] the scale of each; NULL where it is not dynamic */
  uint64_t skipped;         /* of these updates, those that were skipped */
  const char *nonfinite;    /* where the first of those had no finite number; NULL where none was skipped */
  int32_t patience_ended;   /* final, since the validation did not improve any more */
  int32_t evaluated;        /* 1: there was a validation at this report, even if its loss is NaN */
  double metric,
      validation_metric; /* such as the accuracy, of these updates and of the validation; NaN: there is none */
  double update_seconds; /* of each update since the last report, in the mean, without evaluation */
  const unroll_train_parameters *parameters;
} unroll_train_progress;
/* Not 0 ends the training with UNROLL_E_CANCELLED. The model stands at progress->update; saving and describing it is
 * allowed here, the other functions are not (UNROLL_E_STATE). */
typedef int (*unroll_train_progress_fn)(void *ctx, const unroll_train_progress *progress);

typedef struct unroll_train_options { /* zero: none, or as said */
  uint32_t struct_size;
  uint32_t report_every;   /* updates between two reports, 1 to 64; 0: as many as take about a quarter of a second */
  double epochs;           /* limit: epochs over all runs */
  uint64_t updates;        /* limit: updates over all runs */
  double minutes;          /* limit: of this run */
  uint64_t evaluate_every; /* updates between two evaluations; 0: at the end of each epoch. And at the run's end. */
  unroll_train_progress_fn progress;
  void *ctx; /* of progress */
  /*
   * Limit: so many evaluations one after the other that were no better than the best. The count is kept in the file and
   * goes on in the next run that has a patience; an evaluation that is due only since a run ends is not counted. 0: no
   * such limit.
   */
  uint32_t patience;
  /*
   * Not 0: an update whose loss or gradient is not finite is made once more, from what stood before it, with every number
   * looked at (finite.h), and the message or the report says where the first one was: "update 812: the cell state of layer 1,
   * forward, step 37, sequence 5, unit 12 became inf (..)". Under UNROLL_NONFINITE_STOP the model is then that of before
   * the update: it can be saved and trained further. Under UNROLL_NONFINITE_SKIP the first one of a run is looked at; what
   * a dynamic loss scale skips is not. All that stays between updates is copied on its device before the first update of
   * each report: memory for a second model, with its optimizer's states, and the time of that copy.
   */
  uint32_t check_finite;
} unroll_train_options;

/* ---- the model and how it is trained: what decides a training run's numbers, kept in the model's file ---- */
typedef struct unroll_lm_options {
  uint32_t struct_size;
  int32_t
      tied; /* not 0: the softmax's weights are the embedding's (Press & Wolf 2017); a layer gives as many numbers as the embedding */
  unroll_recurrent rnn; /* T·B·(the widest of the model) below 2^31 */
  int64_t embedding;    /* numbers per character, 1 to 16384 */
  int64_t steps;        /* T, characters per update and stream, 1 to 65536 */
  /*
   * Truncated backpropagation with k1 and k2 apart (Williams & Peng 1990, BPTT(h; h')): an update every k1 =
   * update_steps characters, whose losses' gradients flow back through up to k2 = steps: the window of k2 characters
   * moves on by k1, and of what it reads again the losses have counted already. An epoch's first update counts all of
   * its k2. 1 to steps; 0: steps, windows side by side.
   */
  int64_t update_steps;
  /*
   * Curriculum over lengths: T of epoch e, counted from 0, is min(steps, steps_start + e·steps_increment). An epoch has
   * as many updates as its T makes of the text. steps_start 1 to steps, steps_increment at least 1, update_steps none;
   * steps_start 0: no curriculum.
   */
  int64_t steps_start, steps_increment;
  unroll_training training; /* its validation is the last part of the text, its batch that of streams */
} unroll_lm_options;
/* lstm, 2 layers of 128, embedding 64, T 64, and of unroll_training_default() all but validation, 0.05. [any] */
UNROLL_API unroll_lm_options unroll_lm_options_default(void);

/* ---- make, load, save ---- */
/* A model with its device side. All of its functions are [obj]. */
typedef struct unroll_lm unroll_lm;

/*
 * A new model of the text's vocabulary with its initial parameters, ready to train. text stays the caller's and must
 * live as long as the model. The devices are those of unroll_compile, in that order, and outlive the model.
 *   UNROLL_E_RANGE  the training or the validation part is too short: the message says how many characters it takes
 */
UNROLL_API unroll_status unroll_lm_create(unroll_device *const *devices, uint32_t n_devices, const unroll_text *text,
                                          const unroll_lm_options *options, const unroll_allocator *allocator,
                                          unroll_lm **lm, unroll_error *err);
/*
 * A model from its file: ready to sample; unroll_lm_resume makes it ready to train. The file is checked whole, then let
 * go of; compiling waits for the first use.
 *   UNROLL_E_FORMAT       no safetensors file, damaged (its checksum), or no model of this library; metadata out of
 *                         order; a tensor is missing, of another shape or dtype, or too many. The message: which, what
 *                         it is, what was expected
 *   UNROLL_E_UNSUPPORTED  the file's format is newer than this library
 *   UNROLL_E_IO           it can't be read
 */
UNROLL_API unroll_status unroll_lm_load(unroll_device *const *devices, uint32_t n_devices, const char *path,
                                        const unroll_allocator *allocator, unroll_lm **lm, unroll_error *err);
/*
 * Makes a loaded model ready to go on training where it was saved. text must be the one it was trained on, byte for
 * byte; load it as it was loaded then. It stays the caller's and must live as long as the model.
 *   UNROLL_E_STATE  another text (the message has both hashes and sizes), or the model has a text already
 */
UNROLL_API unroll_status unroll_lm_resume(unroll_lm *lm, const unroll_text *text, unroll_error *err);
/*
 * Writes the model: parameters, optimizer's states, the streams' states, options, vocabulary, position. The old file or
 * the new one is whole, always; the same model gives the same bytes. May be called in the progress callback.
 *   UNROLL_E_STATE  the training diverged: the parameters are no numbers any more
 */
UNROLL_API unroll_status unroll_lm_save(unroll_lm *lm, const char *path, unroll_error *err);
UNROLL_API void unroll_lm_destroy(unroll_lm *lm); /* NULL does nothing */

typedef struct unroll_lm_info {
  uint32_t struct_size, reserved;
  unroll_lm_options options;                       /* as they are in use; texts live as long as the model */
  const unroll_vocabulary *vocabulary;             /* lives as long as the model */
  uint64_t update;                                 /* updates done so far, over all runs */
  uint64_t n_parameters;                           /* numbers that are trained */
  uint64_t updates_per_epoch;                      /* of the epoch it is in; 0 in a loaded model that was not resumed */
  int64_t train_characters, validation_characters; /* of its text, same */
  double best_validation_loss;                     /* nats per character; NaN: not evaluated yet */
  uint64_t best_update;                            /* when that was */
} unroll_lm_info;
UNROLL_API unroll_lm_info unroll_lm_describe(const unroll_lm *lm);

/* ---- train ---- */
typedef unroll_train_progress unroll_lm_progress;
typedef unroll_train_progress_fn unroll_lm_progress_fn;
typedef unroll_train_options unroll_lm_train_options;
/*
 * Trains until the first limit; at least one must be given. Losses are read from the device only for reports.
 *   UNROLL_E_CANCELLED  progress said so. The model is whole: it can be saved, sampled and trained further.
 *   UNROLL_E_RANGE      the loss is no finite number, or the gradient, unless the update was skipped for that; the
 *                       message says at which update, and whose gradient. Reports end before it and the model can only
 *                       be destroyed, unless check_finite was asked for. Or 100 updates in a row were skipped; then the model is whole.
 *   UNROLL_E_STATE      a loaded model that was not resumed; a model that diverged; a call from a callback
 */
UNROLL_API unroll_status unroll_lm_train(unroll_lm *lm, const unroll_lm_train_options *options, unroll_error *err);
/* Another learning rate or schedule from the next update on. Epochs are counted from the first run's start, or from the
 * end of its warm-up. */
UNROLL_API unroll_status unroll_lm_set_schedule(unroll_lm *lm, const unroll_schedule *schedule, unroll_error *err);
/* The learning rate of an update, counted from 1, by warm-up and schedule as they are now. NaN: not ready to train.
 * [obj], also in the progress callback. */
UNROLL_API double unroll_lm_learning_rate(const unroll_lm *lm, uint64_t update);
/* The mean loss over the validation part, nats per character, without dropout, each stream from a zero state. Its exp
 * is the perplexity. UNROLL_E_STATE: no validation part, or not ready to train. */
UNROLL_API unroll_status unroll_lm_evaluate(unroll_lm *lm, double *loss, unroll_error *err);

typedef struct unroll_lm_score_info {
  uint32_t struct_size, reserved;
  double loss; /* nats per character, or word; its exp is the perplexity */
  double
      unigram; /* the entropy of the text's own frequencies of characters: what they give when each stands for itself */
  int64_t count; /* characters that were foretold: all but the first of each stream and up to a batch at the end */
} unroll_lm_score_info;
/*
 * The mean loss over a text that need not be the model's, without dropout, in as many streams as the model's batch where
 * the text has room for them, each from a zero state. Also of a model that was not resumed; training is not disturbed.
 *   UNROLL_E_INVALID  the text was not loaded with the model's vocabulary (unroll_text_options.vocabulary)
 *   UNROLL_E_RANGE    fewer than 2 characters
 */
UNROLL_API unroll_status unroll_lm_score(unroll_lm *lm, const unroll_text *text, unroll_lm_score_info *info,
                                         unroll_error *err);

/* ---- sample ---- */
/* Text as it is generated: `bytes` bytes of whole characters, or words with spaces between them, in UTF-8 with a NUL behind them, valid during the call.
 * Not 0 ends the sampling with UNROLL_E_CANCELLED. */
typedef int (*unroll_lm_text_fn)(void *ctx, const char *text, size_t bytes);

typedef struct unroll_lm_sample_options {
  uint32_t struct_size, reserved;
  const char *prompt; /* UTF-8, read before the first character is made; it is not part of the output. NULL or "": as a
                        * newline, where the vocabulary has one, else its first character */
  uint64_t length;    /* characters to make */
  double temperature; /* logits are divided by it; 0: always the likeliest character; at most 100 */
  int64_t top_k;      /* choose among the k likeliest; 0: all; at most the vocabulary's size */
  uint64_t seed;      /* same seed, model and device: same text */
} unroll_lm_sample_options;
/*
 * Makes text, from a zero state. What was generated stays on the device as the next step's input; characters are read
 * in pieces. Training is not disturbed.
 *   UNROLL_E_NOT_FOUND  the prompt has a character that the vocabulary lacks: which and where
 *   UNROLL_E_FORMAT     the prompt is not UTF-8
 */
UNROLL_API unroll_status unroll_lm_sample(unroll_lm *lm, const unroll_lm_sample_options *options,
                                          unroll_lm_text_fn text, void *ctx, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
