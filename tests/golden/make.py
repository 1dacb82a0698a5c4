# SPDX-License-Identifier: Apache-2.0
"""Makes the golden files of this folder with PyTorch in float64. README.md says what is in them.

Usage: make.py [DIR]     writes *.safetensors into DIR, by default this folder
"""

import os

# The same code path whatever the processor's vector width: with another one the last bits differ.
os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ["MKL_CBWR"] = "COMPATIBLE"

import itertools
import json
import math
import struct
import sys
import zlib
from pathlib import Path

import safetensors.numpy
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import flow
import insides
import options
import sequences
import tangents
from cells import GATES, run_layers

T, B, I, H = 7, 4, 3, 5
LENGTHS = {"full": None, "ragged": [4, 2, 7, 1], "empty": [4, 0, 7, 1]}
MODULES = {  # the cells that torch.nn has; the written loop is held against these
    "rnn_tanh": lambda *a, **k: torch.nn.RNN(*a, nonlinearity="tanh", **k),
    "rnn_relu": lambda *a, **k: torch.nn.RNN(*a, nonlinearity="relu", **k),
    "lstm": torch.nn.LSTM,
    "gru_after": torch.nn.GRU,
}
LOOP_TOLERANCE = 1e-12
STACKS = {(2, 2, "ragged"), (1, 2, "empty")}  # of plain layers, whose tangents are made as well


def generator_of(name):
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def random_source(name):
    """A randn of its own for each file, so that adding a file leaves the others as they were."""
    generator = generator_of(name)
    return lambda *shape, scale=1.0: torch.randn(*shape, generator=generator, dtype=torch.float64) * scale


