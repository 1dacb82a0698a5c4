#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`unroll train ... --tensorboard DIR`: what stands in the event files, and what goes wrong with them."""
import json
import math
import os
import resource
import struct
import subprocess
import time
import unittest

import event_records
from command_test import CPU, LM, TINY, UNROLL, WORDS, Case


def spectral_radius(matrix):
    """By Gelfand's formula: the limit of the norm of A^k, to the power 1/k; k is 2^20 here."""
    logarithm, share = 0.0, 1.0
    for _ in range(20):
        norm = math.sqrt(sum(x * x for row in matrix for x in row))
        logarithm, share = logarithm + share * math.log(norm), share / 2
        matrix = [[x / norm for x in row] for row in matrix]
        columns = list(zip(*matrix))
        matrix = [[sum(a * b for a, b in zip(row, column)) for column in columns] for row in matrix]
    return math.exp(logarithm)


class Board(Case):
    def board(self, folder, i=0):
        return event_records.by_tag(event_records.files(self.path(folder))[i])

    def text(self):
        return self.write("text.txt", WORDS * 20)

    def test_published_records(self):
        version = bytes.fromhex("1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a")
        loss = bytes.fromhex("1a00000000000000129bd82d09000000000000f03f10052a0d0a0b0a046c6f7373150000003f1e6d8ff9")
        path = self.write("published", version + loss)
        self.assertEqual(list(event_records.events(path)), [(1.0, 5, "loss", "scalar", 0.5)])
        with self.assertRaises(ValueError):
            list(event_records.records(version + loss[:-1] + b"\0"))

    def test_tags_are_those_of_the_log(self):
        start = time.time()
        done = self.train(*TINY, "--out", self.path("a.safetensors"), "--log", self.path("a.jsonl"), "--updates", "50",
                          "--evaluate-every", "20", "--schedule", "cosine", "--tensorboard", self.path("runs/a"))
        self.assertNotIn("tensorboard", done.stderr)
        (path,) = event_records.files(self.path("runs/a"))
        seconds, _, pid, n = os.path.basename(path)[len("events.out.tfevents."):].split(".")
        self.assertTrue(start - 1 <= int(seconds) <= time.time() and int(pid) > 0 and n == "0", path)
        self.assertTrue(all(start <= wall <= time.time() for wall, *_ in event_records.events(path)))
        tags, log = event_records.by_tag(path), self.log("a.jsonl")
        for tag, key in (("loss/training", "loss"), ("gradient/norm", "grad_norm"), ("learning_rate", "lr")):
            kind, values = tags[tag]
            self.assertEqual((kind, sorted(values)), ("scalar", list(range(1, 51))))
            for line in log:
                self.assertTrue(math.isclose(values[line["update"]], line[key], rel_tol=1e-6), (tag, line))
        validation = {line["update"]: line["validation_loss"] for line in log if "validation_loss" in line}
        self.assertEqual(sorted(validation), [20, 40, 50])
        for update, loss in validation.items():
            self.assertTrue(math.isclose(tags["loss/validation"][1][update], loss, rel_tol=1e-6))
        reports = sorted(tags["speed/chars_per_s"][1])
        self.assertEqual(reports[-1], 50)
        self.assertEqual(sorted(tags["speed/updates_per_s"][1]), reports)
        for step, epoch in tags["epoch"][1].items():
            self.assertGreater(epoch, step / 1000)
        for gate in "ifgo":
            radii = tags[f"spectral_radius/rnn.W_h.0.0/{gate}"]
            self.assertEqual((radii[0], sorted(radii[1])), ("scalar", [20, 40, 50]))
            self.assertTrue(all(0.5 < r < 2 for r in radii[1].values()), radii)
        sizes = {"embedding.weight": None, "rnn.W_x.0.0": 4 * 12 * 6, "rnn.W_h.0.0": 4 * 12 * 12, "rnn.b.0.0": 48,
                 "linear.W": None, "linear.b": None}
        for what in ("weights", "gradients"):
            self.assertEqual({tag.split("/", 1)[1] for tag in tags if tag.startswith(what + "/")}, set(sizes))
            for name, size in sizes.items():
                kind, values = tags[f"{what}/{name}"]
                self.assertEqual((kind, sorted(values)), ("histogram", [20, 40, 50]))
                for h in values.values():
                    self.assertEqual(sum(h["counts"]), h["n"])
                    self.assertTrue(size in (None, h["n"]) and h["least"] <= h["greatest"] == h["edges"][-1])
        kind, texts = tags["configuration"]
        self.assertEqual((kind, list(texts)), ("text", [0]))
        for line in (r"command +train lm", r"cell +lstm", r"hidden +12", r"schedule +cosine", r"lr +0\.002",
                     r"updates +50", r"tied +no", r"seed +1", r"runs on +cpu:0"):
            self.assertRegex(texts[0], rf"(?m)^    {line}$")

    def test_weights_are_those_of_the_model(self):
        """The last histogram's sums and the radii of the gates, from the tensors of the model's file."""
        self.train(*TINY, "--out", self.path("w.safetensors"), "--updates", "5", "--tensorboard", self.path("w"))
        data, tags = self.read("w.safetensors"), self.board("w")
        (n,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8:8 + n])

        def tensor(name):
            first, last = header[name]["data_offsets"]
            return struct.unpack(f"<{(last - first) // 4}f", data[8 + n + first:8 + n + last])

        recurrent = tensor("rnn.W_h.0.0")
        for i, gate in enumerate("ifgo"):
            radius = spectral_radius([recurrent[144 * i + 12 * k:144 * i + 12 * k + 12] for k in range(12)])
            self.assertTrue(math.isclose(tags[f"spectral_radius/rnn.W_h.0.0/{gate}"][1][5], radius, rel_tol=1e-4), gate)
        for tag, suffix in (("weights", ""), ("gradients", ".s1")):
            for name in ("rnn.W_h.0.0", "linear.b"):
                values = tensor(name + suffix)
                h = tags[f"{tag}/{name}"][1][5]
                self.assertEqual((h["n"], h["least"], h["greatest"]), (len(values), min(values), max(values)))
                self.assertTrue(math.isclose(h["sum"], math.fsum(values), rel_tol=1e-9, abs_tol=1e-9))
                self.assertTrue(math.isclose(h["squares"], math.fsum(x * x for x in values), rel_tol=1e-9))

    def test_radii_of_other_cells(self):
        """Of a projection that of W_r·W_h, by which h comes back to h; gates by the cell's own letters."""
        for cell, gates in (("lstm", "ifgo"), ("coupled_lstm", "igo")):
            self.train(*TINY, "--cell", cell, "--projection", "5", "--out", self.path("p.safetensors"), "--updates", "5",
                       "--tensorboard", self.path(cell))
            data, tags = self.read("p.safetensors"), self.board(cell)
            (n,) = struct.unpack_from("<Q", data)
            header = json.loads(data[8:8 + n])

            def rows(name):
                first, last = header[name]["data_offsets"]
                values, columns = struct.unpack(f"<{(last - first) // 4}f", data[8 + n + first:8 + n + last]), header[name]["shape"][1]
                return [values[i:i + columns] for i in range(0, len(values), columns)]

            W_h, W_r = rows("rnn.W_h.0.0"), rows("rnn.W_r.0.0")
            self.assertEqual([tag for tag in tags if tag.startswith("spectral")], [f"spectral_radius/rnn.W_h.0.0/{g}" for g in gates])
            for i, gate in enumerate(gates):
                columns = list(zip(*W_h[12 * i:12 * i + 12]))
                radius = spectral_radius([[sum(a * b for a, b in zip(row, column)) for column in columns] for row in W_r])
                self.assertTrue(math.isclose(tags[f"spectral_radius/rnn.W_h.0.0/{gate}"][1][5], radius, rel_tol=1e-4), gate)

    def test_resumed_goes_on(self):
        model, folder = self.path("r.safetensors"), self.path("r")
        options = ["--dropout", "0.1", "--tensorboard", folder]
        self.train(*TINY, *options, "--out", model, "--updates", "8")
        self.train(*CPU, "--resume", model, "--updates", "12", *options[2:])
        self.train(*TINY, *options[:2], "--out", self.path("s.safetensors"), "--updates", "12", "--tensorboard",
                   self.path("s"))
        first, second = (self.board("r", i) for i in (0, 1))
        both = {**first["loss/training"][1], **second["loss/training"][1]}
        self.assertEqual(sorted(second["loss/training"][1]), [9, 10, 11, 12])
        self.assertEqual([event_records.restart(path) for path in event_records.files(folder)], [None, 9])
        self.assertEqual(both, self.board("s")["loss/training"][1])
        (step, text), = second["configuration"][1].items()
        self.assertEqual(step, 8)
        self.assertRegex(text, r'(?m)^    unroll\.training +\{.*"dropout": ?0\.1')
        self.assertNotIn("unroll.vocabulary", text)
        self.assertNotRegex(text, r"(?m)^    cell ")

    def test_killed_leaves_whole_records(self):
        """And what it told after its last save is void where the training goes on from there."""
        model, folder = self.path("k.safetensors"), self.path("k")
        self.train(*TINY, "--out", model, "--updates", "20")
        child = subprocess.Popen([UNROLL, *LM, self.text(), *CPU, "--resume", model, "--updates", "1000000",
                                  "--tensorboard", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        told = {}
        while time.time() < deadline and len(told) < 30:
            time.sleep(0.1)
            if event_records.files(folder):
                told = self.board("k").get("loss/training", (None, {}))[1]
        child.kill()
        child.wait()
        told = self.board("k")["loss/training"][1]
        self.assertEqual(sorted(told), list(range(21, 21 + len(told))))
        self.assertGreaterEqual(len(told), 30)

    def test_what_is_not_finite(self):
        self.train(*TINY, "--out", self.path("n.safetensors"), "--log", self.path("n.jsonl"), "--updates", "20",
                   "--evaluate-every", "10", "--lr", "1e39", "--clip", "0", "--optimizer", "sgd", "--nonfinite", "skip",
                   "--tensorboard", self.path("n"))
        tags, log = self.board("n"), self.log("n.jsonl")
        bad = [line["update"] for line in log if line["loss"] is None]
        self.assertTrue(bad)
        self.assertTrue(all(not math.isfinite(tags["loss/training"][1][u]) for u in bad))
        self.assertGreater(sum(tags["gradient/skipped_updates"][1].values()), 0)
        # A learning rate that is infinite as a float makes every weight infinite, or NaN where its gradient is 0.
        kind, counts = tags["weights/linear.W/nonfinite"]
        self.assertEqual((kind, sorted(counts)), ("scalar", [10, 20]))
        self.assertGreater(min(counts.values()), 100)
        self.assertNotIn("weights/linear.W", tags)
        self.assertTrue(all(math.isnan(tags["loss/validation"][1][update]) for update in (10, 20)))
        self.assertTrue(all(math.isnan(r) for r in tags["spectral_radius/rnn.W_h.0.0/f"][1].values()))

    def test_every_task(self):
        rows = "\n".join(f"{'ab'[i % 2]},{i % 7},{(i * 3) % 5},{i % 2},{i % 3}" for i in range(60))
        series = "y\n" + "\n".join(str(10 + math.sin(t)) for t in range(80))
        pairs = "\n".join(f"{i:06b}\t{i * 5 % 64:06b}" for i in range(64))
        for task, data, more, tags in (
                ("classify", ["--csv", self.write("c.csv", rows)], ["--hidden", "6", "--cell", "gru"],
                 ["accuracy/training", "accuracy/validation", "speed/steps_per_s", "spectral_radius/rnn.W_h.0.0/z"]),
                ("series", ["--csv", self.write("y.csv", series), "--column", "y"],
                 ["--hidden", "6", "--lags", "4", "--cell", "rnn"],
                 ["mae/training", "mae/validation", "speed/steps_per_s", "spectral_radius/rnn.W_h.0.0"]),
                ("seq2seq", ["--pairs", self.write("p.tsv", pairs)], ["--hidden", "6", "--embedding", "4"],
                 ["accuracy/training", "speed/tokens_per_s", "weights/decoder.W_h.0.0"])):
            with self.subTest(task=task):
                self.succeeds("train", task, *data, *more, *CPU, "--batch", "8", "--updates", "6", "--validation-fraction",
                              "0.3", "--out", self.path(task + ".safetensors"), "--tensorboard", self.path(task))
                found = self.board(task)
                self.assertLessEqual({*tags, "loss/training", "loss/validation", "gradient/norm", "configuration"},
                                     set(found), sorted(found))

    def test_folders_that_are_none(self):
        text, out = self.text(), ["--out", self.path("f.safetensors"), "--updates", "2"]
        closed = self.path("closed")
        os.mkdir(closed)
        os.chmod(closed, 0o500)
        cases = [(text, "is not a folder"), (os.path.join(text, "under"), "Not a directory"), ("", "names no folder"),
                 ("x" * 5000, "longer than")]
        if os.geteuid() != 0:
            cases.append((closed, "cannot write to the folder"))
        for folder, message in cases:
            self.fails(1, "--tensorboard: ", *LM, text, *TINY, *out, "--tensorboard", folder)
            done = self.fails(1, message, *LM, text, *TINY, *out, "--tensorboard", folder)
            self.assertNotIn("characters", done.stderr)  # nothing was read before
        self.fails(1, "--tensorboard: /proc/nothing: making the folder", *LM, text, *TINY, *out, "--tensorboard",
                   "/proc/nothing")
        self.assertFalse(os.path.exists(self.path("f.safetensors")))

    def test_full_disk(self):
        """The training goes on and its model is there; what the file has is whole records; the exit code tells."""
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (60000, resource.RLIM_INFINITY))

        done = self.fails(1, "File too large; the training goes on without", *LM, self.text(), *TINY, "--updates", "600",
                          "--out", self.path("full.safetensors"), "--tensorboard", self.path("full"), preexec_fn=limit,
                          restore_signals=False)
        self.assertRegex(done.stderr, r"unroll: --tensorboard: \S+/events\.out\.\S+: writing \d+ events, which are lost")
        self.assertIn("update 600", done.stderr.split("last ")[1])
        self.assertTrue(self.board("full")["configuration"])
        self.train(*CPU, "--resume", self.path("full.safetensors"), "--updates", "601")

    def test_no_update_no_file(self):
        self.train(*TINY, "--out", self.path("z.safetensors"), "--updates", "0", "--tensorboard", self.path("z"))
        self.assertFalse(os.path.exists(self.path("z")))


if __name__ == "__main__":
    unittest.main()
