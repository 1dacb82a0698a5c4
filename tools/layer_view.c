/* SPDX-License-Identifier: Apache-2.0 */
#include "layer_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "options.h"
#include "train_options.h"

#define MARK "W_h."

/* ---- what a layer is ---- */

int64_t layer_gates(const layer_view *l) {
  return l->weights.cell == UNROLL_CELL_RNN ? 1 : l->weights.cell == UNROLL_CELL_LSTM ? 4 : 3;
}

int64_t layer_state_size(const layer_view *l) {
  return l->weights.cell == UNROLL_CELL_LSTM ? 2 * l->weights.hidden : l->weights.hidden;
}

const char *layer_gate_name(const layer_view *l, int64_t gate) {
  static const char *const lstm[] = {"input", "forget", "candidate", "output"};
  static const char *const gru[] = {"reset", "update", "candidate"};
  return l->weights.cell == UNROLL_CELL_RNN ? "state" : l->weights.cell == UNROLL_CELL_LSTM ? lstm[gate] : gru[gate];
}

bool layer_gate_is_sigmoid(const layer_view *l, int64_t gate) {
  if (l->weights.cell == UNROLL_CELL_RNN)
    return l->weights.activation == UNROLL_SIGMOID && !l->extras.linear;
  return gate != 2;
}

/* ---- maps ---- */

static unroll_status step(void *ctx, int64_t t, const double *state, double *next, double *jacobian,
                          unroll_error *err) {
  const layer_map *m = ctx;
  if (!m->stop || !m->stop())
    return unroll_map_step(m->own, t, state, next, jacobian, err);
  err->code = UNROLL_E_CANCELLED;
  snprintf(err->message, sizeof err->message, "interrupted");
  return UNROLL_E_CANCELLED;
}

unroll_status layer_map_open(layer_map *m, const layer_view *layer, const double *x, int64_t steps, bool (*stop)(void),
                             unroll_error *err) {
  const unroll_cell_extras *e = &layer->extras;
  unroll_cell_weights w = layer->weights;
  w.x = x;
  w.steps = x ? steps : 1;
  *m = (layer_map){.stop = stop};
  const bool plain = !e->linear && !e->ln_x && !e->p_i && e->zoneout_h == 0 && e->zoneout_c == 0;
  const unroll_status status =
      plain ? unroll_map_of_cell(&w, NULL, &m->own, err) : unroll_map_of_layer(&w, e, NULL, &m->own, err);
  return status == UNROLL_OK ? unroll_map_create(layer_state_size(layer), step, m, NULL, &m->map, err) : status;
}

void layer_map_close(layer_map *m) {
  unroll_map_destroy(m->map);
  unroll_map_destroy(m->own);
}

/* ---- reading ---- */

/* "PREFIX.W_h.l.d" -> its parts; false: another name, an optimizer's state of one among them. */
static bool is_recurrent(const char *name, char *stack, size_t size, int32_t *layer, int32_t *direction) {
  const char *mark = strstr(name, MARK);
  int used = 0;
  if (!mark || (mark > name && mark[-1] != '.') ||
      sscanf(mark, MARK "%" SCNd32 ".%" SCNd32 "%n", layer, direction, &used) != 2 || mark[used])
    return false;
  const int n = mark > name ? (int)(mark - name - 1) : 0;
  return *layer >= 0 && (*direction == 0 || *direction == 1) && (size_t)snprintf(stack, size, "%.*s", n, name) < size;
}

