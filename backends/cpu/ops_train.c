/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers, dropout and the optimizers. */
#include "cpu_ops.h"
#include "realmath.h"
#include <unroll/philox.h>

#include "as_f32.inc"
#include "ops_train.inc"

#include "as_f64.inc"
#include "ops_train.inc"
