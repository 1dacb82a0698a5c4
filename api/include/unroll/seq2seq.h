/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/seq2seq.h: sequences to one vector, one vector to sequences, sequences to other sequences: attention,
 * decoders, beam search, scheduled sampling, REINFORCE, on top of nn.h. CTC stands in ctc.h.
 *
 *     unroll_tensor h[1], c[1];                                           the encoder: any unroll_rnn
 *     unroll_rnn_state last = {h, c};
 *     unroll_tensor source = unroll_rnn(e, "encoder", &rnn, NULL, &last);  [S,B,H]
 *     const unroll_decoder_options opt = {.struct_size = sizeof opt, .cell = UNROLL_CELL_LSTM, .layers = 1,
 *                                         .hidden = H,
 *                                         .vocabulary = V, .embedding = E, .attention = UNROLL_ATTENTION_ADDITIVE,
 *                                         .source = source, .source_lengths = source_lengths, .initial = last};
 *     const unroll_decoder_feed teacher = {.struct_size = sizeof teacher, .inputs = inputs, .lengths = target_lengths};
 *     unroll_decoder_outputs out = unroll_decode("decoder", &opt, &teacher);
 *     unroll_tensor loss = unroll_cross_entropy(out.logits, targets, UNROLL_LOSS_MEAN);
 *
 * The same prefix and options with another feed, or unroll_decode_beam, give a decoder with the same weights. As in
 * nn.h, parameters are made by name or found, the building calls add nodes, and the graph keeps the first error. [obj]
 *
 * Letters: S source steps, T target steps, B batch, E size of a source's vector, H hidden, V vocabulary, G gates of
 * the cell. S and B are static; T may be a run-time size (unroll_graph_dim).
 */
#ifndef UNROLL_SEQ2SEQ_H
#define UNROLL_SEQ2SEQ_H
#include <unroll/nn.h>
#include <unroll/runtime.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- attention ---- */
/*
 * Alignments a(q, s) of a query q [D] and a source's vector s [E]:
 *   ADDITIVE        v_aᵀ tanh(W_a q + U_a s)      Bahdanau, Cho, Bengio 2015; W_a [A,D], U_a [A,E], v_a [1,A]
 *   MULTIPLICATIVE  qᵀ W_a s                      Luong, Pham, Manning 2015, "general"; W_a [D,E]
 *   DOT             qᵀ s                          the same paper, "dot"; D = E
 *   SCALED_DOT      qᵀ s / sqrt(D)                Vaswani et al. 2017, eq. 1; D = E
 */
enum {
  UNROLL_ATTENTION_NONE = 0,
  UNROLL_ATTENTION_ADDITIVE = 1,
  UNROLL_ATTENTION_MULTIPLICATIVE = 2,
  UNROLL_ATTENTION_DOT = 3,
  UNROLL_ATTENTION_SCALED_DOT = 4,
  UNROLL_ATTENTION_COUNT = 5
};

/* A source made ready for many queries: what does not depend on the query is computed once, outside of any scan. */
typedef struct unroll_attention {
  uint32_t struct_size;
  int32_t kind;
  int64_t query_size;   /* D */
  unroll_tensor keys;   /* [B,S,A], U_a s; or [B,S,D], W_a s; or the values */
  unroll_tensor values; /* [B,S,E] */
  unroll_tensor valid;  /* bool [B,1,S], t < length; or none */
  unroll_tensor W_a;    /* ADDITIVE: [A,D] */
  unroll_tensor v_a;    /* ADDITIVE: [1,A] */
} unroll_attention;

/*
 *   source       [S,B,E], real
 *   lengths      i32 [B], 0 to S, or none: all S. What the source holds past its end is never looked at.
 *   query_size   D; DOT and SCALED_DOT: E
 *   units        A, of ADDITIVE; 0: D
 * Parameters: PREFIX.W_a, PREFIX.U_a, PREFIX.v_a, as the alignment has them. On an error all tensors are none.
 */
UNROLL_API unroll_attention unroll_attention_prepare(unroll_tensor source, unroll_tensor lengths, const char *prefix,
                                                     int32_t kind, int64_t query_size, int64_t units);
