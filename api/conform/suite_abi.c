/* SPDX-License-Identifier: Apache-2.0 */
/* The table's own rules: opening and closing, devices, extensions, options, claims of what is not known. */
#include "conform/abi_rig.h"
#include "plugins/registry.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- open and close ---- */
static enum conform_outcome opens_again(struct abi_rig *rig) {
  enum { TIMES = 4 };
  const struct conform_session *s = rig->lane.session;
  for (int i = 0; i < TIMES; i++) {
    struct abi_rig one;
    const bool is_open = abi_rig_open(&one, s, ABI_DEVICE, rig->lane.message);
    const enum conform_outcome outcome = abi_rig_close(&one, is_open ? CONFORM_PASSED : CONFORM_FAILED);
    if (outcome != CONFORM_PASSED)
      return outcome;
  }
  return CONFORM_PASSED;
}

static enum conform_outcome opens_a_device_twice(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const struct conform_session *s = lane->session;
  struct abi_lane other = *lane;
  unroll_error err;
  abi_error_init(&err);
  other.queue = NULL;
  other.device = NULL;
  if (!abi_ok(lane->message, "device_open of a device that is open",
              lane->ops->device_open(rig->backend, s->device_index, s->device_options, s->n_device_options,
                                     &other.device, &err),
              &err))
    return CONFORM_FAILED;
  enum conform_outcome outcome = CONFORM_FAILED;
  unroll_backend_buffer *a = abi_buffer(lane, "one", 4), *b = NULL;
  if (abi_ok(lane->message, "queue_create", lane->ops->queue_create(other.device, 0, &other.queue, &err), &err) &&
      (b = abi_buffer(&other, "two", 4)) && a && abi_buffer_is(lane, a, 0, "one", 4, "a buffer of the first") &&
      abi_buffer_is(&other, b, 0, "two", 4, "a buffer of the second"))
    outcome = CONFORM_PASSED;
  lane->ops->buffer_destroy(b);
  lane->ops->queue_destroy(other.queue);
  lane->ops->device_close(other.device);
  if (outcome == CONFORM_PASSED && !abi_buffer_is(lane, a, 0, "one", 4, "the first after the second was closed"))
    outcome = CONFORM_FAILED;
  lane->ops->buffer_destroy(a);
  return outcome;
}

static enum conform_outcome destroys_nothing(struct abi_rig *rig) {
  const unroll_backend_ops *ops = rig->lane.ops;
  unroll_error err;
  abi_error_init(&err);
  ops->buffer_destroy(NULL);
  ops->binding_destroy(NULL);
  ops->exec_destroy(NULL);
  ops->queue_destroy(NULL);
  ops->device_close(NULL);
  if (ops->event_destroy)
    ops->event_destroy(NULL);
  return abi_ok(rig->lane.message, "close(NULL)", rig->lane.session->plugin->close(NULL, &err), &err) &&
                 abi_ok(rig->lane.message, "close(NULL)", rig->lane.session->plugin->close(NULL, NULL), NULL)
             ? CONFORM_PASSED
             : CONFORM_FAILED;
}

static enum conform_outcome has_a_score(struct abi_rig *rig) {
  const unroll_plugin *p = rig->lane.session->plugin;
  const int32_t first = p->score(&rig->host.host), second = p->score(&rig->host.host);
  if (first <= 0)
    return abi_fail(rig->lane.message, "score is %" PRId32 ", expected above 0 where it opens", first);
  if (first != second)
    return abi_fail(rig->lane.message, "score is %" PRId32 ", then %" PRId32, first, second);
  return CONFORM_PASSED;
}

/* ---- devices ---- */
static double seconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static enum conform_outcome counts_devices(struct abi_rig *rig) {
  struct abi_lane *lane = &rig->lane;
  unroll_error err;
  abi_error_init(&err);
  /* A program that lists devices gives up on the whole of opening, counting and describing after this time. */
  const double start = seconds_now(), limit = PLUGIN_PROBE_MS / 1000.0;
  uint32_t n = 0, again = 0;
  unroll_status status = lane->session->plugin->open(&rig->host.host, NULL, 0, &rig->backend, &lane->ops, &err);
  if (!abi_ok(lane->message, "open", status, &err) ||
      !abi_ok(lane->message, "device_count", lane->ops->device_count(rig->backend, &n, &err), &err))
    return CONFORM_FAILED;
  for (uint32_t i = 0; i < n; i++) {
    unroll_device_info info = {.struct_size = sizeof info};
    if (!abi_ok(lane->message, "device_info", lane->ops->device_info(rig->backend, i, &info, &err), &err))
      return CONFORM_FAILED;
  }
  const double took = seconds_now() - start;
  if (took > limit)
    return abi_fail(lane->message, "listing the devices took %.1f s, expected up to %.0f s", took, limit);
  if (!abi_ok(lane->message, "device_count", lane->ops->device_count(rig->backend, &again, NULL), NULL))
    return CONFORM_FAILED;
  if (lane->session->device_index >= n)
    return abi_fail(lane->message, "device_count is %" PRIu32 ", but device %" PRIu32 " can be opened", n,
                    lane->session->device_index);
  return n == again ? CONFORM_PASSED : abi_fail(lane->message, "device_count is %" PRIu32 ", then %" PRIu32, n, again);
}

