#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`unroll train seq2seq`, `translate`, and `eval` of translators, as a user meets them."""
import json
import random
import re
import signal
import subprocess
import unittest
import xml.etree.ElementTree

from command_test import CPU, UNROLL, Case

SEQ2SEQ = ["train", "seq2seq", "--pairs"]
TINY = [*CPU, "--hidden", "24", "--embedding", "12", "--batch", "16", "--lr", "0.015"]
DICTIONARY = """;;; a dictionary of a few words
A  AH0
AT  AE1 T
AT(2)  AH0 T
BAT  B AE1 T
BIT  B IH1 T # with a comment
BITE  B AY1 T
CAT  K AE1 T
"""


def words(n, seed):
    """Different words of one to seven letters."""
    dice, found = random.Random(seed), {}
    while len(found) < n:
        found["".join(dice.choice("abcde") for _ in range(dice.randint(1, 7)))] = None
    return list(found)


class Translate(Case):
    def data(self, name="p.tsv", n=400, seed=1):
        return self.write(name, "".join(f"{word}\t{word[::-1]}\n" for word in words(n, seed)))

    def seq2seq(self, *arguments, data=None):
        return self.succeeds(*SEQ2SEQ, data or self.data(), *TINY, *arguments)

    def translate(self, model, text, *arguments):
        done = subprocess.run([UNROLL, "translate", model, *CPU, *arguments], input=text, capture_output=True,
                              text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_files_log_score_and_baseline(self):
        model, log = self.path("a.safetensors"), self.path("a.jsonl")
        done = self.seq2seq("--out", model, "--epochs", "12", "--log", log)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr, r"pairs +400; sources of up to 7 of 5 characters, targets of up to 7 of 5 char")
        self.assertRegex(done.stderr, r"split +\d+ to train, \d+ to validate, \d+ to test, hash [0-9a-f]{16}\n")
        self.assertRegex(done.stderr, r"attention additive, context before the cell\n")
        self.assertRegex(done.stderr, r"padding +\d+\.\d% of the places in batches, \d+\.\d% if they were not sorted")
        score = float(re.search(r"score .*token error rate (0\.\d+)", done.stderr)[1])
        baseline = float(re.search(r"baseline .*token error rate (0\.\d+)", done.stderr)[1])
        self.assertLess(score, 0.5 * baseline)
        lines = self.log("a.jsonl")
        self.assertLessEqual({"update", "loss", "lr", "grad_norm", "tokens_per_s", "accuracy", "validation_accuracy",
                              "validation_loss"}, set(lines[-1]))
        again = self.seq2seq("--out", self.path("b.safetensors"), "--updates", "0")
        self.assertEqual(*(text[text.index("hash"):][:21] for text in (done.stderr, again.stderr)))

        # What it says, in several ways.
        given = words(60, 1)
        text = "\n".join(given) + "\n"
        greedy = self.translate(model, text)
        self.assertEqual(len(greedy.splitlines()), 60)
        right = sum(said == word[::-1] for said, word in zip(greedy.splitlines(), given))
        self.assertGreater(right, 20)
        self.assertEqual(self.translate(model, text, "--beam", "1"), greedy)
        self.assertEqual(self.translate(model, text, "--temperature", "1", "--top-k", "1"), greedy)
        drawn = self.translate(model, text, "--temperature", "1.5", "--draw-seed", "5")
        self.assertEqual(self.translate(model, text, "--temperature", "1.5", "--draw-seed", "5"), drawn)
        self.assertNotEqual(self.translate(model, text, "--temperature", "1.5", "--draw-seed", "6"), drawn)
        for line in self.translate(model, text, "--beam", "4", "--length-penalty", "0.6", "--scores").splitlines():
            self.assertRegex(line, r"^-?\d+\.\d{4}\t[a-e]*$")
        # A line in, a line out; what is blank stays blank, what was never seen is read all the same.
        self.assertEqual(self.translate(model, ""), "")
        lines = self.translate(model, "\nabc\r\n  \nxyz\nabc").split("\n")
        self.assertEqual((len(lines), lines[0], lines[2], lines[5]), (6, "", "", ""))
        self.assertEqual(lines[1], lines[4])

        # eval, of all and of a part, and each source by itself.
        data, errors = self.path("p.tsv"), self.path("errors.tsv")
        found = json.loads(self.succeeds("eval", model, "--pairs", data, *CPU, "--json", "--errors", errors).stdout)
        rows = [line.split("\t") for line in self.read("errors.tsv").decode().splitlines()]
        self.assertEqual((found["count"], len(rows)), (400, 400))
        self.assertAlmostEqual(found["error_rate"], sum(int(r[3]) for r in rows) / sum(int(r[4]) for r in rows), 8)
        self.assertAlmostEqual(found["accuracy"], sum(r[1] == r[2] for r in rows) / 400, 8)
        self.assertTrue(all(r[2] == r[0][::-1] and (r[1] == r[2]) == (r[3] == "0") for r in rows))
        self.assertIn(found["split"], done.stderr)
        counts = []
        for part in ("training", "validation", "test"):
            table = self.succeeds("eval", model, "--pairs", data, "--part", part, *CPU, "--beam", "2").stdout
            counts.append(int(re.match(r"sources +(\d+) with \d+ tokens", table)[1]))
            self.assertRegex(table, r"model +token error rate 0\.\d{4}, 0\.\d{4} right\nbaseline +token error rate 0\.")
        self.assertEqual(sum(counts), 400)

        # Where it looked.
        picture, table = self.path("look.svg"), self.path("look.tsv")
        self.translate(model, "abcd\ne\n", "--attention", picture)
        root = xml.etree.ElementTree.parse(picture).getroot()
        self.assertGreater(int(root.get("height")), 200)
        self.assertGreater(len(root.findall("{http://www.w3.org/2000/svg}rect")), 4 * 2)
        said = self.translate(model, "abcd\ne\n", "--attention", table, "--beam", "3").splitlines()
        blocks = [block.split("\n") for block in self.read("look.tsv").decode().rstrip("\n").split("\n\n")]
        self.assertEqual([block[0] for block in blocks], ["\ta\tb\tc\td", "\te"])
        for block, line in zip(blocks, said):
            self.assertEqual("".join(row.split("\t")[0] for row in block[1:]).replace("</s>", ""), line)
            for row in block[1:]:
                self.assertAlmostEqual(sum(float(x) for x in row.split("\t")[1:]), 1, 3)

    def test_resumed_is_the_same_as_straight_and_reinforced(self):
        options = ["--dropout", "0.2", "--cell", "lstm", "--attention", "multiplicative", "--context", "feeding",
                   "--sampling", "linear", "--sampling-rate", "0.01", "--sampling-pick", "sample", "--steps-start", "3",
                   "--accumulate", "2"]
        curves = []
        for name, updates, more in (("d", "60", []), ("e", "25", []), ("c", "60", ["--checkpoint", "sqrt"])):
            self.seq2seq(*options, *more, "--out", self.path(f"{name}.safetensors"), "--updates", updates, "--log",
                         self.path(f"{name}.jsonl"))
        resume = [*SEQ2SEQ, self.path("p.tsv"), *CPU, "--resume"]
        self.succeeds(*resume, self.path("e.safetensors"), "--updates", "60", "--log", self.path("e.jsonl"))
        for name in ("d.jsonl", "e.jsonl", "c.jsonl"):
            curves.append([(line["update"], line["loss"], line["grad_norm"]) for line in self.log(name)])
        self.assertEqual(len(curves[0]), 60)
        self.assertEqual(curves[0], curves[1])
        self.assertEqual(curves[0], curves[2])  # checkpoints of the encoder change no bit
        for baseline in ("mean", "greedy"):
            done = self.succeeds(*resume, self.path("d.safetensors"), "--out", self.path("r.safetensors"),
                                 "--reinforce", baseline, "--reinforce-seed", "3", "--lr", "0.001", "--updates", "70", "--log",
                                 self.path(f"{baseline}.jsonl"))
            self.assertIn("reinforce against the", done.stderr)
            self.assertRegex(done.stderr, r"reward -[01]\.\d")
            last = self.log(f"{baseline}.jsonl")[-1]
            self.assertAlmostEqual(last["validation_loss"], -last["validation_reward"], 6)
            self.assertEqual(last["lr"], 0.001)
            self.fails(1, "by REINFORCE already", *resume, self.path("r.safetensors"), "--reinforce", "mean")
            self.succeeds(*resume, self.path("r.safetensors"), "--updates", "72")

    def test_other_cells(self):
        for name, more, words in (
                ("projected", ["--cell", "lstm", "--projection", "12", "--attention", "scaled_dot", "--context", "feeding"],
                 ("encoder and decoder, lstm, 1 layer of 24 units projected to 12;",)),
                ("minimal", ["--cell", "min_gru", "--layers", "2", "--residual", "outputs"], ("cells     residual outputs",)),
                ("coupled", ["--cell", "coupled_lstm", "--layer-norm", "--peepholes"], ("coupled_lstm, 1 layer of 24 units, layer norm, peep",))):
            with self.subTest(name=name):
                model = self.path(f"{name}.safetensors")
                done = self.seq2seq(*more, "--out", model, "--epochs", "3")
                for text in words:
                    self.assertIn(text, done.stderr)
                said = self.translate(model, "abc\ncab\n")
                self.assertEqual(len(said.splitlines()), 2)
                self.assertEqual(self.translate(model, "abc\ncab\n", "--beam", "1"), said)
                found = json.loads(self.succeeds("eval", model, "--pairs", self.path("p.tsv"), *CPU, "--json").stdout)
                self.assertTrue(0 < found["error_rate"] < 1.5, found)
                self.succeeds("cost", model)
        self.fails(1, "attention dot: the source's vectors have 10 numbers, the decoder's state 11", *SEQ2SEQ, self.data(), *TINY,
                   "--cell", "lstm", "--projection", "11", "--attention", "dot", "--out", self.path("none.safetensors"))

    def test_a_pronouncing_dictionary(self):
        data, model = self.write("c.dict", DICTIONARY), self.path("f.safetensors")
        common = ["--format", "cmudict", "--no-stress"]
        parts = ["--validation-fraction", "0", "--test-fraction", "0"]
        done = self.seq2seq("--out", model, *common, *parts, "--updates", "150", data=data)
        self.assertIn("pairs     7; sources of up to 4 of 6 characters, targets of up to 3 of 7 words", done.stderr)
        self.assertNotIn("score", done.stderr)
        self.assertEqual(self.translate(model, "BAT\nBITE\n"), "B AE T\nB AY T\n")
        table = self.succeeds("eval", model, "--pairs", data, *common, *CPU).stdout
        self.assertRegex(table, r"sources +6 with 15 tokens")
        self.assertRegex(table, r"model +token error rate 0\.0000, 1\.0000 right")

    def test_mistakes(self):
        model, data = self.path("h.safetensors"), self.data()
        self.seq2seq("--out", model, "--updates", "2", "--attention", "none")
        other = self.path("n")
        self.fails(2, "needs --pairs", "train", "seq2seq", "--out", "m")
        self.fails(2, "needs --out", *SEQ2SEQ, data)
        self.fails(2, "--attention stands in the model", *SEQ2SEQ, data, "--resume", model, "--attention", "dot")
        self.fails(2, "would be overwritten", *SEQ2SEQ, data, "--out", data)
        self.fails(2, "--no-stress is of --format cmudict", *SEQ2SEQ, data, "--out", "m", "--no-stress")
        self.fails(2, "--sampling-start: '1.5' is not a number from 0 to 1", *SEQ2SEQ, data, "--out", "m",
                   "--sampling", "linear", "--sampling-start", "1.5")
        self.fails(2, "--sampling-rate is of --sampling", *SEQ2SEQ, data, "--out", "m", "--sampling-rate", "0.1")
        self.fails(2, "--dropout: '1.25' is not", *SEQ2SEQ, data, "--out", "m", "--dropout", "1.25")
        self.fails(2, "--reinforce goes on from a trained model", *SEQ2SEQ, data, "--out", "m", "--reinforce", "mean")
        self.fails(2, "--reinforce-seed is of --reinforce", *SEQ2SEQ, data, "--out", "m", "--reinforce-seed", "2")
        self.fails(1, "exponential decay by 2", *SEQ2SEQ, data, *CPU, "--out", other, "--sampling", "exponential",
                   "--sampling-rate", "2")
        self.fails(1, "of 1 pairs 0 to train", *SEQ2SEQ, self.write("one.tsv", "a\tb\n"), *CPU, "--out", other)
        self.fails(1, "steps_start 1: no pair", *SEQ2SEQ, self.write("two.tsv", "aa\tb\nab\tb\n"), *CPU, "--out", other,
                   "--validation-fraction", "0", "--test-fraction", "0", "--steps-start", "1")
        empty = self.write("empty.dict", "AT  AE1 T\nBAT\n")
        self.fails(1, "line 2: the pronunciation is empty", *SEQ2SEQ, empty, *CPU, "--out", other, "--format",
                   "cmudict")
        self.fails(1, "line 1: no tab", *SEQ2SEQ, empty, *CPU, "--out", other)
        self.fails(1, "other pairs than the model", *SEQ2SEQ, self.data("more.tsv", 401), *CPU, "--resume", model,
                   "--updates", "4")
        self.fails(2, "--beam: '0' is not", "translate", model, "--beam", "0")
        self.fails(2, "give one of them", "translate", model, "--beam", "2", "--temperature", "1")
        self.fails(2, "--length-penalty is of --beam", "translate", model, "--length-penalty", "1")
        self.fails(2, "--top-p: '1.5' is not a number above 0, at most 1", "translate", model, "--temperature", "1",
                   "--top-p", "1.5")
        self.fails(2, "--top-k is of --temperature", "translate", model, "--top-k", "3")
        done = subprocess.run([UNROLL, "translate", model, *CPU, "--attention", other], input="ab\n",
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("the model has no attention", done.stderr)
        self.fails(2, "give one of them", "eval", model, "--pairs", data, "--text", data)
        self.fails(1, "'translator', not 'character language model'", "sample", model, *CPU)
        self.fails(1, "'translator', not 'sequence classifier'", "eval", model, "--csv", data, *CPU)

    def test_interrupted_and_told_how_to_go_on(self):
        model = self.path("i.safetensors")
        data = self.write("c.dict", DICTIONARY)
        with subprocess.Popen([UNROLL, *SEQ2SEQ, data, "--format", "cmudict", "--first-only", *TINY,
                               "--validation-fraction", "0", "--test-fraction", "0", "--out", model, "--epochs",
                               "1000000"], stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                if "update 1/" in line or ": loss" in line:
                    break
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            self.assertEqual(process.wait(60), 0, rest)
        self.assertIn(f"go on with: unroll train seq2seq --pairs {data} --format cmudict --first-only --resume {model}",
                      rest)


if __name__ == "__main__":
    unittest.main()
