#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`unroll cost`, as a user meets it."""
import json
import unittest

from command_test import CPU, Case

TEXT = "the quick brown fox jumps over the lazy dog;\n" * 40


class Cost(Case):
    def cost(self, *arguments):
        return json.loads(self.succeeds("cost", *arguments, "--json").stdout)

    def test_table(self):
        done = self.succeeds("cost", "--cell", "lstm", "--input", "10", "--hidden", "20", "--batch", "3")
        self.assertEqual(done.stderr, "")
        lines = done.stdout.split("\n")
        self.assertEqual(lines[0], "no model: layers alone, lstm, 1 layer of 20")
        self.assertEqual(lines[1], "a batch of 3 sequences of 64 steps")
        self.assertIn("4·(n_h + n_x + 1)·n_h = 2,480  with n_h = 20, n_x = 10", done.stdout)
        for words in ("FLOPs", "bytes read", "matmul", "lstm_gates_grad", "BPTT", "Transformer"):
            self.assertIn(words, done.stdout)
        self.assertTrue(all(len(line) <= 110 for line in lines), max(lines, key=len))
        self.assertTrue(all(line == line.rstrip() for line in lines), [line for line in lines if line != line.rstrip()])

    def test_numbers(self):
        cost = self.cost("--cell", "gru_after", "--input", "10", "--hidden", "20", "--time-steps", "7", "--batch", "3",
                         "--at", "5,1000", "--k1", "2", "--k2", "4", "--heads", "2")
        self.assertEqual(cost["parameters"], 3 * 31 * 20 + 20)
        self.assertEqual(cost["formula"], "3·(n_h + n_x + 1)·n_h + n_h")
        self.assertEqual((cost["steps"], cost["batch"]), (7, 3))
        ops = {op["op"]: op for op in cost["ops"]}
        self.assertEqual(ops["gru_after_gates"]["flops"], 8 * 7 * 3 * 20)
        self.assertEqual(sum(op["flops"] for op in cost["ops"]), sum(cost["flops"].values()))
        self.assertEqual(sum(op["read"] for op in cost["ops"]), cost["bytes"]["read"])
        memory = cost["memory"]
        self.assertEqual(memory["T"], [5, 1000])
        step = 4 * 3 * 20 * (1 + 4 + 3)  # h before and four gates are saved; three gates' gradients
        self.assertEqual(memory["bptt"], [t * step + 240 for t in (5, 1000)])
        self.assertEqual(memory["truncated"], [4 * step + 240] * 2)
        self.assertEqual(memory["transformer"], [t * 3 * 20 * 66 + 2 * t * t * 3 * 9 for t in (5, 1000)])
        self.assertLess(memory["checkpointed"][1], memory["bptt"][1])

    def test_models(self):
        text, model = self.write("text.txt", TEXT), self.path("m.safetensors")
        self.succeeds("train", "lm", "--text", text, *CPU, "--cell", "gru", "--hidden", "12", "--layers", "1",
                      "--embedding", "6", "--steps-per-update", "8", "--update-every", "5", "--batch", "4", "--updates", "1",
                      "--out", model)
        cost = self.cost(model)
        self.assertEqual(cost["layer_parameters"], 3 * (12 + 6 + 1) * 12)
        vocabulary = len(set(TEXT))
        self.assertEqual(cost["parameters"], 3 * 19 * 12 + vocabulary * 6 + vocabulary * 12 + vocabulary)
        self.assertEqual((cost["steps"], cost["batch"]), (8, 4))
        self.assertEqual((cost["memory"]["k1"], cost["memory"]["k2"]), (5, 8))
        other = self.cost(model, "--time-steps", "16", "--batch", "1")
        self.assertEqual((other["steps"], other["batch"]), (16, 1))
        self.assertEqual(other["memory"]["T"], [16, 64, 256, 1024])
        self.assertEqual(other["parameters"], cost["parameters"])
        self.assertIn("language model, gru, 1 layer of 12", self.succeeds("cost", model).stdout)
        self.fails(2, "--hidden is for layers alone", "cost", model, "--hidden", "3")

    def test_wrong_use(self):
        self.fails(2, "--time-steps: '0' is not a whole number from 1", "cost", "--time-steps", "0")
        self.fails(2, "--at: '5,x' is no list of whole numbers", "cost", "--at", "5,x")
        self.fails(2, "--at: '0' is no list of whole numbers", "cost", "--at", "0")
        self.fails(2, "--at: more than 16 numbers", "cost", "--at", ",".join("1" * 17))
        self.fails(1, "k1 = 50 and k2 = 20", "cost", "--k1", "50", "--k2", "20")
        self.fails(1, "3 heads do not divide a width of 128", "cost", "--heads", "3")
        self.fails(1, "No such file", "cost", self.path("none.safetensors"))
        self.fails(1, "don't fit into 64 bits", "cost", "--hidden", "65536", "--time-steps", "1048576", "--batch",
                   "1048576")
        self.fails(1, "none.txt", "cost", self.write("none.txt", "no model"))
        done = self.succeeds("cost", "--layer-norm")
        self.assertIn("not known (checkpoints: with layer_norm a layer is a scan", done.stdout)
        self.assertNotIn("memory", self.cost("--layer-norm"))


if __name__ == "__main__":
    unittest.main()
