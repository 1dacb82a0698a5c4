/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unroll/forecast.h>

#include "console.h"
#include "series_options.h"
#include "training.h"

typedef struct series_train_values {
  option_marks marks;
  common_values common;
  train_values train;
  sequence_values data;
  series_values series;
  int64_t lags, horizon, differences, season, holdout;
  bool unscaled;
} series_train_values;

#define AT(field) offsetof(series_train_values, field)

static const option_spec options[] = {
    HEADING("files"),
    {.type = OPTION_TEXT,
     .name = "csv",
     .argument = "FILE",
     .offset = AT(data.csv),
     .required = true,
     .help = "a record for each step of time, the oldest first"},
    OPTIONS_SERIES(series_train_values, "the series: a column of numbers, by name or by number from 1"),
    OPTIONS_CSV_FORM(series_train_values),
    OPTIONS_TRAIN_FILES(series_train_values, "the same series", "steps_per_s"),
    OPTIONS_TRAIN_LIMITS(series_train_values, "the windows"),
    HEADING("model"),
    INTEGER("lags", "P", AT(lags), "12", 1, 65536, "values that each forecast is made from: the window"),
    INTEGER("horizon", "H", AT(horizon), "1", 1, 65536, "values that the network says at once; more are fed back"),
    INTEGER("differences", "D", AT(differences), "0", 0, 2, "differences from value to value that are taken before"),
    INTEGER("season", "S", AT(season), "0", 0, 65536,
            "steps of a season, such as 12 months: differences over it are taken before; 0: none"),
    FLAG("unscaled", AT(unscaled), "the numbers are not standardised by the training part"),
    INTEGER("holdout", "N", AT(holdout), "0", 0, INT32_MAX,
            "records at the end that are not looked at, for 'unroll eval'"),
    OPTIONS_TRAIN_LAYERS(series_train_values, "gru", "16", "1"),
    INTEGER("seed", "N", AT(train.seed), "1", 0, (double)INT64_MAX, "of initial values, orders, dropout"),
    OPTIONS_TRAIN_DROPOUTS(series_train_values, ", also of the last state"),
    HEADING("training"),
    OPTION_TRAIN_CHECKPOINT(series_train_values),
    OPTIONS_TRAIN_UPDATES(series_train_values, "windows of an update", "32"),
    OPTIONS_TRAIN_VALIDATION(series_train_values,
                             "the last part of the windows before the holdout, kept for validation; 0: none", "0.1"),
    HEADING("where and how"),
    OPTIONS_DEVICE(series_train_values),
    OPTIONS_LOG(series_train_values),
};

/* What a model's file holds, beside what every model's does. */
static const char *const of_the_model[] = {"lags", "horizon", "differences", "season", "unscaled", "holdout"};

/* ---- what stands on stderr before ---- */

static void tell_model(const void *model, const void *data) {
  (void)data;
  const unroll_forecaster_info info = unroll_forecaster_describe(model);
  const unroll_forecaster_options *o = &info.options;
  char x[96] = "";
  if (o->differences > 0)
    snprintf(x, sizeof x, ", differences %" PRId64, o->differences);
  if (o->season > 0)
    snprintf(x + strlen(x), sizeof x - strlen(x), ", season %" PRId64, o->season);
  tell("series    %" PRId64 " values%s%s, the last %" PRId64 " held out%s", info.count, o->name ? " of " : "",
       o->name ? o->name : "", o->holdout, x);
  tell("windows   of %" PRId64 ": %" PRId64 " to train, %" PRId64 " to validate", o->lags, info.train_count,
       info.validation_count);
  if (!isnan(info.naive_loss))
    tell("baseline  the last value again: loss %.4f, mae %.4g on the validation part", info.naive_loss, info.naive_mae);
  train_tell_model(&o->rnn, "", "", info.n_parameters);
}

static void tell_updates(const void *model) {
  const unroll_forecaster_info info = unroll_forecaster_describe(model);
  const unroll_forecaster_options *o = &info.options;
  tell("updates   %" PRIu64 " an epoch, each of %" PRId64 " windows", info.updates_per_epoch, o->training.batch);
  train_tell_more(&o->rnn, &o->training, "windows");
}

