"""The live figure of the CFG post in Python, for the browser's test, and what its caption says."""

from functools import cache

import pytest
import torch

from snippets.cfg import guide
from snippets.ddpm import NoiseSchedule, eps_from_x0, linear_beta, sample_ddim
from tools.live import networks, normal

CASES = [{}, {"Class": "7", "Away from": "1", "Scale": "s = 1.5, w = 0.5", "Seed": "3"}]
FAULT = "+ scale * (Number(value)", "- scale * (Number(value)"


@cache
def unet():
    return next(networks("CFG")).rounded()


@cache
@torch.no_grad()
def draw(asked: int, scale: float, away: int, seed: int) -> torch.Tensor:
    schedule = NoiseSchedule(linear_beta())
    classes = [torch.full((10,), one) for one in (asked, away)]

    def predict(xt, t):
        x0 = guide(*(unet()(xt, t, one) for one in classes), scale)
        return eps_from_x0(schedule, xt, t, x0)

    noise = torch.tensor(normal(seed, 0, 640)).view(10, 1, 8, 8)
    return sample_ddim(predict, schedule, noise, 20, 0.0, torch.Generator())


def reference(values: dict) -> list:
    """What the figure returns for what its controls say."""
    said = {"Class": "4", "Away from": "10", "Scale": "s = 3, w = 2", "Seed": "1"} | values
    scale = float(said["Scale"].split(",")[0].removeprefix("s = "))
    asked, away, seed = (int(said[name]) for name in ("Class", "Away from", "Seed"))
    return [draw(asked, s, away, seed).flatten().tolist() for s in (1.0, scale)]


@pytest.mark.claim("cfg-live")
def test_try_scales_and_classes():
    for seed in range(1, 6):
        assert torch.equal(draw(4, 0.0, 10, seed), draw(8, 0.0, 10, seed))  # the class makes no difference
        plain, guided, far = (draw(4, s, 10, seed) for s in (1.0, 3.0, 8.0))
        apart = [float(torch.pdist(x.flatten(1)).mean()) for x in (plain, guided)]
        assert apart[1] < apart[0]  # more alike
        outside = [float((x.abs() > 1.1).float().mean()) for x in (plain, guided, far)]
        assert outside[2] > 2 * outside[1] and outside[1] > outside[0]
