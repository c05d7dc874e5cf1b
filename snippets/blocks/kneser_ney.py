"""Interpolated Kneser-Ney n-grams over bytes with three discounts (Chen and Goodman 1999, section 4.1.6).

Shapes: N bytes of a text.
"""

import numpy as np
import torch
from torch import Tensor

ORDERS = 5  # five bytes are an integer below 2^40


def grams(codes: np.ndarray, n: int) -> np.ndarray:
    """The n-gram that ends at each byte from the n-th on, as an integer in base 256: (N - n + 1,)."""
    value = np.zeros(len(codes) - n + 1, dtype=np.int64)
    for i in range(n):
        value = 256 * value + codes[i : len(codes) - n + 1 + i]
    return value


def discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from a count of 0, 1, 2, and 3 or more: (4,), by how many n-grams occur 1 to 4 times."""
    n = [max(1, (counts == k).sum()) for k in range(5)]
    ratio = n[1] / (n[1] + 2 * n[2])
    return np.array([0.0, *(np.clip(k - (k + 1) * ratio * n[k + 1] / n[k], 0, k) for k in (1, 2, 3))])


class KneserNey:
    """Probability of a byte after up to four others, counted on codes (N,)."""

    def __init__(self, codes: Tensor):
        if codes.ndim != 1 or len(codes) < ORDERS or codes.min() < 0 or codes.max() > 255:
            raise ValueError(f"at least {ORDERS} bytes (N,) are expected, given {tuple(codes.shape)}")
        self.tables = []
        seen = [np.unique(grams(codes.numpy(), n + 1), return_counts=True) for n in range(ORDERS)]
        for n, (found, counts) in enumerate(seen, 1):
            if n < ORDERS:  # lower orders count what may stand before an n-gram, not how often it occurs
                kinds, before = np.unique(seen[n][0] % 256**n, return_counts=True)
                counts = np.zeros(len(found), dtype=np.int64)
                counts[np.searchsorted(found, kinds)] = before
            discount = discounts(counts)
            start = np.flatnonzero(np.diff(found // 256, prepend=-1))  # where the n-grams of a context begin
            taken = np.add.reduceat(discount[np.minimum(counts, 3)], start)
            total = np.add.reduceat(counts, start)
            self.tables.append((found, counts, discount, found[start] // 256, total, taken))

    def probabilities(self, codes: Tensor) -> Tensor:
        """Probability of each byte of codes (N,) given those before it: (N,), float64."""
        values = codes.numpy()
        probability = np.full(len(values), 1 / 256)
        for n, (found, counts, discount, contexts, total, taken) in enumerate(self.tables, 1):
            gram = grams(values, n)
            at = np.minimum(np.searchsorted(found, gram), len(found) - 1)
            count = np.where(found[at] == gram, counts[at], 0)
            at = np.minimum(np.searchsorted(contexts, gram // 256), len(contexts) - 1)
            known = (contexts[at] == gram // 256) & (total[at] > 0)  # else the shorter context decides
            kept = count - discount[np.minimum(count, 3)] + taken[at] * probability[n - 1 :]
            probability[n - 1 :] = np.where(known, kept / np.maximum(total[at], 1), probability[n - 1 :])
        return torch.from_numpy(probability)

    def bits_per_byte(self, codes: Tensor) -> float:
        """Mean bits for each of codes (N,) but the first."""
        return -self.probabilities(codes)[1:].log2().mean().item()
