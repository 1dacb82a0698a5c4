# SPDX-License-Identifier: Apache-2.0
"""The random numbers that masks are made of: Philox4x32-10 (Salmon et al., SC 2011), laid out as philox.h says."""

import torch

WORD = 0xFFFFFFFF


def block(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [q >> 32 ^ c[1] ^ k[0], q & WORD, p >> 32 ^ c[3] ^ k[1], p & WORD]
        k = [k[0] + 0x9E3779B9 & WORD, k[1] + 0xBB67AE85 & WORD]
    return c


# Published with Random123 (kat_vectors).
assert block([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert block([WORD] * 4, [WORD] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def uniforms(seed, update, site, T, B, N):
    """[T,B,N] numbers in [0,1), from step 0 and row 0 on."""
    key = block([update & WORD, update >> 32, site, 0x6C6F726E], [seed & WORD, seed >> 32])[:2]
    words = [block([j >> 2, b, t, 0], key)[j & 3] for t in range(T) for b in range(B) for j in range(N)]
    return torch.tensor([(w >> 8) / 2**24 for w in words], dtype=torch.float64).reshape(T, B, N)
