# SPDX-License-Identifier: Apache-2.0
"""Reports as `unroll diagnose` writes them, of networks that were never there: made up, but shaped like real ones."""
import cmath
import math
import random

HEADER = {"format": "unroll report", "version": 1, "unroll": "0.1.0", "created": "2026-11-23T11:40:00Z"}
GATES = {"lstm": ["input", "forget", "cell", "output"], "gru": ["reset", "update", "new"], "rnn": ["state"]}
TEXT = ("The gate of the garden stood open (as \"ever\") when she came.\n"
        "\"Who left it so?\" she asked, and nobody answered; the hens\nwalked in and out (there were five of them).\n")


def finite(x):
    """A number as JSON has it."""
    return "nan" if math.isnan(x) else ("inf" if x > 0 else "-inf") if math.isinf(x) else x


def spectrum(dice, n, radius):
    """Eigenvalues of a real matrix: conjugate pairs, evenly over a disc."""
    values = []
    while len(values) + 1 < n:
        z = cmath.rect(radius * math.sqrt(dice.random()), dice.uniform(0, math.pi))
        values += [[z.real, z.imag], [z.real, -z.imag]]
    values += [[radius, 0.0]] * (n - len(values))
    return sorted(values, key=lambda z: -math.hypot(*z))


def gradient_layer(dice, name, rho, steps):
    lags = [0, 1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90]
    fade = min(rho, 1.1) * 0.97
    return {"layer": name,
            "norm": [finite(1e-2 * fade ** (steps - 1 - t) * math.exp(dice.gauss(0, 0.25))) for t in range(steps)],
            "lags": lags, "product": [fade ** k * math.exp(dice.gauss(0, 0.05)) for k in lags],
            "sigma_lags": lags, "sigma": [min(2.1, 1 + 0.3 * k) * fade ** k for k in lags], "rho": rho,
            "memory": next((k for k in range(200) if fade ** k < 0.01), None), "condition": rho * 0.93}


