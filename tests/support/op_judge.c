/* SPDX-License-Identifier: Apache-2.0 */
#include "op_judge.h"
#include "conform/conform_private.h"
#include <stdio.h>
#include <string.h>

static void count(op_judged *r, const op_case *c, int result, const char *message) {
  switch (result) {
  case OP_RAN: r->passed++; break;
  case OP_UNSUPPORTED: r->unsupported++; break;
  case OP_DECLINED: r->declined++; break;
  default:
    if (r->failed++ == 0)
      snprintf(r->first_failure, sizeof r->first_failure, "%s: %.280s", c->name, message);
  }
}

unroll_status op_judge(op_judged *result, const unroll_backend_ops *ops, unroll_backend_device *device,
                       const unroll_device_info *info, const char *filter, unroll_error *err) {
  struct conform_session session = {.id = "cpu", .printed = -1};
  op_target target = {.ops = ops, .device = device, .alignment = info->alignment, .dtypes = info->dtypes};
  op_check_options options = {
      .target = &target, .dtype = UNROLL_F32, .is_deterministic = (info->caps & UNROLL_CAP_DETERMINISTIC) != 0};
  op_case_list list;
  memset(result, 0, sizeof *result);
  if (!op_case_list_make(&list, NULL))
    return UNROLL_E_MEMORY;
  unroll_status status = session_load(&session, err);
  if (status == UNROLL_OK)
    status = session_reference(&session, &options.reference, err);
  if (status == UNROLL_OK)
    status = ops->queue_create(device, 0, &target.queue, err);
  for (uint32_t i = 0; i < list.n && status == UNROLL_OK; i++) {
    char message[CONFORM_MESSAGE];
    options.layout = i;
    if (strstr(list.cases[i].name, filter))
      count(result, &list.cases[i], op_check(&options, &list.cases[i], message, sizeof message), message);
  }
  ops->queue_destroy(target.queue);
  (void)session_close(&session, err);
  op_case_list_free(&list);
  return status;
}
