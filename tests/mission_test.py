#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/mission.md: every function, test, case, command and option that it names is there, and every heading has rows.

mission_test.py --ran LOG judges a run: LOG is CTest's LastTest.log, and every test that the page names must have passed
in it, and every case that CMocka reports."""
import os
import re
import subprocess
import sys

SOURCE = os.environ.get("UNROLL_SOURCE_DIR", ".")
BUILD = os.environ.get("UNROLL_BUILD_DIR", os.path.join(SOURCE, "build/release"))
PAGE = os.path.join(SOURCE, "docs/mission.md")
COLUMNS = ["#", "The text", "Function", "Test", "Command", "Remark"]
OPEN = {"no code", "not built"}
# The text's headings that have equations or items below them, in its order.
HEADINGS = """Basic RNN Architecture; Unfolded Network Representation; Many-to-One (Sequence Classification);
One-to-Many (Sequence Generation); Many-to-Many (Sequence-to-Sequence); Forward Pass; Loss Function; Backward Pass;
Gradient Flow Analysis; Mathematical Analysis; Activation Function Impact; Mitigation Strategies; Bidirectional RNNs;
Deep RNNs (Stacked); Mathematical Formulation; LSTM Gradient Flow; Mathematical Formulation; Basic Attention;
Attention Alignment Models; Learning Rate Scheduling; Teacher Forcing vs. Free Running; Dropout in RNNs;
Weight Regularization; Time Complexity; Truncated BPTT; Natural Language Processing; Time Series Prediction;
Transformer Comparison; State Space Models; Numerical Stability; Memory Optimization; Universal Approximation;
Stability Analysis; Curriculum Learning; Sequence-Level Training; Mathematical Summary"""


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def rows_of(page, problems):
    """The rows as dictionaries by column."""
    rows = []
    for line in page.splitlines():
        if re.match(r"\| *\d", line):
            row = cells(line)
            if len(row) != len(COLUMNS):
                problems.append(f"row {row[0]}: {len(row)} columns, expected {len(COLUMNS)}")
            rows.append(dict(zip(COLUMNS, row + [""] * len(COLUMNS))))
    return rows


def headings_with_rows(page):
    found, heading = [], None
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
        elif re.match(r"\| *\d", line) and heading is not None:
            found.append(heading)
            heading = None
    return found


def tests_of(rows):
    """Of each row the tests and cases as pairs, the case None where the whole program is named."""
    return [(row["#"], *(name.split("/", 1) if "/" in name else (name, None)))
            for row in rows for name in names(row["Test"])]


def functions():
    folder = os.path.join(SOURCE, "api/include/unroll")
    text = "\n".join(read(os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if name.endswith(".h"))
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return set(re.findall(r"\b(unroll_\w+)\(", code)), set(re.findall(r"\w+", text))


def case_is_in(source, case):
    """A case of a CMocka table or a method of unittest."""
    word = re.escape(case)
    return re.search(rf"cmocka_unit_test\w*\({word}\b|DEVICE_TESTS\w*\({word}\b|\{{\s*\"{word}\"|def {word}\(", source)


def helps(words, cache={}):
    """The options of a command, or None where there is no such command."""
    key = tuple(words)
    if key not in cache:
        done = subprocess.run([os.path.join(BUILD, "bin/unroll"), *words, "--help"], text=True, capture_output=True,
                              timeout=60, check=False)
        cache[key] = set(re.findall(r"--[\w-]+", done.stdout)) if done.returncode == 0 and words else None
    return cache[key]


def check():
    problems = []
    page = read(PAGE)
    rows = rows_of(page, problems)
    numbers = [row["#"] for row in rows]
    if numbers != [str(i + 1) for i in range(len(rows))]:
        problems.append("rows are not numbered 1, 2, 3, ...")
    wanted = [name.strip() for name in re.split(r";\s", HEADINGS)]
    if headings_with_rows(page) != wanted:
        missing = [name for name in wanted if name not in headings_with_rows(page)]
        problems.append(f"headings with rows are not those of the text, in its order; without rows: {missing}")
    callable_names, words = functions()
    # Not by `ctest --show-only`, which would begin the log of the run anew that this test is part of.
    listed = read(os.path.join(BUILD, "tests/CTestTestfile.cmake"))
    tests = set(re.findall(r"^add_test\((?:\[=\[)?(\w+)", listed, flags=re.M))
    sources = {name: read(os.path.join(SOURCE, "tests", name)) for name in os.listdir(os.path.join(SOURCE, "tests"))
               if name.endswith(("_test.c", "_test.py", "_test.sh"))}
    for row in rows:
        where = f"row {row['#']}"
        if row["Function"] in OPEN:
            if row["Test"] != "–" or row["Command"] != "–" or not row["Remark"]:
                problems.append(f"{where}: '{row['Function']}' has a test or a command, or no remark")
        elif not names(row["Function"]):
            problems.append(f"{where}: no function")
        elif not names(row["Test"]):
            problems.append(f"{where}: no test")
        problems += [f"{where}: no public function {name}" for name in names(row["Function"])
                     if name not in callable_names]
        for command in names(row["Command"]):
            parts = command.split()
            at = next((i for i, part in enumerate(parts) if part.startswith("--")), len(parts))
            options = helps(parts[1:at]) if parts[0] == "unroll" else None
            if options is None:
                problems.append(f"{where}: no command '{command}'")
            else:
                problems += [f"{where}: no option {option} of '{command}'" for option in parts[at:]
                             if option not in options]
        for name in names(row["Remark"]):
            parts = name.split()
            if parts[0] == "unroll":
                if helps(parts[1:]) is None:
                    problems.append(f"{where}: no command '{name}'")
            elif name.startswith("--"):
                if name not in (helps(["train", "lm"]) or ()):
                    problems.append(f"{where}: no option {name} of unroll train lm")
            else:
                problems += [f"{where}: the headers have no word {word}" for word in re.findall(r"\w+", name)
                             if word not in words]
    for number, test, case in tests_of(rows):
        if test not in tests:
            problems.append(f"row {number}: CTest knows no {test}")
        elif case and not any(case_is_in(text, case) for name, text in sources.items()
                              if os.path.splitext(name)[0] == test):
            problems.append(f"row {number}: {test} has no case {case}")
    for line in problems:
        print(line)
    for kind in sorted(OPEN):
        chosen = [row for row in rows if row["Function"] == kind]
        for row in chosen:
            print(f"{kind}: row {row['#']}: {row['The text']}")
        print(f"{kind}: {len(chosen)} rows")
    for row in rows:
        if row["Function"] not in OPEN and "not built" in row["Remark"]:
            print(f"in part not built: row {row['#']}: {row['The text']}")
    print(f"docs/mission.md: {len(rows)} rows under {len(wanted)} headings, "
          f"{len({pair[1:] for pair in tests_of(rows)})} tests and cases, {len(problems)} problems")
    return 1 if problems else 0


def ran(log):
    """Whether the tests of the page passed, by the log of a run of all tests."""
    passed, cases, skipped, current = set(), {}, set(), None
    for line in read(log).splitlines():
        start = re.match(r"\d+/\d+ Test: (\S+)", line)
        if start:
            current = start[1]
        elif line == "Test Passed.":
            passed.add(current)
        else:
            case = re.match(r"\[ +(OK|SKIPPED) \] (\w+)", line)
            if case and case[1] == "OK":
                cases.setdefault(current, set()).add(case[2])
            elif case:
                skipped.add((current, case[2]))
    problems = set()
    for _, test, case in tests_of(rows_of(read(PAGE), [])):
        if test not in passed:
            problems.add(f"docs/mission.md: {test} did not run or did not pass")
        elif case and test in cases and not any(name == case or name.startswith(case + "_") for name in cases[test]):
            problems.add(f"docs/mission.md: {test}/{case} did not run or did not pass")
        problems |= {f"docs/mission.md: {test}/{name} was skipped" for program, name in skipped
                     if program == test and (case is None or name == case or name.startswith(case + "_"))}
    for line in sorted(problems):
        print(line)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(ran(sys.argv[2]) if sys.argv[1:2] == ["--ran"] else check())
