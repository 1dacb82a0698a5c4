/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every task of training shares: parameters and the optimizer's states, loss scaling, accumulation, clipping,
 * penalties, schedules, the loop with its reports and evaluations, the model's file. A task gives its graph, its batches
 * and its own metadata; `lm` is one.
 *
 * The parameters and states have one home at a time: the training program's binding where there is one, else the
 * `stored` copies that came out of a file. Programs that evaluate or sample share the training binding's parameters.
 */
#ifndef TRAINER_H
#define TRAINER_H
#include <unroll/finite.h>
#include <unroll/io.h>
#include <unroll/nn.h>
#include <unroll/snapshot.h>
#include <unroll/train.h>

#include "base/base_private.h"

/* How many losses the device keeps until the host reads them. */
#define TRAINER_HISTORY 64
#define TRAINER_MAX_LAYERS 16
#define TRAINER_MAX_WIDTH 16384
#define TRAINER_MAX_BATCH 65536
#define TRAINER_MAX_PARAMS 256
#define TRAINER_MAX_CARRIES 64
#define TRAINER_MAX_VARIANTS 8
/* So many skipped updates in a row end a run. */
#define TRAINER_MOST_SKIPPED 100

/* A dynamic loss scale's bounds. The inverse of the upper one is the least number that no device takes for zero. */
#define TRAINER_LOSS_SCALE_LEAST 1.0
#define TRAINER_LOSS_SCALE_MOST 0x1p126
/* States that a dynamic loss scale adds: the scale and its inverse, f32; the updates in a row that were made, and all
 * of them, i32. Where updates may be skipped without one, all that were made stand in TRAINER_MADE. */
#define TRAINER_LOSS_SCALE "loss_scale"
#define TRAINER_LOSS_SCALE_INVERSE "loss_scale.inverse"
#define TRAINER_LOSS_SCALE_STREAK "loss_scale.streak"
#define TRAINER_LOSS_SCALE_STEP "loss_scale.step"
#define TRAINER_MADE "updates.made"

/* The latest runs' values, [TRAINER_HISTORY], and the squared norms of the first gradients that were not finite. */
#define TRAINER_LOSSES "losses"
#define TRAINER_WEIGHTS "weights"
#define TRAINER_METRICS "metrics"
#define TRAINER_NORMS "grad_norms"
#define TRAINER_SCALES "loss_scales"
#define TRAINER_NONFINITE "nonfinite"

/* ---- options: accumulate is at least 1 here, and texts are owned ---- */
static inline bool trainer_scale_is_dynamic(const unroll_training *o) { return o->loss_scale_interval > 0; }
/* Counts the device the optimizer's steps, since the host can't know which updates were made? */
static inline bool trainer_counts_on_device(const unroll_training *o) {
  return trainer_scale_is_dynamic(o) || o->nonfinite == UNROLL_NONFINITE_SKIP;
}
const char *trainer_optimizer_name(int32_t kind);
const char *trainer_nonfinite_name(int32_t policy);
unroll_status trainer_options_check(const unroll_training *o, unroll_error *err);
unroll_status trainer_check_extent(const char *name, int64_t value, int64_t most, unroll_error *err);
/* lo <= value < hi */
unroll_status trainer_check_real(const char *name, double value, double lo, double hi, unroll_error *err);
/* Copies the texts. On failure nothing is held. */
unroll_status trainer_options_copy(const unroll_training *from, const unroll_allocator *allocator, unroll_training *to,
                                   unroll_error *err);
void trainer_options_free(unroll_training *o, const unroll_allocator *allocator);

bool trainer_is_frozen(const unroll_training *o, const char *name);
double trainer_l2(const unroll_training *o, const char *name);
bool trainer_is_recurrent(const char *name);
/* Patterns that fit none of these parameters are errors, as is a training of none. */
unroll_status trainer_check_patterns(const unroll_training *o, const char *const *names, uint32_t n, unroll_error *err);

/* ---- recurrent layers ---- */
unroll_status trainer_rnn_check(const unroll_recurrent *r, unroll_error *err);
/* Without lengths, in one direction. */
unroll_rnn_options trainer_rnn_options(const unroll_recurrent *r, bool training);
/* The first layer reads so many numbers: is any layer as wide as its input, where residual connections want one? */
unroll_status trainer_rnn_check_input(const unroll_recurrent *r, int64_t input, bool bidirectional, unroll_error *err);
/* Numbers that a layer and direction gives, P. */
int64_t trainer_rnn_outputs(const unroll_recurrent *r);
/* The width of the gates' tensors or of y, the widest ones of a layer and direction. */
int64_t trainer_rnn_width(const unroll_recurrent *r);
bool trainer_rnn_has_c(const unroll_recurrent *r);
/* Without options of cells but the dropout of outputs. */
bool trainer_rnn_is_plain(const unroll_recurrent *r);

