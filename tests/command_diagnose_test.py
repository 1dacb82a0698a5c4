#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`unroll diagnose`, as a user meets it: reports of every task, networks whose answers are known, mistakes, Ctrl-C."""
import array
import hashlib
import json
import math
import os
import pty
import random
import signal
import struct
import subprocess
import time
import unittest

from command_test import CPU, LM, TINY, UNROLL, WORDS, Case

SECTIONS = ["nonfinite", "gates", "units", "spectra", "gradient", "lyapunov", "fixed_points"]


def safetensors(tensors, metadata=None, single=False):
    """tensors: name -> (shape, numbers), written as f64 or f32."""
    header, data = {"__metadata__": metadata or {}}, b""
    for name, (shape, numbers) in tensors.items():
        piece = array.array("f" if single else "d", numbers).tobytes()
        header[name] = {"dtype": "F32" if single else "F64", "shape": shape, "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def npy(shape, numbers):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {tuple(shape)}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array.array("d", numbers).tobytes()


def tensors_of(path):
    """name -> (shape, numbers) of a file of f32."""
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__")
    found = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            found[name] = entry["shape"], array.array("f", data[8 + size + begin:8 + size + end])
    return found


def poisoned(path, tensor, element):
    """The bytes of a file of f32 with a NaN in it, and without the checksum that would tell."""
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header, rest = json.loads(data[8:8 + size]), bytearray(data[8 + size:])
    del header["__metadata__"]["unroll.checksum"]
    place = header[tensor]["data_offsets"][0] + 4 * element
    rest[place:place + 4] = struct.pack("<f", math.nan)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(rest)


def diagonal(n, value):
    return [value if i == j else 0.0 for i in range(n) for j in range(n)]


class Diagnose(Case):
    folders = 0

    def out(self):
        Diagnose.folders += 1
        return self.path(f"report{Diagnose.folders}")

    def diagnose(self, model, *arguments, page=("--no-page",), more=()):
        """The report and the lines on the terminal; more: files that are written beside it."""
        folder = self.out()
        done = self.succeeds("diagnose", model, *arguments, *page, *CPU, "--out", folder)
        with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
            report = json.load(file)
        self.assertEqual(sorted(os.listdir(folder)),
                         sorted([*more, "report.json", *(() if page else ("plots", "report.html"))]))
        self.assertEqual((report["format"], report["version"]), ("unroll report", 1))
        verdict = report["verdict"]
        self.assertEqual(done.stdout.splitlines()[0], f"verdict   {verdict['level']}: {verdict['text']}")
        self.check(report)
        return report, done.stdout

    def check(self, report):
        """What holds of every report."""
        there = set(SECTIONS) | {"cost"}
        if report["model"]["task"] != "seq2seq":
            self.assertNotIn("attention", report)
        for entry in report["missing"]:
            there.discard(entry["section"])
            self.assertTrue(entry["why"])
        for section in there:
            self.assertTrue(report[section], section)
        for gate in report["gates"]:
            for share in (*gate["low"], *gate["high"]):
                self.assertTrue(0 <= share <= 1)
            self.assertEqual(len(gate["edges"]), len(gate["counts"]) + 1)
            self.assertEqual([sum(column) for column in zip(*gate["histogram"])], gate["counts"])
            self.assertEqual(gate["histogram_steps"][0], 0)
            if gate["time_constants"]:
                self.assertEqual(gate["time_constants"], sorted(gate["time_constants"]))
        for finding in report["verdict"]["findings"]:
            self.assertIn(finding["level"], ("good", "warning", "bad"))
            self.assertTrue(finding["text"] and finding["advice"] and finding["what"])

    def text(self):
        return self.write("text.txt", WORDS * 20)

    def model(self, *arguments, name="lm.safetensors"):
        self.succeeds(*LM, self.text(), *TINY, *arguments, "--updates", "3", "--out", self.path(name))
        return self.path(name)

    def layers(self, W_h, W_x, x, steps, batch, name="layers", activation="tanh"):
        """A model of one rnn layer alone, and its input."""
        H = math.isqrt(len(W_h))
        I = len(W_x) // H
        model = self.write(name + ".safetensors", safetensors(
            {"r.W_h.0.0": ([H, H], W_h), "r.W_x.0.0": ([H, I], W_x), "r.b.0.0": ([H], [0.0] * H)},
            {"unroll.model": json.dumps({"cell": "rnn", "activation": activation})}))
        return model, self.write(name + ".npy", npy([steps, batch, I], x))


class Tasks(Diagnose):
    def test_language_models(self):
        for cell, gates in (("rnn", ["state"]), ("lstm", ["input", "forget", "candidate", "output"]),
                            ("gru", ["reset", "update", "candidate"]), ("gru_after", ["reset", "update", "candidate"])):
            with self.subTest(cell=cell):
                model = self.model("--cell", cell, "--layers", "2", name=cell + ".safetensors")
                report, text = self.diagnose(model, "--text", self.text(), "--exponent-steps", "200", "--starts", "4", page=())
                self.assertIn("/report.html; ", text)
                with open(model, "rb") as file:
                    self.assertEqual(report["model"]["sha256"], hashlib.sha256(file.read()).hexdigest())
                with open(self.text(), "rb") as file:
                    self.assertEqual(report["data"]["sha256"], hashlib.sha256(file.read()).hexdigest())
                self.assertEqual((report["model"]["cell"], report["model"]["layers"]), (cell, 2))
                self.assertEqual([g["gate"] for g in report["gates"]], 2 * gates)
                self.assertEqual(report["missing"], [])
                self.assertEqual("".join(report["units"]["tokens"]), (WORDS * 20)[:200])
                self.assertEqual(report["units"]["layer"], "1 forward")
                self.assertEqual([len(row) for row in report["units"]["activity"]], [200] * 12)
                self.check_spectra(report, tensors_of(model))

    def check_spectra(self, report, tensors):
        """The sum of eigenvalues is the trace, that of their products with the conjugates at most the squared norm."""
        optimizers = (".s1", ".s2")
        states = ("h.0", "h.1", "c.0", "c.1")
        self.assertEqual(report["model"]["parameters"],
                         sum(len(numbers) for name, (_, numbers) in tensors.items()
                             if not name.endswith(optimizers) and name not in states))
        self.assertEqual(report["model"]["parameters"], report["cost"]["parameters"])
        H = report["model"]["hidden"]
        place = {}
        for entry in report["spectra"]:
            layer = entry["layer"].split()[0]
            gate = place[layer] = place.get(layer, -1) + 1
            _, W = tensors[f"rnn.W_h.{layer}.0"]
            W = W[gate * H * H:(gate + 1) * H * H]
            # f32 weights, read as double: the report has 9 digits
            self.assertAlmostEqual(sum(re for re, _ in entry["eigenvalues"]), sum(W[i * H + i] for i in range(H)), 6)
            squares, eigenvalues = sum(w * w for w in W), sum(re * re + im * im for re, im in entry["eigenvalues"])
            self.assertAlmostEqual(entry["departure"] ** 2, squares - eigenvalues, 5)
            self.assertAlmostEqual(entry["radius"], max(math.hypot(*e) for e in entry["eigenvalues"]), 7)
            self.assertGreaterEqual(entry["norm"], entry["radius"])

    def test_logs_of_trainings(self):
        log = self.path("log.jsonl")
        model = self.model("--log", log, "--tensorboard", self.path("events"), name="logged.safetensors")
        usual = ("--text", self.text(), "--exponent-steps", "20", "--starts", "1")
        with open(log, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        training = self.diagnose(model, *usual, "--training", log)[0]["training"]
        self.assertEqual(training["updates"], [1, 2, 3])
        self.assertEqual(training["loss"], [line["loss"] for line in lines])
        self.assertEqual(training["gradient_norm"], [line["grad_norm"] for line in lines])
        self.assertEqual({w["name"]: w["radius"] for w in training["weights"]},
                         {name: [value] * 3 for name, value in lines[-1]["radius"].items()})  # before the first: that
        # Every second line where there are too many, NaN, a curve that begins late, and a last line that was cut off.
        many = "".join(json.dumps({"update": i, "loss": None if i == 4 else 1 / i, "grad_norm": 2 * i,
                                   **({"radius": {"W": i}} if i in (7, 9000) else {})}) + "\n" for i in range(1, 9001))
        training = self.diagnose(model, *usual, "--training", self.write("many.jsonl", many + '{"upd'))[0]["training"]
        self.assertEqual(training["updates"], list(range(1, 9001, 2)))
        self.assertEqual(training["gradient_norm"], list(range(2, 18001, 4)))
        self.assertEqual(training["weights"], [{"name": "W", "radius": [7] * 4500}])
        training = self.diagnose(model, *usual, "--training", self.write("few.jsonl", many[:400]))[0]["training"]
        self.assertEqual(training["loss"][3], "nan")
        for text, why in (("", "no updates"), ("{}\n", "line 1: not a line of a training's --log"),
                          (many[:600].rsplit("\n", 1)[0] + "\nno JSON\n", "not a line of a training's --log")):
            report, _ = self.diagnose(model, *usual, "--training", self.write("wrong.jsonl", text))
            missing = {entry["section"]: entry["why"] for entry in report["missing"]}
            self.assertIn(why, missing["training"])
            self.assertNotIn("training", report)
        self.fails(1, "--training: cannot read", "diagnose", model, *usual, "--training", self.path("absent"), "--out",
                   self.out())

    def test_options_of_cells(self):
        for options in (["--cell", "lstm", "--layer-norm", "--peepholes"], ["--zoneout-h", "0.2", "--zoneout-c", "0.1"],
                        ["--cell", "gru_after", "--layer-norm"]):
            model = self.model(*options, name="options.safetensors")
            report, _ = self.diagnose(model, "--text", self.text(), "--exponent-steps", "100", "--starts", "2")
            self.assertEqual(report["missing"], [])
            self.assertEqual(len(report["lyapunov"]), 1)

    def test_every_cell_and_option(self):
        """Of each, all sections but those that it cannot have; and what its report says of it."""
        for options, cell, gates, said in (
                (["--cell", "coupled_lstm"], "coupled_lstm", ["input", "candidate", "output"], {}),
                (["--cell", "min_gru"], "min_gru", ["update", "candidate"], {}),
                (["--cell", "min_lstm"], "min_lstm", ["forget", "input", "candidate"], {}),
                (["--cell", "lstm", "--projection", "3"], "lstm", ["input", "forget", "candidate", "output"],
                 {"projection": 3}),
                (["--cell", "lstm", "--gate-clip", "0.9", "--cell-clip", "0.7"], "lstm",
                 ["input", "forget", "candidate", "output"], {"gate_clip": 0.9, "cell_clip": 0.7}),
                (["--cell", "gru", "--skip", "0.25", "--candidate-activation", "softsign"], "gru",
                 ["reset", "update", "candidate"], {"skip": 0.25, "g": "softsign"}),
                (["--cell", "rnn", "--activation", "elu", "--layers", "2", "--residual", "outputs"], "rnn", ["state"] * 2,
                 {"activation": "elu", "residual": "outputs"})):
            with self.subTest(options=options):
                model = self.model(*options, name="any.safetensors")
                report, text = self.diagnose(model, "--text", self.text(), "--exponent-steps", "100", "--starts", "2")
                missing = [e["section"] for e in report["missing"]]
                self.assertEqual(missing, ["spectra"] if cell.startswith("min_") else [])
                self.assertEqual(report["model"]["cell"], cell)
                self.assertEqual([g["gate"] for g in report["gates"]], gates)
                self.assertLessEqual(said.items(), report["model"]["options"].items())
                self.assertEqual(report["double_device"], "cpu:0")
                for gate in report["gates"]:
                    keeps = (cell, gate["gate"]) in (("coupled_lstm", "input"), ("min_gru", "update"), ("min_lstm", "forget"),
                                                     ("lstm", "forget"), ("gru", "update"))
                    self.assertEqual(gate["time_constants"] is not None, keeps)
                for flow in report["gradient"]["layers"]:
                    self.assertGreater(flow["product"][0], 0)
                self.assertIn(cell, text)

    def test_classifiers(self):
        dice = random.Random(1)
        rows = "".join(f"{k}," + ",".join(str(math.sin(t * (1 + k)) + dice.random()) for t in range(12)) + "\n"
                       for k in (0, 1) * 20)
        data = self.write("c.csv", rows)
        model = self.path("c.safetensors")
        self.succeeds("train", "classify", "--csv", data, *CPU, "--features", "2", "--bidirectional", "--hidden", "5",
                      "--layers", "2", "--updates", "3", "--out", model)
        report, text = self.diagnose(model, "--data", data, "--starts", "2", "--exponent-steps", "100")
        names = ["0 forward", "0 reverse", "1 forward", "1 reverse"]
        self.assertEqual([e["layer"] for e in report["lyapunov"]], names)
        self.assertEqual(report["data"]["steps"], 6)
        self.assertTrue(report["model"]["bidirectional"])
        for name in names:
            self.assertIn(f"\nlayer     {name}: gru, 5 units\n", text)

    def test_forecasters(self):
        data = self.write("s.csv", "y\n" + "".join(f"{math.sin(t / 5) + t / 100}\n" for t in range(120)))
        model = self.path("s.safetensors")
        self.succeeds("train", "series", "--csv", data, "--column", "y", *CPU, "--differences", "1", "--hidden", "4", "--updates",
                      "3", "--out", model)
        report, _ = self.diagnose(model, "--data", data)
        self.assertEqual((report["data"]["steps"], report["data"]["sequences"]), (12, 8))

    def test_translators(self):
        data = self.write("p.tsv", "".join(f"{w}\t{w[::-1]}\n" for w in
                                           sorted({"".join(random.Random(i).choices("abc", k=1 + i % 6)) for i in range(200)})))
        model = self.path("p.safetensors")
        self.succeeds("train", "seq2seq", "--pairs", data, *CPU, "--hidden", "6", "--embedding", "4", "--updates", "3", "--out",
                      model)
        report, text = self.diagnose(model, "--pairs", data, "--starts", "2", "--exponent-steps", "100", page=())
        self.assertEqual(report["missing"], [])
        decoder = [gate for gate in report["gates"] if gate["layer"] == "decoder 0 forward"]
        self.assertEqual([gate["gate"] for gate in decoder], ["reset", "update", "candidate"])
        longest = 7  # tokens of the longest target, with </s>
        said = report["data"]["sequences"]
        for gate in decoder:
            self.assertEqual(len(gate["mean"]), longest)
            self.assertGreaterEqual(sum(gate["counts"]), 6 * 2 * said)  # units, and at least a token and </s> of each
            self.assertTrue(all(gate["mean"]))
        self.assertEqual(len(decoder[1]["time_constants"]), 21)
        flow = report["gradient"]["layers"][-1]
        self.assertEqual((flow["layer"], len(flow["norm"])), ("decoder 0 forward", longest))
        self.assertTrue(all(norm > 0 for norm in flow["norm"]))
        self.assertIn("norms by step alone", text)
        for entry in report["attention"]:
            self.assertEqual(len(entry["weights"]), len(entry["target"]))
            for row in entry["weights"]:
                self.assertEqual(len(row), len(entry["source"]))
                self.assertAlmostEqual(sum(row), 1, 5)  # float32


class Known(Diagnose):
    """Networks whose answers are exact."""

    def test_twenty_seven_points(self):
        dice = random.Random(3)
        half = [dice.gauss(0, 2) for _ in range(20 * 20 * 3)]
        steps = [half[i:i + 60] for i in range(0, len(half), 60)]
        x = [v for step in steps for v in (*step, *(-w for w in step))]  # the mean is 0
        model, data = self.layers(diagonal(3, 2.0), diagonal(3, 1.0), x, 20, 40)
        report, text = self.diagnose(model, "--data", data, "--sequences", "40", "--starts", "3000")
        found = report["fixed_points"][0]
        self.assertEqual(found["class"], {"stable": 8, "saddle": 18, "source": 1})
        self.assertEqual(len(found["points"]), 27)
        self.assertEqual(sorted(p["unstable"] for p in found["points"]), [0] * 8 + [1] * 12 + [2] * 6 + [3])
        for point in found["points"]:
            self.assertLess(point["speed"], 1e-20)
            # the axes are orthonormal, so that places keep their distance from the mean
            self.assertLess(math.sqrt(sum(v * v for v in point["place"])), 2)
        self.assertAlmostEqual(sum(found["axes"]), 1, 9)
        self.assertIn("8 stable, 18 saddles, 1 source; 0 slow", text)

    def test_linear_networks(self):
        model, data = self.layers(diagonal(2, 0.5), [1.0, 0.0], [1.0] * 50, 50, 1, activation="identity")
        report, text = self.diagnose(model, "--data", data)
        for exponent in report["lyapunov"][0]["exponents"]:
            self.assertAlmostEqual(exponent, math.log(0.5), 8)  # 9 digits
        self.assertEqual(report["verdict"]["level"], "bad")
        flow = report["gradient"]["layers"][0]
        for k, product in zip(flow["lags"], flow["product"]):
            self.assertAlmostEqual(product / 0.5 ** k, 1, 8)
        for k, sigma in zip(flow["sigma_lags"], flow["sigma"]):
            self.assertAlmostEqual(sigma / 0.5 ** k, 1, 8)
        for t, norm in enumerate(flow["norm"]):  # of the sum of the two last states
            self.assertAlmostEqual(norm / (math.sqrt(2) * 0.5 ** (49 - t)), 1, 8)
        self.assertEqual((flow["rho"], flow["memory"], flow["condition"]), (0.5, 7, 0.5))
        self.assertEqual(report["verdict"]["text"], "gradients vanish after 7 of 50 steps: W_hh has spectral radius 0.50; "
                                                    "try orthogonal initialisation or an LSTM or a GRU")
        self.assertEqual(report["fixed_points"][0]["class"], {"stable": 1, "saddle": 0, "source": 0})
        turn = [math.cos(1), -math.sin(1), math.sin(1), math.cos(1)]
        model, data = self.layers(turn, [1.0, 0.0], [0.0] * 49 + [1.0], 50, 1, activation="identity", name="turn")
        report, text = self.diagnose(model, "--data", data)
        self.assertEqual(report["verdict"]["level"], "good")
        self.assertIn("W_hh has spectral radius 1.00", report["verdict"]["text"])
        self.assertIn("edge of chaos", text)

    def test_time_constants(self):
        """Gates that stand still: f 0.95 and 0.5 in an LSTM, z 0.95 and 0.5 in a GRU, i and z of 0.05 in others."""
        logit = math.log(0.95 / 0.05)
        data = self.write("still.npy", npy([100, 2, 1], [1.0] * 200))
        for cell, gates, keeps, at, sign in (("lstm", 4, "forget", 1, 1), ("gru", 3, "update", 1, 1),
                                             ("coupled_lstm", 3, "input", 0, -1), ("min_gru", 2, "update", 0, -1)):
            bias = [0.0] * (2 * gates)
            bias[2 * at] = sign * logit
            weights = {"r.W_x.0.0": ([2 * gates, 1], [0.0] * (2 * gates)), "r.b.0.0": ([2 * gates], bias)}
            if not cell.startswith("min_"):
                weights["r.W_h.0.0"] = [2 * gates, 2], [0.0] * (4 * gates)
            model = self.write(f"still-{cell}.safetensors",
                               safetensors(weights, {"unroll.model": json.dumps({"cell": cell})} if sign < 0 else None))
            report, text = self.diagnose(model, "--data", data)
            self.assertEqual(report["model"]["cell"], cell)
            gate = report["gates"][at]
            self.assertEqual(gate["gate"], keeps)
            self.assertAlmostEqual(gate["time_constants"][0], -1 / math.log(0.5), 7)
            self.assertAlmostEqual(gate["time_constants"][-1], -1 / math.log(0.95), 6)
            for mean, low, high in zip(gate["mean"], gate["low"], gate["high"]):
                self.assertAlmostEqual(mean, 0.5 + 0.225 * sign, 8)
                self.assertEqual((low, high), (0, 0.5) if sign > 0 else (0.5, 0))
            self.assertEqual(sum(gate["counts"]), 400)
            self.assertIn(f"even the slowest {keeps} gate keeps for only 19.5 of 100 steps", text)
            self.assertIn(f"begin with {'larger' if sign > 0 else 'smaller'} biases of the {keeps} gate", text)
            # with W_h 0 the slowest direction is that unit's own path: 0.95 a step
            self.assertAlmostEqual(report["lyapunov"][0]["exponents"][0], math.log(0.95), 7)

    def test_growth_before_decay(self):
        """W = [[0.9, 20], [0, 0.9]] is far from normal: its powers grow to 74 before they decay; without a bias in the file."""
        W = [0.9, 20.0, 0.0, 0.9]
        model = self.write("grow.safetensors", safetensors({"r.W_h.0.0": ([2, 2], W), "r.W_x.0.0": ([2, 1], [1.0, 0.5])},
                                                           {"unroll.model": '{"cell": "rnn", "activation": "identity"}'}))
        data = self.write("grow.npy", npy([40, 1, 1], [1.0] * 40))
        report, text = self.diagnose(model, "--data", data, "--jacobian", "5", more=["jacobian-0-forward-5.npy"])
        self.assertAlmostEqual(report["spectra"][0]["departure"], 20, 7)
        flow = report["gradient"]["layers"][0]
        self.assertEqual(flow["jacobian"], "jacobian-0-forward-5.npy")
        values = array.array("d", self.read(f"report{Diagnose.folders}/jacobian-0-forward-5.npy")[-32:])
        for value, power in zip(values, (0.9 ** 5, 100 * 0.9 ** 4, 0, 0.9 ** 5)):  # W^5, in rows
            self.assertAlmostEqual(value, power, 12)
        for k, sigma in zip(flow["sigma_lags"], flow["sigma"]):  # of [[a, b], [0, a]]: a = 0.9^k, b = 20·k·0.9^(k-1)
            a, b = 0.9 ** k, 20 * k * 0.9 ** (k - 1)
            largest = math.sqrt(a * a + b * b / 2 + b / 2 * math.sqrt(4 * a * a + b * b))
            self.assertAlmostEqual(sigma / largest, 1, 4)  # Lanczos's tolerance
        self.assertEqual(report["verdict"]["findings"][0]["what"], "exploding")
        self.assertIn("clip the gradients' norm", text)

    def test_large_matrices(self):
        """3,072 units, W_h of 0.9^i on its diagonal and 0.3 beside the first: with ARPACK 32 eigenvalues, without all."""
        H = 3072
        W = array.array("d", bytes(8 * H * H))
        for i in range(H):
            W[i * H + i] = 0.9 ** i
        W[1] = 0.3
        model, data = self.layers(W, [1.0] * H, [1.0] * 3, 3, 1, name="large")
        few = ["--exponents", "1", "--exponent-steps", "20", "--units", "1"]
        report, text = self.diagnose(model, "--data", data, *few)
        (found,) = report["spectra"]
        self.assertEqual((found["rows"], found["leading"], found["departure"]), (H, True, None))
        self.assertEqual(len(found["eigenvalues"]), 32)
        for i, (real, imaginary) in enumerate(found["eigenvalues"]):  # numbers of 9 digits
            self.assertAlmostEqual(real, 0.9 ** i, 8)
            self.assertAlmostEqual(imaginary, 0, 8)
        self.assertAlmostEqual(found["radius"], 1, 8)
        # of [[1, 0.3], [0, 0.9]], the rest being orthogonal to it
        norm = math.sqrt((1.9 + math.sqrt(1.9 ** 2 - 4 * 0.81)) / 2)
        self.assertAlmostEqual(found["norm"], norm, 8)
        self.assertEqual([e["why"] for e in report["missing"] if e["section"] == "spectra"],
                         ["0 forward, W_h: the departure from normality needs all 3072 eigenvalues; of that many rows only "
                          "the 32 leading ones are computed"])
        self.assertIn("spectral radius 1, norm", text)
        self.assertNotIn("departure from normality nan", text)
        os.makedirs(self.path("lib"))
        self.write("lib/libarpack.so.2", "this is no library\n")
        libraries = ":".join(filter(None, [self.path("lib"), os.environ.get("LD_LIBRARY_PATH")]))
        folder = self.out()
        done = self.succeeds("diagnose", model, "--data", data, *few, "--no-page", *CPU, "--out", folder,
                             env={**os.environ, "LD_LIBRARY_PATH": libraries})
        self.assertRegex(done.stderr, r"all 3072 eigenvalues .* ARPACK can't be loaded: .*package is libarpack2")
        with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
            (found,) = json.load(file)["spectra"]
        self.assertEqual((found["leading"], len(found["eigenvalues"])), (False, H))
        self.assertAlmostEqual(found["departure"], 0.3, 7)
        self.assertAlmostEqual(found["radius"], 1, 8)
        self.assertAlmostEqual(found["norm"], norm, 8)

    def test_dead_units(self):
        model, data = self.layers(diagonal(4, 0.5), [-1.0, -1.0, -1.0, 1.0], [1.0] * 20, 20, 1, activation="relu", name="dead")
        report, _ = self.diagnose(model, "--data", data)
        self.assertEqual(report["gates"][0]["dead"], 0.75)
        self.assertIn("75% of the ReLU units are never active", [f["text"] for f in report["verdict"]["findings"]])


class NotFinite(Diagnose):
    """The first number that is not finite, at places that are known; and that nothing else falls over it."""

    def check_first(self, report, text, level="bad", **where):
        first = report["nonfinite"]["first"]
        self.assertEqual({key: first[key] for key in where}, where)
        self.assertEqual(report["verdict"]["level"], level)
        self.assertEqual(report["verdict"]["findings"][0]["what"], "nonfinite")
        self.assertIsNone(report["verdict"]["findings"][0]["layer"])
        sentence = report["nonfinite"]["text"]
        self.assertIn(f"not finite, the first: {sentence}", text.splitlines()[0])
        self.assertIn(f"\nnumbers   {report['nonfinite']['values']} values and {report['nonfinite']['gradients']} gradients are "
                      "not finite\n", text)
        return {entry["section"]: entry["why"] for entry in report["missing"]}

    def test_values_that_overflow(self):
        """h_t = w·h_(t-1) + x_t, x = 1: h_t is about w^t, and inf where that is past the largest number. In f64 files 1e308;
        in f32 ones 3.4e38: 1e10^4, which in double would go on to step 30."""
        for single, w in ((False, 1e100), (True, 1e10)):
            data = self.write("ones.npy", npy([10, 2, 1], [0.0, 1.0] * 10))  # the first sequence stays at 0
            tensors = {"r.W_h.0.0": ([1, 1], [w]), "r.W_x.0.0": ([1, 1], [1.0]), "r.b.0.0": ([1], [0.0])}
            model = self.write("diverges.safetensors", safetensors(tensors, {"unroll.model": '{"cell": "rnn", "activation": "identity"}'},
                                                                   single))
            report, text = self.diagnose(model, "--data", data, page=())
            missing = self.check_first(report, text, layer="0 forward", direction="forward", step=4, sequence=1, unit=0,
                                       phase="forward", value="inf", gate=None)
            # From that step on all six states are inf, and their sum, the loss.
            self.assertEqual(report["nonfinite"]["values"], 7)
            self.assertGreater(report["nonfinite"]["gradients"], 0)
            self.assertEqual(len(report["spectra"]), 1)
            self.assertTrue(report["gradient"]["layers"][0]["norm"])
            if not single:  # on the host all is in double
                self.assertIn("6 of 20 values are not finite, and left out", missing["gates"])
                self.assertIn("after step", missing["lyapunov"])

    def test_gradients_that_overflow(self):
        """x = 0: all states are 0, but ∂L/∂h of the sum of the last ones is w^k after k steps back. The fourth step
        back, step 6 of 0 to 9, makes that of step 5: 1e40."""
        tensors = {"r.W_h.0.0": ([1, 1], [1e10]), "r.W_x.0.0": ([1, 1], [1.0]), "r.b.0.0": ([1], [0.0])}
        model = self.write("back.safetensors", safetensors(tensors, {"unroll.model": '{"cell": "rnn", "activation": "identity"}'}, True))
        report, text = self.diagnose(model, "--data", self.write("zero.npy", npy([10, 1, 1], [0.0] * 10)), page=())
        self.check_first(report, text, layer="0 forward", direction="forward", step=6, sequence=0, phase="gradient",
                         what="hidden state", value="inf")
        self.assertEqual(report["nonfinite"]["values"], 0)
        self.assertGreater(report["nonfinite"]["gradients"], 0)
        self.assertIn("the first: the gradient of the hidden state of layer 0, forward, step 6, sequence 0", text)

    def test_second_layers_and_directions(self):
        """Two layers both ways: in the reverse direction of the second one a state overflows, at the second step that it
        reads, which is the last but one of a sequence."""
        tensors = {}
        for layer, direction in ((0, 0), (0, 1), (1, 0), (1, 1)):
            tensors[f"r.W_h.{layer}.{direction}"] = [2, 2], diagonal(2, 1e38 if (layer, direction) == (1, 1) else 0.5)
            tensors[f"r.W_x.{layer}.{direction}"] = [2, 4 if layer else 1], [0.0] * (4 if layer else 1) + [1.0] * (4 if layer else 1)
            tensors[f"r.b.{layer}.{direction}"] = [2], [0.0, 10.0 if (layer, direction) == (1, 1) else 1.0]
        model = self.write("both.safetensors", safetensors(tensors, {"unroll.model": '{"cell": "rnn", "activation": "relu"}'}, True))
        data = self.write("both.npy", npy([7, 2, 1], [0.1 * i for i in range(14)]))
        report, text = self.diagnose(model, "--data", data, "--starts", "1")
        self.check_first(report, text, layer="1 reverse", direction="reverse", step=5, sequence=0, unit=1, phase="forward",
                         value="inf")

    def test_weights(self):
        tensors = {"r.W_h.0.0": ([2, 2], [0.5, 0.0, math.nan, 0.5]), "r.W_x.0.0": ([2, 1], [1.0, 1.0])}
        data = self.write("x.npy", npy([6, 1, 1], [1.0] * 6))
        report, text = self.diagnose(self.write("nan.safetensors", safetensors(tensors)), "--data", data, page=())
        missing = self.check_first(report, text, layer="0 forward", direction=None, step=None, unit=2, what="r.W_h.0.0",
                                   phase="given", value="nan")
        self.assertIn("parameter r.W_h.0.0, element 2 is NaN", text)
        for section in ("spectra", "lyapunov", "fixed_points", "gradient"):
            self.assertIn(section, missing)
        self.assertNotIn("memory", report["gradient"]["layers"][0])
        self.assertNotIn("reach back", text)
        self.assertEqual([f["what"] for f in report["verdict"]["findings"]], ["nonfinite"])  # of the rest nothing is known
        # Of a whole model a tensor that no layer has, and one that only its loss reads.
        model = self.model("--cell", "lstm", name="whole.safetensors")
        for tensor, element in (("linear.W", 7), ("embedding.weight", 0), ("linear.b", 1)):
            broken = self.write("broken.safetensors", poisoned(model, tensor, element))
            report, text = self.diagnose(broken, "--text", self.text(), "--exponent-steps", "100", "--starts", "1", page=())
            self.check_first(report, text, layer=None, what=tensor, unit=element, phase="given", value="nan")
            self.assertGreater(report["nonfinite"]["gradients"], 0)

    def test_data(self):
        model, data = self.layers(diagonal(2, 0.5), [1.0, 0.5], [1.0] * 11 + [math.inf] + [1.0] * 8, 10, 2, name="x")
        report, text = self.diagnose(model, "--data", data)
        missing = self.check_first(report, text, layer=None, what="x", step=5, sequence=1, unit=0, phase="given", value="inf")
        self.assertIn("x of step 5, sequence 1 is inf, expected finite numbers", missing["gradient"])
        self.assertIn("; look for it in the data", text.splitlines()[0])

    def test_finite_ones(self):
        model = self.model("--cell", "gru")
        report, text = self.diagnose(model, "--text", self.text(), "--exponent-steps", "100", "--starts", "1")
        self.assertEqual(report["nonfinite"], {"values": 0, "gradients": 0, "first": None, "text": "all numbers are finite"})
        self.assertIn("\nnumbers   all numbers are finite\n", text)


class Mistakes(Diagnose):
    def refuses(self, message, *arguments, code=1):
        self.fails(code, message, "diagnose", *arguments)

    def test_usage(self):
        model = self.model()
        self.refuses("needs one of --text FILE", model, "--out", self.out(), code=2)
        self.refuses("needs one of --text FILE", model, "--text", self.text(), "--data", self.text(), "--out", self.out(), code=2)
        self.refuses("--out", model, "--text", self.text(), code=2)
        self.refuses("is a language model, which is diagnosed with --text FILE", model, "--data", self.text(), "--out", self.out())

    def test_models(self):
        data = self.write("x.npy", npy([3, 1, 1], [1, 2, 3]))
        plain = self.write("plain.safetensors", safetensors({"linear.W": ([1, 1], [1.0])}))
        self.refuses("has no recurrent layer", plain, "--data", data, "--out", self.out())
        odd = self.write("odd.safetensors", safetensors({"r.W_h.0.0": ([2, 1], [1.0, 1.0])}))
        self.refuses("r.W_h.0.0 is [2,1], which is no cell's", odd, "--data", data, "--out", self.out())
        one = {"r.W_h.0.0": ([1, 1], [1.0]), "r.W_x.0.0": ([1, 1], [1.0])}
        cell = self.write("cell.safetensors", safetensors(one, {"unroll.model": '{"cell": "mgu"}'}))
        self.refuses("the cell 'mgu' is not known", cell, "--data", data, "--out", self.out())
        modrelu = self.write("modrelu.safetensors", safetensors(one, {"unroll.model": '{"activation": "modrelu"}'}))
        self.refuses("r.b_m.0.0 is missing: expected [1]", modrelu, "--data", data, "--out", self.out())
        swish = self.write("swish.safetensors", safetensors(one, {"unroll.model": '{"activation": "swish"}'}))
        self.refuses("the activation 'swish' is not known: expected one of default, tanh,", swish, "--data", data, "--out",
                     self.out())
        short = self.write("short.safetensors", safetensors({**one, "r.b.0.0": ([2], [0.0, 0.0])}))
        self.refuses("r.b.0.0 is f64 [2]: expected f32 or f64 [1]", short, "--data", data, "--out", self.out())
        blind = self.write("blind.safetensors", safetensors({"r.W_h.0.0": ([1, 1], [1.0])}))
        self.refuses("r.W_x.0.0 is missing: expected [1,inputs]", blind, "--data", data, "--out", self.out())
        other = self.write("other.safetensors", safetensors(one, {"unroll.model": '{"cell": "lstm"}'}))
        self.refuses("r.W_h.0.0 is f64 [1,1]: expected 4 rows for each unit of lstm", other, "--data", data, "--out",
                     self.out())
        projected = self.write("projected.safetensors", safetensors({**one, "r.W_r.0.0": ([1, 1], [1.0])}))
        self.refuses("has a projection", projected, "--data", data, "--out", self.out())
        self.refuses("nowhere.safetensors", self.path("nowhere.safetensors"), "--data", data, "--out", self.out())
        model = bytearray(self.read(os.path.basename(self.model())))
        model[-1] ^= 1
        self.refuses("damaged", self.write("damaged.safetensors", bytes(model)), "--text", self.text(), "--out", self.out())

    def test_data(self):
        model = self.model()
        self.refuses("a diagnosis takes at least 2", model, "--text", self.write("short.txt", "a"), "--out", self.out())
        self.refuses("nowhere.txt", model, "--text", self.path("nowhere.txt"), "--out", self.out())
        layers, _ = self.layers([0.5], [1.0], [1.0] * 4, 4, 1)
        wide = self.write("wide.safetensors", safetensors({"r.W_h.0.0": ([700, 700], [0.0] * 490000), "r.W_x.0.0": ([700, 1], [0.0] * 700)}))
        long = self.write("long.npy", npy([50000, 16, 1], [0.0] * 800000))
        self.refuses("are more than a diagnosis keeps", wide, "--data", long, "--sequences", "16", "--out", self.out())
        self.refuses("[steps,sequences,1], at least 2 steps", layers, "--data", self.write("one.npy", npy([1, 4, 1], [1.0] * 4)),
                     "--out", self.out())
        self.refuses("[steps,sequences,1]", layers, "--data", self.write("wide.npy", npy([4, 1, 2], [1.0] * 8)), "--out",
                     self.out())

    def test_folders(self):
        model, text = self.model(), self.text()
        file = self.write("a-file", "x")
        self.refuses("is not a folder", model, "--text", text, "--out", file)
        self.refuses("cannot make", model, "--text", text, "--out", os.path.join(file, "r"))
        self.refuses("cannot make", model, "--text", text, "--out", self.path("no/such/folder"))
        folder = self.out()
        os.mkdir(folder)
        quick = ["--starts", "1", "--exponent-steps", "20", "--no-page", *CPU]
        self.succeeds("diagnose", model, "--text", text, "--out", folder, *quick)  # an empty one will do
        before = self.read(os.path.join(folder, "report.json"))
        self.refuses("exists and has files: give another folder, or --force", model, "--text", text, "--out", folder)
        self.assertEqual(self.read(os.path.join(folder, "report.json")), before)
        self.succeeds("diagnose", model, "--text", text, "--out", folder, "--force", *quick)
        self.assertEqual(os.listdir(folder), ["report.json"])

    def test_interrupt(self):
        folder = self.out()
        process = subprocess.Popen([UNROLL, "diagnose", self.model(), "--text", self.text(), "--out", folder, *CPU, "--exponent-steps",
                                    "10000000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not os.path.isdir(folder):
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1, err)
        self.assertIn("stopping and writing what there is", err)
        self.assertIn("report.json, interrupted: a part", out)
        with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
            report = json.load(file)
        self.assertTrue(report["partial"])
        self.assertEqual(len(report["spectra"]), 4)
        missing = [e["section"] for e in report["missing"] if e["why"].endswith("interrupted")]
        self.assertEqual(missing[-2:], ["lyapunov", "fixed_points"])
        self.assertTrue("gradient" in missing or len(report["gradient"]["layers"]) == 1)  # on a slow machine not yet

    def test_interrupted_gradients(self):
        """A gradient of a minute or so, interrupted as soon as the terminal says that it is under way."""
        dice = random.Random(2)
        H, T = 96, 500
        model = self.write("long.safetensors", safetensors({
            "r.W_h.0.0": ([4 * H, H], [dice.gauss(0, 0.1) for _ in range(4 * H * H)]),
            "r.W_x.0.0": ([4 * H, 1], [dice.gauss(0, 1) for _ in range(4 * H)]), "r.b.0.0": ([4 * H], [1.0] * (4 * H))}))
        data = self.write("long.npy", npy([T, 16, 1], [dice.gauss(0, 1) for _ in range(T * 16)]))
        folder = self.out()
        terminal, end = pty.openpty()
        process = subprocess.Popen([UNROLL, "diagnose", model, "--data", data, "--sequences", "16", "--out", folder, *CPU, "--no-page"],
                                   stdout=subprocess.PIPE, stderr=end, text=True, env={**os.environ, "TERM": "xterm"})
        os.close(end)
        said = b""
        while b": gradient" not in said:
            said += os.read(terminal, 4096)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            while True:
                os.read(terminal, 4096)
        except OSError:  # the other end is closed
            pass
        out = process.communicate(timeout=30)[0]
        self.assertLess(time.monotonic() - began, 15)
        os.close(terminal)
        self.assertEqual(process.returncode, 1)
        self.assertIn("report.json, interrupted: a part", out)
        with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
            report = json.load(file)
        self.assertTrue(report["partial"])
        self.assertEqual({e["section"] for e in report["missing"] if e["why"] == "interrupted"},
                         {"gradient", "lyapunov", "fixed_points"})
        self.check_part(report.get("gradient"))

    def check_part(self, gradient):
        """Norms and products are there before singular values are; or nothing is."""
        if gradient:
            self.assertTrue(gradient["partial"])
            self.assertEqual(gradient["layers"][0]["sigma"], ["nan"] * len(gradient["layers"][0]["sigma_lags"]))
            self.assertEqual(gradient["layers"][0]["product"][0], 1)


if __name__ == "__main__":
    unittest.main()
