#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What nn.h, seq2seq.h, ctc.h and ssm.h offer has a case in the judge of backends, and golden values of PyTorch.

Read from the headers, so that what is added there without a case fails: building calls, enumerators and the fields of
unroll_rnn_options in api/conform/suite_layers_*.c; in tests/golden every loss with each of its reductions and its
gradient, every attention and context, every cell with a layer norm, every activation and option.
"""
import json
import os
import re
import struct
import sys

HEADERS = ("nn.h", "seq2seq.h", "ctc.h", "ssm.h", "checkpoint.h")
SUITES = ("suite_layers_models.c", "suite_layers_sequences.c", "suite_layers_scans.c")
# Of the host, or no node of their own.
NO_CASE = {"unroll_activation_of"}
# Called by what is called, with all of its options.
INDIRECT = {"unroll_attention_prepare": "unroll_decode", "unroll_attend": "unroll_decode"}
NO_REDUCTION = {"cross_entropy": {"half_sum"}, "ctc": {"half_sum"}, "reinforce": {"half_sum", "none"}}
LAYER_NORM_CELLS = {1: "rnn", 2: "lstm", 3: "gru", 4: "gru_after", 64: "coupled_lstm"}


def without_comments(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)


def read(root, *path):
    with open(os.path.join(root, *path), encoding="utf-8") as file:
        return file.read()


def fields_of(header, struct_name):
    body = re.search(r"typedef struct %s \{(.*?)\} %s;" % (struct_name, struct_name), header, re.DOTALL)[1]
    names = re.findall(r"\*?(\w+)\s*(?=[;,])", body)
    return [n for n in names if not n.startswith("reserved") and n != "struct_size"]


def enumerators(header):
    return re.findall(r"\b(UNROLL_[A-Z0-9_]+)\s*=", header)


def is_a_choice(enumerator):
    """Neither the number of the others, nor what stands where nothing is said, nor what a cell's gates are."""
    return not enumerator.endswith(("_COUNT", "_END", "_DEFAULT")) and not enumerator.startswith("UNROLL_KEEPS")


def building_calls(header):
    results = "unroll_tensor|unroll_\\w+_outputs|unroll_attention|unroll_cell_state|void"
    calls = re.findall(r"UNROLL_API\s+(%s)\s+(\w+)\(" % results, header)
    return [name for kind, name in calls if not name.startswith("unroll_init_")]


def judge_faults(headers, suites):
    for name, header in headers.items():
        for call in building_calls(header):
            if call not in NO_CASE and INDIRECT.get(call, call) + "(" not in suites:
                yield f"{name}: {call} stands in no case of the judge"
        for enumerator in enumerators(header):
            kind, _, tail = enumerator.rpartition("ACTIVATION_")
            written = f"ACTIVATION({tail}," if kind else enumerator
            if not is_a_choice(enumerator):
                continue
            if not re.search(re.escape(written) + r"(?!\w)", suites):
                yield f"{name}: {enumerator} stands in no case of the judge"
    for field in fields_of(headers["nn.h"], "unroll_rnn_options"):
        if not re.search(r"\.%s = " % field, suites) and f"o.{field}" not in suites:
            yield f"nn.h: unroll_rnn_options.{field} stands in no case of the judge"


def golden_header(path):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        return json.loads(file.read(size))


def losses_of(headers):
    """The functions of the headers that are losses or what losses are made of."""
    header = headers["nn.h"]
    names = building_calls(header[header.index("UNROLL_LOSS_MEAN"):header.index("unroll_clip_global_norm")])
    for other in ("seq2seq.h", "ctc.h"):
        names += [n for n in building_calls(headers[other]) if n.endswith("_loss")]
    return [re.sub(r"^unroll_|_loss$", "", n) for n in names]


def golden_faults(headers, files):
    reductions = [e[len("UNROLL_LOSS_"):].lower() for e in enumerators(headers["nn.h"]) if e.startswith("UNROLL_LOSS_")]
    tensors = {key: f"{file}.{key}" for file, header in files.items() for key in header if file == "losses"}
    tensors.update({f"{file}.{key}": file for file in ("ctc", "reinforce") for key in files.get(file, {})})
    for file in ("ctc", "reinforce"):
        for key in files.get(file, {}):
            if key.startswith("grad."):
                tensors[f"grad.{file}.{key[len('grad.'):]}"] = file
    losses = losses_of(headers)
    if len(losses) < 4:
        yield f"only {losses} found: the headers read otherwise than this test does"
    for loss in losses:
        for reduction in reductions:
            if reduction in NO_REDUCTION.get(loss, ()):
                continue
            for name in (f"{loss}.{reduction}", f"grad.{loss}.{reduction}"):
                if not any(key == name or key.startswith(name + ".") for key in tensors):
                    yield f"unroll_{loss}: no golden {name}"
    if "grad.log_prob" not in files.get("reinforce", {}):
        yield "unroll_sequence_log_prob: no golden grad.log_prob"
    meta = {file: header["__metadata__"] for file, header in files.items()}
    decoders = [m for file, m in meta.items() if file.startswith("decoder_")]
    for e in enumerators(headers["seq2seq.h"]):
        kind, value = e.split("_", 2)[1], e.split("_", 2)[2].lower()
        if kind == "ATTENTION" and value != "count":
            if value != "none" and f"attention_{value}" not in files:
                yield f"{e}: no golden attention_{value}"
            if not any(m["attention"] == value for m in decoders):
                yield f"{e}: no golden decoder with it"
        if kind == "CONTEXT" and not any(m["context"] == value for m in decoders):
            yield f"{e}: no golden decoder with it"
    cells = [m for file, m in meta.items() if file.startswith("cell_")]
    for code, name in LAYER_NORM_CELLS.items():
        if not any(m["cell"] == str(code) and m.get("layer_norm", "0") != "0" for m in cells):
            yield f"no golden of {name} with a layer norm"
    for e in re.findall(r"(UNROLL_ACTIVATION_\w+) = (\d+)", headers["nn.h"]):
        if is_a_choice(e[0]) and not any(m.get(k) == e[1] for m in cells for k in "fgh"):
            if f"layer_rnn_{e[0][len('UNROLL_ACTIVATION_'):].lower()}_1x_uni_full" not in files:
                yield f"{e[0]}: no golden cell has it"
    # what is of graphs, not of values: a golden cannot have it
    own = {"cell", "activation", "layers", "hidden", "lengths", "checkpoint", "taps", "gates", *"fgh"}
    for field in fields_of(headers["nn.h"], "unroll_rnn_options"):
        if field not in own and not any(m.get(field, "0") not in ("0", "0.0") for m in cells):
            yield f"unroll_rnn_options.{field}: no golden cell has it"
    for name in sorted(file for file in meta if file.startswith("cell_")):
        if not name.startswith("cell_weight_dropout") and name.replace("cell_", "inside_", 1) not in files:
            yield f"{name}: no golden of its gates"


def main():
    root = os.environ.get("UNROLL_SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    headers = {name: without_comments(read(root, "api", "include", "unroll", name)) for name in HEADERS}
    suites = without_comments("".join(read(root, "api", "conform", name) for name in SUITES))
    golden = os.path.join(root, "tests", "golden")
    names = [os.path.splitext(name) for name in sorted(os.listdir(golden))]
    files = {name: golden_header(os.path.join(golden, name + end)) for name, end in names if end == ".safetensors"}
    faults = [*judge_faults(headers, suites), *golden_faults(headers, files)]
    print("\n".join(faults) if faults else "every call, option and loss has its cases")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
