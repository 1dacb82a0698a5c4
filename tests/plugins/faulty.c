/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cpu backend's own code with one fault, for tests of `unroll conform`. UNROLL_FAULT names it:
 *
 *     does_nothing     run computes nothing
 *     stops_early      a template lacks its last step
 *     goes_on          a run-time size is taken at its maximum
 *     other_seeds      random ops have another seed every second run
 *     spills           read changes the byte behind a tensor
 *     biased           every element of an f32 sigmoid is off by 8e-7: only the mean squared error shows it
 *     crashes          run of a tanh raises SIGSEGV
 *     crashes_always   compile raises SIGABRT
 *     exits            run of a tanh ends the process with exit code 3
 *     hangs            run of a tanh does not come back
 *     prints           run of a tanh prints a line
 *     close_crashes    close raises SIGSEGV
 *     close_fails      close reports an error
 *     two_groups       every node is a private group of its own
 *     masks            softmax is not claimed
 *     declares         softmax is not claimed, and declared
 *     declares_much    softmax is claimed, and declared unsupported
 *     declares_nothing a pattern that no case matches is declared
 *     no_f64           the device has no f64
 *     nothing          the device has no element type
 */
#include "cpu.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const unroll_plugin unroll_plugin_v1_cpu;
static const unroll_backend_ops *cpu;
static unroll_backend_ops ops;
static uint32_t runs;

static bool is(const char *fault) {
  const char *set = getenv("UNROLL_FAULT");
  return set && strcmp(set, fault) == 0;
}

static const void *at(const void *array, uint32_t i, uint32_t stride) {
  return (const char *)array + (size_t)i * stride;
}

static bool has_op(const unroll_graph_view *g, uint32_t op, int32_t kind) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const unroll_node_view *n = at(g->nodes, i, g->node_stride);
    if (n->op == op && (kind < 0 || ((const unroll_unary_attr *)n->attr)->kind == kind))
      return true;
  }
  return false;
}

/* What compile learnt for the run after it: the judge compiles, binds and runs one case at a time. */
static bool is_tanh, is_sigmoid;
static int64_t dim_max;
static uint64_t out_offset, out_elements;
static unroll_slot out_slot;

static unroll_status device_info(unroll_backend *b, uint32_t i, unroll_device_info *info, unroll_error *err) {
  const unroll_status status = cpu->device_info(b, i, info, err);
  if (is("no_f64"))
    info->dtypes &= ~(UINT64_C(1) << UNROLL_F64);
  if (is("nothing"))
    info->dtypes = 0;
  return status;
}

static unroll_status claim(unroll_backend_device *d, const unroll_graph_view *g, unroll_claim *claims, uint32_t stride,
                           unroll_error *err) {
  const unroll_status status = cpu->claim(d, g, claims, stride, err);
  for (uint32_t i = 0; i < g->n_nodes && status == UNROLL_OK; i++) {
    const unroll_node_view *n = at(g->nodes, i, g->node_stride);
    unroll_claim *c = (void *)((char *)claims + (size_t)i * stride);
    if (n->op == UNROLL_OP_SOFTMAX && (is("masks") || is("declares")))
      c->group = 0;
    if (is("two_groups") && c->group)
      c->group = i + 1;
  }
  return status;
}

static unroll_status compile(unroll_backend_device *d, const unroll_graph_view *g, const unroll_option *o, uint32_t n,
                             unroll_backend_exec **exec, unroll_error *err) {
  if (is("crashes_always"))
    raise(SIGABRT);
  is_tanh = has_op(g, UNROLL_OP_UNARY, UNROLL_TANH);
  const unroll_tensor_view *out = at(g->tensors, g->n_tensors - 1, g->tensor_stride);
  is_sigmoid = has_op(g, UNROLL_OP_UNARY, UNROLL_SIGMOID) && out->dtype == UNROLL_F32;
  out_offset = out->offset;
  out_elements = 1;
  for (int32_t a = 0; a < out->rank; a++)
    out_elements *= (uint64_t)out->shape[a];
  dim_max = g->n_dims ? g->dim_max[0] : 0;
  return cpu->compile(d, g, o, n, exec, err);
}

