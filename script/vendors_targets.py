# SPDX-License-Identifier: Apache-2.0
"""The compilers of devices that are not here: how they are found, called, and what their output says of each kernel.

What a compiler printed is kept in build/vendors, under a hash of the source, the commands and the compilers' versions.
"""
import collections
import fnmatch
import glob
import hashlib
import math
import os
import re
import shutil
import struct
import subprocess
import tempfile

from vendors_kernels import kernel_names

# regs: vector registers (NVIDIA: registers) of a work-item; scalar: AMD's SGPRs; spill: bytes of private memory, which
# stands in for registers, arrays in it too; local: bytes of local memory; fit: waves a SIMD (AMD), warps a
# multiprocessor (NVIDIA), work-items a thread (Intel).
Figures = collections.namedtuple("Figures", "regs scalar spill local fit")
Target = collections.namedtuple("Target", "name family chip kinds")

GPU, ALL = ("gpu",), ("gpu", "cpu8", "cpu16")
# The kinds that are built for a chip's matrix instruction alone, as backends/opencl/matrix.c names it.
MATRIX = {"gfx90a": ("amd_mfma",), "gfx1100": ("amd_wmma",), "sm_75": ("nvidia_k8",), "sm_80": ("nvidia_k16",),
          "sm_90": ("nvidia_k16",), "dg2": ("intel_8",)}
CHIPS = [(chip, "AMD", chip) for chip in ("gfx803", "gfx900", "gfx906", "gfx90a", "gfx1030", "gfx1100")]
CHIPS += [(chip, "NVIDIA", chip) for chip in ("sm_75", "sm_80", "sm_90")]
CHIPS += [("Gen9", "Intel", "skl"), ("Gen12LP", "Intel", "tgllp"), ("Arc", "Intel", "dg2")]
TARGETS = [Target(name, family, chip, GPU + MATRIX.get(chip, ())) for name, family, chip in CHIPS]
TARGETS += [Target("Max", "Intel", "pvc", ("intel_16",))]
TARGETS += [Target("Intel", "SPIR-V", "spir64", ALL), Target("Arm", "SPIR-V", "spir", ALL)]
TARGETS += [Target("AVX2", "host", "haswell", ("cpu8",)), Target("AVX-512", "host", "skylake-avx512", ("cpu16",))]

CLANG, LLVM_AS, TO_SPIRV = "clang-15", "llvm-as-15", "llvm-spirv-15"
NEWER = {"gfx1100": "clang-16"}  # clang 15 gives a work-item there 128 of 256 registers
AMD_LIBRARY = "/usr/lib/x86_64-linux-gnu/amdgcn/bitcode"
NVIDIA_LIBRARY = "/usr/lib/clc/nvptx64--nvidiacl.bc"
NVIDIA_CHIP = {"sm_90": "sm_80"}  # clang 15 knows no sm_90: ptxas makes it of the PTX for sm_80, as the driver does
NO_DOUBLES = {"tgllp", "dg2", "spir"}
WARPS = {"sm_75": 32}             # a multiprocessor holds; the others 64
SHARED = {"sm_75": 64, "sm_80": 164, "sm_90": 228}  # KB of local memory of a multiprocessor
NVCC_PACKAGE = "nvidia-cuda-nvcc-cu12"
INTEL_PACKAGES = ["intel-opencl-icd", "libigc1", "libigdfcl1", "libigdgmm12", "libopencl-clang14", "libllvmspirvlib14"]
# A device without doubles, halves and 64-bit atomics, and with addresses of 32 bits.
SMALL = ["-Xclang", "-cl-ext=-all,+cl_khr_byte_addressable_store,+cl_khr_global_int32_base_atomics,"
         "+cl_khr_global_int32_extended_atomics,+cl_khr_local_int32_base_atomics,+cl_khr_local_int32_extended_atomics"]


class Failed(Exception):
    """A compiler refused a kernel: the message is its own."""


def call(command, **more):
    run = subprocess.run(command, text=True, errors="replace", capture_output=True, check=False, **more)
    if run.returncode:
        raise Failed(f"{' '.join(command)}\nexit code {run.returncode}\n{run.stdout}{run.stderr}")
    return run.stdout + run.stderr


