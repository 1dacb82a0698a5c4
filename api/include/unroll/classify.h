/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/classify.h: classifiers of sequences: train, save, resume, predict, score.
 *
 *     unroll_sequences_load("digits.csv", &(unroll_labelled_options){.struct_size = sizeof(unroll_labelled_options),
 *                           .label = "digit", .features = 8}, NULL, &sequences, &err);
 *     unroll_classifier_options options = unroll_classifier_options_default();
 *     unroll_classifier *c;
 *     unroll_classifier_create(&device, 1, sequences, &options, NULL, &c, &err);
 *     unroll_train_options run = {.struct_size = sizeof run, .epochs = 30, .progress = show};
 *     unroll_classifier_train(c, &run, &err);
 *     unroll_classifier_save(c, "digits.safetensors", &err);
 *     unroll_classifier_score(c, others, NULL, &score, &err);
 *     unroll_classifier_destroy(c);
 *
 * Many-to-one: sequences [T,F] -> recurrent layers -> the last state, of both directions where there are two -> linear
 * -> softmax over the classes. Each sequence's last state is that after its own last step. Features are standardised by
 * the training part, see scaling; the file keeps how.
 *
 * Every epoch has each training sequence once, in an order that is a function of seed and epoch; where lengths differ,
 * batches hold sequences of like length. A run that was saved and resumed gives the same losses as one that was not (the
 * same bits on "cpu"). Statuses beside those named: as in train.h.
 */
