/* SPDX-License-Identifier: Apache-2.0 */
/* Translations of many sources: sorted by length into batches, each through a program of its shape. */
#include <math.h>
#include <string.h>

#include "train/translate_private.h"

#define MOST_ROWS 256
/* Sources that are longer than any of the training are rounded up to so many tokens, so that few programs do. */
#define ROUNDED 8

/* ---- programs ---- */

static void free_program(struct translator_program *p) {
  trainer_program_free(&p->program);
  *p = (struct translator_program){.rows = 0};
}

void translator_programs_free(unroll_translator *t) {
  for (int i = 0; i < TRANSLATOR_PROGRAMS; i++)
    free_program(&t->programs[i]);
}

static bool is_same_way(const struct translator_way *a, const struct translator_way *b) {
  return a->beam == b->beam && a->sampled == b->sampled && a->alpha == b->alpha && a->temperature == b->temperature &&
         a->top_p == b->top_p && a->top_k == b->top_k;
}

unroll_status translator_program(unroll_translator *t, const struct translator_way *way, bool forced, int64_t rows,
                                 int64_t source, int64_t steps, struct translator_program **program,
                                 unroll_error *err) {
  struct translator_program *oldest = &t->programs[0];
  for (int i = 0; i < TRANSLATOR_PROGRAMS; i++) {
    struct translator_program *p = &t->programs[i];
    if (p->program.binding && p->forced == forced && p->rows == rows && p->source == source && p->steps == steps &&
        is_same_way(&p->way, way)) {
      p->used = ++t->clock;
      *program = p;
      return UNROLL_OK;
    }
    if (p->used < oldest->used)
      oldest = p;
  }
  free_program(oldest);
  struct translator_program made = {
      .way = *way, .forced = forced, .rows = rows, .source = source, .steps = steps, .used = ++t->clock};
  unroll_graph *graph;
  TRY(translator_graph_program(t, &made, &graph, err));
  TRY(trainer_program_make(&t->trainer, graph, &made.program, err));
  const unroll_status status = trainer_program_parameters(&t->trainer, &made.program, err);
  if (status != UNROLL_OK) {
    trainer_program_free(&made.program);
    return status;
  }
  *oldest = made;
  *program = oldest;
  return UNROLL_OK;
}

/* ---- what is found ---- */

void translator_found_free(const unroll_translator *t, struct translator_found *f) {
  const unroll_allocator *a = &t->trainer.allocator;
  mem_free(a, f->starts);
  mem_free(a, f->lengths);
  mem_free(a, f->ended);
  mem_free(a, f->log_probs);
  mem_free(a, f->ids);
  mem_free(a, f->weight_starts);
  mem_free(a, f->weights);
  *f = (struct translator_found){.n = 0};
}

/* A search: what is looked for, and room for a batch. */
struct search {
  unroll_translator *t;
  const unroll_sequences *sources;
  const int64_t *items; /* NULL: all */
  const unroll_translate_options *o;
  struct translator_way way;
  struct translator_found *found;
  int64_t rows;
  uint32_t n_ids, ids_capacity, n_weights, weights_capacity;
  int32_t *source, *source_lengths; /* [S,rows], [rows] */
  int32_t *ids, *lengths;           /* [T,rows,K], [rows,K] */
  int32_t *inputs, *targets;        /* [T,rows] */
  float *log_probs, *weights;       /* [rows,K], [T,rows,S] */
};

static int64_t item_of(const struct search *s, int64_t k) { return k < 0 ? -1 : s->items ? s->items[k] : k; }
static int64_t beams(const struct search *s) { return s->way.beam > 0 ? s->way.beam : 1; }

static void free_room(struct search *s) {
  const unroll_allocator *a = &s->t->trainer.allocator;
  mem_free(a, s->source);
  mem_free(a, s->source_lengths);
  mem_free(a, s->ids);
  mem_free(a, s->lengths);
  mem_free(a, s->inputs);
  mem_free(a, s->targets);
  mem_free(a, s->log_probs);
  mem_free(a, s->weights);
}

/* Room for batches of sources up to S tokens, with translations of up to T. */
static unroll_status make_room(struct search *s, int64_t S, int64_t T, unroll_error *err) {
  const unroll_allocator *a = &s->t->trainer.allocator;
  const uint64_t B = (uint64_t)s->rows, K = (uint64_t)beams(s);
  uint64_t most;
  if (!size_mul((uint64_t)T * B, s->o->attention && (uint64_t)S > K ? (uint64_t)S : K, &most) || most > INT32_MAX)
    return fail(err, UNROLL_E_RANGE,
                "%lld sources at a time of up to %lld tokens, translations of up to %lld: past 2^31-1",
                (long long)s->rows, (long long)S, (long long)T);
  s->source = mem_array(a, (uint64_t)S * B, sizeof *s->source);
  s->source_lengths = mem_array(a, B, sizeof *s->source_lengths);
  s->ids = mem_array(a, (uint64_t)T * B * K, sizeof *s->ids);
  s->lengths = mem_array(a, B * K, sizeof *s->lengths);
  s->inputs = mem_array(a, (uint64_t)T * B, sizeof *s->inputs);
  s->targets = mem_array(a, (uint64_t)T * B, sizeof *s->targets);
  s->log_probs = mem_array(a, B * K, sizeof *s->log_probs);
  s->weights = mem_array(a, s->o->attention ? (uint64_t)(T * S) * B : 1, sizeof *s->weights);
  if (!s->source || !s->source_lengths || !s->ids || !s->lengths || !s->inputs || !s->targets || !s->log_probs ||
      !s->weights)
    return fail(err, UNROLL_E_MEMORY, "no memory to translate %lld texts at a time", (long long)s->rows);
  return UNROLL_OK;
}