/*
 * The context c = Σ_s α_s·source_s, α = softmax of the alignments over the source's own steps. May stand in the body
 * of a scan.
 *   query    [R,D]; R a multiple of B: row r asks source r / (R/B), as the beams of a search do
 *   weights  where not NULL, gets α [R,S]: exactly 0 past the source's end
 *   returns  [R,E]; of a source of length 0: zeros, and so are its weights
 */
UNROLL_API unroll_tensor unroll_attend(const unroll_attention *attention, unroll_tensor query, unroll_tensor *weights);

/* ---- one step of a cell ---- */
typedef struct unroll_cell_state {
  unroll_tensor h, c; /* [B,H]; c lstm only */
} unroll_cell_state;
/*
 * One step of a standard cell (plugin.h, LAYER), for the body of a scan of one's own: h_t = f(W_h·h + W_x·x + b) and
 * likewise. x [B,I] -> the state after it. Parameters PREFIX.W_x.0.0, .W_h.0.0, .b.0.0, .b_n.0.0, those of an
 * unroll_rnn of one layer. activation: of UNROLL_CELL_RNN, as in unroll_rnn_options.
 */
UNROLL_API unroll_cell_state unroll_cell_step(unroll_tensor x, const char *prefix, int32_t cell, int32_t activation,
                                              int64_t hidden, unroll_cell_state state);

/* ---- many to one, one to many ---- */
/*
 * y = W_hy·h_T + b_y, h_T the last layer's state after each sequence's own last step, [h forward; h reverse] where
 * bidirectional. x [T,B,I] -> [B,outputs]. The layers are unroll_rnn's under PREFIX; PREFIX.out.W [outputs,D·H],
 * PREFIX.out.b.
 */
UNROLL_API unroll_tensor unroll_many_to_one(unroll_tensor x, const char *prefix, const unroll_rnn_options *options,
                                            int64_t outputs);

#define UNROLL_OUTPUT_SOFTMAX (-1)
typedef struct unroll_one_to_many_options {
  uint32_t struct_size;
  int32_t cell, activation;       /* as in unroll_rnn_options */
  int32_t output;                 /* g: UNROLL_COPY (0, none), UNROLL_TANH, _SIGMOID, _RELU, or UNROLL_OUTPUT_SOFTMAX */
  int64_t hidden, outputs, steps; /* H, Y, T; at least 1 */
  unroll_tensor lengths;          /* i32 [B], 0 to T, or none: all T */
} unroll_one_to_many_options;
/*
 * A sequence from one vector, each output fed back as the next input through a matrix of its own:
 *   h_0 = cell(W_xh·x + b, from zeros);   y_t = g(W_hy·h_{t-1} + b_y);   h_t = cell(W_yh·y_t + b, from h_{t-1})
 * x [B,I] -> y [T,B,Y], 0 past a sequence's length. With UNROLL_CELL_RNN these are f(W_xh·x + b_h) and
 * f(W_hh·h_{t-1} + W_yh·y_t + b_h); for the other cells the products are those that go into all gates.
 * Parameters: PREFIX.W_xh.0.0 [GH,I], PREFIX.W_x.0.0 [GH,Y] (W_yh), PREFIX.W_h.0.0, .b.0.0, .b_n.0.0, PREFIX.out.W
 * [Y,H], PREFIX.out.b. last, where not NULL, gets the state after each sequence's last step.
 */
UNROLL_API unroll_tensor unroll_one_to_many(unroll_tensor x, const char *prefix,
                                            const unroll_one_to_many_options *options, unroll_cell_state *last);

/* ---- encoder and decoder ---- */
#define UNROLL_DECODER_LAYERS 16 /* at most */

/*
 * The decoder's first states from the encoder's last ones, where their sizes or directions differ:
 * h_0 = tanh(W·[h forward; h reverse] + b), c_0 = W·[..] + b. Where the width is that of the decoder already they are
 * passed on as they are: c = h_{T_enc}, h_0^dec = c.
 *   last        the encoder's states: layers·directions, as unroll_rnn gives them; h or c may be NULL: where h and c of a
 *               projection are not to be as wide as each other, each has a bridge of its own
 *   initial     its arrays, of `layers` tensors, are filled; c is left alone where last has none or it is NULL
 * Parameters: PREFIX.h.l.W [hidden,width], PREFIX.h.l.b, and PREFIX.c.*
 */
