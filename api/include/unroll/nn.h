/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unroll/nn.h: layers, losses, clipping and the first values of parameters, on top of graph.h.
 *
 *     const unroll_rnn_options opt = {.struct_size = sizeof opt, .cell = UNROLL_CELL_LSTM, .layers = 2, .hidden = 128};
 *     unroll_tensor e = unroll_embedding_layer(ids, "embed", V, 64);             ids i32 [T,B] -> [T,B,64]
 *     unroll_tensor y = unroll_rnn(e, "rnn", &opt, NULL, NULL);                  -> [T,B,128]
 *     unroll_tensor loss = unroll_cross_entropy(unroll_linear(y, "head", V, 1), targets, UNROLL_LOSS_MEAN);
 *     ... unroll_gradient, unroll_optimize, unroll_compile, unroll_binding_create ...
 *     for every parameter: unroll_init_default(&info, opt.cell, seed, data, &err), unroll_binding_write
 *
 * A layer makes its parameters, of x's dtype, named after its prefix: "rnn.W_h.0.1", "head.W". With a prefix of "" or
 * NULL the names begin at "W_h". Where the graph has a parameter of that name already, that one is used: two layers of
 * one prefix share their weights. Linear and embedding layers may stand in the body of a scan too.
 *
 * The building calls add nodes to the graph of their first operand, and on misuse that graph keeps the first error, as
 * in graph.h. [obj] The functions unroll_init_* fill memory of the caller's and know no graph. [any]
 */
#ifndef UNROLL_NN_H
#define UNROLL_NN_H
#include <unroll/checkpoint.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- recurrent layers ---- */

/* Values of unroll_rnn_options.cell beside UNROLL_CELL_*, and of unroll_init_default's cell. */
enum {
  /* LSTM with f = 1 - i (Greff et al. 2017, CIFG; ONNX's input_forget), G = 3 gates: i g o */
  UNROLL_RNN_COUPLED_LSTM = 64,
  /* Feng et al. 2024, minGRU: no W_h. G = 2: z n; h = (1-z)⊙h₋ + z⊙n, z = σ(W_z x + b_z), n = W_n x + b_n */
  UNROLL_RNN_MIN_GRU = 65,
  /* Feng et al. 2024, minLSTM: no W_h. G = 3: f i n; h = f'⊙h₋ + i'⊙n with f' = f/(f+i), i' = i/(f+i), f and i = σ(..) */
  UNROLL_RNN_MIN_LSTM = 66,
  UNROLL_RNN_END = 67 /* above all cells, with gaps below; it may grow */
};
/* "lstm", "coupled_lstm"; NULL for a number that is no cell. Static. [any] */
UNROLL_API const char *unroll_rnn_cell_name(int32_t cell);

/*
 * Activations of cells. All but the last two are ONNX's, with its formulas (operators RNN, LSTM, GRU); alpha and beta
 * are looked at only where a formula has them.
 */
enum {
  UNROLL_ACTIVATION_DEFAULT = 0, /* the cell's own */
  UNROLL_ACTIVATION_TANH = 1,
  UNROLL_ACTIVATION_SIGMOID = 2,
  UNROLL_ACTIVATION_RELU = 3,
  UNROLL_ACTIVATION_AFFINE = 4,           /* alpha·x + beta */
  UNROLL_ACTIVATION_LEAKY_RELU = 5,       /* x < 0 ? alpha·x : x */
  UNROLL_ACTIVATION_THRESHOLDED_RELU = 6, /* x > alpha ? x : 0 */
  UNROLL_ACTIVATION_SCALED_TANH = 7,      /* alpha·tanh(beta·x) */
  UNROLL_ACTIVATION_HARD_SIGMOID = 8,     /* min(max(alpha·x + beta, 0), 1) */
  UNROLL_ACTIVATION_ELU = 9,              /* x < 0 ? alpha·(e^x - 1) : x */
  UNROLL_ACTIVATION_SOFTSIGN = 10,        /* x/(1 + |x|) */
  UNROLL_ACTIVATION_SOFTPLUS = 11,        /* log(1 + e^x) */
  UNROLL_ACTIVATION_IDENTITY = 12,
  UNROLL_ACTIVATION_MODRELU = 13, /* rnn's f only: sign(x)·max(|x| + b, 0) with a learnt b [H] (Arjovsky et al. 2016) */
  UNROLL_ACTIVATION_COUNT = 14
};
typedef struct unroll_activation {
  int32_t kind; /* UNROLL_ACTIVATION_* */
  int32_t reserved;
  double alpha, beta;
} unroll_activation;
/* That kind with ONNX's default alpha and beta; where it names none, those of the plain function: affine 1 and 0, scaled tanh
 * 1 and 1. Pure. [any] */
