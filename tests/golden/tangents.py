# SPDX-License-Identifier: Apache-2.0
"""Derivatives along a direction by torch.func.jvp, and products of Hessians with one by torch.func.jvp of torch.func.grad.

CASES are those of tests/support/gradcheck_*.c and of tests/tangent_golden_test.c, by name: their inputs in the order in which
these are made, and what is made of them. README.md says what is in the files.
"""

import torch
import torch.nn.functional as F

from philox import uniforms

SEED = 77  # of the runs' masks
LENGTHS = [4, 0, 2]


def real(*shape, lo=-1.0, hi=1.0, name=None, along=True):
    """Numbers from lo to hi. along: a direction leads through them."""
    return {"shape": shape, "lo": lo, "hi": hi, "name": name, "along": along}


def data(*shape, **more):
    return real(*shape, along=False, **more)


def ids(values):
    return torch.tensor(values, dtype=torch.int32)


def norm(x, gain, shift, epsilon):
    return F.layer_norm(x, x.shape[-1:], gain, shift, epsilon)


# ---- ops by themselves ----


def selected(x, y, z):
    never, always = x == z, x != z
    return [torch.where(x > z, x, y), torch.where(x <= y, x * z, z), torch.where(~(z < x), y, z),
            torch.where(never, y, torch.where(always, z, x)), (x >= z).double() * x]


def ce_rows(x, targets):
    rows = -F.log_softmax(x, -1).gather(-1, targets.long().clamp(min=0)[..., None])[..., 0]
    return torch.where(targets >= 0, rows, torch.zeros_like(rows))


def cross_entropy(targets, x):
    rows = ce_rows(x, targets)
    return [rows, rows.sum() / (targets >= 0).sum()]


def clip(a, b):
    return [torch.clamp(0.7 / (torch.sqrt((a * a).sum() + (b * b).sum()) + 1e-6), max=1.0)]


def top_k(x):
    values, chosen = torch.tanh(x).topk(3)
    return [values, (x * x).gather(-1, chosen)]


