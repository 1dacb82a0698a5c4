# SPDX-License-Identifier: Apache-2.0
"""A recurrent language model in PyTorch with unroll's tensors, to hold a training run of unroll against; run by hand.

  train_reference.py --model M0.safetensors --text F... [--updates N] [--dtype float64] [--compare LOG.jsonl]

M0 is a model as unroll_lm_save writes it before its first update. Sizes, batches, optimizer, schedule, clipping and
vocabulary come from its metadata; an option given here goes before. The same updates are made as unroll would from
there, and each prints a JSON line {"update", "loss", "grad_norm", "lr"}. --compare holds the losses against those of a
log with such lines ("update", "loss"), prints the largest relative difference, and exits 1 where it is above
--tolerance. 200 updates without dropout must stay within 1e-3 of unroll's on every device; on cpu, with 2 layers of 48
units, T 32, B 16, every standard cell and every optimizer stays within 5e-7 of float32 and 2e-7 of float64. Windows that overlap
(update_steps), a curriculum, warm-up, L2, recurrent decay and frozen parameters are understood too, and every cell and option of
layers but what is drawn; tests/train_windows_test.c and tests/trainer_rnn_test.c have such numbers.

Tensors: embedding.weight [V,E], linear.W [V,P], linear.b [V], and after rnn. those of options.py.
"""

import argparse
import fnmatch
import json
import math
import sys
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F

import options


DRAWN = ("input_dropout", "weight_dropout", "state_dropout", "zoneout_h", "zoneout_c")


def cell_options(shape):
    """What options.py takes, of the metadata unroll.model."""
    o = {key: shape[key] for key in ("cell", "layers", "projection", "cell_clip", "skip", "layer_norm_epsilon") if key in shape}
    o.update({key: 1 for key in ("layer_norm", "peepholes") if shape.get(key) == "yes"})
    o["clip"] = shape.get("gate_clip", 0)
    o["residual"] = ("none", "outputs", "states").index(shape.get("residual", "none"))
    for key in "fgh":
        if shape.get(key, "default") != "default":
            o[key] = (shape[key], shape[f"{key}_alpha"], shape[f"{key}_beta"])
    return o


class CharLM:
    """shape: the metadata unroll.model. Weights are zeros until load() or until p is filled by hand."""

    def __init__(self, shape, dtype=torch.float64):
        self.o = cell_options(shape)
        vocab, embed, hidden = shape["vocabulary"], shape["embedding"], shape["hidden"]
        layers = options.shapes(self.o, embed, hidden)
        self.states = {name: size[1] for name, size in layers.items() if name[1:3] == "0."}
        width = self.o.get("projection") or hidden
        sizes = {"embedding.weight": (vocab, embed), "linear.W": (vocab, width), "linear.b": (vocab,)}
        sizes.update({f"rnn.{name}": size for name, size in layers.items() if name not in self.states})
        self.p = {name: torch.zeros(size, dtype=dtype, requires_grad=True) for name, size in sizes.items()}

    def load(self, path):
        """Reads every weight; one missing or of another shape is an error, other tensors are passed over."""
        stored = safetensors.torch.load_file(path)
        for name, param in self.p.items():
            if name not in stored or stored[name].shape != param.shape:
                raise ValueError(f"{path}: no {name} of shape {list(param.shape)}")
            with torch.no_grad():
                param.copy_(stored[name])

    def initial_state(self, batch):
        return {name: self.p["linear.W"].new_zeros(batch, width) for name, width in self.states.items()}

    def forward(self, ids, state):
        """ids [T,B] and the state before them give logits [T,B,V] and the state after them."""
        weights = {name.removeprefix("rnn."): param for name, param in self.p.items() if name.startswith("rnn.")}
        x = F.embedding(ids, self.p["embedding.weight"])
        out = options.run(self.o, {**weights, **state}, x)
        logits = F.linear(out["y"], self.p["linear.W"], self.p["linear.b"])
        return logits, {name: out[name.replace("0.", "_last.", 1)] for name in self.states}


def make_optimizer(params, o):
    """o: the options by unroll's names; rmsprop and sgd read beta2 and beta1 as their constant and momentum."""
    common = dict(lr=o["learning_rate"], weight_decay=o["weight_decay"])
    if o["optimizer"] == "sgd":
        return torch.optim.SGD(params, momentum=o["beta1"], **common)
    if o["optimizer"] == "rmsprop":
        return torch.optim.RMSprop(params, alpha=o["beta2"], eps=o["epsilon"], **common)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[o["optimizer"]]
    return kind(params, betas=(o["beta1"], o["beta2"]), eps=o["epsilon"], **common)


def learning_rate(o, update, epoch, warm_epoch):
    """Time-based and exponential by whole epochs, cosine by fractions; all from the warm-up's end on."""
    if update <= o.get("warmup", 0):
        return o["learning_rate"] * update / o["warmup"]
    epoch -= warm_epoch
    base, whole = o["learning_rate"], math.floor(epoch)
    if o["schedule"] == "time":
        return base / (1 + o["decay"] * whole)
    if o["schedule"] == "exponential":
        return base * o["decay"] ** whole
    if o["schedule"] == "cosine":
        half_wave = (1 + math.cos(math.pi * min(1, epoch / o["total"]))) / 2
        return o["minimum"] + (base - o["minimum"]) * half_wave
    return base


