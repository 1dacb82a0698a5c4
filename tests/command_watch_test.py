#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`unroll train ... --watch`: curves in terminals of several kinds, seen through a small one of our own; lines without."""
import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import termios
import time
import unittest

from command_test import LM, TINY, UNROLL, WORDS, Case, pieces_of

BRAILLE = re.compile("[\u2801-\u28ff]")
TITLES = ("  loss  ", "  gradient norm  ", "  spectral radius  ", "  time  ")


class Screen:
    """What of a terminal the command uses: lines that scroll, a cursor that goes up, clearing, colours."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.lines, self.x, self.y, self.rest = [""], 0, 0, ""
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.scrolled = 0  # lines that can't be reached any more

    def feed(self, data):
        text, self.rest = self.rest + self.decoder.decode(data), ""
        cut = text.rfind("\x1b")
        if cut >= 0 and not re.match(r"\x1b\[[\d;?]*[A-Za-z]", text[cut:]):  # it goes on in the next piece
            text, self.rest = text[:cut], text[cut:]
        for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|.", text, re.DOTALL):
            self.take(part)

    def take(self, part):
        if part.startswith("\x1b"):
            number, command = part[2:-1], part[-1]
            line = self.lines[self.y]
            if command == "A":
                self.y = max(self.y - int(number), self.scrolled)
            elif command == "K":
                self.lines[self.y] = line[:self.x]
            elif command == "J":
                self.lines[self.y:] = [line[:self.x]]
            elif command != "m":
                raise AssertionError(f"unknown command {part!r}")
        elif part == "\r":
            self.x = 0
        elif part == "\n":
            self.y += 1
            if self.y == len(self.lines):
                self.lines.append("")
            self.scrolled = max(self.scrolled, len(self.lines) - self.rows)
        else:
            if self.x >= self.columns:  # what is told wraps, curves must not
                if re.search("[\u2801-\u28ff┤│]", self.lines[self.y]):
                    raise AssertionError(f"wider than the terminal: {self.lines[self.y]}")
                self.take("\n")
                self.x = 0
            line = self.lines[self.y].ljust(self.x)
            self.lines[self.y] = line[:self.x] + part + line[self.x + 1:]
            self.x += 1

    def count(self, text):
        return sum(text in line for line in self.lines)


class Watch(Case):
    def watch(self, columns, rows, *arguments, interrupt=False, **environment):
        """The screen at the end and all that was written; at no time a title stands there twice."""
        pid, terminal = pty.fork()
        if pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            inherited = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "LC_CTYPE", "LANG")}
            os.execvpe(UNROLL, [UNROLL, *LM, self.write("text.txt", WORDS * 20), *TINY, "--out",
                                self.path("m.safetensors"), "--evaluate-every", "30", "--watch", *arguments],
                       {**inherited, "TERM": "xterm", "LC_ALL": "C.UTF-8", **environment})
        screen, output = Screen(columns, rows), b""
        for piece in pieces_of(terminal):
            output += piece
            screen.feed(piece)
            for title in TITLES:
                self.assertLessEqual(screen.count(title), 1, "\n".join(screen.lines))
            if interrupt and BRAILLE.search(output.decode(errors="ignore")):
                os.kill(pid, signal.SIGINT)  # a ^C of the terminal's would throw away what was not read yet
                interrupt = False
        os.close(terminal)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, output)
        return screen, output.decode()

    def test_curves(self):
        screen, output = self.watch(100, 30, "--updates", "300")
        text = "\n".join(screen.lines)
        for title in TITLES:
            self.assertEqual(screen.count(title), 1, text)
        (top,) = [i for i, line in enumerate(screen.lines) if TITLES[0] in line]
        (low,) = [i for i, line in enumerate(screen.lines) if TITLES[2] in line]
        self.assertRegex(screen.lines[top - 2], "^epoch ")  # nothing is left of earlier pictures
        self.assertEqual(screen.lines[top - 1], "")
        self.assertIn(TITLES[1], screen.lines[top])
        self.assertIn(TITLES[3], screen.lines[low])
        self.assertRegex(screen.lines[top], r"o validation \d\.\d{4} +gradient norm  [\d.e-]+  clipped to 1 *$")
        self.assertRegex(screen.lines[low], r"spectral radius  [\d.]+  rnn\.W_h\.0\.0 [ifgo] +time  [\d.e+]+ ms  an update, ")
        for first in (top, low):
            curves = screen.lines[first + 1:first + 7]
            self.assertTrue(all("┤" in line or "│" in line for line in curves), text)
            self.assertTrue(BRAILLE.search("".join(curves)), text)
        self.assertIn("o", "".join(screen.lines[top + 1:top + 7]))
        self.assertEqual(screen.lines[low + 7], "        updates 1 to 300")
        self.assertRegex(screen.lines[low + 8], "^last ")  # the bar is gone, what follows stands below
        self.assertRegex(text[:text.index(TITLES[0])], r"epoch \d.*\n[^ ]*epoch .* update 300")
        self.assertIn("\x1b[36m", output)

    def test_without_colours(self):
        screen, output = self.watch(100, 30, "--updates", "60", NO_COLOR="1")
        self.assertEqual(screen.count(TITLES[0]), 1)
        self.assertEqual(set(re.findall(r"\x1b\[[\d;]*([A-Za-z])", output)), {"A", "J", "K"})

    def test_without_braille(self):
        for environment in ({"LC_ALL": "C"}, {"TERM": "linux"}):
            screen, output = self.watch(100, 30, "--updates", "60", **environment)
            self.assertEqual(screen.count(TITLES[0]), 1)
            self.assertIsNone(BRAILLE.search(output))
            if "LC_ALL" in environment:
                self.assertTrue(output.isascii())
                self.assertRegex("\n".join(screen.lines), r"\| *['.:]")

    def test_sizes(self):
        for columns, rows, across, curves in ((200, 50, 2, 6), (64, 20, 2, 6), (64, 14, 2, 3), (50, 30, 1, 4), (31, 30, 1, 4),
                                              (30, 30, 0, 0), (100, 9, 0, 0), (12, 3, 0, 0)):
            with self.subTest(columns=columns, rows=rows):
                screen, _ = self.watch(columns, rows, "--updates", "40")
                found = [sum(title in line for title in TITLES) for line in screen.lines]
                self.assertEqual([n for n in found if n], [across] * (4 // across) if across else [])
                self.assertEqual(screen.count("┤") + screen.count("│"), curves * 4 // across if across else 0)

    def test_interrupt(self):
        screen, _ = self.watch(100, 30, "--minutes", "1", interrupt=True)
        text = "\n".join(screen.lines)
        self.assertEqual(screen.count(TITLES[0]), 1, text)
        self.assertRegex(text, r"(?s)updates 1 to \d+\n.*unroll: stopping after this update.*\nstopped at update \d+.*--watch")

    def test_without_a_terminal(self):
        done = self.train(*TINY, "--out", self.path("p.safetensors"), "--updates", "60", "--watch")
        self.assertNotIn("\x1b", done.stderr)
        self.assertRegex(done.stderr, r"\n +\d+% loss [\d.]+ .*, update \d+/60, gradient [\d.]+, radius [\d.]+\n")
        dumb, output = self.watch(100, 30, "--updates", "60", TERM="dumb")
        self.assertNotIn("\x1b", output)
        self.assertEqual(dumb.count(TITLES[0]), 0)


if __name__ == "__main__":
    unittest.main()