/* ---- graphs ---- */
struct trainer_carry {
  unroll_tensor state, now, next; /* `now`: the rows of this run; next: what they become */
};
struct trainer_build {
  unroll_graph *graph;
  bool training;
  uint32_t variant;
  int64_t parts; /* that an update's batch comes in; 1 where nothing is trained */
  struct trainer_carry carries[TRAINER_MAX_CARRIES];
  uint32_t n_carries;
  uint32_t scratch[2 * TRAINER_MAX_PARAMS], n_scratch; /* states that no file keeps */
};
/*
 * A state of one row for each sequence, carried on from run to run, as this run finds it: [rows, width]. Where an
 * update's batch comes in parts, each part's rows stand in turn at the state's beginning.
 */
unroll_tensor trainer_state(struct trainer_build *b, const char *name, int64_t rows, int64_t width);
void trainer_carry_on(struct trainer_build *b, unroll_tensor now, unroll_tensor next);
/* What trainer_graph_* do with the states themselves: in other graphs, once all are carried on. */
void trainer_update_carries(struct trainer_build *b);

struct trainer_loss {
  unroll_tensor loss;   /* f32 []: a mean */
  unroll_tensor weight; /* f32 []: over how many; none: always as many */
  unroll_tensor metric; /* f32 []: likewise a mean, such as the accuracy; or none */
};

/* ---- a task ---- */
struct trainer_place {
  uint64_t update; /* all counted from 0 */
  uint64_t epoch, index;
  int64_t part, parts;
};
struct trainer_feed {
  int64_t dims[4]; /* the graph's run-time sizes */
  uint32_t n_dims;
  int64_t row0;  /* the first sequence's place in the batch */
  int64_t items; /* time steps in it, for the pace */
};
struct trainer_task {
  /* Inputs and network, of a part of an update's batch or of a batch that is evaluated; what is wrong stays in the
   * graph. */
  struct trainer_loss (*build)(const void *owner, struct trainer_build *b);
  unroll_status (*initialise)(const void *owner, const unroll_tensor_info *info, void *data, unroll_error *err);
  /* Writes a batch, or its part, and clears the states where one begins. */
  unroll_status (*feed)(void *owner, const struct trainer_place *place, unroll_binding *b, struct trainer_feed *feed,
                        unroll_error *err);
  unroll_status (*feed_evaluation)(void *owner, uint64_t batch, unroll_binding *b, struct trainer_feed *feed,
                                   unroll_error *err);
  uint64_t (*epoch_updates)(const void *owner, uint64_t epoch);
  /*
   * Where sizes that are no run-time ones differ from batch to batch, graphs of different shapes with the same tensors
   * share parameters and states: which of them, 0 to TRAINER_MAX_VARIANTS - 1, takes this batch? A batch that is
   * evaluated is told by its index alone. NULL: there is one.
   */
  uint32_t (*variant)(void *owner, const struct trainer_place *place, bool training);
  /* The validation, where it is no mean over evaluated batches; NULL: it is. */
  unroll_status (*evaluate)(void *owner, double *loss, double *metric, unroll_error *err);
  /* All of the file's metadata. */
  unroll_status (*metadata)(const void *owner, unroll_safetensors_writer *writer, unroll_error *err);
  const char *data; /* what it is resumed with: "text" */
};

/* A tensor that a model's file has: a parameter or a state. */
struct trainer_tensor {
  char *name;
  int32_t dtype, rank, role; /* UNROLL_ROLE_PARAM or UNROLL_ROLE_STATE */
  int64_t shape[UNROLL_MAX_RANK];
  uint64_t bytes;
  void *stored; /* NULL where the training binding has it */
};

/* A compiled graph and its buffers; both NULL, or both there. */
struct trainer_program {
  unroll_executable *exe;
  unroll_binding *binding;
};

struct trainer {
  unroll_allocator allocator;
  unroll_device **devices;
  uint32_t n_devices;
  const struct trainer_task *task;
  void *owner;
  unroll_training options;
  struct trainer_tensor *tensors;
  uint32_t n_tensors;

  uint64_t update, best_update;
  double best_loss;       /* NaN: not evaluated yet */
  int64_t stale;          /* evaluations since the best one, where a run has a patience */
  uint64_t diverged;      /* the update, counted from 1, that found no finite number; 0: none did */
  uint32_t skipped_a_row; /* updates */
  bool busy;              /* a callback runs */

