/* SPDX-License-Identifier: Apache-2.0 */
/* Primitives and their arguments. */
#include "onednn.h"

const dnnl_memory_desc_t *onednn_arg(const_dnnl_primitive_desc_t desc, int arg) {
  return dnnl_primitive_desc_query_md(desc, dnnl_query_exec_arg_md, arg);
}

uint64_t onednn_desc_bytes(const dnnl_memory_desc_t *md) {
  return md && md->ndims > 0 ? dnnl_memory_desc_get_size(md) : 0;
}

unroll_status onednn_call_add(onednn_call *c, dnnl_engine_t engine, int arg, const dnnl_memory_desc_t *md, void *data,
                              unroll_error *err) {
  if (onednn_desc_bytes(md) == 0)
    return UNROLL_OK;
  if (c->n_args == ONEDNN_MAX_ARGS)
    return onednn_fail(err, UNROLL_E_INTERNAL, "onednn: a primitive with more than %d arguments", ONEDNN_MAX_ARGS);
  dnnl_memory_t memory;
  TRY(onednn_check(err, dnnl_memory_create(&memory, md, engine, data), "dnnl_memory_create", NULL));
  c->args[c->n_args++] = (dnnl_exec_arg_t){arg, memory};
  return UNROLL_OK;
}

unroll_status onednn_call_run(const onednn_call *c, dnnl_stream_t stream, unroll_error *err) {
  TRY(onednn_check(err, dnnl_primitive_execute(c->primitive, stream, c->n_args, c->args), "dnnl_primitive_execute",
                   NULL));
  return onednn_check(err, dnnl_stream_wait(stream), "dnnl_stream_wait", NULL);
}

void onednn_call_release(onednn_call *c) {
  for (int32_t i = 0; i < c->n_args; i++)
    (void)dnnl_memory_destroy(c->args[i].memory);
  c->n_args = 0;
}
