"""The live figure of the NCSN post in Python, for the browser's test, and what its caption says."""

from functools import cache

import pytest
import torch

from snippets.data.toy2d import toy2d
from snippets.ncsn import choose_epsilon, geometric_ladder, langevin_step, step_sizes
from tools.live import networks, normal

CASES = [
    {"Fields at level": "10 (noise 0.62)"},
    {"Langevin dynamics": "naive", "Drop at, across": "2", "up": "0.5", "Seed": 8},
]
FAULT = "value + (sizes[here] / 2)", "value - (sizes[here] / 2)"
TOLERANCE = 1e-3  # a point between two blobs doubles a difference of rounding from step to step: 1.0e-4 was seen
SIGMA = geometric_ladder(6.0, 0.05, 20)
GRID = torch.tensor([[(at % 13) * 0.6 - 3.6, at // 13 * 0.6 - 3.6] for at in range(169)])


@cache
def network():
    return next(networks("NCSN")).rounded()


@torch.no_grad()
def fields(level: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The learnt score and the exact one, on the figure's grid."""
    learnt = network()(GRID, torch.full((169,), level))
    return learnt, toy2d().score(GRID, 1.0, float(SIGMA[level]))


@cache
@torch.no_grad()
def dropped(dynamics: str, place: tuple[float, float], seed: int) -> torch.Tensor:
    x = torch.tensor(place).expand(200, 2)
    sizes = step_sizes(SIGMA, choose_epsilon(SIGMA, 5)).tolist()
    for at in range(100):
        level = 19 if dynamics == "naive" else at // 5
        noise = torch.tensor(normal(seed, at, 400)).view(200, 2)
        x = langevin_step(x, network()(x, torch.full((200,), level)), sizes[level], noise)
    return x


def reference(values: dict) -> dict:
    """What the figure returns for what its controls say."""
    said = {
        "Langevin dynamics": "annealed",
        "Fields at level": "20",
        "Drop at, across": -3,
        "up": 2,
        "Seed": 1,
    } | values
    place = float(said["Drop at, across"]), float(said["up"])
    level = int(said["Fields at level"].split()[0]) - 1
    learnt, exact = (float(SIGMA[level]) * field for field in fields(level))  # in units of the noise
    points = dropped(said["Langevin dynamics"], place, int(said["Seed"]))
    found = {"points": points, "learnt": learnt, "exact": exact}
    return {name: tensor.flatten().tolist() for name, tensor in found.items()}


def shares(points: torch.Tensor) -> torch.Tensor:
    """Of the points, how many are nearest to each blob."""
    nearest = torch.cdist(points.double(), toy2d().means).argmin(1)
    return torch.bincount(nearest, minlength=3) / len(points)


def cosine(level: int) -> float:
    """Between the learnt and the exact arrow, on average."""
    return float(torch.cosine_similarity(*[field.double() for field in fields(level)], dim=1).mean())


@pytest.mark.claim("ncsn-live")
def test_try_dynamics_and_levels():
    for seed in range(1, 6):
        annealed = shares(dropped("annealed", (-3.0, 2.0), seed))
        assert float((annealed - toy2d().weights).abs().max()) < 0.15 and annealed.min() > 0.1
        left, right = (shares(dropped("naive", place, seed)) for place in ((-3.0, 2.0), (3.0, -1.0)))
        assert max(left) > 0.95 and max(right) > 0.95 and left.argmax() != right.argmax()
    assert cosine(0) > 0.99 > cosine(19)
