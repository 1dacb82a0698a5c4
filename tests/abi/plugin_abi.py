#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plugin_abi.py MODE CC HEADER [DUMP]: plugin.h as data, on stdout.

  text      what plugin.txt holds: sizes and offsets of every struct, enum constants, macros, as CC sees them
  objects   a C file in which every struct is the type of an object, for the debug information that abidw reads
  asserts   a C file that compiles where sizes, offsets and enum constants are those of DUMP, on any machine
  appended  the header with one more field at the end of every struct that may grow (rule R2)
"""
import re
import subprocess
import sys
import tempfile

STRUCT = re.compile(r"^(?:typedef )?struct (unroll_\w+) \{(.*?)^\}[^;\n]*;", re.MULTILINE | re.DOTALL)
ENUM = re.compile(r"\benum \{(.*?)\}", re.DOTALL)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# Walked by a stride that stands elsewhere, where all others begin with struct_size.
BY_STRIDE = {"unroll_tensor_view", "unroll_node_view", "unroll_claim"}
NEVER = {"unroll_option", "unroll_plugin_note"}  # complete for ever; laid down by ELF


def declarators(declaration):
    """The names that one declaration of a struct's fields declares."""
    function = re.match(r"[^()]*\(\*(\w+)\)\(", declaration)
    if function:
        return [function[1]]
    return [re.search(r"(\w+)(?:\[\w+\])*$", part.strip())[1] for part in declaration.split(",")]


def structs(text):
    for name, body in STRUCT.findall(COMMENT.sub("", text)):
        yield name, [field for part in body.split(";") if part.strip() for field in declarators(" ".join(part.split()))]


def preprocessed(cc, header, *flags):
    return subprocess.run([cc, "-std=c11", "-E", *flags, header], check=True, capture_output=True, text=True).stdout


def enum_names(cc, header):
    for body in ENUM.findall(preprocessed(cc, header, "-P")):
        yield from re.findall(r"\b(UNROLL_\w+) =", body)


def macros(cc, header):
    """Name, parameters and text of the header's macros; a table is a line a row."""
    for line in sorted(preprocessed(cc, header, "-dM").splitlines()):
        found = re.match(r"#define (UNROLL_\w+(?:\([^)]*\))?) ?(.*)", line)
        if found and found[1] != "UNROLL_PLUGIN_H":
            yield found[1], re.sub(r" *\bX\(", "\n  X(", found[2])


def size_lines(cc, header, text):
    """Compiled and run: a line a struct, a field and an enum constant."""
    lines = ["#include <stdio.h>", f'#include "{header}"', "int main(void) {"]
    for name, fields in structs(text):
        lines.append(f'  printf("struct {name} %zu\\n", sizeof({name}));')
        lines += [f'  printf("  %zu %zu {f}\\n", offsetof({name}, {f}), sizeof((({name} *)0)->{f}));' for f in fields]
    lines += [f'  printf("enum {name} %d\\n", (int){name});' for name in enum_names(cc, header)]
    lines.append("  return 0;\n}\n")
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/sizes.c", "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
        subprocess.run([cc, "-std=c11", "-o", f"{folder}/sizes", f"{folder}/sizes.c"], check=True)
        return subprocess.run([f"{folder}/sizes"], check=True, capture_output=True, text=True).stdout


def objects(header, text):
    lines = [f'#include "{header}"'] + [f"{name} object_of_{name[7:]};" for name, _ in structs(text)]
    return "\n".join(lines) + "\n"


def asserts(header, dump):
    lines, struct = [f'#include "{header}"'], None
    with open(dump, encoding="utf-8") as file:
        for line in file:
            if re.match(r"struct ", line):
                _, struct, size = line.split()
                lines.append(f'_Static_assert(sizeof({struct}) == {size}, "{struct}");')
            elif struct and re.match(r"  \d", line):
                offset, size, field = line.split()
                lines.append(f'_Static_assert(offsetof({struct}, {field}) == {offset}, "{struct}.{field}");')
                lines.append(f'_Static_assert(sizeof((({struct} *)0)->{field}) == {size}, "{struct}.{field}");')
            elif re.match(r"enum ", line):
                _, name, value = line.split()
                lines.append(f'_Static_assert({name} == {value}, "{name}");')
    return "\n".join(lines) + "\n"


def appended(text):
    grown = []

    def grow(match):
        name, body = match[1], match[2]
        grows = "struct_size" in body or name in BY_STRIDE or name.endswith("_attr")
        if not grows or name in NEVER:
            return match[0]
        grown.append(name)
        field = "uint64_t appended"
        if name.endswith("_ops"):
            field = "unroll_status (*appended)(unroll_backend *, unroll_error *)"
        end = match.end(2) - match.start()
        return f"{match[0][:end]}  {field};\n{match[0][end:]}"

    result = STRUCT.sub(grow, text)
    if not {"unroll_backend_ops", "unroll_plugin", "unroll_error", "unroll_layer_attr", *BY_STRIDE} <= set(grown):
        sys.exit(f"plugin_abi.py: only these structs were found: {' '.join(grown)}")
    return result


def main():
    mode, cc, header = sys.argv[1:4]
    with open(header, encoding="utf-8") as file:
        text = file.read()
    if mode == "text":
        sys.stdout.write(size_lines(cc, header, text))
        sys.stdout.writelines(f"macro {name} {value}".replace(" \n", "\n") + "\n" for name, value in macros(cc, header))
    elif mode == "objects":
        sys.stdout.write(objects(header, text))
    elif mode == "asserts":
        sys.stdout.write(asserts(header, sys.argv[4]))
    elif mode == "appended":
        sys.stdout.write(appended(text))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
