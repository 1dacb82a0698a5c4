# SPDX-License-Identifier: Apache-2.0
"""The recurrent cells of unroll as plain PyTorch loops: what autograd needs and no more.

Tensors of layer l and direction d (0 forward, 1 backward), G gates, row blocks LSTM i f g o, GRU r z n:
  W_x.l.d [G*H,I]   W_h.l.d [G*H,H]   b.l.d [G*H]   b_n.l.d [H] (gru_after only)
  h0.l.d [B,H]   c0.l.d [B,H] (lstm only)
"""

import torch

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "rnn_sigmoid": 1, "lstm": 4, "gru": 3, "gru_after": 3}
ACTIVATIONS = {"rnn_tanh": torch.tanh, "rnn_relu": torch.relu, "rnn_sigmoid": torch.sigmoid}


def step(cell, W_h, b_n, pre, state):
    """One step. pre [B,G*H] = x W_xᵀ + b; state is (h,), of an LSTM (h, c); b_n is None but for gru_after."""
    h = state[0]
    if cell == "lstm":
        i, f, g, o = (pre + h @ W_h.T).chunk(4, dim=1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    if cell in ("gru", "gru_after"):
        H = h.shape[1]
        r, z = torch.sigmoid(pre[:, : 2 * H] + h @ W_h[: 2 * H].T).chunk(2, dim=1)
        inner = (r * h) @ W_h[2 * H :].T if cell == "gru" else r * (h @ W_h[2 * H :].T + b_n)
        n = torch.tanh(pre[:, 2 * H :] + inner)
        return ((1 - z) * n + z * h,)
    return (ACTIVATIONS[cell](pre + h @ W_h.T),)


def run_direction(cell, p, at, x, lengths):
    """One layer one way; at is "l.d". x [T,B,I], lengths [B] or None. Gives y [T,B,H] and the last state.

    Past its length a sequence's y is 0 and its state stands still. The reverse direction thereby starts at each
    sequence's own last step: at the later ones its state has not moved.
    """
    backward = at.endswith(".1")
    names = ("h0", "c0") if cell == "lstm" else ("h0",)
    state = tuple(p[f"{name}.{at}"] for name in names)
    pre = x @ p[f"W_x.{at}"].T + p[f"b.{at}"]
    y = [None] * len(x)
    for t in reversed(range(len(x))) if backward else range(len(x)):
        new = step(cell, p[f"W_h.{at}"], p.get(f"b_n.{at}"), pre[t], state)
        if lengths is None:
            y[t], state = new[0], new
        else:
            valid = (t < lengths)[:, None]
            y[t] = torch.where(valid, new[0], torch.zeros_like(new[0]))
            state = tuple(torch.where(valid, s, old) for s, old in zip(new, state))
    return torch.stack(y), state


def run_layers(cell, p, layers, directions, x, lengths=None):
    """All layers. Gives y [T,B,directions*H] and {"h_last.l.d", "c_last.l.d": [B,H]}."""
    last = {}
    for l in range(layers):
        ways = []
        for d in range(directions):
            y, state = run_direction(cell, p, f"{l}.{d}", x, lengths)
            ways.append(y)
            last.update({f"{name}.{l}.{d}": s for name, s in zip(("h_last", "c_last"), state)})
        x = torch.cat(ways, dim=2)
    return x, last
