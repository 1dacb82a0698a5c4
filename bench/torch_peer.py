# SPDX-License-Identifier: Apache-2.0
"""PyTorch as the other side of a measurement: a process that reads a JSON request per line and answers with one.

{"kind": "layer", "cell", "steps", "batch", "input", "hidden", "layers", "train", "seconds"}
    -> {"min_ms", "median_ms", "runs"}
{"kind": "lm", "vocabulary", "embedding", "hidden", "layers", "steps", "batch", "seconds"}
    -> {"chars_per_s", "median_chars_per_s", "runs"}
{"kind": "about"} -> {"version", "threads", "capability"}
"""
import json
import os
import statistics
import sys
import time

import torch

MIN_RUNS = 5
WARM_UP_RUNS = 2
CELLS = {"lstm": torch.nn.LSTM, "gru_after": torch.nn.GRU, "rnn": torch.nn.RNN}


def measure(run, seconds):
    """Times of single runs in ms: at least MIN_RUNS, for about so many seconds, after WARM_UP_RUNS that don't count."""
    for _ in range(WARM_UP_RUNS):
        run()
    times = []
    while len(times) < MIN_RUNS or sum(times) < seconds * 1e3:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def layer(request):
    """A stack of layers as `unroll bench layer` runs it; with "train" the gradients of input and parameters too."""
    torch.manual_seed(1)
    net = CELLS[request["cell"]](request["input"], request["hidden"], request["layers"])
    x = torch.randn(request["steps"], request["batch"], request["input"])
    if request["train"]:
        x.requires_grad_()
        dy = torch.randn(request["steps"], request["batch"], request["hidden"])

        def run():
            net.zero_grad(set_to_none=True)
            x.grad = None
            net(x)[0].backward(dy)
    else:
        net.eval()

        def run():
            with torch.inference_mode():
                net(x)

    times = measure(run, request["seconds"])
    return {"min_ms": min(times), "median_ms": statistics.median(times), "runs": len(times)}


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
    model = CharacterModel(vocabulary, request["embedding"], request["hidden"], request["layers"])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loss_of = torch.nn.CrossEntropyLoss()
    ids = torch.randint(vocabulary, (steps + 1, batch))
    zeros = torch.zeros(request["layers"], batch, request["hidden"])
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

    times = measure(run, request["seconds"])
    characters = steps * batch * 1e3
    return {"chars_per_s": characters / min(times), "median_chars_per_s": characters / statistics.median(times),
            "runs": len(times)}


def about(_):
    return {"version": torch.__version__, "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability()}


def main():
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    answers = {"layer": layer, "lm": lm, "about": about}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answers[request["kind"]](request)), flush=True)


if __name__ == "__main__":
    main()
