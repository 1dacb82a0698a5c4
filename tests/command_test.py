#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The `unroll` command as a user meets it: help, mistakes, exit codes, files, signals, pipes, terminals."""
import json
import math
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = os.environ.get("UNROLL_BUILD_DIR", "build/release")
UNROLL = os.path.join(BUILD, "bin", "unroll")
COMMANDS = [["devices"], ["train", "lm"], ["train", "classify"], ["train", "series"],
            ["train", "seq2seq"], ["translate"], ["sample"], ["predict"], ["eval"], ["bench", "layer"], ["graph"],
            ["conform"], ["tune"], ["diagnose"], ["report"], ["cost"]]
CPU = ["--device", "cpu"]
LM = ["train", "lm", "--text"]
TINY = [*CPU, "--hidden", "12", "--layers", "1", "--embedding", "6", "--steps-per-update", "8",
        "--batch", "4"]
WORDS = "the quick brown fox jumps over the lazy dog and runs away from a grey wolf, who sleeps.\n"
TIMEOUT = 60


def unroll(*arguments, **options):
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return subprocess.run([UNROLL, *arguments], text=True, timeout=TIMEOUT, check=False, **options)


def pieces_of(terminal):
    """What a program writes to it, until it ends or TIMEOUT is over."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        yield piece


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="unroll-command-")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def log(self, name):
        return [json.loads(line) for line in self.read(name).decode().splitlines()]

    def succeeds(self, *arguments, **options):
        done = unroll(*arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def fails(self, code, message, *arguments, **options):
        """The message is a part of stderr, where an error begins with the program's name; stdout stays empty."""
        done = unroll(*arguments, **options)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(message, done.stderr)
        self.assertIn("unroll: ", done.stderr)
        if done.stdout is not None:
            self.assertEqual(done.stdout, "")
        return done

    def train(self, *arguments):
        text = self.path("text.txt")
        if not os.path.exists(text):
            self.write("text.txt", WORDS * 20)
        return self.succeeds(*LM, text, *arguments)


