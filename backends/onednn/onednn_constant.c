/* SPDX-License-Identifier: Apache-2.0 */
/* Constants: a layer that is given no state or no bias has zeros made for it, which need not come from another device. */
#include "onednn.h"
#include <string.h>

static unroll_status constant_resolve(const onednn_resolver *r, onednn_node *n) {
  unroll_constant_attr attr;
  const onednn_tensor *y = onednn_out(r, n, 0);
  if (!r->node_view->attr || r->node_view->attr_size < UNROLL_SIZE_TO(unroll_constant_attr, value))
    return onednn_fail(r->err, UNROLL_E_ABI, "onednn: constant \"%.60s\": attributes of %u bytes, %zu expected",
                       r->node_view->name, r->node_view->attr_size, UNROLL_SIZE_TO(unroll_constant_attr, value));
  if (y && y->dtype != UNROLL_F32)
    return onednn_fail(r->err, UNROLL_E_DTYPE, "onednn: constant \"%.60s\" is not f32", r->node_view->name);
  memcpy(&attr, r->node_view->attr, UNROLL_SIZE_TO(unroll_constant_attr, value));
  n->as.constant = (float)attr.value;
  if (r->claim)
    r->claim->group = UNROLL_GROUP_HOST;
  else if (!y)
    n->op = NULL;
  return UNROLL_OK;
}

static unroll_status constant_run(const unroll_backend_exec *e, const onednn_node *n, onednn_state *s,
                                  const onednn_step *step) {
  (void)s;
  float *y = (float *)(void *)step->data[n->out[0]];
  const int64_t count = onednn_count_at(&e->tensors[n->out[0]], step->args->dims);
  for (int64_t i = 0; i < count; i++)
    y[i] = n->as.constant;
  return UNROLL_OK;
}

const onednn_op onednn_constant_op = {.label = "constant", .resolve = constant_resolve, .run = constant_run};