/* A tensor as double, to be freed. NULL: there is none of that name; or *bad: said on stderr. */
static double *read_tensor(const model_view *v, const layer_view *l, const char *what, int64_t rows, int64_t *columns,
                           bool *bad) {
  char name[160];
  unroll_stored_tensor t;
  unroll_error err = UNROLL_ERROR_INIT;
  snprintf(name, sizeof name, "%s%s%s.%d.%d", l->stack, *l->stack ? "." : "", what, l->layer, l->direction);
  const unroll_status status = unroll_safetensors_find(v->file, name, &t, &err);
  if (status == UNROLL_E_NOT_FOUND)
    return NULL;
  *bad = true;
  if (status != UNROLL_OK) {
    complain("%s: %s", v->path, err.message);
    return NULL;
  }
  const bool real = t.dtype == UNROLL_F32 || t.dtype == UNROLL_F64;
  if (!real || t.rank != (columns ? 2 : 1) || t.shape[0] != rows ||
      (columns && *columns > 0 && t.shape[1] != *columns) || (columns && t.shape[1] < 1)) {
    complain("%s: %s is %s of %d axes, the first of %" PRId64 ": expected f32 or f64, %d axes, %" PRId64 " rows",
             v->path, name, unroll_dtype_name(t.dtype), t.rank, t.rank > 0 ? t.shape[0] : 0, columns ? 2 : 1, rows);
    return NULL;
  }
  const int64_t n = rows * (columns ? t.shape[1] : 1);
  double *const values = malloc((size_t)n * sizeof *values);
  if (!values) {
    complain("out of memory");
    return NULL;
  }
  for (int64_t i = 0; i < n; i++)
    if (t.dtype == UNROLL_F64)
      memcpy(&values[i], (const char *)t.data + 8 * i, 8);
    else {
      float x;
      memcpy(&x, (const char *)t.data + 4 * i, 4);
      values[i] = (double)x;
    }
  if (columns)
    *columns = t.shape[1];
  *bad = false;
  return values;
}

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text ? text : "";
}

/* The metadata's cell, or what W_h's rows say where there is none. 0: not known. */
static int32_t cell_of(const model_view *v, int64_t rows, int64_t hidden, bool has_b_n) {
  const char *said = text_of(v->model, "cell");
  for (int32_t cell = UNROLL_CELL_RNN; cell < UNROLL_CELL_COUNT; cell++)
    if (strcmp(train_cell_name(cell), said) == 0)
      return cell;
  return *said                ? 0
         : rows == hidden     ? UNROLL_CELL_RNN
         : rows == 4 * hidden ? UNROLL_CELL_LSTM
         : rows == 3 * hidden ? (has_b_n ? UNROLL_CELL_GRU_AFTER : UNROLL_CELL_GRU)
                              : 0;
}

static bool has_tensor(const model_view *v, const layer_view *l, const char *what) {
  char name[160];
  unroll_stored_tensor t;
  snprintf(name, sizeof name, "%s%s%s.%d.%d", l->stack, *l->stack ? "." : "", what, l->layer, l->direction);
  return unroll_safetensors_find(v->file, name, &t, NULL) == UNROLL_OK;
}

/* A file of another program may have none. */
static bool fill_biases(unroll_cell_weights *w, int64_t GH) {
  if (!w->b)
    w->b = calloc((size_t)GH, sizeof *w->b);
  if (!w->b_n && w->cell == UNROLL_CELL_GRU_AFTER)
    w->b_n = calloc((size_t)w->hidden, sizeof *w->b_n);
  if (w->b && (w->b_n || w->cell != UNROLL_CELL_GRU_AFTER))
    return true;
  complain("out of memory");
  return false;
}

