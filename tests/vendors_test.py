#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/kernel-variants.txt is of these kernels and this backend, kernels parse for devices other than this one (where
there is a clang; script/vendors compiles them), and script/vendors reads right what compilers print."""
import argparse
import concurrent.futures
import contextlib
import fnmatch
import glob
import importlib.machinery
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.environ.get("UNROLL_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "script"))
import vendors_kernels as kernels  # noqa: E402
import vendors_table as table  # noqa: E402
import vendors_targets as targets  # noqa: E402

HINT = "script/vendors --collect writes the list anew"
VARIANTS = kernels.read_list()


def load_script():
    path = os.path.join(ROOT, "script", "vendors")
    loader = importlib.machinery.SourceFileLoader("vendors", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("vendors", loader))
    loader.exec_module(module)
    return module


def check_sources():
    """Each kernel is in a listed variant, and each variant is of a file whose macros it sets."""
    faults = []
    listed = {variant.source for variant in VARIANTS}
    words = {}
    for source in sorted(listed | set(kernels.sources())):
        if kernels.read_file(source) is None:
            faults.append(f"{source} is listed and not there")
            continue
        words[source] = set(re.findall(r"\w+", kernels.without_comments(kernels.whole(source).decode())))
        missing = set(kernels.kernels_of(source))
        for options in sorted({variant.options for variant in VARIANTS if variant.source == source}):
            if not missing:
                break
            command = [os.environ.get("UNROLL_CC", "cc"), "-E", "-P", "-xc", "-undef", "-D__OPENCL_VERSION__=120"]
            run = subprocess.run([*command, *options.split(), "-"], input=kernels.whole(source), capture_output=True,
                                 check=True)
            missing -= set(kernels.kernel_names(run.stdout))
        if missing:
            faults.append(f"{source}: no listed variant has {', '.join(sorted(missing))}")
    for variant in VARIANTS:
        unknown = kernels.macros_of(variant.options) - words.get(variant.source, kernels.macros_of(variant.options))
        if unknown:
            faults.append(f"{variant.source} {variant.options}: the file knows no {', '.join(sorted(unknown))}")
    return faults


def check_backend():
    """What the backend's own texts set together, some variant sets together."""
    faults, known = [], {kernels.macros_of(variant.options) for variant in VARIANTS}
    texts = 0
    for path in sorted(glob.glob(os.path.join(ROOT, "backends", "opencl", "*.c"))):
        with open(path, encoding="utf-8") as file:
            joined = re.sub(r'"\s*"', "", file.read())
        for text in re.findall(r'"([^"\n]*-D[^"\n]*)"', joined):
            texts += 1
            macros = kernels.macros_of(text)
            if not any(macros <= of for of in known):
                faults.append(f"{os.path.relpath(path, ROOT)}: no listed variant is like {text}")
    return faults + ([] if texts else ["backends/opencl sets no options"])


def check_options():
    """The options that --collect tries, read from the backend's source, are those of the documentation."""
    found, documented = kernels.device_options(), kernels.documented_options()
    return [] if found == documented else [f"options of a device: {found}; docs/devices.md: {documented}"]


def check_matrix():
    """Every tile of a matrix instruction is listed, for a chip that has it; collecting can't find them."""
    listed = {(variant.source, variant.options): set(variant.kinds) for variant in VARIANTS}
    compiled = {kind for target in targets.TARGETS for kind in target.kinds}
    known = kernels.matrix_variants()
    faults = [f"{' '.join(variant)}: not listed for {', '.join(sorted(kinds))}" for variant, kinds in known.items()
              if not kinds <= listed.get(variant, set())]
    faults += [f"script/vendors compiles for no chip with {kind}" for kind in set().union(*known.values()) - compiled]
    return faults if known else ["backends/opencl/matrix.c: no tiles found"]


def check_held():
    """Under each variant that holds weights in registers the one that holds none is listed, for the same kinds."""
    listed = {(variant.source, variant.options): set(variant.kinds) for variant in VARIANTS}
    known = kernels.held_variants(listed)
    faults = [f"{' '.join(variant)}: not listed for {', '.join(sorted(kinds))}" for variant, kinds in known.items()
              if not kinds <= listed.get(variant, set())]
    return faults if known else ["no listed variant holds weights, or plan_layer_gpu.c is not understood"]


