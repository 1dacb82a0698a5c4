/* SPDX-License-Identifier: Apache-2.0 */
/* runtime_private.h: how contexts, devices, executables and bindings are stored. */
#ifndef RUNTIME_PRIVATE_H
#define RUNTIME_PRIVATE_H
#include "graph/graph_private.h"
#include "plugins/registry.h"
#include <stdatomic.h>
#include <unroll/runtime.h>
#include <unroll/snapshot.h>

struct unroll_context {
  unroll_allocator allocator;
  unroll_logger logger;
  struct plugin_registry *registry;
  atomic_uint_least64_t generation; /* of the bytes of tensors; counts up */
};

struct unroll_device {
  unroll_context *ctx;
  struct plugin_backend plugin;
  const unroll_backend_ops *ops;
  unroll_backend_device *handle;
  unroll_device_info info;
  char *id;
};

/* ---- views: the graph as a plugin sees it ---- */

/* Where a tensor stands for one device; slot UNROLL_NO_SLOT: nowhere. */
typedef struct place {
  uint32_t slot, period;
  uint64_t offset;
  int64_t step;
} place;

typedef struct graph_view {
  unroll_graph_view view;
  unroll_node_view *nodes;
  unroll_tensor_view *tensors;
  uint32_t *edges;
  int64_t *dim_min, *dim_max;
  struct graph_view **bodies;
  const unroll_graph_view **body_views;
  uint32_t n_bodies;
} graph_view;

/*
 * Nodes picked[0..n_picked-1] of the graph (NULL: all), in that order. places: one per tensor, or NULL before planning.
 * A view of a body is a template. Valid as long as the graph.
 */
unroll_status view_create(const unroll_graph *graph, const uint32_t *picked, uint32_t n_picked, const place *places,
                          uint32_t n_slots, graph_view **out, unroll_error *err);
void view_destroy(const unroll_allocator *a, graph_view *view);

/* ---- who takes what ---- */
#define NO_DEVICE UINT32_MAX
typedef struct taker {
  uint32_t device; /* index; NO_DEVICE: a scan that is unrolled, or a node that the host makes a view of */
  uint32_t group;  /* UNROLL_GROUP_HOST, or a private group of that device */
} taker;

/* The devices of a compilation: the caller's, then the reference if it had to be opened. */
typedef struct device_list {
  unroll_device **device;
  uint32_t n;
  bool owns_last;
} device_list;

/* Is this node a view that the host makes, of axis-0 slices and reshapes? */
bool is_host_view(const node *n);
/* A layer, or the gradient of one? */
bool is_layer(const node *n);
/* Asks the devices in turn. taken: n_nodes of them; a layer that is not taken any more, now that it is offered again, is left
 * to the caller. barred: a mask of devices per node. */
unroll_status offer(const unroll_graph *graph, const device_list *devices, const uint32_t *barred, taker *taken,
                    unroll_error *err);
/*
 * What becomes of the layers: fates[node] of n_nodes. The first device that claims one has it; a reserve is granted where the
 * layer and all that read what it saves go to one device that asks for it with one size, else they are lowered. barred: a mask
 * of devices whose claims on layers don't count.
 */
unroll_status offer_layers(const unroll_graph *graph, const device_list *devices, uint32_t barred, layer_fate *fates,
                           unroll_error *err);
/* Which nodes are spelled out: where the first device that takes one does so only as elementary ops. */
unroll_status offer_norms(const unroll_graph *graph, const device_list *devices, layer_fate *fates, unroll_error *err);
/* The same for a template; where allow_crossing is false, one device for all nodes. */
unroll_status offer_template(unroll_context *ctx, const unroll_graph *body, const node *scan,
                             const device_list *devices, const uint32_t *barred, bool allow_crossing, taker *taken,
                             unroll_error *err);

/* ---- executables ---- */

/* A piece of memory: a tensor, with the views of it, or the history of a carry. */
typedef struct object_place {
  bool used, valid;     /* valid: while planning, it holds the value here */
  uint32_t first, last; /* positions in the schedule */
  uint32_t slot;
  uint64_t offset;
} object_place;
typedef struct object {
  uint64_t bytes;
  uint32_t outside; /* index of an outside tensor, or GRAPH_NONE: scratch */
  uint32_t home;    /* device */
  object_place *at; /* one per device */
} object;

/* A tensor in memory: object + offset, + t·step (t modulo period) in a template. */
typedef struct ref {
  uint32_t object, device, period;
  uint64_t offset;
  int64_t step;
} ref;

typedef struct copy {
  ref from, to;
  uint64_t bytes;
} copy;

typedef struct group {
  uint32_t device;
  unroll_backend_exec *exec;
  unroll_exec_info info;
  const unroll_graph *graph; /* of the nodes: the executable's, or the body of scan */
  uint32_t scan;             /* node, or GRAPH_NONE */
  uint32_t *nodes, n_nodes;  /* in the order of the view that was compiled */
} group;

enum { STAGE_GROUP, STAGE_COPY };
typedef struct stage { /* of one time step */
  int32_t kind;
  uint32_t group;
  copy copy;
} stage;

enum { ITEM_STAGE, ITEM_LOOP };
typedef struct item {
  int32_t kind;
  stage stage; /* ITEM_STAGE */
  /* ITEM_LOOP */
  int32_t direction;
  int64_t steps; /* at most */
  int32_t steps_dim;
  int64_t t0;          /* of the random ops: the first step is that one of the sequence */
  copy *starts, *ends; /* carries: to where the first step finds them, from where the last one left them */
  uint32_t n_starts, n_ends, n_stages;
  stage *stages;
} item;

