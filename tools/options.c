/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"

#define MAX_WORD 40
#define MAX_NAMES MAX_OPTIONS
#define HELP_COLUMN 28
#define HELP_WIDTH 100

static void *value_of(const option_spec *option, void *values) { return (char *)values + option->offset; }

/* ---- the nearest word ---- */

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* The least number of letters to insert, remove, replace or swap with a neighbour (optimal string alignment). */
static size_t edit_distance(const char *a, const char *b) {
  const size_t m = strlen(a), n = strlen(b);
  size_t d[MAX_WORD + 1][MAX_WORD + 1];
  if (m > MAX_WORD || n > MAX_WORD)
    return SIZE_MAX;
  for (size_t i = 0; i <= m; i++)
    d[i][0] = i;
  for (size_t j = 0; j <= n; j++)
    d[0][j] = j;
  for (size_t i = 1; i <= m; i++)
    for (size_t j = 1; j <= n; j++) {
      d[i][j] = smaller(smaller(d[i - 1][j], d[i][j - 1]) + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = smaller(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[m][n];
}

const char *nearest_word(const char *word, const char *const *words) {
  const size_t length = strlen(word);
  const char *best = NULL;
  size_t best_distance =
      smaller(length / 3 + 1, 3) * 2 + 1; /* in half letters: the beginning of a word is nearer than a typo */
  for (; *words; words++) {
    const bool begins = length >= 2 && strncmp(word, *words, length) == 0;
    const size_t letters = edit_distance(word, *words);
    const size_t distance = begins ? 1 : letters < MAX_WORD ? 2 * letters : SIZE_MAX;
    if (distance < best_distance) {
      best = *words;
      best_distance = distance;
    }
  }
  return best;
}

/* ---- values ---- */

static bool parse_integer(const char *text, int64_t *value) {
  const char *digits = text[0] == '-' ? text + 1 : text;
  if (!digits[0] || digits[strspn(digits, "0123456789")])
    return false;
  errno = 0;
  *value = strtoll(text, NULL, 10);
  return errno == 0;
}

/* strtod alone would take "nan", "inf", hexadecimal and leading spaces as well. */
bool option_parse_number(const char *text, double *value) {
  char *end;
  if (!text[0] || text[strspn(text, "0123456789.eE+-")])
    return false;
  errno = 0;
  *value = strtod(text, &end);
  return *end == '\0' && errno == 0;
}

static const char *find_choice(const char *choices, const char *text) {
  const size_t length = strlen(text);
  for (const char *word = choices; *word; word += strspn(word, " ")) {
    const size_t n = strcspn(word, " ");
    if (n == length && n > 0 && memcmp(word, text, n) == 0)
      return word;
    word += n;
  }
  return NULL;
}

static void describe_expected(const option_spec *option, char *text, size_t size) {
  if (option->expected)
    snprintf(text, size, "%s", option->expected);
  else if (option->type == OPTION_INTEGER && option->max >= (double)INT64_MAX)
    snprintf(text, size, "a whole number from %.0f on", option->min);
  else if (option->type == OPTION_INTEGER)
    snprintf(text, size, "a whole number from %.0f to %.0f", option->min, option->max);
  else
    snprintf(text, size, "a number from %g to %g", option->min, option->max);
}

static bool refuse(const option_spec *option, const char *text) {
  char expected[160];
  if (option->type == OPTION_CHOICE) {
    char words[MAX_WORD * 8];
    snprintf(words, sizeof words, "%s", option->choices);
    const char *list[MAX_NAMES + 1];
    size_t n = 0;
    for (char *rest, *word = strtok_r(words, " ", &rest); word && n < MAX_NAMES; word = strtok_r(NULL, " ", &rest))
      list[n++] = word;
    list[n] = NULL;
    const char *near = nearest_word(text, list);
    complain("--%s: '%s' is not one of: %s%s%s%s", option->name, text, option->choices, near ? "; did you mean " : "",
             near ? near : "", near ? "?" : "");
    return false;
  }
  describe_expected(option, expected, sizeof expected);
  complain("--%s: '%s' is not %s", option->name, text, expected);
  return false;
}

static bool set_value(const option_spec *option, const char *text, void *values) {
  void *value = value_of(option, values);
  if (option->type == OPTION_INTEGER) {
    int64_t integer;
    if (!parse_integer(text, &integer) || (double)integer < option->min || (double)integer > option->max)
      return refuse(option, text);
    *(int64_t *)value = integer;
  } else if (option->type == OPTION_NUMBER) {
    double number = 0;
    const bool is_word = option->word && strcmp(text, option->word) == 0;
    if (!is_word && (!option_parse_number(text, &number) || number < option->min || number > option->max))
      return refuse(option, text);
    *(double *)value = number;
  } else {
    if (option->type == OPTION_CHOICE && !find_choice(option->choices, text))
      return refuse(option, text);
    if (!text[0] && option->type == OPTION_OPERAND) {
      complain("%s is empty", option->name);
      return false;
    }
    *(const char **)value = text;
  }
  return true;
}

/* ---- the command line ---- */

static bool no_memory(void) {
  complain("out of memory");
  return false;
}

static bool add_file(const option_spec *option, const char *path, void *values, int argc) {
  option_files *files = value_of(option, values);
  if (!files->paths && !(files->paths = calloc((size_t)argc + 1, sizeof *files->paths)))
    return no_memory();
  files->paths[files->count++] = path;
  return true;
}

static void see_help(const command_spec *command) { complain("see 'unroll %s --help'", command->name); }

static const option_spec *find_option(const command_spec *command, const char *name, size_t length) {
  for (size_t i = 0; i < command->n_options; i++) {
    const option_spec *row = &command->options[i];
    if (row->type != OPTION_HEADING && row->type != OPTION_OPERAND && strlen(row->name) == length &&
        memcmp(row->name, name, length) == 0)
      return row;
  }
  return NULL;
}

static bool unknown_option(const command_spec *command, const char *argument, size_t length) {
  char word[MAX_WORD + 1] = "";
  const char *names[MAX_NAMES + 2] = {"help"};
  size_t n = 1;
  for (size_t i = 0; i < command->n_options && n < MAX_NAMES; i++)
    if (command->options[i].type != OPTION_HEADING && command->options[i].type != OPTION_OPERAND)
      names[n++] = command->options[i].name;
  const char *bare = argument + strspn(argument, "-");
  length -= (size_t)(bare - argument);
  if (length <= MAX_WORD)
    memcpy(word, bare, length);
  const char *near = word[0] ? nearest_word(word, names) : NULL;
  complain("unknown option '%.*s'%s%s%s", (int)(length + (size_t)(bare - argument)), argument,
           near ? "; did you mean --" : "", near ? near : "", near ? "?" : "");
  see_help(command);
  return false;
}

static void mark(const command_spec *command, const option_spec *option, void *values) {
  ((option_marks *)values)->given[option - command->options] = true;
}

bool option_was_given(const command_spec *command, const void *values, const char *name) {
  const option_spec *option = find_option(command, name, strlen(name));
  return option && ((const option_marks *)values)->given[option - command->options];
}

/* Takes --name or --name=value at argv[*i], and the values that follow. */
static bool take_option(const command_spec *command, int argc, char *const *argv, int *i, void *values) {
  const char *argument = argv[*i];
  const char *equals = strchr(argument, '=');
  const size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
  const option_spec *row = strncmp(argument, "--", 2) == 0 ? find_option(command, argument + 2, length - 2) : NULL;
  if (!row)
    return unknown_option(command, argument, length);
  mark(command, row, values);
  if (row->type == OPTION_FLAG) {
    if (equals) {
      complain("--%s takes no value", row->name);
      return false;
    }
    *(bool *)value_of(row, values) = true;
    return true;
  }
  const char *text = equals ? equals + 1 : *i + 1 < argc ? argv[*i + 1] : NULL;
  if (!text || (!equals && strncmp(text, "--", 2) == 0)) {
    complain("--%s needs a value: --%s %s", row->name, row->name, row->argument);
    if (text)
      complain("where the value itself starts with dashes, write --%s=%s", row->name, text);
    return false;
  }
  if (!equals)
    ++*i;
  if (row->type != OPTION_FILES && row->type != OPTION_LIST)
    return set_value(row, text, values);
  if (!add_file(row, text, values, argc))
    return false;
  while (row->type == OPTION_FILES && !equals && *i + 1 < argc && argv[*i + 1][0] != '-')
    if (!add_file(row, argv[++*i], values, argc))
      return false;
  return true;
}

static bool take_operand(const command_spec *command, const char *text, void *values) {
  for (size_t i = 0; i < command->n_options; i++) {
    const option_spec *row = &command->options[i];
    if (row->type != OPTION_OPERAND || ((const option_marks *)values)->given[i])
      continue;
    mark(command, row, values);
    return set_value(row, text, values);
  }
  complain("'%s' is one argument too many for 'unroll %s'", text, command->name);
  see_help(command);
  return false;
}

static bool has_required(const command_spec *command, const void *values) {
  for (size_t i = 0; i < command->n_options; i++) {
    const option_spec *row = &command->options[i];
    if (!row->required || ((const option_marks *)values)->given[i])
      continue;
    if (row->type == OPTION_OPERAND)
      complain("'unroll %s' needs %s", command->name, row->name);
    else
      complain("'unroll %s' needs --%s %s", command->name, row->name, row->argument);
    see_help(command);
    return false;
  }
  return true;
}

parse_result options_parse(const command_spec *command, int argc, char *const *argv, void *values) {
  for (size_t i = 0; i < command->n_options; i++)
    if (command->options[i].standard && !set_value(&command->options[i], command->options[i].standard, values))
      return PARSE_FAILED;
  bool operands_only = false;
  for (int i = 0; i < argc; i++) {
    if (!operands_only && strcmp(argv[i], "--") == 0)
      operands_only = true;
    else if (!operands_only && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0))
      return PARSE_HELP;
    else if (!operands_only && argv[i][0] == '-' && argv[i][1]) {
      if (!take_option(command, argc, argv, &i, values))
        return PARSE_FAILED;
    } else if (!take_operand(command, argv[i], values))
      return PARSE_FAILED;
  }
  return has_required(command, values) ? PARSE_OK : PARSE_FAILED;
}

void options_free(const command_spec *command, void *values) {
  for (size_t i = 0; i < command->n_options; i++)
    if (command->options[i].type == OPTION_FILES || command->options[i].type == OPTION_LIST)
      free(((option_files *)value_of(&command->options[i], values))->paths);
}

/* ---- help ---- */

/* Words from `column` on, broken at HELP_WIDTH, indented by HELP_COLUMN. */
static void print_wrapped(FILE *out, int column, const char *text) {
  while (*text) {
    const int length = (int)strcspn(text, " ");
    if (column + length > HELP_WIDTH && column > HELP_COLUMN) {
      fprintf(out, "\n%*s", HELP_COLUMN, "");
      column = HELP_COLUMN;
    }
    fprintf(out, "%.*s", length, text);
    column += length;
    text += length;
    if (*text == ' ') {
      text++;
      if (*text && column + 1 + (int)strcspn(text, " ") <= HELP_WIDTH) {
        fputc(' ', out);
        column++;
      } else if (*text) {
        fprintf(out, "\n%*s", HELP_COLUMN, "");
        column = HELP_COLUMN;
      }
    }
  }
  fputc('\n', out);
}

static void print_row(FILE *out, const option_spec *row) {
  char left[96], right[512];
  if (row->type == OPTION_HEADING) {
    fprintf(out, "\n%s:\n", row->help);
    return;
  }
  const bool operand = row->type == OPTION_OPERAND;
  snprintf(left, sizeof left, "  %s%s%s%s", operand ? "" : "--", row->name, row->argument ? " " : "",
           row->argument ? row->argument : "");
  int n = snprintf(right, sizeof right, "%s", row->help);
  if (row->choices && n > 0 && (size_t)n < sizeof right) {
    n += snprintf(right + n, sizeof right - (size_t)n, ": ");
    for (const char *word = row->choices; *word; word++)
      n += snprintf(right + n, sizeof right - (size_t)n, "%s%c", *word == ' ' ? "," : "", *word);
  }
  if (row->standard && row->standard[0] && n > 0 && (size_t)n < sizeof right)
    n += snprintf(right + n, sizeof right - (size_t)n, " (default %s)", row->standard);
  if (row->required && n > 0 && (size_t)n < sizeof right)
    snprintf(right + n, sizeof right - (size_t)n, " (required)");
  const int length = (int)strlen(left);
  if (length + 2 > HELP_COLUMN)
    fprintf(out, "%s\n%*s", left, HELP_COLUMN, "");
  else
    fprintf(out, "%-*s", HELP_COLUMN, left);
  print_wrapped(out, HELP_COLUMN, right);
}

void options_help(const command_spec *command, FILE *out) {
  fprintf(out, "unroll %s: %s\n\nusage: unroll %s %s\n", command->name, command->purpose, command->name,
          command->usage);
  if (command->n_options > 0 && command->options[0].type != OPTION_HEADING)
    fputc('\n', out);
  for (size_t i = 0; i < command->n_options; i++)
    print_row(out, &command->options[i]);
  fprintf(out, "  %-*s%s\n", HELP_COLUMN - 2, "--help", "this text");
  if (command->notes)
    fprintf(out, "\n%s", command->notes);
  fprintf(out, "\nexample:\n%s", command->example);
}

/* ---- values as they are ---- */

void option_print_value(FILE *out, const option_spec *option, const void *values) {
  const void *value = (const char *)values + option->offset;
  if (option->type == OPTION_FLAG)
    fputs(*(const bool *)value ? "yes" : "no", out);
  else if (option->type == OPTION_INTEGER)
    fprintf(out, "%" PRId64, *(const int64_t *)value);
  else if (option->type == OPTION_NUMBER && option->word && *(const double *)value == 0)
    fputs(option->word, out);
  else if (option->type == OPTION_NUMBER)
    fprintf(out, "%.15g", *(const double *)value);
  else if (option->type == OPTION_FILES || option->type == OPTION_LIST) {
    const option_files *files = value;
    for (size_t i = 0; i < files->count; i++)
      fprintf(out, "%s%s", i ? " " : "", files->paths[i]);
  } else if (option->type != OPTION_HEADING) {
    const char *text = *(const char *const *)value;
    fputs(text ? text : "", out);
  }
}