static enum conform_outcome check_info(const struct abi_rig *rig, uint32_t i, const unroll_device_info *info) {
  char *message = rig->lane.message;
  const char *const strings[] = {info->name, info->vendor, info->driver, info->id};
  static const char *const names[] = {"name", "vendor", "driver", "id"};
  for (int k = 0; k < 4; k++)
    if (!strings[k])
      return abi_fail(message, "device %" PRIu32 ": %s is NULL", i, names[k]);
  if (!info->id[0])
    return abi_fail(message, "device %" PRIu32 " has an empty id", i);
  if (info->kind < UNROLL_KIND_CPU || info->kind > UNROLL_KIND_ACCELERATOR)
    return abi_fail(message, "device %" PRIu32 ": kind %" PRId32 ", expected one of UNROLL_KIND_*", i, info->kind);
  if (!info->alignment || (info->alignment & (info->alignment - 1)))
    return abi_fail(message, "device %" PRIu32 ": alignment %" PRIu64 ", expected a power of two", i, info->alignment);
  if (!info->dtypes || info->dtypes >> UNROLL_DTYPE_COUNT)
    return abi_fail(message, "device %" PRIu32 ": dtypes 0x%" PRIx64 ", expected bits of known types, and some", i,
                    info->dtypes);
  if (!info->max_buffer)
    return abi_fail(message, "device %" PRIu32 ": max_buffer is 0", i);
  for (uint32_t k = 0; k < i; k++) {
    unroll_device_info other = {.struct_size = sizeof other};
    unroll_error err;
    abi_error_init(&err);
    if (!abi_ok(message, "device_info", rig->lane.ops->device_info(rig->backend, k, &other, &err), &err))
      return CONFORM_FAILED;
    if (other.id && strcmp(other.id, info->id) == 0)
      return abi_fail(message, "devices %" PRIu32 " and %" PRIu32 " have one id, \"%.60s\"", k, i, info->id);
  }
  return CONFORM_PASSED;
}

static enum conform_outcome describes_devices(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  unroll_error err;
  abi_error_init(&err);
  uint32_t n = 0;
  if (!abi_ok(lane->message, "device_count", lane->ops->device_count(rig->backend, &n, &err), &err))
    return CONFORM_FAILED;
  for (uint32_t i = 0; i < n; i++) {
    unroll_device_info info = {.struct_size = sizeof info}, again = info;
    if (!abi_ok(lane->message, "device_info", lane->ops->device_info(rig->backend, i, &info, &err), &err) ||
        !abi_ok(lane->message, "device_info", lane->ops->device_info(rig->backend, i, &again, NULL), NULL))
      return CONFORM_FAILED;
    const enum conform_outcome outcome = check_info(rig, i, &info);
    if (outcome != CONFORM_PASSED)
      return outcome;
    if (!again.id || strcmp(info.id, again.id) != 0 || info.alignment != again.alignment || info.caps != again.caps ||
        info.dtypes != again.dtypes || info.max_buffer != again.max_buffer)
      return abi_fail(lane->message, "device %" PRIu32 " is another one when asked again", i);
  }
  return CONFORM_PASSED;
}