UNROLL_API void unroll_bridge(const unroll_rnn_state *last, int32_t layers, int32_t directions, const char *prefix,
                              int64_t hidden, unroll_rnn_state *initial);

/* How the context c_t takes part; e_t are the alignments of one step. */
enum {
  /* Bahdanau: e_t from the top layer's h_{t-1};
   * h_t = cell(W_x·x_t + W_c·c_t + W_h·h_{t-1} + b), logits = W_hy·h_t + b_y */
  UNROLL_CONTEXT_BEFORE = 0,
  /* Luong, eq. 5: e_t from h_t; h̃_t = tanh(W·[c_t; h_t]), logits = W_hy·h̃_t + b_y */
  UNROLL_CONTEXT_AFTER = 1,
  /* Luong, section 3.3: the same, and h̃_{t-1} goes into step t: W_x·x_t + W_f·h̃_{t-1}; h̃_0 = 0 */
  UNROLL_CONTEXT_FEEDING = 2
};

typedef struct unroll_decoder_options {
  uint32_t struct_size;
  int32_t cell, activation;              /* as in unroll_rnn_options */
  int32_t layers;                        /* 1 to UNROLL_DECODER_LAYERS */
  int64_t hidden, vocabulary, embedding; /* H, V, size of x_t; at least 1 */
  int32_t attention;                     /* UNROLL_ATTENTION_*; NONE: the source is not used */
  int32_t context;                       /* UNROLL_CONTEXT_* */
  int64_t attention_units;               /* ADDITIVE: A; 0: P */
  double dropout; /* 0 <= p < 1: of the embedded symbols, of what goes from layer to layer and into the last product */
  unroll_tensor source, source_lengths; /* as in unroll_attention_prepare */
  unroll_rnn_state initial;             /* of `layers` tensors, h [B,P], c [B,H]; h NULL or none: zeros; likewise c */
  /* Element type, batch and graph are those of initial.h[0], else of the source: without either there is no graph that
   * could keep an error, and all results are none. */
  /*
   * Not NULL: the cells in full (nn.h), in place of cell, activation, layers, hidden and dropout above, which are then 0.
   * What the lowest layer reads is x_t and what joins it as one vector: layer norm is over W_x·x_t + W_c·c_t or
   * W_x·x_t + W_f·h̃_{t-1}. P = H without a projection.
   *   input_dropout, dropout, output_dropout   of the embedded symbols, of what goes from layer to layer and into the last
   *                  product. Masks are the same whichever way the decoder is fed, and those that hold for all steps hold
   *                  for the whole target
   *   residual       from layer 1 on; with UNROLL_RESIDUAL_OUTPUTS AFTER and FEEDING ask with y_t of the top layer, and
   *                  BEFORE with its state h_{t-1}
   *   inference      not 0: no dropout of any kind and zoneout's expectation: to be set wherever a graph is not trained.
   *                  A search has it anyway
   *   checkpoint     of UNROLL_FEED_TEACHER alone, as unroll_scan_checkpoint has it; a search makes no gradient
   *   cells, gates, taps   of layer l at [l]; not of a search
   * Refused, by name: bidirectional, and lengths, which the feed has. Random numbers: input_dropout; for each layer
   * dropout before it from layer 1 on, then weight_dropout, state_dropout, zoneout_h, zoneout_c; output_dropout; then
   * epsilon's and those of what is picked.
   */
  const unroll_rnn_options *rnn;
} unroll_decoder_options;

