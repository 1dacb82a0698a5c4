/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an update found no finite number. All that stays between updates is kept before each report's first update; updates
 * follow from it, their number and the data alone, so the one in question can be made again up to its beginning.
 */
#include "train/trainer.h"

static unroll_status make_snapshot(const struct trainer *t, unroll_snapshot **snapshot, unroll_error *err) {
  const unroll_snapshot_options all = {
      .struct_size = sizeof all, .what = UNROLL_SNAPSHOT_SEQUENCE | UNROLL_SNAPSHOT_OPTIMIZER | UNROLL_SNAPSHOT_PARAMS};
  if (*snapshot)
    return UNROLL_OK;
  const unroll_status status = unroll_snapshot_create(t->train.exe, &all, snapshot, err);
  if (status != UNROLL_OK)
    *snapshot = NULL;
  return status;
}

unroll_status trainer_watch(struct trainer *t, unroll_error *err) {
  TRY(make_snapshot(t, &t->before, err));
  t->before_update = t->update;
  return unroll_snapshot_save(t->before, t->train.binding, NULL, err);
}

void trainer_unwatch(struct trainer *t) {
  unroll_snapshot_destroy(t->before);
  unroll_snapshot_destroy(t->kept);
  t->before = t->kept = NULL;
  t->searched = false;
}

/* To the beginning of an update, counted from 0. */
static unroll_status go_to(struct trainer *t, uint64_t update, unroll_error *err) {
  int64_t items = 0;
  TRY(unroll_snapshot_restore(t->before, t->train.binding, NULL, err));
  t->update = t->before_update;
  while (t->update < update)
    TRY(trainer_queue_update(t, &items, err));
  return UNROLL_OK;
}

/* What no file keeps begins anew with an update: what earlier ones left there is not looked at. */
static unroll_status clear_scratch(const struct trainer_build *b, unroll_binding *binding, unroll_error *err) {
  for (uint32_t i = 0; i < b->n_scratch; i++) {
    const unroll_tensor_info info = unroll_tensor_describe((unroll_tensor){b->graph, b->scratch[i]});
    TRY(unroll_binding_clear(binding, info.name, err));
  }
  return UNROLL_OK;
}

static unroll_status search_parts(struct trainer *t, const struct trainer_build *b, struct trainer_place *place,
                                  unroll_binding *binding, unroll_nonfinite *found, unroll_error *err) {
  TRY(clear_scratch(b, binding, err));
  for (place->part = 0; place->part < place->parts; place->part++) {
    struct trainer_feed feed;
    unroll_run_options run;
    TRY(trainer_feed_part(t, place, binding, &feed, &run, err));
    TRY(unroll_nonfinite_find(b->graph, t->devices, t->n_devices, binding, &run, found, err));
    if (found->found)
      return UNROLL_OK;
    TRY(unroll_run(binding, &run, err));
  }
  return UNROLL_OK;
}

static unroll_status search(struct trainer *t, uint64_t update, unroll_nonfinite *found, unroll_error *err) {
  struct trainer_place place;
  struct trainer_program *program;
  struct trainer_build b;
  TRY(go_to(t, update, err));
  TRY(trainer_begin_update(t, &place, &program, err));
  const uint32_t variant = t->task->variant ? t->task->variant(t->owner, &place, true) : 0;
  TRY(trainer_graph_train(t, variant, &b, err));
  const unroll_status status = search_parts(t, &b, &place, program->binding, found, err);
  unroll_graph_destroy(b.graph);
  return status;
}

unroll_status trainer_search(struct trainer *t, uint64_t update, bool stay, unroll_nonfinite *found,
                             unroll_error *err) {
  const uint64_t at = t->update;
  if (!stay) {
    TRY(make_snapshot(t, &t->kept, err));
    TRY(unroll_snapshot_save(t->kept, t->train.binding, NULL, err));
  }
  const unroll_status status = search(t, update - 1, found, err);
  unroll_error *const second = status == UNROLL_OK ? err : NULL; /* the first error is the one that is told */
  const unroll_status back =
      stay ? go_to(t, update - 1, second) : unroll_snapshot_restore(t->kept, t->train.binding, NULL, second);
  if (!stay)
    t->update = at;
  return status != UNROLL_OK ? status : back;
}