static enum conform_outcome refuses_absent_devices(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  unroll_error err;
  abi_error_init(&err);
  uint32_t n = 0;
  if (!abi_ok(lane->message, "device_count", lane->ops->device_count(rig->backend, &n, &err), &err))
    return CONFORM_FAILED;
  const uint32_t absent[] = {n, UINT32_MAX};
  for (int i = 0; i < 2; i++) {
    unroll_backend_device *const untouched = (unroll_backend_device *)(void *)rig, *device = untouched;
    unroll_device_info info = {.struct_size = sizeof info};
    const unroll_device_info before = info;
    abi_error_init(&err);
    unroll_status status = lane->ops->device_info(rig->backend, absent[i], &info, &err);
    if (!abi_refused(lane->message, "device_info of a device that is not there", status, &err, UNROLL_E_NOT_FOUND, 0))
      return CONFORM_FAILED;
    if (memcmp(&info, &before, sizeof info) != 0)
      return abi_fail(lane->message, "device_info failed and wrote into the description");
    abi_error_init(&err);
    status = lane->ops->device_open(rig->backend, absent[i], NULL, 0, &device, &err);
    if (!abi_refused(lane->message, "device_open of a device that is not there", status, &err, UNROLL_E_NOT_FOUND, 0))
      return CONFORM_FAILED;
    if (device != untouched)
      return abi_fail(lane->message, "device_open failed and wrote its out-parameter");
    status = lane->ops->device_info(rig->backend, absent[i], &info, NULL);
    if (!abi_refused(lane->message, "device_info without an error struct", status, NULL, UNROLL_E_NOT_FOUND, 0))
      return CONFORM_FAILED;
    status = lane->ops->device_open(rig->backend, absent[i], NULL, 0, &device, NULL);
    if (!abi_refused(lane->message, "device_open without an error struct", status, NULL, UNROLL_E_NOT_FOUND, 0))
      return CONFORM_FAILED;
  }
  return CONFORM_PASSED;
}

/* ---- options ---- */
static const unroll_option unknown_option = {"conform-no-such-option", "1"};

static enum conform_outcome refuses_unknown_options(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  const struct conform_session *s = lane->session;
  unroll_backend *const no_backend = (unroll_backend *)(void *)rig;
  unroll_backend_device *const no_device = (unroll_backend_device *)(void *)rig;
  unroll_backend *backend = no_backend;
  const unroll_backend_ops *ops = NULL;
  unroll_error err;
  abi_error_init(&err);
  unroll_status status = s->plugin->open(&rig->host.host, &unknown_option, 1, &backend, &ops, &err);
  if (status == UNROLL_OK)
    (void)s->plugin->close(backend, NULL);
  if (!abi_refused(lane->message, "open with an option that is not known", status, &err, UNROLL_E_INVALID,
                   UNROLL_E_UNSUPPORTED))
    return CONFORM_FAILED;
  if (backend != no_backend || ops)
    return abi_fail(lane->message, "open failed and wrote its out-parameters");
  abi_error_init(&err);
  status = s->plugin->open(&rig->host.host, NULL, 0, &rig->backend, &rig->lane.ops, &err);
  if (!abi_ok(lane->message, "open", status, &err))
    return CONFORM_FAILED;

  unroll_option options[16];
  uint32_t n = s->n_device_options < 15 ? s->n_device_options : 15;
  for (uint32_t i = 0; i < n; i++)
    options[i] = s->device_options[i];
  options[n++] = unknown_option;
  unroll_backend_device *device = no_device;
  abi_error_init(&err);
  status = lane->ops->device_open(rig->backend, s->device_index, options, n, &device, &err);
  if (status == UNROLL_OK)
    lane->ops->device_close(device);
  if (!abi_refused(lane->message, "device_open with an option that is not known", status, &err, UNROLL_E_INVALID,
                   UNROLL_E_UNSUPPORTED))
    return CONFORM_FAILED;
  return device == no_device ? CONFORM_PASSED
                             : abi_fail(lane->message, "device_open failed and wrote its out-parameter");
}

/* ---- extensions ---- */
static enum conform_outcome knows_its_extensions(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  static const char *const unknown[] = {"",
                                        "unroll",
                                        "unroll.profile",
                                        "unroll.profile/",
                                        "unroll.profile/10",
                                        "unroll.profile/4294967297",
                                        "unroll.conform/99",
                                        "unroll.conform-none/1",
                                        "com.example.conform-none/1"};
  if (!lane->ops->extension)
    return CONFORM_PASSED;
  for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
    if (lane->ops->extension(rig->backend, unknown[i]))
      return abi_fail(lane->message, "extension(\"%s\") is not NULL", unknown[i]);
  const unroll_profile *profile = lane->ops->extension(rig->backend, UNROLL_PROFILE_ID);
  if (profile && (!UNROLL_HAS(unroll_profile, profile, spans) || !profile->spans))
    return abi_fail(lane->message, "extension(\"" UNROLL_PROFILE_ID "\") has %" PRIu32 " bytes, or no function",
                    profile->struct_size);
  const unroll_conform *conform = lane->ops->extension(rig->backend, UNROLL_CONFORM_ID);
  if (profile != lane->ops->extension(rig->backend, UNROLL_PROFILE_ID) ||
      conform != lane->ops->extension(rig->backend, UNROLL_CONFORM_ID))
    return abi_fail(lane->message, "an extension is another one when asked again");
  if (!conform)
    return CONFORM_PASSED;
  if (!UNROLL_HAS(unroll_conform, conform, unsupported) || (conform->n_unsupported && !conform->unsupported))
    return abi_fail(lane->message, "extension(\"" UNROLL_CONFORM_ID "\") has %" PRIu32 " bytes, or no patterns",
                    conform->struct_size);
  for (uint32_t i = 0; i < conform->n_unsupported; i++)
    if (!conform->unsupported[i] || !conform->unsupported[i][0])
      return abi_fail(lane->message, "pattern %" PRIu32 " of \"" UNROLL_CONFORM_ID "\" is missing or empty", i);
  return CONFORM_PASSED;
}

