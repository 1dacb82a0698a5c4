# SPDX-License-Identifier: Apache-2.0
"""Attention, decoders, feeding back, CTC: what make.py writes of them. README.md says what is in the files."""

import math

import torch
import torch.nn.functional as F

import options
from cells import GATES, step

T, S, B, V, X, E, H, A = 6, 5, 4, 7, 3, 4, 5, 3  # target and source steps, batch, vocabulary, embedding, source, hidden
SOURCE_LENGTHS, LENGTHS = [3, 5, 0, 1], [6, 2, 4, 0]


def attend(kind, p, source, lengths, query):
    """Context and weights. source [S,B,E], query [R,D], R/B queries of each source in a row."""
    values = source.transpose(0, 1).repeat_interleave(len(query) // source.shape[1], dim=0)  # [R,S,E]
    if kind == "additive":
        inner = (query @ p["W_a"].T)[:, None] + torch.einsum("rse,ae->rsa", values, p["U_a"])
        e = torch.einsum("rsa,a->rs", torch.tanh(inner), p["v_a"][0])
    elif kind == "multiplicative":
        e = torch.einsum("rd,de,rse->rs", query, p["W_a"], values)
    else:
        e = torch.einsum("rd,rsd->rs", query, values)
        e = e / math.sqrt(query.shape[1]) if kind == "scaled_dot" else e
    if lengths is None:
        weights = torch.softmax(e, dim=1)
    else:
        n = lengths.repeat_interleave(len(query) // len(lengths))[:, None]
        valid = torch.arange(source.shape[0])[None] < n
        weights = torch.softmax(torch.where(valid | (n == 0), e, torch.full_like(e, -math.inf)), dim=1)
        weights = torch.where(valid, weights, torch.zeros_like(weights))
        if kind == "scaled_dot":  # PyTorch's own
            own = F.scaled_dot_product_attention(query[:, None], values, values, (valid | (n == 0))[:, None])[:, 0]
            own = torch.where(n > 0, own, torch.zeros_like(own))
            assert ((weights[:, None] @ values)[:, 0] - own).abs().max() < 1e-12
    return (weights[:, None] @ values)[:, 0], weights


def attention_weights(kind, randn, D, size):
    if kind == "additive":
        return {"W_a": randn(A, D), "U_a": randn(A, size), "v_a": randn(1, A)}
    return {"W_a": randn(D, size)} if kind == "multiplicative" else {}


def derivatives(leaves, results, randn):
    """Upstream gradients d.NAME, and grad.NAME of the sum of results times them."""
    upstream = {f"d.{name}": randn(*r.shape) for name, r in results.items()}
    loss = sum((r * upstream[f"d.{name}"]).sum() for name, r in results.items())
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {**upstream, **{f"grad.{n}": torch.zeros_like(x) if g is None else g for (n, x), g in zip(leaves.items(), found)}}


def attention(folder, kind, random_source, write):
    name = f"attention_{kind}"
    randn = random_source(name)
    D = H if kind in ("additive", "multiplicative") else E
    leaves = {"source": randn(S, B, E), "query": randn(2 * B, D), **attention_weights(kind, randn, D, E)}
    leaves = {k: x.requires_grad_() for k, x in leaves.items()}
    lengths = torch.tensor(SOURCE_LENGTHS, dtype=torch.int32)
    context, weights = attend(kind, leaves, leaves["source"], lengths, leaves["query"])
    results = {"context": context, "weights": weights}
    tensors = {**leaves, **results, **derivatives(leaves, results, randn), "source_lengths": lengths}
    write(folder, name, tensors, kind=kind, D=D, E=E, S=S, B=B, A=A)


def decode(cell, kind, context, layers, p, source, source_lengths, inputs, lengths):
    """Teacher forcing, step by step. The states of a sequence that is over stand still, its outputs are 0."""
    H_ = H
    state = [[p[f"h0.{l}"], p[f"c0.{l}"]] if cell == "lstm" else [p[f"h0.{l}"]] for l in range(layers)]
    fed = torch.zeros(B, H_, dtype=torch.float64)
    own = {k.split(".")[-1]: x for k, x in p.items() if k.startswith("dec.attention.")}
    logits, weights = [], []
    for t in range(T):
        ids = inputs[t] if lengths is None else torch.where(t < lengths, inputs[t], torch.zeros_like(inputs[t]))
        pre = p["dec.embed.weight"][ids.long()] @ p["dec.W_x.0.0"].T + p["dec.b.0.0"]
        alpha = None
        if kind != "none" and context == "before":
            c, alpha = attend(kind, own, source, source_lengths, state[-1][0])
            pre = pre + c @ p["dec.W_c.0.0"].T
        if kind != "none" and context == "feeding":
            pre = pre + fed @ p["dec.W_f.0.0"].T
        new = []
        for l in range(layers):
            if l > 0:
                pre = new[-1][0] @ p[f"dec.W_x.{l}.0"].T + p[f"dec.b.{l}.0"]
            new.append(list(step(cell, p[f"dec.W_h.{l}.0"], p.get(f"dec.b_n.{l}.0"), pre, tuple(state[l]))))
        out = new[-1][0]
        if kind != "none" and context != "before":
            c, alpha = attend(kind, own, source, source_lengths, out)
            out = torch.tanh(torch.cat([c, out], dim=1) @ p["dec.combine.W"].T)
        y = out @ p["dec.out.W"].T + p["dec.out.b"]
        valid = torch.ones(B, 1, dtype=torch.bool) if lengths is None else (t < lengths)[:, None]
        keep = lambda a, b: torch.where(valid, a, b)
        logits.append(keep(y, torch.zeros_like(y)))
        if alpha is not None:
            weights.append(keep(alpha, torch.zeros_like(alpha)))
        state = [[keep(a, b) for a, b in zip(n, o)] for n, o in zip(new, state)]
        fed = keep(out, fed)
    results = {"logits": torch.stack(logits), **({"weights": torch.stack(weights)} if weights else {})}
    for l in range(layers):
        for name, x in zip("hc", state[l]):
            results[f"{name}_last.{l}"] = x
    return results


def decoder(folder, cell, kind, context, layers, ragged, random_source, write):
    name = f"decoder_{cell}_{kind}_{context}_{layers}x_{'ragged' if ragged else 'full'}"
    plain, G = random_source(name), GATES[cell]
    randn = lambda *shape: plain(*shape, scale=0.5)
    size = E if kind in ("additive", "multiplicative") else H
    p = {"dec.embed.weight": randn(V, X), "dec.out.W": randn(V, H), "dec.out.b": randn(V)}
    for l in range(layers):
        p[f"dec.W_x.{l}.0"] = randn(G * H, X if l == 0 else H)
        p[f"dec.W_h.{l}.0"], p[f"dec.b.{l}.0"], p[f"h0.{l}"] = randn(G * H, H), randn(G * H), randn(B, H)
        if cell == "gru_after":
            p[f"dec.b_n.{l}.0"] = randn(H)
        if cell == "lstm":
            p[f"c0.{l}"] = randn(B, H)
    if kind != "none":
        p["source"] = randn(S, B, size)
        p.update({f"dec.attention.{k}": x for k, x in attention_weights(kind, randn, H, size).items()})
        if context == "before":
            p["dec.W_c.0.0"] = randn(G * H, size)
        else:
            p["dec.combine.W"] = randn(H, size + H)
        if context == "feeding":
            p["dec.W_f.0.0"] = randn(G * H, H)
    p = {k: x.requires_grad_() for k, x in p.items()}
    ids = {"inputs": torch.floor(torch.rand(T, B, generator=torch.Generator().manual_seed(layers)) * V).int()}
    source_lengths = torch.tensor(SOURCE_LENGTHS, dtype=torch.int32) if ragged and kind != "none" else None
    lengths = torch.tensor(LENGTHS, dtype=torch.int32) if ragged else None
    results = decode(cell, kind, context, layers, p, p.get("source"), source_lengths, ids["inputs"], lengths)
    ids.update({} if source_lengths is None else {"source_lengths": source_lengths})
    ids.update({} if lengths is None else {"lengths": lengths})
    tensors = {**p, **results, **derivatives(p, results, plain), **ids}
    write(folder, name, tensors, cell=cell, attention=kind, context=context, layers=layers, T=T, S=S, B=B, V=V, X=X,
          E=size, H=H, A=A)


def decode_with_options(o, kind, context, p, source, source_lengths, inputs, lengths):
    """The same with cells of every option, which have names without "dec."; c of all steps where they have one."""
    q, layers = {k[4:]: x for k, x in p.items() if k.startswith("dec.")}, o.get("layers", 1)
    masks, same = options.Masks(o), o.get("same_mask", 0)

    def drop(name, N):
        keep = masks.keep(name, 1 if same else T, B, N)
        return (lambda t, x: x) if keep is None else (lambda t, x: x * keep[0 if same else t] / (1 - o[name]))

    drop_in, between, steps = drop("input_dropout", X), [], []
    for l in range(layers):
        between.append(drop("dropout", p[f"h0.{l}"].shape[1]) if l else None)
        steps.append(options.stepper(o, q, f".{l}.0", T, B, masks))
    drop_out = drop("output_dropout", p["h0.0"].shape[1])
    state = [(p[f"h0.{l}"], p.get(f"c0.{l}")) for l in range(layers)]
    fed = torch.zeros_like(p["h0.0"])
    own = {k.split(".")[-1]: x for k, x in q.items() if k.startswith("attention.")}
    logits, weights, cells = [], [], [[] for _ in range(layers)]
    for t in range(T):
        valid = torch.ones(B, 1, dtype=torch.bool) if lengths is None else (t < lengths)[:, None]
        ids = torch.where(valid[:, 0], inputs[t], torch.zeros_like(inputs[t]))
        pre, alpha = drop_in(t, q["embed.weight"][ids.long()]) @ q["W_x.0.0"].T, None
        if kind != "none" and context == "before":
            c, alpha = attend(kind, own, source, source_lengths, state[-1][0])
            pre = pre + c @ q["W_c.0.0"].T
        if kind != "none" and context == "feeding":
            pre = pre + fed @ q["W_f.0.0"].T
        new, y, x = [], None, None
        for l in range(layers):
            if l:
                x = between[l](t, y)
                pre = x @ q[f"W_x.{l}.0"].T
            product = lambda k, n: pre[:, k * H : (k + n) * H]
            new.append(steps[l](t, product, *state[l], x if o.get("residual") == 2 else None))
            y = new[-1][0] + (x if l and o.get("residual") == 1 else 0)
        if kind != "none" and context != "before":
            c, alpha = attend(kind, own, source, source_lengths, y)
            y = torch.tanh(torch.cat([c, y], dim=1) @ q["combine.W"].T)
        keep = lambda a, b: torch.where(valid, a, b)
        out = drop_out(t, y) @ q["out.W"].T + q["out.b"]
        logits.append(keep(out, torch.zeros_like(out)))
        if alpha is not None:
            weights.append(keep(alpha, torch.zeros_like(alpha)))
        for l in range(layers):
            if new[l][1] is not None:
                cells[l].append(keep(new[l][1], torch.zeros_like(new[l][1])))
        state = [tuple(None if a is None else keep(a, b) for a, b in zip(n, old)) for n, old in zip(new, state)]
        fed = keep(y, fed)
    results = {"logits": torch.stack(logits), **({"weights": torch.stack(weights)} if weights else {})}
    for l in range(layers):
        results[f"h_last.{l}"] = state[l][0]
        if state[l][1] is not None:
            results[f"c_last.{l}"], results[f"c_all.{l}"] = state[l][1], torch.stack(cells[l])
    return results


def decoder_with_options(folder, name, kind, context, o, random_source, write):
    name = f"options_decoder_{name}"
    plain, layers, P = random_source(name), o.get("layers", 1), o.get("projection", 0) or H
    randn = lambda *shape: plain(*shape, scale=0.5)
    size = E if kind in ("additive", "multiplicative") else P
    p = {"dec.embed.weight": randn(V, X), "dec.out.W": randn(V, P), "dec.out.b": randn(V)}
    for key, shape in options.shapes(o, X, H).items():
        state = key[0] in "hc" and key[1] == "0"
        gain = key.startswith("ln_") and not key.startswith("ln_s")
        value = randn(*((B,) + shape[1:] if state else shape)) + (1 if gain else 0)
        p[key[: key.rindex(".")] if state else f"dec.{key}"] = value
    G = options.GATES[o["cell"]]
    if kind != "none":
        p["source"] = randn(S, B, size)
        p.update({f"dec.attention.{k}": x for k, x in attention_weights(kind, randn, P, size).items()})
        if context == "before":
            p["dec.W_c.0.0"] = randn(G * H, size)
        else:
            p["dec.combine.W"] = randn(P, size + P)
        if context == "feeding":
            p["dec.W_f.0.0"] = randn(G * H, P)
    p = {k: x.requires_grad_() for k, x in p.items()}
    inputs = torch.floor(torch.rand(T, B, generator=torch.Generator().manual_seed(layers)) * V).int()
    ids = {"inputs": inputs, "lengths": torch.tensor(LENGTHS, dtype=torch.int32)}
    if kind != "none":
        ids["source_lengths"] = torch.tensor(SOURCE_LENGTHS, dtype=torch.int32)
    results = decode_with_options(o, kind, context, p, p.get("source"), ids.get("source_lengths"), inputs,
                                  ids["lengths"])
    write(folder, name, {**p, **results, **derivatives(p, results, plain), **ids}, attention=kind, context=context, T=T,
          S=S, B=B, V=V, X=X, E=size, H=H, A=A, seed=options.SEED, update=options.UPDATE,
          **{"layers": 1, **options.metadata(o)})


def one_to_many(folder, cell, random_source, write):
    name = f"one_to_many_{cell}"
    randn, G, Y, I = random_source(name), GATES[cell], 3, 4
    p = {"x": randn(B, I), "W_xh.0.0": randn(G * H, I), "W_x.0.0": randn(G * H, Y), "W_h.0.0": randn(G * H, H),
         "b.0.0": randn(G * H), "out.W": randn(Y, H), "out.b": randn(Y)}
    if cell == "gru_after":
        p["b_n.0.0"] = randn(H)
    p = {k: (x * 0.5).requires_grad_() for k, x in p.items()}
    lengths = torch.tensor(LENGTHS, dtype=torch.int32)
    zeros = torch.zeros(B, H, dtype=torch.float64)
    go = lambda pre, state: step(cell, p["W_h.0.0"], p.get("b_n.0.0"), pre + p["b.0.0"], state)
    state = go(p["x"] @ p["W_xh.0.0"].T, (zeros, zeros))
    ys = []
    for t in range(T):
        y = torch.sigmoid(state[0] @ p["out.W"].T + p["out.b"])
        valid = (t < lengths)[:, None]
        ys.append(torch.where(valid, y, torch.zeros_like(y)))
        state = tuple(torch.where(valid, a, b) for a, b in zip(go(y @ p["W_x.0.0"].T, state), state))
    results = {"y": torch.stack(ys), "h_last": state[0]}
    write(folder, name, {**p, **results, **derivatives(p, results, randn), "lengths": lengths}, cell=cell, T=T, B=B,
          I=I, H=H, Y=Y)


def ctc(folder, random_source, write):
    """Ragged on both sides: a repeat that just fits, one that doesn't, no labels, an input of one step."""
    randn, steps, batch, symbols, blank = random_source("ctc"), 8, 6, 5, 2
    logits = randn(steps, batch, symbols).requires_grad_()
    targets = torch.tensor([[0, 0, 1, 3], [4, 4, 4, 4], [3, 1, 0, 4], [1, 9, -5, 77], [0, 3, 3, 3], [4, 1, 4, 1]])
    target_lengths, lengths = torch.tensor([4, 4, 0, 1, 2, 4]), torch.tensor([5, 6, 7, 1, 8, 8])
    clean = torch.where(torch.arange(4)[None] < target_lengths[:, None], targets, torch.zeros_like(targets))
    out, log_probs = {}, torch.log_softmax(logits, dim=2)
    d = randn(batch)
    for zero in (False, True):
        for kind in ("none", "sum", "mean"):
            loss = F.ctc_loss(log_probs, clean, lengths, target_lengths, blank, reduction=kind, zero_infinity=zero)
            name = f"{kind}.zero" if zero else kind
            if zero or kind == "none":
                out[name] = torch.where(loss == math.inf, torch.full_like(loss, -1.0), loss).reshape(-1)
            if zero:
                out[f"grad.{name}"] = torch.autograd.grad((loss * d).sum() if kind == "none" else loss, logits,
                                                          retain_graph=True)[0]
    write(folder, "ctc", {"logits": logits, "d": d, **out, "targets": targets.int(), "lengths": lengths.int(),
                          "target_lengths": target_lengths.int()}, blank=blank, T=steps, B=batch, V=symbols, L=4)


def reinforce(folder, random_source, write):
    """-log π(y)·(R - b) of sequences that end at different steps; one of them at once."""
    randn, steps, batch, symbols = random_source("reinforce"), 5, 4, 6
    logits, reward, baseline = randn(steps, batch, symbols).requires_grad_(), randn(batch), randn(batch)
    ids = torch.tensor([[3, 5, -1, 0], [1, 5, -1, 0], [2, -1, -1, 4], [0, -1, -1, 4], [5, -1, -1, 4]])
    each = torch.distributions.Categorical(logits=logits).log_prob(ids.clamp(min=0))
    log_prob = torch.where(ids >= 0, each, 0.0).sum(dim=0)
    out, d = {"log_prob": log_prob}, randn(batch)
    out["grad.log_prob"] = torch.autograd.grad(log_prob, logits, d, retain_graph=True)[0]
    for name, b in (("", baseline), (".plain", torch.zeros(batch))):
        each = -(reward - b) * log_prob
        for kind, loss in (("mean", each.mean()), ("sum", each.sum())):
            out[kind + name] = loss.reshape(1)
            out[f"grad.{kind}{name}"] = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    write(folder, "reinforce", {"logits": logits, "reward": reward, "baseline": baseline, "d": d, **out,
                                "ids": ids.int()}, T=steps, B=batch, V=symbols)


DECODERS = [
    ("lstm", "additive", "before", 1, True), ("gru_after", "multiplicative", "after", 2, True),
    ("gru", "dot", "feeding", 1, True), ("lstm", "scaled_dot", "feeding", 2, True),
    ("rnn_tanh", "additive", "feeding", 1, False), ("rnn_relu", "multiplicative", "before", 2, True),
    ("lstm", "none", "before", 2, True),
]


DROPOUTS = {"input_dropout": 0.25, "dropout": 0.5, "output_dropout": 0.125, "weight_dropout": 0.25, "state_dropout": 0.375}
DECODERS_WITH = {
    "everything": ("additive", "before", {"cell": "lstm", "layers": 2, "peepholes": 1, "projection": 3, "clip": 1.5,
                                          "cell_clip": 0.8, "layer_norm": 1, "zoneout_h": 0.25, "zoneout_c": 0.5,
                                          "skip": 0.5, "residual": 2, **DROPOUTS}),
    "inference": ("additive", "before", {"cell": "lstm", "layers": 2, "peepholes": 1, "zoneout_h": 0.25,
                                         "zoneout_c": 0.5, "same_mask": 1, "inference": 1, **DROPOUTS}),
    "coupled": ("dot", "feeding", {"cell": "coupled_lstm", "peepholes": 1, "projection": 3, "zoneout_c": 0.5,
                                   "f": ("hard_sigmoid", 0.3, 0.4), "g": ("elu", 0.7, 0), "h": ("softsign", 0, 0)}),
    "gru_norm": ("multiplicative", "before", {"cell": "gru", "layers": 2, "layer_norm": 1, "zoneout_h": 0.25,
                                              "residual": 1, "same_mask": 1, **DROPOUTS}),
    "gru_after_norm": ("scaled_dot", "after", {"cell": "gru_after", "layers": 2, "layer_norm": 1, "residual": 1,
                                               "layer_norm_epsilon": 0.01, "g": ("scaled_tanh", 0.8, 1.3)}),
    "lstm_norm": ("dot", "after", {"cell": "lstm", "layer_norm": 1, "state_dropout": 0.375}),
    "modrelu": ("additive", "feeding", {"cell": "rnn", "f": ("modrelu", 0, 0), "layer_norm": 1, "skip": 0.5}),
    "min_gru": ("additive", "feeding", {"cell": "min_gru", "layers": 2, "residual": 1, "input_dropout": 0.25}),
    "min_lstm": ("none", "before", {"cell": "min_lstm", "layers": 2, "g": ("elu", 1, 0), "dropout": 0.5}),
}


def make(folder, random_source, write):
    for kind in ("additive", "multiplicative", "dot", "scaled_dot"):
        attention(folder, kind, random_source, write)
    for case in DECODERS:
        decoder(folder, *case, random_source, write)
    for name, case in DECODERS_WITH.items():
        decoder_with_options(folder, name, *case, random_source, write)
    for cell in ("rnn_tanh", "lstm", "gru", "gru_after"):
        one_to_many(folder, cell, random_source, write)
    ctc(folder, random_source, write)
    reinforce(folder, random_source, write)
