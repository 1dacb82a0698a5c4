/* SPDX-License-Identifier: Apache-2.0 */
/* Language models on the reference device: their files, and what they sample. */
#include <signal.h>
#include <sys/resource.h>

#include "train_support.h"

/* ---- files ---- */

/* A copy of a model's file with one thing changed, its checksum right again. */
struct change {
  const char *key, *value; /* of the metadata; value NULL: left out */
  const char *drop, *grow; /* a tensor that is left out, and one that has one row too few */
  const char *extra;       /* a tensor that is added */
  int32_t dtype;           /* of `grow`, where not 0 */
};

static void write_changed(const char *from, const char *to, const struct change *c) {
  unroll_safetensors *file;
  unroll_safetensors_writer *writer;
  assert_ok(unroll_safetensors_open(from, NULL, &file, &err));
  assert_ok(unroll_safetensors_writer_create(to, NULL, &writer, &err));
  for (uint64_t i = 0; i < unroll_safetensors_metadata_count(file); i++) {
    const char *key, *value;
    assert_ok(unroll_safetensors_metadata_get(file, i, &key, &value, &err));
    if (strcmp(key, UNROLL_CHECKSUM_KEY) != 0 && (!c->key || strcmp(key, c->key) != 0))
      assert_ok(unroll_safetensors_writer_metadata(writer, key, value, &err));
  }
  if (c->key && c->value)
    assert_ok(unroll_safetensors_writer_metadata(writer, c->key, c->value, &err));
  for (uint64_t i = 0; i < unroll_safetensors_count(file); i++) {
    unroll_stored_tensor t;
    assert_ok(unroll_safetensors_get(file, i, &t, &err));
    if (c->drop && strcmp(c->drop, t.name) == 0)
      continue;
    if (c->grow && strcmp(c->grow, t.name) == 0) {
      t.shape[0]--;
      t.dtype = c->dtype ? c->dtype : t.dtype;
    }
    assert_ok(unroll_safetensors_writer_add(writer, t.name, t.dtype, t.rank, t.shape, t.data, &err));
  }
  if (c->extra)
    assert_ok(unroll_safetensors_writer_add(writer, c->extra, UNROLL_F32, 0, NULL, "four", &err));
  assert_ok(unroll_safetensors_writer_commit(writer, &err));
  unroll_safetensors_writer_destroy(writer);
  unroll_safetensors_close(file);
}

#define MODEL "{\"cell\":\"gru_after\",\"layers\":2,\"hidden\":12,\"embedding\":6,\"vocabulary\":29}"