/* Spans of one run and one write, and none where the queue was made without. */
struct spans {
  const struct abi_bound *bound;
  uint32_t runs, transfers;
  uint64_t last;
  char *message;
};

static void take_span(void *ctx, const unroll_profile_span *span) {
  struct spans *s = ctx;
  if (span->struct_size < sizeof *span)
    abi_fail(s->message, "a span has %" PRIu32 " bytes, expected %zu or more", span->struct_size, sizeof *span);
  else if (span->end_ns < span->begin_ns || span->begin_ns < s->last)
    abi_fail(s->message, "a span is %" PRIu64 " to %" PRIu64 " ns, after one that began at %" PRIu64, span->begin_ns,
             span->end_ns, s->last);
  else if (!span->label)
    abi_fail(s->message, "a span has no label");
  else if (span->binding ? span->binding != s->bound->binding : span->node != UNROLL_NO_NODE)
    abi_fail(s->message, "the span \"%.60s\" names binding %p and node %" PRIu32, span->label,
             (const void *)span->binding, span->node);
  else if (span->node != UNROLL_NO_NODE && span->node != 0)
    abi_fail(s->message, "the span \"%.60s\" names node %" PRIu32 ", there is one", span->label, span->node);
  s->last = span->begin_ns;
  s->runs += span->binding && span->node == 0;
  s->transfers += !span->binding;
}

static enum conform_outcome profiles(struct abi_rig *rig, const unroll_profile *profile, const struct abi_work *w,
                                     const struct abi_bound *b, struct abi_lane *timed, uint8_t *data) {
  unroll_error err;
  abi_error_init(&err);
  struct spans s = {.bound = b, .message = rig->lane.message};
  unroll_status status = profile->spans(rig->lane.queue, take_span, &s, &err);
  if (!abi_refused(s.message, "spans of a queue made without UNROLL_QUEUE_PROFILE", status, &err, UNROLL_E_STATE, 0))
    return CONFORM_FAILED;
  status = timed->ops->queue_create(timed->device, UNROLL_QUEUE_PROFILE, &timed->queue, &err);
  if (!abi_ok(s.message, "queue_create for profiling", status, &err))
    return CONFORM_FAILED;
  for (int i = 0; i < 2; i++) {
    s.runs = s.transfers = 0;
    if (!abi_run(timed, w, b, data, w->rows, NULL) ||
        !abi_ok(s.message, "spans", profile->spans(timed->queue, take_span, &s, &err), &err) || s.message[0])
      return CONFORM_FAILED;
    if (!s.runs || !s.transfers)
      return abi_fail(s.message, "a run and transfers gave %" PRIu32 " spans of the node and %" PRIu32 " of transfers",
                      s.runs, s.transfers);
  }
  s.runs = s.transfers = 0;
  if (!abi_ok(s.message, "spans", profile->spans(timed->queue, take_span, &s, &err), &err))
    return CONFORM_FAILED;
  return s.runs + s.transfers == 0 ? CONFORM_PASSED : abi_fail(s.message, "spans are handed over twice");
}

