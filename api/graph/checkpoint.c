/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint.c: regions of which the gradient keeps nothing, and the plan of a sequence that is cut into segments:
 * which states are kept when. Where a plan's left part is walked over, it is a region, and in it are the regions of
 * its own plan.
 */
#include "graph/checkpoint_private.h"
#include <inttypes.h>
#include <math.h>

const char *unroll_checkpoint_name(int32_t kind) {
  switch (kind) {
#define NAME_OF(name, value, text) \
  case name: return text;
    UNROLL_CHECKPOINTS(NAME_OF)
#undef NAME_OF
  default: return NULL;
  }
}

/* ---- regions ---- */
void unroll_checkpoint_begin(unroll_graph *g) {
  if (!g || graph_failed(g))
    return;
  if (g->parent) {
    graph_fail(g, UNROLL_E_STATE, "checkpoint: the body of a scan has no regions (unroll_scan_checkpoint)");
    return;
  }
  if (!mem_grow(&g->allocator, &g->regions, &g->regions_capacity, g->n_regions + 1, sizeof *g->regions)) {
    graph_fail(g, UNROLL_E_MEMORY, "out of memory for a region of a graph");
    return;
  }
  g->regions[g->n_regions] = (graph_region){.parent = g->region, .first = g->n_nodes};
  g->region = ++g->n_regions;
}

void unroll_checkpoint_end(unroll_graph *g) {
  if (!g || graph_failed(g))
    return;
  if (!g->region) {
    graph_fail(g, UNROLL_E_STATE, "checkpoint: a region ends that was not begun (unroll_checkpoint_begin)");
    return;
  }
  if (g->open_scans) {
    graph_fail(g, UNROLL_E_STATE, "checkpoint: a region ends within a scan (unroll_scan_end)");
    return;
  }
  graph_region *r = &g->regions[g->region - 1];
  if (r->first == g->n_nodes) /* nothing was made */
    g->n_regions -= g->region == g->n_regions;
  else
    r->end = g->n_nodes;
  g->region = r->parent;
}

/* ---- plans ---- */
enum { MOST_SEGMENTS = 4096 };

/* Whole blocks; what is left of the last one goes with it. */
static int64_t count_blocks(const unroll_checkpoint_sizes *z) { return z->steps < z->block ? 1 : z->steps / z->block; }

static int64_t count_segments(const unroll_checkpoint_sizes *z, int64_t segment) {
  const int64_t blocks = segment / z->block;
  return blocks < 1 ? 1 : (count_blocks(z) + blocks - 1) / blocks;
}

int64_t checkpoint_place(const checkpoint_schedule *s, int64_t i) {
  return s->sizes.direction == UNROLL_FORWARD ? i : s->info.segments - 1 - i;
}

/* The first one that runs takes the blocks that make no whole segment: of the last one's steps fewest are made
 * again. */
int64_t checkpoint_start(const checkpoint_schedule *s, int64_t i) {
  const int64_t at = checkpoint_place(s, i), n = s->info.segments;
  if (s->sizes.direction != UNROLL_FORWARD || at == 0)
    return at * s->info.segment;
  return count_blocks(&s->sizes) * s->sizes.block - (n - at) * s->info.segment;
}

int64_t checkpoint_steps(const checkpoint_schedule *s, int64_t i) {
  const bool last = checkpoint_place(s, i) == s->info.segments - 1;
  const int64_t next = s->sizes.direction == UNROLL_FORWARD ? i + 1 : i - 1;
  return (last ? s->sizes.steps : checkpoint_start(s, next)) - checkpoint_start(s, i);
}

static int64_t longest_segment(const checkpoint_schedule *s) {
  int64_t longest = 0;
  for (int64_t i = 0; i < s->info.segments; i++)
    longest = checkpoint_steps(s, i) > longest ? checkpoint_steps(s, i) : longest;
  return longest;
}

static uint16_t *choice(const checkpoint_schedule *s, int64_t t, int64_t m) {
  return &s->choices[(m - 1) * (s->info.segments + 1) + t];
}

/* How many of t segments are walked over before a state is kept. */
static int64_t split(const checkpoint_schedule *s, int64_t t, int64_t m) { return m >= t - 1 ? 1 : *choice(s, t, m); }

static int64_t cost_between(const int64_t *fewer, const int64_t *same, int64_t t, int64_t y) {
  return y + fewer[t - y] + same[y];
}

/*
 * C(t, m) for all t and m. For one m, C grows by ever more with t; so the best y for t + 1 is that for t, or one
 * more: the table takes a time that is proportional to its size.
 */