def gate(dice, layer, name, steps, cell):
    centre = {"forget": 0.86, "update": 0.8, "input": 0.35, "cell": 0.5}.get(name, 0.5)
    edges = [i / 20 for i in range(21)] if name not in ("cell", "new", "state") else [-1 + i / 10 for i in range(21)]
    at = [((a + b) / 2 - edges[0]) / (edges[-1] - edges[0]) for a, b in zip(edges, edges[1:])]
    wave = [math.sin(t / 6) * 0.05 for t in range(steps)]
    firsts = list(range(0, steps, max(1, steps // 50)))
    return {"layer": layer, "gate": name, "low": [max(0, 0.12 + w + dice.gauss(0, 0.01)) for w in wave],
            "high": [min(1, centre * 0.6 - w + dice.gauss(0, 0.01)) for w in wave],
            "mean": [centre + w / 2 for w in wave], "edges": edges,
            "counts": [round(2000 * math.exp(-((x - centre) / 0.22) ** 2) + 80 * (x > 0.95)) for x in at], "dead": 0.0,
            "histogram_steps": firsts,
            "histogram": [[round(40 * math.exp(-((x - centre - 3 * wave[t]) / 0.22) ** 2)) for x in at] for t in firsts],
            "time_constants": [1.2, 4.1, 9.5, 31.0, 420.0] if name in ("forget", "update") else None}


def portrait(dice, layer):
    """The corners of a cube are stable, its edges' middles saddles, as of the three-bit flip-flop."""
    places = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    path, at = [], [0.9, 0.9, 0.9]
    for _ in range(300):
        goal = [dice.choice((-1, 1)) for _ in range(3)] if dice.random() < 0.06 else [math.copysign(1, a) for a in at]
        for _ in range(4):
            at = [a + 0.35 * (g - a) + dice.gauss(0, 0.02) for a, g in zip(at, goal)]
            path.append([a + 0.25 * b for a, b in zip(at, at[1:] + at[:1])])
    points = [{"speed": 1e-24, "radius": 0.4 + 0.9 * p.count(0), "unstable": p.count(0), "starts": dice.randint(1, 40),
               "place": [a + 0.25 * b for a, b in zip(p, p[1:] + p[:1])]} for p in places]
    return {"layer": layer, "input": "zeros", "points": points,
            "axes": [0.41, 0.33, 0.19], "trajectory": path,
            "class": {"stable": 8, "saddle": 18, "source": 1}, "slow": 2}


def memory():
    steps = [2 ** i for i in range(4, 15)]
    return {"T": steps, "bptt": [128 * 1024 * t for t in steps], "truncated": [128 * 1024 * min(t, 64) for t in steps],
            "checkpointed": [int(128 * 1024 * 2 * math.sqrt(t)) for t in steps],
            "transformer": [160 * 1024 * t + 64 * t * t * 4 for t in steps]}


def units(dice, text, n=24):
    tokens, rows, depth, quoted = list(text), [[] for _ in range(n)], 0, -1
    phases = [dice.uniform(2, 9) for _ in range(n)]
    column = 0
    for i, c in enumerate(tokens):
        depth += (c == "(") - (c == ")")
        quoted = -quoted if c == '"' else quoted
        column = 0 if c == "\n" else column + 1
        for k, row in enumerate(rows):
            row.append(round(
                [0.9 * quoted, 0.95 if depth else -0.4, 0.97 - 0.03 * column,
                       0.8 if c in "aeiou" else -0.2][k] if k < 4 else 0.5 * math.sin(i / phases[k]), 4))
    return {"tokens": tokens, "layer": "0 forward", "activity": rows, "unit": [3 + 5 * k for k in range(n)]}


def report(cell="lstm", rho=0.82, steps=90, hidden=48, layers=("0 forward", "1 forward"), seed=1, text=TEXT * 3):
    dice = random.Random(seed)
    level = "bad" if rho < 0.9 else "warning" if rho > 1.05 else "good"
    source, target = ["t", "h", "ou", "gh", "t"], ["TH", "AO1", "T", "<end>"]
    weights = [[math.exp(-(4 * r / 3 - c) ** 2) for c in range(5)] for r in range(4)]
    return {**HEADER,
            "model": {"path": f"models/{cell}.safetensors", "task": "lm", "cell": cell, "layers": len(layers),
                      "hidden": hidden,
                      "bidirectional": False, "parameters": 187_456, "sha256": "9f" * 32, "options": {"dropout": 0.1}},
            "data": {"path": "book.txt", "sha256": "a7" * 32, "sequences": 16, "steps": steps, "batch": 16}, "seed": 1,
            "device": "cpu", "configuration": {"lags": 12, "qr": 10, "whole": False},
            "verdict": {"text": f"Gradients vanish after 23 steps: W_h has spectral radius {rho}.", "level": level,
                        "findings": [{"level": level, "what": "gradient",
                                      "text": "After 23 steps 1% of the gradient is left.",
                                      "advice": "try orthogonal initialisation or an LSTM."},
                                     {"level": "good", "what": "values", "text": "All values are finite.",
                                      "advice": ""}]},
            "gradient": {"layers": [gradient_layer(dice, name, rho + 0.12 * i, steps)
                                    for i, name in enumerate(layers)]},
            "spectra": [{"layer": name, "matrix": f"W_h of gate {g}",
                         "radius": rho + (0.35 if g == "new" else 0), "norm": 1.7 * rho, "departure": 0.6,
                         "eigenvalues": spectrum(dice, hidden, rho + (0.35 if g == "new" else 0))} for name in layers
                        for g in GATES[cell]],
            "gates": [gate(dice, name, g, steps, cell) for name in layers for g in GATES[cell]],
            "fixed_points": [portrait(dice, layers[0])],
            "lyapunov": [{"layer": layers[0], "exponents": [0.08 - 0.011 * i * (1 + i / 60) for i in range(hidden)],
                          "errors": [0.004 + 0.0004 * i for i in range(hidden)], "entropy": 0.31, "dimension": 14.2,
                          "steps": 1000, "transient": 200, "every": 10, "condition": 41.0}],
            "nonfinite": {"values": 0, "gradients": 3,
                          "first": {"layer": "1 forward", "direction": "backward", "step": 41,
                                                                  "gate": "forget", "sequence": 3, "what": "inf"}},
            "cost": {"parameters": 187_456, "formula": "4·(n_h + n_x + 1)·n_h",
                     "flops": {"forward": 1.2e9, "backward": 2.4e9},
                     "bytes": {"read": 4.1e7, "written": 1.3e7}, "memory": memory(),
                     "ops": [{"op": "matmul", "runs": 267, "flops": 201773056, "transcendental": 0, "read": 18121464,
                              "written": 5947136}]},
            "attention": [{"source": source, "target": target,
                           "weights": [[w / sum(row) for w in row] for row in weights]}],
            "units": units(dice, text),
            "training": {"updates": list(range(0, 3000)),
                         "loss": [1.6 + 1.7 * math.exp(-u / 500) + dice.gauss(0, 0.03) for u in range(3000)],
                         "gradient_norm": [finite(float("inf") if u == 1500 else 0.4 * math.exp(dice.gauss(0, 0.5)))
                                           for u in range(3000)],
                         "weights": [{"name": "W_h", "norm": [6 + 3 * u / 3000 for u in range(3000)],
                                      "radius": [1 - 0.18 * u / 3000 for u in range(3000)]}]},
            "missing": [{"section": "whole Jacobian", "why": "not asked for: --whole"}]}
