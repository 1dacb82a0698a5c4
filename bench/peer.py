# SPDX-License-Identifier: Apache-2.0
"""What every peer has in common: a process that reads a JSON request per line and answers with one.

{"kind": "layer", "cell", "steps", "batch", "input", "hidden", "layers", "train", "seconds"}
    -> {"min_ms", "median_ms", "runs"}, and of a single layer forward "shape" and "sample" of its output
{"kind": "about"} -> {"version", "threads", ..}

Peers get the same weights and the same x, so that what they compute can be compared, not only how fast.
"""
import json
import os
import statistics
import sys
import time

import numpy

MIN_RUNS = 5
WARM_UP_RUNS = 2
SAMPLES = 16
GATES = {"rnn": 1, "lstm": 4, "gru_after": 3}


def threads():
    return len(os.sched_getaffinity(0))


def weights(request):
    """x [T, B, I], and for each layer W_x, W_h, b_x, b_h with rows in PyTorch's order of gates."""
    generator = numpy.random.default_rng(1)
    hidden = request["hidden"]
    rows = GATES[request["cell"]] * hidden
    x = generator.standard_normal((request["steps"], request["batch"], request["input"]), dtype=numpy.float32)
    layers, width = [], request["input"]
    for _ in range(request["layers"]):
        shapes = [(rows, width), (rows, hidden), (rows,), (rows,)]
        layers.append([((generator.random(s, dtype=numpy.float32) * 2 - 1) / numpy.float32(hidden) ** 0.5)
                       for s in shapes])
        width = hidden
    return x, layers


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


def answer_of(times, y=None):
    """y, if given, is the output of a run as an array [T, B, H]: from first to last value a few are told."""
    answer = {"min_ms": min(times), "median_ms": statistics.median(times), "runs": len(times)}
    if y is not None:
        places = numpy.linspace(0, y.size - 1, SAMPLES).astype(numpy.int64)
        answer["shape"] = list(y.shape)
        answer["sample"] = [float(v) for v in y.reshape(-1)[places]]
    return answer


def serve(answers):
    """Answers until there are no more requests. Whatever else a library prints goes to the errors."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answers[request["kind"]](request)), file=out, flush=True)