static enum conform_outcome profiles_runs(struct abi_rig *rig) {
  struct abi_lane *lane = &rig->lane;
  const unroll_profile *profile = lane->ops->extension ? lane->ops->extension(rig->backend, UNROLL_PROFILE_ID) : NULL;
  if (!profile)
    return abi_skip(lane->message, "has no extension " UNROLL_PROFILE_ID);
  struct abi_work w;
  enum conform_outcome outcome = abi_work_choose(lane, &w, 24, false);
  if (outcome != CONFORM_PASSED)
    return outcome;
  struct abi_lane timed = *lane;
  timed.queue = NULL;
  unroll_backend_exec *exec = NULL;
  struct abi_bound b = {0};
  uint8_t *data = abi_work_data(lane, &w, lane->session->seed);
  outcome = CONFORM_FAILED;
  if (data && abi_compile(lane, &w, &exec) && abi_bind(lane, &w, exec, &b))
    outcome = profiles(rig, profile, &w, &b, &timed, data);
  abi_unbind(lane, &b);
  lane->ops->exec_destroy(exec);
  lane->ops->queue_destroy(timed.queue);
  abi_work_free(lane, data);
  return outcome;
}

/* ---- claims ---- */
/* A claim that succeeds and takes nothing. */
static bool is_left(const struct abi_lane *lane, const struct abi_work *w, const char *what) {
  unroll_claim claim = {0};
  unroll_error err;
  abi_error_init(&err);
  if (!abi_ok(lane->message, what, lane->ops->claim(lane->device, &w->view, &claim, sizeof claim, &err), &err))
    return false;
  if (!claim.group)
    return true;
  abi_fail(lane->message, "%s was claimed, in group %" PRIu32, what, claim.group);
  return false;
}

static int32_t real_of(const struct abi_lane *lane) {
  return lane->info->dtypes >> UNROLL_F32 & 1 ? UNROLL_F32 : UNROLL_F64;
}

static enum conform_outcome leaves_unknown_ops(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  static const uint32_t codes[] = {0, UNROLL_OP_END, 0x7FFFFFFF, 0x80000000u, UINT32_MAX};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    struct abi_work w;
    char what[64];
    (void)snprintf(what, sizeof what, "claim of op %" PRIu32, codes[i]);
    abi_work_make(&w, ABI_MATMUL, real_of(lane), 8, false);
    w.node.op = codes[i];
    if (!is_left(lane, &w, what))
      return CONFORM_FAILED;
  }
  return CONFORM_PASSED;
}

static enum conform_outcome leaves_newer_ops(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  for (int kind = 0; kind < ABI_KINDS; kind++) {
    struct abi_work w;
    char what[64];
    abi_work_make(&w, (enum abi_kind)kind, real_of(lane), 8, false);
    w.node.op_version = 99;
    (void)snprintf(what, sizeof what, "claim of version 99 of %s", w.name);
    if (!is_left(lane, &w, what))
      return CONFORM_FAILED;
  }
  return CONFORM_PASSED;
}

/* Kinds that no table has, in ops that differ by kind. */
static enum conform_outcome leaves_unknown_kinds(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  static const int32_t kinds[] = {99, -1, INT32_MAX, INT32_MIN};
  static const enum abi_kind ops[] = {ABI_ADD, ABI_TANH, ABI_LSTM, ABI_RNN};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
      struct abi_work w;
      char what[64];
      abi_work_make(&w, ops[k], real_of(lane), 8, false);
      if (ops[k] == ABI_ADD)
        w.attr.binary.kind = kinds[i];
      else if (ops[k] == ABI_TANH)
        w.attr.unary.kind = kinds[i];
      else if (ops[k] == ABI_LSTM)
        w.attr.layer.cell = kinds[i];
      else
        w.attr.layer.activation = kinds[i];
      (void)snprintf(what, sizeof what, "claim of %s with kind %" PRId32, w.name, kinds[i]);
      if (!is_left(lane, &w, what))
        return CONFORM_FAILED;
    }
  return CONFORM_PASSED;
}

static enum conform_outcome leaves_unknown_dtypes(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  static const int32_t dtypes[] = {UNROLL_DTYPE_COUNT, 63, 64, -1, INT32_MAX};
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    for (int kind = 0; kind < ABI_KINDS; kind++) {
      struct abi_work w;
      char what[64];
      abi_work_make(&w, (enum abi_kind)kind, real_of(lane), 8, false);
      for (uint32_t t = 0; t < w.n_tensors; t++)
        w.tensors[t].dtype = dtypes[i];
      (void)snprintf(what, sizeof what, "claim of %s of element type %" PRId32, w.name, dtypes[i]);
      if (!is_left(lane, &w, what))
        return CONFORM_FAILED;
    }
  return CONFORM_PASSED;
}

