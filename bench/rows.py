# SPDX-License-Identifier: Apache-2.0
"""The workloads, what each has to reach, and what the machine allows."""

GATES = {"rnn": 1, "lstm": 4, "gru_after": 3}
LM = {"embedding": 128, "hidden": 128, "layers": 2, "steps": 50, "batch": 50}
LM_NAME = "character model"
LINEAR_SCAN_NAME = "linear_scan T4096 B8 N1536"  # bench/linear_scan.c
CHECKPOINTS_NAME = "checkpoints LSTM T1000 B16 I256 H256"  # bench/checkpoints.c
OPTIONS_NAME = "options LSTM T50 B64 I256 H256"  # bench/layer_options.c
# bench/gradient_flow.c: T, B, I, H; and bench/lyapunov_lstm.c: H, steps, and how many of them to a decomposition
FLOW_NAME = "diagnosis, gradient flow T100 B32 I32 H128"
FLOW_SIZES, QUICK_FLOW_SIZES = (100, 32, 32, 128), (50, 16, 32, 64)
LYAPUNOV_NAME = "diagnosis, Lyapunov spectrum of an LSTM H256"
LYAPUNOV_SIZES, QUICK_LYAPUNOV_SIZES = (256, 1000, 10), (128, 200, 10)
# Of published counts: forward steps of 1000, with so many states kept (Gruslys et al. 2016).
CHECKPOINT_STEPS = {"2": 29820, "5": 7284, "10": 4636, "20": 3747, "50": 2948}
QUICK_MAX_FLOPS = 5e9

# Speeds relative to a peer's: above 1 is faster. The floor of a row is what the geometric mean must not hide.
MEAN_TARGET = 1.2
BEST_PEER_TARGET = 0.8
FLOOR = 0.9
LM_TARGET = 1.0
PEAK_TARGET = 0.75
# Times relative to those without: at most.
CHECKPOINT_TARGET = 1.4
# What a look takes, in updates; and seconds.
LOOK_TARGETS = {"norms": 2, "sigma": 60}
LYAPUNOV_TARGET = 60
OPTION_TARGETS = {"variational": 1.1, "recurrent": 1.1, "zoneout": 1.1, "layer_norm": 1.25}

# cell, T, B, I, H, layers, train; GRU is the one that PyTorch has, with the reset after the product.
ROWS = [
    ("lstm", 25, 1, 512, 512, 1, False),
    ("lstm", 25, 1, 1024, 1024, 1, False),
    ("lstm", 25, 16, 512, 512, 1, False),
    ("lstm", 100, 1, 256, 256, 1, False, {"floor": 0.75}),
    ("lstm", 50, 64, 256, 256, 1, False),
    ("lstm", 50, 64, 1024, 1024, 1, False),
    ("gru_after", 25, 1, 512, 512, 1, False),
    ("gru_after", 50, 64, 512, 512, 1, False),
    ("rnn", 50, 64, 512, 512, 1, False),
    ("lstm", 128, 32, 64, 128, 1, False),
    ("lstm", 1, 1, 512, 512, 1, False),
    ("lstm", 50, 64, 256, 256, 1, True),
    ("lstm", 64, 32, 128, 512, 2, True),
    ("lstm", 25, 64, 512, 512, 1, True),
    ("gru_after", 50, 64, 256, 256, 1, True),
    ("rnn", 50, 64, 256, 256, 1, True),
    ("lstm", 100, 16, 64, 128, 1, True),
]

# On a GPU, against cuDNN: the same, in a precision, with a target of its own each, a time in ms or a ratio.
GPU_ROWS = [
    ("lstm", 1024, 16, 768, 768, 1, False, {"precision": "half", "target_ms": 2.0}),
    ("lstm", 300, 1, 1024, 1024, 1, False, {"precision": "float", "target": 2.0}),
    ("gru_after", 1500, 32, 1024, 1024, 1, False, {"precision": "half", "target": 1.5}),
    ("lstm", 50, 8, 1536, 1536, 1, False, {"precision": "half", "target": 1.5}),
    ("lstm", 25, 128, 2048, 2048, 1, False, {"precision": "half", "target": 0.7}),
]


class Row:
    def __init__(self, cell, steps, batch, inputs, hidden, layers, train, more=None):
        self.cell, self.steps, self.batch, self.input, self.hidden = cell, steps, batch, inputs, hidden
        self.layers, self.train = layers, train
        self.more = {"precision": "float", **(more or {})}
        self.times, self.medians = {}, {}  # side -> ms of each round, of the fastest run and in the middle
        self.fallbacks, self.precisions = {}, {}

    @property
    def name(self):
        cell = self.cell.split("_", maxsplit=1)[0].upper() + (f" x{self.layers}" if self.layers > 1 else "")
        return (f"{cell} T{self.steps} B{self.batch} I{self.input} H{self.hidden}"
                f"{'' if self.more['precision'] == 'float' else ' ' + self.more['precision']}"
                f"{', training' if self.train else ''}")

    def request(self):
        """What every side is asked."""
        return {"cell": self.cell, "steps": self.steps, "batch": self.batch, "input": self.input,
                "hidden": self.hidden, "layers": self.layers, "train": self.train,
                "precision": self.more["precision"]}

    def widths(self):
        """Rows of W_h, and the widths of what each layer reads."""
        return GATES[self.cell] * self.hidden, [self.input] + [self.hidden] * (self.layers - 1)

    @property
    def flops(self):
        rows, widths = self.widths()
        return (3 if self.train else 1) * sum(2 * self.steps * self.batch * rows * (w + self.hidden) for w in widths)

    def limit(self, limits):
        """The shortest possible time in ms, and what sets it: the multiply-adds, or reading W_h again at every step."""
        rows, widths = self.widths()
        passes = 2 if self.train else 1
        recurrent = 4 * rows * self.hidden
        held = recurrent * self.layers
        level = ("l2" if held <= limits["l2_bytes"] * limits["threads"] else
                 "l3" if held <= limits["l3_bytes"] else "memory")
        read = passes * sum(self.steps * recurrent + 4 * rows * w for w in widths)
        by_flops, by_bytes = self.flops / limits["gflops"] / 1e6, read / limits[level + "_gbs"] / 1e6
        return (by_flops, "FMA") if by_flops >= by_bytes else (by_bytes, level.replace("l", "L", 1) + " reads")

    def best(self, side):
        return min(self.times[side]) if self.times.get(side) else None

    def as_dict(self, limits):
        """limits: of the processor; empty on a GPU, of which only single rates are known."""
        told = {"name": self.name, **self.request(), **self.more, "gflop": self.flops / 1e9,
                "min_ms": self.times, "median_ms": self.medians, "fallbacks": self.fallbacks,
                "precisions": self.precisions,
                "gflops": {side: self.flops / self.best(side) / 1e6 for side in self.times}}
        if limits:
            told["limit_ms"], told["limited_by"] = self.limit(limits)
        return told
