/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the recurrent layers of a file: what it says of them, what its tensors' names and shapes say. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "layer_view.h"
#include "options.h"

#define NAME_SIZE 160

/* ---- what the metadata say ---- */

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text ? text : "";
}

/* A decoder from before decoders had the options of cells, or one that was to have none. */
static bool is_plain(const model_view *v, const char *stack) {
  return strcmp(v->task, "seq2seq") == 0 && strcmp(stack, "decoder") == 0 &&
         strcmp(text_of(v->model, "decoder"), "as_encoder") != 0;
}

static bool read_number(const model_view *v, const char *key, double *to) {
  const json_t *said = json_object_get(v->model, key);
  if (!said)
    return true;
  *to = json_number_value(said);
  if (json_is_number(said) && isfinite(*to))
    return true;
  complain("%s: %s in unroll.model is no number", v->path, key);
  return false;
}

/* what: for the message, "the cell". */
static bool read_name(const model_view *v, const char *key, const char *what, const char *(*name)(int32_t), int32_t end,
                      int32_t *to) {
  char known[300] = "";
  const char *said = text_of(v->model, key);
  if (!*said)
    return true;
  for (int32_t i = 0; i < end; i++) {
    const char *is = name(i);
    const size_t n = strlen(known);
    if (!is)
      continue;
    if (strcmp(is, said) == 0) {
      *to = i;
      return true;
    }
    snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", is);
  }
  complain("%s: %s '%s' is not known: expected one of %s", v->path, what, said, known);
  return false;
}

static bool read_activation(const model_view *v, const char *key, unroll_activation *a) {
  char alpha[48], beta[48];
  if (!*text_of(v->model, key))
    return true;
  if (!read_name(v, key, "the activation", unroll_activation_name, UNROLL_ACTIVATION_COUNT, &a->kind))
    return false;
  *a = unroll_activation_of(a->kind);
  snprintf(alpha, sizeof alpha, "%s_alpha", key);
  snprintf(beta, sizeof beta, "%s_beta", key);
  return read_number(v, alpha, &a->alpha) && read_number(v, beta, &a->beta);
}

static const char *residual_name(int32_t kind) {
  static const char *const names[] = {"none", "outputs", "states"};
  return names[kind];
}

/* All that does not follow from tensors. The cell is 0 where nothing is said. */
static bool read_options(const model_view *v, const char *stack, unroll_rnn_options *o) {
  *o = (unroll_rnn_options){.struct_size = sizeof *o, .lengths = unroll_none(), .inference = 1};
  if (!read_name(v, "cell", "the cell", unroll_rnn_cell_name, UNROLL_RNN_END, &o->cell))
    return false;
  if (is_plain(v, stack))
    return true;
  o->zoneout_h = json_number_value(json_object_get(v->training, "zoneout_h"));
  o->zoneout_c = json_number_value(json_object_get(v->training, "zoneout_c"));
  if (!read_activation(v, "f", &o->f) || !read_activation(v, "g", &o->g) || !read_activation(v, "h", &o->h) ||
      !read_activation(v, "activation", &o->f))
    return false;
  return read_number(v, "gate_clip", &o->clip) && read_number(v, "cell_clip", &o->cell_clip) &&
         read_number(v, "layer_norm_epsilon", &o->layer_norm_epsilon) && read_number(v, "skip", &o->skip) &&
         read_name(v, "residual", "the residual", residual_name, UNROLL_RESIDUAL_STATES + 1, &o->residual);
}

/* ---- tensors ---- */

double stored_number(const unroll_stored_tensor *t, uint64_t i) {
  float single;
  double number;
  if (t->dtype == UNROLL_F64) {
    memcpy(&number, (const char *)t->data + sizeof number * i, sizeof number);
    return number;
  }
  memcpy(&single, (const char *)t->data + sizeof single * i, sizeof single);
  return (double)single;
}

static bool find(const model_view *v, const layer_view *l, const char *what, char name[NAME_SIZE],
                 unroll_stored_tensor *t) {
  snprintf(name, NAME_SIZE, "%s%s%s.%d.%d", l->stack, *l->stack ? "." : "", what, l->layer, l->direction);
  return unroll_safetensors_find(v->file, name, t, NULL) == UNROLL_OK;
}
static bool has(const model_view *v, const layer_view *l, const char *what) {
  char name[NAME_SIZE];
  unroll_stored_tensor t;
  return find(v, l, what, name, &t);
}

