"""What the live figure of the RoPE post computes with: functions of the page, and frequencies by kind of stretch."""

import torch
from torch import nn

from snippets.llm.rope import angles, by_parts, inverse_frequencies, linear, mean_cosine, ntk_aware, rotate_pairs, yarn
from tools.live import Network

DIM, TRAINED, FACTOR, FARTHEST = 32, 128, 8.0, 256


class Scores(nn.Module):
    """Two vectors (1, 1, 2, D) turned to their positions (2,), their score, and the scores (T,) of equal ones."""

    def forward(self, vectors, positions, theta, distances):
        turned = rotate_pairs(vectors, angles(positions, theta))
        score = (turned[0, 0, 0] * turned[0, 0, 1]).sum() / theta.shape[0]
        return turned, score, mean_cosine(distances, theta)


def thetas() -> dict[str, torch.Tensor]:
    """Frequencies (P,) as trained, and stretched to texts eight times as long."""
    plain = inverse_frequencies(DIM)
    return {
        "as trained": plain,
        "interpolation": linear(plain, FACTOR),
        "NTK-aware": ntk_aware(DIM, FACTOR),
        "YaRN": yarn(DIM, FACTOR, TRAINED),
        "Llama 3.1": by_parts(plain, FACTOR, TRAINED, low=1.0, high=4.0),
    }


def networks():
    inputs = {
        "vectors": torch.randn(1, 1, 2, DIM),
        "positions": torch.tensor([3.0, 40.0]),
        "theta": thetas()["YaRN"].float(),
        "distances": torch.arange(FARTHEST + 1.0),
    }
    yield Network("rope", Scores(), inputs, {}, outputs=("turned", "score", "curve"))


def tables():
    return {"theta": {name: theta.tolist() for name, theta in thetas().items()}}
