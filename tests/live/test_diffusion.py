"""The live figure of the DDPM post in Python, for the browser's test, and what its caption says."""

from functools import cache

import pytest
import torch

from snippets.data.digits import digits
from snippets.ddpm import NoiseSchedule, ddim_levels, ddim_step, linear_beta
from tools.live import networks, normal

CASES = [{"Steps": 20}, {"Steps": 10, "Sampler": "1", "Seed": "7"}]  # by the controls' labels
FAULT = "+ direction *", "- direction *"  # in the script
SHAPE = 10, 1, 8, 8


@cache
def unet():
    return next(networks("Diffusion")).rounded()


@cache
@torch.no_grad()
def draw(steps: int, eta: float, seed: int) -> torch.Tensor:
    schedule = NoiseSchedule(linear_beta())
    levels = ddim_levels(schedule, steps)
    noise = [torch.tensor(normal(seed, stream, 640)).view(SHAPE) for stream in range(steps + 1)]
    xt = noise[0]
    for level, lower, fresh in zip(levels[:-1], levels[1:], noise[1:], strict=True):
        t = torch.full((10,), level)
        xt = ddim_step(schedule, xt, t, torch.full_like(t, lower), unet()(xt, t), eta, fresh)
    return xt


def reference(values: dict) -> list[float]:
    """What the figure returns for what its controls say."""
    said = {"Steps": 20, "Sampler": "0", "Seed": "1"} | values
    return draw(said["Steps"], float(said["Sampler"]), int(said["Seed"])).flatten().tolist()


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of ten pairs of images, the middle root mean square of their difference; a pixel goes from -1 to 1."""
    return float((a - b).clamp(-2, 2).square().mean((1, 2, 3)).sqrt().median())


@pytest.mark.claim("ddpm-live")
def test_try_steps_and_samplers():
    train = digits()[0].flatten(1)
    for seed in range(1, 6):
        one, five, twenty, many = (draw(steps, 0.0, seed) for steps in (1, 5, 20, 250))
        far = [torch.cdist(x.flatten(1), train).min(1).values.mean() for x in (one, five, twenty)]
        assert far[0] > 4 * far[2]  # noise: far from every digit
        assert far[1] < 1.2 * far[2]  # as near to real digits as twenty steps come
        assert apart(twenty, many) < 0.1
        assert apart(twenty, draw(20, 1.0, seed)) > 0.5