/* "f32 [12,4]" */
static void describe(const unroll_stored_tensor *t, char text[96]) {
  int n = snprintf(text, 96, "%s [", unroll_dtype_name(t->dtype));
  for (int32_t axis = 0; axis < t->rank && n < 70; axis++)
    n += snprintf(text + n, 96 - (size_t)n, "%s%" PRId64, axis ? "," : "", t->shape[axis]);
  snprintf(text + n, 96 - (size_t)n, "]");
}

static bool add_tensor(layer_view *l, const char *what, const double *data, int64_t rows, int64_t columns) {
  if (!data) {
    complain("out of memory");
    return false;
  }
  l->tensors[l->n_tensors++] = (layer_tensor){what, data, rows, columns};
  return true;
}

/* columns 0: a vector. stored: what it is called in the file. */
static bool read_tensor(const model_view *v, layer_view *l, const char *stored, const char *what, int64_t rows,
                        int64_t columns) {
  char name[NAME_SIZE], is[96];
  unroll_stored_tensor t;
  const int64_t n = rows * (columns ? columns : 1);
  if (!find(v, l, stored, name, &t)) {
    complain(columns ? "%s: %s is missing: expected [%" PRId64 ",%" PRId64 "]"
                     : "%s: %s is missing: expected [%" PRId64 "]",
             v->path, name, rows, columns);
    return false;
  }
  if ((t.dtype != UNROLL_F32 && t.dtype != UNROLL_F64) || t.rank != (columns ? 2 : 1) || t.shape[0] != rows ||
      (columns && t.shape[1] != columns)) {
    describe(&t, is);
    complain(columns ? "%s: %s is %s: expected f32 or f64 [%" PRId64 ",%" PRId64 "]"
                     : "%s: %s is %s: expected f32 or f64 [%" PRId64 "]",
             v->path, name, is, rows, columns);
    return false;
  }
  double *const values = malloc((size_t)n * sizeof *values);
  for (int64_t i = 0; values && i < n; i++)
    values[i] = stored_number(&t, (uint64_t)i);
  return add_tensor(l, what, values, rows, columns);
}

/* What unroll_rnn makes of options, in their order. rows, columns: of G·H, H, P and I; ' ': a vector. */
static bool read_tensors(const model_view *v, layer_view *l) {
  const unroll_rnn_options *o = &l->options;
  const bool lstm = layer_is_lstm(l), coupled = o->cell == UNROLL_RNN_COUPLED_LSTM,
             after = o->cell == UNROLL_CELL_GRU_AFTER;
  const bool modrelu = o->f.kind == UNROLL_ACTIVATION_MODRELU, norm = o->layer_norm;
  const struct {
    const char *what;
    char rows, columns;
    bool wanted;
  } all[LAYER_TENSORS] = {{"W_x", 'G', 'I', true},
                          {"W_h", 'G', 'P', !layer_is_minimal(l)},
                          {"b", 'G', ' ', true},
                          {"b_n", 'H', ' ', after},
                          {"W_r", 'P', 'H', o->projection > 0},
                          {"p_i", 'H', ' ', o->peepholes},
                          {"p_f", 'H', ' ', o->peepholes && !coupled},
                          {"p_o", 'H', ' ', o->peepholes},
                          {"ln_x", 'G', ' ', norm},
                          {"ln_h", 'G', ' ', norm},
                          {"ln_c", 'H', ' ', norm && lstm},
                          {"ln_s", 'H', ' ', norm && lstm},
                          {"b_m", 'H', ' ', modrelu}};
  for (size_t i = 0; i < LAYER_TENSORS; i++) {
    const char *what = all[i].what, *stored = i == 0 && has(v, l, "W_xh") ? "W_xh" : what;
    const int64_t H = o->hidden, P = layer_output_size(l);
    const int64_t rows = all[i].rows == 'G' ? layer_gates(l) * H : all[i].rows == 'H' ? H : P;
    const int64_t columns = all[i].columns == 'I'   ? l->input
                            : all[i].columns == 'P' ? P
                            : all[i].columns == 'H' ? H
                                                    : 0;
    const bool bias = strcmp(what, "b") == 0 || strcmp(what, "b_n") == 0, there = has(v, l, stored);
    if (there && !all[i].wanted) {
      complain("%s: layer %d has %s, which the cell %s, as it is described, does not have", v->path, l->layer, what,
               unroll_rnn_cell_name(o->cell));
      return false;
    }
    if (!all[i].wanted)
      continue;
    if (there || !bias ? !read_tensor(v, l, stored, what, rows, columns)
                       : !add_tensor(l, what, calloc((size_t)rows, sizeof(double)), rows, 0))
      return false;
  }
  return true;
}