/* The best of each row, without </s>. */
static unroll_status keep(struct search *s, const unroll_batch *batch, unroll_error *err) {
  struct translator_found *f = s->found;
  const int64_t K = beams(s), B = s->rows;
  const int32_t end = translator_end(s->t);
  for (int64_t r = 0; r < batch->n; r++) {
    const int64_t k = batch->items[r];
    int32_t n = s->lengths[r * K];
    f->ended[k] = n > 0 && s->ids[((n - 1) * B + r) * K] == end;
    n -= f->ended[k];
    if ((uint64_t)s->n_ids + (uint64_t)n > UINT32_MAX)
      return fail(err, UNROLL_E_RANGE, "translations of more than 2^32-1 tokens");
    if (!mem_grow(&s->t->trainer.allocator, &f->ids, &s->ids_capacity, s->n_ids + (uint32_t)n + 1, sizeof *f->ids))
      return fail(err, UNROLL_E_MEMORY, "no memory for translations");
    f->starts[k] = s->n_ids;
    f->lengths[k] = n;
    f->log_probs[k] = (double)s->log_probs[r * K];
    for (int32_t i = 0; i < n; i++)
      f->ids[s->n_ids++] = s->ids[(i * B + r) * K];
  }
  return UNROLL_OK;
}

/* What was found goes in once more, for the weights. */
static unroll_status weigh(struct search *s, const unroll_batch *batch, int64_t S, int64_t T, unroll_error *err) {
  struct translator_found *f = s->found;
  const struct translator_way any = {.beam = 0};
  const int64_t B = s->rows;
  const int32_t end = translator_end(s->t);
  const uint64_t bytes = (uint64_t)(T * B) * sizeof *s->inputs;
  struct translator_program *p;
  TRY(translator_program(s->t, &any, true, B, S, T, &p, err));
  unroll_binding *b = p->program.binding;
  for (int64_t r = 0; r < B; r++) {
    const int64_t k = batch->items[r];
    const int32_t *ids = k < 0 ? NULL : f->ids + f->starts[k];
    const int32_t n = k < 0 ? 0 : f->lengths[k];
    s->lengths[r] = k < 0 ? 0 : n + f->ended[k];
    for (int64_t i = 0; i < T; i++) {
      s->targets[i * B + r] = i < n ? ids[i] : i < s->lengths[r] ? end : -1;
      s->inputs[i * B + r] = i > 0 && i <= n ? ids[i - 1] : end;
    }
  }
  TRY(unroll_binding_write(b, "source", s->source, (uint64_t)(S * B) * sizeof *s->source, err));
  TRY(unroll_binding_write(b, "source_lengths", s->source_lengths, (uint64_t)B * sizeof *s->source_lengths, err));
  TRY(unroll_binding_write(b, "inputs", s->inputs, bytes, err));
  TRY(unroll_binding_write(b, "targets", s->targets, bytes, err));
  TRY(unroll_binding_write(b, "target_lengths", s->lengths, (uint64_t)B * sizeof *s->lengths, err));
  TRY(unroll_run(b, NULL, err));
  TRY(unroll_binding_read(b, "weights", s->weights, (uint64_t)(T * B * S) * sizeof *s->weights, err));
  for (int64_t r = 0; r < batch->n; r++) {
    const int64_t k = batch->items[r], n = s->source_lengths[r];
    const uint64_t all = (uint64_t)s->lengths[r] * (uint64_t)n;
    if (s->n_weights + all > UINT32_MAX)
      return fail(err, UNROLL_E_RANGE, "more than 2^32-1 weights of attention");
    if (!mem_grow(&s->t->trainer.allocator, &f->weights, &s->weights_capacity, s->n_weights + (uint32_t)all + 1,
                  sizeof *f->weights))
      return fail(err, UNROLL_E_MEMORY, "no memory for the weights of attention");
    f->weight_starts[k] = s->n_weights;
    for (int64_t i = 0; i < s->lengths[r]; i++, s->n_weights += (uint32_t)n)
      memcpy(f->weights + s->n_weights, s->weights + (i * B + r) * S, (size_t)n * sizeof *f->weights);
  }
  return UNROLL_OK;
}

