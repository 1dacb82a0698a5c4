#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`unroll conform` on plugins that deserve to fail: results that are made up, functions that do nothing, drivers that crash."""
import json
import os
import re
import subprocess
import unittest

BUILD = os.environ.get("UNROLL_BUILD_DIR", "build/release")
UNROLL = os.path.join(BUILD, "bin", "unroll")
PLUGINS = os.environ.get("UNROLL_TEST_PLUGINS", os.path.join(BUILD, "tests", "plugins"))

# Cases that look at no result of a node, so that a backend which keeps the rules and computes nothing passes them.
NO_RESULTS = re.compile("|".join([
    "^abi open and close again$",   # the plugin, a device and a queue, four times
    "^abi score$",
    "^abi device ",                 # how many, which, none with a wrong index, one opened twice with bytes in its buffers
    "^abi destroy NULL$",
    "^abi option unknown$",
    "^abi extension ids$",
    "^abi claim (alike|empty graph)$",
    "^abi buffer ",                 # bytes that come and go
    "^abi queue( |$)",
    "^abi sizes (device info|exec info|error)$",
    "^threads on one backend ask and open$",
    "^threads with buffers of their own$",
]))


def conform(plugin, *options, **environment):
    done = subprocess.run([UNROLL, "conform", os.path.join(PLUGINS, plugin + ".so"), *options], text=True, timeout=110,
                          check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env={**os.environ, **environment})
    return done


def report(plugin, *options):
    done = conform(plugin, "--json", *options)
    return done.returncode, json.loads(done.stdout)


def names(found, verdict):
    return {case["name"] for case in found["list"] if case["verdict"] == verdict}


class Liar(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.zeros_code, cls.zeros = report("liar")
        cls.other_code, cls.other = report("liar", "--option", "byte=90")

    def test_is_found_out(self):
        for code, found in ((self.zeros_code, self.zeros), (self.other_code, self.other)):
            self.assertEqual(code, 1)
            self.assertEqual(found["crashed"], 0)
            self.assertEqual(found["unsupported"], 0)  # it claims all there is
            self.assertGreater(found["failed"], 0.95 * found["cases"])

    def test_keeps_the_rules_of_buffers(self):
        for found in (self.zeros, self.other):
            for case in found["list"]:
                if case["name"].startswith(("abi buffer", "abi queue")):
                    self.assertIn(case["verdict"], ("passed", "skipped"), case)

    def test_no_result_can_be_made_up(self):
        """No result is made of bytes 0x5A: every case that passes nevertheless looks at none."""
        self.assertEqual({name for name in names(self.other, "passed") if not NO_RESULTS.search(name)}, set())

    def test_zeros_pass_where_zeros_are_right(self):
        """What passes with zeros and fails with other bytes did look at the result: zeros are right there."""
        zeros, failed = names(self.zeros, "passed"), names(self.other, "failed")
        for name in zeros:
            self.assertTrue(NO_RESULTS.search(name) or name in failed, name)
        self.assertLess(len(zeros), 0.04 * self.zeros["cases"])

    def test_skips_have_reasons(self):
        for case in self.zeros["list"]:
            if case["verdict"] == "skipped":
                self.assertRegex(case["error"], "^(has|makes) no ", case["name"])


class Others(unittest.TestCase):
    def test_twenty_lines(self):
        """A table of functions that say no gets a verdict for each case, and nothing crashes."""
        code, found = report("twenty")
        self.assertEqual(code, 1)
        self.assertEqual(found["crashed"], 0)
        self.assertGreater(found["failed"], 1000)
        for case in found["list"]:
            self.assertTrue(case["verdict"] == "passed" or case["error"], case["name"])
        self.assertTrue(all(name.startswith(("abi ", "threads ")) for name in names(found, "passed")))

    def test_stubs(self):
        """What can't be opened is no case: one line says why."""
        for way, reason in (("score_zero", "of no use here: its score is 0"),
                            ("open_fails", "its open failed: no driver is installed"),
                            ("open_silent", "its open failed with status -9"),
                            ("open_aborts", "signal 6 (Aborted): stub: no topology in /sys"),
                            ("open_exits", "the process ended with exit code 3"),
                            ("count_hangs", "no answer within 300 ms"),
                            ("no_devices", "no device 0: it has 0"),
                            ("no_table", "gave no table of functions"),
                            ("no_run", "its table of functions lacks run")):
            done = conform("stub", "--timeout", "0.3", UNROLL_STUB=way)
            self.assertEqual(done.returncode, 1, way)
            self.assertIn(reason, done.stderr, way)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for plugin, reason in (("stub_no_note", "it has no ELF note"), ("stub_no_symbol", "it has no symbol"),
                               ("stub_missing", "undefined symbol: unroll_stub_missing_function")):
            done = conform(plugin)
            self.assertEqual(done.returncode, 1, plugin)
            self.assertIn(reason, done.stderr, plugin)


if __name__ == "__main__":
    unittest.main()