def write(folder, name, tensors, **metadata):
    """Writes one file. The safetensors package orders metadata at random; here equal content gives equal bytes."""
    codes = {torch.float64: "F64", torch.int32: "I32"}
    header = {"__metadata__": {"torch": torch.__version__.split("+")[0], **{k: str(v) for k, v in metadata.items()}}}
    data = b""
    for key in sorted(tensors, key=lambda k: (tensors[k].dtype == torch.int32, k)):  # wide types first: all aligned
        tensor = tensors[key].detach().contiguous()
        raw = tensor.numpy().astype(tensor.numpy().dtype.newbyteorder("<")).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[key] = {"dtype": codes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = folder / f"{name}.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    back = safetensors.numpy.load_file(path)
    assert back.keys() == tensors.keys()
    assert all((back[k] == tensors[k].detach().numpy()).all() for k in back), name


def layer_inputs(cell, layers, directions, randn):
    """Random x and, for each layer and direction, weights and an initial state."""
    G, p = GATES[cell], {"x": randn(T, B, I)}
    for l, d in itertools.product(range(layers), range(directions)):
        p[f"W_x.{l}.{d}"] = randn(G * H, I if l == 0 else directions * H, scale=0.4)
        p[f"W_h.{l}.{d}"] = randn(G * H, H, scale=0.4)
        p[f"b.{l}.{d}"] = randn(G * H, scale=0.4)
        if cell == "gru_after":
            p[f"b_n.{l}.{d}"] = randn(H, scale=0.4)
        p[f"h0.{l}.{d}"] = randn(B, H, scale=0.4)
        if cell == "lstm":
            p[f"c0.{l}.{d}"] = randn(B, H, scale=0.4)
    return p


def gradients(p, results, upstream):
    """{"grad.name"} of L = the sum of every result times its upstream gradient."""
    loss = sum((result * upstream[f"d{name}"]).sum() for name, result in results.items())
    found = torch.autograd.grad(loss, list(p.values()))
    return {f"grad.{name}": g for name, g in zip(p, found)}


def by_loop(cell, layers, directions, values, lengths, upstream):
    p = {name: value.clone().requires_grad_() for name, value in values.items()}
    y, last = run_layers(cell, p, layers, directions, p["x"], lengths)
    results = {"y": y, **last}
    return {**results, **gradients(p, results, upstream)}


def by_module(cell, layers, directions, values, lengths, upstream):
    """The same from torch.nn. Its second bias is 0 but for b_n. It takes no empty sequence: those rows stay out."""
    at = [(l, d) for l in range(layers) for d in range(directions)]
    module = MODULES[cell](I, H, layers, bidirectional=directions == 2).double()
    with torch.no_grad():
        for l, d in at:
            end = f"l{l}" + ("_reverse" if d else "")
            getattr(module, f"weight_ih_{end}").copy_(values[f"W_x.{l}.{d}"])
            getattr(module, f"weight_hh_{end}").copy_(values[f"W_h.{l}.{d}"])
            getattr(module, f"bias_ih_{end}").copy_(values[f"b.{l}.{d}"])
            inner = getattr(module, f"bias_hh_{end}").zero_()
            if cell == "gru_after":
                inner[2 * H :] = values[f"b_n.{l}.{d}"]
    leaves = {name: values[name].clone().requires_grad_() for name in values if name[:2] in ("x", "h0", "c0")}
    rows = torch.arange(B) if lengths is None else torch.nonzero(lengths > 0).flatten()
    state = [torch.stack([leaves[f"{s}.{l}.{d}"][rows] for l, d in at]) for s in ("h0", "c0") if f"{s}.0.0" in leaves]
    state = tuple(state) if cell == "lstm" else state[0]
    x = leaves["x"][:, rows]
    if lengths is None:
        y, state = module(x, state)
    else:
        packed, state = module(pack_padded_sequence(x, lengths[rows], enforce_sorted=False), state)
        y, _ = pad_packed_sequence(packed, total_length=T)
    results = {"y": torch.zeros(T, B, directions * H, dtype=torch.float64).index_copy(1, rows, y)}
    for s, stacked in zip(("h", "c"), state if cell == "lstm" else (state,)):
        for (l, d), part in zip(at, stacked):
            results[f"{s}_last.{l}.{d}"] = leaves[f"{s}0.{l}.{d}"].index_copy(0, rows, part)
    weights = dict(module.named_parameters())
    found = gradients({**leaves, **weights}, results, upstream)
    for l, d in at:
        end = f"l{l}" + ("_reverse" if d else "")
        found[f"grad.W_x.{l}.{d}"] = found.pop(f"grad.weight_ih_{end}")
        found[f"grad.W_h.{l}.{d}"] = found.pop(f"grad.weight_hh_{end}")
        found[f"grad.b.{l}.{d}"] = found.pop(f"grad.bias_ih_{end}")
        inner = found.pop(f"grad.bias_hh_{end}")
        if cell == "gru_after":
            found[f"grad.b_n.{l}.{d}"] = inner[2 * H :].clone()
    return {**results, **found}


def layer(folder, stacks, cell, layers, directions, kind):
    """Gives the largest difference between the loop and torch.nn, 0 where torch.nn has no such cell."""
    name = f"layer_{cell}_{layers}x_{'bi' if directions == 2 else 'uni'}_{kind}"
    randn = random_source(name)
    values = layer_inputs(cell, layers, directions, randn)
    lengths = None if LENGTHS[kind] is None else torch.tensor(LENGTHS[kind])
    # Upstream gradients past a sequence's end are random too: nothing may depend on them.
    upstream = {"dy": randn(T, B, directions * H)}
    for s, l, d in itertools.product("hc" if cell == "lstm" else "h", range(layers), range(directions)):
        upstream[f"d{s}_last.{l}.{d}"] = randn(B, H)
    results = by_loop(cell, layers, directions, values, lengths, upstream)
    difference = 0.0
    if cell in MODULES:
        loop, results = results, by_module(cell, layers, directions, values, lengths, upstream)
        assert loop.keys() == results.keys(), loop.keys() ^ results.keys()
        difference = max((loop[k] - results[k]).abs().max().item() for k in results)
        assert difference < LOOP_TOLERANCE, f"{name}: loop and torch.nn differ by {difference}"
    tensors = {**values, **upstream, **results}
    if lengths is not None:
        tensors["lengths"] = lengths.int()
    if (layers, directions, kind) in STACKS:

        def run(p):
            y, last = run_layers(cell, p, layers, directions, p["x"], lengths)
            return {"y": y, **last}

        stacks[name] = (values, run)
    kind_of_cell, _, activation = cell.partition("_") if cell.startswith("rnn") else (cell, "", "")
    write(folder, name, tensors, cell=kind_of_cell, activation=activation or "tanh", layers=layers,
          bidirectional=directions - 1, T=T, B=B, I=I, H=H, source="torch.nn" if cell in MODULES else "loop")
    return difference


def by_projected_module(o, p, x):
    """y of torch.nn.LSTM with proj_size; its second bias is 0."""
    module = torch.nn.LSTM(x.shape[2], CELL_H, o["layers"], bidirectional=bool(o.get("bidirectional")),
                           proj_size=o["projection"]).double()
    at = list(itertools.product(range(o["layers"]), range(1 + o.get("bidirectional", 0))))
    for l, d in at:
        end = f"l{l}" + ("_reverse" if d else "")
        getattr(module, f"bias_hh_{end}").data.zero_()
        for theirs, ours in (("weight_ih", "W_x"), ("weight_hh", "W_h"), ("bias_ih", "b"), ("weight_hr", "W_r")):
            getattr(module, f"{theirs}_{end}").data.copy_(p[f"{ours}.{l}.{d}"])
    return module(x, tuple(torch.stack([p[f"{s}.{l}.{d}"] for l, d in at]) for s in ("h0", "c0")))[0]


CELL_T, CELL_B, CELL_I, CELL_H, CELL_LENGTHS = 5, options.B_OF_STATES, 2, 4, [3, 0, 5]


def cell_with_options(folder, stacks, name):
    """Gives which other implementations the loop was held against."""
    o, randn = options.CASES[name], random_source(f"cell_{name}")
    x = randn(CELL_T, CELL_B, o.get("I", CELL_I))
    lengths = torch.tensor(CELL_LENGTHS) if o.get("ragged") else None
    values = {"x": x}
    for key, shape in options.shapes(o, x.shape[2], CELL_H).items():
        values[key] = randn(*shape, scale=0.6)
        if key.startswith("ln_") and not key.startswith("ln_s"):
            values[key] += 1
    p = {key: v.clone().requires_grad_() for key, v in values.items()}
    results = options.run(o, p, p["x"], lengths)
    upstream = {f"d{key}": randn(*v.shape) for key, v in results.items()}
    held = []
    whole = options.by_onnx_runtime({k: v for k, v in o.items() if k != "I"}, p, x, lengths)
    if whole is not None:  # it does not clip before h
        loop = options.run(o, p, x, lengths, clip_before_h=False)["y"]
        difference = (loop - whole).abs().max()
        assert difference < 1e-5, f"{name}: loop and ONNX Runtime differ by {difference}"
        held.append("ONNX Runtime")
    if set(o) <= {"cell", "projection", "layers", "bidirectional"} and o.get("projection"):
        difference = (by_projected_module(o, p, x) - results["y"]).abs().max()
        assert difference < LOOP_TOLERANCE, f"{name}: loop and torch.nn differ by {difference}"
        held.append("torch.nn")
    tensors = {**values, **upstream, **results, **gradients(p, results, upstream)}
    if lengths is not None:
        tensors["lengths"] = lengths.int()
    stacks[f"cell_{name}"] = (values, lambda v: options.run(o, v, v["x"], lengths))
    metadata = {"layers": 1, "bidirectional": 0, **options.metadata(o)}
    code = metadata.pop("cell")
    write(folder, f"cell_{name}", tensors, cell=code, T=CELL_T, B=CELL_B, I=x.shape[2], H=CELL_H, seed=options.SEED,
          update=options.UPDATE, source="loop", **metadata)
    return held


def losses(folder):
    randn = random_source("losses")
    logits = randn(6, 5, scale=2.0).requires_grad_()
    targets = torch.tensor([3, 0, -1, 4, 4, 1])
    out = {"logits": logits, "targets": targets.int()}
    for reduction in ("mean", "sum"):
        loss = F.cross_entropy(logits, targets, ignore_index=-1, reduction=reduction)
        out[f"cross_entropy.{reduction}"] = loss.reshape(1)
        out[f"grad.cross_entropy.{reduction}"] = torch.autograd.grad(loss, logits)[0]
    rows = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")
    prediction, wanted = randn(4, 3).requires_grad_(), randn(4, 3)
    out.update({"mse.prediction": prediction, "mse.target": wanted})
    square = {kind: F.mse_loss(prediction, wanted, reduction=kind) for kind in ("mean", "sum")}
    square["half_sum"] = 0.5 * F.mse_loss(prediction, wanted, reduction="sum")
    for name, loss in square.items():
        out[f"mse.{name}"] = loss.reshape(1)
        out[f"grad.mse.{name}"] = torch.autograd.grad(loss, prediction)[0]
    squares = F.mse_loss(prediction, wanted, reduction="none")
    for name, loss, x in (("cross_entropy", rows, logits), ("mse", squares, prediction)):
        out[f"{name}.none"], out[f"d.{name}.none"] = loss, randn(*loss.shape)
        out[f"grad.{name}.none"] = torch.autograd.grad(loss, x, out[f"d.{name}.none"])[0]
    write(folder, "losses", out, ignore_index=-1)


def layer_norm(folder):
    """torch.nn.functional.layer_norm over rows of 9; in x the rows of the second step lie far from 0, of small spread."""
    randn, epsilon = random_source("layer_norm"), 1e-3
    x, gain, shift, dy = randn(4, 3, 9), 1 + randn(9, scale=0.3), randn(9), randn(4, 3, 9)
    x[1] = 20 + 0.5 * x[1]
    leaves = [t.requires_grad_() for t in (x, gain, shift)]
    y = F.layer_norm(x, (9,), gain, shift, epsilon)
    grads = torch.autograd.grad((y * dy).sum(), leaves)
    out = {"x": x, "gain": gain, "shift": shift, "dy": dy, "y": y}
    out.update({f"grad.{name}": g for name, g in zip(("x", "gain", "shift"), grads)})
    write(folder, "normalisation", out, epsilon=epsilon)


def optimizers(folder):
    cases = {
        "sgd": (torch.optim.SGD, dict(lr=0.1)),
        "sgd_momentum": (torch.optim.SGD, dict(lr=0.1, momentum=0.9)),
        "sgd_weight_decay": (torch.optim.SGD, dict(lr=0.1, weight_decay=0.01)),
        "sgd_momentum_weight_decay": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.01)),
        "rmsprop": (torch.optim.RMSprop, dict(lr=0.01, alpha=0.99, eps=1e-8)),
        "adam": (torch.optim.Adam, dict(lr=0.01, betas=(0.9, 0.999), eps=1e-8)),
        "adamw": (torch.optim.AdamW, dict(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)),
    }
    randn = random_source("optimizers")
    start, grads = randn(3, 4), randn(5, 3, 4)
    grads[:2, 0, 1] = 0.0  # an element that no gradient has reached yet: only eps keeps its update finite
    out, metadata = {"grads": grads}, {}
    for name, (make, options) in cases.items():
        param = start.clone().requires_grad_()
        optimizer, after = make([param], foreach=False, **options), []
        for grad in grads:
            param.grad = grad.clone()
            optimizer.step()
            after.append(param.detach().clone())
        out[f"{name}.param0"], out[f"{name}.params"] = start, torch.stack(after)
        for option, value in options.items():
            pairs = zip(("beta1", "beta2"), value) if option == "betas" else [(option, value)]
            metadata.update({f"{name}.{key}": v for key, v in pairs})
    write(folder, "optimizers", out, **metadata)


