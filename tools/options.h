/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command is a table: its options with types, ranges, defaults and help stand in one place, from which parsing, --help
 * and the suggestions for a mistyped name are made. Values land in a struct of the command's own, by offset.
 */
#ifndef OPTIONS_H
#define OPTIONS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum option_type {
  OPTION_HEADING, /* no option: a line between groups in --help */
  OPTION_FLAG,    /* bool */
  OPTION_INTEGER, /* int64_t */
  OPTION_NUMBER,  /* double */
  OPTION_TEXT,    /* const char * */
  OPTION_CHOICE,  /* const char *, one of the words of `choices` */
  OPTION_FILES,   /* option_files: one or more; the option may be repeated */
  OPTION_LIST,    /* option_files: one value each time; the option may be repeated */
  OPTION_OPERAND  /* const char *, given by its place, not by a name */
} option_type;

typedef struct option_files {
  const char **paths;
  size_t count;
} option_files;

typedef struct option_spec {
  option_type type;
  const char *name;     /* without its dashes; of an operand, what stands for it in the usage */
  const char *argument; /* what stands for the value in --help */
  size_t offset;        /* in the command's struct */
  const char *standard; /* the default as a user would write it, or NULL */
  double min, max;
  const char *expected; /* "a number above 0", or NULL: made from min and max */
  const char *word;     /* of a number: it may be written for 0, in range or not; or NULL */
  const char *choices;  /* "rnn lstm gru" */
  bool required;
  const char *help;
} option_spec;

typedef struct command_spec {
  const char *name; /* "devices", "train lm" */
  const char *purpose;
  const char *usage; /* what follows the name */
  const option_spec *options;
  size_t n_options, values_size;
  const char *notes; /* paragraphs between options and example, or NULL */
  const char *example;
  int (*run)(const struct command_spec *command, const void *values); /* the exit code */
} command_spec;

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

typedef enum parse_result { PARSE_OK, PARSE_HELP, PARSE_FAILED } parse_result;
/*
 * Fills values, zeroed, from the defaults and then from argv. PARSE_FAILED: the mistake has been named on stderr. What
 * was allocated is freed with options_free.
 */
parse_result options_parse(const command_spec *command, int argc, char *const *argv, void *values);
void options_free(const command_spec *command, void *values);

/* Was the option on the command line (not its default)? Marks are kept beside the values: see OPTION_MARKS. */
bool option_was_given(const command_spec *command, const void *values, const char *name);
#define MAX_OPTIONS 128
/* The first member of every struct of values. */
typedef struct option_marks {
  bool given[MAX_OPTIONS]; /* by row of the table */
} option_marks;

void options_help(const command_spec *command, FILE *out);
/* An option's value as a user would write it; nothing where it has none. */
void option_print_value(FILE *out, const option_spec *option, const void *values);

/* A decimal number and nothing else. */
bool option_parse_number(const char *text, double *value);
/* The word of the NULL-terminated list that was probably meant, or NULL. */
const char *nearest_word(const char *word, const char *const *words);

#endif