def check_passed_over():
    """A variant that holds weights and spills gives way to the one with none held, and to no other."""
    arc = targets.matching("Arc")[0]
    name = "layer_group_forward.cl"

    def key(depth, held, n):
        return name, "forward", f"-DDEPTH={depth} -DHELD_DEPTHS={held} -DHELD_NEXT={n}", arc

    spills, fits = targets.Figures(128, None, 64, 0, 8), targets.Figures(128, None, 0, 0, 16)
    figures = {key(20, 1, 1): spills, key(20, 0, 0): fits,  # the case
               key(24, 1, 0): fits, key(24, 0, 0): spills,  # the last rung's own spill
               key(28, 1, 0): spills,                       # its last rung was not compiled
               key(256, 1, 0): spills, key(256, 0, 0): fits}  # whose last rung has another DEPTH
    script = load_script()
    found = script.find_passed_over(figures)
    faults = [] if found == {key(20, 1, 1)} else [f"passed over: {sorted(found, key=str)}"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        bad = script.summarise(figures, [], found, [arc], argparse.Namespace(missing={}))
    spilled = re.findall(r"^SPILLS: .*DEPTH=(\d+) -DHELD_DEPTHS=(\d)", said.getvalue(), re.M)
    if not bad or spilled != [("24", "0"), ("256", "1"), ("28", "1")]:
        faults.append(f"said: {said.getvalue()}")
    cell = table.cell("Intel", [fits], 2)
    return faults + ([] if cell == "×16, holds none in 2" else [f"a cell of the table: {cell}"])


def check_hot():
    built = {variant.source for variant in VARIANTS}
    return [f"script/vendors: hot pattern {pattern} meets no listed source" for pattern in load_script().HOT
            if not fnmatch.filter(built, pattern)]


def check_parsing():
    """One variant of each set of options and element type, as 64-bit SPIR-V, and as the small device's."""
    clang = shutil.which(targets.CLANG) or shutil.which("clang")
    if not clang:
        print("no clang: nothing parsed")
        return []
    chosen = {}
    for variant in VARIANTS:
        double = "double" in variant.options
        chosen.setdefault((variant.source, kernels.macros_of(variant.options), double), variant)

    with tempfile.TemporaryDirectory() as folder:
        for source in {variant.source for variant in chosen.values()}:
            with open(os.path.join(folder, source), "wb") as file:
                file.write(kernels.whole(source))

        def parse(variant):
            for target, more in (("spir64", []), ("spir", targets.SMALL)):
                if more and "double" in variant.options:
                    continue
                run = subprocess.run([clang, "-x", "cl", "-cl-std=CL1.2", *variant.options.split(), "-target",
                                      f"{target}-unknown-unknown", *more, "-fsyntax-only",
                                      os.path.join(folder, variant.source)],
                                     capture_output=True, text=True, check=False)
                if run.returncode:
                    return [f"{variant.source} {variant.options} for {target}: {run.stderr[:1000]}"]
            return []

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            faults = sum(pool.map(parse, chosen.values()), [])
    print(f"{len(chosen)} variants parsed")
    return faults


AMD = """\t.type\tk,@function
; Occupancy: 7
  - .args:
    .group_segment_fixed_size: 4224
    .name:           k
    .private_segment_fixed_size: 64
    .sgpr_count:     31
    .vgpr_count:     33
    .vgpr_spill_count: 16
"""
PTXAS = """.visible .entry k(
.reqntid 64, 1, 1
ptxas info    : Compiling entry function 'k' for 'sm_80'
ptxas info    : Function properties for k
    24 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 72 registers, used 1 barriers, 4224 bytes smem, 464 bytes cmem[0]
"""
ZE_INFO = """---
kernels:
  - name:            k
    execution_env:
      grf_count:       128
      simd_size:       16
      slm_size:        4224
    per_thread_memory_buffers:
      - type:            scratch
        usage:           spill_fill_space
        size:            2048
kernels_misc_info:
  - name:            k
"""


def check_reading():
    """72 registers: 2304 a warp, so 28 warps of 65536; 14 groups of 2, and local memory has room for more of them."""
    expected = [
        (targets.read_amd("gfx900", AMD), targets.Figures(33, 31, 64, 4224, 7)),
        (targets.read_nvidia("sm_80", PTXAS), targets.Figures(72, None, 24, 4224, 28)),
        (targets.read_intel("skl", ZE_INFO), targets.Figures(128, None, 2048, 4224, 16)),
        ({"k": targets.warps("sm_75", 32, 0, None)}, 32),
        ({"k": targets.warps("sm_80", 32, 40960, 64)}, 8),
    ]
    return [f"read {found}, expected {figures}" for found, figures in expected if found != {"k": figures}]


def main():
    faults = check_reading() + check_passed_over()
    listed = check_sources() + check_backend() + check_matrix() + check_held() + check_hot()
    faults += check_options() + listed + ([HINT] if listed else []) + check_parsing()
    print("\n".join(faults + [f"{len(VARIANTS)} variants of {len({variant.source for variant in VARIANTS})} sources"]))
    return 1 if faults or not VARIANTS else 0


if __name__ == "__main__":
    sys.exit(main())