def scan(steps, reverse, lengths, carries, body):
    """body(t, *carries) -> the next carries, outputs; as unroll_scan has lengths."""
    out = [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        after, y = body(t, *carries)
        if lengths is not None:
            keep = lambda new, old: torch.where((t < lengths).reshape(-1, *[1] * (new.dim() - 1)), new, old)
            after = [keep(n, o) for n, o in zip(after, carries)]
            y = [keep(v, torch.zeros_like(v)) for v in y]
        carries, out[t] = after, y
    return [torch.stack(y) for y in zip(*out)], carries


def linear_scans(reverse):
    def one(a, b, h0, n):
        y, last = scan(len(a), reverse, n, [h0], lambda t, h: ([a[t] * h + b[t]],) * 2)
        return y[0], last[0]

    def run(a, x, h0, n=None):
        y, last = one(torch.tanh(a), x, h0, n)
        return [torch.tanh(y), last, one(a, a * x, torch.zeros_like(h0), n)[0], one(x, a, h0, n)[1]]

    return run


def reversed_rows(x, n):
    at = torch.stack([torch.tensor([m - 1 - t if t < m else t for m in n.tolist()]) for t in range(len(x))])
    return x[at, torch.arange(x.shape[1])[None]]


def batched(*given):
    out = []
    for k in range(4):
        x, y, c = given[3 * k : 3 * k + 3]
        product = (x.mT if k > 1 else x) @ (y.mT if k % 2 else y)
        out += [product + c] if k % 2 else [product, torch.tanh(c)]
    return out


def tied_weights(tokens, table, bias):
    return [torch.tanh(table[tokens.long()]) @ table.T + bias]


def lstm_gates(pre, c, gain=None, shift=None):
    i, f, g, o = pre.chunk(4, -1)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    new = f * c + i * g
    return [o * torch.tanh(new if gain is None else norm(new, gain, shift, 0.05)), new, torch.cat([i, f, g, o], -1)]


def gru_after_gates(xp, hp, h):
    (xr, xz, xn), (hr, hz, hn) = xp.chunk(3, -1), hp.chunk(3, -1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    n = torch.tanh(xn + r * hn)
    return [(1 - z) * n + z * h, torch.cat([r, z, n, hn], -1)]


def gru_gates(pre, x, h):
    rz = torch.sigmoid(pre)
    r, z = rz.chunk(2, -1)
    n = torch.tanh(x + r * h)
    return [rz, (1 - z) * n + z * h, r * h, n]


X = real(3, 4)
ROWS = real(2, 3, 5)
BINARY = [real(*shape, lo=0.4, hi=2) for shape in ((2, 3, 4), (2, 3, 4), (3, 4), (2, 3, 1), (1, 4), ())]
SEQUENCE = [real(4, 3, 2, lo=-0.9, hi=1.2), real(4, 3, 2, hi=1.3), real(3, 2)]
CUBE = real(2, 3, 4, hi=1.3)


def unary(f, lo=-1.0, hi=1.0):
    return [real(3, 4, lo=lo, hi=hi)], lambda x: [f(x)]


def binary(f):
    return BINARY, lambda x, same, row, column, line, one: [f(x, same), f(x, row), f(column, line), f(one, x), f(row, one)]


def reduced(f):
    return [CUBE], lambda x: [f(x, (1,), False), f(x, (0, 2), True), f(x, (0, 1, 2), False)]


CASES = {
    "unary_copy": unary(lambda x: x),
    "unary_neg": unary(torch.neg),
    "unary_abs": unary(torch.abs),
    "unary_sign": ([X], lambda x: [torch.sign(x) * x, torch.sign(x)]),
    "unary_exp": unary(torch.exp),
    "unary_log": unary(torch.log, 0.2, 2),
    "unary_expm1": unary(torch.expm1),
    "unary_log1p": unary(torch.log1p, -0.6, 2),
    "unary_sqrt": unary(torch.sqrt, 0.2, 2),
    "unary_reciprocal": unary(torch.reciprocal, 0.3, 2),
    "unary_square": unary(torch.square),
    "unary_tanh": unary(torch.tanh),
    "unary_sigmoid": unary(torch.sigmoid, -2, 2),
    "unary_relu": unary(torch.relu),
    "binary_add": binary(torch.add),
    "binary_sub": binary(torch.sub),
    "binary_mul": binary(torch.mul),
    "binary_div": binary(torch.div),
    "binary_max": binary(torch.maximum),
    "binary_min": binary(torch.minimum),
    "binary_same_operand": ([X], lambda x: [x * x, x + x - 0.5 * x]),
    "select": ([CUBE, real(3, 1), CUBE], selected),
    "reduce_sum": reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "reduce_sum_squares": reduced(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)),
    "reduce_max": reduced(lambda x, axes, keep: torch.amax(x, axes, keepdim=keep)),
    "reduce_min": reduced(lambda x, axes, keep: torch.amin(x, axes, keepdim=keep)),
    "softmax": ([ROWS], lambda x: [torch.softmax(x, -1)]),
    "log_softmax": ([ROWS], lambda x: [torch.log_softmax(x, -1)]),
    "cross_entropy": ([ids([[0, 4, -1], [2, 2, -7]]), ROWS], cross_entropy),
    "mse": ([real(2, 5), real(2, 5)], lambda x, y: [((x - y) ** 2).mean(), 0.5 * ((x - y) ** 2).sum()]),
    "clip": ([real(2, 5), real(3)], clip),
    "embedding": ([real(4, 5), ids([[3, 0, 3], [2, 0, 3]])], lambda table, i: [table[i.long()]]),
    "gather": ([real(2, 4), ids([[3, 0, 3], [2, 1, 1]])], lambda x, i: [torch.tanh(x).gather(-1, i.long())]),
    "top_k": ([ROWS], top_k),
    "layer_norm": ([real(2, 3, 5, hi=1.5), real(5, lo=0.3, hi=1.2), real(5), ROWS, real(5, hi=1.5)],
                   lambda x, gain, shift, full, one: [
                       norm(torch.tanh(x), gain, shift, 0.01), norm(x, torch.tanh(gain), None, 0.1) + full,
                       norm(x, shift, None, 0.1), norm(full, gain, gain, 0.1), norm(one, gain, shift, 0.01)]),
    "linear_scan_forward": (SEQUENCE, linear_scans(False)),
    "linear_scan_reverse": (SEQUENCE, linear_scans(True)),
    "linear_scan_ragged": ([*SEQUENCE, ids(LENGTHS)], linear_scans(False)),
    "linear_scan_ragged_reverse": ([*SEQUENCE, ids(LENGTHS)], linear_scans(True)),
    "slice_and_pad": ([real(4, 3, 5)], lambda x: [
        x[1:3], x[:, 2:3], x[:, :, :3], torch.tanh(F.pad(x, (0, 0, 0, 0, 1, 0))), F.pad(x, (0, 2, 2, 1))]),
    "concat": ([real(2, 3, 4), real(2, 1, 4)], lambda x, y: [
        torch.cat([x, y, x], 1), torch.cat([x, torch.tanh(x)], 0), torch.cat([y, y], 2)]),
    "transpose_and_reshape": ([CUBE], lambda x: [
        x.permute(2, 0, 1), x.reshape(4, 6).T, torch.tanh(x.reshape(24))]),
    "reverse_and_length_mask": ([real(4, 3, 2), ids(LENGTHS)], lambda x, n: [
        reversed_rows(x, n), torch.where((torch.arange(4)[:, None] < n)[..., None], torch.tanh(x), 0.0)]),
    "cast": ([X], lambda x: [torch.tanh(x)]),
    "dropout": ([real(4, 3, 5)], lambda x: [torch.tanh(x) * (uniforms(SEED, 0, 0, 4, 3, 5) >= 0.4) / (1 - 0.4)]),
    "matmul": ([real(3, 4), real(4, 5), real(4, 3), real(5, 4), real(5), real(3, 5)],
               lambda x, y, xt, yt, row, full: [x @ y, x @ yt.T + row, xt.T @ y + full, xt.T @ yt.T, x @ x.T]),
    "matmul_of_sequences": ([real(2, 3, 4), real(5, 4), real(5), real(2, 3, 5)],
                            lambda x, W, row, full: [x @ W.T + row, x @ W.T + full]),
    "matmul_batched": ([r for k in range(4) for r in (
        real(2, 4, 3) if k > 1 else real(2, 3, 4), real(2, 5, 4) if k % 2 else real(2, 4, 5),
        real(5) if k > 1 else real(2, 3, 5))], batched),
    "tied_weights": ([ids([[1, 0], [3, 3], [2, 1]]), real(5, 4, name="embed.weight"), real(5, name="head.b")],
                     tied_weights),
    "gates_lstm": ([real(2, 12, hi=1.2), real(2, 3, hi=1.2)], lstm_gates),
    "gates_lstm_norm": ([real(2, 12, hi=1.2), real(2, 3, hi=1.2), real(3, lo=0.4, hi=1.3), real(3)], lstm_gates),
    "gates_gru_after": ([real(2, 9, hi=1.2), real(2, 9, hi=1.2), real(2, 3)], gru_after_gates),
    "gates_gru": ([real(2, 6, hi=1.2), real(2, 3, hi=1.2), real(2, 3)], gru_gates),
}

# ---- recurrences with a body of their own ----

T, B, I, H = 4, 3, 2, 3


def elman(reverse, last_only=False):
    def run(x, h0, W_x, W_h, bias, n=None):
        y, last = scan(T, reverse, n, [h0], lambda t, h: ([torch.tanh(h @ W_h.T + x[t] @ W_x + bias)],) * 2)
        return last if last_only else [y[0], last[0]]

    return run


def coupled_lstm(x, W, bias, h0, c0):
    def step(t, h, c):
        f, g, o = (torch.cat([x[t], h], 1) @ W.T + bias).chunk(3, 1)
        new = torch.sigmoid(f) * c + (1 - torch.sigmoid(f)) * torch.tanh(g)
        out = torch.sigmoid(o) * torch.tanh(new)
        return [out, new], [out]

    y, last = scan(T, False, None, [h0, c0], step)
    return [y[0], last[1]]


def captured_rows(x, c0, p, q, r, low, high, n):
    def step(t, c):
        gate = torch.sigmoid(p * c + x[t] - q)
        new = gate * c + torch.minimum(torch.maximum(x[t], low), high) / r
        return [new], [r / (new * new + r)]

    return scan(T, False, n, [c0], step)[0]


def captured_others(x, h0, full, line, one, left, row, column, c):
    def step(t, h):
        mixed = left @ (x[t] + line) + c
        new = torch.tanh(full * h + one * mixed + column[t] * row + full * full)
        return [new], [new]

    y, last = scan(T, False, None, [h0], step)
    return [y[0], last[0]]


def tied_weight(x, h0, W):
    def step(t, h):
        new = torch.tanh(h @ W.T + x[t] @ W + torch.tanh(h) @ (W @ W))
        return [new], [new]

    return [scan(T, True, None, [h0], step)[0][0] @ W]


def embedding_in_body(table, h0, n, tokens):
    def step(t, h):
        new = torch.tanh(0.5 * h + table[tokens[t].long()])
        return [new], [new]

    return scan(T, False, n, [h0], step)[0]


def greedy_decoder(table, h0, W, start):
    def step(t, h, token):
        new = torch.tanh(table[token.long()] + 0.7 * h)
        logits = new @ W.T
        return [new, logits.argmax(-1)], [logits]

    return scan(T, False, None, [h0, start], step)[0]


def attention(memory, h0, x, W, b):
    def step(t, h):
        weights = torch.softmax((h @ W.T + b)[:, None] @ memory.mT, -1)
        new = torch.tanh((weights @ memory)[:, 0] + x[t])
        return [new], [new, weights.mT]

    return scan(T, False, None, [h0], step)[0]


def layer_norm_in_steps(x, h0, c0, W, gain, gain_c, shift_c):
    def step(t, h, c):
        h, c, _ = lstm_gates(norm(h @ W.T, gain, None, 0.05) + x[t], c, gain_c, shift_c)
        return [h, c], [h, norm(h, gain_c, shift_c, 0.05)]

    y, last = scan(T, True, None, [h0, c0], step)
    return [*y, last[1]]


def unusual_edges(x, row, a, c, still, d, e):
    def step(t, a, c, still, d, e):
        both = torch.tanh(d * x[t] + e * still)
        return [c, a, still, both, both], [a, x[t], both, both, row, still]

    y, last = scan(T, False, None, [a, c, still, d, e], step)
    return [*y, last[1] * last[4]]


def two_scans(x, h0, W):
    y, last = x, h0
    for reverse in (False, True):
        def step(t, h, y=y, captured=last):
            new = torch.tanh(h @ W + captured * y[t])
            return [new], [new]

        (y,), (last,) = scan(T, reverse, None, [last], step)
    return [y, last]


def many_ops(x, h0, targets):
    def step(t, h):
        total, most, square = x[t].sum(1), torch.amax(x[t], 1), (x[t] * x[t]).sum(1)
        chosen = torch.where(total > h, most * h, square)
        part = x[t].reshape(B, H, 2).permute(0, 2, 1)[:, 1]
        wide = F.pad(h[:, 1:], (0, 1))
        new = torch.tanh(chosen + part + torch.log_softmax(wide, -1) + wide)
        return [new], [ce_rows(new, targets[t])]

    return scan(T, False, None, [h0], step)[0]


def run_time_steps(x, w, h0, W, full, row):
    def step(t, h):
        new = torch.tanh(h @ W.T + row + full * x[t])
        return [new], [new * row]

    y, last = scan(len(x), True, None, [h0], step)
    return [(y[0] * w).sum(), last[0]]


ELMAN = [real(T, B, I), real(B, H), real(I, H), real(H, H), real(H)]
STATE, ROW = real(B, H), real(H)
CASES |= {
    "forward": (ELMAN, elman(False)),
    "reverse": (ELMAN, elman(True)),
    "ragged": ([*ELMAN, ids(LENGTHS)], elman(False)),
    "ragged_reverse": ([*ELMAN, ids(LENGTHS)], elman(True)),
    "last_only": ([*ELMAN, ids(LENGTHS)], elman(False, last_only=True)),
    "coupled_lstm": ([real(T, B, I), real(3 * H, I + H), real(3 * H), STATE, STATE], coupled_lstm),
    "captured_rows": ([real(T, B, H, lo=0.2), real(B, H, lo=0.2), real(H, lo=0.5), ROW, real(H, lo=0.5, hi=2),
                       real(H, lo=0.1), real(H, lo=0.3), ids(LENGTHS)], captured_rows),
    "captured_others": ([real(T, B, H), STATE, STATE, real(1, H), real(lo=0.5), real(B, B), ROW, data(T, B, 1), STATE],
                        captured_others),
    "tied_weight": ([real(T, B, H), STATE, real(H, H)], tied_weight),
    "embedding_in_body": ([real(5, H), STATE, ids(LENGTHS),
                           ids([[1, 0, 3], [3, 3, 2], [1, 1, 0], [4, 2, 2]])], embedding_in_body),
    "greedy_decoder": ([real(5, H), STATE, real(5, H), ids([0, 1, 2])], greedy_decoder),
    "attention": ([real(B, 3, H), STATE, real(T, B, H), real(H, H, name="query.W"), real(H, name="query.b")], attention),
    "layer_norm_in_steps": ([real(T, B, 4 * H), STATE, STATE, real(4 * H, H), real(4 * H, lo=0.4, hi=1.3),
                             real(H, lo=0.4, hi=1.3), ROW], layer_norm_in_steps),
    "unusual_edges": ([real(T, B, H), STATE, STATE, STATE, STATE, STATE, STATE], unusual_edges),
    "two_scans": ([real(T, B, H), STATE, real(H, H)], two_scans),
    "many_ops": ([real(T, B, 2, H), STATE, ids([[0, 1, -1], [2, 2, 0], [1, 0, -1], [2, 1, 0]])], many_ops),
    "run_time_steps": ([real(3, B, H), data(3, B, H), STATE, real(H, H), STATE, ROW], run_time_steps),
}

# Where a gradient is an op of its own that has no tangent, there is no product with a Hessian to be had.
NO_HESSIAN = {"layer_norm", "layer_norm_in_steps", "linear_scan_forward", "linear_scan_reverse", "linear_scan_ragged",
              "linear_scan_ragged_reverse", "gates_lstm", "gates_lstm_norm", "gates_gru_after", "gates_gru"}


def one_number(x):
    return x.reshape(1) if x.dim() == 0 else x


def derivatives(f, leaves, tangents, weights):
    """{"jvp.RESULT"} of f(leaves) -> {result}, and {"hvp.LEAF"} of the sum of weights times squares of results."""
    _, along = torch.func.jvp(lambda p: f(p), (leaves,), (tangents,))
    out = {f"jvp.{name}": v for name, v in along.items()}
    if weights is not None:
        loss = lambda p: sum((weights[name] * r * r).sum() for name, r in f(p).items())
        _, second = torch.func.jvp(torch.func.grad(loss), (leaves,), (tangents,))
        out.update({f"hvp.{name}": v for name, v in second.items()})
    return out


def op_case(name, generator):
    spec, f = CASES[name]
    fixed, leaves, tangents, order = {}, {}, {}, []
    for k, s in enumerate(spec):
        at = (s["name"] if isinstance(s, dict) else None) or f"x{k}"
        order.append(at)
        if not isinstance(s, dict):
            fixed[at] = s
            continue
        value = s["lo"] + (s["hi"] - s["lo"]) * torch.rand(s["shape"], generator=generator, dtype=torch.float64)
        if name in ("reduce_max", "reduce_min"):
            edge = s["hi"] if name == "reduce_max" else s["lo"]
            value[0, :, 1] = value[1, 2, 3] = edge  # equals share what flows
        if s["along"]:
            leaves[at] = value
            tangents[at] = torch.randn(s["shape"], generator=generator, dtype=torch.float64)
        else:
            fixed[at] = value
    run = lambda p: dict(enumerate(f(*[p[at] if at in p else fixed[at] for at in order])))
    results = run(leaves)
    weights = None
    if name not in NO_HESSIAN:
        weights = {k: torch.randn(r.shape, generator=generator, dtype=torch.float64) for k, r in results.items()}
    out = {**fixed, **leaves, **{f"t.{at}": v for at, v in tangents.items()}, **{f"w.{k}": w for k, w in (weights or {}).items()},
           **derivatives(run, leaves, tangents, weights)}
    return {f"{name}.{at}": one_number(v) for at, v in out.items()}


# ---- stacks of recurrent layers ----

# Of stacks that are made of elementary ops alone: with peepholes, clipping, coupled gates and other activations.
HESSIANS = {f"cell_{name}" for name in (
    "coupled_lstm", "coupled_lstm_peepholes", "gru_activations", "gru_after_activations", "lstm_activations",
    "lstm_activations_2", "lstm_cell_clip", "lstm_clip", "lstm_peepholes", "rnn_affine", "rnn_elu", "rnn_hard_sigmoid",
    "rnn_identity", "rnn_leaky_relu", "rnn_modrelu", "rnn_scaled_tanh", "rnn_skip", "rnn_softplus", "rnn_softsign",
    "rnn_thresholded_relu")}


def stack(folder, write, generator, file, values, run):
    """Of layers whose values are in a file of theirs: directions and what these lead to."""
    randn_as = lambda named: {at: torch.randn(v.shape, generator=generator, dtype=torch.float64) for at, v in named.items()}
    tangents, weights = randn_as(values), None
    out = {f"t.{at}": v for at, v in tangents.items()}
    if file in HESSIANS:
        weights = randn_as(run(values))
        out.update({f"w.{at}": v for at, v in weights.items()})
    write(folder, f"tangent_{file}", {**out, **derivatives(run, values, tangents, weights)})


def make(folder, generator_of, write, stacks):
    """stacks: {file: (values, run(values) -> {result})}."""
    generator, tensors = generator_of("tangent_ops"), {}
    for name in CASES:
        tensors.update(op_case(name, generator))
    write(folder, "tangent_ops", tensors, seed=SEED)
    for file, (values, run) in stacks.items():
        stack(folder, write, generator_of(f"tangent_{file}"), file, values, run)