static bool solve(checkpoint_schedule *s) {
  const int64_t n = s->info.segments, m = s->info.states;
  if (m >= n - 1) /* all are kept: one at a time */
    return true;
  const uint64_t row = (uint64_t)n + 1;
  int64_t *cost = mem_array(s->allocator, 2 * row, sizeof *cost), *fewer = cost, *same = cost ? cost + row : NULL;
  s->choices = mem_array(s->allocator, row * (uint64_t)m, sizeof *s->choices);
  if (!cost || !s->choices) {
    mem_free(s->allocator, cost);
    return false;
  }
  for (int64_t k = 1; k <= m; k++) {
    int64_t y = 1;
    same[1] = 1;
    for (int64_t t = 2; t <= n; t++) {
      if (k == 1)
        y = t - 1;
      else
        while (y + 1 < t && cost_between(fewer, same, t, y + 1) <= cost_between(fewer, same, t, y))
          y++;
      same[t] = k == 1 ? t * (t + 1) / 2 : cost_between(fewer, same, t, y);
      *choice(s, t, k) = (uint16_t)y;
    }
    int64_t *other = fewer;
    fewer = same;
    same = other;
  }
  mem_free(s->allocator, cost);
  return true;
}

/* Steps of the segments from i on, in the order in which they run, when each is made as the plan has it. */
static int64_t forward_steps(const checkpoint_schedule *s, int64_t i, int64_t t, int64_t m) {
  int64_t steps = 0;
  for (; t > 1; m--) {
    const int64_t y = split(s, t, m);
    for (int64_t k = 0; k < y; k++)
      steps += checkpoint_steps(s, i + k);
    steps += forward_steps(s, i, y, m);
    i += y;
    t -= y;
  }
  return steps + checkpoint_steps(s, i);
}

static uint64_t segment_bytes(const unroll_checkpoint_sizes *z, int64_t steps) {
  return (uint64_t)steps * z->step_bytes + z->state_bytes;
}

/* The schedule of segments of that length and as many states. */
static unroll_status try_segment(checkpoint_schedule *s, int64_t segment, int64_t states, unroll_error *err) {
  s->info.segment = segment;
  s->info.segments = count_segments(&s->sizes, segment);
  s->info.states = states < s->info.segments - 1 ? states : s->info.segments - 1;
  mem_free(s->allocator, s->choices);
  s->choices = NULL;
  if (!solve(s))
    return fail(err, UNROLL_E_MEMORY, "out of memory for a plan of checkpoints");
  s->info.forward_steps = forward_steps(s, 0, s->info.segments, s->info.states);
  s->info.bytes = (uint64_t)s->info.states * s->sizes.state_bytes + segment_bytes(&s->sizes, longest_segment(s));
  return UNROLL_OK;
}

static int64_t whole_blocks(const unroll_checkpoint_sizes *z, int64_t steps) {
  const int64_t blocks = steps / z->block + (steps % z->block != 0);
  return (blocks < count_blocks(z) ? blocks : count_blocks(z)) * z->block;
}

static unroll_status plan_bytes(checkpoint_schedule *s, uint64_t budget, unroll_error *err) {
  const unroll_checkpoint_sizes *z = &s->sizes;
  int64_t best = 0, best_steps = 0, states_of_best = 0;
  uint64_t least = UINT64_MAX;
  for (int64_t segment = z->block;; segment += z->block) {
    s->info.segment = segment;
    s->info.segments = count_segments(z, segment);
    const int64_t n = s->info.segments;
    const uint64_t leaf = segment_bytes(z, longest_segment(s)), fewest = leaf + (n > 1 ? z->state_bytes : 0);
    if (n <= MOST_SEGMENTS) {
      least = fewest < least ? fewest : least;
      if (fewest <= budget) {
        const uint64_t room = z->state_bytes ? (budget - leaf) / z->state_bytes : (uint64_t)n;
        const int64_t states = room < (uint64_t)n ? (int64_t)room : n;
        TRY(try_segment(s, segment, states, err));
        if (best == 0 || s->info.forward_steps < best_steps) {
          best = segment;
          best_steps = s->info.forward_steps;
          states_of_best = states;
        }
      } else if (best)
        break;
    }
    if (n == 1)
      break;
  }
  if (best == 0)
    return fail(err, UNROLL_E_RANGE, "checkpoints within %" PRIu64 " bytes: %" PRId64 " steps take at least %" PRIu64,
                budget, z->steps, least);
  return try_segment(s, best, states_of_best, err);
}