  bool ready;         /* its data are there */
  uint64_t steady;    /* from this epoch on, epochs have as many updates as this one; */
  uint64_t *begin_at; /* [steady + 1] the first update of each up to it; NULL where steady is 0 */
  uint64_t evaluation_batches;
  struct trainer_program train, evaluate; /* variant 0: parameters and states are made there */
  struct trainer_program more_train[TRAINER_MAX_VARIANTS],
      more_evaluate[TRAINER_MAX_VARIANTS];    /* by variant, from 1 on */
  char nonfinite[UNROLL_NONFINITE_TEXT + 64]; /* where the last report had no finite number */
  /* Where every update is checked: all that stays between updates, as it was before update `before_update`, counted from 0,
   * and as it was when a search began; whether this run has searched. */
  unroll_snapshot *before, *kept;
  uint64_t before_update;
  bool searched;
};

/* What a progress callback reads parameters through. */
struct unroll_train_parameters {
  const struct trainer *trainer;
};

/* ---- life ---- */
/* t is zeros. What fails is freed by trainer_end. */
unroll_status trainer_begin(struct trainer *t, const struct trainer_task *task, void *owner,
                            unroll_device *const *devices, uint32_t n_devices, const unroll_allocator *allocator,
                            unroll_error *err);
void trainer_end(struct trainer *t);
/* The training program of a new model, with first values. Options are set. */
unroll_status trainer_create(struct trainer *t, unroll_error *err);
/* The data are there: epochs of `steady` and later ones are alike; evaluation_batches 0: nothing to evaluate. */
unroll_status trainer_attach(struct trainer *t, uint64_t steady, uint64_t evaluation_batches, unroll_error *err);
unroll_status trainer_not_busy(const struct trainer *t, const char *what, unroll_error *err);
/* Ready to train and no callback running. */
unroll_status trainer_ready(const struct trainer *t, const char *what, unroll_error *err);
uint64_t trainer_count_parameters(const struct trainer *t);

/* ---- programs ---- */
unroll_status trainer_graph_train(const struct trainer *t, uint32_t variant, struct trainer_build *b,
                                  unroll_error *err);
unroll_status trainer_graph_evaluate(const struct trainer *t, uint32_t variant, unroll_graph **graph,
                                     unroll_error *err);
/* A state [TRAINER_HISTORY] of what a value of one element was in the latest runs, this one last. last, bool [] or
 * none: is this run one to remember? */
void trainer_history(struct trainer_build *b, const char *name, unroll_tensor value, unroll_tensor last);
/* Ends the building: a graph that has an error is destroyed. */
unroll_status trainer_graph_finish(unroll_graph *g, unroll_graph **graph, unroll_error *err);
/* The parameters and states of a training graph that a file keeps, as t->tensors. */
unroll_status trainer_list_tensors(struct trainer *t, const struct trainer_build *b, unroll_error *err);
/* Compiles and binds. Destroys the graph, whatever happens. */
unroll_status trainer_program_make(const struct trainer *t, unroll_graph *graph, struct trainer_program *program,
                                   unroll_error *err);
void trainer_program_free(struct trainer_program *program);
/* Likewise, and its parameters and states are those of `first`, by their names. */
unroll_status trainer_program_variant(const struct trainer *t, unroll_graph *graph, const struct trainer_program *first,
                                      struct trainer_program *program, unroll_error *err);
/* Gives a program that trains nothing its parameters: those of the training binding, or the stored ones. */
unroll_status trainer_program_parameters(const struct trainer *t, struct trainer_program *program, unroll_error *err);

/* ---- training ---- */
double trainer_seconds(void); /* a clock that only goes forward */
/* The mean over all evaluation batches. metric: NaN where the task has none. */
unroll_status trainer_evaluate_with(struct trainer *t, struct trainer_program *program, uint64_t batches, double *loss,
                                    double *metric, unroll_error *err);
unroll_status trainer_evaluate(struct trainer *t, double *loss, double *metric, unroll_error *err);
unroll_status trainer_train(struct trainer *t, const unroll_train_options *options, unroll_error *err);
unroll_status trainer_set_schedule(struct trainer *t, const unroll_schedule *schedule, unroll_error *err);
/* Of an update, counted from 1. NaN: not ready. */
double trainer_learning_rate(const struct trainer *t, uint64_t update);
struct trainer_place trainer_place_of(const struct trainer *t, uint64_t update);
/* The program of a batch's variant, made where it is not there yet. */
unroll_status trainer_program_of(struct trainer *t, bool training, const struct trainer_place *place,
                                 struct trainer_program **program, unroll_error *err);
/* What all parts of update t->update have in common is written: its place in the data, its program. */
unroll_status trainer_begin_update(struct trainer *t, struct trainer_place *place, struct trainer_program **program,
                                   unroll_error *err);