/* ---- a layer ---- */

/* W: W_h, of a minimal cell W_x. */
static bool find_sizes(const model_view *v, layer_view *l, const unroll_stored_tensor *W) {
  unroll_rnn_options *o = &l->options;
  unroll_stored_tensor other;
  char name[NAME_SIZE], is[96];
  const int64_t rows = W->shape[0], columns = W->shape[1];
  if (find(v, l, "W_r", name, &other) && other.rank == 2) {
    o->projection = columns;
    o->hidden = other.shape[1];
  } else
    o->hidden = columns;
  if (o->cell == 0)
    o->cell = rows == o->hidden       ? UNROLL_CELL_RNN
              : rows == 4 * o->hidden ? UNROLL_CELL_LSTM
              : rows == 3 * o->hidden ? (has(v, l, "b_n") ? UNROLL_CELL_GRU_AFTER : UNROLL_CELL_GRU)
                                      : 0;
  if (o->cell == 0) {
    describe(W, is);
    complain("%s: %s is %s, which is no cell's: expected 1, 3 or 4 times as many rows as columns", v->path, W->name,
             strchr(is, '['));
    return false;
  }
  if (layer_is_minimal(l))
    o->hidden = rows / layer_gates(l);
  if (o->hidden < 1 || rows != layer_gates(l) * o->hidden) {
    describe(W, is);
    complain("%s: %s is %s: expected %" PRId64 " rows for each unit of %s", v->path, W->name, is, layer_gates(l),
             unroll_rnn_cell_name(o->cell));
    return false;
  }
  if (!find(v, l, "W_xh", name, &other) && !find(v, l, "W_x", name, &other)) {
    complain("%s: %s is missing: expected [%" PRId64 ",inputs]", v->path, name, rows);
    return false;
  }
  l->input = other.rank == 2 ? other.shape[1] : 0;
  if (l->input >= 1)
    return true;
  describe(&other, is);
  complain("%s: %s is %s: expected f32 or f64 [%" PRId64 ",inputs]", v->path, name, is, rows);
  return false;
}

/* Its name's parts are there. */
static bool read_layer(const model_view *v, layer_view *l, const unroll_stored_tensor *W) {
  unroll_rnn_options *o = &l->options;
  const bool said = *text_of(v->model, "activation") && !is_plain(v, l->stack);
  if (!read_options(v, l->stack, o) || !find_sizes(v, l, W))
    return false;
  if (said && o->cell != UNROLL_CELL_RNN) {
    complain("%s: unroll.model says an activation, which is the cell rnn's: those of %s are f, g and h", v->path,
             unroll_rnn_cell_name(o->cell));
    return false;
  }
  const bool plain = is_plain(v, l->stack);
  o->peepholes = has(v, l, "p_i") || (!plain && strcmp(text_of(v->model, "peepholes"), "yes") == 0);
  o->layer_norm = has(v, l, "ln_x") || (!plain && strcmp(text_of(v->model, "layer_norm"), "yes") == 0);
  if (!layer_is_lstm(l) && (o->peepholes || o->projection)) {
    complain("%s: layer %d has %s, which the cell %s does not have", v->path, l->layer,
             o->projection ? "a projection, W_r" : "peepholes", unroll_rnn_cell_name(o->cell));
    return false;
  }
  return read_tensors(v, l);
}

/* ---- the file ---- */

/* "PREFIX.W_h.l.d" -> its parts; false: another name, an optimizer's state of one among them. */
static bool is_recurrent(const char *mark, const char *name, layer_view *l) {
  const char *at = strstr(name, mark);
  const size_t n_mark = strlen(mark);
  int used = 0;
  if (!at || (at > name && at[-1] != '.') ||
      sscanf(at + n_mark, "%" SCNd32 ".%" SCNd32 "%n", &l->layer, &l->direction, &used) != 2 ||
      at[n_mark + (size_t)used])
    return false;
  const int n = at > name ? (int)(at - name - 1) : 0;
  return l->layer >= 0 && (l->direction == 0 || l->direction == 1) &&
         (size_t)snprintf(l->stack, sizeof l->stack, "%.*s", n, name) < sizeof l->stack;
}

