# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers with every option of unroll_rnn_options as plain PyTorch loops, step by step, gate by gate.

Options are a dict with the names of the struct's fields; an activation is (name, alpha, beta). Parameters have the names
of nn.h with ".l.d" behind. Masks are drawn in the order that nn.h gives.
"""

import torch

from philox import uniforms

SEED, UPDATE = 0x123456789ABCDEF, 3
GATES = {"rnn": 1, "lstm": 4, "gru": 3, "gru_after": 3, "coupled_lstm": 3, "min_gru": 2, "min_lstm": 3}
CODES = {"rnn": 1, "lstm": 2, "gru": 3, "gru_after": 4, "coupled_lstm": 64, "min_gru": 65, "min_lstm": 66}
ACTIVATIONS = {  # code, ONNX's name, formula
    "tanh": (1, "Tanh", lambda x, a, b: torch.tanh(x)),
    "sigmoid": (2, "Sigmoid", lambda x, a, b: torch.sigmoid(x)),
    "relu": (3, "Relu", lambda x, a, b: torch.relu(x)),
    "affine": (4, "Affine", lambda x, a, b: a * x + b),
    "leaky_relu": (5, "LeakyRelu", lambda x, a, b: torch.nn.functional.leaky_relu(x, a)),
    "thresholded_relu": (6, "ThresholdedRelu", lambda x, a, b: torch.nn.functional.threshold(x, a, 0.0)),
    "scaled_tanh": (7, "ScaledTanh", lambda x, a, b: a * torch.tanh(b * x)),
    "hard_sigmoid": (8, "HardSigmoid", lambda x, a, b: torch.clamp(a * x + b, 0, 1)),
    "elu": (9, "Elu", lambda x, a, b: torch.nn.functional.elu(x, a)),
    "softsign": (10, "Softsign", lambda x, a, b: torch.nn.functional.softsign(x)),
    "softplus": (11, "Softplus", lambda x, a, b: torch.nn.functional.softplus(x)),
    "identity": (12, None, lambda x, a, b: x),
}
MODRELU = 13


def is_lstm(o):
    return o["cell"] in ("lstm", "coupled_lstm")


def shapes(o, I, H):
    """{name: shape} of all parameters and first states."""
    G, D, P, out = GATES[o["cell"]], 1 + o.get("bidirectional", 0), o.get("projection", 0) or H, {}
    for l in range(o.get("layers", 1)):
        for d in range(D):
            at = f".{l}.{d}"
            out["W_x" + at] = (G * H, I if l == 0 else D * P)
            out["b" + at] = (G * H,)
            out["h0" + at] = (B_OF_STATES, P)
            if not o["cell"].startswith("min"):
                out["W_h" + at] = (G * H, P)
            if o["cell"] == "gru_after":
                out["b_n" + at] = (H,)
            if is_lstm(o):
                out["c0" + at] = (B_OF_STATES, H)
            if o.get("projection"):
                out["W_r" + at] = (P, H)
            if o.get("peepholes"):
                out.update({f"p_{gate}{at}": (H,) for gate in ("io" if o["cell"] == "coupled_lstm" else "ifo")})
            if o.get("layer_norm"):
                out["ln_x" + at] = out["ln_h" + at] = (G * H,)
                if is_lstm(o):
                    out["ln_c" + at] = out["ln_s" + at] = (H,)
            if o.get("f", ("",))[0] == "modrelu":
                out["b_m" + at] = (H,)
    return out


B_OF_STATES = 3


class Masks:
    """Each active mask is a site of its own."""

    def __init__(self, o):
        self.o, self.site = o, 0

    def keep(self, name, T, B, N):
        """0 and 1 [T,B,N], or None where the option is off."""
        p = self.o.get(name, 0)
        if not p or (self.o.get("inference") and "dropout" in name):
            return None
        self.site += 1
        return (uniforms(SEED, UPDATE, self.site - 1, T, B, N) >= p).double()

    def dropout(self, name, x, same):
        keep = self.keep(name, 1 if same else x.shape[0], *x.shape[1:])
        return x if keep is None else x * keep / (1 - self.o[name])


def metadata(o):
    """The options of a case as a file has them; what it is about beside them is left out."""
    out = {k: v for k, v in o.items() if k not in ("cell", "ragged", "I", *"fgh")}
    for k in "fgh":
        if k in o:
            code = MODRELU if o[k][0] == "modrelu" else ACTIVATIONS[o[k][0]][0]
            out.update({k: code, f"{k}.alpha": float(o[k][1]), f"{k}.beta": float(o[k][2])})
    return {**out, "cell": CODES[o["cell"]]}


def normalised(v, epsilon):
    return torch.nn.functional.layer_norm(v, v.shape[-1:], eps=epsilon)


def stepper(o, p, at, T, B, masks, clip_before_h=True):
    """step(t, product, h, c, residual) -> h, c of the cell whose parameters end with `at`; masks of all T steps. product(k, n)
    is W_x x_t of n gates from gate k on. step.gates: those of the last step, side by side."""
    cell, H = o["cell"], p["b" + at].shape[0] // GATES[o["cell"]]
    P = o.get("projection", 0) or H
    clip, cell_clip, epsilon = o.get("clip", 0), o.get("cell_clip", 0), o.get("layer_norm_epsilon", 0) or 1e-5
    inference = o.get("inference", 0)

    def activation(which, default, clips=True):
        name, alpha, beta = o.get(which) or (default, 0, 0)

        def run(v):
            v = torch.clamp(v, -clip, clip) if clip and clips else v
            if name == "modrelu":
                return torch.sign(v) * torch.relu(v.abs() + p["b_m" + at])
            return ACTIVATIONS[name][2](v, alpha, beta)

        return run

    f_ = activation("f", "tanh" if cell == "rnn" else "sigmoid")
    g_ = activation("g", "identity" if cell.startswith("min") else "tanh")
    h_ = activation("h", "tanh", clip_before_h)
    b, W_h = p["b" + at], p.get("W_h" + at)
    if W_h is not None:
        W_h = masks.dropout("weight_dropout", W_h[None], True)[0]
    state_mask = masks.keep("state_dropout", 1, B, P)
    stay = {}
    for name, N in (("zoneout_h", P), ("zoneout_c", H)):
        if o.get(name) and not inference:
            stay[name] = 1 - masks.keep(name, T, B, N)

    def rows(W, k, n=1):
        return W[k * H : (k + n) * H]

    def from_x(wx, k, n):
        v = wx(k, n)
        if o.get("layer_norm"):
            v = normalised(v, epsilon) * rows(p["ln_x" + at], k, n)
        return v + rows(b, k, n)

    def from_h(v, k, n):
        if state_mask is not None:
            v = v * state_mask[0] / (1 - o["state_dropout"])
        v = v @ rows(W_h, k, n).T
        if o.get("layer_norm"):
            v = normalised(v, epsilon) * rows(p["ln_h" + at], k, n)
        return v

    def peep(gate, state):
        return p[f"p_{gate}{at}"] * state if o.get("peepholes") else 0

    def gates(wx, h, c):
        if cell == "min_gru":
            z, n = torch.sigmoid(from_x(wx, 0, 1)), g_(from_x(wx, 1, 1))
            step.gates = [z, n]
            return (1 - z) * h + z * n, None
        if cell == "min_lstm":
            f, i = torch.sigmoid(from_x(wx, 0, 1)), torch.sigmoid(from_x(wx, 1, 1))
            step.gates = [f / (f + i), i / (f + i), g_(from_x(wx, 2, 1))]
            return f / (f + i) * h + i / (f + i) * step.gates[2], None
        if cell == "rnn":
            step.gates = [f_(from_x(wx, 0, 1) + from_h(h, 0, 1))]
            return step.gates[0], None
        if is_lstm(o):
            a = list((from_x(wx, 0, GATES[cell]) + from_h(h, 0, GATES[cell])).chunk(GATES[cell], dim=1))
            if cell == "coupled_lstm":
                i = f_(a[0] + peep("i", c))
                f = 1 - i
            else:
                i, f = f_(a[0] + peep("i", c)), f_(a.pop(1) + peep("f", c))
            g = g_(a[1])
            new = f * c + i * g
            if cell_clip:
                new = torch.clamp(new, -cell_clip, cell_clip)
            gate = f_(a[2] + peep("o", new))
            step.gates = [i, g, gate] if cell == "coupled_lstm" else [i, f, g, gate]
            seen = new
            if o.get("layer_norm"):
                seen = normalised(new, epsilon) * p["ln_c" + at] + p["ln_s" + at]
            out = gate * h_(seen)
            return (out @ p["W_r" + at].T if o.get("projection") else out), new
        r, z = f_(from_x(wx, 0, 2) + from_h(h, 0, 2)).chunk(2, dim=1)
        if cell == "gru":
            n = g_(from_x(wx, 2, 1) + from_h(r * h, 2, 1))
        else:
            n = g_(from_x(wx, 2, 1) + r * (from_h(h, 2, 1) + p["b_n" + at]))
        step.gates = [r, z, n]
        return (1 - z) * n + z * h, None

    def zone(name, t, old, new):
        if not o.get(name):
            return new
        s = o[name] if inference else stay[name][t]
        return s * old + (1 - s) * new

    def step(t, wx, h, c, residual=None):
        new_h, new_c = gates(wx, h, c)
        new_h = new_h + o.get("skip", 0) * h
        if residual is not None:
            new_h = new_h + residual
        new_h = zone("zoneout_h", t, h, new_h)
        return new_h, (zone("zoneout_c", t, c, new_c) if c is not None else None)

    return step


def run_direction(o, p, l, d, x, lengths, masks, residual, clip_before_h=True):
    """y [T,B,P], h, c, c of all steps, their gates."""
    at = f".{l}.{d}"
    T, B = x.shape[:2]
    H, W_x = p["b" + at].shape[0] // GATES[o["cell"]], p["W_x" + at]
    h, c = p["h0" + at], p.get("c0" + at)
    step = stepper(o, p, at, T, B, masks, clip_before_h)
    y, all_c, gates = [None] * T, [None] * T, [None] * T
    for t in reversed(range(T)) if d else range(T):
        product = lambda k, n: x[t] @ W_x[k * H : (k + n) * H].T
        new_h, new_c = step(t, product, h, c, residual[t] if residual is not None else None)
        valid = torch.ones(B, 1, dtype=torch.bool) if lengths is None else (t < lengths)[:, None]
        y[t], h = torch.where(valid, new_h, torch.zeros_like(new_h)), torch.where(valid, new_h, h)
        gates[t] = torch.where(valid, torch.cat(step.gates, dim=1), 0.0)
        if c is not None:
            all_c[t], c = torch.where(valid, new_c, torch.zeros_like(new_c)), torch.where(valid, new_c, c)
    return torch.stack(y), h, c, torch.stack(all_c) if c is not None else None, torch.stack(gates)


def run(o, p, x, lengths=None, inside=False, **how):
    """{"y", "h_last.l.d", "c_last.l.d", "c_all.l.d"}; inside: also "x_all.l", "h_all.l.d", "gates.l.d", and every c_all."""
    masks, out, D = Masks(o), {}, 1 + o.get("bidirectional", 0)
    same, layers = bool(o.get("same_mask")), o.get("layers", 1)
    x = masks.dropout("input_dropout", x, same)
    for l in range(layers):
        P = p[f"h0.{l}.0"].shape[1]
        residual = o.get("residual", 0) if x.shape[2] == D * P else 0
        known = x if lengths is None else torch.where((torch.arange(len(x))[:, None] < lengths)[..., None], x, 0.0)
        ways = []
        for d in range(D):
            part = known[:, :, d * P : (d + 1) * P] if residual == 2 else None
            y, h, c, all_c, gates = run_direction(o, p, l, d, x, lengths, masks, part, **how)
            ways.append(y)
            out[f"h_last.{l}.{d}"] = h
            if c is not None:
                out[f"c_last.{l}.{d}"] = c
                if o.get("cells") or inside:
                    out[f"c_all.{l}.{d}"] = all_c
            if inside:
                out.update({f"x_all.{l}": x, f"h_all.{l}.{d}": y, f"gates.{l}.{d}": gates})
        y = torch.cat(ways, dim=2)
        x = y + known if residual == 1 else y
        if l + 1 < layers:
            x = masks.dropout("dropout", x, same)
    return {"y": masks.dropout("output_dropout", x, same), **out}


def _lstm(**more):
    return {"cell": "lstm", **more}


RAGGED_BOTH = {"bidirectional": 1, "ragged": 1}
CASES = {
    "lstm_peepholes": _lstm(peepholes=1, **RAGGED_BOTH),
    "lstm_projection": _lstm(projection=2, layers=2, bidirectional=1),
    "lstm_projection_ragged": _lstm(projection=2, layers=2, ragged=1),
    "lstm_cell_clip": _lstm(cell_clip=0.3, peepholes=1, ragged=1),
    "lstm_clip": _lstm(clip=0.4, peepholes=1, **RAGGED_BOTH),
    "lstm_cells": _lstm(cells=1, layers=2, **RAGGED_BOTH),
    "coupled_lstm": {"cell": "coupled_lstm", **RAGGED_BOTH},
    "coupled_lstm_peepholes": {"cell": "coupled_lstm", "peepholes": 1, "clip": 0.7, "ragged": 1},
    "lstm_activations": _lstm(f=("hard_sigmoid", 0.3, 0.4), g=("elu", 0.7, 0), h=("softsign", 0, 0), ragged=1),
    "lstm_activations_2": _lstm(f=("affine", 0.4, 0.5), g=("leaky_relu", 0.2, 0), h=("scaled_tanh", 1.2, 0.6),
                                ragged=1),
    "gru_activations": {"cell": "gru", "f": ("hard_sigmoid", 0.3, 0.4), "g": ("softplus", 0, 0), "clip": 0.9,
                        **RAGGED_BOTH},
    "gru_after_activations": {"cell": "gru_after", "f": ("softsign", 0, 0), "g": ("scaled_tanh", 0.8, 1.3), "clip": 0.9,
                              **RAGGED_BOTH},
    "lstm_layer_norm": _lstm(layer_norm=1, layers=2, **RAGGED_BOTH),
    "coupled_lstm_layer_norm": {"cell": "coupled_lstm", "layer_norm": 1, "layer_norm_epsilon": 0.01, "ragged": 1},
    "lstm_zoneout": _lstm(zoneout_h=0.25, zoneout_c=0.5, layers=2, **RAGGED_BOTH),
    "lstm_zoneout_inference": _lstm(zoneout_h=0.25, zoneout_c=0.5, dropout=0.5, weight_dropout=0.5, inference=1,
                                    layers=2, **RAGGED_BOTH),
    "lstm_skip": _lstm(skip=0.5, ragged=1),
    "dropouts": _lstm(input_dropout=0.25, dropout=0.5, output_dropout=0.125, weight_dropout=0.25, layers=2,
                      **RAGGED_BOTH),
    "dropouts_same": {"cell": "gru_after", "input_dropout": 0.25, "dropout": 0.5, "output_dropout": 0.125,
                      "same_mask": 1, "weight_dropout": 0.25, "state_dropout": 0.5, "layers": 2, **RAGGED_BOTH},
    "dropouts_inference": {"cell": "gru_after", "input_dropout": 0.25, "dropout": 0.5, "output_dropout": 0.125,
                           "same_mask": 1, "weight_dropout": 0.25, "state_dropout": 0.5, "layers": 2, "inference": 1},
    "residual_outputs": _lstm(residual=1, layers=2, I=8, **RAGGED_BOTH),
    "residual_outputs_narrow": {"cell": "gru", "residual": 1, "layers": 3, "ragged": 1},
    "residual_states": _lstm(residual=2, layers=2, I=8, **RAGGED_BOTH),
    "residual_states_narrow": {"cell": "rnn", "residual": 2, "layers": 2, "ragged": 1},
    "min_gru": {"cell": "min_gru", "layers": 2, **RAGGED_BOTH},
    "min_lstm": {"cell": "min_lstm", "layers": 2, **RAGGED_BOTH},
    "min_lstm_activation": {"cell": "min_lstm", "g": ("elu", 1, 0), "residual": 1, "layers": 2, "input_dropout": 0.25},
    "lstm_everything": _lstm(peepholes=1, projection=2, clip=1.5, cell_clip=0.8, layer_norm=1, zoneout_h=0.25,
                             zoneout_c=0.25, state_dropout=0.25, weight_dropout=0.125, input_dropout=0.125, dropout=0.25,
                             output_dropout=0.25, same_mask=1, skip=0.3, residual=2, cells=1, layers=2, I=4,
                             f=("hard_sigmoid", 0.25, 0.5), **RAGGED_BOTH),
    "gru_everything": {"cell": "gru", "clip": 1.5, "layer_norm": 1, "zoneout_h": 0.25, "state_dropout": 0.25,
                       "weight_dropout": 0.125, "input_dropout": 0.125, "dropout": 0.25, "output_dropout": 0.25,
                       "skip": -0.3, "residual": 2, "layers": 2, "I": 8, "g": ("leaky_relu", 0.3, 0), **RAGGED_BOTH},
    "gru_after_everything": {"cell": "gru_after", "clip": 1.5, "layer_norm": 1, "zoneout_h": 0.25,
                             "state_dropout": 0.25, "skip": 0.3, "residual": 1, "layers": 2, "I": 8,
                             "g": ("elu", 0.3, 0), **RAGGED_BOTH},
}
for _cell in ("rnn", "gru", "gru_after"):
    CASES[f"{_cell}_layer_norm"] = {"cell": _cell, "layer_norm": 1, **RAGGED_BOTH}
    CASES[f"{_cell}_zoneout"] = {"cell": _cell, "zoneout_h": 0.375, **RAGGED_BOTH}
    CASES[f"{_cell}_skip"] = {"cell": _cell, "skip": 0.375, "ragged": 1}
for _cell in ("rnn", "gru", "gru_after", "lstm"):
    CASES[f"{_cell}_state_dropout"] = {"cell": _cell, "state_dropout": 0.375, **RAGGED_BOTH}
for _name, _alpha, _beta in (("affine", 0.6, -0.2), ("leaky_relu", 0.3, 0), ("thresholded_relu", 0.2, 0),
                             ("scaled_tanh", 1.3, 0.7), ("hard_sigmoid", 0.4, 0.3), ("elu", 1.2, 0),
                             ("softsign", 0, 0), ("softplus", 0, 0), ("identity", 0, 0), ("modrelu", 0, 0),
                             ("sigmoid", 0, 0)):
    CASES[f"rnn_{_name}"] = {"cell": "rnn", "f": (_name, _alpha, _beta), "ragged": 1}


def by_onnx_runtime(o, p, x, lengths):
    """y, in f32, of a case that the operators of ONNX can say; else None."""
    allowed = {"cell", "ragged", "bidirectional", "clip", "peepholes", "f", "g", "h"}
    names = [o.get(k, ("",))[0] for k in "fgh"]
    if set(o) - allowed or o["cell"].startswith("min") or "identity" in names or "modrelu" in names:
        return None
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    cell, D = o["cell"], 1 + o.get("bidirectional", 0)
    H = p["h0.0.0"].shape[1]
    blocks = {"rnn": [0], "lstm": [0, 3, 1, 2], "coupled_lstm": [0, 2, 0, 1], "gru": [1, 0, 2], "gru_after": [1, 0, 2]}

    def gates(v):
        return torch.cat([v[k * H : (k + 1) * H] for k in blocks[cell]])

    def stack(make):
        return torch.stack([make(f".0.{d}") for d in range(D)]).detach().numpy().astype(np.float32)

    def bias(at):
        inner = torch.zeros(H * len(blocks[cell]), dtype=torch.float64)
        if cell == "gru_after":
            inner[2 * H :] = p["b_n" + at]
        return torch.cat([gates(p["b" + at]), inner])

    op = {"rnn": "RNN", "gru": "GRU", "gru_after": "GRU"}.get(cell, "LSTM")
    feed = {"X": x.detach().numpy().astype(np.float32), "W": stack(lambda at: gates(p["W_x" + at])),
            "R": stack(lambda at: gates(p["W_h" + at])), "B": stack(bias)}
    inputs = ["X", "W", "R", "B", "", "h0"]
    if lengths is not None:
        feed["lens"] = lengths.numpy().astype(np.int32)
        inputs[4] = "lens"
    feed["h0"] = stack(lambda at: p["h0" + at])
    if is_lstm(o):
        feed["c0"] = stack(lambda at: p["c0" + at])
        inputs.append("c0")
        if o.get("peepholes"):
            feed["P"] = stack(lambda at: torch.cat([p["p_" + g + at] if "p_" + g + at in p else p["p_i" + at]
                                                    for g in "iof"]))
            inputs.append("P")
    own = {"RNN": ["tanh"], "GRU": ["sigmoid", "tanh"], "LSTM": ["sigmoid", "tanh", "tanh"]}[op]
    chosen = [o.get(k) or (default, 0.0, 0.0) for k, default in zip("fgh", own)]
    attributes = {"hidden_size": H, "direction": "bidirectional" if D == 2 else "forward",
                  "activations": [ACTIVATIONS[a[0]][1] for a in chosen] * D}
    takes = {"affine": 2, "leaky_relu": 1, "thresholded_relu": 1, "scaled_tanh": 2, "hard_sigmoid": 2, "elu": 1}
    attributes["activation_alpha"] = [float(a[1]) for a in chosen if takes.get(a[0])] * D
    attributes["activation_beta"] = [float(a[2]) for a in chosen if takes.get(a[0]) == 2] * D
    if o.get("clip"):
        attributes["clip"] = float(o["clip"])
    if cell == "gru_after":
        attributes["linear_before_reset"] = 1
    if cell == "coupled_lstm":
        attributes["input_forget"] = 1
    attributes = {k: v for k, v in attributes.items() if v != []}
    node = helper.make_node(op, inputs, ["Y"], **attributes)
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
    graph = helper.make_graph([node], "one", [helper.make_tensor_value_info(k, kinds[v.dtype], v.shape)
                                              for k, v in feed.items()],
                              [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * 4)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    y = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[0]
    return torch.from_numpy(y).double().permute(0, 2, 1, 3).flatten(2)
