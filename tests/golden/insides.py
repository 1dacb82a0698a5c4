# SPDX-License-Identifier: Apache-2.0
"""What goes on inside of layers with options, for inference: gates and states of every step, and Jacobians of a step by
torch.func. Every case of options.py, and the standard cells without options."""

import torch

import options

T, B, H, LENGTHS = 4, options.B_OF_STATES, 3, [2, 0, 4]
PLAIN = {name: {"cell": name, **options.RAGGED_BOTH} for name in ("rnn", "lstm", "gru", "gru_after")}


def for_inference(o):
    return {**{k: v for k, v in o.items() if "dropout" not in k and k not in ("same_mask", "cells")}, "inference": 1}


def jacobian(o, p, l, d, x, state):
    """The state after a step from `state`, h and c one behind the other, and its Jacobian."""
    at = f".{l}.{d}"
    P, D = p["h0" + at].shape[1], 1 + o.get("bidirectional", 0)
    W_x, c_too = p["W_x" + at], "c0" + at in p
    rows = W_x.shape[0] // options.GATES[o["cell"]]
    residual = x[None, d * P : (d + 1) * P] if o.get("residual") == 2 and len(x) == D * P else None

    def step(s):
        product = lambda k, n: x[None] @ W_x[k * rows : (k + n) * rows].T
        take = options.stepper(o, p, at, 1, 1, options.Masks(o))
        h, c = take(0, product, s[None, :P], s[None, P:] if c_too else None, residual)
        return torch.cat([h[0], c[0]]) if c_too else h[0]

    forward, backward = torch.func.jacfwd(step)(state), torch.func.jacrev(step)(state)
    assert (forward - backward).abs().max() < 1e-13
    return step(state), forward


def case(folder, name, o, random_source, write):
    o, randn = for_inference(o), random_source(f"inside_{name}")
    x = randn(T, B, {8: 2 * H, 4: 4}.get(o.get("I"), 2))
    lengths = torch.tensor(LENGTHS) if o.get("ragged") else None
    p = {}
    for key, shape in options.shapes(o, x.shape[2], H).items():
        p[key] = torch.zeros(*shape, dtype=torch.float64) if key[:2] in ("h0", "c0") else randn(*shape, scale=0.7)
        if key.startswith("ln_") and not key.startswith("ln_s"):
            p[key] += 1
    results = options.run(o, p, x, lengths, inside=True)
    tensors = {"x": x, **{k: v for k, v in p.items() if k[:2] not in ("h0", "c0")},
               **{k: v for k, v in results.items() if k.split(".")[0] in ("x_all", "h_all", "c_all", "gates")}}
    for l in range(o.get("layers", 1)):
        for d in range(1 + o.get("bidirectional", 0)):
            n = p[f"h0.{l}.{d}"].shape[1] + (H if options.is_lstm(o) else 0)
            inputs, state = randn(results[f"x_all.{l}"].shape[2]), randn(n, scale=0.7)
            next_state, J = jacobian(o, p, l, d, inputs, state)
            tensors.update({f"map_x.{l}.{d}": inputs, f"map_state.{l}.{d}": state, f"map_next.{l}.{d}": next_state,
                            f"jacobian.{l}.{d}": J})
    if lengths is not None:
        tensors["lengths"] = lengths.int()
    described = {"layers": 1, "bidirectional": 0, **options.metadata({k: v for k, v in o.items() if k != "I"})}
    code = described.pop("cell")
    write(folder, f"inside_{name}", tensors, cell=code, T=T, B=B, I=x.shape[2], H=H, source="loop, torch.func",
          **described)


def make(folder, random_source, write):
    for name, o in {**PLAIN, **options.CASES}.items():
        case(folder, name, o, random_source, write)