UNROLL_API unroll_activation unroll_activation_of(int32_t kind);
/* "leaky_relu", "default"; NULL for a number that is no activation. Static. [any] */
UNROLL_API const char *unroll_activation_name(int32_t kind);

/* Where a layer's input is as wide as its output; x is what the layer sees, after the dropout before it. */
enum {
  UNROLL_RESIDUAL_NONE = 0,
  UNROLL_RESIDUAL_OUTPUTS = 1, /* y = layer(x) + x: the state goes from step to step without x (Wu et al. 2016) */
  UNROLL_RESIDUAL_STATES = 2,  /* h_t = cell(x_t, h₋) + x_t: the sum is the state, of every step */
};

/* States of all layers and directions, each [B,H], with a projection h [B,P]; that of layer l and direction d (1: reverse)
 * stands at [l·D + d]. The arrays, of layers·D tensors, are the caller's. */
typedef struct unroll_rnn_state {
  unroll_tensor *h;
  unroll_tensor *c; /* lstm only */
} unroll_rnn_state;

/*
 * With what stands below `lengths` at zero every layer and direction is one LAYER node. So it stays with dropout of any
 * kind, with zoneout and with UNROLL_RESIDUAL_OUTPUTS; with any other option it is a scan of ops, the products with
 * the inputs of all steps before it. In the order of the computation:
 *
 *   x        input_dropout; from layer 1 on dropout
 *   W_h      weight_dropout: one mask a run, of the matrix (Merity, Keskar, Socher 2018)
 *   h₋       state_dropout: W_h·(m⊙h₋), one m [B,H] for all steps of a run (Gal & Ghahramani 2016); only in this product
 *   a        a = W_x·x + W_h·h₋ + b, gates in row blocks. With layer_norm a = LN(W_x·x) + LN(W_h·h₋) + b, each with a gain
 *            of its own (Ba, Kiros, Hinton 2016, the LSTM and GRU of its supplement): over the rows of all gates together;
 *            gru and gru_after: over those of r and z together and over those of n.
 *            LN(v) = (v - mean)/sqrt(variance + layer_norm_epsilon), the variance that of all, divided by their number
 *   gates    clip bounds the input of every activation to [-clip, clip] (ONNX); then f, g, h
 *     rnn        h = f(a)
 *     lstm       i = f(a_i + p_i⊙c₋), f = f(a_f + p_f⊙c₋), c = f⊙c₋ + i⊙g(a_g), o = f(a_o + p_o⊙c), h = o⊙h(c),
 *                with p_* the peepholes (Gers & Schmidhuber 2000): the output gate sees the new c. cell_clip bounds
 *                c to [-cell_clip, cell_clip] before anything reads it (Sak et al. 2014). layer_norm: h = o⊙h(LN(c)) with
 *                gain and shift. projection: h = W_r·(o⊙h(c)) (Sak et al. 2014; PyTorch's proj_size)
 *     gru        r, z = f(a), n = g(x's part of a_n + W_h·(r⊙h₋)), in gru_after n = g(.. + r⊙(W_h·h₋ + b_n));
 *                h = (1-z)⊙n + z⊙h₋. ONNX's linear_before_reset is 0 of gru and 1 of gru_after
 *   h        + skip·h₋; UNROLL_RESIDUAL_STATES: + x
 *   h, c     zoneout: each unit keeps its value of the step before with probability zoneout_h, zoneout_c; h is computed
 *            from the c of before its zoneout (Krueger et al. 2017). With inference: p·old + (1-p)·new
 *   y        output_dropout, of the last layer
 *
 * Random numbers: each active mask is a site of its own, in the order input_dropout; for each layer and direction
 * weight_dropout, state_dropout, zoneout_h, zoneout_c; after each layer dropout; output_dropout. Masks "of a run" are those
 * of its first step: t0, row0.
 */
