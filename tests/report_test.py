#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`unroll report`: what a page is made of, that curves stand where the values say, what it does with bad reports."""
import copy
import json
import math
import os
import re
import shutil
import struct
import subprocess
import time
import unittest
import xml.etree.ElementTree as ET
import zlib
from html.parser import HTMLParser

import report_sample
from command_test import Case, unroll

SECTIONS = [
    "verdict",
    "gradient",
    "gates",
    "spectra",
    "fixed_points",
    "lyapunov",
    "nonfinite",
    "cost",
    "attention",
    "units",
    "training",
    "configuration",
     "missing"]
VOID = {"meta", "link", "input", "br", "hr", "img"}
IMPLIED = {"td", "tr", "th"}  # HTML lets their end tags be left out
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</script></svg></title><img src=x onerror=\"hit()\"><script>hit()</script>&amp;'\"<!--"


class Page(HTMLParser):
    """Elements with their attributes and what they say; tags that do not match are noted."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.faults, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        if self.open:
            self.faults.append(f"never closed: {[e['tag'] for e in self.open]}")

    def handle_starttag(self, tag, attrs):
        if tag in IMPLIED:
            self.drop({"td", "th"} if tag != "tr" else IMPLIED)
        element = {"tag": tag, "text": "", "path": [e["tag"] for e in self.open], **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def drop(self, tags):
        while self.open and self.open[-1]["tag"] in tags:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in IMPLIED:
            self.drop(IMPLIED)
        if not self.open or self.open[-1]["tag"] != tag:
            self.faults.append(f"line {self.getpos()[0]}: </{tag}> after {[e['tag'] for e in self.open][-3:]}")
        else:
            self.open.pop()

    def handle_data(self, data):
        self.texts.append(data)
        for element in self.open:
            element["text"] += data

    def all(self, tag):
        return [e for e in self.elements if e["tag"] == tag]

    def one(self, **attributes):
        found = [e for e in self.elements if all(e.get(k) == v for k, v in attributes.items())]
        assert len(found) == 1, (attributes, len(found))
        return found[0]


class Report(Case):
    def without_cairo(self):
        """An environment in which cairo can't be loaded: most tests ask for no PNG, which takes most of the time."""
        os.makedirs(self.path("lib"), exist_ok=True)
        self.write("lib/libcairo.so.2", "this is no library\n")
        libraries = ":".join(filter(None, [self.path("lib"), os.environ.get("LD_LIBRARY_PATH")]))
        return {**os.environ, "LD_LIBRARY_PATH": libraries}

    def draw(self, report, code=0, name="r", png=False):
        shutil.rmtree(self.path(name), ignore_errors=True)
        self.write(name + ".json", json.dumps(report))
        done = unroll("report", self.path(name + ".json"), "--out", self.path(name),
                      env=None if png else self.without_cairo())
        self.assertEqual(done.returncode, code, done.stderr)
        if not png:
            done.stderr, notes = re.subn(r"unroll: no PNG: cairo can't be loaded: .*\n", "", done.stderr)
            self.assertEqual(notes, 1)
        self.text = self.read(name + "/report.html").decode()
        self.page = Page(self.text)
        self.assertEqual(self.page.faults, [])
        return done

    def plots(self, name="r"):
        return sorted(os.listdir(os.path.join(self.path(name), "plots")))

    def headings(self):
        return [(int(e["tag"][1]), e["text"]) for e in self.page.elements if re.fullmatch("h[1-6]", e["tag"])]


