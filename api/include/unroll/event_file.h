/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/event_file.h: event files, which TensorBoard draws: scalars, histograms and texts by tag and step.
 *
 *     unroll_event_file *events;
 *     if (unroll_event_file_create("runs/a", NULL, NULL, &events, &err) == UNROLL_OK) {
 *       unroll_event_file_scalar(events, "loss", step, loss, &err);
 *       unroll_event_file_histogram(events, "weights/W_h", step, UNROLL_F32, W_h, n, NULL, &err);
 *       unroll_event_file_close(events, &err);
 *     }
 *
 * A file is one run's: going on later means another file in the same folder, and TensorBoard puts their steps together. Where
 * the run before was ended later than what is gone on from, say from which step on the new one counts: `restart`.
 *
 * The format is TFRecord's: a length, its masked crc32c, the bytes, theirs; the bytes are an Event in protocol buffers'
 * encoding (TensorFlow's event.proto, summary.proto). An event has the time of its call, in seconds since 1970.
 *
 * What is on the disk are whole records, always. They are collected in memory and go to the file by one write each time
 * that 64 KiB are there, that 2 seconds have passed since the last one (looked at when a record comes), at a flush and at
 * the end. Where a write fails or is cut short, as on a full disk, the file is cut back to its last whole record; what
 * was collected is lost, the message says how many events that were, and the next write tries again. A process that is
 * killed loses what was not written yet.
 *
 * Statuses: UNROLL_E_IO (native is errno), UNROLL_E_MEMORY, UNROLL_E_INVALID (arguments: something is NULL; a tag that is
 * empty, longer than 1024 bytes, or, as any text, no UTF-8). An allocator of NULL is malloc's. All functions are [obj].
 */
#ifndef UNROLL_EVENT_FILE_H
#define UNROLL_EVENT_FILE_H
#include <unroll/base.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_event_file unroll_event_file;

typedef struct unroll_event_file_options { /* zero: as said */
  uint32_t struct_size, reserved;
  double (*now)(void *ctx); /* seconds since 1970; NULL: the system's clock */
  void *ctx;
  int64_t
      restart; /* above 0: a SessionLog of START at this step, from which on TensorBoard drops what earlier files say */
} unroll_event_file_options;

/*
 * A new file FOLDER/events.out.tfevents.SECONDS.HOST.PID.N, which no other run has; the folder is made, with its parents,
 * where it is not there. Its first record, the format's version, is on the disk when this returns. options may be NULL.
 *   UNROLL_E_IO  the folder can't be made, is a file, or can't be written; nothing is left behind but folders
 */
UNROLL_API unroll_status unroll_event_file_create(const char *folder, const unroll_event_file_options *options,
                                                  const unroll_allocator *allocator, unroll_event_file **file,
                                                  unroll_error *err);
/* Where it is: the folder as given, a slash, the name. Lives as long as the file is open. */
UNROLL_API const char *unroll_event_file_path(const unroll_event_file *file);

/* The format has float32: the value is rounded to it, beyond its range to infinity. NaN and infinities are values. */
UNROLL_API unroll_status unroll_event_file_scalar(unroll_event_file *file, const char *tag, int64_t step, double value,
                                                  unroll_error *err);

typedef struct unroll_event_histogram { /* what was found in the values */
  uint32_t struct_size, reserved;
  uint64_t finite, nans, infinities, negative_infinities;
  double least, greatest, mean; /* of the finite ones; NaN where there are none */
} unroll_event_histogram;
/*
 * The distribution of values [n] of dtype UNROLL_F32 or UNROLL_F64, n at least 1: 64 buckets of one width from the least
 * to the greatest, one bucket where these are equal, or nearly so. A bucket has its left edge and not its right one, but for the last,
 * which has both. Sums are made in double.
 *
 * The format knows no bucket for what is not finite, and a sum with it would be lost. So the histogram is that of the
 * finite values, and the others are counted: where there are any, a scalar TAG/nonfinite has their number at this step;
 * where no value is finite there is that scalar alone. found, if not NULL, says how many of which kind.
 *   UNROLL_E_DTYPE  of another dtype
 */
UNROLL_API unroll_status unroll_event_file_histogram(unroll_event_file *file, const char *tag, int64_t step,
                                                     int32_t dtype, const void *values, uint64_t n,
                                                     unroll_event_histogram *found, unroll_error *err);

/* UTF-8 that TensorBoard shows as Markdown. */
UNROLL_API unroll_status unroll_event_file_text(unroll_event_file *file, const char *tag, int64_t step,
                                                const char *text, unroll_error *err);

/* Writes what is collected, to the system, not to the disk's surface: TensorBoard sees it, a power cut may lose it. */
UNROLL_API unroll_status unroll_event_file_flush(unroll_event_file *file, unroll_error *err);
/* Flushes and frees it, whatever comes back. NULL: UNROLL_OK. */
UNROLL_API unroll_status unroll_event_file_close(unroll_event_file *file, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