typedef struct unroll_rnn_options {
  uint32_t struct_size;
  int32_t cell;          /* UNROLL_CELL_* or UNROLL_RNN_* */
  int32_t activation;    /* rnn: UNROLL_TANH (also where 0 stands), UNROLL_RELU or UNROLL_SIGMOID; else see f */
  int32_t layers;        /* at least 1 */
  int64_t hidden;        /* H, at least 1 */
  int32_t bidirectional; /* not 0: every layer runs both ways, D = 2 */
  int32_t reserved;
  double dropout;        /* 0 <= p < 1, of the outputs of every layer but the last, as PyTorch has it */
  unroll_tensor lengths; /* i32 [B], or none: every sequence has T steps */

  int32_t inference; /* not 0: no dropout of any kind, and zoneout's expectation: for graphs that are not trained */
  int32_t same_mask; /* not 0: input_dropout, dropout and output_dropout have one mask for all steps (Gal &
                        Ghahramani 2016) */
  double input_dropout, output_dropout, weight_dropout, state_dropout; /* 0 <= p < 1 each */
  double zoneout_h, zoneout_c;                                         /* 0 <= p < 1; zoneout_c lstm only */
  unroll_activation f, g, h; /* rnn f; gru, gru_after f g; lstm f g h; min cells g (identity, where 0 stands) */
  double clip;               /* 0: none */
  double cell_clip;          /* 0: none; lstm only */
  int64_t projection;        /* P, lstm only; 0: none, P = H */
  int32_t peepholes;         /* not 0; lstm only */
  int32_t layer_norm;        /* not 0 */
  double layer_norm_epsilon; /* 0: 1e-5 */
  double skip;               /* α of h_t = cell(..) + α·h₋ */
  int32_t residual;          /* UNROLL_RESIDUAL_*, of every layer whose input is as wide as its output */
  int32_t reserved_2;
  unroll_tensor *cells; /* lstm: not NULL: an array of the caller's, as those of unroll_rnn_state, that gets c of every
                           step, [T,B,H], 0 past a sequence's end */
  /*
   * NULL: all is kept for the gradient. Else the sequence is cut into segments by this policy, with the same bits
   * (checkpoint.h). Of a stack of LAYER nodes in one direction each segment goes through all layers. Of another each
   * layer and direction has a plan of its own and of a budget of bytes one of layers·D equal shares: where it is a scan
   * (see above) as unroll_scan_checkpoint has it, and the products with the inputs of all steps, [T,B,GH], are kept
   * beside. Min cells have no steps to make again. unroll_rnn_checkpoint_sizes says what a plan is made for.
   */
  const unroll_checkpoint_policy *checkpoint;
  /*
   * NULL, or tensors [T,B,P] of h and [T,B,H] of c, of all layers and directions, each of which may be none: what is
   * added to a state when its step is done, before anything else reads it. Of zeros they change nothing, and their
   * gradients are those of the states of every step (flow.h). Either array may be NULL.
   */
  const unroll_rnn_state *taps;
  /* NULL, or an array like that of `cells`, of any cell: it gets the gates of every step, after their activations, [T,B,GH]
   * in the order of the row blocks; 0 past a sequence's end. A layer whose gates are asked for is a scan. unroll_gate_of
   * says what they are. */
  unroll_tensor *gates;
} unroll_rnn_options;

