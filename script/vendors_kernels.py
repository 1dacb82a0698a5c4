# SPDX-License-Identifier: Apache-2.0
"""The kernels, and the options that the backend builds them with: tests/kernel-variants.txt, and how it is made."""
import collections
import glob
import itertools
import os
import re
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KERNELS = os.path.join(ROOT, "kernels")
FOLDERS = [KERNELS, os.path.join(ROOT, "api", "include", "unroll")]
LIST = os.path.join(ROOT, "tests", "kernel-variants.txt")
DEVICES = os.path.join(ROOT, "docs", "devices.md")
KINDS = {"gpu": (0, "gpu"), "cpu8": (8, "cpu"), "cpu16": (16, "cpu")}  # lanes of a CPU's vectors, the option kernels
# Cases that an option of a device can make take another path (as halves only small integers are right); those of no
# other option: whole layers.
CASES = {"product": "matmul", "matrix": "^exact (run-time )?matmul",
         "precision": r"^exact (matmul rank 2|layer rnn [a-z ]* (T5 B3 I7 H17|T3 B33 I65 H130)).*f32$",
         # Each is rehearsed, which takes its time where it can't be.
         "recurrence=persistent": r"^layer [a-z_]+ reverse( tanh)?( lengths)? T5 B3 I7 H17( grad)?, f32$"}
# Every cell at sizes of one and of several blocks, groups and rows; all sizes there are would take an hour.
LAYERS = (r"^layer [a-z_]+ (forward|reverse)( tanh)?( lengths)? (T5 B3 I7 H17( grad)?, f(32|64)"
          r"|(T3 B1 I5 H256|T2 B100 I5 H64|T17 B7 I33 H257)( grad)?, f32)$|^scan two .*f32$")
ALSO = {"matrix": ["precision=half"]}  # without which an option changes nothing
# One is the kind, one how long the choice of a path may take; the others change how kernels are launched.
NO_PATH = {"kernels", "tune", "command_buffer", "concurrent"}
MATRIX_MACROS = ("MATRIX", "SUBGROUPS_M", "SUBGROUPS_N", "FRAGMENTS_M", "FRAGMENTS_N", "TRANS_A", "TRANS_B", "HAVE_C",
                 "PACKED", "CHUNK")
HEAD = """\
# What `unroll conform` makes the OpenCL backend build, by script/vendors --collect: kinds of device, source, options.
# gpu: for GPUs; cpu8 and cpu16: for CPUs whose vectors hold 8 and 16 floats. nvidia_*, amd_*, intel_*: for GPUs with
# that matrix instruction, by backends/opencl/matrix.c.
"""

Variant = collections.namedtuple("Variant", "source options kinds")


def sources():
    return sorted(os.path.basename(path) for path in glob.glob(os.path.join(KERNELS, "*.cl")))


def read_file(name):
    for folder in FOLDERS:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path, "rb") as file:
                return file.read()
    return None


def whole(name, depth=0):
    """The text that the backend hands to the driver: includes are put in where they stand."""
    out = []
    for line in read_file(name).splitlines(keepends=True):
        found = re.match(rb'#include "([^"]+)"', line)
        other = found[1].decode() if found and depth < 4 else None
        out.append(whole(other, depth + 1) if other and read_file(other) is not None else line)
    return b"".join(out)


def without_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)


def kernel_names(text):
    plain = without_comments(text.decode())
    return re.findall(r"\b__kernel\b[^{;]*?\bvoid\s+(\w+)\s*\(", plain)  # attributes may stand between


def kernels_of(name):
    """The kernels that stand in the file itself."""
    return kernel_names(read_file(name))


def macros_of(options):
    return frozenset(re.findall(r"-D(\w+)", options))


# ---- the list ----
def read_list(path=LIST):
    variants = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                kinds, source, *options = line.split()
                variants.append(Variant(source, " ".join(options), tuple(kinds.split(","))))
    return variants


def write_list(found, path=LIST):
    """found: (source, options) -> kinds."""
    lines = [f"{','.join(sorted(kinds))} {source} {options}".rstrip() for (source, options), kinds in found.items()
             if kinds]
    with open(path, "w", encoding="utf-8") as file:
        file.write(HEAD + "".join(line + "\n" for line in sorted(lines, key=lambda line: line.split(" ", 1)[1])))


# ---- how it is made ----
def fnv(data, state=0xCBF29CE484222325):
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return state


def device_options():
    """The options of a device that choose a path, with their values but the default, which is the first: where the
    backend reads them."""
    with open(os.path.join(ROOT, "backends", "opencl", "backend.c"), encoding="utf-8") as file:
        table = re.search(r"\} choices\[\] = \{(.*?)\n\};", file.read(), re.S)
    found = re.findall(r'\{"(\w+)",\s*\{"\w+"((?:, "\w+")+)\}', table[1]) if table else []
    return {option: re.findall(r'"(\w+)"', values) for option, values in found if option not in NO_PATH}


def documented_options():
    """The same options as docs/devices.md has them."""
    with open(DEVICES, encoding="utf-8") as file:
        rows = re.findall(r"^\| `(\w+)` \| `\w+`((?:, `\w+`)+) \|", file.read(), re.M)
    return {option: re.findall(r"`(\w+)`", values) for option, values in rows if option not in NO_PATH}