typedef struct outside {
  uint32_t tensor;
  uint32_t device;
  uint64_t bytes, row_bytes; /* row_bytes: of one index of axis 0, where its size is a run-time one; else bytes */
  bool updated;
} outside;

struct unroll_executable {
  unroll_context *ctx;
  unroll_graph *graph; /* lowered; owned */
  device_list devices;
  object *objects;
  uint32_t n_objects, objects_capacity;
  outside *outsides;
  uint32_t n_outsides;
  item *items;
  uint32_t n_items, items_capacity;
  group *groups;
  uint32_t n_groups, groups_capacity;
  uint64_t **arenas; /* per device: sizes */
  uint32_t *n_arenas;
  uint32_t n_slots;
  uint64_t *workspace_bytes; /* per device */
  uint64_t largest_copy;     /* between devices */
  uint32_t n_fallbacks, n_crossings;
};

/* schedule.c: objects, refs of tensors, the schedule with its copies, and then places in arenas. Leaves groups to
 * compile. */
typedef struct planned_group {
  uint32_t device, group; /* group: index in exe->groups */
  const unroll_graph *graph;
  uint32_t scan; /* node of the scan whose body this is, or GRAPH_NONE */
  uint32_t *nodes, n_nodes, nodes_capacity;
  bool private_group;
} planned_group;
typedef struct plan {
  unroll_executable *exe;
  const taker *takers;       /* of the graph's nodes */
  taker *const *body_takers; /* per node, of scans; else NULL */
  ref *refs;                 /* per tensor of the graph; object GRAPH_NONE where it has none */
  ref **body_refs;           /* per scan node: [device][tensor of the body], where that device looks */
  planned_group *groups;
  uint32_t n_groups, groups_capacity;
  uint32_t position;
} plan;
unroll_status plan_make(plan *p, unroll_error *err);
void plan_free(plan *p);
/* arena.c: offsets for all scratch objects */
unroll_status arena_assign(unroll_executable *exe, unroll_error *err);
/* order.c: the nodes in an order in which private groups are contiguous; UNROLL_E_PLUGIN where one is not convex */
unroll_status order_nodes(const unroll_graph *graph, const taker *takers, const device_list *devices, uint32_t *order,
                          unroll_error *err);

uint64_t spec_bytes(const tensor_spec *spec);

/* ---- bindings ---- */
/* Bindings that share memory share a queue: when two groups of them meet, one group's queue stands for both from then
 * on. */
typedef struct shared_queue {
  unroll_backend_queue *handle; /* NULL once merged */
  bool profiled;
  struct shared_queue *merged; /* into this one, which counts it among its references */
  uint32_t references;
} shared_queue;
typedef struct shared_buffer {
  unroll_device *device;
  unroll_backend_buffer *handle;
  uint64_t generation;
  uint32_t references;
} shared_buffer;

struct unroll_binding {
  unroll_executable *exe;
  shared_queue **queues;             /* per device; see binding_queue */
  unroll_backend_buffer ***arenas;   /* per device, per arena */
  unroll_backend_buffer **workspace; /* per device */
  shared_buffer **buffers;           /* per outside tensor */
  unroll_backend_binding **groups;   /* per group */
  unroll_slot *slots;                /* n_slots, filled per device when binding */
  uint64_t *generations;
  void *staging; /* for copies between devices */
  int64_t *dims;
  bool prepared;
};
unroll_status binding_prepare(unroll_binding *b, unroll_error *err);
unroll_backend_queue *binding_queue(const unroll_binding *b, uint32_t device);
/* The buffer of outside tensor i, made at its first use, of zeros. */
unroll_status binding_buffer(unroll_binding *b, uint32_t i, unroll_error *err);
/* The outside tensor of that name, or GRAPH_NONE. */
uint32_t executable_find(const unroll_executable *e, const char *name);
/* A queue with one reference, and one reference less. NULL: nothing. */
unroll_status queue_make(unroll_device *d, shared_queue **out, unroll_error *err);
void queue_drop(unroll_device *device, shared_queue *queue);
/* The queue that stands for this one since the groups of their bindings met. */
shared_queue *queue_root(shared_queue *queue);
/* The bytes of an outside tensor are others from now on. */
void binding_touch(unroll_binding *b, uint32_t outside_id);
unroll_backend_buffer *binding_slot(const unroll_binding *b, uint32_t device, uint32_t slot);

/* ---- snapshots ---- */
/* Bytes of the i-th tensor, complete when it returns. */
unroll_status snapshot_read_bytes(unroll_snapshot *s, uint32_t i, uint64_t offset, void *to, uint64_t bytes,
                                  unroll_error *err);
/* seed, update, t0 and row0 of the run that comes next. */
typedef struct snapshot_place {
  uint64_t seed, update;
  int64_t t0, row0;
} snapshot_place;
snapshot_place *snapshot_place_of(unroll_snapshot *s);
const unroll_allocator *snapshot_allocator(const unroll_snapshot *s);

/* run.c: are the options of a run such as the graph takes? NULL is. */
unroll_status run_check(const unroll_graph *graph, const unroll_run_options *options, unroll_error *err);
#endif
