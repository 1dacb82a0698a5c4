/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every wrapper stands on: a layer is an unroll_backend of its own, whose table (wrap_forward.c) unwraps handles, asks
 * the layer's kind before a call (enter) and tells it afterwards (leave), and wraps what the call made.
 */
#ifndef PLUGINS_WRAP_PRIVATE_H
#define PLUGINS_WRAP_PRIVATE_H
#include "base/base_private.h"
#include "plugins/wrap.h"
#include <pthread.h>

/* clang-format off */
#define WRAP_FUNCTIONS(X)                                       \
  X(device_count) X(device_info) X(device_open) X(device_close) \
  X(claim) X(buffer_create) X(buffer_destroy) X(write)          \
  X(read) X(fill) X(copy) X(queue_create)                       \
  X(queue_destroy) X(queue_flush) X(queue_sync) X(compile)      \
  X(exec_info) X(exec_destroy) X(bind) X(binding_destroy)       \
  X(run) X(buffer_from_host) X(map) X(unmap)                    \
  X(queue_wait) X(event_wait) X(event_destroy) X(spans)
/* clang-format on */
enum wrap_function {
#define WRAP_FUNCTION(name) WRAP_FN_##name,
  WRAP_FUNCTIONS(WRAP_FUNCTION)
#undef WRAP_FUNCTION
      WRAP_FN_COUNT
};
const char *wrap_function_name(int32_t function);

enum wrap_type { WRAP_DEVICE, WRAP_QUEUE, WRAP_BUFFER, WRAP_EXEC, WRAP_BINDING, WRAP_EVENT, WRAP_TYPES };
const char *wrap_type_name(uint32_t type);

struct wrap_layer;

/* A wrapped handle; a kind's own structs begin with it. */
struct wrap_object {
  uint64_t magic; /* WRAP_MAGIC */
  struct wrap_layer *layer;
  struct wrap_object *parent, *device; /* parent: which outlives it. Of a device: NULL, and itself */
  void *inner;                         /* stays after the end, for spans that come late */
  struct wrap_object *older, *newer;   /* in the list of its type; of the dead: in theirs */
  uint32_t type, serial;               /* serial: from 1 on, for messages */
  uint64_t born_ns;
  bool dead; /* the host destroyed it */
  /* The check's marks: what keeps it alive, calls that it is in, and 1 + the [obj] function that is in it. */
  uint32_t children, users, calls;
  int32_t busy; /* 0: free */
};
struct wrap_device {
  struct wrap_object base;
  char id[64]; /* "cpu:0" */
};
#define WRAP_MAGIC UINT64_C(0x7772617070656421)

/* "buffer 3 of cpu:0" */
struct wrap_name {
  char text[96];
};
struct wrap_name wrap_name_of(const struct wrap_object *object);

/* One call of the host, while it goes through a layer. What a function does not have is 0. */
struct wrap_call {
  struct wrap_layer *layer;
  int32_t function;              /* WRAP_FN_* */
  uint32_t n_objects;            /* the handles that it was given, in order; the workspace of bind is apart */
  struct wrap_object *object[3]; /* never NULL */
  struct wrap_object *made; /* what it will have made: zeros but for wrap_object's fields; inner is set before leave */
  uint32_t index;           /* of device_info and device_open */
  uint64_t offset, from_offset, bytes;
  uint64_t flags;     /* of queue_create: enter may add some */
  const void *memory; /* the host's, of transfers and maps */
  bool waits;         /* a transfer without an event */
  const unroll_graph_view *view;
  const void *slots; /* the host's own, with wrapped buffers */
  uint32_t n_slots, slot_stride;
  struct wrap_object *workspace;
  uint64_t workspace_offset;
  const unroll_run_args *args;
  uint64_t begin_ns; /* the kind's */
};
/* Slot i of a bind; zeros where the host's stride is too small for one. */
unroll_slot wrap_slot(const struct wrap_call *call, uint32_t i);

struct wrap_kind {
  const char *word;        /* of UNROLL_WRAP */
  size_t size[WRAP_TYPES]; /* of its objects; at least a wrap_device, resp. a wrap_object */
  size_t layer_size;       /* of its struct that begins with wrap_layer */
  unroll_status (*open)(struct wrap_layer *layer, struct wrap_host *host, unroll_error *err); /* may be NULL */
  /* Before the call. A failure is the call's result: it does not reach the backend, and leave is not called. */
  unroll_status (*enter)(struct wrap_call *call, unroll_error *err);
  void (*leave)(struct wrap_call *call, unroll_status status);
  /* Frees what the object holds; it may be called for one that was never complete, and twice. */
  void (*dispose)(struct wrap_object *object);
  bool disposes_early; /* when it dies, not only when its memory goes */
  /* In place of passing "unroll.profile/1" on; may be NULL. */
  unroll_status (*spans)(struct wrap_object *queue, void (*each)(void *ctx, const unroll_profile_span *), void *ctx,
                         unroll_error *err);
  /* Before the layer goes: with *keep it has to stay. May be NULL. */
  unroll_status (*close)(struct wrap_layer *layer, bool *keep, unroll_error *err);
};
extern const struct wrap_kind wrap_check_kind, wrap_trace_kind;

struct wrap_list {
  struct wrap_object *oldest, *newest;
  uint32_t n;
};
struct wrap_layer { /* the unroll_backend that the next one outside sees */
  const struct wrap_kind *kind;
  unroll_allocator allocator;
  unroll_logger logger;
  char *plugin_id;
  unroll_backend *inner;
  const unroll_backend_ops *inner_ops;
  const unroll_profile *inner_profile; /* NULL: the backend has none */
  unroll_backend_ops ops;
  unroll_profile profile;
  pthread_mutex_t mutex; /* of all that follows, and of the objects' lists */
  uint32_t calls;        /* on their way */
  uint32_t serial[WRAP_TYPES];
  struct wrap_list live[WRAP_TYPES], dead;
};

/* How many destroyed objects are kept so that a stale handle is recognised and a late span finds its binding. */
enum { WRAP_DEAD_MAX = 4096 };

/* wrap_forward.c */
unroll_status wrap_layer_open(const struct wrap_kind *kind, struct wrap_host *host, const char *plugin_id,
                              unroll_backend *inner, const unroll_backend_ops *inner_ops, struct wrap_layer **out,
                              unroll_error *err);
/* Frees the wrapped objects too, but destroys nothing of the backend's. */
void wrap_layer_free(struct wrap_layer *w);
/* The two halves of a destroy: the backend's object, and the wrapped one, which joins the dead. */
void wrap_inner_destroy(struct wrap_object *object);
void wrap_bury(struct wrap_object *object);
/* Whose run a span of that end is; NULL where it is not known. The backend may have used the address before. */
struct wrap_object *wrap_binding_of(struct wrap_layer *w, const unroll_backend_binding *inner, uint64_t end_ns);
/* As much of a span as both sides know, with another binding. */
unroll_profile_span wrap_span(const unroll_profile_span *span, struct wrap_object *binding);
uint64_t wrap_now_ns(void); /* CLOCK_MONOTONIC */
#endif