static bool read_layer(const model_view *v, layer_view *l, const unroll_stored_tensor *W_h) {
  bool bad = false;
  const int64_t H = W_h->shape[1];
  int64_t input = 0, width = H;
  unroll_cell_weights *w = &l->weights;
  unroll_cell_extras *e = &l->extras;
  w->struct_size = sizeof *w;
  e->struct_size = sizeof *e;
  w->hidden = H;
  w->b_n = read_tensor(v, l, "b_n", H, NULL, &bad);
  w->cell = cell_of(v, W_h->shape[0], H, w->b_n != NULL);
  const int64_t GH = layer_gates(l) * H;
  if (w->cell == 0 && *text_of(v->model, "cell")) {
    complain("%s: the cell '%s' is not known: rnn, lstm, gru or gru_after was expected", v->path,
             text_of(v->model, "cell"));
    return false;
  }
  if (has_tensor(v, l, "W_r")) {
    complain("%s: layer %d has a projection, W_r, which a diagnosis does not know", v->path, l->layer);
    return false;
  }
  if (w->cell == 0 || W_h->shape[0] != GH) {
    complain("%s: %s is [%" PRId64 ",%" PRId64
             "], which is no cell's: expected 1, 3 or 4 times as many rows as columns",
             v->path, W_h->name, W_h->shape[0], H);
    return false;
  }
  w->W_h = read_tensor(v, l, "W_h", GH, &width, &bad);
  const double *const of_symbol = bad ? NULL : read_tensor(v, l, "W_xh", GH, &input, &bad);
  w->W_x = bad || of_symbol ? of_symbol : read_tensor(v, l, "W_x", GH, &input, &bad);
  w->input = w->W_x ? input : 0;
  const struct {
    const double **to;
    const char *what;
    int64_t rows;
  } vectors[] = {{&w->b, "b", GH},       {&e->p_i, "p_i", H},    {&e->p_f, "p_f", H},   {&e->p_o, "p_o", H},
                 {&e->ln_x, "ln_x", GH}, {&e->ln_h, "ln_h", GH}, {&e->ln_c, "ln_c", H}, {&e->ln_s, "ln_s", H}};
  for (size_t i = 0; !bad && i < COUNT(vectors); i++)
    *vectors[i].to = read_tensor(v, l, vectors[i].what, vectors[i].rows, NULL, &bad);
  if (!bad && !fill_biases(w, GH))
    return false;
  const char *activation = text_of(v->model, "activation");
  w->activation = strcmp(activation, "relu") == 0      ? UNROLL_RELU
                  : strcmp(activation, "sigmoid") == 0 ? UNROLL_SIGMOID
                                                       : UNROLL_TANH;
  e->linear = strcmp(activation, "identity") == 0;
  if (*activation && w->activation == UNROLL_TANH && !e->linear && strcmp(activation, "tanh") != 0) {
    complain("%s: the activation '%s' of its cells is not known: tanh, relu, sigmoid or identity was expected", v->path,
             activation);
    return false;
  }
  if (strcmp(l->stack, "decoder") != 0 || strcmp(text_of(v->model, "decoder"), "as_encoder") == 0) {
    e->zoneout_h = json_number_value(json_object_get(v->training, "zoneout_h"));
    e->zoneout_c = json_number_value(json_object_get(v->training, "zoneout_c"));
  }
  return !bad;
}

static int by_place(const void *a, const void *b) {
  const layer_view *x = a, *y = b;
  const int decoder = (strcmp(x->stack, "decoder") == 0) - (strcmp(y->stack, "decoder") == 0);
  const int stack = decoder ? decoder : strcmp(x->stack, y->stack);
  return stack                  ? stack
         : x->layer != y->layer ? (x->layer > y->layer) - (x->layer < y->layer)
                                : x->direction - y->direction;
}

static void name_layers(model_view *v) {
  const bool several = v->n > 0 && strcmp(v->layers[0].stack, v->layers[v->n - 1].stack) != 0;
  for (size_t i = 0; i < v->n; i++) {
    layer_view *l = &v->layers[i];
    snprintf(l->name, sizeof l->name, "%s%s%d %s", several ? l->stack : "", several ? " " : "", l->layer,
             l->direction ? "reverse" : "forward");
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
    if (!is_recurrent(t.name, l->stack, sizeof l->stack, &l->layer, &l->direction))
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
    complain("%s has no recurrent layer: no tensor is named like rnn.W_h.0.0", v->path);
    return false;
  }
  qsort(v->layers, v->n, sizeof *v->layers, by_place);
  name_layers(v);
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

/* Each array is the view's own. */
static void release(const double *values) { free((void *)(uintptr_t)values); }

void model_view_close(model_view *v) {
  for (size_t i = 0; i < v->n; i++) {
    const unroll_cell_weights *w = &v->layers[i].weights;
    const unroll_cell_extras *e = &v->layers[i].extras;
    const double *const all[] = {w->W_x, w->W_h,  w->b,    w->b_n,  e->p_i, e->p_f,
                                 e->p_o, e->ln_x, e->ln_h, e->ln_c, e->ln_s};
    for (size_t k = 0; k < COUNT(all); k++)
      release(all[k]);
  }
  free(v->layers);
  json_decref(v->model);
  json_decref(v->training);
  unroll_safetensors_close(v->file);
}
