# SPDX-License-Identifier: Apache-2.0
"""The sides of a measurement: devices of this library, each OpenCL implementation one, and the peers' processes."""
import glob
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys

from rows import LM

HERE = os.path.dirname(os.path.abspath(__file__))
PLATFORMS = {"Portable Computing Language": "PoCL", "Intel": "Intel", "NVIDIA": "NVIDIA", "AMD": "AMD",
             "rusticl": "rusticl", "Apple": "Apple", "ARM": "Arm"}
TORCH, CAPPED = "PyTorch", "PyTorch ({})"
FORWARD_ONLY = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
# What holds PyTorch, and oneDNN within it, to the vectors of an instruction set.
CAPS = {"avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        "sse2": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}}
CLEARLY_NARROWER = 0.75


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def call(*command, env=None, may_fail=False):
    """What a program prints; None where it fails and may."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                          env={**os.environ, **(env or {})})
    if done.returncode == 0:
        return done.stdout
    if may_fail:
        say(f"left out, {' '.join(command[:6])} .. ended with {done.returncode}: {done.stderr.strip()}")
        return None
    sys.exit(f"bench: {' '.join(command)}\n{done.stderr.strip()}\nended with {done.returncode}")


def best_rates(known, found):
    """The best of what was measured so far: rates end in flops or gbs, all else stays as it is."""
    for key, value in found.items():
        if key.endswith(("gflops", "_gbs")):
            old = known.get(key)
            if isinstance(value, list):
                value = [max(pair) for pair in zip(value, old)] if old else value
            elif old is not None:
                value = max(value, old)
        known[key] = value


class Unroll:
    """A device of this library. env: what leads to its OpenCL implementation."""
    ours = True

    def __init__(self, build, device, name, env):
        self.unroll, self.device, self.name, self.env = os.path.join(build, "bin", "unroll"), device, name, env
        self.peak_program = os.path.join(build, "bench", "opencl_peak")
        self.peak = {}  # of an OpenCL device
        self.has_precision = "--precision" in call(self.unroll, "bench", "layer", "--help")

    def can(self, _):
        return True

    def works(self):
        tiny = ["bench", "layer", "--steps", "2", "--batch", "1", "--input", "2", "--hidden", "2", "--seconds", "0.001"]
        return call(self.unroll, *tiny, "--device", self.device, env=self.env, may_fail=True) is not None

    def layer(self, row, seconds):
        """Half precision where this build has it, else float, and the answer says which."""
        sizes = [f"--{name}={getattr(row, name)}" for name in ("steps", "batch", "input", "hidden", "layers")]
        precision = row.more["precision"] if self.has_precision else "float"
        if precision != "float":
            sizes.append(f"--precision={precision}")
        answer = json.loads(call(
            self.unroll, "bench", "layer", "--json", "--device", self.device, "--cell", row.cell, *sizes, "--seconds",
            str(seconds), *(["--train"] if row.train else []), env=self.env))
        return {**answer, "precision": precision}

    def lm(self, text, _, seconds, folder):
        log = os.path.join(folder, "log.jsonl")
        sizes = [f"--{option}={LM[key]}" for option, key in (
            ("layers", "layers"), ("hidden", "hidden"), ("embedding", "embedding"), ("steps-per-update", "steps"),
            ("batch", "batch"))]
        call(self.unroll, "train", "lm", "--text", text, "--out", os.path.join(folder, "m.safetensors"), "--log", log,
             "--device", self.device, "--cell", "lstm", *sizes, "--optimizer", "adam", "--clip", "1",
             "--validation-fraction", "0", "--minutes", str(seconds / 60), env=self.env)
        with open(log, encoding="utf-8") as file:
            rates = [json.loads(line)["chars_per_s"] for line in file]
        return max(rates), statistics.median(rates)

    def look_at_peak(self, seconds, sizes):
        best_rates(self.peak, json.loads(call(self.peak_program, self.device.split(":")[1], str(seconds),
                                              *[str(size) for size in sizes], env=self.env)))

    def about(self):
        return {"ours": True, "device": self.device, "env": self.env, "peak": self.peak or None}

    def close(self):
        pass


class Peer:
    """A peer's process; it lives as long as the run, so that it is warm."""
    ours = False

    def __init__(self, name, module, env=None, arguments=()):
        self.name, self.module, self.env = name, module, env or {}
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, f"{module}_peer.py"), *arguments], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, **self.env})
        self.told = self.ask(kind="about")

    def can(self, row):
        return self.module == "torch" or not row.train

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"bench: the process of {self.name} ended with {self.process.wait()}")
        return json.loads(answer)

    def layer(self, row, seconds):
        return {**self.ask(kind="layer", seconds=seconds, **row.request()), "precision": row.more["precision"]}

    def lm(self, _, vocabulary, seconds, __):
        answer = self.ask(kind="lm", vocabulary=vocabulary, seconds=seconds, **LM)
        return answer["chars_per_s"], answer["median_chars_per_s"]

    def about(self):
        return {"ours": False, "env": self.env, **self.told}

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def start_peers(wanted, gpu, torch_device):
    """wanted: false for none. On a GPU only PyTorch is one."""
    peers = []
    for name, module in {TORCH: "torch", **({} if gpu else FORWARD_ONLY)}.items() if wanted else ():
        needs = [module] if module == "torch" else ["onnx", module]
        if all(importlib.util.find_spec(need) for need in needs):
            peers.append(Peer(name, module, arguments=[torch_device] if module == "torch" else []))
        else:
            say(f"left out, {name} is not installed for {sys.executable}")
    return peers


