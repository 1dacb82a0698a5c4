/* SPDX-License-Identifier: Apache-2.0 */
/* A forecaster's options and graphs. */
#include "train/forecaster_private.h"

#define MOST_LAGS 65536
#define MOST_DIFFERENCES 2

unroll_forecaster_options unroll_forecaster_options_default(void) {
  return (unroll_forecaster_options){.struct_size = sizeof(unroll_forecaster_options),
                                     .rnn = {.cell = UNROLL_CELL_GRU, .layers = 1, .hidden = 16},
                                     .lags = 12,
                                     .horizon = 1,
                                     .training = unroll_training_default()};
}

unroll_status forecaster_options_check(const unroll_forecaster_options *o, unroll_error *err) {
  TRY(trainer_rnn_check(&o->rnn, err));
  TRY(trainer_rnn_check_input(&o->rnn, 1, false, err));
  TRY(trainer_check_extent("lags", o->lags, MOST_LAGS, err));
  TRY(trainer_check_extent("horizon", o->horizon, MOST_LAGS, err));
  if (o->differences < 0 || o->differences > MOST_DIFFERENCES)
    return fail(err, UNROLL_E_INVALID, "differences %lld, it must be from 0 to %d", (long long)o->differences,
                MOST_DIFFERENCES);
  if (o->season < 0 || o->season == 1 || o->season > MOST_LAGS)
    return fail(err, UNROLL_E_INVALID, "season %lld, it must be from 2 to %d, or 0 for none", (long long)o->season,
                MOST_LAGS);
  if (o->holdout < 0)
    return fail(err, UNROLL_E_INVALID, "holdout %lld, it must be 0 or more", (long long)o->holdout);
  TRY(trainer_options_check(&o->training, err));
  int64_t widest = trainer_rnn_width(&o->rnn);
  widest = widest < o->horizon ? o->horizon : widest;
  if (o->lags > INT32_MAX / widest / o->training.batch)
    return fail(err, UNROLL_E_INVALID,
                "batch %lld times lags %lld times %lld, the model's widest tensor, is past 2^31-1",
                (long long)o->training.batch, (long long)o->lags, (long long)widest);
  return UNROLL_OK;
}

/* Up to the next values [rows,H]. */
static unroll_tensor add_network(const unroll_forecaster *f, unroll_graph *g, int64_t rows, bool training) {
  const unroll_forecaster_options *o = &f->options;
  const int64_t units = trainer_rnn_outputs(&o->rnn);
  const unroll_tensor x = unroll_input(g, "x", UNROLL_F32, 3, (int64_t[]){o->lags, rows, 1});
  const unroll_rnn_options rnn = trainer_rnn_options(&o->rnn, training);
  unroll_tensor h[TRAINER_MAX_LAYERS];
  for (int i = 0; i < TRAINER_MAX_LAYERS; i++)
    h[i] = unroll_none();
  unroll_rnn_state last = {h, NULL};
  unroll_tensor top = unroll_rnn(x, "rnn", &rnn, NULL, &last);
  /* The last state, but where a connection goes around the last layer: then what comes out of both. */
  top = o->rnn.residual == UNROLL_RESIDUAL_OUTPUTS
            ? unroll_reshape(unroll_slice(top, 0, o->lags - 1, 1), 2, (int64_t[]){rows, units})
            : h[o->rnn.layers - 1];
  if (training && o->rnn.dropout > 0) {
    top = unroll_dropout(unroll_reshape(top, 3, (int64_t[]){1, rows, units}), o->rnn.dropout);
    top = unroll_reshape(top, 2, (int64_t[]){rows, units});
  }
  return unroll_linear(top, "linear", o->horizon, 1);
}

struct trainer_loss forecaster_build(const void *owner, struct trainer_build *b) {
  const unroll_forecaster *f = owner;
  unroll_graph *g = b->graph;
  const int64_t H = f->options.horizon;
  const int64_t rows = b->training ? f->options.training.batch / b->parts : f->validation.rows;
  const unroll_tensor next = add_network(f, g, rows, b->training);
  const unroll_tensor target = unroll_input(g, "target", UNROLL_F32, 2, (int64_t[]){rows, H});
  const unroll_tensor known = unroll_input(g, "known", UNROLL_F32, 2, (int64_t[]){rows, H});
  const unroll_tensor one = unroll_constant(g, UNROLL_F32, 0, NULL, 1);
  const unroll_tensor count = unroll_reduce(known, UNROLL_SUM, 0, 0);
  const unroll_tensor some = unroll_binary(count, one, UNROLL_MAX);
  const unroll_tensor off = unroll_mul(unroll_sub(next, target), known);
  const unroll_tensor mae = unroll_div(unroll_reduce(unroll_unary(off, UNROLL_ABS), UNROLL_SUM, 0, 0), some);
  return (struct trainer_loss){.loss = unroll_div(unroll_reduce(off, UNROLL_SUM_SQUARES, 0, 0), some),
                               .weight = count,
                               .metric = unroll_scale(mae, f->deviation)};
}

unroll_status forecaster_graph_forecast(const unroll_forecaster *f, unroll_graph **graph, unroll_error *err) {
  unroll_graph *g;
  TRY(unroll_graph_create(&f->trainer.allocator, &g, err));
  unroll_output(add_network(f, g, 1, false), "next");
  return trainer_graph_finish(g, graph, err);
}
