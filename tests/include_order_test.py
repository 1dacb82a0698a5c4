#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No folder includes one that stands below it.

The order is that of docs/architecture.md. A folder may include the public headers, itself and the folders above it; a
backend only plugin.h, philox.h and its own folder; a kernel nothing; tools, examples and benchmarks only public headers
and their own folder. Headers of the system and of dependencies are written <...> and are allowed where the build finds them.
"""
import os
import re
import sys

ORDER = ["api/base", "api/graph", "plugins", "api/runtime", "api/nn", "api/finite", "api/conform", "api/data", "api/series",
         "api/io", "api/train", "api/diagnose"]
PROGRAMS = ["tools", "examples", "bench"]
BACKENDS = ("backends/", "plugins/null/", "plugins/template/")
BACKEND_HEADERS = {"unroll/plugin.h", "unroll/philox.h"}
GENERATED = {"build_info.h", "kernel_sources.h"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
OTHER_FORM = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[^<"\s].*', re.MULTILINE)


def includes(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for match in INCLUDE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[1], match[2]
    for match in OTHER_FORM.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, "", match[0].strip()


def sources(root, folder):
    for directory, _, files in sorted(os.walk(os.path.join(root, folder))):
        for name in sorted(files):
            if name.endswith((".c", ".h", ".inc", ".cl")):
                yield os.path.relpath(os.path.join(directory, name), root)


def folder_of(path, folders):
    return next((f for f in folders if path.startswith(f + "/")), None)


def resolve(root, path, name):
    """The project's file that a quoted include means, seen from the file itself, api/ and the root; None if there is none."""
    for base in (os.path.dirname(path), "api", "."):
        candidate = os.path.normpath(os.path.join(base, name))
        if os.path.isfile(os.path.join(root, candidate)):
            return candidate
    return None


def fault(root, path, quote, name):
    """Why this file may not include that name, or None."""
    if not quote:
        return "a computed include can't be checked"
    if path.startswith("kernels/"):
        if quote == '"' and (name == "philox.h" or os.path.isfile(os.path.join(root, "kernels", name))):
            return None
        return "a kernel includes only other files of kernels/ and philox.h"
    if quote == "<":
        if path.startswith(BACKENDS) and name.startswith("unroll/") and name not in BACKEND_HEADERS:
            return "a backend includes only " + " and ".join(sorted(BACKEND_HEADERS))
        if path == "api/include/unroll/plugin.h" and name.startswith("unroll/"):
            return "plugin.h stands alone"
        return None
    if name in GENERATED:
        return None
    target = resolve(root, path, name)
    if target is None:
        return "no such file in the project"
    if path.startswith("api/include/"):
        return "a public header includes public headers, written <unroll/...>"
    if target.startswith("api/include/"):
        return "public headers are written <unroll/...>"
    own = "/".join(path.split("/")[:2]) if path.startswith(BACKENDS) else None
    own = own or folder_of(path, PROGRAMS)
    if own:
        return None if target.startswith(own + "/") else f"only {own} itself and public headers are open to {own}"
    here, there = folder_of(path, ORDER), folder_of(target, ORDER)
    if here is None:
        return "the folder is not in the order: add it to this test"
    if there is None:
        return f"{target} is in no folder of the library"
    if ORDER.index(there) > ORDER.index(here):
        return f"{there} stands below {here}"
    return None


def main():
    root = os.environ.get("UNROLL_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    faults, files = [], 0
    for folder in ("api", "plugins", "backends", "kernels", *PROGRAMS):
        for path in sources(root, folder):
            files += 1
            for line, quote, name in includes(os.path.join(root, path)):
                why = fault(root, path, quote, name)
                if why:
                    faults.append(f"{path}:{line}: {name}: {why}")
    print("\n".join(faults + [f"{files} files, {len(faults)} includes against the order"]))
    return 1 if faults or not files else 0


if __name__ == "__main__":
    sys.exit(main())
