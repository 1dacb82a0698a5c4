#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`unroll train series`, and `predict` and `eval` of forecasters, as a user meets them."""
import csv
import io
import json
import math
import os
import random
import signal
import subprocess
import unittest
import xml.etree.ElementTree as ET

from command_test import CPU, UNROLL, Case

SERIES = ["train", "series", "--csv"]
TINY = [*CPU, "--hidden", "6", "--batch", "16", "--lr", "0.01", "--lags", "4"]
SOURCE = os.environ.get("UNROLL_SOURCE_DIR", ".")


def values(n=120, seed=1):
    """A season of 6 with a trend and noise."""
    dice = random.Random(seed)
    return [50 + 0.3 * t + 8 * math.sin(t * math.pi / 3) + dice.gauss(0, 1) for t in range(n)]


def as_csv(series, header="when,level", separator=","):
    lines = [header.replace(",", separator)] if header else []
    lines += [f"m{t}{separator}{y if isinstance(y, str) else f'{y:.6f}'}" for t, y in enumerate(series)]
    return "\n".join(lines) + "\n"


class Series(Case):
    def data(self, name="y.csv", series=None, **options):
        return self.write(name, as_csv(values() if series is None else series, **options))

    def series(self, *arguments):
        return self.succeeds(*SERIES, self.data(), "--column", "level", *TINY, *arguments)

    def forecasts(self, *arguments):
        rows = list(csv.reader(io.StringIO(self.succeeds("predict", *arguments, *CPU).stdout)))
        self.assertEqual(rows[0], ["step", "forecast"])
        self.assertEqual([int(row[0]) for row in rows[1:]], list(range(1, len(rows))))
        return [float(row[1]) for row in rows[1:]]

    def test_files_log_and_baseline(self):
        done = self.series("--holdout", "20", "--season", "6", "--differences", "1", "--epochs", "6", "--out",
                           self.path("a.safetensors"), "--log", self.path("a.jsonl"))
        self.assertEqual(done.stdout, "")
        self.assertIn("series    120 values of level, the last 20 held out, differences 1, season 6\n", done.stderr)
        self.assertIn("windows   of 4: 81 to train, 8 to validate\n", done.stderr)  # 120 - 20 - 7 - 4 = 89
        self.assertRegex(done.stderr, r"baseline  the last value again: loss [\d.]+, mae [\d.]+ on the validation part\n")
        self.assertRegex(done.stderr, r"best +\S+a\.best\.safetensors, update \d+, validation \d\.\d+\n")
        lines = self.log("a.jsonl")
        self.assertLessEqual({"update", "loss", "lr", "grad_norm", "steps_per_s", "mae", "validation_mae",
                              "validation_loss"}, set(lines[-1]))
        self.assertEqual(len(lines), 36)  # 6 epochs of ceil(81/16)
        self.assertLess(lines[-1]["validation_loss"], float(done.stderr.split("again: loss ")[1].split(",")[0]))

    def test_resumed_is_the_same_as_straight(self):
        options = ["--dropout", "0.2", "--layers", "2", "--cell", "lstm", "--accumulate", "2", "--horizon", "3",
                   "--season", "6", "--schedule", "exponential"]
        curves = []
        for name, updates in (("d", "40"), ("e", "15")):
            self.series(*options, "--out", self.path(f"{name}.safetensors"), "--updates", updates, "--log",
                        self.path(f"{name}.jsonl"))
        done = self.succeeds(*SERIES, self.path("y.csv"), *CPU, "--resume", self.path("e.safetensors"), "--updates",
                             "40", "--log", self.path("e.jsonl"))  # the column is the model's
        self.assertIn("resumed   at update 15 of", done.stderr)
        for name in ("d.jsonl", "e.jsonl"):
            curves.append([(line["update"], line["loss"], line["grad_norm"]) for line in self.log(name)])
        self.assertEqual(len(curves[0]), 40)
        self.assertEqual(*curves)
        self.assertEqual(self.read("d.safetensors"), self.read("e.safetensors"))
        self.series(*options, "--checkpoint", "every=2", "--out", self.path("k.safetensors"), "--updates", "40", "--log",
                    self.path("k.jsonl"))
        self.assertEqual([line["loss"] for line in self.log("k.jsonl")], [loss for _, loss, _ in curves[0]])

    def test_other_cells(self):
        for name, more, words in (
                ("projected", ["--cell", "lstm", "--projection", "5", "--layers", "2", "--residual", "states", "--peepholes"],
                 ("lstm, 2 layers of", "projected to 5, peepholes;", "cells     residual states")),
                ("minimal", ["--cell", "min_gru", "--layers", "2", "--residual", "outputs"], ("min_gru, 2 layers of",)),
                ("skip", ["--cell", "gru_after", "--skip", "0.25", "--gate-clip", "4", "--candidate-activation", "softsign"],
                 ("cells     candidate softsign, gates clipped to 4, skip 0.25",))):
            with self.subTest(name=name):
                model = self.path(f"{name}.safetensors")
                done = self.series(*more, "--season", "6", "--epochs", "8", "--out", model)
                for text in words:
                    self.assertIn(text, done.stderr)
                self.assertEqual(len(self.succeeds("predict", model, "--csv", self.path("y.csv"), "--steps", "5", *CPU).stdout
                                     .splitlines()), 6)
                self.succeeds("cost", model)
        self.fails(2, "--gate-activation is of cells with gates, but --cell is rnn", *SERIES, self.path("y.csv"), *CPU, "--column",
                   "y", "--cell", "rnn", "--gate-activation", "relu", "--out", self.path("none.safetensors"))

    def test_eval_beside_baselines(self):
        models = [self.path(f"f{i}.safetensors") for i in range(3)]
        for i, model in enumerate(models):
            self.series("--holdout", "24", "--season", "6", "--epochs", "8", "--seed", str(i), "--out", model)
        y, data = values(), self.path("y.csv")
        found = json.loads(self.succeeds("eval", models[0], "--with", *models[1:], "--csv", data, *CPU,
                                         "--json").stdout)
        self.assertEqual((found["series"], found["values"], found["scored"], found["ahead"]), ("level", 120, 24, 1))
        alone = [json.loads(self.succeeds("eval", model, "--csv", data, *CPU, "--json").stdout)["model"]
                 for model in models]
        self.assertEqual(found["members"], alone)
        # From one value to the next, with the file's six digits, and by prediction after prediction.
        def rmse(errors):
            return math.sqrt(sum(e * e for e in errors) / len(errors))

        last = [y[t] - y[t - 1] for t in range(96, 120)]
        season = [y[t] - y[t - 6] for t in range(96, 120)]
        drift = [y[t] - y[t - 6] - (y[t - 1] - y[t - 7]) for t in range(96, 120)]
        for key, errors in (("naive", last), ("seasonal", season), ("seasonal_drift", drift)):
            self.assertAlmostEqual(found["baselines"][key]["rmse"], rmse(errors), places=5)
            self.assertAlmostEqual(found["baselines"][key]["mae"], sum(map(abs, errors)) / 24, places=5)
        self.assertEqual(set(found["baselines"]), {"naive", "seasonal", "seasonal_drift", "ar2", "ar9",
                                                   "ar7_differences"})
        errors = []
        for t in range(96, 120):
            part = self.write("part.csv", as_csv(y[:t]))
            errors.append(self.forecasts(models[0], "--with", *models[1:], "--csv", part, "--steps", "1")[0] - y[t])
        self.assertAlmostEqual(found["model"]["rmse"], rmse(errors), places=5)
        self.assertLess(found["model"]["rmse"], found["baselines"]["naive"]["rmse"])
        table = self.succeeds("eval", models[0], "--with", *models[1:], "--csv", data, *CPU).stdout
        self.assertIn("120 values of level; 24 foretold, each 1 step ahead\n", table)
        self.assertRegex(table, rf"model 3 +RMSE {found['members'][2]['rmse']:.5g} ")
        self.assertRegex(table, rf"model +RMSE {found['model']['rmse']:.5g} +MAE {found['model']['mae']:.5g}, the mean of 3\n")
        self.assertRegex(table, r"\nAR\(2\) +RMSE .*\nAR\(9\) +RMSE .*\nAR\(7\), differences +RMSE ")
        further = self.succeeds("eval", models[0], "--csv", data, *CPU, "--test", "30", "--ahead", "3")
        self.assertIn("28 foretold, each 3 steps ahead", further.stdout)
        self.assertIn("the first 6 are ones that the model has seen", further.stderr)

    def test_predictions_are_fed_back(self):
        model = self.path("g.safetensors")
        self.series("--differences", "1", "--updates", "20", "--out", model)
        found = self.forecasts(model, "--csv", self.path("y.csv"), "--steps", "4")
        grown = values()
        for value in found:
            part = self.write("grown.csv", as_csv(grown))
            self.assertAlmostEqual(self.forecasts(model, "--csv", part, "--steps", "1")[0], value, places=3)
            grown.append(value)
        self.assertEqual(len(self.forecasts(model, "--csv", self.path("y.csv"))), 12)

    def test_plots(self):
        model, picture = self.path("p.safetensors"), self.path("p.svg")
        data = self.data("named.csv", header="when,a<b & c")
        self.succeeds(*SERIES, data, "--column", "a<b & c", *TINY, "--updates", "5", "--holdout", "20", "--out", model)
        plain = self.succeeds("predict", model, "--csv", data, "--steps", "7", *CPU).stdout
        self.assertEqual(self.succeeds("predict", model, "--csv", data, "--steps", "7", "--plot", picture, *CPU).stdout,
                         plain)
        for command, shown, foretold in ((["predict", "--steps", "7"], 60, 7), (["eval"], 80, 20)):
            self.succeeds(command[0], model, "--csv", data, *command[1:], "--plot", picture, *CPU)
            root = ET.parse(picture).getroot()
            paths = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("class") in ("n s9", "n s10")]
            lines = [path.get("d").replace("M", "").split("L") for path in paths]  # two of two points are the legend's
            self.assertEqual([len(line) for line in lines], [2, 2, shown, foretold])
            for line in lines:
                for point in line:
                    x, y = map(float, point.split())
                    self.assertTrue(0 <= x <= 900 and 0 <= y <= 390)
            self.assertTrue(any("a<b & c" in (text.text or "") for text in root.iter("{http://www.w3.org/2000/svg}text")))
            self.assertNotIn("http", self.read("p.svg").decode().replace("http://www.w3.org/2000/svg", ""))
        self.fails(1, "--plot: cannot write", "predict", model, "--csv", data, "--plot", self.path("none/p.svg"), *CPU,
                   stdout=subprocess.DEVNULL)

    def test_mistakes(self):
        model, data = self.path("h.safetensors"), self.data()
        self.series("--updates", "2", "--out", model)
        column = ["--column", "level"]
        out = ["--out", self.path("n")]
        self.fails(2, "needs --csv", "train", "series", *out)
        self.fails(2, "needs --column C", *SERIES, data, *out)
        self.fails(2, "needs --out", *SERIES, data, *column)
        self.fails(2, "--lags stands in the model", *SERIES, data, "--resume", model, "--lags", "5")
        self.fails(2, "--season: '1' is not", *SERIES, data, *column, *out, "--season", "1")
        self.fails(2, "would be overwritten", *SERIES, data, *column, "--out", data)
        self.fails(1, 'no column "height"', *SERIES, data, "--column", "height", *CPU, *out)
        self.fails(1, "not a number", *SERIES, data, "--column", "when", *CPU, *out)
        self.fails(1, "holdout 120, but the series has 120 values", *SERIES, data, *column, *CPU, *out, "--holdout", "120")
        self.fails(1, "20 values to train on, the last 100 held out: at least 25 are needed, for 12 lags", *SERIES, data,
                   *column, *CPU, *out, "--holdout", "100", "--season", "12")
        self.fails(1, "another series than the model was trained on", *SERIES, self.data("more.csv", values(121)), *CPU,
                   "--resume", model, "--updates", "4")
        holes = values()
        holes[40] = ""
        hole = self.data("hole.csv", holes)
        self.fails(1, "line 42", *SERIES, hole, *column, *CPU, *out)
        self.fails(1, "line 42", "eval", model, "--csv", hole, "--test", "9", *CPU)
        self.succeeds(*SERIES, hole, *column, "--holes", "interpolate", *TINY, *out, "--updates", "1")
        self.fails(1, "trained without --holdout: say with --test N", "eval", model, "--csv", data, *CPU)
        self.fails(1, "--test: 120 values are to be foretold, but the series has 120", "eval", model, "--csv", data,
                   "--test", "120", *CPU)
        self.fails(1, "2 values, the model takes at least 4", "predict", model, "--csv",
                   self.data("short.csv", values(2)), *CPU)
        self.fails(2, "--label is not for a forecaster", "predict", model, "--csv", data, "--label", "1", *CPU)
        self.fails(2, "--sequence is not for a forecaster", "eval", model, "--csv", data, "--sequence", "1", *CPU)
        self.fails(2, "--steps: '0' is not", "predict", model, "--csv", data, "--steps", "0", *CPU)
        self.fails(1, "'series forecaster', not 'character language model'", "sample", model, *CPU)
        text = self.write("text.txt", "the quick brown fox\n" * 200)
        language = self.path("lm.safetensors")
        self.succeeds("train", "lm", "--text", text, *CPU, "--hidden", "8", "--updates", "0", "--out", language)
        self.fails(2, "--test is not for a language model", "eval", language, "--text", text, "--test", "5", *CPU)
        self.fails(2, "--steps is not for a classifier", "predict", language, "--csv", data, "--steps", "5", *CPU)
        self.fails(1, "'character language model', not 'series forecaster'", "predict", model, "--with", language, "--csv",
                   data, *CPU)
        self.fails(1, "'character language model', not 'series forecaster'", *SERIES, data, "--resume", language,
                   "--updates", "3", *CPU)

    def test_interrupted_and_told_how_to_go_on(self):
        model = self.path("i.safetensors")
        data = self.data("semi.csv", separator=";")
        with subprocess.Popen([UNROLL, *SERIES, data, "--column", "2", "--holes", "forward", "--header", "yes",
                               "--separator", ";", *TINY, "--out", model, "--epochs", "1000000"],
                              stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                if "update 1/" in line or line.startswith("epoch "):
                    break
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            self.assertEqual(process.wait(60), 0, rest)
        self.assertIn(f"go on with: unroll train series --csv {data} --column 2 --holes forward --header yes "
                      f"--separator ';' --resume {model}", rest)

    def ensemble(self, name, column, *arguments, holes="error"):
        """Five seeds, trained on what stands before the published test parts and scored on these, as script/forecasts."""
        data, models = os.path.join(SOURCE, "tests", "data", name), []
        for seed in range(1, 6):
            models.append(self.path(f"{name}{seed}.safetensors"))
            self.succeeds(*SERIES, data, "--column", column, "--holes", holes, *CPU, "--lr", "0.005", "--schedule", "cosine",
                          "--validation-fraction", "0", "--seed", str(seed), "--out", models[-1], *arguments)
        return json.loads(self.succeeds("eval", models[0], "--with", *models[1:], "--csv", data, "--holes", holes, *CPU,
                                        "--json").stdout)

    def test_sunspots(self):
        found = self.ensemble("sunspots.csv", "SUNACTIVITY", "--lags", "9", "--holdout", "88", "--epochs", "60")
        self.assertEqual(found["scored"], 88)
        rmse = {key: score["rmse"] for key, score in found["baselines"].items()}
        for key, published in (("naive", 30.44), ("ar2", 20.46), ("ar9", 17.44)):
            self.assertAlmostEqual(rmse[key], published, delta=0.01)
        self.assertLess(found["model"]["rmse"], 1.05 * rmse["ar9"])
        self.assertLess(found["model"]["rmse"], rmse["ar2"])

    def test_co2(self):
        found = self.ensemble("co2.csv", "co2", "--lags", "24", "--season", "12", "--holdout", "120", "--epochs", "20",
                              "--optimizer", "adamw", "--weight-decay", "0.01", holes="interpolate")
        self.assertEqual(found["scored"], 120)
        for key, published in (("naive", 1.264), ("seasonal_drift", 0.385), ("ar13_differences", 0.331)):
            self.assertAlmostEqual(found["baselines"][key]["rmse"], published, delta=0.001)
        self.assertLessEqual(found["model"]["rmse"], 0.385)


if __name__ == "__main__":
    unittest.main()
