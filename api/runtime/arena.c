/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena.c: where scratch objects stand. Per device, the largest first, each at the lowest place that is free for as
 * long as it lives (Pisarchyk & Lee 2020, greedy by size). No arena is larger than the device's largest buffer.
 */
#include "runtime/runtime_private.h"
#include <inttypes.h>
#include <stdlib.h>

typedef struct piece {
  uint32_t object;
  uint64_t bytes;
} piece;

static int larger_first(const void *x, const void *y) {
  const piece *a = x, *b = y;
  if (a->bytes != b->bytes)
    return a->bytes < b->bytes ? 1 : -1;
  return a->object < b->object ? -1 : 1;
}

/* The lowest offset in the arena where the object fits beside those placed already (their numbers in placed, by
 * offset). */
static uint64_t lowest(const unroll_executable *exe, uint32_t d, uint32_t slot, const uint32_t *placed, uint32_t n,
                       const object_place *p, uint64_t bytes) {
  const uint64_t wanted = exe->devices.device[d]->info.alignment;
  const uint64_t alignment = wanted > MEM_ALIGNMENT && (wanted & (wanted - 1)) == 0 ? wanted : MEM_ALIGNMENT;
  uint64_t at = 0;
  for (uint32_t i = 0; i < n; i++) {
    const object_place *q = &exe->objects[placed[i]].at[d];
    if (q->slot != slot || q->last < p->first || q->first > p->last)
      continue;
    if (at + bytes <= q->offset)
      break;
    uint64_t end = 0;
    size_align(q->offset + exe->objects[placed[i]].bytes, alignment, &end);
    at = end > at ? end : at;
  }
  return at;
}

static unroll_status assign(unroll_executable *exe, uint32_t d, piece *pieces, uint32_t *placed, unroll_error *err) {
  const unroll_device *dev = exe->devices.device[d];
  const uint64_t limit = dev->info.max_buffer ? dev->info.max_buffer : UINT64_MAX;
  uint32_t n = 0, n_placed = 0;
  for (uint32_t i = 0; i < exe->n_objects; i++)
    if (exe->objects[i].at[d].used && (exe->objects[i].outside == GRAPH_NONE || exe->objects[i].home != d))
      pieces[n++] = (piece){i, exe->objects[i].bytes};
  qsort(pieces, n, sizeof *pieces, larger_first);
  if (!(exe->arenas[d] = mem_array(&exe->ctx->allocator, (uint64_t)n + 1, sizeof **exe->arenas)))
    return fail(err, UNROLL_E_MEMORY, "out of memory for the plan of %s", dev->id);
  for (uint32_t i = 0; i < n; i++) {
    object_place *p = &exe->objects[pieces[i].object].at[d];
    if (pieces[i].bytes > limit)
      return fail(err, UNROLL_E_DEVICE_MEMORY,
                  "a tensor needs %" PRIu64 " bytes, the largest buffer of %s has %" PRIu64, pieces[i].bytes, dev->id,
                  limit);
    uint32_t arena = 0;
    for (;; arena++) {
      p->slot = exe->n_outsides + arena;
      p->offset = lowest(exe, d, p->slot, placed, n_placed, p, pieces[i].bytes);
      if (p->offset <= limit - pieces[i].bytes)
        break;
    }
    if (arena >= exe->n_arenas[d])
      exe->n_arenas[d] = arena + 1;
    const uint64_t end = p->offset + pieces[i].bytes;
    if (exe->arenas[d][arena] < end)
      exe->arenas[d][arena] = end;
    uint32_t k = n_placed++; /* kept in order of offset */
    for (; k > 0 && exe->objects[placed[k - 1]].at[d].offset > p->offset; k--)
      placed[k] = placed[k - 1];
    placed[k] = pieces[i].object;
  }
  return UNROLL_OK;
}

unroll_status arena_assign(unroll_executable *exe, unroll_error *err) {
  const unroll_allocator *a = &exe->ctx->allocator;
  piece *pieces = mem_array(a, (uint64_t)exe->n_objects + 1, sizeof *pieces);
  uint32_t *placed = mem_array(a, (uint64_t)exe->n_objects + 1, sizeof *placed);
  unroll_status st = pieces && placed ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "out of memory for the plan of scratch");
  uint32_t most = 0;
  for (uint32_t d = 0; st == UNROLL_OK && d < exe->devices.n; d++) {
    st = assign(exe, d, pieces, placed, err);
    most = exe->n_arenas[d] > most ? exe->n_arenas[d] : most;
  }
  exe->n_slots = exe->n_outsides + most;
  for (uint32_t i = 0; i < exe->n_objects; i++) {
    object *o = &exe->objects[i];
    if (o->outside != GRAPH_NONE) {
      o->at[o->home].slot = o->outside;
      o->at[o->home].offset = 0;
    }
  }
  mem_free(a, pieces);
  mem_free(a, placed);
  return st;
}
