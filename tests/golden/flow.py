# SPDX-License-Identifier: Apache-2.0
"""Products of Jacobians over steps by torch.func.jacrev, their singular values by NumPy, and the gradients of states.

The layers are the loops of cells.py, from states of zeros. README.md says what is in the files.
"""

import itertools

import numpy as np
import torch

from cells import GATES, step

T, B, I, H, LAYERS, D = 7, 3, 2, 3, 2, 2
LENGTHS = [7, 4, 6]


def parameters(cell, randn):
    G, p = GATES[cell], {}
    for l, d in itertools.product(range(LAYERS), range(D)):
        p[f"W_x.{l}.{d}"] = randn(G * H, D * H if l else I, scale=0.7)
        p[f"W_h.{l}.{d}"] = randn(G * H, H, scale=0.7)
        p[f"b.{l}.{d}"] = randn(G * H, scale=0.4)
        if cell == "gru_after":
            p[f"b_n.{l}.{d}"] = randn(H, scale=0.4)
    return p


def order(d, length):
    """A sequence's steps as a direction takes them."""
    return range(length - 1, -1, -1) if d else range(length)


def advance(cell, p, at, x, steps, state):
    """The state [N], h and of an LSTM c behind it, after these steps of one sequence; x [T,I]."""
    parts = tuple(state[None].split(H, 1))
    for t in steps:
        parts = step(cell, p[f"W_h.{at}"], p.get(f"b_n.{at}"), x[t][None] @ p[f"W_x.{at}"].T + p[f"b.{at}"], parts)
    return torch.cat(parts, 1)[0]


def through(cell, p, x, taps):
    """y of the stack, every layer's input, and the sum of the last layer's last states h. To each step's state its tap is
    added: first of h, then of c."""
    inputs = []
    for l in range(LAYERS):
        inputs.append(x)
        ways, last = [], 0
        for d in range(D):
            rows = []
            for b, length in enumerate(LENGTHS):
                state = tuple(torch.zeros(1, H, dtype=torch.float64) for _ in range(2 if cell == "lstm" else 1))
                y = [torch.zeros(H, dtype=torch.float64)] * T
                for t in order(d, length):
                    pre = x[t, b][None] @ p[f"W_x.{l}.{d}"].T + p[f"b.{l}.{d}"]
                    state = step(cell, p[f"W_h.{l}.{d}"], p.get(f"b_n.{l}.{d}"), pre, state)
                    state = tuple(s + taps[k][l, d, t, b] for k, s in enumerate(state))
                    y[t] = state[0][0]
                last = last + state[0].sum()
                rows.append(torch.stack(y))
            ways.append(torch.stack(rows, 1))
        x = torch.cat(ways, 2)
    return x, inputs, last


def case(folder, cell, random_source, write):
    name = f"flow_{cell}"
    randn = random_source(name)
    p, x, dy = parameters(cell, randn), randn(T, B, I), randn(T, B, D * H)
    parts = 2 if cell == "lstm" else 1
    taps = [torch.zeros(LAYERS, D, T, B, H, dtype=torch.float64).requires_grad_() for _ in range(parts)]
    y, inputs, last = through(cell, p, x, taps)
    losses = {"norm": (y * dy).sum(), "last": last}
    grads = {loss: torch.autograd.grad(value, taps, retain_graph=True) for loss, value in losses.items()}
    N = parts * H
    J = torch.zeros(LAYERS, D, B, T - 1, N, N, dtype=torch.float64)  # lag k at k - 1; 0 where a sequence has no such lag
    sigma = torch.zeros(LAYERS, D, B, T - 1, N, dtype=torch.float64)
    for l, d, (b, length) in itertools.product(range(LAYERS), range(D), enumerate(LENGTHS)):
        steps, at, seen = list(order(d, length)), f"{l}.{d}", inputs[l].detach()[:, b]
        for lag in range(1, length):
            before = advance(cell, p, at, seen, steps[: length - lag], torch.zeros(N, dtype=torch.float64))
            after = lambda s: advance(cell, p, at, seen, steps[length - lag :], s)
            J[l, d, b, lag - 1] = torch.func.jacrev(after)(before)
            sigma[l, d, b, lag - 1] = torch.from_numpy(np.linalg.svd(J[l, d, b, lag - 1].numpy(), compute_uv=False))
    tensors = {**p, "x": x, "dy": dy, "lengths": torch.tensor(LENGTHS, dtype=torch.int32), "J": J, "sigma": sigma}
    tensors.update({f"{loss}.{part}": g.norm(dim=-1) for loss, of in grads.items() for part, g in zip("hc", of)})
    kind, _, activation = cell.partition("_") if cell.startswith("rnn") else (cell, "", "tanh")
    write(folder, name, tensors, cell=kind, activation=activation, layers=LAYERS, bidirectional=D - 1, T=T, B=B, I=I, H=H)


def make(folder, random_source, write):
    for cell in ("rnn_tanh", "rnn_relu", "rnn_sigmoid", "lstm", "gru", "gru_after"):
        case(folder, cell, random_source, write)