static void what_a_file_may_not_be(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_GRU_AFTER);
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("good"), &err));
  unroll_lm_destroy(lm);
  const struct {
    struct change change;
    unroll_status status;
    const char *words;
  } cases[] = {
      {{.key = "unroll.model", .value = MODEL}, UNROLL_OK, ""},
      {{.key = "unroll.version", .value = NULL}, UNROLL_OK, ""},
      {{.key = "unroll.kind", .value = NULL}, UNROLL_E_FORMAT, "no model of unroll"},
      {{.key = "unroll.kind", .value = "soup"}, UNROLL_E_FORMAT, "another kind of file: unroll.kind is 'soup'"},
      {{.key = "unroll.format", .value = "2"}, UNROLL_E_UNSUPPORTED, "format 2, written by unroll"},
      {{.key = "unroll.format", .value = "0"}, UNROLL_E_FORMAT, "unroll.format is '0'"},
      {{.key = "unroll.format", .value = NULL}, UNROLL_E_FORMAT, "unroll.format is ''"},
      {{.key = "unroll.model", .value = NULL}, UNROLL_E_FORMAT, "no metadata unroll.model"},
      {{.key = "unroll.model", .value = "{}"}, UNROLL_E_FORMAT, "unroll.model"},
      {{.key = "unroll.model", .value = "{\"cell\":\"gru\"}"}, UNROLL_E_FORMAT, "layers is missing"},
      {{.key = "unroll.model", .value = "{\"cell\":\"tree\"}"}, UNROLL_E_FORMAT, "cell 'tree' is none"},
      {{.key = "unroll.model", .value = "{\"taste\":1}"}, UNROLL_E_FORMAT, "'taste' is no field"},
      {{.key = "unroll.model", .value = "{\"layers\":1,\"layers\":1}"}, UNROLL_E_FORMAT, "layers stands there twice"},
      {{.key = "unroll.model", .value = MODEL "x"}, UNROLL_E_FORMAT, "unroll.model: JSON"},
      {{.key = "unroll.model",
        .value = "{\"cell\":\"gru_after\",\"layers\":2,\"hidden\":13,\"embedding\":6,\"vocabulary\":29}"},
       UNROLL_E_FORMAT,
       "tensor h.0 is f32 [7,12], the model's options make it f32 [7,13]"},
      {{.key = "unroll.model",
        .value = "{\"cell\":\"gru_after\",\"layers\":99,\"hidden\":12,\"embedding\":6,\"vocabulary\":29}"},
       UNROLL_E_FORMAT,
       "layers 99"},
      {{.key = "unroll.model",
        .value = "{\"cell\":\"gru_after\",\"layers\":2,\"hidden\":12,\"embedding\":6,\"vocabulary\":30}"},
       UNROLL_E_FORMAT,
       "says 30 characters, unroll.vocabulary has 29"},
      {{.key = "unroll.vocabulary", .value = NULL}, UNROLL_E_FORMAT, "no metadata unroll.vocabulary"},
      {{.key = "unroll.vocabulary", .value = "[\"a\"]"}, UNROLL_E_FORMAT, "unroll.vocabulary: "},
      {{.key = "unroll.training", .value = "{\"dropout\":nan}"}, UNROLL_E_FORMAT, "unroll.training: JSON"},
      {{.key = "unroll.training", .value = "{\"dropout\":0x1p-1}"}, UNROLL_E_FORMAT, "unroll.training: JSON"},
      {{.key = "unroll.training", .value = "{\"dropout\":1e999}"}, UNROLL_E_FORMAT, "no finite number"},
      {{.key = "unroll.position", .value = "{\"update\":1,\"best_update\":2,\"best_validation_loss\":1.5}"},
       UNROLL_E_FORMAT,
       "best_update 2 is after update 1"},
      {{.key = "unroll.text", .value = "{\"hash\":\"12\",\"characters\":900}"}, UNROLL_E_FORMAT, "hash '12'"},
      {{.drop = "linear.b"}, UNROLL_E_FORMAT, "tensor linear.b is missing"},
      {{.drop = "rnn.W_h.1.0.s2"}, UNROLL_E_FORMAT, "tensor rnn.W_h.1.0.s2 is missing"},
      {{.drop = "h.1"}, UNROLL_E_FORMAT, "tensor h.1 is missing"},
      {{.grow = "rnn.b_n.1.0"},
       UNROLL_E_FORMAT,
       "tensor rnn.b_n.1.0 is f32 [11], the model's options make it f32 [12]"},
      {{.grow = "rnn.b_n.1.0", .dtype = UNROLL_I32}, UNROLL_E_FORMAT, "tensor rnn.b_n.1.0 is i32 [11]"},
      {{.extra = "attention"}, UNROLL_E_FORMAT, "tensor attention is none of this model's"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    write_changed(in_folder("good"), in_folder("changed"), &cases[i].change);
    lm = NULL;
    if (cases[i].status == UNROLL_OK) {
      assert_ok(unroll_lm_load(&cpu, 1, in_folder("changed"), NULL, &lm, &err));
      unroll_lm_destroy(lm);
      continue;
    }
    assert_error(unroll_lm_load(&cpu, 1, in_folder("changed"), NULL, &lm, &err), cases[i].status, cases[i].words);
    assert_error(unroll_lm_load(&cpu, 1, in_folder("changed"), NULL, &lm, &err), cases[i].status, "/changed: ");
    assert_null(lm);
  }
  put_file(in_folder("changed"), "hello, world", 12);
  assert_error(unroll_lm_load(&cpu, 1, in_folder("changed"), NULL, &lm, &err), UNROLL_E_FORMAT, "/changed: ");
  assert_error(unroll_lm_load(&cpu, 1, in_folder("nowhere"), NULL, &lm, &err), UNROLL_E_IO, "/nowhere: ");
}

static void cut_and_flipped(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_RNN);
  o.rnn.layers = 1;
  o.rnn.hidden = 3;
  o.embedding = 2;
  o.training.batch = 2;
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("good"), &err));
  unroll_lm_destroy(lm);
  size_t size;
  char *bytes = get_file(in_folder("good"), &size);
  for (size_t i = 0; i < size; i += i < 3000 ? 7 : 101) {
    lm = NULL;
    put_file(in_folder("bad"), bytes, i);
    assert_int_not_equal(unroll_lm_load(&cpu, 1, in_folder("bad"), NULL, &lm, NULL), UNROLL_OK);
    bytes[i] ^= (char)(1 << i % 8);
    put_file(in_folder("bad"), bytes, size);
    assert_int_not_equal(unroll_lm_load(&cpu, 1, in_folder("bad"), NULL, &lm, NULL), UNROLL_OK);
    bytes[i] ^= (char)(1 << i % 8);
    assert_null(lm);
  }
  free(bytes);
}

