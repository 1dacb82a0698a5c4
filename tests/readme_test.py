#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The README's snippets are true: its shell lines run, its C compiles, runs and gives gradients, its links lead somewhere."""
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile

source = pathlib.Path(os.environ["UNROLL_SOURCE_DIR"])
build = pathlib.Path(os.environ["UNROLL_BUILD_DIR"])
readme = (source / "README.md").read_text()
blocks = re.findall(r"^```(\w+)\n(.*?)^```$", readme, re.M | re.S)

PROGRAM = """
#include <stdio.h>
#include <unroll/nn.h>
#include <unroll/runtime.h>
int main(void) {
  unroll_error err = UNROLL_ERROR_INIT;
  unroll_graph *g = NULL;
  if (unroll_graph_create(NULL, &g, &err) != UNROLL_OK)
    return 1;
%s
  unroll_tensor weight = unroll_graph_find(g, "rnn.W_h.1.0"), gradient;
  unroll_gradient(loss, &weight, 1, &gradient);
  unroll_output(gradient, "gradient");
  const unroll_status st = unroll_graph_status(g, &err);
  printf("%%s %%d\\n", st == UNROLL_OK ? "ok" : err.message, unroll_tensor_describe(gradient).rank);
  unroll_graph_destroy(g);
  return st != UNROLL_OK;
}
"""


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{command}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


counted = {"sh": 0, "c": 0, "console": 0}
with tempfile.TemporaryDirectory() as folder:
    environment = dict(os.environ, PATH=f"{build / 'bin'}:{os.environ['PATH']}")
    corpus = "".join(f"the {a} and the {b} went up the {c}.\n" for a in ("cat", "dog", "bird", "fox")
                     for b in ("hen", "cow", "owl", "bee") for c in ("hill", "tree", "road", "wall", "lane")) * 40
    pathlib.Path(folder, "corpus.txt").write_text(corpus)
    waves = [["shape", *(f"x{i}" for i in range(10))]]
    for i in range(120):
        period = 2 + i % 3
        waves.append([("short", "middle", "long")[i % 3],
                      *(f"{math.sin(2 * math.pi * (t // 2 + i / 7) / period + t % 2):.4f}" for t in range(10))])
    pathlib.Path(folder, "waves.csv").write_text("".join(",".join(row) + "\n" for row in waves))
    pathlib.Path(folder, "level.csv").write_text(
        "level\n" + "".join(f"{t / 4 + 9 * math.sin(t * math.pi / 3) + t * t % 7:.3f}\n" for t in range(120)))
    words = ["".join("abcde"[(i * 7 + k * k * (i + 3)) % 5] for k in range(1 + i % 6)) for i in range(200)]
    pathlib.Path(folder, "pairs.tsv").write_text("".join(f"{word}\t{word[::-1]}\n" for word in words))
    pathlib.Path(folder, "lines.txt").write_text("abc\nde\n")
    for language, text in blocks:
        counted[language] += 1
        if language == "sh":
            for line in text.splitlines():
                run(["sh", "-ec", line], cwd=folder, env=environment)
        elif language == "c":
            pathlib.Path(folder, "snippet.c").write_text(PROGRAM % text)
            library = build / "lib"
            sanitizers = os.environ.get("UNROLL_SANITIZE")
            flags = [f"-fsanitize={sanitizers}"] if sanitizers else []
            run([os.environ["UNROLL_CC"], "-std=c11", *flags, "-I", source / "api/include", "snippet.c", "-o", "snippet",
                 "-L", library, "-lunroll", f"-Wl,-rpath,{library}"], cwd=folder)
            assert run(["./snippet"], cwd=folder, env=environment) == "ok 2\n"
        else:  # the two set-up commands, which cannot run inside of one of them
            for line in text.splitlines():
                script = source / line.split()[0]
                assert os.access(script, os.X_OK), f"{script} is not executable"
assert all(counted.values()), counted
for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", readme):
    assert (source / target).exists(), f"README.md links to {target}, which is not there"
print(counted)