def clip(folder):
    randn = random_source("clip")
    grads = [randn(3, 4), randn(5), randn(2, 2, 3)]
    out = {f"grad.{k}": g for k, g in enumerate(grads)}
    for name, max_norm in (("above", 1.0), ("below", 100.0)):
        params = [torch.zeros_like(g).requires_grad_() for g in grads]
        for param, g in zip(params, grads):
            param.grad = g.clone()
        out[f"{name}.norm"] = torch.nn.utils.clip_grad_norm_(params, max_norm, foreach=False).reshape(1)
        out[f"{name}.max_norm"] = torch.tensor([max_norm], dtype=torch.float64)
        out.update({f"{name}.clipped.{k}": param.grad for k, param in enumerate(params)})
    write(folder, "clip", out, eps=1e-6)


def dense(folder):
    V, E, hidden, classes = 7, 3, 5, 6
    randn = random_source("dense")
    p = {"embedding.weight": randn(V, E)}
    for name, rows, columns in (("linear1", hidden, E), ("linear2", classes, hidden)):
        p.update({f"{name}.W": randn(rows, columns, scale=0.4), f"{name}.b": randn(rows, scale=0.4)})
    for value in p.values():
        value.requires_grad_()
    ids = torch.tensor([[2, 6, 2], [0, 5, 2], [6, 1, 1], [4, 0, 6]])  # some repeat, 3 is never used: its gradient is 0
    targets = torch.tensor([[1, 5, 0], [2, 2, -1], [3, 0, 4], [5, 1, 2]])
    embedded = F.embedding(ids, p["embedding.weight"])
    h = torch.tanh(F.linear(embedded, p["linear1.W"], p["linear1.b"]))
    logits = F.linear(h, p["linear2.W"], p["linear2.b"])
    inner = {"embedded": embedded, "hidden": h, "logits": logits}
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
    found = torch.autograd.grad(loss, [*p.values(), *inner.values()])
    out = {**p, **inner, "loss": loss.reshape(1), "ids": ids.int(), "targets": targets.int()}
    out.update({f"grad.{name}": g for name, g in zip([*p, *inner], found)})
    write(folder, "dense", out, V=V, E=E, H=hidden, classes=classes, T=4, B=3, activation="tanh", ignore_index=-1)


