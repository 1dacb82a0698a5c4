/* SPDX-License-Identifier: Apache-2.0 */
/* The judge's op cases on a device that a test has opened by itself. */
#ifndef OP_JUDGE_H
#define OP_JUDGE_H
#include "conform/op_cases.h"

typedef struct op_judged {
  uint32_t passed, failed, declined, unsupported;
  char first_failure[416]; /* "NAME: why" */
} op_judged;

/* Those whose names contain filter, in f32. A status where they could not be run at all. */
unroll_status op_judge(op_judged *result, const unroll_backend_ops *ops, unroll_backend_device *device,
                       const unroll_device_info *info, const char *filter, unroll_error *err);

#endif
