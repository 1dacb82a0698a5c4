# SPDX-License-Identifier: Apache-2.0
"""The figures of script/vendors as tables, for a terminal and for Markdown."""
import re
import textwrap

from vendors_targets import Figures

BEGIN, END = "<!-- script/vendors: begin -->", "<!-- script/vendors: end -->"
LEGEND = {
    "AMD": "vector registers/scalar registers, waves a SIMD",
    "NVIDIA": "registers, warps a multiprocessor",
    "Intel": "work-items a thread",
    "SPIR-V": "variants that are valid",
    "host": "variants that compile",
}

BEFORE = """`script/vendors` compiles {variants} variants of the kernels (tests/kernel-variants.txt: what `unroll
conform` makes the backend build), and fails where a product, a gate or a layer spills in f32. A row has the worst of
a kernel's variants, those in f64 among them: local memory in bytes a work-group; `spills`, bytes of memory a
work-item in place of registers. `holds none in N`: in so many variants of a persistent layer the weights that it is to
hold fit in no registers there; the planner, told so by the driver, takes the variant that holds none, and the row is of
that one, which spills in f64 at most."""
AFTER = """AMD: clang 15 with ROCm's library, -O2. NVIDIA: clang 15 with libclc, assembled by ptxas for each chip; the
driver's own compiler and its functions differ a little. Intel: ocloc; threads have 128 registers there, and the
compiler chooses how many work-items share one. SPIR-V: spirv-val, for OpenCL 1.2; Arm: 32-bit addresses, neither
doubles nor halves."""


def worst(values):
    def of(pick, field):
        numbers = [getattr(value, field) for value in values if getattr(value, field) is not None]
        return pick(numbers) if numbers else None
    return Figures(*(of(max, field) for field in ("regs", "scalar", "spill", "local")), of(min, "fit"))


def cell(family, values, passed_over):
    """What a kernel needs on one target; nothing where it isn't built for such devices. passed_over: of how many more
    variants another stands for it there."""
    if not values:
        return "holds none" if passed_over else ""
    most = worst(values)
    if family in ("SPIR-V", "host"):
        return str(len(values))
    if most.fit is None:
        return "PTX only"
    registers = {"AMD": f"{most.regs}/{most.scalar} ", "NVIDIA": f"{most.regs} "}.get(family, "")
    return (f"{registers}×{most.fit}" + (f" spills {most.spill}" if most.spill else "")
            + (f", holds none in {passed_over}" if passed_over else ""))


def groups(figures, passed_over, chosen, each):
    """(family, its targets, rows); a row is a name, its number of variants, local memory and a cell for each target."""
    for family in LEGEND:
        columns = [target for target in chosen if target.family == family]
        found = {}
        for (source, kernel, options, target), value in figures.items():
            if target in columns:
                name = f"{source.removesuffix('.cl')} {kernel}" if kernel != source.removesuffix(".cl") else kernel
                by = found.setdefault((name, options if each else ""), {})
                taken, left = by.setdefault(target, ([], []))
                (left if (source, kernel, options, target) in passed_over else taken).append(value)
        rows = []
        for (name, options), by in sorted(found.items()):
            local = max(value.local for taken, left in by.values() for value in taken + left)
            most = max(len(taken + left) for taken, left in by.values())
            cells = (cell(family, taken, len(left)) for taken, left in (by.get(target, ((), ())) for target in columns))
            rows.append([f"{name} {options}".rstrip(), str(most), str(local or ""), *cells])
        if rows:
            yield family, columns, rows


def without(rows, head, family):
    """No column of local memory where no compiler says it."""
    if family in ("SPIR-V", "host"):
        return [row[:1] + row[3:] for row in rows], head[:1] + head[3:]
    return rows, head


def tables(figures, passed_over, chosen, each):
    for family, columns, rows in groups(figures, passed_over, chosen, each):
        rows, head = without(rows, ["kernel", "variants", "local", *(target.name for target in columns)], family)
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        yield f"{family}: {LEGEND[family]}", ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip()
                                              for row in [head, *rows]]


def markdown(figures, passed_over, chosen, variants):
    out = [textwrap.fill(BEFORE.format(variants=variants), 120, break_on_hyphens=False), ""]
    for family, columns, rows in groups(figures, passed_over, chosen, False):
        rows, head = without(rows, ["kernel", "variants", "local memory", *(target.name for target in columns)], family)
        out += [f"{family}: {LEGEND[family]}", "", "| " + " | ".join(head) + " |",
                "| --- |" + " ---: |" * (len(head) - 1)]
        out += ["| " + " | ".join([f"`{row[0]}`", *row[1:]]) + " |" for row in rows] + [""]
    return "\n".join(out + [textwrap.fill(AFTER, 120, break_on_hyphens=False)])


def put_into(path, text):
    with open(path, encoding="utf-8") as file:
        whole = file.read()
    section = f"{BEGIN}\n{text}\n{END}"
    if BEGIN in whole:
        whole = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: section, whole, flags=re.S)
    else:
        whole = whole.rstrip("\n") + f"\n\n## Kernels compiled for other devices\n\n{section}\n"
    with open(path, "w", encoding="utf-8") as file:
        file.write(whole)