/* ---- the run ---- */

static unroll_status open_series(const void *p, const void *resumed, void **data, unroll_error *err) {
  const series_train_values *values = p;
  unroll_table *table = NULL;
  const unroll_status status =
      series_load(&values->data, &values->series, unroll_forecaster_describe(resumed).options.name, &table, err);
  *data = table;
  return status;
}
static void close_series(void *data) { unroll_table_destroy(data); }

static unroll_status create_model(const command_spec *command, const void *p, unroll_device *device, const void *data,
                                  void **model, unroll_error *err) {
  const series_train_values *values = p;
  unroll_forecaster_options o = unroll_forecaster_options_default();
  o.lags = values->lags;
  o.horizon = values->horizon;
  o.differences = values->differences;
  o.season = values->season;
  o.holdout = values->holdout;
  o.unscaled = values->unscaled;
  o.name = unroll_table_name(data, 0);
  o.rnn = train_recurrent(&values->train);
  o.training = train_training(command, values, &values->train);
  unroll_forecaster *f = NULL;
  const unroll_status status =
      unroll_forecaster_create(&device, 1, unroll_table_values(data, 0), unroll_table_rows(data), &o, NULL, &f, err);
  *model = f;
  return status;
}

static unroll_status resume_model(void *model, const void *data, unroll_error *err) {
  return unroll_forecaster_resume(model, unroll_table_values(data, 0), unroll_table_rows(data), err);
}

TRAINING_FUNCTIONS(unroll_forecaster)

static const training_task task = {.data_option = "csv",
                                   .data = "the data",
                                   .of_the_model = of_the_model,
                                   .n_of_the_model = COUNT(of_the_model),
                                   .open_data = open_series,
                                   .close_data = close_series,
                                   .create = create_model,
                                   .resume = resume_model,
                                   .tell_model = tell_model,
                                   .tell_updates = tell_updates,
                                   TRAINING_FUNCTION_FIELDS,
                                   .pace = "steps",
                                   .metric = "mae",
                                   .try_it = "unroll predict --steps 12 --csv FILE"};

static int run(const command_spec *command, const void *p) {
  const series_train_values *values = p;
  const sequence_values *data = &values->data;
  const series_values *series = &values->series;
  train_words words = {.at = {data->csv}, .n = 1};
  train_add_words(&words, "--column", series->column, NULL);
  train_add_words(&words, "--holes", series->holes, "error");
  sequence_add_form(&words, data);
  if (!series->column && !values->train.resume) {
    complain("'unroll %s' needs --column C", command->name);
    complain("see 'unroll %s --help'", command->name);
    return EXIT_USAGE;
  }
  if (values->season == 1) {
    complain("--season: '1' is not a whole number from 2 on, or 0 for none; --differences is from value to value");
    return EXIT_USAGE;
  }
  const training_job job = {.command = command,
                            .values = values,
                            .common = &values->common,
                            .train = &values->train,
                            .words = words.at,
                            .n_words = words.n,
                            .n_files = 1};
  return sequence_check_usage(data) ? training_main(&task, &job) : EXIT_USAGE;
}

const command_spec command_train_series = {
    .name = "train series",
    .purpose = "train a forecaster of a time series on CSV",
    .usage = "--csv FILE --column C --out M.safetensors [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(series_train_values),
    .notes = "A network foretells the next values from the --lags before. Losses are mean squared errors of "
             "standardised\nvalues, mae the mean absolute error in the series' own unit. For an ensemble train one "
             "model for each --seed, and\ngive the others to 'unroll eval' and 'unroll predict' --with the first. "
             "Ctrl-C and files: as 'unroll train lm' has it.\n",
    .example =
        "  unroll train series --csv co2.csv --column co2 --holes interpolate --season 12 --lags 24 --holdout 120 \\\n"
        "    --epochs 20 --out co2.safetensors\n"
        "  unroll eval co2.safetensors --csv co2.csv --holes interpolate --plot co2.svg\n"
        "  unroll predict co2.safetensors --csv co2.csv --holes interpolate --steps 24\n",
    .run = run,
};
