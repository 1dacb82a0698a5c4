#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One implementation of OpenCL before the suites that implementations.py lists for it; or the matrix of all.

  implementation_matrix.py NAME     runs it and writes BUILD/matrix/NAME.json; 1: something failed, 77: it is not there
  implementation_matrix.py --names  their names
  implementation_matrix.py --print  the matrix, from those files and from the log of CTest

CTest knows them as implementation_NAME_test. Each keeps its kernels in a cache of its own, BUILD/cache/NAME.
"""
import json
import os
import re
import subprocess
import sys
import time

import implementations
from implementations import BUILD, IMPLEMENTATIONS, KINDS, SOURCE, SUITES

UNROLL = os.path.join(BUILD, "bin", "unroll")
MATRIX = os.path.join(BUILD, "matrix")
CELLS = ("rnn", "lstm", "gru", "gru_after")
TEXT = "the quick brown fox jumps over the lazy dog.\n" * 4
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class Absent(Exception):
    """The implementation is not on this machine."""


class Run:
    """An implementation: how a command is run on it, and what came of all."""

    def __init__(self, name):
        self.name, self.it = name, IMPLEMENTATIONS[name]
        self.rows, self.failures = [], []
        # PoCL's own cache is that of the other tests: the same kernels, built in the same way.
        self.cache = os.path.join(BUILD, "cache") if name == "pocl" else os.path.join(BUILD, "cache", name)
        os.makedirs(os.path.join(self.cache, "pocl"), exist_ok=True)
        self.work = os.path.join(MATRIX, name)
        os.makedirs(self.work, exist_ok=True)
        self.environment = {**os.environ, **self.it.environment, "XDG_CACHE_HOME": self.cache,
                            "POCL_CACHE_DIR": os.path.join(self.cache, "pocl"), "OCL_ICD_VENDORS": self.it.vendor}
        self.prefix = []
        if name == "oclgrind":
            self.wrap_in_oclgrind()
        elif not os.path.exists(self.it.vendor):
            raise Absent(f"no {self.it.vendor}")

    def wrap_in_oclgrind(self):
        """As script/check does; kernels are not optimised, since Oclgrind takes the true of a vector for -1 where the
        optimiser widens it as 1."""
        shim = os.path.join(self.work, "shim.so")
        try:
            subprocess.run(["oclgrind", "--version"], check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Absent("no oclgrind") from error
        subprocess.run([os.environ.get("UNROLL_CC", "cc"), "-std=c11", "-D_GNU_SOURCE",
                        "-DCL_TARGET_OPENCL_VERSION=120", "-shared", "-fPIC", "-o", shim,
                        os.path.join(SOURCE, "tests/suppressions/oclgrind_shim.c")], check=True)
        self.log = os.path.join(self.work, "log")
        self.prefix = ["oclgrind", "--log", self.log, "--global-mem-size", "4000000000", "--build-options",
                       "-cl-opt-disable", "--data-races", "--uninitialized", "--check-api", "bash", "-c",
                       'LD_PRELOAD=$0:$LD_PRELOAD exec "$@"', shim]

    def command(self, *arguments):
        if self.prefix and os.path.exists(self.log):
            os.unlink(self.log)
        return subprocess.run([*self.prefix, *arguments], env=self.environment, text=True, errors="replace",
                              check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def reported(self):
        """What Oclgrind found in the last command."""
        if not self.prefix or not os.path.exists(self.log):
            return ""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def fail(self, what, text):
        self.failures.append(what)
        print(f"FAILED on {self.name}: {what}\n{text[-3000:]}")

    def is_there(self):
        found = self.command(UNROLL, "devices", "--json")
        plugins = json.loads(found.stdout)["plugins"] if found.stdout.startswith("{") else []
        devices = [d for p in plugins if p["id"] == "opencl" for d in p["devices"]]
        if not devices:
            raise Absent(f"no device: {found.stderr[-300:]}")
        return devices[0]

    def passed(self, case):
        return case["verdict"] == "passed" or case["error"] in [f"printed: {line} " for line in self.it.prints]

    def conform(self, row, cells):
        """All patterns in one go: children of one process share what was built."""
        options = [word for option in row.options for word in ("--option", option)]
        done = self.command(UNROLL, "conform", "opencl", "--json", *options, "--only", "|".join(row.cases))
        what = " ".join(["unroll conform opencl", *options])
        if not done.stdout.startswith("{"):
            self.fail(what, done.stdout + done.stderr + self.reported())
            return
        cases = [c for c in json.loads(done.stdout)["list"] if was_judged(c)]
        count_cases(((c["name"], self.passed(c)) for c in cases), cells)
        for case in cases:
            if not self.passed(case):
                self.fail(f"{what} --only '^{re.escape(case['name'])}$'", f"{case['verdict']}: {case['error']}")
        if not cases:
            self.fail(what, "no case was run")
        if self.reported():
            self.fail(what, self.reported()[:3000])
            count(cells, "ops", False)

    def program(self, name, cells):
        done = self.command(os.path.join(BUILD, "tests", name))
        passed, total = counts_of_program(done.stdout + done.stderr)
        count(cells, "programs", True, passed)
        if total > passed or passed == 0 or done.returncode != 0:
            count(cells, "programs", False, max(1, total - passed))
            self.fail(name, done.stdout + done.stderr)

    def train(self, cells):
        text, model = os.path.join(self.work, "text"), os.path.join(self.work, "m.safetensors")
        with open(text, "w", encoding="utf-8") as file:
            file.write(TEXT)
        for cell in CELLS:
            for file in os.listdir(self.work):
                if file.startswith("m."):
                    os.unlink(os.path.join(self.work, file))
            train = [UNROLL, "train", "lm", "--text", text, "--out", model, "--device", "opencl", "--cell", cell,
                     "--layers", "1", "--hidden", "17", "--embedding", "5", "--dropout", "0.2",
                     "--steps-per-update", "4", "--batch", "3", "--updates", "1"]
            sample = [UNROLL, "sample", model, "--device", "opencl", "--length", "4"]
            for command, right in [(train, lambda it: "update 1: loss" in it.stdout + it.stderr),
                                   (sample, lambda it: len(it.stdout) >= 4)]:
                done = self.command(*command)
                # Oclgrind sometimes aborts at exit: what it reported and the program's own output are the judges there.
                ok = right(done) and not self.reported() and (done.returncode == 0 or bool(self.prefix))
                count(cells, "command", ok)
                if not ok:
                    self.fail(" ".join(command), done.stdout + done.stderr + self.reported())

    def run(self):
        started = time.monotonic()
        device = self.is_there()
        print(f"{self.it.title}: {device['name']}, {device['driver']}")
        for row in self.it.rows:
            cells, began = {}, time.monotonic()
            if row.cases:
                self.conform(row, cells)
            for program in row.programs:
                self.program(program, cells)
            if row.command:
                self.train(cells)
            title = ", ".join([self.it.title, *row.options])
            self.rows.append({"title": title, "cells": cells, "seconds": time.monotonic() - began})
            print(f"{title}: {cells} in {time.monotonic() - began:.1f} s", flush=True)
        write(self.name, self.rows, time.monotonic() - started)
        return 1 if self.failures else 0


def count(cells, suite, passed, times=1):
    cell = cells.setdefault(suite, [0, 0])
    cell[0] += times if passed else 0
    cell[1] += times


def was_judged(case):
    """Not where the device has no such element type, or the backend no such optional function."""
    return case["verdict"] != "unsupported" and case["error"] not in ("has no map", "has no buffer_from_host")


def count_cases(cases, cells=None):
    """(name, passed) into the cells of their suites."""
    cells = {} if cells is None else cells
    for name, passed in cases:
        count(cells, next(kind for kind, names in KINDS if names.search(name)), passed)
    return cells


def write(name, rows, seconds):
    os.makedirs(MATRIX, exist_ok=True)
    with open(os.path.join(MATRIX, name + ".json"), "w", encoding="utf-8") as file:
        json.dump({"name": name, "seconds": seconds, "rows": rows}, file)


def counts_of_program(output):
    """Passed and all, as CMocka prints them."""
    def number(pattern):
        return sum(int(n) for n in re.findall(pattern, ESCAPES.sub("", output), re.MULTILINE))
    passed = number(r"^\[  PASSED  \] (\d+) test\(s\)")
    return passed, passed + number(r"^\[  FAILED  \].*?(\d+) test\(s\)")


def rows_of(name):
    path = os.path.join(MATRIX, name + ".json")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return json.load(file)["rows"]


def rows_of_other_tests():
    """What ran as tests of their own: conform_opencl_test's and conform_opencl_gpu_test's rows, and the programs."""
    rows = rows_of("conform") + rows_of("conform_gpu")
    log = os.path.join(BUILD, "Testing", "Temporary", "LastTest.log")
    if os.path.exists(log):
        with open(log, encoding="utf-8", errors="replace") as file:
            parts = re.split(r"^\d+/\d+ Test: ", file.read(), flags=re.MULTILINE)
        for part in parts:
            if part.split("\n", 1)[0] in implementations.PROGRAMS:
                passed, total = counts_of_program(part)
                rows = rows or [{"title": "default device", "cells": {}, "seconds": 0}]
                count(rows[0]["cells"], "programs", True, passed)
                count(rows[0]["cells"], "programs", False, total - passed)
    return rows


def print_matrix():
    rows = rows_of_other_tests() + [row for name in IMPLEMENTATIONS for row in rows_of(name)]
    if not rows:
        return 0
    lines = [["passed/run", *SUITES, "seconds"]]
    for row in rows:
        cells = ["/".join(map(str, row["cells"][suite])) if suite in row["cells"] else "-" for suite in SUITES]
        lines.append([row["title"], *cells, f"{row['seconds']:.0f}"])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:]))]))
    passed, total = (sum(cell[i] for row in rows for cell in row["cells"].values()) for i in (0, 1))
    print(f"{passed} of {total} passed on {len(rows)} rows; - is not run there")
    return 0


def main():
    if sys.argv[1:] == ["--names"]:
        print(";".join(IMPLEMENTATIONS))
        return 0
    if sys.argv[1:] == ["--print"]:
        return print_matrix()
    path = os.path.join(MATRIX, sys.argv[1] + ".json")
    if os.path.exists(path):
        os.unlink(path)
    try:
        return Run(sys.argv[1]).run()
    except Absent as why:
        print(f"{IMPLEMENTATIONS[sys.argv[1]].title} is not here: {why}")
        return 77


if __name__ == "__main__":
    sys.exit(main())
