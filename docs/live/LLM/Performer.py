"""What the live figure of the Performer post computes with: exact weights, and those of the page's features."""

import torch
from torch import nn

from snippets.llm.performer import positive_features, trigonometric_features
from tools.live import Network

PLACES, DIM = 24, 16


class Weights(nn.Module):
    """Matrices of weights (3, T, T), exact and by two kinds of features, of queries and keys (T, D)."""

    def forward(self, query, key, omega):
        query, key = query / DIM**0.25, key / DIM**0.25
        kernels = [(query @ key.T).exp()]
        for features in (positive_features, trigonometric_features):
            kernels.append(features(query, omega) @ features(key, omega).T)
        return torch.stack([kernel / kernel.sum(dim=1, keepdim=True) for kernel in kernels])


def networks():
    query, key = torch.randn(2, PLACES, DIM) / 2
    for directions in (2, 4, 8, 16, 32, 64, 128, 256):  # the functions divide by len(omega), which an export fixes
        inputs = {"query": query, "key": key, "omega": torch.randn(directions, DIM)}
        yield Network(f"weights{directions}", Weights(), inputs, {})