enum { UNROLL_FEED_TEACHER = 0, UNROLL_FEED_SCHEDULED = 1, UNROLL_FEED_FREE = 2 };
enum { UNROLL_PICK_GREEDY = 0, UNROLL_PICK_SAMPLE = 1 };
typedef struct unroll_decoder_feed {
  uint32_t struct_size;
  int32_t kind;
  /* TEACHER: x_t is inputs[t]. SCHEDULED: with probability epsilon, for each row and step alone, else the symbol
   * picked from the logits of the step before (Bengio et al. 2015). The first step always takes inputs[0]. */
  unroll_tensor inputs;  /* i32 [T,B], the target one step later: begin, y_1, .., y_{T-1} */
  unroll_tensor lengths; /* i32 [B], 0 to T, or none */
  unroll_tensor epsilon; /* SCHEDULED: [] */
  /* FREE: x_1 is begin, x_t the symbol picked before. A sequence that has picked `end` emits `pad` from then on. */
  int64_t steps;           /* T, at least 1 */
  int32_t begin, end, pad; /* begin in 0..V-1; end likewise, or -1: none; pad at least -1 */
  /* SCHEDULED, FREE */
  int32_t pick;       /* UNROLL_PICK_* */
  double temperature; /* SAMPLE: of softmax(logits/temperature); above 0; 0 stands for 1 */
  int64_t top_k;      /* SAMPLE: of the top_k most probable alone; 0: of all */
  double top_p; /* SAMPLE: of the smallest set whose probabilities reach top_p (Holtzman et al. 2020); 0 stands for 1 */
} unroll_decoder_feed;

typedef struct unroll_decoder_outputs {
  unroll_tensor logits;  /* [T,B,V]; 0 past a sequence's length. FREE: of every step, also after the end */
  unroll_tensor weights; /* [T,B,S], the attention's; 0 past the target's length and past the source's; or none */
  unroll_tensor hidden;  /* [T,B,P], what the last product works on: h_t, or h̃_t */
  unroll_tensor ids;     /* SCHEDULED, FREE: i32 [T,B], what was picked; else none */
  unroll_tensor lengths; /* FREE: i32 [B], symbols up to and with `end`; else as they were given */
  unroll_tensor h_last[UNROLL_DECODER_LAYERS], c_last[UNROLL_DECODER_LAYERS]; /* as initial; FREE: after all T steps */
} unroll_decoder_outputs;

/*
 * Parameters: PREFIX.embed.weight [V,embedding]; of layer l PREFIX.W_x.l.0, .W_h.l.0, .b.l.0 and what its options have
 * beside them, as unroll_rnn has them; PREFIX.W_c.0.0 [GH,E] (BEFORE); PREFIX.combine.W [P,E+P] (AFTER, FEEDING),
 * PREFIX.W_f.0.0 [GH,P] (FEEDING); PREFIX.attention.*; PREFIX.out.W [V,P], PREFIX.out.b [V].
 * Gradients flow through logits, weights and hidden, not through what was picked.
 */
UNROLL_API unroll_decoder_outputs unroll_decode(const char *prefix, const unroll_decoder_options *options,
                                                const unroll_decoder_feed *feed);

/* ---- beam search ---- */
typedef struct unroll_beam_options {
  uint32_t struct_size;
  int32_t beam;       /* K, 1 to V */
  int64_t steps;      /* T, the most symbols, with `end`; at least 1 */
  int32_t begin, end; /* 0..V-1 */
  int32_t pad;        /* at least -1 */
  int32_t reserved;
  double alpha; /* of the length penalty; at least 0; 0: none */
} unroll_beam_options;
typedef struct unroll_beam_outputs {
  unroll_tensor ids;       /* i32 [T,B,K], the best sequence first; `pad` after the end */
  unroll_tensor lengths;   /* i32 [B,K], with `end` */
  unroll_tensor log_probs; /* [B,K], log P(y|x), of the symbols up to and with `end` */
  unroll_tensor scores; /* [B,K], falling: log_probs / lp(length), lp(n) = ((5+n)/6)^alpha (Wu et al. 2016, eq. 14) */
} unroll_beam_outputs;
/*
 * The K best sequences as a search of that width finds them, on the device: every step ranks all K·V continuations of
 * the rows B·K by score, a sequence that has ended being one that stays. Back-pointers are followed on the device
 * too. All T steps are run. No gradient flows; there is no dropout, and of zoneout the expectation. K·V is at most 2^24.
 */
UNROLL_API unroll_beam_outputs unroll_decode_beam(const char *prefix, const unroll_decoder_options *options,
                                                  const unroll_beam_options *beam);