#ifndef UNROLL_CLASSIFY_H
#define UNROLL_CLASSIFY_H
#include <unroll/datasets.h>
#include <unroll/train.h>
#ifdef __cplusplus
extern "C" {
#endif

#define UNROLL_SCALINGS(X)                  \
  X(UNROLL_SCALING_EACH, 0, "each")         \
  X(UNROLL_SCALING_TOGETHER, 1, "together") \
  X(UNROLL_SCALING_NONE, 2, "none")
enum {
#define UNROLL_SCALING_CODE(name, value, text) name = (value),
  UNROLL_SCALINGS(UNROLL_SCALING_CODE)
#undef UNROLL_SCALING_CODE
      UNROLL_SCALING_COUNT = 3
};
/* "together"; NULL for a number that is no scaling. Static. [any] */
UNROLL_API const char *unroll_scaling_name(int32_t scaling);

/* What decides a training run's numbers, kept in the model's file. */
typedef struct unroll_classifier_options {
  uint32_t struct_size;
  int32_t bidirectional; /* not 0: every layer runs both ways */
  unroll_recurrent rnn;  /* its dropout also of the last state */
  /* What the network reads is (x - mean)/deviation over the training part's steps: of each feature by itself; of all
   * together, where they are of one kind, as an image's pixels are; none: x. */
  int32_t scaling; /* UNROLL_SCALING_* */
  int32_t reserved;
  /* Its batch times the longest sequence times the widest tensor is below 2^31. About its validation's share is not
   * trained on: unroll_split by seed. */
  unroll_training training;
} unroll_classifier_options;
/* gru, 1 layer of 64, each feature scaled by itself, unroll_training_default(). [any] */
UNROLL_API unroll_classifier_options unroll_classifier_options_default(void);

/* A model with its device side. All of its functions are [obj]. */
typedef struct unroll_classifier unroll_classifier;

/*
 * A new model with its initial parameters, ready to train. sequences are labelled rows of numbers, stay the caller's and
 * must live as long as the model. The devices are those of unroll_compile, in that order, and outlive the model.
 *   UNROLL_E_RANGE    the training or the validation part has no sequence
 *   UNROLL_E_INVALID  sequences of ids or without labels
 */
UNROLL_API unroll_status unroll_classifier_create(unroll_device *const *devices, uint32_t n_devices,
                                                  const unroll_sequences *sequences,
                                                  const unroll_classifier_options *options,
                                                  const unroll_allocator *allocator, unroll_classifier **classifier,
                                                  unroll_error *err);
/* A model from its file, ready to predict and score; unroll_classifier_resume makes it ready to train. Errors as those of
 * unroll_lm_load; a file of another kind of model is UNROLL_E_FORMAT. */
UNROLL_API unroll_status unroll_classifier_load(unroll_device *const *devices, uint32_t n_devices, const char *path,
                                                const unroll_allocator *allocator, unroll_classifier **classifier,
                                                unroll_error *err);
/* Makes a loaded model ready to go on training where it was saved. UNROLL_E_STATE: other sequences than it was trained
 * on, or it has them already. */
UNROLL_API unroll_status unroll_classifier_resume(unroll_classifier *classifier, const unroll_sequences *sequences,
                                                  unroll_error *err);
/* As unroll_lm_save. */
UNROLL_API unroll_status unroll_classifier_save(unroll_classifier *classifier, const char *path, unroll_error *err);
UNROLL_API void unroll_classifier_destroy(unroll_classifier *classifier); /* NULL does nothing */

typedef struct unroll_classifier_info {
  uint32_t struct_size, reserved;
  unroll_classifier_options options; /* as they are in use; texts live as long as the model */
  const unroll_tokens *labels;       /* the classes' names by their ids; lives as long as the model */
  int64_t features;                  /* F */
  int64_t shortest, longest;         /* lengths of the sequences it is trained on */
  int64_t train_count, validation_count;
  uint64_t split_hash;      /* equal hashes, equal sequences and parts: unroll_split */
  int32_t majority;         /* the training part's most frequent class: the baseline */
  double majority_accuracy; /* what it gives on the validation part; NaN: there is none, or the model was not resumed */
  uint64_t update;          /* updates done so far, over all runs */
  uint64_t n_parameters;    /* numbers that are trained */
  uint64_t updates_per_epoch;  /* 0 in a loaded model that was not resumed */
  double best_validation_loss; /* nats; NaN: not evaluated yet */
  uint64_t best_update;        /* when that was */
} unroll_classifier_info;
UNROLL_API unroll_classifier_info unroll_classifier_describe(const unroll_classifier *classifier);

/* As unroll_lm_train, unroll_lm_set_schedule and unroll_lm_learning_rate. Losses are nats a sequence; the metric is the
 * accuracy, the share of sequences whose likeliest class is their label. */
UNROLL_API unroll_status unroll_classifier_train(unroll_classifier *classifier, const unroll_train_options *options,
                                                 unroll_error *err);
UNROLL_API unroll_status unroll_classifier_set_schedule(unroll_classifier *classifier, const unroll_schedule *schedule,
                                                        unroll_error *err);
UNROLL_API double unroll_classifier_learning_rate(const unroll_classifier *classifier, uint64_t update);
/* Loss and accuracy of the validation part, without dropout. UNROLL_E_STATE: there is none, or not ready to train. */
UNROLL_API unroll_status unroll_classifier_evaluate(unroll_classifier *classifier, double *loss, double *accuracy,
                                                    unroll_error *err);

/*
 * probabilities [n,C], n the number of sequences and C that of the classes: how likely each class is, row by row. Labels are not
 * looked at. Also of a model that was not resumed; training is not disturbed. UNROLL_E_SHAPE: sequences of another number
 * of features.
 */
UNROLL_API unroll_status unroll_classifier_predict(unroll_classifier *classifier, const unroll_sequences *sequences,
                                                   float *probabilities, unroll_error *err);

typedef struct unroll_classifier_score_info {
  uint32_t struct_size, reserved;
  int64_t count;
  double loss, accuracy;    /* mean nats; share whose likeliest class is their label */
  double majority_loss;     /* nats of the training part's frequencies of classes, each counted once more */
  double majority_accuracy; /* when always its most frequent one is named */
} unroll_classifier_score_info;
/*
 * How good predictions are. confusion [C,C], which may be NULL: how many of each class (row) were taken for which (column).
 *   UNROLL_E_INVALID  the labels' names are not the model's: give them to unroll_sequences_load
 */
UNROLL_API unroll_status unroll_classifier_score(unroll_classifier *classifier, const unroll_sequences *sequences,
                                                 int64_t *confusion, unroll_classifier_score_info *info,
                                                 unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
