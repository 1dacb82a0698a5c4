/* SPDX-License-Identifier: Apache-2.0 */
/* flow.c: what was measured of a gradient's flow, put together by layer and direction. */
#include "diagnose/flow_private.h"

#include <math.h>
#include <string.h>
#include <unroll/diagnose.h>

typedef struct result {
  unroll_flow flow; /* first: what the caller has */
  unroll_flow_layer *layers;
  char **why; /* [n_layers] */
  double *numbers;
  int64_t *lags;
} result;

void unroll_flow_free(unroll_flow *flow) {
  result *r = (result *)flow;
  if (!r)
    return;
  for (uint32_t i = 0; r->why && i < r->flow.n_layers; i++)
    mem_free(NULL, r->why[i]);
  mem_free(NULL, r->why);
  mem_free(NULL, r->layers);
  mem_free(NULL, r->numbers);
  mem_free(NULL, r->lags);
  mem_free(NULL, r);
}

/* ---- lags ---- */

static int64_t longest(const flow_task *t) {
  int64_t most = 0;
  for (int64_t b = 0; b < t->batch.batch; b++)
    most = flow_length(t, b) > most ? flow_length(t, b) : most;
  return most;
}

/* The caller's, or a geometric row from 1 to the largest there is. Returns their number; lags has room for n_lags. */
static unroll_status choose_lags(const flow_task *t, int64_t *lags, int64_t *n, unroll_error *err) {
  const int64_t most = longest(t) - 1;
  *n = 0;
  for (int32_t i = 0; i < t->o.n_lags && t->o.lags; i++) {
    if (t->o.lags[i] < 1 || t->o.lags[i] > most)
      return fail(err, UNROLL_E_RANGE, "gradient flow: a lag of %lld steps, expected 1 to %lld, the longest sequence's",
                  (long long)t->o.lags[i], (long long)most);
    lags[(*n)++] = t->o.lags[i];
  }
  for (int32_t i = 0; i < t->o.n_lags && !t->o.lags; i++) {
    const double at = t->o.n_lags > 1 ? (double)i / (t->o.n_lags - 1) : 1;
    const int64_t lag = (int64_t)lround(pow((double)most, at)), least = *n ? lags[*n - 1] + 1 : 1;
    if (least > most)
      break;
    lags[(*n)++] = lag > least ? lag : least;
  }
  return UNROLL_OK;
}

/* ---- norms and products ---- */

static void over_sequences(const flow_task *t, const double *norms, double *mean, double *most) {
  const int64_t B = t->batch.batch;
  for (int64_t s = 0; s < t->batch.steps; s++) {
    int64_t n = 0;
    double sum = 0, largest = 0;
    for (int64_t b = 0; b < B; b++) {
      if (s >= flow_length(t, b))
        continue;
      const double v = norms[s * B + b];
      n++;
      sum += v;
      largest = v > largest || isnan(v) ? v : largest;
    }
    mean[s] = n ? sum / (double)n : (double)NAN;
    most[s] = n ? largest : (double)NAN;
  }
}

static void products(const flow_task *t, int32_t i, double *product) {
  const int64_t B = t->batch.batch, T = t->batch.steps;
  for (int64_t k = 0; k < T; k++) {
    int64_t n = 0;
    double sum = 0;
    for (int64_t b = 0; b < B; b++)
      if (k < flow_length(t, b)) {
        sum += t->flows[i * T * B + flow_step(t, b, i % t->net.D, k) * B + b];
        n++;
      }
    product[k] = n && t->o.probes > 0 ? sqrt(sum / ((double)n * t->o.probes)) : (double)NAN;
  }
}

static void memory_of(const flow_task *t, unroll_flow_layer *l) {
  const int64_t T = t->batch.steps;
  int64_t last = T - 1;
  while (last > 0 && isnan(l->product[last])) /* no sequence is that long */
    last--;
  l->memory = -1;
  for (int64_t k = 1; k <= last && l->memory < 0; k++)
    if (l->product[k] < t->o.threshold)
      l->memory = k;
  l->rate = last ? pow(l->product[last], 1 / (double)last) : (double)NAN;
}

/* ---- the text's condition ---- */

/* The largest |f'|. */
static double largest_slope(const unroll_activation *f) {
  switch (f->kind) {
  case UNROLL_ACTIVATION_SIGMOID: return 0.25;
  case UNROLL_ACTIVATION_AFFINE:
  case UNROLL_ACTIVATION_HARD_SIGMOID: return fabs(f->alpha);
  case UNROLL_ACTIVATION_SCALED_TANH: return fabs(f->alpha * f->beta);
  case UNROLL_ACTIVATION_LEAKY_RELU:
  case UNROLL_ACTIVATION_ELU: return fmax(1, fabs(f->alpha));
  default: return 1;
  }
}

