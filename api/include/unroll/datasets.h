/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/datasets.h: tables of numbers, pairs of texts and labelled sequences out of files; vocabularies of tokens;
 * splits, shuffles, and batches of sequences of like length.
 *
 *     unroll_pairs_load("words.dict", &(unroll_pairs_options){.struct_size = sizeof(unroll_pairs_options),
 *                       .form = UNROLL_PAIRS_CMUDICT, .flags = UNROLL_PAIRS_NO_STRESS}, NULL, &pairs, &err);
 *     n = unroll_pairs_count(pairs);
 *     unroll_tokens_build(unroll_pairs_sources(pairs), n, &characters, NULL, &letters, &err);
 *     unroll_sequences_encode(unroll_pairs_sources(pairs), n, letters, 0, NULL, &words, &err);
 *     unroll_split(unroll_pairs_keys(pairs), n, 1, 0.05, 0.05, order, counts, &hash, &err);
 *     unroll_batches_create(unroll_sequences_lengths(words), NULL, order, counts[0], &by_length, NULL, &batches, &err);
 *     for (uint64_t epoch = 0; ...) {
 *       unroll_batches_start(batches, epoch);
 *       for (int64_t i = 0; i < unroll_batches_count(batches); i++) {
 *         const unroll_batch b = unroll_batches_get(batches, i);        b.T[0] steps, a run-time size of the graph
 *         unroll_sequences_fill(words, b.items, B, b.T[0], UNROLL_I32, pad, x, lengths, &err);
 *
 * Files are UTF-8 without NUL, lines end with LF or CR LF, the last one may lack it; a byte order mark is passed over.
 * Numbers are read the same whatever the locale. Messages name the file, the line and the value. What a file's object
 * returns is read-only and lives as long as the object: [any] but for destroy.
 *
 * Every loader: UNROLL_E_IO where the file is missing, unreadable or not a regular file; UNROLL_E_FORMAT where it is
 * empty or not of its form; UNROLL_E_RANGE for more of anything than 2^31-1; UNROLL_E_MEMORY; UNROLL_E_INVALID. [any]
 */
#ifndef UNROLL_DATASETS_H
#define UNROLL_DATASETS_H
#include <unroll/data.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- tables of numbers: CSV ---- */
typedef struct unroll_table unroll_table;

enum {
  UNROLL_HEADER_AUTO = 0, /* the first record is a header if some field of it has text and none a number */
  UNROLL_HEADER_YES = 1,
  UNROLL_HEADER_NO = 2
};
enum {
  UNROLL_HOLES_ERROR = 0,       /* a hole is an error */
  UNROLL_HOLES_INTERPOLATE = 1, /* linearly by row number between the nearest numbers of its column */
  UNROLL_HOLES_FORWARD = 2,     /* the column's last number before it */
  UNROLL_HOLES_KEEP = 3         /* NaN, which unroll_kalman_filter takes for a missing observation */
};
typedef struct unroll_csv_options {
  uint32_t struct_size;
  int32_t header, holes;      /* UNROLL_HEADER_*, UNROLL_HOLES_* */
  int32_t separator;          /* one ASCII character; 0: a comma */
  const char *const *columns; /* which, in which order: a name of the header, else a number from 1; NULL: all */
  uint32_t n_columns;
} unroll_csv_options;

/*
 * Reads columns of numbers from a file of RFC 4180: fields between separators, in double quotes where they hold one, a
 * line end or a quote, which is doubled. Every record must have as many fields as the first. Empty lines at the end are
 * passed over. A number is decimal, as in C, with white space around it or not. A hole is an empty field, NA, NaN or null
 * in any case; any other text, an infinity and a number past double's range are errors whatever `holes` says. A hole at a
 * column's start or, where interpolated, at its end, has no neighbour to be filled from: UNROLL_E_FORMAT. Columns that are
 * not asked for may hold anything. UNROLL_E_NOT_FOUND: no such column. options NULL: all defaults.
 */
UNROLL_API unroll_status unroll_table_load(const char *path, const unroll_csv_options *options,
                                           const unroll_allocator *allocator, unroll_table **table, unroll_error *err);
UNROLL_API void unroll_table_destroy(unroll_table *table); /* [obj]; NULL does nothing */
UNROLL_API int64_t unroll_table_rows(const unroll_table *table);
UNROLL_API uint32_t unroll_table_columns(const unroll_table *table);
/* The header's name, or the column's number in the file as text; NULL past the last column. */
UNROLL_API const char *unroll_table_name(const unroll_table *table, uint32_t column);
UNROLL_API const double *unroll_table_values(const unroll_table *table, uint32_t column); /* [rows], or NULL */
UNROLL_API int64_t unroll_table_holes(const unroll_table *table); /* how many there were, filled or kept */
UNROLL_API uint64_t unroll_table_hash(const unroll_table *table); /* of the file's bytes */

/* ---- tokens: a vocabulary of characters or words ---- */
typedef struct unroll_tokens unroll_tokens;

/* UNROLL_UNIT_CHARACTER and UNROLL_UNIT_WORD (between blank, tab, CR, LF, VT, FF) are data.h's. */
enum { UNROLL_UNIT_WHOLE = 2 }; /* the whole text: labels */
enum { UNROLL_TOKEN_PAD = 0, UNROLL_TOKEN_BEGIN = 1, UNROLL_TOKEN_END = 2, UNROLL_TOKEN_UNKNOWN = 3 };
#define UNROLL_TOKEN_KINDS 4 /* <pad> <s> </s> <unk> */
#define UNROLL_TOKEN_BIT(kind) (1u << (kind))

typedef struct unroll_tokens_options {
  uint32_t struct_size;
  int32_t unit;      /* UNROLL_UNIT_* */
  uint32_t specials; /* UNROLL_TOKEN_BIT()s: which special tokens it has, in the order of their kinds from id 0 on */
  int32_t most;      /* keep so many tokens, specials not counted, the most frequent; 0: all */
  int64_t at_least;  /* keep those that occur so often; 0: all */
} unroll_tokens_options;

/*
 * The tokens of n texts, NUL-terminated: the specials first, then those kept in the order of their bytes. Of equally
 * frequent ones, where `most` cuts, the first in that order stay. `most` and `at_least` want UNROLL_TOKEN_UNKNOWN.
 * UNROLL_E_FORMAT: a text is not UTF-8, or a word (or whole text) is spelled like <pad>, <s> or </s> (the word <unk> is the unknown token
 * where there is one), or no token is left. UNROLL_E_RANGE: specials or numbers outside of their range.
 */
UNROLL_API unroll_status unroll_tokens_build(const char *const *texts, int64_t n, const unroll_tokens_options *options,
                                             const unroll_allocator *allocator, unroll_tokens **tokens,
                                             unroll_error *err);
/*
 * From what unroll_tokens_json gave: {"unit":"character", "word" or "whole","specials":mask,"tokens":[...]}, the specials' own
 * names not among the tokens, none twice. UNROLL_E_FORMAT, UNROLL_E_MEMORY. [any]
 */
UNROLL_API unroll_status unroll_tokens_from_json(const char *json, size_t bytes, const unroll_allocator *allocator,
                                                 unroll_tokens **tokens, unroll_error *err);
UNROLL_API void unroll_tokens_destroy(unroll_tokens *tokens); /* [obj]; NULL does nothing */
UNROLL_API const char *unroll_tokens_json(const unroll_tokens *tokens);
UNROLL_API int32_t unroll_tokens_count(const unroll_tokens *tokens); /* with the specials */
UNROLL_API int32_t unroll_tokens_unit(const unroll_tokens *tokens);
UNROLL_API int32_t unroll_tokens_special(const unroll_tokens *tokens, int32_t kind); /* its id; -1: it has none */
UNROLL_API int32_t unroll_tokens_find(const unroll_tokens *tokens, const char *token, size_t bytes); /* -1: no such */
UNROLL_API const char *unroll_tokens_text(const unroll_tokens *tokens, int32_t id);                  /* NULL: no such */
/*
 * The ids of a text of `bytes` bytes, with <s> before and </s> behind it where `add` has UNROLL_TOKEN_BIT(BEGIN) or END.
 * *n is their number, at most bytes + 2; ids may be NULL with a capacity of 0, to count. UNROLL_E_FORMAT: not UTF-8.
 * UNROLL_E_NOT_FOUND: a token that it lacks, and it has no <unk>. UNROLL_E_RANGE: more than `capacity`.
 * UNROLL_E_INVALID: a special is to be added that it lacks.
 */
UNROLL_API unroll_status unroll_tokens_encode(const unroll_tokens *tokens, const char *text, size_t bytes, uint32_t add,
                                              int32_t *ids, size_t capacity, size_t *n, unroll_error *err);
/*
 * The text of n ids, up to the first </s>; <pad> and <s> are left out, others than characters parted by
 * a blank. *bytes is its length
 * without the final NUL; text may be NULL with a capacity of 0, to measure. UNROLL_E_RANGE: an id that it lacks, or no
 * room for the text and its NUL.
 */
UNROLL_API unroll_status unroll_tokens_decode(const unroll_tokens *tokens, const int32_t *ids, size_t n, char *text,
                                              size_t capacity, size_t *bytes, unroll_error *err);

/* ---- pairs of texts: a source and its target ---- */
typedef struct unroll_pairs unroll_pairs;

enum {
  UNROLL_PAIRS_TAB = 0, /* source TAB target */
  UNROLL_PAIRS_CMUDICT =
      1 /* the CMU pronouncing dictionary: WORD, blanks, phonemes; WORD(2) is another pronunciation of
                              WORD; lines that begin with ;;; and what follows " #" are comments */
};
enum {
  UNROLL_PAIRS_NO_STRESS = 1, /* the digit at a phoneme's end is left out: AH0 -> AH */
  UNROLL_PAIRS_FIRST_ONLY = 2 /* a word's first pronunciation alone */
};
typedef struct unroll_pairs_options {
  uint32_t struct_size;
  int32_t form;   /* UNROLL_PAIRS_TAB, UNROLL_PAIRS_CMUDICT */
  uint32_t flags; /* UNROLL_PAIRS_*; for UNROLL_PAIRS_CMUDICT alone */
} unroll_pairs_options;

/*
 * Reads pairs, a line each; blank lines are passed over, white space around a text is left out. UNROLL_E_FORMAT: an empty
 * source or target, no tab or several, a file without pairs. Of pronunciations that are equal, without their stress say,
 * and follow each other, one stays. options NULL: all defaults.
 */
UNROLL_API unroll_status unroll_pairs_load(const char *path, const unroll_pairs_options *options,
                                           const unroll_allocator *allocator, unroll_pairs **pairs, unroll_error *err);
UNROLL_API void unroll_pairs_destroy(unroll_pairs *pairs); /* [obj]; NULL does nothing */
UNROLL_API int64_t unroll_pairs_count(const unroll_pairs *pairs);
UNROLL_API const char *const *unroll_pairs_sources(const unroll_pairs *pairs); /* [count] */
UNROLL_API const char *const *unroll_pairs_targets(const unroll_pairs *pairs); /* [count] */
/* [count] of the sources, for unroll_split: a source with several targets stays in one part. */
UNROLL_API const uint64_t *unroll_pairs_keys(const unroll_pairs *pairs);
UNROLL_API uint64_t unroll_pairs_hash(const unroll_pairs *pairs); /* of the file's bytes */

/* ---- sequences: of ids or of rows of numbers, each with its own length, with labels or not ---- */
typedef struct unroll_sequences unroll_sequences;

/*
 * The ids of n texts; add as for unroll_tokens_encode, whose errors it gives with the text's number. UNROLL_E_FORMAT: a
 * text without tokens.
 */
UNROLL_API unroll_status unroll_sequences_encode(const char *const *texts, int64_t n, const unroll_tokens *tokens,
                                                 uint32_t add, const unroll_allocator *allocator,
                                                 unroll_sequences **sequences, unroll_error *err);

typedef struct unroll_labelled_options {
  uint32_t struct_size;
  int32_t header;       /* UNROLL_HEADER_* */
  int32_t separator;    /* 0: a comma */
  int32_t unlabelled;   /* not 0: no column is a label; label and labels are not looked at */
  const char *label;    /* its column, by name or by number from 1; NULL: the first */
  const char *sequence; /* NULL: a record is a sequence; else the column that tells records of one from the next */
  int64_t features;     /* where a record is a sequence: F numbers a step; 0: 1 */
  const unroll_tokens *labels; /* as unroll_sequences_label_names gave it for another file; NULL: this file's own */
} unroll_labelled_options;

/*
 * Labelled sequences from CSV. A record is a sequence: its label, and in the other columns, in their order, T·F numbers,
 * step by step (row-major). Or a record is a step: records that follow each other with the same text in the column
 * `sequence` are the steps of one sequence, in their order, with one label; the other columns are the F numbers. Holes are
 * errors. Own labels have ids in the order of their numbers where all are whole numbers, else of their bytes; at least two
 * differ. UNROLL_E_FORMAT: columns that are no multiple of F; an empty label; a sequence with two labels, or in two
 * places. UNROLL_E_NOT_FOUND: no such column; a label that `labels` lacks. options NULL: all defaults.
 */
UNROLL_API unroll_status unroll_sequences_load(const char *path, const unroll_labelled_options *options,
                                               const unroll_allocator *allocator, unroll_sequences **sequences,
                                               unroll_error *err);
UNROLL_API void unroll_sequences_destroy(unroll_sequences *sequences); /* [obj]; NULL does nothing */
UNROLL_API int64_t unroll_sequences_count(const unroll_sequences *sequences);
UNROLL_API int64_t unroll_sequences_features(const unroll_sequences *sequences);       /* F; 0: ids */
UNROLL_API const int32_t *unroll_sequences_lengths(const unroll_sequences *sequences); /* [count], each at least 1 */
UNROLL_API const int32_t *unroll_sequences_labels(const unroll_sequences *sequences);  /* [count]; NULL: none */
UNROLL_API const unroll_tokens *unroll_sequences_label_names(const unroll_sequences *sequences); /* NULL: none */
UNROLL_API const uint64_t *unroll_sequences_keys(const unroll_sequences *sequences); /* [count] of what they hold */
/* One sequence: [length] ids, or [length,F] numbers; NULL where it is of the other kind or there is no such item. */
UNROLL_API const int32_t *unroll_sequences_ids(const unroll_sequences *sequences, int64_t item);
UNROLL_API const double *unroll_sequences_values(const unroll_sequences *sequences, int64_t item);
/*
 * B sequences side by side: x [T,B] i32, or [T,B,F] f32 or f64, and their lengths [B]. An item of -1 is a row of length 0.
 * Past a sequence's end stands `fill` (ids) or 0 (numbers). UNROLL_E_DTYPE: ids want UNROLL_I32, numbers UNROLL_F32 or
 * UNROLL_F64. UNROLL_E_RANGE: T or B below 1, no such item, or one longer than T.
 */
UNROLL_API unroll_status unroll_sequences_fill(const unroll_sequences *sequences, const int64_t *items, int64_t B,
                                               int64_t T, int32_t dtype, int32_t fill, void *x, int32_t *lengths,
                                               unroll_error *err);

/* ---- splits and shuffles ---- */
enum { UNROLL_TRAINING = 0, UNROLL_VALIDATION = 1, UNROLL_TESTING = 2 };
#define UNROLL_PARTS 3
/*
 * Deals n items into parts by a hash of seed and key alone: items of one key stay together, and neither the order of the
 * items nor those that are added later move another. A part's share is met about, not exactly. order [n] gets the numbers
 * of the items, those of training first, then validation, then test, each part in ascending order; counts how many each
 * part has; *hash, which may be NULL, is one of all keys and the part of each, to be printed: equal hashes, equal splits.
 * UNROLL_E_RANGE: a share below 0, or their sum 1 or more. UNROLL_E_INVALID. [any]
 */
UNROLL_API unroll_status unroll_split(const uint64_t *keys, int64_t n, uint64_t seed, double validation, double testing,
                                      int64_t *order, int64_t counts[UNROLL_PARTS], uint64_t *hash, unroll_error *err);
/*
 * Shuffles items in place (Fisher & Yates; Durstenfeld 1964) by the random words of philox.h: key (seed, epoch,
 * UNROLL_SHUFFLE_SITE), a word pair of t = place for each. [any]
 */
#define UNROLL_SHUFFLE_SITE 0x73687566u /* "shuf" */
UNROLL_API void unroll_shuffle(int64_t *items, int64_t n, uint64_t seed, uint64_t epoch);

/* ---- batches by length ---- */
typedef struct unroll_batches unroll_batches;

typedef struct unroll_batches_options {
  uint32_t struct_size;
  int32_t in_order; /* not 0: neither shuffled nor sorted, as for evaluation */
  int64_t B;        /* rows of a batch, at least 1 */
  int64_t pool; /* so many batches' worth of shuffled items is sorted by length at a time; 1: plain batches; 0: all */
  uint64_t seed;
} unroll_batches_options;

/*
 * Dynamic batching. Every epoch the items are shuffled, sorted by length within pools, cut into batches of B, and the
 * batches shuffled; the batch that is not full, where there is one, has rows of item -1. T differs from batch to batch: the longest of
 * its items.
 *   lengths          [..] of all items; targets: those of their targets, as the second T, or NULL
 *   items            [n]: which of them; NULL: 0 to n-1. Copied, as are their lengths
 * UNROLL_E_RANGE: B below 1, a negative pool or length, n below 1. The first epoch, 0, is started. [obj]
 */
UNROLL_API unroll_status unroll_batches_create(const int32_t *lengths, const int32_t *targets, const int64_t *items,
                                               int64_t n, const unroll_batches_options *options,
                                               const unroll_allocator *allocator, unroll_batches **batches,
                                               unroll_error *err);
UNROLL_API void unroll_batches_destroy(unroll_batches *batches);
UNROLL_API void unroll_batches_start(unroll_batches *batches, uint64_t epoch); /* a function of seed and epoch alone */
UNROLL_API int64_t unroll_batches_count(const unroll_batches *batches);        /* the same in every epoch */

typedef struct unroll_batch {
  const int64_t *items; /* [B], valid until the next start; NULL: no such batch */
  int64_t n;            /* items that are there; those from n on are -1 */
  int64_t T[2];         /* the longest length, and that of the targets; at least 1 */
} unroll_batch;
UNROLL_API unroll_batch unroll_batches_get(const unroll_batches *batches, int64_t i);

/* Positions, B·T of all batches and both sides together, of the epoch that was started. */
typedef struct unroll_padding {
  int64_t real;   /* that hold something */
  int64_t padded; /* all of them */
  int64_t plain;  /* all of them, had the same shuffled items been cut into batches unsorted */
} unroll_padding;
UNROLL_API unroll_padding unroll_batches_padding(const unroll_batches *batches);

#ifdef __cplusplus
}
#endif
#endif
