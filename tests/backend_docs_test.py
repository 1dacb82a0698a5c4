#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/writing-a-backend.md and docs/plugins.md are true: C compiles behind the template, shell lines run in an installed tree,
links lead somewhere, and what the loader is quoted with is what it says."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

source = pathlib.Path(os.environ["UNROLL_SOURCE_DIR"])
build = pathlib.Path(os.environ["UNROLL_BUILD_DIR"])
docs = source / "docs"
guide, plugins = (docs / "writing-a-backend.md").read_text(), (docs / "plugins.md").read_text()
sanitizers = os.environ.get("UNROLL_SANITIZE")
sanitize = [f"-fsanitize={sanitizers}"] if sanitizers else []
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wno-unused-function", "-Werror"]


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        sys.exit(f"{command}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def compile_pieces(folder):
    pieces = blocks(guide, "c")
    for piece in pieces:
        unit = folder / "piece.c"
        # Unused statics are the nature of a piece.
        unit.write_text(f'#include "template.c"\n#pragma GCC diagnostic ignored "-Wunused-variable"\n'
                        f'#pragma GCC diagnostic ignored "-Wunused-const-variable"\n{piece}')
        run([os.environ["UNROLL_CC"], "-std=c11", "-D_GNU_SOURCE", *WARNINGS, "-fsyntax-only", "-I", source / "api/include",
             "-I", source / "plugins/template", unit])
    return len(pieces)


def run_lines(folder):
    prefix = folder / "prefix"
    run(["cmake", "--install", build, "--prefix", prefix])
    environment = {k: v for k, v in os.environ.items() if k not in ("UNROLL_PLUGIN_PATH", "UNROLL_PLUGIN_FILES")}
    environment |= {"PREFIX": str(prefix), "PATH": f"{prefix / 'bin'}:{os.environ['PATH']}", "CC": os.environ["UNROLL_CC"],
                    "CFLAGS": " ".join(sanitize), "CMAKE_GENERATOR": "Ninja"}
    lines = [line for block in blocks(guide, "sh") for line in block.splitlines()]
    for line in lines:
        run(["sh", "-ec", line], cwd=folder, env=environment)
    return len(lines)


def check_links():
    targets = [target for text in (guide, plugins) for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text)]
    for target in targets:
        assert (docs / target).exists(), f"a link leads to {target}, which is not there"
    return len(targets)


def check_quotes():
    """What the loader says stands in the first column of a table, in backticks; an ellipsis is for what varies."""
    said = "".join(path.read_text() for path in sorted((source / "plugins").glob("*.c")))
    said = re.sub(r'"\s*\n?\s*"', "", said).replace('\\"', '"')
    said = re.sub(r'" PRI\w+ "?', "", said)
    quotes = re.findall(r"^\| `([^`]+)` \|", plugins, re.M)
    for quote in quotes:
        for part in quote.split("…"):
            assert part.strip() in said, f"docs/plugins.md quotes {part!r}, which the loader does not say"
    return len(quotes)


with tempfile.TemporaryDirectory() as name:
    counted = {"pieces of C": compile_pieces(pathlib.Path(name)), "links": check_links(), "quotes": check_quotes()}
    if (build / "bin" / "unroll").exists():
        counted["shell lines"] = run_lines(pathlib.Path(name))
assert all(counted.values()), counted
print(counted)