static void another_text_is_refused(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_RNN);
  unroll_lm *lm = create(&o);
  assert_error(unroll_lm_resume(lm, text, &err), UNROLL_E_STATE, "a text already");
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  unroll_lm_destroy(lm);
  lm = load(in_folder("m"));
  const unroll_lm_train_options run = {.struct_size = sizeof run, .updates = 1};
  assert_error(unroll_lm_train(lm, &run, &err), UNROLL_E_STATE, "before it is resumed");
  unroll_text *other = load_text(sentence, 21);
  assert_error(unroll_lm_resume(lm, other, &err), UNROLL_E_STATE, "another text");
  assert_error(unroll_lm_resume(lm, other, &err), UNROLL_E_STATE, "of 945 characters");
  unroll_text_destroy(other);
  assert_ok(unroll_lm_resume(lm, text, &err));
  assert_ok(unroll_lm_train(lm, &run, &err));
  unroll_lm_destroy(lm);
}

static void no_room_on_the_disk(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_RNN);
  struct record r = {0};
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  assert_ok(unroll_lm_save(lm, in_folder("copy"), &err));
  train_to(lm, 2, &r);
  const int files = folder_entries(0);
  struct rlimit old, tight;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
  tight = old;
  tight.rlim_cur = 4096;
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
  unroll_error found = UNROLL_ERROR_INIT;
  const unroll_status status = unroll_lm_save(lm, in_folder("m"), &found);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, handler);
  assert_int_equal(status, UNROLL_E_IO);
  assert_non_null(strstr(found.message, "/m"));
  assert_same_files(in_folder("m"), in_folder("copy"));
  assert_int_equal(folder_entries(0), files);
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  unroll_lm *again = load(in_folder("m"));
  assert_int_equal(unroll_lm_describe(again).update, 2);
  unroll_lm_destroy(again);
  unroll_lm_destroy(lm);
}

static void memory_runs_out(void **state) {
  (void)state;
  unroll_lm_options o = small(UNROLL_CELL_LSTM);
  o.rnn.layers = 1;
  struct counting c = {0, 0, 0};
  const unroll_allocator allocator = counting_allocator(&c);
  unroll_lm *lm = create(&o);
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  unroll_lm_destroy(lm);
  unroll_status status = UNROLL_E_MEMORY;
  for (long n = 1; status != UNROLL_OK; n++) {
    c = (struct counting){0, 0, n};
    lm = NULL;
    status = unroll_lm_load(&cpu, 1, in_folder("m"), &allocator, &lm, NULL);
    if (status == UNROLL_OK) {
      assert_true(c.calls < n);
      c.fail_at = c.calls + 1;
      assert_int_equal(unroll_lm_save(lm, in_folder("n"), NULL), UNROLL_E_MEMORY);
      assert_ok(unroll_lm_save(lm, in_folder("n"), &err));
      assert_same_files(in_folder("m"), in_folder("n"));
    } else {
      assert_int_equal(status, UNROLL_E_MEMORY);
      assert_null(lm);
    }
    unroll_lm_destroy(lm);
    assert_int_equal(c.live, 0);
  }
  status = UNROLL_E_MEMORY;
  for (long n = 1; status != UNROLL_OK; n++) {
    c = (struct counting){0, 0, n};
    lm = NULL;
    status = unroll_lm_create(&cpu, 1, text, &o, &allocator, &lm, NULL);
    assert_true(status == UNROLL_OK || status == UNROLL_E_MEMORY);
    unroll_lm_destroy(lm);
    assert_int_equal(c.live, 0);
  }
}

/* ---- sampling ---- */

struct output {
  char bytes[2048];
  size_t size;
  int pieces, stop_after; /* stop_after 0: never */
};

static int collect(void *ctx, const char *piece, size_t bytes) {
  struct output *out = ctx;
  assert_true(out->size + bytes < sizeof out->bytes && strlen(piece) == bytes);
  memcpy(out->bytes + out->size, piece, bytes + 1);
  out->size += bytes;
  return ++out->pieces == out->stop_after;
}

static struct output sample(unroll_lm *lm, const char *prompt, uint64_t length, double temperature, int64_t top_k,
                            uint64_t seed) {
  struct output out = {.size = 0};
  const unroll_lm_sample_options s = {.struct_size = sizeof s,
                                      .prompt = prompt,
                                      .length = length,
                                      .temperature = temperature,
                                      .top_k = top_k,
                                      .seed = seed};
  assert_ok(unroll_lm_sample(lm, &s, collect, &out, &err));
  assert_int_equal(out.size, length); /* the fixture's characters are ASCII */
  return out;
}

static unroll_lm *memorised(void) {
  unroll_lm_options o = small(UNROLL_CELL_GRU);
  o.rnn.layers = 1;
  o.rnn.hidden = 40;
  o.embedding = 16;
  o.rnn.dropout = 0;
  o.training.schedule = (unroll_schedule){.kind = UNROLL_SCHEDULE_CONSTANT, .base = 0.01};
  struct record r = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 300, &r);
  return lm;
}

