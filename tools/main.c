/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "build_info.h"
#include "commands.h"
#include "console.h"

static const command_spec *const commands[] = {
    &command_devices,       &command_train_lm,  &command_train_classify, &command_train_series,
    &command_train_seq2seq, &command_translate, &command_sample,         &command_predict,
    &command_eval,          &command_diagnose,  &command_report,         &command_cost,
    &command_bench,         &command_graph,     &command_conform,        &command_tune};

static void print_help(FILE *out) {
  fprintf(out,
          "unroll: recurrent networks, described as a graph, unrolled over time, run on CPUs and OpenCL devices\n\n"
          "usage: unroll COMMAND [options]\n\ncommands:\n");
  for (size_t i = 0; i < COUNT(commands); i++)
    fprintf(out, "  %-16s%s\n", commands[i]->name, commands[i]->purpose);
  fprintf(out, "\noptions:\n"
               "  --version     version, how it was built, plugins\n"
               "  --help        this text; 'unroll COMMAND --help' has the options of a command\n"
               "\nexit codes: 0 success, 1 failure, 2 wrong usage\n"
               "environment:\n"
               "  UNROLL_NUM_THREADS    threads of CPU backends\n"
               "  UNROLL_PLUGIN_PATH    folders of plugins, separated by ':'; UNROLL_PLUGIN_FILES single files\n"
               "  UNROLL_WRAP           check, trace or both, around every backend; UNROLL_TRACE is the trace's file\n"
               "  NO_COLOR              no colours\n"
               "\nexample:\n"
               "  unroll train lm --text book.txt --out book.safetensors --minutes 5\n"
               "  unroll sample book.safetensors --prompt \"It was \" --length 300\n");
}

static int print_version(void) {
  printf("unroll %s\n", build_info_version);
  printf("library   %s\n", unroll_version());
  printf("build     %s, %s, %s%s%s%s%s\n", build_info_type, build_info_compiler, build_info_target,
         build_info_flags[0] ? ", " : "", build_info_flags, build_info_sanitize[0] ? ", -fsanitize=" : "",
         build_info_sanitize);
  return print_plugins();
}

static int unknown_command(const char *word) {
  const char *names[COUNT(commands) + 4] = {"help", "--help", "--version"};
  char first[COUNT(commands)][16];
  size_t n = 3;
  for (size_t i = 0; i < COUNT(commands); i++) {
    snprintf(first[i], sizeof first[i], "%.*s", (int)strcspn(commands[i]->name, " "), commands[i]->name);
    names[n++] = first[i];
  }
  const char *near = nearest_word(word, names);
  complain("unknown %s '%s'%s%s%s", word[0] == '-' ? "option" : "command", word, near ? "; did you mean " : "",
           near ? near : "", near ? "?" : "");
  complain("see 'unroll --help'");
  return EXIT_USAGE;
}

/* Does the command's first word match? Then *second is its second word, or NULL. */
static bool is_named(const command_spec *candidate, const char *word, const char **second) {
  const size_t n = strcspn(candidate->name, " ");
  *second = candidate->name[n] ? candidate->name + n + 1 : NULL;
  return strlen(word) == n && memcmp(candidate->name, word, n) == 0;
}

static int run_command(const command_spec *chosen, int argc, char **argv) {
  void *values = calloc(1, chosen->values_size);
  if (!values) {
    complain("out of memory");
    return EXIT_FAILED;
  }
  int code = EXIT_USAGE;
  switch (options_parse(chosen, argc, argv, values)) {
  case PARSE_OK: code = chosen->run(chosen, values); break;
  case PARSE_HELP:
    options_help(chosen, stdout);
    code = EXIT_OK;
    break;
  case PARSE_FAILED: break;
  }
  options_free(chosen, values);
  free(values);
  return code;
}

/* The command that the words name: one of a single word, or of two; else NULL. */
static const command_spec *find(int argc, char *const *argv) {
  const char *second;
  for (size_t i = 0; i < COUNT(commands); i++)
    if (is_named(commands[i], argv[0], &second) && (!second || (argc > 1 && strcmp(argv[1], second) == 0)))
      return commands[i];
  return NULL;
}

/* "'unroll train lm' or 'unroll train classify'": those that begin with this word. How many there are. */
static size_t list_named(const char *word, char *text, size_t size) {
  const char *second;
  size_t n = 0, used = 0;
  for (size_t i = 0; i < COUNT(commands); i++)
    if (is_named(commands[i], word, &second) && used < size) {
      const int k = snprintf(text + used, size - used, "%s'unroll %s'", n++ ? " or " : "", commands[i]->name);
      used += k > 0 ? (size_t)k : 0;
    }
  return n;
}

/* The first of two words alone, with its help. */
static void help_on_word(const char *word) {
  const char *second;
  for (size_t i = 0; i < COUNT(commands); i++)
    if (is_named(commands[i], word, &second))
      printf("unroll %-16s%s\n", commands[i]->name, commands[i]->purpose);
  printf("\n'unroll %s ... --help' has the options of each\n", word);
}

static int find_and_run(int argc, char **argv) {
  const command_spec *chosen = find(argc, argv);
  if (chosen) {
    const int words = strchr(chosen->name, ' ') ? 2 : 1;
    return run_command(chosen, argc - words, argv + words);
  }
  char names[256];
  if (list_named(argv[0], names, sizeof names) == 0)
    return unknown_command(argv[0]);
  if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
    help_on_word(argv[0]);
    return EXIT_OK;
  }
  if (argc > 1)
    complain("'%s' is nothing that '%s' knows; did you mean %s?", argv[1], argv[0], names);
  else
    complain("'%s' what? did you mean %s?", argv[0], names);
  complain("see 'unroll %s --help'", argv[0]);
  return EXIT_USAGE;
}

/* unroll help [COMMAND...]: the same as --help behind the command. */
static int help_on(int argc, char **argv) {
  static char flag[] = "--help";
  char names[256];
  if (argc == 0) {
    print_help(stdout);
    return EXIT_OK;
  }
  const command_spec *chosen = find(argc, argv);
  if (chosen)
    return run_command(chosen, 1, (char *[]){flag});
  if (list_named(argv[0], names, sizeof names) == 0)
    return unknown_command(argv[0]);
  help_on_word(argv[0]);
  return EXIT_OK;
}

static int run(int argc, char **argv) {
  if (argc < 2) {
    print_help(stderr);
    return EXIT_USAGE;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
    return help_on(argc - 2, argv + 2);
  if (strcmp(argv[1], "--version") == 0)
    return print_version();
  return find_and_run(argc - 1, argv + 1);
}

int main(int argc, char **argv) {
  console_start();
  if (UNROLL_CHECK_VERSION() != UNROLL_OK) {
    complain("the command is version %s, libunroll is %s: install both from one build", build_info_version,
             unroll_version());
    return EXIT_FAILED;
  }
  return console_finish(run(argc, argv));
}
