# SPDX-License-Identifier: Apache-2.0
"""PyTorch as the other side of a measurement; bench/peer.py says what it is asked and answers.

Also:
{"kind": "lm", "vocabulary", "embedding", "hidden", "layers", "steps", "batch", "seconds"}
    -> {"chars_per_s", "median_chars_per_s", "runs"}
A layer's request may have "precision": "float" or "half". Where things run is the one argument: cpu or cuda.
"""
import statistics
import sys

import torch

import peer

CELLS = {"lstm": torch.nn.LSTM, "gru_after": torch.nn.GRU, "rnn": torch.nn.RNN}
DEVICE = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
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
    peer.serve({"layer": layer, "lm": lm, "about": about})


if __name__ == "__main__":
    main()
