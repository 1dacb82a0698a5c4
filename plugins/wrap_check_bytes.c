/* SPDX-License-Identifier: Apache-2.0 */
/* The check's rules of bytes: the same generation for other ones, and ones that nobody wrote. */
#include "plugins/wrap_check.h"
#include <inttypes.h>
#include <string.h>

/* ---- generations ---- */
/* A checksum of a slot's bytes as the queue has them: it waits for what is queued. */
static unroll_status hash_slot(struct wrap_call *c, const struct check_slot *s, uint64_t *hash, unroll_error *err) {
  char piece[16384];
  *hash = HASH64_SEED;
  for (uint64_t at = 0; at < s->bytes; at += sizeof piece) {
    const uint64_t n = s->bytes - at < sizeof piece ? s->bytes - at : sizeof piece;
    TRY(c->layer->inner_ops->read(c->object[1]->inner, s->buffer->base.inner, s->offset + at, piece, n, NULL, err));
    *hash = hash64(piece, (size_t)n, *hash);
  }
  return UNROLL_OK;
}

unroll_status check_generations(struct wrap_call *c, struct check_binding *b, unroll_error *err) {
  const struct check_exec *e = (const struct check_exec *)(const void *)b->base.parent;
  const uint64_t *generations = c->args->generations;
  for (uint32_t i = 0; generations && e->known && i < e->n_slots; i++) {
    struct check_slot *s = &b->slots[i];
    uint64_t hash = 0;
    if (!s->buffer || !s->is_read || generations[i] == 0) {
      continue;
    }
    TRY(hash_slot(c, s, &hash, err));
    if (generations[i] == s->generation && hash != s->hash) {
      return check_found(c, err, "slot %u has generation %" PRIu64 " as in the run before, but other bytes", i,
                         generations[i]);
    }
    s->generation = generations[i];
    s->hash = hash;
  }
  return UNROLL_OK;
}

/* ---- bytes that were written ---- */
/* Makes room for one more piece at place i. */
static void insert(struct check_buffer *b, uint32_t i) {
  memmove(b->written + i + 1, b->written + i, (b->n_written - i) * sizeof *b->written);
  b->n_written++;
}

static void erase(struct check_buffer *b, uint32_t i, uint32_t n) {
  memmove(b->written + i, b->written + i + n, (b->n_written - i - n) * sizeof *b->written);
  b->n_written -= n;
}

static void close_smallest_gap(struct check_buffer *b) {
  uint32_t at = 0;
  for (uint32_t i = 0; i + 1 < b->n_written; i++) {
    if (b->written[i + 1].begin - b->written[i].end < b->written[at + 1].begin - b->written[at].end) {
      at = i;
    }
  }
  b->written[at].end = b->written[at + 1].end;
  erase(b, at + 1, 1);
}

void check_written(struct check_buffer *b, uint64_t begin, uint64_t end) {
  uint32_t i = 0, n = 0;
  end = end > b->bytes ? b->bytes : end;
  if (begin >= end) {
    return;
  }
  while (i < b->n_written && b->written[i].end < begin) {
    i++;
  }
  for (; i + n < b->n_written && b->written[i + n].begin <= end; n++) {
    begin = b->written[i + n].begin < begin ? b->written[i + n].begin : begin;
    end = b->written[i + n].end > end ? b->written[i + n].end : end;
  }
  if (n == 0) {
    insert(b, i);
  }
  b->written[i] = (struct check_interval){begin, end};
  if (n > 1) {
    erase(b, i + 1, n - 1);
  }
  if (b->n_written > CHECK_INTERVALS) {
    close_smallest_gap(b);
  }
}

void check_written_by(struct check_binding *b, const unroll_run_args *args) {
  const struct check_exec *e = (const struct check_exec *)(const void *)b->base.parent;
  int64_t low, high, first, last;
  for (uint32_t i = 0; i < b->n_slots && !e->known; i++) {
    if (b->slots[i].buffer) {
      b->slots[i].buffer->bytes_unknown = true;
    }
  }
  if (!e->known || !check_steps(e, args, &low, &high)) {
    return;
  }
  for (uint32_t i = 0; i < e->n_tensors; i++) {
    const struct check_tensor *t = &e->tensors[i];
    const struct check_slot *s = &b->slots[t->slot];
    if (t->writer == CHECK_NOBODY) {
      continue;
    }
    check_places(t, low, high, &first, &last);
    /* Steps that a run-time size leaves out are the host's to copy as well: the whole rest of the slot. */
    const bool has_history = e->is_template && t->step != 0 && t->period == 0;
    const uint64_t end = has_history ? s->bytes : (uint64_t)last + t->bytes;
    check_written(s->buffer, s->offset + (uint64_t)first, s->offset + end);
  }
}

unroll_status check_defined(struct wrap_call *c, const struct check_buffer *b, uint64_t begin, uint64_t n,
                            unroll_error *err) {
  uint64_t end = 0;
  if (n == 0 || b->bytes_unknown || !size_add(begin, n, &end) || end > b->bytes) {
    return UNROLL_OK; /* out of range is the backend's to say */
  }
  uint64_t at = begin;
  for (uint32_t i = 0; i < b->n_written && at < end; i++) {
    if (b->written[i].begin > at) {
      break;
    }
    at = b->written[i].end > at ? b->written[i].end : at;
  }
  return at >= end
             ? UNROLL_OK
             : check_found(c, err, "byte %" PRIu64 " of %s, of %" PRIu64 " from byte %" PRIu64 " on, was never written",
                           at, wrap_name_of(&b->base).text, n, begin);
}
