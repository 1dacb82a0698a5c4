#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The OpenCL backend before `unroll conform`. Skipped where the plugin or a device of it is not there. Its counts are
two rows of implementation_matrix.py."""
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


def judge(rows, *options):
    done = run("conform", PLUGIN, "--json", *options)
    if not done.stdout:
        print(done.stderr)
        return 1
    report = json.loads(done.stdout)
    judged = [c for c in report["list"] if implementation_matrix.was_judged(c)]
    bad = [c for c in judged if c["verdict"] != "passed"]
    for case in bad:
        print(f"{case['verdict']}: {case['name']}\n  {case['error']}")
    title = ", ".join(["default device, all cases", *options[1::2]])
    rows.append({"title": title, "seconds": report["seconds"], "cells": implementation_matrix.count_cases(
        (c["name"], c["verdict"] == "passed") for c in judged)})
    holes = [row for row in report["coverage"] if row["cases"] == 0]
    print(*options, "; ".join(f"{report[key]} {key}" for key in ("cases", "passed", "failed", "crashed", "skipped", "unsupported")),
          f"in {report['seconds']:.1f} s, {len(holes)} holes")
    return 1 if bad or holes or done.returncode != 0 else 0


def main():
    if not os.path.exists(PLUGIN):
        skip("the OpenCL backend was not built")
    if not has_device():
        skip("no OpenCL device")
    # The second time as a GPU: with the kernels and sizes of work-groups that are chosen for one.
    rows = []
    code = max(judge(rows), judge(rows, "--option", "kernels=gpu"))
    implementation_matrix.write("conform", rows, 0)
    return code


if __name__ == "__main__":
    sys.exit(main())