/* Attributes that are cut short or missing: not to be guessed. A failing status is an answer too. */
static enum conform_outcome leaves_short_attributes(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  for (int kind = 0; kind < ABI_KINDS; kind++)
    for (int i = 0; i < 2; i++) {
      struct abi_work w;
      unroll_claim claim = {0};
      unroll_error err;
      abi_error_init(&err);
      abi_work_make(&w, (enum abi_kind)kind, real_of(lane), 8, false);
      w.node.attr = i ? (const void *)&w.attr : NULL;
      w.node.attr_size = i ? 3 : 0;
      const unroll_status status = lane->ops->claim(lane->device, &w.view, &claim, sizeof claim, &err);
      if (status != UNROLL_OK && !abi_refused(lane->message, "claim of a node without attributes", status, &err, 0, 0))
        return CONFORM_FAILED;
      if (status == UNROLL_OK && claim.group)
        return abi_fail(lane->message, "%s with %" PRIu32 " bytes of attributes was claimed", w.name, w.node.attr_size);
    }
  return CONFORM_PASSED;
}

static enum conform_outcome claims_alike(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  unroll_error err;
  abi_error_init(&err);
  for (int kind = 0; kind < ABI_KINDS; kind++) {
    struct abi_work w;
    unroll_claim first = {0}, second = {0};
    abi_work_make(&w, (enum abi_kind)kind, real_of(lane), 8, false);
    if (!abi_ok(lane->message, "claim", lane->ops->claim(lane->device, &w.view, &first, sizeof first, &err), &err) ||
        !abi_ok(lane->message, "claim", lane->ops->claim(lane->device, &w.view, &second, sizeof second, NULL), NULL))
      return CONFORM_FAILED;
    if (memcmp(&first, &second, sizeof first) != 0)
      return abi_fail(lane->message, "claims of one and the same %s differ", w.name);
  }
  return CONFORM_PASSED;
}

static enum conform_outcome claims_an_empty_graph(struct abi_rig *rig) {
  const struct abi_lane *lane = &rig->lane;
  unroll_claim claim = {0};
  unroll_error err;
  abi_error_init(&err);
  struct abi_work w;
  abi_work_make(&w, ABI_ADD, real_of(lane), 8, false);
  w.view.n_nodes = 0;
  if (!abi_ok(lane->message, "claim of a graph with tensors and no node",
              lane->ops->claim(lane->device, &w.view, &claim, sizeof claim, &err), &err))
    return CONFORM_FAILED;
  const unroll_graph_view empty = {.struct_size = sizeof empty,
                                   .node_stride = sizeof(unroll_node_view),
                                   .tensor_stride = sizeof(unroll_tensor_view)};
  if (!abi_ok(lane->message, "claim of an empty graph",
              lane->ops->claim(lane->device, &empty, &claim, sizeof claim, &err), &err))
    return CONFORM_FAILED;
  return claim.group == 0 ? CONFORM_PASSED : abi_fail(lane->message, "a claim was written for no node");
}

static const struct abi_case cases[] = {
    {"abi open and close again", ABI_CLOSED, opens_again},
    {"abi score", ABI_CLOSED, has_a_score},
    {"abi device count", ABI_CLOSED, counts_devices},
    {"abi device info", ABI_BACKEND, describes_devices},
    {"abi device absent", ABI_BACKEND, refuses_absent_devices},
    {"abi device open twice", ABI_DEVICE, opens_a_device_twice},
    {"abi destroy NULL", ABI_DEVICE, destroys_nothing},
    {"abi option unknown", ABI_CLOSED, refuses_unknown_options},
    {"abi extension ids", ABI_BACKEND, knows_its_extensions},
    {"abi claim unknown op", ABI_DEVICE, leaves_unknown_ops},
    {"abi claim newer op", ABI_DEVICE, leaves_newer_ops},
    {"abi claim unknown kind", ABI_DEVICE, leaves_unknown_kinds},
    {"abi claim unknown element type", ABI_DEVICE, leaves_unknown_dtypes},
    {"abi claim short attributes", ABI_DEVICE, leaves_short_attributes},
    {"abi claim alike", ABI_DEVICE, claims_alike},
    {"abi claim empty graph", ABI_DEVICE, claims_an_empty_graph},
};
static const struct abi_case late_cases[] = {
    {"abi profile spans", ABI_DEVICE, profiles_runs},
};

void suite_abi_list(struct conform_list *list) {
  ABI_CASES_ADD(list, cases);
  suite_buffers_add(list);
  suite_sizes_add(list);
  suite_runs_add(list);
  ABI_CASES_ADD(list, late_cases);
  suite_faults_add(list);
}
