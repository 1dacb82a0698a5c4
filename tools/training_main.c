/* SPDX-License-Identifier: Apache-2.0 */
/* The frame of every `train` command: from its options to a model that is trained. */
#include <inttypes.h>

#include "console.h"
#include "training.h"

static unroll_status open_model(const training_task *task, const training_job *job, unroll_device *device, void **data,
                                void **model, unroll_error *err) {
  const char *const resume = job->train->resume;
  unroll_status status = UNROLL_OK;
  if (resume)
    status = task->load(device, resume, model, err);
  if (resume && status == UNROLL_OK && task->before_resume)
    status = task->before_resume(job->values, *model, err);
  if (status == UNROLL_OK)
    status = task->open_data(job->values, *model, data, err);
  if (status != UNROLL_OK)
    return status;
  if (!resume)
    return task->create(job->command, job->values, device, *data, model, err);
  status = task->resume(*model, *data, err);
  if (status == UNROLL_OK && train_changes_schedule(job->command, job->values)) {
    unroll_schedule schedule = task->state(*model).schedule;
    train_set_schedule(job->command, job->values, job->train, &schedule);
    status = task->set_schedule(*model, &schedule, err);
  }
  return status;
}

static void introduce(const training_task *task, const training_job *job, const void *model, const void *data,
                      unroll_device *device) {
  const unroll_device_info *d = unroll_device_describe(device);
  task->tell_model(model, data);
  tell("device    %s, %s", unroll_device_id(device), d && d->name ? d->name : "");
  task->tell_updates(model);
  if (job->train->resume)
    tell("resumed   at update %" PRIu64 " of %s", task->state(model).update, job->train->resume);
}

int training_main(const training_task *task, const training_job *job) {
  const train_values *train = job->train;
  if (!train_check_usage(job->command, job->values, train, task->of_the_model, task->n_of_the_model) ||
      !train_check_files(train, job->words, job->n_files, task->data))
    return EXIT_USAGE;
  if ((train->out && !training_check_target("out", train->out)) ||
      (train->tensorboard && !board_check_folder(train->tensorboard)))
    return EXIT_FAILED;
  unroll_context *ctx = open_context(job->common);
  unroll_device *device = ctx ? open_device(ctx, job->common) : NULL;
  void *model = NULL, *data = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  int code = EXIT_FAILED;
  if (device && open_model(task, job, device, &data, &model, &err) == UNROLL_OK) {
    introduce(task, job, model, data, device);
    code = training_run(task, job, unroll_device_id(device), model);
    if (code == EXIT_OK && task->tell_score)
      task->tell_score(model, data);
  } else if (device)
    complain_of(&err);
  task->destroy(model);
  task->close_data(data);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return code;
}
