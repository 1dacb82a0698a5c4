#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""conform_opencl_test once more, with the kernels and sizes of work-groups that are chosen for a GPU."""
import sys

import conform_opencl_test

if __name__ == "__main__":
    sys.exit(conform_opencl_test.judge("conform_gpu", "--option", "kernels=gpu"))