/*
 * A stack of recurrent layers over a whole sequence; the standard cells' equations stand in plugin.h (LSTM_GATES, GRU_*,
 * LAYER), the options' above. P = H without a projection.
 *
 *   x        [T,B,I], real
 *   initial  NULL: zeros; likewise where h or c is NULL or one of their tensors is none. Only read.
 *   last     where not NULL, its arrays (each may be NULL) get the states after each sequence's own last step
 *   returns  y [T,B,D·P] of the last layer, forward first; 0 past a sequence's end
 *
 * Parameters of layer l and direction d (1: reverse), with G = 1 (rnn), 4 (lstm: i f g o), 3 (gru, gru_after: r z n) or as
 * UNROLL_RNN_* says:
 *   PREFIX.W_x.l.d [GH,I], from layer 1 on [GH,D·P]   PREFIX.W_h.l.d [GH,P], not of min cells   PREFIX.b.l.d [GH]
 *   PREFIX.b_n.l.d [H]                      gru_after
 *   PREFIX.W_r.l.d [P,H]                    projection
 *   PREFIX.p_i.l.d, p_f (not coupled), p_o [H]   peepholes
 *   PREFIX.ln_x.l.d, ln_h.l.d [GH]          layer_norm: gains, of rows as in W_x and W_h
 *   PREFIX.ln_c.l.d, ln_s.l.d [H]           layer_norm, lstm: gain and shift of c
 *   PREFIX.b_m.l.d [H]                      modReLU
 *
 * UNROLL_E_RANGE: an option out of its range; UNROLL_E_INVALID: one that the cell does not have.
 */
UNROLL_API unroll_tensor unroll_rnn(unroll_tensor x, const char *prefix, const unroll_rnn_options *options,
                                    const unroll_rnn_state *initial, unroll_rnn_state *last);

/*
 * What the plan of such a stack of LAYER nodes is made for, over x [T,B,I] of dtype: of a bidirectional one, that of any
 * layer in direction d (1: reverse), whose share of a budget of bytes is one of 2·layers; of one in one direction, that of
 * all layers (d 0). A step of a segment takes the standard saved values (plugin.h, LAYER), the gradient of one layer's
 * gates, and what is between layers. Zoneout's masks, a byte for each number of y, are no part of it: they stand until the
 * gradient is made. UNROLL_E_INVALID, UNROLL_E_RANGE: options or sizes that no stack has;
 * UNROLL_E_UNSUPPORTED: an option that makes scans of layers, which the message names.
 */
UNROLL_API unroll_status unroll_rnn_checkpoint_sizes(const unroll_rnn_options *options, int32_t dtype, int64_t T,
                                                     int64_t B, int32_t d, unroll_checkpoint_sizes *sizes,
                                                     unroll_error *err);

/* ---- gates ---- */

/* How much a unit keeps of its state, where a gate of value v says so. */
enum {
  UNROLL_KEEPS_NOTHING = 0, /* it does not say so */
  UNROLL_KEEPS = 1,         /* v: lstm f; gru, gru_after z; min_lstm f */
  UNROLL_KEEPS_REST = 2,    /* 1 - v: coupled lstm i; min_gru z */
};
typedef struct unroll_gate {
  uint32_t struct_size;
  int32_t keeps;    /* UNROLL_KEEPS_* */
  const char *name; /* "input", "forget", "output", "reset", "update", "candidate"; of an rnn "state" */
  double low,
      high; /* between which its values lie, by its activation: 0 and 1, -1 and 1, ..; ±INFINITY without a bound */
} unroll_gate;
/* G: the gates of a cell, UNROLL_CELL_* or UNROLL_RNN_*; 0: it is none. Pure. [any] */
UNROLL_API int64_t unroll_gate_count(int32_t cell);
/*
 * Gate number `gate`, in the order of the row blocks: what stands in that block of unroll_rnn_options.gates. Of an rnn it
 * is f(a), of min_lstm f' and i', which are of what is kept and taken after both are divided by their sum, and n.
 * UNROLL_E_RANGE: there is no such cell, gate or activation; UNROLL_E_INVALID. [any]
 */
