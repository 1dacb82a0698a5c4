#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`unroll conform`: the cpu backend is right and nothing is left out; every fault of a plugin is found, and called by its name."""
import json
import os
import re
import subprocess
import sys
import unittest

BUILD = os.environ.get("UNROLL_BUILD_DIR", "build/release")
UNROLL = os.path.join(BUILD, "bin", "unroll")
PLUGINS = os.environ.get("UNROLL_TEST_PLUGINS", os.path.join(BUILD, "tests", "plugins"))
VERDICTS = {"passed", "failed", "crashed", "skipped", "unsupported"}
TIMEOUT = 240


def plugin(name):
    return os.path.join(PLUGINS, name + ".so")


def conform(*arguments, **variables):
    return subprocess.run([UNROLL, "conform", *arguments], text=True, timeout=TIMEOUT, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **variables})


class Case(unittest.TestCase):
    def judged(self, code, *arguments, **variables):
        done = conform(*arguments, "--json", **variables)
        self.assertEqual(done.returncode, code, done.stdout[-3000:] + done.stderr)
        return json.loads(done.stdout)

    def faulty(self, fault, only, code=1, *arguments):
        return self.judged(code, plugin("faulty"), "--only", only, *arguments, UNROLL_FAULT=fault)

    def refused(self, code, message, *arguments, **variables):
        done = conform(*arguments, **variables)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertIn(message, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1 if code == 1 else done.stderr.count("\n"))


class Cpu(Case):
    @classmethod
    def setUpClass(cls):
        cls.done = conform("cpu", "--json")
        cls.report = json.loads(cls.done.stdout)

    def test_every_case_passes(self):
        bad = [(c["name"], c["error"]) for c in self.report["list"] if c["verdict"] != "passed"]
        self.assertEqual(bad, [])
        self.assertEqual(self.done.returncode, 0)

    def test_no_hole(self):
        self.assertEqual([c for c in self.report["coverage"] if c["cases"] == 0], [])
        ops = [c["op"] for c in self.report["coverage"] if c["attribute"] == ""]
        self.assertEqual(len(ops), 43)
        self.assertEqual(len(set(ops)), 43)

    def test_shape_of_the_report(self):
        report = self.report
        for key in ("plugin", "version", "vendor", "path", "device", "driver"):
            self.assertIsInstance(report[key], str)
        self.assertEqual(report["plugin"], "cpu")
        self.assertEqual(report["cases"], len(report["list"]))
        self.assertEqual(report["cases"], sum(report[v] for v in VERDICTS))
        for verdict in VERDICTS:
            self.assertEqual(report[verdict], sum(c["verdict"] == verdict for c in report["list"]))
        self.assertTrue(all(set(c) == {"name", "verdict", "error", "seconds"} for c in report["list"]))
        self.assertTrue(all(set(c) == {"op", "attribute", "value", "cases", "passed", "unsupported"}
                            for c in report["coverage"]))

    def test_list_is_what_ran(self):
        done = conform("--list")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        names = done.stdout.splitlines()
        self.assertEqual(names, [c["name"] for c in self.report["list"]])
        self.assertEqual(len(names), len(set(names)))

    def test_text(self):
        done = conform("cpu")
        self.assertEqual(done.returncode, 0)
        self.assertIn("plugin  cpu ", done.stdout)
        self.assertIn("  unary ", done.stdout)
        self.assertIn("  kind 15/15", done.stdout)
        self.assertIn("no hole", done.stdout)
        self.assertRegex(done.stdout.splitlines()[-1], r"^\d+ cases, seed 0: \d+ passed, 0 failed, 0 crashed, ")