def schedules(folder):
    """Learning rates of epochs 0 to 10."""
    lr, gamma, epochs, eta_min = 0.1, 0.9, 10, 0.001
    cases = {
        "exponential": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma),
        "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, epochs, eta_min),
    }
    out = {}
    for name, make in cases.items():
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
        schedule, rates = make(optimizer), []
        for _ in range(epochs + 1):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        out[name] = torch.tensor(rates, dtype=torch.float64)
    # PyTorch goes from each rate to the next; the closed forms must say the same.
    k = torch.arange(epochs + 1, dtype=torch.float64)
    half_wave = (1 + torch.cos(math.pi * k / epochs)) / 2
    closed = {"exponential": lr * gamma**k, "cosine": eta_min + (lr - eta_min) * half_wave}
    assert all((out[name] - closed[name]).abs().max() < 1e-15 for name in cases)
    write(folder, "schedules", out, lr=lr, gamma=gamma, T_max=epochs, eta_min=eta_min)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    cases = list(itertools.product(GATES, (1, 2), (1, 2), ("full", "ragged")))
    cases += [(cell, 1, 2, "empty") for cell in GATES]
    stacks = {}
    worst = max(layer(folder, stacks, *case) for case in cases)
    held = {name: cell_with_options(folder, stacks, name) for name in options.CASES}
    tangents.make(folder, generator_of, write, stacks)
    for make in (losses, layer_norm, optimizers, clip, dense, schedules):
        make(folder)
    sequences.make(folder, random_source, write)
    flow.make(folder, random_source, write)
    insides.make(folder, random_source, write)
    files = list(folder.glob("*.safetensors"))
    size = sum(f.stat().st_size for f in files)
    for other in ("ONNX Runtime", "torch.nn"):
        print(f"held against {other}: {', '.join(name for name in held if other in held[name])}")
    print(f"{len(files)} files, {size} bytes; loop and torch.nn differ by at most {worst:.1e}")


if __name__ == "__main__":
    main()