/* ---- scheduled sampling: the probability of the true symbol at update t = 0, 1, .. (Bengio et al. 2015) ---- */
enum {
  UNROLL_SAMPLING_EXPONENTIAL = 0,    /* ε_0·rate^t; 0 < rate <= 1 */
  UNROLL_SAMPLING_LINEAR = 1,         /* max(least, ε_0 - rate·t); rate >= 0 */
  UNROLL_SAMPLING_INVERSE_SIGMOID = 2 /* ε_0·k/(k + exp(t/k)), k = rate >= 1; the paper's with ε_0 = 1 */
};
typedef struct unroll_sampling_schedule {
  uint32_t struct_size;
  int32_t kind;
  double start;       /* ε_0 in [0,1] */
  double rate, least; /* least in [0,1]: no schedule goes below */
} unroll_sampling_schedule;
/* As a node: update i32 [] -> [] of dtype f32 or f64. */
UNROLL_API unroll_tensor unroll_sampling_rate(unroll_tensor update, const unroll_sampling_schedule *schedule,
                                              int32_t dtype);
/* The same on the host. UNROLL_E_INVALID, UNROLL_E_RANGE: a number out of bounds, named. [any] */
UNROLL_API unroll_status unroll_sampling_rate_at(int64_t update, const unroll_sampling_schedule *schedule, double *rate,
                                                 unroll_error *err);

/* ---- REINFORCE ---- */
/* log π(y) = Σ_t log softmax(logits_t)[ids_t]. logits [T,B,V], ids i32 [T,B]; a negative id counts nothing. -> [B] */
UNROLL_API unroll_tensor unroll_sequence_log_prob(unroll_tensor logits, unroll_tensor ids);
/*
 * MEAN: -1/B·Σ_b (reward_b - baseline_b)·log_prob_b; SUM: without 1/B. For ids that were sampled from the same weights,
 * and any baseline that does not depend on them, the gradient of MEAN is an unbiased estimate of that of -E[R] (Williams
 * 1992). log_prob, reward, baseline [B]; baseline none: 0. reward and baseline are to be inputs.
 */
UNROLL_API unroll_tensor unroll_reinforce_loss(unroll_tensor log_prob, unroll_tensor reward, unroll_tensor baseline,
                                               int32_t reduction);

typedef struct unroll_reinforce {
  uint32_t struct_size;
  uint32_t reserved;
  /* The graph that samples (UNROLL_FEED_FREE, UNROLL_PICK_SAMPLE, temperature 1, pad -1): outputs ids [T,B], lengths
   * [B]. */
  unroll_binding *sampler;
  const char *ids, *lengths;
  /* The graph that learns, sharing the parameters (unroll_binding_share), fed with the sampled ids
   * (UNROLL_FEED_TEACHER): inputs i32 [T,B], targets i32 [T,B] and f32 rewards and baselines [B]. */
  unroll_binding *learner;
  const char *inputs, *targets, *reward, *baseline;
  int64_t steps, batch; /* T, B */
  int32_t begin;        /* what inputs begin with */
  int32_t reserved2;
  /* R of one sequence of the batch: its ids, `end` included if it has one. */
  double (*reward_of)(void *ctx, int64_t row, const int32_t *ids, int64_t length);
  void *ctx;
  /* The baseline: the mean reward of the updates so far, b <- decay·b + (1-decay)·mean R after each, from the first
   * mean on. value and seen are the caller's to keep with a checkpoint; zeros at the start. */
  double decay, value;
  int64_t seen;
} unroll_reinforce;
/*
 * One update in two runs: sample, reward on the host, then learn: inputs, targets, reward and baseline are written
 * and the learner run. In the first update, which has no mean yet, the baseline is that update's own mean.
 * mean_reward, where not NULL, gets the mean of R. Statuses as unroll_run and unroll_binding_read have them;
 * UNROLL_E_INVALID, UNROLL_E_RANGE: a field that is missing or out of bounds, or a reward that is not finite. options
 * go to both runs. [obj]
 */
UNROLL_API unroll_status unroll_reinforce_update(unroll_reinforce *reinforce, const unroll_run_options *options,
                                                 double *mean_reward, unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
