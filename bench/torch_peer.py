# SPDX-License-Identifier: Apache-2.0
"""PyTorch as the other side of a measurement; bench/peer.py says what it is asked and answers.

Also:
{"kind": "lm", "vocabulary", "embedding", "hidden", "layers", "steps", "batch", "seconds"}
    -> {"chars_per_s", "median_chars_per_s", "runs"}
{"kind": "update", "cell", "dtype", "steps", "batch", "input", "hidden", "layers", "seconds"}
    -> {"update", "norms"}: ms of a training update; and of one that also has the norms of the gradients of all states
{"kind": "lyapunov", "hidden", "steps", "every", "transient"} -> {"seconds", "largest"}
A layer's request may have "precision": "float" or "half". Where things run is the one argument: cpu or cuda.
"""
import statistics
import sys
import time

import numpy
import torch

import peer

LOOP_CELLS = {"lstm": torch.nn.LSTMCell, "gru_after": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}
CELLS = {"lstm": torch.nn.LSTM, "gru_after": torch.nn.GRU, "rnn": torch.nn.RNN}
DEVICE = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
DTYPES = {"f32": torch.float32, "f64": torch.float64}
TYPES = {"float": torch.float32, "half": torch.float16}


def finish():
    """A GPU computes behind the program's back: a run ends when it has."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)


def layer(request):
    """A stack of layers as `unroll bench layer` runs it; with "train" the gradients of input and parameters too."""
    torch.manual_seed(1)
    kind = TYPES[request.get("precision", "float")]
    x, layers = peer.weights(request)
    net = CELLS[request["cell"]](request["input"], request["hidden"], request["layers"])
    with torch.no_grad():
        for k, parts in enumerate(layers):
            for name, value in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), parts):
                getattr(net, f"{name}_l{k}").copy_(torch.from_numpy(value))
    net, x = net.to(DEVICE, kind), torch.from_numpy(x).to(DEVICE, kind)
    if DEVICE.type == "cuda":
        net.flatten_parameters()
    if request["train"]:
        x.requires_grad_()
        dy = torch.randn(request["steps"], request["batch"], request["hidden"]).to(DEVICE, kind)

        def run():
            net.zero_grad(set_to_none=True)
            x.grad = None
            net(x)[0].backward(dy)
            finish()

        return peer.answer_of(peer.measure(run, request["seconds"]))
    net.eval()

    def run():
        with torch.inference_mode():
            y = net(x)[0]
        finish()
        return y

    y = run().float().cpu().numpy() if request["layers"] == 1 else None
    return peer.answer_of(peer.measure(run, request["seconds"]), y)


class CharacterModel(torch.nn.Module):
    def __init__(self, vocabulary, embedding, hidden, layers):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, embedding)
        self.lstm = torch.nn.LSTM(embedding, hidden, layers)
        self.linear = torch.nn.Linear(hidden, vocabulary)

    def forward(self, ids, state):
        y, state = self.lstm(self.embedding(ids), state)
        return self.linear(y), state


def lm(request):
    """Truncated BPTT as `unroll train lm` does it: the state goes on, the norm of all gradients is at most 1, Adam."""
    torch.manual_seed(1)
    vocabulary, steps, batch = request["vocabulary"], request["steps"], request["batch"]
    model = CharacterModel(vocabulary, request["embedding"], request["hidden"], request["layers"]).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loss_of = torch.nn.CrossEntropyLoss()
    ids = torch.randint(vocabulary, (steps + 1, batch)).to(DEVICE)
    zeros = torch.zeros(request["layers"], batch, request["hidden"], device=DEVICE)
    state = (zeros, zeros)

    def run():
        nonlocal state
        optimizer.zero_grad(set_to_none=True)
        logits, (h, c) = model(ids[:-1], state)
        state = (h.detach(), c.detach())
        loss = loss_of(logits.reshape(-1, vocabulary), ids[1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    times = peer.measure(run, request["seconds"])
    characters = steps * batch * 1e3
    return {"chars_per_s": characters / min(times), "median_chars_per_s": characters / statistics.median(times),
            "runs": len(times)}


def through_cells(cells, x):
    """y, and every layer's states at every step, whose gradients are kept: a layer hides them, so its cells run one by one."""
    layers, rows = [], x.unbind()
    for cell in cells:
        state, states = None, []
        for row in rows:
            state = cell(row, state)
            states.append(state[0] if isinstance(state, tuple) else state)
            states[-1].retain_grad()
        rows = states
        layers.append(states)
    return torch.stack(rows), layers