UNROLL_API unroll_status unroll_gate_of(const unroll_rnn_options *options, int64_t gate, unroll_gate *what,
                                        unroll_error *err);

/* ---- others ---- */

/* y = x·Wᵀ + b. x [..,I] -> [..,out_features]. PREFIX.W [out_features,I]; PREFIX.b [out_features] unless bias is 0. */
UNROLL_API unroll_tensor unroll_linear(unroll_tensor x, const char *prefix, int64_t out_features, int bias);
/* Likewise with a weight [out_features,I] that is there already: an embedding's table, for tied weights (Press & Wolf
 * 2017). Its gradient is the sum of both uses. PREFIX.b [out_features] unless bias is 0. */
UNROLL_API unroll_tensor unroll_linear_tied(unroll_tensor x, unroll_tensor weight, const char *prefix, int bias);
/* ids i32 [..] -> [..,E]. PREFIX.weight [V,E] of dtype (f32 or f64). */
UNROLL_API unroll_tensor unroll_embedding_layer(unroll_tensor ids, const char *prefix, int32_t dtype, int64_t V,
                                                int64_t E);

/* ---- losses ---- */
enum {
  UNROLL_LOSS_MEAN = 0,     /* [] */
  UNROLL_LOSS_SUM = 1,      /* [] */
  UNROLL_LOSS_NONE = 2,     /* one value for each row or element */
  UNROLL_LOSS_HALF_SUM = 3, /* [], half of the sum; unroll_mse only */
};

/*
 * -log softmax(logits)[target] in nats. logits [..,V], targets i32 [..]; a negative target is ignored. MEAN is over the
 * targets that are not ignored, and 0 when there is none; SUM over all rows; NONE gives [..], 0 where ignored.
 */
UNROLL_API unroll_tensor unroll_cross_entropy(unroll_tensor logits, unroll_tensor targets, int32_t reduction);
/* (y - target)², of one shape. MEAN over all elements; HALF_SUM: ½·Σ(y - target)². */
UNROLL_API unroll_tensor unroll_mse(unroll_tensor y, unroll_tensor target, int32_t reduction);

/* ---- clipping ---- */
/*
 * The factor [] that brings the norm of all gradients together under max_norm (> 0): min(1, max_norm/(norm + 1e-6)),
 * with norm = sqrt(Σ g²) over every element of the n tensors (Pascanu, Mikolov, Bengio 2013; PyTorch's form). For
 * unroll_optimize's grad_scale. norm, where not NULL, gets the norm [].
 */
UNROLL_API unroll_tensor unroll_clip_global_norm(const unroll_tensor *grads, uint32_t n, double max_norm,
                                                 unroll_tensor *norm);

/* ---- first values ---- */
/*
 * Fill data, dense and row-major, info->shape elements of info->dtype (f32 or f64, else UNROLL_E_DTYPE). info is what
 * unroll_tensor_describe gave, or filled by hand. Random numbers are those of philox.h, computed in double and then
 * rounded: a function of seed, info->name and the element's index alone, so that neither the order of the calls nor
 * other parameters matter. Their key has the name's 64-bit hash (FNV-1a, its zero included) as update and
 * UNROLL_INIT_SITE as site; element i is at t = i >> 32, row 0, unit = i mod 2^32.
 *   UNROLL_E_INVALID  something is NULL
 *   UNROLL_E_SHAPE    an extent below 1; no matrix where one is expected; its rows are no multiple of blocks
 *   UNROLL_E_RANGE    a number that is not finite; lo > hi; std < 0
 *   UNROLL_E_MEMORY
 */
#define UNROLL_INIT_SITE 0x696E6974u /* "init"; sites of a graph count from 0 */
UNROLL_API unroll_status unroll_init_constant(const unroll_tensor_info *info, double value, void *data,
                                              unroll_error *err);