class Choice(Case):
    def test_only(self):
        report = self.judged(0, "cpu", "--only", "^(argmax|softmax) .*f32$")
        names = [c["name"] for c in report["list"]]
        self.assertGreater(len(names), 20)
        self.assertTrue(all(re.search("^(argmax|softmax) .*f32$", name) for name in names))
        self.assertEqual(conform("--list", "--only", "^(argmax|softmax) .*f32$").stdout.splitlines(), names)
        text = conform("cpu", "--only", "^argmax").stdout
        self.assertNotIn("hole", text)

    def test_other_data(self):
        for seed in ("1", "12345678901234567"):
            self.judged(0, "cpu", "--only", "^(matmul|unary|reduce|lstm_gates|recurrence)", "--seed", seed)

    def test_the_seed_is_used(self):
        errors = [self.faulty("does_nothing", "^unary tanh 1 of rank 1, f32", 1, "--seed", seed)["list"][0]["error"]
                  for seed in ("0", "0", "1")]
        self.assertEqual(errors[0], errors[1])
        self.assertNotEqual(errors[0], errors[2])

    def test_in_process(self):
        self.judged(0, "cpu", "--only", "^(argmax|gru_reset)", "--in-process")
        self.judged(0, plugin("faulty"), "--only", "^(argmax|gru_reset)", "--in-process")

    def test_stop_at_failure(self):
        report = self.faulty("does_nothing", "^unary", 1, "--stop-at-failure")
        self.assertEqual((report["cases"], report["failed"]), (1, 1))

    def test_options_of_the_device(self):
        self.judged(0, plugin("patchwork"), "--only", "^unary then", "--option", "group=runs", "--option", "fixed_dims=1")
        report = self.judged(1, plugin("patchwork"), "--only", "^unary tanh 1 ", "--option", "mask=unary")
        self.assertIn("neither claimed nor declared: node 0, unary, is not claimed", report["list"][0]["error"])
        self.judged(0, plugin("patchwork"), "--only", "^unary tanh 1 ", "--device", "1")

    def test_wrong_usage(self):
        self.refused(2, "'unroll conform' needs PLUGIN")
        self.refused(2, "--only: '(' is no extended regular expression", "cpu", "--only", "(")
        self.refused(2, "--option: 'fast' is not KEY=VALUE", "cpu", "--option", "fast")
        self.refused(1, 'matches "no such case"', "cpu", "--only", "no such case")
        self.refused(1, "no device 7: it has 1", "cpu", "--device", "7")
        self.refused(1, 'option "speed"', "cpu", "--option", "speed=high")
        self.refused(1, 'no plugin "nothere": there ', "nothere")
        self.refused(1, "No such file", "./nothere.so")


class Unusable(Case):
    """What can't be loaded or opened is said in one line, whatever it does to its process."""

    def test_files(self):
        self.refused(1, "it has no ELF note", plugin("stub_no_note"))
        self.refused(1, "it has no symbol unroll_plugin_v1", plugin("stub_no_symbol"))
        self.refused(1, "can't be loaded: undefined symbol", plugin("stub_missing"))
        self.refused(1, "not a plugin of unroll", UNROLL)

    def test_opening(self):
        for way, message in [("score_zero", "of no use here: its score is 0"),
                             ("open_fails", "its open failed: no driver is installed"),
                             ("open_silent", "its open failed with status -9"),
                             ("open_aborts", "signal 6 (Aborted): stub: no topology in /sys"),
                             ("open_exits", "the process ended with exit code 3"),
                             ("open_hangs", "no answer within 300 ms"),
                             ("leaves_child", "the process ended with exit code 5"),
                             ("no_table", "gave no table of functions"),
                             ("no_run", "lacks run"),
                             ("short_table", "its table of functions has 64 bytes"),
                             ("count_fails", "its device_count failed: no platform answers"),
                             ("no_devices", "no device 0: it has 0"),
                             ("no_id", "has no id"),
                             ("", "its device_open failed: a stub")]:
            with self.subTest(way=way):
                self.refused(1, 'plugin "stub": ', plugin("stub"), "--timeout", "0.3", UNROLL_STUB=way)
                self.refused(1, message, plugin("stub"), "--timeout", "0.3", UNROLL_STUB=way)


