#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the devices of a build beside PyTorch and beside what the machine can do at most, all in one run.

Called by script/bench. The sides take turns on every row, in rounds. The fastest run of all rounds counts, for every
side and for the limits; medians stand beside it in results.json. Writes that and results.md, and prints the latter.
"""
import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

DEVICES = ["opencl", "cpu"]
# Of the backend that computes nothing: this library's part of the dispatch, whole and with a call for each node and step.
NULL_DEVICES = ["null", "null,alone=1"]
GATES = {"rnn": 1, "lstm": 4, "gru_after": 3}
LM = {"embedding": 128, "hidden": 128, "layers": 2, "steps": 50, "batch": 50}
LM_NAME = "character model"
# What one device may take on one row in a later round; the first is always measured.
PATIENCE_S = 6
WARM_UP_AND_LEAST_RUNS = 7

# cell, T, B, I, H, layers, train; GRU is the one that PyTorch has, with the reset after the product.
ROWS = [
    ("lstm", 25, 1, 512, 512, 1, False),
    ("lstm", 25, 1, 1024, 1024, 1, False),
    ("lstm", 25, 16, 512, 512, 1, False),
    ("lstm", 100, 1, 256, 256, 1, False),
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
QUICK_MAX_FLOPS = 5e9


class Row:
    def __init__(self, cell, steps, batch, inputs, hidden, layers, train):
        self.cell, self.steps, self.batch, self.input, self.hidden = cell, steps, batch, inputs, hidden
        self.layers, self.train = layers, train
        self.times, self.medians = {}, {}  # side -> ms of each round, of the fastest run and in the middle
        self.fallbacks = {}

    @property
    def name(self):
        cell = self.cell.split("_", maxsplit=1)[0].upper() + (f" x{self.layers}" if self.layers > 1 else "")
        return (f"{cell} T{self.steps} B{self.batch} I{self.input} H{self.hidden}"
                f"{', training' if self.train else ''}")

    def cells(self):
        """Rows of W_h, and the widths of what each layer reads."""
        return GATES[self.cell] * self.hidden, [self.input] + [self.hidden] * (self.layers - 1)

    @property
    def flops(self):
        rows, widths = self.cells()
        return (3 if self.train else 1) * sum(2 * self.steps * self.batch * rows * (w + self.hidden) for w in widths)

    def limit(self, limits):
        """The shortest possible time in ms, and what sets it: the multiply-adds, or reading W_h again at every step."""
        rows, widths = self.cells()
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
        limit_ms, limited_by = self.limit(limits)
        return {"name": self.name, "cell": self.cell, "steps": self.steps, "batch": self.batch, "input": self.input,
                "hidden": self.hidden, "layers": self.layers, "train": self.train, "gflop": self.flops / 1e9,
                "limit_ms": limit_ms, "limited_by": limited_by, "min_ms": self.times, "median_ms": self.medians,
                "fallbacks": self.fallbacks,
                "gflops": {side: self.flops / self.best(side) / 1e6 for side in self.times}}


class Torch:
    """The peer's process; it lives as long as the run, so that it is warm."""

    def __init__(self, python):
        peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_peer.py")
        self.process = subprocess.Popen([python, peer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"bench: the PyTorch process ended with {self.process.wait()}")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Bench:
    def __init__(self, arguments):
        self.build, self.quick = arguments.build, arguments.quick
        self.unroll = os.path.join(self.build, "bin", "unroll")
        self.null_plugin = arguments.null_plugin
        self.seconds, self.lm_seconds = (0.3, 2) if self.quick else (1, 5)
        self.rounds = 1 if self.quick else 2
        self.wanted = re.compile(arguments.rows, re.IGNORECASE)
        self.torch = Torch(sys.executable) if arguments.torch else None
        self.sides = [d for d in DEVICES if self.works(d)] + (["PyTorch"] if self.torch else [])
        self.limits = {}
        self.lm = {}
        self.dispatch = []
        self.rows = [row for row in (Row(*r) for r in ROWS)
                     if self.wanted.search(row.name) and not (self.quick and row.flops > QUICK_MAX_FLOPS)]

    def call(self, *command, **variables):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                              env=dict(os.environ, **variables))
        if done.returncode != 0:
            sys.exit(f"bench: {' '.join(command)}\n{done.stderr.strip()}\nended with {done.returncode}")
        return done.stdout

    def works(self, device):
        tiny = ["bench", "layer", "--steps", "2", "--batch", "1", "--input", "2", "--hidden", "2", "--seconds", "0.001"]
        done = subprocess.run([self.unroll, *tiny, "--device", device], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            say(f"left out, {device} does not work here: {done.stderr.strip()}")
        return done.returncode == 0

    def look_at_limits(self):
        found = json.loads(self.call(os.path.join(self.build, "bench", "limits"), "0.2" if self.quick else "0.5"))
        for key, value in found.items():
            rate = key == "gflops" or key.endswith("_gbs")
            self.limits[key] = max(value, self.limits.get(key, 0)) if rate else value

    # ---- the character model ----
    def run_lm(self, side, text, vocabulary, folder):
        if side == "PyTorch":
            answer = self.torch.ask(kind="lm", vocabulary=vocabulary, seconds=self.lm_seconds, **LM)
            return answer["chars_per_s"], answer["median_chars_per_s"]
        log = os.path.join(folder, "log.jsonl")
        sizes = [f"--{option}={LM[key]}" for option, key in (
            ("layers", "layers"), ("hidden", "hidden"), ("embedding", "embedding"), ("steps-per-update", "steps"),
            ("batch", "batch"))]
        self.call(self.unroll, "train", "lm", "--text", text, "--out", os.path.join(folder, "m.safetensors"), "--log",
                  log, "--device", side, "--cell", "lstm", *sizes, "--optimizer", "adam", "--clip", "1",
                  "--validation-fraction", "0", "--minutes", str(self.lm_seconds / 60))
        with open(log, encoding="utf-8") as file:
            rates = [json.loads(line)["chars_per_s"] for line in file]
        return max(rates), statistics.median(rates)

    def measure_lm(self):
        with tempfile.TemporaryDirectory(prefix="unroll-bench-") as folder:
            text = os.path.join(folder, "text.txt")
            vocabulary = write_text(text)
            self.lm = {"vocabulary": vocabulary, **LM, "chars_per_s": {}, "median_chars_per_s": {}}
            for turn in range(self.rounds):
                for side in self.sides:
                    best, median = self.run_lm(side, text, vocabulary, folder)
                    self.lm["chars_per_s"].setdefault(side, []).append(best)
                    self.lm["median_chars_per_s"].setdefault(side, []).append(median)
                    say(f"{LM_NAME}, round {turn + 1}, {side}: {best:,.0f} characters/s, median {median:,.0f}")

    # ---- layers ----
    def run_layer(self, side, row):
        if side == "PyTorch":
            answer = self.torch.ask(kind="layer", cell=row.cell, steps=row.steps, batch=row.batch, input=row.input,
                                    hidden=row.hidden, layers=row.layers, train=row.train, seconds=self.seconds)
        else:
            sizes = [f"--{name}={getattr(row, name)}" for name in ("steps", "batch", "input", "hidden", "layers")]
            answer = json.loads(self.call(
                self.unroll, "bench", "layer", "--json", "--device", side, "--cell", row.cell, *sizes,
                "--seconds", str(self.seconds), *(["--train"] if row.train else [])))
            row.fallbacks[side] = answer["fallbacks"]
        row.times.setdefault(side, []).append(answer["min_ms"])
        row.medians.setdefault(side, []).append(answer["median_ms"])

    def measure_rows(self):
        for turn in range(self.rounds):
            for row in self.rows:
                for side in self.sides:
                    if turn > 0 and row.best(side) * WARM_UP_AND_LEAST_RUNS > PATIENCE_S * 1e3:
                        continue
                    self.run_layer(side, row)
                say(f"{row.name}, round {turn + 1}: "
                    + ", ".join(f"{side} {row.times[side][-1]:.3g} ms" for side in row.times))
            self.look_at_limits()

    def measure_dispatch(self):
        devices = [side for side in self.sides if side != "PyTorch"]
        lines = self.call(os.path.join(self.build, "bench", "dispatch"), "0.2" if self.quick else "0.5", *devices,
                          *NULL_DEVICES, UNROLL_PLUGIN_FILES=os.path.abspath(self.null_plugin))
        self.dispatch = [json.loads(line) for line in lines.splitlines()]

    def run(self):
        start = time.monotonic()
        foreign = foreign_load()
        if foreign > 0.1:
            say(f"other programs use {foreign:.1f} cores: the numbers will be too low, PyTorch's most of all")
        self.look_at_limits()
        if self.wanted.search(LM_NAME):
            self.measure_lm()
        if self.rows:
            self.measure_rows()
        if self.wanted.search("dispatch"):
            self.measure_dispatch()
        results = {"about": self.about(foreign, time.monotonic() - start), "limits": self.limits, "lm": self.lm,
                   "rows": [row.as_dict(self.limits) for row in self.rows], "dispatch": self.dispatch}
        if self.torch:
            self.torch.close()
        return results

    def about(self, foreign, seconds):
        devices = [device for plugin in json.loads(self.call(self.unroll, "devices", "--json"))["plugins"]
                   for device in plugin["devices"]]
        return {"processor": processor(), "cores": self.limits["threads"], "isa": self.limits["isa"],
                "system": f"{platform.system()} {platform.release()}", "devices": devices,
                "unroll": self.call(self.unroll, "--version").splitlines(),
                "torch": self.torch.ask(kind="about") if self.torch else None, "quick": self.quick,
                "cores_used_by_others": round(foreign, 2), "seconds": round(seconds)}


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def write_text(path):
    """A million characters of made-up words, the same on every machine; how many different ones there are."""
    random.seed(1)
    letters = [chr(c) for c in range(33, 127)]
    words = ["".join(random.choices(letters, k=random.randint(1, 9))) for _ in range(4000)]
    lines = (" ".join(random.choices(words, k=12)) for _ in range(14000))
    text = "".join(letters) + "\n" + "\n".join(lines) + "\n"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return len(set(text))


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            found = dict([part.strip() for part in line.split(":", 1)] for line in file if ":" in line)
    except OSError:
        return platform.machine()
    family = f", family {found['cpu family']} model {found['model']}" if "cpu family" in found else ""
    return found.get("model name", platform.machine()) + family


def busy_ticks():
    with open("/proc/stat", encoding="utf-8") as file:
        fields = [int(n) for n in file.readline().split()[1:9]]
    return sum(fields) - fields[3] - fields[4]


def foreign_load(seconds=2):
    """Cores that other programs, and other machines on this host, keep busy."""
    before = busy_ticks()
    time.sleep(seconds)
    return (busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


# ---- tables ----
def table(head, lines):
    """Markdown that reads well as text: the first column to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]
    return "\n".join("| " + " | ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                                       for i, (cell, w) in enumerate(zip(line, widths))) + " |"
                     for line in [head, rule, *lines])


def ms(value):
    return "" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def ratio(value):
    return "" if value is None else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def rows_table(rows, sides):
    ours = [side for side in sides if side != "PyTorch"]
    head = ["layer", "limit ms", "set by"] + [f"{side} ms" for side in sides]
    if "PyTorch" in sides:
        head += [f"{side} : PyTorch" for side in ours]
    head += [f"{side} : limit" for side in ours]
    lines = []
    for row in rows:
        best = {side: min(row["min_ms"][side]) for side in sides}
        line = [row["name"].replace(", training", ""), ms(row["limit_ms"]), row["limited_by"]]
        line += [ms(best[side]) for side in sides]
        if "PyTorch" in sides:
            line += [ratio(best["PyTorch"] / best[side]) for side in ours]
        lines.append(line + [ratio(row["limit_ms"] / best[side]) for side in ours])
    return table(head, lines)


def lm_table(lm):
    best = {side: max(rates) for side, rates in lm["chars_per_s"].items()}
    lines = []
    for side, rate in best.items():
        update = lm["steps"] * lm["batch"] / rate * 1e3
        lines.append([side, f"{rate:,.0f}", ms(update), ratio(rate / best["PyTorch"]) if "PyTorch" in best else ""])
    return table(["", "characters/s", "ms an update", "to PyTorch"], lines)


def markdown(results):
    about, limits, lm = results["about"], results["limits"], results["lm"]
    parts = [f"{about['processor']}, {about['cores']} cores, {about['system']}; {about['unroll'][0]}"
             + (f"; PyTorch {about['torch']['version']} ({about['torch']['threads']} threads, "
                f"{about['torch']['capability']})" if about["torch"] else "")
             + "; " + "; ".join(f"{d['id']}: {d['name']}, driver {d['driver']}" for d in about["devices"])
             + f". {about['seconds']} s; other programs used {about['cores_used_by_others']} cores at the start.",
             f"The machine's limits, best of the run, {limits['isa']}, {limits['threads']} threads: "
             f"{limits['gflops']:.0f} GFLOP/s; reads from L2 {limits['l2_gbs']:.0f}, L3 {limits['l3_gbs']:.0f}, memory "
             f"{limits['memory_gbs']:.0f} GB/s."]
    if lm:
        parts += [f"Training the character model: {lm['layers']} LSTM layers of {lm['hidden']}, embedding "
                  f"{lm['embedding']}, {lm['vocabulary']} characters, batch {lm['batch']}, {lm['steps']} steps, Adam, "
                  "clipping.", lm_table(lm)]
    for train, title in ((False, "Layers, forward:"), (True, "Layers, forward and gradients:")):
        rows = [row for row in results["rows"] if row["train"] == train]
        if rows:
            parts += [title, rows_table(rows, list(rows[0]["min_ms"]))]
            parts += [f"{n} nodes of {row['name']} did not run on {side} but fell back to cpu." for row in rows
                      for side, n in row["fallbacks"].items() if n]
    if results["dispatch"]:
        parts += ["Microseconds before any arithmetic, best of the run, on tensors of one element: a run that is "
                  "waited for, a step of a scan of 1000 with one op, each further op, a step of an LSTM, and a streaming "
                  "step: T 1, B 1, x written, run from the state that the last one left, y read. `null` computes nothing: "
                  "what it shows is this library's own part; with `alone=1` every node is a call, at every step. A call of "
                  f"a function through a pointer took {results['dispatch'][0]['call_ns'] / 1e3:.4f}.",
                  table(["device", "run", "step", "op", "LSTM step", "streaming step"],
                        [[" ".join([d["device"], d["options"]]).strip(), f"{d['run_us']:.3f}", f"{d['step_us']:.4f}",
                          f"{d['op_us']:.4f}", f"{d['lstm_step_us']:.4f}", f"{d['stream_us']:.3f}"]
                         for d in results["dispatch"]])]
    return "\n\n".join(parts) + "\n"


def put_into(path, text):
    """Replaces what stands between the two marks of a document."""
    first, last = "<!-- results of script/bench -->\n", "<!-- end of results -->\n"
    with open(path, encoding="utf-8") as file:
        before, found, rest = file.read().partition(first)
    _, ended, after = rest.partition(last)
    if not found or not ended:
        sys.exit(f"bench: {path} lacks the lines {first.strip()} and {last.strip()}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + first + "\n" + text + "\n" + last + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release", help="where unroll and the benchmarks are built")
    parser.add_argument("--out", default="build/bench", help="where results.json and results.md go")
    parser.add_argument("--null-plugin", required=True, metavar="FILE", help="the backend that computes nothing")
    parser.add_argument("--quick", action="store_true", help="smaller rows only, one short round")
    parser.add_argument("--rows", default="", help="a regular expression: rows whose names have it, "
                        f"'{LM_NAME}' and 'dispatch' among them")
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="without PyTorch")
    parser.add_argument("--into", metavar="FILE", help="puts the tables between the marks of that document too")
    arguments = parser.parse_args()
    results = Bench(arguments).run()
    os.makedirs(arguments.out, exist_ok=True)
    with open(os.path.join(arguments.out, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    text = markdown(results)
    with open(os.path.join(arguments.out, "results.md"), "w", encoding="utf-8") as file:
        file.write(text)
    if arguments.into:
        put_into(arguments.into, text)
    print(text, end="")


if __name__ == "__main__":
    main()