def matrix_variants():
    """(source, options) -> kinds, of products by matrix instructions: every tile that backends/opencl/matrix.c has."""
    with open(os.path.join(ROOT, "backends", "opencl", "matrix.c"), encoding="utf-8") as file:
        text = file.read()
    numbers = dict(re.findall(r"\b([A-Z]\w+) = (\d+)", text))
    found = collections.defaultdict(set)
    for name, tiles in re.findall(r'\[(\w+)\] = \{"[^"]+", \d+, \d+, \d+, ((?:\{[\d, ]+\}(?:, )?)+)\}', text):
        for tile in re.findall(r"\{([\d, ]+)\}", tiles):
            for form in itertools.product((0, 1), repeat=4):
                if form[0] and form[3]:  # a transposed a has no packed b beside it
                    continue
                values = [numbers[name], *tile.split(", "), *form, 512]
                options = " ".join(f"-D{macro}={value}" for macro, value in zip(MATRIX_MACROS, values))
                found["matmul_matrix.cl", options].add("gpu" if name == "EMULATED" else name.lower())
    return found


def without_held(options):
    """The last rung of divide_resident's ladder (backends/opencl/plan_layer_gpu.c) under a variant that holds weights:
    its options, or None where it holds none. The planner takes it where the compiler spills on the rungs above. It
    differs in what is held alone, as long as its DEPTH is the same, which it is up to LEAST_DEPTH_HELD."""
    held = re.search(r"-DHELD_DEPTHS=(\d+) -DHELD_NEXT=(\d+)", options)
    if not held or held.group(1, 2) == ("0", "0"):
        return None
    with open(os.path.join(ROOT, "backends", "opencl", "plan_layer_gpu.c"), encoding="utf-8") as file:
        least = int(re.search(r"\bLEAST_DEPTH_HELD = (\d+)", file.read())[1])
    if int(re.search(r"-DDEPTH=(\d+)", options)[1]) > least:
        return None
    return options.replace(held[0], "-DHELD_DEPTHS=0 -DHELD_NEXT=0")


def held_variants(variants):
    """(source, options) -> kinds, of the last rungs under these: a CPU, on which they are collected, comes to none."""
    found = collections.defaultdict(set)
    for (source, options), kinds in variants.items():
        last = without_held(options)
        if last:
            found[source, last] |= kinds
    return found


def runs(kinds):
    """(kind, options, which cases), of `unroll conform`."""
    for kind in kinds:
        as_kind = f"kernels={KINDS[kind][1]}"
        yield kind, [as_kind], ""
        for option, values in device_options().items():
            for value in values:
                chosen = f"{option}={value}"
                only = CASES.get(chosen, CASES.get(option, LAYERS))
                yield kind, [as_kind, *ALSO.get(option, ()), chosen], only


def built(cache, hashes):
    """(source, options) of every program in a cache of the backend: a file begins with its key, in clear text."""
    found, unknown = set(), 0
    for path in glob.glob(os.path.join(cache, "cl-*.bin")):
        with open(path, "rb") as file:
            head = file.read(8192)
        key = re.search(rb"source (\d+) ([0-9a-f]{16})[^\n]*\n-cl-std=CL1\.2 ?([^\n]*)\n", head)
        source = hashes.get((int(key[1]), key[2].decode())) if key else None
        if source:
            found.add((source, " ".join(key[3].decode().split())))
        else:
            unknown += 1
    if unknown or not found:
        raise SystemExit(f"script/vendors: {cache}: {len(found)} programs known, {unknown} of no source in kernels/:"
                         " are the plugin and its sources of one state?")
    return found


def build_lanes(folder):
    library = os.path.join(folder, "lanes.so")
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-DCL_TARGET_OPENCL_VERSION=120", "-shared", "-fPIC", "-o",
                    library, os.path.join(ROOT, "script", "vendors_lanes.c")], check=True)
    return library


def collect(kinds, build, folder):
    """Runs the judge as each of these kinds of device, and writes what the list has of them anew."""
    os.makedirs(folder, exist_ok=True)
    subprocess.run(["cmake", "--build", build, "--target", "unroll-opencl", "unroll_tool"], check=True,
                   stdout=subprocess.DEVNULL)
    texts = {name: whole(name) for name in sources()}
    hashes = {(len(text), f"{fnv(text):016x}"): name for name, text in texts.items()}
    shim = build_lanes(folder)
    pocl = os.path.join(build, "cache", "pocl")
    os.makedirs(pocl, exist_ok=True)
    total = collections.defaultdict(set)
    for variant in read_list() if os.path.exists(LIST) else []:
        total[variant.source, variant.options] |= set(variant.kinds) & set(KINDS)
    for kind, options, only in runs(kinds):
        if not only:  # the first run of a kind
            for known in list(total.values()):
                known.discard(kind)
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            environment = dict(os.environ, UNROLL_CACHE_DIR=cache, POCL_CACHE_DIR=pocl, LD_PRELOAD=shim,
                               UNROLL_VENDORS_LANES=str(KINDS[kind][0]))
            command = [os.path.join(build, "bin", "unroll"), "conform",
                       os.path.join(build, "lib", "unroll", "unroll-opencl.so")]
            for option in options:
                command += ["--option", option]
            run = subprocess.run(command + (["--only", only] if only else []), env=environment, text=True, check=False,
                                 capture_output=True)
            if run.returncode:
                raise SystemExit(f"script/vendors: {' '.join(command)}: {run.stdout[-2000:]}{run.stderr[-500:]}")
            found = built(cache, hashes)
        new = {variant for variant in found if kind not in total[variant]}
        for variant in found:
            total[variant].add(kind)
        for also in (matrix_variants(), held_variants(total)):
            for variant, own in also.items():
                total[variant] |= own
        write_list(total)
        print(f"{kind} {' '.join(options)}: {len(found)} programs, {len(new)} new", flush=True)
    listed = read_list()
    print(f"{os.path.relpath(LIST, ROOT)}: {len(listed)} variants of"
          f" {len({variant.source for variant in listed})} sources")
