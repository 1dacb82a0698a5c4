#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The oneDNN backend before `unroll conform`: what it declares to leave it leaves, all else is right. Skipped where the plugin
is not there."""
import json
import os
import subprocess
import sys

BUILD = os.environ.get("UNROLL_BUILD_DIR", "build/release")
UNROLL = os.path.join(BUILD, "bin", "unroll")
PLUGIN = os.path.join(BUILD, "lib", "unroll", "unroll-onednn.so")
TAKEN = {"matmul", "constant", "layer", "layer_grad"}


def main():
    if not os.path.exists(PLUGIN):
        print("the oneDNN backend was not built")
        return 77
    done = subprocess.run([UNROLL, "conform", PLUGIN, "--json"], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if not done.stdout:
        print(done.stderr)
        return 1
    report = json.loads(done.stdout)
    bad = [f"{c['verdict']}: {c['name']}\n  {c['error']}" for c in report["list"] if c["verdict"] in ("failed", "crashed")]
    passed = {row["op"] for row in report["coverage"] if row["attribute"] == "" and row["passed"]}
    if passed != TAKEN:
        bad.append(f"ops that pass are {sorted(passed)}, expected {sorted(TAKEN)}")
    print("\n".join(bad))
    print("; ".join(f"{report[key]} {key}" for key in ("cases", "passed", "failed", "crashed", "skipped", "unsupported")),
          f"in {report['seconds']:.1f} s")
    return 1 if bad or done.returncode != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