def update(request):
    torch.manual_seed(1)
    dtype, hidden = DTYPES[request["dtype"]], request["hidden"]
    widths = [request["input"]] + [hidden] * (request["layers"] - 1)
    net = CELLS[request["cell"]](request["input"], hidden, request["layers"]).to(DEVICE, dtype)
    cells = [LOOP_CELLS[request["cell"]](width, hidden).to(DEVICE, dtype) for width in widths]
    x = torch.randn(request["steps"], request["batch"], request["input"]).to(DEVICE, dtype)
    dy = torch.randn(request["steps"], request["batch"], hidden).to(DEVICE, dtype)

    def descend(parameters):
        with torch.no_grad():
            for p in parameters:
                p -= 1e-3 * p.grad
                p.grad = None
        finish()

    def plain():
        (net(x)[0] * dy).sum().backward()
        descend(net.parameters())

    def with_norms():
        y, layers = through_cells(cells, x)
        (y * dy).sum().backward()
        norms = [torch.stack([h.grad for h in states]).norm(dim=2).mean(1).tolist() for states in layers]
        descend([p for cell in cells for p in cell.parameters()])
        return norms

    seconds = request["seconds"] / 2
    return {"update": min(peer.measure(plain, seconds)), "norms": min(peer.measure(with_norms, seconds))}


def uniforms(n):
    """Those of bench/lyapunov_lstm.c."""
    word, numbers = 1, numpy.empty(n)
    for i in range(n):
        word = (word * 6364136223846793005 + 1442695040888963407) % 2**64
        numbers[i] = 2 * ((word >> 11) * 2.0**-53) - 1
    return torch.from_numpy(numbers)


def lyapunov(request):
    """All exponents of an LSTM without input, in double: tangents by torch.func.jvp, one a column, and torch.linalg.qr."""
    hidden = request["hidden"]
    W_h, b, state = (uniforms(4 * hidden * hidden + 6 * hidden) / hidden**0.5).split(
        [4 * hidden * hidden, 4 * hidden, 2 * hidden])
    W_h, b[hidden : 2 * hidden] = W_h.reshape(4 * hidden, hidden), 1

    def step(s):
        h, c = s.chunk(2)
        i, f, g, o = (W_h @ h + b).chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c), c])

    def along(column):
        return torch.func.jvp(step, (state,), (column,))

    advance = torch.func.vmap(along, in_dims=1, out_dims=(None, 1))
    Q, logs = torch.eye(2 * hidden, dtype=torch.float64), 0
    with torch.no_grad():
        advance(Q)  # what is made once
        start = time.perf_counter()
        for _ in range(request["transient"]):
            state = step(state)
        for t in range(request["steps"]):
            state, Q = advance(Q)
            if (t + 1) % request["every"] == 0 or t + 1 == request["steps"]:
                Q, R = torch.linalg.qr(Q)
                logs = logs + R.diagonal().abs().log()
    return {"seconds": time.perf_counter() - start, "largest": (logs / request["steps"]).max().item()}


def about(_):
    told = {"version": torch.__version__, "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability()}
    if DEVICE.type == "cuda":
        told["capability"] = f"{torch.cuda.get_device_name(DEVICE)}, cuDNN {torch.backends.cudnn.version()}"
    return told


def main():
    torch.set_num_threads(peer.threads())
    # float means float32 on both sides: not the 19 bits that a GPU's matrix units take for it.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    peer.serve({"layer": layer, "lm": lm, "update": update, "lyapunov": lyapunov, "about": about})


if __name__ == "__main__":
    main()
