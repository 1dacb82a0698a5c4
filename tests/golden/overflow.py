# SPDX-License-Identifier: Apache-2.0
"""Prints where a ReLU RNN of spectral radius 2.75 first leaves float32, by a NumPy loop: the numbers of finite_test.c."""

import numpy as np

T, B, I, H = 140, 3, 2, 6
LENGTHS = [140, 60, 140]
single = np.float32

W_h = np.array([[((7 * i + 3 * j) % 11 - 3) / 4 for j in range(H)] for i in range(H)], single)
W_x = np.array([[((5 * i + 2 * j) % 7 - 3) / 4 for j in range(I)] for i in range(H)], single)
b = np.array([(i % 3 - 1) / 4 for i in range(H)], single)
x = np.array([[[((5 * t + 3 * k + 2 * j) % 9 - 4) / 4 for j in range(I)] for k in range(B)] for t in range(T)], single)


def first():
    h = np.zeros((B, H), single)
    for t in range(T):
        a = x[t] @ W_x.T + h @ W_h.T + b
        for k in range(B):
            bad = np.nonzero(~np.isfinite(a[k]))[0]
            if t < LENGTHS[k] and len(bad) > 0:
                return t, k, bad[0], a[k][bad[0]], h[k].max()
        h = np.maximum(a, single(0))
    return None


with np.errstate(all="ignore"):
    print("radius %.4f" % max(abs(np.linalg.eigvals(W_h))))
    print("step %d, sequence %d, unit %d: %g; h before up to %.4g" % first())
