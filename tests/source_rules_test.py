#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What every source file keeps: the licence on top, at most 800 lines, a lower-case name that no other C file has."""
import os
import re
import sys

FOLDERS = [".ci", "api", "backends", "bench", "cmake", "examples", "kernels", "plugins", "python", "script", "tests", "tools"]
SOURCE = re.compile(r"\.(c|h|inc|cl|py|sh|cmake)(\.in)?$|^CMakeLists\.txt$")
LICENCE = "SPDX-License-Identifier: Apache-2.0"
MAX_LINES = 800


def sources(root):
    yield "CMakeLists.txt"
    for folder in FOLDERS:
        for directory, _, files in sorted(os.walk(os.path.join(root, folder))):
            for name in sorted(files):
                if SOURCE.search(name) or folder in (".ci", "script"):
                    yield os.path.relpath(os.path.join(directory, name), root)


def main():
    root = os.environ.get("UNROLL_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    faults, seen, files = [], {}, 0
    for path in sources(root):
        files += 1
        name = os.path.basename(path)
        with open(os.path.join(root, path), encoding="utf-8") as file:
            lines = file.read().splitlines()
        if not any(LICENCE in line for line in lines[:2]):
            faults.append(f"{path}: no line '{LICENCE}' on top")
        if len(lines) > MAX_LINES:
            faults.append(f"{path}: {len(lines)} lines, at most {MAX_LINES}")
        if name.endswith((".c", ".h", ".inc", ".cl")):
            if name != name.lower():
                faults.append(f"{path}: the name is not lower-case")
            if name in seen:
                faults.append(f"{path}: {seen[name]} has the same name")
            seen.setdefault(name, path)
    print("\n".join(faults + [f"{files} files, {len(faults)} faults"]))
    return 1 if faults or files < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