def platform_label(platform):
    return next((label for known, label in PLATFORMS.items() if known.lower() in platform.lower()), platform)


def intel_environment(folder, scratch):
    """What leads to Intel's OpenCL runtime, which its package from PyPI puts somewhere into a folder; None without."""
    found = sorted(glob.glob(os.path.join(glob.escape(folder), "**", "libintelocl.so"), recursive=True))
    if not found:
        return None
    vendors = os.path.join(scratch, "vendors")
    os.makedirs(vendors, exist_ok=True)
    with open(os.path.join(vendors, "intel.icd"), "w", encoding="utf-8") as file:
        file.write(os.path.abspath(found[0]) + "\n")
    libraries = os.path.dirname(os.path.abspath(found[0]))
    before = os.environ.get("LD_LIBRARY_PATH")
    return {"OCL_ICD_VENDORS": vendors, "LD_LIBRARY_PATH": libraries + (":" + before if before else "")}


def find_opencl(build, environments, kind):
    """A side for each OpenCL device of a kind, named after its implementation; one found in two places counts once."""
    sides, seen = [], set()
    for env in environments:
        plugins = json.loads(call(os.path.join(build, "bin", "unroll"), "devices", "--json", env=env))["plugins"]
        devices = [device for plugin in plugins if plugin["id"] == "opencl" for device in plugin["devices"]]
        for device in devices:
            if ("gpu" in device["kind"]) != (kind == "gpu"):
                continue
            side = Unroll(build, device["id"], device["id"], env)
            if not side.works():
                continue
            side.look_at_peak(0.01, [])
            label = platform_label(side.peak["platform"])
            key = (label, device["name"], device["driver"])
            if key in seen:
                continue
            seen.add(key)
            side.name = label if label not in [s.name for s in sides] else f"{label} {device['id']}"
            sides.append(side)
    return sides


def narrower_isa(group_gflops, limits):
    """The instruction set that an implementation compiles to, where the processor has wider vectors; else None.
    By what a core does: all of them together may be slow for another reason."""
    cores = {key[:-len("_core_gflops")]: value for key, value in limits.items() if key.endswith("_core_gflops")}
    nearest = min(cores, key=lambda isa: abs(math.log(group_gflops / cores[isa])))
    return nearest if nearest in CAPS and cores[nearest] < CLEARLY_NARROWER * cores[limits["isa"]] else None