static int by_place(const void *a, const void *b) {
  const layer_view *x = a, *y = b;
  const int decoder = (strcmp(x->stack, "decoder") == 0) - (strcmp(y->stack, "decoder") == 0);
  const int stack = decoder ? decoder : strcmp(x->stack, y->stack);
  return stack                  ? stack
         : x->layer != y->layer ? (x->layer > y->layer) - (x->layer < y->layer)
                                : x->direction - y->direction;
}

/* Names, and of each stack how many layers and directions there are. */
static void finish_layers(model_view *v) {
  const bool several = v->n > 0 && strcmp(v->layers[0].stack, v->layers[v->n - 1].stack) != 0;
  for (size_t i = 0; i < v->n; i++) {
    layer_view *l = &v->layers[i];
    snprintf(l->name, sizeof l->name, "%s%s%d %s", several ? l->stack : "", several ? " " : "", l->layer,
             l->direction ? "reverse" : "forward");
    for (size_t k = 0; k < v->n; k++)
      if (strcmp(v->layers[k].stack, l->stack) == 0) {
        l->options.bidirectional |= v->layers[k].direction;
        if (l->options.layers <= v->layers[k].layer)
          l->options.layers = v->layers[k].layer + 1;
      }
  }
}

bool model_is_parameter(const char *name) {
  const size_t n = strlen(name);
  return !(n > 3 && (strcmp(name + n - 3, ".s1") == 0 || strcmp(name + n - 3, ".s2") == 0)) &&
         strncmp(name, "loss_scale", 10) != 0 && strcmp(name, "updates.made") != 0 &&
         !((name[0] == 'h' || name[0] == 'c') && name[1] == '.' && strspn(name + 2, "0123456789") == n - 2);
}

static bool read_layers(model_view *v) {
  const uint64_t count = unroll_safetensors_count(v->file);
  const char *mark = strncmp(text_of(v->model, "cell"), "min_", 4) == 0 ? "W_x." : "W_h.";
  v->layers = calloc(count + 1, sizeof *v->layers);
  if (!v->layers) {
    complain("out of memory");
    return false;
  }
  for (uint64_t i = 0; i < count; i++) {
    unroll_stored_tensor t;
    layer_view *l = &v->layers[v->n];
    if (unroll_safetensors_get(v->file, i, &t, NULL) != UNROLL_OK)
      continue; /* of a dtype that no layer has */
    int64_t numbers = model_is_parameter(t.name);
    for (int32_t axis = 0; axis < t.rank; axis++)
      numbers *= t.shape[axis];
    v->parameters += numbers;
    if (!is_recurrent(mark, t.name, l))
      continue;
    v->n++; /* so that it is freed */
    if (t.rank != 2 || t.shape[0] < 1 || t.shape[1] < 1) {
      complain("%s: %s has %d axes, expected a matrix", v->path, t.name, t.rank);
      return false;
    }
    if (!read_layer(v, l, &t))
      return false;
  }
  if (v->n == 0) {
    complain("%s has no recurrent layer: no tensor is named like rnn.%s0.0", v->path, mark);
    return false;
  }
  qsort(v->layers, v->n, sizeof *v->layers, by_place);
  finish_layers(v);
  return true;
}

static json_t *metadata(const model_view *v, const char *key) {
  const char *text = unroll_safetensors_metadata(v->file, key);
  json_t *object = text ? json_loads(text, 0, NULL) : NULL;
  if (json_is_object(object))
    return object;
  json_decref(object);
  return json_object();
}

static const char *task_of(const char *kind) {
  static const char *const tasks[][2] = {{"character language model", "lm"},
                                         {"sequence classifier", "classify"},
                                         {"series forecaster", "series"},
                                         {"translator", "seq2seq"}};
  for (size_t i = 0; i < COUNT(tasks); i++)
    if (strcmp(kind, tasks[i][0]) == 0)
      return tasks[i][1];
  return "layers";
}

