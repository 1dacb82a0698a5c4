/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "console.h"
#include "heat_map.h"
#include "pair_options.h"

/* Lines that are translated together; from a terminal each by itself. */
#define LINES 4096

typedef struct translate_values {
  option_marks marks;
  common_values common;
  way_values way;
  const char *model, *attention;
  bool scores;
} translate_values;

static const option_spec options[] = {
    {.type = OPTION_OPERAND,
     .name = "MODEL",
     .offset = offsetof(translate_values, model),
     .required = true,
     .help = "a file that 'unroll train seq2seq' wrote"},
    OPTIONS_WAY(translate_values),
    FLAG("scores", offsetof(translate_values, scores), "log P of each translation before it, and a tab"),
    TEXT("attention", "FILE", offsetof(translate_values, attention),
         "where the decoder looked: a picture, F.svg, or else text, tab-separated"),
    OPTIONS_DEVICE(translate_values),
    OPTIONS_LOG(translate_values),
};

/* Lines that stdin had, and those that are translated. */
struct lines {
  char *text[LINES];
  const char *sources[LINES];
  size_t places[LINES]; /* of the sources, among the lines */
  size_t n, n_sources, printed;
  uint64_t before; /* lines, of earlier calls */
};

struct work {
  unroll_translator *model;
  const translate_values *values;
  heat_map_file map;
  struct lines lines;
};

static bool is_blank(const char *text) { return !text[strspn(text, " \t\r\n\v\f")]; }

static void free_lines(struct lines *l) {
  l->before += l->n;
  for (size_t i = 0; i < l->n; i++)
    free(l->text[i]);
  l->n = l->n_sources = l->printed = 0;
}

/* false: out of memory, or stdin can't be read. */
static bool read_lines(struct lines *l, size_t most) {
  while (l->n < most) {
    size_t capacity = 0;
    char *line = NULL;
    errno = 0;
    const ssize_t n = getline(&line, &capacity, stdin);
    if (n < 0) {
      free(line);
      if (feof(stdin))
        return true;
      complain("cannot read stdin: %s", strerror(errno));
      return false;
    }
    if (memchr(line, '\0', (size_t)n)) {
      complain("line %llu has a NUL", (unsigned long long)l->before + l->n + 1);
      free(line);
      return false;
    }
    line[strcspn(line, "\r\n")] = '\0';
    if (!is_blank(line)) {
      l->places[l->n_sources] = l->n;
      l->sources[l->n_sources++] = line;
    }
    l->text[l->n++] = line;
  }
  return true;
}

/* What is blank stays so. */
static void print_blanks(struct lines *l, size_t to) {
  for (; l->printed < to; l->printed++)
    putchar('\n');
}

static bool add_map(struct work *w, const unroll_translation *x) {
  const unroll_translator_info info = unroll_translator_describe(w->model);
  const int64_t rows = x->n + x->ended;
  const char **labels = calloc((size_t)(rows + x->n_source), sizeof *labels);
  if (!labels)
    return false;
  for (int64_t i = 0; i < rows; i++)
    labels[i] = i < x->n ? unroll_tokens_text(info.targets, x->ids[i]) : "</s>";
  for (int64_t i = 0; i < x->n_source; i++)
    labels[rows + i] = unroll_tokens_text(info.sources, x->source[i]);
  heat_map_add(&w->map, &(heat_map){labels, labels + rows, rows, x->n_source, x->weights});
  free(labels);
  return true;
}

static int print(void *ctx, int64_t i, const unroll_translation *x) {
  struct work *w = ctx;
  struct lines *l = &w->lines;
  print_blanks(l, l->places[i]);
  if (w->values->scores)
    printf("%.4f\t", x->log_prob);
  puts(x->text);
  l->printed++;
  return ferror(stdout) || (x->weights && !add_map(w, x));
}

static int translate_lines(struct work *w) {
  const translate_values *values = w->values;
  unroll_translate_options o = way_options(&values->way);
  o.attention = values->attention != NULL;
  const size_t most = isatty(STDIN_FILENO) ? 1 : LINES;
  for (;;) {
    struct lines *l = &w->lines;
    unroll_error err = UNROLL_ERROR_INIT;
    if (!read_lines(l, most)) {
      free_lines(l);
      return EXIT_FAILED;
    }
    if (l->n == 0)
      return EXIT_OK;
    const unroll_status status =
        unroll_translator_translate(w->model, l->sources, (int64_t)l->n_sources, &o, print, w, &err);
    if (status != UNROLL_OK) {
      free_lines(l);
      /* Cancelled is when stdout takes no more: console_finish says why. */
      return status == UNROLL_E_CANCELLED ? EXIT_OK : complain_of(&err);
    }
    print_blanks(l, l->n);
    free_lines(l);
    if (!console_flush())
      return EXIT_OK;
    o.seed++; /* of the next lines */
  }
}

static int translate(unroll_translator *model, const translate_values *values) {
  struct work *w = calloc(1, sizeof *w);
  int code = EXIT_FAILED;
  if (!w) {
    complain("out of memory");
    return EXIT_FAILED;
  }
  w->model = model;
  w->values = values;
  if (values->attention && !heat_map_open(&w->map, values->attention))
    complain("--attention: cannot write %s: %s", values->attention, strerror(errno));
  else
    code = translate_lines(w);
  if (w->map.file && !heat_map_close(&w->map)) {
    complain("cannot write %s: %s", values->attention, strerror(errno));
    code = EXIT_FAILED;
  }
  free(w);
  return code;
}

static int run(const command_spec *command, const void *p) {
  const translate_values *values = p;
  if (!way_check_usage(command, values, &values->way))
    return EXIT_USAGE;
  unroll_context *ctx = open_context(&values->common);
  unroll_device *device = ctx ? open_device(ctx, &values->common) : NULL;
  unroll_translator *model = NULL;
  unroll_error err = UNROLL_ERROR_INIT;
  int code = EXIT_FAILED;
  if (device && unroll_translator_load(&device, 1, values->model, NULL, &model, &err) == UNROLL_OK)
    code = translate(model, values);
  else if (device)
    complain_of(&err);
  unroll_translator_destroy(model);
  unroll_device_close(device);
  unroll_context_destroy(ctx);
  return code;
}

const command_spec command_translate = {
    .name = "translate",
    .purpose = "translate lines of text with a trained encoder and decoder",
    .usage = "MODEL [options] < lines",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(translate_values),
    .notes = "A line of stdin in, a line of stdout out; a blank one stays blank. What the model has never seen is read "
             "as <unk>.\n",
    .example = "  unroll translate phonemes.safetensors --beam 4 < words.txt\n"
               "  echo unrolled | unroll translate phonemes.safetensors --attention unrolled.svg\n",
    .run = run,
};
