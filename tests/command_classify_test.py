#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`unroll train classify`, `predict`, and `eval` of classifiers, as a user meets them."""
import csv
import io
import json
import math
import random
import signal
import subprocess
import unittest

from command_test import CPU, UNROLL, Case

CLASSIFY = ["train", "classify", "--csv"]
TINY = [*CPU, "--hidden", "12", "--batch", "8", "--lr", "0.01"]


def records(n, seed):
    """Four steps of two numbers; the class is the sign of what they sum to, by another name."""
    dice = random.Random(seed)
    rows = []
    for _ in range(n):
        numbers = [dice.gauss(0, 1) for _ in range(8)]
        rows.append(["up, or so" if sum(numbers) > 0 else "down", *(f"{x:.6f}" for x in numbers)])
    return rows


def as_csv(rows, labels=True):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row if labels else row[1:] for row in rows)
    return text.getvalue()


class Classify(Case):
    def data(self, name="c.csv", n=200, seed=1, **options):
        return self.write(name, as_csv(records(n, seed), **options))

    def classify(self, *arguments):
        return self.succeeds(*CLASSIFY, self.data(), *TINY, "--features", "2", *arguments)

    def test_files_log_and_baseline(self):
        done = self.classify("--out", self.path("a.safetensors"), "--epochs", "8", "--log", self.path("a.jsonl"))
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr, r"sequences 200 of 4 steps x 2 numbers, 2 classes\n")
        self.assertRegex(done.stderr, r"split +\d+ to train, \d+ to validate, hash [0-9a-f]{16}\n")
        self.assertRegex(done.stderr, r"baseline  always '.+', the most frequent class: accuracy 0\.[3-7]\d+ on the")
        self.assertRegex(done.stderr, r"best +\S+a\.best\.safetensors, update \d+, validation 0\.\d+\n")
        lines = self.log("a.jsonl")
        self.assertLessEqual({"update", "loss", "lr", "grad_norm", "steps_per_s", "accuracy", "validation_accuracy",
                              "validation_loss"}, set(lines[-1]))
        self.assertLess(abs(lines[0]["loss"] - math.log(2)), 0.5)
        self.assertGreater(lines[-1]["validation_accuracy"], 0.8)
        again = self.classify("--out", self.path("b.safetensors"), "--updates", "0")
        self.assertEqual(*(text[text.index("hash"):][:21] for text in (done.stderr, again.stderr)))

    def test_resumed_is_the_same_as_straight(self):
        options = ["--dropout", "0.2", "--bidirectional", "--layers", "2", "--cell", "lstm", "--accumulate", "2"]
        curves = []
        for name, updates in (("d", "50"), ("e", "20")):
            self.classify(*options, "--out", self.path(f"{name}.safetensors"), "--updates", updates, "--log",
                          self.path(f"{name}.jsonl"))
        self.succeeds(*CLASSIFY, self.path("c.csv"), *CPU, "--resume", self.path("e.safetensors"), "--updates", "50",
                      "--log", self.path("e.jsonl"))
        for name in ("d.jsonl", "e.jsonl"):
            curves.append([(line["update"], line["loss"], line["grad_norm"]) for line in self.log(name)])
        self.assertEqual(len(curves[0]), 50)
        self.assertEqual(*curves)
        self.assertEqual(self.read("d.safetensors"), self.read("e.safetensors"))

    def test_other_cells(self):
        for name, more, words in (
                ("projected", ["--cell", "coupled_lstm", "--projection", "4", "--bidirectional", "--layers", "2", "--residual",
                               "outputs", "--cell-clip", "2"],
                 ("bidirectional coupled_lstm, 2 layers of 12 units projected to 4;", "cell state clipped to 2, residual outputs")),
                ("minimal", ["--cell", "min_lstm", "--layers", "2", "--residual", "outputs"], ("min_lstm, 2 layers of 12 units;",)),
                ("elu", ["--cell", "rnn", "--activation", "elu", "--hidden", "2", "--residual", "states"], ("activation elu 1, residual",))):
            with self.subTest(name=name):
                model = self.path(f"{name}.safetensors")
                done = self.classify(*more, "--out", model, "--epochs", "8", "--lr", "0.02")
                for text in words:
                    self.assertIn(text, done.stderr)
                found = json.loads(self.succeeds("eval", model, "--csv", self.data("other.csv", 90, 2), *CPU, "--json").stdout)
                self.assertGreater(found["accuracy"], 0.75)
                predicted = self.succeeds("predict", model, "--csv", self.data("bare.csv", 90, 2, labels=False), *CPU).stdout
                self.assertEqual(len(predicted.splitlines()), 91)
                self.assertIn("n_h = ", self.succeeds("cost", model).stdout)
        self.fails(2, "--projection is of lstm and coupled_lstm, but --cell is gru", *CLASSIFY, self.data(), *TINY, "--features", "2",
                   "--projection", "4", "--out", self.path("none.safetensors"))
        self.fails(1, "residual outputs: the only layer reads 2 numbers and gives 12", *CLASSIFY, self.data(), *TINY, "--features", "2",
                   "--residual", "outputs", "--out", self.path("none.safetensors"))

    def test_eval_and_predict(self):
        model = self.path("f.safetensors")
        self.classify("--out", model, "--epochs", "8")
        rows = records(90, 2)
        other = self.data("other.csv", 90, 2)
        found = json.loads(self.succeeds("eval", model, "--csv", other, *CPU, "--json").stdout)
        self.assertEqual((found["count"], found["labels"]), (90, ["down", "up, or so"]))
        names = [row[0] for row in rows]
        self.assertEqual([sum(row) for row in found["confusion"]], [names.count(name) for name in found["labels"]])
        right = found["confusion"][0][0] + found["confusion"][1][1]
        self.assertTrue(math.isclose(found["accuracy"], right / 90, rel_tol=1e-8), found)
        self.assertGreater(found["accuracy"], 0.8)
        self.assertIn(round(found["majority_accuracy"] * 90), [names.count(name) for name in found["labels"]])
        table = self.succeeds("eval", model, "--csv", other, *CPU).stdout
        self.assertRegex(table, rf"model +[\d.]+ nats, accuracy {right / 90:.4f}, {right} right\nmajority +[\d.]+ nats, ")
        # Without labels, with them, and with all probabilities it is the same.
        bare = self.data("bare.csv", 90, 2, labels=False)
        plain = self.succeeds("predict", model, "--csv", bare, *CPU).stdout
        self.assertEqual(self.succeeds("predict", model, "--csv", other, "--label", "1", *CPU).stdout, plain)
        predicted = list(csv.reader(io.StringIO(plain)))
        self.assertEqual(predicted[0], ["label", "probability"])
        self.assertEqual(sum(row[0] == name for row, name in zip(predicted[1:], names)), right)
        full = list(csv.reader(io.StringIO(self.succeeds("predict", model, "--csv", bare, "--probabilities",
                                                         *CPU).stdout)))
        self.assertEqual(full[0], ["label", "probability", "down", "up, or so"])
        for row in full[1:]:
            shares = [float(x) for x in row[2:]]
            self.assertLess(abs(sum(shares) - 1), 1e-5)
            self.assertEqual((row[0], float(row[1])), (full[0][2 + shares.index(max(shares))], max(shares)))

    def test_records_that_are_steps(self):
        lines = ["who;x;what;y"]
        for i, row in enumerate(records(60, 3)):
            for t in range(1 + i % 4):
                lines.append(f"s{i};{row[1 + 2 * t]};{row[0].split(',')[0]};{row[2 + 2 * t]}")
        data = self.write("steps.csv", "\n".join(lines) + "\n")
        model = self.path("g.safetensors")
        common = ["--label", "what", "--sequence", "who", "--separator", ";"]
        done = self.succeeds(*CLASSIFY, data, *common, *TINY, "--out", model, "--updates", "12")
        self.assertIn("sequences 60 of 1 to 4 steps x 2 numbers, 2 classes", done.stderr)
        self.succeeds(*CLASSIFY, data, *common, *CPU, "--resume", model, "--updates", "14")
        self.assertIn("sequences 60, 2 classes", self.succeeds("eval", model, "--csv", data, *common, *CPU).stdout)

    def test_mistakes(self):
        model, data = self.path("h.safetensors"), self.data()
        self.classify("--out", model, "--updates", "2")
        self.fails(2, "needs --csv", "train", "classify", "--out", "m")
        self.fails(2, "needs --out", *CLASSIFY, data)
        self.fails(2, "--features stands in the model", *CLASSIFY, data, "--resume", model, "--features", "2")
        self.fails(2, "would be overwritten", *CLASSIFY, data, "--out", data)
        self.fails(2, "--separator: ';;' is not one ASCII character", *CLASSIFY, data, "--out", "m", "--separator", ";;")
        self.fails(1, "expected a multiple of the 3 features", *CLASSIFY, data, *CPU, "--out", self.path("n"),
                   "--features", "3")
        self.fails(1, 'no column "digit"', *CLASSIFY, data, *CPU, "--out", self.path("n"), "--label", "digit")
        self.fails(1, "other sequences than the model", *CLASSIFY, self.data("more.csv", 201), *CPU, "--resume", model,
                   "--updates", "4")
        hole = self.write("hole.csv", "a,1,2\nb,,4\n")
        self.fails(1, "line 2, column 2", *CLASSIFY, hole, *CPU, "--out", self.path("n"))
        self.fails(1, "'sequence classifier', not 'character language model'", "sample", model, *CPU)
        self.fails(1, "'sequence classifier', not 'character language model'", "eval", model, "--text", data, *CPU)
        self.fails(2, "give one of them", "eval", model, "--text", data, "--csv", data)
        strange = self.write("strange.csv", "sideways,1,2,3,4,5,6,7,8\ndown,1,2,3,4,5,6,7,8\n")
        self.fails(1, 'label "sideways" is none of the 2', "eval", model, "--csv", strange, *CPU)
        text = self.write("text.txt", "the quick brown fox\n" * 200)
        language = self.path("lm.safetensors")
        self.succeeds("train", "lm", "--text", text, *CPU, "--hidden", "8", "--updates", "0", "--out", language)
        for command in (["predict", language, "--csv", data], ["eval", language, "--csv", data],
                        [*CLASSIFY, data, "--resume", language, "--updates", "3"]):
            self.fails(1, "'character language model', not 'sequence classifier'", *command, *CPU)

    def test_interrupted_and_told_how_to_go_on(self):
        model = self.path("i.safetensors")
        with subprocess.Popen([UNROLL, *CLASSIFY, self.data(), "--label", "1", "--features", "2", *TINY, "--out", model,
                               "--epochs", "1000000"], stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                if "update 1/" in line or ": loss" in line:
                    break
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            self.assertEqual(process.wait(60), 0, rest)
        self.assertIn(f"go on with: unroll train classify --csv {self.path('c.csv')} --label 1 --resume {model}", rest)
        self.assertIn("stopped at update", rest)


if __name__ == "__main__":
    unittest.main()