def batches(ids, o):
    """Endless (ids [T,B], targets [T,B], epoch before it, steps that the next batch begins after).

    As data.h cuts a text into streams. A target of -100 is ignored: what the window before it has counted. The last
    value is 0 where an epoch begins, whose state is zero.
    """
    batch, steps = o["batch"], o["steps"]
    length = (len(ids) - 1) // batch
    starts = torch.arange(batch) * length
    for epoch in range(2**31):
        window = min(steps, o["steps_start"] + epoch * o["steps_increment"]) if o.get("steps_start") else steps
        move = o.get("update_steps") or window
        updates = 1 + (length - window) // move
        for index in range(updates):
            at = starts + index * move + torch.arange(window)[:, None]
            targets = ids[at + 1]
            if index > 0:
                targets[: window - move] = -100
            yield ids[at], targets, epoch + index / updates, move if index > 0 else 0


def l2_of(o, name):
    """The first pattern that fits counts."""
    for pattern, number in (entry.split("=") for entry in o.get("l2", "").split(",") if entry):
        if fnmatch.fnmatchcase(name, pattern):
            return float(number)
    return 0


def train(model, stream, o):
    """One update for each batch of the stream; yields (mean loss before it, gradient's norm, learning rate).

    Truncated back-propagation: the state goes on from batch to batch, the gradient stops between them. Where a window
    moves on by less than its length, the state is the one after so many steps of the window before. Parts of a batch
    (accumulate) are the whole batch here. A loss is without its L2 penalty, the norm with it.
    """
    frozen = [pattern for pattern in o.get("freeze", "").split(",") if pattern]
    trained = {n: p for n, p in model.p.items() if not any(fnmatch.fnmatchcase(n, pattern) for pattern in frozen)}
    optimizer = make_optimizer(list(trained.values()), o)
    state, warm_epoch = None, 0
    move = o.get("update_steps") or None
    for update, (ids, targets, epoch, moved) in enumerate(stream, 1):
        if update == o.get("warmup", 0) + 1:
            warm_epoch = epoch
        state = {k: v.detach() for k, v in state.items()} if moved else model.initial_state(ids.shape[1])
        if move and move < len(ids):
            begin, carried = model.forward(ids[:move], state)
            end, _ = model.forward(ids[move:], carried)
            logits, state = torch.cat([begin, end]), carried
        else:
            logits, state = model.forward(ids, state)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        penalty = sum(l2_of(o, name) * (param**2).sum() for name, param in trained.items())
        optimizer.zero_grad()
        (loss + penalty).backward()
        norm = torch.nn.utils.clip_grad_norm_(list(trained.values()), o["clip"] or float("inf"))
        lr = learning_rate(o, update, epoch, warm_epoch)
        for group in optimizer.param_groups:
            group["lr"] = lr
        before = {name: param.detach().clone() for name, param in trained.items() if ".W_h." in name}
        optimizer.step()
        with torch.no_grad():
            for name, param in before.items():
                trained[name] -= o.get("recurrent_decay", 0) * param
        yield loss.item(), norm.item(), lr


def read_ids(paths, vocabulary, validation):
    """The part of the text that is trained on."""
    text = b"".join(Path(path).read_bytes() for path in paths).decode()
    place = {character: i for i, character in enumerate(vocabulary)}
    return torch.tensor([place[c] for c in text[: len(text) - int(len(text) * validation)]])


def read_losses(path):
    losses = {}
    for line in Path(path).read_text().splitlines():
        entry = json.loads(line)
        if "update" in entry and "loss" in entry:
            losses[entry["update"]] = entry["loss"]
    return losses


def arguments():
    parser = argparse.ArgumentParser(description="the updates of unroll's language model, in PyTorch")
    parser.add_argument("--model", required=True, help="a model that was saved before its first update")
    parser.add_argument("--text", required=True, nargs="+", help="the files it is to be trained on")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--compare", help="a log of unroll's, a JSON object a line")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="relative, for --compare")
    for name in ("steps", "batch"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("clip", "validation", "beta1", "beta2", "epsilon", "weight-decay", "decay", "minimum", "total"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--lr", type=float, dest="learning_rate")
    parser.add_argument("--optimizer", choices=("sgd", "rmsprop", "adam", "adamw"))
    parser.add_argument("--schedule", choices=("constant", "time", "exponential", "cosine"))
    return parser.parse_args()


def main():
    args = arguments()
    with safetensors.safe_open(args.model, "pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key.startswith("unroll.")}
    shape, o = json.loads(metadata["unroll.model"]), json.loads(metadata["unroll.training"])
    if json.loads(metadata["unroll.position"])["update"] != 0:
        sys.exit(f"{args.model}: it was trained already; the optimizer's states are not read, so begin at update 0")
    o.update({key: value for key, value in vars(args).items() if key in o and value is not None})
    if o["dropout"] > 0 or any(o.get(name, 0) for name in DRAWN):
        sys.exit(f"{args.model}: it has dropout or zoneout, whose masks PyTorch would draw otherwise")
    torch.set_num_threads(1)
    dtype = getattr(torch, args.dtype)
    model = CharLM(shape, dtype)
    model.load(args.model)
    ids = read_ids(args.text, json.loads(metadata["unroll.vocabulary"]), o["validation"])
    losses = read_losses(args.compare) if args.compare else {}
    worst, compared = (0, 0), 0
    steps = train(model, batches(ids, o), o)
    for update, (loss, norm, lr) in zip(range(1, args.updates + 1), steps):
        print(json.dumps({"update": update, "loss": loss, "grad_norm": norm, "lr": lr}), flush=True)
        if update in losses:
            compared += 1
            worst = max(worst, (abs(losses[update] - loss) / abs(loss), update))
    if args.compare:
        print(f"{compared} losses, largest relative difference {worst[0]:.2e} at update {worst[1]}", file=sys.stderr)
        if not compared or not worst[0] <= args.tolerance:
            sys.exit(1)


if __name__ == "__main__":
    main()
