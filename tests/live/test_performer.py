"""The live figure of the Performer post in Python, for the browser's test, and what its caption says."""

from functools import cache

import pytest
import torch

from tools.live import networks, normal

CASES = [{"Features": 64}, {"Features": 64, "Directions": "orthogonal", "Entries": 0.75, "Kind": "1", "Seed": 5}]
FAULT = "column[row] -= overlap *", "column[row] += overlap *"
TOLERANCE = 1e-3  # weights by sines and cosines are divided by sums that may be small


@cache
def network():
    return next(networks("LLM/Performer")).rounded()


def directions(kind: str, count: int, seed: int) -> torch.Tensor:
    """omega (M, 16), as `orthogonal_rows` of the page makes it, from the figure's random numbers."""
    rows = torch.from_numpy(normal(seed, 1, 256 * 16)).view(-1, 16)
    if kind == "independent":
        return rows[:count]
    rotation, upper = torch.linalg.qr(rows.view(16, 16, 16).double())
    rotation = rotation * upper.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    lengths = torch.from_numpy(normal(seed, 2, 256 * 16)).view(-1, 16).double().norm(dim=1, keepdim=True)
    return (lengths * rotation.flatten(0, 1))[:count].float()


def weights(values: dict) -> torch.Tensor:
    said = {"Features": 32, "Entries": 0.5, "Directions": "independent", "Seed": 1} | values
    used = said["Features"] // (1 + int(said.get("Kind", 0)))  # sines and cosines: two features of a direction
    query, key = float(said["Entries"]) * torch.from_numpy(normal(said["Seed"], 0, 2 * 24 * 16)).view(2, 24, 16)
    return network()(query, key, directions(said["Directions"], used, said["Seed"]))


def error(values: dict) -> float:
    """Of the estimate shown, relative to the exact matrix."""
    found = weights(values)
    return float((found[1 + int(values.get("Kind", 0))] - found[0]).norm() / found[0].norm())


def reference(values: dict) -> dict:
    """What the figure returns for what its controls say."""
    found = weights(values)
    return {"exact": found[0].flatten().tolist(), "estimate": found[1 + int(values.get("Kind", 0))].flatten().tolist()}


@pytest.mark.claim("performer-live")
def test_try_features_and_lengths():
    for seed in range(1, 6):
        few, usual, many = (error({"Features": count, "Seed": seed}) for count in (8, 32, 256))
        assert many < 2 / 3 * usual and usual < few
        assert error({"Features": 256, "Entries": 1, "Seed": seed}) > 3 * many
        waves = {"Features": 256, "Entries": 1, "Kind": "1", "Seed": seed}
        assert weights(waves)[2].min() < 0 < weights(waves)[1].min()
        assert error(waves) > error(waves | {"Kind": "0"})