class Pages(Report):
    def test_structure(self):
        for cell, rho in (("lstm", 0.82), ("gru", 1.02), ("rnn", 1.2)):
            with self.subTest(cell=cell):
                done = self.draw(report_sample.report(cell, rho), name=cell)
                page = self.page
                self.assertEqual(done.stderr, "")
                self.assertIn(f"page   {self.path(cell)}/report.html\n", done.stdout)
                self.assertEqual([e["id"] for e in page.all("section")], SECTIONS)
                self.assertEqual([e["href"] for e in page.all("a")], ["#main"] + ["#" + s for s in SECTIONS])
                self.assertEqual([len(page.all(tag)) for tag in ("header", "nav", "main", "footer", "h1")], [1] * 5)
                levels = [level for level, _ in self.headings()]
                self.assertEqual(levels[0], 1)
                self.assertTrue(all(b <= a + 1 for a, b in zip(levels, levels[1:])), levels)
                ids = [e["id"] for e in page.elements if "id" in e]
                self.assertEqual(len(ids), len(set(ids)))
                self.assertEqual(page.all("html")[0]["lang"], "en")
                self.assertIn("Gradients vanish after 23 steps", page.one(id="verdict")["text"])
                self.assertIn("9f" * 32, page.one(id="configuration")["text"])
                self.assertIn("a7" * 32, page.one(id="configuration")["text"])

    def test_every_picture_has_a_description_and_a_table(self):
        self.draw(report_sample.report())
        pictures = self.page.all("svg")
        self.assertEqual(len(pictures), 16)
        for svg in pictures:
            self.assertEqual(svg["role"], "img")
            for part in svg["aria-labelledby"].split():
                self.assertTrue(self.page.one(id=part)["text"].strip())
        self.assertEqual(len(self.page.all("figcaption")), 16)
        for figure in self.page.elements:
            if figure["tag"] == "figure" and "Hidden units over text" not in figure["text"]:
                self.assertTrue(any(s["text"] in figure["text"] for s in self.page.all("summary")), figure["text"][:80])
        self.assertTrue(all("scope" in th for th in self.page.all("th")))
        self.assertEqual(len(self.page.all("caption")), len(self.page.all("table")))
        for control in self.page.all("select") + self.page.all("input"):
            self.assertIn("label", control["path"])
        names = [self.page.one(id=e["aria-labelledby"])["text"].strip() for e in self.page.elements
                 if "wide" in e.get("class", "").split()]
        self.assertEqual(len(names), len(pictures) + len(self.page.all("table")) - 1)  # units of a span: not so wide
        self.assertTrue(all(names))

    def test_directions_of_texts_are_not_turned(self):
        """Embeddings, overrides and isolates of Unicode's bidirectional algorithm are shown as what they are: strange."""
        turned = "a\u202eb\u202ac\u2066d\u2069"
        report = report_sample.report(layers=(turned, "1"))
        report["model"]["path"] = report["verdict"]["text"] = turned
        self.draw(report)
        text = re.sub(r"<script.*?</script>", "", self.text, flags=re.DOTALL)
        self.assertNotRegex(text, "[\u202a-\u202e\u2066-\u2069]")
        self.assertIn("a\ufffdb\ufffdc\ufffdd\ufffd", self.page.one(id="verdict")["text"])

    def test_it_loads_nothing(self):
        self.draw(report_sample.report())
        for element in self.page.elements:
            for name in ("src", "href", "action", "data", "poster", "srcset"):
                if name in element:
                    self.assertRegex(element[name], r"^(#\w|data:)", element)
        self.assertNotRegex(self.text, r"url\(|@import|https?:|fetch\(|XMLHttp")
        policy = self.page.one(**{"http-equiv": "Content-Security-Policy"})["content"]
        self.assertTrue(policy.startswith("default-src 'none';"))

    def test_strings_of_files_are_only_texts(self):
        plain = report_sample.report()
        self.draw(plain, name="plain")
        expected = [e["tag"] for e in self.page.elements]
        report = report_sample.report(layers=(HOSTILE, HOSTILE + "2"))
        report["model"]["path"] = "a/" + HOSTILE
        report["model"]["cell"] = report["device"] = report["unroll"] = report["created"] = HOSTILE
        report["model"]["options"] = {HOSTILE: HOSTILE}
        report["verdict"]["text"] = report["verdict"]["findings"][0]["advice"] = HOSTILE
        report["missing"][0] = {"section": HOSTILE, "why": HOSTILE}
        report["cost"]["formula"] = report["nonfinite"]["first"]["gate"] = report["fixed_points"][0]["input"] = HOSTILE
        for entry in report["spectra"]:
            entry["matrix"] = HOSTILE
        report["gates"][0]["gate"] = report["training"]["weights"][0]["name"] = HOSTILE
        report["attention"][0]["source"][0] = report["attention"][0]["target"][0] = HOSTILE
        report["units"]["tokens"][:4] = [HOSTILE, "\u0001", "\uffff", "\u2028"]
        self.draw(report)
        tags = [e["tag"] for e in self.page.elements]
        self.assertEqual([t for t in tags if t not in ("text", "path", "circle", "rect")],
                         [t for t in expected if t not in ("text", "path", "circle", "rect")])
        self.assertEqual(tags.count("img"), 0)
        self.assertEqual(len(self.page.all("script")), 2)
        self.assertIn(HOSTILE, self.page.one(id="verdict")["text"])
        self.assertIn(HOSTILE, self.page.one(id="configuration")["text"])
        data = json.loads(self.page.one(id="unit-data")["text"])
        self.assertEqual(data["tokens"], report["units"]["tokens"])
        for name in self.plots():
            if name.endswith(".svg"):
                ET.parse(os.path.join(self.path("r"), "plots", name))

    def test_units_are_those_of_the_report(self):
        report = report_sample.report()
        self.draw(report)
        data = json.loads(self.page.one(id="unit-data")["text"])
        self.assertEqual(sorted(data["unit"]), sorted(report["units"]["unit"]))
        largest = max(abs(a) for row in report["units"]["activity"] for a in row)
        self.assertAlmostEqual(data["scale"], largest, 5)
        for unit, row in zip(data["unit"], data["activity"]):
            wanted = report["units"]["activity"][report["units"]["unit"].index(unit)]
            self.assertLess(max(abs(a / 100 * largest - b)
                            for a, b in zip(row, wanted)), 0.0051)  # hundredths of the scale

    def test_words_have_gaps(self):
        for tokens, gaps in ((["the", "hen", "."], True), (["the", " hen"], False), (["t", "h"], False)):
            report = report_sample.report()
            report["units"] = {"tokens": tokens, "layer": "0", "unit": [4], "activity": [[0.5] * len(tokens)]}
            report = {k: v for k, v in report.items() if k not in SECTIONS or k in ("verdict", "units")}
            self.draw(report)
            self.assertEqual(json.loads(self.page.one(id="unit-data")["text"])["gaps"], gaps)

    def test_only_what_is_there(self):
        report = {k: v for k, v in report_sample.report().items() if k not in SECTIONS[1:]}
        self.draw(report)
        self.assertEqual([e["id"] for e in self.page.all("section")], ["verdict", "configuration"])
        self.assertEqual(self.plots(), [])

    def test_empty_lists(self):
        report = report_sample.report()
        for name in ("gates", "spectra", "fixed_points", "lyapunov", "attention", "missing"):
            report[name] = []
        report["gradient"] = {"layers": []}
        report["units"] = {"tokens": [], "layer": "0", "activity": [], "unit": []}
        report["training"] = {"updates": []}
        report["cost"] = {"memory": {"T": []}}
        self.draw(report)
        self.assertEqual(self.plots(), [])

    def test_numbers_that_are_not_finite(self):
        report = report_sample.report()
        layer = report["gradient"]["layers"][0]
        layer["norm"][:4] = ["inf", "-inf", "nan", 0]
        layer["product"][-1] = 0
        layer["rho"], layer["memory"] = "nan", None
        report["spectra"][0]["eigenvalues"][0] = ["nan", "inf"]
        report["spectra"][0]["radius"] = "inf"
        report["gates"][0]["low"][0] = "nan"
        report["gates"][1]["time_constants"][-1] = "inf"
        report["lyapunov"][0]["exponents"][-3:] = ["-inf"] * 3
        report["lyapunov"][0]["errors"][-3:] = ["nan"] * 3
        report["fixed_points"][0]["points"][0]["place"] = ["nan"] * 3
        report["fixed_points"][0]["trajectory"][5] = ["nan", 0, 0]
        report["units"]["activity"][0][0] = "nan"
        report["attention"][0]["weights"][0][0] = "nan"
        done = self.draw(report)
        self.assertEqual(done.stderr, "")
        self.assertNotRegex(self.text, r'="[^"]*\b(nan|inf)\b[^"]*"')  # no such place in a picture
        self.assertIn("▽ at the lower edge: 0; △ at the upper edge: infinite", self.page.one(id="gradient")["text"])
        self.assertIn("−∞", self.page.one(id="lyapunov")["text"])

    def test_numbers_at_the_ends_of_double(self):
        """Axes of what has all but vanished, or nearly overflowed, have an end and ticks with numbers."""
        for value in (5e-324, 1e-310, 1.7e308):
            with self.subTest(value=value):
                report = report_sample.report(steps=8)
                for layer in report["gradient"]["layers"]:
                    layer["norm"] = [value, value / 2] * 4
                report["training"]["loss"] = [value] * len(report["training"]["updates"])
                done = self.draw(report)
                self.assertEqual(done.stderr, "")
                svg = ET.parse(self.path("r/plots/gradient-norm.svg"))
                self.assertFalse([e for e in svg.iter() for text in e.attrib.values() if "nan" in text or "inf" in text])
                ticks = [t.text for t in svg.iter(SVG + "text") if "10" in (t.text or "")]
                self.assertTrue(2 <= len(ticks) < 20 and not any("nan" in t or "inf" in t for t in ticks), ticks)

    def test_what_is_not_known(self):
        report = report_sample.report()
        report["gradient"]["layers"][0]["memory"] = None
        del report["gradient"]["layers"][1]["memory"]
        report["nonfinite"] = {"values": 3, "gradients": None, "text": "the cell state of layer 1 became inf",
                               "first": {"layer": "1 forward", "direction": None, "step": 41, "gate": None, "sequence": 3,
                                         "unit": 17, "what": "cell state", "phase": "forward", "value": "inf"}}
        self.draw(report)
        self.assertEqual(self.page.one(id="gradient")["text"].count("longer than was looked at"), 1)
        text = self.page.one(id="nonfinite")["text"]
        for words in ("Values that are not finite3", "Gradients that are not finitenot looked at",
                      "The first: the cell state of layer 1 became inf.", "17", "forward"):
            self.assertIn(words, text.replace("\n", ""))

    def test_many_values_are_thinned_and_it_is_said(self):
        report = report_sample.report(steps=30000)
        report["gates"] = report_sample.report(steps=10)["gates"] * 20
        peak = 12345
        norm = report["gradient"]["layers"][0]["norm"]
        norm[:] = [1.0] * len(norm)
        norm[peak] = 1e4
        report["gradient"]["layers"] = report["gradient"]["layers"][:1]
        self.draw(report)
        self.assertLess(len(self.text), 20_000_000)
        self.assertIn(
    "Of many values the smallest and the largest of each part are drawn.",
    self.page.one(
        id="gradient")["text"])
        self.assertIn("(120 of 30000 rows, evenly spaced; all are in report.json)", self.text)
        self.assertIn("The first 64 of 160 are shown; all are in report.json.", self.page.one(id="gates")["text"])
        svg = ET.parse(os.path.join(self.path("r"), "plots", "gradient-norm.svg")).getroot()
        top = next(float(t.get("y")) - 12 * 0.35 for t in svg.iter(SVG + "text") if t.text == "10⁴")
        heights = [float(y) for p in svg.iter(SVG + "path") if "s9" in p.get("class").split()
                   for y in re.findall(r"[ML][\d.]+ ([\d.]+)", p.get("d"))]
        self.assertLess(min(heights[2:]), top + 0.2)  # one of 30,000 values; the legend's line comes first
        self.assertEqual(len(heights), 2 + 1200 + 4)  # and the ends that the curve's pieces share


