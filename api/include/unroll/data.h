/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/data.h: text for models of characters or words, and its batches for truncated backpropagation through time.
 *
 *     unroll_text *text;
 *     unroll_text_load(&path, 1, NULL, NULL, &text, &err);
 *     int64_t n_train = unroll_text_train_count(text, 0.1);
 *     unroll_text_stream stream;
 *     unroll_text_stream_init(&stream, unroll_text_ids(text), n_train, T, B, &err);
 *     for (uint64_t update = 0; update < updates; update++) {
 *       if (unroll_text_stream_fill(&stream, update, x, target))
 *         reset_state();
 *       ...
 *     }
 *
 * A character is one Unicode code point. Nothing is normalised: CR LF stays two characters, a byte order mark stays
 * one, no newline is added at the end of a file. NUL is refused: a text that has one is a binary file.
 *
 * A word is what stands between white space (space, tab, CR and their like in ASCII), punctuation and all; the end of a
 * line is a word of its own, "\n". Words that the vocabulary lacks are its first one, "<unk>". Where a function speaks
 * of characters, a text of words has words.
 */
#ifndef UNROLL_DATA_H
#define UNROLL_DATA_H
#include <unroll/base.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- vocabulary: which character or word has which id; immutable, so [any] but for destroy ---- */
enum { UNROLL_UNIT_CHARACTER = 0, UNROLL_UNIT_WORD = 1 };
typedef struct unroll_vocabulary unroll_vocabulary;
#define UNROLL_CHARACTER_BYTES 5 /* the longest character in UTF-8, and a final NUL */

/*
 * A vocabulary from what unroll_vocabulary_json gave: a JSON array of strings, each one character, the id of each its
 * place; at least two, none twice, in any order. Where the first one is "<unk>" all are words. `bytes` long, no NUL needed at the end. UNROLL_E_FORMAT,
 * UNROLL_E_MEMORY. [any]
 */
UNROLL_API unroll_status unroll_vocabulary_from_json(const char *json, size_t bytes, const unroll_allocator *allocator,
                                                     unroll_vocabulary **vocabulary, unroll_error *err);
UNROLL_API void unroll_vocabulary_destroy(unroll_vocabulary *vocabulary); /* [obj]; NULL does nothing */
/* NUL-terminated UTF-8, for a model's metadata; lives as long as the vocabulary. */
UNROLL_API const char *unroll_vocabulary_json(const unroll_vocabulary *vocabulary);
UNROLL_API int32_t unroll_vocabulary_count(const unroll_vocabulary *vocabulary);

/*
 * The ids of a text of `bytes` bytes; *n is their number, at most `bytes`. ids may be NULL with a capacity of 0, to
 * count. UNROLL_E_FORMAT: not UTF-8, at which byte. UNROLL_E_NOT_FOUND: a character that the vocabulary lacks, which
 * and where. UNROLL_E_RANGE: more than `capacity` characters, *n says how many.
 */
UNROLL_API unroll_status unroll_vocabulary_encode(const unroll_vocabulary *vocabulary, const char *text, size_t bytes,
                                                  int32_t *ids, size_t capacity, size_t *n, unroll_error *err);
/* UNROLL_UNIT_*: of what it is a vocabulary. */
UNROLL_API int32_t unroll_vocabulary_unit(const unroll_vocabulary *vocabulary);
/* A character or word as UTF-8 with a final NUL, as long as the vocabulary lives. NULL: id outside of 0..count-1. */
UNROLL_API const char *unroll_vocabulary_text(const unroll_vocabulary *vocabulary, int32_t id);
/* One character as UTF-8 with a final NUL. UNROLL_E_RANGE: id outside of 0..count-1. UNROLL_E_INVALID: of words. */
UNROLL_API unroll_status unroll_vocabulary_decode(const unroll_vocabulary *vocabulary, int32_t id,
                                                  char character[UNROLL_CHARACTER_BYTES], unroll_error *err);

/* ---- text ---- */
typedef struct unroll_text unroll_text;