static unroll_activation activation_of(const flow_task *t) {
  if (t->net.rnn.f.kind)
    return t->net.rnn.f;
  return unroll_activation_of(t->net.rnn.activation == UNROLL_SIGMOID ? UNROLL_ACTIVATION_SIGMOID
                              : t->net.rnn.activation == UNROLL_RELU  ? UNROLL_ACTIVATION_RELU
                                                                      : UNROLL_ACTIVATION_TANH);
}

static bool is_vanilla(const flow_task *t) {
  const unroll_rnn_options *o = &t->net.rnn;
  return o->cell == UNROLL_CELL_RNN && !o->layer_norm && o->skip == 0 && o->zoneout_h == 0 &&
         o->residual != UNROLL_RESIDUAL_STATES;
}

static void visited_slopes(const flow_task *t, int32_t i, int32_t kind, unroll_flow_layer *l) {
  if (!t->h[i] ||
      (kind != UNROLL_ACTIVATION_TANH && kind != UNROLL_ACTIVATION_SIGMOID && kind != UNROLL_ACTIVATION_RELU))
    return;
  double sum = 0, most = 0;
  int64_t n = 0;
  for (int64_t s = 0; s < t->batch.steps; s++)
    for (int64_t b = 0; b < t->batch.batch; b++)
      for (int64_t k = 0; s < flow_length(t, b) && k < t->net.P; k++, n++) {
        const double h = t->h[i][(s * t->batch.batch + b) * t->net.P + k];
        const double slope = kind == UNROLL_ACTIVATION_TANH      ? 1 - h * h
                             : kind == UNROLL_ACTIVATION_SIGMOID ? h * (1 - h)
                                                                 : h > 0;
        sum += slope;
        most = fmax(most, slope);
      }
  l->slope_mean = sum / (double)n;
  l->slope_max = most;
}

/* rho and norm_W of W_h, or of the candidate's block. NaN: there is nothing to say, of a number that is not finite too. */
static unroll_status decompose(const flow_task *t, int32_t i, unroll_flow_layer *l, unroll_error *err) {
  const unroll_network_weight *w = net_layers_weight(&t->net, "W_h", i / t->net.D, i % t->net.D);
  const int32_t cell = t->net.rnn.cell;
  const int64_t block = cell == UNROLL_CELL_RNN ? 0 : cell == UNROLL_RNN_COUPLED_LSTM ? 1 : 2, H = t->net.H;
  l->rho = l->norm_W = (double)NAN;
  if (!w || t->net.P != H)
    return UNROLL_OK;
  const double *W = w->data + block * H * H;
  unroll_status status = unroll_spectral_radius(W, H, &l->rho, err);
  if (status == UNROLL_OK)
    status = unroll_spectral_norm(W, H, H, &l->norm_W, err);
  return status == UNROLL_E_UNSUPPORTED || status == UNROLL_E_RANGE ? UNROLL_OK : status;
}

static unroll_status spectrum(const flow_task *t, int32_t i, unroll_flow_layer *l, unroll_error *err) {
  l->rho = l->norm_W = l->condition = l->slope = l->slope_mean = l->slope_max = (double)NAN;
  if (t->o.spectrum < 0)
    return UNROLL_OK;
  if (t->o.spectra) {
    l->rho = t->o.spectra[2 * i];
    l->norm_W = t->o.spectra[2 * i + 1];
  } else
    TRY(decompose(t, i, l, err));
  if (is_vanilla(t) && isfinite(l->rho)) {
    const unroll_activation f = activation_of(t);
    l->slope = largest_slope(&f);
    l->condition = l->rho * l->slope;
    visited_slopes(t, i, f.kind, l);
  }
  return UNROLL_OK;
}