class Faults(Case):
    """The cpu backend with one fault each: every case of those has to fail, for that reason."""

    def all_fail(self, fault, only, message, verdict="failed", *arguments):
        report = self.faulty(fault, only, 1, *arguments)
        self.assertGreater(report["cases"], 0)
        for case in report["list"]:
            self.assertEqual(case["verdict"], verdict, case)
            self.assertIn(message, case["error"], case)
        return report

    def test_none(self):
        self.faulty("", "^(unary|softmax|recurrence|run-time size|layer lstm)", 0)

    def test_wrong_results(self):
        self.all_fail("does_nothing", "^unary tanh 17 of", "nan, expected ")
        self.all_fail("stops_early", "^recurrence lstm step", ", expected ")
        self.all_fail("goes_on", "^run-time size 5 unary", "expected nan")
        self.all_fail("other_seeds", "^template dropout whole", "other bits in a second run")
        self.all_fail("spills", "^binary sub row,", "guard byte ")
        self.all_fail("biased", "^unary sigmoid 5000 of rank 1, f32", "NMSE 1.4")

    def test_crashes_end_a_case_and_not_the_run(self):
        report = self.faulty("crashes", "^unary (tanh 17 |tanh 7 |sigmoid|sqrt)")
        self.assertGreater(report["passed"], 20)
        for case in report["list"]:
            if "tanh" in case["name"]:
                self.assertEqual((case["verdict"], case["error"]), ("crashed", "signal 11 (Segmentation fault)"))
            else:
                self.assertEqual(case["verdict"], "passed")
        self.all_fail("exits", "^unary tanh 17", "the process ended with exit code 3", "crashed")

    def test_endless_crashes_come_to_an_end(self):
        report = self.all_fail("crashes_always", "^(unary|binary)", "", "crashed")
        self.assertGreater(report["cases"], 100)
        self.assertEqual([c["error"] for c in report["list"][:20]], ["signal 6 (Aborted)"] * 20)
        self.assertEqual({c["error"] for c in report["list"][20:]},
                         {"not tried: 20 cases in a row ended with signal 6 (Aborted)"})

    def test_hangs(self):
        report = self.all_fail("hangs", "^unary tanh", "no answer within 300 ms", "failed", "--timeout", "0.3")
        self.assertIn("not tried", report["list"][-1]["error"])
        report = self.faulty("hangs", "^unary (tanh 17|sigmoid 17)", 1, "--timeout", "0.3")
        self.assertEqual((report["failed"], report["passed"]), (2, 2))

    def test_prints(self):
        self.all_fail("prints", "^unary tanh 17", "printed: faulty: tanh")
        report = self.faulty("prints", "^unary (tanh|sigmoid) 17")
        self.assertEqual((report["failed"], report["passed"]), (2, 2))

    def test_closing(self):
        for fault, verdict, message in [("close_fails", "failed", "its close failed: work was still queued"),
                                        ("close_crashes", "crashed", "signal 11")]:
            report = self.faulty(fault, "^unary tanh 17")
            self.assertEqual([c["verdict"] for c in report["list"]], ["passed", verdict])
            self.assertIn("closing the plugin after it: ", report["list"][1]["error"])
            self.assertIn(message, report["list"][1]["error"])

    def test_private_groups(self):
        self.faulty("two_groups", "^(unary then|recurrence lstm step)", 0)

    def test_declarations(self):
        self.all_fail("masks", "^softmax", "neither claimed nor declared: node 0, softmax, is not claimed")
        self.all_fail("declares_much", "^softmax", 'declared unsupported by "softmax *", but claimed')
        report = self.faulty("declares", "^(softmax|argmax)", 0)
        self.assertEqual({(c["name"].split()[0], c["verdict"], c["error"]) for c in report["list"]},
                         {("softmax", "unsupported", "declared: softmax *"), ("argmax", "passed", "")})
        done = conform(plugin("faulty"), UNROLL_FAULT="declares_nothing")
        self.assertEqual(done.returncode, 1)
        self.assertIn('declares "convolution *" unsupported, which no case matches', done.stderr)

    def test_element_types(self):
        report = self.faulty("no_f64", "^softmax 1 ", 0)
        for case in report["list"]:
            self.assertEqual(case["verdict"], "unsupported" if case["name"].endswith("f64") else "passed")
        report = self.faulty("nothing", "^softmax 1 ")
        self.assertEqual(report["unsupported"], report["cases"])
        done = conform(plugin("faulty"), "--only", "^softmax 1 ", UNROLL_FAULT="nothing")
        self.assertIn("no case could be run", done.stderr)

    def test_text(self):
        done = conform(plugin("faulty"), "--only", "^unary", UNROLL_FAULT="does_nothing")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(re.findall(r"^failed: unary ", done.stdout, re.MULTILINE)), 20)
        self.assertRegex(done.stdout, r"\n\.\.\. and \d+ more; --json has all\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