/* U(lo, hi), lo <= hi */
UNROLL_API unroll_status unroll_init_uniform(const unroll_tensor_info *info, uint64_t seed, double lo, double hi,
                                             void *data, unroll_error *err);
/* N(mean, std²). N(0, 1/H) for a recurrent matrix has std = 1/sqrt(H). */
UNROLL_API unroll_status unroll_init_normal(const unroll_tensor_info *info, uint64_t seed, double mean, double std,
                                            void *data, unroll_error *err);
/*
 * U(-a, a) with a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010). A matrix [blocks·fan_out, fan_in]: row blocks,
 * as those of gates, count as matrices of their own.
 */
UNROLL_API unroll_status unroll_init_glorot(const unroll_tensor_info *info, uint64_t seed, int64_t blocks, void *data,
                                            unroll_error *err);
/*
 * λ·Q with Q random orthogonal, uniformly so (Saxe et al. 2014; the QR decomposition of a normal matrix by
 * Householder's reflections, in double, R's diagonal made positive: Mezzadri 2007). A matrix [blocks·R, C]; every block
 * [R,C] is a Q of its own, with orthonormal columns where R >= C, else orthonormal rows.
 */
UNROLL_API unroll_status unroll_init_orthogonal(const unroll_tensor_info *info, uint64_t seed, int64_t blocks,
                                                double lambda, void *data, unroll_error *err);
/* The bias [4H] of an LSTM (i f g o): 1 for the forget gate, else 0 (Jozefowicz, Zaremba, Sutskever 2015). */
UNROLL_API unroll_status unroll_init_lstm_bias(const unroll_tensor_info *info, void *data, unroll_error *err);
/*
 * Chrono initialisation (Tallec & Ollivier 2018, sec. 3) of a bias [blocks·H], for dependencies of up to t_max >= 2 steps:
 * block `forget` gets log u with u ~ U(1, t_max - 1) for each unit, block `input` the negative of the same numbers, the others
 * 0. -1: there is no such block. lstm: 4 blocks, forget 1, input 0; coupled lstm: 3, -1, 0; gru and gru_after, whose z is what
 * is kept: 3, 1, -1. UNROLL_E_RANGE: a block that is not there, or both are -1.
 */
UNROLL_API unroll_status unroll_init_chrono(const unroll_tensor_info *info, uint64_t seed, double t_max, int64_t blocks,
                                            int64_t forget, int64_t input, void *data, unroll_error *err);
/* A matrix [blocks·R, C]: scale on the diagonal of every block, else 0. With scale 1 and relu: the IRNN (Le, Jaitly, Hinton
 * 2015). */
UNROLL_API unroll_status unroll_init_identity(const unroll_tensor_info *info, int64_t blocks, double scale, void *data,
                                              unroll_error *err);
/*
 * What suits a parameter of the layers above, told by the end of its name (l and d are numbers) and the cell:
 *
 *   W_x.l.d      glorot, a block a gate; likewise W_xh, W_c and W_f of seq2seq.h
 *   W_h.l.d      orthogonal, a block a gate, λ = 1
 *   W_r.l.d      glorot
 *   b.l.d        lstm: 1 for the forget gate; coupled lstm: -1 for the input gate; the others 0
 *   ln_x.l.d, ln_h.l.d, ln_c.l.d   1
 *   b_n.l.d, b_m.l.d, p_i.l.d, p_f.l.d, p_o.l.d, ln_s.l.d   0
 *   weight       N(0, 1): embeddings; with W_x glorot, the layer above starts with sums of about that size too
 *   W            glorot
 *   other names  a matrix: glorot; anything else: 0
 *
 * cell: UNROLL_CELL_* or UNROLL_RNN_*, of the recurrent layers; UNROLL_CELL_NONE where there is none. UNROLL_E_SHAPE: the first
 * axis is no multiple of the cell's gates.
 */
UNROLL_API unroll_status unroll_init_default(const unroll_tensor_info *info, int32_t cell, uint64_t seed, void *data,
                                             unroll_error *err);

#ifdef __cplusplus
}
#endif
#endif