bool model_view_open(const char *path, model_view *v) {
  unroll_error err = UNROLL_ERROR_INIT;
  *v = (model_view){.path = path, .kind = "", .task = "layers"};
  unroll_status status = unroll_safetensors_open(path, NULL, &v->file, &err);
  if (status == UNROLL_OK) {
    status = unroll_safetensors_verify(v->file, &err);
    status = status == UNROLL_E_NOT_FOUND ? UNROLL_OK : status; /* by another program */
  }
  if (status != UNROLL_OK) {
    complain("%s", err.message);
    return false;
  }
  const char *kind = unroll_safetensors_metadata(v->file, "unroll.kind");
  v->kind = kind ? kind : "";
  v->task = task_of(v->kind);
  v->model = metadata(v, "unroll.model");
  v->training = metadata(v, "unroll.training");
  if (!v->model || !v->training) {
    complain("out of memory");
    return false;
  }
  return read_layers(v);
}

void model_view_close(model_view *v) {
  for (size_t i = 0; i < v->n; i++)
    for (size_t k = 0; k < v->layers[i].n_tensors; k++)
      free((void *)(uintptr_t)v->layers[i].tensors[k].data); /* each array is the view's own */
  free(v->layers);
  json_decref(v->model);
  json_decref(v->training);
  unroll_safetensors_close(v->file);
}

/* ---- networks ---- */

/* Layer `at` of the stack's list, l·D + d: is it the one that a stack of these options has there? */
static bool fits(const model_view *v, const layer_view *first, const layer_view *l, size_t at) {
  const unroll_rnn_options *o = &first->options;
  const size_t D = o->bidirectional ? 2 : 1;
  const int64_t width = (int64_t)D * layer_output_size(first);
  if ((size_t)l->layer != at / D || (size_t)l->direction != at % D)
    complain("%s: layer %zu of %s, %s, is missing", v->path, at / D, first->stack, at % D ? "reverse" : "forward");
  else if (l->options.hidden != o->hidden || l->options.projection != o->projection || l->options.cell != o->cell ||
           l->options.layer_norm != o->layer_norm || l->options.peepholes != o->peepholes)
    complain("%s: layers %s and %s differ in units or options: expected a stack of equal ones", v->path, first->name,
             l->name);
  else if (l->input != (l->layer ? width : first->input))
    complain("%s: layer %s reads %" PRId64 " numbers: expected %" PRId64, v->path, l->name, l->input,
             l->layer ? width : first->input);
  else
    return true;
  return false;
}

bool model_view_network(const model_view *v, const char *stack, network_view *out) {
  const layer_view *first = NULL;
  size_t n = 0, at = 0;
  *out = (network_view){.network = {.struct_size = sizeof out->network}};
  for (size_t i = 0; i < v->n; i++)
    if (strcmp(v->layers[i].stack, stack) == 0) {
      first = first ? first : &v->layers[i];
      n += v->layers[i].n_tensors;
    }
  if (!first) {
    complain("%s has no layers named %s", v->path, stack);
    return false;
  }
  out->weights = calloc(n, sizeof *out->weights);
  out->names = calloc(n, NAME_SIZE);
  if (!out->weights || !out->names) {
    complain("out of memory");
    return false;
  }
  for (const layer_view *l = first; l < v->layers + v->n && strcmp(l->stack, stack) == 0; l++) {
    if (!fits(v, first, l, at++))
      return false;
    for (size_t k = 0; k < l->n_tensors; k++) {
      const layer_tensor *t = &l->tensors[k];
      char *name = out->names + out->network.n_weights * NAME_SIZE;
      snprintf(name, NAME_SIZE, "%s%s%s.%d.%d", stack, *stack ? "." : "", t->what, l->layer, l->direction);
      out->weights[out->network.n_weights++] = (unroll_network_weight){
          .name = name, .data = t->data, .count = (uint64_t)(t->rows * (t->columns ? t->columns : 1))};
    }
  }
  const size_t expected = (size_t)first->options.layers * (first->options.bidirectional ? 2 : 1);
  if (at != expected) {
    complain("%s: %s has %zu layers and directions: expected %zu", v->path, stack, at, expected);
    return false;
  }
  /* A decoder's lowest layer has no residual connection; here it would get one. */
  if (strcmp(v->task, "seq2seq") == 0 && strcmp(stack, "decoder") == 0 && first->options.residual &&
      first->input == layer_output_size(first)) {
    complain("%s: the decoder's lowest layer has no residual connection, and is no part of a stack that has them",
             v->path);
    return false;
  }
  out->options = first->options;
  out->network.options = &out->options;
  out->network.prefix = first->stack;
  out->network.input = first->input;
  out->network.weights = out->weights;
  return true;
}

void network_view_close(network_view *n) {
  free(n->weights);
  free(n->names);
}
