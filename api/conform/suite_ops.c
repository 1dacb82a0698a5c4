/* SPDX-License-Identifier: Apache-2.0 */
/* One node or two through the vtable itself: every case of op_cases*.c in f32 and in f64. */
#include "conform/conform_private.h"
#include <stdio.h>

static enum conform_outcome run_op(struct conform_session *s, const struct conform_case *c, char *message) {
  unroll_error err = UNROLL_ERROR_INIT;
  op_check_options options = {
      .dtype = c->dtype < 0 ? UNROLL_F32 : c->dtype, .layout = c->index, .seed = s->seed, .left = &s->left};
  if (session_target(s, &options.target, &err) != UNROLL_OK ||
      session_reference(s, &options.reference, &err) != UNROLL_OK) {
    snprintf(message, CONFORM_MESSAGE, "%s", err.message);
    return CONFORM_FAILED;
  }
  s->is_graph = ((const op_case *)c->data)->n_nodes > 1;
  options.is_deterministic = (s->info.caps & UNROLL_CAP_DETERMINISTIC) != 0;
  switch (op_check(&options, c->data, message, CONFORM_MESSAGE)) {
  case OP_RAN: return CONFORM_PASSED;
  case OP_UNSUPPORTED: return CONFORM_NO_DTYPE;
  case OP_DECLINED: return CONFORM_DECLINED;
  default: return CONFORM_FAILED;
  }
}

static void cover_node(struct conform_list *list, const op_case *c, const op_node *node) {
  const uint32_t op = node->op;
  conform_cover(list, op, COVER_FORM,
                !c->is_template                  ? CONFORM_STATIC
                : c->direction == UNROLL_REVERSE ? CONFORM_STEP_REVERSE
                                                 : CONFORM_STEP_FORWARD);
  if (c->dim_max)
    conform_cover(list, op, COVER_FORM, CONFORM_RUN_TIME_SIZE);
  for (uint32_t i = 0; i < node->n_out; i++)
    if (node->out[i] != UNROLL_NO_TENSOR && c->tensors[node->out[i]].alias >= 0)
      conform_cover(list, op, COVER_FORM, CONFORM_IN_PLACE);
  switch (op) {
  case UNROLL_OP_MATMUL: {
    const uint32_t addend = node->in[2];
    conform_cover(list, op, COVER_TRANS_A, node->attr.matmul.trans_a);
    conform_cover(list, op, COVER_TRANS_B, node->attr.matmul.trans_b);
    conform_cover(list, op, COVER_RANK, c->tensors[node->in[1]].shape.rank);
    conform_cover(list, op, COVER_ADDEND,
                  addend == UNROLL_NO_TENSOR           ? CONFORM_NO_ADDEND
                  : c->tensors[addend].shape.rank == 1 ? CONFORM_ROW
                                                       : CONFORM_FULL);
    break;
  }
  case UNROLL_OP_UNARY: conform_cover(list, op, COVER_KIND, node->attr.unary.kind); break;
  case UNROLL_OP_BINARY: conform_cover(list, op, COVER_KIND, node->attr.binary.kind); break;
  case UNROLL_OP_REDUCE:
    conform_cover(list, op, COVER_KIND, node->attr.reduce.kind);
    conform_cover(list, op, COVER_KEEP_DIMS, node->attr.reduce.keep_dims);
    break;
  case UNROLL_OP_OPTIMIZER: conform_cover(list, op, COVER_KIND, node->attr.optimizer.kind); break;
  case UNROLL_OP_DROPOUT: conform_cover(list, op, COVER_TIME_AXIS, node->attr.dropout.time_axis); break;
  case UNROLL_OP_LENGTH_MASK:
    conform_cover(list, op, COVER_TIME_AXIS, node->attr.length_mask.time_axis);
    conform_cover(list, op, COVER_INVERT, node->attr.length_mask.invert);
    conform_cover(list, op, COVER_OTHER, node->in[1] != UNROLL_NO_TENSOR);
    break;
  case UNROLL_OP_CATEGORICAL:
    conform_cover(list, op, COVER_TOP_K, node->attr.categorical.top_k > 0);
    conform_cover(list, op, COVER_TOP_P, node->attr.categorical.top_p > 0);
    break;
  case UNROLL_OP_LINEAR_SCAN:
  case UNROLL_OP_LINEAR_SCAN_GRAD:
    conform_cover(list, op, COVER_DIRECTION, node->attr.linear_scan.direction);
    conform_cover(list, op, COVER_LENGTHS, node->in[node->n_in - 1] != UNROLL_NO_TENSOR);
    break;
  case UNROLL_OP_RANDOM:
    conform_cover(list, op, COVER_KIND, node->attr.random.kind);
    conform_cover(list, op, COVER_TIME_AXIS, node->attr.random.time_axis);
    break;
  case UNROLL_OP_CAST:
    conform_cover(list, op, COVER_CAST, CONFORM_CAST(c->tensors[node->in[0]].dtype, c->tensors[node->out[0]].dtype));
    break;
  default: break;
  }
}

static void add(struct conform_list *list, const op_case *op, uint32_t layout, int32_t dtype) {
  const char *suffix = dtype == UNROLL_F32 ? ", f32" : dtype == UNROLL_F64 ? ", f64" : "";
  struct conform_case *c = conform_list_add(list, "%s%s", op->name, suffix);
  if (!c)
    return;
  c->run = run_op;
  c->data = op;
  c->index = layout;
  c->dtype = dtype;
  for (uint32_t i = 0; i < op->n_nodes; i++)
    cover_node(list, op, &op->nodes[i]);
}

void suite_ops_list(struct conform_list *list) {
  if (!op_case_list_make(&list->ops, list->allocator)) {
    list->failed = true;
    return;
  }
  for (uint32_t i = 0; i < list->ops.n; i++) {
    const op_case *op = &list->ops.cases[i];
    if (op_case_is_real(op)) {
      add(list, op, i, UNROLL_F32);
      add(list, op, i, UNROLL_F64);
    } else {
      add(list, op, i, -1);
    }
  }
}
