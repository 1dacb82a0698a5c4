/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "console.h"
#include "cost_report.h"
#include "layer_graph.h"

typedef struct cost_values {
  option_marks marks;
  layer_values layer;
  const char *model, *at;
  int64_t k1, k2, heads;
  bool json;
} cost_values;

#define AT(member) offsetof(cost_values, member)
static const option_spec options[] = {
    {.type = OPTION_OPERAND,
     .name = "MODEL",
     .offset = AT(model),
     .help =
         "a file that 'unroll train' wrote, in batches as it was trained unless --time-steps or --batch say others; "
         "without one, layers as the options have them"},
    OPTIONS_LAYER_ALONE(cost_values, "time-steps"),
    {.type = OPTION_TEXT,
     .name = "at",
     .argument = "T,T..",
     .offset = AT(at),
     .help = "memory for these numbers of time steps, at most 16 (default: 1, 4, 16 and 64 times those of a batch)"},
    {.type = OPTION_INTEGER,
     .name = "k1",
     .argument = "N",
     .offset = AT(k1),
     .standard = "0",
     .min = 0,
     .max = INT32_MAX,
     .help = "truncated backpropagation: after how many steps; 0: as the model, else k2"},
    {.type = OPTION_INTEGER,
     .name = "k2",
     .argument = "N",
     .offset = AT(k2),
     .standard = "0",
     .min = 0,
     .max = INT32_MAX,
     .help = "and through how many it goes back; 0: as the model, else the steps of a batch"},
    {.type = OPTION_INTEGER,
     .name = "heads",
     .argument = "N",
     .offset = AT(heads),
     .standard = "0",
     .min = 0,
     .max = INT32_MAX,
     .help = "of the Transformer of the same width; 0: one for each 64 units"},
    {.type = OPTION_FLAG, .name = "json", .offset = AT(json), .help = "for programs: one JSON object"},
};

/* "64,256" */
static bool parse_steps(const char *text, cost_asked *asked) {
  for (const char *at = text; at; at = *at == ',' ? at + 1 : NULL) {
    char *end;
    errno = 0;
    const long long n = strtoll(at, &end, 10);
    if (end == at || (*end && *end != ',') || errno || n < 1 || at[0] == ' ' || at[0] == '+') {
      complain("--at: '%s' is no list of whole numbers from 1 on, such as 64,256,1024", text);
      return false;
    }
    if (asked->n_at == COST_MOST_STEPS) {
      complain("--at: more than %d numbers", COST_MOST_STEPS);
      return false;
    }
    asked->at[asked->n_at++] = n;
    at = end;
  }
  return true;
}

/* The first option given that a model's file says itself. */
static const char *of_layers_alone(const command_spec *command, const void *values) {
  for (size_t i = 0; i < command->n_options; i++) {
    const option_spec *o = &command->options[i];
    const bool here = o->offset >= AT(layer) && o->offset < AT(layer) + sizeof(layer_values);
    if (here && o->offset != AT(layer.time_steps) && o->offset != AT(layer.batch) &&
        option_was_given(command, values, o->name))
      return o->name;
  }
  return NULL;
}

static unroll_status cost_of_options(const layer_values *layer, const cost_asked *asked, cost_report *r,
                                     unroll_error *err) {
  *r = (cost_report){.task = "layers alone"};
  r->forward.struct_size = r->update.struct_size = sizeof r->forward;
  r->layers = (unroll_cost_layers){.struct_size = sizeof r->layers,
                                   .steps = layer->time_steps,
                                   .batch = layer->batch,
                                   .input = layer->input,
                                   .rnn = layer_rnn_options(layer)};
  for (int trains = 0; trains < 2; trains++) {
    layer_values one = *layer;
    one.train = trains;
    unroll_graph *g = build_layer_graph(&one);
    if (!g)
      return UNROLL_E_INVALID; /* said already */
    const unroll_status st = unroll_cost_of_graph(g, NULL, 0, trains ? &r->update : &r->forward, err);
    unroll_graph_destroy(g);
    if (st != UNROLL_OK)
      return st;
  }
  return cost_of_layers(asked, r, err);
}

static int run(const command_spec *command, const void *p) {
  const cost_values *values = p;
  cost_asked asked = {.k1 = values->k1, .k2 = values->k2, .heads = values->heads};
  const char *other = values->model ? of_layers_alone(command, values) : NULL;
  if (other) {
    complain("--%s is for layers alone: %s says its own", other, values->model);
    return EXIT_USAGE;
  }
  if (values->at && !parse_steps(values->at, &asked))
    return EXIT_USAGE;
  if (option_was_given(command, values, "time-steps"))
    asked.steps = values->layer.time_steps;
  if (option_was_given(command, values, "batch"))
    asked.batch = values->layer.batch;
  cost_report *r = calloc(1, sizeof *r);
  unroll_error err = UNROLL_ERROR_INIT;
  int code = EXIT_FAILED;
  if (!r)
    complain("out of memory");
  else if ((values->model ? cost_of_file(values->model, &asked, r, &err)
                          : cost_of_options(&values->layer, &asked, r, &err)) != UNROLL_OK) {
    if (err.code != UNROLL_OK)
      complain_of(&err);
  } else if (values->json) {
    json_t *cost = cost_to_json(r);
    if (cost && json_dumpf(cost, stdout, JSON_INDENT(2)) == 0) {
      putchar('\n');
      code = EXIT_OK;
    } else
      complain("out of memory");
    json_decref(cost);
  } else {
    cost_print(r, values->model ? values->model : "no model");
    code = EXIT_OK;
  }
  free(r);
  return code;
}

const command_spec command_cost = {
    .name = "cost",
    .purpose = "say what a network costs: parameters, FLOPs, bytes, memory by the number of steps",
    .usage = "[MODEL] [options]",
    .options = options,
    .n_options = COUNT(options),
    .values_size = sizeof(cost_values),
    .notes =
        "Nothing is run: all numbers follow from shapes. A multiply and an add are two FLOPs; elementary functions\n"
        "are counted apart. Bytes are those of each operation's operands, once each. unroll/cost.h has the\n"
        "convention, and the sources of the memory's formulas.\n",
    .example = "  unroll cost model.safetensors --batch 1\n"
               "  unroll cost --cell gru --hidden 512 --layers 2 --time-steps 1000 --at 100,1000,10000\n",
    .run = run,
};
