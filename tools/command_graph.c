/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "commands.h"
#include "console.h"
#include "layer_graph.h"

typedef struct graph_values {
  option_marks marks;
  layer_values layer;
  const char *format;
  int64_t steps;
} graph_values;

static const option_spec options[] = {
    OPTIONS_LAYER(graph_values, "time-steps"),
    {.type = OPTION_INTEGER,
     .name = "steps",
     .argument = "N",
     .offset = offsetof(graph_values, steps),
     .standard = "0",
     .min = 0,
     .max = 10000,
     .help = "lay the time steps out, node by node, over N steps; 0: the graph as it is"},
    {.type = OPTION_CHOICE,
     .name = "format",
     .argument = "F",
     .offset = offsetof(graph_values, format),
     .standard = "text",
     .choices = "text dot",
     .help = "how it is written; dot is for Graphviz"},
};

static int run(const command_spec *command, const void *p) {
  (void)command;
  const graph_values *values = p;
  unroll_graph *graph = build_layer_graph(&values->layer);
  if (!graph)
    return EXIT_FAILED;
  unroll_error err = UNROLL_ERROR_INIT;
  char *text;
  int code = EXIT_OK;
  const int32_t format = strcmp(values->format, "dot") == 0 ? UNROLL_DUMP_DOT : UNROLL_DUMP_TEXT;
  if (unroll_graph_dump(graph, format, values->steps, &text, &err) == UNROLL_OK) {
    fputs(text, stdout);
    unroll_string_free(text);
  } else {
    code = complain_of(&err);
  }
  unroll_graph_destroy(graph);
  return code;
}

const command_spec command_graph = {
    .name = "graph",
    .purpose = "print the graph of recurrent layers, as it is or laid out over time steps",
    .usage = "[options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(graph_values),
    .example = "  unroll graph --cell gru --hidden 8 --steps 3\n"
               "  unroll graph --cell lstm --train --format dot | dot -Tsvg > graph.svg\n",
    .run = run,
};