static void greedy_says_what_it_learnt(void **state) {
  (void)state;
  unroll_lm *lm = memorised();
  char expected[4 * sizeof sentence] = "";
  for (int i = 0; i < 3; i++)
    strcat(expected, sentence);
  const struct output out = sample(lm, sentence, 3 * strlen(sentence), 0, 0, 1);
  assert_string_equal(out.bytes, expected);
  /* Halfway in, and out of a file. */
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  unroll_lm *loaded = load(in_folder("m"));
  const struct output half = sample(loaded, "the quick brown fox", 25, 0, 0, 1);
  assert_memory_equal(half.bytes, sentence + 19, 25);
  /* The likeliest one alone, whatever the temperature; no prompt begins as after a newline. */
  assert_string_equal(sample(loaded, "the quick brown fox", 25, 5, 1, 3).bytes, half.bytes);
  assert_string_equal(sample(loaded, NULL, 60, 0, 0, 1).bytes, sample(loaded, "\n", 60, 0, 0, 1).bytes);
  unroll_lm_destroy(loaded);
  unroll_lm_destroy(lm);
}

static void sampled_by_seed(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_LSTM);
  struct record a = {0}, b = {0};
  unroll_lm *lm = create(&o);
  train_to(lm, 12, &a);
  assert_ok(unroll_lm_save(lm, in_folder("m"), &err));
  const struct output out = sample(lm, "the ", 300, 1, 0, 5);
  assert_string_equal(sample(lm, "the ", 300, 1, 0, 5).bytes, out.bytes);
  assert_string_not_equal(sample(lm, "the ", 300, 1, 0, 6).bytes, out.bytes);
  assert_string_not_equal(sample(lm, "the ", 300, 0.5, 0, 5).bytes, out.bytes);
  assert_string_not_equal(sample(lm, "the ", 300, 1, 3, 5).bytes, out.bytes);
  /* The longer text begins as the shorter one. */
  assert_memory_equal(sample(lm, "the ", 7, 1, 0, 5).bytes, out.bytes, 7);
  assert_int_equal(sample(lm, "the ", 0, 1, 0, 5).pieces, 0);
  /* Training changes what is sampled, and goes on as if nothing had been; a loaded model samples the same. */
  train_to(lm, 16, &a);
  const struct output later = sample(lm, "the ", 300, 1, 0, 5);
  assert_string_not_equal(later.bytes, out.bytes);
  unroll_lm_destroy(lm);
  lm = load(in_folder("m"));
  assert_string_equal(sample(lm, "the ", 300, 1, 0, 5).bytes, out.bytes);
  assert_ok(unroll_lm_resume(lm, text, &err));
  assert_string_equal(sample(lm, "the ", 300, 1, 0, 5).bytes, out.bytes);
  train_to(lm, 16, &b);
  assert_same_losses(&a, &b, 12, 16);
  assert_string_equal(sample(lm, "the ", 300, 1, 0, 5).bytes, later.bytes);
  unroll_lm_destroy(lm);
}

static void refused_samples(void **state) {
  (void)state;
  const unroll_lm_options o = small(UNROLL_CELL_RNN);
  unroll_lm *lm = create(&o);
  struct output out = {.size = 0};
  unroll_lm_sample_options s = {.struct_size = sizeof s, .prompt = "fox\xc3\xa9", .length = 5, .temperature = 1};
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_NOT_FOUND, "prompt: ");
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_NOT_FOUND, "U+00E9");
  s.prompt = "fox\xff";
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_FORMAT, "prompt: ");
  s.prompt = "fox";
  s.temperature = -1;
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_INVALID, "temperature -1");
  s.temperature = (double)NAN;
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_INVALID, "temperature nan");
  s.temperature = 1;
  s.top_k = 30;
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_INVALID, "top_k 30");
  assert_int_equal(out.pieces, 0);
  s.top_k = 0;
  s.length = 1000;
  out.stop_after = 2;
  assert_error(unroll_lm_sample(lm, &s, collect, &out, &err), UNROLL_E_CANCELLED, "cancelled");
  assert_int_equal(out.pieces, 2);
  assert_true(out.size < 1000);
  unroll_lm_destroy(lm);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_a_file_may_not_be),  cmocka_unit_test(cut_and_flipped),
      cmocka_unit_test(another_text_is_refused), cmocka_unit_test(no_room_on_the_disk),
      cmocka_unit_test(memory_runs_out),         cmocka_unit_test(greedy_says_what_it_learnt),
      cmocka_unit_test(sampled_by_seed),         cmocka_unit_test(refused_samples),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
