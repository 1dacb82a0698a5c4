#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The OpenCL backend before `unroll conform`. Skipped where the plugin or a device of it is not there. The counts are a
row of implementation_matrix.py."""
import json
import os
import subprocess
import sys

import implementation_matrix

BUILD = os.environ.get("UNROLL_BUILD_DIR", "build/release")
UNROLL = os.path.join(BUILD, "bin", "unroll")
PLUGIN = os.path.join(BUILD, "lib", "unroll", "unroll-opencl.so")


def run(*arguments):
    return subprocess.run([UNROLL, *arguments], text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def skip(reason):
    print(reason)
    sys.exit(77)


def has_device():
    plugins = json.loads(run("devices", "--json").stdout)["plugins"]
    return any(plugin["id"] == "opencl" and plugin["devices"] for plugin in plugins)


def judge(row, *options):
    """row names the file of its counts."""
    if not os.path.exists(PLUGIN):
        skip("the OpenCL backend was not built")
    if not has_device():
        skip("no OpenCL device")
    done = run("conform", PLUGIN, "--json", *options)
    if not done.stdout:
        print(done.stderr)
        return 1
    report = json.loads(done.stdout)
    judged = [c for c in report["list"] if implementation_matrix.was_judged(c)]
    bad = [c for c in judged if c["verdict"] != "passed"]
    for case in bad:
        print(f"{case['verdict']}: {case['name']}\n  {case['error']}")
    cells = implementation_matrix.count_cases((c["name"], c["verdict"] == "passed") for c in judged)
    title = ", ".join(["default device, all cases", *options[1::2]])
    seconds = report["seconds"]
    implementation_matrix.write(row, [{"title": title, "cells": cells, "seconds": seconds}], seconds)
    holes = [line for line in report["coverage"] if line["cases"] == 0]
    verdicts = ("cases", "passed", "failed", "crashed", "skipped", "unsupported")
    print(*options, "; ".join(f"{report[key]} {key}" for key in verdicts),
          f"in {seconds:.1f} s, {len(holes)} holes")
    return 1 if bad or holes or done.returncode != 0 else 0


if __name__ == "__main__":
    sys.exit(judge("conform"))
