/* SPDX-License-Identifier: Apache-2.0 */
/* Vocabularies of tokens, pairs of texts, and the sequences of ids that they become. */
#include "io_support.h"
#include <unroll/datasets.h>

#define KEEP(text) (text), sizeof(text) - 1
#define SPECIALS                                                                                                    \
  (UNROLL_TOKEN_BIT(UNROLL_TOKEN_PAD) | UNROLL_TOKEN_BIT(UNROLL_TOKEN_BEGIN) | UNROLL_TOKEN_BIT(UNROLL_TOKEN_END) | \
   UNROLL_TOKEN_BIT(UNROLL_TOKEN_UNKNOWN))

static void ids_are(const unroll_tokens *t, const char *text, uint32_t add, const int32_t *want, size_t n) {
  int32_t ids[32];
  size_t got = 0;
  assert_ok(unroll_tokens_encode(t, text, strlen(text), add, ids, 32, &got, &err));
  assert_int_equal(got, n);
  assert_memory_equal(ids, want, n * sizeof *ids);
  assert_ok(unroll_tokens_encode(t, text, strlen(text), add, NULL, 0, &got, &err));
  assert_int_equal(got, n);
}
#define IDS(t, text, add, ...) \
  ids_are((t), (text), (add), (int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void text_is(const unroll_tokens *t, const int32_t *ids, size_t n, const char *want) {
  char text[64];
  size_t bytes = 0;
  assert_ok(unroll_tokens_decode(t, ids, n, text, sizeof text, &bytes, &err));
  assert_string_equal(text, want);
  assert_int_equal(bytes, strlen(want));
  assert_ok(unroll_tokens_decode(t, ids, n, NULL, 0, &bytes, &err));
  assert_int_equal(bytes, strlen(want));
  assert_ok(unroll_tokens_decode(t, ids, n, text, bytes + 1, &bytes, &err));
  assert_error(unroll_tokens_decode(t, ids, n, text, bytes, &bytes, &err), UNROLL_E_RANGE, "there is room for");
}

static void same(const unroll_tokens *a, const unroll_tokens *b) {
  assert_string_equal(unroll_tokens_json(a), unroll_tokens_json(b));
  assert_int_equal(unroll_tokens_count(a), unroll_tokens_count(b));
  assert_int_equal(unroll_tokens_unit(a), unroll_tokens_unit(b));
  for (int32_t i = 0; i < unroll_tokens_count(a); i++)
    assert_string_equal(unroll_tokens_text(a, i), unroll_tokens_text(b, i));
  for (int32_t kind = -1; kind <= UNROLL_TOKEN_KINDS; kind++)
    assert_int_equal(unroll_tokens_special(a, kind), unroll_tokens_special(b, kind));
}

static void through_json(const unroll_tokens *t) {
  unroll_tokens *back = NULL;
  const char *json = unroll_tokens_json(t);
  assert_ok(unroll_tokens_from_json(json, strlen(json), NULL, &back, &err));
  same(t, back);
  unroll_tokens_destroy(back);
}

static void characters(void **state) {
  (void)state;
  static const char *const texts[] = {"ba \"", "b\xC3\xA9"};
  unroll_tokens *t = NULL;
  assert_ok(unroll_tokens_build(texts, 2, NULL, NULL, &t, &err)); /* blank " a b é */
  assert_int_equal(unroll_tokens_count(t), 5);
  IDS(t, "ab\xC3\xA9 ", 0, 2, 3, 4, 0);
  text_is(t, (int32_t[]){4, 0, 1}, 3, "\xC3\xA9 \"");
  assert_int_equal(unroll_tokens_special(t, UNROLL_TOKEN_UNKNOWN), -1);
  assert_null(unroll_tokens_text(t, 5));
  assert_null(unroll_tokens_text(t, -1));
  through_json(t);
  int32_t ids[2];
  size_t n;
  assert_error(unroll_tokens_encode(t, "axb", 3, 0, ids, 2, &n, &err), UNROLL_E_NOT_FOUND,
               "byte 1 of the text: \"x\" is not in the vocabulary of 5");
  assert_error(unroll_tokens_encode(t, "a\xFF", 2, 0, ids, 2, &n, &err), UNROLL_E_FORMAT,
               "byte 1 of the text is not UTF-8");
  assert_error(unroll_tokens_encode(t, "aba", 3, 0, ids, 2, &n, &err), UNROLL_E_RANGE, "3 tokens, there is room for 2");
  assert_error(unroll_tokens_encode(t, "a", 1, UNROLL_TOKEN_BIT(UNROLL_TOKEN_END), ids, 2, &n, &err), UNROLL_E_INVALID,
               "add 0x4: it can add 0x0");
  assert_error(unroll_tokens_decode(t, (int32_t[]){5}, 1, NULL, 0, &n, &err), UNROLL_E_RANGE, "id 5 at 0");
  unroll_tokens_destroy(t);
}

static void words(void **state) {
  (void)state;
  static const char *const texts[] = {" the cat\tthe  dog ", "a cat <unk> the\n"};
  unroll_tokens_options o = {.struct_size = sizeof o, .unit = UNROLL_UNIT_WORD, .specials = SPECIALS};
  unroll_tokens *t = NULL;
  assert_ok(unroll_tokens_build(texts, 2, &o, NULL, &t, &err)); /* 0-3 <pad> <s> </s> <unk>, a cat dog the */
  assert_int_equal(unroll_tokens_count(t), 8);
  assert_string_equal(unroll_tokens_text(t, 2), "</s>");
  IDS(t, "the bird <unk> dog", UNROLL_TOKEN_BIT(UNROLL_TOKEN_BEGIN) | UNROLL_TOKEN_BIT(UNROLL_TOKEN_END), 1, 7, 3, 3, 6,
      2);
  IDS(t, "cat", UNROLL_TOKEN_BIT(UNROLL_TOKEN_END), 5, 2);
  IDS(t, "", UNROLL_TOKEN_BIT(UNROLL_TOKEN_BEGIN), 1);
  text_is(t, (int32_t[]){1, 7, 5, 0, 3, 2, 6}, 7, "the cat <unk>");
  through_json(t);
  size_t n;
  assert_error(unroll_tokens_encode(t, "a <s>", 5, 0, NULL, 0, &n, &err), UNROLL_E_FORMAT,
               "byte 2 of the text: the word <s> is a special token's name");
  unroll_tokens_destroy(t);

  o.most = 2; /* the 3, cat 2, then a before dog */
  assert_ok(unroll_tokens_build(texts, 2, &o, NULL, &t, &err));
  assert_int_equal(unroll_tokens_count(t), 6);
  IDS(t, "the cat a dog", 0, 5, 4, 3, 3);
  unroll_tokens_destroy(t);
  o.most = 3;
  assert_ok(unroll_tokens_build(texts, 2, &o, NULL, &t, &err));
  IDS(t, "the cat a dog", 0, 6, 5, 4, 3);
  unroll_tokens_destroy(t);
  o.most = 0;
  o.at_least = 3;
  assert_ok(unroll_tokens_build(texts, 2, &o, NULL, &t, &err));
  IDS(t, "the cat", 0, 4, 3);
  unroll_tokens_destroy(t);

  o.at_least = 9;
  assert_error(unroll_tokens_build(texts, 2, &o, NULL, &t, &err), UNROLL_E_FORMAT, "no token for a vocabulary");
  o.specials = 0;
  assert_error(unroll_tokens_build(texts, 2, &o, NULL, &t, &err), UNROLL_E_RANGE, "there must be <unk>");
  o.specials = 16;
  assert_error(unroll_tokens_build(texts, 2, &o, NULL, &t, &err), UNROLL_E_RANGE, "specials 0x10");
  o = (unroll_tokens_options){.struct_size = sizeof o, .unit = UNROLL_UNIT_WORD, .specials = SPECIALS};
  static const char *const reserved[] = {"a", "b </s>"}, *const invalid[] = {"a", "b\xC3"};
  assert_error(unroll_tokens_build(reserved, 2, &o, NULL, &t, &err), UNROLL_E_FORMAT, "text 1 has the word </s>");
  assert_error(unroll_tokens_build(invalid, 2, &o, NULL, &t, &err), UNROLL_E_FORMAT, "text 1: byte 1 is not UTF-8");
  o.unit = 3;
  assert_error(unroll_tokens_build(texts, 2, &o, NULL, &t, &err), UNROLL_E_INVALID, "unit is 3");
  assert_error(unroll_tokens_build(texts, 0, NULL, NULL, &t, &err), UNROLL_E_INVALID, "no text");
}

static void bad_json(void **state) {
  (void)state;
  unroll_tokens *t = NULL;
#define JSON(text, words) assert_error(unroll_tokens_from_json(KEEP(text), NULL, &t, &err), UNROLL_E_FORMAT, words)
  JSON("", "JSON, byte 0");
  JSON("[\"a\"]", "'{' is expected");
  JSON("{\"unit\":\"letter\",\"specials\":0,\"tokens\":[\"a\"]}", "unit \"letter\"");
  JSON("{\"unit\":\"word\",\"specials\":16,\"tokens\":[\"a\"]}", "specials 16");
  JSON("{\"unit\":\"word\",\"special\":1,\"tokens\":[\"a\"]}", "\"special\" where \"specials\"");
  JSON("{\"unit\":\"word\",\"specials\":1,\"tokens\":[]}", "a string is expected");
  JSON("{\"unit\":\"word\",\"specials\":1,\"tokens\":[\"a b\"]}", "token 1, \"a b\", is not one word");
  JSON("{\"unit\":\"character\",\"specials\":0,\"tokens\":[\"ab\"]}", "is not one character");
  JSON("{\"unit\":\"word\",\"specials\":0,\"tokens\":[\"\"]}", "is not one word");
  JSON("{\"unit\":\"word\",\"specials\":0,\"tokens\":[\"a\",\"b\",\"a\"]}", "\"a\" stands there twice");
  JSON("{\"unit\":\"word\",\"specials\":1,\"tokens\":[\"<pad>\"]}", "\"<pad>\" stands there twice");
  JSON("{\"unit\":\"word\",\"specials\":1,\"tokens\":[\"a\"]", "'}' is expected");
  JSON("{\"unit\":\"word\",\"specials\":1,\"tokens\":[\"\xFF\"]}", "is not UTF-8");
}

/* ---- pairs ---- */

static unroll_status pairs_of(const char *text, size_t size, int32_t form, uint32_t flags, unroll_pairs **p,
                              unroll_error *err) {
  put_file(in_folder("p"), text, size);
  return unroll_pairs_load(
      in_folder("p"),
      &(unroll_pairs_options){.struct_size = sizeof(unroll_pairs_options), .form = form, .flags = flags}, NULL, p, err);
}

static void pairs_are(const unroll_pairs *p, const char *const (*want)[2], int64_t n) {
  assert_int_equal(unroll_pairs_count(p), n);
  for (int64_t i = 0; i < n; i++) {
    assert_string_equal(unroll_pairs_sources(p)[i], want[i][0]);
    assert_string_equal(unroll_pairs_targets(p)[i], want[i][1]);
  }
}

static void tabbed(void **state) {
  (void)state;
  unroll_pairs *p = NULL;
  assert_ok(
      pairs_of(KEEP("\xEF\xBB\xBFone two\tun deux\r\n\n  \n caf\xC3\xA9 \t x y "), UNROLL_PAIRS_TAB, 0, &p, &err));
  static const char *const want[][2] = {{"one two", "un deux"}, {"caf\xC3\xA9", "x y"}};
  pairs_are(p, want, 2);
  assert_true(unroll_pairs_keys(p)[0] != unroll_pairs_keys(p)[1]);
  unroll_pairs_destroy(p);
#define BAD(text, words) assert_error(pairs_of(KEEP(text), UNROLL_PAIRS_TAB, 0, &p, &err), UNROLL_E_FORMAT, words)
  BAD("a\tb\nc d\n", "/p: line 2: no tab, expected source TAB target");
  BAD("a\tb\tc\n", "line 1: more than one tab");
  BAD("a\tb\n\tc\n", "line 2: the source is empty");
  BAD("a\tb\n\nc\t \n", "line 3: the target is empty");
  BAD("a\tb\xFF\n", "line 1, byte 3: 0xFF is not UTF-8");
  BAD("a\t\0\n", "line 1: a NUL");
  BAD("\n \n", "no pair in it");
  BAD("", "the file is empty");
  assert_error(unroll_pairs_load(in_folder("none"), NULL, NULL, &p, &err), UNROLL_E_IO, "/none: ");
  assert_error(pairs_of(KEEP("a\tb\n"), 2, 0, &p, &err), UNROLL_E_INVALID, "form 2 with flags 0x0");
  assert_error(pairs_of(KEEP("a\tb\n"), UNROLL_PAIRS_TAB, UNROLL_PAIRS_NO_STRESS, &p, &err), UNROLL_E_INVALID,
               "flags 0x1");
}

static void pronunciations(void **state) {
  (void)state;
  static const char text[] = ";;; # a comment\n"
                             "A  AH0\n"
                             "A(2)  EY1\n"
                             "ABSOLVE(2) AE0 B # a comment\n"
                             "'BOUT B AW1 T\n"
                             "(PAREN P ER0 EH1 N\n"
                             "READ  R EH1 D\n"
                             "READ(2)  R IY1 D\n"
                             "READ(3)  R EH0 D\n";
  static const char *const all[][2] = {
      {"A", "AH0"},        {"A", "EY1"},        {"ABSOLVE", "AE0 B"}, {"'BOUT", "B AW1 T"}, {"(PAREN", "P ER0 EH1 N"},
      {"READ", "R EH1 D"}, {"READ", "R IY1 D"}, {"READ", "R EH0 D"}};
  static const char *const bare[][2] = {
      {"A", "AH"},        {"A", "EY"},       {"ABSOLVE", "AE B"}, {"'BOUT", "B AW T"}, {"(PAREN", "P ER EH N"},
      {"READ", "R EH D"}, {"READ", "R IY D"}};
  static const char *const first[][2] = {{"A", "AH"}, {"'BOUT", "B AW T"}, {"(PAREN", "P ER EH N"}, {"READ", "R EH D"}};
  unroll_pairs *p = NULL;
  assert_ok(pairs_of(KEEP(text), UNROLL_PAIRS_CMUDICT, 0, &p, &err));
  pairs_are(p, all, 8);
  assert_int_equal(unroll_pairs_keys(p)[5], unroll_pairs_keys(p)[7]);
  const uint64_t hash = unroll_pairs_hash(p);
  unroll_pairs_destroy(p);
  assert_ok(pairs_of(KEEP(text), UNROLL_PAIRS_CMUDICT, UNROLL_PAIRS_NO_STRESS, &p, &err));
  pairs_are(p, bare, 7); /* READ(3) is READ without stress */
  assert_int_equal(hash, unroll_pairs_hash(p));
  unroll_pairs_destroy(p);
  assert_ok(pairs_of(KEEP(text), UNROLL_PAIRS_CMUDICT, UNROLL_PAIRS_NO_STRESS | UNROLL_PAIRS_FIRST_ONLY, &p, &err));
  pairs_are(p, first, 4);
  unroll_pairs_destroy(p);
  assert_ok(
      pairs_of(KEEP("A AH0\nA(2) AH1\nA(3) AH2\nB AH0\n"), UNROLL_PAIRS_CMUDICT, UNROLL_PAIRS_NO_STRESS, &p, &err));
  assert_int_equal(unroll_pairs_count(p), 2);
  unroll_pairs_destroy(p);
  assert_error(pairs_of(KEEP("A AH0\nB\n"), UNROLL_PAIRS_CMUDICT, 0, &p, &err), UNROLL_E_FORMAT,
               "/p: line 2: the pronunciation is empty");
  assert_error(pairs_of(KEEP("A AH0\nB # AH0\n"), UNROLL_PAIRS_CMUDICT, 0, &p, &err), UNROLL_E_FORMAT,
               "line 2: the pronunciation");
}

/* From a file to batches, as a task does it. */
static void encoded(void **state) {
  (void)state;
  unroll_pairs *p = NULL;
  assert_ok(pairs_of(KEEP("AB  AH B\nB  B IY\nBAA  B AA\n"), UNROLL_PAIRS_CMUDICT, 0, &p, &err));
  const unroll_tokens_options o = {.struct_size = sizeof o, .unit = UNROLL_UNIT_WORD, .specials = SPECIALS};
  unroll_tokens *letters = NULL, *phonemes = NULL;
  unroll_sequences *words_in = NULL, *words_out = NULL;
  assert_ok(unroll_tokens_build(unroll_pairs_sources(p), 3, NULL, NULL, &letters, &err));
  assert_ok(unroll_tokens_build(unroll_pairs_targets(p), 3, &o, NULL, &phonemes, &err)); /* 4: AA AH B IY */
  assert_ok(unroll_sequences_encode(unroll_pairs_sources(p), 3, letters, 0, NULL, &words_in, &err));
  assert_ok(unroll_sequences_encode(unroll_pairs_targets(p), 3, phonemes, UNROLL_TOKEN_BIT(UNROLL_TOKEN_END), NULL,
                                    &words_out, &err));
  assert_memory_equal(unroll_sequences_lengths(words_in), ((int32_t[]){2, 1, 3}), 12);
  assert_memory_equal(unroll_sequences_ids(words_out, 1), ((int32_t[]){6, 7, 2}), 12);
  assert_int_equal(unroll_sequences_features(words_in), 0);
  assert_null(unroll_sequences_values(words_in, 0));
  assert_null(unroll_sequences_labels(words_in));
  int32_t x[9], lengths[3];
  assert_ok(unroll_sequences_fill(words_in, (int64_t[]){2, -1, 1}, 3, 3, UNROLL_I32, -1, x, lengths, &err));
  assert_memory_equal(x, ((int32_t[]){1, -1, 1, 0, -1, -1, 0, -1, -1}), sizeof x);
  assert_memory_equal(lengths, ((int32_t[]){3, 0, 1}), 12);
  assert_error(unroll_sequences_fill(words_in, (int64_t[]){2}, 1, 3, UNROLL_F32, 0, x, lengths, &err), UNROLL_E_DTYPE,
               "ids as f32, expected i32");
  unroll_sequences_destroy(words_out);
  static const char *const unknown[] = {"AB", "AXB"}, *const nothing[] = {"AB", ""};
  assert_error(unroll_sequences_encode(unknown, 2, letters, 0, NULL, &words_out, &err), UNROLL_E_NOT_FOUND,
               "text 1 \"AXB\": byte 1 of the text: \"X\"");
  assert_error(unroll_sequences_encode(nothing, 2, letters, 0, NULL, &words_out, &err), UNROLL_E_FORMAT,
               "text 1 is empty");
  assert_error(
      unroll_sequences_encode(nothing, 2, phonemes, UNROLL_TOKEN_BIT(UNROLL_TOKEN_BEGIN), NULL, &words_out, &err),
      UNROLL_E_FORMAT, "text 1 is empty");
  unroll_sequences_destroy(words_in);
  unroll_tokens_destroy(letters);
  unroll_tokens_destroy(phonemes);
  unroll_pairs_destroy(p);
}

/* Every allocation fails once. */
static void no_memory(void **state) {
  (void)state;
  put_file(in_folder("p"), KEEP("A  AH0\nA(2)  EY1\nBC  B IY1\n"));
  const unroll_pairs_options po = {.struct_size = sizeof po, .form = UNROLL_PAIRS_CMUDICT};
  const unroll_tokens_options to = {.struct_size = sizeof to, .unit = UNROLL_UNIT_WORD, .specials = SPECIALS};
  for (long at = 1;; at++) {
    struct counting c = {.fail_at = at};
    const unroll_allocator a = counting_allocator(&c);
    unroll_pairs *p = NULL;
    unroll_tokens *t = NULL, *back = NULL;
    unroll_sequences *s = NULL;
    unroll_error err = UNROLL_ERROR_INIT;
    unroll_status status = unroll_pairs_load(in_folder("p"), &po, &a, &p, &err);
    if (status == UNROLL_OK)
      status = unroll_tokens_build(unroll_pairs_targets(p), 3, &to, &a, &t, &err);
    if (status == UNROLL_OK)
      status = unroll_tokens_from_json(unroll_tokens_json(t), strlen(unroll_tokens_json(t)), &a, &back, &err);
    if (status == UNROLL_OK)
      status = unroll_sequences_encode(unroll_pairs_targets(p), 3, t, 0, &a, &s, &err);
    unroll_sequences_destroy(s);
    unroll_tokens_destroy(back);
    unroll_tokens_destroy(t);
    unroll_pairs_destroy(p);
    assert_int_equal(c.live, 0);
    if (status == UNROLL_OK) {
      assert_int_equal(c.calls, at - 1);
      break;
    }
    assert_int_equal(status, UNROLL_E_MEMORY);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(characters),     cmocka_unit_test(words),   cmocka_unit_test(bad_json), cmocka_unit_test(tabbed),
      cmocka_unit_test(pronunciations), cmocka_unit_test(encoded), cmocka_unit_test(no_memory)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
