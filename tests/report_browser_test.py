#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The report's page in a headless Chromium: nothing complained of, nothing asked for, light and
dark, narrow and wide, and the span of text that is selected with keys, with the mouse and by numbers."""
import json
import re
import sys
import time
import unittest

import browser
import report_sample
from command_test import Case
from report_test import HOSTILE

PHRASE = "(there were five of them"  # where unit 8 is active, of those made up


class Shown(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = browser.Browser(110)

    @classmethod
    def tearDownClass(cls):
        cls.browser.__exit__()
        super().tearDownClass()

    def draw(self, name, report):
        self.write(name + ".json", json.dumps(report))
        self.succeeds("report", self.path(name + ".json"), "--out", self.path(name))
        return self.path(name + "/report.html")

    def opens(self, path, **how):
        self.browser.open(path, **how)
        self.assertEqual(self.browser.complaints(), [])
        self.assertEqual(self.browser.requests(), ["file://" + path])

    def colours(self, selector):
        """Background and text of an element, as numbers."""
        return self.browser.run(
            f"""(() => {{ const s = getComputedStyle(document.querySelector({json.dumps(selector)}));
          const numbers = (c) => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
          return [numbers(getComputedStyle(document.body).backgroundColor),
                  numbers(s.fill === "rgb(0, 0, 0)" ? s.color : s.fill)]; }})()""")

    @staticmethod
    def contrast(a, b):
        """Of WCAG 2.1."""
        def luminance(colour):
            parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    def test_light_dark_narrow_wide(self):
        path = self.draw("r", report_sample.report())
        for dark in (False, True):
            for width in (340, 1400):
                with self.subTest(dark=dark, width=width):
                    self.opens(path, width=width, dark=dark)
                    self.assertLessEqual(self.browser.run("document.documentElement.scrollWidth"), width)
                    self.assertEqual(self.browser.run("document.getElementById('unit-view').hidden"), False)
                    paper, _ = self.colours("h1")
                    self.assertEqual(sum(paper) < 150, dark)
                    for selector, least in ((".meta", 4.5), ("h1", 7), (".bad > .level", 4.5),
                                            (".good > .level", 4.5), ("a", 4.5), ("svg text.f2", 7),
                                            ("svg text.f3", 4.5)):
                        self.assertGreaterEqual(self.contrast(*self.colours(selector)), least, selector)
                    for i in range(5, 9 + 8):  # lines and markers: 1.4.11
                        fill = self.browser.run(
                            f"""(() => {{ const p = document.createElementNS("http://www.w3.org/2000/svg", "rect");
                          p.setAttribute("class", "f{i}"); document.querySelector("svg").append(p);
                          return getComputedStyle(p).fill.match(/\\d+/g).map(Number); }})()""")
                        self.assertGreaterEqual(self.contrast(paper, fill), 3, i)
                    self.browser.picture(self.path("shown.png"))
                    self.assertGreater(len(self.read("shown.png")), 15000)
        # Printed it is light, whatever the screen is.
        self.browser.open(path, dark=True)
        self.browser.call("Emulation.setEmulatedMedia", media="print", features=[
                          {"name": "prefers-color-scheme", "value": "dark"}])
        self.assertEqual(self.colours("h1")[0], [255, 255, 255])
        self.browser.call("Emulation.setEmulatedMedia", media="")

    TEXTS = """(() => {
      const numbers = (c) => { const n = c.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
      const over = (top, below) => below.map((b, i) => b * (1 - top[3]) + top[i] * top[3]);
      const behind = (e) => {
        if (!e) return numbers(getComputedStyle(document.body).backgroundColor).slice(0, 3);
        const colour = numbers(getComputedStyle(e).backgroundColor);
        return colour[3] === 1 ? colour.slice(0, 3) : over(colour, behind(e.parentElement));
      };
      const found = [];
      document.querySelectorAll("details").forEach((d) => { d.open = true; });
      for (const e of document.querySelectorAll("body *")) {
        const own = [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
        if (!own || e.closest("svg, script") || !e.getClientRects().length || e.className === "hidden") continue;
        const style = getComputedStyle(e), back = behind(e);
        found.push([e.tagName + "." + e.className, over(numbers(style.color), back), back, parseFloat(style.fontSize)]);
      }
      return found; })()"""

    def test_every_text_stands_out(self):
        """WCAG 2.1, 1.4.3, whatever stands behind it: boxes, and the colours of units at their strongest."""
        path = self.draw("c", report_sample.report())
        with open(path, encoding="utf-8") as file:
            strongest = float(re.search(r"STRONGEST = ([\d.]+)", file.read())[1])
        for dark in (False, True):
            self.opens(path, dark=dark)
            for colour in ("up", "down"):
                self.browser.run(f"""document.querySelectorAll("#unit-text span").forEach((s) => {{
                  s.className = "{colour}"; s.style.setProperty("--a", {strongest}); }})""")
                texts = self.browser.run(self.TEXTS)
                self.assertGreater(len(texts), 300)
                for name, text, back, size in texts:
                    self.assertGreaterEqual(self.contrast(text, back), 3 if size >= 24 else 4.5, (dark, name, text, back))

    def test_everything_is_reached_by_keys_and_shows_it(self):
        self.opens(self.draw("k", report_sample.report()))
        wanted = self.browser.run("""[...document.querySelectorAll("a[href], summary, [tabindex], select, input, button")]
          .filter((e) => e.checkVisibility() && !(e.closest("details:not([open])") && e.tagName !== "SUMMARY")).length""")
        seen = []
        for _ in range(wanted + 1):
            self.browser.key("Tab")
            seen.append(self.browser.run("""(() => { const e = document.activeElement, s = getComputedStyle(e);
              const all = [...document.querySelectorAll("*")];
              return [e.tagName, all.indexOf(e), s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2]; })()"""))
        stops = [s for s in seen if s[0] != "BODY"]
        self.assertEqual(len({s[1] for s in stops}), wanted)
        self.assertTrue(all(s[2] for s in stops), [s for s in stops if not s[2]])
        order = [s[1] for s in stops[:wanted]]
        self.assertEqual(order, sorted(order))  # in the order in which they stand

    FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

    def chosen(self):
        return self.browser.run(
            """[...document.querySelectorAll('#unit-text .in')].map((s) => s.textContent).join('')""")

    def most(self):
        return self.browser.run("document.querySelector('#unit-most tbody button').textContent")

    def test_a_span_by_keys_mouse_and_numbers(self):
        text = report_sample.TEXT
        self.opens(self.draw("s", report_sample.report(text=text)))
        at = text.index(PHRASE)
        self.browser.run(f"""(() => {{ const set = (id, v) => {{ const e = document.getElementById(id); e.value = v;
          e.dispatchEvent(new Event("change")); }};
          set("unit-from", {at + 1}); set("unit-to", {at + len(PHRASE)}); }})()""")
        self.assertEqual(self.chosen(), PHRASE)
        self.assertEqual(self.most(), "unit 8")
        self.assertRegex(self.browser.run("document.getElementById('unit-span').textContent"),
                         r"Most active: unit 8, mean 0\.95\d\.")  # in hundredths of 0.97

        self.browser.run("document.getElementById('unit-text').focus()")
        self.browser.key("Home")
        for _ in range(4):
            self.browser.key("ArrowRight")
        self.assertEqual(self.chosen(), text[4])
        for _ in range(3):
            self.browser.key("ArrowRight", shift=True)
        self.assertEqual(self.chosen(), "gate")
        self.browser.key("ArrowDown")  # one line down, as far to the right
        self.assertEqual(self.chosen(), text.split("\n")[1][7])
        self.browser.key("End", shift=True)
        self.assertTrue(self.chosen().endswith("of them).↵\n"))

        # Two frames later the scrolling is done, so that the mouse meets what it
        # should, and the page has heard of a selection.
        first, last = self.browser.run(f"""(async () => {{ const spans = document.querySelectorAll('#unit-text span');
          spans[{at}].scrollIntoView({{block: "center"}});
          await {self.FRAMES};
          return [{at}, {at + len(PHRASE) - 1}].map((i) => spans[i].getBoundingClientRect())
            .map((r) => [r.left, r.top + r.height / 2, r.right]); }})()""")
        self.browser.drag((first[0] + 1, first[1]), (last[2] - 1, last[1]))
        self.browser.run(self.FRAMES)
        self.assertEqual(self.chosen(), PHRASE)
        self.assertEqual(self.most(), "unit 8")
        self.assertEqual(self.browser.complaints(), [])

        self.browser.run("document.querySelector('#unit-most tbody button').click()")
        self.assertEqual(self.browser.run("document.getElementById('unit-shown').selectedOptions[0].text"), "unit 8")
        strength = self.browser.run(
            f"Number(getComputedStyle(document.querySelectorAll('#unit-text span')[{at}]).getPropertyValue('--a'))")
        self.assertAlmostEqual(strength, 0.5 * 0.95 / 0.97, delta=0.01)

    def test_strings_of_files_run_nothing(self):
        report = report_sample.report(layers=(HOSTILE, HOSTILE + "2"))
        report["model"]["path"] = report["verdict"]["text"] = report["units"]["tokens"][0] = HOSTILE
        report["attention"][0]["source"][0] = report["model"]["cell"] = HOSTILE
        path = self.draw("h", report)
        self.browser.call("Page.addScriptToEvaluateOnNewDocument",
     source="window.hits = 0; window.hit = () => { window.hits++; };")
        self.opens(path)
        self.assertEqual(self.browser.run("window.hits"), 0)
        self.assertEqual(self.browser.run("document.images.length"), 0)
        self.assertIn(HOSTILE, self.browser.run("document.getElementById('unit-text').textContent"))

    def test_a_large_report_does_not_freeze_it(self):
        report = report_sample.report(steps=20000, text=report_sample.TEXT * 60)
        path = self.draw("l", report)
        start = time.monotonic()
        self.opens(path)
        for x in (100, 5000):
            self.browser.run(f"""(() => {{ const e = document.getElementById("unit-to"); e.value = {x};
              e.dispatchEvent(new Event("change")); return document.body.offsetHeight; }})()""")
        self.assertLess(time.monotonic() - start, 20)
        self.assertEqual(self.browser.run("document.querySelectorAll('#unit-text span').length"), 4000)
        self.assertIn("Here are the first 4000 of ", self.browser.run("document.getElementById('units').textContent"))


if __name__ == "__main__":
    if not browser.PROGRAM:
        print("no Chromium: script/setup --browser installs it")
        sys.exit(77)
    unittest.main()