enum {
  UNROLL_UNKNOWN_ERROR = 0, /* a character that the given vocabulary lacks is an error that names it and its place */
  UNROLL_UNKNOWN_SKIP = 1   /* such characters are left out and counted */
};
typedef struct unroll_text_options {   /* all zero: the defaults */
  const unroll_vocabulary *vocabulary; /* used during the load only; NULL: the text's own characters by code point */
  int32_t unknown;                     /* UNROLL_UNKNOWN_*; matters only with a vocabulary of characters */
  int32_t unit;                        /* UNROLL_UNIT_*; with a vocabulary its own counts */
  /* Without a vocabulary, of words: those met fewer times become "<unk>". The others follow it, those met more often
   * first, then by their bytes. */
  int64_t min_count;
} unroll_text_options;

/*
 * Reads files, one after the other, as one text. options may be NULL. UNROLL_E_IO: a file is missing, unreadable or
 * not a regular file. UNROLL_E_FORMAT: a file is empty, not UTF-8 or has a NUL (message: file, byte, line); fewer than
 * two different characters, without a given vocabulary. UNROLL_E_NOT_FOUND: unknown characters under
 * UNROLL_UNKNOWN_ERROR, or nothing but unknown ones. UNROLL_E_RANGE: more than 2^31-1 bytes in all, which bounds the
 * ids too. UNROLL_E_MEMORY, UNROLL_E_INVALID. [any]
 */
UNROLL_API unroll_status unroll_text_load(const char *const *paths, size_t n_paths, const unroll_text_options *options,
                                          const unroll_allocator *allocator, unroll_text **text, unroll_error *err);
UNROLL_API void unroll_text_destroy(unroll_text *text); /* [obj]; NULL does nothing */

/* A loaded text is read-only: these are [any]; what they return lives as long as the text. */
UNROLL_API const int32_t *unroll_text_ids(const unroll_text *text); /* [count] */
UNROLL_API int64_t unroll_text_count(const unroll_text *text);      /* characters kept */
UNROLL_API int64_t unroll_text_unknown(const unroll_text *text); /* characters left out; words that are "<unk>" now */
UNROLL_API uint64_t unroll_text_hash(const unroll_text *text);   /* of the bytes of all files */
/* Its own, or a copy of the given one. */
UNROLL_API const unroll_vocabulary *unroll_text_vocabulary(const unroll_text *text);

/*
 * How many characters, from the first on, are for training when the last `validation` part, 0 <= validation < 1, is
 * kept for validation: count - floor(count·validation). The validation set is ids + that many. A fraction outside of
 * the range, or NaN, gives -1. [any]
 */
UNROLL_API int64_t unroll_text_train_count(const unroll_text *text, double validation);

/* ---- batches for truncated backpropagation through time (the layout of char-rnn) ---- */

/*
 * ids [n] are cut into B streams of `length` = floor((n-1)/B) characters, side by side in the text; update u reads the
 * next T characters of each, so that row b of one update goes on where row b of the last one ended, and its state is
 * carried on. An epoch has `updates` = floor(length/T) updates; what is left at a stream's end, less than T
 * characters, is dropped, and so are the up to B-1 characters left at the end of the text. The number of the update is
 * the whole position: save that, go on with it. A plain value: copy it freely, there is nothing to free. ids are the
 * caller's.
 */
typedef struct unroll_text_stream {
  const int32_t *ids;
  int64_t T, B, length, updates;
} unroll_text_stream;

/* UNROLL_E_INVALID: T or B below 1. UNROLL_E_RANGE: n < B·T+1, the message says how many it takes. [any] */
UNROLL_API unroll_status unroll_text_stream_init(unroll_text_stream *stream, const int32_t *ids, int64_t n, int64_t T,
                                                 int64_t B, unroll_error *err);
/*
 * x [T,B] and target [T,B] of an update, counted from 0 through all epochs; target[t,b] is the character after x[t,b].
 * Returns 1 if the update starts an epoch, the first included: the streams are at their start again and every state
 * must be reset; else 0. [any]
 */
UNROLL_API int unroll_text_stream_fill(const unroll_text_stream *stream, uint64_t update, int32_t *x, int32_t *target);

#ifdef __cplusplus
}
#endif
#endif