class Tools:
    """Finds and makes what the targets need, in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(os.path.join(folder, "kept"), exist_ok=True)
        self.missing = {}  # family -> why it isn't compiled for, or not fully
        self.versions = {}
        for family, programs in (("AMD", [CLANG, *NEWER.values(), LLVM_AS]), ("NVIDIA", [CLANG]), ("Intel", []),
                                 ("host", [CLANG]), ("SPIR-V", [CLANG, TO_SPIRV, "spirv-val"])):
            absent = [name for name in programs if not shutil.which(name)]
            if absent:
                self.missing[family] = "not found: " + ", ".join(absent)
            self.versions[family] = [call([name, "--version"]) for name in programs if name not in absent]
        self.amd_library = self.make_amd_library() if "AMD" not in self.missing else None
        self.ptxas = self.find_ptxas()
        self.ocloc = self.unpack_intel()

    def make_amd_library(self):
        """Debian's has no constants of gfx1100."""
        if not os.path.isdir(AMD_LIBRARY):
            self.missing["AMD"] = f"not found: {AMD_LIBRARY}"
            return None
        folder = os.path.join(self.folder, "amdgcn")
        if not os.path.exists(os.path.join(folder, "oclc_isa_version_1100.bc")):
            shutil.copytree(AMD_LIBRARY, folder, dirs_exist_ok=True)
            line = ("@__oclc_ISA_version = linkonce_odr hidden local_unnamed_addr addrspace(4) constant i32 11000, "
                    "align 4\n")
            subprocess.run([LLVM_AS, "-o", os.path.join(folder, "oclc_isa_version_1100.bc")], input=line, text=True,
                           check=True)
        return folder

    def find_ptxas(self):
        """On the PATH, in CUDA's usual place, or from a Python package."""
        if not os.path.exists(NVIDIA_LIBRARY):
            self.missing["NVIDIA"] = f"not found: {NVIDIA_LIBRARY}"
            return None
        found = shutil.which("ptxas") or next(iter(glob.glob("/usr/local/cuda*/bin/ptxas")), None)
        environment = os.path.join(self.folder, "nvcc")
        pattern = os.path.join(environment, "lib", "python*", "site-packages", "nvidia", "**", "bin", "ptxas")
        if not found and not glob.glob(pattern, recursive=True):
            try:
                call(["python3", "-m", "venv", environment])
                call([os.path.join(environment, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check",
                      NVCC_PACKAGE])
            except (Failed, OSError) as error:
                self.missing["NVIDIA"] = f"PTX only, no ptxas: {str(error).splitlines()[-1][:100]}"
                return None
        found = found or next(iter(glob.glob(pattern, recursive=True)), None)
        if found:
            self.versions["NVIDIA"].append(call([found, "--version"]))
        return found

    def unpack_intel(self):
        """Intel's offline compiler, out of its driver's package: the driver, installed, would be one more platform."""
        folder = os.path.join(self.folder, "intel")
        found = os.path.join(folder, "usr", "bin", "ocloc")
        if not os.path.exists(found):
            try:
                with tempfile.TemporaryDirectory(dir=self.folder) as held:
                    call(["apt-get", "-q", "download", *INTEL_PACKAGES], cwd=held)
                    for package in glob.glob(os.path.join(held, "*.deb")):
                        call(["dpkg-deb", "-x", package, folder])
            except (Failed, OSError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                self.missing["Intel"] = f"no offline compiler: {str(error).splitlines()[-1][:100]}"
                return None
        libraries = os.path.join(folder, "usr", "lib", "x86_64-linux-gnu")
        self.intel = dict(os.environ, LD_LIBRARY_PATH=libraries)
        self.versions["Intel"] = sorted(os.path.basename(path) for path in glob.glob(os.path.join(libraries, "*.so.*")))
        return [found]

    def can(self, family):
        return family not in self.missing or (family == "NVIDIA" and self.missing[family].startswith("PTX"))

    def kept(self, target, text, options):
        key = repr((target, text, options, self.versions[target.family], target.family == "NVIDIA" and self.ptxas))
        with open(__file__, "rb") as file:  # the commands are written there
            commands = file.read().split(b"# ---- reading")[0]
        return os.path.join(self.folder, "kept", hashlib.sha256(commands + key.encode()).hexdigest()[:32])

    def figures(self, target, text, options):
        """Kernel -> Figures, or Failed."""
        path = self.kept(target, text, options)
        if not os.path.exists(path):
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                source = os.path.join(folder, "k.cl")
                with open(source, "wb") as file:
                    file.write(text)
                said = COMPILE[target.family](self, target.chip, folder, source, ["-cl-std=CL1.2", *options.split()])
            with open(path + ".new", "w", encoding="utf-8") as file:
                file.write(said)
            os.replace(path + ".new", path)
        with open(path, encoding="utf-8") as file:
            return READ[target.family](target.chip, file.read())

    # ---- compiling: each returns what there is to be read ----
    def compile_amd(self, chip, folder, source, options):
        out = os.path.join(folder, "k.s")
        call([NEWER.get(chip, CLANG), "-x", "cl", *options, "-target", "amdgcn-amd-amdhsa", f"-mcpu={chip}", "-O2",
              "-S", source, "-o", out, f"--rocm-device-lib-path={self.amd_library}"])
        with open(out, encoding="utf-8") as file:
            return "".join(line for line in file if re.search(r"@function$|^; Occupancy|^  (- |  \.\w)", line))

    def compile_nvidia(self, chip, folder, source, options):
        out = os.path.join(folder, "k.ptx")
        call([CLANG, "-x", "cl", *options, "-target", "nvptx64--nvidiacl", "-Xclang", "-target-cpu", "-Xclang",
              NVIDIA_CHIP.get(chip, chip), "-Xclang", "-mlink-builtin-bitcode", "-Xclang", NVIDIA_LIBRARY, "-O2", "-S",
              source, "-o", out])
        with open(out, encoding="utf-8") as file:
            said = "".join(line for line in file if re.match(r"\.visible \.entry|\.(req|max)ntid", line))
        if not self.ptxas:
            return said
        return said + call([self.ptxas, "-v", f"-arch={chip}", out, "-o", os.path.join(folder, "k.cubin")])

    def compile_intel(self, chip, folder, source, options):
        if set(options) & {"-DMATRIX=5", "-DMATRIX=6"}:  # ocloc's own list of a chip's extensions lacks it
            options = ["-Dcl_intel_subgroup_matrix_multiply_accumulate=1", *options]
        call([*self.ocloc, "compile", "-file", source, "-device", chip, "-options", " ".join(options), "-output", "k",
              "-out_dir", folder, "--format", "zebin", "-q"], env=self.intel, cwd=folder)
        with open(glob.glob(os.path.join(folder, "k_*.bin"))[0], "rb") as file:
            return section(file.read(), ".ze_info")

    def compile_spirv(self, chip, folder, source, options):
        code, out = os.path.join(folder, "k.bc"), os.path.join(folder, "k.spv")
        call([CLANG, "-x", "cl", *options, "-target", f"{chip}-unknown-unknown", "-O0",
              *(SMALL if chip == "spir" else []), "-emit-llvm", "-c", source, "-o", code])
        call([TO_SPIRV, "--spirv-max-version=1.0", code, "-o", out])
        call(["spirv-val", "--target-env", "opencl1.2", out])
        names = call(["spirv-dis", out])
        return "".join(line + "\n" for line in names.splitlines() if "OpCapability" in line or "OpEntryPoint" in line)

    def compile_host(self, chip, folder, source, options):
        """Built-in functions stay calls there, so that figures would mean nothing."""
        call([CLANG, "-x", "cl", *options, "-target", "x86_64-pc-linux-gnu", f"-march={chip}", "-O2", "-c", source,
              "-o", os.path.join(folder, "k.o")])
        with open(source, "rb") as file:
            return "".join(f"entry {name}\n" for name in kernel_names(file.read()))


COMPILE = {"AMD": Tools.compile_amd, "NVIDIA": Tools.compile_nvidia, "Intel": Tools.compile_intel,
           "SPIR-V": Tools.compile_spirv, "host": Tools.compile_host}


def section(image, name):
    """A section of an ELF file of 64 bits, as text."""
    table, = struct.unpack_from("<Q", image, 0x28)
    each, count, names = struct.unpack_from("<HHH", image, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", image, table + i * each) for i in range(count)]
    for header in headers:
        at = headers[names][4] + header[0]
        if image[at:image.index(b"\0", at)] == name.encode():
            return image[header[4]:header[4] + header[5]].decode()
    raise Failed(f"no section {name}")


# ---- reading ----
def read_amd(chip, said):
    fit, current, found = {}, None, {}
    for line in said.splitlines():
        function = re.match(r"\s*\.type\s+(\w+),@function", line)
        current = function[1] if function else current
        waves = re.match(r"; Occupancy: (\d+)", line)
        if waves:
            fit[current] = int(waves[1])
    for block in re.split(r"(?m)^  - ", said)[1:]:
        values = dict(re.findall(r"^ *\.(\w+): +(\S+)$", block, re.M))
        number = {key: int(value) for key, value in values.items() if value.isdigit()}
        if "vgpr_count" in number:
            name = values["name"]
            found[name] = Figures(number["vgpr_count"], number["sgpr_count"], number["private_segment_fixed_size"],
                                  number["group_segment_fixed_size"], fit.get(name))
    return found


def warps(chip, registers, local, group):
    each = math.ceil(registers * 32 / 256) * 256
    most = WARPS.get(chip, 64)
    count = min(most, 65536 // each // 4 * 4) if registers else most
    if group:
        of_group = math.ceil(group / 32)
        groups = count // of_group
        if local:
            groups = min(groups, SHARED[chip] * 1024 // (local + (1024 if chip != "sm_75" else 0)))
        count = groups * of_group
    return count


def read_nvidia(chip, said):
    groups, found, current = {}, {}, None
    for line in said.splitlines():
        entry = re.match(r"\.visible \.entry (\w+)", line)
        current = entry[1] if entry else current
        if entry:
            found[current] = None
        group = re.match(r"\.reqntid ([\d, ]+)", line)
        if group:
            groups[current] = math.prod(int(number) for number in group[1].split(","))
    for name, body in re.findall(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", said, re.S):
        spill = sum(int(number) for number in re.findall(r"(\d+) bytes stack frame", body))
        registers = int(re.search(r"Used (\d+) registers", body)[1])
        local = sum(int(number) for number in re.findall(r"(\d+) bytes smem", body))
        found[name] = Figures(registers, None, spill, local, warps(chip, registers, local, groups.get(name)))
    return {name: figures or Figures(None, None, 0, 0, None) for name, figures in found.items()}


def read_intel(chip, said):
    found = {}
    said = said.split("\nkernels_misc_info:")[0]
    for block in re.split(r"(?m)^  - name: +", said)[1:]:
        number = {key: int(value) for key, value in re.findall(r"^      (\w+): +(\d+)$", block, re.M)}
        buffers = re.search(r"^    per_thread_memory_buffers:\n((?:      .*\n?)+)", block, re.M)
        sizes = re.findall(r"^ +size: +(\d+)$", buffers[1], re.M) if buffers else []
        if "Intel_Symbol_Table" in block.split()[0]:  # the compiler's own
            continue
        found[block.split()[0]] = Figures(number["grf_count"], None, sum(int(size) for size in sizes),
                                          number.get("slm_size", 0), number["simd_size"])
    return found


def read_spirv(chip, said):
    capabilities = re.findall(r"OpCapability (\w+)", said)
    if chip == "spir" and {"Float64", "Float16"} & set(capabilities):
        raise Failed(f"needs what no option says: {' '.join(capabilities)}")
    return {name: Figures(None, None, 0, 0, None) for name in re.findall(r'OpEntryPoint Kernel %\S+ "(\w+)"', said)}


def read_host(chip, said):
    return {name: Figures(None, None, 0, 0, None) for name in re.findall(r"^entry (\w+)$", said, re.M)}


READ = {"AMD": read_amd, "NVIDIA": read_nvidia, "Intel": read_intel, "SPIR-V": read_spirv, "host": read_host}


def matching(pattern):
    def meets(target):
        return any(fnmatch.fnmatch(name, part) for part in pattern.split(",")
                   for name in (target.name, target.family, target.chip))
    return [target for target in TARGETS if meets(target)]