static unroll_status bind_(unroll_backend_exec *exec, const unroll_slot *slots, uint32_t n, uint32_t stride,
                           unroll_backend_buffer *w, uint64_t offset, unroll_backend_binding **b, unroll_error *err) {
  if (n > 0)
    out_slot = *(const unroll_slot *)at(slots, n - 1, stride);
  return cpu->bind(exec, slots, n, stride, w, offset, b, err);
}

static unroll_status add_bias(unroll_backend_queue *q) {
  static float values[8192];
  const uint64_t offset = out_slot.offset + out_offset, n = out_elements < 8192 ? out_elements : 8192;
  TRY(cpu->read(q, out_slot.buffer, offset, values, n * sizeof *values, NULL, NULL));
  for (uint64_t i = 0; i < n; i++)
    values[i] += 8e-7f;
  return cpu->write(q, out_slot.buffer, offset, values, n * sizeof *values, NULL, NULL);
}

static unroll_status run(unroll_backend_binding *b, unroll_backend_queue *q, const unroll_run_args *given,
                         unroll_backend_event **event, unroll_error *err) {
  unroll_run_args args = *given;
  runs++;
  if (is("does_nothing"))
    return UNROLL_OK;
  if (is("stops_early") && --args.count == 0)
    return UNROLL_OK;
  if (is("goes_on") && args.n_dims)
    args.dims = &dim_max;
  if (is("other_seeds"))
    args.seed += runs & 1;
  if (is_tanh && is("crashes"))
    raise(SIGSEGV);
  if (is_tanh && is("exits"))
    _exit(3);
  while (is_tanh && is("hangs"))
    sleep(1);
  if (is_tanh && is("prints"))
    printf("faulty: tanh\n");
  const unroll_status status = cpu->run(b, q, &args, event, err);
  return status == UNROLL_OK && is_sigmoid && is("biased") ? add_bias(q) : status;
}

static unroll_status read_(unroll_backend_queue *q, unroll_backend_buffer *b, uint64_t offset, void *to, uint64_t n,
                           unroll_backend_event **event, unroll_error *err) {
  const unroll_status status = cpu->read(q, b, offset, to, n, event, err);
  if (is("spills") && n > 0)
    ((uint8_t *)to)[n - 1] ^= 1;
  return status;
}

static const void *extension(unroll_backend *b, const char *id) {
  static const char *const softmax[] = {"softmax *"}, *const nothing[] = {"convolution *"};
  static const unroll_conform some = {sizeof some, 1, softmax}, none = {sizeof none, 1, nothing};
  if (strcmp(id, UNROLL_CONFORM_ID) == 0) {
    if (is("declares") || is("declares_much"))
      return &some;
    if (is("declares_nothing"))
      return &none;
  }
  return cpu->extension ? cpu->extension(b, id) : NULL;
}

static int32_t score(const unroll_host *host) { return unroll_plugin_v1_cpu.score(host); }

static unroll_status open_(const unroll_host *host, const unroll_option *options, uint32_t n, unroll_backend **backend,
                           const unroll_backend_ops **out, unroll_error *err) {
  const unroll_status status = unroll_plugin_v1_cpu.open(host, options, n, backend, &cpu, err);
  if (status != UNROLL_OK)
    return status;
  ops = *cpu;
  ops.device_info = device_info;
  ops.claim = claim;
  ops.compile = compile;
  ops.bind = bind_;
  ops.run = run;
  ops.read = read_;
  ops.extension = extension;
  *out = &ops;
  return UNROLL_OK;
}

static unroll_status close_(unroll_backend *b, unroll_error *err) {
  if (is("close_crashes") && b && runs > 0)
    raise(SIGSEGV);
  const unroll_status status = unroll_plugin_v1_cpu.close(b, err);
  if (is("close_fails") && b && runs > 0) {
    if (err) {
      err->code = UNROLL_E_DEVICE;
      snprintf(err->message, sizeof err->message, "work was still queued");
    }
    return UNROLL_E_DEVICE;
  }
  return status;
}

UNROLL_PLUGIN_EXPORT("faulty") = {
    UNROLL_PLUGIN_HEADER, UNROLL_PLUGIN_UNLOADABLE, "faulty", "1.0", "tests", score, open_, close_};