class Usage(Case):
    def test_help(self):
        for command in COMMANDS:
            with self.subTest(command=command):
                text = self.succeeds(*command, "--help").stdout
                self.assertTrue(text.startswith(f"unroll {' '.join(command)}: "))
                self.assertIn(f"\nusage: unroll {' '.join(command)} ", text)
                self.assertIn("\nexample:\n  unroll ", text)
                self.assertLess(max(map(len, text.splitlines())), 121)
                self.assertEqual(self.succeeds("help", *command).stdout, text)
        text = self.succeeds("--help").stdout
        for command in COMMANDS:
            self.assertIn(f"\n  {' '.join(command)} ", text)
        self.assertEqual(self.succeeds("help").stdout, text)

    def test_defaults_of_the_help_are_those_of_the_library(self):
        text = self.succeeds("train", "lm", "--help").stdout
        for name, value in [("hidden", "128"), ("layers", "2"), ("embedding", "64"), ("steps-per-update", "64"),
                            ("batch", "32"), ("clip", "1"), ("validation-fraction", "0.05"), ("lr", "0.002"),
                            ("seed", "1")]:
            self.assertRegex(text, rf"--{name} [^(]*\(default {re.escape(value)}\)")

    def test_version(self):
        lines = self.succeeds("--version").stdout.splitlines()
        self.assertRegex(lines[0], r"^unroll \d+\.\d+\.\d+$")
        self.assertEqual(lines[1].split(), ["library", lines[0].split()[1]])
        self.assertRegex(lines[2], r"^build +\w+, ")
        self.assertRegex(lines[3], r"^plugins +cpu ")

    def test_no_command(self):
        done = unroll()
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("usage: unroll COMMAND", done.stderr)

    def test_nearest_word(self):
        for arguments, hint in [(["trian"], "did you mean train?"),
                                (["train"], "did you mean 'unroll train lm' or 'unroll train classify' or 'unroll train "),
                                (["bench", "lair"], "did you mean 'unroll bench layer'?"),
                                (["--verison"], "did you mean --version?"),
                                (["train", "lm", "--hiden", "3"], "did you mean --hidden?"),
                                (["train", "lm", "--opt=adam"], "did you mean --optimizer?"),
                                (["sample", "m", "--lenght=3"], "did you mean --length?"),
                                (["graph", "--cell", "ltsm"], "did you mean lstm?")]:
            with self.subTest(arguments=arguments):
                self.fails(2, hint, *arguments)
        done = self.fails(2, "unknown option '--xyzzyx'", "devices", "--xyzzyx")
        self.assertNotIn("did you mean", done.stderr)

    def test_wrong_values(self):
        for arguments, message in [
                (["--hidden", "0"], "--hidden: '0' is not a whole number from 1 to 16384"),
                (["--hidden", "12x"], "--hidden: '12x' is not"), (["--hidden", " 12"], "--hidden: ' 12' is not"),
                (["--hidden="], "--hidden: '' is not"),
                (["--seed", "99999999999999999999"], "is not a whole number from 0 on"),
                (["--lr", "nan"], "--lr: 'nan' is not a number above 0"), (["--lr", "1e999"], "--lr: '1e999' is not"),
                (["--lr", "0x10"], "--lr: '0x10' is not"), (["--lr=-1"], "--lr: '-1' is not"),
                (["--dropout", "1"], "--dropout: '1' is not a number from 0 to less than 1"),
                (["--loss-scale", "dynami"], "--loss-scale: 'dynami' is not a number from 1 to 2^126, or dynamic"),
                (["--loss-scale", "0"], "--loss-scale: '0' is not"), (["--loss-scale", "1e39"], "'1e39' is not"),
                (["--checkpoint", "every"], "--checkpoint: 'every', expected all, sqrt, every=K or bytes=N"),
                (["--checkpoint", "bytes=12Q"], "'bytes=12Q', expected"), (["--checkpoint", "sqrt=2"], "'sqrt=2'"),
                (["--checkpoint", "every=5K"], "'every=5K'"), (["--checkpoint", "bytes=0"], "'bytes=0'"),
                (["--zoneout-h", "1.5"], "--zoneout-h: '1.5' is not a number from 0 to less than 1"),
                (["--cell", "lstm2"], "is not one of: rnn lstm gru gru_after"),
                (["--hidden"], "--hidden needs a value"),
                (["--hidden", "--layers"], "--hidden needs a value"), (["--verbose=yes"], "--verbose takes no value"),
                (["stray"], "'stray' is one argument too many")]:
            with self.subTest(arguments=arguments):
                self.fails(2, message, *LM, "t", "--out", "m", *arguments)

    def test_what_must_be_given(self):
        self.fails(2, "needs --text", "train", "lm", "--out", "m")
        self.fails(2, "needs --out", *LM, "t")
        self.fails(2, "needs MODEL", "sample", "--length", "3")
        self.fails(2, "--schedule-epochs", *LM, "t", "--out", "m", "--schedule", "cosine", "--minutes", "1")
        self.fails(2, "--hidden stands in the model", *LM, "t", "--resume", "m", "--hidden", "8")
        for option, value in (("accumulate", "2"), ("warmup", "3"), ("nonfinite", "skip"), ("freeze", "linear.*"),
                              ("l2", "linear.W=1"), ("recurrent-decay", "0.1"), ("update-every", "3"),
                              ("steps-start", "3"), ("unit", "words"), ("seed", "3")):
            self.fails(2, f"--{option} stands in the model", *LM, "t", "--resume", "m", f"--{option}", value)
        self.fails(2, "--accumulate: 5 does not divide --batch 32", *LM, "t", "--out", "m", "--accumulate", "5")
        self.fails(2, "--patience: '0' is not", *LM, "t", "--out", "m", "--patience", "0")
        self.fails(2, "than --patience needs --schedule-epochs", *LM, "t", "--out", "m", "--schedule", "cosine",
                   "--patience", "2")
        self.fails(2, "needs --text", "eval", "m")
        self.fails(2, "--loss-scale stands in the model", *LM, "t", "--resume", "m", "--loss-scale", "dynamic")

    def test_unwritable_stdout(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            self.fails(1, "cannot write to standard output: No space left on device", "--help", stdout=full)
        done = subprocess.run(["sh", "-c", f"exec '{UNROLL}' --help >&-"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot write to standard output: Bad file descriptor", done.stderr)


class Devices(Case):
    def test_json(self):
        found = json.loads(self.succeeds("devices", "--json").stdout)
        self.assertEqual(set(found), {"plugins", "rejected"})
        for plugin in found["plugins"]:
            self.assertLessEqual({"id", "version", "path", "devices"}, set(plugin))
            for device in plugin["devices"]:
                self.assertLessEqual({"id", "name", "kind", "driver"}, set(device))
                self.assertTrue(device["id"].startswith(plugin["id"] + ":"), device["id"])
        self.assertIn("cpu", [plugin["id"] for plugin in found["plugins"]])
        for rejected in found["rejected"]:
            self.assertEqual(set(rejected), {"path", "reason"})

    def test_table(self):
        found = json.loads(self.succeeds("devices", "--json").stdout)
        text = self.succeeds("devices").stdout
        ids = [device["id"] for plugin in found["plugins"] for device in plugin["devices"]]
        self.assertEqual(re.findall(r"^  (\w+:[\w.]+) ", text, re.M), ids)
        if "opencl" not in [plugin["id"] for plugin in found["plugins"]]:
            self.assertIn("opencl", text)

    def test_rejected(self):
        plugins = os.path.join(self.folder, "plugins")
        os.mkdir(plugins)
        junk = self.write("plugins/unroll-junk.so", b"no shared object")
        environment = dict(os.environ, UNROLL_PLUGIN_PATH=plugins)
        found = json.loads(self.succeeds("devices", "--json", env=environment).stdout)
        self.assertIn(junk, [rejected["path"] for rejected in found["rejected"]])
        text = self.succeeds("devices", env=environment).stdout
        self.assertRegex(text, rf"rejected\n(.*\n)*  {re.escape(junk)}\n    \S")

    def test_unknown_device_names_those_there_are(self):
        for command in (["bench", "layer"], ["sample", "m"]):
            self.fails(1, "cpu:0", *command, "--device", "cpv")

    def test_cpu_loads_no_opencl(self):
        environment = dict(os.environ, LD_DEBUG="files")
        arguments = ["bench", "layer", "--hidden", "4", "--input", "4", "--batch", "2", "--steps", "2", "--device"]
        self.assertNotIn("opencl", self.succeeds(*arguments, "cpu", env=environment).stderr.lower())
        found = json.loads(self.succeeds("devices", "--json").stdout)
        if any(plugin["id"] == "opencl" and plugin["devices"] for plugin in found["plugins"]):
            # What a driver leaves behind is none of our business.
            environment["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
            self.assertIn("opencl", self.succeeds(*arguments, "opencl", env=environment).stderr.lower())


class Layers(Case):
    SIZES = ["--time-steps", "3", "--batch", "2", "--input", "4", "--hidden", "5"]

    def test_bench(self):
        for more, flops in [([], 2 * 3 * 2 * 4 * 5 * (4 + 5)), (["--train"], 3 * 2 * 3 * 2 * 4 * 5 * (4 + 5)),
                            (["--layers", "2", "--bidirectional"], 2 * 2 * 3 * 2 * 4 * 5 * ((4 + 5) + (10 + 5)))]:
            sizes = ["--steps", "3", *self.SIZES[2:]]
            found = json.loads(self.succeeds("bench", "layer", *sizes, *more, *CPU, "--json").stdout)
            self.assertEqual((found["device"], found["cell"], found["fallbacks"]), ("cpu:0", "lstm", 0))
            self.assertLessEqual(0 < found["min_ms"], found["min_ms"] <= found["median_ms"])
            self.assertGreaterEqual(found["runs"], 5)
            self.assertTrue(math.isclose(found["gflops"], flops / (found["median_ms"] * 1e6), rel_tol=1e-6), found)

    def test_bench_of_cells_with_options(self):
        sizes = ["--steps", "3", *self.SIZES[2:], *CPU, "--train"]
        options = ["--input-dropout", "0.5", "--same-mask", "--weight-dropout", "0.25", "--state-dropout", "0.125",
                   "--zoneout", "0.1", "--layer-norm", "--peepholes", "--projection", "2"]
        found = json.loads(self.succeeds("bench", "layer", *sizes, *options, "--json").stdout)
        expected = {"input_dropout": 0.5, "same_mask": True, "weight_dropout": 0.25, "state_dropout": 0.125,
                    "zoneout": 0.1, "layer_norm": True, "peepholes": True, "projection": 2}
        self.assertEqual({key: found[key] for key in expected}, expected)
        text = self.succeeds("bench", "layer", *sizes, *options).stdout
        self.assertIn("options   input dropout 0.5, weight dropout 0.25, state dropout 0.125, zoneout 0.1, projection 2, "
                      "same mask, layer norm, peepholes\n", text)
        around = ["--cell", "rnn", "--activation", "elu", "--skip", "-0.5", "--gate-clip", "2", "--residual", "states", "--layers", "2"]
        self.assertIn("options   skip -0.5, gate clip 2, activation elu, residual states\n",
                      self.succeeds("bench", "layer", *sizes, *around).stdout)
        found = json.loads(self.succeeds("bench", "layer", *sizes, *around, "--json").stdout)
        expected = {"activation": "elu", "skip": -0.5, "gate_clip": 2, "cell_clip": 0, "residual": "states"}
        self.assertEqual({key: found[key] for key in expected}, expected)
        for cell in ("coupled_lstm", "min_gru", "min_lstm"):
            self.assertIn(cell, self.succeeds("bench", "layer", "--cell", cell, *sizes).stdout)
        self.fails(1, "peepholes is no option of cell gru", "bench", "layer", "--cell", "gru", "--peepholes", *sizes)

    def test_bench_for_people(self):
        text = self.succeeds("bench", "layer", "--cell", "gru", "--steps", "3", *self.SIZES[2:], *CPU).stdout
        self.assertRegex(text, r"device +cpu:0")
        self.assertRegex(text, r"time +[\d.]+ ms minimum, [\d.]+ ms median of \d+ runs")

    def test_bench_profile(self):
        sizes = ["--steps", "3", *self.SIZES[2:]]
        found = json.loads(self.succeeds("bench", "layer", *sizes, *CPU, "--profile", "--json").stdout)
        gates = [row for row in found["profile"] if row["op"] == "lstm_gates"]
        self.assertEqual([(row["calls"], row["layer"], row["kernel"]) for row in gates], [(3, 0, "lstm_gates")])
        self.assertTrue(math.isclose(sum(row["share"] for row in found["profile"]), 1, rel_tol=1e-6), found)
        times = [row["ms"] for row in found["profile"]]
        self.assertEqual(times, sorted(times, reverse=True))
        self.assertTrue(math.isclose(sum(times), found["profile_device_ms"], rel_tol=1e-6), found)
        self.assertLess(found["profile_device_ms"], found["profile_wall_ms"])
        text = self.succeeds("bench", "layer", *sizes, *CPU, "--profile", "--train", "--layers", "4").stdout
        self.assertRegex(text, r"profile +on the device [\d.]+ ms, wall [\d.]+ ms: \d+% of the time nothing ran")
        few = self.succeeds("bench", "layer", *sizes, *CPU, "--profile").stdout  # nodes, so that none is summed up
        self.assertRegex(few, r"\nscan_\d+/lstm_gates_\d+ +lstm_gates +\d +lstm_gates +3 +[\d.]+ +[\d.]+ +[\d.]+%\n")
        self.assertRegex(text, r"\nmatmul +matmul +\d+ ")  # by op and kernel
        tables = text.split("\n\n")[1:]
        for lines in (tables[0].split("\n")[:-1], tables[1].rstrip("\n").split("\n")[1:]):
            self.assertEqual(len({len(line) for line in lines}), 1, text)  # the columns stand below each other
        self.assertNotIn("profile", self.succeeds("bench", "layer", *sizes, *CPU, "--json").stdout)

    def test_graph(self):
        plain = self.succeeds("graph", *self.SIZES).stdout
        self.assertIn("layer", plain)
        laid_out = self.succeeds("graph", *self.SIZES, "--steps", "3").stdout
        self.assertGreater(laid_out.count("lstm_gates"), 2)
        # modReLU is sign(x)·relu(|x| + b_m); a bound is a max and a min.
        modrelu = self.succeeds("graph", *self.SIZES, "--cell", "rnn", "--activation", "modrelu", "--gate-clip", "1").stdout
        for word in ("b_m.0.0", "sign", "relu", "max", "min"):
            self.assertIn(word, modrelu)
        self.assertIn("cell_clip is no option of cell gru", self.fails(
            1, "cell_clip", "graph", *self.SIZES, "--cell", "gru", "--cell-clip", "1").stderr)
        dot = self.succeeds("graph", *self.SIZES, "--train", "--format", "dot").stdout
        self.assertRegex(dot, r"^digraph")


class Train(Case):
    def test_files_and_log(self):
        done = self.train(*TINY, "--out", self.path("a.safetensors"), "--updates", "6", "--log", self.path("a.jsonl"))
        self.assertEqual(done.stdout, "")
        self.assertNotIn("\r", done.stderr)
        self.assertRegex(done.stderr, r"last +\S+a\.safetensors, update 6\n")
        self.assertRegex(done.stderr, r"best +\S+a\.best\.safetensors, update 6, validation [\d.]+ nats")
        lines = self.log("a.jsonl")
        self.assertEqual([line["update"] for line in lines], [1, 2, 3, 4, 5, 6])
        for line in lines:
            self.assertLessEqual({"update", "loss", "lr", "grad_norm", "chars_per_s"}, set(line))
            self.assertTrue(1 < line["loss"] < 6 and line["grad_norm"] > 0 and line["chars_per_s"] > 0, line)
            self.assertEqual(line["lr"], 0.002)
        self.assertIn("validation_loss", lines[-1])
        self.assertEqual(sorted(name for name in os.listdir(self.folder) if name.startswith("a.")),
                         ["a.best.safetensors", "a.jsonl", "a.safetensors"])

    def test_resumed_is_the_same_as_straight(self):
        for schedule in (["constant"], ["exponential", "--decay", "0.5"], ["cosine", "--schedule-epochs", "0.2"]):
            with self.subTest(schedule=schedule):
                common = [*TINY, "--dropout", "0.2", "--schedule", *schedule]
                for name, updates in [("b", "8"), ("c", "3")]:
                    self.train(*common, "--out", self.path(f"{name}.safetensors"), "--updates", updates, "--log",
                               self.path(f"{name}.jsonl"))
                self.train(*CPU, "--resume", self.path("c.safetensors"), "--updates", "8", "--log",
                           self.path("c.jsonl"))
                curves = [[(line["update"], line["loss"], line["lr"], line["grad_norm"]) for line in self.log(name)]
                          for name in ("b.jsonl", "c.jsonl")]
                self.assertEqual(len(curves[0]), 8)
                self.assertEqual(*curves)
                os.remove(self.path("c.jsonl"))

    def test_loss_scale(self):
        curves = []
        for scale in ("1", "1024", "dynamic"):
            done = self.train(*TINY, "--out", self.path("s.safetensors"), "--updates", "4", "--loss-scale", scale,
                              "--log", self.path("s.jsonl"))
            lines = self.log("s.jsonl")
            curves.append([(line["loss"], line["grad_norm"]) for line in lines])
            self.assertEqual([line.get("loss_scale") for line in lines], [65536 if scale == "dynamic" else None] * 4)
            self.assertEqual("0 of 4 updates skipped" in done.stderr, scale == "dynamic")
            self.assertEqual("loss x 1024\n" in done.stderr, scale == "1024")
        self.assertEqual(curves[0], curves[1])
        self.assertEqual(curves[0], curves[2])

    def test_check_finite(self):
        wild = [*TINY, "--optimizer", "sgd", "--clip", "0", "--lr", "1e37", "--updates", "20"]
        model, text = self.path("w.safetensors"), self.write("wild.txt", WORDS * 20)
        found = {}
        for more in ([], ["--check-finite"]):
            done = self.fails(1, "update 2: ", *LM, text, *wild, "--out", model, *more)
            found[len(more)] = done.stderr
        self.assertIn("the training diverged at update 2", found[0])
        self.assertRegex(found[1], r"unroll: update 2: the pre-activation of (the input gate of )?layer 0, forward, step 0, "
                                   r"sequence \d+, unit \d+ became (-?inf|NaN)")
        self.assertIn("w.safetensors has the model of update 1\n", found[1])
        # The parameters of update 1 are as large as its learning rate: resumed, it fails where it did.
        place = re.search(r"update 2: .* became", found[1])[0]
        resumed = self.fails(1, place, *LM, text, *CPU, "--resume", model, "--updates", "4", "--check-finite")
        self.assertIn("resumed   at update 1 ", resumed.stderr)

    def test_everything_at_once_and_resumed(self):
        more = ["--accumulate", "2", "--warmup", "3", "--nonfinite", "skip", "--freeze", "embedding.*", "--l2",
                "rnn.W_?.*=1e-3", "--recurrent-decay", "0.01", "--update-every", "5"]
        curves = []
        for name, updates in (("p", "9"), ("q", "4")):
            done = self.train(*TINY, *more, "--out", self.path(f"{name}.safetensors"), "--updates", updates, "--log",
                              self.path(f"{name}.jsonl"))
            for words in ("every 5 characters", "in 2 parts", r"frozen +embedding\.\*", "recurrent decay 0.01"):
                self.assertRegex(done.stderr, words)
        self.train(*CPU, "--resume", self.path("q.safetensors"), "--updates", "9", "--log", self.path("q.jsonl"))
        for name in ("p.jsonl", "q.jsonl"):
            curves.append([(line["update"], line["loss"], line["lr"], line["grad_norm"]) for line in self.log(name)])
        self.assertEqual(*curves)
        self.assertEqual([round(line[2], 9) for line in curves[0][:4]], [0.000666667, 0.001333333, 0.002, 0.002])

    def test_options_of_layers(self):
        more = ["--layer-norm", "--peepholes", "--tied", "--embedding", "8", "--hidden", "8", "--input-dropout", "0.1",
                "--weight-dropout", "0.2", "--state-dropout", "0.1", "--zoneout-c", "0.3", "--dropout", "0.25", "--same-mask"]
        curves = []
        for name, updates, checkpoint in (("x", "6", "all"), ("y", "6", "every=8"), ("z", "3", "sqrt")):
            done = self.train(*TINY, *more, "--checkpoint", checkpoint, "--out", self.path(f"{name}.safetensors"),
                              "--updates", updates, "--log", self.path(f"{name}.jsonl"))
            self.assertRegex(done.stderr, r"tied embedding 8, layer norm, peepholes; \d+ parameters")
            self.assertIn("outputs 0.25, input 0.1, weights 0.2, state 0.1, zoneout c 0.3; one mask", done.stderr)
        self.train(*CPU, "--resume", self.path("z.safetensors"), "--updates", "6", "--log", self.path("z.jsonl"))
        for name in "xyz":
            curves.append([(line["update"], line["loss"], line["grad_norm"]) for line in self.log(f"{name}.jsonl")])
        self.assertEqual(curves[0], curves[1])
        self.assertEqual(curves[0], curves[2])
        self.fails(2, "--zoneout-h stands in the model that is resumed", *LM, "t", "--resume",
                   self.path("z.safetensors"), "--zoneout-h", "0.1")

    def test_other_cells(self):
        """Each as it trains, resumes, scores, samples and costs: the last one's options are all in the file."""
        for name, more, words in (
                ("lstmp", ["--projection", "5", "--cell-clip", "0.5", "--residual", "states", "--layers", "2"],
                 ("lstm, 2 layers of 12 units projected to 5, embedding 6;", "cells     cell state clipped to 0.5, residual states")),
                ("coupled", ["--cell", "coupled_lstm", "--peepholes", "--output-activation", "softsign", "--layer-norm",
                             "--layer-norm-epsilon", "0.01"],
                 ("coupled_lstm, 1 layer of 12 units, embedding 6, layer norm, peepholes;", "cells     output softsign")),
                ("min_gru", ["--cell", "min_gru", "--residual", "outputs", "--embedding", "12"],
                 ("min_gru, 1 layer of 12 units, embedding 12;", "cells     residual outputs")),
                ("min_lstm", ["--cell", "min_lstm", "--candidate-activation", "elu=0.5"], ("cells     candidate elu 0.5\n",)),
                ("scaled", ["--cell", "rnn", "--activation", "scaled_tanh=0.9,0.8", "--skip", "-0.5"],
                 ("cells     activation scaled_tanh 0.9 0.8, skip -0.5\n",)),
                ("hard", ["--cell", "gru", "--gate-activation", "hard_sigmoid=0.25,0.5", "--gate-clip", "2"],
                 ("cells     gates hard_sigmoid 0.25 0.5, gates clipped to 2\n",))):
            with self.subTest(name=name):
                curves, model = [], self.path(f"{name}-a.safetensors")
                for part, updates in (("a", "6"), ("b", "3")):
                    done = self.train(*TINY, *more, "--out", self.path(f"{name}-{part}.safetensors"), "--updates", updates,
                                      "--log", self.path(f"{name}-{part}.jsonl"))
                    for text in words:
                        self.assertIn(text, done.stderr)
                done = self.train(*CPU, "--resume", self.path(f"{name}-b.safetensors"), "--updates", "6", "--log",
                                  self.path(f"{name}-b.jsonl"))
                for text in words:
                    self.assertIn(text, done.stderr)
                for part in "ab":
                    curves.append([(line["update"], line["loss"], line["grad_norm"]) for line in self.log(f"{name}-{part}.jsonl")])
                self.assertEqual(*curves)
                self.assertEqual(len(curves[0]), 6)
                self.assertEqual(self.read(f"{name}-a.safetensors"), self.read(f"{name}-b.safetensors"))
                found = json.loads(self.succeeds("eval", model, "--text", self.path("text.txt"), *CPU, "--json").stdout)
                self.assertTrue(1 < found["loss"] < 6, found)
                self.assertEqual(len(self.succeeds("sample", model, *CPU, "--prompt", "the ", "--length", "20").stdout), 24)
                cost = json.loads(self.succeeds("cost", model, "--json").stdout)
                said = int(re.search(r"; (\d+) parameters", done.stderr)[1])
                self.assertEqual(cost["parameters"], said)
                self.succeeds("cost", model)

    def test_what_a_cell_does_not_have(self):
        text, out = self.write("short.txt", WORDS), ["--out", self.path("none.safetensors")]
        lstms, states = "lstm and coupled_lstm", "cells whose gates see the state before"
        for option, value, cell, whose in (
                ("projection", "4", "gru", lstms), ("cell-clip", "1", "rnn", lstms), ("output-activation", "relu", "gru", lstms),
                ("zoneout-c", "0.1", "gru_after", lstms), ("candidate-activation", "relu", "rnn", "cells with gates"),
                ("gate-activation", "relu", "rnn", "cells with gates"), ("gate-activation", "relu", "min_gru", states),
                ("activation", "relu", "lstm", "rnn"), ("gate-clip", "1", "min_gru", states), ("skip", "1", "min_lstm", states),
                ("weight-dropout", "0.1", "min_gru", states), ("state-dropout", "0.1", "min_gru", states),
                ("zoneout-h", "0.1", "min_gru", states), ("checkpoint", "sqrt", "min_gru", states)):
            self.fails(2, f"--{option} is of {whose}, but --cell is {cell}", *LM, text, *out, "--cell", cell, f"--{option}", value)
        for option in ("peepholes", "layer-norm"):
            self.fails(2, f"--{option} is of ", *LM, text, *out, "--cell", "min_gru", f"--{option}")
        self.fails(2, f"--residual states is of {states}, but --cell is min_lstm", *LM, text, *out, "--cell", "min_lstm",
                   "--residual", "states")
        self.fails(2, "--layer-norm-epsilon is of --layer-norm, which is not given", *LM, text, *out, "--layer-norm-epsilon", "1")
        self.fails(2, "--gate-activation modrelu: only --activation can be it, of --cell rnn", *LM, text, *out, "--cell", "gru",
                   "--gate-activation", "modrelu")
        for wrong in ("swish", "tanh=1", "leaky_relu=", "leaky_relu=1,2", "elu=x", "", "default", "affine=1,2,3"):
            self.fails(2, f"--activation: '{wrong}', expected one of tanh, sigmoid, relu, affine[=ALPHA,BETA], leaky_relu[=ALPHA],",
                       *LM, text, *out, "--cell", "rnn", "--activation", wrong)
        self.fails(1, "residual states: the only layer reads 64 numbers and gives 128", *LM, text, *out, "--layers", "1",
                   "--residual", "states")
        self.fails(1, "tied: the embedding has 64 numbers and a layer 8 after its projection", *LM, text, *out, "--tied",
                   "--projection", "8")
        self.assertFalse(os.path.exists(self.path("none.safetensors")))

    def test_patience(self):
        done = self.train(*TINY, "--out", self.path("r.safetensors"), "--optimizer", "sgd", "--lr", "1e-30",
                          "--evaluate-every", "2", "--patience", "2")
        self.assertIn("stopped at update 6: 2 validations in a row were no better than the best", done.stderr)
        self.fails(1, "freeze: no parameter's name fits 'none.*'", *LM, self.path("text.txt"), *TINY, "--out",
                   self.path("r.safetensors"), "--freeze", "none.*")

    def test_eval(self):
        model = self.path("s.safetensors")
        self.train(*TINY, "--out", model, "--updates", "30")
        text = self.path("text.txt")
        found = json.loads(self.succeeds("eval", model, "--text", text, *CPU, "--json").stdout)
        self.assertEqual((found["unit"], found["unknown"]), ("character", 0))
        with open(text, encoding="utf-8") as file:
            letters = file.read()
        self.assertEqual(found["count"], len(letters))
        shares = [letters.count(letter) / len(letters) for letter in set(letters)]
        self.assertTrue(math.isclose(found["unigram_loss"], -sum(p * math.log(p) for p in shares), rel_tol=1e-6), found)
        self.assertTrue(math.isclose(found["perplexity"], math.exp(found["loss"]), rel_tol=1e-6), found)
        self.assertRegex(self.succeeds("eval", model, "--text", text, *CPU).stdout,
                         r"model +[\d.]+ nats, [\d.]+ bits a character, perplexity [\d.]+\nunigram +[\d.]+ nats")
        other = self.write("strange.txt", "Ω is no letter of the text's")
        found = json.loads(self.succeeds("eval", model, "--text", other, *CPU, "--json").stdout)
        self.assertGreater(found["unknown"], 0)

    def test_words(self):
        model = self.path("t.safetensors")
        done = self.train(*TINY, "--out", model, "--updates", "4", "--unit", "words")
        self.assertRegex(done.stderr, r"text +\d+ words, \d+ different")
        self.train(*CPU, "--resume", model, "--updates", "6")
        found = json.loads(self.succeeds("eval", model, "--text", self.path("text.txt"), *CPU, "--json").stdout)
        self.assertEqual((found["unit"], found["unknown"]), ("word", 0))
        self.succeeds("sample", model, "--length", "5", *CPU)

    def test_learning_rate_in_the_log(self):
        self.train(*TINY, "--out", self.path("d.safetensors"), "--updates", "120", "--log", self.path("d.jsonl"),
                   "--schedule", "exponential", "--decay", "0.5", "--lr", "0.01", "--evaluate-every", "60")
        per_epoch = (math.floor((math.ceil(len(WORDS) * 20 * 0.95) - 1) / 4) // 8)
        for line in self.log("d.jsonl"):
            rate = 0.01 * 0.5**((line["update"] - 1) // per_epoch)
            self.assertTrue(math.isclose(line["lr"], rate, rel_tol=1e-6), line)

    def test_resume_mistakes(self):
        model = self.path("e.safetensors")
        self.train(*TINY, "--out", model, "--updates", "2")
        text = self.path("text.txt")
        self.fails(1, "2 updates already", "train", "lm", *CPU, "--text", text, "--resume", model, "--updates", "2")
        other = self.write("other.txt", WORDS * 20 + "more")
        self.fails(1, "", "train", "lm", *CPU, "--text", other, "--resume", model, "--updates", "5")
        self.fails(1, "missing.safetensors", "train", "lm", *CPU, "--text", text, "--resume",
                   self.path("missing.safetensors"))

    def test_bad_texts(self):
        out = self.path("never.safetensors")
        for name, data, message in [("empty.txt", b"", "empty"), ("latin.txt", b"caf\xe9 au lait\n" * 100, "UTF-8"),
                                    ("nul.txt", b"a\0b" * 100, "NUL"), ("short.txt", b"too short", "characters")]:
            with self.subTest(name=name):
                path = self.write(name, data)
                self.fails(1, message, *LM, path, *TINY, "--out", out)
        self.fails(1, "missing.txt", *LM, self.path("missing.txt"), *TINY, "--out", out)
        self.assertFalse(os.path.exists(out))

    def test_bad_targets(self):
        text = self.write("good.txt", WORDS * 20)
        for out, message in [(self.path("no/m.safetensors"), "No such file"), (self.folder, "is a folder"),
                             (self.folder + "/", "names no file")]:
            self.fails(1, message, *LM, text, *TINY, "--out", out)
        self.fails(1, "--log: cannot write", *LM, text, *TINY, "--out", self.path("m.safetensors"),
                   "--log", self.path("no/log.jsonl"))

    def test_one_file_for_two_things(self):
        text = self.write("keep.txt", WORDS)
        os.symlink(text, self.path("link.txt"))
        for arguments in (["--out", text], ["--out", self.path("link.txt")], ["--out", self.path("m"), "--log", text]):
            self.fails(2, "would be overwritten", *LM, text, *arguments)
        self.fails(2, "is the model", *LM, text, *TINY, "--out", self.path("m"), "--log", self.path("m"))
        self.assertEqual(self.read("keep.txt").decode(), WORDS)

    def test_several_files(self):
        files = [self.write(f"part{i}.txt", WORDS * 10) for i in range(3)]
        done = self.succeeds(*LM, *files[:2], *TINY, "--text", files[2], "--updates=1",
                             "--out", self.path("f.safetensors"))
        self.assertIn(f"{30 * len(WORDS)} characters", done.stderr)

    def test_interrupt(self):
        self.write("text.txt", WORDS * 20)
        model, log = self.path("g.safetensors"), self.path("g.jsonl")
        command = [UNROLL, *LM, self.path("text.txt"), *TINY, "--out", model, "--log", log, "--minutes", "5"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            end = time.monotonic() + TIMEOUT / 2
            while time.monotonic() < end and not (os.path.exists(log) and os.path.getsize(log)):
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=TIMEOUT / 2)
        finally:
            process.kill()
        self.assertEqual(process.returncode, 0, stderr)
        updates = int(re.search(r"stopped at update (\d+); the model is saved", stderr).group(1))
        self.assertEqual(updates, self.log("g.jsonl")[-1]["update"])
        hint = re.search(r"go on with: unroll (.*)", stderr).group(1).split()
        self.assertIn("--resume", hint)
        limit = hint.index("--minutes")
        hint[limit:limit + 2] = ["--updates", str(updates + 2)]
        self.succeeds(*hint)
        self.assertEqual(self.log("g.jsonl")[-1]["update"], updates + 2)

    def test_terminal(self):
        for extra, coloured in [({}, True), ({"NO_COLOR": "1"}, False)]:
            output = self.on_terminal({"TERM": "xterm", **extra}, *LM, self.write("text.txt", WORDS * 20), *TINY,
                                      "--out", self.path("h.safetensors"), "--minutes", "0.02")
            self.assertRegex(output, r"\r +\d+% .*loss [\d.]+ nats [\d.]+ bits  .* left  .*\x1b\[K")
            self.assertEqual("\x1b[32m" in output, coloured)

    def on_terminal(self, environment, *arguments):
        pid, terminal = pty.fork()
        if pid == 0:
            inherited = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
            os.execvpe(UNROLL, [UNROLL, *arguments], {**inherited, **environment})
        output = b"".join(pieces_of(terminal))
        os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, output)
        return output.decode()


class Sample(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = os.path.join(cls.folder, "text.txt")
        cls.model = os.path.join(cls.folder, "m.safetensors")
        with open(cls.text, "w", encoding="utf-8") as file:
            file.write((WORDS + "déjà vu → naïve\n") * 20)
        done = unroll(*LM, cls.text, *TINY, "--out", cls.model, "--updates", "40")
        if done.returncode != 0:
            raise RuntimeError(done.stderr)

    def sample(self, *arguments, **options):
        return self.succeeds("sample", self.model, *CPU, *arguments, **options)

    def test_same_seed_same_text(self):
        arguments = ["--prompt", "the ", "--length", "80", "--temperature", "1"]
        first = self.sample(*arguments, "--seed", "7")
        self.assertEqual(first.stderr, "")
        self.assertEqual(first.stdout, self.sample(*arguments, "--seed", "7").stdout)
        self.assertNotEqual(first.stdout, self.sample(*arguments, "--seed", "8").stdout)
        self.assertTrue(first.stdout.startswith("the "))
        self.assertEqual(len(first.stdout), 84)

    def test_likeliest(self):
        greedy = self.sample("--length", "30", "--temperature", "0", "--seed", "1").stdout
        self.assertEqual(greedy, self.sample("--length", "30", "--top-k", "1", "--seed", "2").stdout)

    def test_mistakes(self):
        self.fails(1, "Z", "sample", self.model, *CPU, "--prompt", "Z")
        self.fails(1, "top", "sample", self.model, *CPU, "--top-k", "1000")
        self.fails(1, "missing", "sample", self.path("missing"), *CPU)
        self.fails(1, "text.txt", "sample", self.text, *CPU)

    def test_cut_or_changed_model(self):
        whole = self.read("m.safetensors")
        for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
            cut = self.write("cut.safetensors", whole[:size])
            with self.subTest(size=size):
                self.fails(1, "cut.safetensors", "sample", cut, *CPU)
        flipped = bytearray(whole)
        flipped[-10] ^= 4
        self.fails(1, "flipped.safetensors", "sample", self.write("flipped.safetensors", bytes(flipped)), *CPU)

    def test_closed_pipe(self):
        shell = f"'{UNROLL}' sample '{self.model}' --device cpu --length 1000000 | head -c 10; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=TIMEOUT, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(done.stdout.encode()), 10)

    def test_full_disk(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            self.fails(1, "standard output: No space left on device", "sample", self.model, *CPU, "--length", "1000000",
                       stdout=full)


if __name__ == "__main__":
    if not os.access(UNROLL, os.X_OK):
        sys.exit(f"{UNROLL} is not built")
    unittest.main(verbosity=1)
