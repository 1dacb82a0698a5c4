#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's own loader over the event files of every kind of training: tensorboard_loader.py, in the environment that
script/setup --tensorboard makes."""
import os
import sys

SOURCE = os.environ["UNROLL_SOURCE_DIR"]
PYTHON = os.path.join(SOURCE, "build", "tensorboard-venv", "bin", "python")

if not os.path.exists(PYTHON):
    print("no TensorBoard: script/setup --tensorboard installs it")
    sys.exit(77)
os.execv(PYTHON, [PYTHON, "-B", os.path.join(SOURCE, "tests", "tensorboard_loader.py")])