unroll_status checkpoint_plan(const unroll_allocator *a, const unroll_checkpoint_policy *p,
                              const unroll_checkpoint_sizes *z, checkpoint_schedule *s, unroll_error *err) {
  *s = (checkpoint_schedule){.allocator = a};
  if (!p || !UNROLL_HAS(unroll_checkpoint_policy, p, bytes) || !z ||
      !UNROLL_HAS(unroll_checkpoint_sizes, z, step_bytes))
    return fail(err, UNROLL_E_INVALID,
                "checkpoints: the policy or the sizes are missing, or their struct_size is small");
  s->sizes = *z;
  s->info.struct_size = sizeof s->info;
  if (z->steps < 1 || z->block < 1)
    return fail(err, UNROLL_E_RANGE, "checkpoints: %" PRId64 " steps in blocks of %" PRId64 ", expected at least 1",
                z->steps, z->block);
  uint64_t all;
  if (!size_mul((uint64_t)z->steps, z->step_bytes, &all) || !size_mul((uint64_t)z->steps, z->state_bytes, &all))
    return fail(err, UNROLL_E_RANGE, "checkpoints: the bytes of %" PRId64 " steps do not fit into 64 bits", z->steps);
  s->info.bytes_all = segment_bytes(z, z->steps);
  const int64_t few = (z->steps + MOST_SEGMENTS - 1) / MOST_SEGMENTS; /* steps, so that segments are not too many */
  switch (p->kind) {
  case UNROLL_CHECKPOINT_ALL: return try_segment(s, whole_blocks(z, z->steps), 0, err);
  case UNROLL_CHECKPOINT_EVERY:
    if (p->every < 1)
      return fail(err, UNROLL_E_RANGE, "checkpoints: every %" PRId64 " steps, expected at least 1", p->every);
    return try_segment(s, whole_blocks(z, p->every > few ? p->every : few), INT64_MAX, err);
  case UNROLL_CHECKPOINT_SQRT: {
    const int64_t root = (int64_t)ceil(sqrt((double)z->steps));
    return try_segment(s, whole_blocks(z, root > few ? root : few), INT64_MAX, err);
  }
  case UNROLL_CHECKPOINT_BYTES: return plan_bytes(s, p->bytes, err);
  default: return fail(err, UNROLL_E_INVALID, "checkpoints: %d is no policy (UNROLL_CHECKPOINT_*)", p->kind);
  }
}

void checkpoint_free(checkpoint_schedule *s) {
  mem_free(s->allocator, s->choices);
  s->choices = NULL;
}

unroll_status unroll_checkpoint_plan(const unroll_checkpoint_policy *policy, const unroll_checkpoint_sizes *sizes,
                                     unroll_checkpoint_plan_info *info, unroll_error *err) {
  checkpoint_schedule s;
  if (!info || !UNROLL_HAS(unroll_checkpoint_plan_info, info, bytes_all))
    return fail(err, UNROLL_E_INVALID, "unroll_checkpoint_plan: info is NULL, or its struct_size is too small");
  const unroll_status st = checkpoint_plan(NULL, policy, sizes, &s, err);
  if (st == UNROLL_OK)
    *info = s.info;
  checkpoint_free(&s);
  return st;
}

static void build(unroll_graph *g, const checkpoint_schedule *s, int64_t i, int64_t t, int64_t m,
                  void (*segment)(void *user, int64_t i), void *user) {
  for (; t > 1 && !graph_failed(g); m--) {
    const int64_t y = split(s, t, m);
    unroll_checkpoint_begin(g);
    build(g, s, i, y, m, segment, user);
    unroll_checkpoint_end(g);
    i += y;
    t -= y;
  }
  if (!graph_failed(g))
    segment(user, i);
}

void checkpoint_build(unroll_graph *g, const checkpoint_schedule *s, void (*segment)(void *user, int64_t i),
                      void *user) {
  build(g, s, 0, s->info.segments, s->info.states, segment, user);
}

unroll_tensor checkpoint_lengths(unroll_tensor lengths, int64_t start, int64_t steps) {
  if (!lengths.graph || graph_failed(lengths.graph))
    return unroll_none();
  const tensor_spec scalar = graph_make_spec(UNROLL_I32, 0, NULL);
  const unroll_tensor left = unroll_sub(lengths, graph_zeros_like(lengths.graph, &scalar, (double)start));
  const unroll_tensor some = unroll_binary(left, graph_zeros_like(lengths.graph, &scalar, 0.0), UNROLL_MAX);
  return unroll_binary(some, graph_zeros_like(lengths.graph, &scalar, (double)steps), UNROLL_MIN);
}
