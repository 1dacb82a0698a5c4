#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Event files through TensorBoard's own loader, beside event_records.py; script/tensorboard runs it.

  tensorboard_loader.py         trains a little of every kind and compares what stands in the files
  tensorboard_loader.py DIR     compares the files in DIR"""
import math
import os
import struct
import subprocess
import sys
import tempfile

import event_records
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

UNROLL = os.path.join(os.environ.get("UNROLL_BUILD_DIR", "build/release"), "bin", "unroll")
PUBLISHED = bytes.fromhex("1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a"
                          "1a00000000000000129bd82d09000000000000f03f10052a0d0a0b0a046c6f7373150000003f1e6d8ff9")


def train(folder):
    """A folder of event files of each kind of training; one is resumed, one has numbers that are not finite."""
    def path(name, text=None):
        name = os.path.join(folder, name)
        if text is not None:
            with open(name, "w", encoding="utf-8") as file:
                file.write(text)
        return name

    text = path("t.txt", "the quick brown fox jumps over the lazy dog.\n" * 40)
    table = path("c.csv", "".join(f"{'ab'[i % 2]},{i % 7},{(i * 3) % 5},{i % 2},{i % 3}\n" for i in range(60)))
    series = path("y.csv", "y\n" + "".join(f"{10 + math.sin(t)}\n" for t in range(80)))
    pairs = path("p.tsv", "".join(f"{i:06b}\t{i * 5 % 64:06b}\n" for i in range(64)))
    small = ["--hidden", "8", "--batch", "8", "--device", "cpu"]
    lm = ["lm", "--text", text, *small, "--evaluate-every", "10"]
    runs = [("lm", [*lm, "--updates", "30", "--out", path("lm.safetensors")]),
            ("lm", ["lm", "--text", text, "--device", "cpu", "--resume", path("lm.safetensors"), "--updates", "40"]),
            ("nonfinite", [*lm, "--lr", "1e39", "--clip", "0", "--optimizer", "sgd", "--nonfinite", "skip", "--updates",
                           "20", "--out", path("n.safetensors")]),
            ("classify", ["classify", "--csv", table, *small, "--updates", "20", "--out", path("c.safetensors")]),
            ("series", ["series", "--csv", series, "--column", "y", *small, "--updates", "20", "--out",
                        path("y.safetensors")]),
            ("seq2seq", ["seq2seq", "--pairs", pairs, *small, "--updates", "20", "--out", path("p.safetensors")])]
    for name, arguments in runs:
        subprocess.run([UNROLL, "train", *arguments, "--tensorboard", path(name)], check=True, stderr=subprocess.DEVNULL)
    os.mkdir(path("published"))
    with open(path("published/events.out.tfevents.1.host.1.0"), "wb") as file:
        file.write(PUBLISHED)
    return [path(name) for name in ("published", *dict(runs))]


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-30)


def compare(path):
    """How many values of how many tags TensorBoard read; what differs ends the program."""
    ours = event_records.by_tag(path)
    loader = EventAccumulator(path, size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    loader.Reload()
    tags = loader.Tags()
    theirs = {"scalar": tags["scalars"], "histogram": tags["histograms"], "text": tags["tensors"]}
    count = 0
    for kind, names in theirs.items():
        mine = {tag for tag, (k, _) in ours.items() if k == kind}
        if mine != set(names):
            sys.exit(f"{path}: TensorBoard has the {kind}s {sorted(names)}, we {sorted(mine)}")
        for tag in names:
            read = {"scalar": loader.Scalars, "histogram": loader.Histograms, "text": loader.Tensors}[kind](tag)
            values = ours[tag][1]
            if [event.step for event in read] != list(values):
                sys.exit(f"{path}: {tag} has other steps")
            for event in read:
                value = values[event.step]
                if kind == "scalar":
                    good = same(event.value, struct.unpack("<f", struct.pack("<f", value))[0])
                elif kind == "text":
                    good = event.tensor_proto.string_val[0].decode() == value
                else:
                    h = event.histogram_value
                    good = (same(h.min, value["least"]) and same(h.max, value["greatest"]) and same(h.num, value["n"])
                            and sum(h.bucket) == sum(c for c in value["counts"]))
                if not good:
                    sys.exit(f"{path}: {tag} at step {event.step} is {event}, we have {value}")
                count += 1
    return count, len(ours)


def compare_killed(folder):
    """A training goes on from its last save, which was before the events of the run that was ended: each step is there once."""
    model, text, board = (os.path.join(folder, name) for name in ("k.safetensors", "t.txt", "killed"))
    run = [UNROLL, "train", "lm", "--text", text, "--device", "cpu", "--tensorboard", board]
    for more in (["--hidden", "8", "--batch", "8", "--updates", "30", "--out", model],
                 ["--resume", model, "--updates", "60", "--out", model + ".lost"], ["--resume", model, "--updates", "50"]):
        subprocess.run([*run, *more], check=True, stderr=subprocess.DEVNULL)
    loader = EventAccumulator(board, size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    loader.Reload()
    steps = [event.step for event in loader.Scalars("loss/training")]
    if steps != list(range(1, 51)):
        sys.exit(f"{board}: TensorBoard has the steps {steps}")
    print("killed: what was told after the last save is gone")


def main():
    with tempfile.TemporaryDirectory(prefix="unroll-tensorboard-") as folder:
        for run in sys.argv[1:] or train(folder):
            for path in event_records.files(run):
                count, tags = compare(path)
                print(f"{os.path.basename(run)}: {tags} tags, {count} values as TensorBoard reads them")
        if not sys.argv[1:]:
            compare_killed(folder)


if __name__ == "__main__":
    main()