/* Writes the batch, or the part that the place says, and how it is to be run. */
unroll_status trainer_feed_part(struct trainer *t, const struct trainer_place *place, unroll_binding *b,
                                struct trainer_feed *feed, unroll_run_options *run, unroll_error *err);
/* Queues update number t->update, counted from 0, and counts it. */
unroll_status trainer_queue_update(struct trainer *t, int64_t *items, unroll_error *err);

/* ---- the search for what is not finite ---- */
/* Keeps what update t->update begins with. */
unroll_status trainer_watch(struct trainer *t, unroll_error *err);
void trainer_unwatch(struct trainer *t);
/*
 * Makes the updates since the watch again, up to `update`, counted from 1, which found no finite number, and says where in
 * it the first one is. The trainer stands before that update then where it is to stay there, else as it did.
 */
unroll_status trainer_search(struct trainer *t, uint64_t update, bool stay, unroll_nonfinite *found, unroll_error *err);

/* ---- file ---- */
unroll_status trainer_save(struct trainer *t, const char *path, unroll_error *err);
/* Opens a model's file, verifies the whole of it, and has read take it into the model. Messages begin with the path. */
typedef unroll_status (*trainer_read_fn)(void *model, const unroll_safetensors *file, unroll_error *err);
unroll_status trainer_read_file(const struct trainer *t, const char *path, trainer_read_fn read, void *model,
                                unroll_error *err);
/* The tensors that the options ask for, and no others, into their `stored` copies. */
unroll_status trainer_read_tensors(struct trainer *t, const unroll_safetensors *file, unroll_error *err);
/* Makes the training program from the stored copies, which stay. */
unroll_status trainer_upload(struct trainer *t, unroll_error *err);
void trainer_forget_stored(struct trainer *t);

/* ---- file: metadata: flat JSON objects whose fields stand in tables ---- */
enum field_type { FIELD_EXTENT, FIELD_COUNT, FIELD_HASH, FIELD_REAL, FIELD_LOSS, FIELD_NAME, FIELD_TEXT };
/*
 * A field that is missing, double or unknown is an error, so that no option of a file is silently ignored. Fields of a
 * group above 0 stand only in a file where one of the group is not its standard, so that a file that uses nothing new
 * can be read by every version; the struct that is read into holds the standards beforehand.
 */
struct trainer_field {
  const char *key;
  enum field_type type;
  size_t offset; /* into the struct of the piece */
  const char *(*name)(int32_t value);
  int32_t first, end; /* the range of the numbers that have names */
  int32_t group;
  double standard; /* NULL of a text */
};
struct trainer_fields {
  const struct trainer_field *fields;
  uint32_t n;
  void *base;
};
/* fields: n_pieces tables, written one after the other into one object. */
unroll_status trainer_metadata_write(unroll_safetensors_writer *writer, const char *key,
                                     const struct trainer_fields *pieces, uint32_t n_pieces,
                                     const unroll_allocator *allocator, unroll_error *err);
/* A FIELD_TEXT, NULL before, gets memory of the allocator, also where an error follows. */
unroll_status trainer_metadata_read(const unroll_safetensors *file, const char *key,
                                    const struct trainer_fields *pieces, uint32_t n_pieces,
                                    const unroll_allocator *allocator, unroll_error *err);
/* unroll.kind, unroll.format and unroll.version. */
unroll_status trainer_metadata_begin(unroll_safetensors_writer *writer, const char *kind, unroll_error *err);
unroll_status trainer_metadata_check(const unroll_safetensors *file, const char *expected, unroll_error *err);
/* As many digits as give the same double back, whatever the locale. Else false: there is no memory. */
bool trainer_add_real(struct text *to, double value);
/* A decimal number that is finite, whatever the locale. Else false, as where there is no memory. */
bool trainer_parse_real(const char *text, double *value, const char **end);
/* The fields of unroll_training; the recurrent layers', of the model and of its training. */
struct trainer_fields trainer_option_fields(unroll_training *o);
struct trainer_fields trainer_rnn_model_fields(unroll_recurrent *r);
struct trainer_fields trainer_rnn_training_fields(unroll_recurrent *r);

struct trainer_position {
  uint64_t update, best_update;
  double best_loss;
  int64_t stale;
};
void trainer_take_position(struct trainer *t, const struct trainer_position *position);
unroll_status trainer_position_write(const struct trainer *t, unroll_safetensors_writer *writer, unroll_error *err);
unroll_status trainer_position_read(const unroll_safetensors *file, const unroll_allocator *allocator,
                                    struct trainer_position *position, unroll_error *err);

#endif