static void add_difference(const flow_task *t, const unroll_flow_layer *l, struct text *out) {
  int64_t peak = 0;
  for (int64_t k = 1; k < t->batch.steps; k++)
    if (l->product[k] > l->product[peak])
      peak = k;
  const bool grows_first = l->product[peak] > 1.05, above = l->condition >= 1, grows = l->rate >= 1;
  text_add(out, "λ_max·max|f'| = %.3g·%.3g = %.3g; measured, gradients change by a factor of %.3g a step. ", l->rho,
           l->slope, l->condition, l->rate);
  if (above && !grows) {
    text_add(out,
             "They differ: even σ1·max|f'| = %.3g is only necessary to explode, not sufficient (Pascanu et al. 2013)",
             l->norm_W * l->slope);
    if (isfinite(l->slope_mean))
      text_add(out, "; the slope at the visited states is %.3g on average, not %.3g", l->slope_mean, l->slope);
    text_add(out, ".");
  } else if (!above && grows)
    text_add(out,
             "They differ: λ_max bounds only the limit of many steps with one Jacobian; W_h is not normal (σ1 = %.3g), "
             "and products of these lags still grow.",
             l->norm_W);
  else
    text_add(out, "They agree.");
  if (!above && !grows && grows_first)
    text_add(out,
             " But the product first grows to %.3g at lag %lld: W_h is not normal (σ1 = %.3g), and λ_max bounds no "
             "product of a few steps.",
             l->product[peak], (long long)peak, l->norm_W);
  if (l->norm_W * l->slope < 1)
    text_add(out, " σ1·max|f'| = %.3g < 1 suffices to vanish.", l->norm_W * l->slope);
}

static char *explain(const flow_task *t, const unroll_flow_layer *l) {
  struct text out;
  text_init(&out, NULL);
  if (isfinite(l->condition) && isfinite(l->rate))
    add_difference(t, l, &out);
  else {
    if (!is_vanilla(t))
      text_add(&out,
               "λ_max·max|f'| is a condition of h_t = f(W_h·h_{t-1} + W_x·x_t + b) alone: this layer's state is handed "
               "on in other ways too, and only measured products say how far. ");
    if (isfinite(l->rate))
      text_add(&out, "Gradients change by a factor of %.3g a step.", l->rate);
    else
      text_add(&out, "No product was measured, or none is finite.");
  }
  return text_take(&out);
}

/* ---- all of it ---- */

/* What the stack's runs have given; singular values are not among it. */
static unroll_status fill_layer(flow_task *t, int32_t i, result *r, double *at, int64_t n_lags, unroll_error *err) {
  const int64_t T = t->batch.steps;
  unroll_flow_layer *l = &r->layers[i];
  double *const sigma = at + 5 * T;
  *l = (unroll_flow_layer){
      .layer = i / t->net.D, .direction = i % t->net.D, .n_lags = T, .n_sigma = n_lags, .sigma_lag = r->lags};
  over_sequences(t, t->norms + 2 * i * T * t->batch.batch, at, at + T);
  l->norm = at;
  l->norm_max = at + T;
  if (t->net.has_c) {
    over_sequences(t, t->norms + (2 * i + 1) * T * t->batch.batch, at + 2 * T, at + 3 * T);
    l->c_norm = at + 2 * T;
    l->c_norm_max = at + 3 * T;
  }
  products(t, i, at + 4 * T);
  l->product = at + 4 * T;
  l->sigma = sigma;
  l->sigma_max = sigma + n_lags;
  l->sigma_error = sigma + 2 * n_lags;
  for (int64_t k = 0; k < 3 * n_lags; k++)
    sigma[k] = (double)NAN;
  memory_of(t, l);
  TRY(spectrum(t, i, l, err));
  l->why = r->why[i] = explain(t, l);
  return l->why ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "no memory for the words of a layer");
}

/* filled: *r can be read, whatever comes back. */
static unroll_status put_together(flow_task *t, result *r, bool *filled, unroll_error *err) {
  const uint64_t n = (uint64_t)t->net.n, T = (uint64_t)t->batch.steps;
  const uint64_t room = t->o.n_lags > 0 ? (uint64_t)t->o.n_lags : 0, a_layer = 5 * T + 3 * room;
  int64_t n_lags = 0;
  r->flow = (unroll_flow){.struct_size = sizeof r->flow, .n_layers = (uint32_t)t->net.n, .steps = t->batch.steps};
  r->flow.layers = r->layers = mem_array(NULL, n, sizeof *r->layers);
  r->why = mem_array(NULL, n, sizeof *r->why);
  r->numbers = mem_array(NULL, n * a_layer, sizeof *r->numbers);
  r->lags = mem_array(NULL, room + 1, sizeof *r->lags);
  unroll_status status = UNROLL_OK;
  if (!r->layers || !r->why || !r->numbers || !r->lags)
    status = fail(err, UNROLL_E_MEMORY, "no memory for what is measured of %d layers", t->net.n);
  if (status == UNROLL_OK && room)
    status = choose_lags(t, r->lags, &n_lags, err);
  if (status == UNROLL_OK)
    status = flow_stack(t, err);
  for (int32_t i = 0; i < t->net.n && status == UNROLL_OK; i++)
    status = fill_layer(t, i, r, r->numbers + (uint64_t)i * a_layer, n_lags, err);
  *filled = status == UNROLL_OK;
  if (status == UNROLL_OK && n_lags)
    status = flow_sigma(t, r->lags, n_lags, r->numbers + 5 * T, (int64_t)a_layer, err);
  return status;
}

