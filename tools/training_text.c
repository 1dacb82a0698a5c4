/* SPDX-License-Identifier: Apache-2.0 */
/* What a run is asked for, as TensorBoard shows it. */
#include <stdlib.h>
#include <string.h>
#include <unroll/io.h>

#include "training.h"

#define NAME_WIDTH 20

/* The lines stand as they are, and begin so in Markdown. */
static void print_row(FILE *out, const char *name, const char *value) {
  fprintf(out, "    %-*s ", NAME_WIDTH, name);
  for (; *value; value++)
    fputc(*value == '\n' || *value == '\r' ? ' ' : *value, out);
  fputc('\n', out);
}

static void print_option(FILE *out, const option_spec *option, const void *values) {
  char *value = NULL;
  size_t size = 0;
  FILE *memory = open_memstream(&value, &size);
  if (!memory)
    return;
  option_print_value(memory, option, values);
  fclose(memory);
  if (value && value[0])
    print_row(out, option->name, value);
  free(value);
}

/* Those that have a value; of a resumed model only the given ones, since the others are in its file. */
static void print_options(FILE *out, const training_job *job) {
  const command_spec *const command = job->command;
  for (size_t i = 0; i < command->n_options; i++) {
    const option_spec *const o = &command->options[i];
    if (o->type == OPTION_HEADING)
      continue;
    const bool standard = (o->standard || o->type == OPTION_FLAG) && !job->train->resume;
    if (standard || option_was_given(command, job->values, o->name))
      print_option(out, o, job->values);
  }
}

/* All but vocabularies and labels, which are lists. */
static void print_metadata(FILE *out, const char *path) {
  unroll_safetensors *file = NULL;
  if (unroll_safetensors_open(path, NULL, &file, NULL) != UNROLL_OK)
    return;
  for (uint64_t i = 0; i < unroll_safetensors_metadata_count(file); i++) {
    const char *key, *value;
    if (unroll_safetensors_metadata_get(file, i, &key, &value, NULL) == UNROLL_OK && value[0] != '[')
      print_row(out, key, value);
  }
  unroll_safetensors_close(file);
}

char *training_configuration(const training_job *job, const char *device) {
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  if (!out)
    return NULL;
  print_row(out, "unroll", unroll_version());
  print_row(out, "command", job->command->name);
  print_row(out, "runs on", device);
  print_options(out, job);
  if (job->train->resume)
    print_metadata(out, job->train->resume);
  if (fclose(out) != 0) {
    free(text);
    return NULL;
  }
  return text;
}
