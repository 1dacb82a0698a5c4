#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every rule of the ABI has a case of `unroll conform` that finds who breaks it: one plugin, one offence at a time."""
import json
import os
import re
import subprocess
import sys

BUILD = os.environ.get("UNROLL_BUILD_DIR", "build/release")
UNROLL = os.path.join(BUILD, "bin", "unroll")
PLUGINS = os.environ.get("UNROLL_TEST_PLUGINS", os.path.join(BUILD, "tests", "plugins"))

# What tests/plugins/offender.c does wrong, and the case that has to fail of it.
OFFENCES = {
    "leak": "abi open and close again",
    "score moves": "abi score",
    "count moves": "abi device count",
    "no vendor": "abi device info",
    "odd alignment": "abi device info",
    "dtypes of nobody": "abi device info",
    "absent device described": "abi device absent",
    "silent failure": "abi device absent",
    "one device at a time": "abi device open twice",
    "destroy of NULL crashes": "abi destroy NULL",
    "options ignored": "abi option unknown",
    "unknown extensions": "abi extension ids",
    "unknown ops claimed": "abi claim unknown op",
    "newer ops claimed": "abi claim newer op",
    "unknown kinds claimed": "abi claim unknown kind",
    "unknown types claimed": "abi claim unknown element type",
    "missing attributes claimed": "abi claim short attributes",
    "claims that move": "abi claim alike",
    "offset of a read ignored": "abi buffer bytes",
    "a byte too many": "abi buffer fill",
    "copy within refused": "abi buffer copy within",
    "copies of nothing refused": "abi buffer 0 bytes",
    "writes cut to size": "abi buffer outside",
    "any size": "abi buffer too large",
    "out-parameter of a failure": "abi buffer too large",
    "map at 0": "abi buffer map",
    "memory at NULL": "abi buffer from host",
    "unknown flags refused": "abi queue",
    "read with an event forgotten": "abi queue events",
    "host of one size": "abi sizes host",
    "info beyond its size": "abi sizes device info",
    "exec info beyond its size": "abi sizes exec info",
    "error beyond its size": "abi sizes error",
    "claims side by side": "abi sizes claims",
    "view of one size": "abi sizes views",
    "slots side by side": "abi sizes views",
    "arguments of one size": "abi sizes views",
    "inputs kept": "abi run again",
    "generations ignored": "abi run generations",
    "the latest binding": "abi run two bindings",
    "no event of a run": "abi run event",
    "sizes cut": "abi run sizes outside",
    "steps cut": "abi run steps",
    "short slots taken": "abi bind slots",
    "profiles unasked": "abi profile spans",
    "leak of a failure": "fault one allocation",
    "aborts without memory": "fault all allocations",
    "unclaimed without memory": "fault all allocations",
    "other bits now and then": "threads none, 20 repetitions",
    "memory of all threads": "threads on one executable, own inputs",
    "buffers of one thread": "threads with buffers of their own",
    "compiles in one thread": "threads that compile",
}


def judge(only, offence=""):
    done = subprocess.run([UNROLL, "conform", os.path.join(PLUGINS, "offender.so"), "--json", "--only", only],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=100, check=False,
                          env={**os.environ, "UNROLL_OFFENCE": offence})
    if not done.stdout:
        return [{"name": only, "verdict": "not opened", "error": done.stderr}]
    return json.loads(done.stdout)["list"]


def main():
    faults = [f"without an offence: {c['name']}: {c['error']}" for c in judge("^(abi|fault|threads) ")
              if c["verdict"] != "passed"]
    for offence, name in OFFENCES.items():
        found = judge("^" + re.escape(name) + "$", offence)
        if len(found) != 1 or found[0]["verdict"] not in ("failed", "crashed"):
            faults.append(f"{offence}: not found by '{name}': {found}")
        elif "-v" in sys.argv:
            print(f"{offence}: {name}: {found[0]['error']}")
    print("\n".join(faults + [f"{len(OFFENCES)} offences, {len(faults)} faults"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