unroll_status unroll_flow_measure(const unroll_network *network, const unroll_flow_batch *batch,
                                  const unroll_flow_options *options, unroll_flow **flow, unroll_error *err) {
  flow_task t;
  bool filled = false;
  if (!flow)
    return fail(err, UNROLL_E_INVALID, "gradient flow: flow is NULL");
  *flow = NULL;
  unroll_status status = flow_task_open(&t, network, batch, options, err);
  result *r = status == UNROLL_OK ? mem_zalloc(NULL, sizeof *r) : NULL;
  if (status == UNROLL_OK)
    status = r ? put_together(&t, r, &filled, err) : fail(err, UNROLL_E_MEMORY, "no memory for what is measured");
  flow_task_close(&t);
  if (status == UNROLL_OK || (status == UNROLL_E_CANCELLED && filled))
    *flow = &r->flow;
  else
    unroll_flow_free(r ? &r->flow : NULL);
  return status;
}

/* ---- the whole matrix ---- */

static unroll_status jacobian_rows(flow_task *t, int32_t layer, int32_t direction, int64_t sequence, int64_t lag,
                                   double *jacobian, unroll_error *err) {
  const int64_t N = flow_state_size(t);
  int64_t *const rows = mem_array(NULL, 2 * (uint64_t)N, sizeof *rows);
  double *const units = mem_array(NULL, (uint64_t)(N * N), sizeof *units);
  unroll_status status = rows && units ? UNROLL_OK : fail(err, UNROLL_E_MEMORY, "no memory for a Jacobian");
  flow_rows r;
  for (int64_t i = 0; i < N && status == UNROLL_OK; i++) {
    rows[i] = sequence;
    rows[N + i] = lag;
    units[i * N + i] = 1;
  }
  if (status == UNROLL_OK)
    status = flow_stack(t, err);
  if (status == UNROLL_OK)
    status = flow_rows_open(&r, t, layer, direction, N, rows, rows + N, false, err);
  if (status == UNROLL_OK) {
    status = flow_rows_product(&r, units, NULL, jacobian, err);
    flow_rows_close(&r);
  }
  mem_free(NULL, rows);
  mem_free(NULL, units);
  return status;
}

unroll_status unroll_flow_jacobian(const unroll_network *network, const unroll_flow_batch *batch,
                                   const unroll_flow_options *options, int32_t layer, int32_t direction,
                                   int64_t sequence, int64_t lag, double *jacobian, uint64_t count, unroll_error *err) {
  flow_task t;
  unroll_status status = flow_task_open(&t, network, batch, options, err);
  if (status == UNROLL_OK) {
    const int64_t N = flow_state_size(&t);
    t.o.probes = -1;
    t.o.n_lags = 1;
    if (!jacobian)
      status = fail(err, UNROLL_E_INVALID, "gradient flow: jacobian is NULL");
    else if (layer < 0 || layer >= t.net.n / t.net.D || direction < 0 || direction >= t.net.D || sequence < 0 ||
             sequence >= t.batch.batch)
      status = fail(err, UNROLL_E_RANGE,
                    "gradient flow: layer %d, direction %d, sequence %lld, expected less than %d, %d and %lld", layer,
                    direction, (long long)sequence, t.net.n / t.net.D, t.net.D, (long long)t.batch.batch);
    else if (lag < 1 || lag >= flow_length(&t, sequence))
      status = fail(err, UNROLL_E_RANGE, "gradient flow: a lag of %lld steps, expected 1 to %lld, the sequence's",
                    (long long)lag, (long long)flow_length(&t, sequence) - 1);
    else if (N > 16384 || count != (uint64_t)(N * N))
      status = fail(err, UNROLL_E_RANGE, "gradient flow: room for %llu numbers, expected %lld squared",
                    (unsigned long long)count, (long long)N);
    else
      status = jacobian_rows(&t, layer, direction, sequence, lag, jacobian, err);
  }
  flow_task_close(&t);
  return status;
}
