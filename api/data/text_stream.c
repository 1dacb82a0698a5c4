/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <unroll/data.h>

#include "base/base_private.h"

unroll_status unroll_text_stream_init(unroll_text_stream *stream, const int32_t *ids, int64_t n, int64_t T, int64_t B,
                                      unroll_error *err) {
  if (stream == NULL || ids == NULL)
    return fail(err, UNROLL_E_INVALID, "unroll_text_stream_init: %s is NULL", stream == NULL ? "stream" : "ids");
  if (T < 1 || B < 1)
    return fail(err, UNROLL_E_INVALID, "text stream: %s is %" PRId64 ", it must be at least 1", T < 1 ? "T" : "B",
                T < 1 ? T : B);
  int64_t need;
  if (!extent_mul(T, B, &need) || !extent_add(need, 1, &need))
    return fail(err, UNROLL_E_RANGE, "text stream: T %" PRId64 " times B %" PRId64 " is past 2^63", T, B);
  if (n < need)
    return fail(err, UNROLL_E_RANGE,
                "text stream: %" PRId64 " characters; batches of T %" PRId64 " by B %" PRId64 " need at least %" PRId64,
                n, T, B, need);
  const int64_t length = (n - 1) / B;
  *stream = (unroll_text_stream){ids, T, B, length, length / T};
  return UNROLL_OK;
}

int unroll_text_stream_fill(const unroll_text_stream *s, uint64_t update, int32_t *x, int32_t *target) {
  const int64_t chunk = (int64_t)(update % (uint64_t)s->updates);
  for (int64_t b = 0; b < s->B; b++) {
    const int32_t *from = s->ids + b * s->length + chunk * s->T;
    for (int64_t t = 0; t < s->T; t++) {
      x[t * s->B + b] = from[t];
      target[t * s->B + b] = from[t + 1];
    }
  }
  return chunk == 0;
}