/* S and T of sources up to so many tokens. */
static void shape_of(const struct search *s, int64_t longest, int64_t *S, int64_t *T) {
  const struct translator_class *k = &s->t->classes[translator_class_of(s->t, longest)];
  *S = longest <= k->source ? k->source : (longest + ROUNDED - 1) / ROUNDED * ROUNDED;
  *T = s->o->most > 0 ? s->o->most : translator_steps(s->t, *S);
}

static unroll_status find_batch(struct search *s, const unroll_batch *batch, uint64_t number, unroll_error *err) {
  const int64_t K = beams(s), B = s->rows;
  int64_t items[MOST_ROWS], S, T;
  struct translator_program *p;
  shape_of(s, batch->T[0], &S, &T);
  TRY(translator_program(s->t, &s->way, false, B, S, T, &p, err));
  unroll_binding *b = p->program.binding;
  for (int64_t r = 0; r < B; r++)
    items[r] = item_of(s, batch->items[r]);
  TRY(translator_write_sources(s->sources, items, B, S, s->source, s->source_lengths, b, err));
  const unroll_run_options run = {.struct_size = sizeof run, .seed = s->o->seed, .update = number};
  TRY(unroll_run(b, &run, err));
  TRY(unroll_binding_read(b, "ids", s->ids, (uint64_t)(T * B * K) * sizeof *s->ids, err));
  TRY(unroll_binding_read(b, "lengths", s->lengths, (uint64_t)(B * K) * sizeof *s->lengths, err));
  TRY(unroll_binding_read(b, "log_prob", s->log_probs, (uint64_t)(B * K) * sizeof *s->log_probs, err));
  TRY(keep(s, batch, err));
  return s->o->attention ? weigh(s, batch, S, T, err) : UNROLL_OK;
}

static unroll_status find_all(struct search *s, unroll_batches *batches, unroll_error *err) {
  int64_t longest = 1, S, T;
  for (int64_t i = 0; i < unroll_batches_count(batches); i++) {
    const unroll_batch batch = unroll_batches_get(batches, i);
    longest = batch.T[0] > longest ? batch.T[0] : longest;
  }
  shape_of(s, longest, &S, &T);
  TRY(make_room(s, S, T, err));
  for (int64_t i = 0; i < unroll_batches_count(batches); i++) {
    const unroll_batch batch = unroll_batches_get(batches, i);
    TRY(find_batch(s, &batch, (uint64_t)i, err));
  }
  return UNROLL_OK;
}

/* Batches of places in items, the longest sources first. */
static unroll_status sort(const struct search *s, int64_t n, unroll_batches **batches, unroll_error *err) {
  const unroll_allocator *a = &s->t->trainer.allocator;
  int32_t *lengths = mem_array(a, (uint64_t)n, sizeof *lengths);
  if (!lengths)
    return fail(err, UNROLL_E_MEMORY, "no memory for the lengths of %lld texts", (long long)n);
  for (int64_t k = 0; k < n; k++)
    lengths[k] = unroll_sequences_lengths(s->sources)[item_of(s, k)];
  const unroll_batches_options o = {.struct_size = sizeof o, .B = s->rows};
  const unroll_status status = unroll_batches_create(lengths, NULL, NULL, n, &o, a, batches, err);
  mem_free(a, lengths);
  return status;
}

unroll_status translator_find(unroll_translator *t, const unroll_sequences *sources, const int64_t *items, int64_t n,
                              const unroll_translate_options *o, struct translator_found *f, unroll_error *err) {
  const unroll_allocator *a = &t->trainer.allocator;
  const bool sampled = o->temperature > 0;
  struct search s = {.t = t, .sources = sources, .items = items, .o = o, .found = f, .rows = 1};
  s.way = (struct translator_way){.beam = o->beam, .alpha = o->beam > 0 ? o->alpha : 0, .sampled = sampled};
  if (sampled) {
    s.way.temperature = o->temperature;
    s.way.top_k = o->top_k;
    s.way.top_p = o->top_p;
  }
  while (s.rows < n && s.rows * 2 * beams(&s) <= MOST_ROWS)
    s.rows *= 2;
  *f = (struct translator_found){.n = n};
  f->starts = mem_array(a, (uint64_t)n, sizeof *f->starts);
  f->lengths = mem_array(a, (uint64_t)n, sizeof *f->lengths);
  f->ended = mem_array(a, (uint64_t)n, sizeof *f->ended);
  f->log_probs = mem_array(a, (uint64_t)n, sizeof *f->log_probs);
  f->weight_starts = o->attention ? mem_array(a, (uint64_t)n, sizeof *f->weight_starts) : NULL;
  unroll_batches *batches = NULL;
  unroll_status status = UNROLL_OK;
  if (!f->starts || !f->lengths || !f->ended || !f->log_probs || (o->attention && !f->weight_starts))
    status = fail(err, UNROLL_E_MEMORY, "no memory for %lld translations", (long long)n);
  if (status == UNROLL_OK)
    status = sort(&s, n, &batches, err);
  if (status == UNROLL_OK) {
    status = find_all(&s, batches, err);
    unroll_batches_destroy(batches);
  }
  free_room(&s);
  if (status != UNROLL_OK)
    translator_found_free(t, f);
  return status;
}