class Plots(Report):
    def tick_lines(self, svg, anchor):
        """(value, place) of the ticks with this anchor: middle for the horizontal axis, end for the vertical one."""
        digits = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻−", "0123456789--")
        found = []
        for text in svg.iter(SVG + "text"):
            if text.get("text-anchor") == anchor and re.fullmatch("10[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", text.text or ""):
                found.append((10.0 ** int(text.text[2:].translate(digits)), text))
            elif text.get("text-anchor") == anchor and re.fullmatch(r"−?[\d.]+", text.text or ""):
                found.append((float(text.text.translate(digits)), text))
        return found

    def test_curves_stand_where_the_values_say(self):
        report = report_sample.report()
        self.draw(report)
        svg = ET.parse(os.path.join(self.path("r"), "plots", "gradient-norm.svg")).getroot()
        ticks = [(math.log10(v), float(t.get("y")) - 12 * 0.35) for v, t in self.tick_lines(svg, "end")]
        steps = [(v, float(t.get("x"))) for v, t in self.tick_lines(svg, "middle")]
        (v0, y0), (v1, y1) = ticks[0], ticks[-1]
        (t0, x0), (t1, x1) = steps[0], steps[-1]
        for i, layer in enumerate(report["gradient"]["layers"]):
            path = next(p for p in svg.iter(SVG + "path")
                        if f"s{9 + i}" in p.get("class").split() and p.get("d").count("L") > 9)
            points = [tuple(map(float, p.split())) for p in re.split("[ML]", path.get("d"))[1:]]
            self.assertEqual(len(points), len(layer["norm"]))
            for t, ((x, y), norm) in enumerate(zip(points, layer["norm"]), 1):
                # Places are written with one decimal, those of the two ticks too.
                self.assertAlmostEqual(y, y0 + (math.log10(norm) - v0) / (v1 - v0) * (y1 - y0), delta=0.21)
                self.assertAlmostEqual(x, x0 + (t - t0) / (t1 - t0) * (x1 - x0), delta=0.21)

    def test_eigenvalues_outside_of_the_circle_are_diamonds(self):
        report = report_sample.report("rnn", 1.2, layers=("0",), hidden=30)
        self.draw(report)
        svg = ET.parse(os.path.join(self.path("r"), "plots", "eigenvalues-1.svg")).getroot()
        outside = sum(math.hypot(*z) > 1 for z in report["spectra"][0]["eigenvalues"])
        self.assertEqual(sum("f6" in p.get("class").split() for p in svg.iter(SVG + "path")), outside)
        self.assertEqual(sum("f9" in c.get("class").split() for c in svg.iter(SVG + "circle")), 30 - outside)

    def test_leading_eigenvalues_alone(self):
        report = report_sample.report("rnn", 1.2, layers=("0",), hidden=30)
        report["spectra"][0].update(rows=4096, leading=True, departure=None)
        self.draw(report)
        svg = ET.parse(os.path.join(self.path("r"), "plots", "eigenvalues-1.svg")).getroot()
        self.assertIn("ρ = 1.2; the 30 leading of 4096", [t.text for t in svg.iter(SVG + "text")])
        self.assertIn("The 30 leading of 4096 eigenvalues of W_h", self.text)
        self.assertIn("only the leading ones were computed", self.text)
        report["spectra"][0].update(rows=30, leading=False)
        self.draw(report)
        self.assertNotIn("leading", self.text)

    def test_fixed_points_by_their_stability(self):
        self.draw(report_sample.report())
        svg = ET.parse(os.path.join(self.path("r"), "plots", "fixed-points-1.svg")).getroot()
        panels = 2
        self.assertEqual(sum("f5" in c.get("class").split()
                         for c in svg.iter(SVG + "circle")), 8 * panels + 1)  # and a key
        self.assertEqual(sum("f6" in p.get("class").split() for p in svg.iter(SVG + "path")), 19 * panels + 1)
        modes = [t.text for t in svg.iter(SVG + "text") if "f6" in t.get("class").split()]
        self.assertEqual(sorted(modes), sorted((["1"] * 12 + ["2"] * 6 + ["3"]) * panels))

    def test_svg_and_png(self):
        done = self.draw(report_sample.report(), png=True)
        names = self.plots()
        self.assertEqual(len([n for n in names if n.endswith(".svg")]), 16)
        for name in names:
            if name.endswith(".svg"):
                root = ET.parse(os.path.join(self.path("r"), "plots", name)).getroot()
                self.assertTrue(root.find(SVG + "title").text and root.find(SVG + "desc").text)
                self.assertIn("prefers-color-scheme:dark", root.find(SVG + "style").text)
        if "no PNG: cairo can't be loaded" in done.stderr:
            self.skipTest("no cairo here")
        self.assertEqual([n[:-3] for n in names if n.endswith("png")], [n[:-3] for n in names if n.endswith("svg")])
        data = self.read("r/plots/gradient-norm.png")
        self.assertEqual(data[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(struct.unpack(">II", data[16:24])[0], 1360)
        self.assertGreater(len(zlib.decompress(self.chunks(data, b"IDAT"))), 1360 * 600 * 3)
        self.assertGreater(len(data), 20000)  # one of nothing has some 3,000
        report = report_sample.report()
        report["units"]["tokens"][:3] = report["attention"][0]["source"][:3] = ["\uffff", "\U0001f414", "字"]
        report["model"]["path"] = report["gates"][0]["gate"] = "ä" * 79 + "\u0001\ufdd0"
        self.draw(report, png=True)  # what cairo would refuse

    @staticmethod
    def chunks(data, kind):
        at, found = 8, b""
        while at < len(data):
            size, name = struct.unpack(">I4s", data[at:at + 8])
            found += data[at + 8:at + 8 + size] if name == kind else b""
            at += size + 12
        return found

    def test_without_cairo_there_is_no_png_and_that_is_said(self):
        self.write("n.json", json.dumps(report_sample.report()))
        done = self.succeeds("report", self.path("n.json"), "--out", self.path("n"), env=self.without_cairo())
        self.assertIn("unroll: no PNG: cairo can't be loaded: ", done.stderr)
        self.assertIn("plots  16 in ", done.stdout)
        self.assertTrue(all(name.endswith(".svg") for name in self.plots("n")))
        self.assertIn("PNG needs cairo", self.read("n/report.html").decode())


class Refused(Report):
    def test_wrong_fields_are_named_and_the_rest_is_drawn(self):
        def at(report, *path):
            for step in path[:-1]:
                report = report[step]
            return report, path[-1]

        faults = [
            (["gradient"], 7, "gradient is the number 7, expected an object"),
            (["gradient", "layers"], {}, "gradient.layers is an object, expected an array"),
            (["gradient", "layers", 1], "x", "gradient.layers[1] is the string \"x\", expected an object"),
            (["gradient", "layers", 0, "norm", 3], "NaN", "gradient.layers[0].norm[3] is the string \"NaN\", "
             "expected a number, "
             "\"inf\", \"-inf\" or \"nan\""),
            (["gradient", "layers", 0, "norm", 3], True, "gradient.layers[0].norm[3] is true, expected a number"),
            (["gradient", "layers", 0, "product"], [1], "gradient.layers[0].product has 1 values, expected 12"),
            (["gates"], {}, "gates is an object, expected an array of objects"),
            (["gates", 0], 3, "gates[0] is the number 3, expected an object"),
            (["gates", 0, "counts"], [1, 2], "gates[0].counts has 2 values, expected 20"),
            (["gates", 0, "edges", 1], 5, "gates[0].edges does not ascend at [2]"),
            (["gates", 0, "histogram_steps", 1], 0, "gates[0].histogram_steps does not ascend at [1]"),
            (["gates", 0, "histogram_steps"], list(range(201)),
             "gates[0].histogram_steps has 201 values, expected at most 200"),
            (["gates", 0, "histogram", 1], [5], "gates[0].histogram[1] has 1 values, expected 20"),
            (["gates", 0, "gate"], None, "gates[0].gate is null, expected a string"),
            (["spectra", 0, "eigenvalues", 2], [1], "spectra[0].eigenvalues[2] has 1 values, expected 2"),
            (["fixed_points", 0, "points", 4, "place"], [0, 0],
             "fixed_points[0].points[4].place has 2 values, expected 3"),
            (["fixed_points", 0, "axes"], "äöü" * 9,
             "fixed_points[0].axes is the string \"äöüäöüäöüäöü...\", expected an array"),
            (["lyapunov", 0, "errors"], [], "lyapunov[0].errors has 0 values, expected 48"),
            (["nonfinite", "first"], 1, "nonfinite.first is the number 1, expected an object"),
            (["cost", "ops", 0, "op"], 5, "cost.ops[0].op is the number 5, expected a string"),
            (["cost", "memory", "bptt"], [1.5], "cost.memory.bptt has 1 values, expected 11"),
            (["attention", 0, "weights"], [[1]], "attention[0].weights has 1 rows, expected 4"),
            (["units", "tokens", 2], 2, "units.tokens[2] is the number 2, expected a string"),
            (["units", "unit"], [1], "units.unit has 1 values, expected 24"),
            (["training", "updates"], None, "training.updates is null, expected an array"),
            (["verdict", "level"], "fine", "verdict.level is \"fine\", expected good, warning or bad"),
            (["missing", 0, "why"], [], "missing[0].why is an array of 0, expected a string"),
            (["model", "path"], 1, "model.path is the number 1, expected a string"),
        ]
        whole = report_sample.report(text=report_sample.TEXT, hidden=48)
        for path, value, message in faults:
            with self.subTest(message=message):
                report = copy.deepcopy({k: v for k, v in whole.items(
                ) if k not in SECTIONS or k in ("verdict", path[0])})
                holder, key = at(report, *path)
                holder[key] = value
                done = self.draw(report, code=1)
                self.assertIn(f"unroll: report: {message}", done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1)
                self.assertIn(f"Left out: {message}", "".join(self.page.texts))
                self.assertIn("Seed, configuration and data", [text for _, text in self.headings()])

    def refuses(self, message, data, *arguments):
        self.write("bad.json", data if isinstance(data, bytes) else json.dumps(data))
        self.fails(1, message, "report", self.path("bad.json"), "--out", self.path("bad"), *arguments)

    def test_what_is_no_report(self):
        whole = report_sample.report()
        self.refuses("bad.json is no report: line 1, column 0: unable to decode byte 0x89", b"\x89PNG")
        self.refuses("is no report: line 1, column 0:", b"")
        self.refuses("its \"format\" is missing, expected \"unroll report\"", {})
        self.refuses("its \"format\" is missing", [1])
        self.refuses("its \"format\" is the string \"other\"", {**whole, "format": "other"})
        self.refuses("\"version\" is the number 2, this program draws version 1", {**whole, "version": 2})
        self.refuses("\"version\" is missing", {"format": "unroll report"})
        self.refuses("is no report: line 1,", json.dumps(whole)[:-40].encode())
        self.refuses("is no report: line 1,", b'{"format": "a", "format": "b"}')
        self.refuses("is no report: line 1,", b'{"format": NaN}')
        self.refuses("is no report", b"[" * 100000)
        self.fails(
    1,
    "cannot read " +
    self.path("none.json"),
    "report",
    self.path("none.json"),
    "--out",
     self.path("x"))
        self.fails(1, "it is a folder", "report", self.folder, "--out", self.path("x"))
        self.fails(2, "--out", "report", self.path("bad.json"))

    def test_50_mb_are_refused_at_once(self):
        with open(self.path("large.json"), "wb") as file:
            file.truncate(50_000_000)
        start = time.monotonic()
        self.fails(1, "large.json has 50.0 MB, a report at most 33.6 MB", "report", self.path("large.json"), "--out",
                   self.path("x"))
        self.assertLess(time.monotonic() - start, 5)
        self.assertFalse(os.path.exists(self.path("x")))

    def test_a_pipe_is_read_as_far_as_a_report_goes(self):
        sample, done = json.dumps(report_sample.report()), {}
        for name, text in (("right", sample), ("large", '"' + "x" * 40_000_000)):
            self.write("in.json", text)
            with subprocess.Popen(["cat", self.path("in.json")], stdout=subprocess.PIPE) as cat:
                done[name] = unroll("report", "/dev/stdin", "--out", self.path(name), stdin=cat.stdout,
                                    env=self.without_cairo())
                cat.stdout.close()
        self.assertEqual(done["right"].returncode, 0, done["right"].stderr)
        self.assertEqual(done["large"].returncode, 1)
        self.assertIn("/dev/stdin has more than 33.6 MB, a report at most 33.6 MB", done["large"].stderr)
        self.assertFalse(os.path.exists(self.path("large")))

    def test_where_it_cannot_write(self):
        self.write("ok.json", json.dumps(report_sample.report()))
        self.write("taken", "a file")
        self.fails(1, "taken/plots: Not a directory", "report", self.path("ok.json"), "--out", self.path("taken"))
        self.fails(1, "--out: cannot make the folder", "report", self.path("ok.json"), "--out", self.path("a/b/c"))
        os.makedirs(self.path("full/report.html"))
        self.fails(1, "full/report.html: Is a directory", "report", self.path("ok.json"), "--out", self.path("full"))


if __name__ == "__main__":
    unittest.main()
